//! How alike two texts are, from 0 to 1.
//!
//! | metric | what it is |
//! |---|---|
//! | `fuzzy_match` | 2 x longest common subsequence of characters / sum of the lengths (rapidfuzz's `ratio`) |
//! | `bleu` | Papineni et al. 2002, up to 4-grams, with a small count for orders without a match (Chen & Cherry 2014, method 1) |
//! | `gleu` | Wu et al. 2016: the smaller of precision and recall of all 1- to 4-grams |
//! | `meteor` | Banerjee & Lavie 2005 with exact and stemmed matches; synonyms would need WordNet and are not looked up |
//! | `rouge_1`..`rouge_5` | Lin 2004: F1 of overlapping n-grams |
//! | `rouge_l` | Lin 2004: F1 of the longest common subsequence of words |
//!
//! Words: BLEU, GLEU and METEOR split at spaces and part punctuation from words; ROUGE keeps letters and digits only. All but
//! BLEU, GLEU and `fuzzy_match` ignore case.

use std::{collections::HashMap, hash::Hash};

use rust_stemmers::{Algorithm, Stemmer};
use serde::{Deserialize, Serialize};

/// Longest n-grams of BLEU and GLEU.
const ORDERS: usize = 4;
/// Stands for the count of an order without a match.
const SMALL_COUNT: f64 = 0.1;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    Cosine,
    FuzzyMatch,
    Bleu,
    Gleu,
    Meteor,
    #[serde(rename = "rouge_1")]
    Rouge1,
    #[serde(rename = "rouge_2")]
    Rouge2,
    #[serde(rename = "rouge_3")]
    Rouge3,
    #[serde(rename = "rouge_4")]
    Rouge4,
    #[serde(rename = "rouge_5")]
    Rouge5,
    RougeL,
}

impl Metric {
    /// How much `input` is like `reference`; none for what needs an embedding model.
    pub fn of(self, input: &str, reference: &str) -> Option<f64> {
        Some(match self {
            Self::Cosine => return None,
            Self::FuzzyMatch => fuzzy(input, reference),
            Self::Bleu => bleu(&words(input), &words(reference)),
            Self::Gleu => gleu(&words(input), &words(reference)),
            Self::Meteor => meteor(&words(input), &words(reference)),
            Self::Rouge1 => rouge(input, reference, 1),
            Self::Rouge2 => rouge(input, reference, 2),
            Self::Rouge3 => rouge(input, reference, 3),
            Self::Rouge4 => rouge(input, reference, 4),
            Self::Rouge5 => rouge(input, reference, 5),
            Self::RougeL => rouge_l(input, reference),
        })
    }
}

/// Words and single marks of punctuation.
fn words(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut open = false;
    for c in text.chars() {
        let inside = c.is_alphanumeric() || matches!(c, '\'' | '_');
        match words.last_mut() {
            Some(word) if open && inside => word.push(c),
            _ if !c.is_whitespace() => words.push(c.to_string()),
            _ => {}
        }
        open = inside;
    }
    words
}

/// Letters and digits in lower case, as ROUGE's own tokeniser has it.
fn plain_words(text: &str) -> Vec<String> {
    let lower = text.to_lowercase();
    let words = lower.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    words.map(str::to_owned).collect()
}

fn fuzzy(a: &str, b: &str) -> f64 {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let length = a.len() + b.len();
    if length == 0 { 1.0 } else { ratio(2 * common_subsequence(&a, &b), length) }
}

fn ratio(part: usize, of: usize) -> f64 {
    if of == 0 { 0.0 } else { part as f64 / of as f64 }
}

fn f1(common: usize, a: usize, b: usize) -> f64 {
    ratio(2 * common, a + b)
}

/// Length of the longest common subsequence; 64 rows of the table at a time (Hyyro 2004).
fn common_subsequence<T: Hash + Eq>(a: &[T], b: &[T]) -> usize {
    let blocks = a.len().div_ceil(64);
    let mut places: HashMap<&T, Vec<(usize, u64)>> = HashMap::new();
    for (at, item) in a.iter().enumerate() {
        let (block, bit) = (at / 64, 1 << (at % 64));
        match places.entry(item).or_default() {
            marks if marks.last().is_some_and(|(last, _)| *last == block) => {
                if let Some((_, mask)) = marks.last_mut() {
                    *mask |= bit;
                }
            }
            marks => marks.push((block, bit)),
        }
    }
    let mut rows = vec![u64::MAX; blocks];
    for item in b {
        let marks = places.get(item).map(Vec::as_slice).unwrap_or_default();
        let (mut marks, mut carry) = (marks.iter().peekable(), false);
        for (block, row) in rows.iter_mut().enumerate() {
            let mask = marks.next_if(|(at, _)| *at == block).map_or(0, |(_, mask)| *mask);
            let matched = *row & mask;
            let (sum, first) = row.overflowing_add(matched);
            let (sum, second) = sum.overflowing_add(u64::from(carry));
            carry = first || second;
            *row = sum | (*row & !mask);
        }
    }
    // A zero is a match; beyond the end of `a` there are none.
    let beyond = blocks * 64 - a.len();
    let zeros: usize = rows.iter().map(|row| row.count_zeros() as usize).sum();
    let last = rows.last().map_or(0, |row| (!row).checked_shr(64 - beyond as u32).unwrap_or(0).count_ones());
    zeros - last as usize
}

type Counts<'a> = HashMap<&'a [String], usize>;

fn ngrams(words: &[String], n: usize) -> Counts<'_> {
    let mut counts = Counts::new();
    for gram in words.windows(n) {
        *counts.entry(gram).or_default() += 1;
    }
    counts
}

/// N-grams in both, each counted as often as the rarer side has it.
fn overlap(a: &Counts, b: &Counts) -> usize {
    a.iter().map(|(gram, count)| (*count).min(b.get(gram).copied().unwrap_or_default())).sum()
}

fn bleu(input: &[String], reference: &[String]) -> f64 {
    let mut logs = 0.0;
    for n in 1..=ORDERS {
        let (ours, theirs) = (ngrams(input, n), ngrams(reference, n));
        let total = ours.values().sum::<usize>().max(1);
        let matched = overlap(&ours, &theirs);
        if n == 1 && matched == 0 {
            return 0.0;
        }
        let matched = if matched == 0 { SMALL_COUNT } else { matched as f64 };
        logs += (matched / total as f64).ln() / ORDERS as f64;
    }
    let brevity = if input.len() < reference.len() { 1.0 - ratio(reference.len(), input.len()) } else { 0.0 };
    (logs + brevity).exp()
}

fn gleu(input: &[String], reference: &[String]) -> f64 {
    let (mut matched, mut ours, mut theirs) = (0, 0, 0);
    for n in 1..=ORDERS {
        let (a, b) = (ngrams(input, n), ngrams(reference, n));
        matched += overlap(&a, &b);
        ours += a.values().sum::<usize>();
        theirs += b.values().sum::<usize>();
    }
    ratio(matched, ours.max(theirs))
}

/// Weighs recall nine times as much as precision, less a penalty for matches that are scattered.
fn meteor(input: &[String], reference: &[String]) -> f64 {
    let pairs = aligned(input, reference);
    let matches = pairs.len();
    if matches == 0 {
        return 0.0;
    }
    let (precision, recall) = (ratio(matches, input.len()), ratio(matches, reference.len()));
    let mean = precision * recall / (0.9 * precision + 0.1 * recall);
    let breaks = pairs.windows(2).filter(|p| p[1].0 != p[0].0 + 1 || p[1].1 != p[0].1 + 1).count();
    let penalty = 0.5 * ratio(breaks + 1, matches).powi(3);
    mean * (1.0 - penalty)
}

/// Places of words that match, first the same words, then the same stems; in the input's order.
fn aligned(input: &[String], reference: &[String]) -> Vec<(usize, usize)> {
    let lower = |words: &[String]| words.iter().map(|word| word.to_lowercase()).collect::<Vec<_>>();
    let (input, reference) = (lower(input), lower(reference));
    let stemmer = Stemmer::create(Algorithm::English);
    let stems =
        |words: &[String]| words.iter().map(|word| stemmer.stem(word).into_owned()).collect::<Vec<_>>();
    let mut pairs = Vec::new();
    let (mut free_input, mut free_reference) = (vec![true; input.len()], vec![true; reference.len()]);
    for (input, reference) in [(&input, &reference), (&stems(&input), &stems(&reference))] {
        let mut places: HashMap<&str, Vec<usize>> = HashMap::new();
        for (at, word) in reference.iter().enumerate().rev().filter(|(at, _)| free_reference[*at]) {
            places.entry(word).or_default().push(at);
        }
        for (at, word) in input.iter().enumerate() {
            if free_input[at]
                && let Some(place) = places.get_mut(word.as_str()).and_then(Vec::pop)
            {
                pairs.push((at, place));
                (free_input[at], free_reference[place]) = (false, false);
            }
        }
    }
    pairs.sort_unstable();
    pairs
}

fn rouge(input: &str, reference: &str, n: usize) -> f64 {
    let (a, b) = (plain_words(input), plain_words(reference));
    let (a, b) = (ngrams(&a, n), ngrams(&b, n));
    f1(overlap(&a, &b), a.values().sum(), b.values().sum())
}

fn rouge_l(input: &str, reference: &str) -> f64 {
    let (a, b) = (plain_words(input), plain_words(reference));
    f1(common_subsequence(&a, &b), a.len(), b.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: [Metric; 10] = [
        Metric::FuzzyMatch,
        Metric::Bleu,
        Metric::Gleu,
        Metric::Meteor,
        Metric::Rouge1,
        Metric::Rouge2,
        Metric::Rouge3,
        Metric::Rouge4,
        Metric::Rouge5,
        Metric::RougeL,
    ];

    fn check(metric: Metric, input: &str, reference: &str, expected: f64) {
        let found = metric.of(input, reference).unwrap();
        assert!((found - expected).abs() < 1e-4, "{metric:?} `{input}` `{reference}`: {found}");
    }

    /// By the slow textbook table.
    fn table(a: &[u8], b: &[u8]) -> usize {
        let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
        for i in 0..a.len() {
            for j in 0..b.len() {
                rows[i + 1][j + 1] =
                    if a[i] == b[j] { rows[i][j] + 1 } else { rows[i][j + 1].max(rows[i + 1][j]) };
            }
        }
        rows[a.len()][b.len()]
    }

    #[test]
    fn values_known_from_other_implementations() {
        // rapidfuzz: fuzz.ratio("this is a test", "this is a test!") = 96.55
        check(Metric::FuzzyMatch, "this is a test", "this is a test!", 0.965_517);
        check(Metric::FuzzyMatch, "kitten", "sitting", 8.0 / 13.0);
        check(Metric::FuzzyMatch, "", "", 1.0);
        // rouge_score: "the cat" in "the cat sat": P 1, R 2/3.
        check(Metric::Rouge1, "the cat", "The cat sat.", 0.8);
        check(Metric::Rouge2, "the cat", "the cat sat", 2.0 / 3.0);
        check(Metric::RougeL, "police killed the gunman", "police kill the gunman", 0.75);
        check(Metric::RougeL, "the gunman police killed", "police killed the gunman", 0.5);
        check(Metric::Rouge5, "a b c", "a b c", 0.0);
        // Counts by hand: 4 of 5, 3 of 4, 2 of 3 and 1 of 2 n-grams, and no brevity penalty.
        check(Metric::Bleu, "a b c d e", "a b c d f", (0.8f64 * 0.75 * (2.0 / 3.0) * 0.5).powf(0.25));
        check(Metric::Bleu, "a b c d", "a b c d e f", (-0.5f64).exp());
        check(Metric::Gleu, "a b c d e", "a b c d f", 10.0 / 14.0);
        // One chunk of 3 words, all matched: 1 - 0.5 / 27.
        check(Metric::Meteor, "the cat sat", "the cat sat", 1.0 - 0.5 / 27.0);
        check(Metric::Meteor, "cats sit", "cat sits", 1.0 - 0.5 / 8.0);
        // Precision 1, recall 1/2, one chunk of one word.
        check(Metric::Meteor, "cat", "cat sat", 0.5 / 0.95 * 0.5);
        assert_eq!(Metric::Cosine.of("a", "a"), None);
    }

    #[test]
    fn text_becomes_words() {
        assert_eq!(words("It's  a test-run."), ["It's", "a", "test", "-", "run", "."]);
        assert_eq!(plain_words("It's  a test-run."), ["it", "s", "a", "test", "run"]);
    }

    proptest! {
        #[test]
        fn subsequences_are_as_long_as_the_table_says(
            a in prop::collection::vec(0u8..4, 0..200),
            b in prop::collection::vec(0u8..4, 0..200),
        ) {
            prop_assert_eq!(common_subsequence(&a, &b), table(&a, &b));
        }

        #[test]
        fn every_metric_stays_between_nothing_and_all(a in "\\PC{0,40}", b in "\\PC{0,40}") {
            for metric in ALL {
                let value = metric.of(&a, &b).unwrap();
                prop_assert!((0.0..=1.0 + 1e-9).contains(&value), "{:?} {}", metric, value);
            }
        }

        #[test]
        fn the_same_text_is_most_alike(words in prop::collection::vec("[a-z]{1,5}", 5..12)) {
            let text = words.join(" ");
            for metric in ALL.into_iter().filter(|metric| *metric != Metric::Meteor) {
                prop_assert!((metric.of(&text, &text).unwrap() - 1.0).abs() < 1e-9, "{:?}", metric);
            }
            prop_assert!(Metric::Meteor.of(&text, &text).unwrap() > 0.9);
        }
    }
}
