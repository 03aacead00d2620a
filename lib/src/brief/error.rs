//! What can be wrong with briefs. Every error names the file, the line and the cause; [`BriefError::hint`] says what
//! to do about it.

use std::fmt;
use std::path::PathBuf;

use thiserror::Error;

use super::MAX_BRIEF_BYTES;
use super::id::suggestion;
use crate::error::{Explain, Kind};

/// Briefs could not be read.
#[derive(Debug, Error)]
pub enum BriefError {
    /// There is nothing at the path.
    #[error("no such file: `{}`", path.display())]
    Missing { path: PathBuf },
    /// The path is a directory.
    #[error("`{}` is a directory, not a file of briefs", path.display())]
    Directory { path: PathBuf },
    /// The operating system refused to read it.
    #[error("cannot read `{}`: {cause}", path.display())]
    Unreadable { path: PathBuf, cause: String },
    /// The file is too large to be a file of briefs.
    #[error("`{}` is larger than {} MB", path.display(), limit >> 20)]
    FileTooLarge { path: PathBuf, limit: u64 },
    /// The file has no line with anything on it.
    #[error("`{}` holds no brief", path.display())]
    Empty { path: PathBuf },
    /// The file starts with `[`.
    #[error("`{}` starts like a JSON array, not like JSON lines", path.display())]
    JsonArray { path: PathBuf },
    /// Lines are wrong: up to [`super::load::MAX_PROBLEMS`] of them, in file order, and how many more there are.
    #[error("`{}` has {}", path.display(), Problems { listed: problems, more: *more })]
    Invalid { path: PathBuf, problems: Vec<Problem>, more: usize },
    /// A description that was given directly cannot be a brief.
    #[error(transparent)]
    Description(Fault),
}

impl Explain for BriefError {
    fn kind(&self) -> Kind {
        Kind::Input
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Missing { .. } => Some("run `hone init` for the shipped briefs, or give a file with --briefs".into()),
            Self::Directory { path } => {
                Some(format!("name a file in it, such as `{}`", path.join("train.jsonl").display()))
            }
            Self::Unreadable { .. } => Some("check the file's permissions".into()),
            Self::FileTooLarge { .. } => Some("split it; a thousand briefs take less than 1 MB".into()),
            Self::Empty { .. } => Some(
                "write one description a line, or JSON lines like {\"id\":\"form-1\",\"description\":\"a contact form\"}"
                    .into(),
            ),
            Self::JsonArray { path } => {
                let lines = path.with_extension("lines.jsonl");
                Some(format!("put one object on each line: jq -c '.[]' {} > {}", path.display(), lines.display()))
            }
            Self::Invalid { problems, .. } => problems.first().map(|problem| problem.fault.hint()),
            Self::Description(fault) => Some(fault.hint()),
        }
    }
}

/// What is wrong with one line of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line number, from 1.
    pub line: usize,
    pub fault: Fault,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.fault)
    }
}

/// Why something cannot be a brief.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Fault {
    /// Not valid UTF-8, from this byte of the line on (from 1).
    #[error("byte {byte} is not valid UTF-8")]
    NotUtf8 { byte: usize },
    /// JSON, but not an object.
    #[error("not a JSON object")]
    NotAnObject,
    /// Not JSON, or a field of the wrong type; `column` counts bytes from 1.
    #[error("column {column}: {cause}")]
    Json { column: usize, cause: String },
    /// The id cannot be a file name.
    #[error("unsafe id {id:?}: {why}")]
    UnsafeId { id: String, why: &'static str },
    /// Another line has the id already.
    #[error("id `{id}` is used on line {first} already")]
    DuplicateId { id: String, first: usize },
    /// Another line without an id has the same description.
    #[error("the description of line {first} again")]
    DuplicateDescription { first: usize },
    /// There is no description.
    #[error("no \"description\"")]
    NoDescription,
    /// The description has nothing but white space.
    #[error("the description is empty")]
    EmptyDescription,
    /// The UI is wanted in something that cannot be run here.
    #[error("framework `{framework}` is not supported yet")]
    Framework { framework: String },
    /// Description and requirements are longer than [`MAX_BRIEF_BYTES`] together.
    #[error("the brief has {bytes} bytes, at most {MAX_BRIEF_BYTES} (32 kB) are allowed")]
    TooLong { bytes: usize },
}

impl Fault {
    /// What the user can do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::NotUtf8 { .. } => "save the file as UTF-8".to_owned(),
            Self::NotAnObject | Self::NoDescription => {
                "each line is an object like {\"id\":\"form-1\",\"description\":\"a contact form\"}"
                    .to_owned()
            }
            Self::Json { .. } => {
                "each line is one whole JSON object; line breaks inside a text are written \\n".to_owned()
            }
            Self::UnsafeId { id, .. } => format!("call it `{}`", suggestion(id)),
            Self::DuplicateId { .. } => {
                "give each brief an id of its own; logs are named after it".to_owned()
            }
            Self::DuplicateDescription { .. } => {
                "remove one of the two lines, or give both an \"id\"".to_owned()
            }
            Self::EmptyDescription => {
                "say what the UI is for, such as \"a contact form with name and email\"".to_owned()
            }
            Self::Framework { .. } => "leave it out, or say `Streamlit`; others come later".to_owned(),
            Self::TooLong { .. } => {
                "describe the UI in words; data and documents do not belong in a brief".to_owned()
            }
        }
    }
}

/// "1 problem: line 3: ..." or a list, one line each.
struct Problems<'a> {
    listed: &'a [Problem],
    more: usize,
}

impl fmt::Display for Problems<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let ([only], 0) = (self.listed, self.more) {
            return write!(f, "a problem on {only}");
        }
        write!(f, "{} problems", self.listed.len() + self.more)?;
        for problem in self.listed {
            write!(f, "\n  {problem}")?;
        }
        if self.more > 0 {
            write!(f, "\n  and {} more", self.more)?;
        }
        Ok(())
    }
}
