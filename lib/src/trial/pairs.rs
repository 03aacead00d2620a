//! Which of two answers is better, by a judge or by people: beside the scores, and a gate of its own.
//!
//! The tuned model's first answer to each brief is held against that of the arm that it has to beat. A judge is asked in
//! both orders and only an answer that holds in both counts; people do not see whose answer is whose.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use futures::{StreamExt, stream};
use serde::{Deserialize, Serialize};

use super::{Arm, Row, Trial, TrialError, TrialSpec, stats};
use crate::{
    agent::{Candidate, SourceFile},
    brief::Brief,
    cancel::Cancel,
    critic::{Choice, Contender, CriticError, Critique, Decided, Evidence, Judge, Preference, score},
    rating::{self, Rating, Source},
    store::{append_line, parse_lines, read_text},
};

const FORMAT: &str = "hone.trial.pair";
const VERSION: u32 = 1;

/// How people are called in figures and gates.
pub const PEOPLE: &str = "people";

/// Who is better of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Better {
    Tuned,
    Reference,
    Tie,
}

/// One comparison of two answers to a brief; those of a judge are lines of `pairs.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pair {
    pub format: String,
    pub version: u32,
    pub brief: String,
    /// 0-based.
    pub sample: u32,
    /// The arm that the tuned one is compared with.
    pub reference: String,
    pub better: Better,
    /// How a judge came to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided: Option<Decided>,
    /// A judge's name in the settings, or [`PEOPLE`].
    pub by: String,
}

/// How often the tuned model is preferred.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PairFigures {
    pub by: String,
    /// Briefs; several opinions on one count as one.
    pub n: usize,
    /// Opinions, and those among them that prefer the tuned model and neither.
    pub opinions: usize,
    pub wins: usize,
    pub ties: usize,
    /// Share of the briefs on which the tuned model is preferred, ties as a half, with its 95% Wilson interval.
    pub win_rate: Option<f64>,
    pub low: Option<f64>,
    pub high: Option<f64>,
}

/// Figures of everybody who compared, judges before people.
pub(super) fn figures(pairs: &[Pair]) -> Vec<PairFigures> {
    let who: BTreeSet<(bool, &str)> =
        pairs.iter().map(|pair| (pair.by == PEOPLE, pair.by.as_str())).collect();
    who.into_iter().map(|(_, by)| of(by, pairs.iter().filter(|pair| pair.by == by))).collect()
}

fn of<'a>(by: &str, pairs: impl Iterator<Item = &'a Pair>) -> PairFigures {
    let pairs: Vec<&Pair> = pairs.collect();
    let count = |better| pairs.iter().filter(|pair| pair.better == better).count();
    let share = stats::share_of_briefs(pairs.iter().map(|pair| {
        let for_tuned = match pair.better {
            Better::Tuned => 1.0,
            Better::Tie => 0.5,
            Better::Reference => 0.0,
        };
        (pair.brief.as_str(), for_tuned)
    }));
    PairFigures {
        by: by.to_owned(),
        n: share.n,
        opinions: pairs.len(),
        wins: count(Better::Tuned),
        ties: count(Better::Tie),
        win_rate: share.rate,
        low: share.interval.map(|i| i.0),
        high: share.interval.map(|i| i.1),
    }
}

/// Asks a judge about every brief that both arms answered, in the order of the trial; what an earlier run asked is kept.
/// Each answer is on disk before it counts.
///
/// # Errors
/// What stops a judge at all (a judge without a usable answer gives a tie), a file that cannot be read or written, and a
/// cancel.
pub async fn ask(
    trial: &Trial,
    rows: &[Row],
    judge: &Judge,
    at_once: usize,
    cancel: &Cancel,
) -> Result<Vec<Pair>, TrialError> {
    let spec = trial.spec();
    let reference = spec.reference();
    let known = read(trial, judge.row(), reference)?;
    let missing = spec.briefs.iter().filter(|brief| !known.contains_key(brief.id.as_str()));
    let two = missing.filter_map(|brief| {
        let first = |arm: &str| {
            rows.iter().find(|row| row.brief == brief.id.as_str() && row.arm == arm && row.sample == 0)
        };
        Some((brief, first(Arm::TUNED)?, first(reference)?))
    });
    let asked = stream::iter(two).map(|(brief, tuned, other)| compare(trial, judge, brief, tuned, other));
    let all = asked.buffer_unordered(at_once.max(1)).collect::<Vec<_>>();
    let answers = tokio::select! {
        biased;
        () = cancel.cancelled() => {
            return Err(TrialError::Cancelled { done: rows.len(), total: rows.len() });
        }
        answers = all => answers,
    };
    let mut pairs = known;
    for answer in answers {
        let pair = answer?;
        pairs.insert(pair.brief.clone(), pair);
    }
    Ok(pairs.into_values().collect())
}

fn path(trial: &Trial) -> PathBuf {
    trial.folder().join("pairs.jsonl")
}

/// What a judge said in earlier runs, by brief. A line that a killed process left half-written is asked again.
fn read(trial: &Trial, by: &str, reference: &str) -> Result<BTreeMap<String, Pair>, TrialError> {
    let path = path(trial);
    if !path.exists() {
        return Ok(BTreeMap::new());
    }
    let (lines, _) = parse_lines::<Pair>(&read_text(&path)?);
    let known = lines.into_iter().map(|line| line.value).filter(|pair| {
        (pair.format.as_str(), pair.version) == (FORMAT, VERSION)
            && pair.by == by
            && pair.reference == reference
    });
    Ok(known.map(|pair| (pair.brief.clone(), pair)).collect())
}

/// Asks about one brief and writes the answer down.
async fn compare(
    trial: &Trial,
    judge: &Judge,
    brief: &Brief,
    tuned: &Row,
    other: &Row,
) -> Result<Pair, TrialError> {
    let preference = prefer(judge, brief, tuned, other).await.map_err(|cause| TrialError::Judge {
        arm: tuned.arm.clone(),
        brief: brief.id.to_string(),
        cause: Box::new(cause),
    })?;
    let pair = Pair {
        format: FORMAT.into(),
        version: VERSION,
        brief: brief.id.to_string(),
        sample: 0,
        reference: other.arm.clone(),
        better: better(preference.better),
        decided: Some(preference.decided),
        by: judge.row().to_owned(),
    };
    append_line(&path(trial), &pair)?;
    Ok(pair)
}

async fn prefer(judge: &Judge, brief: &Brief, tuned: &Row, other: &Row) -> Result<Preference, CriticError> {
    let candidates = [tuned, other].map(|row| Candidate { files: row.files.clone() });
    // Evidence that another version of the critic wrote lacks nothing that the judge is shown: the trial's rows are of
    // one critic, and this one reads it.
    let evidence = [tuned, other]
        .map(|row| serde_json::from_value::<Evidence>(row.evidence.clone()).unwrap_or_default());
    let critiques = [0, 1].map(|i| Critique { caps: [tuned, other][i].caps.clone(), ..score(&evidence[i]) });
    let contender =
        |i: usize| Contender { candidate: &candidates[i], evidence: &evidence[i], critique: &critiques[i] };
    judge.prefer(brief, contender(0), contender(1)).await
}

fn better(choice: Choice) -> Better {
    match choice {
        Choice::First => Better::Tuned,
        Choice::Second => Better::Reference,
        Choice::Tie => Better::Tie,
    }
}

/// What people said of this trial's answers, and how many ratings were about other apps.
///
/// A side is known by its arm, or by its files: so ratings that were written elsewhere count too. One person's opinion on
/// one pair counts once, the latest, however many files it was read from.
pub fn of_people(spec: &TrialSpec, rows: &[Row], ratings: &[Rating]) -> (Vec<Pair>, usize) {
    let ours = ratings.iter().filter(|rating| match &rating.source {
        Source::Trial(id) => *id == spec.id,
        Source::Logs => false,
    });
    let (mut opinions, mut strange) = (Vec::new(), 0);
    for rating in ours {
        match opinion(spec, rows, rating) {
            Some(opinion) => opinions.push(opinion),
            None => strange += 1,
        }
    }
    let place = |row: &Row| (row.brief.clone(), row.sample);
    let counted = rating::latest(opinions, |o| o.rating, |o| (place(o.tuned), place(o.reference)));
    (counted.map(|opinion| opinion.pair()).collect(), strange)
}

/// A rating, and the two answers that it is about.
struct Opinion<'a> {
    rating: &'a Rating,
    tuned: &'a Row,
    reference: &'a Row,
    tuned_is_a: bool,
}

fn opinion<'a>(spec: &TrialSpec, rows: &'a [Row], rating: &'a Rating) -> Option<Opinion<'a>> {
    let reference = spec.reference();
    let asked = rating.brief.id.as_str();
    let (a, b) = (side(rows, asked, &rating.a)?, side(rows, asked, &rating.b)?);
    if a.brief != b.brief {
        return None;
    }
    match (a.arm.as_str(), b.arm.as_str()) {
        (Arm::TUNED, other) if other == reference => {
            Some(Opinion { rating, tuned: a, reference: b, tuned_is_a: true })
        }
        (other, Arm::TUNED) if other == reference => {
            Some(Opinion { rating, tuned: b, reference: a, tuned_is_a: false })
        }
        _ => None,
    }
}

impl Opinion<'_> {
    fn pair(&self) -> Pair {
        let better = match (self.rating.prefers, self.tuned_is_a) {
            (rating::Choice::Tie, _) => Better::Tie,
            (rating::Choice::A, true) | (rating::Choice::B, false) => Better::Tuned,
            (rating::Choice::A, false) | (rating::Choice::B, true) => Better::Reference,
        };
        Pair {
            format: FORMAT.into(),
            version: VERSION,
            brief: self.tuned.brief.clone(),
            sample: self.tuned.sample,
            reference: self.reference.arm.clone(),
            better,
            decided: None,
            by: PEOPLE.into(),
        }
    }
}

/// The answer that a person saw. A brief that was written down as a sentence has an id that no row has.
fn side<'a>(rows: &'a [Row], brief: &str, side: &rating::Side) -> Option<&'a Row> {
    let known = rows.iter().any(|row| row.brief == brief);
    let sorted = |files: &[SourceFile]| {
        let mut files = files.to_vec();
        files.sort_by(|a, b| a.path.cmp(&b.path));
        files
    };
    let files = sorted(&side.files);
    let same = |row: &&Row| {
        (!known || row.brief == brief)
            && side.arm.as_ref().is_none_or(|arm| *arm == row.arm)
            && side.sample.is_none_or(|sample| sample == row.sample)
            && sorted(&row.files) == files
    };
    rows.iter().find(same)
}

#[cfg(test)]
#[path = "pairs_tests.rs"]
mod tests;
