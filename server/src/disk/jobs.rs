//! Jobs: one folder each, which is the whole contract between server and training child.
//!
//! `job.json` is the job as the API shows it and what is needed to run it; `events.jsonl` its history; `checkpoints.json`
//! what can be used; `cancel` and `pause` ask the child to stop; `child.lock` is held while a child trains; `child.log` is its
//! stderr; `run/` is the trainer's own. While a child holds the lock, nobody else writes `job.json`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use hone::{
    model::wire::{Checkpoint, Job, JobError, JobEvent, JobStatus, Level},
    store::{Lock, LockError, StoreError, append_line, parse_lines, read_text, write_json},
};
use serde::{Deserialize, Serialize};

use super::{clean, folder_names, read_json};
use crate::{config::BaseModel, ids};

const FORMAT: &str = "hone.job";
const VERSION: u32 = 1;
/// Starts the name of a folder that is not a job yet; such names are not listed.
const MAKING: &str = ".new-";

/// A job and how to run it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobRecord {
    format: String,
    version: u32,
    pub job: Job,
    /// The model file that is trained.
    pub base: BaseModel,
    /// The tuned model to go on from, when the job names one.
    #[serde(default)]
    pub parent: Option<String>,
    /// Larger is newer.
    pub order: u64,
    /// Children that died under a watching server.
    #[serde(default)]
    pub deaths: u32,
}

impl JobRecord {
    pub fn new(job: Job, base: BaseModel, parent: Option<String>) -> Self {
        let (format, version) = (FORMAT.into(), VERSION);
        Self { format, version, job, base, parent, order: ids::order(), deaths: 0 }
    }

    /// True while the job needs a file.
    pub fn uses(&self, file: &str) -> bool {
        let job = &self.job;
        !job.status.is_terminal()
            && (job.training_file == file || job.validation_file.as_deref() == Some(file))
    }
}

/// The folder of jobs.
#[derive(Clone, Debug)]
pub struct Jobs {
    folder: PathBuf,
}

impl Jobs {
    pub fn new(root: &Path) -> Self {
        Self { folder: root.join("jobs") }
    }

    /// The folder of a job that exists.
    pub fn get(&self, id: &str) -> Option<JobFolder> {
        let folder = self.folder(id);
        (ids::is_plain(id) && folder.path.join("job.json").exists()).then_some(folder)
    }

    fn folder(&self, id: &str) -> JobFolder {
        JobFolder { path: self.folder.join(id) }
    }

    /// Makes a job's folder, whole or not at all, with the first line of its history.
    pub fn create(&self, record: &JobRecord) -> Result<(), StoreError> {
        let id = &record.job.id;
        let made = self.folder(&format!("{MAKING}{id}"));
        made.event(Level::Info, format!("Created fine-tuning job: {id}"))?;
        made.write(record)?;
        let folder = self.folder(id).path;
        fs::rename(&made.path, &folder).map_err(|e| StoreError::new("write", folder, e))
    }

    /// Removes what a killed server was about to create. Nobody else may be creating.
    pub fn clean(&self) {
        clean(&self.folder, MAKING);
    }

    /// All jobs, newest first. A folder that cannot be read is left out and logged.
    pub fn list(&self) -> Result<Vec<JobRecord>, StoreError> {
        let mut records = Vec::new();
        for id in folder_names(&self.folder)? {
            match self.get(&id).map(|folder| folder.read()) {
                Some(Ok(record)) => records.push(record),
                Some(Err(error)) => tracing::warn!(%error, "a job that cannot be read is left out"),
                None => {}
            }
        }
        records.sort_by_key(|record| std::cmp::Reverse(record.order));
        Ok(records)
    }
}

/// One job's folder.
#[derive(Clone, Debug)]
pub struct JobFolder {
    path: PathBuf,
}

impl JobFolder {
    /// A folder given by path, as a child is.
    pub fn at(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn read(&self) -> Result<JobRecord, StoreError> {
        let path = self.path.join("job.json");
        let fail = |why: &str| StoreError::new("read", &path, std::io::Error::other(why.to_owned()));
        let record: JobRecord = read_json(&path)?.ok_or_else(|| fail("it is gone"))?;
        if record.format != FORMAT || record.version > VERSION {
            return Err(fail("it was written by a newer version"));
        }
        Ok(record)
    }

    /// The job as the API shows it: one that was asked to pause says so before its child has got to it.
    pub fn job(&self) -> Result<Job, StoreError> {
        let mut job = self.read()?.job;
        if job.status == JobStatus::Running && self.is_pause_asked() {
            job.status = JobStatus::Pausing;
        }
        Ok(job)
    }

    pub fn write(&self, record: &JobRecord) -> Result<(), StoreError> {
        write_json(&self.path.join("job.json"), record)
    }

    /// Reads, changes and writes the record.
    pub fn update(&self, change: impl FnOnce(&mut JobRecord)) -> Result<JobRecord, StoreError> {
        let mut record = self.read()?;
        change(&mut record);
        self.write(&record)?;
        Ok(record)
    }

    /// Adds a line to the job's history.
    pub fn event(&self, level: Level, message: impl Into<String>) -> Result<(), StoreError> {
        self.append(&JobEvent::new(ids::random("ftevent-"), ids::now(), level, message))
    }

    /// Adds a line unless the history has it: what a killed child said, its successor does not say again.
    pub fn event_once(&self, level: Level, message: &str) -> Result<(), StoreError> {
        if self.events()?.iter().any(|event| event.message == message) {
            return Ok(());
        }
        self.event(level, message)
    }

    pub fn append(&self, event: &JobEvent) -> Result<(), StoreError> {
        append_line(&self.path.join("events.jsonl"), event)
    }

    /// The history, oldest first. Half a line of a killed writer is not part of it.
    pub fn events(&self) -> Result<Vec<JobEvent>, StoreError> {
        let path = self.path.join("events.jsonl");
        if !path.exists() {
            return Ok(Vec::new());
        }
        let (lines, _) = parse_lines(&read_text(&path)?);
        Ok(lines.into_iter().map(|line| line.value).collect())
    }

    /// Usable checkpoints, oldest first.
    pub fn checkpoints(&self) -> Result<Vec<Checkpoint>, StoreError> {
        Ok(read_json(&self.path.join("checkpoints.json"))?.unwrap_or_default())
    }

    pub fn write_checkpoints(&self, checkpoints: &[Checkpoint]) -> Result<(), StoreError> {
        write_json(&self.path.join("checkpoints.json"), &checkpoints)
    }

    /// Held by the child that trains.
    pub fn lock(&self) -> Result<Lock, LockError> {
        Lock::take(&self.lock_path())
    }

    pub fn lock_path(&self) -> PathBuf {
        self.path.join("child.lock")
    }

    pub fn log_path(&self) -> PathBuf {
        self.path.join("child.log")
    }

    /// The trainer's own folder.
    pub fn run_path(&self) -> PathBuf {
        self.path.join("run")
    }

    /// Asks for the job to be stopped.
    pub fn ask_to_cancel(&self) -> Result<(), StoreError> {
        let path = self.path.join("cancel");
        fs::write(&path, b"").map_err(|e| StoreError::new("write", path, e))
    }

    pub fn is_cancel_asked(&self) -> bool {
        self.path.join("cancel").exists()
    }

    /// Asks for the job to be stopped in a way that it can go on from.
    pub fn ask_to_pause(&self) -> Result<(), StoreError> {
        let path = self.path.join("pause");
        fs::write(&path, b"").map_err(|e| StoreError::new("write", path, e))
    }

    pub fn is_pause_asked(&self) -> bool {
        self.path.join("pause").exists()
    }

    /// Puts the job to rest, after a step if it got that far.
    pub fn paused(&self, after: Option<(usize, usize)>) -> Result<(), StoreError> {
        let at = after.map(|(step, total)| format!(" after step {step}/{total}")).unwrap_or_default();
        self.event(Level::Info, format!("The job is paused{at}"))?;
        self.update(|record| {
            record.job.status = JobStatus::Paused;
            record.job.estimated_finish = None;
        })?;
        Ok(())
    }

    /// Puts a paused job back into the queue.
    pub fn resume(&self) -> Result<(), StoreError> {
        let path = self.path.join("pause");
        match fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(StoreError::new("remove", path, e));
            }
            _ => {}
        }
        self.event(Level::Info, "The job is resumed, moving job to queued state")?;
        self.update(|record| record.job.status = JobStatus::Queued)?;
        Ok(())
    }

    /// Ends the job as failed and says why in its history.
    pub fn fail(&self, code: &str, message: &str, param: Option<&str>) -> Result<(), StoreError> {
        self.event(Level::Error, message)?;
        let error = JobError {
            code: Some(code.into()),
            message: Some(message.into()),
            param: param.map(str::to_owned),
        };
        self.end(JobStatus::Failed, |job| job.error = Some(error))
    }

    /// Ends the job as cancelled.
    pub fn cancelled(&self) -> Result<(), StoreError> {
        self.event_once(Level::Info, "The job was cancelled")?;
        self.end(JobStatus::Cancelled, |_| {})
    }

    /// Gives the job its last status.
    pub fn end(&self, status: JobStatus, change: impl FnOnce(&mut Job)) -> Result<(), StoreError> {
        self.update(|record| {
            change(&mut record.job);
            record.job.status = status;
            record.job.finished_at = Some(ids::now());
            record.job.estimated_finish = None;
        })?;
        Ok(())
    }
}
