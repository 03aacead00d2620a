//! Which of two apps a person prefers, without knowing who wrote them.
//!
//! Ratings are lines of one file that only grows. They say how far the critic agrees with people, stand beside a trial's
//! figures, and those on training briefs become preference pairs.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{
    agent::SourceFile,
    brief::Brief,
    store::{self, StoreError, append_line, parse_lines},
};

/// `format` of a rating.
pub const FORMAT: &str = "hone.rating";
/// Version that this code reads and writes.
pub const FORMAT_VERSION: u32 = 1;

/// One answer of one person.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rating {
    pub format: String,
    pub version: u32,
    /// When, as RFC 3339.
    pub at: String,
    /// Who, by a name of their own choice.
    pub rater: String,
    pub source: Source,
    pub brief: Brief,
    pub a: Side,
    pub b: Side,
    pub prefers: Choice,
    /// Which side stood first.
    pub shown_first: Which,
}

/// Where the two apps were taken from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Evolution logs: training briefs.
    Logs,
    /// The trial of this id: held-out briefs, which nothing may be trained on.
    Trial(String),
}

/// One of the two apps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Side {
    pub model: String,
    /// Of a trial.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arm: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample: Option<u32>,
    /// File name of the log, and the candidate in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iteration: Option<u32>,
    /// The critic's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
    pub files: Vec<SourceFile>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Which {
    A,
    B,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Choice {
    A,
    B,
    Tie,
}

/// The ratings of a file, which need not exist. A line that a killed process left half written is passed over; so is one
/// of another version.
///
/// # Errors
/// The file is there and cannot be read.
pub fn read(path: &Path) -> Result<Vec<Rating>, StoreError> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let (lines, _) = parse_lines::<Rating>(&store::read_text(path)?);
    let known = |rating: &Rating| rating.format == FORMAT && rating.version == FORMAT_VERSION;
    Ok(lines.into_iter().map(|line| line.value).filter(known).collect())
}

/// Adds one rating.
///
/// # Errors
/// The file cannot be written.
pub fn append(path: &Path, rating: &Rating) -> Result<(), StoreError> {
    append_line(path, rating)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_appended_is_read_and_half_a_line_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data/ratings.jsonl");
        assert_eq!(read(&path).unwrap(), []);
        let side = |model: &str| Side {
            model: model.into(),
            arm: Some("tuned".into()),
            sample: Some(1),
            log: None,
            iteration: None,
            score: Some(7.5),
            files: vec![SourceFile { path: "app.py".into(), content: "A = 1\n".into() }],
        };
        let rating = Rating {
            format: FORMAT.into(),
            version: FORMAT_VERSION,
            at: "2026-11-26T12:00:00Z".into(),
            rater: "r1".into(),
            source: Source::Trial("t-1".into()),
            brief: Brief::from_description("A map").unwrap(),
            a: side("one"),
            b: side("two"),
            prefers: Choice::Tie,
            shown_first: Which::B,
        };
        append(&path, &rating).unwrap();
        let later = Rating { version: FORMAT_VERSION + 1, ..rating.clone() };
        append(&path, &later).unwrap();
        append(&path, &rating).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.extend_from_slice(b"{\"format\":\"hone.rat");
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(read(&path).unwrap(), [rating.clone(), rating]);
    }
}
