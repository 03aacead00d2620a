//! What a tuned model has to pass to become the champion, each gate with its reason.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{
    Arm, Row, TrialSpec, Verdict,
    stats::{self, Estimate},
    verdict::{Metric, Results},
};

/// Below these a trial says nothing, whatever its figures.
const MIN_BRIEFS: usize = 10;
const MIN_FAMILIES: usize = 8;
/// The gain in score below which a change is not worth a new champion.
const MIN_GAIN: f64 = 0.3;
/// A pass rate may not be lower by more than this (0.05 = 5 points).
const RATE_MARGIN: f64 = 0.05;
/// The champion is taken back for a run rate that is surely this much lower.
const RATE_HARM: f64 = 0.10;
/// A kind is looked at alone from this many briefs on, and must not lose more than this (score, 0-10).
const KIND_BRIEFS: usize = 10;
const KIND_LOSS: f64 = 1.0;
const ALPHA: f64 = 0.05;
/// Against another tuned model: no slower or longer than this, no less diverse than that.
const MAX_GROWTH: f64 = 1.5;
const MIN_DIVERSITY: f64 = 0.8;
/// From this share of cut-off answers on, the limit is the likely cause of a hold.
const MANY_TRUNCATED: f64 = 0.2;

/// How a gate stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Pass,
    Fail,
    /// The evidence allows both.
    Unclear,
    /// There is nothing to compare; said so that nobody believes it was checked.
    NotApplied,
    /// Worth knowing, decides nothing.
    Note,
}

/// One condition of a promotion.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gate {
    pub name: String,
    pub status: Status,
    pub reason: String,
}

impl Gate {
    fn new(name: &str, status: Status, reason: impl Into<String>) -> Self {
        Self { name: name.into(), status, reason: reason.into() }
    }

    /// `pass: score: ...`.
    pub fn line(&self) -> String {
        format!("{}: {}: {}", self.status.as_str(), self.name, self.reason)
    }
}

impl Status {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Unclear => "unclear",
            Self::NotApplied => "not applied",
            Self::Note => "note",
        }
    }
}

pub(super) struct Decision {
    pub(super) verdict: Verdict,
    pub(super) gates: Vec<Gate>,
    pub(super) cause: Option<String>,
    pub(super) next: Option<String>,
}

/// The arm that the tuned one has to beat: the champion where it takes part, else the base.
pub(super) fn reference(spec: &TrialSpec) -> &'static str {
    if spec.arm(Arm::CHAMPION).is_some() { Arm::CHAMPION } else { Arm::BASE }
}

pub(super) fn decide(spec: &TrialSpec, results: &Results) -> Decision {
    let comparison = Comparison::of(spec, results);
    let gates = comparison.gates();
    let blocked = |gate: &Gate| matches!(gate.status, Status::Fail | Status::Unclear);
    if !gates.iter().any(blocked) {
        return Decision { verdict: Verdict::Promote, gates, cause: None, next: None };
    }
    if let Some(harm) = comparison.champion_harm() {
        let next = Some("run `hone rollback` to take the champion back".into());
        return Decision { verdict: Verdict::RollBack, gates, cause: Some(harm), next };
    }
    let (cause, next) = comparison.likely_cause(&gates);
    Decision { verdict: Verdict::Hold, gates, cause: Some(cause), next: Some(next) }
}

/// Tuned against its reference, with what the gates look at.
struct Comparison<'a> {
    spec: &'a TrialSpec,
    results: &'a Results<'a>,
    reference: &'static str,
    score: Estimate,
    ui_first: Estimate,
    runs: Estimate,
}

impl<'a> Comparison<'a> {
    fn of(spec: &'a TrialSpec, results: &'a Results<'a>) -> Self {
        let reference = reference(spec);
        let of = |metric| results.difference(Arm::TUNED, reference, metric, spec.seed);
        let (score, ui_first, runs) = (of(Metric::Score), of(Metric::UiFirst), of(Metric::Runs));
        Self { spec, results, reference, score, ui_first, runs }
    }

    fn gates(&self) -> Vec<Gate> {
        let mut gates = vec![self.size(), self.score(), self.runs(), self.habit(), self.kinds()];
        gates.extend(self.not_below_base());
        gates.extend([self.latency(), self.length(), self.diversity()]);
        gates.extend(self.prompt());
        gates.push(Gate::new(
            "second judge",
            Status::NotApplied,
            "no second judge took part, the executed score decides",
        ));
        gates
    }

    fn size(&self) -> Gate {
        let (n, families) = (self.score.n, self.score.clusters);
        let wanted = self.spec.briefs.len();
        let status = match (n >= MIN_BRIEFS && families >= MIN_FAMILIES, n < wanted) {
            (true, false) => Status::Pass,
            _ => Status::Unclear,
        };
        let missing =
            if n < wanted { format!(", {} briefs lack an answer", wanted - n) } else { String::new() };
        let reason = format!(
            "{n} paired briefs of {families} families (needed: {MIN_BRIEFS} of {MIN_FAMILIES}){missing}"
        );
        Gate::new("size", status, reason)
    }

    fn score(&self) -> Gate {
        let (mean, lower, upper) = bounds(&self.score);
        let status = match () {
            () if lower > 0.0 && mean >= MIN_GAIN => Status::Pass,
            () if upper < MIN_GAIN => Status::Fail,
            () => Status::Unclear,
        };
        let reason = format!(
            "tuned minus {} {mean:+.2}, one-sided 95% lower bound {} (needed: mean >= {MIN_GAIN:+.2}, bound > 0)",
            self.reference,
            signed(self.score.lower, 2),
        );
        Gate::new("score", status, reason)
    }

    fn runs(&self) -> Gate {
        let (mean, lower, upper) = bounds(&self.runs);
        let status = match () {
            () if lower > -RATE_MARGIN => Status::Pass,
            () if upper < -RATE_MARGIN => Status::Fail,
            () => Status::Unclear,
        };
        let reason = format!(
            "tuned minus {} {:+.0} points, one-sided 95% lower bound {} (needed: > {:+.0})",
            self.reference,
            mean * 100.0,
            signed(self.runs.lower.map(|l| l * 100.0), 0),
            -RATE_MARGIN * 100.0
        );
        Gate::new("runs", status, reason)
    }

    /// The habit is what the tuning is for; it must not be bought off with score.
    fn habit(&self) -> Gate {
        let (mean, ..) = bounds(&self.ui_first);
        let status = match () {
            () if self.ui_first.mean.is_none() => Status::Unclear,
            () if mean >= -RATE_MARGIN => Status::Pass,
            () => Status::Fail,
        };
        let (needed, mean) = (-RATE_MARGIN * 100.0, mean * 100.0);
        let reason = format!("tuned minus {} {mean:+.0} points (needed: >= {needed:+.0})", self.reference);
        Gate::new("ui-first", status, reason)
    }

    fn kinds(&self) -> Gate {
        let mut kinds: BTreeMap<&str, Vec<_>> = BTreeMap::new();
        for (tuned, reference) in self.results.pairs(Arm::TUNED, self.reference) {
            kinds.entry(&tuned[0].kind).or_default().extend(tuned.iter().chain(reference).copied());
        }
        let tested: Vec<(&str, Estimate)> = kinds
            .into_iter()
            .map(|(kind, rows)| {
                let results = Results::of(rows.into_iter());
                (kind, results.difference(Arm::TUNED, self.reference, Metric::Score, self.spec.seed))
            })
            .filter(|(_, estimate)| estimate.n >= KIND_BRIEFS)
            .collect();
        if tested.is_empty() {
            let reason = format!("no kind has {KIND_BRIEFS} briefs, so none is tested alone");
            return Gate::new("kinds", Status::NotApplied, reason);
        }
        let p: Vec<f64> = tested.iter().map(|(_, estimate)| estimate.p.unwrap_or(1.0)).collect();
        let worse: Vec<String> = tested
            .iter()
            .zip(stats::holm(&p))
            .filter(|((_, e), p)| e.mean.unwrap_or(0.0) < -KIND_LOSS && *p < ALPHA)
            .map(|((kind, e), p)| format!("`{kind}` {:+.2} (p {p:.3})", e.mean.unwrap_or(0.0)))
            .collect();
        match worse.is_empty() {
            true => {
                Gate::new("kinds", Status::Pass, format!("none of {} tested kinds got worse", tested.len()))
            }
            false => Gate::new("kinds", Status::Fail, format!("worse on {}", worse.join(", "))),
        }
    }

    /// Beating a champion that has fallen behind the base is not enough.
    fn not_below_base(&self) -> Option<Gate> {
        if self.reference == Arm::BASE {
            return None;
        }
        let base = self.results.difference(Arm::TUNED, Arm::BASE, Metric::Score, self.spec.seed);
        let mean = base.mean.unwrap_or(0.0);
        let status = if mean >= 0.0 { Status::Pass } else { Status::Fail };
        Some(Gate::new("base", status, format!("tuned minus base {mean:+.2} (needed: >= 0)")))
    }

    fn latency(&self) -> Gate {
        let of = |arm| self.results.arm(self.spec, arm).took_ms;
        self.growth("latency", "median time per answer", of(Arm::TUNED), of(self.reference))
    }

    fn length(&self) -> Gate {
        let of = |arm| self.results.arm(self.spec, arm).tokens;
        self.growth("length", "mean tokens per answer", of(Arm::TUNED), of(self.reference))
    }

    fn growth(&self, name: &str, what: &str, tuned: Option<f64>, reference: Option<f64>) -> Gate {
        if let Some(gate) = self.untuned_reference(name) {
            return gate;
        }
        let ratio = match (tuned, reference) {
            (Some(tuned), Some(reference)) if reference > 0.0 => tuned / reference,
            _ => return Gate::new(name, Status::NotApplied, format!("{what} is not known for both")),
        };
        let status = if ratio <= MAX_GROWTH { Status::Pass } else { Status::Fail };
        Gate::new(name, status, format!("{what} is {ratio:.2} times the champion's (at most {MAX_GROWTH})"))
    }

    fn diversity(&self) -> Gate {
        if let Some(gate) = self.untuned_reference("diversity") {
            return gate;
        }
        let of = |arm| diversity(self.results.rows(arm));
        let ratio = match (of(Arm::TUNED), of(self.reference)) {
            (Some(tuned), Some(reference)) if reference > 0.0 => tuned / reference,
            _ => return Gate::new("diversity", Status::NotApplied, "there is too little text to compare"),
        };
        let status = if ratio >= MIN_DIVERSITY { Status::Pass } else { Status::Fail };
        let reason = format!("distinct code is {ratio:.2} times the champion's (at least {MIN_DIVERSITY})");
        Gate::new("diversity", status, reason)
    }

    /// An untuned base writes short prose or endless repetition: its length and variety are no yardstick.
    fn untuned_reference(&self, name: &str) -> Option<Gate> {
        (self.reference == Arm::BASE)
            .then(|| Gate::new(name, Status::NotApplied, "only tuned models are compared with each other"))
    }

    /// Says what a better prompt alone gives: it is cheaper than weights, but no reason to refuse better weights.
    fn prompt(&self) -> Option<Gate> {
        self.spec.arm(Arm::PROMPTED)?;
        let seed = self.spec.seed;
        let alone = self.results.difference(Arm::PROMPTED, Arm::BASE, Metric::Score, seed);
        let beyond = self.results.difference(Arm::TUNED, Arm::PROMPTED, Metric::Score, seed);
        let reason = format!(
            "a better system message alone gives {} over the base, the tuned model {} over that",
            signed(alone.mean, 2),
            signed(beyond.mean, 2)
        );
        Some(Gate::new("prompt", Status::Note, reason))
    }

    /// Why the deployed champion should be taken back, if it should.
    fn champion_harm(&self) -> Option<String> {
        let deployed = self.spec.deployed.as_deref();
        let is_deployed = |arm: &Arm| deployed == Some(arm.model.as_str());
        // The champion arm is the deployed model by definition; a tuned model under test again may be it too.
        let arm = match (self.spec.arm(Arm::CHAMPION), self.spec.arm(Arm::TUNED)) {
            (Some(_), _) => Arm::CHAMPION,
            (None, Some(tuned)) if is_deployed(tuned) => Arm::TUNED,
            _ => return None,
        };
        let of = |metric| self.results.difference(arm, Arm::BASE, metric, self.spec.seed);
        let (score, runs) = (of(Metric::Score), of(Metric::Runs));
        if score.n < MIN_BRIEFS || score.clusters < MIN_FAMILIES {
            return None;
        }
        let (mean, _, upper) = bounds(&score);
        if upper < 0.0 {
            return Some(format!("the champion scores {mean:+.2} against the base, at most {upper:+.2}"));
        }
        let (mean, _, upper) = bounds(&runs);
        let points = mean * 100.0;
        (upper < -RATE_HARM).then(|| format!("the champion runs {points:+.0} points against the base"))
    }

    /// The likely cause of a hold and what to try, the most certain first.
    fn likely_cause(&self, gates: &[Gate]) -> (String, String) {
        let status = |name: &str| gates.iter().find(|g| g.name == name).map(|g| g.status);
        let tuned = self.results.arm(self.spec, Arm::TUNED);
        let again = || {
            "run `hone loop --rounds 2`: another round adds new drafts and rows and trains on more data"
                .to_owned()
        };
        if self.score.n == 0 {
            return ("no brief has an answer of both arms".into(), "run `hone test` again".into());
        }
        if tuned.truncated.unwrap_or(0.0) >= MANY_TRUNCATED {
            let share = tuned.truncated.unwrap_or(0.0) * 100.0;
            let limit = self.spec.max_tokens;
            let cause = format!("{share:.0}% of the tuned answers were cut off at {limit} tokens");
            return (cause, format!("set `max_tokens = {}` under `[agent]` and test again", limit * 2));
        }
        let gained = self.score.mean.unwrap_or(0.0) >= MIN_GAIN;
        if status("score") == Some(Status::Fail) || !gained {
            let cause = self.no_gain(tuned.ui_first.unwrap_or(0.0));
            return (cause, again());
        }
        if status("runs") == Some(Status::Fail) {
            return (format!("tuned answers run less often{}", self.commonest_fault()), again());
        }
        if gates.iter().any(|g| g.status == Status::Fail) {
            let failed: Vec<&str> =
                gates.iter().filter(|g| g.status == Status::Fail).map(|g| g.name.as_str()).collect();
            return (format!("the tuned model scores better but fails on {}", failed.join(", ")), again());
        }
        let needed = self.briefs_needed();
        let cause = format!("inconclusive: {} held-out briefs are too few to tell", self.score.n);
        let next =
            format!("add held-out briefs and run `hone test --limit {needed}` (about {needed} are needed)");
        (cause, next)
    }

    fn no_gain(&self, ui_first: f64) -> String {
        let group = |seen: bool| {
            let pairs = self.results.pairs(Arm::TUNED, self.reference);
            let rows = pairs.iter().flat_map(|(a, b)| a.iter().chain(*b)).copied().filter(|r| r.seen == seen);
            Results::of(rows).difference(Arm::TUNED, self.reference, Metric::Score, self.spec.seed)
        };
        let (seen, unseen) = (group(true), group(false));
        if seen.lower.is_some_and(|l| l > 0.0) && unseen.mean.is_some_and(|m| m < MIN_GAIN) {
            return "better on kinds that training saw, not on others: train on briefs of more kinds".into();
        }
        if ui_first < 0.5 && self.reference == Arm::BASE {
            return "the habit was not learnt: more examples or epochs are needed".into();
        }
        format!("no gain over the {}{}", self.reference, self.commonest_fault())
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

    /// How many briefs the observed gain, or the run-rate margin, would take with the observed spread.
    fn briefs_needed(&self) -> usize {
        let n = self.score.n as f64;
        let distance = |estimate: &Estimate, target: f64| {
            let (mean, lower, _) = bounds(estimate);
            let (half, room) = (mean - lower, mean - target);
            // The half-width shrinks with the square root of the number of briefs.
            if room > 0.0 && half > room { (half / room).powi(2) } else { 1.0 }
        };
        let factor = distance(&self.score, 0.0).max(distance(&self.runs, -RATE_MARGIN));
        let needed = (n * factor).ceil().clamp(0.0, 10_000.0) as usize;
        needed.max(MIN_BRIEFS).max(self.score.n + 1)
    }
}

/// Mean and one-sided bounds, without evidence as wide as can be.
fn bounds(estimate: &Estimate) -> (f64, f64, f64) {
    let open = f64::INFINITY;
    (estimate.mean.unwrap_or(0.0), estimate.lower.unwrap_or(-open), estimate.upper.unwrap_or(open))
}

fn signed(value: Option<f64>, digits: usize) -> String {
    value.map_or("unknown".into(), |v| format!("{v:+.digits$}"))
}

/// Share of distinct four-word sequences in an arm's code, counted over all its answers: falls when a model says the
/// same to every brief. None below a hundred sequences.
fn diversity<'a>(rows: impl Iterator<Item = &'a Row>) -> Option<f64> {
    let (mut seen, mut total) = (BTreeSet::new(), 0usize);
    for row in rows {
        for file in &row.files {
            let words: Vec<&str> =
                file.content.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty()).collect();
            for window in words.windows(4) {
                total += 1;
                seen.insert([window[0], window[1], window[2], window[3]]);
            }
        }
    }
    (total >= 100).then(|| seen.len() as f64 / total as f64)
}
