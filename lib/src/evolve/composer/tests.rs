//! The composer on briefs of all sorts: what it writes parses, repeats itself, and holds what the brief names.

use std::collections::BTreeSet;

use proptest::prelude::*;
use ruff_python_parser::parse_module;

use super::*;
use crate::brief;

/// Briefs that no file ships, in the ways people write.
const BRIEFS: &[(&str, &str, &[&str])] = &[
    (
        "form",
        "A contact form with name, email, topic (sales, support, other) and message.",
        &["Name", "Email", "Topic", "Message"],
    ),
    (
        "form",
        "sign-up for a fun run: first name, birth date, distance (5 km, 10 km), t-shirt size, emergency phone",
        &["Birth date", "Distance", "Emergency phone"],
    ),
    ("form", "- full name\n- delivery date\n- gift wrap y/n\n- comments", &["Delivery date", "Comments"]),
    (
        "dashboard",
        "Dashboard for a car park: free spaces, cars today, revenue, chart of cars per hour. Filter by level.",
        &["Free spaces", "Revenue", "Level"],
    ),
    (
        "dashboard",
        "airport overview with departures, delays, passengers; line chart by terminal (A, B, C)",
        &["Departures", "Delays"],
    ),
    (
        "table",
        "Table of museum loans: object, lender, value, return date. Filter by lender and export as CSV.",
        &["Object", "Lender", "Return date", "Download"],
    ),
    (
        "wizard",
        "Wizard to open a bank account: step 1 personal details, step 2 address, step 3 review.",
        &["Personal details", "Street", "Summary"],
    ),
    (
        "wizard",
        "Book a moving company in 3 steps: home (rooms, street, city), date, contact",
        &["Step 1", "Date"],
    ),
    (
        "settings",
        "Settings for a robot mower: schedule (daily, weekly), rain sensor on/off, cutting height 20-60, save button",
        &["Schedule", "20, 60", "Save"],
    ),
    (
        "chat",
        "chat with a gym assistant about classes, prices and opening hours",
        &["Classes", "Prices", "chat_input"],
    ),
    (
        "board",
        "Board with columns Backlog, Next, Live. Cards show title and owner.",
        &["Backlog", "Live", "Owner"],
    ),
    (
        "upload",
        "Upload page for sensor files, show device, time and value of each row, then load",
        &["file_uploader", "Device"],
    ),
    (
        "calculator",
        "Fuel cost calculator: distance, litres per 100, price per litre",
        &["Distance", "number_input", "metric"],
    ),
    ("quiz", "Short quiz on science with a score", &["Check answers", "score"]),
    ("survey", "Rate cleanliness, staff and price 1-5, any comments", &["Cleanliness", "slider"]),
    (
        "inventory",
        "Pantry stock with product, quantity, expiry date; add items",
        &["Product", "Quantity", "Expiry date"],
    ),
    (
        "monitoring",
        "Servers with status (up, down), cpu, memory, last check. Refresh button.",
        &["Status", "Refresh"],
    ),
    ("comparison", "Compare three phones by price, weight and battery hours", &["Price", "Weight"]),
    ("report", "Weekly report of website visits, sign-ups and bounce rate with a chart", &["Website visits"]),
    ("calendar", "Dentist appointments: patient, day, start time, reason", &["Patient", "Start time"]),
    ("search", "Search films by title, genre and year", &["Search", "Genre"]),
    ("tracker", "Track my plants: name, last watered, height in cm", &["Last watered", "Height"]),
    ("planner", "Plan a party: guest, dish, budget", &["Dish", "Budget"]),
    ("gallery", "Gallery of street art with artist, city and year, filter by city", &["Artist", "City"]),
    ("", "Unit converter for kg and pounds", &["kg to pounds", "Result"]),
    ("", "log viewer: time, level (info, warning, error), message. filter by level", &["Level", "Error"]),
    ("", "Profile editor with display name, bio, time zone and newsletter", &["Display name", "Bio"]),
    ("", "I run a bee farm. Show me hives, honey per hive and sick colonies.", &["Honey per hive"]),
    ("", "As a librarian I want to register lost books: title, borrower, fine", &["Title", "Borrower"]),
    ("", "page", &["title"]),
];

fn brief(kind: &str, description: &str) -> Brief {
    serde_json::from_value(serde_json::json!({ "id": "b", "kind": kind, "description": description }))
        .unwrap()
}

pub fn training() -> Vec<Brief> {
    brief::TRAIN_JSONL.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn code(brief: &Brief, operator: Operator, attempt: u32) -> String {
    Composer::new(1).propose(brief, operator, attempt, &[]).files[0].content.clone()
}

#[track_caller]
fn parses(source: &str) {
    assert!(parse_module(source).is_ok(), "{source}");
}

/// Nothing that Streamlit would refuse: no two controls of a kind with one label.
#[track_caller]
fn labels_differ(source: &str) {
    let controls = [
        "text_input",
        "text_area",
        "number_input",
        "selectbox",
        "multiselect",
        "slider",
        "checkbox",
        "date_input",
        "time_input",
        "file_uploader",
        "button",
        "form_submit_button",
        "radio",
    ];
    let mut seen = BTreeSet::new();
    for call in source.split("st.").skip(1) {
        let Some((name, rest)) = call.split_once('(') else { continue };
        if controls.contains(&name) {
            let line = rest.lines().next().unwrap_or_default();
            assert!(seen.insert(format!("{name} {line}")), "{name}({line} comes twice in\n{source}");
        }
    }
}

#[test]
fn apps_hold_what_briefs_name() {
    for (kind, description, words) in BRIEFS {
        let source = code(&brief(kind, description), Operator::Restart, 0);
        parses(&source);
        labels_differ(&source);
        for word in *words {
            assert!(source.contains(word), "{word} is not in the app for {description:?}:\n{source}");
        }
    }
}

#[test]
fn every_app_has_the_same_skeleton() {
    for brief in training() {
        let source = code(&brief, Operator::Restart, 0);
        parses(&source);
        labels_differ(&source);
        assert!(source.starts_with("import streamlit as st\n\nst.title(\""), "{source}");
        assert_eq!(source.matches("st.title(").count(), 1, "{source}");
        assert!(source.lines().count() <= 60, "{source}");
    }
}

#[test]
fn operators_repeat_themselves_and_differ_from_each_other() {
    for brief in training().iter().take(30) {
        let mut seen = BTreeSet::new();
        for operator in Operator::ALL {
            for attempt in 0..3 {
                let source = code(brief, operator, attempt);
                assert_eq!(source, code(brief, operator, attempt));
                parses(&source);
                labels_differ(&source);
                seen.insert(source);
            }
        }
        assert!(seen.len() >= 3, "{}: {} different apps", brief.id, seen.len());
    }
}

/// Attempts of a later round start one past those of the one before it.
#[test]
fn a_later_round_has_new_apps() {
    let briefs = training();
    let fresh = |brief: &Brief| {
        let round = |first: u32| -> BTreeSet<String> {
            let writes = [(Operator::Restart, 0), (Operator::Restyle, 1)];
            writes.iter().map(|&(operator, attempt)| code(brief, operator, first + attempt)).collect()
        };
        let (one, two) = (round(0), round(13));
        two.iter().for_each(|source| parses(source));
        two.difference(&one).count()
    };
    let (new, all): (usize, usize) = (briefs.iter().map(fresh).sum(), 2 * briefs.len());
    assert!(new * 10 >= all * 9, "{new} of {all} apps are new");
}

#[test]
fn variants_differ() {
    for brief in training().iter().step_by(7) {
        let variants = Plan::read(brief, 1).variants(1, 4);
        assert!(variants.len() >= 2, "{}", brief.id);
        let sources: BTreeSet<String> =
            variants.iter().map(|plan| plan.write().files[0].content.clone()).collect();
        assert_eq!(sources.len(), variants.len(), "{}", brief.id);
    }
}

#[test]
fn no_two_training_apps_are_alike() {
    let shingles: Vec<Shingles> =
        training().iter().map(|brief| shingled(&code(brief, Operator::Restart, 0))).collect();
    assert_eq!(near_duplicates(&shingles), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn any_brief_becomes_an_app(text in "\\PC{1,300}", kind in 0_usize..30) {
        prop_assume!(!text.trim().is_empty());
        let brief = brief(BRIEFS[kind].0, &text);
        let source = code(&brief, Operator::Restyle, 1);
        prop_assert!(parse_module(&source).is_ok(), "{}", source);
    }

    #[test]
    fn words_of_briefs_in_any_order_become_an_app(words in prop::collection::vec(0_usize..400, 1..60)) {
        let all: Vec<&str> = BRIEFS.iter().flat_map(|(_, text, _)| text.split(' ')).collect();
        let text: Vec<&str> = words.iter().map(|at| all[at % all.len()]).collect();
        let source = code(&brief("", &text.join(" ")), Operator::Merge, 1);
        prop_assert!(parse_module(&source).is_ok(), "{}", source);
    }
}

/// 5-token shingles of code.
pub type Shingles = BTreeSet<Vec<String>>;

pub fn shingled(source: &str) -> Shingles {
    let mut tokens: Vec<String> = Vec::new();
    let mut word = String::new();
    for c in source.chars() {
        if c.is_alphanumeric() || c == '_' {
            word.push(c);
            continue;
        }
        if !word.is_empty() {
            tokens.push(std::mem::take(&mut word));
        }
        if !c.is_whitespace() {
            tokens.push(c.to_string());
        }
    }
    tokens.windows(5).map(<[String]>::to_vec).collect()
}

/// Share of the shingles of both that both have.
pub fn jaccard(a: &Shingles, b: &Shingles) -> f64 {
    let common = a.intersection(b).count();
    common as f64 / (a.len() + b.len() - common) as f64
}

/// How many have another that shares 80% of their shingles.
pub fn near_duplicates(shingles: &[Shingles]) -> usize {
    (0..shingles.len())
        .filter(|i| (0..shingles.len()).any(|j| j != *i && jaccard(&shingles[*i], &shingles[j]) >= 0.8))
        .count()
}
