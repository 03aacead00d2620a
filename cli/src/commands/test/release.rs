//! `--release`: the sealed briefs, which nobody looks at before a release.
//!
//! Held-out briefs that every round is tested on are learnt sooner or later, not by the model but by whoever chooses among
//! models. The sealed ones are for the one trial that counts, and every opening is written down.

use hone::{
    brief::{self, Brief},
    error::Kind,
    store::{self, Lock},
    trial::{Arm, Trial},
};
use serde::{Deserialize, Serialize};

use crate::{
    context::Context,
    error::{CommandError, Result},
};

/// Answers of each model from which on a claim of 10 points can be made.
const ANSWERS: usize = 150;

const FORMAT: &str = "hone.sealed-opening";
const VERSION: u32 = 1;

/// A line of `data/sealed_openings.jsonl`.
#[derive(Debug, Serialize, Deserialize)]
struct Opening {
    format: String,
    version: u32,
    /// RFC 3339.
    at: String,
    trial: String,
    model: String,
}

/// The held-out briefs and the sealed ones.
///
/// # Errors
/// The workspace's own sealed briefs cannot be read.
pub fn with_sealed(mut heldout: Vec<Brief>, context: &Context) -> Result<Vec<Brief>> {
    heldout.extend(brief::load_sealed(&context.workspace)?);
    Ok(heldout)
}

/// As many answers per brief as a claim needs.
pub fn samples(asked: u32, briefs: usize) -> u32 {
    let needed = ANSWERS.div_ceil(briefs.max(1));
    asked.max(u32::try_from(needed).unwrap_or(u32::MAX))
}

/// Writes down that this trial opens the sealed briefs, and says which did: lines for the report. A trial that is picked
/// up again opens nothing anew.
///
/// # Errors
/// A loop is running, and the file cannot be read or written.
pub fn open(trial: &Trial, context: &Context) -> Result<Vec<(String, String)>> {
    if Lock::take(&context.workspace.lock("loop")).is_err() {
        let message = "the sealed briefs stay closed while a loop runs: what it sees, it selects by";
        return Err(CommandError::new(Kind::Input, message).hint("wait until it is over, then release"));
    }
    let path = context.workspace.sealed_openings();
    let text = if path.exists() { store::read_text(&path)? } else { String::new() };
    let (lines, _) = store::parse_lines::<Opening>(&text);
    let mut openings: Vec<Opening> = lines.into_iter().map(|line| line.value).collect();
    let model = trial.spec().arm(Arm::TUNED).map(|arm| arm.model.clone()).unwrap_or_default();
    if let Some(other) = openings.iter().find(|opening| opening.model != model) {
        let text =
            format!("the sealed briefs were opened for `{}` on {}: they are used up", other.model, other.at);
        context.events.warn(
            text,
            Some("a claim about this model needs sealed briefs of your own in `briefs/sealed.jsonl`".into()),
        );
    }
    if !openings.iter().any(|opening| opening.trial == trial.id()) {
        let at = jiff::Timestamp::now().to_string();
        let opening =
            Opening { format: FORMAT.into(), version: VERSION, at, trial: trial.id().to_owned(), model };
        store::append_line(&path, &opening)?;
        openings.push(opening);
    }
    let said = |opening: Opening| ("Sealed briefs opened".to_owned(), said(&opening));
    Ok(openings.into_iter().map(said).collect())
}

fn said(opening: &Opening) -> String {
    format!("{}, trial {}, for {}", opening.at, opening.trial, opening.model)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_asks_for_150_answers_at_least() {
        for (asked, briefs, expected) in
            [(2, 120, 2), (1, 120, 2), (1, 150, 1), (1, 149, 2), (4, 60, 4), (1, 40, 4)]
        {
            assert_eq!(samples(asked, briefs), expected, "{asked} {briefs}");
        }
    }
}
