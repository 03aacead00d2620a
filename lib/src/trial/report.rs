//! `report.html`: a trial in one file that needs nothing else: no script, no request, both themes, any width.

use std::cmp::Ordering;

use minijinja::{AutoEscape, Environment, value::Serde};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::{
    Arm, Part, Row, Summary, Trial, TrialError, TrialSpec, chart,
    gates::short,
    pairs::PEOPLE,
    parts,
    pictures::Pictures,
    stats::Estimate,
    table::{self, Unit, interval, number, others, p_value, percent},
    verdict::{ArmSummary, Delta},
};
use crate::store::{StoreError, write_atomic, write_json};

const TEMPLATE: &str = include_str!("report.html.jinja");

/// A point of the loss curve.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossPoint {
    pub step: u64,
    pub train: f64,
    pub valid: Option<f64>,
}

/// What a report shows beside the trial itself; all of it may be missing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Extras {
    pub loss: Vec<LossPoint>,
    /// Further lines of the methods table, e.g. ("dataset SHA-256", "...").
    pub facts: Vec<(String, String)>,
    /// When the report is made, as shown; empty to leave it out.
    pub made_at: String,
}

/// Writes `report.html` and `summary.json` into the trial's folder and puts the report's path into the summary.
pub fn write_report(
    trial: &Trial,
    rows: &[Row],
    summary: &mut Summary,
    extras: &Extras,
) -> Result<(), TrialError> {
    let path = trial.report();
    let pictures = Pictures::load(trial.spec(), rows, &trial.screenshots());
    let html = html(trial.spec(), rows, summary, extras, &pictures)
        .map_err(|e| StoreError::new("write", &path, std::io::Error::other(e)))?;
    write_atomic(&path, html.as_bytes())?;
    summary.report = Some(path.display().to_string());
    Ok(write_json(&trial.summary(), summary)?)
}

/// The report as one HTML document.
///
/// # Errors
/// A fault in the template or a chart: our own.
fn html(
    spec: &TrialSpec,
    rows: &[Row],
    summary: &Summary,
    extras: &Extras,
    pictures: &Pictures,
) -> Result<String, ReportError> {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    let template = environment.template_from_str(TEMPLATE)?;
    Ok(template.render(Serde(View::of(spec, rows, summary, extras, pictures)?))?)
}

/// Everything that the template shows.
#[derive(Serialize)]
struct View<'a> {
    summary: &'a Summary,
    verdict: &'static str,
    headline: String,
    tiles: Vec<Tile>,
    groups: Vec<GroupView>,
    others: Vec<OtherView>,
    /// SVG, or empty.
    loss: String,
    loss_caption: String,
    /// SVG, or empty.
    pairs: String,
    /// Differences with their intervals; SVG, or empty.
    intervals: String,
    kinds: Vec<PartView<'a>>,
    families: Vec<PartView<'a>>,
    preferences: Vec<(String, String)>,
    /// Whether people compared answers.
    people: bool,
    has_pictures: bool,
    pictures_left_out: usize,
    alpha: String,
    better: usize,
    worse: usize,
    equal: usize,
    briefs: Vec<BriefView<'a>>,
    methods: Vec<(String, String)>,
    made_at: &'a str,
}

impl<'a> View<'a> {
    fn of(
        spec: &'a TrialSpec,
        rows: &'a [Row],
        summary: &'a Summary,
        extras: &'a Extras,
        pictures: &'a Pictures,
    ) -> Result<Self, ReportError> {
        let briefs = briefs(spec, rows, pictures);
        let pairs: Vec<chart::Pair> = briefs.iter().filter_map(BriefView::pair).collect();
        let count = |order| pairs.iter().filter(|p| p.tuned.total_cmp(&p.base) == order).count();
        Ok(Self {
            summary,
            verdict: summary.verdict.as_str(),
            headline: capitalised(&table::headline(summary)),
            tiles: tiles(summary),
            groups: groups(summary),
            others: others(summary).map(|(name, arm, delta)| other(name, arm, delta)).collect(),
            loss: chart::loss(&extras.loss)?,
            loss_caption: loss_caption(&extras.loss),
            pairs: chart::pairs(&pairs)?,
            intervals: chart::intervals("Tuned minus base with 95% intervals", &intervals(summary))?,
            kinds: summary.by_kind.iter().map(PartView::of).collect(),
            families: summary.by_family.iter().map(PartView::of).collect(),
            preferences: summary.pairs.iter().map(|f| (f.by.clone(), table::preference(f))).collect(),
            people: summary.pairs.iter().any(|figures| figures.by == PEOPLE),
            has_pictures: rows.iter().any(|row| pictures.of(row).is_some()),
            pictures_left_out: pictures.left_out,
            alpha: format!("{:.4}", summary.alpha).trim_end_matches('0').to_owned(),
            better: count(Ordering::Greater),
            worse: count(Ordering::Less),
            equal: count(Ordering::Equal),
            briefs,
            methods: methods(spec, rows, summary, extras),
            made_at: &extras.made_at,
        })
    }
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

fn loss_caption(loss: &[LossPoint]) -> String {
    let (Some(first), Some(last)) = (loss.first(), loss.last()) else { return String::new() };
    let valid =
        loss.iter().rev().find_map(|p| p.valid).map(|v| format!(", validation loss at the end {v:.3}"));
    format!(
        "Training loss went from {:.3} to {:.3} in {} steps{}.",
        first.train,
        last.train,
        last.step,
        valid.unwrap_or_default()
    )
}

/// A report that could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    #[error("the report's template failed: {0}")]
    Template(#[from] minijinja::Error),
    #[error("a chart of the report failed: {0}")]
    Chart(String),
}

/// An interval whose brackets stay on one line.
fn unbroken(estimate: &Estimate, unit: Unit) -> String {
    interval(estimate, unit).replace(", ", ",\u{a0}")
}

/// Differences of all briefs with what the score is made of, and of seen and unseen kinds.
fn intervals(summary: &Summary) -> Vec<chart::Interval> {
    let mut rows = Vec::new();
    let mut add = |label: String, estimate: &Estimate, unit: Unit, first: bool| {
        let scale = if matches!(unit, Unit::Rate) { 1.0 } else { 10.0 };
        if let (Some(mean), Some(low), Some(high)) = (estimate.mean, estimate.low, estimate.high) {
            let shown = interval(estimate, unit).replace(" pts", "");
            let (mean, low, high) = (mean / scale, low / scale, high / scale);
            rows.push(chart::Interval { label, shown, mean, low, high, first });
        }
    };
    let groups = &summary.groups;
    let seen = [("seen", &groups.seen_kinds), ("unseen", &groups.unseen_kinds)];
    let all = [("all", &summary.delta)].into_iter().chain(seen.map(|(name, g)| (name, &g.delta)));
    for (group, delta) in all {
        let label = if group == "all" { "score".to_owned() } else { format!("{group}: score") };
        add(label, &delta.score, Unit::Score, true);
        add("UI first".into(), &delta.ui_first, Unit::Rate, false);
        add("runs".into(), &delta.runs, Unit::Rate, false);
        if group == "all" {
            for (name, _) in parts::SUB_SCORES {
                if let Some(estimate) = summary.delta_sub_scores.get(name) {
                    add(name.to_owned(), estimate, Unit::Score, false);
                }
            }
        }
    }
    rows
}

/// A line of the tables by kind and by family.
#[derive(Serialize)]
struct PartView<'a> {
    part: &'a Part,
    base: String,
    tuned: String,
    delta: String,
}

impl<'a> PartView<'a> {
    fn of(part: &'a Part) -> Self {
        let delta = part.delta.map_or("-".into(), |delta| format!("{delta:+.2}"));
        Self { part, base: number(part.base, 2), tuned: number(part.tuned, 2), delta }
    }
}

/// A headline figure.
#[derive(Serialize)]
struct Tile {
    label: &'static str,
    base: String,
    tuned: String,
    delta: String,
}

fn tiles(summary: &Summary) -> Vec<Tile> {
    let (base, tuned, delta) = (&summary.arms.base, &summary.arms.tuned, &summary.delta);
    let tile = |label, show: fn(&ArmSummary) -> String, delta: String| Tile {
        label,
        base: show(base),
        tuned: show(tuned),
        delta,
    };
    vec![
        tile("UI first", |a| percent(a.ui_first), unbroken(&delta.ui_first, Unit::Rate)),
        tile("Runs", |a| percent(a.runs), unbroken(&delta.runs, Unit::Rate)),
        tile("Score (0-10)", |a| number(a.score, 2), unbroken(&delta.score, Unit::Score)),
        tile("Tokens per answer", |a| number(a.tokens, 0), String::new()),
    ]
}

/// A table of base against tuned.
#[derive(Serialize)]
struct GroupView {
    title: &'static str,
    n: usize,
    families: usize,
    metrics: Vec<MetricView>,
}

#[derive(Default, Serialize)]
struct MetricView {
    name: String,
    base: String,
    base_interval: String,
    tuned: String,
    tuned_interval: String,
    delta: String,
    p: String,
    p_holm: String,
}

fn groups(summary: &Summary) -> Vec<GroupView> {
    let groups = &summary.groups;
    let all = (summary.n, summary.families, &summary.arms, &summary.delta);
    let of = |group: &'_ super::verdict::Group| (group.n, group.families);
    let view = |title, (n, families): (usize, usize), arms: &super::verdict::Arms, delta: &Delta| GroupView {
        title,
        n,
        families,
        metrics: metrics(&arms.base, &arms.tuned, delta),
    };
    let (seen, unseen) = (&groups.seen_kinds, &groups.unseen_kinds);
    vec![
        view("All held-out briefs", (all.0, all.1), all.2, all.3),
        view("Kinds that training saw", of(seen), &seen.arms, &seen.delta),
        view("Kinds that training never saw", of(unseen), &unseen.arms, &unseen.delta),
    ]
}

/// A rate and its interval.
type Rate = (Option<f64>, Option<(f64, f64)>);

fn metrics(base: &ArmSummary, tuned: &ArmSummary, delta: &Delta) -> Vec<MetricView> {
    let wilson = |interval: Option<(f64, f64)>| {
        interval
            .map(|(low, high)| format!("{:.0}\u{2013}{:.0}%", low * 100.0, high * 100.0))
            .unwrap_or_default()
    };
    let rate = |name: &str, of: fn(&ArmSummary) -> Rate, estimate: &Estimate| MetricView {
        name: name.to_owned(),
        base: percent(of(base).0),
        base_interval: wilson(of(base).1),
        tuned: percent(of(tuned).0),
        tuned_interval: wilson(of(tuned).1),
        delta: unbroken(estimate, Unit::Rate),
        p: p_value(estimate.p),
        p_holm: p_value(estimate.p_holm),
    };
    let plain = |name: &str, show: fn(&ArmSummary) -> String| MetricView {
        name: name.to_owned(),
        base: show(base),
        base_interval: String::new(),
        tuned: show(tuned),
        tuned_interval: String::new(),
        delta: String::new(),
        p: String::new(),
        p_holm: String::new(),
    };
    let score = MetricView {
        delta: unbroken(&delta.score, Unit::Score),
        p: p_value(delta.score.p),
        p_holm: p_value(delta.score.p_holm),
        ..plain("Mean score (0-10)", |a| number(a.score, 2))
    };
    let mut rows = vec![
        rate("UI first", |a| (a.ui_first, a.ui_first_interval), &delta.ui_first),
        rate("Runs without exception", |a| (a.runs, a.runs_interval), &delta.runs),
        score,
        plain("Tokens per answer", |a| number(a.tokens, 0)),
        plain("Seconds per answer, median", |a| number(a.took_ms.map(|ms| ms / 1000.0), 1)),
        plain("Seconds per answer, 90% within", |a| number(a.took_ms_p90.map(|ms| ms / 1000.0), 1)),
        plain("Cut off at the token limit", |a| percent(a.truncated)),
    ];
    let habits = tuned.habits.keys().map(|name| {
        let share = |arm: &ArmSummary| percent(arm.habits.get(name).copied());
        MetricView {
            name: format!("Habit {name}"),
            base: share(base),
            tuned: share(tuned),
            ..MetricView::default()
        }
    });
    rows.extend(habits);
    rows
}

/// An arm beside base and tuned.
#[derive(Serialize)]
struct OtherView {
    name: String,
    model: String,
    ui_first: String,
    runs: String,
    score: String,
    delta: String,
}

fn other(name: &str, arm: &ArmSummary, delta: &Delta) -> OtherView {
    OtherView {
        name: name.into(),
        model: arm.model.clone(),
        ui_first: percent(arm.ui_first),
        runs: percent(arm.runs),
        score: number(arm.score, 2),
        delta: unbroken(&delta.score, Unit::Score),
    }
}

/// One brief and every answer to it.
#[derive(Serialize)]
struct BriefView<'a> {
    id: &'a str,
    kind: &'a str,
    family: &'a str,
    description: &'a str,
    requirements: &'a [String],
    seen: bool,
    arms: Vec<AnswersView<'a>>,
    /// Mean scores of base and tuned, and their difference, when both answered.
    base: Option<f64>,
    tuned: Option<f64>,
    delta: String,
}

#[derive(Serialize)]
struct AnswersView<'a> {
    arm: &'a str,
    answers: Vec<AnswerView<'a>>,
}

#[derive(Serialize)]
struct AnswerView<'a> {
    sample: u32,
    score: String,
    ui_first: bool,
    runs: bool,
    truncated: bool,
    tokens: u64,
    seconds: String,
    seed: u64,
    /// A `data:` address.
    picture: Option<&'a str>,
    reply: &'a str,
    files: Vec<&'a str>,
    caps: Vec<String>,
    issues: &'a [crate::critic::Issue],
}

impl BriefView<'_> {
    fn pair(&self) -> Option<chart::Pair> {
        let (base, tuned) = self.base.zip(self.tuned)?;
        Some(chart::Pair { brief: self.id.to_owned(), seen: self.seen, base, tuned })
    }
}

fn briefs<'a>(spec: &'a TrialSpec, rows: &'a [Row], pictures: &'a Pictures) -> Vec<BriefView<'a>> {
    let view = |brief: &'a crate::brief::Brief| {
        let of = |arm: &str| -> Vec<&'a Row> {
            let mut rows: Vec<&Row> =
                rows.iter().filter(|r| r.brief == brief.id.as_str() && r.arm == arm).collect();
            rows.sort_by_key(|row| row.sample);
            rows
        };
        let score = |arm: &str| super::stats::mean(of(arm).iter().map(|row| row.score));
        let (base, tuned) = (score(Arm::BASE), score(Arm::TUNED));
        let answers = |arm: &'a Arm| AnswersView {
            arm: &arm.name,
            answers: of(&arm.name).into_iter().map(|row| answer(row, pictures)).collect(),
        };
        BriefView {
            id: brief.id.as_str(),
            kind: &brief.kind,
            family: &brief.family,
            description: &brief.description,
            requirements: &brief.requirements,
            seen: crate::brief::is_seen(brief, &spec.seen_kinds),
            arms: spec.arms.iter().map(answers).collect(),
            base,
            tuned,
            delta: base.zip(tuned).map(|(b, t)| format!("{:+.1}", t - b)).unwrap_or_default(),
        }
    };
    spec.briefs.iter().map(view).collect()
}

fn answer<'a>(row: &'a Row, pictures: &'a Pictures) -> AnswerView<'a> {
    AnswerView {
        sample: row.sample + 1,
        score: format!("{:.1}", row.score),
        ui_first: row.ui_first,
        runs: row.runs,
        truncated: row.truncated(),
        tokens: row.tokens,
        seconds: format!("{:.1}", row.took_ms as f64 / 1000.0),
        seed: row.seed,
        picture: pictures.of(row),
        reply: &row.reply,
        files: row.files.iter().map(|file| file.path.as_str()).collect(),
        caps: row.caps.iter().map(|cap| format!("at most {:.1}: {}", cap.value, cap.why)).collect(),
        issues: &row.issues,
    }
}

/// What somebody needs to repeat the trial, or to doubt it.
fn methods(spec: &TrialSpec, rows: &[Row], summary: &Summary, extras: &Extras) -> Vec<(String, String)> {
    let mut facts: Vec<(String, String)> = Vec::new();
    let mut add = |name: &str, value: String| facts.push((name.to_owned(), value));
    let level = summary.level.map(|level| format!("{level:?}").to_lowercase()).unwrap_or_default();
    add("Trial", spec.id.clone());
    add("Trial SHA-256", spec.sha256());
    add("Hone", env!("CARGO_PKG_VERSION").to_owned());
    let critic = summary.critic.clone().unwrap_or_default();
    add("Critic", format!("version {critic}, evidence level {level}"));
    add("Briefs", format!("{} held-out, {} families", spec.briefs.len(), summary.families));
    add("Briefs SHA-256", briefs_sha256(spec));
    add("Samples per brief and arm", spec.samples.to_string());
    add("Decoding", format!("temperature {}, at most {} tokens", spec.temperature, spec.max_tokens));
    add("Seed", spec.seed.to_string());
    let budget = table::inherited(summary).unwrap_or_else(|| short(spec.alpha));
    add("Error budget", format!("one-sided {budget}"));
    for arm in &spec.arms {
        let system = if arm.system.is_some() { ", with a system message of its own" } else { "" };
        add(&format!("Arm {}", arm.name), format!("{}{system}", arm.model));
    }
    let (found, against) = (table::detectable(summary), &summary.mde.against);
    let detectable = format!("{found}, from the {against} (two-sided 5%, power 80%)");
    add("Smallest detectable difference", detectable);
    if let Some(found) = &summary.sequential {
        add("Looks", table::looks(found));
    }
    if let Some(figures) = &summary.judge {
        add("Judge, not part of the scores", table::judge_figures(figures));
    }
    // An app that no browser looked at does not say which one would have.
    if let Some(versions) = rows.iter().filter_map(versions).max_by_key(String::len) {
        add("Run with", versions);
    }
    facts.extend(origins(spec));
    facts.extend(extras.facts.iter().cloned());
    facts
}

/// Where the tuned model came from, as far as it is known.
fn origins(spec: &TrialSpec) -> Vec<(String, String)> {
    let training = spec.training.clone().unwrap_or_default();
    let share = training.config_first_share.map(|share| format!("{:.1}%", 100.0 * share));
    let known = [
        ("Prompt SHA-256", spec.asked_sha256.clone()),
        ("Prompt in training, SHA-256", training.prompt_sha256),
        ("Dataset SHA-256", training.dataset_sha256),
        ("Logs SHA-256", training.logs_sha256),
        ("Training job", training.job),
        ("Training rows", training.rows.map(|rows| rows.to_string())),
        ("Training epochs", training.epochs.map(|epochs| epochs.to_string())),
        ("Answers in training that begin with configuration", share),
    ];
    known.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

fn briefs_sha256(spec: &TrialSpec) -> String {
    // Plain data always serialises.
    let text = serde_json::to_string(&spec.briefs).unwrap_or_default();
    crate::text::hex(&Sha256::digest(text))
}

/// What the critic ran an app with: `python 3.11.2, streamlit 1.40.0`.
fn versions(row: &Row) -> Option<String> {
    let versions = row.evidence.get("versions")?.as_object()?.iter();
    let versions: Vec<String> =
        versions.filter_map(|(name, version)| Some(format!("{name} {}", version.as_str()?))).collect();
    (!versions.is_empty()).then(|| versions.join(", "))
}

#[cfg(test)]
#[path = "report_tests.rs"]
mod tests;
