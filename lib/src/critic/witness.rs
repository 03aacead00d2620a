//! Two witnesses and what passed between them: the snapshot that the candidate's server gives, the page that a browser
//! shows, and the messages that the server sent to that page.
//!
//! Each can be forged alone: the server may lie in its snapshot, and a script of the page may change what is shown. So an
//! element counts only when all that can know of it do, and where they contradict each other nothing of it is believed.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{
    Element, Run, RunStatus,
    browser::{Item, Rendered},
};

/// A command of Streamlit in the vocabularies of the witnesses.
struct Word {
    /// As the snapshot names it.
    command: &'static str,
    /// As the messages do.
    message: &'static str,
    /// The test id on the page.
    id: &'static str,
    /// Its label can be read on the page.
    text: bool,
}

const fn word(command: &'static str, message: &'static str, id: &'static str, text: bool) -> Word {
    Word { command, message, id, text }
}

const WORDS: &[Word] = &[
    word("title", "heading", "stHeading", true),
    word("header", "heading", "stHeading", true),
    word("subheader", "heading", "stHeading", true),
    word("markdown", "markdown", "stMarkdown", true),
    word("caption", "markdown", "stMarkdown", true),
    word("badge", "markdown", "stMarkdown", true),
    word("latex", "markdown", "stMarkdown", false),
    word("text", "text", "stText", true),
    word("code", "code", "stCode", true),
    word("html", "html", "stHtml", false),
    word("json", "json", "stJson", false),
    word("metric", "metric", "stMetric", true),
    word("dataframe", "dataframe", "stDataFrame", false),
    word("data_editor", "dataframe", "stDataFrame", false),
    word("table", "table", "stTable", false),
    word("line_chart", "vega_lite_chart", "stVegaLiteChart", false),
    word("area_chart", "vega_lite_chart", "stVegaLiteChart", false),
    word("bar_chart", "vega_lite_chart", "stVegaLiteChart", false),
    word("scatter_chart", "vega_lite_chart", "stVegaLiteChart", false),
    word("altair_chart", "vega_lite_chart", "stVegaLiteChart", false),
    word("vega_lite_chart", "vega_lite_chart", "stVegaLiteChart", false),
    word("plotly_chart", "plotly_chart", "stPlotlyChart", false),
    word("echarts_chart", "echarts_chart", "stEChartsChart", false),
    word("graphviz_chart", "graphviz_chart", "stGraphVizChart", false),
    word("pydeck_chart", "deck_gl_json_chart", "stDeckGlJsonChart", false),
    word("map", "deck_gl_json_chart", "stDeckGlJsonChart", false),
    word("image", "imgs", "stImage", false),
    word("pyplot", "imgs", "stImage", false),
    word("audio", "audio", "stAudio", false),
    word("video", "video", "stVideo", false),
    word("iframe", "iframe", "stIFrame", false),
    word("components.v1.html", "iframe", "stIFrame", false),
    word("components.v1.iframe", "iframe", "stIFrame", false),
    word("component", "component_instance", "stCustomComponentV1", false),
    word("progress", "progress", "stProgress", false),
    word("success", "alert", "stAlert", true),
    word("info", "alert", "stAlert", true),
    word("warning", "alert", "stAlert", true),
    word("error", "alert", "stAlert", true),
    word("toast", "toast", "stToast", true),
    word("button", "button", "stButton", true),
    word("form_submit_button", "button", "stFormSubmitButton", true),
    word("download_button", "download_button", "stDownloadButton", true),
    word("link_button", "link_button", "stLinkButton", true),
    word("page_link", "page_link", "stPageLink", true),
    word("menu_button", "menu_button", "stMenuButton", true),
    word("checkbox", "checkbox", "stCheckbox", true),
    word("toggle", "checkbox", "stCheckbox", true),
    word("radio", "radio", "stRadio", true),
    word("selectbox", "selectbox", "stSelectbox", true),
    word("multiselect", "multiselect", "stMultiSelect", true),
    word("slider", "slider", "stSlider", true),
    word("select_slider", "slider", "stSlider", true),
    word("text_input", "text_input", "stTextInput", true),
    word("text_area", "text_area", "stTextArea", true),
    word("number_input", "number_input", "stNumberInput", true),
    word("date_input", "date_input", "stDateInput", true),
    word("time_input", "time_input", "stTimeInput", true),
    word("datetime_input", "date_time_input", "stDateTimeInput", true),
    word("color_picker", "color_picker", "stColorPicker", true),
    word("pills", "button_group", "stButtonGroup", true),
    word("segmented_control", "button_group", "stButtonGroup", true),
    word("feedback", "feedback", "stFeedback", false),
    word("file_uploader", "file_uploader", "stFileUploader", true),
    word("camera_input", "camera_input", "stCameraInput", true),
    word("audio_input", "audio_input", "stAudioInput", true),
    word("chat_input", "chat_input", "stChatInput", true),
    word("pagination", "pagination", "stPagination", false),
];

const EXCEPTION: &str = "stException";
/// Kinds that only the audit tells apart: a caption is paler than text by the framework's own choice.
const FINER: &[&str] = &["stCaptionContainer"];

/// Test ids of everything that is looked for on a page.
pub(super) fn ids() -> Vec<&'static str> {
    let mut ids: Vec<&str> =
        WORDS.iter().map(|word| word.id).chain([EXCEPTION]).chain(FINER.iter().copied()).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// Whether the witnesses tell the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Agreement {
    /// What they contradict each other in; empty when they agree.
    pub contradictions: Vec<String>,
    /// They did at first, and agreed when asked again: the app differs from session to session.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub unsteady: bool,
}

impl Agreement {
    pub fn agrees(&self) -> bool {
        self.contradictions.is_empty()
    }

    /// Nothing to tell.
    pub(super) fn is_plain(&self) -> bool {
        *self == Self::default()
    }
}

/// Marks the elements that the page does not show, counts what it does, and compares the witnesses. `boxes` are the
/// exceptions of the snapshot, those included that the app shows by itself.
pub(super) fn compare(run: &mut Run, boxes: usize, rendered: &mut Rendered, items: &[Item]) -> Agreement {
    let shown = items.iter().filter(|item| item.id == EXCEPTION).count();
    rendered.exceptions = u32::try_from(shown).unwrap_or(u32::MAX);
    let mut page = Shown::new(items);
    for element in run.elements.iter_mut().filter(|element| !element.tucked) {
        element.unseen = !page.take(element);
        rendered.visible += u32::from(!element.unseen);
    }
    let mut contradictions = Vec::new();
    let told = rendered.wire.exceptions.len();
    let settled = rendered.ready && run.status != RunStatus::TimedOut;
    let mut contradiction = |holds: bool, text: &str| {
        if holds {
            contradictions.push(text.to_owned());
        }
    };
    if settled {
        contradiction(told > 0 && boxes == 0, "the snapshot leaves out an exception");
        // Code that does not compile is no message with an exception: the end of its run says so.
        contradiction(
            told == 0 && boxes > 0 && !rendered.wire.compile_error,
            "the page was not told of the snapshot's exception",
        );
        contradiction(told > 0 && shown == 0, "an exception was taken off the page");
        let compiles = run.exceptions.iter().all(|exception| exception.kind != "SyntaxError");
        contradiction(
            rendered.wire.compile_error && run.status == RunStatus::Ready && compiles,
            "the snapshot of code that does not compile is without fault",
        );
    }
    if let Some(text) = invented(run, &rendered.wire.elements).filter(|_| settled) {
        contradictions.push(text);
    }
    Agreement { contradictions, unsteady: false }
}

/// What is on the page, each to be claimed once.
struct Shown<'a> {
    items: Vec<(&'a Item, bool)>,
}

impl<'a> Shown<'a> {
    fn new(items: &'a [Item]) -> Self {
        Self { items: items.iter().map(|item| (item, false)).collect() }
    }

    /// Claims the item that shows an element; false when there is none.
    fn take(&mut self, element: &Element) -> bool {
        let word = WORDS.iter().find(|word| word.command == element.kind);
        let fits = |item: &Item| match word {
            Some(word) => item.id == word.id && (!word.text || says(&item.text, &element.label)),
            // A command that Streamlit has and this table does not: its words have to be there.
            None => !element.label.is_empty() && says(&item.text, &element.label),
        };
        // One that nobody claimed first: two metrics of one name are two.
        let mut places = self.items.iter_mut().filter(|(item, _)| fits(item));
        match places.find(|(_, claimed)| !claimed) {
            Some(place) => {
                place.1 = true;
                true
            }
            // Elements of one name are one element of the run.
            None => self.items.iter().any(|(item, _)| fits(item)) && word.is_some_and(|word| word.text),
        }
    }
}

/// At least half of a label's words can be read; a label without words is in every text.
pub(super) fn says(text: &str, label: &str) -> bool {
    let (wanted, text) = (words_of(label), words_of(text));
    let found = wanted.iter().filter(|word| text.contains(*word)).count();
    2 * found >= wanted.len()
}

/// Words in lower case. Signs say nothing, because a page draws some of them.
pub(super) fn words_of(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    words.map(str::to_lowercase).collect()
}

/// Elements of the snapshot that no message carried: more than a tenth of them, and more than one.
fn invented(run: &Run, carried: &BTreeMap<String, u32>) -> Option<String> {
    let mut claimed: BTreeMap<&str, u32> = BTreeMap::new();
    for element in &run.elements {
        if let Some(word) = WORDS.iter().find(|word| word.command == element.kind) {
            *claimed.entry(word.message).or_default() += 1;
        }
    }
    let missing = |(message, number): (&&str, &u32)| {
        number.saturating_sub(carried.get(*message).copied().unwrap_or_default())
    };
    let invented: u32 = claimed.iter().map(missing).sum();
    let all: u32 = claimed.values().sum();
    (invented > 1 && 10 * invented > all)
        .then(|| format!("{invented} of {all} elements of the snapshot were never sent to the page"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::critic::{Exception, browser::Wire};

    fn run(elements: &[(&str, &str)]) -> Run {
        let element = |(kind, label): &(&str, &str)| Element {
            kind: (*kind).into(),
            label: (*label).into(),
            ..Element::default()
        };
        Run { status: RunStatus::Ready, elements: elements.iter().map(element).collect(), ..Run::default() }
    }

    fn items(items: &[(&str, &str)]) -> Vec<Item> {
        items
            .iter()
            .map(|(id, text)| Item { id: (*id).into(), text: (*text).into(), ..Item::default() })
            .collect()
    }

    fn rendered(elements: &[(&str, u32)], exceptions: &[&str]) -> Rendered {
        let elements = elements.iter().map(|(kind, n)| ((*kind).to_owned(), *n)).collect();
        let exceptions = exceptions.iter().map(|kind| ((*kind).to_owned(), String::new())).collect();
        Rendered {
            ready: true,
            wire: Wire { elements, exceptions, ..Wire::default() },
            ..Rendered::default()
        }
    }

    #[test]
    fn an_element_counts_when_both_saw_it() {
        let mut run = run(&[
            ("title", "Sales"),
            ("button", "**Send** :rocket:"),
            ("button", "Hidden one"),
            ("dataframe", "a, b"),
        ]);
        let page = items(&[("stHeading", "Sales"), ("stButton", "Send"), ("stDataFrame", "")]);
        let mut rendered = rendered(&[("heading", 1), ("button", 2), ("dataframe", 1)], &[]);
        let agreement = compare(&mut run, 0, &mut rendered, &page);
        let unseen: Vec<&str> = run.elements.iter().filter(|e| e.unseen).map(|e| e.label.as_str()).collect();
        assert_eq!(unseen, ["Hidden one"]);
        assert_eq!((rendered.visible, agreement.agrees()), (3, true), "{agreement:?}");
    }

    #[track_caller]
    fn check_exceptions(boxes: usize, told: &[&str], shown: bool, expected: &[&str]) {
        let mut run = run(&[]);
        if boxes > 0 {
            run.exceptions.push(Exception::default());
        }
        let page = if shown { items(&[(EXCEPTION, "")]) } else { Vec::new() };
        let agreement = compare(&mut run, boxes, &mut rendered(&[], told), &page);
        assert_eq!(agreement.contradictions, expected);
    }

    #[test]
    fn forged_exceptions_are_contradictions() {
        check_exceptions(0, &[], false, &[]);
        check_exceptions(1, &["ValueError"], true, &[]);
        check_exceptions(0, &["ValueError"], true, &["the snapshot leaves out an exception"]);
        check_exceptions(1, &["ValueError"], false, &["an exception was taken off the page"]);
        check_exceptions(
            0,
            &["ValueError"],
            false,
            &["the snapshot leaves out an exception", "an exception was taken off the page"],
        );
        check_exceptions(1, &[], false, &["the page was not told of the snapshot's exception"]);
    }

    /// As with syntax that our parser reads and an older Python refuses.
    #[test]
    fn code_that_does_not_compile_agrees_with_a_snapshot_that_says_so() {
        let mut run = run(&[]);
        run.status = RunStatus::Error;
        run.exceptions.push(Exception { kind: "SyntaxError".into(), ..Exception::default() });
        let mut told = rendered(&[], &[]);
        told.wire.compile_error = true;
        let agreement = compare(&mut run, 1, &mut told, &items(&[(EXCEPTION, "")]));
        assert!(agreement.agrees(), "{agreement:?}");
        run.exceptions.clear();
        run.status = RunStatus::Ready;
        let agreement = compare(&mut run, 0, &mut told, &[]);
        assert_eq!(agreement.contradictions, ["the snapshot of code that does not compile is without fault"]);
    }

    #[test]
    fn invented_elements_are_a_contradiction() {
        let mut run = run(&[("button", "a"), ("button", "b"), ("metric", "c"), ("title", "d")]);
        let page = items(&[("stButton", "a"), ("stButton", "b"), ("stMetric", "c"), ("stHeading", "d")]);
        let mut told = rendered(&[("heading", 1)], &[]);
        let agreement = compare(&mut run, 0, &mut told, &page);
        assert_eq!(agreement.contradictions, ["3 of 4 elements of the snapshot were never sent to the page"]);
    }

    #[test]
    fn a_page_that_never_settles_is_no_contradiction() {
        let mut run = run(&[("button", "a"), ("button", "b")]);
        let mut told = Rendered { ready: false, ..rendered(&[], &["ValueError"]) };
        assert!(compare(&mut run, 0, &mut told, &[]).agrees());
    }
}
