//! The base weights that a workspace began with: logs, answers and tuned models of other weights are not its own.

use std::{path::Path, time::UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::{Machine, setup::SetupError, weights};
use crate::store::{self, StoreError};

/// What the file looked like when its sum was taken, so that it is read only when it may have changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Seen {
    format: String,
    version: u32,
    sha256: String,
    bytes: u64,
    modified_ns: u128,
}

/// Remembers in `record` which weights the machine has, or compares with what is remembered. Weights of our own have to be
/// what set-up made.
///
/// # Errors
/// When they are other weights, or a file cannot be read or written.
pub fn same_weights(machine: &Machine, record: &Path) -> Result<(), SetupError> {
    let expected = machine.weights.is_none().then_some(weights::SOURCE.sha256);
    compare(&weights::gguf(machine), expected, record)
}

fn compare(gguf: &Path, expected: Option<&str>, record: &Path) -> Result<(), SetupError> {
    let metadata = gguf.metadata().map_err(|e| StoreError::new("read", gguf, e))?;
    let modified = metadata.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    let (bytes, modified_ns) = (metadata.len(), modified.map_or(0, |since| since.as_nanos()));
    let seen: Option<Seen> = store::read_text(record).ok().and_then(|text| serde_json::from_str(&text).ok());
    let unchanged = seen.as_ref().filter(|seen| (seen.bytes, seen.modified_ns) == (bytes, modified_ns));
    let sha256 = match unchanged {
        Some(seen) => seen.sha256.clone(),
        None => weights::sha256_of(gguf)?,
    };
    if let Some(expected) = expected {
        weights::expect(gguf, expected, &sha256)?;
    }
    if unchanged.is_some() {
        return Ok(());
    }
    if seen.is_some_and(|seen| seen.sha256 != sha256) {
        return Err(SetupError::OtherWeights { path: gguf.to_owned(), record: record.to_owned() });
    }
    let seen = Seen { format: "hone.weights".into(), version: 1, sha256, bytes, modified_ns };
    Ok(store::write_json(record, &seen)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_weights_are_refused_the_same_elsewhere_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let check = |name: &str| compare(&at(name), None, &at("state/weights.json"));
        std::fs::write(at("a.gguf"), "one").unwrap();
        check("a.gguf").unwrap();
        check("a.gguf").unwrap();
        std::fs::write(at("copy.gguf"), "one").unwrap();
        check("copy.gguf").unwrap();
        std::fs::write(at("b.gguf"), "another").unwrap();
        assert!(check("b.gguf").unwrap_err().to_string().contains("b.gguf"));
        check("a.gguf").unwrap();
    }

    #[test]
    fn spoilt_weights_are_not_taken_for_the_workspaces_own() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("a.gguf"), "one").unwrap();
        let good = weights::sha256_of(&at("a.gguf")).unwrap();
        std::fs::write(at("b.gguf"), "two").unwrap();
        let check = |name: &str, record: &str| compare(&at(name), Some(&good), &at(record));
        let spoilt = check("b.gguf", "state/weights.json").unwrap_err();
        assert!(matches!(spoilt, SetupError::Checksum { .. }), "{spoilt}");
        assert!(!at("state/weights.json").exists(), "nothing is remembered of them");
        check("a.gguf", "state/weights.json").unwrap();
        // What was remembered without being compared does not count either.
        compare(&at("b.gguf"), None, &at("old.json")).unwrap();
        let spoilt = check("b.gguf", "old.json").unwrap_err();
        assert!(matches!(spoilt, SetupError::Checksum { .. }), "{spoilt}");
    }
}
