//! The weights of a llama-family decoder, in f32, as generation and training read them.

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
    /// `[hidden, q_dim]`
    pub out: Matrix,
    /// `[hidden]`
    pub ffn_norm: Vec<f32>,
    /// `[2 * ffn, hidden]`: gate rows, then up rows.
    pub gate_up: Matrix,
    /// `[hidden, ffn]`
    pub down: Matrix,
}

/// A whole model. The output head is the transposed embedding (tied).
#[derive(Clone, Debug)]
pub struct Weights {
    pub config: Config,
    /// `[vocab, hidden]`
    pub embedding: Matrix,
    pub layers: Vec<Layer>,
    /// `[hidden]`
    pub norm: Vec<f32>,
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
                out: matrix(config.hidden, config.q_dim()),
                ffn_norm: vec![1.0; config.hidden],
                gate_up: matrix(2 * config.ffn, config.hidden),
                down: matrix(config.hidden, config.ffn),
            })
            .collect();
        Self { norm: vec![1.0; config.hidden], embedding, layers, config }
    }
}
