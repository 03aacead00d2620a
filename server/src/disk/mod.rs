//! What the server keeps: files, uploads, jobs, batches, tuned models, answers to keys. One folder each, readable without the server.

mod answers;
mod batches;
mod files;
mod jobs;
mod tuned;
mod uploads;

pub use answers::{Answers, Kept};
pub use batches::{BatchFolder, BatchRecord, Batches, Done};
pub use files::Files;
pub use jobs::{JobFolder, JobRecord, Jobs};
pub use tuned::{Tuned, TunedModel};
pub use uploads::{UploadRecord, Uploads};

use std::path::Path;

use hone::store::{StoreError, read_text};
use serde::de::DeserializeOwned;

/// Reads a JSON file; none when it is not there.
fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, StoreError> {
    let text = match read_text(path) {
        Ok(text) => text,
        Err(e) if e.source.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let value = serde_json::from_str(&text).map_err(|e| StoreError::new("understand", path, e.into()))?;
    Ok(Some(value))
}

/// Names of the folders in a folder; none when it does not exist.
fn folder_names(path: &Path) -> Result<Vec<String>, StoreError> {
    let failed = |e| StoreError::new("list", path, e);
    let entries = match std::fs::read_dir(path) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(failed(e)),
    };
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let names: Vec<String> = names.collect::<std::io::Result<_>>().map_err(failed)?;
    Ok(names.into_iter().filter(|name| !name.starts_with('.')).collect())
}

/// Removes what a killed process left half written: entries whose names start so.
fn clean(folder: &Path, prefix: &str) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            // Litter costs room and nothing else.
            let _ = std::fs::remove_file(entry.path()).or_else(|_| std::fs::remove_dir_all(entry.path()));
        }
    }
}

/// Removes a folder and everything in it; that it is gone already is fine.
fn remove_folder(path: &Path) -> Result<(), StoreError> {
    match std::fs::remove_dir_all(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(StoreError::new("remove", path, e)),
        _ => Ok(()),
    }
}
