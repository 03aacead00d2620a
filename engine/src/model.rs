//! A model: weights, tokeniser and chat template, as one file or folder holds them.

mod error;

use std::{fs::File, io, path::Path, sync::Arc};

use memmap2::Mmap;
use sha2::{Digest, Sha256};

pub use self::error::LoadError;
pub(crate) use self::error::malformed;
use crate::{
    chat::{ChatMessage, ChatTemplate, TemplateError},
    gguf, hub,
    infer::{Decoder, Options},
    tensors::{Located, Tensors},
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
    /// Of the file's bytes (of all safetensors of a folder, in the order of their names), in lower-case hex; empty for a
    /// model that came from none.
    pub sha256: String,
}

/// What the head of a model file tells, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Card {
    pub name: String,
    /// `llama` or `qwen2`.
    pub architecture: &'static str,
    /// How most of the numbers are stored: `Q4_1`, `BF16`.
    pub stored_as: &'static str,
    pub parameters: u64,
    /// Of the tensors, in bytes.
    pub bytes: u64,
    /// As the file names it: `apache-2.0`.
    pub licence: Option<String>,
}

impl Card {
    /// What the tensors tell; the rest is to be filled in.
    pub(crate) fn of(tensors: &Tensors) -> Self {
        let mut sizes: Vec<(&'static str, u64)> = Vec::new();
        let mut parameters = 0;
        for tensor in tensors.values() {
            let bytes = tensor.data.len() as u64;
            parameters += tensor.shape.iter().product::<usize>() as u64;
            match sizes.iter_mut().find(|(name, _)| *name == tensor.format.name) {
                Some((_, sum)) => *sum += bytes,
                None => sizes.push((tensor.format.name, bytes)),
            }
        }
        Self {
            name: String::new(),
            architecture: "",
            stored_as: sizes.iter().max_by_key(|(_, bytes)| *bytes).map_or("", |(name, _)| name),
            parameters,
            bytes: sizes.iter().map(|(_, bytes)| bytes).sum(),
            licence: None,
        }
    }
}

/// A model's file or folder, mapped into memory.
pub(crate) enum ModelFile {
    Gguf(Mmap),
    Hub(Box<hub::Folder>),
}

impl ModelFile {
    pub(crate) fn open(path: &Path) -> Result<Self, LoadError> {
        if path.is_dir() {
            return Ok(Self::Hub(Box::new(hub::Folder::open(path)?)));
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if hub::is_pickle(&name) {
            return Err(LoadError::Pickle(name.into_owned()));
        }
        // Opening a pipe would wait for somebody to write.
        if !path.metadata()?.is_file() {
            return Err(malformed("neither a file nor a folder"));
        }
        let file = File::open(path)?;
        // SAFETY: read-only map; whoever truncates the file meanwhile gets a SIGBUS, as with every mapped model.
        Ok(Self::Gguf(unsafe { Mmap::map(&file)? }))
    }

    /// What the head tells; every tensor has been found, none read.
    pub(crate) fn card(&self) -> Result<Card, LoadError> {
        self.located()?;
        match self {
            Self::Gguf(bytes) => Ok(gguf::File::parse(bytes)?.card()),
            Self::Hub(folder) => folder.card(),
        }
    }

    /// Every tensor in its place, none read.
    pub(crate) fn located(&self) -> Result<Located<'_>, LoadError> {
        match self {
            Self::Gguf(bytes) => gguf::File::parse(bytes)?.located(),
            Self::Hub(folder) => folder.located(),
        }
    }

    pub(crate) fn texts(&self) -> Result<(Tokenizer, ChatTemplate), LoadError> {
        match self {
            Self::Gguf(bytes) => {
                let file = gguf::File::parse(bytes)?;
                Ok((file.tokenizer()?, file.template()?))
            }
            Self::Hub(folder) => Ok((folder.tokenizer()?, folder.template()?)),
        }
    }

    pub(crate) fn sha256(&self) -> String {
        let mut hash = Sha256::new();
        match self {
            Self::Gguf(bytes) => hash.update(bytes),
            Self::Hub(folder) => folder.weight_bytes().for_each(|bytes| hash.update(bytes)),
        }
        gguf::hex(&hash.finalize())
    }
}

impl Model {
    /// Loads a GGUF file, or a folder of safetensors as the hub stores it: weights in f32, tokeniser, chat template,
    /// checksum.
    ///
    /// Takes about half a second for 135M parameters on two cores.
    ///
    /// # Errors
    /// When the file cannot be read, is damaged, or holds a model of another kind.
    pub fn load(path: &Path) -> Result<Self, LoadError> {
        Self::load_as(path, |located| located.read())
    }

    /// Whether a file or folder can be expected to load, by its head; takes a few milliseconds.
    ///
    /// # Errors
    /// As [`Model::load`], but for faults in the weights' numbers and in texts.
    pub fn check(path: &Path) -> Result<(), LoadError> {
        Self::card(path).map(drop)
    }

    /// What the head of a file or folder tells; takes a few milliseconds.
    ///
    /// # Errors
    /// As [`Model::check`].
    pub fn card(path: &Path) -> Result<Card, LoadError> {
        ModelFile::open(path)?.card()
    }

    /// The checksum that [`Model::load`] gives the model in a file or folder.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn checksum(path: &Path) -> Result<String, LoadError> {
        Ok(ModelFile::open(path)?.sha256())
    }

    /// The shape of the model in a file or folder, by its head.
    ///
    /// # Errors
    /// As [`Model::check`].
    pub fn shape(path: &Path) -> Result<Config, LoadError> {
        Ok(ModelFile::open(path)?.located()?.config)
    }

    /// Loads the tokeniser and the chat template alone.
    ///
    /// # Errors
    /// As [`Model::load`], for what concerns them.
    pub fn texts(path: &Path) -> Result<(Tokenizer, ChatTemplate), LoadError> {
        ModelFile::open(path)?.texts()
    }

    /// Writes the model as an F32 GGUF that [`Model::load`] and llama.cpp read: see [`gguf::save`].
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        gguf::save(self, path, crate::tensors::Encoding::F32)
    }

    /// A two-layer random model over bytes, for tests: same seed, same model. Its words are noise, but every path
    /// (chat template, batching, training, files) runs on it in milliseconds.
    pub fn random_tiny(seed: u64) -> Self {
        Self::random(seed, RopeLayout::Interleaved)
    }

    /// As [`Model::random_tiny`], with what the qwen2 family has: biases, its order of rotation, and an output head of its
    /// own, as its larger members have it.
    pub fn random_tiny_qwen2(seed: u64) -> Self {
        let model = Self::random(seed, RopeLayout::Halves);
        let weights = (*model.weights).clone().with_random_biases(seed + 1).with_random_head(seed + 2);
        Self { weights: weights.into(), ..model }
    }

    fn random(seed: u64, rope: RopeLayout) -> Self {
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
            rope,
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
    /// Loads a model to answer with it, in a fraction of the memory that [`Model::load`] takes: its weights are never all
    /// in f32.
    ///
    /// # Errors
    /// As [`Model::load`].
    pub fn open(path: &Path, options: impl Into<Options>) -> Result<Self, LoadError> {
        let options = options.into();
        Self::load_as(path, |located| Decoder::read(located, options))
    }
}

impl<W: Send + Sync> Model<W> {
    /// Loads a model whose weights `read` makes of the tensors.
    fn load_as(path: &Path, read: impl FnOnce(&Located) -> W + Send) -> Result<Self, LoadError> {
        let file = ModelFile::open(path)?;
        let load = || -> Result<Self, LoadError> {
            let (tokenizer, template) = file.texts()?;
            let weights = read(&file.located()?).into();
            Ok(Self { name: file.card()?.name, weights, tokenizer, template, sha256: String::new() })
        };
        let (model, sha256) = rayon::join(load, || file.sha256());
        Ok(Self { sha256, ..model? })
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
