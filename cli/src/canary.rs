//! While a canary takes a share of the alias's requests, answers of both sides are run, and a canary that breaks is taken back.

use std::sync::Arc;

use hone::{
    agent,
    brief::Brief,
    critic::{Critic, CriticOptions, Level},
    registry::{Canary, Finding, Limits, RegistryError, Share, Watch},
    store::{self, append_line, parse_lines},
};
use hone_server::{Answer, Answered};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::{commands::evolve, context::Context, error::Result};

/// Answers that wait to be run. Under more load than that some are not: a request never waits for its judgement.
const WAITING: usize = 64;

const FORMAT: &str = "hone.canary";
const VERSION: u32 = 1;

/// A line of `data/canary.jsonl`.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Judged {
    format: String,
    version: u32,
    at: String,
    /// Since when the canary has its share.
    since: String,
    share: Share,
    runs: bool,
    ui_first: bool,
}

/// Where the server puts answers, and where they are taken from.
pub fn channel() -> (Answered, mpsc::Receiver<Answer>) {
    let (sender, receiver) = mpsc::channel(WAITING);
    (Arc::new(move |answer| drop(sender.try_send(answer))), receiver)
}

/// Judges what comes until the server ends. Trouble is told and ends nothing: the server goes on without a judgement.
pub async fn judge(context: &Context, limits: Limits, mut answers: mpsc::Receiver<Answer>) {
    let mut critic: Option<Critic> = None;
    tokio::select! {
        () = context.cancel.cancelled() => {}
        () = judge_with(&mut critic, context, limits, &mut answers) => {}
    }
    if let Some(critic) = critic {
        critic.close().await;
    }
}

async fn judge_with(
    critic: &mut Option<Critic>,
    context: &Context,
    limits: Limits,
    answers: &mut mpsc::Receiver<Answer>,
) {
    let mut watched: Option<(String, Watch)> = None;
    while let Some(answer) = answers.recv().await {
        let judged = async {
            if critic.is_none() {
                *critic = Some(open(context).await?);
            }
            match critic {
                Some(critic) => one(&answer, critic, context).await,
                None => Ok(None),
            }
        };
        let judged = match judged.await {
            Ok(Some(judged)) => judged,
            Ok(None) => continue,
            Err(error) => {
                let hint =
                    "`hone doctor` says what is missing; take it back with `hone rollback` if in doubt";
                context.events.warn(
                    format!("an answer was not judged, so the canary is not watched: {}", error.message),
                    Some(hint.into()),
                );
                continue;
            }
        };
        let watch = match &mut watched {
            Some((since, watch)) if *since == judged.since => watch,
            other => &mut other.insert((judged.since.clone(), so_far(context, &judged.since, limits))).1,
        };
        watch.add(judged.share, judged.runs);
        act(&watch.news(), &judged.since, watch.calls(), context);
    }
}

async fn open(context: &Context) -> Result<Critic> {
    let standards = evolve::critic_options(context, &context.settings_again()?)?;
    evolve::open_critic(context, CriticOptions { workers: 1, ahead: 1, ..standards }).await
}

/// Runs one answer and writes down what became of it; none of what cannot be a request for an app.
async fn one(answer: &Answer, critic: &Critic, context: &Context) -> Result<Option<Judged>> {
    let Ok(brief) = Brief::from_description(&answer.asked) else { return Ok(None) };
    let candidate = agent::parse_reply(&answer.text);
    let (evidence, _) = critic.critique_to(&brief, &candidate, Level::Run).await?;
    let judged = Judged {
        format: FORMAT.into(),
        version: VERSION,
        at: jiff::Timestamp::now().to_string(),
        since: answer.since.clone(),
        share: answer.share,
        runs: evidence.runs(),
        ui_first: evidence.ui_first(),
    };
    append_line(&context.workspace.canary(), &judged)?;
    Ok(Some(judged))
}

/// What an earlier server judged of the same trial run; without the line that is added next.
fn so_far(context: &Context, since: &str, limits: Limits) -> Watch {
    let text = store::read_text(&context.workspace.canary()).unwrap_or_default();
    let (lines, _) = parse_lines::<Judged>(&text);
    let mut watch = Watch::new(limits);
    let mut earlier: Vec<Judged> =
        lines.into_iter().map(|line| line.value).filter(|judged| judged.since == since).collect();
    earlier.pop();
    for judged in earlier {
        watch.add(judged.share, judged.runs);
        // The earlier server said it.
        watch.news();
    }
    watch
}

/// Takes the canary back where that is what was found.
fn act(finding: &Finding, since: &str, calls: (u32, u32), context: &Context) {
    let acted = match finding {
        Finding::Continue => Ok(()),
        Finding::Held | Finding::NoneRan => running(since, context).map(|canary| {
            let Some(canary) = canary else { return };
            let (note, hint) = told(finding, &canary, calls);
            match hint {
                Some(hint) => context.events.warn(note, Some(hint)),
                None => context.events.note(note),
            }
        }),
        Finding::RollBack(why) => take_back(why, since, context).map(|model| {
            let Some(model) = model else { return };
            let hint = "`hone models` shows what it came from, `data/canary.jsonl` its calls".to_owned();
            context.events.warn(format!("the canary `{model}` was taken back: {why}"), Some(hint));
        }),
    };
    if let Err(error) = acted {
        context.events.warn(error.message, error.hints.into_iter().next());
    }
}

/// What is said of a canary that goes on, and what would mend it where something is wrong.
fn told(finding: &Finding, canary: &Canary, (champion, calls): (u32, u32)) -> (String, Option<String>) {
    let Canary { model, forced, .. } = canary;
    if *finding == Finding::NoneRan {
        let note = format!(
            "nothing can be said of the canary `{model}`: of {calls} answers of its own and {champion} of the champion's none \
             ran"
        );
        let hint = "`data/canary.jsonl` has the calls; `hone rollback` ends the canary".to_owned();
        return (note, Some(hint));
    }
    let force = if *forced { " --force" } else { "" };
    (
        format!(
            "the canary `{model}` has held over {calls} judged calls: `hone deploy {model}{force}` promotes it"
        ),
        None,
    )
}

/// The canary that began then, if it still has its share.
fn running(since: &str, context: &Context) -> Result<Option<Canary>> {
    Ok(context.registry()?.canary().filter(|canary| canary.at == since).cloned())
}

/// The model that was taken back, if it still had its share.
fn take_back(why: &str, since: &str, context: &Context) -> Result<Option<String>> {
    let mut registry = context.registry()?;
    if registry.canary().is_none_or(|canary| canary.at != since) {
        return Ok(None);
    }
    match registry.rollback(why, jiff::Timestamp::now()) {
        Ok(entry) => Ok(entry.canary),
        // The next answer finds out whether it is still there.
        Err(RegistryError::Changed { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_a_canary_names_it() {
        let canary =
            |forced| Canary { model: "ft:a".into(), share: 0.1, at: "2026-01-31T12:00:00Z".into(), forced };
        let (note, hint) = told(&Finding::Held, &canary(false), (70, 50));
        assert_eq!(note, "the canary `ft:a` has held over 50 judged calls: `hone deploy ft:a` promotes it");
        assert_eq!(hint, None);
        let (note, _) = told(&Finding::Held, &canary(true), (70, 50));
        assert!(note.ends_with("`hone deploy ft:a --force` promotes it"), "{note}");
        let (note, hint) = told(&Finding::NoneRan, &canary(false), (70, 50));
        assert_eq!(
            note,
            "nothing can be said of the canary `ft:a`: of 50 answers of its own and 70 of the champion's none ran"
        );
        assert!(hint.is_some());
    }
}
