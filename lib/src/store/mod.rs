//! Files: written whole or not at all, read with line numbers, locked by one process at a time.

mod atomic;
mod jsonl;
mod lock;
mod workspace;

pub use atomic::{
    Staged, append_line, copy_atomic, rewrite, set_aside, stage, stage_json, write_atomic, write_json,
};
pub use jsonl::{Line, LineError, parse_lines};
pub use lock::{Lock, LockError, alone};
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

    /// The same once more, for another who waits for the file.
    pub fn again(&self) -> Self {
        let kind = self.source.kind();
        let source = match self.source.get_ref().and_then(|e| e.downcast_ref::<Damaged>()) {
            Some(damaged) => std::io::Error::new(kind, damaged.clone()),
            None => std::io::Error::new(kind, self.source.to_string()),
        };
        Self::new(self.doing, &self.path, source)
    }
}

impl Explain for StoreError {
    fn kind(&self) -> Kind {
        use std::io::ErrorKind as E;
        match self.source.kind() {
            E::NotFound | E::IsADirectory | E::NotADirectory | E::AlreadyExists | E::InvalidData => {
                Kind::Input
            }
            _ => Kind::Environment,
        }
    }

    fn hint(&self) -> Option<String> {
        use std::io::ErrorKind as E;
        let hint = match self.source.kind() {
            E::NotFound => "check the path, or run `hone init` to start a workspace",
            E::NotADirectory => "a part of the path is a file: choose a folder with `-C DIR`",
            E::IsADirectory => "the path is a folder: name a file",
            E::AlreadyExists => {
                "something else has that name: move it away, or choose another folder with `-C DIR`"
            }
            E::DirectoryNotEmpty => "another program writes there: end it, then run the same command again",
            E::PermissionDenied | E::ReadOnlyFilesystem => {
                "make the folder writable, or choose another with `-C DIR`"
            }
            E::StorageFull | E::QuotaExceeded => {
                "free some space and run the same command again; finished work is kept"
            }
            E::InvalidData if self.source.get_ref().is_some_and(|e| e.is::<NotUtf8>()) => {
                "save the file as UTF-8"
            }
            _ => {
                return self
                    .source
                    .get_ref()?
                    .downcast_ref::<Damaged>()
                    .map(|damaged| damaged.fix.to_owned());
            }
        };
        Some(hint.to_owned())
    }
}

/// A file that something has spoilt, as the source of a [`StoreError`] that knows what mends it.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{why}")]
pub struct Damaged {
    pub why: String,
    pub fix: &'static str,
}

/// Bytes that are no text.
#[derive(Debug, thiserror::Error)]
#[error("line {line}: byte {byte} is not valid UTF-8")]
struct NotUtf8 {
    line: usize,
    byte: usize,
}

impl NotUtf8 {
    /// `valid` is how many bytes are text.
    fn at(bytes: &[u8], valid: usize) -> Self {
        let before = &bytes[..valid];
        let begin = before.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        let line = 1 + before.iter().filter(|&&byte| byte == b'\n').count();
        Self { line, byte: valid - begin + 1 }
    }
}

/// Reads a whole text file.
pub fn read_text(path: &Path) -> Result<String, StoreError> {
    let fail = |e| StoreError::new("read", path, e);
    String::from_utf8(std::fs::read(path).map_err(fail)?).map_err(|e| {
        let place = NotUtf8::at(e.as_bytes(), e.utf8_error().valid_up_to());
        fail(std::io::Error::new(std::io::ErrorKind::InvalidData, place))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_user_can_mend_has_a_hint() {
        use std::io::ErrorKind as E;
        let check = |kind: E, whose: Kind| {
            let error = StoreError::new("write", "a", kind.into());
            assert_eq!(error.kind(), whose, "{error}");
            assert!(error.hint().is_some(), "{error}");
        };
        for kind in [E::NotFound, E::IsADirectory, E::NotADirectory, E::AlreadyExists] {
            check(kind, Kind::Input);
        }
        let damaged = std::io::Error::other(Damaged { why: "no table".into(), fix: "move it away" });
        let again = StoreError::new("open", "a", damaged).again();
        assert_eq!(
            (again.to_string().as_str(), again.hint().as_deref()),
            ("cannot open `a`: no table", Some("move it away"))
        );
        for kind in [E::DirectoryNotEmpty, E::PermissionDenied, E::ReadOnlyFilesystem, E::StorageFull] {
            check(kind, Kind::Environment);
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jsonl");
        let check = |bytes: &[u8], place: &str| {
            std::fs::write(&path, bytes).unwrap();
            let error = read_text(&path).unwrap_err();
            assert!(error.to_string().ends_with(&format!("a.jsonl`: {place} is not valid UTF-8")), "{error}");
            assert_eq!(
                (error.kind(), error.hint().unwrap().as_str()),
                (Kind::Input, "save the file as UTF-8")
            );
        };
        check(b"\xff", "line 1: byte 1");
        check(b"fine\nna\xefve\n", "line 2: byte 3");
        check(
            "é\n\n".as_bytes().iter().copied().chain([0xc3]).collect::<Vec<_>>().as_slice(),
            "line 3: byte 1",
        );
    }
}
