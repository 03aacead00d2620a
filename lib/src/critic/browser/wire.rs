//! What a server told a browser, read on the way: Streamlit's messages, before any script of the page can act.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::{DefaultHasher, Hash, Hasher},
};

use prost::{
    Message,
    encoding::{DecodeContext, decode_key, skip_field},
};
use serde::{Deserialize, Serialize};

/// What a connection carried up to now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Wire {
    /// Exceptions that the page was told to show: type and message.
    pub exceptions: Vec<(String, String)>,
    /// Elements on the page by the name of their message (`button`, `heading`...).
    pub elements: BTreeMap<String, u32>,
    /// Runs of the script that came to an end.
    pub finished: u32,
    /// A run that did not compile.
    pub compile_error: bool,
}

// The part of Streamlit's messages that matters here. Field numbers are those of version 1.67; other fields are skipped.

#[derive(Clone, PartialEq, Message)]
struct ForwardMsg {
    #[prost(string, tag = "1")]
    hash: String,
    #[prost(message, optional, tag = "2")]
    metadata: Option<Metadata>,
    #[prost(bytes = "vec", optional, tag = "4")]
    new_session: Option<Vec<u8>>,
    #[prost(message, optional, tag = "5")]
    delta: Option<Delta>,
    #[prost(int32, optional, tag = "6")]
    script_finished: Option<i32>,
    #[prost(string, optional, tag = "11")]
    ref_hash: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
struct Metadata {
    #[prost(uint32, repeated, tag = "2")]
    delta_path: Vec<u32>,
}

#[derive(Clone, PartialEq, Message)]
struct Delta {
    #[prost(bytes = "vec", optional, tag = "3")]
    new_element: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "6")]
    add_block: Option<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct ExceptionElement {
    #[prost(message, optional, tag = "8")]
    exception: Option<ExceptionText>,
}

#[derive(Clone, PartialEq, Message)]
struct ExceptionText {
    #[prost(string, tag = "1")]
    kind: String,
    #[prost(string, tag = "2")]
    message: String,
}

/// How a run ended, as Streamlit counts it.
const SUCCESS: i32 = 0;
const COMPILE_ERROR: i32 = 1;

/// Elements by the number of their field in Streamlit's `Element`.
const ELEMENTS: &[(u32, &str)] = &[
    (1, "text"),
    (2, "empty"),
    (5, "progress"),
    (6, "imgs"),
    (7, "help_info"),
    (8, "exception"),
    (12, "balloons"),
    (13, "audio"),
    (14, "video"),
    (16, "plotly_chart"),
    (18, "graphviz_chart"),
    (19, "button"),
    (20, "checkbox"),
    (21, "slider"),
    (22, "text_area"),
    (23, "radio"),
    (24, "text_input"),
    (25, "selectbox"),
    (26, "time_input"),
    (27, "date_input"),
    (28, "multiselect"),
    (29, "markdown"),
    (30, "alert"),
    (31, "json"),
    (32, "number_input"),
    (33, "file_uploader"),
    (34, "deck_gl_json_chart"),
    (35, "color_picker"),
    (36, "favicon"),
    (37, "component_instance"),
    (38, "iframe"),
    (39, "table"),
    (40, "dataframe"),
    (41, "vega_lite_chart"),
    (42, "metric"),
    (43, "download_button"),
    (44, "spinner"),
    (45, "camera_input"),
    (46, "snow"),
    (47, "heading"),
    (48, "code"),
    (49, "chat_input"),
    (50, "toast"),
    (51, "link_button"),
    (52, "skeleton"),
    (53, "page_link"),
    (54, "html"),
    (55, "button_group"),
    (56, "audio_input"),
    (59, "bidi_component"),
    (60, "space"),
    (62, "date_time_input"),
    (63, "feedback"),
    (64, "menu_button"),
    (66, "pagination"),
    (67, "echarts_chart"),
];

/// An element at its place.
#[derive(Clone, Debug)]
struct Placed {
    kind: String,
    /// Of all that it holds.
    digest: u64,
    exception: Option<(String, String)>,
    run: u32,
}

/// Most places kept; a page with more is a flood anyway.
const MOST: usize = 5000;

/// Connections that one page may have had; it needs one, and another when that one breaks.
const MOST_CONNECTIONS: usize = 16;

/// The accounts of all connections of one page.
///
/// The first that carries anything is the page's own: before it does, nothing of the candidate's runs in the page. A
/// later one may be a script's, so it adds no element; but an exception that any of them carries was raised.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    taps: Vec<Tap>,
}

impl Ledger {
    /// A place for a connection's account; none when there were too many.
    pub fn open(&mut self) -> Option<usize> {
        (self.taps.len() < MOST_CONNECTIONS).then(|| {
            self.taps.push(Tap::default());
            self.taps.len() - 1
        })
    }

    /// Reads one message of a connection.
    pub fn read(&mut self, account: usize, bytes: &[u8]) {
        if let Some(tap) = self.taps.get_mut(account) {
            tap.read(bytes);
        }
    }

    /// What the page was told to hold by now.
    pub fn wire(&self) -> Wire {
        let mut wire = self.own().map(Tap::wire).unwrap_or_default();
        for tap in &self.taps {
            let other = tap.wire();
            wire.compile_error |= other.compile_error;
            for exception in other.exceptions {
                if !wire.exceptions.contains(&exception) {
                    wire.exceptions.push(exception);
                }
            }
        }
        wire
    }

    /// How far the page's own connection has come.
    pub fn progress(&self) -> Progress {
        let Some(tap) = self.own() else { return Progress::default() };
        let elements = tap.places.values().map(|placed| placed.digest).collect();
        Progress { begun: tap.run, finished: tap.finished, elements }
    }

    fn own(&self) -> Option<&Tap> {
        self.taps.iter().find(|tap| tap.run > 0)
    }
}

/// How far a page has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// Runs that began.
    pub begun: u32,
    /// Runs that came to an end.
    pub finished: u32,
    /// Elements by a digest of all that they hold.
    pub elements: BTreeSet<u64>,
}

/// Reads the messages of one connection.
#[derive(Debug, Default)]
struct Tap {
    places: BTreeMap<Vec<u32>, Placed>,
    /// Messages that the server may later name by their hash alone.
    kept: HashMap<String, Placed>,
    run: u32,
    finished: u32,
    compile_error: bool,
}

impl Tap {
    /// Reads one message; what is no message of Streamlit's says nothing.
    fn read(&mut self, bytes: &[u8]) {
        let Ok(message) = ForwardMsg::decode(bytes) else { return };
        if message.new_session.is_some() {
            self.run += 1;
        }
        let path = message.metadata.map(|metadata| metadata.delta_path).unwrap_or_default();
        if let Some(delta) = message.delta {
            self.delta(path, delta, message.hash);
        } else if let Some(known) = message.ref_hash.and_then(|hash| self.kept.get(&hash).cloned()) {
            self.place(path, Placed { run: self.run, ..known });
        } else if let Some(status) = message.script_finished {
            self.finish(status);
        }
    }

    fn delta(&mut self, path: Vec<u32>, delta: Delta, hash: String) {
        if let Some(element) = delta.new_element {
            let placed = self.read_element(&element);
            if self.kept.len() < MOST {
                self.kept.insert(hash, placed.clone());
            }
            self.place(path, placed);
        } else if delta.add_block.is_some() {
            // A block takes the place of an element, and keeps the elements of a block until they are sent anew.
            self.places.remove(&path);
        }
    }

    fn read_element(&self, bytes: &[u8]) -> Placed {
        let kind = element_kind(bytes).unwrap_or("unknown").to_owned();
        let text = ExceptionElement::decode(bytes).ok().and_then(|element| element.exception);
        let exception = text.map(|text| (cut(text.kind, 80), cut(text.message, 300)));
        let mut hasher = DefaultHasher::new();
        bytes.hash(&mut hasher);
        Placed { kind, digest: hasher.finish(), exception, run: self.run }
    }

    fn place(&mut self, path: Vec<u32>, placed: Placed) {
        if self.places.len() < MOST || self.places.contains_key(&path) {
            self.places.insert(path, placed);
        }
    }

    fn finish(&mut self, status: i32) {
        self.finished += 1;
        match status {
            // What a whole run did not send again is taken off the page.
            SUCCESS => self.places.retain(|_, placed| placed.run == self.run),
            COMPILE_ERROR => self.compile_error = true,
            _ => {}
        }
    }

    /// What it carried by now.
    fn wire(&self) -> Wire {
        let mut elements: BTreeMap<String, u32> = BTreeMap::new();
        for placed in self.places.values() {
            *elements.entry(placed.kind.clone()).or_default() += 1;
        }
        let exceptions: BTreeSet<_> =
            self.places.values().filter_map(|placed| placed.exception.clone()).collect();
        Wire {
            exceptions: exceptions.into_iter().take(20).collect(),
            elements,
            finished: self.finished,
            compile_error: self.compile_error,
        }
    }
}

/// The first field of an element that is a kind of element and not a property of all.
fn element_kind(mut bytes: &[u8]) -> Option<&'static str> {
    while !bytes.is_empty() {
        let (tag, wire_type) = decode_key(&mut bytes).ok()?;
        if let Some((_, name)) = ELEMENTS.iter().find(|(number, _)| *number == tag) {
            return Some(name);
        }
        skip_field(wire_type, tag, &mut bytes, DecodeContext::default()).ok()?;
    }
    None
}

fn cut(text: String, most: usize) -> String {
    text.chars().take(most).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn element(tag: u32, content: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        // A property of all elements first, as Streamlit writes it.
        prost::encoding::bytes::encode(58, &b"\x08\x01".to_vec(), &mut bytes);
        prost::encoding::bytes::encode(tag, &content.to_vec(), &mut bytes);
        bytes
    }

    fn delta(path: &[u32], element: Vec<u8>, hash: &str) -> Vec<u8> {
        let delta = Delta { new_element: Some(element), add_block: None };
        let metadata = Some(Metadata { delta_path: path.to_vec() });
        ForwardMsg { hash: hash.into(), metadata, delta: Some(delta), ..ForwardMsg::default() }
            .encode_to_vec()
    }

    fn begin() -> Vec<u8> {
        ForwardMsg { new_session: Some(Vec::new()), ..ForwardMsg::default() }.encode_to_vec()
    }

    fn finish(status: i32) -> Vec<u8> {
        ForwardMsg { script_finished: Some(status), ..ForwardMsg::default() }.encode_to_vec()
    }

    fn refer(path: &[u32], hash: &str) -> Vec<u8> {
        let metadata = Some(Metadata { delta_path: path.to_vec() });
        ForwardMsg { metadata, ref_hash: Some(hash.into()), ..ForwardMsg::default() }.encode_to_vec()
    }

    #[track_caller]
    fn check(messages: &[Vec<u8>], elements: &[(&str, u32)], exceptions: &[(&str, &str)]) {
        let mut tap = Tap::default();
        messages.iter().for_each(|message| tap.read(message));
        let wire = tap.wire();
        let kinds: Vec<(&str, u32)> = wire.elements.iter().map(|(kind, n)| (kind.as_str(), *n)).collect();
        assert_eq!(kinds, elements);
        let told: Vec<(&str, &str)> = wire.exceptions.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        assert_eq!(told, exceptions);
    }

    #[test]
    fn elements_are_counted_where_they_are_put() {
        let run = [
            begin(),
            delta(&[0, 0], element(47, b""), "a"),
            delta(&[0, 1], element(19, b""), "b"),
            delta(&[0, 1], element(42, b""), "c"),
            finish(SUCCESS),
        ];
        check(&run, &[("heading", 1), ("metric", 1)], &[]);
    }

    #[test]
    fn what_a_second_run_leaves_out_is_gone_and_what_it_names_stays() {
        let runs = [
            begin(),
            delta(&[0, 0], element(47, b""), "a"),
            delta(&[0, 1], element(19, b""), "b"),
            finish(SUCCESS),
            begin(),
            refer(&[0, 0], "a"),
            finish(SUCCESS),
        ];
        check(&runs, &[("heading", 1)], &[]);
    }

    #[test]
    fn exceptions_are_kept_with_their_text() {
        let text = ExceptionText { kind: "ValueError".into(), message: "no".into() };
        let run = [begin(), delta(&[0, 0], element(8, &text.encode_to_vec()), "a"), finish(SUCCESS)];
        check(&run, &[("exception", 1)], &[("ValueError", "no")]);
    }

    #[test]
    fn a_second_connection_adds_exceptions_and_no_elements() {
        let text = ExceptionText { kind: "ValueError".into(), message: "no".into() };
        let mut ledger = Ledger::default();
        // One that carries nothing is not the page's.
        ledger.open().unwrap();
        let (page, script) = (ledger.open().unwrap(), ledger.open().unwrap());
        for message in [begin(), delta(&[0, 0], element(47, b""), "a"), finish(SUCCESS)] {
            ledger.read(page, &message);
        }
        let before = ledger.progress();
        for message in [
            begin(),
            delta(&[0, 0], element(19, b""), "b"),
            delta(&[0, 1], element(8, &text.encode_to_vec()), "c"),
            finish(SUCCESS),
        ] {
            ledger.read(script, &message);
        }
        let wire = ledger.wire();
        assert_eq!(wire.elements, BTreeMap::from([("heading".to_owned(), 1)]));
        assert_eq!(wire.exceptions, [("ValueError".to_owned(), "no".to_owned())]);
        assert_eq!((before.finished, ledger.progress()), (1, before));
    }

    #[test]
    fn connections_beyond_the_most_are_refused() {
        let mut ledger = Ledger::default();
        assert_eq!((0..20).filter_map(|_| ledger.open()).count(), MOST_CONNECTIONS);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..8)) {
            let mut tap = Tap::default();
            messages.iter().for_each(|message| tap.read(message));
            tap.wire();
        }
    }
}
