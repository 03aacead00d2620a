use serde_json::json;

use super::*;

fn recorded() -> Snapshot {
    serde_json::from_str(include_str!("recorded.json")).unwrap()
}

#[test]
fn a_recorded_page_is_read() {
    let page = recorded().page();
    let kinds: Vec<&str> = page.shown.iter().map(|s| s.element.kind.as_str()).collect();
    assert_eq!(kinds[..6], ["title", "caption", "metric", "text_input", "number_input", "selectbox"]);
    assert_eq!(
        page.headings,
        [Heading { level: 1, text: "Budget planner".into() }, Heading { level: 2, text: "hi".into() },]
    );
    assert_eq!(page.tucked, 1);
    assert!(page.containers.contains("form") && page.containers.contains("sidebar"));
    assert!(page.exceptions.is_empty() && !page.hiding);
    let table = page.shown.iter().find(|s| s.element.kind == "dataframe").unwrap();
    assert_eq!(table.element.label, "a, b");
    let unlabelled: Vec<_> =
        page.shown.iter().filter(|s| s.element.unlabelled).map(|s| &s.element.kind).collect();
    assert_eq!(unlabelled, [""; 0]);
}

#[test]
fn a_recorded_page_is_planned() {
    let plan = crate::critic::interact::plan(&recorded(), 10);
    let kinds: Vec<&str> = plan.steps.iter().map(|step| step.kind.as_str()).collect();
    assert_eq!(kinds.len(), 10);
    assert_eq!(kinds[..4], ["button", "button", "download_button", "chat_input"]);
    assert_eq!(kinds[9], "form_submit_button");
    assert_eq!(plan.steps[9].values.len(), 2);
    assert!(plan.untried > 5, "{plan:?}");
}

#[track_caller]
fn check_plain(text: &str, expected: &str) {
    assert_eq!(plain(text), expected);
}

#[test]
fn marks_are_not_text() {
    check_plain("## A **b** `c`", "A b c");
    check_plain("<b>A</b> < 3", "A < 3");
    check_plain("<style>p {}</style>A<script>x</script>", "A");
    check_plain(":material/home: Home", "Home");
    check_plain("<style>", "");
    check_plain("é<é", "é<é");
}

#[test]
fn hiding_is_seen_and_streamlits_own_frame_may_be_hidden() {
    assert!(hides("<style>.stButton { display: none; }</style>"));
    assert!(!hides("<style>#MainMenu {visibility: hidden;} footer {display: none}</style>"));
    assert!(!hides("<style>p { opacity: 0.9; }</style>"));
    assert!(hides("<div style='display: none'>10/10</div>"));
    assert!(!hides("display: none"));
}

#[test]
fn exceptions_name_the_candidates_own_line() {
    let snapshot: Snapshot = serde_json::from_value(json!({"status": "error", "tree": {"type": "root", "children": [
        {"type": "exception", "props": {"uncaught": true, "type": "KeyError", "message": "'x'", "stack_trace": [
            "File \"/app/app.py\", line 3, in <module>\n    f()",
            "File \"/app/src/util.py\", line 12, in f",
            "File \"/usr/lib/python3/pandas.py\", line 9, in g",
        ]}},
        {"type": "exception", "props": {"type": "ValueError"}},
    ]}}))
    .unwrap();
    let expected =
        Exception { kind: "KeyError".into(), message: "'x'".into(), at: Some("src/util.py:12:1".into()) };
    assert_eq!(snapshot.page().exceptions, [expected]);
    assert_eq!(snapshot.page().total, 0);
}

fn snapshot(nodes: Value) -> Snapshot {
    serde_json::from_value(json!({"tree": {"type": "root", "children": nodes}})).unwrap()
}

#[test]
fn what_changes_by_itself_is_volatile() {
    let first = snapshot(
        json!([{"type": "metric", "props": {"label": "A", "value": "1"}}, {"type": "title", "props": {"body": "x"}}]),
    );
    let second = snapshot(
        json!([{"type": "metric", "props": {"label": "A", "value": "2"}}, {"type": "title", "props": {"body": "x"}}]),
    );
    let volatile = volatile(&first, &second);
    assert_eq!(volatile, BTreeSet::from(["metric A".to_owned()]));
    let none = BTreeSet::new();
    assert_eq!(contents(&first, &none, &volatile), contents(&second, &none, &volatile));
}

#[test]
fn keys_clocks_and_masked_values_are_no_content() {
    let none = BTreeSet::new();
    let first = snapshot(
        json!([{"type": "text_input", "key": "k1", "value": "a"}, {"type": "text", "props": {"body": "10:11:12.5 é"}}]),
    );
    let second = snapshot(
        json!([{"type": "text_input", "key": "k2", "value": "b"}, {"type": "text", "props": {"body": "10:11:13.625 é"}}]),
    );
    let masked = BTreeSet::from(["k1".to_owned(), "k2".to_owned()]);
    assert_eq!(contents(&first, &masked, &none), contents(&second, &masked, &none));
    assert_ne!(contents(&first, &none, &none), contents(&second, &none, &none));
}

proptest::proptest! {
    #[test]
    fn any_text_is_cleaned(text in proptest::prelude::any::<String>()) {
        plain(&text);
        hides(&text);
        without_clock(&text);
        markdown_heading(&text);
        own_line(&text);
    }
}

fn charts(nodes: Value) -> Vec<(String, Vec<String>, bool)> {
    let shown = snapshot(nodes).page().shown.into_iter().map(|shown| shown.element);
    let charts = shown.filter(|element| is_chart(&element.kind));
    charts.map(|chart| (chart.kind, chart.marks, chart.titled)).collect()
}

#[test]
fn charts_of_the_same_name_are_told_together() {
    let figure = |mark: &str, title: &str| {
        json!({"type": "plotly_chart", "data": {"spec":
            {"data": [{"type": mark}], "layout": {"title": {"text": title}}}}})
    };
    let found = charts(json!([figure("bar", "Sales"), figure("pie", "Share")]));
    assert_eq!(found, [("plotly_chart".to_owned(), vec!["bar".to_owned(), "pie".to_owned()], true)]);
    let found = charts(json!([figure("bar", "Sales"), figure("pie", "")]));
    assert_eq!(found, [("plotly_chart".to_owned(), vec!["bar".to_owned(), "pie".to_owned()], false)]);
    // What is in a closed expander says nothing about what is in sight.
    let closed = json!({"type": "expander", "children": [figure("pie", "")]});
    let found = charts(json!([figure("bar", "Sales"), closed]));
    assert_eq!(found, [("plotly_chart".to_owned(), vec!["bar".to_owned()], true)]);
}

#[test]
fn a_heading_right_above_is_a_charts_title() {
    let titled = |above: Value| {
        let found = charts(json!([above, {"type": "pyplot", "props": {"url": "a.png"}}]));
        found[0].2
    };
    assert!(titled(json!({"type": "subheader", "props": {"body": "Sales"}})));
    assert!(titled(json!({"type": "markdown", "props": {"body": "In short:\n\n### Sales\n"}})));
    assert!(!titled(json!({"type": "markdown", "props": {"body": "### Sales\nIn short"}})));
    assert!(!titled(json!({"type": "metric", "props": {"label": "Sales"}})));
}
