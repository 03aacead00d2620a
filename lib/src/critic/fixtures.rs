//! Evidence that tests start from.

use std::collections::BTreeSet;

use super::{
    Action, BriefMatch, Element, Evidence, FileFacts, Heading, Level, Run, RunStatus, SandboxFacts, Statics,
};

impl Evidence {
    /// Evidence of a small app that works: what a test changes one thing of.
    pub(crate) fn sample() -> Self {
        let element = |kind: &str, label: &str, control| Element {
            kind: kind.to_owned(),
            label: label.to_owned(),
            control,
            ..Element::default()
        };
        let elements = vec![
            element("title", "Contact", false),
            element("caption", "We answer within a day", false),
            element("text_input", "Name", true),
            element("text_input", "Email", true),
            element("selectbox", "Topic", true),
            element("text_area", "Message", true),
            element("form_submit_button", "Send", true),
            element("metric", "Open questions", false),
        ];
        let run = Run {
            status: RunStatus::Ready,
            total: 8,
            elements,
            containers: BTreeSet::from(["form".to_owned()]),
            headings: vec![Heading { level: 1, text: "Contact".to_owned() }],
            bytes: 4096,
            ..Run::default()
        };
        let file = FileFacts {
            path: "app.py".to_owned(),
            lines: 24,
            python: true,
            parses: true,
            ui: true,
            ..FileFacts::default()
        };
        let words = ["contact", "form", "name", "email"].map(str::to_owned).to_vec();
        Self {
            level: Level::Run,
            sandbox: SandboxFacts {
                kind: "bubblewrap".to_owned(),
                isolation: "own-uid".to_owned(),
                seccomp: true,
                forked: true,
            },
            statics: Statics { files: vec![file], page_title: true, ..Statics::default() },
            run: Some(run),
            actions: vec![Action {
                kind: "form_submit_button".to_owned(),
                label: "Send".to_owned(),
                ok: true,
                effect: true,
                ..Action::default()
            }],
            brief: BriefMatch { wanted: words.clone(), found: words, interactive: true },
            ..Self::default()
        }
    }
}
