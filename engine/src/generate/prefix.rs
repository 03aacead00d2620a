//! Beginnings that requests share: what the model has computed about a prompt is kept for the next one that starts alike.
//!
//! Sequences share the pages of their common beginning, so keeping many that start with one system prompt keeps it once.
//! By the invariant of `kernel`, whoever starts from here gets every bit as if it had read the tokens itself.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Weak},
};

use crate::infer::{Decoder, Delta, Sequence};

/// What computes: keys and values of one source are of no use to another. The same objects, not equal ones.
#[derive(Clone)]
pub(super) struct Source {
    pub decoder: Arc<Decoder>,
    pub delta: Option<Arc<Delta>>,
}

impl PartialEq for Source {
    fn eq(&self, other: &Self) -> bool {
        let delta = |source: &Self| source.delta.as_ref().map(Arc::as_ptr);
        Arc::ptr_eq(&self.decoder, &other.decoder) && delta(self) == delta(other)
    }
}

/// A source that the cache does not keep alive. While this is there, no other source can have its address.
struct Key {
    decoder: Weak<Decoder>,
    delta: Option<Weak<Delta>>,
}

impl Key {
    fn of(source: &Source) -> Self {
        Self { decoder: Arc::downgrade(&source.decoder), delta: source.delta.as_ref().map(Arc::downgrade) }
    }

    fn is(&self, source: &Source) -> bool {
        let delta = source.delta.as_ref().map(Arc::as_ptr);
        self.decoder.as_ptr() == Arc::as_ptr(&source.decoder)
            && self.delta.as_ref().map(Weak::as_ptr) == delta
    }

    fn is_gone(&self) -> bool {
        let gone = |delta: &Weak<Delta>| delta.strong_count() == 0;
        self.decoder.strong_count() == 0 || self.delta.as_ref().is_some_and(gone)
    }
}

/// A conversation, or the beginning of one.
struct Entry {
    key: Key,
    /// Without pending tokens.
    sequence: Sequence,
}

/// The beginnings kept, the one used last at the end.
pub(super) struct PrefixCache {
    /// In bytes.
    budget: usize,
    entries: Vec<Entry>,
}

impl fmt::Debug for PrefixCache {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "PrefixCache({} of {} bytes)", self.bytes(), self.budget)
    }
}

impl PrefixCache {
    /// Keeps at most `budget` bytes of keys and values; 0 keeps nothing.
    pub fn new(budget: usize) -> Self {
        Self { budget, entries: Vec::new() }
    }

    /// A sequence of the prompt `ids` with the longest beginning known, up to `most` tokens.
    pub fn start(&mut self, source: &Source, ids: &[u32], most: usize) -> Sequence {
        let known = |entry: &Entry| {
            if entry.key.is(source) { common(entry.sequence.ids(), &ids[..most]) } else { 0 }
        };
        let best = self.entries.iter().map(known).enumerate().max_by_key(|(_, tokens)| *tokens);
        match best.filter(|(_, tokens)| *tokens > 0) {
            None => Sequence::new(&source.decoder, ids),
            Some((at, tokens)) => {
                let sequence = resume(&self.entries[at].sequence, tokens, ids);
                let entry = self.entries.remove(at);
                self.entries.push(entry);
                sequence
            }
        }
    }

    /// Keeps what the sequence has computed, or as much of its beginning as there can be room for.
    pub fn keep(&mut self, source: &Source, sequence: &Sequence) {
        let tokens = sequence.fitting(self.budget);
        if tokens == 0 {
            return;
        }
        let ids = &sequence.ids()[..tokens];
        let longer = |entry: &Entry| entry.key.is(source) && entry.sequence.ids().starts_with(ids);
        let shorter = |entry: &Entry| entry.key.is(source) && ids.starts_with(entry.sequence.ids());
        let entry = match self.entries.iter().position(longer) {
            Some(at) => self.entries.remove(at),
            None => Entry { key: Key::of(source), sequence: sequence.fork(tokens) },
        };
        self.entries.retain(|entry| !entry.key.is_gone() && !shorter(entry));
        self.entries.push(entry);
        while self.bytes() > self.budget {
            self.entries.remove(0);
        }
    }

    /// Bytes of keys and values, shared ones counted once.
    pub fn bytes(&self) -> usize {
        let pages = self.entries.iter().flat_map(|entry| entry.sequence.pages());
        pages.collect::<HashMap<_, _>>().values().sum()
    }
}

/// A sequence of the tokens `ids`, of which the first `tokens` are those of `known` and are taken over.
pub(super) fn resume(known: &Sequence, tokens: usize, ids: &[u32]) -> Sequence {
    let mut sequence = known.fork(tokens);
    ids[tokens..].iter().for_each(|id| sequence.push(*id));
    sequence
}

/// How many tokens two texts have in common at their start.
pub(super) fn common(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests;
