//! Texts that are too alike: near-duplicates within a set, and leaks between training and held-out texts.
//!
//! Texts are compared as words (lower case, runs of letters and digits), so that spacing, punctuation and case do not
//! hide a copy. Three signs count:
//!
//! - **Jaccard** over character 5-grams: `|A ∩ B| / |A ∪ B|` for the sets A and B of the texts' shingles (Broder 1997,
//!   "On the resemblance and containment of documents"). Characters and not words, because briefs are short: one
//!   changed word in ten removes half of the word 5-grams but few of the characters'. Computed exactly: MinHash only
//!   estimates this number, and pays from some 100,000 texts on.
//! - **A shared run of 13 words**, the contamination test of GPT-3 (Brown et al. 2020, appendix C).
//! - **Containment**: a text of 4 to 12 words that occurs whole in the other, which a 13-gram cannot show.
//!
//! Compare bare descriptions: what a prompt template adds to both sides is alike and would count.

use std::fmt;
use std::hash::{Hash, Hasher};

use rustc_hash::FxHasher;

/// Similarity from which a training text is dropped because a held-out text is like it.
pub const LEAK_SIMILARITY: f64 = 0.5;

/// Similarity from which two descriptions of one set count as near-duplicates: one changed word in thirteen leaves
/// about 0.8.
pub const DUPLICATE_SIMILARITY: f64 = 0.7;

const SHINGLE_CHARS: usize = 5;
pub(crate) const RUN_WORDS: usize = 13;
pub(crate) const MIN_CONTAINED_WORDS: usize = 4;
pub(crate) const MIN_QUOTED_WORDS: usize = 5;

/// Why two texts are too alike for one to be trained on and the other to be tested with.
#[derive(Clone, Debug, PartialEq)]
pub enum Reason {
    /// They share this run of 13 words.
    SharedRun(String),
    /// One of them is this short text, and the other contains it whole.
    Contained(String),
    /// Their similarity is at least [`LEAK_SIMILARITY`].
    Similar(f64),
    /// This share of one's runs of three words stands close together in the other.
    Reworded(f64),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SharedRun(words) => write!(f, "13 words in common: \"{words}\""),
            Self::Contained(words) => write!(f, "one contains the other: \"{words}\""),
            Self::Similar(similarity) => write!(f, "similarity {similarity:.2}"),
            Self::Reworded(share) => {
                write!(f, "{:.0}% of its runs of three words, close together", 100.0 * share)
            }
        }
    }
}

/// Jaccard similarity of two texts over character 5-grams, 0 to 1; 1 for texts of the same words in the same order.
pub fn similarity(a: &str, b: &str) -> f64 {
    Fingerprint::of(a).similarity(&Fingerprint::of(b))
}

/// Whether one text gives the other away, and how.
pub fn overlaps(a: &str, b: &str) -> Option<Reason> {
    Fingerprint::of(a).overlaps(&Fingerprint::of(b))
}

/// A text as words in lower case, and what stands beside what in it.
pub(crate) struct Reading {
    /// The words with one space between two.
    text: String,
    /// Hashes of the words, in order.
    words: Vec<u64>,
}

impl Reading {
    pub(crate) fn of(text: &str) -> Self {
        let lower = text.to_lowercase();
        let mut joined = String::with_capacity(lower.len());
        let mut words = Vec::with_capacity(lower.len() / 6);
        for word in lower.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()) {
            if !joined.is_empty() {
                joined.push(' ');
            }
            joined.push_str(word);
            words.push(hash_of(word));
        }
        Self { text: joined, words }
    }

    pub(crate) fn words(&self) -> &[u64] {
        &self.words
    }

    /// Hashes of all runs of so many words, in order.
    pub(crate) fn runs(&self, width: usize) -> impl Iterator<Item = u64> {
        self.words.windows(width).map(rolled)
    }

    /// Hashes of the runs of 5 characters, in order; of the whole text when it is shorter, none when it is empty. Their high bits
    /// are spread better than their low ones.
    pub(crate) fn shingles(&self) -> impl Iterator<Item = u64> {
        let mut leaving = self.text.chars();
        let mut rolling = 0_u64;
        let short = self.text.len() < SHINGLE_CHARS || self.text.chars().count() < SHINGLE_CHARS;
        let whole = (short && !self.text.is_empty()).then(|| hash_of(&self.text));
        let runs = self.text.chars().enumerate().filter_map(move |(index, c)| {
            rolling = rolling.wrapping_mul(BASE).wrapping_add(u64::from(c) + 1);
            if index >= SHINGLE_CHARS {
                let old = leaving.next().map_or(0, |c| u64::from(c) + 1);
                rolling = rolling.wrapping_sub(old.wrapping_mul(LEAVES));
            }
            (index + 1 >= SHINGLE_CHARS).then_some(rolling)
        });
        whole.into_iter().chain(runs)
    }
}

/// Of the polynomials that stand for runs: any large odd number.
const BASE: u64 = 0x9e37_79b9_7f4a_7c15;
/// The weight of the character that leaves a run of 5.
const LEAVES: u64 = BASE.wrapping_pow(SHINGLE_CHARS as u32);

fn rolled(run: &[u64]) -> u64 {
    mixed(run.iter().fold(0, |sum, word| sum.wrapping_mul(BASE).wrapping_add(*word)))
}

/// The last step of splitmix64, a permutation of the 64-bit numbers. 64 bits are enough: among a million shingles two
/// fall together with a chance of 3 in 100 million.
fn mixed(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// A text prepared for being compared many times.
#[derive(Clone, Debug)]
pub struct Fingerprint {
    words: Vec<String>,
    /// Hashes of character 5-grams, sorted, without repetition.
    shingles: Vec<u64>,
    /// Hash and first word of each run of 13 words, sorted by hash.
    runs: Vec<(u64, usize)>,
}

impl Fingerprint {
    /// Prepares a text.
    pub fn of(text: &str) -> Self {
        Self::read(&Reading::of(text))
    }

    pub(crate) fn read(reading: &Reading) -> Self {
        let words = reading.text.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect();
        let mut shingles: Vec<u64> = reading.shingles().collect();
        shingles.sort_unstable();
        shingles.dedup();
        let mut runs: Vec<_> = reading.runs(RUN_WORDS).zip(0..).collect();
        runs.sort_unstable();
        Self { words, shingles, runs }
    }

    /// How many words it has.
    pub(crate) fn len(&self) -> usize {
        self.words.len()
    }

    /// Sorted, without repetition.
    pub(crate) fn shingles(&self) -> &[u64] {
        &self.shingles
    }

    /// As [`similarity`].
    pub fn similarity(&self, other: &Self) -> f64 {
        let common = count_common(&self.shingles, &other.shingles);
        let union = self.shingles.len() + other.shingles.len() - common;
        if union == 0 { 1.0 } else { common as f64 / union as f64 }
    }

    /// As [`overlaps`]. Texts without any word overlap with nothing.
    pub fn overlaps(&self, other: &Self) -> Option<Reason> {
        if self.words.is_empty() || other.words.is_empty() {
            return None;
        }
        self.shared_run(other).or_else(|| self.contained(other)).or_else(|| {
            let similarity = self.similarity(other);
            (similarity >= LEAK_SIMILARITY).then_some(Reason::Similar(similarity))
        })
    }

    /// Whether the other text stands in this one word by word. Fewer than 5 words are anybody's.
    pub fn quotes(&self, other: &Self) -> Option<Reason> {
        let sought = &other.words;
        let found =
            sought.len() >= MIN_QUOTED_WORDS && self.words.windows(sought.len()).any(|run| run == sought);
        found.then(|| Reason::Contained(sought.join(" ")))
    }

    fn shared_run(&self, other: &Self) -> Option<Reason> {
        let is_shared = |hash: &u64| other.runs.binary_search_by_key(hash, |run| run.0).is_ok();
        // The first in the text, so that the reason does not depend on hashes.
        let start = self.runs.iter().filter(|(hash, _)| is_shared(hash)).map(|&(_, start)| start).min()?;
        Some(Reason::SharedRun(self.words[start..start + RUN_WORDS].join(" ")))
    }

    fn contained(&self, other: &Self) -> Option<Reason> {
        let (short, long) = if self.words.len() <= other.words.len() { (self, other) } else { (other, self) };
        let checked = (MIN_CONTAINED_WORDS..RUN_WORDS).contains(&short.words.len());
        let found = checked && long.words.windows(short.words.len()).any(|run| run == short.words);
        found.then(|| Reason::Contained(short.words.join(" ")))
    }
}

fn hash_of(text: &str) -> u64 {
    let mut hasher = FxHasher::default();
    text.hash(&mut hasher);
    hasher.finish()
}

/// How many elements two sorted sets share.
pub(crate) fn count_common(mut a: &[u64], mut b: &[u64]) -> usize {
    let mut common = 0;
    while let ([first_a, rest_a @ ..], [first_b, rest_b @ ..]) = (a, b) {
        common += usize::from(first_a == first_b);
        (a, b) = (if first_a <= first_b { rest_a } else { a }, if first_b <= first_a { rest_b } else { b });
    }
    common
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check_similarity(a: &str, b: &str, low: f64, high: f64) {
        let similarity = similarity(a, b);
        assert!((low..=high).contains(&similarity), "{similarity} for {a:?} and {b:?}");
    }

    #[test]
    fn known_similarities() {
        // abcdef: abcde bcdef; bcdefg: bcdef cdefg -> 1 of 3
        assert_eq!(similarity("abcdef", "bcdefg"), 1.0 / 3.0);
        assert_eq!(similarity("a contact form", "A contact-form!"), 1.0);
        assert_eq!(similarity("abc", "abd"), 0.0);
        assert_eq!(similarity("", ""), 1.0);
        assert_eq!(similarity("", "abc"), 0.0);
    }

    #[test]
    fn a_changed_word_leaves_texts_alike_and_another_ui_does_not() {
        let form = "membership form for our gym with name, email, phone, plan and start date";
        check_similarity(
            form,
            "membership form for our pool with name, email, phone, plan and start date",
            0.7,
            0.99,
        );
        check_similarity(
            form,
            "membership form for our gym: name, phone, email, start date and plan",
            0.5,
            0.9,
        );
        check_similarity(form, "Live overview of eight water pumping stations run by the city", 0.0, 0.1);
    }

    #[test]
    fn reasons() {
        let words: Vec<String> = (0..30).map(|i| format!("word{i}")).collect();
        let text = words.join(" ");
        let long = |run: &str| {
            format!("{} {run} {}", "something else entirely ".repeat(30), "and so on ".repeat(30))
        };
        let check =
            |a: &str, b: &str, expected: Option<Reason>| assert_eq!(overlaps(a, b), expected, "{a:?} {b:?}");

        check(&text, &long(&words[5..18].join(", ")), Some(Reason::SharedRun(words[5..18].join(" "))));
        check(&text, &long(&words[5..17].join(" ")), None);
        check(
            "Compare mobile plans, please",
            &long("compare mobile plans please"),
            Some(Reason::Contained("compare mobile plans please".into())),
        );
        check(
            &long("compare mobile plans please"),
            "compare mobile plans please",
            Some(Reason::Contained("compare mobile plans please".into())),
        );
        check("a contact form", &long("a contact form"), None);
        check("a contact form", "a contact form", Some(Reason::Similar(1.0)));
        check("", "", None);
        check("...", "?!", None);
    }

    #[test]
    fn a_quote_is_whole_and_long_enough() {
        let check = |text: &str, sought: &str, expected: bool| {
            assert_eq!(
                Fingerprint::of(text).quotes(&Fingerprint::of(sought)).is_some(),
                expected,
                "{sought}"
            );
        };
        let long = "w0 w1 w2 w3 w4 w5 w6 w7 w8 w9 w10 w11 w12 w13 w14 w15";
        check(&format!("- Show {long}."), long, true);
        check("- Show the total, per month!", "show the total per month", true);
        check("show the total", "show the total per month", false);
        check("works on a phone", "works on a phone", false);
        check("", "", false);
    }

    proptest! {
        #[test]
        fn similarity_is_symmetric_and_bounded(a in "[a-d ]{0,40}", b in "[a-d ]{0,40}") {
            let there = similarity(&a, &b);
            prop_assert_eq!(there, similarity(&b, &a));
            prop_assert!((0.0..=1.0).contains(&there));
            prop_assert_eq!(similarity(&a, &a), 1.0);
            prop_assert_eq!(overlaps(&a, &b).is_some(), overlaps(&b, &a).is_some());
        }

        #[test]
        fn a_text_overlaps_with_itself(text in any::<String>()) {
            let has_words = text.chars().any(char::is_alphanumeric);
            prop_assert_eq!(overlaps(&text, &text).is_some(), has_words);
        }

        #[test]
        fn common_elements_are_counted(a in prop::collection::btree_set(0u64..50, 0..30), b in prop::collection::btree_set(0u64..50, 0..30)) {
            let sorted = |set: &std::collections::BTreeSet<u64>| set.iter().copied().collect::<Vec<_>>();
            prop_assert_eq!(count_common(&sorted(&a), &sorted(&b)), a.intersection(&b).count());
        }
    }
}
