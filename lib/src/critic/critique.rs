//! What the critic says of a candidate.

use serde::{Deserialize, Serialize};

use super::{Judged, Kept, Level};

/// A score and its reasons: a pure function of evidence.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Critique {
    /// 0-10: the weighted sum of the sub-scores, or the lowest cap below it.
    pub overall_score: f64,
    /// 0-10 each; null without evidence.
    pub accessibility_score: Option<f64>,
    pub visual_design_score: Option<f64>,
    pub code_quality_score: Option<f64>,
    pub scores: SubScores,
    pub caps: Vec<Cap>,
    /// Whether each habit holds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub habits: Vec<Kept>,
    pub strengths: Vec<String>,
    pub issues: Vec<Issue>,
    pub improvements: Vec<String>,
    pub citations: Vec<Citation>,
    /// Citations of guidelines that do not exist or were not retrieved: they are left out.
    #[serde(default)]
    pub citations_dropped: u32,
    /// Version of the critic and level of the evidence: scores of others do not compare.
    pub critic: String,
    pub level: Level,
    /// What a judge model said of it, and what that took away from the score.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub judge: Option<Judged>,
}

impl Critique {
    /// The score by evidence alone.
    pub fn executed_score(&self) -> f64 {
        self.judge.as_ref().map_or(self.overall_score, |judged| judged.executed_score)
    }
}

/// Sub-scores 0-10; null without evidence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SubScores {
    pub behaviour: Option<f64>,
    pub executes: Option<f64>,
    pub accessibility: Option<f64>,
    pub visual: Option<f64>,
    #[serde(rename = "match")]
    pub match_: Option<f64>,
    pub code: Option<f64>,
}

/// An upper bound on the score, with its reason.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cap {
    pub value: f64,
    pub why: String,
}

/// How much an issue matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    Minor,
    Major,
    Critical,
}

/// One thing that is wrong, where it is, and by which guideline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Issue {
    pub severity: Severity,
    pub message: String,
    /// `file:line:column` (1-based), when the evidence has a place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guideline: Option<String>,
}

/// A guideline that an issue cites.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Citation {
    pub id: String,
    pub source: String,
}
