//! Starting a job once, whatever happens on the way.

use std::{path::Path, time::Duration};

use super::{
    Charge, FinetuneError, JobRecord, Lesson, Options, Started, Trainer,
    charge::Quote,
    origin, record, require_examples,
    state::{self, Launch, State},
};
use crate::{
    event::Events,
    model::{
        client::ModelError,
        journal::{Journal, Settled},
        price::Usd,
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
/// What the job may cost is held in `journal` before it is created, under the label of that handle, and booked by
/// [`book`](super::book).
///
/// # Errors
/// When the dataset is missing or too small, the budget does not bear the job or its price is not known, the provider
/// refuses, or nobody can tell whether there is a job already.
pub async fn start(
    trainer: &Trainer,
    workspace: &Workspace,
    dataset: &Path,
    options: &Options,
    journal: &Journal,
    events: &Events,
) -> Result<Started, FinetuneError> {
    require_examples(dataset)?;
    if options.training_type.is_some() && !trainer.is_azure() {
        return Err(FinetuneError::Unsupported {
            row: trainer.row().into(),
            what: "choose a type of training".into(),
            instead: "leave `training_type` out of the row: it is a word of Azure's".into(),
        });
    }
    let launcher = Launcher { trainer, workspace, dataset, options, journal, events };
    let mut state = launcher.state().await?;
    if let Some(job) = state.usable_job(trainer).await? {
        launcher.record(&state, &job)?;
        events.note(format!("job {} was started before for the same data and options", job.id));
        return Ok(Started { job, picked_up: true });
    }
    if state.job.is_some() {
        state = state.without_job();
    }
    // What is known to be too dear is not uploaded either.
    let quote = launcher.quote()?;
    launcher.upload(&mut state).await?;
    let job = launcher.create(&mut state, &quote).await?;
    events.note(format!("job {} is created on base model {}", job.id, options.model));
    Ok(Started { job, picked_up: false })
}

/// Cancels a job. How far it had come is noted first: what has trained may have to be paid.
///
/// # Errors
/// When the provider does not cancel it.
pub async fn cancel(trainer: &Trainer, workspace: &Workspace, job: &str) -> Result<Job, FinetuneError> {
    record::seen(workspace, trainer, &trainer.job(job).await?)?;
    let job = trainer.cancel(job).await?;
    record::seen(workspace, trainer, &job)?;
    Ok(job)
}

/// Cancels a job that does not get on, so that the next [`start`] makes another.
///
/// # Errors
/// When the provider does not cancel it.
pub async fn give_up(trainer: &Trainer, workspace: &Workspace, job: &str) -> Result<(), FinetuneError> {
    match cancel(trainer, workspace, job).await {
        Ok(_) => {}
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
    journal: &'a Journal,
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
                None if !same => self.came_to_nothing(&mut before)?,
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
    async fn create(&self, state: &mut State, quote: &Quote) -> Result<Job, FinetuneError> {
        let request = quote.fixed(request(state, self.options));
        let worst = self.afford(&request, quote).await?;
        let key = state.idempotency_key(&request);
        let charge = (worst != Some(Usd::ZERO)).then(|| quote.charge(&key));
        let mut begun = 0;
        loop {
            self.begin(state, &request, &key, charge.clone()).await?;
            if let Err(refused) = self.hold(charge.as_ref(), worst) {
                self.came_to_nothing(state)?;
                return Err(refused);
            }
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
                    self.came_to_nothing(state)?;
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
    async fn begin(
        &self,
        state: &mut State,
        request: &JobRequest,
        key: &str,
        charge: Option<Charge>,
    ) -> Result<(), FinetuneError> {
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
            charge,
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

    /// The job is known: nothing is under way any more. Its record comes first, because it says what is held for it.
    fn settle(&self, state: &mut State, job: &Job) -> Result<(), FinetuneError> {
        self.record(state, job)?;
        state.job = Some(job.id.clone());
        self.settled(state)
    }

    fn settled(&self, state: &mut State) -> Result<(), FinetuneError> {
        state.launching = None;
        Ok(state.write(&self.workspace.finetune())?)
    }

    /// No job was made: what was held for it is free again.
    fn came_to_nothing(&self, state: &mut State) -> Result<(), FinetuneError> {
        if let Some(charge) = state.launching.as_ref().and_then(|launch| launch.charge.as_ref()) {
            self.journal.settle(&charge.name, Settled::Nothing)?;
        }
        self.settled(state)
    }

    fn record(&self, state: &State, job: &Job) -> Result<(), FinetuneError> {
        let row = self.trainer.row();
        let known = record::record_of(self.workspace, &job.id).filter(|known| known.row == row);
        let (charge, ran) = known.map(|known| (known.charge, known.ran)).unwrap_or_default();
        let charge = state.launching.as_ref().and_then(|launch| launch.charge.clone()).or(charge);
        let record = JobRecord::new(row, job, state.key.clone(), state.dataset_sha256.clone());
        Ok(JobRecord { charge, ran, ..record }.write(self.workspace)?)
    }

    /// What the job will cost, as far as can be told here.
    fn quote(&self) -> Result<Quote, FinetuneError> {
        let quote = Quote::of(self.trainer, self.dataset, self.options, self.journal)?;
        match quote.worst() {
            // Together says a price of its own, once it has the file.
            _ if matches!(self.trainer, Trainer::Together(_)) => {}
            Some(worst) => self.journal.has_room_for(worst).map_err(too_dear)?,
            None => self.refuse_unknown()?,
        }
        Ok(quote)
    }

    fn refuse_unknown(&self) -> Result<(), FinetuneError> {
        match self.journal.cap() {
            Some(_) => Err(FinetuneError::NoPrice {
                row: self.trainer.row().into(),
                model: self.options.model.clone(),
            }),
            None => Ok(()),
        }
    }

    /// The most that the job can cost; nothing is created that the account cannot pay.
    async fn afford(&self, request: &JobRequest, quote: &Quote) -> Result<Option<Usd>, FinetuneError> {
        let (row, estimate) = (self.trainer.row(), self.trainer.estimate(request).await?);
        quote.tell(&self.options.model, estimate.as_ref(), row, self.events);
        match estimate {
            Some(estimate) if !estimate.allowed => {
                Err(FinetuneError::NoCredit { row: row.into(), usd: Usd::of(estimate.usd) })
            }
            Some(estimate) => Ok(Some(Usd::of(estimate.usd))),
            None if quote.worst().is_none() => self.refuse_unknown().map(|()| None),
            None => Ok(quote.worst()),
        }
    }

    fn hold(&self, charge: Option<&Charge>, worst: Option<Usd>) -> Result<(), FinetuneError> {
        let Some(charge) = charge else { return Ok(()) };
        let held = self.journal.hold(self.trainer.client(), &charge.name, &self.options.model, worst);
        held.map_err(too_dear)
    }
}

/// The same error, of a job.
fn too_dear(error: ModelError) -> FinetuneError {
    match error {
        ModelError::Budget { spent, held, next, cap } => FinetuneError::Budget { spent, held, next, cap },
        other => other.into(),
    }
}

/// Some servers create jobs and list none.
fn is_unlisted(error: &ModelError) -> bool {
    matches!(error.status(), Some(404 | 405 | 501))
}

fn request(state: &State, options: &Options) -> JobRequest {
    // Azure's own word in OpenAI's body: its users' clients send it as something extra, too.
    let kind = options.training_type.as_ref().map(|kind| ("trainingType".to_owned(), kind.as_str().into()));
    JobRequest {
        extra: kind.into_iter().collect(),
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
