//! One fine-tuning job from upload to model id.
//!
//! [`start`] uploads the dataset and creates the job, or finds the one that an earlier run created for the same data and
//! options: what it did is on disk before the next step, so a run that is killed anywhere never pays twice. [`follow`]
//! reports the job until it is over. Between the two, and after `follow` was cancelled, the job runs by itself.

mod error;
mod follow;
mod state;

pub use error::FinetuneError;
pub use follow::{follow, keep_model};

use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
};

use serde::Serialize;

use self::state::State;
use crate::{
    event::Events,
    model::{
        client::Client,
        wire::{Hyperparameters, Job, JobRequest, JobStatus, MIN_EXAMPLES, Method},
    },
    store::{StoreError, Workspace, read_text},
};

/// What to train and how.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Options {
    /// The base model, or a tuned one to go on from.
    pub model: String,
    /// Part of the tuned model's id.
    pub suffix: Option<String>,
    pub hyperparameters: Hyperparameters,
    /// Chosen by the provider when absent.
    pub seed: Option<i64>,
    /// Examples to measure on, never to train on.
    pub validation: Option<PathBuf>,
}

/// A job that runs, or ran.
#[derive(Clone, Debug, PartialEq)]
pub struct Started {
    pub job: Job,
    /// True when an earlier run had created it.
    pub picked_up: bool,
}

/// Uploads `dataset` and creates a job, or picks up the one that was created for the same data and options.
///
/// A job that failed or was cancelled is not picked up, nor one whose model has been deleted since.
///
/// # Errors
/// When the dataset is missing or too small, or the provider refuses.
pub async fn start(
    client: &Client,
    workspace: &Workspace,
    dataset: &Path,
    options: &Options,
    events: &Events,
) -> Result<Started, FinetuneError> {
    require_examples(dataset)?;
    let path = workspace.finetune();
    let key = state::key(&client.endpoint().name, dataset, options)?;
    let mut state = State::read(&path).filter(|state| state.key == key).unwrap_or_else(|| State::new(key));
    if let Some(job) = state.usable_job(client).await? {
        events.note(format!("job {} was started before for the same data and options", job.id));
        return Ok(Started { job, picked_up: true });
    }
    if state.job.is_some() {
        state = state.without_job();
    }
    state.dataset_sha256 = Some(state::sha256_of(dataset)?);
    state.file = Some(uploaded(client, state.file.take(), dataset, events).await?);
    state.write(&path)?;
    if let Some(validation) = &options.validation {
        state.validation_file =
            Some(uploaded(client, state.validation_file.take(), validation, events).await?);
        state.write(&path)?;
    }
    let request = request(&state, options);
    let job = client.create_job(&request, &state.idempotency_key(&request)).await?;
    state.job = Some(job.id.clone());
    state.write(&path)?;
    events.note(format!("job {} is created on base model {}", job.id, options.model));
    Ok(Started { job, picked_up: false })
}

/// The job that this workspace started last, if any.
pub fn last_job(workspace: &Workspace) -> Option<String> {
    State::read(&workspace.finetune())?.job
}

/// Where a tuned model came from: the job, and the sha256 of its dataset. Known for the model of the last job.
pub fn origin(workspace: &Workspace, model: &str) -> Option<(String, String)> {
    let state = State::read(&workspace.finetune())?;
    let last = read_text(&workspace.tuned_model_id()).ok()?;
    (last.trim() == model).then_some((state.job?, state.dataset_sha256?))
}

fn request(state: &State, options: &Options) -> JobRequest {
    JobRequest {
        model: options.model.clone(),
        training_file: state.file.clone().unwrap_or_default(),
        validation_file: state.validation_file.clone(),
        suffix: options.suffix.clone(),
        seed: options.seed,
        method: Some(Method::supervised(options.hyperparameters.clone())),
        ..JobRequest::default()
    }
}

/// The id of the file that was uploaded before, if the provider still has it, or of a new upload.
async fn uploaded(
    client: &Client,
    before: Option<String>,
    path: &Path,
    events: &Events,
) -> Result<String, FinetuneError> {
    if let Some(id) = before
        && client.file(&id).await.is_ok()
    {
        return Ok(id);
    }
    let size = path.metadata().map_err(|e| StoreError::new("read", path, e))?.len();
    events.note(format!("uploading {} ({} kB)", path.display(), size.div_ceil(1000)));
    let file = client.upload_file(path, "fine-tune").await?;
    events.note(format!("uploaded as {}", file.id));
    Ok(file.id)
}

/// Whether there are as many examples as every provider asks for.
///
/// # Errors
/// When the dataset is missing, cannot be read, or is too small.
pub fn require_examples(dataset: &Path) -> Result<(), FinetuneError> {
    let examples = count_examples(dataset)?;
    if examples < MIN_EXAMPLES {
        return Err(FinetuneError::TooFew { examples });
    }
    Ok(())
}

/// Lines that are not blank.
fn count_examples(dataset: &Path) -> Result<usize, FinetuneError> {
    let failed = |e: std::io::Error| match e.kind() {
        std::io::ErrorKind::NotFound => FinetuneError::NoDataset { path: dataset.to_owned() },
        _ => StoreError::new("read", dataset, e).into(),
    };
    let mut reader = BufReader::new(File::open(dataset).map_err(failed)?);
    let (mut line, mut count) = (Vec::new(), 0);
    while reader.read_until(b'\n', &mut line).map_err(failed)? > 0 {
        count += usize::from(!line.trim_ascii().is_empty());
        line.clear();
    }
    Ok(count)
}

/// True when a job ended well and its model can be used.
fn succeeded(job: &Job) -> bool {
    job.status == JobStatus::Succeeded && job.fine_tuned_model.is_some()
}
