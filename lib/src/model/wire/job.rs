//! Fine-tuning jobs, their events and checkpoints.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::auto::Auto;

/// Fewest examples that providers take for a job.
pub const MIN_EXAMPLES: usize = 10;

/// Body of `POST /fine_tuning/jobs`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct JobRequest {
    pub model: String,
    pub training_file: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation_file: Option<String>,
    /// At most 64 characters; part of the tuned model's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suffix: Option<String>,
    /// 0 to 2147483647.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<Method>,
    /// Where older clients put what belongs into `method`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hyperparameters: Option<Hyperparameters>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<BTreeMap<String, String>>,
    /// Everything else, as it came.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// How to train. Only `supervised` has a shape of its own here; other methods keep their body as it came.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Method {
    pub r#type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supervised: Option<Supervised>,
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl Method {
    pub fn supervised(hyperparameters: Hyperparameters) -> Self {
        Self {
            r#type: "supervised".into(),
            supervised: Some(Supervised { hyperparameters }),
            other: Map::new(),
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Supervised {
    #[serde(default)]
    pub hyperparameters: Hyperparameters,
}

/// The three numbers of supervised training, each a number or `"auto"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hyperparameters {
    /// Examples per step, 1 to 256.
    pub batch_size: Auto<u32>,
    /// Times the trainer's base learning rate.
    pub learning_rate_multiplier: Auto<f64>,
    /// Passes over the data, 1 to 50.
    pub n_epochs: Auto<u32>,
}

/// Where a job is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobStatus {
    ValidatingFiles,
    Queued,
    Running,
    Pausing,
    Paused,
    Succeeded,
    Failed,
    Cancelled,
    /// A word this version does not know: the job is not over.
    #[serde(untagged)]
    Other(String),
}

impl JobStatus {
    /// True when the job will not change any more.
    pub fn is_terminal(&self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

impl fmt::Display for JobStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ValidatingFiles => "validating_files",
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Pausing => "pausing",
            Self::Paused => "paused",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Other(word) => word,
        })
    }
}

/// A fine-tuning job. It failed when `status` says so, never because `error` is present: providers send an empty one on
/// healthy jobs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Job {
    pub id: String,
    #[serde(default = "job_object")]
    pub object: String,
    /// Unix seconds, as all times here.
    #[serde(default)]
    pub created_at: i64,
    #[serde(default)]
    pub error: Option<JobError>,
    #[serde(default)]
    pub fine_tuned_model: Option<String>,
    #[serde(default)]
    pub finished_at: Option<i64>,
    #[serde(default, deserialize_with = "or_default")]
    pub hyperparameters: Hyperparameters,
    #[serde(default)]
    pub model: String,
    #[serde(default)]
    pub organization_id: String,
    #[serde(default, deserialize_with = "or_default")]
    pub result_files: Vec<String>,
    #[serde(default)]
    pub seed: Option<i64>,
    pub status: JobStatus,
    /// Tokens x epochs, by the trained model's tokenizer.
    #[serde(default)]
    pub trained_tokens: Option<u64>,
    #[serde(default)]
    pub training_file: String,
    #[serde(default)]
    pub validation_file: Option<String>,
    #[serde(default)]
    pub estimated_finish: Option<i64>,
    #[serde(default)]
    pub integrations: Option<Vec<Value>>,
    #[serde(default)]
    pub metadata: Option<BTreeMap<String, String>>,
    #[serde(default)]
    pub method: Option<Method>,
    #[serde(default)]
    pub user_provided_suffix: Option<String>,
}

fn job_object() -> String {
    "fine_tuning.job".into()
}

fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

impl Job {
    /// A job that was just created from a request.
    pub fn new(id: impl Into<String>, request: &JobRequest, created_at: i64, seed: i64) -> Self {
        let in_method = request.method.as_ref().and_then(|method| method.supervised.as_ref());
        let hyperparameters =
            in_method.map(|s| s.hyperparameters).or(request.hyperparameters).unwrap_or_default();
        Self {
            id: id.into(),
            object: job_object(),
            created_at,
            error: None,
            fine_tuned_model: None,
            finished_at: None,
            hyperparameters,
            model: request.model.clone(),
            organization_id: "org-local".into(),
            result_files: Vec::new(),
            seed: Some(seed),
            status: JobStatus::ValidatingFiles,
            trained_tokens: None,
            training_file: request.training_file.clone(),
            validation_file: request.validation_file.clone(),
            estimated_finish: None,
            integrations: Some(Vec::new()),
            metadata: request.metadata.clone(),
            method: Some(Method::supervised(hyperparameters)),
            user_provided_suffix: request.suffix.clone(),
        }
    }
}

/// Why a job failed. Every member may be null on a healthy job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct JobError {
    pub code: Option<String>,
    pub message: Option<String>,
    pub param: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    Info,
    #[serde(alias = "warning")]
    Warn,
    Error,
}

/// One line of a job's history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobEvent {
    pub id: String,
    #[serde(default = "event_object")]
    pub object: String,
    #[serde(default)]
    pub created_at: i64,
    pub level: Level,
    pub message: String,
    /// `message` or `metrics`.
    #[serde(default)]
    pub r#type: Option<String>,
    /// For metrics: `step`, `total_steps`, `train_loss`, ...
    #[serde(default)]
    pub data: Option<Value>,
}

fn event_object() -> String {
    "fine_tuning.job.event".into()
}

impl JobEvent {
    pub fn new(id: impl Into<String>, created_at: i64, level: Level, message: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            object: event_object(),
            created_at,
            level,
            message: message.into(),
            r#type: Some("message".into()),
            data: Some(Value::Object(Map::new())),
        }
    }

    /// Turns it into a metrics event.
    pub fn with_metrics(self, data: Value) -> Self {
        Self { r#type: Some("metrics".into()), data: Some(data), ..self }
    }

    /// A number of a metrics event.
    pub fn number(&self, key: &str) -> Option<f64> {
        self.data.as_ref()?.get(key)?.as_f64()
    }
}

/// A model as it was after an epoch, usable like any other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Checkpoint {
    pub id: String,
    #[serde(default = "checkpoint_object")]
    pub object: String,
    #[serde(default)]
    pub created_at: i64,
    pub fine_tuned_model_checkpoint: String,
    pub fine_tuning_job_id: String,
    #[serde(default)]
    pub metrics: CheckpointMetrics,
    pub step_number: u64,
}

fn checkpoint_object() -> String {
    "fine_tuning.job.checkpoint".into()
}

impl Checkpoint {
    pub fn new(
        id: impl Into<String>,
        created_at: i64,
        model: impl Into<String>,
        job: impl Into<String>,
        metrics: CheckpointMetrics,
    ) -> Self {
        Self {
            id: id.into(),
            object: checkpoint_object(),
            created_at,
            fine_tuned_model_checkpoint: model.into(),
            fine_tuning_job_id: job.into(),
            step_number: metrics.step.unwrap_or_default(),
            metrics,
        }
    }
}

/// Numbers of one step: the data of a metrics event and of a checkpoint. Accuracies are shares of tokens, 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CheckpointMetrics {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train_loss: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train_mean_token_accuracy: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_loss: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_mean_token_accuracy: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub full_valid_loss: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub full_valid_mean_token_accuracy: Option<f64>,
}
