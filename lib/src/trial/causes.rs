//! Why a trial ends in a hold, and the command to try next: the most certain cause first.

use std::collections::BTreeMap;

use super::{
    Arm,
    gates::{Comparison, Gate, MIN_BRIEFS, MIN_GAIN, RATE_MARGIN, Status},
    stats,
    verdict::{Metric, Results},
};

/// From this share of cut-off answers on, the limit is the likely cause.
const MANY_TRUNCATED: f64 = 0.2;
/// From this share of answers that begin with configuration on, the data teaches it.
const MANY_CONFIG_FIRST: f64 = 0.05;
/// Below this many rows little is learnt.
const FEW_ROWS: usize = 100;
/// Up to this many epochs more of them are worth a try.
const FEW_EPOCHS: u32 = 3;
/// Below this rate of UI-first answers the habit is not learnt.
const HABIT_LEARNT: f64 = 0.5;

impl Comparison<'_> {
    /// A cause and what to try, each a sentence without a period.
    pub(super) fn likely_cause(&self, gates: &[Gate]) -> (String, String) {
        if self.score.n == 0 {
            return ("no brief has an answer of both arms".into(), "run `hone test` again".into());
        }
        let failed: Vec<&str> =
            gates.iter().filter(|g| g.status == Status::Fail).map(|g| g.name.as_str()).collect();
        let gained = self.score.mean.unwrap_or(0.0) >= MIN_GAIN;
        let no_better = failed.contains(&"score") || !gained;
        let learnt_wrong = no_better || failed.contains(&"runs") || failed.contains(&"ui-first");
        let found = self.cut_off().or_else(|| learnt_wrong.then(|| self.training(no_better)).flatten());
        if let Some(found) = found {
            return found;
        }
        if no_better {
            return (format!("no gain over the {}{}", self.reference, self.commonest_fault()), again());
        }
        if failed.contains(&"runs") {
            return (format!("tuned answers run less often{}", self.commonest_fault()), again());
        }
        if !failed.is_empty() {
            let failed = failed.join(", ");
            return (format!("the tuned model scores better but fails on {failed}"), again());
        }
        let needed = self.briefs_needed();
        let cause = format!("inconclusive: {} held-out briefs are too few to tell", self.score.n);
        (cause, self.more_briefs(needed))
    }

    fn cut_off(&self) -> Option<(String, String)> {
        let tuned = self.results.arm(self.spec, Arm::TUNED);
        let share = tuned.truncated.filter(|share| *share >= MANY_TRUNCATED)? * 100.0;
        let limit = self.spec.max_tokens;
        let cause = format!("{share:.0}% of the tuned answers were cut off at {limit} tokens");
        Some((cause, format!("set `max_tokens = {}` under `[agent]` and test again", limit * 2)))
    }

    /// What the training itself explains.
    fn training(&self, no_better: bool) -> Option<(String, String)> {
        let training = self.spec.training.clone().unwrap_or_default();
        let trained_with = training.prompt_sha256.as_ref();
        if trained_with.zip(self.spec.asked_sha256.as_ref()).is_some_and(|(one, other)| one != other) {
            let cause = "the tuned model is asked with another prompt than it was trained with";
            let next = "run `hone prepare` and `hone finetune` to train with today's prompt, or put back the templates in \
                        `prompts/`";
            return Some((cause.into(), next.into()));
        }
        if let Some(share) = training.config_first_share.filter(|share| *share > MANY_CONFIG_FIRST) {
            let cause =
                format!("{:.0}% of the answers that it learned from begin with configuration", share * 100.0);
            let next = "run `hone validate data/ui_agent_openai_finetuning.jsonl --fix` and `hone finetune` with the \
                        corrected file";
            return Some((cause, next.into()));
        }
        if no_better && self.seen_kinds_alone() {
            let cause = "better on kinds that training saw, not on others: train on briefs of more kinds";
            return Some((cause.into(), again()));
        }
        if let Some(rows) = training.rows.filter(|rows| *rows < FEW_ROWS) {
            let cause =
                format!("the tuned model learned from {rows} rows, which is little: {FEW_ROWS} to 200 show");
            let next = "run `hone evolve --limit 100`, `hone prepare` and `hone finetune` for more data";
            return Some((cause, next.into()));
        }
        let ui_first = self.results.mean(Arm::TUNED, Metric::UiFirst).unwrap_or(0.0);
        if ui_first >= HABIT_LEARNT || self.reference != Arm::BASE {
            return None;
        }
        Some(match training.epochs {
            Some(epochs) if epochs <= FEW_EPOCHS => (
                format!("the habit was not learnt in {epochs} epochs"),
                "run `hone finetune --n-epochs 5` and test again".into(),
            ),
            _ => ("the habit was not learnt: more examples or epochs are needed".into(), again()),
        })
    }

    /// Surely better on kinds that training saw, and not on the others.
    fn seen_kinds_alone(&self) -> bool {
        let group = |seen: bool| {
            let pairs = self.results.pairs(Arm::TUNED, self.reference);
            let rows = pairs.iter().flat_map(|(a, b)| a.iter().chain(*b)).copied().filter(|r| r.seen == seen);
            Results::of(rows).difference(Arm::TUNED, self.reference, Metric::Score, self.precision)
        };
        group(true).lower.is_some_and(|l| l > 0.0) && group(false).mean.is_some_and(|m| m < MIN_GAIN)
    }

    /// `; most often: ...`, by the gravest issue of each tuned answer.
    fn commonest_fault(&self) -> String {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for issue in self.results.rows(Arm::TUNED).filter_map(|row| row.issues.first()) {
            *counts.entry(&issue.message).or_default() += 1;
        }
        // The first of equals, so that the order of rows does not show.
        let most = counts.into_iter().rev().max_by_key(|(_, count)| *count);
        most.map(|(message, count)| format!("; most often ({count} answers): {message}")).unwrap_or_default()
    }

    /// How many briefs it takes for four of five such trials to tell, were the observed gain and spread the true ones.
    fn briefs_needed(&self) -> usize {
        let (diffs, alpha) =
            (|metric| self.results.diffs(Arm::TUNED, self.reference, metric), self.precision.alpha);
        let score = stats::pairs_for_score(&diffs(Metric::Score), MIN_GAIN, alpha);
        let runs = stats::pairs_for_rate(&diffs(Metric::Runs), -RATE_MARGIN, alpha);
        score.max(runs).unwrap_or(0).max(MIN_BRIEFS).max(self.score.n + 1)
    }

    /// What to do about too few briefs: to ask more of those that there are, or to write some first.
    fn more_briefs(&self, needed: usize) -> String {
        let run = format!(
            "run `hone test --limit {needed}`: about {needed} are needed for 4 of 5 such trials to tell"
        );
        match self.spec.heldout {
            Some(there) if there >= needed => run,
            Some(there) => {
                let more = needed - there;
                format!("add {more} briefs to `briefs/heldout.jsonl`, which has {there}, and {run}")
            }
            None => format!("add held-out briefs and {run}"),
        }
    }
}

fn again() -> String {
    "run `hone loop --rounds 2`: another round adds new drafts and rows and trains on more data".to_owned()
}
