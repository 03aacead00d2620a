//! One fine-tuning job from upload to model id, at whoever trains.
//!
//! [`start`] uploads the dataset and creates the job, or finds the one that an earlier run created for the same data and
//! options: what it did is on disk before the next step, so a run that is killed anywhere never pays twice. [`follow`]
//! reports the job until it is over. Between the two, and after `follow` was cancelled, the job runs by itself.
//! [`jobs_everywhere`] lists the jobs of all rows, and [`ready`] looks at what a job needs before anything is uploaded.

mod charge;
mod error;
mod everywhere;
mod fireworks;
mod follow;
mod launch;
mod origin;
mod ready;
mod record;
mod state;
mod together;
mod trainer;

pub use charge::{Charge, book};
pub use error::FinetuneError;
pub use everywhere::{Everywhere, Listed, find, jobs_everywhere};
pub use fireworks::Fireworks;
pub use follow::{Following, follow, keep_model, stuck};
pub use launch::{cancel, give_up, start};
pub use origin::{Learnt, Origin, origin_of};
pub use ready::{ends, looked_at, ready};
pub use record::{JobRecord, record_of, records, row_of_model, seen};
pub use together::Together;
pub use trainer::{Estimate, Shape, Trainer};

use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
};

use serde::Serialize;

use self::state::State;
pub use self::state::sha256_of;
use crate::{
    auto::Auto,
    model::wire::{Hyperparameters, Job, JobStatus, MIN_EXAMPLES},
    store::{StoreError, Workspace, read_text},
};

/// The row of the workspace's own trainer.
pub const OWN: &str = "local";

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
    /// Azure's word for how and where it trains.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub training_type: Option<String>,
    #[serde(skip_serializing_if = "Lesson::is_supervised")]
    pub lesson: Lesson,
}

/// What a dataset's rows are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Lesson {
    /// Questions and answers.
    #[default]
    Supervised,
    /// Pairs of a better and a worse answer; `beta` says how strongly the model is held to the one that it started from.
    Dpo { beta: Auto<f64> },
}

impl Lesson {
    fn is_supervised(&self) -> bool {
        *self == Self::Supervised
    }
}

/// A job that runs, or ran.
#[derive(Clone, Debug, PartialEq)]
pub struct Started {
    pub job: Job,
    /// True when an earlier run had created it.
    pub picked_up: bool,
}

/// The job that this workspace started last, if any.
pub fn last_job(workspace: &Workspace) -> Option<String> {
    State::read(&workspace.finetune())?.job
}

/// Where a tuned model came from: the job, and the sha256 of its dataset. Known for the models of recorded jobs.
pub fn origin(workspace: &Workspace, model: &str) -> Option<(String, String)> {
    if let Some(Origin { job, dataset_sha256: Some(sha256), .. }) = origin_of(workspace, model) {
        return Some((job, sha256));
    }
    let recorded = records(workspace).into_iter().find(|record| record.tuned() == Some(model));
    if let Some(JobRecord { job, dataset_sha256: Some(sha256), .. }) = recorded {
        return Some((job, sha256));
    }
    let state = State::read(&workspace.finetune())?;
    let last = read_text(&workspace.tuned_model_id()).ok()?;
    (last.trim() == model).then_some((state.job?, state.dataset_sha256?))
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
