//! Loading evolution logs: ours, and those of the workflow that Hone replaces.
//!
//! Most of a log is evidence. It is asked what it shows and let go, so that ten thousand logs fit into memory.

use std::{collections::BTreeSet, path::Path};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{DatasetError, OriginalRecord, workers};
use crate::{
    agent::{self, SourceFile},
    brief::{Brief, BriefId},
    critic::{Critique, Evidence, Issue, Level},
    evolve::{EvolutionLog, FORMAT, FORMAT_VERSION, LogEntry, LogUsage},
    store::{self, StoreError},
};

/// A log, as much of it as a dataset needs.
#[derive(Clone, Debug, PartialEq)]
pub struct SourceLog {
    /// Name of its file.
    pub file: String,
    pub brief: Brief,
    pub entries: Vec<Entry>,
}

/// A candidate, and what its evidence shows.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub iteration: u32,
    pub operator: String,
    pub parents: Vec<u32>,
    /// Who wrote it.
    pub model: String,
    pub files: Vec<SourceFile>,
    pub guidelines: Vec<String>,
    /// How the reply ended when it is not whole.
    pub finish_reason: Option<String>,
    pub usage: LogUsage,
    pub took_ms: u64,
    /// What a critic saw and said.
    pub look: Look,
    /// The score is that of a second, independent look.
    pub fresh: bool,
}

/// One look at a candidate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Look {
    pub score: f64,
    /// Version of the critic, and how far it looked: other scores do not compare.
    pub critic: String,
    pub level: Level,
    pub issues: Vec<Issue>,
    pub ui_first: bool,
    pub runs: bool,
    /// What was seen may be believed.
    pub trusted: bool,
    /// The first habit that it has not, and why.
    pub habit_missed: Option<String>,
}

impl Look {
    /// What evidence shows, and what was said about it.
    pub fn of(evidence: &Evidence, critique: Critique) -> Self {
        let missed = critique.habits.iter().find(|habit| !habit.holds);
        Self {
            score: critique.overall_score,
            critic: critique.critic,
            level: critique.level,
            ui_first: evidence.ui_first(),
            runs: evidence.runs(),
            trusted: evidence.trusted(),
            habit_missed: missed.map(|habit| format!("{}: {}", habit.name, habit.missed.join("; "))),
            issues: critique.issues,
        }
    }
}

impl SourceLog {
    pub fn new(file: &str, log: EvolutionLog) -> Self {
        let brief = Brief {
            id: BriefId::new(log.id.clone()).unwrap_or_else(|_| BriefId::from_description(&log.description)),
            kind: log.kind,
            // A brief without a family is one of its own.
            family: if log.family.is_empty() { log.id } else { log.family },
            description: log.description,
            framework: Some(log.framework).filter(|f| !f.is_empty()),
            requirements: log.requirements,
        };
        let entries = log.evolution_history.into_iter().map(Entry::from).collect();
        Self { file: file.to_owned(), brief, entries }
    }
}

impl From<LogEntry> for Entry {
    fn from(entry: LogEntry) -> Self {
        let look = Look::of(&entry.evidence, entry.critique);
        Self {
            iteration: entry.iteration,
            operator: entry.operator,
            parents: entry.parents,
            model: entry.model,
            files: entry.files,
            guidelines: entry.guidelines,
            finish_reason: entry.finish_reason,
            usage: entry.usage,
            took_ms: entry.took_ms,
            // A search shows the browser only what it looks at a second time.
            fresh: entry.fresh || look.level == Level::Browser,
            look,
        }
    }
}

/// A log without `format`: scores without the evidence behind them.
#[derive(Clone, Debug, PartialEq)]
pub struct OriginalLog {
    pub file: String,
    pub description: String,
    pub framework: Option<String>,
    /// Of what our logs have and a dataset needs, what no candidate of it has.
    pub lacks: Vec<String>,
    pub entries: Vec<OriginalEntry>,
}

/// A candidate of an [`OriginalLog`].
#[derive(Clone, Debug, PartialEq)]
pub struct OriginalEntry {
    /// Ordinal, from 1.
    pub iteration: u32,
    /// 0-10, by a critic that is not known.
    pub score: Option<f64>,
    /// What its `ui_code` holds, in its order.
    pub files: Vec<SourceFile>,
}

/// A file that is no log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BadLog {
    pub file: String,
    pub why: String,
}

/// All logs of a folder, by file name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Logs {
    pub logs: Vec<SourceLog>,
    pub originals: Vec<OriginalLog>,
    pub bad: Vec<BadLog>,
    /// Name and SHA-256 of every file that could be read.
    pub hashes: Vec<LogHash>,
    /// What became of logs of the original workflow that were looked at again.
    pub refreshed: Vec<OriginalRecord>,
}

/// What a log was when it was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogHash {
    pub file: String,
    pub sha256: String,
}

enum Parsed {
    Log(Box<SourceLog>),
    Original(OriginalLog),
}

impl Logs {
    /// How many files there are.
    pub fn found(&self) -> usize {
        // An original log becomes one of ours by being looked at, and stays an original with what is left over.
        let files: BTreeSet<&str> = self.logs.iter().map(|log| log.file.as_str()).collect();
        let left = self.originals.iter().filter(|log| !files.contains(log.file.as_str()));
        self.logs.len() + left.count() + self.bad.len()
    }

    /// Takes in the text of one file. What is broken is remembered by name, and the others go on.
    ///
    /// # Errors
    /// A log of a newer version: what it says may mean something else, so nothing is guessed.
    pub fn add(&mut self, file: &str, text: &str) -> Result<(), DatasetError> {
        self.take(file, Read::of(file, text))
    }

    fn take(&mut self, file: &str, read: Read) -> Result<(), DatasetError> {
        let file = file.to_owned();
        self.hashes.extend(read.sha256.map(|sha256| LogHash { file: file.clone(), sha256 }));
        match read.parsed? {
            Ok(Parsed::Log(log)) => self.logs.push(*log),
            Ok(Parsed::Original(log)) => self.originals.push(log),
            Err(why) => self.bad.push(BadLog { file, why }),
        }
        Ok(())
    }

    /// Of names and contents together: what a dataset was made from.
    pub fn sha256(&self) -> String {
        logs_sha256(&self.hashes)
    }
}

/// Of the names and contents of logs together.
pub fn logs_sha256(logs: &[LogHash]) -> String {
    let all = logs
        .iter()
        .fold(Sha256::new(), |hash, log| hash.chain_update(format!("{}\n{}\n", log.file, log.sha256)));
    crate::text::hex(&all.finalize())
}

/// A file that was looked into.
struct Read {
    /// None of what is no text.
    sha256: Option<String>,
    parsed: Result<Result<Parsed, String>, DatasetError>,
}

impl Read {
    fn of(file: &str, text: &str) -> Self {
        let sha256 = Some(crate::text::hex(&Sha256::digest(text)));
        Self { sha256, parsed: parse(file, text) }
    }

    fn file(folder: &Path, name: &str) -> Self {
        match store::read_text(&folder.join(name)) {
            Ok(text) => Self::of(name, &text),
            // Not text, or unreadable: one bad file must not cost the rest.
            Err(e) => Self { sha256: None, parsed: Ok(Err(e.source.to_string())) },
        }
    }
}

/// Reads every `*.json` of a folder, in the order of their names.
///
/// # Errors
/// No log, none that can be read, one of a newer version, or a folder that cannot be read.
pub fn read_logs(folder: &Path) -> Result<Logs, DatasetError> {
    read_logs_with(folder, workers::count())
}

pub(super) fn read_logs_with(folder: &Path, workers: usize) -> Result<Logs, DatasetError> {
    let names = names(folder)?;
    let mut logs = Logs::default();
    for (name, read) in names.iter().zip(workers::map(workers, &names, |name| Read::file(folder, name))?) {
        logs.take(name, read)?;
    }
    match (logs.found() - logs.bad.len(), logs.bad.first()) {
        (0, None) => Err(DatasetError::NoLogs { folder: folder.to_owned() }),
        (0, Some(first)) => Err(DatasetError::Unreadable {
            count: logs.bad.len(),
            first: first.file.clone(),
            why: first.why.clone(),
        }),
        _ => Ok(logs),
    }
}

fn names(folder: &Path) -> Result<Vec<String>, DatasetError> {
    let fail = |e| DatasetError::Store(StoreError::new("read", folder, e));
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(fail(e)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(fail)?.file_name().to_string_lossy().into_owned();
        if name.ends_with(".json") && !name.starts_with('.') {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

fn parse(file: &str, text: &str) -> Result<Result<Parsed, String>, DatasetError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let log = match serde_json::from_str::<EvolutionLog>(text) {
        Ok(log) if log.format == FORMAT && log.version <= FORMAT_VERSION => {
            return Ok(Ok(Parsed::Log(Box::new(SourceLog::new(file, log)))));
        }
        other => other,
    };
    let value: Value = match serde_json::from_str(text) {
        Ok(value) => value,
        Err(e) => return Ok(Err(e.to_string())),
    };
    match value.get("format").and_then(Value::as_str) {
        Some(FORMAT) => {
            let version = value.get("version").and_then(Value::as_u64).unwrap_or(0);
            if version > u64::from(FORMAT_VERSION) {
                return Err(DatasetError::Newer { file: file.to_owned(), version, newest: FORMAT_VERSION });
            }
            // The error of the text and not of the value: it has a line and a column.
            Ok(Err(log.err().map_or_else(|| "it is no evolution log".to_owned(), |e| e.to_string())))
        }
        Some(other) => Ok(Err(format!("its format is `{other}`, not `{FORMAT}`"))),
        None => Ok(original(file, &value).ok_or_else(|| "it has no `evolution_history`".to_owned())),
    }
}

fn original(file: &str, value: &Value) -> Option<Parsed> {
    let history = value.get("evolution_history")?.as_array()?;
    let text = |key| value.get(key).and_then(Value::as_str).map(str::to_owned);
    let mut entries: Vec<_> =
        history.iter().zip(1..).map(|(entry, ordinal)| original_entry(entry, ordinal)).collect();
    let numbers: BTreeSet<u32> = entries.iter().map(|entry| entry.iteration).collect();
    if numbers.len() < entries.len() {
        // Numbers that come twice name nothing.
        entries.iter_mut().zip(1..).for_each(|(entry, ordinal)| entry.iteration = ordinal);
    }
    Some(Parsed::Original(OriginalLog {
        file: file.to_owned(),
        description: text("description").unwrap_or_default(),
        framework: text("framework"),
        lacks: lacks(value, history),
        entries,
    }))
}

fn lacks(log: &Value, history: &[Value]) -> Vec<String> {
    let of_log = ["format", "family"].into_iter().filter(|key| log.get(key).is_none());
    let in_none = |has: &dyn Fn(&Value) -> bool| !history.iter().any(has);
    let of_entry = ["files", "evidence"].into_iter().filter(|key| in_none(&|entry| entry.get(key).is_some()));
    let said = |entry: &Value, key: &str| entry.get("critique").is_some_and(|said| said.get(key).is_some());
    let of_critique = ["critic", "level"].into_iter().filter(|key| in_none(&|entry| said(entry, key)));
    of_log.chain(of_entry).chain(of_critique).map(str::to_owned).collect()
}

fn original_entry(entry: &Value, ordinal: u32) -> OriginalEntry {
    let critique = entry.get("critique");
    let score = |key| critique.and_then(|c: &Value| c.get(key)).and_then(Value::as_f64);
    OriginalEntry {
        iteration: entry
            .get("iteration")
            .and_then(Value::as_u64)
            .and_then(|n| n.try_into().ok())
            .unwrap_or(ordinal),
        score: score("overall_score").or_else(|| score("score")),
        files: entry.get("ui_code").map(code).unwrap_or_default(),
    }
}

/// Code as a reply's text, or as an object from paths to texts.
fn code(value: &Value) -> Vec<SourceFile> {
    match value {
        Value::String(text) => agent::parse_reply(text).files,
        Value::Object(files) => {
            let file = |(path, content): (&String, &Value)| {
                Some(SourceFile { path: path.clone(), content: content.as_str()?.to_owned() })
            };
            files.iter().filter_map(file).collect()
        }
        _ => Vec::new(),
    }
}
