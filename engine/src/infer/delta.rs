//! What tuned models add to the base: low-rank products, applied to the rows of their sequences only.
//!
//! All sequences of a pass share one product with the base matrix; each then gets `B (A x)` of its own model. Unlike
//! merged weights, this costs a few megabytes per tuned model and mixes in one batch.

use super::Chunk;
use crate::{
    kernel,
    lora::{Adapter, Site},
    weights::{Config, Matrix},
};

/// The low-rank update of one tuned model: a chain of adapters, each trained on top of the one before.
#[derive(Clone, Debug)]
pub struct Delta {
    /// `[layers][site]`, in the order of [`Site::ALL`].
    layers: Vec<[Update; 4]>,
}

/// The update of one fused matrix.
#[derive(Clone, Debug)]
struct Update {
    /// `[ranks, inputs]`: all `A` matrices, one below the other.
    a: Matrix,
    parts: Vec<Part>,
}

/// One `B` matrix.
#[derive(Clone, Debug)]
struct Part {
    /// Its first row in the fused matrix.
    first_row: usize,
    /// Its first rank in `a`.
    first_rank: usize,
    /// `[outputs, rank]`, scaled by `alpha / rank`.
    b: Matrix,
}

impl Delta {
    /// The adapters of `chain`, the one on the base model first. They add up: their order only matters to rounding.
    pub fn new(config: &Config, chain: &[Adapter]) -> Self {
        let layers = 0..config.layers;
        Self { layers: layers.map(|layer| Site::ALL.map(|site| Update::new(chain, layer, site))).collect() }
    }
}

impl Update {
    fn new(chain: &[Adapter], layer: usize, site: Site) -> Self {
        let mut update = Self { a: Matrix::zeros(0, 0), parts: Vec::new() };
        for adapter in chain {
            let Some(group) = adapter.group(layer, site) else { continue };
            for (member, a) in group.pairs() {
                let mut b = member.b.clone();
                b.data.iter_mut().for_each(|b| *b *= adapter.scale());
                let (first_row, first_rank) = (member.first_row, update.a.rows);
                update.a.rows += b.cols;
                update.a.cols = group.a.cols;
                update.a.data.extend_from_slice(a);
                update.parts.push(Part { first_row, first_rank, b });
            }
        }
        update
    }

    /// Adds `B (A x)` to the rows of `y`.
    fn apply(&self, x: &[f32], y: &mut [f32]) {
        let rows = x.len() / self.a.cols;
        let narrow = kernel::matmul(x, &self.a);
        for (narrow, y) in narrow.chunks_exact(self.a.rows).zip(y.chunks_exact_mut(y.len() / rows)) {
            for part in &self.parts {
                let narrow = &narrow[part.first_rank..][..part.b.cols];
                let outputs = part.b.data.chunks_exact(part.b.cols).zip(&mut y[part.first_row..]);
                outputs.for_each(|(b, y)| *y += b.iter().zip(narrow).map(|(b, n)| b * n).sum::<f32>());
            }
        }
    }
}

/// Which rows of a pass belong to which tuned model.
pub(super) struct Rows<'a>(Vec<(usize, usize, &'a Delta)>);

impl<'a> Rows<'a> {
    pub(super) fn of(chunks: &[Chunk<'a>]) -> Self {
        let mut row = 0;
        let tuned = chunks.iter().filter_map(|chunk| {
            row += chunk.take;
            Some((row - chunk.take, chunk.take, chunk.delta?))
        });
        Self(tuned.collect())
    }

    /// Adds to `y`, the product of `x` with the base matrix of this place, what each tuned model adds.
    pub(super) fn apply(&self, layer: usize, site: Site, x: &[f32], y: &mut [f32]) {
        for (first, rows, delta) in &self.0 {
            let update = &delta.layers[layer][site as usize];
            if update.a.rows == 0 || *rows == 0 {
                continue;
            }
            let inputs = update.a.cols;
            let outputs = y.len() / (x.len() / inputs);
            let y = &mut y[first * outputs..][..rows * outputs];
            update.apply(&x[first * inputs..][..rows * inputs], y);
        }
    }
}
