//! A trial in the terminal: the last lines of `hone test`, and answers side by side. Text only, no colour.

use std::fmt::Write as _;

use super::{
    Arm, JudgeFigures, PairFigures, Row, Sequential, Status, Summary, Verdict,
    gates::short,
    stats::Estimate,
    verdict::{ArmSummary, Delta},
};

/// Why the verdict is what it is, then the table base against tuned for all briefs and for seen and unseen kinds, then
/// the verdict.
///
/// Lines end without trailing spaces; the table is at most 80 columns wide.
pub fn table(summary: &Summary) -> String {
    let mut lines = Lines::default();
    let groups = &summary.groups;
    let (seen, unseen) = (&groups.seen_kinds, &groups.unseen_kinds);
    lines.group("all held-out briefs", summary.n, &summary.arms.base, &summary.arms.tuned, &summary.delta);
    lines.group("seen kinds", seen.n, &seen.arms.base, &seen.arms.tuned, &seen.delta);
    lines.group("unseen kinds", unseen.n, &unseen.arms.base, &unseen.arms.tuned, &unseen.delta);
    let mut text = format!("{}\n{}", head(summary), lines.aligned());
    for (name, arm, delta) in others(summary) {
        let _ = writeln!(text, "\n{}", other_line(name, arm, delta));
    }
    for figures in &summary.pairs {
        let _ = writeln!(text, "\n{}: {}", figures.by, preference(figures));
    }
    if let Some(found) = &summary.sequential {
        let _ = writeln!(text, "\nlooks: {}", looks(found));
    }
    if let Some(figures) = &summary.judge {
        let _ = writeln!(text, "\njudge (not part of the scores) {}", judge_figures(figures));
    }
    let _ = write!(text, "\n{}", foot(summary));
    text
}

/// What a judge or people prefer.
pub(super) fn preference(figures: &PairFigures) -> String {
    format!(
        "tuned is preferred on {} of {} briefs [{}, {}]; {} opinions, {} for it, {} ties",
        percent(figures.win_rate),
        figures.n,
        percent(figures.low),
        percent(figures.high),
        figures.opinions,
        figures.wins,
        figures.ties
    )
}

/// How a trial that may stop early stands.
pub(super) fn looks(found: &Sequential) -> String {
    let ended = if found.stopped { "stopped early" } else { "not stopped" };
    format!(
        "{ended} after {} of {} briefs, e-value {:.2}, of harm {:.2}",
        found.n, found.of, found.e, found.harm_e
    )
}

/// A judge's figures. They decide nothing.
pub(super) fn judge_figures(figures: &JudgeFigures) -> String {
    let absent = match figures.absent {
        0 => String::new(),
        n => format!("; without a usable answer on {n} apps"),
    };
    format!(
        "{}: base {}, tuned {} of what it asked; tuned minus base {}{absent}",
        figures.judge,
        percent(figures.base),
        percent(figures.tuned),
        interval(&figures.delta, Unit::Rate)
    )
}

/// Arms beside base and tuned, with the tuned model's difference from them.
pub(super) fn others(summary: &Summary) -> impl Iterator<Item = (&str, &ArmSummary, &Delta)> {
    let prompted = summary.prompted.as_ref().zip(summary.delta_prompted.as_ref());
    let champion = summary.champion.as_ref().zip(summary.delta_champion.as_ref());
    let prompted = prompted.map(|(arm, delta)| (Arm::PROMPTED, arm, delta));
    let champion = champion.map(|(arm, delta)| (Arm::CHAMPION, arm, delta));
    let rest = summary.others.iter().map(|(name, other)| (name.as_str(), &other.arm, &other.delta));
    prompted.into_iter().chain(champion).chain(rest)
}

fn other_line(name: &str, arm: &ArmSummary, delta: &Delta) -> String {
    format!(
        "{name}: ui-first {}, runs {}, score {}; tuned minus {name}: score {}",
        percent(arm.ui_first),
        percent(arm.runs),
        number(arm.score, 2),
        interval(&delta.score, Unit::Score)
    )
}

/// What was compared, what it could have shown, and the gates.
fn head(summary: &Summary) -> String {
    let mut text = String::new();
    let samples = if summary.samples == 1 { "sample" } else { "samples" };
    let (base, tuned) = (&summary.arms.base.model, &summary.arms.tuned.model);
    let _ = writeln!(text, "base   {base}\ntuned  {tuned}");
    let _ = writeln!(
        text,
        "n = {} briefs of {} families, {} {samples} each",
        summary.n, summary.families, summary.samples
    );
    let against = &summary.mde.against;
    let _ = writeln!(
        text,
        "smallest difference from the {against} that it would show (80% power): {}",
        detectable(summary)
    );
    if let Some(budget) = inherited(summary) {
        let _ = writeln!(text, "error budget {budget}");
    }
    for gate in summary.gates.iter().filter(|g| g.status != Status::NotApplied) {
        let _ = writeln!(text, "  {:<7}  {}: {}", gate.status.as_str(), gate.name, gate.reason);
    }
    let open: Vec<&str> =
        summary.gates.iter().filter(|g| g.status == Status::NotApplied).map(|g| g.name.as_str()).collect();
    if !open.is_empty() {
        let _ = writeln!(text, "  not applied: {} (the report says why)", open.join(", "));
    }
    text
}

pub(super) fn detectable(summary: &Summary) -> String {
    let points = |share: Option<f64>| share.map_or("unknown".into(), |s| format!("{:.0} points", s * 100.0));
    let score = summary.mde.score.map_or("unknown".into(), |score| format!("{score:.2}"));
    format!("score {score}, runs {}", points(summary.mde.runs))
}

/// A budget that is not the usual one because the model was tested before: `0.0034, that of trial `t-1``.
pub(super) fn inherited(summary: &Summary) -> Option<String> {
    Some(budget_of_trial(summary.alpha, summary.alpha_from.as_ref()?))
}

/// A budget, and why it is that.
pub fn budget_of_trial(alpha: f64, trial: &str) -> String {
    format!("{}, as in trial `{trial}` of this model: a further look has no more to spend", short(alpha))
}

fn foot(summary: &Summary) -> String {
    let mut text =
        format!("verdict: {} ({})\n", summary.verdict.as_str().replace('_', " "), headline(summary));
    let lines = [("cause", &summary.cause), ("next", &summary.next), ("report", &summary.report)];
    for (name, line) in lines {
        if let Some(line) = line {
            let _ = writeln!(text, "{name}: {line}");
        }
    }
    text
}

/// What the verdict means, in a sentence without a period.
pub(super) fn headline(summary: &Summary) -> String {
    let against = &summary.compared_with;
    match summary.verdict {
        Verdict::Promote => format!("the tuned model is better than the {against}"),
        Verdict::Hold => format!("the trial does not show that the tuned model is better than the {against}"),
        Verdict::RollBack => "the deployed champion is worse and should be taken back".into(),
    }
}

#[derive(Clone, Copy)]
pub(super) enum Unit {
    Score,
    /// Shares, shown in percent or points.
    Rate,
}

/// `+3.10 [+2.20, +4.00]`; the brackets hold the 95% interval.
pub(super) fn interval(estimate: &Estimate, unit: Unit) -> String {
    let show = |value: f64| match unit {
        Unit::Score => format!("{value:+.2}"),
        Unit::Rate => format!("{:+.0}", value * 100.0),
    };
    let suffix = if matches!(unit, Unit::Rate) { " pts" } else { "" };
    match (estimate.mean, estimate.low, estimate.high) {
        (Some(mean), Some(low), Some(high)) => {
            format!("{}{suffix} [{}, {}]", show(mean), show(low), show(high))
        }
        (Some(mean), ..) => format!("{}{suffix}", show(mean)),
        (None, ..) => "-".into(),
    }
}

pub(super) fn percent(share: Option<f64>) -> String {
    share.map_or("-".into(), |share| format!("{:.0}%", share * 100.0))
}

pub(super) fn number(value: Option<f64>, digits: usize) -> String {
    value.map_or("-".into(), |value| format!("{value:.digits$}"))
}

/// `p < 0.001`, `p 0.040`, or nothing.
pub(super) fn p_value(p: Option<f64>) -> String {
    match p {
        None => String::new(),
        Some(p) if p < 0.001 => "< 0.001".into(),
        Some(p) => format!("{p:.3}"),
    }
}

/// Cells of a table; the first column is left-aligned, the others right-aligned.
#[derive(Default)]
struct Lines(Vec<Vec<String>>);

impl Lines {
    fn group(&mut self, title: &str, n: usize, base: &ArmSummary, tuned: &ArmSummary, delta: &Delta) {
        if !self.0.is_empty() {
            self.0.push(Vec::new());
        }
        if n == 0 {
            return self.0.push(vec![format!("{title}: no brief of these has answers of both")]);
        }
        let title = format!("{title} (n = {n})");
        self.row([&title, "base", "tuned", "difference [95% interval]", "p"]);
        let of = |name: &str, show: fn(&ArmSummary) -> String, difference: String, p| {
            [format!("  {name}"), show(base), show(tuned), difference, p_value(p)]
        };
        let rate = |estimate: &Estimate| interval(estimate, Unit::Rate);
        let (ui_first, runs, score) = (&delta.ui_first, &delta.runs, &delta.score);
        let growth = base.tokens.zip(tuned.tokens).map(|(b, t)| format!("{:+.0}", t - b)).unwrap_or_default();
        let mut rows = vec![
            of("ui-first", |a| percent(a.ui_first), rate(ui_first), ui_first.p),
            of("runs without exception", |a| percent(a.runs), rate(runs), runs.p),
            of("mean score (0-10)", |a| number(a.score, 2), interval(score, Unit::Score), score.p),
            of("tokens per answer", |a| number(a.tokens, 0), growth, None),
        ];
        for (name, tuned) in &tuned.habits {
            let base = base.habits.get(name).copied();
            let points = base.map(|base| format!("{:+.0} pts", 100.0 * (tuned - base))).unwrap_or_default();
            let name = format!("  {name}");
            rows.push([name, percent(base), percent(Some(*tuned)), points, String::new()]);
        }
        rows.iter().for_each(|row| self.row([&row[0], &row[1], &row[2], &row[3], &row[4]]));
    }

    fn row(&mut self, cells: [&str; 5]) {
        self.0.push(cells.map(str::to_owned).into());
    }

    fn aligned(&self) -> String {
        let width = |column: usize| {
            self.0
                .iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..5).map(width).collect();
        let mut text = String::new();
        for row in &self.0 {
            let cell = |(i, cell): (usize, &String)| match i {
                0 => format!("{cell:<width$}", width = widths[0]),
                _ => format!("  {cell:>width$}", width = widths[i]),
            };
            let line: String = row.iter().enumerate().map(cell).collect();
            let _ = writeln!(text, "{}", line.trim_end());
        }
        text
    }
}

/// Lines of an answer that are shown.
const SHOWN_LINES: usize = 14;

/// The answers of base and tuned to `n` briefs, in two columns of a terminal `width` columns wide (at least 40).
///
/// The briefs are spread evenly over the trial's, so that nobody picks the pretty ones; what is left out is said.
pub fn side_by_side(rows: &[Row], n: usize, width: usize) -> String {
    let first = |arm: &str| {
        let of_arm = rows.iter().filter(move |r| r.arm == arm && r.sample == 0);
        of_arm.map(|r| (r.brief.as_str(), r)).collect::<std::collections::BTreeMap<_, _>>()
    };
    let (base, tuned) = (first(Arm::BASE), first(Arm::TUNED));
    let pairs: Vec<(&Row, &Row)> =
        base.iter().filter_map(|(id, row)| Some((*row, *tuned.get(id)?))).collect();
    let column = width.max(40).saturating_sub(3) / 2;
    let shown = n.min(pairs.len());
    let picked = (0..shown).map(|i| pairs[i * pairs.len() / shown]);
    picked.map(|(base, tuned)| pair_text(base, tuned, column)).collect()
}

fn pair_text(base: &Row, tuned: &Row, column: usize) -> String {
    let mut text = format!("brief {} ({})\n", base.brief, base.kind);
    let head = |row: &Row| {
        let runs = if row.runs { "runs" } else { "does not run" };
        let habit = if row.ui_first { "ui-first" } else { "not ui-first" };
        format!("{}: {:.1}, {habit}, {runs}", row.arm, row.score)
    };
    let rule = "-".repeat(column);
    two_columns(&mut text, &head(base), &head(tuned), column);
    two_columns(&mut text, &rule, &rule, column);
    let (left, right) = (shown_lines(&base.reply), shown_lines(&tuned.reply));
    for i in 0..left.len().max(right.len()) {
        let line = |lines: &[String]| lines.get(i).cloned().unwrap_or_default();
        two_columns(&mut text, &line(&left), &line(&right), column);
    }
    text.push('\n');
    text
}

fn shown_lines(reply: &str) -> Vec<String> {
    let all: Vec<&str> = reply.lines().collect();
    let mut lines: Vec<String> = all.iter().take(SHOWN_LINES).map(|line| printable(line)).collect();
    if all.len() > SHOWN_LINES {
        lines.push(format!("... {} more lines", all.len() - SHOWN_LINES));
    }
    if lines.is_empty() {
        lines.push("(empty answer)".into());
    }
    lines
}

/// A model's output must not steer the terminal.
fn printable(line: &str) -> String {
    line.replace('\t', "    ").chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

fn two_columns(text: &mut String, left: &str, right: &str, column: usize) {
    let (left, right) = (fitted(left, column), fitted(right, column));
    let _ = writeln!(text, "{}", format!("{left:<column$} | {right}").trim_end());
}

fn fitted(line: &str, column: usize) -> String {
    if line.chars().count() <= column {
        return line.to_owned();
    }
    let kept: String = line.chars().take(column.saturating_sub(1)).collect();
    format!("{kept}\u{2026}")
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
