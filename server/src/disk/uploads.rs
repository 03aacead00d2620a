//! Files on their way in parts: `uploads/<id>/{upload.json, parts/<part id>}`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use hone::{
    model::wire::{Upload, UploadStatus},
    store::{StoreError, write_json},
};
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use super::{clean, folder_names, read_json, remove_folder};
use crate::ids;

/// How the names of parts start that are still being sent.
const INCOMING: &str = ".incoming-";
/// How long an upload that is over is remembered, in seconds.
const REMEMBERED: i64 = 24 * 3600;

/// An upload and what the API does not show of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct UploadRecord {
    pub upload: Upload,
    /// Seconds for which the file is to be kept.
    #[serde(default)]
    pub expires_after: Option<i64>,
}

/// The folder of uploads.
#[derive(Clone, Debug)]
pub struct Uploads {
    folder: PathBuf,
}

/// What the parts of an upload take up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    pub parts: usize,
    pub bytes: u64,
}

impl Uploads {
    pub fn new(root: &Path) -> Self {
        Self { folder: root.join("uploads") }
    }

    fn parts(&self, id: &str) -> PathBuf {
        self.folder.join(id).join("parts")
    }

    pub fn write(&self, record: &UploadRecord) -> Result<(), StoreError> {
        write_json(&self.folder.join(&record.upload.id).join("upload.json"), record)
    }

    /// An upload; one whose time is over says so.
    pub fn get(&self, id: &str) -> Result<Option<UploadRecord>, StoreError> {
        if !ids::is_plain(id) {
            return Ok(None);
        }
        let mut record: Option<UploadRecord> = read_json(&self.folder.join(id).join("upload.json"))?;
        if let Some(UploadRecord { upload, .. }) = &mut record
            && upload.status == UploadStatus::Pending
            && upload.expires_at <= ids::now()
        {
            upload.status = UploadStatus::Expired;
        }
        Ok(record)
    }

    /// A file to receive a part in; it vanishes unless it is given to [`Uploads::add_part`].
    pub fn incoming(&self, id: &str) -> Result<NamedTempFile, StoreError> {
        let folder = self.parts(id);
        let failed = |e| StoreError::new("write to", &folder, e);
        fs::create_dir_all(&folder).map_err(failed)?;
        NamedTempFile::with_prefix_in(INCOMING, &folder).map_err(failed)
    }

    pub fn add_part(&self, id: &str, part: &str, content: NamedTempFile) -> Result<(), StoreError> {
        let path = self.part(id, part);
        let failed = |e| StoreError::new("write", &path, e);
        content.as_file().sync_all().map_err(failed)?;
        content.persist(&path).map_err(|e| failed(e.error))?;
        Ok(())
    }

    /// Where a part's bytes are, if it has come.
    pub fn part(&self, id: &str, part: &str) -> PathBuf {
        self.parts(id).join(part)
    }

    pub fn stored(&self, id: &str) -> Result<Stored, StoreError> {
        let folder = self.parts(id);
        let failed = |e| StoreError::new("list", &folder, e);
        let mut stored = Stored::default();
        if !folder.exists() {
            return Ok(stored);
        }
        for entry in fs::read_dir(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if ids::is_plain(&entry.file_name().to_string_lossy()) {
                stored.parts += 1;
                stored.bytes += entry.metadata().map_err(failed)?.len();
            }
        }
        Ok(stored)
    }

    pub fn drop_parts(&self, id: &str) -> Result<(), StoreError> {
        remove_folder(&self.parts(id))
    }

    /// Removes parts that broke off with their server. Nobody else may be sending any.
    pub fn clean(&self) {
        for id in folder_names(&self.folder).unwrap_or_default() {
            clean(&self.parts(&id), INCOMING);
        }
    }

    /// Gives up what has expired, and forgets what has been over for a day.
    pub fn sweep(&self) -> Result<(), StoreError> {
        for id in folder_names(&self.folder)? {
            let Some(record) = self.get(&id)? else { continue };
            if record.upload.expires_at + REMEMBERED <= ids::now() {
                remove_folder(&self.folder.join(&id))?;
            } else if record.upload.status != UploadStatus::Pending {
                self.drop_parts(&id)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use hone::model::wire::UploadRequest;

    use super::*;

    #[test]
    fn what_expires_says_so_and_goes() {
        let root = tempfile::tempdir().unwrap();
        let uploads = Uploads::new(root.path());
        let add = |id: &str, created: i64| {
            let upload = Upload::new(id, &UploadRequest::default(), created, 3600);
            uploads.write(&UploadRecord { upload, expires_after: None }).unwrap();
            uploads.add_part(id, "part_1", uploads.incoming(id).unwrap()).unwrap();
        };
        add("waiting", ids::now());
        add("expired", ids::now() - 3600);
        add("forgotten", ids::now() - 3600 - REMEMBERED);
        let status = |id: &str| uploads.get(id).unwrap().map(|record| record.upload.status);
        assert_eq!(status("waiting"), Some(UploadStatus::Pending));
        assert_eq!(status("expired"), Some(UploadStatus::Expired));
        uploads.sweep().unwrap();
        assert_eq!(uploads.stored("waiting").unwrap(), Stored { parts: 1, bytes: 0 });
        assert_eq!(uploads.stored("expired").unwrap(), Stored::default());
        assert_eq!((status("expired"), status("forgotten")), (Some(UploadStatus::Expired), None));
        assert_eq!(status("../waiting"), None);
    }
}
