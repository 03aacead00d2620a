//! GGUF files: the format in which quantised models are passed around (ggml's `docs/gguf.md`, versions 2 and 3).
//!
//! `container` reads the structure, `config` what it says about the model's shape, `write` is the way back; the tensors
//! themselves are `crate::tensors`' business. Files come from the internet: nothing here panics on what a file says, and
//! no allocation is larger than a small multiple of the bytes that are really there.

mod config;
mod container;
mod write;

pub use self::write::save;
use container::Container;

use crate::{
    chat::ChatTemplate,
    model::{Card, LoadError},
    tensors::{self, Located, Names},
    tokenizer::{PreTokenizer, Tokenizer, TokenizerError, Vocabulary},
};

/// The architectures that can be run, which are also the prefixes of their keys.
const ARCHITECTURES: [&str; 2] = ["llama", "qwen2"];

/// A file of a model that we can run.
pub(crate) struct File<'a> {
    container: Container<'a>,
    architecture: &'static str,
}

impl<'a> File<'a> {
    /// Reads the header.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, LoadError> {
        let container = Container::parse(bytes)?;
        let said = container.text("general.architecture")?;
        let architecture = ARCHITECTURES.into_iter().find(|known| *known == said);
        let architecture = architecture.ok_or_else(|| LoadError::Architecture(said.to_owned()))?;
        if let Ok(parts @ 2..) = container.integer("split.count") {
            return Err(LoadError::Split(parts));
        }
        Ok(Self { container, architecture })
    }

    pub(crate) fn card(&self) -> Card {
        let text = |key: &str| self.container.text(key).ok().map(str::to_owned);
        Card {
            name: text("general.name").unwrap_or_else(|| "unnamed".to_owned()),
            architecture: self.architecture,
            licence: text("general.license"),
            ..Card::of(&self.container.tensors)
        }
    }

    /// Every tensor in its place.
    pub(crate) fn located(&self) -> Result<Located<'a>, LoadError> {
        let mut tensors = self.container.tensors.clone();
        let config = config::read(&self.container, self.architecture, &mut tensors)?;
        let tokens = self.container.texts("tokenizer.ggml.tokens").map_or(0, <[String]>::len);
        if tokens > config.vocab {
            let message = format!("{tokens} tokens but only {} embeddings", config.vocab);
            return Err(LoadError::Malformed(message));
        }
        tensors::locate(tensors, Names::Gguf, config)
    }

    pub(crate) fn template(&self) -> Result<ChatTemplate, LoadError> {
        match self.container.text("tokenizer.chat_template") {
            Ok(source) => Ok(ChatTemplate::new(source)?),
            Err(_) => Ok(ChatTemplate::chatml()),
        }
    }

    pub(crate) fn tokenizer(&self) -> Result<Tokenizer, LoadError> {
        let container = &self.container;
        let model = container.text("tokenizer.ggml.model")?;
        if model != "gpt2" {
            return Err(TokenizerError::Model(model.to_owned()).into());
        }
        let tokens = container.texts("tokenizer.ggml.tokens")?.to_vec();
        let kinds = match container.integers("tokenizer.ggml.token_type") {
            Ok(kinds) => kinds.to_vec(),
            Err(LoadError::MissingKey(_)) => vec![Vocabulary::NORMAL; tokens.len()],
            Err(error) => return Err(error),
        };
        let id = |key: &str| container.integer(key).ok().and_then(|id| u32::try_from(id).ok());
        let pre = PreTokenizer::named(container.text("tokenizer.ggml.pre").unwrap_or("gpt-2"))?;
        // Where the key is missing, llama.cpp decides by the way of splitting.
        let add_bos = container.boolean("tokenizer.ggml.add_bos_token").unwrap_or(pre.ignore_merges);
        Ok(Tokenizer::new(Vocabulary {
            tokens,
            kinds,
            merges: container.texts("tokenizer.ggml.merges")?.to_vec(),
            pre,
            eos: id("tokenizer.ggml.eos_token_id"),
            bos: id("tokenizer.ggml.bos_token_id"),
            more_ends: ["eot", "eom"]
                .iter()
                .filter_map(|kind| id(&format!("tokenizer.ggml.{kind}_token_id")))
                .collect(),
            add_bos,
        })?)
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A model from bytes in memory.
#[cfg(test)]
pub(crate) fn parse(bytes: &[u8]) -> Result<crate::model::Model, LoadError> {
    let file = File::parse(bytes)?;
    Ok(crate::model::Model {
        name: file.card().name,
        weights: file.located()?.read().into(),
        tokenizer: file.tokenizer()?,
        template: file.template()?,
        sha256: String::new(),
    })
}

#[cfg(test)]
mod tests;
