//! What a tuned model has to pass to become the champion, each gate with its reason.
//!
//! How often these gates promote a model that is no better, and how often one that is, has been simulated:
//! docs/design/statistics.md.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{
    Arm, Row, TrialSpec, Verdict,
    pairs::{PEOPLE, PairFigures},
    sequential::{HARM, Sequential},
    stats::{self, Estimate, Precision},
    verdict::{Metric, Results},
};

/// Below these a trial says nothing, whatever its figures.
pub(super) const MIN_BRIEFS: usize = 10;
const MIN_FAMILIES: usize = 8;
/// The gain in score below which a change is not worth a new champion.
pub(super) const MIN_GAIN: f64 = 0.3;
/// A pass rate may not be lower by more than this (0.05 = 5 points).
pub(super) const RATE_MARGIN: f64 = 0.05;
/// The champion is taken back for a run rate that is surely this much lower.
const RATE_HARM: f64 = 0.10;
/// A kind is looked at alone from this many briefs on, and must not lose more than this (score, 0-10).
const KIND_BRIEFS: usize = 10;
const KIND_LOSS: f64 = 1.0;
const KIND_ALPHA: f64 = 0.05;
/// Against another tuned model: no slower or longer than this, no less diverse than that.
const MAX_GROWTH: f64 = 1.5;
const MIN_DIVERSITY: f64 = 0.8;

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

/// What is known beside the rows.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Beside<'a> {
    pub(super) sequential: Option<Sequential>,
    pub(super) pairs: &'a [PairFigures],
}

pub(super) fn decide(
    spec: &TrialSpec,
    results: &Results,
    precision: &Precision,
    beside: &Beside,
) -> Decision {
    let comparison = Comparison::of(spec, results, precision, beside);
    let gates = comparison.gates();
    let blocked = |gate: &Gate| matches!(gate.status, Status::Fail | Status::Unclear);
    let promoted = !gates.iter().any(blocked);
    // A model in office that beats the base may still be worse than the one before it; a new one takes its place.
    let in_office = spec.arm(Arm::CHAMPION).is_none();
    let harm = comparison.champion_harm().filter(|_| in_office || !promoted);
    if let Some(harm) = harm {
        let next = Some("run `hone rollback` to take the champion back".into());
        return Decision { verdict: Verdict::RollBack, gates, cause: Some(harm), next };
    }
    if promoted {
        return Decision { verdict: Verdict::Promote, gates, cause: None, next: None };
    }
    let (cause, next) = comparison.likely_cause(&gates);
    Decision { verdict: Verdict::Hold, gates, cause: Some(cause), next: Some(next) }
}

/// Tuned against its reference, with what the gates look at.
pub(super) struct Comparison<'a> {
    pub(super) spec: &'a TrialSpec,
    pub(super) results: &'a Results<'a>,
    pub(super) precision: &'a Precision,
    beside: &'a Beside<'a>,
    pub(super) reference: &'static str,
    pub(super) score: Estimate,
    pub(super) ui_first: Estimate,
    pub(super) runs: Estimate,
}

impl<'a> Comparison<'a> {
    fn of(
        spec: &'a TrialSpec,
        results: &'a Results<'a>,
        precision: &'a Precision,
        beside: &'a Beside<'a>,
    ) -> Self {
        let reference = spec.reference();
        let of = |metric| results.difference(Arm::TUNED, reference, metric, precision);
        let (score, ui_first, runs) = (of(Metric::Score), of(Metric::UiFirst), of(Metric::Runs));
        Self { spec, results, precision, beside, reference, score, ui_first, runs }
    }

    fn gates(&self) -> Vec<Gate> {
        let score = self.beside.sequential.map_or_else(|| self.score(), |found| self.betting(&found));
        let mut gates = vec![self.size(), score, self.runs(), self.habit(), self.kinds()];
        gates.extend(self.not_below_base());
        gates.extend([self.latency(), self.length(), self.diversity()]);
        gates.extend(self.prompt());
        gates.extend(self.preferences());
        gates
    }

    fn size(&self) -> Gate {
        let (n, families) = (self.score.n, self.score.clusters);
        // A trial that was stopped early asks no more of the briefs after.
        let stopped = self.beside.sequential.filter(|found| found.stopped);
        let wanted = stopped.map_or(self.spec.briefs.len(), |found| found.n);
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
        let (p, alpha) = (self.score.p_above.unwrap_or(1.0), self.precision.alpha);
        let status = match () {
            () if lower > 0.0 && p <= alpha && mean >= MIN_GAIN => Status::Pass,
            () if upper < MIN_GAIN => Status::Fail,
            () => Status::Unclear,
        };
        let reason = format!(
            "tuned minus {} {mean:+.2}, one-sided {} lower bound {}, sign-flip p {} (needed: mean >= {MIN_GAIN:+.2}, \
             bound > 0, p <= {})",
            self.reference,
            self.sureness(),
            signed(self.score.lower, 2),
            self.score.p_above.map_or("unknown".into(), |p| format!("{p:.4}")),
            short(alpha),
        );
        Gate::new("score", status, reason)
    }

    /// The score gate of a trial that may stop early: whoever looks often is only safe with an e-value.
    fn betting(&self, found: &Sequential) -> Gate {
        let (mean, _, upper) = bounds(&self.score);
        let (needed, alpha) = (1.0 / self.precision.alpha, self.precision.alpha);
        let status = match () {
            () if found.e >= needed && mean >= MIN_GAIN => Status::Pass,
            () if found.harm_e >= HARM || upper < MIN_GAIN => Status::Fail,
            () => Status::Unclear,
        };
        let reason = format!(
            "tuned minus {} {mean:+.2}, e-value {} after {} of {} briefs, of harm {} (needed: mean >= {MIN_GAIN:+.2}, \
             e >= {} for an error budget of {})",
            self.reference,
            e_value(found.e),
            found.n,
            found.of,
            e_value(found.harm_e),
            short(needed),
            short(alpha),
        );
        Gate::new("score", status, reason)
    }

    /// Whoever compared pairs must not contradict the scores.
    fn preferences(&self) -> Vec<Gate> {
        let (people, judges): (Vec<_>, Vec<_>) = self.beside.pairs.iter().partition(|f| f.by == PEOPLE);
        let mut gates: Vec<Gate> =
            judges.into_iter().map(|figures| self.preference("second judge", figures)).collect();
        if gates.is_empty() {
            let reason = "no second judge took part, the executed score decides";
            gates.push(Gate::new("second judge", Status::NotApplied, reason));
        }
        gates.extend(people.into_iter().map(|figures| self.preference(PEOPLE, figures)));
        gates
    }

    fn preference(&self, name: &str, figures: &PairFigures) -> Gate {
        let (Some(rate), Some(low), Some(high)) = (figures.win_rate, figures.low, figures.high) else {
            return Gate::new(name, Status::NotApplied, "no pair of answers was compared");
        };
        let gained = self.score.mean.unwrap_or(0.0) > 0.0;
        let (agrees, contradicts) = if gained { (rate > 0.5, high < 0.5) } else { (rate < 0.5, low > 0.5) };
        let status = match (agrees, contradicts) {
            (true, _) => Status::Pass,
            (_, true) => Status::Fail,
            _ => Status::Note,
        };
        let reason = format!(
            "{} prefers tuned to {} on {:.0}% of {} briefs [{:.0}%, {:.0}%] (needed: not surely against the score)",
            figures.by,
            self.reference,
            100.0 * rate,
            figures.n,
            100.0 * low,
            100.0 * high
        );
        Gate::new(name, status, reason.replace("people prefers", "people prefer"))
    }

    fn runs(&self) -> Gate {
        let (mean, lower, upper) = bounds(&self.runs);
        let status = match () {
            () if lower > -RATE_MARGIN => Status::Pass,
            () if upper < -RATE_MARGIN => Status::Fail,
            () => Status::Unclear,
        };
        let reason = format!(
            "tuned minus {} {:+.0} points, one-sided {} lower bound {} (needed: > {:+.0})",
            self.reference,
            mean * 100.0,
            self.sureness(),
            signed(self.runs.lower.map(|l| l * 100.0), 0),
            -RATE_MARGIN * 100.0
        );
        Gate::new("runs", status, reason)
    }

    /// `95%`: how sure a one-sided bound is.
    fn sureness(&self) -> String {
        // A tenth of a percent tells rounds apart; more digits say no more.
        format!("{}%", short((1000.0 * (1.0 - self.precision.alpha)).round() / 10.0))
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
                (kind, results.difference(Arm::TUNED, self.reference, Metric::Score, self.precision))
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
            .filter(|((_, e), p)| e.mean.unwrap_or(0.0) < -KIND_LOSS && *p < KIND_ALPHA)
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
        let base = self.results.difference(Arm::TUNED, Arm::BASE, Metric::Score, self.precision);
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
            _ => {
                return Gate::new(
                    name,
                    Status::NotApplied,
                    format!("{what} was not measured for both in this trial"),
                );
            }
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
        let of = |arm, reference| self.results.difference(arm, reference, Metric::Score, self.precision);
        let (alone, beyond) = (of(Arm::PROMPTED, Arm::BASE), of(Arm::TUNED, Arm::PROMPTED));
        let reason = format!(
            "a better system message alone gives {} over the base, the tuned model {} over that",
            signed(alone.mean, 2),
            signed(beyond.mean, 2)
        );
        Some(Gate::new("prompt", Status::Note, reason))
    }

    /// Why the deployed champion should be taken back, if it should: it is surely worse than the base, or than the champion
    /// before it.
    fn champion_harm(&self) -> Option<String> {
        let deployed = self.spec.deployed.as_deref();
        let is_deployed = |arm: &Arm| deployed == Some(arm.model.as_str());
        // The champion arm is the deployed model by definition; a tuned model under test again may be it too.
        let arm = match (self.spec.arm(Arm::CHAMPION), self.spec.arm(Arm::TUNED)) {
            (Some(_), _) => Arm::CHAMPION,
            (None, Some(tuned)) if is_deployed(tuned) => Arm::TUNED,
            _ => return None,
        };
        let against = [("base", Arm::BASE), ("champion before it", Arm::PREVIOUS)];
        let against: Vec<_> = against.into_iter().filter(|(_, name)| self.spec.arm(name).is_some()).collect();
        // The budget is shared: each comparison is one more chance to be wrong.
        let alpha = self.precision.alpha / against.len() as f64;
        let precision = Precision { alpha, ..*self.precision };
        against.into_iter().find_map(|(name, reference)| self.harm(arm, name, reference, &precision))
    }

    /// What the reference has over the arm, when it surely has.
    fn harm(&self, arm: &str, name: &str, reference: &str, precision: &Precision) -> Option<String> {
        let lost = |metric| self.results.difference(reference, arm, metric, precision);
        let (score, runs) = (lost(Metric::Score), lost(Metric::Runs));
        if score.n < MIN_BRIEFS || score.clusters < MIN_FAMILIES {
            return None;
        }
        let (mean, lower, _) = bounds(&score);
        if lower > 0.0 && score.p_above.is_some_and(|p| p <= precision.alpha) {
            let (mean, at_most) = (-mean, -lower);
            return Some(format!("the champion scores {mean:+.2} against the {name}, at most {at_most:+.2}"));
        }
        let (mean, lower, _) = bounds(&runs);
        let points = -100.0 * mean;
        (lower > RATE_HARM).then(|| format!("the champion runs {points:+.0} points against the {name}"))
    }
}

/// Mean and one-sided bounds, without evidence as wide as can be.
fn bounds(estimate: &Estimate) -> (f64, f64, f64) {
    let open = f64::INFINITY;
    (estimate.mean.unwrap_or(0.0), estimate.lower.unwrap_or(-open), estimate.upper.unwrap_or(open))
}

/// At most four decimals, without zeros at the end.
pub(super) fn short(value: f64) -> String {
    let text = format!("{value:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Two decimals of what is small, none of what is large.
fn e_value(e: f64) -> String {
    if e < 100.0 { format!("{e:.2}") } else { format!("{e:.0}") }
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
