//! One forward pass, step by step. Each step is spread over the team; the rows of all sequences go through it
//! together.

use std::cell::RefCell;

use super::{
    Span,
    attention::{Attending, Scratch},
    decoder::{Block, Decoder},
    delta::{Narrow, Tuned, Update},
    sequence::{PAGE, Pages},
    team::{MAX_TASKS, Team},
    workspace::Buffers,
};
use crate::{
    kernel::{self, Inputs, KEPT_PANELS, Level, Linear, Output, PANEL, Sums, TILE, Wanted},
    lora::Site,
    rope::Rotation,
    weights::Config,
};

/// Tasks per thread and step: enough that a thread that is held up does not hold up the others for long.
const TASKS_PER_THREAD: usize = 6;
/// Least panels for one task: fewer cost more to hand over than they take.
const MIN_PANELS: usize = 4;
/// Bytes of panels that a thread keeps in its first-level cache beside a tile of inputs.
const CACHED_BYTES: usize = 24 << 10;
/// Tokens of one sequence that a single attention task takes: small enough to spread a prompt over the cores.
const ATTENTION_ROWS: usize = 16;

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// What is the same in all steps.
pub(super) struct Pass<'a> {
    pub decoder: &'a Decoder,
    pub team: &'a Team,
    pub spans: &'a [Span],
    /// The pages of each chunk.
    pub pages: &'a [Pages],
    pub tuned: &'a Tuned<'a>,
    pub rotation: &'a Rotation,
    pub rows: usize,
}

impl Pass<'_> {
    pub(super) fn run(&self, buffers: &mut Buffers) {
        for (index, block) in self.decoder.parts.layers.iter().enumerate() {
            self.attention(index, block, buffers);
            self.feed_forward(index, block, buffers);
        }
    }

    fn attention(&self, layer: usize, block: &Block, buffers: &mut Buffers) {
        let config = &self.decoder.config;
        let Buffers { stream, normed, qkv, mixed, attended, narrow, .. } = buffers;
        self.norm(stream, &block.attn_norm, normed);
        qkv.resize(self.rows * config.qkv_dim(), 0.0);
        let output = Output::new(qkv, config.qkv_dim());
        self.project(
            layer,
            Site::Qkv,
            block,
            normed,
            narrow,
            |panel, row, [sums]: &mut [[f32; PANEL]; 1]| {
                let columns = panel * PANEL..((panel + 1) * PANEL).min(config.qkv_dim());
                if let Some(bias) = &block.qkv_bias {
                    kernel::add(sums, &bias[columns.clone()]);
                }
                // SAFETY: each task writes its own columns.
                store(unsafe { output.block(row, columns) }, sums);
            },
        );
        self.turn_and_keep(layer, qkv);
        self.attend(layer, qkv, mixed);
        let writer = attended.prepare(self.level(), self.rows, config.q_dim(), self.wanted());
        each_row(self.team, self.rows, TILE, |row| {
            // SAFETY: each task writes its own rows.
            unsafe { writer.put_row(row, &mixed[row * config.q_dim()..][..config.q_dim()]) };
        });
        self.add_projection(layer, Site::Out, block, attended, narrow, stream);
    }

    fn feed_forward(&self, layer: usize, block: &Block, buffers: &mut Buffers) {
        let Buffers { stream, normed, gated, narrow, .. } = buffers;
        self.norm(stream, &block.ffn_norm, normed);
        let writer = gated.prepare(self.level(), self.rows, self.decoder.config.ffn, self.wanted());
        let arch = self.level().arch();
        self.project(
            layer,
            Site::GateUp,
            block,
            normed,
            narrow,
            |unit, row, sums: &mut [[f32; PANEL]; 4]| {
                // SAFETY: each task writes its own blocks.
                unsafe { kernel::gate_block(arch, sums, &writer, row, unit) };
            },
        );
        self.add_projection(layer, Site::Down, block, gated, narrow, stream);
    }

    /// Adds to the stream.
    fn add_projection(
        &self,
        layer: usize,
        site: Site,
        block: &Block,
        inputs: &Inputs,
        narrow: &mut Vec<f32>,
        stream: &mut [f32],
    ) {
        let hidden = self.decoder.config.hidden;
        let output = Output::new(stream, hidden);
        self.project(layer, site, block, inputs, narrow, |panel, row, [sums]: &mut [[f32; PANEL]; 1]| {
            let columns = panel * PANEL..((panel + 1) * PANEL).min(hidden);
            // SAFETY: each task writes its own columns.
            kernel::add(unsafe { output.block(row, columns) }, sums);
        });
    }

    fn level(&self) -> Level {
        self.decoder.options.level
    }

    /// Which forms of inputs this pass reads.
    fn wanted(&self) -> Wanted {
        let exact = self.decoder.options.precision == super::Precision::F32;
        Wanted { quantised: !exact, exact: exact || !self.tuned.spans.is_empty() }
    }

    /// `stream`, `[rows, gain.len()]`, normed, as inputs.
    pub(super) fn norm(&self, stream: &[f32], gain: &[f32], inputs: &mut Inputs) {
        let (width, eps) = (gain.len(), self.decoder.config.norm_eps);
        let writer = inputs.prepare(self.level(), stream.len() / width, width, self.wanted());
        let arch = self.level().arch();
        each_row(self.team, stream.len() / width, TILE, |row| {
            // SAFETY: each task writes its own rows.
            unsafe { kernel::norm_row(arch, &stream[row * width..][..width], gain, eps, &writer, row) };
        });
    }

    /// The product of `inputs` with a matrix and what tuned models add to it: `finish(unit, row, sums)` gets `U`
    /// neighbouring panels at a time.
    fn project<const U: usize>(
        &self,
        layer: usize,
        site: Site,
        block: &Block,
        inputs: &Inputs,
        narrow: &mut Vec<f32>,
        finish: impl Fn(usize, usize, &mut [[f32; PANEL]; U]) + Sync,
    ) {
        let mut updates = vec![None; if self.tuned.spans.is_empty() { 0 } else { self.rows }];
        for (first, rows, delta) in &self.tuned.spans {
            updates[*first..first + rows].fill(Some(delta.update(layer, site)));
        }
        let width = self.tuned.width;
        narrow.resize(self.rows * width, 0.0);
        self.narrow(layer, site, inputs, narrow);
        let narrow = Narrow { updates: &updates, products: narrow, width };
        self.multiply(block.linear(site), inputs, narrow, finish);
    }

    /// `A x` of the rows that have an update here.
    fn narrow(&self, layer: usize, site: Site, inputs: &Inputs, narrow: &mut [f32]) {
        let output = Output::new(narrow, self.tuned.width.max(1));
        let arch = self.level().arch();
        let tile = |first: usize, rows: usize, Update { a, .. }: &Update| {
            let x = inputs.exact(first, rows);
            kernel::products(arch, x, &a.data, a.cols, |row, rank, dot| {
                // SAFETY: each task writes its own rows.
                let slot = unsafe { output.block(first + row, rank..rank + 1) };
                slot[0] = dot;
            });
        };
        let tiles: Vec<(usize, usize, &Update)> = self
            .tuned
            .spans
            .iter()
            .map(|(first, rows, delta)| (*first, *rows, delta.update(layer, site)))
            .filter(|(.., update)| update.a.rows > 0)
            .flat_map(|(first, rows, update)| {
                (0..rows).step_by(TILE).map(move |at| (first + at, TILE.min(rows - at), update))
            })
            .collect();
        self.team.each(tiles.len(), |task| {
            let (first, rows, update) = tiles[task];
            tile(first, rows, update);
        });
    }

    /// As [`Pass::project`], for any matrix.
    pub(super) fn multiply<const U: usize>(
        &self,
        linear: &Linear,
        inputs: &Inputs,
        narrow: Narrow,
        finish: impl Fn(usize, usize, &mut [[f32; PANEL]; U]) + Sync,
    ) {
        let units = linear.panels() / U;
        let even = units.div_ceil(TASKS_PER_THREAD * self.team.threads());
        let per_task = even.max(MIN_PANELS / U).max(units.div_ceil(MAX_TASKS)).max(1);
        let (level, arch) = (self.level(), self.level().arch());
        // Panels that stay in the first-level cache while all tiles pass, or unpacked.
        let together = (CACHED_BYTES / (linear.panel_bytes() * U)).clamp(1, KEPT_PANELS / U);
        self.team.each(units.div_ceil(per_task), |task| {
            let mut sums: [Sums; U] = [[[0.0; PANEL]; TILE]; U];
            let mut multiplier = linear.multiplier(level, inputs);
            let mut unit = |unit: usize, tile: usize| {
                for (i, sums) in sums.iter_mut().enumerate() {
                    multiplier.product(unit * U + i, tile, sums);
                }
                for at in 0..inputs.rows_of(tile) {
                    let row = tile * TILE + at;
                    let mut outputs = [[0.0; PANEL]; U];
                    for (i, (outputs, sums)) in outputs.iter_mut().zip(&sums).enumerate() {
                        *outputs = sums[at];
                        narrow.add(arch, row, unit * U + i, outputs);
                    }
                    finish(unit, row, &mut outputs);
                }
            };
            let end = ((task + 1) * per_task).min(units);
            for first in (task * per_task..end).step_by(together) {
                for tile in 0..inputs.tiles() {
                    (first..(first + together).min(end)).for_each(|index| unit(index, tile));
                }
            }
        });
    }

    /// Rotates queries and keys and puts keys and values into the pages.
    fn turn_and_keep(&self, layer: usize, qkv: &mut [f32]) {
        let config = &self.decoder.config;
        let (dim, width, first_key) = (config.head_dim, config.qkv_dim(), config.q_dim());
        let first_value = first_key + config.kv_dim();
        let output = Output::new(qkv, width);
        let (rotation, spans, pages) = (self.rotation, self.spans, self.pages);
        each_row(self.team, self.rows, 1, |row| {
            // SAFETY: each task has its own row.
            let qkv = unsafe { output.block(row, 0..width) };
            rotation.turn(config, row, qkv);
            let chunk = spans.partition_point(|span| span.row + span.len <= row);
            let position = spans[chunk].position + row - spans[chunk].row;
            for head in 0..config.kv_heads {
                let (key, value) =
                    (&qkv[first_key + head * dim..][..dim], &qkv[first_value + head * dim..][..dim]);
                // SAFETY: the caller of the pass holds the sequences; rows have positions of their own.
                unsafe { pages[chunk].put(layer, head, position, key, value) };
            }
        });
    }

    /// Attention of all rows, `[rows, q_dim]`.
    fn attend(&self, layer: usize, qkv: &[f32], mixed: &mut Vec<f32>) {
        let config = &self.decoder.config;
        mixed.resize(self.rows * config.q_dim(), 0.0);
        let output = Output::new(mixed, config.q_dim());
        let tasks: Vec<(usize, Span, usize)> = self
            .spans
            .iter()
            .enumerate()
            .flat_map(|(chunk, span)| split(*span).map(move |span| (chunk, span)))
            .flat_map(|(chunk, span)| (0..config.kv_heads).map(move |head| (chunk, span, head)))
            .collect();
        let (pages, level) = (self.pages, self.level());
        self.team.each(tasks.len(), |task| {
            let (chunk, span, head) = tasks[task];
            let group = Group::new(config, head);
            let (queries, visible) = group.queries(qkv, span);
            let mut results = vec![0.0; queries.len()];
            let mut attending = Attending::new(level, queries, visible, &mut results);
            SCRATCH.with_borrow_mut(|scratch| {
                for page in 0..(span.position + span.len).div_ceil(PAGE) {
                    // SAFETY: the caller of the pass holds the sequences; all keys and values of this layer are
                    // written.
                    let part = unsafe { pages[chunk].head(layer, head, page) };
                    attending.page(page, part, scratch);
                }
            });
            attending.finish();
            for (row, results) in results.chunks_exact(group.columns.len()).enumerate() {
                // SAFETY: no two tasks share both a row and a key/value head.
                unsafe { output.block(span.row + row, group.columns.clone()) }.copy_from_slice(results);
            }
        });
    }
}

/// Stores a panel's outputs, or as many as there is room for.
pub(super) fn store(slots: &mut [f32], outputs: &[f32; PANEL]) {
    // Whole panels have a length known here, which makes this one instruction.
    match slots.as_mut_array::<PANEL>() {
        Some(slots) => *slots = *outputs,
        None => slots.copy_from_slice(&outputs[..slots.len()]),
    }
}

/// Applies `work` to every row. A thread takes `together` neighbours at least: those that share lines of cache.
pub(super) fn each_row(team: &Team, rows: usize, together: usize, work: impl Fn(usize) + Sync) {
    // Two tasks per thread: rows take about as long as handing one over.
    let per_task = rows.div_ceil(2 * team.threads()).next_multiple_of(together);
    team.each(rows.div_ceil(per_task.max(1)), |task| {
        (task * per_task..((task + 1) * per_task).min(rows)).for_each(&work);
    });
}

/// The query heads that share a key/value head.
struct Group<'a> {
    config: &'a Config,
    /// Their columns in a row of queries.
    columns: std::ops::Range<usize>,
}

impl<'a> Group<'a> {
    fn new(config: &'a Config, head: usize) -> Self {
        let width = config.heads / config.kv_heads * config.head_dim;
        Self { config, columns: head * width..(head + 1) * width }
    }

    /// The queries of a span's tokens, and how many positions each sees.
    fn queries(&self, qkv: &[f32], span: Span) -> (Vec<f32>, Vec<usize>) {
        let rows = qkv.chunks_exact(self.config.qkv_dim()).skip(span.row).take(span.len);
        let mut queries = Vec::with_capacity(span.len * self.columns.len());
        rows.for_each(|row| queries.extend_from_slice(&row[self.columns.clone()]));
        let group = self.config.heads / self.config.kv_heads;
        let visible = (0..span.len * group).map(|i| span.position + i / group + 1).collect();
        (queries, visible)
    }
}

/// The span in pieces of at most [`ATTENTION_ROWS`] tokens.
fn split(span: Span) -> impl Iterator<Item = Span> {
    (0..span.len).step_by(ATTENTION_ROWS).map(move |at| Span {
        row: span.row + at,
        position: span.position + at,
        len: ATTENTION_ROWS.min(span.len - at),
    })
}
