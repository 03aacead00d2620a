//! Writes a model as a GGUF v3 file in F32: tiny models for tests, tuned models for other programs.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::Path,
};

use crate::{
    model::Model,
    weights::{Config, Matrix, RopeLayout},
};

const ALIGNMENT: usize = 32;
const TYPE_U32: u32 = 4;
const TYPE_I32: u32 = 5;
const TYPE_F32: u32 = 6;
const TYPE_TEXT: u32 = 8;
const TYPE_ARRAY: u32 = 9;

/// Writes `model` to `path`, replacing what is there only once the new file is complete.
///
/// # Errors
/// When the folder cannot be written.
pub fn save(model: &Model, path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let file = tempfile::NamedTempFile::new_in(folder)?;
    let mut writer = BufWriter::new(file.as_file());
    write(model, &mut writer)?;
    writer.flush()?;
    drop(writer);
    file.as_file().sync_all()?;
    file.persist(path)?;
    File::open(folder)?.sync_all()
}

pub(super) fn write(model: &Model, writer: &mut impl Write) -> io::Result<()> {
    let tensors = tensors(model);
    let metadata = metadata(model);
    let mut head = Vec::new();
    head.extend(b"GGUF");
    head.extend(3_u32.to_le_bytes());
    head.extend((tensors.len() as u64).to_le_bytes());
    head.extend((metadata.count as u64).to_le_bytes());
    head.extend(metadata.bytes);
    let mut offset = 0_u64;
    for tensor in &tensors {
        text(&mut head, &tensor.name);
        head.extend((tensor.shape.len() as u32).to_le_bytes());
        tensor.shape.iter().for_each(|&size| head.extend((size as u64).to_le_bytes()));
        head.extend(0_u32.to_le_bytes());
        head.extend(offset.to_le_bytes());
        offset += padded(tensor.bytes()) as u64;
    }
    head.resize(padded(head.len()), 0);
    writer.write_all(&head)?;
    for tensor in &tensors {
        for row in &tensor.rows {
            writer.write_all(bytemuck::cast_slice(row))?;
        }
        writer.write_all(&[0; ALIGNMENT][..padded(tensor.bytes()) - tensor.bytes()])?;
    }
    Ok(())
}

fn padded(bytes: usize) -> usize {
    bytes.next_multiple_of(ALIGNMENT)
}

struct Metadata {
    bytes: Vec<u8>,
    count: usize,
}

impl Metadata {
    fn key(&mut self, key: &str, kind: u32) {
        text(&mut self.bytes, key);
        self.bytes.extend(kind.to_le_bytes());
        self.count += 1;
    }

    fn text(&mut self, key: &str, value: &str) {
        self.key(key, TYPE_TEXT);
        text(&mut self.bytes, value);
    }

    fn size(&mut self, key: &str, value: usize) {
        self.key(key, TYPE_U32);
        self.bytes.extend((value as u32).to_le_bytes());
    }

    fn number(&mut self, key: &str, value: f32) {
        self.key(key, TYPE_F32);
        self.bytes.extend(value.to_le_bytes());
    }

    fn array(&mut self, key: &str, kind: u32, count: usize) {
        self.key(key, TYPE_ARRAY);
        self.bytes.extend(kind.to_le_bytes());
        self.bytes.extend((count as u64).to_le_bytes());
    }

    fn texts(&mut self, key: &str, values: &[String]) {
        self.array(key, TYPE_TEXT, values.len());
        values.iter().for_each(|value| text(&mut self.bytes, value));
    }
}

fn text(bytes: &mut Vec<u8>, value: &str) {
    bytes.extend((value.len() as u64).to_le_bytes());
    bytes.extend(value.as_bytes());
}

fn metadata(model: &Model) -> Metadata {
    let config = &model.weights.config;
    let vocabulary = model.tokenizer.vocabulary();
    let mut metadata = Metadata { bytes: Vec::new(), count: 0 };
    metadata.text("general.architecture", "llama");
    metadata.text("general.name", &model.name);
    metadata.size("general.alignment", ALIGNMENT);
    metadata.size("general.file_type", 0);
    metadata.size("llama.block_count", config.layers);
    metadata.size("llama.context_length", config.context);
    metadata.size("llama.embedding_length", config.hidden);
    metadata.size("llama.feed_forward_length", config.ffn);
    metadata.size("llama.attention.head_count", config.heads);
    metadata.size("llama.attention.head_count_kv", config.kv_heads);
    metadata.size("llama.attention.key_length", config.head_dim);
    metadata.size("llama.attention.value_length", config.head_dim);
    metadata.size("llama.rope.dimension_count", config.head_dim);
    metadata.size("llama.vocab_size", config.vocab);
    metadata.number("llama.rope.freq_base", config.rope_theta);
    metadata.number("llama.attention.layer_norm_rms_epsilon", config.norm_eps);
    metadata.text("tokenizer.ggml.model", "gpt2");
    metadata.text("tokenizer.ggml.pre", &vocabulary.pre);
    metadata.texts("tokenizer.ggml.tokens", &vocabulary.tokens);
    metadata.texts("tokenizer.ggml.merges", &vocabulary.merges);
    metadata.array("tokenizer.ggml.token_type", TYPE_I32, vocabulary.kinds.len());
    vocabulary.kinds.iter().for_each(|&kind| metadata.bytes.extend((kind as i32).to_le_bytes()));
    for (key, id) in [("eos", vocabulary.eos), ("bos", vocabulary.bos)] {
        if let Some(id) = id {
            metadata.size(&format!("tokenizer.ggml.{key}_token_id"), id as usize);
        }
    }
    metadata.text("tokenizer.chat_template", model.template.source());
    metadata
}

/// A tensor as runs of numbers to be written one after the other.
struct Tensor<'a> {
    name: String,
    shape: Vec<usize>,
    rows: Vec<&'a [f32]>,
}

impl Tensor<'_> {
    fn bytes(&self) -> usize {
        self.shape.iter().product::<usize>() * size_of::<f32>()
    }
}

fn tensors(model: &Model) -> Vec<Tensor<'_>> {
    let weights = &*model.weights;
    let config = &weights.config;
    let mut tensors = vec![
        matrix("token_embd.weight".to_owned(), &weights.embedding, (0..config.vocab).collect()),
        vector("output_norm.weight".to_owned(), &weights.norm),
    ];
    for (index, layer) in weights.layers.iter().enumerate() {
        let name = |part: &str| format!("blk.{index}.{part}.weight");
        let (q, kv, ffn) = (config.q_dim(), config.kv_dim(), config.ffn);
        tensors.extend([
            vector(name("attn_norm"), &layer.attn_norm),
            matrix(name("attn_q"), &layer.qkv, interleaved(config, 0, config.heads)),
            matrix(name("attn_k"), &layer.qkv, interleaved(config, q, config.kv_heads)),
            matrix(name("attn_v"), &layer.qkv, (q + kv..q + 2 * kv).collect()),
            matrix(name("attn_output"), &layer.out, (0..config.hidden).collect()),
            vector(name("ffn_norm"), &layer.ffn_norm),
            matrix(name("ffn_gate"), &layer.gate_up, (0..ffn).collect()),
            matrix(name("ffn_up"), &layer.gate_up, (ffn..2 * ffn).collect()),
            matrix(name("ffn_down"), &layer.down, (0..config.hidden).collect()),
        ]);
    }
    tensors
}

fn vector(name: String, data: &[f32]) -> Tensor<'_> {
    Tensor { name, shape: vec![data.len()], rows: vec![data] }
}

fn matrix(name: String, matrix: &Matrix, rows: Vec<usize>) -> Tensor<'_> {
    let shape = vec![matrix.cols, rows.len()];
    Tensor { name, shape, rows: rows.into_iter().map(|row| matrix.row(row)).collect() }
}

/// Rows of `heads` heads from row `first`, in the order of the `llama` architecture: pairs that rotate together adjoin.
fn interleaved(config: &Config, first: usize, heads: usize) -> Vec<usize> {
    let dim = config.head_dim;
    let row = |i: usize| match config.rope {
        RopeLayout::Interleaved => i,
        RopeLayout::Halves => i % 2 * (dim / 2) + i / 2,
    };
    (0..heads).flat_map(|head| (0..dim).map(move |i| first + head * dim + row(i))).collect()
}
