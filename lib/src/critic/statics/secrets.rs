//! Keys and passwords that stand in a reply.
//!
//! What a variable is called is ruff's to judge (S105 to S107). Here are the values whose shape alone gives them away, in
//! Python's strings and in every other file of the reply.

use std::sync::LazyLock;

use regex::Regex;
use ruff_text_size::TextSize;

/// What a credential looks like where its issuer gave it a form of its own. Prefixes and lengths are those that the
/// issuers document; a length that they leave open is the least that is in use.
const SHAPES: &[(&str, &str)] = &[
    ("a private key", r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----"),
    ("a key of AWS", r"\b(?:AKIA|ASIA)[A-Z2-7]{16}\b"),
    ("a token of GitHub", r"\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{60,})"),
    ("a token of GitLab", r"\bglpat-[A-Za-z0-9_-]{20,}"),
    ("a token of Slack", r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}"),
    ("a key of a model provider", r"\bsk-(?:[a-z0-9]+-)*[A-Za-z0-9_-]{32,}"),
    ("a key of Stripe", r"\b[rs]k_(?:live|test)_[A-Za-z0-9]{16,}"),
    ("a key of Google", r"\bAIza[A-Za-z0-9_-]{35}"),
    ("a token of Hugging Face", r"\bhf_[A-Za-z0-9]{30,}"),
    ("a signed token", r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}"),
    ("a password in an address", r"\b[a-z][a-z0-9+.-]*://[^\s:/@]+:[^\s:/@{<$]{3,}@[^\s/]"),
];

static FORMS: LazyLock<Vec<(&str, Regex)>> = LazyLock::new(|| {
    SHAPES.iter().filter_map(|(what, shape)| Regex::new(shape).ok().map(|form| (*what, form))).collect()
});

/// Longer strings hold data; only their start is looked at.
const MOST: usize = 8 * 1024;

/// What a text gives away, if it does, with the advice that mends it. The message never repeats the value.
pub(super) fn given_away(text: &str) -> Option<String> {
    secret(text).map(|(what, _)| advice(what))
}

/// Secrets of a file that is not Python, each with its place in the text.
pub(super) fn in_lines(text: &str) -> impl Iterator<Item = (TextSize, String)> {
    let mut start = 0;
    text.split_inclusive('\n').filter_map(move |line| {
        let offset = start;
        start += line.len();
        let (what, at) = secret(line)?;
        Some((TextSize::try_from(offset + at).ok()?, advice(what)))
    })
}

fn secret(text: &str) -> Option<(&'static str, usize)> {
    let text = &text[..text.floor_char_boundary(MOST)];
    FORMS.iter().find_map(|(what, form)| Some((*what, form.find(text)?.start())))
}

fn advice(what: &str) -> String {
    format!("{what} stands in the source: revoke it, and read it from `st.secrets`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_is_a_pattern() {
        assert_eq!(FORMS.len(), SHAPES.len());
    }

    #[test]
    fn credentials_are_known_by_their_shape() {
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(secret(text).map(|(what, _)| what), expected, "{text}");
        };
        // Put together at run time, so that nothing here looks like a key to whoever scans this repository.
        check(&format!("AKIA{}", "Q".repeat(16)), Some("a key of AWS"));
        check(&format!("ghp_{}", "a1".repeat(18)), Some("a token of GitHub"));
        check(&format!("sk-proj-{}", "Ab3".repeat(14)), Some("a key of a model provider"));
        check(&format!("sk_live_{}", "a1".repeat(12)), Some("a key of Stripe"));
        check(&format!("-----BEGIN RSA {} KEY-----\nMII", "PRIVATE"), Some("a private key"));
        check(&format!("postgres://app:{}@db/prod", "hunter2"), Some("a password in an address"));
        check("postgres://localhost/prod", None);
        check("https://example.org:8080/@user", None);
        check("postgres://app:{password}@db/prod", None);
        check("sk-learn is not a key", None);
        check("ask-me-anything-about-the-quarterly-reports", None);
        check("", None);
    }

    #[test]
    fn files_that_are_not_python_are_read_line_by_line() {
        let text = format!("[db]\nurl = \"mysql://root:{}@db\"\n", "geheim");
        let found: Vec<_> = in_lines(&text).map(|(at, _)| at.to_usize()).collect();
        assert_eq!(found, [12]);
    }
}
