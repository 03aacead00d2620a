//! Batches: `batches/<id>/{batch.json, input.jsonl, output.jsonl, errors.jsonl}`.
//!
//! A request of the input is done when one of the two other files has a line for it; that is all a server needs to go on
//! with a batch that another one began.

use std::{
    collections::HashSet,
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
};

use hone::{
    model::wire::{Batch, BatchLine, BatchUsage, RequestCounts},
    store::{StoreError, append_line, write_json},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{clean, folder_names, read_json, remove_folder};
use crate::ids;

const FORMAT: &str = "hone.batch";
const VERSION: u32 = 1;
/// Starts the name of a folder that is not a batch yet.
const MAKING: &str = ".new-";

/// A batch and what the API does not show of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BatchRecord {
    format: String,
    version: u32,
    pub batch: Batch,
    /// Larger is newer.
    pub order: u64,
    /// Seconds for which the files that it writes are to be kept.
    #[serde(default)]
    pub output_expires_after: Option<i64>,
}

impl BatchRecord {
    pub fn new(batch: Batch, output_expires_after: Option<i64>) -> Self {
        Self { format: FORMAT.into(), version: VERSION, batch, order: ids::order(), output_expires_after }
    }
}

/// The folder of batches.
#[derive(Clone, Debug)]
pub struct Batches {
    folder: PathBuf,
}

/// What has been done of a batch.
#[derive(Clone, Debug, Default)]
pub struct Done {
    pub ids: HashSet<String>,
    pub completed: u64,
    pub failed: u64,
    pub usage: BatchUsage,
}

impl Batches {
    pub fn new(root: &Path) -> Self {
        Self { folder: root.join("batches") }
    }

    /// Removes what a killed server was about to create. Nobody else may be creating.
    pub fn clean(&self) {
        clean(&self.folder, MAKING);
    }

    /// Makes a batch's folder, whole or not at all. The input is the batch's own: its file may go meanwhile.
    pub fn create(&self, record: &BatchRecord, input: &Path) -> Result<(), StoreError> {
        let made = self.folder.join(format!("{MAKING}{}", record.batch.id));
        let moved = fill(&made, record, input).and_then(|()| {
            let folder = self.folder.join(&record.batch.id);
            fs::rename(&made, &folder).map_err(|e| StoreError::new("write", folder, e))
        });
        if moved.is_err() {
            // What cannot be removed now is removed by the next server.
            let _ = remove_folder(&made);
        }
        moved
    }

    /// The folder of a batch that exists.
    pub fn get(&self, id: &str) -> Option<BatchFolder> {
        let path = self.folder.join(id);
        (ids::is_plain(id) && path.join("batch.json").exists()).then_some(BatchFolder { path })
    }

    /// All batches, newest first. A folder that cannot be read is left out and logged.
    pub fn list(&self) -> Result<Vec<BatchRecord>, StoreError> {
        let mut records = Vec::new();
        for id in folder_names(&self.folder)? {
            match self.get(&id).map(|folder| folder.read()) {
                Some(Ok(record)) => records.push(record),
                Some(Err(error)) => tracing::warn!(%error, "a batch that cannot be read is left out"),
                None => {}
            }
        }
        records.sort_by_key(|record| std::cmp::Reverse(record.order));
        Ok(records)
    }
}

fn fill(folder: &Path, record: &BatchRecord, input: &Path) -> Result<(), StoreError> {
    let failed = |e| StoreError::new("write", folder, e);
    fs::create_dir_all(folder).map_err(failed)?;
    let own = folder.join("input.jsonl");
    // A second name costs nothing; where the file system has none, a copy does as well.
    fs::hard_link(input, &own).or_else(|_| fs::copy(input, &own).map(drop)).map_err(failed)?;
    write_json(&folder.join("batch.json"), record)
}

/// One batch's folder.
#[derive(Clone, Debug)]
pub struct BatchFolder {
    path: PathBuf,
}

impl BatchFolder {
    pub fn read(&self) -> Result<BatchRecord, StoreError> {
        let path = self.path.join("batch.json");
        let fail = |why: &str| StoreError::new("read", &path, std::io::Error::other(why.to_owned()));
        let record: BatchRecord = read_json(&path)?.ok_or_else(|| fail("it is gone"))?;
        if record.format != FORMAT || record.version > VERSION {
            return Err(fail("it was written by a newer version"));
        }
        Ok(record)
    }

    /// Reads, changes and writes the record.
    pub fn update(&self, change: impl FnOnce(&mut Batch)) -> Result<Batch, StoreError> {
        let mut record = self.read()?;
        change(&mut record.batch);
        write_json(&self.path.join("batch.json"), &record)?;
        Ok(record.batch)
    }

    pub fn input(&self) -> PathBuf {
        self.path.join("input.jsonl")
    }

    pub fn output(&self) -> PathBuf {
        self.path.join("output.jsonl")
    }

    pub fn errors(&self) -> PathBuf {
        self.path.join("errors.jsonl")
    }

    /// Keeps a line of the output or, when `succeeded` is false, of the error file.
    pub fn keep(&self, line: &BatchLine, succeeded: bool) -> Result<(), StoreError> {
        append_line(&if succeeded { self.output() } else { self.errors() }, line)
    }

    /// What has been done. Half a line of a killed server is not.
    pub fn done(&self) -> Result<Done, StoreError> {
        let mut done = Done::default();
        each_line(&self.output(), |line| done.answered(&line))?;
        each_line(&self.errors(), |line| done.take(&line, false))?;
        Ok(done)
    }

    /// Removes what only a batch in progress needs.
    pub fn drop_work(&self) {
        for path in [self.input(), self.output(), self.errors()] {
            // What stays costs room and nothing else.
            let _ = fs::remove_file(path);
        }
    }
}

fn each_line(path: &Path, mut take: impl FnMut(BatchLine)) -> Result<(), StoreError> {
    let failed = |e| StoreError::new("read", path, e);
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(failed(e)),
    };
    for line in BufReader::new(file).split(b'\n') {
        if let Ok(line) = serde_json::from_slice(&line.map_err(failed)?) {
            take(line);
        }
    }
    Ok(())
}

impl Done {
    /// Counts a request that was run.
    pub fn take(&mut self, line: &BatchLine, succeeded: bool) {
        if succeeded {
            return self.answered(line);
        }
        self.failed += 1;
        self.ids.insert(line.custom_id.clone());
    }

    /// Counts an answer with its tokens, by whichever names the endpoint gives them.
    fn answered(&mut self, line: &BatchLine) {
        self.completed += 1;
        self.ids.insert(line.custom_id.clone());
        let Some(response) = &line.response else { return };
        let usage = &response.body["usage"];
        let number = |value: &Value| value.as_u64().unwrap_or_default();
        let either = |a: &str, b: &str| number(usage.get(a).or_else(|| usage.get(b)).unwrap_or(&Value::Null));
        let detail = |a: &str, b: &str, key: &str| {
            number(usage.get(a).or_else(|| usage.get(b)).and_then(|d| d.get(key)).unwrap_or(&Value::Null))
        };
        let total = &mut self.usage;
        total.input_tokens += either("input_tokens", "prompt_tokens");
        total.output_tokens += either("output_tokens", "completion_tokens");
        total.total_tokens += number(&usage["total_tokens"]);
        total.input_tokens_details.cached_tokens +=
            detail("input_tokens_details", "prompt_tokens_details", "cached_tokens");
        total.output_tokens_details.reasoning_tokens +=
            detail("output_tokens_details", "completion_tokens_details", "reasoning_tokens");
    }

    pub fn counts(&self, total: u64) -> RequestCounts {
        RequestCounts { total, completed: self.completed, failed: self.failed }
    }
}

#[cfg(test)]
mod tests {
    use hone::model::wire::{BatchRequest, BatchResponse};
    use serde_json::json;

    use super::*;

    fn line(id: &str, body: Option<Value>) -> BatchLine {
        let response = body.map(|body| BatchResponse { status_code: 200, request_id: "req_1".into(), body });
        BatchLine { id: format!("batch_req_{id}"), custom_id: id.into(), response, error: None }
    }

    #[test]
    fn what_is_done_is_read_back() {
        let root = tempfile::tempdir().unwrap();
        let input = root.path().join("in");
        fs::write(&input, "{}\n").unwrap();
        let batches = Batches::new(root.path());
        let record = BatchRecord::new(Batch::new("batch_1", &BatchRequest::default(), 1, 2), None);
        batches.create(&record, &input).unwrap();
        fs::remove_file(&input).unwrap();
        let folder = batches.get("batch_1").unwrap();
        assert_eq!(fs::read_to_string(folder.input()).unwrap(), "{}\n");
        let chat = json!({"usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7,
            "prompt_tokens_details": {"cached_tokens": 3}}});
        let response = json!({"usage": {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}});
        folder.keep(&line("a", Some(chat)), true).unwrap();
        folder.keep(&line("b", Some(response)), true).unwrap();
        folder.keep(&line("c", Some(json!({"error": {}}))), false).unwrap();
        let mut half = fs::read(folder.output()).unwrap();
        half.extend_from_slice(br#"{"id":"batch_req_e","custom_id":"e","resp"#);
        fs::write(folder.output(), half).unwrap();
        let done = folder.done().unwrap();
        let mut ids: Vec<_> = done.ids.iter().map(String::as_str).collect();
        ids.sort_unstable();
        assert_eq!((ids.as_slice(), done.completed, done.failed), (["a", "b", "c"].as_slice(), 2, 1));
        let usage = done.usage;
        assert_eq!((usage.input_tokens, usage.output_tokens, usage.total_tokens), (6, 3, 9));
        assert_eq!(usage.input_tokens_details.cached_tokens, 3);
    }
}
