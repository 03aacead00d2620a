//! A model as generation reads it: quantised or exact matrices in the order of the kernels.

use std::{
    num::NonZeroUsize,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
};

use super::workspace::Workspace;
use crate::{
    kernel::{BLOCK, Level, Linear, UnknownLevel},
    lora::Site,
    weights::{Config, Matrix, Weights},
};

/// How exactly a [`Decoder`] computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// As fast as the machine allows: quantised weights, 8-bit activations, half-precision keys and values.
    #[default]
    Fast,
    /// Everything in f32: the reference that the fast path is compared with.
    F32,
}

/// How a [`Decoder`] computes and with what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    pub precision: Precision,
    pub level: Level,
    /// Threads of a forward pass, the caller's included.
    pub threads: NonZeroUsize,
}

impl Options {
    /// The kernels called `name`: `auto` for the fastest, `f32` for the exact path, or those of a [`Level`].
    ///
    /// # Errors
    /// When there are none of that name or this machine cannot run them.
    pub fn named(name: &str) -> Result<Self, UnknownLevel> {
        match name {
            "auto" => Ok(Self::default()),
            "f32" => Ok(Precision::F32.into()),
            name => Ok(Self { level: Level::named(name)?, ..Self::default() }),
        }
    }
}

impl Options {
    /// The name that [`Options::named`] takes for these.
    pub fn name(&self) -> &'static str {
        match self.precision {
            Precision::F32 => "f32",
            Precision::Fast => self.level.name(),
        }
    }
}

impl Default for Options {
    /// Fast, with the best kernels on all processors that this process may use.
    fn default() -> Self {
        let threads = thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        Self { precision: Precision::Fast, level: Level::best(), threads }
    }
}

impl From<Precision> for Options {
    fn from(precision: Precision) -> Self {
        Self { precision, ..Self::default() }
    }
}

/// A model as generation reads it: immutable, shared by the base model and everything tuned from it. Forward passes
/// of several callers take turns.
#[derive(Debug)]
pub struct Decoder {
    pub config: Config,
    pub(super) options: Options,
    pub(super) parts: Parts,
    workspace: Mutex<Workspace>,
}

/// See [`Decoder::costs`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Costs {
    pub bytes: usize,
    /// In the layers.
    pub operations: usize,
    pub head_operations: usize,
}

/// The matrices and vectors of a decoder.
#[derive(Debug)]
pub(crate) struct Parts {
    /// `[vocab, hidden]`
    pub embedding: Linear,
    pub layers: Vec<Block>,
    /// `[hidden]`
    pub norm: Vec<f32>,
    /// `[vocab, hidden]`; without one the embedding serves.
    pub head: Option<Linear>,
}

/// One decoder block; matrices in the orders of [`order`].
#[derive(Debug)]
pub(crate) struct Block {
    pub attn_norm: Vec<f32>,
    pub qkv: Linear,
    pub qkv_bias: Option<Vec<f32>>,
    pub out: Linear,
    pub ffn_norm: Vec<f32>,
    pub gate_up: Linear,
    pub down: Linear,
}

impl Block {
    pub(super) fn linear(&self, site: Site) -> &Linear {
        match site {
            Site::Qkv => &self.qkv,
            Site::Out => &self.out,
            Site::GateUp => &self.gate_up,
            Site::Down => &self.down,
        }
    }
}

/// Which row of a fused matrix of [`crate::weights::Layer`] becomes which output here. Gate and up rows alternate
/// in runs of a block, zeros at the end of each: whoever has computed four panels can gate and round a block of
/// activations.
pub(crate) fn order(config: &Config, site: Site) -> Vec<Option<usize>> {
    let ffn = config.ffn;
    match site {
        Site::Qkv => rows(config.qkv_dim()),
        Site::Out | Site::Down => rows(config.hidden),
        Site::GateUp => (0..ffn.next_multiple_of(BLOCK))
            .step_by(BLOCK)
            .flat_map(|first| {
                let part = move |offset| (first..first + BLOCK).map(move |i| (i < ffn).then_some(offset + i));
                part(0).chain(part(ffn))
            })
            .collect(),
    }
}

/// The order of a matrix whose rows stay where they are.
pub(crate) fn rows(count: usize) -> Vec<Option<usize>> {
    (0..count).map(Some).collect()
}

impl Decoder {
    /// Matrices rounded to 8 bits in [`Precision::Fast`]. Files that hold quantised matrices are read more exactly by
    /// [`crate::model::Model::open`].
    pub fn new(weights: &Weights, options: impl Into<Options>) -> Self {
        let (config, options) = (&weights.config, options.into());
        let linear = |matrix: &Matrix, order: &[Option<usize>]| {
            let read = |row: usize, numbers: &mut [f32]| numbers.copy_from_slice(matrix.row(row));
            match options.precision {
                Precision::Fast => Linear::rounded(matrix.cols, order, read),
                Precision::F32 => Linear::exact(matrix.cols, order, read),
            }
        };
        let orders = Site::ALL.map(|site| order(config, site));
        let [qkv, out, gate_up, down] = &orders;
        let block = |layer: &crate::weights::Layer| Block {
            attn_norm: layer.attn_norm.clone(),
            qkv: linear(&layer.qkv, qkv),
            qkv_bias: layer.qkv_bias.clone(),
            out: linear(&layer.out, out),
            ffn_norm: layer.ffn_norm.clone(),
            gate_up: linear(&layer.gate_up, gate_up),
            down: linear(&layer.down, down),
        };
        let vocab = rows(config.vocab);
        let parts = Parts {
            embedding: linear(&weights.embedding, &vocab),
            layers: weights.layers.iter().map(block).collect(),
            norm: weights.norm.clone(),
            head: weights.head.as_ref().map(|head| linear(head, &vocab)),
        };
        Self::assemble(config.clone(), options, parts)
    }

    /// A decoder of parts that have the shapes of `config`.
    pub(crate) fn assemble(config: Config, options: Options, parts: Parts) -> Self {
        let workspace = Mutex::new(Workspace::new(options.threads));
        Self { config, options, parts, workspace }
    }

    /// What one token at least costs: bytes of the matrices that are read, of which tokens of one pass share the reading,
    /// and operations in them (a product and its addition are two), without and with the output head.
    pub fn costs(&self) -> Costs {
        let layers = self.parts.layers.iter();
        let matrices =
            || layers.clone().flat_map(|block| [&block.qkv, &block.out, &block.gate_up, &block.down]);
        let head = self.parts.head.as_ref().unwrap_or(&self.parts.embedding);
        let bytes = |matrix: &Linear| matrix.panels() * matrix.panel_bytes();
        let Config { hidden, ffn, vocab, .. } = self.config;
        let of_layer = hidden * self.config.qkv_dim() + self.config.q_dim() * hidden + 3 * hidden * ffn;
        Costs {
            bytes: matrices().chain([head]).map(bytes).sum(),
            operations: 2 * self.config.layers * of_layer,
            head_operations: 2 * hidden * vocab,
        }
    }

    pub fn options(&self) -> Options {
        self.options
    }

    /// What `work` makes of every item, on the threads of the forward pass. They are awake after one, and others would
    /// have to share the processors with them.
    pub fn map<T: Send, R: Send>(&self, items: &mut [T], work: impl Fn(usize, &mut T) -> R + Sync) -> Vec<R> {
        let cells: Vec<Mutex<(&mut T, Option<R>)>> =
            items.iter_mut().map(|item| Mutex::new((item, None))).collect();
        self.workspace().team.each(cells.len(), |index| {
            let mut cell = cells[index].lock().unwrap_or_else(PoisonError::into_inner);
            cell.1 = Some(work(index, cell.0));
        });
        let results = cells.into_iter().filter_map(|cell| {
            let (_, result) = cell.into_inner().unwrap_or_else(PoisonError::into_inner);
            result
        });
        results.collect()
    }

    /// The threads and buffers of a forward pass.
    pub(super) fn workspace(&self) -> MutexGuard<'_, Workspace> {
        // A pass that panicked leaves nothing behind that the next would read.
        self.workspace.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
