//! Grouped-query attention over pages of keys and values.
//!
//! A page is attended to by itself and merged into what the pages before it gave (Milakov and Gimelshein 2018).
//! Pages are cut by position, so what a token gets depends neither on the tokens that are processed beside it nor
//! on threads.

use super::sequence::{HeadPage, PAGE};
use crate::kernel::{self, Level};

/// Queries of one key/value head, and what attention has made of them so far.
pub(super) struct Attending<'a> {
    level: Level,
    head_dim: usize,
    /// `[n, head_dim]`
    queries: Vec<f32>,
    /// How many positions each query sees, ascending.
    visible: Vec<usize>,
    /// Greatest score and sum of exponentials of each query.
    tops: Vec<(f32, f32)>,
    /// Weighted values, not yet divided by the sum: `[n, head_dim]`.
    mixed: &'a mut [f32],
}

/// Buffers of one thread.
#[derive(Default)]
pub(super) struct Scratch {
    wide: Vec<f32>,
    scores: Vec<f32>,
    mixed: Vec<f32>,
}

impl<'a> Attending<'a> {
    pub(super) fn new(level: Level, queries: Vec<f32>, visible: Vec<usize>, mixed: &'a mut [f32]) -> Self {
        let head_dim = queries.len() / visible.len();
        mixed.fill(0.0);
        Self { level, head_dim, queries, tops: vec![(f32::NEG_INFINITY, 0.0); visible.len()], visible, mixed }
    }

    /// Takes in page `index`.
    pub(super) fn page(&mut self, index: usize, page: HeadPage, scratch: &mut Scratch) {
        let Scratch { wide, scores, mixed } = scratch;
        let first = index * PAGE;
        // Queries that see nothing of the page come first.
        let blind = self.visible.partition_point(|visible| *visible <= first);
        let (dim, count) = (self.head_dim, self.visible.len() - blind);
        scores.resize(count * PAGE, 0.0);
        mixed.resize(count * dim, 0.0);
        let (level, arch, queries) = (self.level, self.level.arch(), &self.queries[blind * dim..]);
        match page {
            HeadPage::Full(keys, _) => kernel::mix(arch, queries, keys, PAGE, scores),
            HeadPage::Half(keys, _) => kernel::mix_half(level, queries, dim, keys, PAGE, scores, wide),
        }
        let scale = 1.0 / (dim as f32).sqrt();
        let seen = |visible: usize| PAGE.min(visible - first);
        let tops: Vec<(f32, f32)> = scores
            .chunks_exact_mut(PAGE)
            .zip(&self.visible[blind..])
            .map(|(scores, visible)| kernel::exponentials(arch, scores, seen(*visible), scale))
            .collect();
        match page {
            HeadPage::Full(_, values) => kernel::mix(arch, scores, values, dim, mixed),
            HeadPage::Half(_, values) => {
                let most = self.visible.last().map_or(0, |visible| seen(*visible));
                kernel::mix_half(level, scores, PAGE, &values[..most * dim], dim, mixed, wide);
            }
        }
        let sums = self.mixed[blind * dim..].chunks_exact_mut(dim).zip(&mut self.tops[blind..]);
        for ((sums, top), part) in sums.zip(mixed.chunks_exact(dim).zip(tops)) {
            merge(sums, top, part);
        }
    }

    /// Divides by the sums.
    pub(super) fn finish(self) {
        for (mixed, (_, sum)) in self.mixed.chunks_exact_mut(self.head_dim).zip(&self.tops) {
            mixed.iter_mut().for_each(|mixed| *mixed /= sum);
        }
    }
}

/// Adds a page's weighted values to those of the pages before, both relative to the greater of their greatest scores.
fn merge(sums: &mut [f32], top: &mut (f32, f32), (part, part_top): (&[f32], (f32, f32))) {
    if top.1 == 0.0 {
        sums.copy_from_slice(part);
        *top = part_top;
        return;
    }
    let greatest = top.0.max(part_top.0);
    let (before, now) = (kernel::exp(top.0 - greatest), kernel::exp(part_top.0 - greatest));
    sums.iter_mut().zip(part).for_each(|(sum, part)| *sum = *sum * before + part * now);
    *top = (greatest, top.1 * before + part_top.1 * now);
}
