//! Ranks short texts by the words that a query shares with them: BM25 with weighted fields (BM25F; Robertson, Zaragoza
//! and Taylor, "Simple BM25 extension to multiple weighted fields", 2004), over Porter2 stems.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use rust_stemmers::{Algorithm, Stemmer};

/// How soon repetitions of a word stop to count, and how much a long field is held back: the usual values.
const K1: f64 = 1.2;
const B: f64 = 0.75;
/// What a word counts that only stands for one of the query's.
const RELATED: f64 = 0.4;

/// Words that are in every text and tell nothing.
const STOP: &str = "a about all also an and any are as at be because been but by can do does for from has have how i if in \
    into is it its me my no nor not of off on one only or other our out so some such than that the their them then there \
    these they this those to too up us very was we were what when where which who why will with would you your";

/// From text to the words that are compared.
pub(super) struct Analyser {
    stemmer: Option<Stemmer>,
    stop: BTreeSet<&'static str>,
    /// Terms that a term of a query stands for as well.
    related: HashMap<String, BTreeSet<String>>,
}

impl Analyser {
    /// `stems` makes `saved` and `saving` the same word.
    pub fn new(stems: bool) -> Self {
        let stemmer = stems.then(|| Stemmer::create(Algorithm::English));
        Self { stemmer, stop: STOP.split_whitespace().collect(), related: HashMap::new() }
    }

    /// Lets words of a query find others too. Each line is a group of words that stand for each other; behind `>` are
    /// words that they find without being found by them.
    pub fn with_synonyms(mut self, groups: &str) -> Self {
        for line in groups.lines().filter(|line| !line.starts_with('#')) {
            let (group, further) = line.split_once('>').unwrap_or((line, ""));
            let (group, further) = (self.terms(group), self.terms(further));
            for term in &group {
                let others = group.iter().chain(&further).filter(|other| *other != term).cloned();
                self.related.entry(term.clone()).or_default().extend(others);
            }
        }
        self
    }

    /// The terms of a query with their weights: its own, and what they stand for.
    fn query(&self, text: &str) -> BTreeMap<String, f64> {
        let own = self.terms(text);
        let related = own.iter().filter_map(|term| self.related.get(term)).flatten();
        let mut weighed: BTreeMap<String, f64> = related.map(|term| (term.clone(), RELATED)).collect();
        weighed.extend(own.into_iter().map(|term| (term, 1.0)));
        weighed
    }

    /// Words in order, with repetitions. `DuplicateElementId` is three words, as `session_state` is two.
    pub fn terms(&self, text: &str) -> Vec<String> {
        let words = text.split(|c: char| !c.is_alphanumeric()).flat_map(humps).map(str::to_lowercase);
        let kept = words.filter(|word| !self.stop.contains(word.as_str()));
        kept.map(|word| match &self.stemmer {
            Some(stemmer) => stemmer.stem(&word).into_owned(),
            None => word,
        })
        .collect()
    }
}

/// The parts of a name in camel case.
fn humps(word: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut from, mut lower) = (0, false);
    for (at, c) in word.char_indices() {
        if c.is_uppercase() && lower {
            parts.push(&word[from..at]);
            from = at;
        }
        lower = c.is_lowercase();
    }
    parts.push(&word[from..]);
    parts.retain(|part| !part.is_empty());
    parts
}

/// Documents, each with `FIELDS` texts in the same order.
pub(super) struct Index {
    analyser: Analyser,
    /// Weight of each term per document, before saturation.
    documents: Vec<HashMap<String, f64>>,
    /// In how many documents a term is.
    spread: HashMap<String, f64>,
}

impl Index {
    /// `weights` says how much a word counts in each field.
    pub fn new<const FIELDS: usize>(
        documents: &[[&str; FIELDS]],
        weights: [f64; FIELDS],
        analyser: Analyser,
    ) -> Self {
        let terms: Vec<[Vec<String>; FIELDS]> =
            documents.iter().map(|fields| fields.map(|text| analyser.terms(text))).collect();
        let mean: [f64; FIELDS] = std::array::from_fn(|field| {
            let words: usize = terms.iter().map(|fields| fields[field].len()).sum();
            (words as f64 / terms.len().max(1) as f64).max(1.0)
        });
        let mut index = Self { analyser, documents: Vec::new(), spread: HashMap::new() };
        for fields in terms {
            let mut weighed: HashMap<String, f64> = HashMap::new();
            for (field, words) in fields.into_iter().enumerate() {
                let length = 1.0 - B + B * words.len() as f64 / mean[field];
                for word in words {
                    *weighed.entry(word).or_default() += weights[field] / length;
                }
            }
            weighed.retain(|_, weight| *weight > 0.0);
            for term in weighed.keys() {
                *index.spread.entry(term.clone()).or_default() += 1.0;
            }
            index.documents.push(weighed);
        }
        index
    }

    /// The places of the `k` documents that share most with the query, best first; of equals the earlier. Those that
    /// share nothing are left out.
    pub fn rank(&self, query: &str, k: usize) -> Vec<usize> {
        let terms = self.analyser.query(query);
        let score = |document: &HashMap<String, f64>| -> f64 {
            terms
                .iter()
                .map(|(term, weight)| weight * self.rarity(term) * saturated(document.get(term)))
                .sum()
        };
        let scores = self.documents.iter().map(score).enumerate();
        let mut scored: Vec<(usize, f64)> = scores.filter(|(_, score)| *score > 0.0).collect();
        scored.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        scored.into_iter().take(k).map(|(place, _)| place).collect()
    }

    /// Inverse document frequency, never negative.
    fn rarity(&self, term: &str) -> f64 {
        let (all, with) = (self.documents.len() as f64, self.spread.get(term).copied().unwrap_or(0.0));
        (1.0 + (all - with + 0.5) / (with + 0.5)).ln()
    }
}

fn saturated(weight: Option<&f64>) -> f64 {
    weight.map_or(0.0, |weight| weight / (K1 + weight))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(query: &str, expected: &[usize]) {
        let documents = [
            ["saving a file takes a while", "files"],
            ["buttons save the form", "forms"],
            ["a chart of the temperature", "charts"],
        ];
        let index = Index::new(&documents, [1.0, 2.0], Analyser::new(true));
        assert_eq!(index.rank(query, 2), expected, "{query}");
    }

    #[test]
    fn what_shares_more_and_rarer_words_comes_first() {
        check("saved charts", &[2, 1]);
        check("the form", &[1]);
        check("file", &[0]);
        check("nothing of this", &[]);
        check("", &[]);
    }

    #[test]
    fn names_in_code_are_words() {
        let analyser = Analyser::new(false);
        let words = analyser.terms("st.session_state raises DuplicateElementId, the BMI");
        assert_eq!(words, ["st", "session", "state", "raises", "duplicate", "element", "id", "bmi"]);
    }
}
