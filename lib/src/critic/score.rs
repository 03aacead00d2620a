//! Evidence to critique: pure, the same on every machine.
//!
//! The formula, its sources and its limits are in docs/design/critic.md. It is frozen as critic version "3": a change of
//! anything here that changes a score is a new version.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
};

use sha2::{Digest, Sha256};

use super::{
    Critique, Element, Evidence, Habit, Level, Lint, Rubric, RunStatus, SubScores, VERSION, findings,
    guidelines, habit, lint, rubric::Weights,
};

pub(super) mod caps;
mod judged;
pub(super) mod seen;

pub use judged::judged;

/// Elements whose whole contribution is prose.
const TEXT: &[&str] =
    &["title", "header", "subheader", "markdown", "text", "caption", "html", "latex", "code", "badge"];

/// All of [`TEXT`], as one kind.
const PROSE: &str = "text";

/// Elements that show data: enough of them make a report that needs no control.
const DATA: &[&str] =
    &["dataframe", "table", "metric", "json", "map", "pydeck_chart", "image", "graphviz_chart"];

/// What a candidate is held to.
#[derive(Clone, Debug)]
pub struct Standards {
    pub rubric: Rubric,
    /// Habits that have to hold.
    pub habits: Vec<Habit>,
}

impl Default for Standards {
    /// The shipped rubric, and the built-in habit.
    fn default() -> Self {
        Self { rubric: Rubric::default(), habits: vec![Habit::ui_first().clone()] }
    }
}

impl Standards {
    /// The critic's version with these standards. Scores by others are never compared, so their fingerprint is part of it.
    pub fn version(&self) -> String {
        if (&self.rubric, &self.habits) == (&SHIPPED.rubric, &SHIPPED.habits) {
            return VERSION.to_owned();
        }
        let text = serde_json::to_vec(&(&self.rubric, &self.habits)).unwrap_or_default();
        format!("{VERSION}+{}", &crate::text::hex(&Sha256::digest(text))[..8])
    }
}

static SHIPPED: LazyLock<Standards> = LazyLock::new(Standards::default);

/// Scores evidence by what is shipped.
pub fn score(evidence: &Evidence) -> Critique {
    score_by(evidence, &SHIPPED)
}

/// Scores evidence.
pub fn score_by(evidence: &Evidence, standards: &Standards) -> Critique {
    let content = Content::of(evidence);
    let habits = habit::kept(&standards.habits, evidence);
    let caps = caps::caps(evidence, &content, &habits, &standards.rubric.caps);
    let scores = sub_scores(evidence, &content);
    let lowest = caps.iter().map(|cap| cap.value).fold(10.0, f64::min);
    let mut issues = findings::issues(evidence, &content, &standards.habits, &habits);
    // A finding cites the guideline behind its rule: the whole table is what rules retrieve from. What no rule of ours found
    // (a habit of the user's, a rule of ruff's without a row) gets the one that speaks of it by its words.
    let table = guidelines::Guidelines::embedded();
    for issue in issues.iter_mut().filter(|issue| issue.guideline.is_none()) {
        issue.guideline = table.retrieve(&issue.message, 1).first().map(|found| found.id.clone());
    }
    let cited = guidelines::cite(&mut issues, table.rows());
    Critique {
        overall_score: round(weighted(&scores, &standards.rubric.weights).min(lowest)),
        habits,
        accessibility_score: scores.accessibility,
        visual_design_score: scores.visual,
        code_quality_score: scores.code,
        strengths: findings::strengths(evidence, &content),
        improvements: findings::improvements(evidence, &content, &scores),
        citations: cited.citations,
        citations_dropped: cited.dropped,
        scores,
        caps,
        issues,
        critic: evidence.critic.clone(),
        level: evidence.level,
        judge: None,
    }
}

/// How much there is to see, in numbers that flooding does not raise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Content {
    /// Distinct elements: at most 5 of a kind, 2 of all kinds of prose, and as many tucked away as visible.
    pub unique: f64,
    /// Kinds among the visible ones; prose is one.
    pub kinds: f64,
    pub controls: usize,
    /// Charts, tables, metrics and the like.
    pub data: usize,
}

impl Content {
    fn of(evidence: &Evidence) -> Self {
        let Some(run) = &evidence.run else { return Self::of_calls(evidence) };
        let in_sight = run.elements.iter().filter(|element| !element.unseen);
        let (tucked, plain): (Vec<&Element>, Vec<&Element>) = in_sight.partition(|element| element.tucked);
        let shown = counted(plain.iter().map(|e| e.kind.as_str()));
        let kinds: BTreeSet<&str> = plain.iter().map(|e| sort(&e.kind)).collect();
        Self {
            unique: shown + counted(tucked.iter().map(|e| e.kind.as_str())).min(shown),
            kinds: kinds.len() as f64,
            controls: run.elements.iter().filter(|e| e.control && !e.unseen).count(),
            data: plain.iter().filter(|e| is_data(&e.kind)).count(),
        }
    }

    /// Nothing was run: live calls with different labels stand in, for the caps alone.
    fn of_calls(evidence: &Evidence) -> Self {
        let live = evidence.statics.calls.iter().filter(|call| !call.dead);
        let distinct: BTreeSet<_> = live.map(|call| (&call.path, &call.label)).collect();
        let unique = counted(distinct.iter().map(|(path, _)| path.as_str()));
        Self { unique, kinds: 0.0, controls: 0, data: 0 }
    }
}

fn counted<'a>(kinds: impl Iterator<Item = &'a str>) -> f64 {
    let mut per_kind: BTreeMap<&str, u32> = BTreeMap::new();
    for kind in kinds {
        *per_kind.entry(sort(kind)).or_default() += 1;
    }
    let most = |kind: &str| if kind == PROSE { 2 } else { 5 };
    f64::from(per_kind.iter().map(|(kind, n)| (*n).min(most(kind))).sum::<u32>())
}

/// The kind of an element, with all prose as one.
fn sort(kind: &str) -> &str {
    if TEXT.contains(&kind) { PROSE } else { kind }
}

fn is_data(kind: &str) -> bool {
    DATA.contains(&kind) || kind.ends_with("_chart") || kind == "pyplot" || kind == "data_editor"
}

/// The weighted mean; a part without evidence shares its weight out.
fn weighted(scores: &SubScores, weights: &Weights) -> f64 {
    let parts =
        [scores.behaviour, scores.executes, scores.accessibility, scores.visual, scores.match_, scores.code];
    let present =
        parts.iter().zip(weights.list()).filter_map(|(part, weight)| part.map(|p| (p * weight, weight)));
    let (sum, weight) = present.fold((0.0, 0.0), |(s, w), (p, q)| (s + p, w + q));
    if weight > 0.0 { sum / weight } else { 0.0 }
}

fn sub_scores(evidence: &Evidence, content: &Content) -> SubScores {
    let ten = |part: f64| Some(round(10.0 * unit(part)));
    let ran = evidence.run.is_some();
    SubScores {
        behaviour: if ran { ten(behaviour(evidence, content)) } else { None },
        executes: if ran { ten(executes(evidence, content)) } else { None },
        accessibility: if ran { ten(accessibility(evidence, content)) } else { None },
        visual: match &evidence.browser {
            Some(rendered) => ten(seen::visual(evidence, rendered, content)),
            // Nothing came up that a browser could have shown.
            None => (evidence.level == Level::Browser).then_some(0.0),
        },
        match_: if ran { shown_of_brief(evidence).and_then(ten) } else { None },
        code: ten(code(evidence, content)),
    }
}

/// How much there is, how varied it is, and whether it does something when used.
fn behaviour(evidence: &Evidence, content: &Content) -> f64 {
    let focus = unit(1.0 - 4.0 * evidence.statics.config_share()) * unit(content.unique / 3.0);
    0.35 * unit(content.unique / 10.0)
        + 0.15 * unit(content.kinds / 5.0)
        + 0.35 * interaction(evidence, content)
        + 0.15 * focus
}

/// Share of the tried controls that do something; a report without controls earns most of it by showing data, unless the
/// brief asks for something to operate.
fn interaction(evidence: &Evidence, content: &Content) -> f64 {
    let tried = evidence.tried().count();
    if tried > 0 {
        let effect = evidence.tried().filter(|a| a.ok && a.effect).count() as f64;
        let quiet = evidence.tried().filter(|a| a.ok && !a.effect).count() as f64;
        return (effect + 0.25 * quiet) / tried as f64;
    }
    match (evidence.brief.interactive, content.data) {
        (true, _) if evidence.untried == 0 => 0.0,
        (false, 2..) if content.unique >= 5.0 => 0.85,
        _ if content.unique > 3.0 => 0.35,
        _ => 0.0,
    }
}

fn executes(evidence: &Evidence, content: &Content) -> f64 {
    let Some(run) = &evidence.run else { return 0.0 };
    let first = match run.status {
        RunStatus::Ready if run.visible() == 0 => 0.2,
        RunStatus::Ready => 1.0,
        RunStatus::Error if compiles(evidence) => 0.35 * unit(content.unique / 6.0),
        _ => 0.0,
    };
    let breaks = |hostile: bool| evidence.actions.iter().any(|a| !a.ok && a.hostile == hostile);
    first * if breaks(false) { 0.7 } else { 1.0 } * if breaks(true) { 0.85 } else { 1.0 }
}

/// Penalties by axe's impacts (serious 2, moderate 1, minor 0.3), at most 5 of a kind, and what axe itself finds.
fn accessibility(evidence: &Evidence, content: &Content) -> f64 {
    let Some(run) = &evidence.run else { return 0.0 };
    let unlabelled = run.elements.iter().filter(|e| e.unlabelled).count().min(6) as f64;
    let penalty = 2.0 * unlabelled
        + f64::from(u8::from(top_headings(evidence) != 1))
        + (skipped_levels(evidence).min(5)) as f64
        + 0.3 * f64::from(u8::from(!evidence.statics.page_title))
        + evidence.browser.as_ref().map_or(0.0, seen::audited);
    unit(content.unique / 4.0) / (1.0 + penalty / 5.0)
}

/// Headings of the first level.
pub(super) fn top_headings(evidence: &Evidence) -> usize {
    evidence.run.iter().flat_map(|run| &run.headings).filter(|h| h.level == 1).count()
}

/// Headings that stand more than one level below the one before them.
pub(super) fn skipped_levels(evidence: &Evidence) -> usize {
    let levels: Vec<u8> = evidence.run.iter().flat_map(|run| &run.headings).map(|h| h.level).collect();
    levels.windows(2).filter(|pair| pair[1] > pair[0] + 1).count()
}

/// Found of the wanted words: 70% is enough, and 8 are.
pub(super) fn shown_of_brief(evidence: &Evidence) -> Option<f64> {
    let wanted = evidence.brief.wanted.len() as f64;
    let enough = (0.7 * wanted).min(8.0);
    (wanted >= 2.0).then(|| unit(evidence.brief.found.len() as f64 / enough))
}

/// Few findings, long scripts in functions, and something to show for the lines.
fn code(evidence: &Evidence, content: &Content) -> f64 {
    if !compiles(evidence) {
        return 0.0;
    }
    let statics = &evidence.statics;
    let lines = f64::from(statics.lines());
    let is_grave = |lint: &&Lint| {
        ["F821", lint::REFUSED].contains(&lint.code.as_str()) || lint::names_secret(&lint.code)
    };
    let grave = statics.lint.iter().filter(is_grave).count() + statics.secrets.len();
    let bad = statics.removed.len() + statics.dead.len();
    let minor = statics.lint.iter().filter(|lint| !is_grave(lint)).count();
    let findings = (4 * grave + 2 * bad + minor) as f64;
    // One function for every 40 lines, three at most: a short script needs none.
    let wanted = (lines / 40.0).floor().min(3.0);
    let structure = if wanted > 0.0 { unit(f64::from(statics.functions) / wanted) } else { 1.0 };
    unit(1.0 - 2.0 * findings / lines.max(20.0)) * (0.6 + 0.4 * structure) * unit(0.3 + content.unique / 6.0)
}

/// Some file is Python, and the Python parses.
pub(super) fn compiles(evidence: &Evidence) -> bool {
    evidence.statics.errors.is_empty() && evidence.statics.files.iter().any(|file| file.python)
}

fn unit(x: f64) -> f64 {
    x.clamp(0.0, 1.0)
}

fn round(x: f64) -> f64 {
    (x * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests;
