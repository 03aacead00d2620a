//! Which of two apps a person prefers, without knowing who wrote them.
//!
//! Ratings are lines of one file that only grows. They say how far the critic agrees with people, stand beside a trial's
//! figures, and those on training briefs become preference pairs.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    agent::SourceFile,
    brief::Brief,
    store::{self, Lock, LockError, StoreError, Workspace, append_line, parse_lines},
    text,
};

/// `format` of a rating.
pub const FORMAT: &str = "hone.rating";
/// Version that this code reads and writes.
pub const FORMAT_VERSION: u32 = 1;

/// Arm of a trial whose answers are the model's under test.
pub(crate) const TUNED: &str = "tuned";

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

impl Choice {
    /// The same choice when the two sides change places.
    pub fn turned(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
            Self::Tie => Self::Tie,
        }
    }

    /// How much of a win it is for `b`: a tie is half of one.
    pub fn for_b(self) -> f64 {
        match self {
            Self::A => 0.0,
            Self::Tie => 0.5,
            Self::B => 1.0,
        }
    }
}

/// The same two apps, whoever compares them and whichever is called `a`.
pub type PairId = [u8; 32];

impl Rating {
    /// What was compared.
    pub fn pair(&self) -> PairId {
        let side = |side: &Side| {
            let Side { model, arm, sample, log, iteration, score: _, files } = side;
            let mut files: Vec<_> = files.iter().map(|file| (&file.path, &file.content)).collect();
            files.sort();
            serde_json::json!([model, arm, sample, log, iteration, files]).to_string()
        };
        let mut sides = [side(&self.a), side(&self.b)];
        sides.sort();
        let what = serde_json::json!([self.source, self.brief.id.as_str(), sides]);
        Sha256::digest(what.to_string()).into()
    }

    /// What was preferred, with the side whose wins are counted as `b`: the tuned model's answer, or the later app of a log.
    pub fn choice(&self) -> Choice {
        let tuned = |side: &Side| side.arm.as_deref() == Some(TUNED);
        let turned = match self.source {
            Source::Trial(_) => tuned(&self.a) && !tuned(&self.b),
            Source::Logs => self.a.iteration > self.b.iteration,
        };
        if turned { self.prefers.turned() } else { self.prefers }
    }
}

/// One opinion of each person on each pair: the latest, in the order of the list. Nobody can tell whether two people without
/// a name are one, so that theirs are all kept.
pub fn latest<T, K: Ord>(
    all: Vec<T>,
    rating: impl Fn(&T) -> &Rating,
    pair: impl Fn(&T) -> K,
) -> impl Iterator<Item = T> {
    let mut last: BTreeMap<(&str, K), (Option<jiff::Timestamp>, usize)> = BTreeMap::new();
    let mut kept = BTreeSet::new();
    for (place, item) in all.iter().enumerate() {
        let rating = rating(item);
        if rating.rater.is_empty() {
            kept.insert(place);
            continue;
        }
        let this = (rating.at.parse().ok(), place);
        let known = last.entry((&rating.rater, pair(item))).or_insert(this);
        *known = this.max(*known);
    }
    kept.extend(last.into_values().map(|(_, place)| place));
    all.into_iter().enumerate().filter(move |(place, _)| kept.contains(place)).map(|(_, item)| item)
}

/// The opinions of a file, which need not exist: who rated a pair twice has one, the later. A line that a killed process left
/// half written is passed over; so is one of another version.
///
/// # Errors
/// The file is there and cannot be read.
pub fn read(path: &Path) -> Result<Vec<Rating>, StoreError> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let (lines, _) = parse_lines::<Rating>(&store::read_text(path)?);
    let known = |rating: &Rating| rating.format == FORMAT && rating.version == FORMAT_VERSION;
    let ratings = lines.into_iter().map(|line| line.value).filter(known).collect();
    Ok(latest(ratings, |rating| rating, Rating::pair).collect())
}

/// Adds one rating.
///
/// # Errors
/// The file cannot be written.
pub fn append(path: &Path, rating: &Rating) -> Result<(), StoreError> {
    append_line(path, rating)
}

/// One session of a rater at a time: two would ask for the same pairs. It is over when the lock is dropped.
///
/// # Errors
/// Another session of the rater runs, or there can be no lock.
pub fn session(workspace: &Workspace, rater: &str) -> Result<Lock, LockError> {
    // A name may be longer than that of a file, and hold any letter.
    let name = text::hex(&Sha256::digest(rater)[..8]);
    Lock::take(&workspace.lock(&format!("rate-{name}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rating(rater: &str, prefers: Choice, at: &str) -> Rating {
        let side = |arm: &str| Side {
            model: arm.into(),
            arm: Some(arm.into()),
            sample: Some(1),
            log: None,
            iteration: None,
            score: Some(7.5),
            files: vec![SourceFile { path: "app.py".into(), content: format!("A = '{arm}'\n") }],
        };
        Rating {
            format: FORMAT.into(),
            version: FORMAT_VERSION,
            at: at.into(),
            rater: rater.into(),
            source: Source::Trial("t-1".into()),
            brief: Brief::from_description("A map").unwrap(),
            a: side("base"),
            b: side("tuned"),
            prefers,
            shown_first: Which::B,
        }
    }

    #[test]
    fn what_is_appended_is_read_and_half_a_line_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data/ratings.jsonl");
        assert_eq!(read(&path).unwrap(), []);
        let first = rating("r1", Choice::Tie, "2026-11-26T12:00:00Z");
        let second = Rating { rater: "r2".into(), ..first.clone() };
        append(&path, &first).unwrap();
        append(&path, &Rating { version: FORMAT_VERSION + 1, ..first.clone() }).unwrap();
        append(&path, &second).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.extend_from_slice(b"{\"format\":\"hone.rat");
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(read(&path).unwrap(), [first, second]);
    }

    #[test]
    fn one_persons_opinion_on_a_pair_counts_once_and_it_is_the_latest() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ratings.jsonl");
        let first = rating("x", Choice::A, "2026-11-26T12:00:00Z");
        let later = rating("x", Choice::B, "2026-11-26T12:00:00.5Z");
        let mut turned = rating("y", Choice::A, "2026-11-26T12:00:00Z");
        std::mem::swap(&mut turned.a, &mut turned.b);
        let again = rating("y", Choice::B, "2026-11-26T12:00:00Z");
        let mut other = first.clone();
        other.b.sample = Some(2);
        let elsewhere = Rating { source: Source::Trial("t-2".into()), ..first.clone() };
        let nobody = rating("", Choice::A, "2026-11-26T12:00:00Z");
        for line in [&later, &first, &turned, &again, &other, &elsewhere, &nobody, &nobody] {
            append(&path, line).unwrap();
        }
        assert_eq!(read(&path).unwrap(), [later, again, other, elsewhere, nobody.clone(), nobody]);
    }

    #[test]
    fn a_rater_has_one_session_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let workspace = Workspace::new(folder.path());
        let first = session(&workspace, "x/../y").unwrap();
        assert!(matches!(session(&workspace, "x/../y"), Err(LockError::Busy { .. })));
        let other = session(&workspace, "z").unwrap();
        drop((first, other));
        session(&workspace, "x/../y").unwrap();
    }

    #[test]
    fn a_choice_is_told_by_what_the_sides_are() {
        let check = |rating: &Rating, expected| assert_eq!(rating.choice(), expected, "{rating:?}");
        let plain = rating("x", Choice::B, "");
        check(&plain, Choice::B);
        let mut turned = plain.clone();
        std::mem::swap(&mut turned.a, &mut turned.b);
        check(&turned, Choice::A);
        check(&Rating { prefers: Choice::Tie, ..turned.clone() }, Choice::Tie);
        let mut log = Rating { source: Source::Logs, ..plain };
        (log.a.iteration, log.b.iteration) = (Some(1), Some(4));
        check(&log, Choice::B);
        std::mem::swap(&mut log.a, &mut log.b);
        check(&log, Choice::A);
    }
}
