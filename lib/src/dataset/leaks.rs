//! What gives a held-out brief away.
//!
//! A text is compared with every held-out one in one pass. Two indexes say with which of them a comparison is worth
//! making: one of runs of three words, which every copy, contained text and rewording shares, and one of the rarer runs of
//! five characters, of which any text that is similar enough must hold some (the prefix filter of set similarity joins:
//! Chaudhuri, Ganti, Kaushik 2006, "A primitive operator for similarity joins"). Neither passes over a text that
//! comparing all with all would find; the tests hold the two beside each other.

use std::{
    collections::HashSet,
    hash::BuildHasher,
    sync::{Mutex, MutexGuard, PoisonError},
};

use rustc_hash::{FxHashMap, FxHashSet};

use crate::brief::{
    self, Brief,
    near::{Fingerprint, LEAK_SIMILARITY, MIN_CONTAINED_WORDS, MIN_QUOTED_WORDS, RUN_WORDS, Reading, Reason},
};

/// Words of the runs that a rewording is known by. Every tenth word changed leaves some 70 of 100.
const RUN: usize = 3;
/// Share of a text's runs of three words that make it a rewording, when they stand close together.
const REWORDED: f64 = 0.5;
/// In a text of so many words, one changed word leaves half of the runs; in shorter ones a text with all but one word is
/// anybody's.
const MIN_REWORDED_WORDS: usize = 8;
/// How close together: within so many times the words of the text that is looked for.
const STRETCH: usize = 2;

/// The briefs that no row may give away: those that it is made from, and the shipped sealed ones in any case, since nobody
/// sees them and so nobody would notice.
///
/// A row quotes all of a brief, requirements included, so requirements are compared too, on both sides. Between two of
/// them only a copy counts: many briefs wish for much the same.
pub(super) struct Heldout {
    ids: HashSet<String>,
    families: HashSet<String>,
    /// What the briefs ask for (each description, alone and with its requirements), then each requirement by itself.
    sought: Vec<Sought>,
    /// Which of `sought` a run of three words is in.
    runs: FxHashMap<u64, Vec<u32>>,
    /// Which of `sought` a run of five characters is in, of its rarer ones.
    rare: FxHashMap<u64, Vec<u32>>,
    /// A bit for each run of five characters in `rare`, by its highest bits: most of a text's runs are in none.
    sieve: Vec<u64>,
    clean: Clean,
}

/// Texts that were found to give nothing away, by 64 bits with a seed of their own: a prompt is in thousands of rows, and an
/// answer in up to three.
#[derive(Default)]
struct Clean {
    seed: foldhash::quality::RandomState,
    prints: Mutex<FxHashSet<u64>>,
}

impl Clean {
    fn prints(&self) -> MutexGuard<'_, FxHashSet<u64>> {
        self.prints.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A held-out text.
struct Sought {
    print: Fingerprint,
    /// Sorted, without repetition.
    runs: Vec<u64>,
    is_requirement: bool,
    /// How many of its rarer runs of five characters a similar text holds at least.
    rare_needed: u32,
}

/// Bits of a run's hash that the sieve looks at.
const SIEVE_BITS: u32 = 17;

impl Heldout {
    pub fn new(briefs: &[Brief]) -> Self {
        let sealed = brief::shipped_sealed().into_iter().filter(|sealed| !briefs.contains(sealed));
        Self::of(&briefs.iter().cloned().chain(sealed).collect::<Vec<Brief>>())
    }

    fn of(briefs: &[Brief]) -> Self {
        let texts = briefs.iter().flat_map(|brief| wordings(&brief.description, &brief.requirements));
        let requirements = briefs.iter().flat_map(|brief| brief.requirements.iter().cloned());
        let texts = texts.map(|text| (text, false)).chain(requirements.map(|text| (text, true)));
        let mut heldout = Self {
            ids: briefs.iter().map(|b| b.id.to_string()).collect(),
            families: briefs.iter().map(|b| b.family.clone()).filter(|f| !f.is_empty()).collect(),
            sought: texts.map(|(text, is_requirement)| Sought::new(&text, is_requirement)).collect(),
            runs: FxHashMap::default(),
            rare: FxHashMap::default(),
            sieve: vec![0; 1 << (SIEVE_BITS - 6)],
            clean: Clean::default(),
        };
        heldout.index();
        heldout
    }

    fn index(&mut self) {
        let mut counts: FxHashMap<u64, u32> = FxHashMap::default();
        for shingle in self.sought.iter().flat_map(|sought| sought.print.shingles()) {
            *counts.entry(*shingle).or_default() += 1;
        }
        for (sought, index) in self.sought.iter_mut().zip(0..) {
            for run in &sought.runs {
                self.runs.entry(*run).or_default().push(index);
            }
            if sought.is_requirement {
                continue;
            }
            let mut shingles = sought.print.shingles().to_vec();
            shingles.sort_unstable_by_key(|shingle| (counts[shingle], *shingle));
            // Of a text that is similar by half, half of the shingles are in the other; of any five eighths of them, an eighth.
            let eighth = shingles.len().div_ceil(8);
            shingles.truncate(shingles.len() / 2 + eighth);
            sought.rare_needed = eighth as u32;
            for shingle in shingles {
                let bit = bit_of(shingle);
                self.sieve[bit / 64] |= 1 << (bit % 64);
                self.rare.entry(shingle).or_default().push(index);
            }
        }
    }

    /// Why nothing of a log may be trained on.
    pub fn brief_leak(&self, brief: &Brief) -> Option<String> {
        if self.ids.contains(brief.id.as_str()) {
            return Some("its brief is held out".to_owned());
        }
        if self.families.contains(&brief.family) {
            return Some(format!("its family `{}` is held out", brief.family));
        }
        let mut wordings = wordings(&brief.description, &brief.requirements).into_iter();
        let leak = wordings.find_map(|text| self.text_leak(&text));
        let leak = leak.or_else(|| brief.requirements.iter().find_map(|text| self.requirement_leak(text)));
        leak.map(|why| format!("like a held-out brief: {why}"))
    }

    /// Why a text may not be in a row.
    pub fn text_leak(&self, text: &str) -> Option<String> {
        let print = self.clean.seed.hash_one(text);
        if self.clean.prints().contains(&print) {
            return None;
        }
        let leak = self.find(text).map(|reason| reason.to_string());
        if leak.is_none() {
            self.clean.prints().insert(print);
        }
        leak
    }

    /// A requirement that is nearly a held-out description; whole copies show in the brief's full wording.
    fn requirement_leak(&self, text: &str) -> Option<String> {
        let reading = Reading::of(text);
        let print = Fingerprint::read(&reading);
        let mut near = self.similar(&reading).into_iter().map(|sought| sought.print.similarity(&print));
        near.find(|similarity| *similarity >= LEAK_SIMILARITY).map(|near| Reason::Similar(near).to_string())
    }

    fn find(&self, text: &str) -> Option<Reason> {
        let reading = Reading::of(text);
        let runs: Vec<u64> = reading.runs(RUN).collect();
        let mut due: Vec<u32> = self.sharing(&runs, reading.words().len());
        due.extend(self.similar_indexes(&reading));
        if due.is_empty() {
            return None;
        }
        due.sort_unstable();
        due.dedup();
        let due: Vec<&Sought> = due.into_iter().map(|index| &self.sought[index as usize]).collect();
        let print = Fingerprint::read(&reading);
        let copied = due.iter().find_map(|sought| sought.copied(&print));
        copied.or_else(|| due.iter().find_map(|sought| sought.reworded(&runs)))
    }

    /// Held-out texts of which enough runs of three words are there for one to be a copy or a rewording of the other.
    fn sharing(&self, runs: &[u64], words: usize) -> Vec<u32> {
        let mut hits: FxHashMap<u32, usize> = FxHashMap::default();
        for index in runs.iter().filter_map(|run| self.runs.get(run)).flatten() {
            *hits.entry(*index).or_default() += 1;
        }
        let enough = |(index, hits): (u32, usize)| {
            (hits >= self.sought[index as usize].runs_needed(words)).then_some(index)
        };
        hits.into_iter().filter_map(enough).collect()
    }

    /// Held-out descriptions that may be as similar as a leak.
    fn similar(&self, reading: &Reading) -> Vec<&Sought> {
        let mut indexes = self.similar_indexes(reading);
        indexes.sort_unstable();
        indexes.into_iter().map(|index| &self.sought[index as usize]).collect()
    }

    fn similar_indexes(&self, reading: &Reading) -> Vec<u32> {
        let mut seen: FxHashSet<u64> = FxHashSet::default();
        let mut hits: FxHashMap<u32, u32> = FxHashMap::default();
        for shingle in reading.shingles() {
            let bit = bit_of(shingle);
            if self.sieve[bit / 64] & (1 << (bit % 64)) == 0 {
                continue;
            }
            if let Some(indexes) = self.rare.get(&shingle)
                && seen.insert(shingle)
            {
                indexes.iter().for_each(|index| *hits.entry(*index).or_default() += 1);
            }
        }
        let enough =
            |(index, hits): (u32, u32)| (hits >= self.sought[index as usize].rare_needed).then_some(index);
        hits.into_iter().filter_map(enough).collect()
    }
}

impl Sought {
    fn new(text: &str, is_requirement: bool) -> Self {
        let reading = Reading::of(text);
        let mut runs: Vec<u64> = reading.runs(RUN).collect();
        runs.sort_unstable();
        runs.dedup();
        Self { print: Fingerprint::read(&reading), runs, is_requirement, rare_needed: 0 }
    }

    /// How many places of a text of so many words begin a run of three that is here, when one gives the other away.
    fn runs_needed(&self, words: usize) -> usize {
        let whole = |words: usize| words.saturating_sub(RUN - 1);
        let mut needed = usize::MAX;
        let held = self.print.len();
        if self.is_requirement {
            if held >= MIN_QUOTED_WORDS {
                needed = whole(held);
            }
        } else {
            needed = whole(RUN_WORDS);
            for short in [held, words].into_iter().filter(|short| *short >= MIN_CONTAINED_WORDS) {
                needed = needed.min(whole(short));
            }
        }
        if held >= self.min_reworded() {
            needed = needed.min((REWORDED * self.runs.len() as f64).ceil() as usize);
        }
        needed.max(1)
    }

    /// A requirement below ten words has no tenth word that could be changed.
    fn min_reworded(&self) -> usize {
        if self.is_requirement { MIN_REWORDED_WORDS + 2 } else { MIN_REWORDED_WORDS }
    }

    fn copied(&self, text: &Fingerprint) -> Option<Reason> {
        if self.is_requirement { text.quotes(&self.print) } else { text.overlaps(&self.print) }
    }

    /// Whether enough of its runs stand close together among those of a text.
    fn reworded(&self, text: &[u64]) -> Option<Reason> {
        if self.print.len() < self.min_reworded() {
            return None;
        }
        let places: Vec<(usize, usize)> = text
            .iter()
            .enumerate()
            .filter_map(|(place, run)| Some((place, self.runs.binary_search(run).ok()?)))
            .collect();
        let stretch = STRETCH * self.print.len();
        let mut within = vec![0_u32; self.runs.len()];
        let (mut first, mut distinct, mut most) = (0, 0_usize, 0_usize);
        for &(place, run) in &places {
            while places[first].0 + stretch <= place {
                let left = places[first].1;
                within[left] -= 1;
                distinct -= usize::from(within[left] == 0);
                first += 1;
            }
            distinct += usize::from(within[run] == 0);
            within[run] += 1;
            most = most.max(distinct);
        }
        let share = most as f64 / self.runs.len().max(1) as f64;
        (share >= REWORDED).then_some(Reason::Reworded(share))
    }
}

fn bit_of(shingle: u64) -> usize {
    (shingle >> (64 - SIEVE_BITS)) as usize
}

/// A brief's description, alone and with its requirements.
fn wordings(description: &str, requirements: &[String]) -> Vec<String> {
    let mut wordings = vec![description.to_owned()];
    if !requirements.is_empty() {
        wordings.push(format!("{description}\n{}", requirements.join("\n")));
    }
    wordings
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn brief_of(description: &str, requirements: &[String]) -> Option<Brief> {
        let brief = Brief::from_description(description).ok()?;
        Some(Brief { requirements: requirements.to_vec(), ..brief })
    }

    /// What comparing a text with every held-out one finds.
    fn slow(briefs: &[Brief], text: &str) -> Option<Reason> {
        let texts: Vec<String> =
            briefs.iter().flat_map(|b| wordings(&b.description, &b.requirements)).collect();
        let requirements: Vec<&String> = briefs.iter().flat_map(|b| &b.requirements).collect();
        let print = Fingerprint::of(text);
        let overlap = texts.iter().find_map(|held| print.overlaps(&Fingerprint::of(held)));
        let quote = || requirements.iter().find_map(|held| print.quotes(&Fingerprint::of(held)));
        let reworded = || {
            let long = texts.iter().map(|held| (held, MIN_REWORDED_WORDS));
            let short = requirements.iter().map(|held| (*held, MIN_REWORDED_WORDS + 2));
            long.chain(short).find_map(|(held, least)| slowly_reworded(held, least, text))
        };
        overlap.or_else(quote).or_else(reworded)
    }

    fn slowly_reworded(held: &str, least: usize, text: &str) -> Option<Reason> {
        let runs = |text: &str| Reading::of(text).runs(RUN).collect::<Vec<u64>>();
        let (words, sought, found) = (Reading::of(held).words().len(), runs(held), runs(text));
        let sought: HashSet<u64> = sought.into_iter().collect();
        let within = |start: usize| {
            let stretch = found.iter().skip(start).take(STRETCH * words);
            stretch.filter(|run| sought.contains(run)).collect::<HashSet<_>>().len()
        };
        let most = (0..found.len().max(1)).map(within).max().unwrap_or(0);
        let share = most as f64 / sought.len().max(1) as f64;
        (words >= least && share >= REWORDED).then_some(Reason::Reworded(share))
    }

    /// Words from few, so that texts share many.
    fn words(most: usize) -> impl Strategy<Value = Vec<String>> {
        prop::collection::vec((0u8..40).prop_map(|n| format!("wo{n}rd")), 0..most)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn one_pass_finds_what_comparing_all_with_all_finds(
            held in prop::collection::vec((words(40), prop::collection::vec(words(14), 0..3)), 1..5),
            before in words(30), after in words(30), start in 0usize..30, length in 0usize..40, step in 2usize..14,
        ) {
            let briefs: Vec<Brief> = held
                .iter()
                .filter_map(|(description, requirements)| {
                    let requirements: Vec<String> = requirements.iter().map(|words| words.join(" ")).collect();
                    brief_of(&description.join(" "), &requirements)
                })
                .collect();
            let heldout = Heldout::of(&briefs);
            let source: Vec<&String> = held[0].0.iter().chain(held[0].1.iter().flatten()).collect();
            let copied = source.iter().skip(start % source.len().max(1)).take(length).enumerate();
            let copied: Vec<String> =
                copied.map(|(n, word)| if n % step == step - 1 { "other".into() } else { (*word).clone() }).collect();
            for text in [
                [before.as_slice(), &copied, &after].concat().join(" "),
                copied.join(", "),
                [copied.as_slice(), &copied].concat().join(" "),
                before.join(" "),
            ] {
                prop_assert_eq!(heldout.find(&text), slow(&briefs, &text), "{}", text);
            }
        }
    }

    /// A text with every tenth word changed, beginning at one of ten.
    fn changed(text: &str, first: usize) -> String {
        let word =
            |(index, word): (usize, &str)| if index % 10 == first { "zebra".into() } else { word.to_owned() };
        text.split_whitespace().enumerate().map(word).collect::<Vec<String>>().join(" ")
    }

    #[test]
    fn every_held_out_brief_is_known_by_any_13_words_and_with_every_tenth_word_changed() {
        let briefs = [brief::shipped_heldout(), brief::shipped_sealed()].concat();
        let heldout = Heldout::new(&briefs);
        let around =
            |text: &str| format!("import streamlit as st\n# An app\nst.write(\"{text}\")\nst.divider()\n");
        for brief in &briefs {
            let has_letters = |word: &&str| word.chars().any(char::is_alphanumeric);
            let words: Vec<&str> = brief.description.split_whitespace().filter(has_letters).collect();
            for run in words.windows(13) {
                assert!(heldout.text_leak(&around(&run.join(" "))).is_some(), "{run:?}");
            }
            for first in 0..10 {
                let text = changed(&brief.description, first);
                assert!(heldout.text_leak(&around(&text)).is_some(), "{text}");
                assert!(heldout.text_leak(&text).is_some(), "{text}");
            }
        }
    }

    #[test]
    fn nothing_that_is_shipped_for_training_gives_a_held_out_brief_away() {
        let heldout = Heldout::new(&brief::shipped_heldout());
        for brief in brief::shipped_train() {
            assert_eq!(heldout.brief_leak(&brief), None, "{}", brief.id);
            let composer = crate::evolve::composer::Composer::new(1);
            for attempt in 0..3 {
                let app = composer.propose(&brief, crate::evolve::Operator::Restyle, attempt, &[]);
                assert_eq!(heldout.text_leak(&crate::agent::reply_of(&app)), None, "{}", brief.id);
            }
        }
    }
}
