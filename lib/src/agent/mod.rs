//! The UI agent: a prompt, a chat model or the user's own program, and a reader of its replies.

mod chat;
mod own;
mod program;
mod prompt;
mod prompts;
mod reply;

use serde::{Deserialize, Serialize};

pub use chat::{Agent, Reply};
pub use own::{Own, Writer};
pub use program::Program;
pub use prompt::reply_of;
pub use prompts::{Improvement, PromptError, Prompts, SYSTEM, ShownApp, ShownGuideline, ShownIssue};
pub(crate) use reply::may_hold_files;
pub use reply::{MAX_REPLY, parse_reply};

/// One file of a candidate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceFile {
    /// Relative path, without `..`.
    pub path: String,
    pub content: String,
}

/// The files that a reply contains, in the order it gave them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Candidate {
    pub files: Vec<SourceFile>,
}

impl Candidate {
    /// A candidate of one file.
    pub fn single(path: impl Into<String>, content: impl Into<String>) -> Self {
        Self { files: vec![SourceFile { path: path.into(), content: content.into() }] }
    }

    /// The file that is run: the first Python file that imports Streamlit, else the first Python file, else the first.
    pub fn main(&self) -> Option<&SourceFile> {
        let python = || self.files.iter().filter(|f| f.path.ends_with(".py"));
        python().find(|f| imports_streamlit(&f.content)).or_else(|| python().next()).or(self.files.first())
    }
}

/// An import, not a word in a comment or a title.
pub(crate) fn imports_streamlit(code: &str) -> bool {
    code.lines().map(str::trim_start).any(|line| {
        let rest = line.strip_prefix("import ").or_else(|| line.strip_prefix("from "));
        rest.is_some_and(|rest| rest.split([' ', ',', '.']).any(|word| word == "streamlit"))
    })
}
