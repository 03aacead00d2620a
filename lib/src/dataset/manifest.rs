//! Where every row came from, and why everything else was left out.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{BadLog, Examples, LogHash, OriginalRecord, PrepareOptions};
use crate::{critic::Level, model::wire::Message};

/// `format` of the manifest.
pub const FORMAT: &str = "hone.dataset";
/// Version of the manifest that this code writes.
pub const FORMAT_VERSION: u32 = 1;

/// The file beside a dataset that accounts for it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    pub format: String,
    pub version: u32,
    /// Version of the critic whose scores count here, and how far its evidence goes.
    pub critic: String,
    pub level: Level,
    pub options: PrepareOptions,
    /// What rows ask, with placeholders for the brief: the prompt of production.
    #[serde(default)]
    pub prompt: Vec<Message>,
    /// Of the prompt's texts: rows teach the prompt that they were made with.
    pub prompt_sha256: String,
    pub dataset_sha256: String,
    /// Of the logs' names and contents together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logs_sha256: Option<String>,
    pub validation_sha256: Option<String>,
    pub preferences_sha256: Option<String>,
    pub examples: Examples,
    /// Tokens of the training file (o200k_base, one epoch).
    pub tokens: usize,
    /// In the order of the files' lines: training, validation, preference.
    pub rows: Vec<RowRecord>,
    pub dropped: Vec<Dropped>,
    /// Rows that were made and not written, because they would have given away a held-out brief.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub withheld: Vec<Withheld>,
    pub bad_logs: Vec<BadLog>,
    /// Logs of the original workflow.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub originals: Vec<OriginalRecord>,
    /// Every log that was read.
    #[serde(default)]
    pub logs: Vec<LogHash>,
}

/// What kind of lesson a row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RowKind {
    /// A brief and its app.
    Positive,
    /// A brief, an app, what is wrong with it, and the better app.
    Improvement,
    /// A brief, its better and its worse app.
    Preference,
}

/// Which file a row is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    Train,
    Validation,
    Preference,
}

/// A candidate in a log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RowSource {
    /// File name of the log.
    pub log: String,
    pub iteration: u32,
    pub score: f64,
    /// Who wrote it.
    pub model: String,
}

/// One row and its origin.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RowRecord {
    pub split: Split,
    /// 1-based line in its file.
    pub line: usize,
    pub row: RowKind,
    pub brief: String,
    pub family: String,
    /// What the row teaches.
    #[serde(flatten)]
    pub source: RowSource,
    /// The app that an improvement starts from, or that a preference rejects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other: Option<RowSource>,
    /// Of an improvement: how its two apps follow one another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<Step>,
    /// Of a preference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<Policy>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roles: Option<Roles>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<By>,
    /// o200k_base.
    pub tokens: usize,
}

/// How the better app of an improvement came from the worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Its writer was shown it.
    Parent,
    /// It came later in the same search.
    Trajectory,
}

/// Whether one writer wrote both answers of a pair. Who wrote which stands beside their scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    On,
    Off,
}

/// Who wrote the answers of a pair as what: `agent draft`, `composer restyle`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Roles {
    pub chosen: String,
    pub rejected: String,
}

/// Who found one answer of a pair better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// More people preferred it than the other.
    Human,
    /// Its score is higher by the gap that is asked for.
    Critic,
}

/// Why a candidate is no positive example.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DropReason {
    HeldOut,
    NoEvidence,
    OtherCritic,
    OtherLevel,
    /// The model's reply was cut by a limit.
    Truncated,
    /// The model declined, or its provider held the reply back.
    Refused,
    DoesNotRun,
    NotUiFirst,
    HabitMissed,
    BelowMinScore,
    /// Its score is the one by which it was picked: of many looks the best, and biased upwards.
    NotFresh,
    Tampers,
    DoesNotReadBack,
    TooLong,
    Duplicate,
    NearDuplicate,
    EnoughOfBrief,
    OverMaxRows,
}

impl DropReason {
    const ALL: [Self; 18] = [
        Self::HeldOut,
        Self::NoEvidence,
        Self::OtherCritic,
        Self::OtherLevel,
        Self::Truncated,
        Self::Refused,
        Self::DoesNotRun,
        Self::NotUiFirst,
        Self::HabitMissed,
        Self::BelowMinScore,
        Self::NotFresh,
        Self::Tampers,
        Self::DoesNotReadBack,
        Self::TooLong,
        Self::Duplicate,
        Self::NearDuplicate,
        Self::EnoughOfBrief,
        Self::OverMaxRows,
    ];

    /// As it stands in files and summaries.
    pub fn name(self) -> &'static str {
        match self {
            Self::HeldOut => "held-out",
            Self::NoEvidence => "no evidence",
            Self::OtherCritic => "other critic version",
            Self::OtherLevel => "other evidence level",
            Self::Truncated => "truncated",
            Self::Refused => "refused",
            Self::DoesNotRun => "does not run",
            Self::HabitMissed => "habit missed",
            Self::NotUiFirst => "not ui-first",
            Self::BelowMinScore => "below min score",
            Self::NotFresh => "not evaluated afresh",
            Self::Tampers => "tampers",
            Self::DoesNotReadBack => "does not read back",
            Self::TooLong => "too long",
            Self::Duplicate => "duplicate",
            Self::NearDuplicate => "near-duplicate",
            Self::EnoughOfBrief => "enough of this brief",
            Self::OverMaxRows => "over max rows",
        }
    }
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for DropReason {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for DropReason {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        let known = Self::ALL.into_iter().find(|reason| reason.name() == name);
        known.ok_or_else(|| serde::de::Error::custom(format!("unknown reason `{name}`")))
    }
}

/// A candidate that is no positive example.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Dropped {
    pub log: String,
    pub iteration: u32,
    /// Null when the log has none.
    pub score: Option<f64>,
    pub reason: DropReason,
    /// The particulars, when there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// A row that is in no file: one of its texts is like a held-out brief.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Withheld {
    pub row: RowKind,
    /// What the row would have taught.
    #[serde(flatten)]
    pub source: RowSource,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other: Option<RowSource>,
    pub why: String,
}
