//! Parts of the score that need eyes: pure functions of what a browser showed.

use super::{Content, unit};
use crate::critic::{Evidence, Rendered, Violation};

/// Violations that are the author's doing.
pub(in crate::critic) fn authored(rendered: &Rendered) -> impl Iterator<Item = &Violation> {
    rendered.audit.iter().filter(|violation| !violation.baseline)
}

/// Rules whose subject the critic counts by itself, from the snapshot.
const COUNTED: &[&str] = &["label", "heading-order", "page-has-heading-one"];

/// Penalty of axe's findings: impacts 3, 2, 1 and 0.3, at most 5 nodes of each.
pub(super) fn audited(rendered: &Rendered) -> f64 {
    let penalty = |violation: &Violation| {
        let impact = match violation.impact.as_str() {
            "critical" => 3.0,
            "serious" => 2.0,
            "moderate" => 1.0,
            _ => 0.3,
        };
        impact * f64::from(violation.nodes.min(5))
    };
    authored(rendered).filter(|violation| !COUNTED.contains(&violation.rule.as_str())).map(penalty).sum()
}

/// Texts with too little contrast.
pub(in crate::critic) fn faint(rendered: &Rendered) -> u32 {
    authored(rendered).filter(|violation| violation.rule == "color-contrast").map(|v| v.nodes).sum()
}

/// How the page looks: the mean of eleven measures with the worst of them counted once more.
pub(super) fn visual(evidence: &Evidence, rendered: &Rendered, content: &Content) -> f64 {
    let measures = measures(evidence, rendered);
    let mean = measures.iter().sum::<f64>() / measures.len() as f64;
    let worst = measures.iter().copied().fold(1.0, f64::min);
    unit(content.unique / 5.0) * (0.75 * mean + 0.25 * worst)
}

fn measures(evidence: &Evidence, rendered: &Rendered) -> [f64; 11] {
    let (wide, narrow) = (&rendered.wide, &rendered.narrow);
    let fits = |overflow: f64| f64::from(u8::from(overflow <= 4.0));
    let sizes = wide.text_sizes.len() as f64;
    let title = super::top_headings(evidence) == 1;
    [
        0.6 * fits(wide.overflow()) + 0.4 * fits(narrow.overflow()),
        unit(1.0 - 3.0 * wide.small_text()),
        unit(1.0 - f64::from(faint(rendered)) / 6.0),
        unit(1.0 - (f64::from(wide.left_edges) - 6.0) / 8.0),
        unit(1.0 - (wide.controls_per_screen - 18.0) / 30.0),
        unit(1.0 - (wide.screens - 4.0) / 8.0),
        unit(wide.fill / 0.2).min(unit((1.0 - wide.fill) / 0.1)),
        // Sizes that tell a title from its text, and not a different one for everything.
        0.5 * f64::from(u8::from(title)) + 0.5 * f64::from(u8::from(sizes >= 2.0)),
        unit(1.0 - (sizes - 8.0) / 6.0),
        unit(1.0 - f64::from(wide.overlaps.max(narrow.overlaps)) / 4.0),
        unit(1.0 - f64::from(wide.clipped) / 4.0),
    ]
}
