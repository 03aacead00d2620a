use super::{degrade::CLASSES, report::spearman, *};
use crate::{
    brief,
    critic::Level,
    evolve::composer::{Composer, Operator},
};

fn composed(n: usize) -> Vec<App> {
    let briefs = brief::sample(&brief::shipped_train(), n, 3);
    let make = |brief: Brief| App {
        name: brief.id.to_string(),
        candidate: Composer::new(1).propose(&brief, Operator::Restart, 0, &[]),
        brief,
    };
    briefs.into_iter().map(make).collect()
}

fn written(content: &str) -> App {
    App {
        name: "app".into(),
        brief: Brief::from_description("an app").unwrap(),
        candidate: Candidate::single("app.py", content.to_owned()),
    }
}

/// A page in a function, with what composed apps do not have.
const IN_MAIN: &str = r#"import streamlit as st
from datetime import date


def total(rows):
    return sum(row["price"] for row in rows)


def main():
    """Shows the orders."""
    st.title("Orders")
    st.caption("All orders of the day")
    name = st.text_input(
        "Customer",
        placeholder="Name",
    )
    kind = st.selectbox("Kind", ["in", "out"], key="kind")
    rows = [{"name": "a", "price": 3}, {"name": "b", "price": 4}]
    st.dataframe(rows)
    sent = st.button("Send")
    if sent and name:
        st.success(f"Sent to {name}")
    st.metric("Total", total(rows))


if __name__ == "__main__":
    main()
"#;

fn spoiled(app: &App, class: &str) -> Option<String> {
    let apps = [app.clone()];
    let found = degraded(&apps, 0, 1).into_iter().find(|(at, _)| CLASSES[*at].name == class)?;
    found.1.files.last().map(|file| file.content.clone())
}

fn parses(text: &str) -> bool {
    ruff_python_parser::parse_module(text).is_ok()
}

#[test]
fn every_fault_is_put_into_every_app_that_can_have_it() {
    let mut apps = composed(12);
    apps.push(written(IN_MAIN));
    for at in 0..apps.len() {
        let found = degraded(&apps, at, 1);
        let names: Vec<&str> = found.iter().map(|(class, _)| CLASSES[*class].name).collect();
        for always in ["parse error", "crash at start", "nothing visible", "later crash", "wrong brief"] {
            assert!(names.contains(&always), "{}: {always}", apps[at].name);
        }
        for (class, candidate) in &found {
            let name = CLASSES[*class].name;
            assert_ne!(candidate.files, apps[at].candidate.files, "{name}");
            let whole =
                candidate.files.iter().all(|file| !file.path.ends_with(".py") || parses(&file.content));
            let may_break = ["parse error", "reply cut off"].contains(&name);
            assert!(whole || may_break, "{name}:\n{}", candidate.files[0].content);
            assert!(!whole || name != "parse error");
        }
        assert_eq!(degraded(&apps, at, 1), found, "the same seed, the same faults");
    }
}

#[test]
fn pages_in_functions_are_spoiled_where_they_are() {
    let app = written(IN_MAIN);
    let check = |class: &str, expected: &str| {
        let text = spoiled(&app, class).unwrap_or_else(|| panic!("{class}"));
        assert!(text.contains(expected), "{class}:\n{text}");
    };
    check("crash at start", "    \"\"\"Shows the orders.\"\"\"\n    raise RuntimeError");
    check(
        "crash behind a click",
        "    if sent and name:\n        raise ValueError(\"no such row\")\n        st.success",
    );
    check("handlers without effect", "    if sent and name:\n        pass\n    st.metric");
    check(
        "empty labels",
        "st.text_input(\n        \"\",\n        placeholder=\"Name\",\n     key=\"field_0\")",
    );
    check("empty labels", "st.selectbox(\"\", [\"in\", \"out\"], key=\"kind\")");
    check("hidden labels", "key=\"kind\", label_visibility=\"collapsed\")");
    check("no title", "    pass\n    st.caption");
    check("dead code", "    if False:\n");
    check("second title", "    st.metric(\"Total\", total(rows))\n    st.title(");
}

#[test]
fn what_cannot_have_a_fault_is_left_alone() {
    let bare = written("import streamlit as st\nst.write(1)\n");
    for class in
        ["empty labels", "handlers without effect", "no title", "dead code", "wrong brief", "reply cut off"]
    {
        assert_eq!(spoiled(&bare, class), None, "{class}");
    }
    assert_eq!(degraded(&[written("not python (")], 0, 1), []);
    assert_eq!(degraded(&[written("")], 0, 1), []);
    assert_eq!(degraded(&[App { candidate: Candidate { files: vec![] }, ..written("") }], 0, 1), []);
}

fn score(app: &str, class: Option<&str>, score: f64) -> Score {
    Score { app: app.into(), class: class.map(str::to_owned), score, lines: 10, characters: 100 }
}

#[test]
fn targets_are_counted_against_the_app_as_it_was() {
    let scores = vec![
        score("a", None, 9.0),
        score("a", None, 9.2),
        score("a", Some("parse error"), 0.0),
        score("a", Some("later crash"), 4.5),
        score("a", Some("dead code"), 8.0),
        score("a", Some("too wide"), 9.1),
        score("a", Some("begging text"), 9.1),
        score("poor", None, 5.0),
        score("poor", Some("parse error"), 5.0),
    ];
    let found = summarise("2", Level::Browser, scores);
    assert_eq!((found.apps, found.left_out.as_slice()), (1, ["poor".to_owned()].as_slice()));
    let reached: Vec<bool> = found.targets.iter().map(|target| target.reached).collect();
    assert_eq!(reached, [true, false, true, false, true, false], "{:#?}", found.targets);
    let missed: Vec<&str> = found.misses.iter().map(|miss| miss.class.as_str()).collect();
    assert_eq!(missed, ["later crash", "too wide"]);
    let wide = found.classes.iter().find(|class| class.class == "too wide").unwrap();
    assert_eq!((wide.lower, wide.higher, wide.accuracy), (0, 0, 0.5), "a tie counts half");
    assert!((found.noise.largest_sd.unwrap() - 0.141_421).abs() < 1e-5);
    assert!(found.text().contains("MISSED   minor faults"), "{}", found.text());
    assert!(!summarise("2", Level::Run, Vec::new()).reached(), "nothing measured is nothing shown");
}

#[test]
fn rank_correlation_knows_ties() {
    let near = |points: &[(f64, f64)], expected: f64| {
        assert!((spearman(points).unwrap() - expected).abs() < 1e-9, "{points:?}");
    };
    near(&[(1.0, 1.0), (2.0, 4.0), (3.0, 9.0)], 1.0);
    near(&[(1.0, 3.0), (2.0, 2.0), (3.0, 1.0)], -1.0);
    // Ranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4.
    near(&[(1.0, 1.0), (2.0, 2.0), (2.0, 3.0), (5.0, 4.0)], 0.948_683_298_050_513_8);
    assert_eq!(spearman(&[(1.0, 5.0), (2.0, 5.0)]), None);
    assert_eq!(spearman(&[]), None);
}
