//! A model's weights as training reads them: frozen, and in the precision that the run computes in.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::bf16::Packed;
use super::matmul::View;
use super::tile::Unit;
use crate::kernel::Level;
use crate::lora::Site;
use crate::weights::{Config, Layer, Matrix, Weights};

/// What the large products of a run are made of. Adapter, optimiser, residual stream, norms, attention and every sum are
/// f32 in all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// [`Precision::Bf16`] where the machine has instructions for it, [`Precision::F32`] elsewhere.
    #[default]
    Auto,
    F32,
    /// Factors of products, and activations kept for the way back, are rounded to bfloat16. Works everywhere, but only
    /// pays where the machine has instructions for it.
    Bf16,
}

impl Precision {
    /// The precision of that name, as [`Display`](fmt::Display) writes it.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Auto, Self::F32, Self::Bf16].into_iter().find(|precision| precision.to_string() == name)
    }

    /// What it means with what multiplies bf16 here.
    fn resolve(self, unit: Unit) -> Self {
        match self {
            Self::Auto if unit == Unit::Portable => Self::F32,
            Self::Auto => Self::Bf16,
            fixed => fixed,
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        })
    }
}

/// A frozen matrix `[rows = outputs, cols = inputs]`.
pub enum FrozenMatrix {
    F32(Matrix),
    Bf16(Bf16Matrix),
}

/// A matrix for both directions.
pub struct Bf16Matrix {
    /// `W^T`, for `Y = X W^T`
    pub forward: Packed,
    /// `W`, for `dX = dY W`
    pub backward: Packed,
}

impl FrozenMatrix {
    fn new(matrix: Matrix, precision: Precision, unit: Unit) -> Self {
        match precision {
            Precision::Bf16 => Self::Bf16(Bf16Matrix {
                forward: Packed::new(View::from(&matrix).t(), unit),
                backward: Packed::new((&matrix).into(), unit),
            }),
            Precision::F32 | Precision::Auto => Self::F32(matrix),
        }
    }

    /// Number of outputs.
    pub fn outputs(&self) -> usize {
        match self {
            Self::F32(matrix) => matrix.rows,
            Self::Bf16(matrix) => matrix.forward.cols,
        }
    }

    /// Number of inputs.
    pub fn inputs(&self) -> usize {
        match self {
            Self::F32(matrix) => matrix.cols,
            Self::Bf16(matrix) => matrix.backward.cols,
        }
    }

    /// Writes out one row.
    pub fn row(&self, index: usize, out: &mut [f32]) {
        match self {
            Self::F32(matrix) => out.copy_from_slice(matrix.row(index)),
            Self::Bf16(matrix) => matrix.forward.column(index, out),
        }
    }
}

/// One decoder block.
pub struct FrozenLayer {
    /// `[hidden]`
    pub attn_norm: Vec<f32>,
    /// `[hidden]`
    pub ffn_norm: Vec<f32>,
    /// `[qkv_dim]`
    pub qkv_bias: Option<Vec<f32>>,
    /// In the order of [`Site::ALL`].
    matrices: [FrozenMatrix; 4],
}

impl FrozenLayer {
    fn new(layer: Layer, precision: Precision, unit: Unit) -> Self {
        let Layer { attn_norm, qkv, qkv_bias, out, ffn_norm, gate_up, down } = layer;
        let matrices = [qkv, out, gate_up, down].map(|matrix| FrozenMatrix::new(matrix, precision, unit));
        Self { attn_norm, ffn_norm, qkv_bias, matrices }
    }

    pub fn matrix(&self, site: Site) -> &FrozenMatrix {
        &self.matrices[site as usize]
    }
}

/// The base model of a run.
pub struct Frozen {
    pub config: Config,
    /// `[vocab, hidden]`
    pub embedding: FrozenMatrix,
    /// The output head, where it is not the embedding
    head: Option<FrozenMatrix>,
    pub layers: Vec<FrozenLayer>,
    /// `[hidden]`
    pub norm: Vec<f32>,
    /// Never [`Precision::Auto`].
    precision: Precision,
    unit: Unit,
    digest: [u8; 32],
}

impl Frozen {
    /// With the fastest that the machine has: see [`Frozen::with`].
    pub fn new(weights: Weights, precision: Precision) -> Self {
        Self::with(weights, precision, Level::best())
    }

    /// Products of bf16 use no instructions beyond those of `level`; everything in f32 uses the machine's widest vectors
    /// always. Takes the weights matrix by matrix, so that they are never in memory twice.
    pub fn with(weights: Weights, precision: Precision, level: Level) -> Self {
        Self::on(weights, precision, Unit::of(level))
    }

    pub(super) fn on(weights: Weights, precision: Precision, unit: Unit) -> Self {
        let (digest, precision) = (digest(&weights), precision.resolve(unit));
        let Weights { config, embedding, layers, norm, head } = weights;
        Self {
            embedding: FrozenMatrix::new(embedding, precision, unit),
            head: head.map(|head| FrozenMatrix::new(head, precision, unit)),
            layers: layers.into_iter().map(|layer| FrozenLayer::new(layer, precision, unit)).collect(),
            config,
            norm,
            precision,
            unit,
            digest,
        }
    }

    /// `[vocab, hidden]`
    pub fn output_head(&self) -> &FrozenMatrix {
        self.head.as_ref().unwrap_or(&self.embedding)
    }

    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// What multiplies where products are of bf16.
    pub(super) fn unit(&self) -> Unit {
        self.unit
    }

    /// What the large products are computed in and with, for logs: `f32`, `bf16 with amx`.
    pub fn computing(&self) -> String {
        match self.precision {
            Precision::Bf16 => format!("bf16 with {}", self.unit.name()),
            precision => precision.to_string(),
        }
    }

    /// Tells models apart: see [`digest`].
    pub(super) fn digest(&self) -> &[u8] {
        &self.digest
    }
}

/// Weights enter through every 1009th value of each matrix: two models that differ anywhere differ nearly everywhere, and
/// hashing all of them would delay each start.
fn digest(weights: &Weights) -> [u8; 32] {
    let mut hash = Sha256::new();
    let mut add = |values: &[f32]| values.iter().step_by(1009).for_each(|v| hash.update(v.to_le_bytes()));
    let layers = weights.layers.iter().flat_map(|l| [&l.qkv, &l.out, &l.gate_up, &l.down]);
    layers.chain([&weights.embedding]).chain(&weights.head).for_each(|matrix| add(&matrix.data));
    weights.layers.iter().filter_map(|layer| layer.qkv_bias.as_ref()).for_each(|bias| add(bias));
    hash.finalize().into()
}
