//! What was done for which data, so that a killed run is picked up.

use std::{fs::File, path::Path};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Charge, FinetuneError, Options, Trainer, succeeded, trainer::or_not_there};
use crate::{
    model::wire::{Job, JobRequest},
    store::{StoreError, read_text, write_json},
};

const FORMAT: &str = "hone.finetune";
const VERSION: u32 = 1;

/// How far the last start came.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    format: String,
    version: u32,
    /// What it was started for.
    pub key: String,
    /// Tells this job from others for the same. On disk before the job is created, so that asking again finds it.
    idempotency_key: String,
    /// Of the file that was uploaded.
    #[serde(default)]
    pub dataset_sha256: Option<String>,
    #[serde(default)]
    pub file: Option<String>,
    #[serde(default)]
    pub validation_file: Option<String>,
    #[serde(default)]
    pub job: Option<String>,
    /// The trainer's row. States of older versions do not say it.
    #[serde(default)]
    pub row: Option<String>,
    /// A creation that was begun and of which it is not known yet whether it made a job.
    #[serde(default)]
    pub launching: Option<Launch>,
}

/// A creation under way. On disk before the request leaves, so that whoever comes next looks for its job first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Launch {
    /// Sent as `Idempotency-Key`, and the job's name where the client chooses it.
    pub key: String,
    /// The training file's id.
    pub file: String,
    #[serde(default)]
    pub suffix: Option<String>,
    /// Jobs that were made from the same file before.
    pub known: Vec<String>,
    /// What is held for the job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub charge: Option<Charge>,
}

impl Launch {
    /// Whether a job that is there can be what this made.
    pub fn may_be(&self, job: &Job) -> bool {
        let same = |asked: &String| job.user_provided_suffix.as_ref().is_none_or(|theirs| theirs == asked);
        job.training_file == self.file
            && !self.known.contains(&job.id)
            && self.suffix.as_ref().is_none_or(same)
    }
}

impl State {
    pub fn new(key: String, row: &str) -> Self {
        Self {
            format: FORMAT.into(),
            version: VERSION,
            key,
            row: Some(row.to_owned()),
            launching: None,
            idempotency_key: format!("hone-{:032x}", rand::random::<u128>()),
            dataset_sha256: None,
            file: None,
            validation_file: None,
            job: None,
        }
    }

    /// For one request, sent as often as needed. A key means one body to a provider, and files that had to be uploaded
    /// anew have other ids.
    pub fn idempotency_key(&self, request: &JobRequest) -> String {
        let asked = serde_json::json!([self.idempotency_key, request]).to_string();
        format!("hone-{}", crate::text::hex(&Sha256::digest(asked)))
    }

    /// The same uploads for another job.
    pub fn without_job(self) -> Self {
        let row = self.row.unwrap_or_default();
        Self { file: self.file, validation_file: self.validation_file, ..Self::new(self.key, &row) }
    }

    /// The state on disk; one that cannot be read is as good as none.
    pub fn read(path: &Path) -> Option<Self> {
        let state: Self = serde_json::from_str(&read_text(path).ok()?).ok()?;
        (state.format == FORMAT && state.version == VERSION).then_some(state)
    }

    pub fn write(&self, path: &Path) -> Result<(), StoreError> {
        write_json(path, self)
    }

    /// The job that was created, unless it came to nothing.
    pub async fn usable_job(&self, trainer: &Trainer) -> Result<Option<Job>, FinetuneError> {
        let Some(id) = &self.job else { return Ok(None) };
        let Some(job) = or_not_there(trainer.job(id).await)? else { return Ok(None) };
        if !job.status.is_terminal() {
            return Ok(Some(job));
        }
        match &job.fine_tuned_model {
            Some(model) if succeeded(&job) => Ok(trainer.has_model(model).await?.then_some(job)),
            _ => Ok(None),
        }
    }
}

/// Identifies what a job is for: provider, data, options.
pub fn key(endpoint: &str, dataset: &Path, options: &Options) -> Result<String, FinetuneError> {
    let mut hash = Sha256::new();
    add_file(&mut hash, dataset)?;
    if let Some(validation) = &options.validation {
        add_file(&mut hash, validation)?;
    }
    // Where the validation file lies makes no difference.
    let options = Options { validation: None, ..options.clone() };
    let rest = serde_json::json!([endpoint, options]);
    hash.update(rest.to_string());
    Ok(crate::text::hex(&hash.finalize()))
}

/// Of a file, in lower-case hexadecimal.
pub fn sha256_of(path: &Path) -> Result<String, StoreError> {
    let mut hash = Sha256::new();
    add_file(&mut hash, path)?;
    Ok(crate::text::hex(&hash.finalize()))
}

fn add_file(hash: &mut Sha256, path: &Path) -> Result<(), StoreError> {
    let copied = File::open(path).and_then(|mut file| std::io::copy(&mut file, &mut HashWriter(hash)));
    copied.map(drop).map_err(|e| StoreError::new("read", path, e))
}

struct HashWriter<'a>(&'a mut Sha256);

impl std::io::Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{auto::Auto, finetune::Lesson};

    #[test]
    fn the_key_depends_on_data_options_and_provider() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("a.jsonl");
        std::fs::write(&data, "1").unwrap();
        let options = Options { model: "m".into(), ..Options::default() };
        let base = key("local", &data, &options).unwrap();
        assert_eq!(base, key("local", &data, &options).unwrap());
        assert_ne!(base, key("openai", &data, &options).unwrap());
        assert_ne!(base, key("local", &data, &Options { seed: Some(1), ..options.clone() }).unwrap());
        let dpo =
            |beta| key("local", &data, &Options { lesson: Lesson::Dpo { beta }, ..options.clone() }).unwrap();
        assert_ne!(base, dpo(Auto::Auto));
        assert_ne!(dpo(Auto::Fixed(0.2)), dpo(Auto::Auto));
        std::fs::write(&data, "2").unwrap();
        assert_ne!(base, key("local", &data, &options).unwrap());
    }

    #[test]
    fn a_key_of_idempotency_is_of_one_body() {
        let state = State::new("k".into(), "row");
        let request = |file: &str| JobRequest { training_file: file.into(), ..JobRequest::default() };
        let key = |file| state.idempotency_key(&request(file));
        assert_eq!(key("file-1"), key("file-1"));
        assert_ne!(key("file-1"), key("file-2"));
        assert_ne!(key("file-1"), state.clone().without_job().idempotency_key(&request("file-1")));
    }

    #[test]
    fn what_a_creation_made_is_told_from_what_was_there() {
        let launch = Launch {
            key: "hone-1".into(),
            file: "file-1".into(),
            suffix: Some("ui".into()),
            known: vec!["ftjob-old".into()],
            charge: None,
        };
        let check = |id: &str, file: &str, suffix: Option<&str>, expected: bool| {
            let request = JobRequest {
                training_file: file.into(),
                suffix: suffix.map(Into::into),
                ..JobRequest::default()
            };
            assert_eq!(launch.may_be(&Job::new(id, &request, 0, 0)), expected, "{id} {file} {suffix:?}");
        };
        check("ftjob-new", "file-1", Some("ui"), true);
        // Not every provider tells the suffix.
        check("ftjob-new", "file-1", None, true);
        check("ftjob-old", "file-1", Some("ui"), false);
        check("ftjob-new", "file-2", Some("ui"), false);
        check("ftjob-new", "file-1", Some("other"), false);
    }

    #[test]
    fn a_state_of_an_older_version_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("finetune.json");
        let old = r#"{"format":"hone.finetune","version":1,"key":"k","idempotency_key":"i","file":"file-1","job":"ftjob-1"}"#;
        std::fs::write(&path, old).unwrap();
        let state = State::read(&path).unwrap();
        assert_eq!((state.job.as_deref(), state.row, state.launching), (Some("ftjob-1"), None, None));
    }

    #[test]
    fn a_spoilt_state_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("finetune.json");
        let state = State::new("k".into(), "row");
        state.write(&path).unwrap();
        assert_eq!(State::read(&path), Some(state));
        std::fs::write(&path, "{\"format\":\"hone.fine").unwrap();
        assert_eq!(State::read(&path), None);
    }
}
