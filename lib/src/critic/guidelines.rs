//! The guidelines that issues cite: a table with a source for each, found by rule or by their words.
//!
//! A finding of the critic cites the guideline behind its rule. Whoever words issues freely (a judge, a teacher's prompt)
//! may cite only what was retrieved; [`cite`] drops the rest and counts it. docs/design/guidelines.md has the figures.

mod bm25;
mod cite;
mod store;
#[cfg(test)]
mod tests;

use std::sync::LazyLock;

use serde::Deserialize;

use self::bm25::{Analyser, Index};

pub use cite::{Cited, cite};
pub use store::{GuidelineError, GuidelineStore, Retrieved};

/// A guideline: a fact about good user interfaces and who says so.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Guideline {
    /// `g` and three digits; it keeps its meaning for ever.
    pub id: String,
    /// Who says so, with the number or name of the rule where it has one.
    pub source: String,
    /// Where in the source.
    pub section: Option<String>,
    pub category: String,
    /// In our own words.
    pub fact: String,
    /// `any`, or the sort of UI that it is about.
    pub applies_to: String,
    /// Who can see whether it is kept: `TOOL: RULE, RULE; TOOL: RULE`, `judge`, or `not checked`.
    pub check: String,
    /// Compared with the source's text; else from general knowledge.
    pub verified: bool,
}

impl Guideline {
    /// True when a tool's rule checks it.
    fn is_checked_by(&self, tool: &str, rule: &str) -> bool {
        let parts = self.check.split(';').filter_map(|part| part.split_once(':'));
        let mut rules = parts.filter(|(name, _)| name.trim() == tool).flat_map(|(_, rules)| rules.split(','));
        rules.any(|named| named.trim() == rule)
    }
}

/// How much a word counts in a guideline's fact, source, category and scope. No weights that were compared do better.
const WEIGHTS: [f64; 4] = [1.0; 4];
/// Words that users of a query say for words of the table.
const SYNONYMS: &str = include_str!("guidelines/synonyms.txt");

/// A table of guidelines that can be searched.
pub struct Guidelines {
    rows: Vec<Guideline>,
    index: Index,
}

static EMBEDDED: LazyLock<Guidelines> = LazyLock::new(|| {
    let (lines, _) = crate::store::parse_lines(include_str!("guidelines.jsonl"));
    Guidelines::new(
        lines.into_iter().map(|line| line.value).collect(),
        WEIGHTS,
        Analyser::new(true).with_synonyms(SYNONYMS),
    )
});

impl Guidelines {
    /// The shipped table.
    pub fn embedded() -> &'static Self {
        &EMBEDDED
    }

    fn new(rows: Vec<Guideline>, weights: [f64; 4], analyser: Analyser) -> Self {
        let fields = |row: &Guideline| -> [String; 4] {
            let section = format!("{} {}", row.source, row.section.as_deref().unwrap_or_default());
            [row.fact.clone(), section, row.category.clone(), row.applies_to.clone()]
        };
        let texts: Vec<[String; 4]> = rows.iter().map(fields).collect();
        let documents: Vec<[&str; 4]> = texts.iter().map(|t| t.each_ref().map(String::as_str)).collect();
        let index = Index::new(&documents, weights, analyser);
        Self { rows, index }
    }

    /// Every guideline, by id.
    pub fn rows(&self) -> &[Guideline] {
        &self.rows
    }

    /// The guideline with this id.
    pub fn get(&self, id: &str) -> Option<&Guideline> {
        self.rows.iter().find(|row| row.id == id)
    }

    /// At most `k` guidelines that speak of what the query speaks of, best first.
    pub fn retrieve(&self, query: &str, k: usize) -> Vec<&Guideline> {
        self.index.rank(query, k).into_iter().map(|place| &self.rows[place]).collect()
    }

    /// The guideline behind a rule of a tool, such as `ruff` and `F821`, or `axe` and `color-contrast`.
    pub fn checked_by(&self, tool: &str, rule: &str) -> Option<&Guideline> {
        self.rows.iter().find(|row| row.is_checked_by(tool, rule))
    }
}
