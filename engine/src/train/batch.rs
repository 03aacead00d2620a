//! From examples to the packed rows that one pass works on.

use std::ops::Range;

use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};

use super::{Data, Example, Options, Pair, TrainError};
use crate::weights::Config;

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
    /// How many of the targets are each sequence's.
    pub target_counts: Vec<usize>,
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
        let targets = self.targets.len();
        for next in (1..=rows).filter(|next| example.trained.get(*next) == Some(&true)) {
            self.target_rows.push(start + next - 1);
            self.targets.push(example.ids[next]);
        }
        self.target_counts.push(self.targets.len() - targets);
    }

    pub fn rows(&self) -> usize {
        self.ids.len()
    }
}

/// Rows of either kind.
#[derive(Clone, Copy, Debug)]
pub enum Rows<'a> {
    Examples(&'a [Example]),
    Pairs(&'a [Pair]),
}

impl<'a> Rows<'a> {
    /// The sequences of each row.
    fn units(self) -> Box<dyn Iterator<Item = Vec<&'a Example>> + 'a> {
        match self {
            Self::Examples(examples) => Box::new(examples.iter().map(|example| vec![example])),
            Self::Pairs(pairs) => {
                Box::new(pairs.iter().map(|pair| vec![&pair.preferred, &pair.non_preferred]))
            }
        }
    }

    pub fn len(self) -> usize {
        match self {
            Self::Examples(examples) => examples.len(),
            Self::Pairs(pairs) => pairs.len(),
        }
    }
}

impl<'a> Data<'a> {
    pub(super) fn train(&self) -> Rows<'a> {
        match *self {
            Self::Supervised { train, .. } => Rows::Examples(train),
            Self::Preference { train, .. } => Rows::Pairs(train),
        }
    }

    pub(super) fn valid(&self) -> Rows<'a> {
        match *self {
            Self::Supervised { valid, .. } => Rows::Examples(valid),
            Self::Preference { valid, .. } => Rows::Pairs(valid),
        }
    }
}

/// What an epoch shuffles and a batch counts: single sequences, or pairs of them, the preferred one first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Units {
    sequences: Vec<Example>,
    /// Sequences per unit.
    width: usize,
}

impl Units {
    /// Units of one sequence.
    #[cfg(test)]
    pub fn single(sequences: Vec<Example>) -> Self {
        Self { sequences, width: 1 }
    }

    pub fn len(&self) -> usize {
        self.sequences.len() / self.width.max(1)
    }

    pub fn is_empty(&self) -> bool {
        self.sequences.is_empty()
    }

    /// The sequences of a unit.
    pub fn get(&self, index: usize) -> &[Example] {
        &self.sequences[index * self.width..][..self.width]
    }

    /// Tokens of a unit, the prompt included.
    pub fn tokens(&self, index: usize) -> usize {
        self.get(index).iter().map(|example| example.ids.len()).sum()
    }

    /// Every sequence.
    pub fn sequences(&self) -> &[Example] {
        &self.sequences
    }
}

/// Rows that training can use, and what had to be done to get them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Prepared {
    pub units: Units,
    pub intake: Intake,
}

/// What the length limit did to the rows of a run, by index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Intake {
    /// Rows that lose their end.
    pub truncated: Vec<usize>,
    /// Rows left out because no trained token remains that has a token before it (of either answer, in a pair).
    pub skipped: Vec<usize>,
}

/// What a run with these options will do to the training rows.
///
/// # Errors
/// When a row does not fit the model's vocabulary.
pub fn intake(data: &Data, options: &Options, config: &Config) -> Result<Intake, TrainError> {
    Ok(prepare(data.train(), options.max_tokens.min(config.context), config.vocab)?.intake)
}

/// Checks rows against the vocabulary, cuts sequences at `max_tokens` and drops rows without a target.
pub fn prepare(rows: Rows, max_tokens: usize, vocab: usize) -> Result<Prepared, TrainError> {
    let mut prepared = Prepared::default();
    prepared.units.width = if matches!(rows, Rows::Pairs(_)) { 2 } else { 1 };
    for (index, unit) in rows.units().enumerate() {
        for example in &unit {
            check_example(index, example, vocab)?;
        }
        if unit.iter().any(|example| example.ids.len() > max_tokens) {
            prepared.intake.truncated.push(index);
        }
        let cut: Vec<Example> = unit.iter().map(|example| example.cut(max_tokens)).collect();
        if cut.iter().any(|example| example.targets() == 0) {
            prepared.intake.skipped.push(index);
        } else {
            prepared.units.sequences.extend(cut);
        }
    }
    Ok(prepared)
}

impl Example {
    fn cut(&self, max_tokens: usize) -> Self {
        let kept = self.ids.len().min(max_tokens);
        Self { ids: self.ids[..kept].to_vec(), trained: self.trained[..kept].to_vec() }
    }
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

/// Splits a batch of units into parts of at most `limit` tokens each (at least one unit), which one pass can hold in memory.
pub fn split_by_tokens(units: &Units, batch: &[usize], limit: usize) -> Vec<Vec<usize>> {
    let mut parts: Vec<Vec<usize>> = Vec::new();
    let mut held = 0;
    for &index in batch {
        let tokens = units.tokens(index);
        match parts.last_mut() {
            Some(part) if held + tokens <= limit => part.push(index),
            _ => {
                parts.push(vec![index]);
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
        assert_eq!(packed.target_counts, [2, 1]);
    }

    #[test]
    fn examples_are_cut_and_those_without_targets_left_out() {
        let long = example(&[1, 2, 3, 4], &[0, 1, 1, 1]);
        let late = example(&[1, 2, 3, 4], &[0, 0, 0, 1]);
        let first_only = example(&[1, 2], &[1, 0]);
        let prepared = prepare(Rows::Examples(&[long, late, first_only]), 3, 10).unwrap();
        assert_eq!(prepared.intake, Intake { truncated: vec![0, 1], skipped: vec![1, 2] });
        assert_eq!(prepared.units, Units::single(vec![example(&[1, 2, 3], &[0, 1, 1])]));
    }

    #[test]
    fn a_pair_stays_together_or_goes() {
        let short = example(&[1, 2, 3], &[0, 0, 1]);
        let late = example(&[1, 2, 3, 4], &[0, 0, 0, 1]);
        let pair = |a: &Example, b: &Example| Pair { preferred: a.clone(), non_preferred: b.clone() };
        let pairs = [pair(&short, &late), pair(&short, &short)];
        let prepared = prepare(Rows::Pairs(&pairs), 3, 10).unwrap();
        assert_eq!(prepared.intake, Intake { truncated: vec![0], skipped: vec![0] });
        assert_eq!((prepared.units.len(), prepared.units.tokens(0)), (1, 6));
        assert_eq!(prepared.units.get(0), [short.clone(), short]);
    }

    #[test]
    fn broken_examples_are_named() {
        let error =
            prepare(Rows::Examples(&[example(&[1], &[0]), example(&[1, 10], &[0, 1])]), 8, 10).unwrap_err();
        assert_eq!(error.to_string(), "example 2 holds token 10, but the vocabulary ends at 9");
        let error = prepare(Rows::Examples(&[example(&[1, 2], &[0])]), 8, 10).unwrap_err();
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
        let units = Units::single([3, 4, 9, 1, 1].map(|n| example(&vec![0; n], &vec![1; n])).to_vec());
        assert_eq!(split_by_tokens(&units, &[0, 1, 2, 3, 4], 7), [vec![0, 1], vec![2], vec![3, 4]]);
    }
}
