//! Writes a model as a folder that transformers and vLLM load.

use std::{borrow::Cow, collections::HashMap, fs, io, path::Path};

use safetensors::{Dtype, View};
use serde_json::json;

use super::{CONFIG, config::Written, shards::SINGLE};
use crate::{
    model::Model,
    tensors::{Encoding, Names, Outgoing, outgoing},
    train::atomic_write,
    weights::RopeLayout,
};

/// Files about text that are taken over as they are from the folder of the base model.
const TEXTS: [&str; 7] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "generation_config.json",
    "vocab.json",
    "merges.txt",
];

/// How a folder is to be written.
#[derive(Clone, Copy, Debug)]
pub struct Export<'a> {
    /// [`Encoding::F32`], [`Encoding::F16`] or [`Encoding::Bf16`].
    pub encoding: Encoding,
    /// A model folder whose tokeniser and template this model has: they are copied. Otherwise they are written anew.
    pub texts: Option<&'a Path>,
}

/// Writes `model` into `folder`, which has to exist. The weights come last, so that their presence means "complete".
///
/// # Errors
/// When the folder cannot be written, or what the model does cannot be said in `config.json`.
pub fn save(model: &Model, folder: &Path, export: &Export) -> io::Result<()> {
    let unsupported = |why: &str| io::Error::new(io::ErrorKind::Unsupported, why.to_owned());
    let (dtype, name) = match export.encoding {
        Encoding::F32 => (Dtype::F32, "float32"),
        Encoding::F16 => (Dtype::F16, "float16"),
        Encoding::Bf16 => (Dtype::BF16, "bfloat16"),
        Encoding::Q8_0 => return Err(unsupported("safetensors are not quantised: use f32, f16 or bf16")),
    };
    let vocabulary = model.tokenizer.vocabulary();
    let config = Written::of(&model.weights, name, vocabulary.bos, vocabulary.eos);
    let config =
        config.ok_or_else(|| unsupported("transformers has no name for this model's rope scaling"))?;
    atomic_write(&folder.join(CONFIG), &serde_json::to_vec_pretty(&config)?)?;
    match export.texts {
        Some(source) => copy_texts(source, folder)?,
        None => write_texts(model, folder)?,
    }
    let tensors = outgoing(&model.weights, Names::Hub, RopeLayout::Halves);
    let views =
        tensors.iter().map(|tensor| (tensor.name.clone(), Pending::new(tensor, dtype, export.encoding)));
    let about = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let path = folder.join(SINGLE);
    safetensors::serialize_to_file(views, Some(about), &path).map_err(io::Error::other)?;
    fs::File::open(&path)?.sync_all()
}

fn copy_texts(source: &Path, folder: &Path) -> io::Result<()> {
    for name in TEXTS {
        if source.join(name).is_file() {
            fs::copy(source.join(name), folder.join(name))?;
        }
    }
    Ok(())
}

fn write_texts(model: &Model, folder: &Path) -> io::Result<()> {
    let vocabulary = model.tokenizer.vocabulary();
    let token = |id: Option<u32>| id.and_then(|id| vocabulary.tokens.get(id as usize));
    let config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": token(vocabulary.bos),
        "eos_token": token(vocabulary.eos),
        "pad_token": token(vocabulary.eos),
        "clean_up_tokenization_spaces": false,
        "model_max_length": model.weights.config.context,
        "chat_template": model.template.source(),
    });
    let generation = json!({ "bos_token_id": vocabulary.bos, "eos_token_id": vocabulary.eos });
    atomic_write(&folder.join("tokenizer.json"), vocabulary.to_json().as_bytes())?;
    atomic_write(&folder.join("tokenizer_config.json"), &serde_json::to_vec_pretty(&config)?)?;
    atomic_write(&folder.join("generation_config.json"), &serde_json::to_vec_pretty(&generation)?)
}

/// A tensor that is encoded when its turn to be written comes.
struct Pending<'a> {
    tensor: &'a Outgoing<'a>,
    /// Slowest dimension first.
    shape: Vec<usize>,
    dtype: Dtype,
    encoding: Encoding,
}

impl<'a> Pending<'a> {
    fn new(tensor: &'a Outgoing<'a>, dtype: Dtype, encoding: Encoding) -> Self {
        Self { shape: tensor.shape.iter().rev().copied().collect(), tensor, dtype, encoding }
    }
}

impl View for Pending<'_> {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let mut bytes = Vec::with_capacity(self.data_len());
        self.tensor.rows.iter().for_each(|row| self.encoding.encode(row, &mut bytes));
        bytes.into()
    }

    fn data_len(&self) -> usize {
        self.encoding.size(self.tensor.elements())
    }
}
