use std::{
    io::Write,
    path::{Path, PathBuf},
};

use clap::{Args, builder::NonEmptyStringValueParser};
use hone::{
    calibrate::{self, Offer},
    cancel::Cancel,
    error::Kind,
    rating::{self, Choice},
    store::{Lock, LockError, write_atomic},
};
use serde_json::json;

use crate::{
    commands::test,
    context::Context,
    error::{CommandError, Result},
};

/// Who has no name of their own.
const ME: &str = "me";

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
    #[arg(long, value_name = "NAME", default_value = ME, value_parser = NonEmptyStringValueParser::new())]
    rater: String,
    /// Show each pair as a page with pictures too, in this file
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "rate.html")]
    page: Option<PathBuf>,
    /// What all ratings say: win rates, agreement with the critic and among people
    #[arg(long)]
    summary: bool,
}

pub async fn run(args: &Rate, context: &Context) -> Result {
    let path = context.workspace.ratings();
    if args.summary {
        let sum = calibrate::ratings(&rating::read(&path)?);
        return context.answer(&sum, || sum.text());
    }
    let trial = trial(args, context)?;
    let _session = session(&args.rater, context)?;
    let before = rating::read(&path)?;
    let offers =
        calibrate::offers(&context.workspace, trial.as_deref(), &args.rater, context.global.seed, &before);
    if offers.is_empty() {
        return Err(none(trial.as_deref(), &args.rater, !before.is_empty()));
    }
    let of = offers.len().min(args.limit.unwrap_or(usize::MAX));
    let (mut answered, mut skipped) = (0, 0);
    for (offer, number) in offers.into_iter().take(of).zip(1..) {
        show(&offer, number, of, args)?;
        match ask(line, &context.cancel).await {
            Answer::Prefers(choice) => {
                rating::append(&path, &offer.rated(choice, &args.rater, jiff::Timestamp::now()))?;
                answered += 1;
            }
            Answer::Skip => skipped += 1,
            Answer::Quit => break,
            Answer::Stop => return Err(stopped(answered, &path, &again(args, trial.as_deref(), context))),
        }
    }
    let value =
        json!({ "rated": answered, "skipped": skipped, "left": of - answered - skipped, "ratings": path });
    context.answer(&value, || {
        format!("{answered} rated, {skipped} skipped; `hone rate --summary` says what all ratings say")
    })
}

/// Two sessions under one name would ask for the same pairs.
fn session(rater: &str, context: &Context) -> Result<Lock> {
    rating::session(&context.workspace, rater).map_err(|error| match error {
        LockError::Busy { owner, .. } => CommandError::new(
            Kind::Environment,
            format!("`{rater}` is comparing apps already, in process {owner}"),
        )
        .hint("end that session first; `--rater NAME` begins as somebody else"),
        error @ LockError::Store(_) => error.into(),
    })
}

fn stopped(answered: usize, path: &Path, again: &str) -> CommandError {
    let message = format!("stopped; {answered} rated, and every answer is in `{}`", path.display());
    CommandError::new(Kind::Cancelled, message).hint(format!("`{again}` goes on"))
}

/// The command that goes on. It names the trial, because `last` may be another by then.
fn again(args: &Rate, trial: Option<&str>, context: &Context) -> String {
    let dir = &context.global.dir;
    let dir = (dir != Path::new(".")).then(|| dir.display().to_string());
    let rater = (args.rater != ME).then(|| args.rater.clone());
    let page = args.page.as_ref().map(|page| page.display().to_string());
    let flags = [("--trial", trial.map(str::to_owned)), ("--rater", rater), ("--page", page), ("-C", dir)];
    let given = flags.iter().filter_map(|(flag, value)| Some(format!(" {flag} {}", quoted(value.as_ref()?))));
    format!("hone rate{}", given.collect::<String>())
}

/// A word for a shell.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@=+,".contains(c);
    if word.chars().all(plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', "'\\''")) }
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
        Some(id) if is_name(id) && context.workspace.trials().join(id).is_dir() => Ok(Some(id.to_owned())),
        Some(id) => Err(CommandError::new(Kind::Input, format!("there is no trial `{id}`"))
            .hint("`--trial last` is the newest; `data/trials` holds them all")),
        None => Ok(None),
    }
}

/// Whether it is the name of a folder, and no path to one.
fn is_name(id: &str) -> bool {
    Path::new(id).file_name().is_some_and(|name| name == id)
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
    /// A signal came.
    Stop,
}

/// The next line of the input; none at its end. Another thread waits for it: a read from a terminal is begun anew after a signal,
/// and whoever waits in it does not notice one.
async fn line() -> Option<String> {
    tokio::task::spawn_blocking(|| std::io::stdin().lines().next()?.ok()).await.ok()?
}

/// The next answer that is one. The end of the input ends the session.
async fn ask(line: impl AsyncFn() -> Option<String>, cancel: &Cancel) -> Answer {
    loop {
        say("which do you prefer? [a/b/t/s/q] ");
        let line = tokio::select! {
            biased;
            () = cancel.cancelled() => {
                say("\n");
                return Answer::Stop;
            }
            line = line() => line,
        };
        let Some(line) = line else { return Answer::Quit };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_signal_ends_the_wait_for_an_answer() {
        let cancel = Cancel::new();
        let waiting = ask(std::future::pending, &cancel);
        let (answer, ()) = tokio::join!(waiting, async { cancel.cancel() });
        assert!(matches!(answer, Answer::Stop));
        let other = Cancel::new();
        let answer = ask(async || Some(" T\n".to_owned()), &other).await;
        assert!(matches!(answer, Answer::Prefers(Choice::Tie)));
        assert!(matches!(ask(async || None, &other).await, Answer::Quit));
    }

    #[test]
    fn a_trial_is_named_and_no_path() {
        let check = |id: &str, expected: bool| assert_eq!(is_name(id), expected, "`{id}`");
        check("t-1", true);
        for path in ["", ".", "..", "t-1/", "/", "a/b", "../trials/t-1"] {
            check(path, false);
        }
    }

    #[test]
    fn words_are_quoted_for_a_shell() {
        assert_eq!(quoted("t-1"), "t-1");
        assert_eq!(quoted("Ann's page"), r"'Ann'\''s page'");
    }
}
