//! A model: weights, tokeniser and chat template, as one file holds them.

use std::{io, path::Path, sync::Arc};

use crate::{
    chat::{ChatMessage, ChatTemplate, TemplateError},
    gguf::{self, LoadError},
    infer::{Decoder, Options},
    tokenizer::{Tokenizer, Vocabulary},
    weights::{Config, RopeLayout, Weights},
};

/// Everything needed to train an adapter, or, as `Model<Decoder>`, to answer.
#[derive(Clone, Debug)]
pub struct Model<W = Weights> {
    /// What the file calls it; for people, not for lookups.
    pub name: String,
    /// As training reads them (`Weights`) or as generation does (`Decoder`).
    pub weights: Arc<W>,
    pub tokenizer: Tokenizer,
    pub template: ChatTemplate,
    /// Of the file, in lower-case hex; empty for a model that came from none.
    pub sha256: String,
}

impl Model {
    /// Loads a GGUF file: see [`gguf::load`].
    ///
    /// # Errors
    /// When the file cannot be read, is damaged, or holds a model of another kind.
    pub fn load(path: &Path) -> Result<Self, LoadError> {
        gguf::load(path)
    }

    /// Whether a file can be expected to load, by its header; takes a few milliseconds.
    ///
    /// # Errors
    /// As [`Model::load`], but for faults in the weights themselves.
    pub fn check(path: &Path) -> Result<(), LoadError> {
        gguf::check(path)
    }

    /// Writes the model as an F32 GGUF that [`Model::load`] and llama.cpp read: see [`gguf::save`].
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        gguf::save(self, path)
    }

    /// A two-layer random model over bytes, for tests: same seed, same model. Its words are noise, but every path
    /// (chat template, batching, training, files) runs on it in milliseconds.
    pub fn random_tiny(seed: u64) -> Self {
        let vocabulary = Vocabulary::bytes();
        let config = Config {
            hidden: 32,
            layers: 2,
            heads: 4,
            kv_heads: 2,
            head_dim: 8,
            ffn: 64,
            vocab: vocabulary.tokens.len(),
            context: 8192,
            rope_theta: 10_000.0,
            rope: RopeLayout::Interleaved,
            rope_scaling: None,
            norm_eps: 1e-5,
        };
        let tokenizer = Tokenizer::new(vocabulary);
        Self {
            name: format!("random-tiny-{seed}"),
            weights: Weights::random(config, seed).into(),
            tokenizer: tokenizer
                .unwrap_or_else(|error| unreachable!("the byte vocabulary is sound: {error}")),
            template: ChatTemplate::chatml(),
            sha256: String::new(),
        }
    }
}

impl Model<Decoder> {
    /// Loads a GGUF file to answer with it, in a fraction of the memory that [`Model::load`] takes.
    ///
    /// # Errors
    /// As [`Model::load`].
    pub fn open(path: &Path, options: impl Into<Options>) -> Result<Self, LoadError> {
        gguf::open(path, options)
    }
}

impl<W> Model<W> {
    /// Prompt tokens of a conversation: see [`ChatTemplate::render`].
    ///
    /// # Errors
    /// When the template does not take such a conversation.
    pub fn render(
        &self,
        messages: &[ChatMessage],
        add_generation_prompt: bool,
    ) -> Result<Vec<u32>, TemplateError> {
        self.template.render(&self.tokenizer, messages, add_generation_prompt)
    }

    /// Tokens of a training row and which of them carry loss: see [`ChatTemplate::render_training`].
    ///
    /// # Errors
    /// When the template does not take such a conversation.
    pub fn render_training(&self, messages: &[ChatMessage]) -> Result<(Vec<u32>, Vec<bool>), TemplateError> {
        self.template.render_training(&self.tokenizer, messages)
    }
}
