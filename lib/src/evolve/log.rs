//! The evolution log: one JSON file for one brief. Field names are those that existing logs have.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{
    agent::SourceFile,
    critic::{Critique, Evidence, Preference},
    model::wire::{Finish, Usage},
    store::read_text,
};

/// `format` of the log.
pub const FORMAT: &str = "hone.evolution";
/// Newest version that this code reads and the one that it writes.
pub const FORMAT_VERSION: u32 = 1;

/// One finished evolution.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvolutionLog {
    pub format: String,
    pub version: u32,
    /// The brief's id.
    pub id: String,
    #[serde(default)]
    pub kind: String,
    #[serde(default)]
    pub family: String,
    pub description: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requirements: Vec<String>,
    pub framework: String,
    pub target_score: f64,
    pub max_iterations: u32,
    pub seed: u64,
    /// The critic's version.
    pub critic: String,
    /// The agent and the teacher as they resolved, for the question whether a log is still good.
    pub agent: String,
    pub teacher: String,
    pub round: u32,
    /// One entry per candidate.
    pub evolution_history: Vec<LogEntry>,
    /// Score of the first draft.
    pub initial_score: f64,
    /// Score of the best entry, on a fresh evaluation when it met the target.
    pub final_score: f64,
    /// `iteration` of the best entry.
    pub best_iteration: u32,
    pub improvement: f64,
    pub target_reached: bool,
    pub total_iterations: u32,
    /// Of the prompt templates, when they are not the shipped ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompts: Option<String>,
    /// Pairs of near equals between which the judge was asked to choose.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pairs: Vec<Pair>,
}

/// Two candidates of nearly the same score, and which of them is better.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pair {
    /// Their iterations.
    pub first: u32,
    pub second: u32,
    #[serde(flatten)]
    pub preference: Preference,
}

/// The logs of a folder, in the order of their names and one at a time: a whole log is large. What is no log of this version is
/// passed over; a folder that is not there has none.
pub fn logs(folder: &Path) -> impl Iterator<Item = (String, EvolutionLog)> + use<> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> =
        names.filter(|name| name.ends_with(".json") && !name.starts_with('.')).collect();
    names.sort();
    let folder = folder.to_owned();
    names.into_iter().filter_map(move |name| {
        let log: EvolutionLog = serde_json::from_str(&read_text(&folder.join(&name)).ok()?).ok()?;
        (log.format == FORMAT && log.version <= FORMAT_VERSION).then_some((name, log))
    })
}

/// One candidate of an evolution.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogEntry {
    /// Ordinal of the candidate, from 1.
    pub iteration: u32,
    /// `draft`, `revise`, `repair`, `restyle`, `merge` or `restart`.
    pub operator: String,
    /// Iterations that it came from.
    pub parents: Vec<u32>,
    /// The model that wrote it, or `composer`.
    pub model: String,
    pub files: Vec<SourceFile>,
    /// The main file.
    pub ui_code: String,
    pub critique: Critique,
    pub evidence: Evidence,
    /// The score is that of a second, independent look, which a candidate gets that seemed good enough.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fresh: bool,
    pub usage: LogUsage,
    /// Ids of the guidelines that the teacher was shown, in that order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub guidelines: Vec<String>,
    /// Ids in the guideline store's answer that are not in the table.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub guidelines_unknown: u32,
    /// How the model's reply ended when it is not complete: `length`, `refusal` or `content_filter`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finish_reason: Option<String>,
    pub took_ms: u64,
}

impl LogEntry {
    /// The model's reply ended at the limit on its length.
    pub fn is_cut(&self) -> bool {
        self.finish_reason.as_deref() == Some(Finish::Length.as_str())
    }
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// What a candidate cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LogUsage {
    pub input_tokens: u64,
    pub output_tokens: u64,
    /// Null when the price is unknown.
    pub usd: Option<f64>,
}

impl LogUsage {
    /// Tokens of a call and what it cost.
    pub fn of(usage: Usage, usd: Option<f64>) -> Self {
        Self { input_tokens: usage.prompt_tokens, output_tokens: usage.completion_tokens, usd }
    }
}
