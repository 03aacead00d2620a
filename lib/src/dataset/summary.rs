//! What a user is told about a dataset.

use std::{collections::BTreeMap, fmt::Write};

use serde::{Deserialize, Serialize};

use super::BadLog;
use crate::critic::Level;

/// Rows by kind, training and validation together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Examples {
    pub positive: usize,
    pub improvement: usize,
    pub preference: usize,
}

impl Examples {
    /// Rows of the training and validation files.
    pub fn chat(&self) -> usize {
        self.positive + self.improvement
    }
}

/// Result of `hone prepare`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Log files found.
    pub logs: usize,
    pub examples: Examples,
    /// Candidates that are no positive example, by reason.
    pub dropped: BTreeMap<String, usize>,
    /// Paths by `train`, `validation`, `preference`, `manifest`, and of exports by their names; only of files that were written.
    pub files: BTreeMap<String, String>,
    /// Tokens of the training file (o200k_base, one epoch).
    pub tokens: usize,
    /// How many of the examples are set aside for validation.
    pub validation: usize,
    /// Bytes of the training file.
    pub bytes: usize,
    pub critic: String,
    pub level: Level,
    pub dataset_sha256: String,
    pub bad_logs: Vec<BadLog>,
    pub warnings: Vec<String>,
}

impl Summary {
    /// The summary in a sentence.
    pub fn sentence(&self) -> String {
        let Examples { positive, improvement, preference } = self.examples;
        format!(
            "{positive} positive and {improvement} improvement rows, {preference} preference pairs, {} tokens",
            self.tokens
        )
    }

    /// The summary as lines for a terminal.
    pub fn text(&self) -> String {
        let Examples { positive, improvement, preference } = self.examples;
        let mut text = format!("Evolution logs found: {}\n", self.logs);
        for bad in &self.bad_logs {
            line(&mut text, format_args!("  left out `{}`: {}", bad.file, bad.why));
        }
        line(
            &mut text,
            format_args!(
                "Total examples: {} ({positive} positive, {improvement} improvement)",
                self.examples.chat()
            ),
        );
        if self.validation > 0 {
            line(&mut text, format_args!("  of which for validation: {}", self.validation));
        }
        line(&mut text, format_args!("Preference pairs: {preference}"));
        line(&mut text, format_args!("Format: JSONL, OpenAI chat fine-tuning"));
        line(
            &mut text,
            format_args!("Tokens: {} per epoch (o200k_base)", crate::text::thousands(self.tokens as u64)),
        );
        self.write_dropped(&mut text);
        text.push('\n');
        for (label, key) in [
            ("Dataset", "train"),
            ("Validation", "validation"),
            ("Pairs", "preference"),
            ("Manifest", "manifest"),
        ] {
            if let Some(path) = self.files.get(key) {
                let size = if key == "train" { format!(" ({})", size(self.bytes)) } else { String::new() };
                line(&mut text, format_args!("{label}: {path}{size}"));
            }
        }
        // The names of exports are those of their files.
        for path in self.files.iter().filter(|(key, _)| key.contains('.')).map(|(_, path)| path) {
            line(&mut text, format_args!("Export: {path}"));
        }
        text.trim_end().to_owned()
    }

    fn write_dropped(&self, text: &mut String) {
        let total: usize = self.dropped.values().sum();
        if total == 0 {
            return;
        }
        line(text, format_args!("Candidates left out: {total}"));
        let mut reasons: Vec<_> = self.dropped.iter().collect();
        reasons.sort_by_key(|(reason, count)| (std::cmp::Reverse(**count), reason.as_str()));
        for (reason, count) in reasons {
            line(text, format_args!("  {count:>5}  {reason}"));
        }
    }
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{line}");
}

fn size(bytes: usize) -> String {
    match bytes {
        0..1_000 => format!("{bytes} bytes"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
}

#[cfg(test)]
mod unit_tests {
    use super::*;

    #[test]
    fn sizes_for_people() {
        assert_eq!([size(999), size(2_300), size(2_300_000)], ["999 bytes", "2.3 kB", "2.3 MB"]);
    }
}
