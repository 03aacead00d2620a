//! From logits to a token: greedy, or drawn at a temperature from the nucleus.

use std::collections::BTreeMap;

use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};

use pulp::Arch;

use crate::{constrain::Allowed, kernel};

/// How a request chooses among the tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// 0 is greedy; must be finite and not negative.
    pub temperature: f32,
    /// Keeps the likeliest tokens that together reach this probability (Holtzman et al. 2020); in (0, 1], 1 keeps all.
    pub top_p: f32,
    pub seed: u64,
    /// Taken off the logit of every token that the answer has.
    pub presence_penalty: f32,
    /// Taken off the logit of a token for each time that the answer has it.
    pub frequency_penalty: f32,
    /// Added to the logits of these tokens.
    pub bias: Vec<(u32, f32)>,
}

impl Default for Choice {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_p: 1.0,
            seed: 0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            bias: Vec::new(),
        }
    }
}

/// Draws tokens for one request from its own random stream, so that what others draw changes nothing.
#[derive(Debug)]
pub struct Sampler {
    choice: Choice,
    rng: ChaCha8Rng,
    /// How often the answer has each token; empty when nothing asks for it.
    counts: BTreeMap<u32, u32>,
}

impl Sampler {
    pub fn new(choice: Choice) -> Self {
        Self { rng: ChaCha8Rng::seed_from_u64(choice.seed), choice, counts: BTreeMap::new() }
    }

    /// The next token's id, one of `allowed` where that is given. NaN counts as impossible.
    pub fn sample(&mut self, logits: &[f32], allowed: Option<&Allowed>) -> u32 {
        let adjusted = self.adjusted(logits, allowed);
        let logits = adjusted.as_deref().unwrap_or(logits);
        let drawn = if self.choice.temperature > 0.0 { self.draw(logits) } else { argmax(logits) };
        // Where the model gives every allowed token no chance at all, any of them will do.
        let id = allowed.filter(|allowed| !allowed.contains(drawn)).map_or(drawn, Allowed::first);
        if self.penalises() {
            *self.counts.entry(id).or_default() += 1;
        }
        id
    }

    fn penalises(&self) -> bool {
        self.choice.presence_penalty != 0.0 || self.choice.frequency_penalty != 0.0
    }

    /// The logits with penalties, bias and constraint in them; none when there are none.
    fn adjusted(&self, logits: &[f32], allowed: Option<&Allowed>) -> Option<Vec<f32>> {
        if self.counts.is_empty() && self.choice.bias.is_empty() && allowed.is_none() {
            return None;
        }
        let mut logits = logits.to_vec();
        for (&id, &count) in &self.counts {
            let penalty = self.choice.presence_penalty + self.choice.frequency_penalty * count as f32;
            logits[id as usize] -= penalty;
        }
        for &(id, bias) in &self.choice.bias {
            logits[id as usize] += bias;
        }
        if let Some(allowed) = allowed {
            let barred = logits.iter_mut().zip(0..).filter(|(_, id)| !allowed.contains(*id));
            barred.for_each(|(logit, _)| *logit = f32::NEG_INFINITY);
        }
        Some(logits)
    }

    fn draw(&mut self, logits: &[f32]) -> u32 {
        let possible = |&logit: &f32| if logit.is_nan() { f32::NEG_INFINITY } else { logit };
        let mut weights: Vec<f32> = logits.iter().map(possible).collect();
        let scale = 1.0 / self.choice.temperature;
        let (_, total) = kernel::exponentials(Arch::new(), &mut weights, logits.len(), scale);
        // Where nothing is possible, the logits make no sense.
        self.drawn(&weights, f64::from(total)).unwrap_or_else(|| argmax(logits))
    }

    fn drawn(&mut self, weights: &[f32], total: f64) -> Option<u32> {
        if self.choice.top_p >= 1.0 {
            let blocks: Vec<f64> = weights.chunks(BLOCK).map(weight).collect();
            let mut left = self.rng.random::<f64>() * blocks.iter().sum::<f64>();
            let block = falls(blocks.iter().copied(), &mut left)?;
            let of_block = weights.chunks(BLOCK).nth(block)?.iter().copied().map(f64::from);
            return Some((block * BLOCK + falls(of_block, &mut left)?) as u32);
        }
        let mut candidates = self.candidates(weights, total);
        let mass = nucleus(&mut candidates, f64::from(self.choice.top_p) * total);
        let mut left = self.rng.random::<f64>() * mass;
        let at = falls(candidates.iter().map(|(weight, _)| f64::from(*weight)), &mut left)?;
        Some(candidates[at].1)
    }

    /// (weight, id) of every token that can be in the nucleus. Those left out have a total below `1 - top_p` even if
    /// all tokens were like them, which spares sorting a vocabulary of which most is hopeless.
    fn candidates(&self, weights: &[f32], total: f64) -> Vec<(f32, u32)> {
        let least = (1.0 - f64::from(self.choice.top_p)).max(0.0) * total / weights.len() as f64;
        let weighted = weights.iter().copied().zip(0..);
        weighted.filter(|(weight, _)| f64::from(*weight) > least).collect()
    }
}

/// Weights that are summed first, so that a draw looks at one block of them one by one.
const BLOCK: usize = 512;
/// Sums side by side, as processors add fastest.
const LANES: usize = 16;

fn weight(weights: &[f32]) -> f64 {
    let mut lanes = [0.0_f32; LANES];
    let (whole, rest) = weights.as_chunks::<LANES>();
    for chunk in whole {
        lanes.iter_mut().zip(chunk).for_each(|(lane, weight)| *lane += weight);
    }
    lanes.iter().chain(rest).copied().map(f64::from).sum()
}

/// Where a mark falls on weights that are laid end to end; the last weight that is not 0 when rounding puts it past the
/// end. What is left of the mark is its place within that weight.
fn falls(weights: impl Iterator<Item = f64>, mark: &mut f64) -> Option<usize> {
    let mut last = None;
    for (at, weight) in weights.enumerate().filter(|(_, weight)| *weight > 0.0) {
        if *mark < weight {
            return Some(at);
        }
        *mark -= weight;
        last = Some(at);
    }
    last
}

/// Sorts by weight and keeps the fewest whose weights reach `enough`; returns what they weigh.
fn nucleus(candidates: &mut Vec<(f32, u32)>, enough: f64) -> f64 {
    candidates.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let mut mass = 0.0;
    let enough = |(weight, _): &(f32, u32)| {
        mass += f64::from(*weight);
        mass >= enough
    };
    if let Some(last) = candidates.iter().position(enough) {
        candidates.truncate(last + 1);
    }
    mass
}

/// Index of the highest logit, the first of equals.
pub fn argmax(logits: &[f32]) -> u32 {
    let higher = |a: f32, b: f32| if b > a { b } else { a };
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (whole, rest) = logits.as_chunks::<LANES>();
    for chunk in whole {
        lanes.iter_mut().zip(chunk).for_each(|(lane, logit)| *lane = higher(*lane, *logit));
    }
    let highest = lanes.iter().chain(rest).copied().fold(f32::NEG_INFINITY, higher);
    // Where none is possible all are alike.
    let best = logits.iter().position(|logit| *logit == highest && highest > f32::NEG_INFINITY);
    best.unwrap_or_default() as u32
}

/// Natural logarithms of the probabilities that the model itself gives: at temperature 1, without penalties, bias or
/// constraint.
#[derive(Clone, Debug, PartialEq)]
pub struct LogProbs {
    /// Of the token chosen.
    pub chosen: f32,
    /// The likeliest tokens and theirs, best first.
    pub top: Vec<(u32, f32)>,
}

impl LogProbs {
    /// For the token `id` and the `top` likeliest.
    pub fn new(logits: &[f32], id: u32, top: usize) -> Self {
        let highest = f64::from(logits[argmax(logits) as usize]);
        let chances = logits.iter().filter(|logit| !logit.is_nan());
        let total: f64 = chances.map(|&logit| (f64::from(logit) - highest).exp()).sum();
        let logprob = |logit: f32| (f64::from(logit) - highest - total.ln()) as f32;
        let top = likeliest(logits, top).into_iter().map(|id| (id, logprob(logits[id as usize]))).collect();
        Self { chosen: logprob(logits[id as usize]), top }
    }
}

/// Natural logarithm of the probability that the model gives token `id`: see [`LogProbs`].
pub fn logprob(logits: &[f32], id: u32) -> f32 {
    LogProbs::new(logits, id, 0).chosen
}

/// Ids of the `most` highest logits, best first, the lower id of equals. NaN is never among them.
fn likeliest(logits: &[f32], most: usize) -> Vec<u32> {
    let mut ids: Vec<u32> = (0..).take(logits.len()).filter(|id| !logits[*id as usize].is_nan()).collect();
    let order = |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
    if most < ids.len() {
        ids.select_nth_unstable_by(most, order);
        ids.truncate(most);
    }
    ids.sort_unstable_by(order);
    ids
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn choice(temperature: f32, top_p: f32, seed: u64) -> Choice {
        Choice { temperature, top_p, seed, ..Choice::default() }
    }

    fn counts(choice: Choice, logits: &[f32]) -> Vec<usize> {
        let mut sampler = Sampler::new(choice);
        let mut counts = vec![0; logits.len()];
        (0..4000).for_each(|_| counts[sampler.sample(logits, None) as usize] += 1);
        counts
    }

    fn near(counts: &[usize], want: &[f64]) {
        for (count, want) in counts.iter().zip(want) {
            assert!((*count as f64 / 4000.0 - want).abs() < 0.03, "{counts:?}");
        }
        assert!(counts[want.len()..].iter().all(|count| *count == 0), "{counts:?}");
    }

    #[test]
    fn greedy_takes_the_first_of_the_highest() {
        assert_eq!(Sampler::new(choice(0.0, 1.0, 1)).sample(&[0.0, 3.0, f32::NAN, 3.0], None), 1);
        assert_eq!(argmax(&[f32::NAN, f32::NEG_INFINITY]), 0);
    }

    #[test]
    fn frequencies_follow_the_probabilities() {
        let logits = [0.5_f32.ln(), 0.3_f32.ln(), 0.2_f32.ln(), f32::NEG_INFINITY, f32::NAN];
        near(&counts(choice(1.0, 1.0, 7), &logits), &[0.5, 0.3, 0.2]);
        near(&counts(choice(1.0, 0.75, 7), &logits), &[0.625, 0.375]);
        near(&counts(choice(1.0, 0.1, 7), &logits), &[1.0]);
        near(&counts(choice(0.5, 1.0, 7), &logits), &[0.25 / 0.38, 0.09 / 0.38, 0.04 / 0.38]);
        near(&counts(choice(1.0, f32::MIN_POSITIVE, 7), &[f32::NAN, 2.0, 2.0]), &[0.0, 1.0]);
    }

    #[test]
    fn a_bias_multiplies_the_odds() {
        let logits = [0.5_f32.ln(), 0.3_f32.ln(), 0.2_f32.ln()];
        let biased = |bias: Vec<(u32, f32)>| Choice { bias, ..choice(1.0, 1.0, 7) };
        near(&counts(biased(vec![(2, 2.5_f32.ln())]), &logits), &[0.5 / 1.3, 0.3 / 1.3, 0.5 / 1.3]);
        near(&counts(biased(vec![(0, -100.0), (1, -100.0)]), &logits), &[0.0, 0.0, 1.0]);
    }

    #[test]
    fn penalties_make_room_for_other_tokens() {
        let greedy = |presence_penalty, frequency_penalty| {
            let choice = Choice { presence_penalty, frequency_penalty, ..Choice::default() };
            let mut sampler = Sampler::new(choice);
            (0..6).map(|_| sampler.sample(&[3.0, 2.5, 1.8], None)).collect::<Vec<_>>()
        };
        assert_eq!(greedy(0.0, 0.0), [0, 0, 0, 0, 0, 0]);
        // Each is taken down once, by as much as the others: the order stays.
        assert_eq!(greedy(1.0, 0.0), [0, 1, 0, 0, 0, 0]);
        // 3.0, then 2.5 against 2.0, then 2.0 against 1.8 and 1.5, ...
        assert_eq!(greedy(0.0, 1.0), [0, 1, 0, 2, 1, 0]);
        assert_eq!(greedy(-1.0, 0.0), [0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn logprobs_are_logarithms_of_probabilities() {
        let logits = [1.0, 2.0, f32::NAN, 3.0, f32::NEG_INFINITY];
        let all = LogProbs::new(&logits, 3, 20);
        assert!((all.chosen - (-0.407_606)).abs() < 1e-5);
        let ids: Vec<u32> = all.top.iter().map(|top| top.0).collect();
        assert_eq!(ids, [3, 1, 0, 4]);
        let total: f32 = all.top.iter().map(|top| top.1.exp()).sum();
        assert!((total - 1.0).abs() < 1e-6);
        assert_eq!(
            LogProbs::new(&logits, 1, 2),
            LogProbs { chosen: all.top[1].1, top: all.top[..2].to_vec() }
        );
    }

    proptest! {
        #[test]
        fn a_seed_decides_and_any_logits_do(
            logits in prop::collection::vec(any::<f32>(), 1..50),
            temperature in 0.0_f32..3.0,
            top_p in 0.01_f32..=1.0,
            seed in any::<u64>(),
            penalty in -2.0_f32..2.0,
        ) {
            let draw = || {
                let choice = Choice {
                    presence_penalty: penalty, frequency_penalty: penalty, bias: vec![(0, 100.0)],
                    ..choice(temperature, top_p, seed)
                };
                let mut sampler = Sampler::new(choice);
                [sampler.sample(&logits, None), sampler.sample(&logits, None)]
            };
            let drawn = draw();
            prop_assert_eq!(drawn, draw());
            prop_assert!(drawn.iter().all(|id| (*id as usize) < logits.len()));
        }

        #[test]
        fn the_likeliest_lead_a_full_sort(logits in prop::collection::vec(-9.0_f32..9.0, 1..60), most in 0_usize..25) {
            let mut sorted: Vec<u32> = (0..logits.len() as u32).collect();
            sorted.sort_by(|a, b| logits[*b as usize].total_cmp(&logits[*a as usize]));
            sorted.truncate(most);
            prop_assert_eq!(likeliest(&logits, most), sorted);
        }
    }
}
