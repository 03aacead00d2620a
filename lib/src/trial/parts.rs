//! A trial's figures cut finer: by family and by kind of brief, and by what the score is made of.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    Arm, Row, TrialSpec,
    stats::{self, Diff, Estimate},
    verdict::{Metric, Results, family},
};
use crate::critic::SubScores;

/// Mean scores (0-10) of base and tuned on some of the briefs. Too few for a verdict of their own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// Family, or kind.
    pub name: String,
    pub kind: String,
    /// Whether training saw the kind.
    pub seen: bool,
    /// Briefs that both answered.
    pub n: usize,
    pub base: Option<f64>,
    pub tuned: Option<f64>,
    /// Tuned minus base.
    pub delta: Option<f64>,
}

/// One line for each family, by name.
pub(super) fn by_family(results: &Results) -> Vec<Part> {
    parts(results, family)
}

/// One line for each kind, by name.
pub(super) fn by_kind(results: &Results) -> Vec<Part> {
    parts(results, |row| &row.kind)
}

fn parts(results: &Results, name: impl Fn(&Row) -> &str) -> Vec<Part> {
    let mut parts: BTreeMap<String, (Part, Vec<f64>, Vec<f64>)> = BTreeMap::new();
    for (tuned, base) in results.pairs(Arm::TUNED, Arm::BASE) {
        let first = tuned[0];
        let (part, bases, tuneds) = parts.entry(name(first).to_owned()).or_default();
        part.kind.clone_from(&first.kind);
        part.seen = first.seen;
        let mean = |rows: &[&Row]| stats::mean(rows.iter().map(|row| Metric::Score.of(row)));
        bases.extend(mean(base));
        tuneds.extend(mean(tuned));
    }
    let finished = parts.into_iter().map(|(name, (part, bases, tuneds))| {
        let n = tuneds.len();
        let (base, tuned) = (stats::mean(bases), stats::mean(tuneds));
        let delta = tuned.zip(base).map(|(tuned, base)| tuned - base);
        Part { name, n, base, tuned, delta, ..part }
    });
    finished.collect()
}

/// What one sub-score is called, and how it is read.
type SubScore = (&'static str, fn(&SubScores) -> Option<f64>);

/// The sub-scores in the order in which they are shown.
pub(super) const SUB_SCORES: [SubScore; 6] = [
    ("behaviour", |scores| scores.behaviour),
    ("executes", |scores| scores.executes),
    ("accessibility", |scores| scores.accessibility),
    ("visual", |scores| scores.visual),
    ("match", |scores| scores.match_),
    ("code", |scores| scores.code),
];

/// Mean sub-scores (0-10) of an arm: over briefs, of the mean over those samples that have the evidence.
pub(super) fn sub_scores(results: &Results, arm: &str) -> BTreeMap<String, f64> {
    let mean = |of: fn(&SubScores) -> Option<f64>| {
        stats::mean(results.by_brief(arm).filter_map(|rows| mean_of(rows, of)))
    };
    SUB_SCORES.into_iter().filter_map(|(name, of)| Some((name.to_owned(), mean(of)?))).collect()
}

/// Tuned minus base, over the briefs on which both have the evidence.
pub(super) fn sub_score_differences(spec: &TrialSpec, results: &Results) -> BTreeMap<String, Estimate> {
    let estimate = |of: fn(&SubScores) -> Option<f64>| {
        let pairs = results.pairs(Arm::TUNED, Arm::BASE).into_iter();
        let diffs: Vec<Diff> = pairs
            .filter_map(|(tuned, base)| {
                Some(Diff::new(family(tuned[0]), mean_of(tuned, of)? - mean_of(base, of)?))
            })
            .collect();
        (!diffs.is_empty()).then(|| stats::score_difference(&diffs, &spec.precision()))
    };
    SUB_SCORES.into_iter().filter_map(|(name, of)| Some((name.to_owned(), estimate(of)?))).collect()
}

fn mean_of(rows: &[&Row], of: fn(&SubScores) -> Option<f64>) -> Option<f64> {
    stats::mean(rows.iter().filter_map(|row| of(&row.sub_scores)))
}
