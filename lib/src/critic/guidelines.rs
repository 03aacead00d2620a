//! The guidelines that issues cite: a small table with a source for each.

use std::{collections::BTreeSet, sync::LazyLock};

use serde::Deserialize;

use super::{Citation, Issue};

/// A guideline: a fact about good user interfaces and who says so.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Guideline {
    pub id: String,
    pub source: String,
    pub fact: String,
}

static TABLE: LazyLock<Vec<Guideline>> = LazyLock::new(|| {
    let (lines, _) = crate::store::parse_lines(include_str!("guidelines.jsonl"));
    lines.into_iter().map(|line| line.value).collect()
});

/// Every guideline that an issue may cite.
pub fn guidelines() -> &'static [Guideline] {
    &TABLE
}

/// A citation for each guideline that the issues name, once, in the order of their ids.
pub(super) fn citations(issues: &[Issue]) -> Vec<Citation> {
    let cited: BTreeSet<&str> = issues.iter().filter_map(|issue| issue.guideline.as_deref()).collect();
    let known = TABLE.iter().filter(|guideline| cited.contains(guideline.id.as_str()));
    known.map(|guideline| Citation { id: guideline.id.clone(), source: guideline.source.clone() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_table_is_read() {
        let (_, errors) = crate::store::parse_lines::<Guideline>(include_str!("guidelines.jsonl"));
        assert_eq!(errors, []);
        assert!(guidelines().is_sorted_by(|a, b| a.id < b.id));
    }
}
