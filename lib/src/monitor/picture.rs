//! Scores over the rounds as a picture.

use std::path::Path;

use plotters::{
    coord::types::RangedCoordf64,
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

use super::RoundView;
use crate::{
    error::{Explain, Kind},
    store::{StoreError, write_atomic},
};

const SIZE: (u32, u32) = (760, 480);
const INK: RGBColor = RGBColor(0x16, 0x20, 0x2c);
const GRID: RGBColor = RGBColor(0xe6, 0xea, 0xef);
const TUNED: RGBColor = RGBColor(0x0b, 0x63, 0xb5);
const BASE: RGBColor = RGBColor(0x9a, 0x5b, 0x00);
const BEST: RGBColor = RGBColor(0x0a, 0x6b, 0x3d);
const FONT: &str = "sans-serif";
/// Height of the legend.
const LEGEND: i32 = 76;

/// A score of a round.
type Read = fn(&RoundView) -> Option<f64>;

const SERIES: [(&str, RGBColor, Read); 3] = [
    ("best apps of the search (training briefs)", BEST, |round| round.best),
    ("tuned model (held-out briefs), 95% interval of its gain over the base", TUNED, |round| {
        round.trial.as_ref()?.tuned.score
    }),
    ("base model (held-out briefs)", BASE, |round| round.trial.as_ref()?.base.score),
];

/// The picture could not be made.
#[derive(Debug, thiserror::Error)]
pub enum PictureError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the picture cannot be drawn: {0}")]
    Chart(String),
}

impl Explain for PictureError {
    fn kind(&self) -> Kind {
        match self {
            Self::Store(e) => e.kind(),
            Self::Chart(_) => Kind::Internal,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Store(e) => e.hint(),
            Self::Chart(_) => None,
        }
    }
}

type Fault = Box<dyn std::error::Error>;

pub fn draw(rounds: &[RoundView], path: &Path) -> Result<(), PictureError> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        chart(&root, rounds).map_err(|e| PictureError::Chart(e.to_string()))?;
        root.present().map_err(|e| PictureError::Chart(e.to_string()))?;
    }
    let named = svg.replacen(
        "<svg ",
        "<svg role=\"img\" aria-label=\"Mean scores over the rounds, with intervals\" ",
        1,
    );
    Ok(write_atomic(path, named.as_bytes())?)
}

type Chart<'a> = ChartContext<'a, SVGBackend<'a>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

fn chart<'a>(
    root: &DrawingArea<SVGBackend<'a>, plotters::coord::Shift>,
    rounds: &[RoundView],
) -> Result<(), Fault> {
    root.fill(&WHITE)?;
    let (head, plot) = root.split_vertically(LEGEND);
    let last = rounds.iter().map(|round| round.round).max().unwrap_or(1);
    let mut chart: Chart<'a> = ChartBuilder::on(&plot)
        .margin(12)
        .margin_right(20)
        .set_label_area_size(LabelAreaPosition::Left, 44)
        .set_label_area_size(LabelAreaPosition::Bottom, 44)
        .build_cartesian_2d(0.5..f64::from(last) + 0.5, 0.0..10.0)?;
    let text = (FONT, 16).into_font().color(&INK);
    let whole = |x: &f64| if x.fract().abs() < 1e-9 { format!("{x:.0}") } else { String::new() };
    chart
        .configure_mesh()
        .disable_x_mesh()
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .axis_style(INK)
        .label_style(text.clone())
        .axis_desc_style(text.clone())
        .x_desc("round")
        .y_desc("mean score (0-10)")
        .x_labels(last.min(12) as usize + 1)
        .x_label_formatter(&whole)
        .y_labels(6)
        .y_label_formatter(&|y| format!("{y:.0}"))
        .draw()?;
    lines(&mut chart, rounds)?;
    intervals(&mut chart, rounds, 0.03 * f64::from(last))?;
    legend(&head)
}

/// Above the plot, where it hides nothing.
fn legend(area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>) -> Result<(), Fault> {
    for ((name, colour, _), row) in SERIES.iter().zip(0..) {
        let y = 20 + 22 * row;
        area.draw(&PathElement::new([(56, y), (80, y)], colour.stroke_width(3)))?;
        let style = (FONT, 16).into_font().color(&INK).pos(Pos::new(HPos::Left, VPos::Center));
        area.draw(&Text::new(*name, (90, y), style))?;
    }
    Ok(())
}

/// The three scores of every round.
fn lines(chart: &mut Chart<'_>, rounds: &[RoundView]) -> Result<(), Fault> {
    for (_, colour, read) in SERIES {
        let points: Vec<(f64, f64)> =
            rounds.iter().filter_map(|round| Some((f64::from(round.round), read(round)?))).collect();
        chart.draw_series(LineSeries::new(points.clone(), colour.stroke_width(2)))?;
        chart.draw_series(points.into_iter().map(|at| Circle::new(at, 4, colour.filled())))?;
    }
    Ok(())
}

/// The tuned model's gain over the base, as far as its interval reaches.
fn intervals(chart: &mut Chart<'_>, rounds: &[RoundView], cap: f64) -> Result<(), Fault> {
    let ends = |round: &RoundView| {
        let trial = round.trial.as_ref()?;
        let base = trial.base.score?;
        Some((f64::from(round.round), base + trial.low?, base + trial.high?))
    };
    for (x, low, high) in rounds.iter().filter_map(ends) {
        let bar = |from: (f64, f64), to: (f64, f64)| PathElement::new([from, to], TUNED.stroke_width(2));
        chart.draw_series([
            bar((x, low), (x, high)),
            bar((x - cap, low), (x + cap, low)),
            bar((x - cap, high), (x + cap, high)),
        ])?;
    }
    Ok(())
}
