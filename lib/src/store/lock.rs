//! One owner at a time: an advisory lock on a file, released by the kernel when its process dies.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{Read, Seek, Write},
    path::{Path, PathBuf},
};

use super::StoreError;
use crate::error::{Explain, Kind};

/// Why a lock was not had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error("`{}` is in use by process {owner}", path.display())]
    Busy { path: PathBuf, owner: String },
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Explain for LockError {
    fn kind(&self) -> Kind {
        Kind::Environment
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Busy { .. } => {
                Some("wait for the other process, or use another workspace with `-C DIR`".into())
            }
            Self::Store(e) => e.hint(),
        }
    }
}

/// Holds a lock until dropped or until the process ends.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

impl Lock {
    /// Takes the lock at `path` at once or says who has it.
    pub fn take(path: &Path) -> Result<Self, LockError> {
        let fail = |e| StoreError::new("lock", path, e);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(fail)?;
        }
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(fail)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut owner = String::new();
                // Who has it is a courtesy: an unreadable name is no reason to fail differently.
                let _ = file.read_to_string(&mut owner);
                return Err(LockError::Busy { path: path.to_owned(), owner: owner.trim().to_owned() });
            }
            Err(TryLockError::Error(e)) => return Err(fail(e).into()),
        }
        file.set_len(0).map_err(fail)?;
        file.rewind().map_err(fail)?;
        writeln!(file, "{}", std::process::id()).map_err(fail)?;
        Ok(Self { file })
    }

    /// Another handle on the lock, for a child process: it is held until all of them are closed.
    pub fn share(&self) -> std::io::Result<File> {
        self.file.try_clone()
    }
}

/// Waits for a file that is written to by one process at a time, and has it until what is returned is dropped. For steps of a
/// moment; the file is made when it is missing.
///
/// # Errors
/// The file cannot be opened or locked.
pub fn alone(path: &Path) -> Result<File, StoreError> {
    let fail = |e| StoreError::new("lock", path, e);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(fail)?;
    }
    let file = OpenOptions::new().append(true).create(true).open(path).map_err(fail)?;
    file.lock().map_err(fail)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_taker_is_told_who_has_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.lock");
        let first = Lock::take(&path).unwrap();
        let error = Lock::take(&path).unwrap_err();
        assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
        drop(first);
        Lock::take(&path).unwrap();
    }
}
