//! Whether a journal can be used, for whoever looks after a workspace.

use std::path::Path;

use super::{
    db::{DAMAGED, Db, VERSION},
    file,
};
use crate::store::{Damaged, StoreError};

/// A journal that can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    /// Of its tables.
    pub version: i64,
    /// Answered calls.
    pub calls: u64,
    /// On the disk, with what is not yet copied into the database.
    pub bytes: u64,
}

impl Health {
    /// Opens the journal of a folder as a run would, and looks through its pages; nothing where nothing was asked yet.
    ///
    /// # Errors
    /// When it cannot be opened, is of a later version, or is damaged.
    pub fn of(folder: &Path) -> Result<Option<Self>, StoreError> {
        let path = file(folder);
        if !path.exists() {
            return Ok(None);
        }
        let db = Db::open(folder)?;
        let (calls, damage) = db.examine().map_err(|e| db.broken("read", &e))?;
        if let Some(why) = damage {
            let source = std::io::Error::other(Damaged { why, fix: DAMAGED });
            return Err(StoreError::new("read", path, source));
        }
        let size = |end: &str| {
            let mut name = path.clone().into_os_string();
            name.push(end);
            std::fs::metadata(name).map_or(0, |meta| meta.len())
        };
        Ok(Some(Self { version: VERSION, calls, bytes: size("") + size("-wal") }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Explain, Kind};

    #[test]
    fn a_journal_is_there_or_not_or_spoilt() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Health::of(folder.path()).unwrap(), None);
        assert!(!file(folder.path()).exists(), "a look makes none");
        drop(Db::open(folder.path()).unwrap());
        let health = Health::of(folder.path()).unwrap().unwrap();
        assert_eq!((health.version, health.calls), (VERSION, 0));
        assert!(health.bytes > 0);
        std::fs::write(file(folder.path()), "no database at all, but long enough to be taken for one")
            .unwrap();
        let error = Health::of(folder.path()).unwrap_err();
        assert_eq!(error.kind(), Kind::Environment);
        assert!(
            error.to_string().contains("calls.db") && error.hint().unwrap().contains("move the file away"),
            "{error}"
        );
    }

    #[test]
    fn a_page_that_is_overwritten_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        drop(Db::open(folder.path()).unwrap());
        let path = file(folder.path());
        let mut bytes = std::fs::read(&path).unwrap();
        // The second page: the root of a table.
        bytes[4096..4200].fill(0xff);
        std::fs::write(&path, bytes).unwrap();
        let error = Health::of(folder.path()).unwrap_err();
        assert!(error.hint().unwrap().contains("damaged-journal.md"), "{error}");
    }
}
