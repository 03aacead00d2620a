//! What can go wrong in a run, each with its cause and a way out.

use std::path::PathBuf;

use crate::lora::AdapterError;

/// Why a run did not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    #[error(
        "there is nothing to learn: none of the {examples} training examples has a trained token after its first"
    )]
    NothingToLearn { examples: usize },
    #[error("example {} has {ids} tokens but {flags} training flags", example + 1)]
    LengthMismatch { example: usize, ids: usize, flags: usize },
    #[error("example {} holds token {token}, but the vocabulary ends at {}", example + 1, vocab - 1)]
    UnknownToken { example: usize, token: u32, vocab: usize },
    #[error("these training options make no sense: {0}")]
    Options(String),
    #[error("the loss of step {step} is not a number: training diverged")]
    Diverged { step: usize },
    #[error("`{}` is the state of a run with other options, data or base model", path.display())]
    OtherRun { path: PathBuf },
    #[error("`{}` is not a training state that can be resumed: {why}", path.display())]
    State { path: PathBuf, why: String },
    #[error("cannot access `{}`: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Adapter(#[from] AdapterError),
}

impl TrainError {
    /// What the user can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NothingToLearn { .. } => {
                "check that examples contain assistant messages, and that prompts leave room below the length limit"
            }
            Self::LengthMismatch { .. } => "give one training flag per token",
            Self::UnknownToken { .. } => "tokenise the examples with the tokeniser of this base model",
            Self::Options(_) => "the defaults are a good start",
            Self::Diverged { .. } => "lower the learning rate",
            Self::OtherRun { .. } => "use another folder for the new run, or delete this one to start over",
            Self::State { .. } => "delete the file to start the run over",
            Self::Io { .. } => "check that the folder is writable and that the disk has room",
            Self::Adapter(error) => error.hint(),
        }
    }
}
