//! The batched forward pass with a key/value cache per sequence.
//!
//! One call takes any number of sequences, each at its own length, each contributing any number of new tokens: a
//! prompt being read and an answer being written go through the same code, so sequences join and leave at every
//! step. The rows of all sequences form one matrix per layer. By the invariant of `kernel`, what a sequence gets
//! does not depend on its company nor on how its tokens were cut into calls.

use std::sync::{Arc, Mutex, PoisonError};

mod attention;
mod decoder;
mod delta;
mod load;
mod pass;
mod sequence;
mod team;
mod workspace;

pub use self::{
    decoder::{Costs, Decoder, Options, Precision},
    delta::Delta,
    sequence::Sequence,
};
use self::{
    delta::{Narrow, Tuned},
    pass::{Pass, each_row, store},
    sequence::Pages,
    workspace::{Buffers, Workspace},
};
pub use crate::kernel::{Level, Limits, UnknownLevel};
use crate::{
    kernel::{Output, PANEL},
    rope::Rotation,
};

/// Tokens that [`step`] sends through the model at once. Bounds the activations' memory; larger brings no speed.
pub const PREFILL_ROWS: usize = 256;

/// A sequence and how many of its pending tokens to process in this call.
pub struct Chunk<'a> {
    pub sequence: &'a mut Sequence,
    pub take: usize,
    /// What the sequence's model adds to the decoder; none for the base model.
    pub delta: Option<&'a Delta>,
}

/// Next-token logits, one row of `vocab` per sequence of the call, in its order.
#[derive(Debug)]
pub struct Logits {
    data: Lent,
    vocab: usize,
    rows: Vec<Option<usize>>,
}

impl Logits {
    /// Logits of the token after the last one of sequence `index` of the call; none while tokens are pending.
    pub fn row(&self, index: usize) -> Option<&[f32]> {
        let row = (*self.rows.get(index)?)?;
        Some(&self.data.numbers[row * self.vocab..][..self.vocab])
    }
}

/// A buffer of a decoder's, which goes back to it in the end: megabytes of fresh memory for every token would cost a
/// tenth of the time.
#[derive(Debug, Default)]
struct Lent {
    numbers: Vec<f32>,
    home: Arc<Mutex<Vec<f32>>>,
}

impl Lent {
    fn take(home: &Arc<Mutex<Vec<f32>>>, len: usize) -> Self {
        let mut numbers = std::mem::take(&mut *home.lock().unwrap_or_else(PoisonError::into_inner));
        numbers.resize(len, 0.0);
        Self { numbers, home: home.clone() }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let mut home = self.home.lock().unwrap_or_else(PoisonError::into_inner);
        if home.capacity() < self.numbers.capacity() {
            *home = std::mem::take(&mut self.numbers);
        }
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
    let spans = spans(chunks);
    let rows = spans.iter().map(|span| span.len).sum();
    if rows == 0 {
        return Logits { data: Lent::default(), vocab: decoder.config.vocab, rows: vec![None; chunks.len()] };
    }
    let mut workspace = decoder.workspace();
    let Workspace { team, buffers } = &mut *workspace;
    let pages: Vec<Pages> = chunks.iter_mut().map(|chunk| chunk.sequence.lend(chunk.take)).collect();
    let positions = spans.iter().flat_map(|s| s.position..s.position + s.len);
    let pass = Pass {
        decoder,
        team,
        spans: &spans,
        pages: &pages,
        tuned: &Tuned::of(chunks),
        rotation: &Rotation::new(&decoder.config, positions),
        rows,
    };
    embed(&pass, chunks, &mut buffers.stream);
    pass.run(buffers);
    for (chunk, span) in chunks.iter_mut().zip(&spans) {
        chunk.sequence.cached += span.len;
    }
    head(&pass, chunks, buffers)
}

/// Processes everything that is pending with the base model, [`PREFILL_ROWS`] tokens at a time, and returns one row
/// of logits per sequence. A sequence without pending tokens has no row.
///
/// # Panics
/// When a token is not in the vocabulary.
pub fn step(decoder: &Decoder, sequences: &mut [&mut Sequence]) -> Logits {
    let vocab = decoder.config.vocab;
    let mut all = Logits { data: Lent::default(), vocab, rows: vec![None; sequences.len()] };
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
        if indices.len() == all.rows.len() && sequences.iter().all(|s| s.pending() == 0) {
            return logits;
        }
        for (at, index) in indices.into_iter().enumerate() {
            if let Some(row) = logits.row(at) {
                all.rows[index] = Some(all.data.numbers.len() / vocab);
                all.data.numbers.extend_from_slice(row);
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

/// The embeddings of the new tokens, `[rows, hidden]`.
fn embed(pass: &Pass, chunks: &[Chunk], stream: &mut Vec<f32>) {
    let ids: Vec<u32> =
        chunks.iter().flat_map(|c| &c.sequence.ids[c.sequence.cached..][..c.take]).copied().collect();
    let (hidden, embedding) = (pass.decoder.config.hidden, &pass.decoder.parts.embedding);
    stream.resize(ids.len() * hidden, 0.0);
    let output = Output::new(stream, hidden);
    each_row(pass.team, ids.len(), 1, |row| {
        // SAFETY: each task writes its own rows.
        embedding.read_row(ids[row] as usize, unsafe { output.block(row, 0..hidden) });
    });
}

/// Logits after the last token of every chunk that has nothing left pending.
fn head(pass: &Pass, chunks: &[Chunk], buffers: &mut Buffers) -> Logits {
    let Decoder { config, parts, .. } = pass.decoder;
    let mut last = Vec::new();
    let mut row = |(chunk, span): (&Chunk, &Span)| {
        let complete = span.len > 0 && chunk.sequence.pending() == 0;
        complete.then(|| {
            last.extend_from_slice(
                &buffers.stream[(span.row + span.len - 1) * config.hidden..][..config.hidden],
            );
            last.len() / config.hidden - 1
        })
    };
    let rows: Vec<Option<usize>> = chunks.iter().zip(pass.spans).map(&mut row).collect();
    let mut data = Lent::take(&buffers.logits, last.len() / config.hidden * config.vocab);
    if !last.is_empty() {
        pass.norm(&last, &parts.norm, &mut buffers.normed);
        let output = Output::new(&mut data.numbers, config.vocab);
        let linear = parts.head.as_ref().unwrap_or(&parts.embedding);
        pass.multiply(linear, &buffers.normed, Narrow::NONE, |panel, row, [sums]: &mut [[f32; PANEL]; 1]| {
            let columns = panel * PANEL..((panel + 1) * PANEL).min(config.vocab);
            // SAFETY: each task writes its own columns.
            store(unsafe { output.block(row, columns) }, sums);
        });
    }
    Logits { data, vocab: config.vocab, rows }
}

#[cfg(test)]
mod tests;
