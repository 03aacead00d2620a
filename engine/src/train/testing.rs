//! Tiny models and data for tests.

use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};

use super::Example;
use crate::lora::Adapter;
use crate::weights::{Config, RopeLayout};

/// Two layers with grouped queries; every size differs from the others, so that a mixed-up dimension shows.
pub fn tiny_config(rope: RopeLayout) -> Config {
    Config {
        hidden: 20,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        head_dim: 6,
        ffn: 28,
        vocab: 37,
        context: 256,
        rope_theta: 100.0,
        rope,
        rope_scaling: None,
        norm_eps: 1e-5,
    }
}

/// Random `B` matrices: with the zeros of a fresh adapter every gradient of `A` would be 0.
pub fn with_random_b(mut adapter: Adapter, seed: u64) -> Adapter {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    for member in adapter.layers.iter_mut().flatten().flat_map(|group| &mut group.members) {
        member.b.data.fill_with(|| rng.random_range(-0.2..0.2));
    }
    adapter
}

/// Sequences of the given lengths with random tokens, of which about two thirds are trained.
pub fn random_examples(lengths: &[usize], vocab: usize, seed: u64) -> Vec<Example> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut example = |len: usize| Example {
        ids: (0..len).map(|_| rng.random_range(0..vocab as u32)).collect(),
        trained: (0..len).map(|_| rng.random_range(0..3) > 0).collect(),
    };
    lengths.iter().map(|len| example(*len)).collect()
}
