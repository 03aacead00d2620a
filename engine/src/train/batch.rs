//! From examples to the packed rows that one pass works on.

use std::ops::Range;

use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};

use super::{Example, TrainError};

/// Several sequences end to end: one row per token, no padding.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Packed {
    /// Token of each row.
    pub ids: Vec<u32>,
    /// Position of each row in its own sequence.
    pub positions: Vec<u32>,
    /// Rows of each sequence.
    pub spans: Vec<Range<usize>>,
    /// Rows that predict a trained token, ascending.
    pub target_rows: Vec<usize>,
    /// The token that each of `target_rows` has to predict.
    pub targets: Vec<u32>,
}

impl Packed {
    pub fn new<'a>(examples: impl IntoIterator<Item = &'a Example>) -> Self {
        let mut packed = Self::default();
        examples.into_iter().for_each(|example| packed.push(example));
        packed
    }

    /// The last token of a sequence predicts nothing, so it gets a row only when the sequence has no other.
    fn push(&mut self, example: &Example) {
        let start = self.ids.len();
        let last_needed = (1..example.ids.len()).rev().find(|i| example.trained[*i]).unwrap_or(1);
        let rows = last_needed.min(example.ids.len());
        self.ids.extend_from_slice(&example.ids[..rows]);
        self.positions.extend(0..rows as u32);
        self.spans.push(start..start + rows);
        for next in (1..=rows).filter(|next| example.trained.get(*next) == Some(&true)) {
            self.target_rows.push(start + next - 1);
            self.targets.push(example.ids[next]);
        }
    }

    pub fn rows(&self) -> usize {
        self.ids.len()
    }
}

/// Examples that training can use, and what had to be done to get them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Prepared {
    pub examples: Vec<Example>,
    /// Examples that were cut at the length limit.
    pub truncated: usize,
    /// Examples left out because no trained token remained that has a token before it.
    pub skipped: usize,
}

/// Checks examples against the vocabulary, cuts them at `max_tokens` and drops those without a target.
pub fn prepare(examples: &[Example], max_tokens: usize, vocab: usize) -> Result<Prepared, TrainError> {
    let mut prepared = Prepared::default();
    for (index, example) in examples.iter().enumerate() {
        check_example(index, example, vocab)?;
        let kept = example.ids.len().min(max_tokens);
        prepared.truncated += usize::from(kept < example.ids.len());
        let example =
            Example { ids: example.ids[..kept].to_vec(), trained: example.trained[..kept].to_vec() };
        if example.targets() == 0 {
            prepared.skipped += 1;
        } else {
            prepared.examples.push(example);
        }
    }
    Ok(prepared)
}

fn check_example(index: usize, example: &Example, vocab: usize) -> Result<(), TrainError> {
    if example.ids.len() != example.trained.len() {
        let (ids, flags) = (example.ids.len(), example.trained.len());
        return Err(TrainError::LengthMismatch { example: index, ids, flags });
    }
    match example.ids.iter().find(|id| **id as usize >= vocab) {
        Some(id) => Err(TrainError::UnknownToken { example: index, token: *id, vocab }),
        None => Ok(()),
    }
}

/// The order in which an epoch (from 0) visits `len` examples: a function of the seed and the epoch alone, so that a
/// resumed run needs no generator state.
pub fn epoch_order(len: usize, seed: u64, epoch: usize) -> Vec<usize> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(epoch as u64 + 1);
    let mut order: Vec<usize> = (0..len).collect();
    for last in (1..len).rev() {
        order.swap(last, rng.random_range(0..=last));
    }
    order
}

/// Splits a batch into parts of at most `limit` tokens each (at least one sequence), which one pass can hold in memory.
pub fn split_by_tokens<'a>(examples: &[&'a Example], limit: usize) -> Vec<Vec<&'a Example>> {
    let mut parts: Vec<Vec<&Example>> = Vec::new();
    let mut held = 0;
    for example in examples {
        let tokens = example.ids.len();
        match parts.last_mut() {
            Some(part) if held + tokens <= limit => part.push(example),
            _ => {
                parts.push(vec![example]);
                held = 0;
            }
        }
        held += tokens;
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(ids: &[u32], trained: &[u32]) -> Example {
        Example { ids: ids.to_vec(), trained: trained.iter().map(|flag| *flag == 1).collect() }
    }

    #[test]
    fn a_row_predicts_the_token_after_it() {
        let packed = Packed::new(&[example(&[5, 6, 7, 8], &[0, 0, 1, 1]), example(&[9, 3, 4], &[1, 1, 0])]);
        assert_eq!(packed.ids, [5, 6, 7, 9], "rows after the last prediction are not needed");
        assert_eq!(packed.positions, [0, 1, 2, 0]);
        assert_eq!(packed.spans, [0..3, 3..4]);
        assert_eq!(packed.target_rows, [1, 2, 3]);
        assert_eq!(packed.targets, [7, 8, 3]);
    }

    #[test]
    fn examples_are_cut_and_those_without_targets_left_out() {
        let long = example(&[1, 2, 3, 4], &[0, 1, 1, 1]);
        let late = example(&[1, 2, 3, 4], &[0, 0, 0, 1]);
        let first_only = example(&[1, 2], &[1, 0]);
        let prepared = prepare(&[long, late, first_only], 3, 10).unwrap();
        assert_eq!((prepared.truncated, prepared.skipped), (2, 2));
        assert_eq!(prepared.examples, [example(&[1, 2, 3], &[0, 1, 1])]);
    }

    #[test]
    fn broken_examples_are_named() {
        let error = prepare(&[example(&[1], &[0]), example(&[1, 10], &[0, 1])], 8, 10).unwrap_err();
        assert_eq!(error.to_string(), "example 2 holds token 10, but the vocabulary ends at 9");
        let error = prepare(&[example(&[1, 2], &[0])], 8, 10).unwrap_err();
        assert_eq!(error.to_string(), "example 1 has 2 tokens but 1 training flags");
    }

    #[test]
    fn epochs_shuffle_differently_and_repeatably() {
        let (a, b) = (epoch_order(50, 7, 0), epoch_order(50, 7, 1));
        assert_ne!(a, b);
        assert_eq!(a, epoch_order(50, 7, 0));
        assert_ne!(a, epoch_order(50, 8, 0));
        let mut sorted = b;
        sorted.sort_unstable();
        assert_eq!(sorted, (0..50).collect::<Vec<_>>());
    }

    #[test]
    fn parts_hold_at_most_the_limit_or_one_sequence() {
        let examples: Vec<_> = [3, 4, 9, 1, 1].map(|n| example(&vec![0; n], &vec![1; n])).to_vec();
        let parts = split_by_tokens(&examples.iter().collect::<Vec<_>>(), 7);
        let sizes: Vec<Vec<usize>> =
            parts.iter().map(|part| part.iter().map(|e| e.ids.len()).collect()).collect();
        assert_eq!(sizes, [vec![3, 4], vec![9], vec![1, 1]]);
    }
}
