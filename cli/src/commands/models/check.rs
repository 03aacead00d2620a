//! `hone models check`: one tiny call to a row's model, and what came of it.

use std::time::{Duration, Instant};

use clap::Args;
use hone::{
    config::{self, ModelRow, OWN_AGENTS, Settings},
    error::{Explain as _, Kind},
    model::{
        client::{Client, ModelError, Retry},
        journal::Answer,
        price::{Payer, Usd},
        wire::{ChatRequest, Finish, Message, Usage},
    },
};
use serde::Serialize;

use crate::{
    context::Context,
    error::{CommandError, Exit, Result},
    rows,
};

/// Make one tiny call to a row's model and explain the outcome
///
/// The call asks for a word, with an answer of 16 tokens at most; it is the only one that is made. It counts against the
/// budget and stands in the ledger, phase `check`.
#[derive(Debug, Args)]
pub struct Check {
    /// A name under `[models]`.
    row: String,
}

/// Longest answer, in tokens.
const LONGEST: u32 = 16;

/// What is printed as JSON.
#[derive(Debug, Serialize)]
struct Checked {
    row: String,
    provider: String,
    /// Without user, password and query; empty when nothing was sent.
    base_url: String,
    model: String,
    ok: bool,
    outcome: Outcome,
    /// What was answered, or why nothing was.
    detail: String,
    fix: Option<String>,
    took_ms: u64,
    usage: Option<Usage>,
    /// US dollars; absent where no price is known.
    usd: Option<f64>,
    price: Option<config::Price>,
    limits: Limits,
    #[serde(skip)]
    exit: Exit,
}

/// What the row is held to.
#[derive(Debug, Serialize)]
struct Limits {
    concurrency: Option<usize>,
    timeout_s: u64,
    max_tokens: u32,
}

/// A word for scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Ok,
    NoKey,
    BadKey,
    NoQuota,
    UnknownModel,
    Unreachable,
    NotAnApi,
    Refused,
    RateLimited,
    TooLongWait,
    Down,
    NoPrice,
}

pub async fn run(args: &Check, context: &Context) -> Result {
    let settings = context.settings(&[])?;
    let name = &args.row;
    let Some(row) = settings.models.get(name) else {
        let known = settings.models.keys().map(String::as_str);
        return Err(config::ConfigError::NoModel {
            name: name.clone(),
            nearest: config::nearest(name, known),
        }
        .into());
    };
    if OWN_AGENTS.contains(&row.provider.as_str()) {
        let message = format!("`models.{name}` is a program of yours, not a chat model");
        return Err(CommandError::new(Kind::Input, message)
            .hint(format!("`hone generate \"a form\" --agent {name}` tries it")));
    }
    let checked = check(name, row, &settings, context).await?;
    context.answer(&checked, || checked.text())?;
    Ok(checked.exit)
}

async fn check(name: &str, row: &ModelRow, settings: &Settings, context: &Context) -> Result<Checked> {
    let mut endpoint = match rows::endpoint(name, row, context) {
        Ok(endpoint) => endpoint,
        Err(error) if error.kind == Kind::Provider => return Ok(without_key(name, row, settings, error)),
        Err(error) => return Err(error),
    };
    // One more try for a connection that has just gone; the rest is what the user wants to hear of.
    endpoint.retry = Retry { retries: 1, ..Retry::default() };
    let client = Client::new(endpoint)?.cancelled_by(context.cancel.clone());
    if !client.is_local() && settings.budget.usd == 0.0 {
        let message = format!("`models.{name}` is not on this machine, and the budget is 0");
        return Err(
            CommandError::new(Kind::Budget, message).hint("set `usd` under `[budget]` to allow the call")
        );
    }
    let request = ChatRequest {
        max_completion_tokens: Some(LONGEST),
        ..ChatRequest::new(&row.model, vec![Message::user("Say ok.")])
    };
    // An answer of another day tells nothing of today.
    let sample = format!("check {}", jiff::Timestamp::now());
    let journal = context.journal(settings)?.for_row(Payer::new(name, row)).by("check").at("check");
    let started = Instant::now();
    let result = match journal.afford(&client, &row.model) {
        Ok(()) => journal.chat(&client, &request, &sample).await,
        Err(error) => Err(error),
    };
    journal.drain(Duration::ZERO).await;
    let mut checked = Checked::new(name, row, settings, client.address());
    checked.took_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    match result {
        Ok(answer) => checked.answered(&answer),
        Err(ModelError::Cancelled) => return Err(ModelError::Cancelled.into()),
        Err(error) => checked.failed(&error, row),
    }
    Ok(checked)
}

fn without_key(name: &str, row: &ModelRow, settings: &Settings, error: CommandError) -> Checked {
    let mut checked = Checked::new(name, row, settings, String::new());
    checked.outcome = Outcome::NoKey;
    checked.detail = error.message;
    checked.fix = error.hints.into_iter().next();
    checked
}

impl Checked {
    fn new(name: &str, row: &ModelRow, settings: &Settings, base_url: String) -> Self {
        Self {
            row: name.to_owned(),
            provider: row.provider.clone(),
            base_url,
            model: row.model.clone(),
            ok: false,
            outcome: Outcome::Refused,
            detail: String::new(),
            fix: None,
            took_ms: 0,
            usage: None,
            usd: None,
            price: row.price.clone(),
            limits: Limits {
                concurrency: row.concurrency,
                timeout_s: row.timeout_s.unwrap_or(600),
                max_tokens: row.max_tokens.unwrap_or(settings.agent.max_tokens),
            },
            exit: Exit::Provider,
        }
    }

    fn answered(&mut self, Answer { reply, usd, .. }: &Answer) {
        (self.usage, self.usd) = (reply.usage, *usd);
        match reply.finish() {
            Finish::Refused(words) => {
                self.detail = format!("the model declines to answer: {words}");
                self.fix = Some("another model may answer: this one declines even to say \"ok\"".into());
            }
            Finish::Filtered => {
                self.detail = "the provider holds the answer back".into();
                self.fix = Some("see the content filter in the provider's settings".into());
            }
            Finish::Complete | Finish::Length => {
                (self.ok, self.outcome, self.exit) = (true, Outcome::Ok, Exit::Ok);
                self.detail =
                    format!("{} answers", if reply.model.is_empty() { &self.model } else { &reply.model });
            }
        }
    }

    fn failed(&mut self, error: &ModelError, row: &ModelRow) {
        self.outcome = outcome(error);
        self.exit = error.kind().into();
        self.detail = error.to_string();
        self.fix = match self.outcome {
            Outcome::BadKey => rows::key_variable(row)
                .map(|variable| format!("check the key in `{variable}`: the provider does not take it")),
            Outcome::UnknownModel => {
                Some(format!("the provider has no `{}`: correct `model` in the row", row.model))
            }
            _ => None,
        }
        .or_else(|| error.hint());
    }

    fn text(&self) -> String {
        let mut lines = vec![format!("{} {}: {}", if self.ok { "ok" } else { "--" }, self.row, self.detail)];
        lines.extend(self.fix.iter().map(|fix| format!("   fix: {fix}")));
        if let Some(usage) = &self.usage {
            let cost = match self.usd {
                Some(usd) => Usd::of(usd).to_string(),
                None => "cost unknown: the row has no `price`".into(),
            };
            lines.push(format!(
                "   {} + {} tokens, {} ms, {cost}",
                usage.prompt_tokens, usage.completion_tokens, self.took_ms
            ));
        }
        lines.join("\n")
    }
}

/// The word for what went wrong.
fn outcome(error: &ModelError) -> Outcome {
    const NO_QUOTA: [&str; 3] = ["insufficient_quota", "credit_balance_exhausted", "exceeded_quota"];
    match error {
        ModelError::Refused { code: Some(code), .. } if NO_QUOTA.contains(&code.as_str()) => Outcome::NoQuota,
        error if error.is_unknown_model() => Outcome::UnknownModel,
        ModelError::Refused { status, .. } => match status {
            401 => Outcome::BadKey,
            402 => Outcome::NoQuota,
            429 => Outcome::RateLimited,
            500.. => Outcome::Down,
            _ => Outcome::Refused,
        },
        ModelError::Unreachable { .. } | ModelError::TooSlow { .. } => Outcome::Unreachable,
        ModelError::Garbled { .. } => Outcome::NotAnApi,
        ModelError::WaitTooLong { .. } => Outcome::TooLongWait,
        ModelError::Down { .. } => Outcome::Down,
        ModelError::NoPrice { .. } | ModelError::Budget { .. } => Outcome::NoPrice,
        _ => Outcome::Refused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_has_its_word() {
        let refused = |status: u16, code: Option<&str>| {
            let code = code.map(Into::into);
            outcome(&ModelError::Refused {
                provider: "p".into(),
                status,
                code,
                message: "no".into(),
                request_id: None,
            })
        };
        assert_eq!(refused(401, Some("invalid_api_key")), Outcome::BadKey);
        assert_eq!(refused(429, Some("insufficient_quota")), Outcome::NoQuota);
        assert_eq!(refused(402, Some("billing_error")), Outcome::NoQuota);
        assert_eq!(refused(429, None), Outcome::RateLimited);
        assert_eq!(refused(404, Some("model_not_found")), Outcome::UnknownModel);
        assert_eq!(refused(404, Some("not_found_error")), Outcome::UnknownModel);
        assert_eq!(refused(403, None), Outcome::Refused);
        assert_eq!(refused(529, None), Outcome::Down);
        let garbled = ModelError::Garbled { provider: "p".into(), why: "it is a web page".into() };
        assert_eq!(outcome(&garbled), Outcome::NotAnApi);
    }
}
