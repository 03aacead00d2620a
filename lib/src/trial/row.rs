//! One result of a trial: what one arm answered to one brief, and what the critic saw.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Arm, TrialSpec};
use crate::{
    agent::{Candidate, SourceFile},
    brief::{self, Brief},
    critic::{Cap, Critique, Evidence, Habit, Issue, Judged, Kept, Level, SubScores},
    model::wire::Usage,
};

pub(super) const FORMAT: &str = "hone.trial";
pub(super) const VERSION: u32 = 1;
/// Width of the pictures that are shown, in pixels; a browser looks at others too.
const PICTURE_WIDTH: u32 = 1280;

/// A row keeps this many issues, the gravest first.
const ISSUES_KEPT: usize = 5;

/// What a chat model answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Generation {
    pub reply: String,
    /// As the provider counts.
    pub usage: Usage,
    pub took_ms: u64,
    /// It was asked for before this trial: how long it took then depends on what else was asked.
    pub replayed: bool,
    /// `stop`, `length`...; none when the provider says nothing.
    pub finish_reason: Option<String>,
}

/// What the critic found, with the evidence as it is written to disk.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgement {
    pub ui_first: bool,
    pub runs: bool,
    pub critique: Critique,
    /// Kept whole, as a value: a later critic's evidence has other fields, and rows outlive critics.
    pub evidence: serde_json::Value,
}

impl From<(Evidence, Critique)> for Judgement {
    /// A trial's scores are those of execution; a judge's figures stand beside them.
    fn from((evidence, critique): (Evidence, Critique)) -> Self {
        let (overall_score, critic) = (critique.executed_score(), evidence.critic.clone());
        let critique = Critique { overall_score, critic, ..critique };
        Self {
            ui_first: evidence.ui_first(),
            runs: evidence.runs(),
            critique,
            // Evidence is plain data; if it ever fails to serialise, the scores still count.
            evidence: serde_json::to_value(&evidence).unwrap_or_default(),
        }
    }
}

/// One line of `results.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    pub format: String,
    pub version: u32,
    pub brief: String,
    pub kind: String,
    pub family: String,
    /// Whether training saw this kind of UI.
    pub seen: bool,
    pub arm: String,
    pub model: String,
    /// 0-based.
    pub sample: u32,
    /// Sampling seed of the call, the same for every arm.
    pub seed: u64,
    pub reply: String,
    pub files: Vec<SourceFile>,
    pub ui_first: bool,
    pub runs: bool,
    /// 0-10.
    pub score: f64,
    pub sub_scores: SubScores,
    pub caps: Vec<Cap>,
    /// Habits that the user asks for beside the built-in one, and whether they are kept.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub habits: BTreeMap<String, bool>,
    /// The gravest few.
    pub issues: Vec<Issue>,
    /// Of the reply, by o200k_base: comparable between models whose own tokenisers differ.
    pub tokens: u64,
    /// As the provider counted.
    pub usage: Usage,
    pub took_ms: u64,
    /// The answer was in the journal: `took_ms` is that of another time.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub replayed: bool,
    #[serde(default)]
    pub finish_reason: Option<String>,
    pub critic: String,
    pub level: Level,
    /// What a judge said, where there was one; nothing of it is in the scores of the row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub judge: Option<Judged>,
    #[serde(default)]
    pub evidence: serde_json::Value,
}

impl Row {
    /// Whether the reply ended because it reached `max_tokens`.
    pub fn truncated(&self) -> bool {
        self.finish_reason.as_deref() == Some("length")
    }

    /// Whether the score is one that a critic can give.
    pub(super) fn has_score(&self) -> bool {
        (0.0..=10.0).contains(&self.score)
    }

    /// File name of the picture that the browser took at the usual width. Names are the critic's own; one that leads out of
    /// the folder is nobody's.
    pub fn picture(&self) -> Option<&str> {
        let names = self.evidence.get("browser")?.get("screenshots")?.as_array()?;
        let wide = format!("-{PICTURE_WIDTH}.webp");
        let name = names.iter().filter_map(|name| name.as_str()).find(|name| name.ends_with(&wide))?;
        (!name.contains(['/', '\\'])).then_some(name)
    }

    pub(super) fn key(&self) -> Key {
        (self.brief.clone(), self.sample, self.arm.clone())
    }

    pub(super) fn new(
        spec: &TrialSpec,
        unit: (&Brief, &Arm, u32),
        generation: Generation,
        candidate: Candidate,
        judgement: Judgement,
    ) -> Self {
        let (brief, arm, sample) = unit;
        let Judgement { ui_first, runs, critique, evidence } = judgement;
        Self {
            format: FORMAT.into(),
            version: VERSION,
            brief: brief.id.to_string(),
            kind: brief.kind.clone(),
            family: brief.family.clone(),
            seen: brief::is_seen(brief, &spec.seen_kinds),
            arm: arm.name.clone(),
            model: arm.model.clone(),
            sample,
            seed: spec.sampling_seed(brief, sample),
            tokens: o200k_tokens(&generation.reply),
            reply: generation.reply,
            files: candidate.files,
            ui_first,
            runs,
            score: critique.overall_score,
            sub_scores: critique.scores,
            caps: critique.caps,
            habits: own(critique.habits),
            issues: gravest(critique.issues),
            usage: generation.usage,
            took_ms: generation.took_ms,
            replayed: generation.replayed,
            finish_reason: generation.finish_reason,
            critic: critique.critic,
            level: critique.level,
            judge: critique.judge,
            evidence,
        }
    }
}

/// What makes a row unique within a trial: brief, sample, arm.
pub(super) type Key = (String, u32, String);

/// The built-in habit has a field of its own.
fn own(kept: Vec<Kept>) -> BTreeMap<String, bool> {
    let own = kept.into_iter().filter(|habit| habit.name != Habit::ui_first().name);
    own.map(|habit| (habit.name, habit.holds)).collect()
}

fn gravest(mut issues: Vec<Issue>) -> Vec<Issue> {
    issues.sort_by_key(|issue| std::cmp::Reverse(issue.severity));
    issues.truncate(ISSUES_KEPT);
    issues
}

fn o200k_tokens(text: &str) -> u64 {
    crate::text::tokens(text) as u64
}
