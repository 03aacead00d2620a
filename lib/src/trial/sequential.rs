//! A trial that may stop early: an e-value that holds however often one looks.
//!
//! A bettor who may not know the future stakes a share of the capital on each family of briefs, on "the tuned model
//! scores higher". Where it does not, the capital is a non-negative supermartingale that starts at 1, so it ever reaches
//! 1 / alpha with a probability of at most alpha (Ville): the trial may be looked at after every family and stopped at
//! any of them. The bets are those that grow capital fastest for the mean and variance seen so far (Waudby-Smith and
//! Ramdas, "Estimating means of bounded random variables by betting", 2024, section B.3). A second bettor stakes on the
//! opposite, which is the e-value of harm.

use std::collections::{BTreeMap, BTreeSet};

use rand::{SeedableRng, rngs::ChaCha8Rng, seq::SliceRandom};
use serde::{Deserialize, Serialize};

use super::{
    Arm, Row, TrialSpec, stats,
    verdict::{Metric, Results},
};
use crate::brief::Brief;

/// No stop before so many briefs: the other gates need them.
const MIN_BRIEFS: usize = 30;
/// Briefs between two looks.
const LOOK: usize = 6;
/// The e-value of harm that ends a trial; a hold needs no proof.
pub(super) const HARM: f64 = 10.0;
/// Scores lie between 0 and 10, so differences within this of 0.
const RANGE: f64 = 10.0;
/// The largest share of the capital that one family may lose.
const STAKE: f64 = 0.75;

/// How a trial that may stop early stands.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sequential {
    /// Against "the tuned model scores no higher than what it is compared with".
    pub e: f64,
    /// Against "it scores no lower".
    pub harm_e: f64,
    /// Briefs that count, and briefs of the trial.
    pub n: usize,
    pub of: usize,
    /// Whether it ended before the last brief.
    pub stopped: bool,
}

impl Sequential {
    /// Whether this look ends the trial.
    fn ends(&self, alpha: f64) -> bool {
        self.n >= MIN_BRIEFS.min(self.of) && (self.e >= 1.0 / alpha || self.harm_e >= HARM)
    }
}

/// Places of the briefs in the order in which a trial that may stop early asks them: families shuffled by seed, the
/// briefs of a family together. Any other trial keeps the order of the file.
pub(super) fn order(spec: &TrialSpec) -> Vec<usize> {
    if !spec.sequential {
        return (0..spec.briefs.len()).collect();
    }
    let mut families: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (place, brief) in spec.briefs.iter().enumerate() {
        families.entry(family(brief)).or_default().push(place);
    }
    let mut families: Vec<Vec<usize>> = families.into_values().collect();
    families.shuffle(&mut ChaCha8Rng::seed_from_u64(spec.seed ^ 0x7365_7175_656e_6365));
    families.concat()
}

fn family(brief: &Brief) -> &str {
    if brief.family.is_empty() { brief.id.as_str() } else { &brief.family }
}

/// The first look that ends the trial, or the last one there is. Only whole families count, and only as far as there are
/// answers of all arms to every brief before: what was in flight when the trial stopped does not.
pub(super) fn watch(spec: &TrialSpec, results: &Results, reference: &str) -> Sequential {
    let (mut gain, mut harm) = (Capital::default(), Capital::default());
    let (of, mut n, mut looked) = (spec.briefs.len(), 0, 0);
    let mut found = Sequential { e: 1.0, harm_e: 1.0, n: 0, of, stopped: false };
    for members in families(spec) {
        let diffs: Vec<f64> =
            members.iter().filter_map(|brief| difference(spec, results, brief, reference)).collect();
        if diffs.len() < members.len() {
            break;
        }
        let mean = diffs.iter().sum::<f64>() / diffs.len() as f64;
        gain.bet(mean / RANGE);
        harm.bet(-mean / RANGE);
        n += members.len();
        if n >= looked + LOOK || n == of {
            looked = n;
            found = Sequential { e: gain.capital, harm_e: harm.capital, n, of, stopped: false };
            if found.ends(spec.alpha) {
                found.stopped = n < of;
                break;
            }
        }
    }
    found
}

/// How many briefs are asked before each look, the first of which may be the last.
pub(super) fn stages(spec: &TrialSpec) -> Vec<usize> {
    let all = spec.briefs.len();
    if !spec.sequential {
        return vec![all];
    }
    let mut stages: Vec<usize> = (MIN_BRIEFS.min(all)..all).step_by(LOOK).collect();
    stages.push(all);
    stages
}

/// The briefs of each family, in the order of the trial.
fn families(spec: &TrialSpec) -> Vec<Vec<&Brief>> {
    let mut families: Vec<Vec<&Brief>> = Vec::new();
    for brief in order(spec).into_iter().map(|place| &spec.briefs[place]) {
        match families.last_mut().filter(|members| family(members[0]) == family(brief)) {
            Some(members) => members.push(brief),
            None => families.push(vec![brief]),
        }
    }
    families
}

/// What a brief shows between the tuned model and its reference, once every arm has answered it with all samples.
fn difference(spec: &TrialSpec, results: &Results, brief: &Brief, reference: &str) -> Option<f64> {
    let id = brief.id.as_str();
    let complete = spec.arms.iter().all(|arm| results.answers(&arm.name, id).len() == spec.samples as usize);
    let mean = |arm: &str| stats::mean(results.answers(arm, id).iter().map(|row| Metric::Score.of(row)));
    complete.then_some(())?;
    Some(mean(Arm::TUNED)? - mean(reference)?)
}

/// The rows that count: those of the first `n` briefs in the order of the trial.
pub(super) fn counted<'a>(spec: &TrialSpec, rows: &'a [Row], n: usize) -> Vec<&'a Row> {
    let briefs: BTreeSet<&str> =
        order(spec).into_iter().take(n).map(|place| spec.briefs[place].id.as_str()).collect();
    rows.iter().filter(|row| briefs.contains(row.brief.as_str())).collect()
}

/// What a bettor has who began with 1 and stakes on values above zero.
#[derive(Clone, Copy, Debug)]
struct Capital {
    capital: f64,
    n: f64,
    sum: f64,
    /// Of squared distances from the running mean.
    squares: f64,
}

impl Default for Capital {
    fn default() -> Self {
        Self { capital: 1.0, n: 0.0, sum: 0.0, squares: 0.0 }
    }
}

impl Capital {
    /// A value between -1 and 1. The stake depends on the values before alone: that makes the capital honest.
    fn bet(&mut self, value: f64) {
        let value = value.clamp(-1.0, 1.0);
        let mean = self.sum / (self.n + 1.0);
        // One value of a quarter of the range squared stands for what is not known yet.
        let variance = (self.squares + 0.25) / (self.n + 1.0);
        let stake = (mean / (variance + mean * mean)).clamp(0.0, STAKE);
        self.capital *= 1.0 + stake * value;
        self.n += 1.0;
        self.sum += value;
        self.squares += (value - self.sum / (self.n + 1.0)).powi(2);
    }
}

#[cfg(test)]
#[path = "sequential_tests.rs"]
mod tests;
