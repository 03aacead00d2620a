//! The output head and its loss, at the trained positions only.

use rayon::prelude::*;

use super::batch::Packed;
use super::bf16::{self, Factors, Rows};
use super::frozen::{Frozen, FrozenMatrix};
use super::matmul::{Store, Threads, View, ViewMut, matmul};
use super::ops::{self, RowLoss};
use super::sized;

/// Rows whose logits exist at the same time: 24 MB for a vocabulary of 49,152.
const CHUNK: usize = 120;

/// Buffers of the head, reused between calls.
#[derive(Default)]
pub struct Head {
    /// Residual stream at the target rows, `[targets, hidden]`
    picked: Vec<f32>,
    /// The same, normalised
    normed: Vec<f32>,
    /// Gradient of `normed`, then of `picked`
    d_normed: Vec<f32>,
    d_picked: Vec<f32>,
    /// `[CHUNK, vocab]`
    logits: Vec<f32>,
    /// The left factor of a product in bf16
    half: Rows,
}

impl Head {
    /// Loss of every target of the batch, given the residual stream after the last layer, `[rows, hidden]`.
    pub fn losses(&mut self, frozen: &Frozen, stream: &[f32], batch: &Packed) -> Vec<RowLoss> {
        self.pick(frozen, stream, batch);
        let (hidden, vocab) = (frozen.config.hidden, frozen.config.vocab);
        let mut rows = Vec::with_capacity(batch.targets.len());
        for (targets, normed) in batch.targets.chunks(CHUNK).zip(self.normed.chunks(CHUNK * hidden)) {
            let logits = logits(&mut self.logits, &mut self.half, frozen, normed, targets.len());
            let of_rows = logits.par_chunks_exact(vocab).zip(targets);
            rows.par_extend(of_rows.map(|(row, target)| ops::cross_entropy_loss(row, *target as usize)));
        }
        rows
    }

    /// As [`Head::losses`]; writes into `d_stream` the gradient of the sum of the losses, each times its scale.
    pub fn losses_and_gradient(
        &mut self,
        frozen: &Frozen,
        stream: &[f32],
        batch: &Packed,
        scales: &[f32],
        d_stream: &mut [f32],
    ) -> Vec<RowLoss> {
        self.pick(frozen, stream, batch);
        let (hidden, vocab) = (frozen.config.hidden, frozen.config.vocab);
        let mut rows = Vec::with_capacity(batch.targets.len());
        let d_normed = sized(&mut self.d_normed, self.normed.len());
        let parts = batch.targets.chunks(CHUNK).zip(scales.chunks(CHUNK));
        let values = self.normed.chunks(CHUNK * hidden).zip(d_normed.chunks_mut(CHUNK * hidden));
        for ((targets, scales), (normed, d_normed)) in parts.zip(values) {
            let logits = logits(&mut self.logits, &mut self.half, frozen, normed, targets.len());
            let of_rows = logits.par_chunks_exact_mut(vocab).zip(targets).zip(scales);
            rows.par_extend(
                of_rows.map(|((row, target), scale)| ops::cross_entropy(row, *target as usize, *scale)),
            );
            match frozen.output_head() {
                FrozenMatrix::F32(embedding) => {
                    let product = ViewMut::new(d_normed, targets.len(), hidden);
                    let d_logits = View::new(logits, targets.len(), vocab);
                    matmul(product, Store::Set, 1.0, d_logits, embedding.into(), Threads::Pool);
                }
                FrozenMatrix::Bf16(embedding) => {
                    self.half.fill(embedding.backward.unit, logits, vocab, 1.0);
                    let factors = Factors { left: &self.half, right: &embedding.backward };
                    bf16::product(d_normed, Store::Set, targets.len(), factors, None);
                }
            }
        }
        self.spread(frozen, batch, d_stream);
        rows
    }

    /// Copies and normalises the rows that predict something.
    fn pick(&mut self, frozen: &Frozen, stream: &[f32], batch: &Packed) {
        let hidden = frozen.config.hidden;
        self.picked.clear();
        for row in &batch.target_rows {
            self.picked.extend_from_slice(&stream[row * hidden..][..hidden]);
        }
        self.normed.resize(self.picked.len(), 0.0);
        ops::rms_norm(&mut self.normed, &self.picked, &frozen.norm, frozen.config.norm_eps);
    }

    /// Through the last norm, then to the rows that the targets came from; the others get 0.
    fn spread(&mut self, frozen: &Frozen, batch: &Packed, d_stream: &mut [f32]) {
        let hidden = frozen.config.hidden;
        self.d_picked.clear();
        self.d_picked.resize(self.picked.len(), 0.0);
        let d_normed = &self.d_normed[..self.picked.len()];
        let eps = frozen.config.norm_eps;
        ops::rms_norm_backward(&mut self.d_picked, d_normed, &self.picked, &frozen.norm, eps);
        d_stream.fill(0.0);
        for (row, gradient) in batch.target_rows.iter().zip(self.d_picked.chunks_exact(hidden)) {
            d_stream[row * hidden..][..hidden].copy_from_slice(gradient);
        }
    }
}

/// `[rows, vocab]` of `normed: [rows, hidden]`.
fn logits<'a>(
    buffer: &'a mut Vec<f32>,
    half: &mut Rows,
    frozen: &Frozen,
    normed: &[f32],
    rows: usize,
) -> &'a mut [f32] {
    let (hidden, vocab) = (frozen.config.hidden, frozen.config.vocab);
    let logits = sized(buffer, rows * vocab);
    match frozen.output_head() {
        FrozenMatrix::F32(embedding) => {
            let product = ViewMut::new(logits, rows, vocab);
            let normed = View::new(normed, rows, hidden);
            matmul(product, Store::Set, 1.0, normed, View::from(embedding).t(), Threads::Pool);
        }
        FrozenMatrix::Bf16(embedding) => {
            half.fill(embedding.forward.unit, normed, hidden, 1.0);
            let factors = Factors { left: half, right: &embedding.forward };
            bf16::product(logits, Store::Set, rows, factors, None);
        }
    }
    logits
}
