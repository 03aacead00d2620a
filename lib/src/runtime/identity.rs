//! The base weights that a workspace began with: logs, answers and tuned models of other weights are not its own.

use std::{path::Path, time::UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::{setup::SetupError, weights};
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

/// Remembers in `record` which weights `gguf` holds, or compares with what is remembered.
///
/// # Errors
/// When they are other weights, or a file cannot be read or written.
pub fn same_weights(gguf: &Path, record: &Path) -> Result<(), SetupError> {
    let metadata = gguf.metadata().map_err(|e| StoreError::new("read", gguf, e))?;
    let modified = metadata.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    let (bytes, modified_ns) = (metadata.len(), modified.map_or(0, |since| since.as_nanos()));
    let seen: Option<Seen> = store::read_text(record).ok().and_then(|text| serde_json::from_str(&text).ok());
    if seen.as_ref().is_some_and(|seen| (seen.bytes, seen.modified_ns) == (bytes, modified_ns)) {
        return Ok(());
    }
    let sha256 = weights::sha256_of(gguf)?;
    if let Some(seen) = seen
        && seen.sha256 != sha256
    {
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
        let check = |name: &str| same_weights(&at(name), &at("state/weights.json"));
        std::fs::write(at("a.gguf"), "one").unwrap();
        check("a.gguf").unwrap();
        check("a.gguf").unwrap();
        std::fs::write(at("copy.gguf"), "one").unwrap();
        check("copy.gguf").unwrap();
        std::fs::write(at("b.gguf"), "another").unwrap();
        assert!(check("b.gguf").unwrap_err().to_string().contains("b.gguf"));
        check("a.gguf").unwrap();
    }
}
