//! What a download from a hub can end in.

use std::path::PathBuf;

use super::HubId;
use crate::{
    error::{Explain, Kind},
    model::client::ModelError,
    store::StoreError,
};

/// Variable with the key to a hub's gated and private repositories.
const TOKEN: &str = "HF_TOKEN";

/// Why nothing, or not everything, came from the hub.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    #[error("the hub has no model `{0}`, or shows it only to some")]
    NoSuch(HubId),
    #[error("the hub shows `{0}` only to those who were let in")]
    Gated(HubId),
    #[error("`{}` has no such file{}", id.repository(), listed(there))]
    NoFile { id: HubId, there: Vec<String> },
    #[error("`{id}` has several GGUF files{}", listed(there))]
    Several { id: HubId, there: Vec<String> },
    #[error("`{id}` holds {}", if *pickled { "only Python pickles, which can run code when they are read" } else { "nothing that can be loaded" })]
    NoModel { id: HubId, pickled: bool },
    #[error("the hub does not say which commit of `{0}` it shows")]
    NoCommit(HubId),
    #[error("the download needs {} MB, `{}` has {} MB free", needed / 1_000_000, folder.display(), free / 1_000_000)]
    Room { needed: u64, free: u64, folder: PathBuf },
    #[error("`{file}` is not what the hub said: its sha256 is {found}, not {expected}")]
    Checksum { file: String, expected: String, found: String },
    #[error(transparent)]
    Call(#[from] ModelError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn listed(names: &[String]) -> String {
    if names.is_empty() { String::new() } else { format!(": it has `{}`", names.join("`, `")) }
}

impl HubError {
    /// What a failed call means when it was about this repository. Hubs answer 401 for one that does not exist, lest its
    /// name be guessed.
    pub(super) fn of(error: ModelError, id: &HubId) -> Self {
        let gated = error.code() == Some("GatedRepo");
        match error.status() {
            Some(404) => Self::NoSuch(id.clone()),
            Some(401) if !gated => Self::NoSuch(id.clone()),
            Some(401 | 403) => Self::Gated(id.clone()),
            _ => match error {
                ModelError::Store(error) => Self::Store(error),
                error => Self::Call(error),
            },
        }
    }
}

impl Explain for HubError {
    fn kind(&self) -> Kind {
        match self {
            Self::NoSuch(_) | Self::NoFile { .. } | Self::Several { .. } | Self::NoModel { .. } => {
                Kind::Input
            }
            Self::Gated(_) | Self::NoCommit(_) | Self::Checksum { .. } => Kind::Provider,
            Self::Room { .. } => Kind::Environment,
            Self::Call(error) => error.kind(),
            Self::Store(error) => error.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoSuch(_) => {
                format!("check the id (`owner/name`); for a private model set `{TOKEN}` in the environment or in `.env`")
            }
            Self::Gated(id) => format!(
                "accept its terms on its page (`{}`) and set `{TOKEN}` in the environment or in `.env` to a key that may read it",
                id.repository()
            ),
            Self::NoFile { id, .. } | Self::Several { id, .. } => {
                format!("name one: `hone models add {}:FILE.gguf`", id.repository())
            }
            Self::NoModel { .. } => "take a repository with safetensors or GGUF files".into(),
            Self::NoCommit(_) => "check `url` under `[hub]`: it has to be a hub's address".into(),
            Self::Room { .. } => "free some space, or put the cache elsewhere with `HONE_CACHE`".into(),
            Self::Checksum { .. } => "run the same command again: the file is fetched anew".into(),
            Self::Call(ModelError::Unreachable { .. } | ModelError::TooSlow { .. }) => {
                "check the network and `url` under `[hub]`, then run the same command again: it goes on where it stopped"
                    .into()
            }
            Self::Call(ModelError::Endpoint(_)) => "correct `url` under `[hub]`".into(),
            Self::Call(error) => return error.hint(),
            Self::Store(error) => return error.hint(),
        })
    }
}
