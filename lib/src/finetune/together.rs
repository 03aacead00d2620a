//! Together's fine-tuning, as its published SDK (`together` 3.1.1) speaks it; `lib/tests/sdk/together.json` is a record of that.
//!
//! Uploads go to an address that the provider signs, learning rates are absolute, what trains is nested by kind, and a file
//! that was uploaded before keeps its id.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    FinetuneError,
    state::sha256_of,
    trainer::{Estimate, unix},
};
use crate::{
    auto::Auto,
    cancel::Cancel,
    model::{
        client::{Client, ModelError, Pointed, Replay},
        wire::{
            Checkpoint, CheckpointMetrics, Hyperparameters, Job, JobError, JobEvent, JobRequest, JobStatus,
            Level, List, Method, ModelCard,
        },
    },
};

/// The SDK's own learning rate, which the multiplier multiplies.
const LEARNING_RATE: f64 = 1e-5;
/// Longest suffix.
const SUFFIX_CHARS: usize = 40;
/// Evaluations that early stopping skips at first; one more than these and its patience are needed.
const WARMUP_EVALS: u32 = 1;
/// Starts the ids of Together's jobs: such a "model" is one to go on from.
const JOB_PREFIX: &str = "ft-";

#[derive(Clone, Debug)]
pub struct Together {
    client: Client,
}

/// A job in Together's words.
#[derive(Debug, Deserialize)]
struct TheirJob {
    id: String,
    status: String,
    #[serde(default)]
    model: Option<String>,
    #[serde(default)]
    model_output_name: Option<String>,
    #[serde(default)]
    created_at: Option<String>,
    #[serde(default)]
    updated_at: Option<String>,
    #[serde(default)]
    training_file: Option<String>,
    #[serde(default)]
    validation_file: Option<String>,
    #[serde(default)]
    token_count: Option<u64>,
    #[serde(default)]
    n_epochs: Option<u32>,
    #[serde(default)]
    batch_size: Value,
    #[serde(default)]
    random_seed: Option<i64>,
    #[serde(default)]
    training_method: Value,
    #[serde(default)]
    training_type: Value,
    #[serde(default)]
    progress: Option<Progress>,
    #[serde(default)]
    events: Option<Vec<TheirEvent>>,
}

#[derive(Debug, Deserialize)]
struct Progress {
    #[serde(default)]
    estimate_available: bool,
    #[serde(default)]
    seconds_remaining: i64,
}

#[derive(Debug, Deserialize)]
struct TheirEvent {
    #[serde(default)]
    created_at: Option<String>,
    #[serde(default)]
    message: String,
    #[serde(default)]
    r#type: String,
    #[serde(default)]
    level: Option<String>,
    #[serde(default)]
    step: Option<u64>,
    #[serde(default)]
    total_steps: Option<u64>,
    #[serde(default)]
    token_count: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct TheirCheckpoint {
    #[serde(default)]
    step: u64,
    #[serde(default)]
    path: String,
    #[serde(default)]
    created_at: Option<String>,
}

impl Together {
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    pub fn cancelled_by(self, cancel: Cancel) -> Self {
        Self { client: self.client.cancelled_by(cancel) }
    }

    pub async fn has_file(&self, id: &str) -> Result<bool, ModelError> {
        self.client.get::<Value>(&["files", id], &[]).await.map(|_| true)
    }

    /// Asks where to, puts the bytes there, and has them looked at.
    pub async fn upload(&self, path: &Path) -> Result<String, FinetuneError> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let fields = [
            ("purpose", "fine-tune".to_owned()),
            ("file_name", name),
            ("file_type", "jsonl".to_owned()),
            ("checksum", sha256_of(path)?),
        ];
        let id = match self.client.post_form(&["files"], &fields, "x-together-file-id").await? {
            Pointed::Existing(said) => {
                let id = said["file_id"].as_str().map(str::to_owned);
                return id.ok_or_else(|| self.garbled("it has the file already, but does not say which"));
            }
            Pointed::To { url, header } => {
                self.client.put_file(&url, path, &[]).await?;
                header
            }
        };
        let _: Value = self.client.post_at(&["files", &id, "preprocess"], None).await?;
        Ok(id)
    }

    pub async fn estimate(&self, request: &JobRequest) -> Result<Option<Estimate>, ModelError> {
        let body = body(request);
        let mut asked = Map::new();
        for key in [
            "training_file",
            "validation_file",
            "from_checkpoint",
            "n_epochs",
            "n_evals",
            "training_method",
            "training_type",
        ] {
            asked.extend(body.get(key).map(|value| (key.to_owned(), value.clone())));
        }
        asked.insert("model".into(), body.get("model").cloned().unwrap_or_else(|| json!("")));
        let said: Value =
            self.client.post_at(&["fine-tunes", "estimate-price"], Some(&Value::Object(asked))).await?;
        let usd =
            said["estimated_total_price"].as_f64().filter(|_| said["estimation_available"] != json!(false));
        Ok(usd.map(|usd| Estimate { usd, allowed: said["allowed_to_proceed"] != json!(false) }))
    }

    pub async fn create(&self, request: &JobRequest) -> Result<Job, ModelError> {
        let job: TheirJob =
            self.client.post_to(&["fine-tunes"], &[], &body(request), Replay::WhenRefused).await?;
        Ok(Job { training_file: request.training_file.clone(), ..job.into() })
    }

    pub async fn job(&self, id: &str) -> Result<Job, ModelError> {
        Ok(self.client.get::<TheirJob>(&["fine-tunes", id], &[]).await?.into())
    }

    pub async fn jobs(&self, limit: usize) -> Result<Vec<Job>, ModelError> {
        let list: List<TheirJob> = self.client.get(&["fine-tunes"], &[]).await?;
        let mut jobs: Vec<Job> = list.data.into_iter().map(Job::from).collect();
        jobs.sort_by_key(|job| std::cmp::Reverse(job.created_at));
        jobs.truncate(limit);
        Ok(jobs)
    }

    /// Their events have no ids: the place in the history is as good, as it only grows.
    pub async fn events(&self, job: &str, after: Option<&str>) -> Result<Vec<JobEvent>, ModelError> {
        let mut list: List<TheirEvent> = self.client.get(&["fine-tunes", job, "events"], &[]).await?;
        list.data.sort_by_key(|event| unix(event.created_at.as_deref()));
        let told =
            after.and_then(|id| id.rsplit('-').next()?.parse::<usize>().ok()).map_or(0, |last| last + 1);
        let named = list.data.into_iter().enumerate().skip(told);
        Ok(named.map(|(at, event)| event.named(format!("{job}-{at}"))).collect())
    }

    pub async fn checkpoints(&self, job: &str) -> Result<Vec<Checkpoint>, ModelError> {
        let list: List<TheirCheckpoint> = self.client.get(&["fine-tunes", job, "checkpoints"], &[]).await?;
        let mut found: Vec<Checkpoint> = list.data.into_iter().map(|kept| kept.of(job)).collect();
        found.sort_by_key(|kept| std::cmp::Reverse(kept.step_number));
        Ok(found)
    }

    pub async fn cancel(&self, id: &str) -> Result<Job, ModelError> {
        Ok(self.client.post_at::<TheirJob>(&["fine-tunes", id, "cancel"], None).await?.into())
    }

    /// What may be trained has limits; what has none is no base model.
    pub async fn base(&self, model: &str) -> Result<ModelCard, ModelError> {
        if model.starts_with(JOB_PREFIX) {
            return Ok(ModelCard::new(model, 0, "together"));
        }
        let _: Value = self.client.get(&["fine-tunes", "models", "limits"], &[("model_name", model)]).await?;
        Ok(ModelCard::new(model, 0, "together"))
    }

    fn garbled(&self, why: &str) -> FinetuneError {
        ModelError::Garbled { provider: self.client.endpoint().name.clone(), why: why.into() }.into()
    }
}

/// A creation's body: what the SDK sends for the same wishes.
fn body(request: &JobRequest) -> Map<String, Value> {
    let method = request.method.as_ref();
    let numbers = method.and_then(Method::hyperparameters).or(request.hyperparameters.as_ref());
    let numbers = numbers.cloned().unwrap_or_default();
    let epochs = numbers.n_epochs.or(1);
    let mut body = Map::new();
    let mut set = |key: &str, value: Value| body.insert(key.to_owned(), value);
    set("training_file", json!(request.training_file));
    let base = if request.model.starts_with(JOB_PREFIX) { "from_checkpoint" } else { "model" };
    set(base, json!(request.model));
    set("packing", json!(true));
    set("n_epochs", json!(epochs));
    set("learning_rate", json!(LEARNING_RATE * numbers.learning_rate_multiplier.or(1.0)));
    let cosine = json!({"min_lr_ratio": 0.0, "num_cycles": 0.5});
    set("lr_scheduler", json!({"lr_scheduler_type": "cosine", "lr_scheduler_args": cosine}));
    for (key, value) in [("warmup_ratio", 0.0), ("max_grad_norm", 1.0), ("weight_decay", 0.0)] {
        set(key, json!(value));
    }
    set("n_checkpoints", json!(1));
    set("batch_size", numbers.batch_size.fixed().map_or(json!("max"), |size| json!(size)));
    let patience = numbers.early_stopping_patience.fixed().filter(|_| request.validation_file.is_some());
    let evals = match (&request.validation_file, patience) {
        (None, _) => 0,
        (Some(_), None) => epochs,
        (Some(_), Some(patience)) => epochs.max(patience + WARMUP_EVALS + 1),
    };
    set("n_evals", json!(evals));
    set("early_stopping_enabled", json!(patience.is_some()));
    if let Some(patience) = patience {
        set("early_stopping_patience", json!(patience));
    }
    if let Some(file) = &request.validation_file {
        set("validation_file", json!(file));
    }
    if let Some(suffix) = &request.suffix {
        set("suffix", json!(suffix.chars().take(SUFFIX_CHARS).collect::<String>()));
    }
    if let Some(seed) = request.seed {
        set("random_seed", json!(seed));
    }
    if let Some(kind) = training_type(&numbers) {
        set("training_type", kind);
    }
    set("training_method", training_method(method));
    body
}

/// Absent unless something of it was asked for: then the backend decides.
fn training_type(numbers: &Hyperparameters) -> Option<Value> {
    /// The SDK takes the model's own; this is what most have.
    const RANK: u32 = 8;
    if numbers.lora_rank.is_auto() && numbers.lora_alpha.is_auto() {
        return None;
    }
    let rank = numbers.lora_rank.or(RANK);
    let alpha = numbers.lora_alpha.or(f64::from(rank) * 2.0) as u64;
    Some(json!({
        "type": "Lora", "lora_r": rank, "lora_alpha": alpha, "lora_dropout": 0.0, "lora_trainable_modules": "all-linear",
    }))
}

fn training_method(method: Option<&Method>) -> Value {
    match method.filter(|method| method.is_dpo()) {
        None => json!({"method": "sft", "train_on_inputs": "auto"}),
        Some(dpo) => {
            let mut value = json!({
                "method": "dpo", "dpo_normalize_logratios_by_length": false, "dpo_reference_free": false,
            });
            if let Auto::Fixed(beta) = dpo.beta() {
                value["dpo_beta"] = json!(beta);
            }
            value
        }
    }
}

impl From<TheirJob> for Job {
    fn from(theirs: TheirJob) -> Self {
        let status = status(&theirs.status);
        let over = status.is_terminal();
        let updated = unix(theirs.updated_at.as_deref());
        let left = theirs.progress.as_ref().filter(|progress| progress.estimate_available && !over);
        let hyperparameters = Hyperparameters {
            n_epochs: theirs.n_epochs.into(),
            batch_size: theirs.batch_size.as_u64().and_then(|size| u32::try_from(size).ok()).into(),
            lora_rank: theirs.training_type["lora_r"]
                .as_u64()
                .and_then(|rank| u32::try_from(rank).ok())
                .into(),
            ..Hyperparameters::default()
        };
        let method = match theirs.training_method["method"].as_str() {
            Some("dpo") => Method::dpo(hyperparameters, theirs.training_method["dpo_beta"].as_f64().into()),
            _ => Method::supervised(hyperparameters),
        };
        let request = JobRequest {
            model: theirs.model.unwrap_or_default(),
            training_file: theirs.training_file.unwrap_or_default(),
            validation_file: theirs.validation_file.filter(|file| !file.is_empty()),
            method: Some(method),
            ..JobRequest::default()
        };
        let why = theirs.events.unwrap_or_default().into_iter().rev().find(TheirEvent::is_error);
        let created = unix(theirs.created_at.as_deref()).unwrap_or_default();
        Self {
            error: (status == JobStatus::Failed).then(|| JobError {
                code: why.as_ref().map(TheirEvent::code),
                message: why.map(|event| event.message),
                param: None,
            }),
            fine_tuned_model: theirs.model_output_name.filter(|_| status == JobStatus::Succeeded),
            finished_at: updated.filter(|_| over),
            trained_tokens: theirs.token_count,
            estimated_finish: left.and_then(|left| Some(updated? + left.seconds_remaining)),
            organization_id: String::new(),
            seed: theirs.random_seed,
            status,
            ..Self::new(theirs.id, &request, created, 0)
        }
    }
}

fn status(word: &str) -> JobStatus {
    match word {
        "pending" => JobStatus::ValidatingFiles,
        "queued" => JobStatus::Queued,
        "running" | "compressing" | "uploading" | "cancel_requested" => JobStatus::Running,
        "completed" => JobStatus::Succeeded,
        "error" | "user_error" => JobStatus::Failed,
        "cancelled" => JobStatus::Cancelled,
        other => JobStatus::Other(other.into()),
    }
}

impl TheirEvent {
    fn level(&self) -> Level {
        match self.level.as_deref().map(|level| level.trim_start_matches("legacy_i")) {
            Some("error") => Level::Error,
            Some("warning") => Level::Warn,
            _ => Level::Info,
        }
    }

    fn is_error(&self) -> bool {
        self.level() == Level::Error || self.r#type == "billing_limit" || self.r#type == "job_error"
    }

    /// The code that OpenAI has for it.
    fn code(&self) -> String {
        if self.r#type == "billing_limit" { "exceeded_quota".into() } else { self.r#type.clone() }
    }

    fn named(self, id: String) -> JobEvent {
        let (level, at) = (self.level(), unix(self.created_at.as_deref()).unwrap_or_default());
        let event = JobEvent::new(id, at, level, self.message);
        match self.step {
            None => event,
            Some(step) => event.with_metrics(
                json!({"step": step, "total_steps": self.total_steps, "trained_tokens": self.token_count}),
            ),
        }
    }
}

impl TheirCheckpoint {
    fn of(self, job: &str) -> Checkpoint {
        let metrics = CheckpointMetrics { step: Some(self.step), ..CheckpointMetrics::default() };
        let created = unix(self.created_at.as_deref()).unwrap_or_default();
        Checkpoint::new(format!("{job}:{}", self.step), created, self.path, job, metrics)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(value: Value) -> Job {
        serde_json::from_value::<TheirJob>(value).unwrap().into()
    }

    #[test]
    fn their_words_are_openais_in_the_end() {
        use JobStatus::{Cancelled, Failed, Other, Queued, Running, Succeeded, ValidatingFiles};
        for (word, expected) in [
            ("pending", ValidatingFiles),
            ("queued", Queued),
            ("running", Running),
            ("compressing", Running),
            ("uploading", Running),
            ("cancel_requested", Running),
            ("cancelled", Cancelled),
            ("error", Failed),
            ("completed", Succeeded),
            ("dreaming", Other("dreaming".into())),
        ] {
            assert_eq!(job(json!({"id": "ft-1", "status": word})).status, expected);
        }
    }

    #[test]
    fn a_job_is_read_whole() {
        let read = job(json!({
            "id": "ft-1", "status": "completed", "model": "m", "model_output_name": "me/m-ui-1", "training_file": "file-1",
            "created_at": "2026-11-26T10:00:00Z", "updated_at": "2026-11-26T10:30:00.5Z", "token_count": 900, "n_epochs": 3,
            "batch_size": "max", "validation_file": "", "training_type": {"type": "Lora", "lora_r": 16},
        }));
        assert_eq!(read.fine_tuned_model.as_deref(), Some("me/m-ui-1"));
        assert_eq!((read.created_at, read.finished_at), (1_795_687_200, Some(1_795_689_000)));
        assert_eq!((read.trained_tokens, read.validation_file.as_deref()), (Some(900), None));
        let numbers = &read.hyperparameters;
        assert_eq!(
            (numbers.n_epochs, numbers.batch_size, numbers.lora_rank),
            (Auto::Fixed(3), Auto::Auto, Auto::Fixed(16))
        );
        // A name is given before there is a model of it.
        let early = job(json!({"id": "ft-1", "status": "running", "model_output_name": "me/m-ui-1"}));
        assert_eq!(early.fine_tuned_model, None);
    }

    #[test]
    fn the_reason_of_a_failure_is_in_its_events() {
        let event = |kind: &str, level: &str| json!({"created_at": "", "message": "no more", "type": kind, "level": level});
        let failed =
            |events: Value| job(json!({"id": "ft-1", "status": "error", "events": events})).error.unwrap();
        let quota = failed(json!([event("job_start", "info"), event("billing_limit", "legacy_ierror")]));
        assert_eq!(
            (quota.code.as_deref(), quota.message.as_deref()),
            (Some("exceeded_quota"), Some("no more"))
        );
        assert_eq!(failed(json!([event("job_start", "info")])), JobError::default());
        assert_eq!(failed(Value::Null), JobError::default());
    }

    #[test]
    fn wishes_that_depend_on_each_other() {
        let numbers =
            Hyperparameters { early_stopping_patience: Auto::Fixed(4), ..Hyperparameters::default() };
        let request = JobRequest {
            model: "ft-9:2".into(),
            training_file: "f".into(),
            method: Some(Method::supervised(numbers)),
            suffix: Some("s".repeat(50)),
            ..JobRequest::default()
        };
        let without = body(&request);
        assert_eq!((&without["n_evals"], &without["early_stopping_enabled"]), (&json!(0), &json!(false)));
        assert_eq!((&without["from_checkpoint"], without.get("model")), (&json!("ft-9:2"), None));
        assert_eq!(without["suffix"].as_str().unwrap().len(), SUFFIX_CHARS);
        let with = body(&JobRequest { validation_file: Some("v".into()), ..request });
        assert_eq!((&with["n_evals"], &with["early_stopping_patience"]), (&json!(6), &json!(4)));
        let dpo = Method::dpo(Hyperparameters::default(), Auto::Fixed(0.2));
        assert_eq!(training_method(Some(&dpo))["dpo_beta"], 0.2);
    }
}
