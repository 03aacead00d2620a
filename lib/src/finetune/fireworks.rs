//! Fireworks' fine-tuning, as its published SDK (`fireworks-ai` 1.2.30) speaks it; `lib/tests/sdk/fireworks.json` is a record of
//! that.
//!
//! Everything belongs to an account, datasets and jobs bear names that the client chooses, so that creating one twice makes
//! one; files go to addresses that the provider signs. There is no history: the state and the share that is done are it.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    FinetuneError,
    state::sha256_of,
    trainer::{or_not_there, unix},
};
use crate::{
    cancel::Cancel,
    model::{
        client::{Client, Endpoint, ModelError, Replay},
        wire::{Hyperparameters, Job, JobError, JobEvent, JobRequest, JobStatus, Level, Method, ModelCard},
    },
};

const JOBS: &str = "supervisedFineTuningJobs";
/// Where answers come from; jobs are beside it.
const INFERENCE: &str = "/inference/v1";
/// Encryption under which a dataset may be put as it is.
const PLAIN: [&str; 3] = ["", "ENCRYPTION_STATE_UNSPECIFIED", "ENCRYPTION_STATE_PLAINTEXT"];
/// Hexadecimal digits of a name: enough to be alone in an account.
const NAME_DIGITS: usize = 16;

#[derive(Clone, Debug)]
pub struct Fireworks {
    client: Client,
    account: String,
}

/// A job in Fireworks' words.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct TheirJob {
    name: String,
    display_name: Option<String>,
    dataset: String,
    evaluation_dataset: Option<String>,
    base_model: Option<String>,
    warm_start_from: Option<String>,
    output_model: Option<String>,
    state: String,
    status: Option<Status>,
    job_progress: Option<Progress>,
    create_time: Option<String>,
    update_time: Option<String>,
    completed_time: Option<String>,
    epochs: Option<u32>,
    lora_rank: Option<u32>,
    batch_size_samples: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    code: Option<String>,
    message: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Progress {
    percent: Option<u32>,
    epoch: Option<u32>,
    input_tokens: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Dataset {
    state: String,
    encryption_state: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    #[serde(default)]
    supervised_fine_tuning_jobs: Vec<TheirJob>,
    #[serde(default)]
    next_page_token: Option<String>,
}

impl Fireworks {
    /// `client` may point to where answers come from; jobs are at the same host.
    pub fn new(client: Client, account: Option<String>) -> Result<Self, FinetuneError> {
        let row = client.endpoint().name.clone();
        let account = account.ok_or(FinetuneError::NoAccount { row })?;
        let base = client.endpoint().base_url.trim_end_matches('/');
        let client = match base.strip_suffix(INFERENCE) {
            Some(host) => {
                client.at(Endpoint { base_url: format!("{host}/v1"), ..client.endpoint().clone() })?
            }
            None => client,
        };
        Ok(Self { client, account })
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    pub fn cancelled_by(self, cancel: Cancel) -> Self {
        Self { client: self.client.cancelled_by(cancel), ..self }
    }

    /// The name of the job that a key creates.
    pub fn job_id(key: &str) -> String {
        let digits: String = key.trim_start_matches("hone-").chars().take(NAME_DIGITS).collect();
        format!("hone-{digits}")
    }

    fn path<'a>(&'a self, rest: &[&'a str]) -> Vec<&'a str> {
        [&["accounts", self.account.as_str()], rest].concat()
    }

    fn full(&self, kind: &str, id: &str) -> String {
        format!("accounts/{}/{kind}/{id}", self.account)
    }

    pub async fn has_dataset(&self, name: &str) -> Result<bool, ModelError> {
        Ok(self.dataset(last(name)).await?.state == "READY")
    }

    async fn dataset(&self, id: &str) -> Result<Dataset, ModelError> {
        self.client.get(&self.path(&["datasets", id]), &[]).await
    }

    /// The dataset bears its contents' name: what was uploaded before is found, what was begun is done again.
    pub async fn upload(&self, path: &Path) -> Result<String, FinetuneError> {
        let id = format!("hone-{}", &sha256_of(path)?[..NAME_DIGITS]);
        let kept = match or_not_there(self.dataset(&id).await)? {
            Some(kept) => kept,
            None => {
                self.make_dataset(&id, path).await?;
                self.dataset(&id).await?
            }
        };
        if !PLAIN.contains(&kept.encryption_state.as_str()) {
            let what = "take an unencrypted file for an account with keys of its own";
            let instead = "upload it with the provider's own program";
            return Err(FinetuneError::Unsupported {
                row: self.client.endpoint().name.clone(),
                what: what.into(),
                instead: instead.into(),
            });
        }
        if kept.state != "READY" {
            self.fill(&id, path).await?;
        }
        Ok(self.full("datasets", &id))
    }

    async fn make_dataset(&self, id: &str, path: &Path) -> Result<(), FinetuneError> {
        let count = super::count_examples(path)?.to_string();
        let body = json!({"dataset": {"userUploaded": {}, "exampleCount": count}, "datasetId": id});
        match self.client.post_at::<Value>(&self.path(&["datasets"]), Some(&body)).await {
            // Another try has made it: that is what was wanted.
            Err(e) if e.status() == Some(409) => Ok(()),
            other => Ok(other.map(drop)?),
        }
    }

    async fn fill(&self, id: &str, path: &Path) -> Result<(), FinetuneError> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let size = path.metadata().map_err(|e| crate::store::StoreError::new("read", path, e))?.len();
        let asked = json!({"filenameToSize": {name.as_str(): size.to_string()}});
        let named = format!("{id}:getUploadEndpoint");
        let said: Value = self.client.post_at(&self.path(&["datasets", &named]), Some(&asked)).await?;
        let url = said["filenameToSignedUrls"][&name].as_str().ok_or_else(|| ModelError::Garbled {
            provider: self.client.endpoint().name.clone(),
            why: "it does not say where the file goes".into(),
        })?;
        // Both are part of what was signed.
        let headers = [
            ("content-type", "application/octet-stream".to_owned()),
            ("x-goog-content-length-range", format!("{size},{size}")),
        ];
        self.client.put_file(url, path, &headers).await?;
        let named = format!("{id}:validateUpload");
        let _: Value = self.client.post_at(&self.path(&["datasets", &named]), Some(&json!({}))).await?;
        Ok(())
    }

    pub async fn create(&self, request: &JobRequest, key: &str) -> Result<Job, FinetuneError> {
        let id = Self::job_id(key);
        let body = self.body(request, &id)?;
        let query = [("supervisedFineTuningJobId", id.as_str())];
        let made: TheirJob =
            self.client.post_to(&self.path(&[JOBS]), &query, &body, Replay::WhenRefused).await?;
        Ok(self.read(made))
    }

    /// A creation's body: what the SDK sends for the same wishes.
    fn body(&self, request: &JobRequest, id: &str) -> Result<Map<String, Value>, FinetuneError> {
        let unable = |what: &str, instead: &str| FinetuneError::Unsupported {
            row: self.client.endpoint().name.clone(),
            what: what.into(),
            instead: instead.into(),
        };
        let method = request.method.as_ref();
        if method.is_some_and(|method| !method.is_supervised()) {
            return Err(unable(
                "learn from preference pairs",
                "train with the local engine or with OpenAI's protocol",
            ));
        }
        let numbers = method.and_then(Method::hyperparameters).cloned().unwrap_or_default();
        if !numbers.learning_rate_multiplier.is_auto() {
            return Err(unable("multiply the learning rate", "leave `--learning-rate-multiplier` out"));
        }
        let mut body = Map::new();
        let mut set = |key: &str, value: Value| body.insert(key.to_owned(), value);
        set("dataset", json!(request.training_file));
        let own = request.model.starts_with(&self.full("models", ""));
        set(if own { "warmStartFrom" } else { "baseModel" }, json!(request.model));
        let suffix = request.suffix.as_deref().unwrap_or("tuned");
        set("displayName", json!(suffix));
        set("outputModel", json!(output_model(suffix, id)));
        let early = numbers.early_stopping_patience.fixed().and(request.validation_file.as_ref());
        for (key, value) in [
            ("epochs", numbers.n_epochs.fixed().map(Value::from)),
            ("loraRank", numbers.lora_rank.fixed().map(Value::from)),
            ("batchSizeSamples", numbers.batch_size.fixed().map(Value::from)),
            ("evaluationDataset", request.validation_file.clone().map(Value::from)),
            ("earlyStop", early.map(|_| Value::Bool(true))),
        ] {
            if let Some(value) = value {
                set(key, value);
            }
        }
        Ok(body)
    }

    async fn fetched(&self, id: &str) -> Result<TheirJob, ModelError> {
        self.client.get(&self.path(&[JOBS, last(id)]), &[]).await
    }

    pub async fn job(&self, id: &str) -> Result<Job, ModelError> {
        Ok(self.read(self.fetched(id).await?))
    }

    pub async fn jobs(&self, limit: usize) -> Result<Vec<Job>, ModelError> {
        let mut found: Vec<Job> = Vec::new();
        let mut token = String::new();
        loop {
            let mut query = vec![("pageSize", "100")];
            if !token.is_empty() {
                query.push(("pageToken", &token));
            }
            let page: Listed = self.client.get(&self.path(&[JOBS]), &query).await?;
            let before = found.len();
            found.extend(page.supervised_fine_tuning_jobs.into_iter().map(|job| self.read(job)));
            token = page.next_page_token.unwrap_or_default();
            if token.is_empty() || found.len() >= limit || found.len() == before {
                break;
            }
        }
        found.sort_by_key(|job| std::cmp::Reverse(job.created_at));
        found.truncate(limit);
        Ok(found)
    }

    /// Where the job is, once for each place.
    pub async fn events(&self, id: &str, after: Option<&str>) -> Result<Vec<JobEvent>, ModelError> {
        let job = self.fetched(id).await?;
        let event = job.event(last(id));
        Ok(if after == Some(event.id.as_str()) { Vec::new() } else { vec![event] })
    }

    /// Cancels or resumes; the answer may be empty, so the job is asked.
    pub async fn act(&self, id: &str, verb: &str) -> Result<Job, ModelError> {
        let named = format!("{}:{verb}", last(id));
        let _: Value = self.client.post_at(&self.path(&[JOBS, &named]), Some(&json!({}))).await?;
        self.job(id).await
    }

    /// The card of a model by its full name.
    pub async fn base(&self, model: &str) -> Result<ModelCard, ModelError> {
        let path: Vec<&str> = model.split('/').collect();
        let _: Value = self.client.get(&path, &[]).await?;
        Ok(ModelCard::new(model, 0, "fireworks"))
    }

    fn read(&self, theirs: TheirJob) -> Job {
        let status = status(&theirs.state);
        let hyperparameters = Hyperparameters {
            n_epochs: theirs.epochs.into(),
            lora_rank: theirs.lora_rank.into(),
            batch_size: theirs.batch_size_samples.into(),
            ..Hyperparameters::default()
        };
        let request = JobRequest {
            model: theirs.base_model.or(theirs.warm_start_from).unwrap_or_default(),
            training_file: theirs.dataset,
            validation_file: theirs.evaluation_dataset.filter(|name| !name.is_empty()),
            suffix: theirs.display_name.filter(|name| !name.is_empty()),
            method: Some(Method::supervised(hyperparameters)),
            ..JobRequest::default()
        };
        let id = last(&theirs.name).to_owned();
        let tuned = theirs.output_model.filter(|name| !name.is_empty()).unwrap_or_else(|| id.clone());
        let said = theirs.status.unwrap_or_default();
        let ended = theirs.completed_time.or(theirs.update_time);
        Job {
            error: (status == JobStatus::Failed).then(|| JobError {
                param: data_param(said.code.as_deref()),
                code: said.code.map(|code| openai_code(&code, &theirs.state)),
                message: said.message.filter(|message| !message.is_empty()),
            }),
            fine_tuned_model: (status == JobStatus::Succeeded).then(|| self.full("models", last(&tuned))),
            finished_at: unix(ended.as_deref()).filter(|_| status.is_terminal()),
            trained_tokens: theirs.job_progress.and_then(|progress| progress.input_tokens),
            organization_id: self.account.clone(),
            seed: None,
            status,
            ..Job::new(id, &request, unix(theirs.create_time.as_deref()).unwrap_or_default(), 0)
        }
    }
}

impl TheirJob {
    fn event(&self, id: &str) -> JobEvent {
        let progress = self.job_progress.as_ref();
        let percent = progress.and_then(|progress| progress.percent);
        let words = self.state.trim_start_matches("JOB_STATE_").to_lowercase().replace('_', " ");
        let message = match (percent, progress.and_then(|progress| progress.epoch)) {
            (Some(percent), Some(epoch)) => format!("{words}: {percent}%, epoch {epoch}"),
            (Some(percent), None) => format!("{words}: {percent}%"),
            _ => words,
        };
        let at = unix(self.update_time.as_deref().or(self.create_time.as_deref())).unwrap_or_default();
        let level = if status(&self.state) == JobStatus::Failed { Level::Error } else { Level::Info };
        JobEvent::new(format!("{id}-{}-{}", self.state, percent.unwrap_or_default()), at, level, message)
    }
}

fn status(state: &str) -> JobStatus {
    match state.trim_start_matches("JOB_STATE_") {
        "CREATING" | "CREATING_INPUT_DATASET" | "VALIDATING" => JobStatus::ValidatingFiles,
        "PENDING" | "RE_QUEUEING" => JobStatus::Queued,
        "RUNNING" | "WRITING_RESULTS" | "IDLE" | "CANCELLING" => JobStatus::Running,
        "PAUSED" => JobStatus::Paused,
        "COMPLETED" | "EARLY_STOPPED" => JobStatus::Succeeded,
        "FAILED" | "EXPIRED" => JobStatus::Failed,
        "CANCELLED" | "DELETING" | "DELETING_CLEANING_UP" => JobStatus::Cancelled,
        other => JobStatus::Other(other.to_lowercase()),
    }
}

/// The code that OpenAI has for the same.
fn openai_code(code: &str, state: &str) -> String {
    match code {
        "INVALID_ARGUMENT" | "FAILED_PRECONDITION" => "invalid_training_file".into(),
        "RESOURCE_EXHAUSTED" => "exceeded_quota".into(),
        "PERMISSION_DENIED" => "training_not_available".into(),
        "INTERNAL" | "UNAVAILABLE" | "DATA_LOSS" => "server_error".into(),
        "OK" => state.trim_start_matches("JOB_STATE_").to_lowercase(),
        other => other.to_lowercase(),
    }
}

/// What is to blame, when it is the data.
fn data_param(code: Option<&str>) -> Option<String> {
    matches!(code, Some("INVALID_ARGUMENT")).then(|| "training_file".into())
}

/// The last part of a resource's name: an id.
fn last(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

/// A tuned model's own name: lower-case letters, digits and hyphens, at most 63 of them, and the job's to be alone.
fn output_model(suffix: &str, job: &str) -> String {
    let plain: String = suffix
        .to_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .take(40)
        .collect();
    format!("{}-{}", plain.trim_matches('-'), job.trim_start_matches("hone-")).trim_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auto::Auto;

    fn fireworks(base: &str) -> Fireworks {
        Fireworks::new(Client::new(Endpoint::new("fw", base)).unwrap(), Some("acme".into())).unwrap()
    }

    fn job(value: Value) -> Job {
        fireworks("http://h/v1").read(serde_json::from_value(value).unwrap())
    }

    #[test]
    fn jobs_are_beside_the_answers() {
        let at = |base: &str| fireworks(base).client().endpoint().base_url.clone();
        assert_eq!(at("https://api.example.com/inference/v1"), "https://api.example.com/v1");
        assert_eq!(at("https://api.example.com/inference/v1/"), "https://api.example.com/v1");
        assert_eq!(at("http://127.0.0.1:1/v1"), "http://127.0.0.1:1/v1");
        let none =
            Fireworks::new(Client::new(Endpoint::new("fw", "http://h/v1")).unwrap(), None).unwrap_err();
        assert!(matches!(none, FinetuneError::NoAccount { .. }), "{none}");
    }

    #[test]
    fn their_words_are_openais_in_the_end() {
        use JobStatus::{Cancelled, Failed, Other, Paused, Queued, Running, Succeeded, ValidatingFiles};
        for (word, expected) in [
            ("CREATING", ValidatingFiles),
            ("VALIDATING", ValidatingFiles),
            ("PENDING", Queued),
            ("RE_QUEUEING", Queued),
            ("RUNNING", Running),
            ("WRITING_RESULTS", Running),
            ("CANCELLING", Running),
            ("PAUSED", Paused),
            ("COMPLETED", Succeeded),
            ("EARLY_STOPPED", Succeeded),
            ("FAILED", Failed),
            ("EXPIRED", Failed),
            ("CANCELLED", Cancelled),
            ("NAPPING", Other("napping".into())),
        ] {
            assert_eq!(
                job(json!({"name": "n", "state": format!("JOB_STATE_{word}")})).status,
                expected,
                "{word}"
            );
        }
    }

    #[test]
    fn a_job_is_read_whole() {
        let read = job(json!({
            "name": "accounts/acme/supervisedFineTuningJobs/hone-1", "state": "JOB_STATE_EARLY_STOPPED", "dataset": "d",
            "baseModel": "b", "outputModel": "accounts/acme/models/ui-1", "createTime": "2026-11-26T10:00:00Z",
            "completedTime": "2026-11-26T11:00:00Z", "epochs": 2, "jobProgress": {"percent": 100, "inputTokens": 50},
        }));
        assert_eq!(
            (read.id.as_str(), read.model.as_str(), read.training_file.as_str()),
            ("hone-1", "b", "d")
        );
        assert_eq!(read.fine_tuned_model.as_deref(), Some("accounts/acme/models/ui-1"));
        assert_eq!((read.finished_at, read.trained_tokens), (Some(1_795_690_800), Some(50)));
        assert_eq!(read.hyperparameters.n_epochs, Auto::Fixed(2));
        let failed = job(
            json!({"name": "n", "state": "JOB_STATE_FAILED", "status": {"code": "INVALID_ARGUMENT", "message": "line 3"}}),
        );
        let error = failed.error.unwrap();
        assert_eq!(
            (error.code.as_deref(), error.param.as_deref()),
            (Some("invalid_training_file"), Some("training_file"))
        );
        assert_eq!(error.message.as_deref(), Some("line 3"));
    }

    #[test]
    fn names_are_what_the_provider_takes() {
        assert_eq!(Fireworks::job_id("hone-0123456789abcdef0123"), "hone-0123456789abcdef");
        assert_eq!(output_model("UI Agent/v1", "hone-ab12"), "ui-agent-v1-ab12");
        assert_eq!(output_model("", "hone-ab12"), "ab12");
        assert!(output_model(&"x".repeat(99), "hone-0123456789abcdef").len() <= 63);
    }

    #[test]
    fn what_it_cannot_do_is_said() {
        let request =
            |method| JobRequest { model: "m".into(), method: Some(method), ..JobRequest::default() };
        let fireworks = fireworks("http://h/v1");
        let dpo = request(Method::dpo(Hyperparameters::default(), Auto::Auto));
        assert!(fireworks.body(&dpo, "id").unwrap_err().to_string().contains("preference pairs"));
        let factor =
            Hyperparameters { learning_rate_multiplier: Auto::Fixed(2.0), ..Hyperparameters::default() };
        assert!(fireworks.body(&request(Method::supervised(factor)), "id").is_err());
        let own = JobRequest { model: "accounts/acme/models/a".into(), ..JobRequest::default() };
        assert_eq!(fireworks.body(&own, "id").unwrap()["warmStartFrom"], "accounts/acme/models/a");
    }
}
