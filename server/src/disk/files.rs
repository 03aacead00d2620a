//! Uploaded files and those that jobs write: `files/<id>/{meta.json, content}`.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use hone::{
    model::wire::File,
    store::{StoreError, write_atomic, write_json},
};
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use super::{clean, folder_names, read_json, remove_folder};
use crate::ids;

/// How the names of files start that are still being uploaded.
const INCOMING: &str = ".incoming-";

/// The folder of files.
#[derive(Clone, Debug)]
pub struct Files {
    folder: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Meta {
    file: File,
    order: u64,
}

impl Files {
    pub fn new(root: &Path) -> Self {
        Self { folder: root.join("files") }
    }

    /// Removes uploads that broke off with their server. Nobody else may be uploading.
    pub fn clean(&self) {
        clean(&self.folder, INCOMING);
    }

    /// A file to write an upload into, on the same disk; it vanishes unless it is given to [`Files::add`].
    pub fn incoming(&self) -> Result<NamedTempFile, StoreError> {
        let failed = |e| StoreError::new("write to", &self.folder, e);
        fs::create_dir_all(&self.folder).map_err(failed)?;
        NamedTempFile::with_prefix_in(INCOMING, &self.folder).map_err(failed)
    }

    /// Takes an upload in, whole or not at all.
    pub fn add(&self, content: NamedTempFile, file: &File) -> Result<(), StoreError> {
        let folder = self.folder.join(&file.id);
        let failed = |e| StoreError::new("write", &folder, e);
        let readable = fs::Permissions::from_mode(0o755);
        let made = tempfile::Builder::new().prefix(INCOMING).permissions(readable).tempdir_in(&self.folder);
        let made = made.map_err(failed)?;
        content.as_file().sync_all().map_err(failed)?;
        content.persist(made.path().join("content")).map_err(|e| failed(e.error))?;
        write_json(&made.path().join("meta.json"), &Meta { file: file.clone(), order: ids::order() })?;
        fs::rename(made.path(), &folder).map_err(failed)?;
        // It has another name now, so there is nothing to remove.
        let _ = made.keep();
        Ok(())
    }

    /// Writes a file of the server's own making.
    pub fn write(&self, file: &File, content: &[u8]) -> Result<(), StoreError> {
        write_atomic(&self.content(&file.id), content)?;
        let meta = Meta { file: file.clone(), order: ids::order() };
        write_json(&self.folder.join(&file.id).join("meta.json"), &meta)
    }

    /// Where a file's bytes are.
    pub fn content(&self, id: &str) -> PathBuf {
        self.folder.join(id).join("content")
    }

    /// A file that exists and has not expired.
    pub fn get(&self, id: &str) -> Result<Option<File>, StoreError> {
        Ok(self.meta(id)?.map(|meta| meta.file))
    }

    fn meta(&self, id: &str) -> Result<Option<Meta>, StoreError> {
        Ok(self.stored(id)?.filter(|meta| !is_over(&meta.file)))
    }

    /// What is on disk, expired or not.
    fn stored(&self, id: &str) -> Result<Option<Meta>, StoreError> {
        if !ids::is_plain(id) {
            return Ok(None);
        }
        read_json(&self.folder.join(id).join("meta.json"))
    }

    /// All files, newest first.
    pub fn list(&self) -> Result<Vec<File>, StoreError> {
        let mut metas = Vec::new();
        for id in folder_names(&self.folder)? {
            metas.extend(self.meta(&id)?);
        }
        metas.sort_by_key(|meta| std::cmp::Reverse(meta.order));
        Ok(metas.into_iter().map(|meta| meta.file).collect())
    }

    /// Removes what has expired, but for files that are `in_use`.
    pub fn sweep(&self, in_use: impl Fn(&str) -> bool) -> Result<(), StoreError> {
        for id in folder_names(&self.folder)? {
            if self.stored(&id)?.is_some_and(|meta| is_over(&meta.file)) && !in_use(&id) {
                tracing::info!(id, "a file has expired");
                self.delete(&id)?;
            }
        }
        Ok(())
    }

    pub fn delete(&self, id: &str) -> Result<(), StoreError> {
        remove_folder(&self.folder.join(id))
    }
}

fn is_over(file: &File) -> bool {
    file.expires_at.is_some_and(|at| at <= ids::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(files: &Files, id: &str, expires_at: Option<i64>) {
        let file = File { expires_at, ..File::new(id, "a.jsonl", "user_data", 0, 1) };
        files.add(files.incoming().unwrap(), &file).unwrap();
    }

    #[test]
    fn what_has_expired_goes_unless_it_is_in_use() {
        let root = tempfile::tempdir().unwrap();
        let files = Files::new(root.path());
        for (id, expires_at) in
            [("kept", None), ("later", Some(i64::MAX)), ("over", Some(2)), ("used", Some(2))]
        {
            add(&files, id, expires_at);
        }
        let listed = |files: &Files| files.list().unwrap().into_iter().map(|f| f.id).collect::<Vec<_>>();
        assert_eq!(listed(&files), ["later", "kept"]);
        assert_eq!(files.get("over").unwrap(), None);
        files.sweep(|id| id == "used").unwrap();
        assert_eq!((files.content("over").exists(), files.content("used").exists()), (false, true));
        assert_eq!(listed(&files), ["later", "kept"]);
    }

    #[test]
    fn what_cannot_be_written_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        let files = Files::new(root.path());
        add(&files, "taken", None);
        let file = File::new("taken", "b", "user_data", 0, 1);
        assert!(files.add(files.incoming().unwrap(), &file).is_err());
        let left: Vec<_> = fs::read_dir(root.path().join("files")).unwrap().flatten().collect();
        assert_eq!((left.len(), files.get("taken").unwrap().unwrap().filename), (1, "a.jsonl".into()));
    }
}
