//! What a GGUF file says about the shape of its model.

use super::container::Container;
use crate::{
    model::LoadError,
    tensors::{Tensors, take},
    weights::{Config, RopeLayout, RopeScaling},
};

/// The tensor in which llama.cpp's converter puts Llama 3's scaling of rotary frequencies, worked out.
pub(super) const DIVISORS: &str = "rope_freqs.weight";

/// Reads the shape; takes the tensors that belong to it.
pub(super) fn read(
    container: &Container,
    architecture: &str,
    tensors: &mut Tensors,
) -> Result<Config, LoadError> {
    let embedding = tensors.get("token_embd.weight");
    let embedding = embedding.ok_or_else(|| LoadError::MissingTensor("token_embd.weight".to_owned()))?;
    let vocab = embedding.shape.get(1).copied().unwrap_or(0);
    let key = |name: &str| format!("{architecture}.{name}");
    let size = |name: &str| -> Result<usize, LoadError> {
        let key = key(name);
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
    let rope_theta = container.number(&key("rope.freq_base")).unwrap_or(10_000.0) as f32;
    let norm_eps = container.number(&key("attention.layer_norm_rms_epsilon"))? as f32;
    let experts = container.integer(&key("expert_count")).unwrap_or(0);
    let heads_fit = heads % kv_heads == 0 && head_dim % 2 == 0 && head_dim > 0 && rotated == head_dim;
    let numbers_fit = rope_theta.is_finite() && rope_theta > 0.0 && norm_eps.is_finite() && norm_eps >= 0.0;
    if !heads_fit || !numbers_fit || experts > 0 {
        return Err(LoadError::Malformed(format!(
            "unsupported shape: {heads} heads of {head_dim} ({rotated} rotated), {kv_heads} key/value heads, rope base \
             {rope_theta}, norm epsilon {norm_eps}, {experts} experts"
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
        rope: if architecture == "llama" { RopeLayout::Interleaved } else { RopeLayout::Halves },
        rope_scaling: scaling(container, architecture, tensors, head_dim, rope_theta)?,
        norm_eps,
    })
}

fn scaling(
    container: &Container,
    architecture: &str,
    tensors: &mut Tensors,
    head_dim: usize,
    rope_theta: f32,
) -> Result<Option<RopeScaling>, LoadError> {
    if tensors.contains_key(DIVISORS) {
        let tensor = take(tensors, DIVISORS, &[head_dim / 2])?;
        let mut divisors = vec![0.0; head_dim / 2];
        tensor.read_into(&mut divisors);
        if !divisors.iter().all(|divisor| divisor.is_finite() && *divisor > 0.0) {
            return Err(LoadError::Malformed(format!("tensor `{DIVISORS}` holds what divides nothing")));
        }
        return Ok(Some(RopeScaling::of_divisors(divisors, rope_theta)));
    }
    let key = |name: &str| format!("{architecture}.rope.scaling.{name}");
    match container.text(&key("type")).unwrap_or("none") {
        "none" => Ok(None),
        "linear" => {
            let factor = container.number(&key("factor"))? as f32;
            let factor = Some(factor).filter(|factor| factor.is_finite() && *factor > 0.0);
            let factor = factor.ok_or_else(|| LoadError::Malformed("a rope scaling of nothing".into()))?;
            Ok(Some(RopeScaling::Linear { factor }))
        }
        other => Err(LoadError::Unsupported(format!("rope scaling `{other}`"))),
    }
}
