//! Every job that this workspace started, wherever it runs: `.hone/jobs/<row>/<job>.json`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Charge, trainer::Trainer};
use crate::{
    model::wire::{Job, JobStatus},
    store::{StoreError, Workspace, read_text, write_json},
};

const FORMAT: &str = "hone.job-record";
const VERSION: u32 = 1;

/// A job as it was seen last.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobRecord {
    pub(super) format: String,
    pub(super) version: u32,
    /// The row whose provider has it.
    pub row: String,
    pub job: String,
    pub base: String,
    /// What it was started for.
    pub key: String,
    #[serde(default)]
    pub dataset_sha256: Option<String>,
    /// What is held for it; none where it costs nothing, and for jobs of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub charge: Option<Charge>,
    /// It was seen to train.
    #[serde(default)]
    pub ran: bool,
    pub last: Job,
}

impl JobRecord {
    pub fn new(row: &str, job: &Job, key: String, dataset_sha256: Option<String>) -> Self {
        Self {
            format: FORMAT.into(),
            version: VERSION,
            row: row.into(),
            job: job.id.clone(),
            base: job.model.clone(),
            key,
            dataset_sha256,
            charge: None,
            ran: false,
            last: job.clone(),
        }
    }

    pub fn write(&self, workspace: &Workspace) -> Result<(), StoreError> {
        let name = format!("{}.json", plain(&self.job));
        write_json(&workspace.jobs().join(plain(&self.row)).join(name), self)
    }

    /// The model that it made.
    pub fn tuned(&self) -> Option<&str> {
        self.last.fine_tuned_model.as_deref().filter(|_| self.last.status == JobStatus::Succeeded)
    }
}

/// All records, newest first. One that cannot be read is left out: the provider still has its job.
pub fn records(workspace: &Workspace) -> Vec<JobRecord> {
    let mut found: Vec<JobRecord> =
        below(workspace.jobs()).into_iter().flat_map(below).filter_map(|path| read(&path)).collect();
    found.sort_by(|a, b| (b.last.created_at, &b.job).cmp(&(a.last.created_at, &a.job)));
    found
}

fn read(path: &std::path::Path) -> Option<JobRecord> {
    let record: JobRecord = serde_json::from_str(&read_text(path).ok()?).ok()?;
    (record.format == FORMAT && record.version == VERSION).then_some(record)
}

fn below(folder: PathBuf) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    entries.filter_map(|entry| Some(entry.ok()?.path())).collect()
}

/// The record of a job.
pub fn record_of(workspace: &Workspace, job: &str) -> Option<JobRecord> {
    records(workspace).into_iter().find(|record| record.job == job)
}

/// The row at which a tuned model answers, when a recorded job made it.
pub fn row_of_model(workspace: &Workspace, model: &str) -> Option<String> {
    Some(records(workspace).into_iter().find(|record| record.tuned() == Some(model))?.row)
}

/// Notes what a job has become, if it is one of ours.
///
/// # Errors
/// When the record cannot be written.
pub fn seen(workspace: &Workspace, trainer: &Trainer, job: &Job) -> Result<(), StoreError> {
    match record_of(workspace, &job.id) {
        Some(record) if record.row == trainer.row() && record.last != *job => {
            let trains = matches!(job.status, JobStatus::Running | JobStatus::Pausing | JobStatus::Paused);
            JobRecord { last: job.clone(), ran: record.ran || trains, ..record }.write(workspace)
        }
        _ => Ok(()),
    }
}

/// A name as a file's: itself where it is plain.
fn plain(name: &str) -> String {
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if !name.is_empty() && name.len() <= 80 && name.chars().all(fine) && !name.starts_with('.') {
        return name.to_owned();
    }
    crate::text::hex(&Sha256::digest(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::wire::JobRequest;

    #[test]
    fn a_record_is_found_by_its_job_and_its_model() {
        let folder = tempfile::tempdir().unwrap();
        let workspace = Workspace::new(folder.path());
        assert_eq!(records(&workspace), []);
        let mut job =
            Job::new("ftjob-1", &JobRequest { model: "base".into(), ..JobRequest::default() }, 5, 0);
        job.fine_tuned_model = Some("ft:base:o::1".into());
        JobRecord::new("gpt", &job, "k".into(), None).write(&workspace).unwrap();
        assert!(workspace.jobs().join("gpt/ftjob-1.json").is_file());
        assert_eq!(row_of_model(&workspace, "ft:base:o::1"), None, "it is not made yet");
        job.status = JobStatus::Succeeded;
        let record = JobRecord::new("gpt", &job, "k".into(), Some("s".into()));
        record.write(&workspace).unwrap();
        assert_eq!(records(&workspace), std::slice::from_ref(&record));
        assert_eq!(record_of(&workspace, "ftjob-1"), Some(record));
        assert_eq!(row_of_model(&workspace, "ft:base:o::1").as_deref(), Some("gpt"));
        std::fs::write(workspace.jobs().join("gpt/spoilt.json"), "{\"format\":").unwrap();
        assert_eq!(records(&workspace).len(), 1);
    }

    #[test]
    fn a_providers_id_cannot_leave_the_folder() {
        for name in ["../../etc/passwd", "a/b", ".hidden", "", "ft:x", &"x".repeat(200)] {
            let plain = plain(name);
            assert!(plain.len() == 64 && plain.chars().all(|c| c.is_ascii_hexdigit()), "{name}");
        }
        assert_eq!(plain("ft-01ab_2.3"), "ft-01ab_2.3");
    }
}
