//! From rows to a verdict: what each arm reached, how they differ, and whether that is enough to change the champion.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{
    Arm, Row, TrialSpec,
    gates::{self, Beside, Gate},
    judge::{self, JudgeFigures},
    pairs::{self, Pair, PairFigures},
    parts::{self, Part},
    sequential::{self, Sequential},
    stats::{self, Diff, Estimate, Precision},
};
use crate::critic::Level;

/// What a trial concludes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The tuned model becomes the champion.
    Promote,
    /// Nothing changes: no difference shown, or too little evidence.
    Hold,
    /// The deployed champion is worse than the base, or than the champion before it: take it back.
    RollBack,
}

impl Verdict {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Promote => "promote",
            Self::Hold => "hold",
            Self::RollBack => "roll_back",
        }
    }
}

/// The result of a trial, as `hone test --json` prints it and `summary.json` keeps it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    pub trial: String,
    /// Briefs that both base and tuned answered.
    pub n: usize,
    /// Families among them.
    pub families: usize,
    /// Answers per brief and arm.
    pub samples: u32,
    pub arms: Arms,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompted: Option<ArmSummary>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub champion: Option<ArmSummary>,
    /// Tuned minus base.
    pub delta: Delta,
    /// Tuned minus the prompt-only arm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delta_prompted: Option<Delta>,
    /// Tuned minus champion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delta_champion: Option<Delta>,
    /// Arms beside those: the champion before, and whatever the user named.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub others: BTreeMap<String, Other>,
    /// Tuned minus base, of what the score is made of (0-10).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub delta_sub_scores: BTreeMap<String, Estimate>,
    /// Smallest differences from the arm that decides which this trial would show, two-sided 5% with 80% power.
    pub mde: Detectable,
    pub verdict: Verdict,
    /// The arm that the gates compare the tuned one with.
    pub compared_with: String,
    /// One line per gate.
    pub reasons: Vec<String>,
    pub gates: Vec<Gate>,
    /// Why it is no promotion, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// What to try next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    pub groups: Groups,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub by_kind: Vec<Part>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub by_family: Vec<Part>,
    /// How a trial that may stop early stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequential: Option<Sequential>,
    /// How often a judge and people prefer the tuned model to the arm that it is compared with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pairs: Vec<PairFigures>,
    /// The error budget that one-sided bounds and the score's p-value are held to.
    #[serde(default = "super::spec::usual_alpha")]
    pub alpha: f64,
    /// The earlier trial of the same model whose budget this is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alpha_from: Option<String>,
    /// What a judge said of base and tuned; no gate looks at it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub judge: Option<JudgeFigures>,
    /// Critic version; none without rows.
    pub critic: Option<String>,
    pub level: Option<Level>,
    pub seed: u64,
    /// Path of `report.html`, once it is written.
    pub report: Option<String>,
}

/// An arm without a name of its own in the summary.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Other {
    pub arm: ArmSummary,
    /// Tuned minus this arm.
    pub delta: Delta,
}

/// The two arms that every trial has.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Arms {
    pub base: ArmSummary,
    pub tuned: ArmSummary,
}

/// What one arm reached. Each brief counts once, by the mean of its samples; none without answers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ArmSummary {
    pub model: String,
    pub answers: usize,
    /// Rates, 0-1, and their 95% Wilson intervals over briefs.
    pub ui_first: Option<f64>,
    pub ui_first_interval: Option<(f64, f64)>,
    pub runs: Option<f64>,
    pub runs_interval: Option<(f64, f64)>,
    /// Shares of answers that keep the user's own habits, 0-1.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub habits: BTreeMap<String, f64>,
    /// Mean, 0-10.
    pub score: Option<f64>,
    /// What it is made of, 0-10; those without evidence are left out.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sub_scores: BTreeMap<String, f64>,
    /// Mean per answer, o200k_base.
    pub tokens: Option<f64>,
    /// Median per answer that was asked for in this trial.
    pub took_ms: Option<f64>,
    /// Nine of ten answers took no longer.
    #[serde(default)]
    pub took_ms_p90: Option<f64>,
    /// Share of answers cut off at `max_tokens`.
    pub truncated: Option<f64>,
}

/// Mean paired differences; rates as shares (0.5 = 50 points).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Delta {
    pub score: Estimate,
    pub ui_first: Estimate,
    pub runs: Estimate,
}

/// Differences, of rates as shares; none where no difference would show.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Detectable {
    pub score: Option<f64>,
    pub ui_first: Option<f64>,
    pub runs: Option<f64>,
    /// The arm that the tuned model is compared with; the base in summaries of older versions, which do not say.
    #[serde(default = "base")]
    pub against: String,
}

fn base() -> String {
    Arm::BASE.into()
}

/// Held-out briefs of kinds that training saw, and of kinds that it never saw.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Groups {
    pub seen_kinds: Group,
    pub unseen_kinds: Group,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Group {
    pub n: usize,
    pub families: usize,
    pub arms: Arms,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompted: Option<ArmSummary>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub champion: Option<ArmSummary>,
    pub delta: Delta,
}

/// Summarises the rows of a trial; a pure function, and the order of the rows does not matter.
pub fn summarise(spec: &TrialSpec, rows: &[Row]) -> Summary {
    summarise_with(spec, rows, &[])
}

/// The same with what a judge and people said of pairs of answers.
pub fn summarise_with(spec: &TrialSpec, rows: &[Row], pairs: &[Pair]) -> Summary {
    let precision = spec.precision();
    let all = Results::of(rows.iter());
    let sequential = spec.sequential.then(|| sequential::watch(spec, &all, spec.reference()));
    let rows: Vec<&Row> = match sequential {
        Some(found) => sequential::counted(spec, rows, found.n),
        None => rows.iter().collect(),
    };
    let table = Results::of(rows.iter().copied());
    let delta = |reference: &str| table.delta(reference, &precision);
    let optional = |arm: &str| spec.arm(arm).map(|_| table.arm(spec, arm));
    let pairs = pairs::figures(pairs);
    let verdict = gates::decide(spec, &table, &precision, &Beside { sequential, pairs: &pairs });
    let compared = delta(Arm::BASE);
    Summary {
        trial: spec.id.clone(),
        n: table.pairs(Arm::TUNED, Arm::BASE).len(),
        families: compared.score.clusters,
        samples: spec.samples,
        arms: table.arms(spec),
        prompted: optional(Arm::PROMPTED),
        champion: optional(Arm::CHAMPION),
        delta: compared,
        delta_prompted: spec.arm(Arm::PROMPTED).map(|_| delta(Arm::PROMPTED)),
        delta_champion: spec.arm(Arm::CHAMPION).map(|_| delta(Arm::CHAMPION)),
        others: others(spec, &table),
        delta_sub_scores: parts::sub_score_differences(spec, &table),
        mde: table.detectable(spec.reference()),
        verdict: verdict.verdict,
        compared_with: spec.reference().into(),
        reasons: verdict.gates.iter().map(Gate::line).collect(),
        gates: verdict.gates,
        cause: verdict.cause,
        next: verdict.next,
        groups: Groups {
            seen_kinds: group(spec, rows.iter().copied().filter(|r| r.seen)),
            unseen_kinds: group(spec, rows.iter().copied().filter(|r| !r.seen)),
        },
        by_kind: parts::by_kind(&table),
        by_family: parts::by_family(&table),
        sequential,
        pairs,
        alpha: spec.alpha,
        alpha_from: spec.alpha_from.clone(),
        judge: judge::figures(spec, &rows),
        critic: rows.first().map(|r| r.critic.clone()),
        level: rows.first().map(|r| r.level),
        seed: spec.seed,
        report: None,
    }
}

/// Arms that the summary has no field for.
fn others(spec: &TrialSpec, table: &Results) -> BTreeMap<String, Other> {
    let named = [Arm::BASE, Arm::TUNED, Arm::PROMPTED, Arm::CHAMPION];
    let others = spec.arms.iter().filter(|arm| !named.contains(&arm.name.as_str()));
    let other = |arm: &Arm| Other {
        arm: table.arm(spec, &arm.name),
        delta: table.delta(&arm.name, &spec.precision()),
    };
    others.map(|arm| (arm.name.clone(), other(arm))).collect()
}

fn group<'a>(spec: &TrialSpec, rows: impl Iterator<Item = &'a Row>) -> Group {
    let table = Results::of(rows);
    let optional = |arm| spec.arm(arm).map(|_| table.arm(spec, arm));
    let delta = table.delta(Arm::BASE, &spec.precision());
    Group {
        n: table.pairs(Arm::TUNED, Arm::BASE).len(),
        families: delta.score.clusters,
        arms: table.arms(spec),
        prompted: optional(Arm::PROMPTED),
        champion: optional(Arm::CHAMPION),
        delta,
    }
}

/// What is compared of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    Score,
    UiFirst,
    Runs,
}

impl Metric {
    pub(super) fn of(self, row: &Row) -> f64 {
        match self {
            Self::Score => row.score,
            Self::UiFirst => f64::from(u8::from(row.ui_first)),
            Self::Runs => f64::from(u8::from(row.runs)),
        }
    }
}

/// Rows by arm and brief.
pub(super) struct Results<'a> {
    arms: BTreeMap<&'a str, BTreeMap<&'a str, Vec<&'a Row>>>,
}

impl<'a> Results<'a> {
    pub(super) fn of(rows: impl Iterator<Item = &'a Row>) -> Self {
        let mut arms: BTreeMap<&str, BTreeMap<&str, Vec<&Row>>> = BTreeMap::new();
        for row in rows {
            arms.entry(&row.arm).or_default().entry(&row.brief).or_default().push(row);
        }
        for rows in arms.values_mut().flat_map(|briefs| briefs.values_mut()) {
            rows.sort_by_key(|row| row.sample);
        }
        Self { arms }
    }

    pub(super) fn rows(&self, arm: &str) -> impl Iterator<Item = &'a Row> + '_ {
        self.arms.get(arm).into_iter().flat_map(|briefs| briefs.values().flatten().copied())
    }

    /// An arm's answers to each brief that it answered.
    pub(super) fn by_brief(&self, arm: &str) -> impl Iterator<Item = &[&'a Row]> + '_ {
        self.arms.get(arm).into_iter().flat_map(|briefs| briefs.values().map(Vec::as_slice))
    }

    /// An arm's answers to a brief.
    pub(super) fn answers(&self, arm: &str, brief: &str) -> &[&'a Row] {
        self.arms.get(arm).and_then(|briefs| briefs.get(brief)).map_or(&[], Vec::as_slice)
    }

    /// Answers of two arms to the briefs that both answered.
    pub(super) fn pairs(&self, arm: &str, reference: &str) -> Vec<(&[&'a Row], &[&'a Row])> {
        let (Some(arm), Some(reference)) = (self.arms.get(arm), self.arms.get(reference)) else {
            return Vec::new();
        };
        arm.iter().filter_map(|(brief, rows)| Some((&rows[..], &reference.get(brief)?[..]))).collect()
    }

    /// The difference `arm` minus `reference` that each brief shows, clustered by family.
    pub(super) fn diffs(&self, arm: &str, reference: &str, metric: Metric) -> Vec<Diff> {
        let mean = |rows: &[&Row]| stats::mean(rows.iter().map(|r| metric.of(r))).unwrap_or(0.0);
        let diff =
            |(arm, reference): (&[&Row], &[&Row])| Diff::new(family(arm[0]), mean(arm) - mean(reference));
        self.pairs(arm, reference).into_iter().map(diff).collect()
    }

    pub(super) fn difference(
        &self,
        arm: &str,
        reference: &str,
        metric: Metric,
        precision: &Precision,
    ) -> Estimate {
        let diffs = self.diffs(arm, reference, metric);
        match metric {
            Metric::Score => stats::score_difference(&diffs, precision),
            Metric::UiFirst | Metric::Runs => stats::rate_difference(&diffs, precision.alpha),
        }
    }

    /// Tuned minus `reference`, p-values adjusted over the three metrics.
    fn delta(&self, reference: &str, precision: &Precision) -> Delta {
        let mut estimates = [Metric::Score, Metric::UiFirst, Metric::Runs]
            .map(|metric| self.difference(Arm::TUNED, reference, metric, precision));
        let p: Vec<f64> = estimates.iter().filter_map(|e| e.p).collect();
        for (estimate, p) in estimates.iter_mut().filter(|e| e.p.is_some()).zip(stats::holm(&p)) {
            estimate.p_holm = Some(p);
        }
        let [score, ui_first, runs] = estimates;
        Delta { score, ui_first, runs }
    }

    fn detectable(&self, reference: &str) -> Detectable {
        let rate = |metric| {
            let diffs = self.diffs(Arm::TUNED, reference, metric);
            let count = |differs: fn(f64) -> bool| diffs.iter().filter(|d| differs(d.value)).count();
            stats::detectable_rate(diffs.len(), count(|d| d > 0.0), count(|d| d < 0.0))
        };
        Detectable {
            score: stats::detectable_score(&self.diffs(Arm::TUNED, reference, Metric::Score)),
            ui_first: rate(Metric::UiFirst),
            runs: rate(Metric::Runs),
            against: reference.into(),
        }
    }

    fn arms(&self, spec: &TrialSpec) -> Arms {
        Arms { base: self.arm(spec, Arm::BASE), tuned: self.arm(spec, Arm::TUNED) }
    }

    pub(super) fn arm(&self, spec: &TrialSpec, name: &str) -> ArmSummary {
        let rows: Vec<&Row> = self.rows(name).collect();
        let briefs = self.arms.get(name).map_or(0, BTreeMap::len);
        let of_answers = |value: fn(&Row) -> f64| stats::mean(rows.iter().map(|r| value(r)));
        let interval = |rate: Option<f64>| stats::wilson(rate? * briefs as f64, briefs);
        let (ui_first, runs) = (self.mean(name, Metric::UiFirst), self.mean(name, Metric::Runs));
        let live = || rows.iter().filter(|row| !row.replayed).map(|row| row.took_ms as f64);
        let took = |share: f64| stats::quantile_of(live(), share);
        ArmSummary {
            model: spec.arm(name).map(|arm| arm.model.clone()).unwrap_or_default(),
            answers: rows.len(),
            ui_first,
            ui_first_interval: interval(ui_first),
            runs,
            runs_interval: interval(runs),
            habits: habits(&rows),
            score: self.mean(name, Metric::Score),
            sub_scores: parts::sub_scores(self, name),
            tokens: of_answers(|r| r.tokens as f64),
            took_ms: took(0.5),
            took_ms_p90: took(0.9),
            truncated: of_answers(|r| f64::from(u8::from(r.truncated()))),
        }
    }

    /// Mean over briefs of the mean over samples.
    pub(super) fn mean(&self, arm: &str, metric: Metric) -> Option<f64> {
        let of_brief = |rows: &Vec<&Row>| stats::mean(rows.iter().map(|r| metric.of(r)));
        stats::mean(self.arms.get(arm)?.values().filter_map(of_brief))
    }
}

/// Of each habit, the share of the answers that keep it.
fn habits(rows: &[&Row]) -> BTreeMap<String, f64> {
    let names: BTreeSet<&String> = rows.iter().flat_map(|row| row.habits.keys()).collect();
    let kept = |name: &str| {
        stats::mean(rows.iter().filter_map(|row| Some(f64::from(u8::from(*row.habits.get(name)?)))))
    };
    names.into_iter().filter_map(|name| Some((name.clone(), kept(name)?))).collect()
}

/// A brief without a family is one of its own.
pub(super) fn family(row: &Row) -> &str {
    if row.family.is_empty() { &row.brief } else { &row.family }
}

#[cfg(test)]
#[path = "verdict_tests.rs"]
mod tests;
