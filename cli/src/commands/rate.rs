use std::{
    io::{BufRead, Write},
    path::PathBuf,
};

use clap::Args;
use hone::{
    calibrate::{self, Offer},
    error::Kind,
    rating::{self, Choice},
    store::write_atomic,
};
use serde_json::json;

use crate::{
    commands::test,
    context::Context,
    error::{CommandError, Result},
};

/// Say which of two apps you prefer, without knowing who wrote them
///
/// Each answer is a line of `data/ratings.jsonl`, written before the next pair is shown: stop whenever you like and go on later.
/// Answers on training briefs become preference pairs; those of a trial stand in its report. Answers are `a`, `b`, `t` (a
/// tie), `s` (skip) and `q` (quit), a line each.
#[derive(Clone, Debug, Args)]
pub struct Rate {
    /// Compare the answers of this trial, `last` for the newest, instead of apps of evolution logs
    #[arg(long, value_name = "ID")]
    trial: Option<String>,
    /// Pairs at most
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Your name in the record: whoever has another sees other pairs first
    #[arg(long, value_name = "NAME", default_value = "me")]
    rater: String,
    /// Show each pair as a page with pictures too, in this file
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "rate.html")]
    page: Option<PathBuf>,
    /// What all ratings say: win rates, agreement with the critic and among people
    #[arg(long)]
    summary: bool,
}

pub fn run(args: &Rate, context: &Context) -> Result {
    let path = context.workspace.ratings();
    let before = rating::read(&path)?;
    if args.summary {
        let sum = calibrate::ratings(&before);
        return context.answer(&sum, || sum.text());
    }
    let trial = trial(args, context)?;
    let offers =
        calibrate::offers(&context.workspace, trial.as_deref(), &args.rater, context.global.seed, &before);
    if offers.is_empty() {
        return Err(none(trial.as_deref(), &args.rater, !before.is_empty()));
    }
    let of = offers.len().min(args.limit.unwrap_or(usize::MAX));
    let (mut answered, mut skipped) = (0, 0);
    let mut lines = std::io::stdin().lock().lines();
    for (offer, number) in offers.into_iter().take(of).zip(1..) {
        show(&offer, number, of, args)?;
        match ask(&mut lines) {
            Answer::Prefers(choice) => {
                rating::append(&path, &offer.rated(choice, &args.rater, jiff::Timestamp::now()))?;
                answered += 1;
            }
            Answer::Skip => skipped += 1,
            Answer::Quit => break,
        }
    }
    let value =
        json!({ "rated": answered, "skipped": skipped, "left": of - answered - skipped, "ratings": path });
    context.answer(&value, || {
        format!("{answered} rated, {skipped} skipped; `hone rate --summary` says what all ratings say")
    })
}

/// The trial that is meant; none for the logs.
fn trial(args: &Rate, context: &Context) -> Result<Option<String>> {
    match args.trial.as_deref() {
        Some("last") => {
            test::warn_of_unreadable_summaries(context);
            match hone::trial::last_summary(&context.workspace.trials(), None) {
                Some(summary) => Ok(Some(summary.trial)),
                None => Err(CommandError::new(Kind::Input, "there is no finished trial")
                    .hint("`hone test` makes one; without `--trial` apps of evolution logs are compared")),
            }
        }
        Some(id) if context.workspace.trials().join(id).is_dir() => Ok(Some(id.to_owned())),
        Some(id) => Err(CommandError::new(Kind::Input, format!("there is no trial `{id}`"))
            .hint("`--trial last` is the newest; `data/trials` holds them all")),
        None => Ok(None),
    }
}

fn none(trial: Option<&str>, rater: &str, rated: bool) -> CommandError {
    let of = trial.map_or_else(|| "the logs".to_owned(), |id| format!("trial `{id}`"));
    let message = format!("{of} have no pair that `{rater}` has still to compare");
    let hint = match (trial, rated) {
        (_, true) => {
            "`hone rate --summary` says what the ratings say; `--rater NAME` begins as somebody else"
        }
        (Some(_), false) => "both models have to have answered: `hone test` goes on with it",
        (None, false) => "`hone evolve` makes apps to compare",
    };
    CommandError::new(Kind::Input, message).hint(hint)
}

/// On stderr, so that data on stdout stays data.
fn show(offer: &Offer, number: usize, of: usize, args: &Rate) -> Result<()> {
    if let Some(path) = &args.page {
        let page = calibrate::page(offer, number, of)
            .map_err(|e| CommandError::new(Kind::Internal, format!("the page cannot be made: {e}")))?;
        write_atomic(path, page.as_bytes())?;
        say(&format!("pair {number} of {of} is in `{}` (load it anew)\n", path.display()));
    } else {
        say(&format!("{}\n", calibrate::terminal(offer, number, of)));
    }
    Ok(())
}

enum Answer {
    Prefers(Choice),
    Skip,
    Quit,
}

/// The next answer that is one. The end of the input ends the session.
fn ask(lines: &mut impl Iterator<Item = std::io::Result<String>>) -> Answer {
    loop {
        say("which do you prefer? [a/b/t/s/q] ");
        let Some(Ok(line)) = lines.next() else { return Answer::Quit };
        match line.trim().to_lowercase().as_str() {
            "a" => return Answer::Prefers(Choice::A),
            "b" => return Answer::Prefers(Choice::B),
            "t" => return Answer::Prefers(Choice::Tie),
            "s" => return Answer::Skip,
            "q" => return Answer::Quit,
            _ => say("a: the first; b: the second; t: a tie; s: skip; q: quit\n"),
        }
    }
}

fn say(text: &str) {
    let mut stderr = std::io::stderr();
    let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
}
