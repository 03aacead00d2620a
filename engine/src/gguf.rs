//! GGUF files: the format in which quantised models are passed around (ggml's `docs/gguf.md`, versions 2 and 3).
//!
//! `container` reads the structure, `dequant` the block formats, `decoder` turns tensors into [`Weights`], `write` is
//! the way back. Files come from the internet: nothing here panics on what a file says, and no allocation is larger
//! than a small multiple of the bytes that are really there.

mod container;
mod decoder;
mod dequant;
mod packed;
mod write;

use std::{fs::File, path::Path};

use memmap2::Mmap;
use sha2::{Digest, Sha256};

pub use self::write::save;
use crate::{
    chat::{ChatTemplate, TemplateError},
    infer::{Decoder, Options},
    model::Model,
    tokenizer::{Tokenizer, Vocabulary},
};
use container::Container;

/// Why a model file could not be loaded. Every variant names what is wrong; [`LoadError::hint`] says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    #[error("cannot read the model file")]
    Io(#[from] std::io::Error),
    #[error("not a GGUF file: it starts with {0:02x?}")]
    Magic(Vec<u8>),
    #[error("GGUF version {0} is not supported (2 and 3 are)")]
    Version(u32),
    #[error("the file ends inside {0}")]
    Truncated(String),
    #[error("{0}")]
    Malformed(String),
    #[error("architecture `{0}` is not supported (`llama` is)")]
    Architecture(String),
    #[error("metadata key `{0}` is missing")]
    MissingKey(String),
    #[error("metadata key `{key}` is {found}, expected {expected}")]
    Key { key: String, found: String, expected: &'static str },
    #[error("tensor `{0}` is missing")]
    MissingTensor(String),
    #[error("tensor `{0}` has no place in a llama decoder with tied embeddings")]
    UnexpectedTensor(String),
    #[error("tensor `{name}` has shape {found:?}, expected {expected:?}")]
    Shape { name: String, found: Vec<usize>, expected: Vec<usize> },
    #[error("tensor `{name}` is stored as ggml type {kind}, which is not supported")]
    TensorType { name: String, kind: u32 },
    #[error("the tokeniser cannot be built: {0}")]
    Tokenizer(String),
    #[error("the chat template cannot be used")]
    Template(#[from] TemplateError),
}

impl LoadError {
    /// What the user can do about it, where there is something.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::Truncated(_) => "the download is incomplete: fetch the file again",
            Self::Magic(_) => "give the path of a `.gguf` file",
            Self::Version(_) | Self::TensorType { .. } => {
                "convert the model anew with a current llama.cpp; Q8_0 and F16 always work"
            }
            Self::Architecture(_) => "use a model of the llama family, such as SmolLM2",
            Self::UnexpectedTensor(_) => {
                "models with an untied output head, attention biases or scaled rope are not supported"
            }
            _ => return None,
        })
    }
}

/// Loads a model: weights dequantised to f32, tokeniser, chat template, checksum.
///
/// Takes about half a second for 135M parameters on two cores.
///
/// # Errors
/// When the file cannot be read, is damaged, or holds a model of another kind.
pub fn load(path: &Path) -> Result<Model, LoadError> {
    let file = File::open(path)?;
    // SAFETY: read-only map; whoever truncates the file meanwhile gets a SIGBUS, as with every mapped model.
    let bytes = unsafe { Mmap::map(&file)? };
    let (model, sha256) = rayon::join(|| parse(&bytes), || hex(&Sha256::digest(&bytes)));
    Ok(Model { sha256, ..model? })
}

/// As [`load`], but with the weights as generation reads them, never all in f32.
///
/// # Errors
/// As [`load`].
pub fn open(path: &Path, options: impl Into<Options>) -> Result<Model<Decoder>, LoadError> {
    let options = options.into();
    let file = File::open(path)?;
    // SAFETY: as in `load`.
    let bytes = unsafe { Mmap::map(&file)? };
    let build = |container: &Container, tokens| packed::decoder(container, tokens, options);
    let (model, sha256) = rayon::join(|| parse_as(&bytes, build), || hex(&Sha256::digest(&bytes)));
    Ok(Model { sha256, ..model? })
}

/// Whether [`load`] can be expected to succeed: reads the header alone, in a few milliseconds.
///
/// # Errors
/// As [`load`], but for faults in the weights themselves.
pub fn check(path: &Path) -> Result<(), LoadError> {
    let file = File::open(path)?;
    // SAFETY: as in `load`.
    let bytes = unsafe { Mmap::map(&file)? };
    header(&bytes).map(drop)
}

/// The container of a model that we can run.
fn header(bytes: &[u8]) -> Result<Container<'_>, LoadError> {
    let container = Container::parse(bytes)?;
    match container.text("general.architecture")? {
        "llama" => Ok(container),
        other => Err(LoadError::Architecture(other.to_owned())),
    }
}

/// [`load`] on bytes in memory, without the checksum.
pub(crate) fn parse(bytes: &[u8]) -> Result<Model, LoadError> {
    parse_as(bytes, decoder::weights)
}

/// A model whose weights `read` makes of the file and the number of tokens.
fn parse_as<W>(
    bytes: &[u8],
    read: impl FnOnce(&Container, usize) -> Result<W, LoadError>,
) -> Result<Model<W>, LoadError> {
    let container = header(bytes)?;
    let tokenizer = tokenizer(&container)?;
    let weights = read(&container, tokenizer.len())?;
    let template = match container.text("tokenizer.chat_template") {
        Ok(source) => ChatTemplate::new(source)?,
        Err(_) => ChatTemplate::chatml(),
    };
    let name = container.text("general.name").unwrap_or("unnamed").to_owned();
    Ok(Model { name, weights: weights.into(), tokenizer, template, sha256: String::new() })
}

fn tokenizer(container: &Container) -> Result<Tokenizer, LoadError> {
    let model = container.text("tokenizer.ggml.model")?;
    if model != "gpt2" {
        return Err(LoadError::Tokenizer(format!(
            "its kind is `{model}`, only `gpt2` (byte-level BPE) is supported"
        )));
    }
    let tokens = container.texts("tokenizer.ggml.tokens")?.to_vec();
    let kinds = match container.integers("tokenizer.ggml.token_type") {
        Ok(kinds) => kinds.to_vec(),
        Err(LoadError::MissingKey(_)) => vec![Vocabulary::NORMAL; tokens.len()],
        Err(error) => return Err(error),
    };
    Tokenizer::new(Vocabulary {
        tokens,
        kinds,
        merges: container.texts("tokenizer.ggml.merges")?.to_vec(),
        pre: container.text("tokenizer.ggml.pre").unwrap_or("gpt-2").to_owned(),
        eos: container.integer("tokenizer.ggml.eos_token_id").ok().and_then(|id| u32::try_from(id).ok()),
        bos: container.integer("tokenizer.ggml.bos_token_id").ok().and_then(|id| u32::try_from(id).ok()),
    })
    .map_err(|error| LoadError::Tokenizer(error.to_string()))
}

/// Decodes blocks of a ggml type, for tests.
#[cfg(test)]
pub(crate) fn decode(kind: u32, bytes: &[u8], numbers: &mut [f32]) {
    dequant::Format::of(kind).unwrap().dequantise(bytes, numbers);
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests;
