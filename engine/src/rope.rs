//! Rotary position embedding (Su et al. 2021, RoFormer), for both layouts of the pairs.

use crate::weights::{Config, RopeLayout};

/// Cosine and sine of every (row, pair) of one forward pass; the layers share them.
pub(crate) struct Rotation {
    /// `[rows, head_dim / 2]` of (cos, sin)
    table: Vec<(f32, f32)>,
    pairs: usize,
}

impl Rotation {
    /// `positions`: where each row of the pass stands in its sequence.
    pub(crate) fn new(config: &Config, positions: impl Iterator<Item = usize>) -> Self {
        let pairs = config.head_dim / 2;
        let frequencies = config.rope_frequencies();
        let angles = positions.flat_map(|p| frequencies.iter().map(move |f| p as f64 * f));
        Self { table: angles.map(|a| (a.cos() as f32, a.sin() as f32)).collect(), pairs }
    }

    /// Rotates the query and key heads of row `row` of the pass, `[qkv_dim]`.
    pub(crate) fn turn(&self, config: &Config, row: usize, qkv: &mut [f32]) {
        let table = &self.table[row * self.pairs..][..self.pairs];
        for head in qkv[..config.q_dim() + config.kv_dim()].chunks_exact_mut(config.head_dim) {
            rotate(config.rope, table, head);
        }
    }
}

fn rotate(layout: RopeLayout, table: &[(f32, f32)], head: &mut [f32]) {
    let turn = |a: &mut f32, b: &mut f32, (cos, sin): (f32, f32)| {
        (*a, *b) = (*a * cos - *b * sin, *a * sin + *b * cos);
    };
    match layout {
        RopeLayout::Interleaved => {
            for (pair, &angle) in head.as_chunks_mut::<2>().0.iter_mut().zip(table) {
                let [a, b] = pair;
                turn(a, b, angle);
            }
        }
        RopeLayout::Halves => {
            let (first, second) = head.split_at_mut(table.len());
            for ((a, b), &angle) in first.iter_mut().zip(second).zip(table) {
                turn(a, b, angle);
            }
        }
    }
}
