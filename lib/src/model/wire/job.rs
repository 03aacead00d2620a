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

/// How to train. Methods without a shape of their own here keep their body as it came.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Method {
    pub r#type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supervised: Option<Supervised>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dpo: Option<Dpo>,
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

const SUPERVISED: &str = "supervised";
const DPO: &str = "dpo";

impl Method {
    pub fn supervised(hyperparameters: Hyperparameters) -> Self {
        let supervised = Some(Supervised { hyperparameters });
        Self { r#type: SUPERVISED.into(), supervised, dpo: None, other: Map::new() }
    }

    pub fn dpo(hyperparameters: Hyperparameters, beta: Auto<f64>) -> Self {
        let dpo = Some(Dpo { hyperparameters: DpoHyperparameters { beta, common: hyperparameters } });
        Self { r#type: DPO.into(), supervised: None, dpo, other: Map::new() }
    }

    pub fn is_supervised(&self) -> bool {
        self.r#type == SUPERVISED
    }

    pub fn is_dpo(&self) -> bool {
        self.r#type == DPO
    }

    /// Those of the method that it names, if it came with any.
    pub fn hyperparameters(&self) -> Option<&Hyperparameters> {
        if self.is_dpo() {
            self.dpo.as_ref().map(|dpo| &dpo.hyperparameters.common)
        } else {
            self.supervised.as_ref().map(|supervised| &supervised.hyperparameters)
        }
    }

    /// Of `dpo`; left to the trainer by every other method.
    pub fn beta(&self) -> Auto<f64> {
        self.dpo.as_ref().map(|dpo| dpo.hyperparameters.beta).unwrap_or_default()
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Supervised {
    #[serde(default)]
    pub hyperparameters: Hyperparameters,
}

/// Direct preference optimisation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Dpo {
    #[serde(default)]
    pub hyperparameters: DpoHyperparameters,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DpoHyperparameters {
    /// How strongly the model is held to the one that it started from, above 0 and at most 2.
    pub beta: Auto<f64>,
    #[serde(flatten)]
    pub common: Hyperparameters,
}

/// The numbers of training, each a number or `"auto"`. After the first three come those of the local trainer alone, which
/// are written only when they were asked for: other servers do not know them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hyperparameters {
    /// Examples per step, 1 to 256.
    pub batch_size: Auto<u32>,
    /// Times the trainer's base learning rate.
    pub learning_rate_multiplier: Auto<f64>,
    /// Passes over the data, 1 to 50.
    pub n_epochs: Auto<u32>,
    /// Width of the low-rank update.
    #[serde(skip_serializing_if = "Auto::is_auto")]
    pub lora_rank: Auto<u32>,
    /// The update is scaled by `lora_alpha / lora_rank`.
    #[serde(skip_serializing_if = "Auto::is_auto")]
    pub lora_alpha: Auto<f64>,
    /// Matrices that get an update, by PEFT's names (`q_proj`, ...); all when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lora_targets: Option<Vec<String>>,
    /// Update only this many layers, counted from the output.
    #[serde(skip_serializing_if = "Auto::is_auto")]
    pub lora_layers: Auto<u32>,
    /// Stop when so many epochs in a row have not lowered the validation loss.
    #[serde(skip_serializing_if = "Auto::is_auto")]
    pub early_stopping_patience: Auto<u32>,
    /// What the trainer computes in: `auto`, `f32` or `bf16`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub precision: Option<String>,
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

    /// True when a trainer has the job or is to take it.
    pub fn is_trained(&self) -> bool {
        !self.is_terminal() && !matches!(self, Self::ValidatingFiles | Self::Paused)
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
        let in_method = request.method.as_ref().and_then(Method::hyperparameters);
        let hyperparameters = in_method.or(request.hyperparameters.as_ref()).cloned().unwrap_or_default();
        let method = match &request.method {
            Some(asked) if asked.is_dpo() => Method::dpo(hyperparameters.clone(), asked.beta()),
            _ => Method::supervised(hyperparameters.clone()),
        };
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
            method: Some(method),
            user_provided_suffix: request.suffix.clone(),
        }
    }
}

impl Job {
    /// True when it learns from preference pairs.
    pub fn is_dpo(&self) -> bool {
        self.method.as_ref().is_some_and(Method::is_dpo)
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

/// Numbers of one step: the data of a metrics event and of a checkpoint. Token accuracies are shares of tokens, reward
/// accuracies (of preference training, the local trainer's own) shares of pairs, 0 to 1.
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train_reward_accuracy: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train_reward_margin: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_reward_accuracy: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_reward_margin: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub full_valid_reward_accuracy: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub full_valid_reward_margin: Option<f64>,
}
