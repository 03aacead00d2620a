//! Files: written whole or not at all, read with line numbers, locked by one process at a time.

mod atomic;
mod jsonl;
mod lock;
mod workspace;

pub use atomic::{append_line, rewrite, set_aside, write_atomic, write_json};
pub use jsonl::{Line, LineError, parse_lines};
pub use lock::{Lock, LockError};
pub use workspace::Workspace;

use std::path::{Path, PathBuf};

use crate::error::{Explain, Kind};

/// A file operation that failed, with the file's name.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} `{}`: {source}", path.display())]
pub struct StoreError {
    pub doing: &'static str,
    pub path: PathBuf,
    pub source: std::io::Error,
}

impl StoreError {
    pub fn new(doing: &'static str, path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Self { doing, path: path.into(), source }
    }
}

impl Explain for StoreError {
    fn kind(&self) -> Kind {
        use std::io::ErrorKind as E;
        match self.source.kind() {
            E::NotFound | E::IsADirectory | E::InvalidData => Kind::Input,
            _ => Kind::Environment,
        }
    }

    fn hint(&self) -> Option<String> {
        use std::io::ErrorKind as E;
        let hint = match self.source.kind() {
            E::NotFound => "check the path, or run `hone init` to start a workspace",
            E::PermissionDenied | E::ReadOnlyFilesystem => {
                "make the folder writable, or choose another with `-C DIR`"
            }
            E::StorageFull | E::QuotaExceeded => {
                "free some space and run the same command again; finished work is kept"
            }
            _ => return None,
        };
        Some(hint.to_owned())
    }
}

/// Reads a whole text file.
pub fn read_text(path: &Path) -> Result<String, StoreError> {
    std::fs::read_to_string(path).map_err(|e| StoreError::new("read", path, e))
}
