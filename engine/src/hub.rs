//! Model folders as the hub stores them: `config.json`, safetensors, `tokenizer.json`, `tokenizer_config.json` with the
//! chat template, `generation_config.json`.
//!
//! `config` is the model's shape, `shards` the weights, `texts` the tokeniser's and template's files, `write` the way
//! back. Folders come from the internet: nothing here panics on what a file says, a name in an index cannot leave the
//! folder, and pickles are refused by name.

mod config;
mod shards;
mod texts;
mod write;

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::de::DeserializeOwned;

pub(crate) use self::shards::is_pickle;
pub use self::write::{Export, save};
use self::{config::HubConfig, shards::Shards, texts::Texts};
use crate::{
    chat::ChatTemplate,
    model::{Card, LoadError, malformed},
    tensors::{self, Located, Names},
    tokenizer::Tokenizer,
};

/// The file that makes a folder a model's.
pub(crate) const CONFIG: &str = "config.json";
/// Larger than any settings file; a tokeniser has its own limit.
const MOST_JSON: u64 = 16 << 20;

/// An opened folder.
pub(crate) struct Folder {
    path: PathBuf,
    config: HubConfig,
    shards: Shards,
}

impl Folder {
    /// Reads the settings and maps the weights.
    pub(crate) fn open(path: &Path) -> Result<Self, LoadError> {
        let config: HubConfig = read_json(path, CONFIG)?;
        config.architecture()?;
        Ok(Self { config, shards: Shards::open(path)?, path: path.to_owned() })
    }

    pub(crate) fn card(&self) -> Result<Card, LoadError> {
        let name = self.config.name().or_else(|| Some(self.path.file_name()?.to_str()?.to_owned()));
        Ok(Card {
            name: name.unwrap_or_else(|| "unnamed".to_owned()),
            architecture: self.config.architecture()?.gguf_name(),
            licence: texts::licence(&self.path),
            ..Card::of(&self.shards.tensors()?)
        })
    }

    /// Every tensor in its place.
    pub(crate) fn located(&self) -> Result<Located<'_>, LoadError> {
        let config = self.config.shape()?;
        let mut tensors = self.shards.tensors()?;
        // Older checkpoints carry the table of rotary frequencies, which `config.json` says as well.
        tensors.retain(|name, _| !name.ends_with("rotary_emb.inv_freq"));
        if self.config.is_tied() {
            tensors.remove(Names::Hub.head());
        } else if !tensors.contains_key(Names::Hub.head()) {
            return Err(LoadError::MissingTensor(Names::Hub.head().to_owned()));
        }
        tensors::locate(tensors, Names::Hub, config)
    }

    pub(crate) fn tokenizer(&self) -> Result<Tokenizer, LoadError> {
        let vocabulary = Texts::read(&self.path)?.vocabulary;
        if vocabulary.tokens.len() > self.config.vocab_size {
            let (tokens, rows) = (vocabulary.tokens.len(), self.config.vocab_size);
            return Err(malformed(format!("{tokens} tokens but only {rows} embeddings")));
        }
        Ok(Tokenizer::new(vocabulary)?)
    }

    pub(crate) fn template(&self) -> Result<ChatTemplate, LoadError> {
        match texts::template(&self.path)? {
            Some(source) => Ok(ChatTemplate::new(&source)?),
            None => Ok(ChatTemplate::chatml()),
        }
    }

    /// The bytes of the weights' files, in the order of their names.
    pub(crate) fn weight_bytes(&self) -> impl Iterator<Item = &[u8]> {
        self.shards.bytes()
    }
}

/// Reads a text file of the folder, if it is there, up to `limit` bytes.
fn read_text(folder: &Path, name: &str, limit: u64) -> Result<Option<String>, LoadError> {
    let path = folder.join(name);
    let fail = |source| LoadError::File { file: path.display().to_string(), source };
    match fs::metadata(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(fail(error)),
        // A pipe would be waited for without end.
        Ok(meta) if !meta.is_file() => return Err(malformed(format!("`{name}` is not a file"))),
        Ok(meta) if meta.len() > limit => {
            return Err(malformed(format!("`{name}` has {} bytes, {limit} are the limit", meta.len())));
        }
        Ok(_) => {}
    }
    fs::read_to_string(&path).map(Some).map_err(fail)
}

/// Reads a JSON file that has to be there.
fn read_json<T: DeserializeOwned>(folder: &Path, name: &str) -> Result<T, LoadError> {
    read_json_if(folder, name)?.ok_or_else(|| LoadError::File {
        file: folder.join(name).display().to_string(),
        source: std::io::ErrorKind::NotFound.into(),
    })
}

/// Reads a JSON file that may be there.
fn read_json_if<T: DeserializeOwned>(folder: &Path, name: &str) -> Result<Option<T>, LoadError> {
    let Some(text) = read_text(folder, name, MOST_JSON)? else { return Ok(None) };
    let value = serde_json::from_str(&text);
    value.map(Some).map_err(|error| malformed(format!("`{name}` cannot be understood: {error}")))
}

#[cfg(test)]
mod tests;
