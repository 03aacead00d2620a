//! The table is whole, and the search finds what sixty and thirty questions ask for.

use std::collections::BTreeSet;

use super::*;

fn table() -> &'static [Guideline] {
    Guidelines::embedded().rows()
}

#[test]
fn every_line_of_the_table_is_read() {
    let (lines, errors) = crate::store::parse_lines::<Guideline>(include_str!("../guidelines.jsonl"));
    assert_eq!(errors, []);
    assert_eq!(lines.len(), table().len());
    assert!(table().len() >= 150, "{}", table().len());
    assert!(table().is_sorted_by(|a, b| a.id < b.id), "ids are unique and in order");
}

#[test]
fn no_field_is_empty() {
    let digits = |id: &str| id.strip_prefix('g').is_some_and(|n| n.len() == 3 && n.parse::<u16>().is_ok());
    for row in table() {
        assert!(digits(&row.id), "{row:?}");
        let section = row.section.as_deref().unwrap_or("none");
        for text in [&row.source, &row.category, &row.fact, &row.applies_to, &row.check, section] {
            assert_eq!(text.trim(), text, "{row:?}");
            assert!(!text.is_empty() && !text.contains("://"), "{row:?}");
        }
        assert!(row.fact.ends_with('.') && row.fact.len() <= 200, "{}: {}", row.id, row.fact.len());
    }
}

#[test]
fn a_check_names_who_can_see_it() {
    let known = ["static", "snapshot", "ruff", "axe", "browser"];
    let mut rules = BTreeSet::new();
    for row in table() {
        for part in row.check.split(';').map(str::trim) {
            let Some((tool, named)) = part.split_once(':') else {
                assert!(["judge", "not checked"].contains(&part), "{}: {part}", row.id);
                continue;
            };
            assert!(known.contains(&tool), "{}: {tool}", row.id);
            for rule in named.split(',').filter(|_| ["ruff", "axe"].contains(&tool)) {
                assert!(rules.insert((tool, rule.trim())), "{}: {rule} is named by another row too", row.id);
            }
        }
    }
}

#[test]
fn every_rule_of_axe_that_is_named_is_one_that_the_browser_has() {
    let axe = include_str!("../browser/axe/axe.min.js");
    let parts = table().iter().flat_map(|row| row.check.split(';')).filter_map(|part| part.split_once(':'));
    let rules: Vec<&str> =
        parts.filter(|(tool, _)| tool.trim() == "axe").flat_map(|(_, rules)| rules.split(',')).collect();
    assert!(rules.len() >= 80, "{}", rules.len());
    for rule in rules.iter().map(|rule| rule.trim()) {
        assert!(
            axe.contains(&format!("{{id:\"{rule}\",impact:"))
                || axe.contains(&format!("{{id:\"{rule}\",reviewOnFail:")),
            "{rule}"
        );
    }
}

/// Words that two facts share, of all that either has.
fn likeness(a: &BTreeSet<String>, b: &BTreeSet<String>) -> f64 {
    a.intersection(b).count() as f64 / a.union(b).count() as f64
}

#[test]
fn no_fact_is_said_twice() {
    let analyser = Analyser::new(true);
    let words: Vec<(&str, BTreeSet<String>)> = table()
        .iter()
        .map(|row| (row.id.as_str(), analyser.terms(&row.fact).into_iter().collect()))
        .collect();
    for (place, (id, own)) in words.iter().enumerate() {
        for (other, theirs) in &words[..place] {
            assert!(likeness(own, theirs) < 0.5, "{id} and {other} say the same");
        }
    }
}

#[test]
fn what_findings_cite_exists() {
    let code = [include_str!("../findings.rs"), include_str!("../habit/ui-first.toml")].concat();
    let quoted: Vec<&str> = code.split('"').filter(|text| text.len() == 4 && text.starts_with('g')).collect();
    let ids: Vec<&str> = quoted.into_iter().filter(|text| text[1..].parse::<u16>().is_ok()).collect();
    assert!(ids.len() >= 15, "{ids:?}");
    for id in ids {
        assert!(Guidelines::embedded().get(id).is_some(), "{id}");
    }
}

#[test]
fn a_rule_leads_to_its_guideline() {
    let behind = |tool, rule| Guidelines::embedded().checked_by(tool, rule).map(|row| row.id.as_str());
    assert_eq!(behind("ruff", "F821"), Some("g138"));
    assert_eq!(behind("ruff", "F405"), Some("g150"));
    assert_eq!(behind("axe", "color-contrast"), Some("g001"));
    assert_eq!(behind("axe", "link-name"), Some("g010"));
    assert_eq!(behind("axe", "F821"), None);
    assert_eq!(behind("ruff", ""), None);
}

#[derive(Deserialize)]
struct Question {
    question: String,
    expected: BTreeSet<String>,
}

fn questions(text: &str) -> Vec<Question> {
    let (lines, errors) = crate::store::parse_lines(text);
    assert_eq!(errors, []);
    lines.into_iter().map(|line| line.value).collect()
}

/// Asked before anything was built; and those asked after the first figures, before synonyms were collected.
fn both() -> [Vec<Question>; 2] {
    [questions(include_str!("questions.jsonl")), questions(include_str!("questions_later.jsonl"))]
}

#[test]
fn questions_ask_for_guidelines_that_exist() {
    let [first, later] = both();
    assert_eq!((first.len(), later.len()), (60, 30));
    let mut seen = BTreeSet::new();
    for question in first.iter().chain(&later) {
        assert!(seen.insert(&question.question), "{}", question.question);
        assert!(!question.expected.is_empty());
        for id in &question.expected {
            assert!(Guidelines::embedded().get(id).is_some(), "{id}");
        }
    }
}

/// Shares of questions whose first, or one of the first three, is right, and the mean of 1 / place of the first right one
/// of ten.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Figures {
    hit_1: f64,
    hit_3: f64,
    mrr: f64,
}

fn figures(table: &Guidelines, questions: &[Question]) -> Figures {
    let place = |question: &Question| {
        let found = table.retrieve(&question.question, 10);
        let right = found.iter().position(|row| question.expected.contains(&row.id));
        right.map_or(f64::INFINITY, |at| at as f64 + 1.0)
    };
    let places: Vec<f64> = questions.iter().map(place).collect();
    let n = places.len() as f64;
    let share = |k: f64| places.iter().filter(|place| **place <= k).count() as f64 / n;
    Figures {
        hit_1: share(1.0),
        hit_3: share(3.0),
        mrr: places.iter().map(|place| 1.0 / place).sum::<f64>() / n,
    }
}

/// A row of the table in docs/design/guidelines.md.
fn row(name: &str, table: &Guidelines) -> String {
    let cells = both().map(|questions| {
        let Figures { hit_1, hit_3, mrr } = figures(table, &questions);
        format!("{hit_1:.2} | {hit_3:.2} | {mrr:.3}")
    });
    format!("| {name} | {} | {} |", cells[0], cells[1])
}

#[test]
fn published_figures_are_those_of_this_table() {
    const FACT: [f64; 4] = [1.0, 0.0, 0.0, 0.0];
    const BOOSTED: [f64; 4] = [1.0, 0.5, 2.0, 1.0];
    let stems = || Analyser::new(true);
    let variants = [
        ("words of the fact", FACT, Analyser::new(false)),
        ("Porter2 stems of the fact", FACT, stems()),
        ("stems of all fields alike", WEIGHTS, stems()),
        ("stems, category and scope boosted", BOOSTED, stems()),
        ("stems boosted, with synonyms", BOOSTED, stems().with_synonyms(SYNONYMS)),
        ("stems of all fields alike, with synonyms (shipped)", WEIGHTS, stems().with_synonyms(SYNONYMS)),
    ];
    let rows: Vec<String> = variants
        .into_iter()
        .map(|(name, weights, analyser)| row(name, &Guidelines::new(table().to_vec(), weights, analyser)))
        .collect();
    println!("{}", rows.join("\n"));
    let document = include_str!("../../../../docs/design/guidelines.md");
    for row in rows {
        assert!(document.contains(&row), "docs/design/guidelines.md does not say: {row}");
    }
}

#[test]
fn the_search_finds_what_is_asked_for() {
    let floor = [(0.53, 0.80, 0.68), (0.50, 0.65, 0.60)];
    for (questions, (hit_1, hit_3, mrr)) in both().iter().zip(floor) {
        let found = figures(Guidelines::embedded(), questions);
        assert!(found.hit_1 >= hit_1 && found.hit_3 >= hit_3 && found.mrr >= mrr, "{found:?}");
    }
}

#[test]
fn no_more_than_asked_for_is_found_and_nothing_for_nothing() {
    let table = Guidelines::embedded();
    assert_eq!(table.retrieve("a label for every button", 3).len(), 3);
    assert_eq!(table.retrieve("a label for every button", 0).len(), 0);
    assert_eq!(table.retrieve("", 3).len(), 0);
    assert_eq!(table.retrieve("zzz", 3).len(), 0);
}
