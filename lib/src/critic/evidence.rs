//! What was observed about a candidate: the only thing that a score may look at.
//!
//! Evidence is plain data, so that logs hold it, tests write it by hand, and the same evidence gives the same score on
//! any machine. What differs between two observations of the same candidate stands under [`Evidence::timing`].

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Habit, VERSION, browser::Rendered, used::After, witness::Agreement};

/// How far the observation went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    #[default]
    Static,
    Run,
    Browser,
}

/// Everything observed about one candidate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Evidence {
    /// How far the observation went.
    pub level: Level,
    /// Version of the critic that looked.
    pub critic: String,
    /// Hash of paths and contents of the candidate's files.
    pub source_sha256: String,
    /// Ruff; at level `run` also Python and Streamlit.
    pub versions: BTreeMap<String, String>,
    pub sandbox: SandboxFacts,
    #[serde(rename = "static")]
    pub statics: Statics,
    /// Null when nothing was run because the user opted for static scoring.
    pub run: Option<Run>,
    /// Pages beyond the one that an app opens with; no browser looks at them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pages: Vec<PageFacts>,
    /// What was tried, in order.
    pub actions: Vec<Action>,
    /// Controls that were there and were not tried (files to upload, tables to edit, more than the limit).
    pub untried: u32,
    pub brief: BriefMatch,
    /// What a browser showed; null when none looked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub browser: Option<Rendered>,
    /// Whether the witnesses tell the same.
    #[serde(skip_serializing_if = "Agreement::is_plain")]
    pub agreement: Agreement,
    pub timing: Timing,
}

impl Default for Evidence {
    fn default() -> Self {
        Self {
            level: Level::default(),
            critic: VERSION.to_owned(),
            source_sha256: String::new(),
            versions: BTreeMap::new(),
            sandbox: SandboxFacts::default(),
            statics: Statics::default(),
            run: None,
            pages: Vec::new(),
            actions: Vec::new(),
            untried: 0,
            brief: BriefMatch::default(),
            browser: None,
            agreement: Agreement::default(),
            timing: Timing::default(),
        }
    }
}

/// Where the candidate ran.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SandboxFacts {
    /// `bubblewrap` or `none`.
    pub kind: String,
    /// `own-uid` (dropped from root, limits on processes bind), `user-namespace`, or `none`.
    pub isolation: String,
    /// The kernel refuses the candidate calls that no user interface needs.
    pub seccomp: bool,
    /// Forked from a parent that other candidates' workers come from too, into namespaces of its own.
    pub forked: bool,
}

impl SandboxFacts {
    /// In one word: `own-uid` or `user-namespace`, with `+seccomp` where the kernel filters calls; `none`.
    pub fn level(&self) -> String {
        let seccomp = if self.seccomp { "+seccomp" } else { "" };
        format!("{}{seccomp}", self.isolation)
    }
}

impl Default for SandboxFacts {
    fn default() -> Self {
        Self { kind: "none".to_owned(), isolation: "none".to_owned(), seccomp: false, forked: false }
    }
}

/// Something found at a place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Fault {
    /// `file:line:column`, 1-based.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    pub message: String,
}

impl Fault {
    pub fn new(at: impl Into<String>, message: impl Into<String>) -> Self {
        Self { at: Some(at.into()), message: message.into() }
    }
}

/// Facts from the source alone. They never score by themselves except where docs/design/critic.md says so.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Statics {
    pub files: Vec<FileFacts>,
    /// Syntax errors.
    pub errors: Vec<Fault>,
    /// Modules imported, without repetition, in order.
    pub imports: Vec<String>,
    pub calls: Vec<Call>,
    /// Names of what else is called where it can run, such as `pie` and `set_title`, each once.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub other_calls: BTreeSet<String>,
    /// What reaches for the machinery that observes it, or for the machine.
    pub tamper: Vec<Fault>,
    /// Keys and passwords by their shape.
    pub secrets: Vec<Fault>,
    /// Calls of what Streamlit no longer has.
    pub removed: Vec<Fault>,
    /// What reads who looks at the app (`st.context`): a witness that is told apart can be told something else.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub audience: Vec<Fault>,
    /// What shows the whole of `st.session_state`, which changes with everything.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub whole_state: Vec<Fault>,
    /// Controls with an empty label.
    pub empty_labels: Vec<Fault>,
    /// Blocks that can never run.
    pub dead: Vec<Fault>,
    /// Findings of ruff.
    pub lint: Vec<Lint>,
    /// Functions and methods defined.
    pub functions: u32,
    /// `st.set_page_config` names the page.
    pub page_title: bool,
}

/// What one file of the reply is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FileFacts {
    pub path: String,
    /// Lines that are not blank.
    pub lines: u32,
    /// Those of them that are configuration.
    pub config_lines: u32,
    /// Python by name or content, so its syntax counts.
    pub python: bool,
    /// Python without syntax errors.
    pub parses: bool,
    /// Imports Streamlit and calls it outside dead blocks.
    pub ui: bool,
}

/// A call of Streamlit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Call {
    /// Such as `st.button`; objects from `st.columns` and the like count as `st`.
    pub path: String,
    /// The first argument when it is a literal text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// `file:line:column`, 1-based.
    pub at: String,
    /// It stands in a block that can never run.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub dead: bool,
}

/// A finding of ruff.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Lint {
    pub code: String,
    pub at: String,
    pub message: String,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    /// It settled without an uncaught exception.
    Ready,
    /// It raised, or did not compile.
    Error,
    /// The process ended before it answered.
    Died,
    /// No answer within the time limit.
    TimedOut,
    /// It answered with more than may be read.
    TooLarge,
    /// It was certain from the source that nothing can render; `detail` says why.
    #[default]
    Skipped,
}

/// The first run, as Streamlit's agent API reports it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Run {
    pub status: RunStatus,
    /// More about the status, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Uncaught exceptions.
    pub exceptions: Vec<Exception>,
    /// What rendered, without repetition (same type and text), containers and exceptions left out.
    pub elements: Vec<Element>,
    /// Everything that rendered, repetitions included.
    pub total: u32,
    /// Those in closed expanders, popovers and dialogs.
    pub tucked: u32,
    /// How often the control is there that is there most often, by kind and label.
    pub most_repeated: u32,
    /// Containers in use: columns, tabs, form, sidebar...
    pub containers: BTreeSet<String>,
    pub headings: Vec<Heading>,
    /// Styles or markup that hide content, which no browser was there to see through.
    pub hiding: bool,
    /// Size of the first answer.
    pub bytes: u64,
}

/// Another page of the app.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PageFacts {
    /// As its address has it.
    pub path: String,
    pub status: RunStatus,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    pub exceptions: Vec<Exception>,
    /// Everything that rendered.
    pub total: u32,
}

/// An uncaught exception.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Exception {
    #[serde(rename = "type")]
    pub kind: String,
    pub message: String,
    /// The last line of the candidate's own files in the stack: `file:line:1`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
}

/// A heading in reading order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Heading {
    /// 1 for `st.title`, 2 for `st.header`, 3 for `st.subheader`.
    pub level: u8,
    pub text: String,
}

/// A thing that rendered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Element {
    /// The public command: `metric`, `dataframe`, `text_input`...
    #[serde(rename = "type")]
    pub kind: String,
    /// Its label or the start of its text.
    pub label: String,
    /// It takes input.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub control: bool,
    /// It has no label, or one that is hidden.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub unlabelled: bool,
    /// It stands in a closed expander, popover or dialog.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub tucked: bool,
    /// A control that is part of a form.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub in_form: bool,
    /// What a chart draws with, by its library's words: `bar`, `line`, `arc` (Vega-Lite's pie), `pie`...
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub marks: Vec<String>,
    /// A chart with a title of its own, or right below a heading; of alike ones, all have.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub titled: bool,
    /// A browser looked and does not show it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub unseen: bool,
}

/// One interaction and what came of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Action {
    /// The control's command, `form_submit_button` for a whole form.
    #[serde(rename = "type")]
    pub kind: String,
    pub label: String,
    /// What was sent, if anything.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub value: Value,
    /// The app took it without an exception.
    pub ok: bool,
    /// Something else on the page changed.
    pub effect: bool,
    /// Why it is not ok.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// The value is one that nobody expects (empty, extreme, markup).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub hostile: bool,
    /// The page of the app that it is on; none for the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub page: Option<String>,
    /// What it is judged by, which nobody reads later.
    #[serde(skip)]
    pub after: After,
}

impl Action {
    /// It is pressed or sent, so that something should come of it.
    pub fn is_trigger(&self) -> bool {
        self.kind.contains("button") || self.kind == "chat_input"
    }
}

/// The brief's words against what the app shows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BriefMatch {
    /// Content words of the brief, as written, without repetition.
    pub wanted: Vec<String>,
    /// Those that visible text or a kind of element answers.
    pub found: Vec<String>,
    /// It asks for something that the user operates (a form, a filter, a calculator...).
    pub interactive: bool,
}

/// What may differ between two observations of one candidate, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Timing {
    /// Waiting for a free sandbox.
    pub queue_ms: u64,
    /// From handing over the files to the first answer.
    pub first_ms: u64,
    /// The look in the browser, with waiting for a free page.
    pub browser_ms: u64,
    pub total_ms: u64,
}

impl Statics {
    /// Lines of all files that are not blank.
    pub fn lines(&self) -> u32 {
        self.files.iter().map(|f| f.lines).sum()
    }

    /// Share of the reply's lines that is configuration, 0-1; 0 for an empty reply.
    pub fn config_share(&self) -> f64 {
        let config: u32 = self.files.iter().map(|f| f.config_lines).sum();
        f64::from(config) / f64::from(self.lines().max(1))
    }
}

impl Run {
    /// What a user sees without opening anything: distinct, exceptions not counted.
    pub fn visible(&self) -> usize {
        self.elements.iter().filter(|e| !e.tucked && !e.unseen).count()
    }
}

impl Evidence {
    /// The built-in habit: the first file is UI code that parses, configuration is at most 25% of the reply's lines, and
    /// at least one element rendered, even if an exception follows.
    ///
    /// At level `static` nothing rendered, so live calls of Streamlit stand in for it.
    pub fn ui_first(&self) -> bool {
        Habit::ui_first().kept(self).holds
    }

    /// Controls that were used as a person would, whatever came of it.
    pub fn tried(&self) -> impl Iterator<Item = &Action> {
        self.actions.iter().filter(|action| !action.hostile)
    }

    /// What was seen may be believed: the source does not reach for what observes it, and the witnesses agree.
    pub fn trusted(&self) -> bool {
        self.statics.tamper.is_empty() && self.agreement.agrees()
    }

    /// No exception on the first run and at least 3 visible elements. Never true at level `static`.
    pub fn runs(&self) -> bool {
        self.run.as_ref().is_some_and(|run| run.status == RunStatus::Ready && run.visible() >= 3)
    }
}
