//! Charts as inline SVG.
//!
//! The colours drawn here are markers: the report's style sheet maps each to a colour of the reader's theme.

use plotters::{
    coord::types::RangedCoordf64,
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

use super::{LossPoint, report::ReportError};

/// Markers; see `report.html.jinja`.
const INK: RGBColor = RGBColor(1, 1, 1);
const GRID: RGBColor = RGBColor(2, 2, 2);
const BASE: RGBColor = RGBColor(3, 3, 3);
const TUNED: RGBColor = RGBColor(4, 4, 4);
const SURFACE: RGBColor = RGBColor(6, 6, 6);

const WIDTH: u32 = 480;
const FONT: &str = "sans-serif";
/// The library draws text a fifth smaller than asked.
const TEXT: i32 = 18;

/// Mean scores of base and tuned on one brief.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Pair {
    pub(super) brief: String,
    pub(super) seen: bool,
    pub(super) base: f64,
    pub(super) tuned: f64,
}

/// A mean difference with its 95% interval, in shares of the scale (0.5 = half of it).
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Interval {
    pub(super) label: String,
    /// As a person reads it, e.g. `+3.10 [+2.20, +4.00]`.
    pub(super) shown: String,
    pub(super) mean: f64,
    pub(super) low: f64,
    pub(super) high: f64,
    /// The first of a group stands a little apart.
    pub(super) first: bool,
}

/// Space above the first of a group, in rows.
const GAP: f64 = 0.6;

/// Mean differences with their intervals, one to a row, about a line at zero; empty without any.
pub(super) fn intervals(title: &str, intervals: &[Interval]) -> Result<String, ReportError> {
    if intervals.is_empty() {
        return Ok(String::new());
    }
    let ends = intervals.iter().flat_map(|i| [i.low, i.high]).filter(|end| end.is_finite());
    let reach = ends.fold(0.1_f64, |reach, end| reach.max(end.abs())).min(1.0) * 108.0;
    let mut below = 0.0;
    let rows: Vec<f64> = intervals
        .iter()
        .enumerate()
        .map(|(at, interval)| {
            below += if interval.first && at > 0 { 1.0 + GAP } else { 1.0 };
            below - 0.5
        })
        .collect();
    // The first on top.
    let rows: Vec<f64> = rows.into_iter().map(|row| below - row).collect();
    let height = 56 + (24.0 * below).ceil() as u32;
    draw(title, height, |root| {
        let mut chart = ChartBuilder::on(root)
            .margin(8)
            .set_label_area_size(LabelAreaPosition::Left, 120)
            .set_label_area_size(LabelAreaPosition::Right, 176)
            .set_label_area_size(LabelAreaPosition::Bottom, 40)
            .build_cartesian_2d(-reach..reach, 0.0..below)?;
        across(&mut chart, "tuned minus base, % of the scale", 3, &|x| format!("{x:+.0}"))?;
        chart.draw_series(LineSeries::new([(0.0, 0.0), (0.0, below)], INK.stroke_width(1)))?;
        for (interval, y) in intervals.iter().zip(&rows) {
            let at = |share: f64| ((share * 100.0).clamp(-reach, reach), *y);
            let colour = if interval.mean >= 0.0 { TUNED } else { BASE };
            let line = [at(interval.low), at(interval.high)];
            chart.draw_series(LineSeries::new(line, colour.stroke_width(2)))?;
            chart.draw_series([Circle::new(at(interval.mean), 4, colour.filled())])?;
        }
        let plot = chart.plotting_area();
        let (left, right) = (beside(HPos::Left), beside(HPos::Right));
        for (interval, y) in intervals.iter().zip(&rows) {
            let (first, row) = plot.map_coordinate(&(-reach, *y));
            let (last, _) = plot.map_coordinate(&(reach, *y));
            root.draw_text(&interval.label, &right, (first - 8, row))?;
            root.draw_text(&interval.shown, &left, (last + 8, row))?;
        }
        Ok(())
    })
}

/// The loss curve, training as a line and validation as points; empty without points.
pub(super) fn loss(points: &[LossPoint]) -> Result<String, ReportError> {
    let finite: Vec<&LossPoint> = points.iter().filter(|p| p.train.is_finite()).collect();
    let (Some(first), Some(last)) = (finite.first(), finite.last()) else { return Ok(String::new()) };
    let valid: Vec<(f64, f64)> =
        finite.iter().filter_map(|p| Some((p.step as f64, p.valid.filter(|v| v.is_finite())?))).collect();
    let values = finite.iter().map(|p| p.train).chain(valid.iter().map(|v| v.1));
    let top = values.fold(f64::MIN_POSITIVE, f64::max) * 1.05;
    let steps = first.step as f64..(last.step as f64).max(first.step as f64 + 1.0);
    let train = finite.iter().map(|p| (p.step as f64, p.train));
    draw("Loss by optimiser step", 300, |root| {
        let mut chart = ChartBuilder::on(root)
            .margin(8)
            .margin_right(16)
            .set_label_area_size(LabelAreaPosition::Left, 44)
            .set_label_area_size(LabelAreaPosition::Bottom, 48)
            .build_cartesian_2d(steps, 0.0..top)?;
        let text = (FONT, TEXT).into_font().color(&INK);
        chart
            .configure_mesh()
            .disable_x_mesh()
            .bold_line_style(GRID)
            .light_line_style(TRANSPARENT)
            .axis_style(INK)
            .label_style(text.clone())
            .axis_desc_style(text)
            .x_desc("optimiser step")
            .x_labels(6)
            .y_labels(6)
            .x_label_formatter(&|x| format!("{x:.0}"))
            .y_label_formatter(&|y| format!("{y:.1}"))
            .draw()?;
        chart.draw_series(LineSeries::new(train, TUNED.stroke_width(2)))?;
        chart.draw_series(LineSeries::new(valid.clone(), BASE.stroke_width(2)))?;
        chart.draw_series(valid.iter().map(|at| Circle::new(*at, 4, SURFACE.filled())))?;
        chart.draw_series(valid.iter().map(|at| Circle::new(*at, 4, BASE.stroke_width(2))))?;
        Ok(())
    })
}

/// Base and tuned score of every brief, joined by a line, sorted by the tuned score; empty without pairs.
pub(super) fn pairs(pairs: &[Pair]) -> Result<String, ReportError> {
    if pairs.is_empty() {
        return Ok(String::new());
    }
    let mut sorted: Vec<&Pair> = pairs.iter().collect();
    sorted.sort_by(|a, b| {
        (a.tuned, a.base).partial_cmp(&(b.tuned, b.base)).unwrap_or(std::cmp::Ordering::Equal)
    });
    let label = |index: usize| sorted.get(index).map(|pair| short(pair)).unwrap_or_default();
    let row = |index: usize| index as f64 + 0.5;
    draw("Score of base and tuned by brief", 64 + 22 * sorted.len() as u32, |root| {
        let mut chart = ChartBuilder::on(root)
            .margin(8)
            .margin_right(16)
            .set_label_area_size(LabelAreaPosition::Left, 176)
            .set_label_area_size(LabelAreaPosition::Bottom, 48)
            .build_cartesian_2d(0.0..10.0, 0.0..sorted.len() as f64)?;
        across(&mut chart, "score (0-10)", 6, &|x| format!("{x:.0}"))?;
        for (i, pair) in sorted.iter().enumerate() {
            let (base, tuned) = ((pair.base, row(i)), (pair.tuned, row(i)));
            let line = if pair.tuned >= pair.base { TUNED } else { BASE };
            chart.draw_series(LineSeries::new([base, tuned], line.stroke_width(2)))?;
            chart.draw_series([
                Circle::new(base, 4, SURFACE.filled()),
                Circle::new(base, 4, BASE.stroke_width(2)),
            ])?;
            chart.draw_series([Circle::new(tuned, 5, TUNED.filled())])?;
        }
        // The library spreads axis labels evenly over a range; briefs need one at each row.
        let plot = chart.plotting_area();
        let right = beside(HPos::Right);
        for i in 0..sorted.len() {
            let (x, y) = plot.map_coordinate(&(0.0, row(i)));
            root.draw_text(&label(i), &right, (x - 8, y))?;
        }
        Ok(())
    })
}

type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

/// The axis of a chart whose rows have labels of their own.
fn across(
    chart: &mut Chart<'_, '_>,
    title: &str,
    labels: usize,
    label: &dyn Fn(&f64) -> String,
) -> Result<(), Fault> {
    let text = (FONT, TEXT).into_font().color(&INK);
    chart
        .configure_mesh()
        .disable_y_mesh()
        .disable_y_axis()
        .y_labels(0)
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .axis_style(INK)
        .label_style(text.clone())
        .axis_desc_style(text)
        .x_desc(title)
        .x_labels(labels)
        .x_label_formatter(&label)
        .draw()?;
    Ok(())
}

/// Text in the middle of a row, with its left or right end at a point.
fn beside(end: HPos) -> TextStyle<'static> {
    (FONT, TEXT).into_font().color(&INK).pos(Pos::new(end, VPos::Center))
}

/// A brief's label; a star marks kinds that training never saw.
fn short(pair: &Pair) -> String {
    let star = if pair.seen { "" } else { " *" };
    let limit = 18;
    if pair.brief.chars().count() <= limit {
        return format!("{}{star}", pair.brief);
    }
    let kept: String = pair.brief.chars().take(limit - 1).collect();
    format!("{kept}\u{2026}{star}")
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Fault = Box<dyn std::error::Error>;

fn draw(
    title: &str,
    height: u32,
    content: impl FnOnce(&Area) -> Result<(), Fault>,
) -> Result<String, ReportError> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        content(&root).and_then(|()| Ok(root.present()?)).map_err(|e| ReportError::Chart(e.to_string()))?;
    }
    Ok(labelled(&svg, title, height))
}

/// The SVG with a name for screen readers and without a fixed size, which would overflow a narrow screen.
fn labelled(svg: &str, title: &str, height: u32) -> String {
    let fixed = format!("<svg width=\"{WIDTH}\" height=\"{height}\"");
    svg.replacen(&fixed, &format!("<svg role=\"img\" aria-label=\"{title}\""), 1)
}
