//! The output head and its loss, at the trained positions only.

use rayon::prelude::*;

use super::batch::Packed;
use super::matmul::{Store, Threads, View, ViewMut, matmul};
use super::ops::{self, RowLoss};
use super::{Totals, sized};
use crate::weights::Weights;

/// Rows whose logits exist at the same time: 50 MB for a vocabulary of 49,152.
const CHUNK: usize = 256;

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
}

impl Head {
    /// Loss of every target of the batch, given the residual stream after the last layer, `[rows, hidden]`.
    pub fn loss(&mut self, weights: &Weights, stream: &[f32], batch: &Packed) -> Totals {
        self.pick(weights, stream, batch);
        let (hidden, vocab) = (weights.config.hidden, weights.config.vocab);
        let mut totals = Totals::default();
        for (targets, normed) in batch.targets.chunks(CHUNK).zip(self.normed.chunks(CHUNK * hidden)) {
            let logits = logits(&mut self.logits, weights, normed, targets.len());
            let rows: Vec<RowLoss> = logits
                .par_chunks_exact(vocab)
                .zip(targets)
                .map(|(row, target)| ops::cross_entropy_loss(row, *target as usize))
                .collect();
            totals.add_rows(&rows);
        }
        totals
    }

    /// As [`Head::loss`]; writes into `d_stream` the gradient of `scale` times the sum of the losses.
    pub fn loss_and_gradient(
        &mut self,
        weights: &Weights,
        stream: &[f32],
        batch: &Packed,
        scale: f32,
        d_stream: &mut [f32],
    ) -> Totals {
        self.pick(weights, stream, batch);
        let (hidden, vocab) = (weights.config.hidden, weights.config.vocab);
        let mut totals = Totals::default();
        let d_normed = sized(&mut self.d_normed, self.normed.len());
        let parts = batch.targets.chunks(CHUNK).zip(self.normed.chunks(CHUNK * hidden));
        for ((targets, normed), d_normed) in parts.zip(d_normed.chunks_mut(CHUNK * hidden)) {
            let logits = logits(&mut self.logits, weights, normed, targets.len());
            let rows: Vec<RowLoss> = logits
                .par_chunks_exact_mut(vocab)
                .zip(targets)
                .map(|(row, target)| ops::cross_entropy(row, *target as usize, scale))
                .collect();
            totals.add_rows(&rows);
            let (count, d_logits) = (targets.len(), View::new(logits, targets.len(), vocab));
            let product = ViewMut::new(d_normed, count, hidden);
            matmul(product, Store::Set, 1.0, d_logits, weights.output_head().into(), Threads::Pool);
        }
        self.spread(weights, batch, d_stream);
        totals
    }

    /// Copies and normalises the rows that predict something.
    fn pick(&mut self, weights: &Weights, stream: &[f32], batch: &Packed) {
        let hidden = weights.config.hidden;
        self.picked.clear();
        for row in &batch.target_rows {
            self.picked.extend_from_slice(&stream[row * hidden..][..hidden]);
        }
        self.normed.resize(self.picked.len(), 0.0);
        ops::rms_norm(&mut self.normed, &self.picked, &weights.norm, weights.config.norm_eps);
    }

    /// Through the last norm, then to the rows that the targets came from; the others get 0.
    fn spread(&mut self, weights: &Weights, batch: &Packed, d_stream: &mut [f32]) {
        let hidden = weights.config.hidden;
        self.d_picked.clear();
        self.d_picked.resize(self.picked.len(), 0.0);
        let d_normed = &self.d_normed[..self.picked.len()];
        let eps = weights.config.norm_eps;
        ops::rms_norm_backward(&mut self.d_picked, d_normed, &self.picked, &weights.norm, eps);
        d_stream.fill(0.0);
        for (row, gradient) in batch.target_rows.iter().zip(self.d_picked.chunks_exact(hidden)) {
            d_stream[row * hidden..][..hidden].copy_from_slice(gradient);
        }
    }
}

/// `[rows, vocab]` of `normed: [rows, hidden]`.
fn logits<'a>(buffer: &'a mut Vec<f32>, weights: &Weights, normed: &[f32], rows: usize) -> &'a mut [f32] {
    let (hidden, vocab) = (weights.config.hidden, weights.config.vocab);
    let logits = sized(buffer, rows * vocab);
    let product = ViewMut::new(logits, rows, vocab);
    let head = View::from(weights.output_head()).t();
    matmul(product, Store::Set, 1.0, View::new(normed, rows, hidden), head, Threads::Pool);
    logits
}
