//! What axe finds in Streamlit's own elements: not the author's doing.
//!
//! The table comes from the gallery beside this file, an app with one of everything and good labels.
//! `HONE_TEST_PYTHON=.../bin/python cargo test -p hone --test it baseline -- --nocapture` makes it again, and fails when it differs; a
//! new version of Streamlit or axe needs it.

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use super::Violation;

/// Violations of the framework's own, with the versions that they were seen with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Baseline {
    pub streamlit: String,
    pub axe: String,
    /// Rules with the kinds of elements that break them.
    pub violations: Vec<(String, String)>,
}

static SHIPPED: LazyLock<Baseline> =
    LazyLock::new(|| serde_json::from_str(include_str!("baseline.json")).unwrap_or_default());

/// The table that is shipped.
pub fn shipped() -> &'static Baseline {
    &SHIPPED
}

/// Marks a violation that the framework's own elements of that kind have too.
pub(super) fn mark(violation: Violation) -> Violation {
    let same = |(rule, kind): &(String, String)| *rule == violation.rule && *kind == violation.kind;
    Violation { baseline: SHIPPED.violations.iter().any(same), ..violation }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_excused_for_the_kinds_that_the_framework_breaks_it_in() {
        let violation = |rule: &str, kind: &str| Violation {
            rule: rule.into(),
            kind: kind.into(),
            ..Violation::default()
        };
        assert!(shipped().violations.len() >= 3, "{:?}", shipped());
        assert!(mark(violation("color-contrast", "stCaptionContainer")).baseline);
        assert!(!mark(violation("color-contrast", "stMarkdown")).baseline);
        assert!(!mark(violation("image-alt", "stImage")).baseline);
    }
}
