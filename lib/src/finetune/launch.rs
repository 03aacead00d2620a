//! Starting a job once, whatever happens on the way.

use std::{path::Path, time::Duration};

use super::{
    FinetuneError, JobRecord, Lesson, Options, Started, Trainer, origin, record, require_examples,
    state::{self, Launch, State},
};
use crate::{
    event::Events,
    model::{
        client::ModelError,
        wire::{Job, JobRequest, Method},
    },
    store::{StoreError, Workspace},
};

/// Looks for a job whose creation was not answered: a provider lists some a moment later. Each waits twice as long.
const LOOKS: u32 = 4;
/// Times that a creation is begun when none before has made a job.
const CREATIONS: u32 = 3;

/// Uploads `dataset` and creates a job, or picks up the one that was created for the same data and options.
///
/// A job that failed or was cancelled is not picked up, nor one whose model has been deleted since. A creation whose
/// outcome is not known is looked for before another is begun, by this run or the next.
///
/// # Errors
/// When the dataset is missing or too small, the provider refuses, or nobody can tell whether there is a job already.
pub async fn start(
    trainer: &Trainer,
    workspace: &Workspace,
    dataset: &Path,
    options: &Options,
    events: &Events,
) -> Result<Started, FinetuneError> {
    require_examples(dataset)?;
    let launcher = Launcher { trainer, workspace, dataset, options, events };
    let mut state = launcher.state().await?;
    if let Some(job) = state.usable_job(trainer).await? {
        launcher.record(&state, &job)?;
        events.note(format!("job {} was started before for the same data and options", job.id));
        return Ok(Started { job, picked_up: true });
    }
    if state.job.is_some() {
        state = state.without_job();
    }
    launcher.upload(&mut state).await?;
    let job = launcher.create(&mut state).await?;
    events.note(format!("job {} is created on base model {}", job.id, options.model));
    Ok(Started { job, picked_up: false })
}

/// Cancels a job that does not get on, so that the next [`start`] makes another.
///
/// # Errors
/// When the provider does not cancel it.
pub async fn give_up(trainer: &Trainer, workspace: &Workspace, job: &str) -> Result<(), FinetuneError> {
    match trainer.cancel(job).await {
        Ok(job) => record::seen(workspace, trainer, &job)?,
        // It has ended in the meantime.
        Err(FinetuneError::Model(e)) if matches!(e.status(), Some(400 | 404)) => {}
        Err(e) => return Err(e),
    }
    let path = workspace.finetune();
    match State::read(&path) {
        Some(state) if state.job.as_deref() == Some(job) => Ok(state.without_job().write(&path)?),
        _ => Ok(()),
    }
}

/// What a start works with.
struct Launcher<'a> {
    trainer: &'a Trainer,
    workspace: &'a Workspace,
    dataset: &'a Path,
    options: &'a Options,
    events: &'a Events,
}

impl Launcher<'_> {
    /// How far an earlier run came with the same, or a beginning. What an earlier run was creating is found first.
    async fn state(&self) -> Result<State, FinetuneError> {
        let row = self.trainer.row();
        let key = state::key(row, self.dataset, self.options)?;
        let Some(mut before) = State::read(&self.workspace.finetune()) else {
            return Ok(State::new(key, row));
        };
        let same = before.key == key;
        match before.launching.clone() {
            Some(launch) if before.row.as_deref() == Some(row) => match self.look(&launch).await? {
                Some(job) => {
                    self.settle(&mut before, &job)?;
                    if !same {
                        self.warn_of(&job);
                    }
                }
                None if !same => self.settled(&mut before)?,
                None => {}
            },
            Some(_) => self.warn_of_row(before.row.as_deref().unwrap_or_default()),
            None => {}
        }
        Ok(if same { before } else { State::new(key, row) })
    }

    /// A job that was started for something else and that nobody saw start.
    fn warn_of(&self, job: &Job) {
        self.events.warn(
            format!("an earlier run started job {} for other data or options", job.id),
            Some(format!("`hone cancel {}` stops it", job.id)),
        );
    }

    /// A creation at another provider that was never answered: it is not asked any more.
    fn warn_of_row(&self, row: &str) {
        self.events.warn(
            format!("it was never known whether `{row}` created a job"),
            Some("look at the jobs on the provider's own page; `hone status` lists what it tells".into()),
        );
    }

    /// Both files are at the provider after this.
    async fn upload(&self, state: &mut State) -> Result<(), FinetuneError> {
        let path = self.workspace.finetune();
        let sha256 = state::sha256_of(self.dataset)?;
        origin::keep_dataset(self.workspace, self.dataset, &sha256)?;
        state.dataset_sha256 = Some(sha256);
        state.file = Some(self.uploaded(state.file.take(), self.dataset).await?);
        state.write(&path)?;
        if let Some(validation) = &self.options.validation {
            state.validation_file = Some(self.uploaded(state.validation_file.take(), validation).await?);
            state.write(&path)?;
        }
        Ok(())
    }

    /// The id of the file that was uploaded before, if the provider still has it, or of a new upload.
    async fn uploaded(&self, before: Option<String>, path: &Path) -> Result<String, FinetuneError> {
        if let Some(id) = before
            && self.trainer.has_file(&id).await?
        {
            return Ok(id);
        }
        let size = path.metadata().map_err(|e| StoreError::new("read", path, e))?.len();
        self.events.note(format!("uploading {} ({} kB)", path.display(), size.div_ceil(1000)));
        let id = self.trainer.upload(path).await?;
        self.events.note(format!("uploaded as {id}"));
        Ok(id)
    }

    /// Creates the job; one that an unanswered request made is found instead of made again.
    async fn create(&self, state: &mut State) -> Result<Job, FinetuneError> {
        let request = request(state, self.options);
        self.afford(&request).await?;
        let key = state.idempotency_key(&request);
        let mut begun = 0;
        loop {
            self.begin(state, &request, &key).await?;
            begun += 1;
            let error = match self.trainer.create(&request, &key).await {
                Ok(job) => {
                    self.settle(state, &job)?;
                    return Ok(job);
                }
                Err(FinetuneError::Model(error)) if error.is_in_doubt() => error,
                // A stop in the middle: whoever comes next looks first.
                Err(FinetuneError::Cancelled) => return Err(FinetuneError::Cancelled),
                Err(refused) => {
                    self.settled(state)?;
                    return Err(refused);
                }
            };
            self.events.warn(
                format!("it is not known whether the job was created: {error}"),
                Some("looking for it before it is asked for again".into()),
            );
            let launch = state.launching.clone();
            if let Some(job) = match &launch {
                Some(launch) => self.look(launch).await?,
                None => None,
            } {
                self.settle(state, &job)?;
                return Ok(job);
            }
            if begun >= CREATIONS {
                return Err(error.into());
            }
        }
    }

    /// Says on disk that a creation begins, and what was there before it.
    async fn begin(&self, state: &mut State, request: &JobRequest, key: &str) -> Result<(), FinetuneError> {
        let known = match self.trainer.known(&request.training_file).await {
            Ok(known) => known,
            // Without a list nothing is known to be there; nor can a lost job be found, which is said when it matters.
            Err(e) if is_unlisted(&e) => Vec::new(),
            Err(e) => return Err(e.into()),
        };
        // A second creation for the same must not take the first one's late job for an old one.
        let known = state.launching.take().map_or(known, |launch| launch.known);
        state.launching = Some(Launch {
            key: key.to_owned(),
            file: request.training_file.clone(),
            suffix: request.suffix.clone(),
            known,
        });
        Ok(state.write(&self.workspace.finetune())?)
    }

    /// Looks for what a creation made until it is there, or long enough.
    async fn look(&self, launch: &Launch) -> Result<Option<Job>, FinetuneError> {
        let retry = self.trainer.client().endpoint().retry;
        let mut wait: Duration = retry.first_wait;
        for _ in 0..LOOKS {
            match self.trainer.find(launch).await {
                Ok(Some(job)) => return Ok(Some(job)),
                Ok(None) => {}
                Err(e) if is_unlisted(&e) => {
                    return Err(FinetuneError::Unsettled { row: self.trainer.row().into() });
                }
                Err(e) => return Err(e.into()),
            }
            self.trainer.client().pause(wait).await?;
            wait = (wait * 2).min(retry.longest_wait);
        }
        Ok(None)
    }

    /// The job is known: nothing is under way any more.
    fn settle(&self, state: &mut State, job: &Job) -> Result<(), FinetuneError> {
        state.job = Some(job.id.clone());
        self.settled(state)?;
        self.record(state, job)
    }

    fn settled(&self, state: &mut State) -> Result<(), FinetuneError> {
        state.launching = None;
        Ok(state.write(&self.workspace.finetune())?)
    }

    fn record(&self, state: &State, job: &Job) -> Result<(), FinetuneError> {
        let record = JobRecord::new(self.trainer.row(), job, state.key.clone(), state.dataset_sha256.clone());
        Ok(record.write(self.workspace)?)
    }

    /// What the provider would take for it, where it says so; nothing is created that the account cannot pay.
    async fn afford(&self, request: &JobRequest) -> Result<(), FinetuneError> {
        let Some(estimate) = self.trainer.estimate(request).await? else { return Ok(()) };
        self.events.note(format!("{} estimates ${:.2} for this job", self.trainer.row(), estimate.usd));
        if estimate.allowed {
            return Ok(());
        }
        Err(FinetuneError::NoCredit { row: self.trainer.row().into(), usd: estimate.usd })
    }
}

/// Some servers create jobs and list none.
fn is_unlisted(error: &ModelError) -> bool {
    matches!(error.status(), Some(404 | 405 | 501))
}

fn request(state: &State, options: &Options) -> JobRequest {
    JobRequest {
        model: options.model.clone(),
        training_file: state.file.clone().unwrap_or_default(),
        validation_file: state.validation_file.clone(),
        suffix: options.suffix.clone(),
        seed: options.seed,
        method: Some(match options.lesson {
            Lesson::Supervised => Method::supervised(options.hyperparameters.clone()),
            Lesson::Dpo { beta } => Method::dpo(options.hyperparameters.clone(), beta),
        }),
        ..JobRequest::default()
    }
}
