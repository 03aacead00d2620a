//! The weights of a llama- or qwen2-family decoder, in f32, as generation and training read them.

use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};
use serde::{Deserialize, Serialize};

/// Which pairs of a head's dimensions rotate together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RopeLayout {
    /// `(0,1), (2,3), ...`: GGUF files of the `llama` architecture.
    Interleaved,
    /// `(0, d/2), (1, d/2+1), ...`: checkpoints as the hub stores them.
    Halves,
}

/// How rotary frequencies are stretched for contexts longer than those of pre-training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RopeScaling {
    /// Every frequency divided by `factor` (position interpolation, Chen et al. 2023).
    Linear { factor: f32 },
    /// Llama 3.1's: wavelengths longer than `original_context / low` are divided by `factor`, those shorter than
    /// `original_context / high` are kept, those between are blended.
    Llama3 { factor: f32, low: f32, high: f32, original_context: f32 },
    /// A divisor for each pair, `[head_dim / 2]`: what GGUF files carry.
    Divisors(Vec<f32>),
}

impl RopeScaling {
    /// The scaling that has these divisors for a head of twice as many dimensions: with its name where it is linear or
    /// Llama 3's (whose `low` and `high` are 1 and 4 in every release), so that it can be written down again.
    pub(crate) fn of_divisors(divisors: Vec<f32>, rope_theta: f32) -> Self {
        let largest = divisors.iter().copied().fold(0.0, f32::max);
        let llama3 =
            |original_context| Self::Llama3 { factor: largest, low: 1.0, high: 4.0, original_context };
        // That of the releases first.
        let contexts = std::iter::once(8192.0).chain((5..=20).map(|power| 2_f32.powi(power)));
        let dim = 2.0 * divisors.len() as f64;
        let agrees = |named: &Self| {
            divisors.iter().enumerate().all(|(pair, divisor)| {
                let frequency = f64::from(rope_theta).powf(-2.0 * pair as f64 / dim);
                (named.divisor(pair, frequency) / f64::from(*divisor) - 1.0).abs() < 1e-4
            })
        };
        let mut named = std::iter::once(Self::Linear { factor: largest }).chain(contexts.map(llama3));
        named.find(agrees).unwrap_or(Self::Divisors(divisors))
    }

    /// The divisors of all pairs.
    pub(crate) fn divisors(&self, config: &Config) -> Vec<f32> {
        let plain = Config { rope_scaling: None, ..config.clone() }.rope_frequencies();
        plain.into_iter().enumerate().map(|(pair, f)| self.divisor(pair, f) as f32).collect()
    }

    /// What the frequency of pair `pair` is divided by.
    fn divisor(&self, pair: usize, frequency: f64) -> f64 {
        match *self {
            Self::Linear { factor } => factor.into(),
            Self::Divisors(ref divisors) => divisors.get(pair).copied().unwrap_or(1.0).into(),
            Self::Llama3 { factor, low, high, original_context } => {
                let wavelength = 2.0 * std::f64::consts::PI / frequency;
                let (low, high) = (f64::from(low), f64::from(high));
                // Turns that the pair makes within the original context: 0 at `low` and below, 1 at `high` and above.
                let kept = ((f64::from(original_context) / wavelength - low) / (high - low)).clamp(0.0, 1.0);
                1.0 / ((1.0 - kept) / f64::from(factor) + kept)
            }
        }
    }
}

/// Shape of a decoder. All sizes in elements.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Config {
    pub hidden: usize,
    pub layers: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub ffn: usize,
    pub vocab: usize,
    /// Longest sequence the model was trained for, in tokens.
    pub context: usize,
    pub rope_theta: f32,
    pub rope: RopeLayout,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rope_scaling: Option<RopeScaling>,
    pub norm_eps: f32,
}

impl Config {
    /// Width of the query projection.
    pub fn q_dim(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Width of the key projection, and of the value projection.
    pub fn kv_dim(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// Rows of the fused query/key/value matrix.
    pub fn qkv_dim(&self) -> usize {
        self.q_dim() + 2 * self.kv_dim()
    }

    /// Angle per position of each pair of a head, in radians: `[head_dim / 2]`, scaling applied.
    pub fn rope_frequencies(&self) -> Vec<f64> {
        let frequency = |pair: usize| {
            let plain = f64::from(self.rope_theta).powf(-2.0 * pair as f64 / self.head_dim as f64);
            plain / self.rope_scaling.as_ref().map_or(1.0, |scaling| scaling.divisor(pair, plain))
        };
        (0..self.head_dim / 2).map(frequency).collect()
    }
}

/// A dense matrix `[rows = outputs, cols = inputs]`, row-major: `y = W x`.
#[derive(Clone, Debug, PartialEq)]
pub struct Matrix {
    pub rows: usize,
    pub cols: usize,
    pub data: Vec<f32>,
}

impl Matrix {
    pub fn zeros(rows: usize, cols: usize) -> Self {
        Self { rows, cols, data: vec![0.0; rows * cols] }
    }

    pub fn row(&self, index: usize) -> &[f32] {
        &self.data[index * self.cols..][..self.cols]
    }
}

/// One decoder block. Projections that read the same input are fused, so that each is one matrix product.
#[derive(Clone, Debug)]
pub struct Layer {
    /// `[hidden]`
    pub attn_norm: Vec<f32>,
    /// `[q_dim + 2 * kv_dim, hidden]`: query rows, then key rows, then value rows.
    pub qkv: Matrix,
    /// `[qkv_dim]`, added to what `qkv` gives: the qwen2 family.
    pub qkv_bias: Option<Vec<f32>>,
    /// `[hidden, q_dim]`
    pub out: Matrix,
    /// `[hidden]`
    pub ffn_norm: Vec<f32>,
    /// `[2 * ffn, hidden]`: gate rows, then up rows.
    pub gate_up: Matrix,
    /// `[hidden, ffn]`
    pub down: Matrix,
}

/// A whole model.
#[derive(Clone, Debug)]
pub struct Weights {
    pub config: Config,
    /// `[vocab, hidden]`
    pub embedding: Matrix,
    pub layers: Vec<Layer>,
    /// `[hidden]`
    pub norm: Vec<f32>,
    /// Output head `[vocab, hidden]` of its own; without one the embedding serves (tied).
    pub head: Option<Matrix>,
}

impl Weights {
    /// Random weights of the given shape, for tests: same seed, same weights.
    pub fn random(config: Config, seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut matrix = |rows: usize, cols: usize| {
            let bound = (3.0 / cols as f32).sqrt();
            let data = (0..rows * cols).map(|_| rng.random_range(-bound..bound)).collect();
            Matrix { rows, cols, data }
        };
        let embedding = matrix(config.vocab, config.hidden);
        let layers = (0..config.layers)
            .map(|_| Layer {
                attn_norm: vec![1.0; config.hidden],
                qkv: matrix(config.qkv_dim(), config.hidden),
                qkv_bias: None,
                out: matrix(config.hidden, config.q_dim()),
                ffn_norm: vec![1.0; config.hidden],
                gate_up: matrix(2 * config.ffn, config.hidden),
                down: matrix(config.hidden, config.ffn),
            })
            .collect();
        Self { norm: vec![1.0; config.hidden], embedding, layers, head: None, config }
    }

    /// The matrix that turns the last hidden state into logits.
    pub fn output_head(&self) -> &Matrix {
        self.head.as_ref().unwrap_or(&self.embedding)
    }

    /// Gives every layer a random query/key/value bias, as the qwen2 family has: for tests.
    pub fn with_random_biases(mut self, seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let len = self.config.qkv_dim();
        for layer in &mut self.layers {
            layer.qkv_bias = Some((0..len).map(|_| rng.random_range(-0.5..0.5)).collect());
        }
        self
    }

    /// Gives the model a random output head of its own: for tests.
    pub fn with_random_head(mut self, seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let (rows, cols) = (self.config.vocab, self.config.hidden);
        let bound = (3.0 / cols as f32).sqrt();
        let data = (0..rows * cols).map(|_| rng.random_range(-bound..bound)).collect();
        self.head = Some(Matrix { rows, cols, data });
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::testing::tiny_config;

    fn frequencies(scaling: Option<RopeScaling>) -> Vec<f64> {
        let config = Config {
            head_dim: 64,
            rope_theta: 500_000.0,
            rope_scaling: scaling,
            ..tiny_config(RopeLayout::Halves)
        };
        config.rope_frequencies()
    }

    #[test]
    fn linear_scaling_slows_every_pair_alike() {
        let plain = frequencies(None);
        assert_eq!((plain.len(), plain[0]), (32, 1.0));
        let scaled = frequencies(Some(RopeScaling::Linear { factor: 4.0 }));
        assert!(plain.iter().zip(&scaled).all(|(plain, scaled)| plain / 4.0 == *scaled));
        let divisors = frequencies(Some(RopeScaling::Divisors(vec![4.0; 32])));
        assert_eq!(divisors, scaled);
    }

    #[test]
    fn divisors_get_their_name_back() {
        let config = Config { head_dim: 64, rope_theta: 500_000.0, ..tiny_config(RopeLayout::Halves) };
        let llama3 = |factor| RopeScaling::Llama3 { factor, low: 1.0, high: 4.0, original_context: 8192.0 };
        let early = RopeScaling::Llama3 { factor: 4.0, low: 1.0, high: 4.0, original_context: 1024.0 };
        for scaling in [RopeScaling::Linear { factor: 2.5 }, llama3(8.0), llama3(32.0), early] {
            let divisors = scaling.divisors(&config);
            assert_eq!(RopeScaling::of_divisors(divisors, config.rope_theta), scaling);
        }
        let other: Vec<f32> = (0..32).map(|i| 1.0 + i as f32).collect();
        assert_eq!(RopeScaling::of_divisors(other.clone(), 500_000.0), RopeScaling::Divisors(other));
    }

    /// Llama 3.2's settings; the expected figures are those of the reference implementation's formula, computed apart.
    #[test]
    fn llama3_scaling_keeps_fast_pairs_and_slows_slow_ones() {
        let plain = frequencies(None);
        let scaling = RopeScaling::Llama3 { factor: 32.0, low: 1.0, high: 4.0, original_context: 8192.0 };
        let scaled = frequencies(Some(scaling));
        assert_eq!(plain[..15], scaled[..15]);
        assert!(plain[18..].iter().zip(&scaled[18..]).all(|(p, s)| (p / s / 32.0 - 1.0).abs() < 1e-12));
        for (pair, want) in [(15, 1.651329), (16, 3.292262), (17, 9.666729)] {
            assert!(
                (plain[pair] / scaled[pair] - want).abs() < 1e-3,
                "{pair}: {}",
                plain[pair] / scaled[pair]
            );
        }
    }
}
