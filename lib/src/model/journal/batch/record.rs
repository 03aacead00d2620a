//! A batch on disk: its calls, its input as it is uploaded, and how far it has come.

use std::{
    collections::{BTreeSet, HashMap},
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::super::Asked;
use crate::{
    model::client::Client,
    store::{self, Lock, StoreError},
};

/// Below the journal's folder.
const FOLDER: &str = "batches";
/// What a batch is called as an owner of claims and holds begins with.
const OWNER: &str = "batch-";
const FORMAT: &str = "hone.batch";
/// What the names of its files end in, in the order in which they are removed.
const ENDS: [&str; 4] = ["json", "jsonl", "calls", "lock"];

/// Whether an owner of claims and holds is a batch.
pub(in super::super) fn is_owner(owner: &str) -> bool {
    owner.starts_with(OWNER)
}

/// Lock and record of an owner that is a batch.
pub(in super::super) fn files_of(journal: &Path, owner: &str) -> Option<(PathBuf, PathBuf)> {
    let id = owner.strip_prefix(OWNER)?;
    let file = |end: &str| journal.join(FOLDER).join(format!("{id}.{end}"));
    Some((file("lock"), file("json")))
}

/// How far a batch has come.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "stage", rename_all = "snake_case")]
pub(super) enum Stage {
    /// Nothing was sent.
    Written,
    /// The input is uploaded, and the batch may have been created.
    Creating {
        /// The input's name there; empty where it goes with the creation.
        file: String,
        /// Batches that were there before, where nothing in a batch says whose it is.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        known: Vec<String>,
    },
    Created {
        batch: String,
    },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    format: String,
    version: u32,
    pub id: String,
    /// Whom its calls are for.
    pub identity: String,
    /// What errors call that.
    pub provider: String,
    pub model: String,
    pub calls: usize,
    /// Unix seconds.
    pub made_at: i64,
    #[serde(flatten)]
    pub stage: Stage,
}

/// A call of a batch, with what is needed to put its answer into the journal.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Item {
    pub hold: i64,
    pub asked: Asked,
}

/// A batch that this process follows.
pub(super) struct Open {
    pub record: Record,
    folder: PathBuf,
    _lock: Lock,
}

impl Open {
    /// A batch of which nothing is on disk but its lock.
    pub fn new(journal: &Path, client: &Client, model: &str, calls: usize) -> Result<Self, StoreError> {
        let (id, folder) = (format!("{:032x}", rand::random::<u128>()), journal.join(FOLDER));
        let path = folder.join(format!("{id}.lock"));
        let busy = |e| StoreError::new("lock", &path, std::io::Error::other(format!("{e}")));
        let lock = Lock::take(&path).map_err(busy)?;
        let endpoint = client.endpoint();
        let record = Record {
            format: FORMAT.into(),
            version: 1,
            id,
            identity: endpoint.identity.clone(),
            provider: endpoint.name.clone(),
            model: model.into(),
            calls,
            made_at: jiff::Timestamp::now().as_second(),
            stage: Stage::Written,
        };
        Ok(Self { record, folder, _lock: lock })
    }

    /// Batches for an identity that no process follows. What is left of one that was never recorded is removed.
    pub fn orphans(journal: &Path, identity: &str) -> Vec<Self> {
        let folder = journal.join(FOLDER);
        let Ok(entries) = fs::read_dir(&folder) else { return Vec::new() };
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        // Any of its files: whoever found its process dead may have removed the lock.
        let id_of = |name: String| {
            let (id, end) = name.rsplit_once('.')?;
            (!id.is_empty() && ENDS.contains(&end)).then(|| id.to_owned())
        };
        let ids: BTreeSet<String> = names.filter_map(id_of).collect();
        ids.iter().filter_map(|id| Self::orphan(&folder, id, identity)).collect()
    }

    fn orphan(folder: &Path, id: &str, identity: &str) -> Option<Self> {
        let path = folder.join(format!("{id}.json"));
        let read = || serde_json::from_str::<Record>(&store::read_text(&path).ok()?).ok();
        let is_anothers = |record: Record| record.identity != identity;
        if read().is_some_and(is_anothers) {
            return None;
        }
        let lock = Lock::take(&folder.join(format!("{id}.lock"))).ok()?;
        // What was read before the lock was had may have been another's last word.
        if !path.exists() {
            clear(folder, id);
            return None;
        }
        Some(Self { record: read()?, folder: folder.to_owned(), _lock: lock })
    }

    /// What it is called as the owner of its calls.
    pub fn owner(&self) -> String {
        format!("{OWNER}{}", self.record.id)
    }

    fn file(&self, end: &str) -> PathBuf {
        self.folder.join(format!("{}.{end}", self.record.id))
    }

    /// What is uploaded.
    pub fn input(&self) -> PathBuf {
        self.file("jsonl")
    }

    /// Writes its calls and its input.
    pub fn with_calls(self, items: Vec<Item>, lines: Vec<String>) -> Result<Self, StoreError> {
        let path = self.file("calls");
        let unwritable = |e| StoreError::new("write", &path, std::io::Error::other(e));
        let mut text = Vec::new();
        for item in &items {
            serde_json::to_writer(&mut text, item).map_err(unwritable)?;
            text.push(b'\n');
        }
        store::write_atomic(&path, &text)?;
        let input: String = lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect();
        store::write_atomic(&self.input(), input.as_bytes())?;
        Ok(self)
    }

    /// Its calls by their keys.
    pub fn calls(folder: &Path, id: &str) -> Result<HashMap<String, Item>, StoreError> {
        let path = folder.join(format!("{id}.calls"));
        let unreadable = |e| StoreError::new("read", &path, e);
        let file = BufReader::new(fs::File::open(&path).map_err(unreadable)?);
        let mut calls = HashMap::new();
        for line in file.lines() {
            let item: Item = serde_json::from_str(&line.map_err(unreadable)?)
                .map_err(|e| unreadable(std::io::Error::other(e)))?;
            calls.insert(item.asked.key.clone(), item);
        }
        Ok(calls)
    }

    /// Where [`Open::calls`] are.
    pub fn place(&self) -> (PathBuf, String) {
        (self.folder.clone(), self.record.id.clone())
    }

    /// Writes its record.
    pub fn save(&self) -> Result<(), StoreError> {
        store::write_json(&self.file("json"), &self.record)
    }

    /// Notes how far it has come.
    pub fn reach(&mut self, stage: Stage) -> Result<(), StoreError> {
        self.record.stage = stage;
        self.save()
    }

    /// It is over: nothing of it is left.
    pub fn finish(self) {
        clear(&self.folder, &self.record.id);
    }
}

/// Removes a batch's files, the record first: what stays behind without one is no batch.
fn clear(folder: &Path, id: &str) {
    for end in ENDS {
        // A file that cannot be removed is found again by whoever looks for batches next.
        let _ = fs::remove_file(folder.join(format!("{id}.{end}")));
    }
}
