//! The tensors of a `llama` GGUF as [`Weights`]: dequantised in parallel, projections fused.

use std::collections::BTreeMap;

use rayon::prelude::*;

use super::{
    LoadError,
    container::{Container, Tensor},
    dequant::Format,
};
use crate::weights::{Config, Layer, Matrix, RopeLayout, Weights};

/// Numbers that one task dequantises: a multiple of every block size.
const TASK_ELEMENTS: usize = 1 << 14;

/// Reads the weights; `tokens` is the size of the tokeniser's vocabulary.
pub(super) fn weights(container: &Container, tokens: usize) -> Result<Weights, LoadError> {
    let config = config(container, tokens)?;
    let mut tensors = container.tensors.clone();
    let embedding = matrix(&mut tensors, &["token_embd.weight".to_owned()], &[config.vocab], config.hidden)?;
    let norm = vector(&mut tensors, "output_norm.weight", config.hidden)?;
    let layers = (0..config.layers).map(|i| layer(&mut tensors, i, &config)).collect::<Result<_, _>>()?;
    match tensors.into_keys().next() {
        Some(name) => Err(LoadError::UnexpectedTensor(name)),
        None => Ok(Weights { config, embedding, layers, norm, head: None }),
    }
}

fn missing(name: &str) -> LoadError {
    LoadError::MissingTensor(name.to_owned())
}

/// The shape that a file of `tokens` tokens describes.
pub(super) fn config(container: &Container, tokens: usize) -> Result<Config, LoadError> {
    let embedding = container.tensors.get("token_embd.weight").ok_or_else(|| missing("token_embd.weight"))?;
    let vocab = embedding.shape.get(1).copied().unwrap_or(0);
    if tokens > vocab {
        return Err(LoadError::Malformed(format!("{tokens} tokens but only {vocab} embeddings")));
    }
    let size = |key: &str| -> Result<usize, LoadError> {
        let key = format!("llama.{key}");
        let value = container.integer(&key)?;
        // No real model comes near 2^24 in any size; the bound keeps products of sizes from overflowing.
        if !(1..1 << 24).contains(&value) {
            return Err(LoadError::Key { key, found: value.to_string(), expected: "a positive size" });
        }
        Ok(value as usize)
    };
    let or = |value: Result<usize, LoadError>, default: usize| match value {
        Err(LoadError::MissingKey(_)) => Ok(default),
        other => other,
    };
    let (hidden, heads) = (size("embedding_length")?, size("attention.head_count")?);
    let kv_heads = or(size("attention.head_count_kv"), heads)?;
    let head_dim = or(size("attention.key_length"), hidden / heads)?;
    let rotated = or(size("rope.dimension_count"), head_dim)?;
    let rope_theta = container.number("llama.rope.freq_base").unwrap_or(10_000.0) as f32;
    let norm_eps = container.number("llama.attention.layer_norm_rms_epsilon")? as f32;
    let scaling = container.text("llama.rope.scaling.type").unwrap_or("none");
    let heads_fit = heads % kv_heads == 0 && head_dim % 2 == 0 && head_dim > 0 && rotated == head_dim;
    let numbers_fit = rope_theta.is_finite() && rope_theta > 0.0 && norm_eps.is_finite() && norm_eps >= 0.0;
    if !heads_fit || !numbers_fit || scaling != "none" {
        return Err(LoadError::Malformed(format!(
            "unsupported shape: {heads} heads of {head_dim} ({rotated} rotated), {kv_heads} key/value heads, rope base \
             {rope_theta}, rope scaling `{scaling}`, norm epsilon {norm_eps}"
        )));
    }
    Ok(Config {
        hidden,
        layers: size("block_count")?,
        heads,
        kv_heads,
        head_dim,
        ffn: size("feed_forward_length")?,
        vocab,
        context: size("context_length")?,
        rope_theta,
        rope: RopeLayout::Interleaved,
        rope_scaling: None,
        norm_eps,
    })
}

fn layer(tensors: &mut BTreeMap<String, Tensor>, index: usize, config: &Config) -> Result<Layer, LoadError> {
    let Config { hidden, ffn, .. } = *config;
    let name = |part: &str| format!("blk.{index}.{part}.weight");
    let (q, kv) = (config.q_dim(), config.kv_dim());
    Ok(Layer {
        attn_norm: vector(tensors, &name("attn_norm"), hidden)?,
        qkv: matrix(tensors, &["attn_q", "attn_k", "attn_v"].map(name), &[q, kv, kv], hidden)?,
        qkv_bias: None,
        out: matrix(tensors, &[name("attn_output")], &[hidden], q)?,
        ffn_norm: vector(tensors, &name("ffn_norm"), hidden)?,
        gate_up: matrix(tensors, &["ffn_gate", "ffn_up"].map(name), &[ffn, ffn], hidden)?,
        down: matrix(tensors, &[name("ffn_down")], &[hidden], ffn)?,
    })
}

/// The named tensors, `rows[i]` rows each, one below the other.
fn matrix(
    tensors: &mut BTreeMap<String, Tensor>,
    names: &[String],
    rows: &[usize],
    cols: usize,
) -> Result<Matrix, LoadError> {
    // Checked before anything is allocated: a shape that the file's bytes do not back never gets memory.
    let parts = names.iter().zip(rows).map(|(name, &rows)| take(tensors, name, &[cols, rows]));
    let parts = parts.collect::<Result<Vec<_>, _>>()?;
    let mut matrix = Matrix::zeros(rows.iter().sum(), cols);
    let mut rest = &mut matrix.data[..];
    for ((tensor, format), rows) in parts.iter().zip(rows) {
        let (part, tail) = rest.split_at_mut(rows * cols);
        dequantise(*format, tensor.data, part);
        rest = tail;
    }
    Ok(matrix)
}

pub(super) fn vector(
    tensors: &mut BTreeMap<String, Tensor>,
    name: &str,
    len: usize,
) -> Result<Vec<f32>, LoadError> {
    let (tensor, format) = take(tensors, name, &[len])?;
    let mut data = vec![0.0; len];
    dequantise(format, tensor.data, &mut data);
    Ok(data)
}

pub(super) fn take<'a>(
    tensors: &mut BTreeMap<String, Tensor<'a>>,
    name: &str,
    shape: &[usize],
) -> Result<(Tensor<'a>, Format), LoadError> {
    let tensor = tensors.remove(name).ok_or_else(|| missing(name))?;
    if tensor.shape != shape {
        return Err(LoadError::Shape {
            name: name.to_owned(),
            found: tensor.shape,
            expected: shape.to_vec(),
        });
    }
    let kind = tensor.kind;
    let format = Format::of(kind).ok_or_else(|| LoadError::TensorType { name: name.to_owned(), kind })?;
    Ok((tensor, format))
}

fn dequantise(format: Format, data: &[u8], output: &mut [f32]) {
    let bytes = TASK_ELEMENTS / format.elements * format.bytes;
    let tasks = data.par_chunks(bytes).zip(output.par_chunks_mut(TASK_ELEMENTS));
    tasks.for_each(|(data, output)| format.dequantise(data, output));
}
