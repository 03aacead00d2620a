//! A corpus in which near-copies and leaks of held-out briefs are planted: all of them are found, and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};

use super::{
    DropReason, Inputs, Logs, PrepareOptions, Prepared, SourceLog, Votes,
    alike::CodePrint,
    build,
    manifest::RowKind,
    tests::{entry, log},
};
use crate::{agent::SourceFile, brief};

const APPS: usize = 2000;
const TWINS: usize = 400;
const LEAKS: usize = 400;

struct Writer(ChaCha8Rng);

impl Writer {
    fn below(&mut self, most: usize) -> usize {
        self.0.random_range(0..most)
    }

    fn word(&mut self) -> String {
        let syllables = ["ba", "den", "fi", "gor", "ku", "lem", "ma", "nir", "po", "sar", "te", "vu", "zi"];
        let count = 2 + self.below(3);
        (0..count).map(|_| syllables[self.below(syllables.len())]).collect()
    }

    fn text(&mut self, words: usize) -> String {
        (0..words).map(|_| self.word()).collect::<Vec<_>>().join(" ")
    }

    fn statement(&mut self) -> String {
        match self.below(6) {
            0 => format!("st.subheader(\"{}\")", self.text(2)),
            1 => format!(
                "{} = st.text_input(\"{}\", placeholder=\"{}\")",
                self.word(),
                self.text(2),
                self.word()
            ),
            2 => format!("st.metric(\"{}\", {}, \"{}%\")", self.text(2), self.below(900), self.below(9)),
            3 => format!("if st.button(\"{}\"):\n    st.success(\"{}\")", self.text(2), self.text(3)),
            4 => format!(
                "st.bar_chart({{\"{}\": [{}, {}, {}]}})",
                self.word(),
                self.below(9),
                self.below(9),
                self.below(9)
            ),
            _ => format!(
                "for {0} in [\"{1}\", \"{2}\"]:\n    st.write({0})",
                self.word(),
                self.word(),
                self.word()
            ),
        }
    }

    fn app(&mut self) -> Vec<String> {
        let count = 10 + self.below(20);
        let head = ["import streamlit as st".to_owned(), format!("st.title(\"{}\")", self.text(3))];
        head.into_iter().chain((0..count).map(|_| self.statement())).collect()
    }

    /// The same app with statements changed until it is as similar as planted twins are.
    fn twin(&mut self, app: &[String]) -> Vec<String> {
        loop {
            let mut copy = app.to_vec();
            for _ in 0..1 + self.below(4) {
                let place = 1 + self.below(copy.len() - 1);
                copy[place] = self.statement();
            }
            if (0.75..=0.99).contains(&print(app).similarity(&print(&copy))) {
                return copy;
            }
        }
    }
}

fn files(app: &[String]) -> Vec<SourceFile> {
    vec![SourceFile { path: "app.py".into(), content: format!("{}\n", app.join("\n")) }]
}

fn print(app: &[String]) -> CodePrint {
    CodePrint::of(&files(app))
}

fn source(number: usize, app: &[String]) -> SourceLog {
    let mut entry = entry(1, 8.0, "");
    entry.files = files(app);
    let source = log(&format!("c{number:04}"), vec![entry]);
    SourceLog::new(&source.file, source.log)
}

fn made(logs: Vec<SourceLog>) -> Prepared {
    let heldout = brief::shipped_heldout();
    let inputs = Inputs { heldout: &heldout, votes: Votes::default() };
    build(&Logs { logs, ..Logs::default() }, &inputs, &PrepareOptions::default()).unwrap()
}

#[test]
fn planted_near_copies_are_found_and_what_is_dropped_has_a_twin_that_is_kept() {
    let mut writer = Writer(ChaCha8Rng::seed_from_u64(1));
    let mut apps: Vec<Vec<String>> = (0..APPS).map(|_| writer.app()).collect();
    let mut planted = Vec::new();
    for _ in 0..TWINS {
        let first = writer.below(APPS);
        let twin = writer.twin(&apps[first]);
        planted.push((first, apps.len()));
        apps.push(twin);
    }
    let prepared = made(apps.iter().enumerate().map(|(number, app)| source(number, app)).collect());
    let name = |number: usize| format!("c{number:04}.json");
    let kept: BTreeSet<&str> = prepared
        .manifest
        .rows
        .iter()
        .filter(|row| row.row == RowKind::Positive)
        .map(|row| row.source.log.as_str())
        .collect();
    let missed =
        planted.iter().filter(|(a, b)| kept.contains(name(*a).as_str()) && kept.contains(name(*b).as_str()));
    assert_eq!(missed.count(), 0);
    let by_name: BTreeMap<String, &Vec<String>> =
        apps.iter().enumerate().map(|(n, app)| (name(n), app)).collect();
    for dropped in &prepared.manifest.dropped {
        assert_eq!(dropped.reason, DropReason::NearDuplicate, "{dropped:?}");
        let detail = dropped.detail.as_ref().unwrap().strip_prefix("like ").unwrap();
        let twin = detail.split_once('#').unwrap().0;
        assert!(kept.contains(twin), "{dropped:?}");
        assert!(print(by_name[twin]).similarity(&print(by_name[&dropped.log])) >= 0.75, "{dropped:?}");
    }
    assert_eq!(kept.len() + prepared.manifest.dropped.len(), APPS + TWINS);
}

#[test]
fn planted_leaks_are_found_wherever_they_stand_and_nothing_else_is() {
    let mut writer = Writer(ChaCha8Rng::seed_from_u64(2));
    let heldout: Vec<String> = brief::shipped_heldout().into_iter().map(|brief| brief.description).collect();
    let long: Vec<Vec<&str>> = heldout
        .iter()
        .map(|text| text.split_whitespace().filter(|word| word.chars().any(char::is_alphanumeric)).collect())
        .filter(|words: &Vec<&str>| words.len() >= 13)
        .collect();
    let mut logs: Vec<SourceLog> = (0..APPS).map(|number| source(number, &writer.app())).collect();
    let mut planted = BTreeSet::new();
    for number in 0..LEAKS {
        let text = if number % 2 == 0 {
            let words = &long[writer.below(long.len())];
            let start = writer.below(words.len() - 12);
            words[start..start + 13].join(" ")
        } else {
            let (text, first) = (&heldout[writer.below(heldout.len())], writer.below(10));
            let words = text.split_whitespace().enumerate();
            words
                .map(|(n, word)| if n % 10 == first { writer.word() } else { word.to_owned() })
                .collect::<Vec<_>>()
                .join(" ")
        };
        let mut app = writer.app();
        let mut leaky = match number / 2 % 4 {
            0 => {
                app.push(format!("# {text}"));
                source(APPS + number, &app)
            }
            1 => {
                app.push(format!("st.info({text:?})"));
                source(APPS + number, &app)
            }
            _ => source(APPS + number, &app),
        };
        match number / 2 % 4 {
            2 => leaky.brief.description = format!("{} {text}", writer.text(4)),
            3 => leaky.brief.requirements.push(text),
            _ => {}
        }
        planted.insert(leaky.file.clone());
        logs.push(leaky);
    }
    let prepared = made(logs);
    let found = prepared.manifest.dropped.iter().filter(|dropped| dropped.reason == DropReason::HeldOut);
    assert_eq!(found.map(|dropped| dropped.log.clone()).collect::<BTreeSet<_>>(), planted);
    assert_eq!(prepared.manifest.dropped.len(), LEAKS);
}
