//! Why a model cannot be loaded, whichever kind of file it is in.

use crate::{chat::TemplateError, tokenizer::TokenizerError};

/// Why a model could not be loaded. Every variant names what is wrong; [`LoadError::hint`] says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    #[error("cannot read the model file: {0}")]
    Io(#[from] std::io::Error),
    #[error("cannot read `{file}`: {source}")]
    File { file: String, source: std::io::Error },
    #[error("not a GGUF file: it starts with {0:02x?}")]
    Magic(Vec<u8>),
    #[error("GGUF version {0} is not supported (2 and 3 are)")]
    Version(u32),
    #[error("the file is one of {0} parts of a model")]
    Split(i64),
    #[error("`{0}` is a Python pickle, which can run code when it is read")]
    Pickle(String),
    #[error("the folder has no weights: neither `model.safetensors` nor `model.safetensors.index.json`")]
    NoWeights,
    #[error("the file ends inside {0}")]
    Truncated(String),
    #[error("{0}")]
    Malformed(String),
    #[error("architecture `{0}` is not supported (`llama` and `qwen2` are)")]
    Architecture(String),
    #[error("the model asks for {0}, which is not supported")]
    Unsupported(String),
    #[error("metadata key `{0}` is missing")]
    MissingKey(String),
    #[error("metadata key `{key}` is {found}, expected {expected}")]
    Key { key: String, found: String, expected: &'static str },
    #[error("tensor `{0}` is missing")]
    MissingTensor(String),
    #[error("tensor `{0}` has no place in a decoder of the llama or qwen2 family")]
    UnexpectedTensor(String),
    #[error("tensor `{name}` has shape {found:?}, expected {expected:?}")]
    Shape { name: String, found: Vec<usize>, expected: Vec<usize> },
    #[error("tensor `{name}` is stored as {kind}, which is not supported")]
    TensorType { name: String, kind: String },
    #[error("the tokeniser cannot be built: {0}")]
    Tokenizer(#[from] TokenizerError),
    #[error("the chat template cannot be used: {0}")]
    Template(#[from] TemplateError),
}

impl LoadError {
    /// What the user can do about it, where there is something.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::File { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                "a model folder holds `config.json`, `tokenizer.json` and `model.safetensors`, as the hub stores them"
            }
            Self::Truncated(_) => "the download is incomplete: fetch the file again",
            Self::Magic(_) => {
                "give the path of a `.gguf` file, or of a folder with `config.json` and safetensors"
            }
            Self::Version(_) | Self::TensorType { .. } => {
                "convert the model anew with a current llama.cpp; Q8_0 and F16 always work"
            }
            Self::Split(_) => "join the parts with llama.cpp's `llama-gguf-split --merge`",
            Self::Pickle(_) | Self::NoWeights => {
                "use a model that is stored as safetensors; transformers' `save_pretrained` writes them"
            }
            Self::Architecture(_) => "use a model of the llama or qwen2 family, such as SmolLM2 or Qwen2.5",
            Self::Unsupported(_) => "use another model, or another file of this one",
            Self::UnexpectedTensor(_) => {
                "models with parts beyond those of Llama and Qwen2 (experts, biases on every matrix) are not supported"
            }
            Self::Tokenizer(error) => error.hint(),
            _ => return None,
        })
    }
}

pub(crate) fn malformed(message: impl Into<String>) -> LoadError {
    LoadError::Malformed(message.into())
}
