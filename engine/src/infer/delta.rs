//! What tuned models add to the base: low-rank products, applied to the rows of their sequences only.
//!
//! All sequences of a pass share one product with the base matrix; each then gets `B (A x)` of its own model. Unlike
//! merged weights, this costs a few megabytes per tuned model and mixes in one batch.

use pulp::Arch;

use super::{Chunk, decoder::order};
use crate::{
    kernel::{self, BLOCK, PANEL},
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
pub(super) struct Update {
    /// `[ranks, inputs]`, zeros up to whole blocks of inputs: all `A` matrices, one below the other.
    pub a: Matrix,
    /// Per panel of outputs.
    panels: Vec<Vec<Part>>,
}

/// What one `B` matrix has for a panel, scaled by `alpha / rank`.
#[derive(Clone, Debug)]
struct Part {
    /// Its first rank in `a`.
    first: usize,
    /// For each rank, sixteen outputs.
    b: Vec<[f32; PANEL]>,
}

impl Delta {
    /// The adapters of `chain`, the one on the base model first. They add up: their order only matters to rounding.
    pub fn new(config: &Config, chain: &[Adapter]) -> Self {
        let orders = Site::ALL.map(|site| order(config, site));
        let update = |layer: usize, site: Site| Update::new(chain, layer, site, &orders[site as usize]);
        Self { layers: (0..config.layers).map(|layer| Site::ALL.map(|site| update(layer, site))).collect() }
    }

    pub(super) fn update(&self, layer: usize, site: Site) -> &Update {
        &self.layers[layer][site as usize]
    }

    /// Most ranks of any place.
    fn widest(&self) -> usize {
        self.layers.iter().flatten().map(|update| update.a.rows).max().unwrap_or(0)
    }
}

impl Update {
    fn new(chain: &[Adapter], layer: usize, site: Site, order: &[Option<usize>]) -> Self {
        let mut update =
            Self { a: Matrix::zeros(0, 0), panels: vec![Vec::new(); order.len().div_ceil(PANEL)] };
        for adapter in chain {
            let Some(group) = adapter.group(layer, site) else { continue };
            update.a.cols = group.a.cols.next_multiple_of(BLOCK);
            for (member, a) in group.pairs() {
                let first = update.a.rows;
                for row in a.chunks_exact(group.a.cols) {
                    update.a.data.extend_from_slice(row);
                    update.a.rows += 1;
                    update.a.data.resize(update.a.rows * update.a.cols, 0.0);
                }
                for (parts, order) in update.panels.iter_mut().zip(order.chunks(PANEL)) {
                    let row =
                        |source: Option<usize>| Some(member.b.row(source?.checked_sub(member.first_row)?));
                    let inside =
                        |row: usize| (member.first_row..member.first_row + member.b.rows).contains(&row);
                    let rows = order.iter().map(|source| row(source.filter(|row| inside(*row))));
                    parts.extend(Part::new(first, member.b.cols, adapter.scale(), rows));
                }
            }
        }
        update
    }

    /// Adds `B narrow` to the outputs of a panel.
    fn add(&self, arch: Arch, panel: usize, narrow: &[f32], outputs: &mut [f32; PANEL]) {
        for part in &self.panels[panel] {
            kernel::add_ranks(arch, &part.b, &narrow[part.first..], outputs);
        }
    }
}

impl Part {
    /// None when the matrix has no row in the panel.
    fn new<'a>(
        first: usize,
        ranks: usize,
        scale: f32,
        rows: impl Iterator<Item = Option<&'a [f32]>>,
    ) -> Option<Self> {
        let mut part = Self { first, b: vec![[0.0; PANEL]; ranks] };
        let mut any = false;
        for (lane, row) in rows.enumerate() {
            for (b, value) in part.b.iter_mut().zip(row.into_iter().flatten()) {
                b[lane] = scale * value;
                any = true;
            }
        }
        any.then_some(part)
    }
}

/// Which rows of a pass belong to which tuned model.
pub(super) struct Tuned<'a> {
    /// First row, number of rows, their model.
    pub spans: Vec<(usize, usize, &'a Delta)>,
    /// Most ranks of any place of any model.
    pub width: usize,
}

impl<'a> Tuned<'a> {
    pub(super) fn of(chunks: &[Chunk<'a>]) -> Self {
        let mut row = 0;
        let tuned = chunks.iter().filter_map(|chunk| {
            row += chunk.take;
            Some((row - chunk.take, chunk.take, chunk.delta?))
        });
        let spans: Vec<_> = tuned.filter(|(_, rows, _)| *rows > 0).collect();
        let width = spans.iter().map(|(.., delta)| delta.widest()).max().unwrap_or(0);
        Self { spans, width }
    }
}

/// The updates of one place and what their rows gave: `A x`.
#[derive(Clone, Copy)]
pub(super) struct Narrow<'a> {
    /// For each row its update, if it has one.
    pub updates: &'a [Option<&'a Update>],
    /// `[rows, width]`
    pub products: &'a [f32],
    pub width: usize,
}

impl Narrow<'_> {
    /// No row is tuned.
    pub(super) const NONE: Self = Narrow { updates: &[], products: &[], width: 0 };

    /// Adds what row `row`'s model has for a panel.
    pub(super) fn add(&self, arch: Arch, row: usize, panel: usize, outputs: &mut [f32; PANEL]) {
        if let Some(Some(update)) = self.updates.get(row) {
            update.add(arch, panel, &self.products[row * self.width..][..self.width], outputs);
        }
    }
}
