//! Evidence to critique: pure, the same on every machine.
//!
//! The formula, its sources and its limits are in docs/design/critic.md. It is frozen as critic version "1": a change of
//! anything here that changes a score is a new version.

use std::collections::{BTreeMap, BTreeSet};

use super::{Cap, Critique, Element, Evidence, Level, RunStatus, SubScores, findings, guidelines};

/// Weights of the sub-scores; those without evidence share theirs out.
const WEIGHTS: [f64; 6] = [0.30, 0.20, 0.14, 0.14, 0.12, 0.10];

/// Elements whose whole contribution is prose.
const TEXT: &[&str] =
    &["title", "header", "subheader", "markdown", "text", "caption", "html", "latex", "code", "badge"];

/// Elements that show data: enough of them make a report that needs no control.
const DATA: &[&str] =
    &["dataframe", "table", "metric", "json", "map", "pydeck_chart", "image", "graphviz_chart"];

/// Scores evidence.
pub fn score(evidence: &Evidence) -> Critique {
    let content = Content::of(evidence);
    let caps = caps(evidence, &content);
    let scores = sub_scores(evidence, &content);
    let lowest = caps.iter().map(|cap| cap.value).fold(10.0, f64::min);
    let mut issues = findings::issues(evidence, &content);
    // A finding cites the guideline behind its rule: the whole table is what rules retrieve from.
    let cited = guidelines::cite(&mut issues, guidelines::Guidelines::embedded().rows());
    Critique {
        overall_score: round(weighted(&scores).min(lowest)),
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
    }
}

/// How much there is to see, in numbers that flooding does not raise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Content {
    /// Distinct elements: at most 5 of a kind, at most 5 of all kinds of prose, and as many tucked away as visible.
    pub unique: f64,
    /// Kinds among the visible ones.
    pub kinds: f64,
    pub controls: usize,
    /// Charts, tables, metrics and the like.
    pub data: usize,
}

impl Content {
    fn of(evidence: &Evidence) -> Self {
        let Some(run) = &evidence.run else { return Self::of_calls(evidence) };
        let (tucked, plain): (Vec<&Element>, Vec<&Element>) = run.elements.iter().partition(|e| e.tucked);
        let shown = counted(plain.iter().map(|e| e.kind.as_str()));
        let kinds: BTreeSet<&str> = plain.iter().map(|e| e.kind.as_str()).collect();
        Self {
            unique: shown + counted(tucked.iter().map(|e| e.kind.as_str())).min(shown),
            kinds: kinds.len() as f64,
            controls: run.elements.iter().filter(|e| e.control).count(),
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
        *per_kind.entry(if TEXT.contains(&kind) { "text" } else { kind }).or_default() += 1;
    }
    f64::from(per_kind.values().map(|n| (*n).min(5)).sum::<u32>())
}

fn is_data(kind: &str) -> bool {
    DATA.contains(&kind) || kind.ends_with("_chart") || kind == "pyplot" || kind == "data_editor"
}

fn weighted(scores: &SubScores) -> f64 {
    let parts =
        [scores.behaviour, scores.executes, scores.accessibility, scores.visual, scores.match_, scores.code];
    let present = parts.iter().zip(WEIGHTS).filter_map(|(part, weight)| part.map(|p| (p * weight, weight)));
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
        visual: None,
        match_: if ran { shown_of_brief(evidence).and_then(ten) } else { None },
        code: ten(code(evidence, content)),
    }
}

/// How much there is, how varied it is, and whether it does something when used.
fn behaviour(evidence: &Evidence, content: &Content) -> f64 {
    let focus = unit(1.0 - 4.0 * evidence.statics.config_share()) * unit(content.unique / 3.0);
    0.35 * unit(content.unique / 10.0)
        + 0.15 * unit(content.kinds / 6.0)
        + 0.35 * interaction(evidence, content)
        + 0.15 * focus
}

/// Share of the tried controls that do something; a report without controls earns most of it by showing data, unless the
/// brief asks for something to operate.
fn interaction(evidence: &Evidence, content: &Content) -> f64 {
    let tried = evidence.actions.len();
    if tried > 0 {
        let effect = evidence.actions.iter().filter(|a| a.ok && a.effect).count() as f64;
        let quiet = evidence.actions.iter().filter(|a| a.ok && !a.effect).count() as f64;
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
    let breaks = evidence.actions.iter().any(|action| !action.ok);
    if breaks { 0.7 * first } else { first }
}

/// Penalties by axe's impacts (serious 2, moderate 1, minor 0.3), at most 5 of a kind.
fn accessibility(evidence: &Evidence, content: &Content) -> f64 {
    let Some(run) = &evidence.run else { return 0.0 };
    let unlabelled = run.elements.iter().filter(|e| e.unlabelled).count().min(6) as f64;
    let penalty = 2.0 * unlabelled
        + f64::from(u8::from(top_headings(evidence) != 1))
        + (skipped_levels(evidence).min(5)) as f64
        + 0.3 * f64::from(u8::from(!evidence.statics.page_title));
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
    let undefined = statics.lint.iter().filter(|l| l.code == "F821").count() as f64;
    let others = statics.lint.len() as f64 - undefined;
    let findings = 4.0 * undefined + others + (statics.removed.len() + statics.dead.len()) as f64 * 2.0;
    // One function for every 40 lines, three at most: a short script needs none.
    let wanted = (lines / 40.0).floor().min(3.0);
    let structure = if wanted > 0.0 { unit(f64::from(statics.functions) / wanted) } else { 1.0 };
    unit(1.0 - 2.0 * findings / lines.max(20.0)) * (0.6 + 0.4 * structure) * unit(0.3 + content.unique / 6.0)
}

/// Some file is Python, and the Python parses.
pub(super) fn compiles(evidence: &Evidence) -> bool {
    evidence.statics.errors.is_empty() && evidence.statics.files.iter().any(|file| file.python)
}

fn caps(evidence: &Evidence, content: &Content) -> Vec<Cap> {
    let statics = &evidence.statics;
    let share = statics.config_share();
    let raised = evidence.run.as_ref().is_some_and(|run| run.status == RunStatus::Error);
    let failing = evidence.actions.iter().filter(|a| !a.ok).count();
    let tried = evidence.actions.len();
    let shown = shown_of_brief(evidence).filter(|_| evidence.run.is_some()).unwrap_or(1.0);
    let hiding = evidence.run.as_ref().is_some_and(|run| run.hiding);
    let idle = evidence.run.is_some() && evidence.brief.interactive && content.controls == 0;
    let limits = [
        (content.unique < 1.0, 0.5, "nothing rendered".to_owned()),
        (!compiles(evidence), 1.0, "the code does not compile".to_owned()),
        (!statics.tamper.is_empty(), 1.0, "it reaches for the machinery that observes it".to_owned()),
        (content.unique < 3.0, 2.0, "fewer than 3 different elements".to_owned()),
        (share > 0.25, 2.5, format!("{:.0}% of the lines are configuration, 25% is the most", 100.0 * share)),
        (flooded(evidence), 3.0, "more than 40 elements of which fewer than 20% are visible".to_owned()),
        (
            tried >= 4 && evidence.actions.iter().all(|a| !a.effect),
            4.0,
            "no control has an effect".to_owned(),
        ),
        (raised, 4.5, "the first run ends in an exception".to_owned()),
        (evidence.level == Level::Static, 5.0, "the code was not executed".to_owned()),
        (shown < 0.25, 5.0, "it shows almost nothing of what the brief asks for".to_owned()),
        (hiding, 5.0, "styles hide content".to_owned()),
        (idle, 6.5, "the brief asks for something to operate and there is no control".to_owned()),
        (failing > 0, 6.5, format!("{failing} of {tried} controls tried end in an exception")),
        (content.unique < 5.0, 6.5, "fewer than 5 different elements".to_owned()),
        (shown < 0.5, 6.5, "it shows less than half of what the brief asks for".to_owned()),
    ];
    limits.into_iter().filter(|(holds, ..)| *holds).map(|(_, value, why)| Cap { value, why }).collect()
}

fn flooded(evidence: &Evidence) -> bool {
    let Some(run) = &evidence.run else { return false };
    let seen = run.total.saturating_sub(run.tucked);
    run.total > 40 && f64::from(seen) < 0.2 * f64::from(run.total)
}

fn unit(x: f64) -> f64 {
    x.clamp(0.0, 1.0)
}

fn round(x: f64) -> f64 {
    (x * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests;
