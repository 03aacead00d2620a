//! Writes a model as a GGUF v3 file: tiny models for tests, tuned models for other programs.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::Path,
};

use crate::{
    model::Model,
    tensors::{Encoding, Names, Outgoing, outgoing},
    tokenizer::Vocabulary,
    weights::{RopeLayout, RopeScaling, Weights},
};

const ALIGNMENT: usize = 32;
const TYPE_U32: u32 = 4;
const TYPE_I32: u32 = 5;
const TYPE_F32: u32 = 6;
const TYPE_BOOL: u32 = 7;
const TYPE_TEXT: u32 = 8;
const TYPE_ARRAY: u32 = 9;

/// Writes `model` to `path` with its matrices in `encoding`, replacing what is there only once the new file is complete.
/// Vectors stay in F32, and rows that do not fill blocks of Q8_0 become F16, as llama.cpp's own converter does.
///
/// # Errors
/// When the folder cannot be written, or llama.cpp has no name for the way in which the model's tokeniser splits text.
pub fn save(model: &Model, path: &Path, encoding: Encoding) -> io::Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let file = tempfile::NamedTempFile::new_in(folder)?;
    let mut writer = BufWriter::new(file.as_file());
    write(model, encoding, &mut writer)?;
    writer.flush()?;
    drop(writer);
    make_readable(file.as_file())?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    File::open(folder)?.sync_all()
}

/// Temporary files are private; a model is as readable as any other file.
fn make_readable(file: &File) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(std::fs::Permissions::from_mode(0o644))
}

pub(super) fn write(model: &Model, encoding: Encoding, writer: &mut impl Write) -> io::Result<()> {
    let family = Family::of(&model.weights);
    let divisors = divisors(&model.weights);
    let tensors = tensors(&model.weights, family, divisors.as_deref());
    let metadata = metadata(model, family, encoding)?;
    let mut head = Vec::new();
    head.extend(b"GGUF");
    head.extend(3_u32.to_le_bytes());
    head.extend((tensors.len() as u64).to_le_bytes());
    head.extend((metadata.count as u64).to_le_bytes());
    head.extend(metadata.bytes);
    let mut offset = 0_u64;
    for tensor in &tensors {
        let encoding = encoding_of(tensor, encoding);
        text(&mut head, &tensor.name);
        head.extend((tensor.shape.len() as u32).to_le_bytes());
        tensor.shape.iter().for_each(|&size| head.extend((size as u64).to_le_bytes()));
        head.extend(encoding.kind().to_le_bytes());
        head.extend(offset.to_le_bytes());
        offset += padded(encoding.size(tensor.elements())) as u64;
    }
    head.resize(padded(head.len()), 0);
    writer.write_all(&head)?;
    let mut bytes = Vec::new();
    for tensor in &tensors {
        let encoding = encoding_of(tensor, encoding);
        for row in &tensor.rows {
            bytes.clear();
            encoding.encode(row, &mut bytes);
            writer.write_all(&bytes)?;
        }
        let size = encoding.size(tensor.elements());
        writer.write_all(&[0; ALIGNMENT][..padded(size) - size])?;
    }
    Ok(())
}

/// Vectors stay as they are: they are small, and llama.cpp wants them so.
fn encoding_of(tensor: &Outgoing, encoding: Encoding) -> Encoding {
    match tensor.shape[..] {
        [_] => Encoding::F32,
        _ => encoding.for_rows(tensor.shape[0]),
    }
}

/// The architecture under which a file goes: it decides the order of rotation.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    Llama,
    Qwen2,
}

impl Family {
    /// Biases make a model qwen2's, unless its rows are in llama's order already.
    fn of(weights: &Weights) -> Self {
        let biased = weights.layers.iter().any(|layer| layer.qkv_bias.is_some());
        match weights.config.rope {
            RopeLayout::Halves if biased => Self::Qwen2,
            _ => Self::Llama,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Qwen2 => "qwen2",
        }
    }

    fn layout(self) -> RopeLayout {
        match self {
            Self::Llama => RopeLayout::Interleaved,
            Self::Qwen2 => RopeLayout::Halves,
        }
    }
}

/// Scaling of rotary frequencies that is written as a tensor.
fn divisors(weights: &Weights) -> Option<Vec<f32>> {
    let scaling = weights.config.rope_scaling.as_ref()?;
    (!matches!(scaling, RopeScaling::Linear { .. })).then(|| scaling.divisors(&weights.config))
}

fn tensors<'a>(weights: &'a Weights, family: Family, divisors: Option<&'a [f32]>) -> Vec<Outgoing<'a>> {
    let mut tensors = outgoing(weights, Names::Gguf, family.layout());
    tensors.extend(divisors.map(|divisors| Outgoing {
        name: super::config::DIVISORS.to_owned(),
        shape: vec![divisors.len()],
        rows: vec![divisors],
    }));
    tensors
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

    fn boolean(&mut self, key: &str, value: bool) {
        self.key(key, TYPE_BOOL);
        self.bytes.push(value.into());
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

fn metadata(model: &Model, family: Family, encoding: Encoding) -> io::Result<Metadata> {
    let config = &model.weights.config;
    let mut metadata = Metadata { bytes: Vec::new(), count: 0 };
    metadata.text("general.architecture", family.name());
    metadata.text("general.name", &model.name);
    metadata.size("general.alignment", ALIGNMENT);
    metadata.size("general.file_type", file_type(encoding));
    metadata.size("general.quantization_version", 2);
    let key = |name: &str| format!("{}.{name}", family.name());
    for (name, size) in [
        ("block_count", config.layers),
        ("context_length", config.context),
        ("embedding_length", config.hidden),
        ("feed_forward_length", config.ffn),
        ("attention.head_count", config.heads),
        ("attention.head_count_kv", config.kv_heads),
        ("attention.key_length", config.head_dim),
        ("attention.value_length", config.head_dim),
        ("rope.dimension_count", config.head_dim),
        ("vocab_size", config.vocab),
    ] {
        metadata.size(&key(name), size);
    }
    metadata.number(&key("rope.freq_base"), config.rope_theta);
    metadata.number(&key("attention.layer_norm_rms_epsilon"), config.norm_eps);
    if let Some(RopeScaling::Linear { factor }) = config.rope_scaling {
        metadata.text(&key("rope.scaling.type"), "linear");
        metadata.number(&key("rope.scaling.factor"), factor);
    }
    vocabulary(&mut metadata, model.tokenizer.vocabulary(), config.vocab)?;
    metadata.text("tokenizer.chat_template", model.template.source());
    Ok(metadata)
}

/// llama.cpp's number for "mostly this".
fn file_type(encoding: Encoding) -> usize {
    match encoding {
        Encoding::F32 => 0,
        Encoding::F16 => 1,
        Encoding::Q8_0 => 7,
        Encoding::Bf16 => 32,
    }
}

/// The tokeniser, filled up to `rows` tokens: llama.cpp wants as many as the embedding has rows.
fn vocabulary(metadata: &mut Metadata, vocabulary: &Vocabulary, rows: usize) -> io::Result<()> {
    let pre = vocabulary.pre.name().ok_or_else(|| {
        let why = "llama.cpp has no name for the way in which this model's tokeniser splits text";
        io::Error::new(io::ErrorKind::Unsupported, why)
    })?;
    let mut tokens = vocabulary.tokens.clone();
    let mut kinds = vocabulary.kinds.clone();
    tokens.resize(rows.max(tokens.len()), String::new());
    kinds.resize(tokens.len(), Vocabulary::UNUSED);
    for (id, token) in tokens.iter_mut().enumerate().filter(|(_, token)| token.is_empty()) {
        *token = format!("[PAD{id}]");
    }
    metadata.text("tokenizer.ggml.model", "gpt2");
    metadata.text("tokenizer.ggml.pre", pre);
    metadata.texts("tokenizer.ggml.tokens", &tokens);
    metadata.texts("tokenizer.ggml.merges", &vocabulary.merges);
    metadata.array("tokenizer.ggml.token_type", TYPE_I32, kinds.len());
    kinds.iter().for_each(|&kind| metadata.bytes.extend((kind as i32).to_le_bytes()));
    let other_end = vocabulary.more_ends.iter().copied().find(|id| Some(*id) != vocabulary.eos);
    for (key, id) in [("eos", vocabulary.eos), ("bos", vocabulary.bos), ("eot", other_end)] {
        if let Some(id) = id {
            metadata.size(&format!("tokenizer.ggml.{key}_token_id"), id as usize);
        }
    }
    metadata.boolean("tokenizer.ggml.add_bos_token", vocabulary.add_bos);
    Ok(())
}
