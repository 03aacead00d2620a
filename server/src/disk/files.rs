//! Uploaded files and those that jobs write: `files/<id>/{meta.json, content}`.

use std::{
    fs,
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
    #[serde(default)]
    idempotency_key: Option<String>,
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

    /// Takes an upload in.
    pub fn add(&self, content: NamedTempFile, file: &File, key: Option<String>) -> Result<(), StoreError> {
        let folder = self.folder.join(&file.id);
        let failed = |e| StoreError::new("write", &folder, e);
        fs::create_dir_all(&folder).map_err(failed)?;
        content.as_file().sync_all().map_err(failed)?;
        content.persist(folder.join("content")).map_err(|e| failed(e.error))?;
        self.write_meta(file, key)
    }

    /// Writes a file of the server's own making.
    pub fn write(&self, file: &File, content: &[u8]) -> Result<(), StoreError> {
        write_atomic(&self.content(&file.id), content)?;
        self.write_meta(file, None)
    }

    fn write_meta(&self, file: &File, idempotency_key: Option<String>) -> Result<(), StoreError> {
        let meta = Meta { file: file.clone(), order: ids::order(), idempotency_key };
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
        if !ids::is_plain(id) {
            return Ok(None);
        }
        let meta: Option<Meta> = read_json(&self.folder.join(id).join("meta.json"))?;
        Ok(meta.filter(|meta| meta.file.expires_at.is_none_or(|at| at > ids::now())))
    }

    fn metas(&self) -> Result<Vec<Meta>, StoreError> {
        let mut metas = Vec::new();
        for id in folder_names(&self.folder)? {
            metas.extend(self.meta(&id)?);
        }
        metas.sort_by_key(|meta| std::cmp::Reverse(meta.order));
        Ok(metas)
    }

    /// All files, newest first.
    pub fn list(&self) -> Result<Vec<File>, StoreError> {
        Ok(self.metas()?.into_iter().map(|meta| meta.file).collect())
    }

    /// The file that an earlier request with this key made.
    pub fn made_by(&self, key: &str) -> Result<Option<File>, StoreError> {
        let is_it = |meta: &Meta| meta.idempotency_key.as_deref() == Some(key);
        Ok(self.metas()?.into_iter().find(is_it).map(|meta| meta.file))
    }

    pub fn delete(&self, id: &str) -> Result<(), StoreError> {
        remove_folder(&self.folder.join(id))
    }
}
