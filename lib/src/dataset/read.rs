//! Loading evolution logs: ours, and those of the workflow that Hone replaces.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::DatasetError;
use crate::{
    evolve::{EvolutionLog, FORMAT, FORMAT_VERSION},
    store::{self, StoreError},
};

/// A log and the name of its file.
#[derive(Clone, Debug, PartialEq)]
pub struct SourceLog {
    pub file: String,
    pub log: EvolutionLog,
}

/// A log without `format`: scores without the evidence behind them.
#[derive(Clone, Debug, PartialEq)]
pub struct OriginalLog {
    pub file: String,
    pub description: String,
    pub entries: Vec<OriginalEntry>,
}

/// A candidate of an [`OriginalLog`].
#[derive(Clone, Debug, PartialEq)]
pub struct OriginalEntry {
    /// Ordinal, from 1.
    pub iteration: u32,
    /// 0-10, by a critic that is not known.
    pub score: Option<f64>,
    pub ui_code: String,
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
}

enum Parsed {
    Log(Box<EvolutionLog>),
    Original { description: String, entries: Vec<OriginalEntry> },
}

impl Logs {
    /// How many files there are.
    pub fn found(&self) -> usize {
        self.logs.len() + self.originals.len() + self.bad.len()
    }

    /// Takes in the text of one file. What is broken is remembered by name, and the others go on.
    ///
    /// # Errors
    /// A log of a newer version: what it says may mean something else, so nothing is guessed.
    pub fn add(&mut self, file: &str, text: &str) -> Result<(), DatasetError> {
        match parse(file, text)? {
            Ok(Parsed::Log(log)) => self.logs.push(SourceLog { file: file.to_owned(), log: *log }),
            Ok(Parsed::Original { description, entries }) => {
                self.originals.push(OriginalLog { file: file.to_owned(), description, entries });
            }
            Err(why) => self.bad.push(BadLog { file: file.to_owned(), why }),
        }
        Ok(())
    }
}

/// Reads every `*.json` of a folder, in the order of their names.
///
/// # Errors
/// No log, none that can be read, one of a newer version, or a folder that cannot be read.
pub fn read_logs(folder: &Path) -> Result<Logs, DatasetError> {
    let mut logs = Logs::default();
    for name in names(folder)? {
        match store::read_text(&folder.join(&name)) {
            Ok(text) => logs.add(&name, &text)?,
            // Not text, or unreadable: one bad file must not cost the rest.
            Err(e) => logs.bad.push(BadLog { file: name, why: e.source.to_string() }),
        }
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
            // From the text and not the value: its errors have lines and columns.
            Ok(serde_json::from_str(text).map(|log| Parsed::Log(Box::new(log))).map_err(|e| e.to_string()))
        }
        Some(other) => Ok(Err(format!("its format is `{other}`, not `{FORMAT}`"))),
        None => Ok(original(&value).ok_or_else(|| "it has no `evolution_history`".to_owned())),
    }
}

fn original(value: &Value) -> Option<Parsed> {
    let history = value.get("evolution_history")?.as_array()?;
    let description = value.get("description").and_then(Value::as_str).unwrap_or_default().to_owned();
    let entries = history.iter().zip(1..).map(|(entry, ordinal)| original_entry(entry, ordinal)).collect();
    Some(Parsed::Original { description, entries })
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
        ui_code: entry.get("ui_code").map(code).unwrap_or_default(),
    }
}

/// Code as text, or as an object from paths to texts.
fn code(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Object(files) => files.values().filter_map(Value::as_str).collect::<Vec<_>>().join("\n"),
        _ => String::new(),
    }
}
