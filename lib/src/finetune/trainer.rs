//! The job contract: whoever trains answers with OpenAI's job object and its events.
//!
//! Three shapes are spoken on the wire: OpenAI's (with Azure, gateways and the local server), Together's and Fireworks'.
//! What one of them cannot do is an error that names the nearest thing that works.

use std::path::Path;

use serde::Serialize;

use super::{FinetuneError, fireworks::Fireworks, state::Launch, together::Together};
pub use crate::model::provider::Tuning as Shape;
use crate::model::{
    client::{Client, ModelError},
    provider::Dialect,
    wire::{Checkpoint, Job, JobEvent, JobRequest, ModelCard},
};

/// Newest jobs that are looked through for one of ours.
pub(super) const NEWEST: usize = 100;

/// One provider's fine-tuning.
#[derive(Clone, Debug)]
pub enum Trainer {
    OpenAi(Client),
    Together(Together),
    Fireworks(Fireworks),
}

/// OpenAI's protocol is what most servers speak.
impl From<Client> for Trainer {
    fn from(client: Client) -> Self {
        Self::OpenAi(client)
    }
}

/// What a provider says a job would cost.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Estimate {
    pub usd: f64,
    /// False when the account's credit is too small for it.
    pub allowed: bool,
}

impl Trainer {
    /// # Errors
    /// When `client`'s address cannot be turned into that of the shape's jobs, or an account is needed and not given.
    pub fn new(shape: Shape, client: Client, account: Option<String>) -> Result<Self, FinetuneError> {
        Ok(match shape {
            Shape::OpenAi => Self::OpenAi(client),
            Shape::Together => Self::Together(Together::new(client)),
            Shape::Fireworks => Self::Fireworks(Fireworks::new(client, account)?),
        })
    }

    pub fn shape(&self) -> Shape {
        match self {
            Self::OpenAi(_) => Shape::OpenAi,
            Self::Together(_) => Shape::Together,
            Self::Fireworks(_) => Shape::Fireworks,
        }
    }

    pub fn client(&self) -> &Client {
        match self {
            Self::OpenAi(client) => client,
            Self::Together(together) => together.client(),
            Self::Fireworks(fireworks) => fireworks.client(),
        }
    }

    /// The row's name.
    pub fn row(&self) -> &str {
        &self.client().endpoint().name
    }

    /// True for the trainer of this workspace.
    pub fn is_own(&self) -> bool {
        matches!(self, Self::OpenAi(client) if client.endpoint().name == super::OWN)
    }

    pub(super) fn is_azure(&self) -> bool {
        matches!(self, Self::OpenAi(client) if client.endpoint().access.provider.dialect == Dialect::Azure)
    }

    /// What a tuned model needs before it answers, where that is more than its name.
    pub fn before_use(&self) -> Option<&'static str> {
        match self {
            Self::OpenAi(_) if self.is_azure() => Some(
                "deploy the model before it is tested, and name it as `deployment` in its row: it answers only there",
            ),
            Self::Fireworks(_) => {
                Some("deploy the model on the provider's own page before it is tested: it answers only there")
            }
            Self::OpenAi(_) | Self::Together(_) => None,
        }
    }

    /// The same trainer, whose calls end as soon as `cancel` is given.
    pub fn cancelled_by(self, cancel: crate::cancel::Cancel) -> Self {
        match self {
            Self::OpenAi(client) => Self::OpenAi(client.cancelled_by(cancel)),
            Self::Together(together) => Self::Together(together.cancelled_by(cancel)),
            Self::Fireworks(fireworks) => Self::Fireworks(fireworks.cancelled_by(cancel)),
        }
    }

    /// Whether the provider still has a file that was uploaded.
    pub async fn has_file(&self, id: &str) -> Result<bool, ModelError> {
        let found = match self {
            Self::OpenAi(client) => client.file(id).await.map(|_| true),
            Self::Together(together) => together.has_file(id).await,
            Self::Fireworks(fireworks) => fireworks.has_dataset(id).await,
        };
        or_not_there(found).map(|found| found.unwrap_or(false))
    }

    /// Uploads a dataset; its name at the provider.
    pub async fn upload(&self, path: &Path) -> Result<String, FinetuneError> {
        match self {
            Self::OpenAi(client) => Ok(client.upload_file(path, "fine-tune").await?.id),
            Self::Together(together) => together.upload(path).await,
            Self::Fireworks(fireworks) => fireworks.upload(path).await,
        }
    }

    /// What the provider says that the job would cost, where it says so.
    pub async fn estimate(&self, request: &JobRequest) -> Result<Option<Estimate>, ModelError> {
        match self {
            Self::Together(together) => together.estimate(request).await,
            Self::OpenAi(_) | Self::Fireworks(_) => Ok(None),
        }
    }

    /// Creates a job: one request, which is not repeated when its outcome is not known ([`ModelError::is_in_doubt`]).
    pub async fn create(&self, request: &JobRequest, key: &str) -> Result<Job, FinetuneError> {
        match self {
            Self::OpenAi(client) => Ok(client.create_job(request, key).await?),
            Self::Together(together) => Ok(together.create(request).await?),
            Self::Fireworks(fireworks) => fireworks.create(request, key).await,
        }
    }

    /// Ids of the jobs that were made from a file: known before a creation, they tell afterwards what it has made.
    pub async fn known(&self, file: &str) -> Result<Vec<String>, ModelError> {
        if matches!(self, Self::Fireworks(_)) {
            return Ok(Vec::new());
        }
        let jobs = self.jobs(NEWEST).await?;
        Ok(jobs.into_iter().filter(|job| job.training_file == file).map(|job| job.id).collect())
    }

    /// The job that a creation has made, if it has made one. Fireworks' bear the name that the key gave them; others' are
    /// those from the same file that were not there before.
    pub async fn find(&self, launch: &Launch) -> Result<Option<Job>, ModelError> {
        if let Self::Fireworks(fireworks) = self {
            return or_not_there(fireworks.job(&Fireworks::job_id(&launch.key)).await);
        }
        Ok(self.jobs(NEWEST).await?.into_iter().rev().find(|job| launch.may_be(job)))
    }

    /// The newest `limit` jobs, newest first.
    pub async fn jobs(&self, limit: usize) -> Result<Vec<Job>, ModelError> {
        match self {
            Self::OpenAi(client) => client.jobs(limit).await,
            Self::Together(together) => together.jobs(limit).await,
            Self::Fireworks(fireworks) => fireworks.jobs(limit).await,
        }
    }

    pub async fn job(&self, id: &str) -> Result<Job, ModelError> {
        match self {
            Self::OpenAi(client) => client.job(id).await,
            Self::Together(together) => together.job(id).await,
            Self::Fireworks(fireworks) => fireworks.job(id).await,
        }
    }

    /// What a job has said after the event named, or all of it: oldest first.
    pub async fn events(&self, job: &Job, after: Option<&str>) -> Result<Vec<JobEvent>, ModelError> {
        match self {
            Self::OpenAi(client) => client.events(&job.id, after).await,
            Self::Together(together) => together.events(&job.id, after).await,
            Self::Fireworks(fireworks) => fireworks.events(&job.id, after).await,
        }
    }

    /// Models as they were on the way, newest first.
    pub async fn checkpoints(&self, job: &str) -> Result<Vec<Checkpoint>, FinetuneError> {
        match self {
            Self::OpenAi(client) => Ok(client.checkpoints(job).await?),
            Self::Together(together) => Ok(together.checkpoints(job).await?),
            Self::Fireworks(_) => {
                Err(self.unable("list checkpoints", "the model of the job's end is what it keeps"))
            }
        }
    }

    pub async fn cancel(&self, job: &str) -> Result<Job, FinetuneError> {
        Ok(match self {
            Self::OpenAi(client) => client.cancel_job(job).await?,
            Self::Together(together) => together.cancel(job).await?,
            Self::Fireworks(fireworks) => fireworks.act(job, "cancel").await?,
        })
    }

    pub async fn pause(&self, job: &str) -> Result<Job, FinetuneError> {
        match self {
            Self::OpenAi(client) => Ok(client.pause_job(job).await?),
            _ => {
                Err(self.unable("pause a job", "`hone cancel` stops it, and `hone finetune` starts another"))
            }
        }
    }

    pub async fn resume(&self, job: &str) -> Result<Job, FinetuneError> {
        match self {
            Self::OpenAi(client) => Ok(client.resume_job(job).await?),
            Self::Together(_) => Err(self.unable("resume a job", "`hone finetune` starts another")),
            Self::Fireworks(fireworks) => Ok(fireworks.act(job, "resume").await?),
        }
    }

    /// The base model's card; None when the provider does not train it, or not at all for this account.
    pub async fn base(&self, model: &str) -> Result<Option<ModelCard>, ModelError> {
        match self {
            Self::OpenAi(client) => base_of(client, model).await,
            Self::Together(together) => or_not_there(together.base(model).await),
            Self::Fireworks(fireworks) => or_not_there(fireworks.base(model).await),
        }
    }

    /// Whether a tuned model is still there. Where nobody can be asked, its job vouches for it.
    pub async fn has_model(&self, model: &str) -> Result<bool, ModelError> {
        match self {
            Self::OpenAi(client) => Ok(or_not_there(client.model(model).await)?.is_some()),
            Self::Fireworks(fireworks) => Ok(or_not_there(fireworks.base(model).await)?.is_some()),
            Self::Together(_) => Ok(true),
        }
    }

    fn unable(&self, what: &str, instead: &str) -> FinetuneError {
        FinetuneError::Unsupported { row: self.row().into(), what: what.into(), instead: instead.into() }
    }
}

/// A model's card from servers that show one, from the list of others; those that do neither are believed.
async fn base_of(client: &Client, model: &str) -> Result<Option<ModelCard>, ModelError> {
    match client.model(model).await {
        Err(e) if e.status() == Some(404) => {}
        other => return other.map(Some),
    }
    match client.models().await {
        Ok(list) => Ok(list.into_iter().find(|card| card.id == model)),
        Err(e) if matches!(e.status(), Some(404 | 405 | 501)) => Ok(Some(ModelCard::new(model, 0, ""))),
        Err(e) => Err(e),
    }
}

/// "There is no such thing" as an answer, not as an error.
pub(super) fn or_not_there<T>(answer: Result<T, ModelError>) -> Result<Option<T>, ModelError> {
    match answer {
        Err(e) if e.status() == Some(404) => Ok(None),
        other => other.map(Some),
    }
}

/// Unix seconds of a time as ISO 8601 writes it.
pub(super) fn unix(time: Option<&str>) -> Option<i64> {
    Some(time?.parse::<jiff::Timestamp>().ok()?.as_second())
}
