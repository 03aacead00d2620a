//! What ends a loop.

use serde::{Deserialize, Serialize};

use super::{Diversity, Round};
use crate::trial::{self, Verdict};

/// A critic whose anchors moved by so much in the mean is no longer the one that scored the first round.
const DRIFT: f64 = 0.3;
/// Rounds in a row without a promotion.
const PATIENCE: usize = 2;

/// The probability of a wrong promotion that a round may spend: shares of the usual budget that sum up to it over however many
/// rounds there will be.
pub fn alpha(round: u32) -> f64 {
    let number = f64::from(round.max(1));
    trial::ALPHA * 6.0 / (std::f64::consts::PI * number).powi(2)
}

/// Why a loop ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    RoundsDone,
    NoGain,
    DiversityFell,
    CriticDrifted,
    NoNewRows,
    NoFreshBriefs,
    RolledBack,
}

impl Reason {
    /// In words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RoundsDone => "rounds done",
            Self::NoGain => "no gain in two rounds",
            Self::DiversityFell => "diversity fell",
            Self::CriticDrifted => "the critic drifted",
            Self::NoNewRows => "no new rows",
            Self::NoFreshBriefs => "no fresh briefs",
            Self::RolledBack => "rolled back",
        }
    }

    /// What to do next, after rounds of which one at least gave a model that was promoted, or none did.
    fn hint(self, promoted: bool) -> &'static str {
        match self {
            Self::RoundsDone if promoted => {
                "before others rely on the model, `hone test --release` asks the sealed briefs too, which no round opens"
            }
            Self::RoundsDone => {
                "no model was promoted: the report of the last trial says why, and more rounds (`--rounds N`) or briefs may show more"
            }
            Self::NoGain => {
                "another base model or teacher may give more than another round; `--keep-going` runs one anyway"
            }
            Self::DiversityFell => {
                "add briefs of other kinds to `briefs/train.jsonl`; `--keep-going` runs another round anyway"
            }
            Self::CriticDrifted => {
                "its scores do not compare with earlier rounds': bring the critic back to what it was, or begin a new workspace with `-C DIR`"
            }
            Self::NoNewRows => {
                "`hone prepare` says why candidates are left out; add other briefs to `briefs/train.jsonl`"
            }
            Self::NoFreshBriefs => {
                "add briefs to `briefs/train.jsonl`: every one was evolved in an earlier round"
            }
            Self::RolledBack => "look at the report of its trial; `--keep-going` runs another round anyway",
        }
    }
}

/// The end of a loop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stop {
    /// The last round that was begun, or would have been.
    pub round: u32,
    pub reason: Reason,
    /// The figures behind it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

impl Stop {
    /// `stopped in round 2: no new rows (...)`.
    pub fn sentence(&self) -> String {
        let detail = if self.detail.is_empty() { String::new() } else { format!(" ({})", self.detail) };
        format!("stopped in round {}: {}{detail}", self.round, self.reason.as_str())
    }

    /// What to do next, after these rounds.
    pub fn hint(&self, rounds: &[Round]) -> &'static str {
        let verdicts = rounds.iter().filter_map(|round| round.result.as_ref());
        self.reason.hint(verdicts.into_iter().any(|result| result.verdict == Verdict::Promote))
    }
}

/// A point of a round at which it may end.
#[derive(Clone, Debug, PartialEq)]
pub enum Moment {
    /// Before a round begins, with the briefs that are left for it.
    Opening { fresh: usize },
    /// The anchors were scored again: the mean change, or why they do not compare at all.
    Anchored(Result<f64, String>),
    /// The dataset is made, with so many rows of this round's briefs.
    Prepared { new_rows: usize },
    /// The round is over.
    Ended,
}

/// Whether a loop ends here. `rounds` are those so far, this one included once it is over; `wanted` is how many there shall be;
/// `keep_going` passes over what a person may decide otherwise.
pub fn look(rounds: &[Round], round: u32, wanted: u32, keep_going: bool, moment: &Moment) -> Option<Stop> {
    let stop = |reason, detail| Some(Stop { round, reason, detail });
    match moment {
        Moment::Opening { fresh: 0 } => stop(Reason::NoFreshBriefs, String::new()),
        Moment::Anchored(Err(why)) => stop(Reason::CriticDrifted, why.clone()),
        Moment::Anchored(Ok(change)) if change.abs() >= DRIFT => stop(
            Reason::CriticDrifted,
            format!("the anchors moved by {change:+.2}, {DRIFT} at most is noise"),
        ),
        // A round that has none adds nothing to what the last model was trained on.
        Moment::Prepared { new_rows: 0 } => stop(Reason::NoNewRows, String::new()),
        Moment::Ended => {
            let worse = || harm(rounds).filter(|_| !keep_going);
            let (reason, detail) =
                worse().or_else(|| (round >= wanted).then(|| (Reason::RoundsDone, String::new())))?;
            stop(reason, detail)
        }
        Moment::Opening { .. } | Moment::Anchored(Ok(_)) | Moment::Prepared { .. } => None,
    }
}

/// What speaks against another round after the last one.
fn harm(rounds: &[Round]) -> Option<(Reason, String)> {
    type Read = fn(&Round) -> Option<Diversity>;

    let verdicts: Vec<Verdict> =
        rounds.iter().filter_map(|round| Some(round.result.as_ref()?.verdict)).collect();
    let last = rounds.last()?;
    if verdicts.last() == Some(&Verdict::RollBack) {
        return Some((Reason::RolledBack, String::new()));
    }
    let of: [(&str, Read); 2] =
        [("what it learns from", |round| round.taught), ("its answers", |round| round.answered)];
    for (what, read) in of {
        let first = rounds.iter().find_map(read);
        if let Some(fall) = read(last).and_then(|now| now.fall(&first?)) {
            let detail = format!("{what}: {} from {:.2} to {:.2}", fall.of, fall.before, fall.now);
            return Some((Reason::DiversityFell, detail));
        }
    }
    let without = verdicts.iter().rev().take_while(|verdict| **verdict != Verdict::Promote).count();
    (without >= PATIENCE).then(|| (Reason::NoGain, String::new()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(rounds: &[Round], round: u32, wanted: u32, moment: Moment) -> Option<Reason> {
        look(rounds, round, wanted, false, &moment).map(|stop| stop.reason)
    }

    fn ended(verdicts: &[Verdict]) -> Vec<Round> {
        (1..).zip(verdicts).map(|(number, verdict)| Round::ended(number, *verdict)).collect()
    }

    #[test]
    fn the_shares_of_all_rounds_are_the_usual_budget() {
        assert!((alpha(1) - 0.0304).abs() < 1e-4 && (alpha(2) - 0.0076).abs() < 1e-4);
        let spent: f64 = (1..100_000).map(alpha).sum();
        assert!(spent < trial::ALPHA && spent > 0.0499, "{spent}");
    }

    #[test]
    fn each_moment_has_its_reason() {
        let none = &[];
        assert_eq!(reason(none, 1, 3, Moment::Opening { fresh: 4 }), None);
        assert_eq!(reason(none, 1, 3, Moment::Opening { fresh: 0 }), Some(Reason::NoFreshBriefs));
        assert_eq!(reason(none, 2, 3, Moment::Anchored(Ok(-0.29))), None);
        assert_eq!(reason(none, 2, 3, Moment::Anchored(Ok(-0.31))), Some(Reason::CriticDrifted));
        let other = look(none, 2, 3, true, &Moment::Anchored(Err("critic 4 is not 3".into()))).unwrap();
        assert_eq!(other.sentence(), "stopped in round 2: the critic drifted (critic 4 is not 3)");
        assert_eq!(reason(none, 2, 3, Moment::Prepared { new_rows: 1 }), None);
        assert_eq!(reason(none, 2, 3, Moment::Prepared { new_rows: 0 }), Some(Reason::NoNewRows));
    }

    #[test]
    fn a_round_that_is_over_ends_the_loop_for_its_verdicts() {
        use Verdict::{Hold, Promote, RollBack};
        let check = |verdicts: &[Verdict], wanted, expected| {
            let rounds = ended(verdicts);
            assert_eq!(reason(&rounds, rounds.len() as u32, wanted, Moment::Ended), expected, "{verdicts:?}");
        };
        check(&[Promote], 1, Some(Reason::RoundsDone));
        check(&[Promote], 2, None);
        check(&[Hold], 3, None);
        check(&[Hold, Promote, Hold], 5, None);
        check(&[Promote, Hold, Hold], 5, Some(Reason::NoGain));
        check(&[Promote, RollBack], 5, Some(Reason::RolledBack));
        let rounds = ended(&[Promote, Hold, Hold]);
        assert_eq!(look(&rounds, 3, 5, true, &Moment::Ended), None, "a person decided to go on");
        let done = look(&rounds, 3, 3, true, &Moment::Ended).unwrap();
        assert_eq!(done.reason, Reason::RoundsDone);
        assert!(done.hint(&rounds).contains("hone test --release"));
        assert!(done.hint(&ended(&[Hold])).contains("no model was promoted"), "nothing is there to release");
    }

    #[test]
    fn variety_that_is_lost_ends_it() {
        let varied = Diversity { apps: 20, distinct: 0.9, entropy: 4.0 };
        let mut rounds = ended(&[Verdict::Promote, Verdict::Promote]);
        rounds[0].answered = Some(varied);
        rounds[1].answered = Some(Diversity { distinct: 0.5, ..varied });
        let stop = look(&rounds, 2, 3, false, &Moment::Ended).unwrap();
        assert_eq!(
            stop.sentence(),
            "stopped in round 2: diversity fell (its answers: different apps among all from 0.90 to 0.50)"
        );
        rounds[1].answered = Some(varied);
        assert_eq!(look(&rounds, 2, 3, false, &Moment::Ended), None);
    }
}
