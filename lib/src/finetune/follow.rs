//! Watching a job: what it says becomes events, its end becomes a result.

use std::time::Duration;

use super::FinetuneError;
use crate::{
    cancel::Cancel,
    error::{Explain, Kind},
    event::{Event, Events},
    model::{
        client::{Client, ModelError},
        wire::{Job, JobEvent, JobStatus},
    },
    store::{StoreError, Workspace, write_atomic},
};

/// Between two looks at a job on this machine, and at a provider's.
const LOCAL_INTERVAL: Duration = Duration::from_millis(300);
const HOSTED_INTERVAL: Duration = Duration::from_secs(10);
/// Looks at a provider's job that may fail in a row: it trains on while we cannot see it.
const HOSTED_TROUBLES: u32 = 20;

/// Reports a job until it is over: each line of its history once, each step as [`Event::Step`]. On success the model's id
/// is in `data/finetuned_model_id.txt`.
///
/// # Errors
/// When the job failed or was cancelled, or the provider is out of reach. When `cancel` is given, following ends with
/// [`FinetuneError::Detached`] and the job goes on.
pub async fn follow(
    client: &Client,
    workspace: &Workspace,
    job: &str,
    events: &Events,
    cancel: &Cancel,
) -> Result<Job, FinetuneError> {
    let client = client.clone().cancelled_by(cancel.clone());
    let interval = if client.is_local() { LOCAL_INTERVAL } else { HOSTED_INTERVAL };
    let mut seen = Seen { job: job.to_owned(), event: None, status: None };
    let mut troubles = 0;
    loop {
        match seen.look(&client, events).await {
            Ok(job) if job.status.is_terminal() => return over(job, workspace, client.is_local()),
            Ok(_) => troubles = 0,
            Err(ModelError::Cancelled) => return Err(FinetuneError::Detached { job: job.to_owned() }),
            Err(error) => {
                troubles += 1;
                let passing =
                    error.kind() == Kind::Provider && error.status().is_none_or(|status| status >= 429);
                if client.is_local() || !passing || troubles > HOSTED_TROUBLES {
                    return Err(error.into());
                }
                events
                    .warn(format!("the job cannot be seen: {error}"), Some("the job itself goes on".into()));
            }
        }
        tokio::select! {
            () = cancel.cancelled() => return Err(FinetuneError::Detached { job: job.to_owned() }),
            () = tokio::time::sleep(interval) => {}
        }
    }
}

/// How much of a job's story was told.
struct Seen {
    job: String,
    event: Option<String>,
    status: Option<JobStatus>,
}

impl Seen {
    /// Fetches the job, then what it has said since: after its end there is nothing more to come.
    async fn look(&mut self, client: &Client, events: &Events) -> Result<Job, ModelError> {
        let job = client.job(&self.job).await?;
        let news = client.events(&self.job, self.event.as_deref()).await?;
        for event in &news {
            events.emit(told(&job, event));
        }
        if let Some(last) = news.last() {
            self.event = Some(last.id.clone());
        }
        if self.status.as_ref() != Some(&job.status) {
            let text = match job.trained_tokens {
                _ if job.status == JobStatus::Paused => "`hone resume` goes on with it".to_owned(),
                Some(tokens) => format!("{tokens} tokens trained"),
                None => format!("training file {}", job.training_file),
            };
            events.emit(Event::Job { job: job.id.clone(), status: job.status.to_string(), text });
            self.status = Some(job.status.clone());
        }
        Ok(job)
    }
}

/// A line of the job's history as an event of ours.
fn told(job: &Job, event: &JobEvent) -> Event {
    let number = |key: &str| event.number(key);
    let whole = |key: &str| number(key).map(|value| value as u64);
    match (whole("step"), number("train_loss")) {
        (Some(step), Some(loss)) => Event::Step {
            job: job.id.clone(),
            step,
            total_steps: whole("total_steps").unwrap_or(step),
            loss,
            tokens: whole("trained_tokens"),
            seconds_left: job.estimated_finish.and_then(|at| u64::try_from(at - event.created_at).ok()),
        },
        _ => Event::Job { job: job.id.clone(), status: job.status.to_string(), text: event.message.clone() },
    }
}

/// Writes a job's model down as the workspace's, if the job has made one and is the one that was started last.
pub fn keep_model(job: &Job, workspace: &Workspace) -> Result<(), StoreError> {
    match &job.fine_tuned_model {
        Some(model) if job.status == JobStatus::Succeeded => {
            if super::last_job(workspace).is_none_or(|last| last == job.id) {
                write_atomic(&workspace.tuned_model_id(), format!("{model}\n").as_bytes())?;
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

fn over(job: Job, workspace: &Workspace, local: bool) -> Result<Job, FinetuneError> {
    match (&job.status, &job.fine_tuned_model) {
        (JobStatus::Succeeded, Some(_)) => {
            keep_model(&job, workspace)?;
            Ok(job)
        }
        (JobStatus::Cancelled, _) => Err(FinetuneError::JobCancelled { job: job.id }),
        (status, _) => {
            let error = job.error.clone().unwrap_or_default();
            let unsaid = format!("it {status} without a model or a reason");
            Err(FinetuneError::Failed {
                message: error.message.unwrap_or(unsaid),
                code: error.code,
                param: error.param,
                job: job.id,
                local,
            })
        }
    }
}
