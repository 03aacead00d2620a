//! What a chart's specification tells of it: its marks and whether it has a title. A picture has no specification.

use serde_json::Value;

/// Charts made by Vega-Lite.
const VEGA: &[&str] =
    &["line_chart", "bar_chart", "area_chart", "scatter_chart", "altair_chart", "vega_lite_chart"];
/// Views that stand beside each other, each with a title of its own.
const BESIDE: &[&str] = &["hconcat", "vconcat", "concat"];

/// What a chart draws with, by the words of its library, each once: `bar`, `arc` (Vega-Lite's pie), `pie`, `scatter`...
pub(super) fn marks(kind: &str, spec: &Value) -> Vec<String> {
    let mut marks = Vec::new();
    match kind {
        "plotly_chart" => {
            // Plotly draws what has no type as points or lines.
            let traces = items(&spec["data"]).map(|trace| trace["type"].as_str().unwrap_or("scatter"));
            marks.extend(traces.map(str::to_owned));
        }
        "echarts_chart" => {
            marks.extend(
                items(&spec["series"]).filter_map(|series| series["type"].as_str()).map(str::to_owned),
            );
        }
        _ if VEGA.contains(&kind) => vega_marks(spec, &mut marks),
        _ => {}
    }
    let mut once: Vec<String> = Vec::with_capacity(marks.len());
    for mark in marks {
        if !once.contains(&mark) {
            once.push(mark);
        }
    }
    once
}

/// Whether the chart carries a title itself.
pub(super) fn has_title(kind: &str, spec: &Value) -> bool {
    match kind {
        "plotly_chart" => says(&spec["layout"]["title"]),
        "echarts_chart" => items(&spec["title"]).any(says),
        _ => VEGA.contains(&kind) && vega_titled(spec),
    }
}

/// A list's items; what is no list is the only one, and null is none.
fn items(value: &Value) -> std::slice::Iter<'_, Value> {
    match value {
        Value::Array(items) => items.iter(),
        Value::Null => [].iter(),
        one => std::slice::from_ref(one).iter(),
    }
}

/// A title is a text, or an object with one; a text may be a list of lines.
fn says(title: &Value) -> bool {
    let text = if title.is_object() { &title["text"] } else { title };
    items(text).any(|line| line.as_str().is_some_and(|line| !line.trim().is_empty()))
}

/// A serialised specification is at most as deep as the parser of JSON allows, and so is this.
fn vega_marks(view: &Value, marks: &mut Vec<String>) {
    let mark = &view["mark"];
    marks.extend(mark.as_str().or(mark["type"].as_str()).map(str::to_owned));
    for name in BESIDE.iter().chain(&["layer", "spec"]) {
        items(&view[*name]).for_each(|part| vega_marks(part, marks));
    }
}

fn vega_titled(view: &Value) -> bool {
    let beside = |name: &&str| view[*name].as_array().is_some_and(|views| views.iter().all(vega_titled));
    says(&view["title"])
        || view["spec"].is_object() && vega_titled(&view["spec"])
        || view["layer"].as_array().is_some_and(|layers| layers.iter().any(vega_titled))
        || BESIDE.iter().any(beside)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(kind: &str, spec: Value, expected: &[&str], titled: bool) {
        assert_eq!(marks(kind, &spec), expected, "{spec}");
        assert_eq!(has_title(kind, &spec), titled, "{spec}");
    }

    #[test]
    fn every_view_of_vega_lite_is_seen() {
        let arc = json!({"mark": {"type": "arc"}, "title": "Share"});
        let bar = json!({"mark": "bar"});
        check("vega_lite_chart", arc.clone(), &["arc"], true);
        check("altair_chart", json!({"layer": [bar, arc]}), &["bar", "arc"], true);
        check("altair_chart", json!({"hconcat": [bar, arc]}), &["bar", "arc"], false);
        check("altair_chart", json!({"vconcat": [arc, arc]}), &["arc"], true);
        check("altair_chart", json!({"title": {"text": ["Two", "lines"]}, "concat": [bar]}), &["bar"], true);
        check("altair_chart", json!({"facet": {"field": "a"}, "spec": arc}), &["arc"], true);
        check("bar_chart", json!({"mark": "bar", "title": " "}), &["bar"], false);
        check("bar_chart", json!({"mark": "bar", "encoding": {"x": {"title": "Month"}}}), &["bar"], false);
    }

    #[test]
    fn plotly_names_its_traces_and_its_layout_its_title() {
        let pie = json!({"data": [{"type": "pie"}], "layout": {"title": {"text": "Share"}}});
        check("plotly_chart", pie, &["pie"], true);
        let axes =
            json!({"data": [{"type": "bar"}, {"x": [1]}], "layout": {"xaxis": {"title": {"text": "n"}}}});
        check("plotly_chart", axes, &["bar", "scatter"], false);
        check("plotly_chart", json!({"data": [], "layout": {"title": "Share"}}), &[], true);
    }

    #[test]
    fn echarts_names_its_series() {
        check(
            "echarts_chart",
            json!({"series": {"type": "pie"}, "title": [{"text": "Share"}]}),
            &["pie"],
            true,
        );
        check(
            "echarts_chart",
            json!({"series": [{"type": "bar"}, {"type": "line"}]}),
            &["bar", "line"],
            false,
        );
    }

    #[test]
    fn what_has_no_specification_tells_nothing() {
        check("pyplot", Value::Null, &[], false);
        check("plotly_chart", Value::Null, &[], false);
        check("metric", json!({"mark": "arc", "title": "no chart"}), &[], false);
    }
}
