//! What a job costs: worked out and held against the budget before it is made, booked once when it has ended.
//!
//! What is held is a bound. A dataset's bytes are more than its tokens in any byte-level vocabulary; for OpenAI's own models
//! the tokens are counted, and a tenth is added for what their templates put around them. A provider that says a price itself
//! is believed.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{FinetuneError, JobRecord, Options, Trainer, records, state::State, trainer::Estimate};
use crate::{
    auto::Auto,
    dataset::{ChatRow, tokens},
    event::Events,
    model::{
        journal::{Journal, Settled},
        price::{Training, Usd},
        wire::{JobRequest, JobStatus, Method},
    },
    store::{StoreError, Workspace, read_text},
    text::thousands,
};

/// What is added to tokens that were counted, in percent.
const AROUND: u64 = 10;

/// Under what a job's money is held, and what its tokens cost. Beside the job on disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Charge {
    pub name: String,
    /// US dollars per million trained tokens; none when it is not known.
    pub per_million: Option<f64>,
}

/// What a job will cost, before it is made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quote {
    pub price: Training,
    pub epochs: u32,
    /// Of the dataset, counted.
    tokens: u64,
    /// Tokens of the dataset at most.
    most_tokens: u64,
}

impl Quote {
    /// Of a dataset at a trainer.
    ///
    /// # Errors
    /// When the dataset cannot be read.
    pub fn of(
        trainer: &Trainer,
        dataset: &Path,
        options: &Options,
        journal: &Journal,
    ) -> Result<Self, FinetuneError> {
        let price = journal.training(trainer.client(), &options.model);
        if price == Training::Free {
            return Ok(Self { price, epochs: 0, tokens: 0, most_tokens: 0 });
        }
        let text = read_text(dataset)?;
        let lines = || text.lines().filter(|line| !line.trim().is_empty());
        let tokens: u64 = lines().map(tokens_of).sum();
        let most_tokens = match trainer.client().endpoint().access.provider.name {
            "openai" | "azure" => tokens + (tokens * AROUND).div_ceil(100),
            _ => text.len() as u64,
        };
        let epochs = match options.hyperparameters.n_epochs {
            Auto::Fixed(epochs) => epochs,
            Auto::Auto => trainer.shape().auto_epochs(lines().count()),
        };
        Ok(Self { price, epochs, tokens, most_tokens })
    }

    fn likely(&self) -> Option<Usd> {
        self.price.cost(self.tokens.saturating_mul(self.epochs.into()))
    }

    /// The most that it can cost, unless the provider says a price of its own.
    pub fn worst(&self) -> Option<Usd> {
        self.price.cost(self.most_tokens.saturating_mul(self.epochs.into()))
    }

    /// The request with a number in place of `auto`, where passes cost money: what was held for is what is trained.
    pub fn fixed(&self, request: JobRequest) -> JobRequest {
        if self.price == Training::Free {
            return request;
        }
        let fix = |method: Method| match method.hyperparameters().cloned() {
            Some(mut numbers)
                if numbers.n_epochs.is_auto() && (method.is_supervised() || method.is_dpo()) =>
            {
                numbers.n_epochs = Auto::Fixed(self.epochs);
                match method.is_dpo() {
                    true => Method::dpo(numbers, method.beta()),
                    false => Method::supervised(numbers),
                }
            }
            _ => method,
        };
        JobRequest { method: request.method.map(fix), ..request }
    }

    /// Says what it will cost.
    pub fn tell(&self, model: &str, estimate: Option<&Estimate>, row: &str, events: &Events) {
        match (estimate, self.price) {
            (Some(estimate), _) => {
                events.note(format!("`{row}` estimates {} for this job", Usd::of(estimate.usd)));
            }
            (None, Training::Free) => {}
            (None, Training::Unknown) => events.note(format!(
                "what training `{model}` at `{row}` costs is unknown: neither the row nor a table of prices says it"
            )),
            (None, Training::Known(price)) => {
                let [likely, worst] = [self.likely(), self.worst()].map(Option::unwrap_or_default);
                events.note(format!(
                    "training costs about {likely}: {} tokens, {} epochs, {} per million; at most {worst} is held for it",
                    thousands(self.tokens),
                    self.epochs,
                    Usd::of(price)
                ));
            }
        }
    }

    /// What is kept beside the job.
    pub fn charge(&self, name: &str) -> Charge {
        let per_million = match self.price {
            Training::Known(price) => Some(price),
            Training::Free | Training::Unknown => None,
        };
        Charge { name: name.to_owned(), per_million }
    }
}

fn tokens_of(line: &str) -> u64 {
    let counted = match serde_json::from_str::<ChatRow>(line) {
        Ok(row) => tokens::chat_tokens(&row.messages),
        Err(_) => tokens::text_tokens(line),
    };
    counted as u64
}

/// Books what jobs of this workspace have cost that were seen to end. Each is booked once, whoever looks when.
///
/// Money that is held for a job of which nothing is on disk any more counts as lost.
///
/// # Errors
/// When the journal cannot be read or written.
pub fn book(workspace: &Workspace, journal: &Journal) -> Result<(), StoreError> {
    let held = journal.held()?;
    if held.is_empty() {
        return Ok(());
    }
    // In this order: a start writes what it begins, holds, writes the job's record and ends what it began.
    let launching = State::read(&workspace.finetune()).and_then(|state| state.launching?.charge);
    let records = records(workspace);
    for name in held {
        let is_it = |charge: &Option<Charge>| charge.as_ref().is_some_and(|charge| charge.name == name);
        match records.iter().find(|record| is_it(&record.charge)) {
            Some(record) if !record.last.status.is_terminal() => {}
            Some(record) => {
                journal.settle(&name, cost(record))?;
            }
            None if is_it(&launching) => {}
            None => {
                journal.settle(&name, Settled::Lost)?;
            }
        }
    }
    Ok(())
}

/// What a job that is over has cost: what its tokens cost where the provider counts them, nothing where it failed or never
/// ran, and otherwise what was held.
fn cost(record: &JobRecord) -> Settled {
    let price = record.charge.as_ref().and_then(|charge| charge.per_million);
    let counted = record.last.trained_tokens.filter(|tokens| *tokens > 0);
    match (counted, price, &record.last.status) {
        (Some(tokens), Some(price), _) => Settled::Paid { usd: Training::Known(price).cost(tokens), tokens },
        (Some(tokens), None, _) => Settled::AsHeld { tokens },
        (None, _, JobStatus::Failed) => Settled::Nothing,
        (None, _, JobStatus::Cancelled) if !record.ran => Settled::Nothing,
        (None, _, JobStatus::Cancelled) => Settled::Lost,
        (None, _, _) => Settled::AsHeld { tokens: 0 },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::wire::Job;

    #[test]
    fn what_ended_how_costs_what() {
        let check =
            |status: JobStatus, tokens: Option<u64>, price: Option<f64>, ran: bool, expected: Settled| {
                let last =
                    Job { status, trained_tokens: tokens, ..Job::new("j", &JobRequest::default(), 0, 0) };
                let charge = Some(Charge { name: "n".into(), per_million: price });
                let record = JobRecord { charge, ran, ..JobRecord::new("row", &last, "k".into(), None) };
                assert_eq!(cost(&record), expected, "{:?} {tokens:?} {price:?} {ran}", record.last.status);
            };
        let paid = |nanos, tokens| Settled::Paid { usd: Some(Usd::from_nanos(nanos)), tokens };
        check(JobStatus::Succeeded, Some(1_000), Some(25.0), true, paid(25_000_000, 1_000));
        check(JobStatus::Succeeded, Some(1_000), None, true, Settled::AsHeld { tokens: 1_000 });
        check(JobStatus::Succeeded, None, Some(25.0), true, Settled::AsHeld { tokens: 0 });
        check(JobStatus::Failed, None, Some(25.0), true, Settled::Nothing);
        check(JobStatus::Failed, Some(0), Some(25.0), true, Settled::Nothing);
        check(JobStatus::Cancelled, None, Some(25.0), false, Settled::Nothing);
        check(JobStatus::Cancelled, None, Some(25.0), true, Settled::Lost);
        check(JobStatus::Cancelled, Some(10), Some(25.0), true, paid(250_000, 10));
    }
}
