//! `--release`: the sealed briefs, which nobody looks at before a release.
//!
//! Held-out briefs that every round is tested on are learnt sooner or later, not by the model but by whoever chooses among
//! models. The sealed ones are for the one trial that counts, and every opening is written down.

use hone::{
    brief::{self, Brief},
    error::{Explain, Kind},
    store::{self, Lock, LockError},
    trial::{Arm, Generation, Opened, Trial, TrialError, TrialSpec},
};
use serde::{Deserialize, Serialize};

use crate::{
    context::Context,
    error::{CommandError, Result},
};

/// Answers of each model at least. How small a difference they show depends on how often the models differ: the report says.
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

/// As many answers per brief as make up [`ANSWERS`].
pub fn samples(asked: u32, briefs: usize) -> u32 {
    let needed = ANSWERS.div_ceil(briefs.max(1));
    asked.max(u32::try_from(needed).unwrap_or(u32::MAX))
}

/// Opens the trial, and with it the sealed briefs; lines for the report say who did before. Until that is written down no loop
/// starts.
///
/// # Errors
/// A loop is running, an arm cannot be asked, and files that cannot be read or written.
pub async fn open<E: Explain + Send + Sync + 'static>(
    spec: &TrialSpec,
    generate: impl AsyncFn(&Arm, &Brief, u32) -> std::result::Result<Generation, E>,
    context: &Context,
) -> Result<(Opened, Vec<(String, String)>)> {
    let _no_loop = while_no_loop_runs(context)?;
    first_answers(spec, generate).await?;
    let opened = Trial::open(&context.workspace.trials(), spec)?;
    let openings = record(&opened.trial, context)?;
    Ok((opened, openings))
}

fn while_no_loop_runs(context: &Context) -> Result<Lock> {
    Lock::take(&context.workspace.lock("loop")).map_err(|e| match e {
        LockError::Busy { owner, .. } => {
            let message = format!(
                "the sealed briefs stay closed while a loop runs (process {owner}): what it sees, it selects by"
            );
            CommandError::new(Kind::Environment, message).hint("wait until it is over, then release")
        }
        e => e.into(),
    })
}

/// One answer of every arm to a brief that is not sealed: a model that does not exist, or that cannot be asked, must not use
/// the sealed ones up. The answers are the trial's own, and are not asked for again.
async fn first_answers<E: Explain + Send + Sync + 'static>(
    spec: &TrialSpec,
    generate: impl AsyncFn(&Arm, &Brief, u32) -> std::result::Result<Generation, E>,
) -> Result<()> {
    let Some(brief) = spec.briefs.first() else { return Ok(()) };
    // At once, so that where they come in batches they are one.
    let answers = spec.arms.iter().map(async |arm| match generate(arm, brief, 0).await {
        Ok(_) => Ok(()),
        Err(e) => Err(TrialError::Generate {
            arm: arm.name.clone(),
            brief: brief.id.to_string(),
            cause: Box::new(e),
        }),
    });
    futures::future::try_join_all(answers).await?;
    Ok(())
}

/// Writes down that this trial opens the sealed briefs, and says which did: lines for the report. A trial that is picked
/// up again opens nothing anew.
fn record(trial: &Trial, context: &Context) -> Result<Vec<(String, String)>> {
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
