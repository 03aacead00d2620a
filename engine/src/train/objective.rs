//! What is learnt from a batch: to predict answers, or to prefer one answer to another.
//!
//! Preference training minimises `-ln sigma(m)` per pair, where the margin `m = r(preferred) - r(other)` and the reward of
//! an answer is `r = beta (ln p - ln p_reference)`, the logarithms summed over the answer's tokens (Rafailov et al., 2023,
//! equation 7). Its derivative by `ln p` is `-beta sigma(-m)` for the preferred answer and `+beta sigma(-m)` for the
//! other, so that its gradient is that of two sums of cross-entropies, one of them with a negative factor.

use super::batch::{Packed, Units, split_by_tokens};
use super::ops::RowLoss;
use super::pass::{Pass, Scales, Start};
use super::{Example, Totals};
use crate::lora::Adapter;

/// Bytes of residual streams that a lesson remembers where lower layers are not adapted: 55,000 tokens of a 135M model.
const REMEMBERED: usize = 128 << 20;

/// Units with what is learnt from them.
pub struct Lesson {
    pub units: Units,
    kind: Kind,
    /// The residual stream of each unit before the first adapted layer: the same in every epoch.
    streams: Vec<Option<Vec<f32>>>,
    remembered: usize,
    /// Tokens that one pass may hold.
    pass_tokens: usize,
}

enum Kind {
    Predict,
    Prefer {
        beta: f64,
        /// `ln p` of both answers of each pair under the model that the run started from; filled when first needed.
        reference: Vec<Option<[f64; 2]>>,
    },
}

impl Lesson {
    pub fn predict(units: Units, pass_tokens: usize) -> Self {
        Self::new(units, Kind::Predict, pass_tokens)
    }

    pub fn prefer(units: Units, beta: f64, pass_tokens: usize) -> Self {
        let reference = vec![None; units.len()];
        Self::new(units, Kind::Prefer { beta, reference }, pass_tokens)
    }

    fn new(units: Units, kind: Kind, pass_tokens: usize) -> Self {
        let streams = vec![None; units.len()];
        Self { units, kind, streams, remembered: 0, pass_tokens }
    }

    /// Adds to `gradients` those of the batch's mean loss: over its targets, or over its pairs.
    pub fn gradients(
        &mut self,
        pass: &mut Pass,
        adapter: &Adapter,
        batch: &[usize],
        gradients: &mut Adapter,
    ) -> Totals {
        let mut totals = Totals::default();
        let targets: usize =
            batch.iter().flat_map(|index| self.units.get(*index)).map(Example::targets).sum();
        for part in split_by_tokens(&self.units, batch, self.pass_tokens) {
            let reference = self.reference(pass, &part);
            let start = self.start(pass, Some(adapter), &part);
            let packed = self.pack(&part);
            totals.add(match &self.kind {
                Kind::Predict => {
                    let scale = Scales::All(1.0 / targets as f32);
                    Totals::of_rows(&pass.losses_and_gradients(adapter, &packed, &start, scale, gradients))
                }
                Kind::Prefer { beta, .. } => {
                    let pairs = Pairs { beta: *beta, reference: &reference, packed: &packed };
                    let scales = |rows: &[RowLoss]| pairs.scales(rows, 1.0 / batch.len() as f64);
                    let rows =
                        pass.losses_and_gradients(adapter, &packed, &start, Scales::By(&scales), gradients);
                    pairs.totals(&rows)
                }
            });
        }
        totals
    }

    /// Loss and accuracy on some units.
    pub fn measure(&mut self, pass: &mut Pass, adapter: Option<&Adapter>, batch: &[usize]) -> Totals {
        let mut totals = Totals::default();
        for part in split_by_tokens(&self.units, batch, self.pass_tokens) {
            let reference = self.reference(pass, &part);
            let start = self.start(pass, adapter, &part);
            let packed = self.pack(&part);
            let rows = pass.losses(adapter, &packed, &start);
            totals.add(match &self.kind {
                Kind::Predict => Totals::of_rows(&rows),
                Kind::Prefer { beta, .. } => {
                    Pairs { beta: *beta, reference: &reference, packed: &packed }.totals(&rows)
                }
            });
        }
        totals
    }

    fn pack(&self, part: &[usize]) -> Packed {
        Packed::new(part.iter().flat_map(|index| self.units.get(*index)))
    }

    /// Where a pass over some units can start: before the first adapted layer, if that is not the lowest.
    fn start(&mut self, pass: &mut Pass, adapter: Option<&Adapter>, part: &[usize]) -> Start {
        let layer = adapter.and_then(Adapter::first_layer).unwrap_or(0);
        let mut start = Start { layer, stream: Vec::new() };
        if layer == 0 {
            return start;
        }
        for &index in part {
            if let Some(known) = &self.streams[index] {
                start.stream.extend_from_slice(known);
                continue;
            }
            // Each unit alone, as below: what is remembered must not depend on when it was first needed.
            let stream = pass.stream_before(layer, &Packed::new(self.units.get(index)));
            start.stream.extend_from_slice(stream);
            if self.remembered + size_of_val(stream) <= REMEMBERED {
                self.remembered += size_of_val(stream);
                self.streams[index] = Some(stream.to_vec());
            }
        }
        start
    }

    /// The reference of some pairs; nothing for other lessons.
    fn reference(&mut self, pass: &mut Pass, part: &[usize]) -> Vec<[f64; 2]> {
        let Kind::Prefer { reference, .. } = &mut self.kind else { return Vec::new() };
        let units = &self.units;
        let mut known = |index: &usize| {
            // Each pair alone: in company, the last bit would depend on the epoch in which a resumed run asks first.
            *reference[*index].get_or_insert_with(|| {
                let packed = Packed::new(units.get(*index));
                let sums = sequence_sums(&packed, &pass.losses(None, &packed, &Start::default()));
                [-sums[0], -sums[1]]
            })
        };
        part.iter().map(&mut known).collect()
    }
}

/// Sum of the losses, which are `-ln p`, of each sequence.
fn sequence_sums(packed: &Packed, rows: &[RowLoss]) -> Vec<f64> {
    let mut rest = rows;
    let mut sum = |count: &usize| {
        let (these, after) = rest.split_at(*count);
        rest = after;
        these.iter().map(|row| f64::from(row.loss)).sum()
    };
    packed.target_counts.iter().map(&mut sum).collect()
}

/// Pairs that went through one pass.
struct Pairs<'a> {
    beta: f64,
    reference: &'a [[f64; 2]],
    packed: &'a Packed,
}

impl Pairs<'_> {
    /// Rewards of both answers of each pair.
    fn rewards(&self, rows: &[RowLoss]) -> Vec<[f64; 2]> {
        let sums = sequence_sums(self.packed, rows);
        let pairs = sums.as_chunks::<2>().0.iter().zip(self.reference);
        pairs.map(|(sums, known)| [0, 1].map(|answer| self.beta * (-sums[answer] - known[answer]))).collect()
    }

    /// Factor on the gradient of each target's `-ln p`, for the mean over pairs that `share` (1 / their number) makes.
    fn scales(&self, rows: &[RowLoss], share: f64) -> Vec<f32> {
        let rewards = self.rewards(rows);
        let of_sequence = rewards.iter().flat_map(|[preferred, other]| {
            let force = share * self.beta * sigmoid(other - preferred);
            [force as f32, -force as f32]
        });
        let counts = &self.packed.target_counts;
        of_sequence.zip(counts).flat_map(|(scale, count)| std::iter::repeat_n(scale, *count)).collect()
    }

    fn totals(&self, rows: &[RowLoss]) -> Totals {
        let mut totals = Totals::default();
        let mut rest = rows;
        for (counts, [preferred, other]) in
            self.packed.target_counts.as_chunks::<2>().0.iter().zip(self.rewards(rows))
        {
            let (answer, after) = rest.split_at(counts[0]);
            rest = &after[counts[1]..];
            totals.add(Totals {
                loss: negative_log_sigmoid(preferred - other),
                pairs: 1,
                wins: usize::from(preferred > other),
                preferred,
                non_preferred: other,
                ..Totals::of_rows(answer)
            });
        }
        totals
    }
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// `-ln sigma(x)`, also where `sigma(x)` itself would be 0.
fn negative_log_sigmoid(x: f64) -> f64 {
    (-x.abs()).exp().ln_1p() + (-x).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loss_of_a_margin_is_finite_everywhere() {
        assert!((negative_log_sigmoid(0.0) - 2f64.ln()).abs() < 1e-15);
        assert!((negative_log_sigmoid(1.0) + sigmoid(1.0).ln()).abs() < 1e-15);
        assert!((negative_log_sigmoid(-800.0) - 800.0).abs() < 1e-9);
        assert_eq!(negative_log_sigmoid(800.0), 0.0);
    }

    #[test]
    fn scales_have_the_sign_and_length_of_their_answers() {
        let packed = Packed { target_counts: vec![2, 1], ..Packed::default() };
        let rows = [1.0, 2.0, 4.0].map(|loss| RowLoss { loss, hit: false });
        let pairs = Pairs { beta: 0.5, reference: &[[-3.0, -4.0]], packed: &packed };
        assert_eq!(pairs.rewards(&rows), [[0.0, 0.0]]);
        assert_eq!(pairs.scales(&rows, 1.0), [0.25, 0.25, -0.25]);
        let totals = pairs.totals(&rows);
        assert_eq!((totals.pairs, totals.wins, totals.targets), (1, 0, 2));
    }
}
