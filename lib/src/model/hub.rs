//! Weights from a hub: what a repository holds, which of it is needed, and the way to disk.
//!
//! The hub's API is two requests: a description of the repository (`/api/models/OWNER/NAME?blobs=true`: files with sizes
//! and sums, the commit) and the files of that commit (`/OWNER/NAME/resolve/COMMIT/FILE`). A download goes on where it
//! was stopped as long as the repository is the same.

mod choose;
mod error;

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use serde::Deserialize;

pub use self::{choose::Contents, error::HubError};
use super::client::{Client, Download, Endpoint, ModelError, Secret};
use crate::{
    cancel::Cancel,
    event::{Event, Events, Phase},
    runtime::sha256_of,
    store::{self, StoreError},
};

/// Bytes that stay free on the disk beside a download.
const SPARE_BYTES: u64 = 256 << 20;
/// In a folder of downloads: the commit that its files are of.
const COMMIT: &str = ".commit";

/// `owner/name`, and the file that is wanted of it, if one is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubId {
    owner: String,
    name: String,
    file: Option<String>,
}

impl HubId {
    /// Reads `owner/name` or `owner/name:file.gguf`.
    pub fn parse(text: &str) -> Option<Self> {
        let (repository, file) = match text.split_once(':') {
            Some((repository, file)) => (repository, Some(file)),
            None => (text, None),
        };
        let (owner, name) = repository.split_once('/')?;
        let plain = [owner, name].into_iter().chain(file).all(is_plain);
        plain.then(|| Self { owner: owner.into(), name: name.into(), file: file.map(Into::into) })
    }

    /// What the model could be called on this machine.
    pub fn suggestion(&self) -> &str {
        self.file.as_deref().unwrap_or(&self.name)
    }

    /// `owner/name`
    pub fn repository(&self) -> String {
        format!("{}/{}", self.owner, self.name)
    }
}

impl fmt::Display for HubId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.owner, self.name)?;
        self.file.as_ref().map_or(Ok(()), |file| write!(f, ":{file}"))
    }
}

/// Whether a part of an id, or a file's name, is one that is safe everywhere.
fn is_plain(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !text.is_empty() && text.len() <= 200 && !text.starts_with('.') && text.chars().all(plain)
}

/// A file of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteFile {
    pub name: String,
    pub bytes: u64,
    /// Of large files.
    pub sha256: Option<String>,
}

/// What a repository holds for us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub id: HubId,
    pub commit: String,
    pub licence: Option<String>,
    pub contents: Contents,
    pub files: Vec<RemoteFile>,
}

impl Found {
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

/// The hub.
#[derive(Clone, Debug)]
pub struct Hub {
    client: Client,
}

/// The hub's description of a repository.
#[derive(Deserialize)]
struct Repository {
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
    #[serde(default, rename = "cardData")]
    card: Option<RepositoryCard>,
}

#[derive(Deserialize)]
struct RepositoryCard {
    #[serde(default)]
    license: serde_json::Value,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    #[serde(default)]
    size: Option<u64>,
    #[serde(default)]
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    sha256: String,
    size: u64,
}

impl Hub {
    /// The hub at an address; nothing is asked yet.
    ///
    /// # Errors
    /// When the address is none.
    pub fn new(endpoint: Endpoint, token: Option<Secret>, cancel: Cancel) -> Result<Self, HubError> {
        let client = Client::new(endpoint.with_key(token))?.cancelled_by(cancel);
        Ok(Self { client })
    }

    /// Asks what a repository holds, and chooses the files to load a model from.
    ///
    /// # Errors
    /// When there is no such repository, it may not be read, or nothing in it can be loaded.
    pub async fn find(&self, id: &HubId) -> Result<Found, HubError> {
        let path = ["api", "models", &id.owner, &id.name];
        let answer: Result<Repository, ModelError> = self.client.get(&path, &[("blobs", "true")]).await;
        let repository = answer.map_err(|error| HubError::of(error, id))?;
        let commit =
            Some(repository.sha).filter(|sha| is_plain(sha)).ok_or_else(|| HubError::NoCommit(id.clone()))?;
        let files = repository.siblings.into_iter().filter(|file| is_plain(&file.rfilename));
        let files: Vec<RemoteFile> = files.map(RemoteFile::from).collect();
        let (contents, files) = choose::files(id, files)?;
        let licence = repository.card.and_then(|card| Some(card.license.as_str()?.to_owned()));
        Ok(Found { id: id.clone(), commit, licence, contents, files })
    }

    /// Downloads what is missing into `folder`, and checks it. Returns what is to be loaded: the folder, or the file in it.
    ///
    /// # Errors
    /// When the disk has no room, the hub stops answering, or a file is not what the hub said; what is whole, and what has
    /// come of the rest, stays for the next try.
    pub async fn fetch(&self, found: &Found, folder: &Path, events: &Events) -> Result<PathBuf, HubError> {
        fs::create_dir_all(folder).map_err(|e| StoreError::new("make", folder, e))?;
        forget_other_commits(folder, &found.commit)?;
        check_room(found, folder)?;
        events.emit(Event::Begin { phase: Phase::Models, total: Some(found.bytes() / 1_000_000) });
        let mut before = 0;
        for file in &found.files {
            self.fetch_file(found, file, folder, before, events).await?;
            before += file.bytes;
        }
        let summary = format!("`{}` is in `{}`", found.id, folder.display());
        events.emit(Event::End { phase: Phase::Models, summary });
        Ok(match (found.contents, &found.files[..]) {
            (Contents::Gguf, [file]) => folder.join(&file.name),
            _ => folder.to_owned(),
        })
    }

    async fn fetch_file(
        &self,
        found: &Found,
        file: &RemoteFile,
        folder: &Path,
        before: u64,
        events: &Events,
    ) -> Result<(), HubError> {
        let target = folder.join(&file.name);
        if target.is_file() {
            return Ok(());
        }
        let partial = folder.join(format!("{}.partial", file.name));
        let id = &found.id;
        let path = [&id.owner, &id.name, "resolve", &found.commit, &file.name];
        let mut on_bytes = |bytes: u64| {
            let (done, total) = ((before + bytes) / 1_000_000, Some(found.bytes() / 1_000_000));
            let note = format!("{} (MB)", file.name);
            events.emit(Event::Progress { phase: Phase::Models, done, total, note });
        };
        let download = Download { path: &path, into: &partial, size: file.bytes };
        if file.bytes == 0 {
            store::write_atomic(&partial, b"")?;
        }
        self.client.download(download, &mut on_bytes).await.map_err(|error| HubError::of(error, id))?;
        if let Some(expected) = &file.sha256 {
            let sum = sha256_of(&partial)?;
            if sum != *expected {
                // Going on with it would end in the same sum.
                fs::remove_file(&partial).map_err(|e| StoreError::new("remove", &partial, e))?;
                return Err(HubError::Checksum {
                    file: file.name.clone(),
                    expected: expected.clone(),
                    found: sum,
                });
            }
        }
        Ok(fs::rename(&partial, &target).map_err(|e| StoreError::new("rename", &partial, e))?)
    }
}

impl From<Sibling> for RemoteFile {
    fn from(sibling: Sibling) -> Self {
        let bytes = sibling.lfs.as_ref().map_or(sibling.size.unwrap_or(0), |lfs| lfs.size);
        Self { name: sibling.rfilename, bytes, sha256: sibling.lfs.map(|lfs| lfs.sha256) }
    }
}

/// Removes what another commit's download left: halves of different files make no whole.
fn forget_other_commits(folder: &Path, commit: &str) -> Result<(), StoreError> {
    let record = folder.join(COMMIT);
    if store::read_text(&record).is_ok_and(|known| known == commit) {
        return Ok(());
    }
    fs::remove_dir_all(folder).map_err(|e| StoreError::new("clear", folder, e))?;
    store::write_atomic(&record, commit.as_bytes())
}

fn check_room(found: &Found, folder: &Path) -> Result<(), HubError> {
    let there = |name: String| fs::metadata(folder.join(name)).map_or(0, |meta| meta.len());
    let have: u64 = found
        .files
        .iter()
        .map(|file| there(file.name.clone()) + there(format!("{}.partial", file.name)))
        .sum();
    let needed = found.bytes().saturating_sub(have);
    let stat = rustix::fs::statvfs(folder).map_err(|e| StoreError::new("look at", folder, e.into()))?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    if needed > 0 && free < needed.saturating_add(SPARE_BYTES) {
        return Err(HubError::Room { needed, free, folder: folder.to_owned() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_two_plain_names_and_perhaps_a_file() {
        let id = HubId::parse("Owner/some-model_1.5:m.Q4_K_M.gguf").unwrap();
        assert_eq!((id.repository(), id.suggestion()), ("Owner/some-model_1.5".into(), "m.Q4_K_M.gguf"));
        assert_eq!(id.to_string(), "Owner/some-model_1.5:m.Q4_K_M.gguf");
        for bad in [
            "",
            "a",
            "a/",
            "/a",
            "a/b/c",
            "../a",
            "a/..",
            "a/b:",
            "a/b:../c",
            "a b/c",
            "a/b:c/d.gguf",
            "a/b?x=1",
        ] {
            assert_eq!(HubId::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_new_commit_starts_over() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("m");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("old.partial"), "x").unwrap();
        forget_other_commits(&folder, "one").unwrap();
        assert!(!folder.join("old.partial").exists());
        fs::write(folder.join("new.partial"), "x").unwrap();
        forget_other_commits(&folder, "one").unwrap();
        assert!(folder.join("new.partial").exists());
    }
}
