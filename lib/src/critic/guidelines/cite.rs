//! Citations: only of what exists and was retrieved.

use std::collections::BTreeSet;

use super::Guideline;
use crate::critic::{Citation, Issue};

/// What the issues cite, and how many citations did not count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cited {
    /// Once each, in the order of their ids.
    pub citations: Vec<Citation>,
    /// Citations of guidelines that do not exist or were not retrieved.
    pub dropped: u32,
}

/// Takes from each issue a guideline that is not among the retrieved ones, and lists those that stay.
pub fn cite<'a>(issues: &mut [Issue], retrieved: impl IntoIterator<Item = &'a Guideline>) -> Cited {
    let mut retrieved: Vec<&Guideline> = retrieved.into_iter().collect();
    retrieved.sort_by(|a, b| a.id.cmp(&b.id));
    retrieved.dedup_by(|a, b| a.id == b.id);
    let known: BTreeSet<&str> = retrieved.iter().map(|guideline| guideline.id.as_str()).collect();
    let mut dropped = 0;
    let mut named: BTreeSet<String> = BTreeSet::new();
    for issue in issues {
        match issue.guideline.take() {
            Some(id) if known.contains(id.as_str()) => {
                named.insert(id.clone());
                issue.guideline = Some(id);
            }
            Some(_) => dropped += 1,
            None => {}
        }
    }
    let cited = retrieved.into_iter().filter(|guideline| named.contains(&guideline.id));
    let citation =
        |guideline: &Guideline| Citation { id: guideline.id.clone(), source: guideline.source.clone() };
    Cited { citations: cited.map(citation).collect(), dropped }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::critic::{Guidelines, Severity};

    /// Guidelines that issues name, those retrieved, and what is left: ids kept, ids cited, number dropped.
    #[track_caller]
    fn check(
        named: &[Option<&str>],
        retrieved: &[&str],
        kept: &[Option<&str>],
        cited: &[&str],
        dropped: u32,
    ) {
        let issue = |id: &Option<&str>| Issue {
            severity: Severity::Minor,
            message: "m".into(),
            at: None,
            guideline: id.map(str::to_owned),
        };
        let mut issues: Vec<Issue> = named.iter().map(issue).collect();
        let table = Guidelines::embedded();
        let outcome = cite(&mut issues, retrieved.iter().filter_map(|id| table.get(id)));
        let left: Vec<Option<&str>> = issues.iter().map(|issue| issue.guideline.as_deref()).collect();
        assert_eq!(left, kept);
        let ids: Vec<&str> = outcome.citations.iter().map(|citation| citation.id.as_str()).collect();
        assert_eq!((ids.as_slice(), outcome.dropped), (cited, dropped));
    }

    #[test]
    fn only_what_exists_and_was_retrieved_is_cited() {
        check(
            &[Some("g010"), None, Some("g001")],
            &["g001", "g010"],
            &[Some("g010"), None, Some("g001")],
            &["g001", "g010"],
            0,
        );
        check(&[Some("g010"), Some("g010")], &["g010"], &[Some("g010"), Some("g010")], &["g010"], 0);
        check(&[Some("g999"), Some("WCAG")], &["g001"], &[None, None], &[], 2);
        check(&[Some("g001"), Some("g002")], &["g002", "g002"], &[None, Some("g002")], &["g002"], 1);
        check(&[Some("g001")], &[], &[None], &[], 1);
        check(&[], &["g001"], &[], &[], 0);
    }
}
