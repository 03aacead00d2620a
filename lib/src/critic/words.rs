//! The brief's words against what a page shows.
//!
//! Content words are compared by their stem (Porter2, Snowball project). A word that names a kind of element (`chart`,
//! `form`, `filter`) is answered by such an element too.

use std::collections::BTreeSet;

use rust_stemmers::{Algorithm, Stemmer};

use super::{BriefMatch, page::Page};
use crate::brief::Brief;

/// Words that say nothing about what is wanted.
const STOP: &str = "a about above above across after again all also am an and any app application are around as at be \
    because been before below best better between both build but by can clean code could create design did different \
    display displays do does doing done dont each easily easy etc every few file files find for from full generate get \
    gets give given go good got great handle has have having he help helps her here hi him his how i id if im in \
    include includes including into interface is it its just keep kind let lets like little look looking looks lot \
    make makes making many may me mine modern more most much must my need needed needs new nice no nor not of off on \
    once one only or other our out over own page people please plus pretty provide put quick quickly really screen see \
    several she should show showing shows simple single site small so some something sort streamlit such support sure \
    take than that the their them then there these they thing things this those three through time to together too \
    tool two ui under up us use used useful user users using via view want wants was way we web website well were what \
    when where whether which while who whole why will with within without work works would write yes you your";

/// Words that a kind of element answers, by stem, with the kinds.
const KINDS: &[(&str, &[&str])] = &[
    ("form", &["form"]),
    ("chart", &["*chart", "pyplot"]),
    ("graph", &["*chart", "pyplot"]),
    ("plot", &["*chart", "pyplot"]),
    ("trend", &["line_chart", "area_chart", "*chart"]),
    ("visual", &["*chart", "pyplot", "map"]),
    ("tabl", &["dataframe", "table", "data_editor"]),
    ("grid", &["dataframe", "table", "data_editor", "columns", "grid"]),
    ("list", &["dataframe", "table", "data_editor"]),
    ("row", &["dataframe", "table", "data_editor"]),
    ("spreadsheet", &["data_editor", "dataframe"]),
    ("metric", &["metric"]),
    ("kpi", &["metric"]),
    ("stat", &["metric"]),
    ("statist", &["metric"]),
    ("figur", &["metric"]),
    ("summari", &["metric", "table", "dataframe"]),
    ("overview", &["metric", "*chart"]),
    ("dashboard", &["metric", "*chart"]),
    ("report", &["metric", "dataframe", "table", "*chart"]),
    ("card", &["metric", "container"]),
    (
        "filter",
        &[
            "selectbox",
            "multiselect",
            "slider",
            "date_input",
            "pills",
            "segmented_control",
            "radio",
            "text_input",
        ],
    ),
    ("search", &["text_input"]),
    ("select", &["selectbox", "multiselect", "radio", "pills", "segmented_control"]),
    ("choos", &["selectbox", "multiselect", "radio", "pills", "segmented_control"]),
    ("pick", &["selectbox", "multiselect", "radio", "pills", "segmented_control", "date_input"]),
    ("dropdown", &["selectbox", "multiselect"]),
    ("option", &["selectbox", "multiselect", "radio", "pills", "segmented_control"]),
    ("slider", &["slider", "select_slider"]),
    ("rang", &["slider", "date_input"]),
    ("upload", &["file_uploader"]),
    ("download", &["download_button"]),
    ("export", &["download_button"]),
    ("button", &["button", "form_submit_button", "download_button"]),
    ("submit", &["form_submit_button", "button"]),
    ("checkbox", &["checkbox", "toggle"]),
    ("toggl", &["toggle", "checkbox"]),
    ("switch", &["toggle", "checkbox"]),
    ("input", &["text_input", "number_input", "text_area"]),
    ("field", &["text_input", "number_input", "text_area"]),
    ("enter", &["text_input", "number_input", "text_area"]),
    ("type", &["text_input", "text_area"]),
    ("edit", &["data_editor", "text_input", "number_input"]),
    ("date", &["date_input"]),
    ("calendar", &["date_input"]),
    ("tab", &["tabs"]),
    ("sidebar", &["sidebar"]),
    ("chat", &["chat_input", "chat_message"]),
    ("messag", &["chat_message", "text_area", "chat_input"]),
    ("map", &["map", "pydeck_chart"]),
    ("progress", &["progress"]),
    ("rate", &["feedback", "slider"]),
    ("titl", &["title"]),
    ("head", &["title", "header"]),
    ("alert", &["error", "warning", "info"]),
    ("warn", &["warning", "error"]),
];

/// What a user operates, as a brief says it: not by stem, because a set is no settings and a book no booking.
const OPERATED: &[&str] = &[
    "form",
    "forms",
    "filter",
    "filters",
    "filtering",
    "filtered",
    "search",
    "searching",
    "calculator",
    "calculate",
    "calculates",
    "quiz",
    "quizzes",
    "survey",
    "questionnaire",
    "upload",
    "uploads",
    "uploading",
    "chat",
    "chatbot",
    "wizard",
    "settings",
    "preferences",
    "editor",
    "edit",
    "editing",
    "input",
    "inputs",
    "button",
    "buttons",
    "submit",
    "booking",
    "reservation",
    "registration",
    "register",
    "login",
    "signup",
    "select",
    "choose",
    "dropdown",
    "dropdowns",
    "slider",
    "sliders",
    "toggle",
    "toggles",
    "checkbox",
    "checkboxes",
    "checklist",
    "converter",
    "convert",
    "planner",
    "todo",
    "enter",
    "configure",
    "adjust",
];

/// How many of the brief's words one element can answer.
const MOST_PROSE: usize = 5;
const MOST: usize = 3;

/// What a brief wants, before anything is looked at.
pub(super) fn wanted(brief: &Brief) -> BriefMatch {
    let stemmer = Stemmer::create(Algorithm::English);
    let stop: BTreeSet<&str> = STOP.split_whitespace().collect();
    let mut seen = BTreeSet::new();
    let mut wanted = Vec::new();
    let mut interactive = false;
    for text in std::iter::once(&brief.description).chain(&brief.requirements) {
        for word in tokens(text) {
            let stem = stemmer.stem(&word).into_owned();
            interactive |= OPERATED.contains(&word.as_str());
            let said = stop.contains(word.as_str())
                || word.chars().count() < 3
                || word.chars().all(char::is_numeric);
            if !said && seen.insert(stem) && wanted.len() < 60 {
                wanted.push(word);
            }
        }
    }
    BriefMatch { wanted, found: Vec::new(), interactive }
}

/// Fills in what of the wanted words a page shows.
pub(super) fn find(wanted: &mut BriefMatch, page: &Page) {
    let stemmer = Stemmer::create(Algorithm::English);
    let stems: Vec<String> = wanted.wanted.iter().map(|word| stemmer.stem(word).into_owned()).collect();
    let mut found: BTreeSet<usize> = BTreeSet::new();
    let in_sight = || page.shown.iter().filter(|shown| !shown.element.tucked && !shown.element.unseen);
    for shown in in_sight() {
        let words: BTreeSet<String> =
            tokens(&shown.text).map(|word| stemmer.stem(&word).into_owned()).collect();
        let most = if shown.element.control || shown.element.kind == "metric" { MOST } else { MOST_PROSE };
        let answered = stems.iter().enumerate().filter(|(_, stem)| words.contains(*stem)).map(|(i, _)| i);
        found.extend(answered.take(most));
    }
    let kinds = in_sight().map(|shown| shown.element.kind.as_str());
    let present: BTreeSet<&str> = kinds.chain(page.containers.iter().map(String::as_str)).collect();
    let by_kind = |stem: &String| KINDS.iter().any(|(word, kinds)| word == stem && answers(kinds, &present));
    found.extend(stems.iter().enumerate().filter(|(_, stem)| by_kind(stem)).map(|(i, _)| i));
    wanted.found = found.into_iter().map(|i| wanted.wanted[i].clone()).collect();
}

fn answers(kinds: &[&str], present: &BTreeSet<&str>) -> bool {
    kinds.iter().any(|kind| match kind.strip_prefix('*') {
        Some(end) => present.iter().any(|one| one.ends_with(end)),
        None => present.contains(kind),
    })
}

fn tokens(text: &str) -> impl Iterator<Item = String> {
    text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_lowercase)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::critic::{Element, page::Shown};

    fn brief(text: &str) -> Brief {
        serde_json::from_value(serde_json::json!({ "id": "b", "description": text })).unwrap()
    }

    fn shown(kind: &str, text: &str, tucked: bool) -> Shown {
        let control = crate::critic::page::CONTROLS.contains(&kind);
        let element = Element { kind: kind.into(), control, tucked, ..Element::default() };
        Shown { element, text: text.into() }
    }

    #[track_caller]
    fn check(text: &str, page: Vec<Shown>, expected: &[&str]) {
        let mut brief = wanted(&brief(text));
        find(&mut brief, &Page { shown: page, ..Page::default() });
        assert_eq!(brief.found, expected);
    }

    #[test]
    fn content_words_are_wanted_once() {
        let brief = wanted(&brief("Please build me a simple app: tracking orders, order status & 3 filters"));
        assert_eq!(brief.wanted, ["tracking", "orders", "status", "filters"]);
        assert!(brief.interactive);
        assert!(!wanted(&self::brief("A dashboard of wells")).interactive);
        assert!(!wanted(&self::brief("A report on a set of book sales")).interactive);
    }

    #[test]
    fn words_are_found_by_stem_where_they_are_visible() {
        let text = "track orders and invoices";
        check(text, vec![shown("title", "Order tracker", false)], &["orders"]);
        check(text, vec![shown("title", "Tracking an order", false)], &["track", "orders"]);
        check(text, vec![shown("title", "Tracking an order", true)], &[]);
        check(
            "a chart with filters",
            vec![shown("line_chart", "", false), shown("selectbox", "", false)],
            &["chart", "filters"],
        );
    }

    #[test]
    fn one_element_answers_only_a_few_words() {
        let text = "red green blue black white brown";
        check(text, vec![shown("markdown", text, false)], &["red", "green", "blue", "black", "white"]);
        check(text, vec![shown("selectbox", text, false)], &["red", "green", "blue"]);
    }
}
