//! The batched forward pass with a key/value cache per sequence.
//!
//! One call takes any number of sequences, each at its own length, each contributing any number of new tokens: a prompt
//! being read and an answer being written go through the same code, so sequences join and leave at every step. The rows
//! of all sequences form one matrix per layer. By the invariant of `kernel`, what a sequence gets does not depend on
//! its company nor on how its tokens were cut into calls.

use rayon::prelude::*;

use crate::{
    kernel::{self, Attend, Output},
    lora::Site,
    rope::Rotation,
    weights::{Config, Weights},
};

mod delta;

pub use delta::Delta;
use delta::Rows;

/// Tokens of one sequence that a single attention task takes: small enough to spread a prompt over the cores.
const ATTENTION_ROWS: usize = 16;
/// Tokens that [`step`] sends through the model at once. Bounds the activations' memory; larger brings no speed.
pub const PREFILL_ROWS: usize = 256;

/// How exactly a [`Decoder`] computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// As fast as the machine allows: quantised weights, 8-bit activations.
    #[default]
    Fast,
    /// Everything in f32: the reference that the fast path is compared with.
    F32,
}

/// A model as generation reads it: immutable, shared by the base model and everything tuned from it.
#[derive(Clone, Debug)]
pub struct Decoder {
    pub config: Config,
    precision: Precision,
    weights: Weights,
}

impl Decoder {
    pub fn new(weights: &Weights, precision: Precision) -> Self {
        Self { config: weights.config.clone(), precision, weights: weights.clone() }
    }

    pub fn precision(&self) -> Precision {
        self.precision
    }
}

/// Keys and values of one key/value head, each `[cached, head_dim]`.
#[derive(Clone, Debug, Default)]
struct Head {
    keys: Vec<f32>,
    values: Vec<f32>,
}

/// The tokens of one conversation and what the model has computed about them. Belongs to the decoder and delta it was
/// first advanced with; mixing models of one shape is not detected.
#[derive(Clone, Debug)]
pub struct Sequence {
    ids: Vec<u32>,
    cached: usize,
    /// `[layers * kv_heads]`
    heads: Vec<Head>,
}

impl Sequence {
    /// A sequence that starts with `prompt`.
    pub fn new(decoder: &Decoder, prompt: &[u32]) -> Self {
        let heads = vec![Head::default(); decoder.config.layers * decoder.config.kv_heads];
        Self { ids: prompt.to_vec(), cached: 0, heads }
    }

    /// Adds a token, to be processed by the next call.
    pub fn push(&mut self, id: u32) {
        self.ids.push(id);
    }

    /// All tokens, processed or not.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// How many tokens have not gone through the model yet.
    pub fn pending(&self) -> usize {
        self.ids.len() - self.cached
    }

    /// How many tokens have gone through the model.
    pub fn cached(&self) -> usize {
        self.cached
    }

    /// A sequence of the first `tokens` tokens, with what was computed about them: all but the uncached are ready.
    /// What the model says after them is what it would say had they been read anew.
    ///
    /// # Panics
    /// When the sequence has fewer tokens.
    pub fn fork(&self, tokens: usize) -> Self {
        let cached = self.cached.min(tokens);
        let share = |values: &[f32]| values[..cached * (values.len() / self.cached.max(1))].to_vec();
        let head = |head: &Head| Head { keys: share(&head.keys), values: share(&head.values) };
        Self { ids: self.ids[..tokens].to_vec(), cached, heads: self.heads.iter().map(head).collect() }
    }
}

/// A sequence and how many of its pending tokens to process in this call.
pub struct Chunk<'a> {
    pub sequence: &'a mut Sequence,
    pub take: usize,
    /// What the sequence's model adds to the decoder; none for the base model.
    pub delta: Option<&'a Delta>,
}

/// Next-token logits, one row of `vocab` per sequence of the call, in its order.
#[derive(Clone, Debug, PartialEq)]
pub struct Logits {
    data: Vec<f32>,
    vocab: usize,
    rows: Vec<Option<usize>>,
}

impl Logits {
    /// Logits of the token after the last one of sequence `index` of the call; none while tokens are pending.
    pub fn row(&self, index: usize) -> Option<&[f32]> {
        let row = (*self.rows.get(index)?)?;
        Some(&self.data[row * self.vocab..][..self.vocab])
    }
}

/// Where one chunk's tokens are in the matrix of the call.
#[derive(Clone, Copy)]
struct Span {
    /// First row in the matrix.
    row: usize,
    /// Position of the first token in its sequence.
    position: usize,
    len: usize,
}

/// Takes `take` pending tokens of every chunk through the model.
///
/// # Panics
/// When a token is not in the vocabulary or `take` exceeds what is pending: [`crate::generate::Batcher`] checks both.
pub fn forward(decoder: &Decoder, chunks: &mut [Chunk]) -> Logits {
    let (config, weights) = (&decoder.config, &decoder.weights);
    let spans = spans(chunks);
    if spans.iter().all(|span| span.len == 0) {
        return Logits { data: Vec::new(), vocab: config.vocab, rows: vec![None; chunks.len()] };
    }
    let tuned = Rows::of(chunks);
    let rotation = Rotation::new(config, spans.iter().flat_map(|s| s.position..s.position + s.len));
    let mut x = embed(weights, chunks);
    for (index, layer) in weights.layers.iter().enumerate() {
        let project = |site: Site, x: &[f32]| {
            let mut y = kernel::matmul(x, site.matrix(layer));
            tuned.apply(index, site, x, &mut y);
            y
        };
        let normed = kernel::rms_norm(&x, &layer.attn_norm, config.norm_eps);
        let mut qkv = project(Site::Qkv, &normed);
        if let Some(bias) = &layer.qkv_bias {
            kernel::for_each_row(&mut qkv, config.qkv_dim(), |_, row| kernel::add(row, bias));
        }
        rotation.apply(config, &mut qkv);
        append(config, index, &qkv, &spans, chunks);
        let mixed = attend(config, index, &qkv, &spans, chunks);
        kernel::add(&mut x, &project(Site::Out, &mixed));
        let normed = kernel::rms_norm(&x, &layer.ffn_norm, config.norm_eps);
        let gate_up = project(Site::GateUp, &normed);
        kernel::add(&mut x, &project(Site::Down, &kernel::swiglu(&gate_up, config.ffn)));
    }
    for (chunk, span) in chunks.iter_mut().zip(&spans) {
        chunk.sequence.cached += span.len;
    }
    head(weights, &x, &spans, chunks)
}

/// Processes everything that is pending with the base model, [`PREFILL_ROWS`] tokens at a time, and returns one row of logits per sequence.
/// A sequence without pending tokens has no row.
///
/// # Panics
/// When a token is not in the vocabulary.
pub fn step(decoder: &Decoder, sequences: &mut [&mut Sequence]) -> Logits {
    let vocab = decoder.config.vocab;
    let mut all = Logits { data: Vec::new(), vocab, rows: vec![None; sequences.len()] };
    while sequences.iter().any(|s| s.pending() > 0) {
        let mut budget = PREFILL_ROWS;
        let (indices, mut chunks): (Vec<usize>, Vec<Chunk>) = sequences
            .iter_mut()
            .enumerate()
            .filter_map(|(index, sequence)| {
                let take = sequence.pending().min(budget);
                budget -= take;
                (take > 0).then_some((index, Chunk { sequence, take, delta: None }))
            })
            .unzip();
        let logits = forward(decoder, &mut chunks);
        for (at, index) in indices.into_iter().enumerate() {
            if let Some(row) = logits.row(at) {
                all.rows[index] = Some(all.data.len() / vocab);
                all.data.extend_from_slice(row);
            }
        }
    }
    all
}

fn spans(chunks: &[Chunk]) -> Vec<Span> {
    let mut row = 0;
    let span = |chunk: &Chunk| {
        assert!(chunk.take <= chunk.sequence.pending(), "more tokens taken than pending");
        let span = Span { row, position: chunk.sequence.cached, len: chunk.take };
        row += chunk.take;
        span
    };
    chunks.iter().map(span).collect()
}

fn embed(weights: &Weights, chunks: &[Chunk]) -> Vec<f32> {
    let ids = chunks.iter().flat_map(|c| &c.sequence.ids[c.sequence.cached..][..c.take]);
    ids.flat_map(|&id| weights.embedding.row(id as usize)).copied().collect()
}

/// Puts the new keys and values of layer `layer` into the caches.
fn append(config: &Config, layer: usize, qkv: &[f32], spans: &[Span], chunks: &mut [Chunk]) {
    let (dim, first_key) = (config.head_dim, config.q_dim());
    let first_value = first_key + config.kv_dim();
    for (chunk, span) in chunks.iter_mut().zip(spans) {
        let heads = &mut chunk.sequence.heads[layer * config.kv_heads..][..config.kv_heads];
        for row in qkv.chunks_exact(config.qkv_dim()).skip(span.row).take(span.len) {
            for (index, head) in heads.iter_mut().enumerate() {
                head.keys.extend_from_slice(&row[first_key + index * dim..][..dim]);
                head.values.extend_from_slice(&row[first_value + index * dim..][..dim]);
            }
        }
    }
}

/// Grouped-query attention of the new tokens, `[rows, q_dim]`, in parallel by (tokens, key/value head).
fn attend(config: &Config, layer: usize, qkv: &[f32], spans: &[Span], chunks: &[Chunk]) -> Vec<f32> {
    let mut mixed = vec![0.0; qkv.len() / config.qkv_dim() * config.q_dim()];
    let output = Output::new(&mut mixed, config.q_dim());
    let tasks: Vec<(&Head, usize, Span)> = chunks
        .iter()
        .zip(spans)
        .flat_map(|(chunk, span)| {
            let heads = &chunk.sequence.heads[layer * config.kv_heads..][..config.kv_heads];
            heads
                .iter()
                .enumerate()
                .flat_map(|(index, head)| split(*span).map(move |span| (head, index, span)))
        })
        .collect();
    tasks.into_par_iter().for_each_init(Vec::new, |scores, (head, index, span)| {
        attend_head(config, qkv, head, index, span, scores, &output);
    });
    mixed
}

/// The span in pieces of at most [`ATTENTION_ROWS`] tokens.
fn split(span: Span) -> impl Iterator<Item = Span> {
    (0..span.len).step_by(ATTENTION_ROWS).map(move |at| Span {
        row: span.row + at,
        position: span.position + at,
        len: ATTENTION_ROWS.min(span.len - at),
    })
}

/// The query heads that share key/value head `index`, for the tokens of `span`.
fn attend_head(
    config: &Config,
    qkv: &[f32],
    head: &Head,
    index: usize,
    span: Span,
    scores: &mut Vec<f32>,
    output: &Output,
) {
    let group = config.heads / config.kv_heads;
    let width = group * config.head_dim;
    let columns = index * width..(index + 1) * width;
    let rows = qkv.chunks_exact(config.qkv_dim()).skip(span.row).take(span.len);
    let queries: Vec<f32> = rows.flat_map(|row| &row[columns.clone()]).copied().collect();
    let visible: Vec<usize> = (0..span.len * group).map(|i| span.position + i / group + 1).collect();
    let mut mixed = vec![0.0; queries.len()];
    Attend {
        queries: &queries,
        keys: &head.keys,
        values: &head.values,
        head_dim: config.head_dim,
        visible: &visible,
        scores,
        mixed: &mut mixed,
    }
    .run();
    for (row, mixed) in mixed.chunks_exact(width).enumerate() {
        // SAFETY: no two tasks share both a row and a key/value head.
        unsafe { output.block(span.row + row, columns.clone()) }.copy_from_slice(mixed);
    }
}

/// Logits after the last token of every chunk that has nothing left pending.
fn head(weights: &Weights, x: &[f32], spans: &[Span], chunks: &[Chunk]) -> Logits {
    let hidden = weights.config.hidden;
    let mut last = Vec::new();
    let mut row = |(chunk, span): (&Chunk, &Span)| {
        let complete = span.len > 0 && chunk.sequence.pending() == 0;
        complete.then(|| {
            last.extend_from_slice(&x[(span.row + span.len - 1) * hidden..][..hidden]);
            last.len() / hidden - 1
        })
    };
    let rows = chunks.iter().zip(spans).map(&mut row).collect();
    let normed = kernel::rms_norm(&last, &weights.norm, weights.config.norm_eps);
    let data = if normed.is_empty() { Vec::new() } else { kernel::matmul(&normed, weights.output_head()) };
    Logits { data, vocab: weights.config.vocab, rows }
}

#[cfg(test)]
mod tests;
