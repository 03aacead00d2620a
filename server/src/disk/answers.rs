//! What was answered to requests with an `Idempotency-Key`: `answers/<hash of path and key>.json`, kept for a day.

use std::{
    collections::VecDeque,
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use hone::store::{StoreError, write_json};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::read_json;
use crate::ids;

/// Seconds for which an answer is kept.
pub const KEPT: i64 = 24 * 3600;
/// Answers that are kept at most; beyond that the oldest go.
const MOST: usize = 10_000;

/// A request that was begun, and its answer when it was given.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    /// Hash of what was asked.
    pub fingerprint: String,
    /// The random part of the id of what is made: a request that is repeated after a kill makes the same thing.
    pub tail: String,
    /// Unix seconds.
    pub at: i64,
    pub answer: Option<Value>,
}

/// The folder of answers.
pub struct Answers {
    folder: PathBuf,
    /// When each was begun and its name, oldest first.
    known: Mutex<VecDeque<(i64, String)>>,
}

impl Answers {
    /// Reads which answers there are.
    pub fn new(root: &Path) -> Self {
        let folder = root.join("answers");
        let mut known = Vec::new();
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let kept: Option<Kept> = read_json(&entry.path()).unwrap_or_default();
            let at = kept.map_or(0, |kept| kept.at);
            known.push((at, entry.file_name().to_string_lossy().trim_end_matches(".json").to_owned()));
        }
        known.sort();
        Self { folder, known: Mutex::new(known.into()) }
    }

    /// The name under which the answer to a key is kept; keys are the clients' and may be anything.
    pub fn name(path: &str, key: &str) -> String {
        let digest = Sha256::digest(format!("{path}\n{key}"));
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.json"))
    }

    pub fn get(&self, name: &str) -> Result<Option<Kept>, StoreError> {
        let kept: Option<Kept> = read_json(&self.path(name))?;
        Ok(kept.filter(|kept| kept.at + KEPT > ids::now()))
    }

    pub fn put(&self, name: &str, kept: &Kept) -> Result<(), StoreError> {
        write_json(&self.path(name), kept)?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if !known.iter().rev().any(|(_, other)| other == name) {
            known.push_back((kept.at, name.to_owned()));
        }
        while known.len() > MOST {
            self.forget_first(&mut known);
        }
        Ok(())
    }

    pub fn remove(&self, name: &str) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|(_, other)| other != name);
        // An answer that stays too long is found to be too old.
        let _ = fs::remove_file(self.path(name));
    }

    /// Forgets what is older than a day.
    pub fn sweep(&self) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        while known.front().is_some_and(|(at, _)| at + KEPT <= ids::now()) {
            self.forget_first(&mut known);
        }
    }

    fn forget_first(&self, known: &mut VecDeque<(i64, String)>) {
        if let Some((_, name)) = known.pop_front() {
            let _ = fs::remove_file(self.path(&name));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(at: i64) -> Kept {
        Kept { fingerprint: "f".into(), tail: "t".into(), at, answer: None }
    }

    #[test]
    fn answers_are_found_for_a_day_even_by_the_next_server() {
        let root = tempfile::tempdir().unwrap();
        let (new, old) = (Answers::name("/v1/files", "k/../1"), Answers::name("/v1/files", "2"));
        let answers = Answers::new(root.path());
        answers.put(&new, &kept(ids::now())).unwrap();
        answers.put(&old, &kept(ids::now() - KEPT)).unwrap();
        let answers = Answers::new(root.path());
        assert!(answers.get(&new).unwrap().is_some());
        assert_eq!(answers.get(&old).unwrap(), None);
        answers.sweep();
        assert_eq!((answers.path(&new).exists(), answers.path(&old).exists()), (true, false));
        answers.remove(&new);
        assert_eq!(answers.get(&new).unwrap(), None);
    }

    #[test]
    fn there_is_an_end_to_them() {
        let root = tempfile::tempdir().unwrap();
        let answers = Answers::new(root.path());
        let many = (0..MOST as i64).map(|n| (n, n.to_string()));
        *answers.known.lock().unwrap() = many.collect();
        answers.put("first", &kept(ids::now())).unwrap();
        answers.put("second", &kept(ids::now())).unwrap();
        let known = answers.known.lock().unwrap();
        assert_eq!((known.len(), known[0].1.as_str()), (MOST, "2"));
    }
}
