//! Watching a job: what it says becomes events, its end becomes a result.

use std::time::Duration;

use super::{FinetuneError, Trainer, origin, record};
use crate::{
    cancel::Cancel,
    error::{Explain, Kind},
    event::{Event, Events},
    model::wire::{Job, JobEvent, JobStatus},
    store::{StoreError, Workspace, write_atomic},
};

/// Between two looks at a job on this machine, and at a provider's.
const LOCAL_INTERVAL: Duration = Duration::from_millis(300);
const HOSTED_INTERVAL: Duration = Duration::from_secs(10);
/// Looks at a provider's job that may fail in a row: it trains on while we cannot see it.
const HOSTED_TROUBLES: u32 = 20;

/// Longest that a provider looks at files before it has forgotten them, in seconds. Minutes are usual.
const LONGEST_VALIDATION: i64 = 30 * 60;

/// How a job is followed.
#[derive(Clone, Copy, Debug)]
pub struct Following {
    /// The time now, in Unix seconds.
    pub clock: fn() -> i64,
    /// Goes on although the job is stuck, and says so.
    pub patient: bool,
}

impl Default for Following {
    fn default() -> Self {
        Self { clock: || jiff::Timestamp::now().as_second(), patient: false }
    }
}

/// Reports a job until it is over: each line of its history once, each step as [`Event::Step`]. On success the model's id
/// is in `data/finetuned_model_id.txt`.
///
/// # Errors
/// When the job failed, was cancelled or is stuck, or the provider is out of reach. When `cancel` is given, following ends
/// with [`FinetuneError::Detached`] and the job goes on.
pub async fn follow(
    trainer: &Trainer,
    workspace: &Workspace,
    job: &str,
    following: Following,
    events: &Events,
    cancel: &Cancel,
) -> Result<Job, FinetuneError> {
    let trainer = trainer.clone().cancelled_by(cancel.clone());
    let is_local = trainer.client().is_local();
    let interval = if is_local { LOCAL_INTERVAL } else { HOSTED_INTERVAL };
    let mut seen = Seen { job: job.to_owned(), event: None, event_at: None, status: None };
    let (mut troubles, mut warned) = (0, false);
    loop {
        match seen.look(&trainer, workspace, events).await {
            Ok(job) if job.status.is_terminal() => {
                let job = over(job, workspace, trainer.is_own())?;
                if let Some(note) = trainer.before_use() {
                    events.note(note);
                }
                return Ok(job);
            }
            Ok(job) => {
                troubles = 0;
                let stuck = stuck_for(&job, seen.event_at, (following.clock)());
                match stuck.filter(|_| !trainer.is_own()) {
                    Some(minutes) if !following.patient => {
                        return Err(FinetuneError::Stuck { job: job.id, minutes });
                    }
                    Some(minutes) if !warned => {
                        let stuck = FinetuneError::Stuck { job: job.id, minutes };
                        events.warn(stuck.to_string(), stuck.hint());
                        warned = true;
                    }
                    _ => {}
                }
            }
            Err(FinetuneError::Cancelled) => return Err(FinetuneError::Detached { job: job.to_owned() }),
            Err(error) => {
                troubles += 1;
                if is_local || !is_passing(&error) || troubles > HOSTED_TROUBLES {
                    return Err(error);
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

/// Trouble of the provider's or of the network's, which may be over at the next look.
fn is_passing(error: &FinetuneError) -> bool {
    let FinetuneError::Model(model) = error else { return false };
    model.kind() == Kind::Provider && model.status().is_none_or(|status| status >= 429)
}

/// The error of a job that is stuck, as far as the job alone tells.
pub fn stuck(job: &Job, now: i64) -> Option<FinetuneError> {
    let minutes = stuck_for(job, None, now)?;
    Some(FinetuneError::Stuck { job: job.id.clone(), minutes })
}

/// Minutes since a job was made, or last said something, when it is stuck in the look at its files.
fn stuck_for(job: &Job, said: Option<i64>, now: i64) -> Option<i64> {
    let since = said.unwrap_or_default().max(job.created_at);
    let waited = now - since;
    let stuck = job.status == JobStatus::ValidatingFiles && since > 0 && waited > LONGEST_VALIDATION;
    stuck.then_some(waited / 60)
}

/// How much of a job's story was told.
struct Seen {
    job: String,
    event: Option<String>,
    /// When the last event was.
    event_at: Option<i64>,
    status: Option<JobStatus>,
}

impl Seen {
    /// Fetches the job, then what it has said since: after its end there is nothing more to come.
    async fn look(
        &mut self,
        trainer: &Trainer,
        workspace: &Workspace,
        events: &Events,
    ) -> Result<Job, FinetuneError> {
        let job = trainer.job(&self.job).await?;
        let news = trainer.events(&job, self.event.as_deref()).await?;
        for event in &news {
            events.emit(told(&job, event));
        }
        if let Some(last) = news.last() {
            self.event = Some(last.id.clone());
            self.event_at = Some(last.created_at);
        }
        if self.status.as_ref() != Some(&job.status) {
            let text = match job.trained_tokens {
                _ if job.status == JobStatus::Paused => "`hone resume` goes on with it".to_owned(),
                Some(tokens) => format!("{tokens} tokens trained"),
                None => format!("training file {}", job.training_file),
            };
            events.emit(Event::Job { job: job.id.clone(), status: job.status.to_string(), text });
            record::seen(workspace, trainer, &job)?;
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

/// Writes down where a job's model came from, if the job has made one; and, if the job is the one that was started last, that
/// it is the workspace's.
pub fn keep_model(job: &Job, workspace: &Workspace) -> Result<(), StoreError> {
    match &job.fine_tuned_model {
        Some(model) if job.status == JobStatus::Succeeded => {
            origin::keep(workspace, job)?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::wire::JobRequest;

    #[test]
    fn only_a_long_look_at_the_files_is_stuck() {
        let check = |status: JobStatus, said: Option<i64>, now: i64, expected: Option<i64>| {
            let job = Job { status, ..Job::new("ftjob-1", &JobRequest::default(), 1_000_000, 0) };
            assert_eq!(stuck_for(&job, said, now), expected, "{said:?} {now}");
        };
        let minutes = |n: i64| 1_000_000 + n * 60;
        check(JobStatus::ValidatingFiles, None, minutes(30), None);
        check(JobStatus::ValidatingFiles, None, minutes(31), Some(31));
        // It said something in between.
        check(JobStatus::ValidatingFiles, Some(minutes(5)), minutes(31), None);
        check(JobStatus::ValidatingFiles, Some(minutes(5)), minutes(36), Some(31));
        // A clock that is behind, and states that may take their time.
        check(JobStatus::ValidatingFiles, None, 0, None);
        check(JobStatus::Queued, None, minutes(600), None);
        check(JobStatus::Running, None, minutes(600), None);
    }

    #[test]
    fn a_job_without_a_time_is_not_judged() {
        let job = Job::new("ftjob-1", &JobRequest::default(), 0, 0);
        assert_eq!(stuck_for(&job, None, 2_000_000_000), None);
    }
}
