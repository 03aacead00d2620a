//! Where every tuned model came from: `.hone/models.jsonl`, a line each, which only grows.
//!
//! A dataset and its manifest are replaced by the next `prepare`; what a job was started with is kept beside, under the
//! dataset's hash, so that a model can be traced to its logs however many rounds later.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{record::JobRecord, record_of};
use crate::{
    model::wire::{Job, JobStatus, Method},
    store::{StoreError, Workspace, append_line, copy_atomic, parse_lines, read_text, write_atomic},
};

const FORMAT: &str = "hone.model";
const VERSION: u32 = 1;

/// One tuned model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    format: String,
    version: u32,
    /// When it was first seen, RFC 3339.
    pub at: String,
    pub model: String,
    pub job: String,
    /// The row whose provider trained it.
    pub row: String,
    /// What training started from.
    pub base: String,
    /// `supervised` or `dpo`.
    pub method: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epochs: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataset_sha256: Option<String>,
    #[serde(flatten)]
    pub learnt: Learnt,
}

/// What a dataset was made of, as its manifest says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Learnt {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logs_sha256: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_sha256: Option<String>,
    /// Rows that were trained on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<usize>,
}

/// As much of a manifest as is needed here.
#[derive(Deserialize)]
struct Account {
    dataset_sha256: String,
    preferences_sha256: Option<String>,
    #[serde(default)]
    logs_sha256: Option<String>,
    prompt_sha256: String,
    rows: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    split: String,
}

impl Learnt {
    /// Of the dataset with this hash, from the manifest that was kept with it; nothing when there was none.
    pub fn of(workspace: &Workspace, dataset_sha256: &str) -> Self {
        let text = read_text(&workspace.kept_manifest(dataset_sha256));
        let Some(account) = text.ok().and_then(|text| account(&text, dataset_sha256)) else {
            return Self::default();
        };
        let split = if account.dataset_sha256 == dataset_sha256 { "train" } else { "preference" };
        Self {
            logs_sha256: account.logs_sha256,
            prompt_sha256: Some(account.prompt_sha256),
            rows: Some(account.rows.iter().filter(|row| row.split == split).count()),
        }
    }
}

/// The manifest, if it is that of the dataset.
fn account(text: &str, dataset_sha256: &str) -> Option<Account> {
    let account: Account = serde_json::from_str(text).ok()?;
    let its = account.dataset_sha256 == dataset_sha256
        || account.preferences_sha256.as_deref() == Some(dataset_sha256);
    its.then_some(account)
}

/// Keeps the dataset of a job that is to be started, and its manifest where that is its.
pub(super) fn keep_dataset(workspace: &Workspace, dataset: &Path, sha256: &str) -> Result<(), StoreError> {
    let kept = workspace.kept_dataset(sha256);
    if !kept.exists() {
        copy_atomic(dataset, &kept)?;
    }
    match read_text(&workspace.manifest()) {
        Ok(text) if account(&text, sha256).is_some() => {
            write_atomic(&workspace.kept_manifest(sha256), text.as_bytes())
        }
        // A dataset that was not prepared here has none.
        _ => Ok(()),
    }
}

/// Writes down where a job's model came from, once.
pub(super) fn keep(workspace: &Workspace, job: &Job) -> Result<(), StoreError> {
    let (Some(model), JobStatus::Succeeded) = (&job.fine_tuned_model, &job.status) else { return Ok(()) };
    let record = record_of(workspace, &job.id);
    let Some(JobRecord { row, base, dataset_sha256, .. }) = record else { return Ok(()) };
    if origin_of(workspace, model).is_some() {
        return Ok(());
    }
    let learnt = dataset_sha256.as_deref().map(|sha256| Learnt::of(workspace, sha256)).unwrap_or_default();
    let method = job.method.as_ref();
    let numbers = method.and_then(Method::hyperparameters).unwrap_or(&job.hyperparameters);
    let origin = Origin {
        format: FORMAT.into(),
        version: VERSION,
        at: jiff::Timestamp::now().to_string(),
        model: model.clone(),
        job: job.id.clone(),
        row,
        base,
        method: method.map_or_else(|| "supervised".into(), |method| method.r#type.clone()),
        epochs: numbers.n_epochs.fixed(),
        dataset_sha256,
        learnt,
    };
    append_line(&workspace.models(), &origin)
}

/// Where a model came from. Half-written lines and those of another version are passed over.
pub fn origin_of(workspace: &Workspace, model: &str) -> Option<Origin> {
    let (lines, _) = parse_lines::<Origin>(&read_text(&workspace.models()).ok()?);
    let known = |origin: &Origin| origin.format == FORMAT && origin.version == VERSION;
    lines.into_iter().map(|line| line.value).filter(known).find(|origin| origin.model == model)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model::wire::JobRequest, store::write_json};

    fn succeeded(id: &str, model: &str) -> Job {
        let request = JobRequest { model: "base".into(), ..JobRequest::default() };
        Job {
            status: JobStatus::Succeeded,
            fine_tuned_model: Some(model.into()),
            ..Job::new(id, &request, 5, 0)
        }
    }

    #[test]
    fn what_a_model_learnt_outlives_the_next_dataset() {
        let folder = tempfile::tempdir().unwrap();
        let workspace = Workspace::new(folder.path());
        let rows = serde_json::json!([{"split": "train"}, {"split": "train"}, {"split": "validation"}]);
        let manifest = serde_json::json!({
            "dataset_sha256": "d1", "preferences_sha256": null, "logs_sha256": "l1", "prompt_sha256": "p", "rows": rows,
        });
        std::fs::create_dir_all(workspace.dataset().parent().unwrap()).unwrap();
        std::fs::write(workspace.dataset(), "one\n").unwrap();
        write_json(&workspace.manifest(), &manifest).unwrap();
        keep_dataset(&workspace, &workspace.dataset(), "d1").unwrap();
        // The next dataset takes the names, be it in the very file of the last.
        std::fs::write(workspace.dataset(), "two\n").unwrap();
        write_json(&workspace.manifest(), &serde_json::json!({})).unwrap();
        keep_dataset(&workspace, &workspace.dataset(), "d2").unwrap();

        for (id, model, dataset) in [("ftjob-1", "ft:a", "d1"), ("ftjob-2", "ft:b", "d2")] {
            let job = succeeded(id, model);
            JobRecord::new("local", &job, "k".into(), Some(dataset.into())).write(&workspace).unwrap();
            keep(&workspace, &job).unwrap();
            keep(&workspace, &job).unwrap();
        }
        let first = origin_of(&workspace, "ft:a").unwrap();
        let learnt =
            Learnt { logs_sha256: Some("l1".into()), prompt_sha256: Some("p".into()), rows: Some(2) };
        assert_eq!(
            (first.job.as_str(), &first.learnt, first.method.as_str()),
            ("ftjob-1", &learnt, "supervised")
        );
        assert_eq!(origin_of(&workspace, "ft:b").unwrap().learnt, Learnt::default());
        assert_eq!(origin_of(&workspace, "ft:c"), None);
        assert_eq!(read_text(&workspace.models()).unwrap().lines().count(), 2, "each model once");
        assert_eq!(read_text(&workspace.kept_dataset("d1")).unwrap(), "one\n");
    }
}
