//! Causal grouped-query attention over packed sequences, forward and backward.
//!
//! One parallel task per (sequence, key/value head); a task walks its query heads in blocks of rows, so that the part of
//! the score matrix above the diagonal is mostly never computed. Probabilities are not stored: the backward pass rebuilds
//! them from the log-sum-exp of each row, which costs a small product and saves memory that grows with length squared.

use std::ops::Range;

use rayon::prelude::*;

use super::matmul::{Store, Threads, View, ViewMut, matmul};
use super::ops::{self, vectorised};
use crate::weights::Config;

/// Query rows that one block handles.
const BLOCK: usize = 64;

/// Where the heads of one task lie inside the rows of `qkv` and of the attention output.
#[derive(Clone)]
struct Task {
    rows: Range<usize>,
    kv_head: usize,
}

impl Task {
    fn len(&self) -> usize {
        self.rows.len()
    }
}

/// Scratch memory of attention, reused between calls.
#[derive(Default)]
pub struct Scratch {
    by_task: Vec<f32>,
}

/// All tasks, sequence by sequence; `slices` of task-ordered buffers follow this order.
fn tasks(spans: &[Range<usize>], config: &Config) -> Vec<Task> {
    let heads = |rows: &Range<usize>| {
        let rows = rows.clone();
        (0..config.kv_heads).map(move |kv_head| Task { rows: rows.clone(), kv_head })
    };
    spans.iter().flat_map(heads).collect()
}

/// Cuts a buffer into one slice per task, `width` elements per row of the task.
fn per_task<'a>(mut buffer: &'a mut [f32], tasks: &[Task], width: usize) -> Vec<&'a mut [f32]> {
    let mut slices = Vec::with_capacity(tasks.len());
    for task in tasks {
        let (slice, rest) = buffer.split_at_mut(task.len() * width);
        slices.push(slice);
        buffer = rest;
    }
    slices
}

/// Start of the slice of a row's task in a task-ordered buffer with `width` elements per row and task.
fn task_start(span: &Range<usize>, kv_head: usize, width: usize, config: &Config) -> usize {
    (span.start * config.kv_heads + kv_head * span.len()) * width
}

/// Head matrices of a task inside row-major activations.
struct Heads<'a> {
    qkv: &'a [f32],
    config: &'a Config,
    task: &'a Task,
}

impl<'a> Heads<'a> {
    /// `[rows, head_dim]` starting at column `col` of `qkv`, for rows `rows` of the sequence.
    fn view(&self, rows: Range<usize>, col: usize) -> View<'a> {
        let width = self.config.qkv_dim();
        let start = (self.task.rows.start + rows.start) * width + col;
        View::strided(&self.qkv[start..], rows.len(), self.config.head_dim, width)
    }

    fn query(&self, rows: Range<usize>, member: usize) -> View<'a> {
        let head = self.task.kv_head * group_size(self.config) + member;
        self.view(rows, head * self.config.head_dim)
    }

    fn key_col(&self) -> usize {
        self.config.q_dim() + self.task.kv_head * self.config.head_dim
    }

    fn value_col(&self) -> usize {
        self.config.q_dim() + self.config.kv_dim() + self.task.kv_head * self.config.head_dim
    }

    fn key(&self, end: usize) -> View<'a> {
        self.view(0..end, self.key_col())
    }

    fn value(&self, end: usize) -> View<'a> {
        self.view(0..end, self.value_col())
    }

    /// Writes `[head_dim, rows of the sequence]`, so that products with every block of queries read it in long rows.
    fn transpose(&self, out: &mut Vec<f32>, col: usize) {
        let (len, dim, width) = (self.task.len(), self.config.head_dim, self.config.qkv_dim());
        let out = super::sized(out, dim * len);
        for position in 0..len {
            let row = &self.qkv[(self.task.rows.start + position) * width + col..][..dim];
            row.iter().enumerate().for_each(|(i, value)| out[i * len + position] = *value);
        }
    }

    /// The first `end` columns of what [`Heads::transpose`] wrote.
    fn transposed<'t>(&self, turned: &'t [f32], end: usize) -> View<'t> {
        View::strided(turned, self.config.head_dim, end, self.task.len())
    }

    /// Raw scores of a block of queries against keys `0..rows.end`, scaled by `1 / sqrt(head_dim)`.
    fn scores(&self, out: &mut [f32], turned_keys: &[f32], rows: Range<usize>, member: usize) {
        let (count, end) = (rows.len(), rows.end);
        let scale = score_scale(self.config);
        let dst = ViewMut::new(out, count, end);
        let keys = self.transposed(turned_keys, end);
        matmul(dst, Store::Set, scale, self.query(rows, member), keys, Threads::One);
    }
}

fn group_size(config: &Config) -> usize {
    config.heads / config.kv_heads
}

fn score_scale(config: &Config) -> f32 {
    1.0 / (config.head_dim as f32).sqrt()
}

/// Blocks of rows of a sequence of `len` rows.
fn blocks(len: usize) -> impl Iterator<Item = Range<usize>> {
    (0..len).step_by(BLOCK).map(move |start| start..len.min(start + BLOCK))
}

/// `out = softmax(q k^T / sqrt(head_dim)) v` per head.
///
/// `qkv: [tokens, qkv_dim]` after rotation; `out: [tokens, q_dim]`; `log_sums: [tokens * heads]`, in task order, receives
/// what [`backward`] needs.
pub fn forward(
    out: &mut [f32],
    log_sums: &mut [f32],
    qkv: &[f32],
    spans: &[Range<usize>],
    config: &Config,
    scratch: &mut Scratch,
) {
    let tasks = tasks(spans, config);
    let group = group_size(config);
    let by_task = super::sized(&mut scratch.by_task, out.len());
    let outputs = per_task(by_task, &tasks, group * config.head_dim);
    let sums = per_task(log_sums, &tasks, group);
    let work: Vec<_> = tasks.iter().zip(outputs).zip(sums).collect();
    work.into_par_iter().for_each_init(Blocks::default, |blocks, ((task, out), sums)| {
        forward_task(&Heads { qkv, config, task }, out, sums, blocks);
    });
    gather_heads(out, by_task, spans, config);
}

fn forward_task(heads: &Heads, out: &mut [f32], log_sums: &mut [f32], scratch: &mut Blocks) {
    heads.transpose(&mut scratch.keys, heads.key_col());
    let (len, dim) = (heads.task.len(), heads.config.head_dim);
    for member in 0..group_size(heads.config) {
        for rows in blocks(len) {
            let (count, end) = (rows.len(), rows.end);
            let scores = super::sized(&mut scratch.probabilities, count * end);
            heads.scores(scores, &scratch.keys, rows.clone(), member);
            let at = member * len + rows.start;
            vectorised(|| {
                for (i, row) in scores.chunks_exact_mut(end).enumerate() {
                    log_sums[at + i] = causal_softmax(row, rows.start + i + 1);
                }
            });
            let dst = ViewMut::new(&mut out[at * dim..][..count * dim], count, dim);
            matmul(dst, Store::Set, 1.0, View::new(scores, count, end), heads.value(end), Threads::One);
        }
    }
}

/// Softmax over the first `visible` scores; the others become 0. Returns the log of the sum of exponentials.
#[inline(always)]
fn causal_softmax(scores: &mut [f32], visible: usize) -> f32 {
    let (seen, hidden) = scores.split_at_mut(visible);
    hidden.fill(0.0);
    let max = ops::lane_max(seen);
    seen.iter_mut().for_each(|score| *score = ops::exp(*score - max));
    let sum = ops::sum(seen);
    let factor = 1.0 / sum;
    seen.iter_mut().for_each(|score| *score *= factor);
    max + sum.ln()
}

/// Task order `[group, rows, head_dim]` to rows `[tokens, q_dim]`.
fn gather_heads(out: &mut [f32], by_task: &[f32], spans: &[Range<usize>], config: &Config) {
    let (group, dim, width) = (group_size(config), config.head_dim, config.q_dim());
    for span in spans {
        let rows = &mut out[span.start * width..span.end * width];
        rows.par_chunks_exact_mut(width).enumerate().for_each(|(position, row)| {
            for (head, out) in row.chunks_exact_mut(dim).enumerate() {
                let start = task_start(span, head / group, group * dim, config);
                let at = start + ((head % group) * span.len() + position) * dim;
                out.copy_from_slice(&by_task[at..][..dim]);
            }
        });
    }
}

/// What the backward pass of attention reads.
pub struct Saved<'a> {
    /// `[tokens, qkv_dim]`, after rotation.
    pub qkv: &'a [f32],
    /// `[tokens, q_dim]`, the output of [`forward`].
    pub out: &'a [f32],
    /// From [`forward`].
    pub log_sums: &'a [f32],
}

/// Writes into `d_qkv: [tokens, qkv_dim]` the gradient of the rotated `qkv`, given `d_out: [tokens, q_dim]`.
pub fn backward(
    d_qkv: &mut [f32],
    d_out: &[f32],
    saved: &Saved,
    spans: &[Range<usize>],
    config: &Config,
    scratch: &mut Scratch,
) {
    let tasks = tasks(spans, config);
    let width = (group_size(config) + 2) * config.head_dim;
    let by_task = super::sized(&mut scratch.by_task, d_qkv.len());
    let work: Vec<_> = tasks.iter().zip(per_task(by_task, &tasks, width)).collect();
    work.into_par_iter().for_each_init(Blocks::default, |blocks, (task, d_heads)| {
        let heads = Heads { qkv: saved.qkv, config, task };
        backward_task(&heads, d_heads, d_out, saved, blocks);
    });
    gather_gradients(d_qkv, by_task, spans, config);
}

/// What one task works with: probabilities of a block of rows and their gradient, and the task's keys and values turned.
#[derive(Default)]
struct Blocks {
    keys: Vec<f32>,
    values: Vec<f32>,
    probabilities: Vec<f32>,
    d_scores: Vec<f32>,
}

/// `d_heads` holds `[group, rows, head_dim]` of the queries' gradients, then `[rows, head_dim]` of the key's and of the
/// value's.
fn backward_task(heads: &Heads, d_heads: &mut [f32], d_out: &[f32], saved: &Saved, scratch: &mut Blocks) {
    let config = heads.config;
    let (len, dim, group) = (heads.task.len(), config.head_dim, group_size(config));
    let (d_queries, rest) = d_heads.split_at_mut(group * len * dim);
    let (d_key, d_value) = rest.split_at_mut(len * dim);
    d_key.fill(0.0);
    d_value.fill(0.0);
    heads.transpose(&mut scratch.keys, heads.key_col());
    heads.transpose(&mut scratch.values, heads.value_col());
    let log_sums = task_start(&heads.task.rows, heads.task.kv_head, group, config);
    for member in 0..group {
        for rows in blocks(len) {
            let (count, end) = (rows.len(), rows.end);
            let start = (heads.task.rows.start + rows.start) * config.q_dim()
                + (heads.task.kv_head * group + member) * dim;
            let d_rows = View::strided(&d_out[start..], count, dim, config.q_dim());
            let probabilities = super::sized(&mut scratch.probabilities, count * end);
            let d_scores = super::sized(&mut scratch.d_scores, count * end);
            heads.scores(probabilities, &scratch.keys, rows.clone(), member);
            let product = ViewMut::new(d_scores, count, end);
            let values = heads.transposed(&scratch.values, end);
            matmul(product, Store::Set, 1.0, d_rows, values, Threads::One);
            vectorised(|| {
                let pairs = probabilities.chunks_exact_mut(end).zip(d_scores.chunks_exact_mut(end));
                for (i, (p, d)) in pairs.enumerate() {
                    let at = start + i * config.q_dim();
                    let along = ops::dot(&d_out[at..at + dim], &saved.out[at..at + dim]);
                    let log_sum = saved.log_sums[log_sums + member * len + rows.start + i];
                    softmax_backward(p, d, rows.start + i + 1, log_sum, along);
                }
            });
            let (p, d) = (View::new(probabilities, count, end), View::new(d_scores, count, end));
            let scale = score_scale(config);
            let value = ViewMut::new(&mut d_value[..end * dim], end, dim);
            matmul(value, Store::Add, 1.0, p.t(), d_rows, Threads::One);
            let key = ViewMut::new(&mut d_key[..end * dim], end, dim);
            matmul(key, Store::Add, scale, d.t(), heads.query(rows.clone(), member), Threads::One);
            let query = &mut d_queries[(member * len + rows.start) * dim..][..count * dim];
            matmul(ViewMut::new(query, count, dim), Store::Set, scale, d, heads.key(end), Threads::One);
        }
    }
}

/// Scores to probabilities, and the gradient of the probabilities to that of the scores: `d_s = p (d_p - sum(p d_p))`,
/// where the sum equals the product of the row's output with its gradient (`along`).
#[inline(always)]
fn softmax_backward(scores: &mut [f32], d: &mut [f32], visible: usize, log_sum: f32, along: f32) {
    let (seen, hidden) = scores.split_at_mut(visible);
    let (d_seen, d_hidden) = d.split_at_mut(visible);
    for (score, d) in seen.iter_mut().zip(d_seen) {
        *score = ops::exp(*score - log_sum);
        *d = *score * (*d - along);
    }
    hidden.fill(0.0);
    d_hidden.fill(0.0);
}

/// Task order to rows `[tokens, qkv_dim]`.
fn gather_gradients(d_qkv: &mut [f32], by_task: &[f32], spans: &[Range<usize>], config: &Config) {
    let (group, dim, width) = (group_size(config), config.head_dim, config.qkv_dim());
    for span in spans {
        let len = span.len();
        let rows = &mut d_qkv[span.start * width..span.end * width];
        rows.par_chunks_exact_mut(width).enumerate().for_each(|(position, row)| {
            for (slot, out) in row.chunks_exact_mut(dim).enumerate() {
                let (kv_head, matrix) = if slot < config.heads {
                    (slot / group, slot % group)
                } else {
                    let slot = slot - config.heads;
                    (slot % config.kv_heads, group + slot / config.kv_heads)
                };
                let start = task_start(span, kv_head, (group + 2) * dim, config);
                out.copy_from_slice(&by_task[start + (matrix * len + position) * dim..][..dim]);
            }
        });
    }
}
