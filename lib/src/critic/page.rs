//! Streamlit's snapshot of a page, and what of it a user sees.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Element, Exception, Heading};

mod chart;

/// A snapshot as the agent API sends it; fields that nobody needs are left out.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Snapshot {
    pub session_id: String,
    pub status: String,
    pub tree: Node,
    pub actions: Vec<Offer>,
    /// The page that ran, and all that there are.
    pub page: PageName,
    pub pages: Vec<PageName>,
}

/// A page of an app.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct PageName {
    pub url_path: String,
}

/// An element or a container.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Node {
    #[serde(rename = "type")]
    pub kind: String,
    pub key: Option<String>,
    pub props: Map<String, Value>,
    pub value: Value,
    pub value_schema: Value,
    pub form_id: Option<String>,
    pub support: Option<String>,
    pub data: Value,
    pub children: Option<Vec<Node>>,
}

/// A control that may be used now.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Offer {
    pub key: String,
}

/// What of a page a user sees.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Page {
    /// Without repetition.
    pub shown: Vec<Shown>,
    pub total: u32,
    pub tucked: u32,
    /// How often the control is there that is there most often.
    pub most_repeated: u32,
    pub containers: BTreeSet<String>,
    pub headings: Vec<Heading>,
    pub exceptions: Vec<Exception>,
    pub hiding: bool,
    /// The last element read is a heading, which names what follows.
    pub named: bool,
}

/// An element with all the text that it shows.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Shown {
    pub element: Element,
    pub text: String,
}

/// Commands that take input.
pub(super) const CONTROLS: &[&str] = &[
    "button",
    "form_submit_button",
    "download_button",
    "checkbox",
    "toggle",
    "radio",
    "selectbox",
    "multiselect",
    "slider",
    "select_slider",
    "text_input",
    "text_area",
    "number_input",
    "date_input",
    "time_input",
    "datetime_input",
    "color_picker",
    "pills",
    "segmented_control",
    "feedback",
    "file_uploader",
    "camera_input",
    "audio_input",
    "data_editor",
    "chat_input",
    "menu_button",
    "pagination",
];
/// Controls that need no label of their own.
const SELF_EVIDENT: &[&str] = &["data_editor", "feedback", "chat_input", "pagination"];
/// Decoration and space.
const NOTHING: &[&str] =
    &["divider", "space", "empty", "balloons", "snow", "spinner", "skeleton", "exception"];
/// Containers that a click has to open; tabs are not among them, because their names are in sight.
const CLOSED: &[&str] = &["expander", "popover", "dialog", "status"];
/// Containers that are only structure.
const FRAME: &[&str] = &["root", "main", "event", "bottom", "column", "tab", "container"];
/// Longest label kept, in characters.
const LABEL: usize = 80;

impl Node {
    pub fn prop(&self, name: &str) -> &str {
        self.props.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    pub fn flag(&self, name: &str) -> bool {
        self.props.get(name).and_then(Value::as_bool).unwrap_or(false)
    }

    /// The name that a user knows it by.
    pub fn label(&self) -> String {
        let name = ["label", "body", "placeholder", "caption", "message"]
            .iter()
            .map(|name| self.prop(name))
            .find(|text| !text.is_empty())
            .map_or_else(|| self.columns().join(", "), plain);
        name.chars().take(LABEL).collect::<String>().trim().to_owned()
    }

    /// Names of the columns of a table or chart, as its author wrote them.
    fn columns(&self) -> Vec<&str> {
        let columns = self.data["columns"].as_array().map(Vec::as_slice).unwrap_or_default();
        let names = columns.iter().filter_map(|column| column["name"].as_str());
        names.filter(|name| !name.contains("streamlit-generated")).collect()
    }

    pub fn walk<'a>(&'a self, visit: &mut impl FnMut(&'a Node)) {
        visit(self);
        self.children.iter().flatten().for_each(|child| child.walk(visit));
    }
}

impl Snapshot {
    /// Every node below the root, in reading order.
    pub fn nodes(&self) -> Vec<&Node> {
        let mut nodes = Vec::new();
        self.tree.walk(&mut |node| nodes.push(node));
        nodes
    }

    /// Keys of the controls that may be used now.
    pub fn offers(&self) -> BTreeSet<&str> {
        self.actions.iter().map(|offer| offer.key.as_str()).collect()
    }

    pub fn page(&self) -> Page {
        let mut page = Page::default();
        page.read(&self.tree, false);
        let mut seen: BTreeMap<(String, String), u32> = BTreeMap::new();
        let mut again: Vec<Element> = Vec::new();
        page.shown.retain(|Shown { element, .. }| {
            let times = seen.entry((element.kind.clone(), element.label.clone())).or_default();
            *times += 1;
            if element.control {
                page.most_repeated = page.most_repeated.max(*times);
            }
            if *times > 1 && is_chart(&element.kind) {
                again.push(element.clone());
            }
            *times == 1
        });
        again.iter().for_each(|chart| page.stand_for(chart));
        page
    }

    /// Exceptions in sight, those included that the app shows by itself.
    pub fn boxes(&self) -> usize {
        self.nodes().iter().filter(|node| node.kind == "exception").count()
    }

    /// Uncaught exceptions.
    pub fn exceptions(&self) -> Vec<Exception> {
        let raised = |node: &&Node| node.kind == "exception" && node.flag("uncaught");
        self.nodes().into_iter().filter(raised).map(exception).collect()
    }
}

impl Page {
    /// Charts often have no label to tell them apart: the one that is kept has the marks of all, and a title when all have.
    fn stand_for(&mut self, chart: &Element) {
        let alike =
            |shown: &&mut Shown| shown.element.kind == chart.kind && shown.element.label == chart.label;
        let Some(Shown { element, .. }) = self.shown.iter_mut().find(alike) else { return };
        if chart.tucked && !element.tucked {
            return;
        }
        element.titled &= chart.titled;
        for mark in &chart.marks {
            if !element.marks.contains(mark) {
                element.marks.push(mark.clone());
            }
        }
    }

    fn read(&mut self, node: &Node, tucked: bool) {
        if let Some(children) = &node.children {
            if !FRAME.contains(&node.kind.as_str()) && !children.is_empty() {
                self.containers.insert(node.kind.clone());
            }
            let closed =
                CLOSED.contains(&node.kind.as_str()) && !node.flag("expanded") && !node.flag("is_open");
            children.iter().for_each(|child| self.read(child, tucked || closed));
            return;
        }
        if node.kind == "exception" && node.flag("uncaught") {
            self.exceptions.push(exception(node));
        }
        if !NOTHING.contains(&node.kind.as_str()) {
            self.element(node, tucked);
        }
    }

    fn element(&mut self, node: &Node, tucked: bool) {
        let body = node.prop("body");
        if hides(body) {
            self.hiding = true;
        }
        let label = node.label();
        let prose = matches!(node.kind.as_str(), "markdown" | "html" | "text" | "caption" | "code" | "latex");
        if prose && (label.is_empty() || hides_inline(body)) {
            return;
        }
        self.total += 1;
        self.tucked += u32::from(tucked);
        self.headings.extend(headings(node));
        let control = CONTROLS.contains(&node.kind.as_str());
        let unlabelled = control
            && !SELF_EVIDENT.contains(&node.kind.as_str())
            && (node.prop("label").trim().is_empty()
                || ["collapsed", "hidden"].contains(&node.prop("label_visibility")));
        let text = text(node);
        let spec = &node.data["spec"];
        let below = self.named;
        let element = Element {
            kind: node.kind.clone(),
            label,
            control,
            unlabelled,
            tucked,
            in_form: control && node.form_id.is_some(),
            marks: chart::marks(&node.kind, spec),
            titled: is_chart(&node.kind) && (below || chart::has_title(&node.kind, spec)),
            unseen: false,
        };
        self.named = ends_in_heading(node);
        self.shown.push(Shown { element, text });
    }
}

fn is_chart(kind: &str) -> bool {
    kind.ends_with("chart") || kind == "pyplot"
}

fn headings(node: &Node) -> Vec<Heading> {
    let level = match node.kind.as_str() {
        "title" => 1,
        "header" => 2,
        "subheader" => 3,
        "markdown" => return node.prop("body").lines().filter_map(markdown_heading).collect(),
        _ => return Vec::new(),
    };
    vec![Heading { level, text: node.label() }]
}

/// Whether what it shows last is a heading, so that it names what follows.
fn ends_in_heading(node: &Node) -> bool {
    match node.kind.as_str() {
        "title" | "header" | "subheader" => true,
        "markdown" => node.prop("body").trim_end().lines().next_back().and_then(markdown_heading).is_some(),
        _ => false,
    }
}

fn markdown_heading(line: &str) -> Option<Heading> {
    let level = line.len() - line.trim_start_matches('#').len();
    let text = line[level..].strip_prefix(' ')?;
    let level = u8::try_from(level).ok().filter(|level| (1..=6).contains(level))?;
    Some(Heading { level, text: plain(text) })
}

/// All that an element shows: its own words, what it offers, and the first rows of its data.
fn text(node: &Node) -> String {
    let mut parts: Vec<String> = Vec::new();
    for name in ["label", "body", "placeholder", "caption", "value", "delta", "text", "help"] {
        parts.push(plain(&words(node.props.get(name).unwrap_or(&Value::Null))));
    }
    for name in ["options", "captions", "tabs"] {
        let options = node.props.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        parts.extend(options.iter().take(8).map(words));
    }
    parts.extend(node.columns().into_iter().map(str::to_owned));
    let rows = node.data["preview"]["rows"].as_array().map(Vec::as_slice).unwrap_or_default();
    for row in rows.iter().take(5) {
        parts.extend(row.as_array().map(Vec::as_slice).unwrap_or_default().iter().map(words));
    }
    parts.join(" ").chars().take(4000).collect()
}

fn words(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => String::new(),
    }
}

/// Markdown and HTML without their marks.
fn plain(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some(start) = rest.find('<') {
        let tag = rest[start + 1..].starts_with(|c: char| c.is_ascii_alphabetic() || c == '/' || c == '!');
        let (before, from) = rest.split_at(start);
        plain.push_str(before);
        if !tag {
            plain.push('<');
            rest = &from[1..];
            continue;
        }
        plain.push(' ');
        rest = after_tag(from);
    }
    plain.push_str(rest);
    without_icons(&plain)
        .replace(['#', '*', '`', '_', '~'], " ")
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}

/// What follows a tag; of `style` and `script` their content is skipped too.
fn after_tag(from: &str) -> &str {
    let lower = from.get(..8).unwrap_or(from).to_ascii_lowercase();
    for name in ["style", "script"] {
        if lower.starts_with(&format!("<{name}")) {
            let end = format!("</{name}>");
            return from.find(&end).map_or("", |at| &from[at + end.len()..]);
        }
    }
    from.find('>').map_or("", |at| &from[at + 1..])
}

/// `:material/home:` is a picture.
fn without_icons(text: &str) -> String {
    let mut parts = text.split(":material/");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        plain.push_str(part.split_once(':').map_or("", |(_, rest)| rest));
    }
    plain
}

const HIDING: &[&str] = &[
    "display:none",
    "visibility:hidden",
    "opacity:0;",
    "opacity:0}",
    "font-size:0",
    "left:-9999",
    "clip-path:inset(100%)",
];
/// Streamlit's own frame, which many apps hide.
const OWN: &[&str] = &["mainmenu", "footer", "header", "deploy", "toolbar", "decoration", "statuswidget"];

/// A style that hides more than Streamlit's own frame.
fn hides(body: &str) -> bool {
    let tight: String = body.chars().filter(|c| !c.is_whitespace()).collect::<String>().to_ascii_lowercase();
    let Some(style) = tight.split_once("<style").map(|(_, style)| style) else { return hides_inline(body) };
    let rules = style.split('}').filter_map(|rule| rule.split_once('{'));
    let hidden = |rule: &&str| HIDING.iter().any(|h| format!("{rule}}}").contains(h));
    rules.filter(|(_, rule)| hidden(rule)).any(|(selector, _)| !OWN.iter().any(|own| selector.contains(own)))
}

/// Markup that hides what it surrounds.
fn hides_inline(body: &str) -> bool {
    let tight: String = body.chars().filter(|c| !c.is_whitespace()).collect::<String>().to_ascii_lowercase();
    let inline = tight.split("style=").skip(1).map(|rest| rest.split('>').next().unwrap_or_default());
    inline.into_iter().any(|style| HIDING.iter().any(|h| style.contains(h.trim_end_matches(['}', ';']))))
}

fn exception(node: &Node) -> Exception {
    let stack =
        node.props.get("stack_trace").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let at = stack.iter().rev().filter_map(Value::as_str).find_map(own_line);
    Exception {
        kind: node.prop("type").to_owned(),
        message: node.prop("message").chars().take(500).collect(),
        at,
    }
}

/// `File "/app/app.py", line 38, in f` as `app.py:38:1`, for files of the candidate.
fn own_line(frame: &str) -> Option<String> {
    let (_, rest) = frame.split_once("\"/app/")?;
    let (path, rest) = rest.split_once("\", line ")?;
    let line: String = rest.chars().take_while(char::is_ascii_digit).collect();
    (!line.is_empty()).then(|| format!("{path}:{line}:1"))
}

/// What a page holds, as counts of each node's content; `masked` nodes count without their value.
///
/// Keys differ between runs that show the same, so they are left out, as is the time of day. The addresses of data and
/// pictures are hashes of their content and stay in: they tell of rows that the preview does not show.
pub(super) fn contents(
    snapshot: &Snapshot,
    masked: &BTreeSet<String>,
    volatile: &BTreeSet<String>,
) -> BTreeMap<String, u32> {
    let mut counts = BTreeMap::new();
    for node in snapshot.nodes() {
        if volatile.contains(&identity(node)) {
            continue;
        }
        let mask = node.key.as_ref().is_some_and(|key| masked.contains(key));
        *counts.entry(content(node, mask)).or_default() += 1;
    }
    counts
}

/// Identities of the nodes whose content differs between two runs without a change.
pub(super) fn volatile(first: &Snapshot, second: &Snapshot) -> BTreeSet<String> {
    changed(first, second, &BTreeSet::new(), &BTreeSet::new())
}

/// Identities of the nodes whose content one of two snapshots has and the other has not.
pub(super) fn changed(
    first: &Snapshot,
    second: &Snapshot,
    masked: &BTreeSet<String>,
    volatile: &BTreeSet<String>,
) -> BTreeSet<String> {
    let (one, two) = (contents(first, masked, volatile), contents(second, masked, volatile));
    let mut identities = BTreeSet::new();
    for (snapshot, other) in [(first, &two), (second, &one)] {
        for node in snapshot.nodes() {
            let mask = node.key.as_ref().is_some_and(|key| masked.contains(key));
            let name = identity(node);
            if !volatile.contains(&name) && !other.contains_key(&content(node, mask)) {
                identities.insert(name);
            }
        }
    }
    identities
}

fn identity(node: &Node) -> String {
    let label = node.prop("label");
    if label.is_empty() { node.kind.clone() } else { format!("{} {label}", node.kind) }
}

fn content(node: &Node, mask: bool) -> String {
    let mut props = node.props.clone();
    if node.kind == "download_button" {
        props.remove("url");
    }
    let value = if mask { Value::Null } else { node.value.clone() };
    let text = format!("{} {} {value} {}", node.kind, Value::Object(props), node.data);
    without_clock(&text)
}

/// Times of day with seconds, which pass by themselves, as `<time>`.
fn without_clock(text: &str) -> String {
    let bytes = text.as_bytes();
    let digit = |i: usize| bytes.get(i).is_some_and(u8::is_ascii_digit);
    let colon = |i: usize| bytes.get(i) == Some(&b':');
    let clock = |i: usize| {
        [0, 1, 3, 4, 6, 7].iter().all(|d| digit(i + d))
            && colon(i + 2)
            && colon(i + 5)
            && !digit(i.wrapping_sub(1))
    };
    let mut plain = String::with_capacity(text.len());
    let mut from = 0;
    let mut at = 0;
    while at < bytes.len() {
        if clock(at) {
            plain.push_str(&text[from..at]);
            plain.push_str("<time>");
            at += 8;
            while bytes.get(at) == Some(&b'.') || (at > 8 && digit(at)) {
                at += 1;
            }
            from = at;
        } else {
            at += 1;
        }
    }
    plain.push_str(&text[from..]);
    plain
}

#[cfg(test)]
mod tests;
