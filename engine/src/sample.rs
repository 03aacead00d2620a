//! From logits to a token: greedy, or drawn at a temperature from the nucleus.

use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};

use crate::kernel::exp;

/// Draws tokens for one request from its own random stream, so that what others draw changes nothing.
#[derive(Debug)]
pub struct Sampler {
    temperature: f32,
    top_p: f32,
    rng: ChaCha8Rng,
}

impl Sampler {
    /// Temperature 0 is greedy; `top_p` keeps the likeliest tokens that together reach this probability
    /// (Holtzman et al. 2020), 1 keeps all.
    pub fn new(temperature: f32, top_p: f32, seed: u64) -> Self {
        Self { temperature, top_p, rng: ChaCha8Rng::seed_from_u64(seed) }
    }

    /// The next token's id. NaN counts as impossible.
    pub fn sample(&mut self, logits: &[f32]) -> u32 {
        if self.temperature > 0.0 { self.draw(logits) } else { argmax(logits) }
    }

    fn draw(&mut self, logits: &[f32]) -> u32 {
        let highest = logits[argmax(logits) as usize];
        let scale = 1.0 / self.temperature;
        let weigh = |&logit: &f32| if logit.is_nan() { 0.0 } else { exp((logit - highest) * scale) };
        let weights: Vec<f32> = logits.iter().map(weigh).collect();
        let total: f64 = weights.iter().copied().map(f64::from).sum();
        let mut candidates = self.candidates(&weights, total);
        let mut mass = candidates.iter().map(|c| f64::from(c.0)).sum::<f64>();
        if self.top_p < 1.0 {
            mass = nucleus(&mut candidates, f64::from(self.top_p) * total);
        }
        let mut left = self.rng.random::<f64>() * mass;
        let drawn = candidates.iter().find(|(weight, _)| {
            left -= f64::from(*weight);
            left < 0.0
        });
        drawn.or(candidates.last()).map_or(0, |&(_, id)| id)
    }

    /// (weight, id) of every token that can be in the nucleus. Those left out have a total below `1 - top_p` even if
    /// all tokens were like them, which spares sorting a vocabulary of which most is hopeless.
    fn candidates(&self, weights: &[f32], total: f64) -> Vec<(f32, u32)> {
        let least = (1.0 - f64::from(self.top_p)).max(0.0) * total / weights.len() as f64;
        let weighted = weights.iter().copied().zip(0..);
        weighted.filter(|(weight, _)| f64::from(*weight) > least).collect()
    }
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
    let start = (f32::NEG_INFINITY, 0);
    let best = logits
        .iter()
        .zip(0..)
        .fold(start, |best, (&logit, id)| if logit > best.0 { (logit, id) } else { best });
    best.1
}

/// Natural logarithm of the probability that the model gives token `id` (at temperature 1, whatever was sampled at).
pub fn logprob(logits: &[f32], id: u32) -> f32 {
    let highest = f64::from(logits[argmax(logits) as usize]);
    let total: f64 = logits.iter().map(|&logit| (f64::from(logit) - highest).exp()).sum();
    (f64::from(logits[id as usize]) - highest - total.ln()) as f32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn counts(temperature: f32, top_p: f32, logits: &[f32]) -> Vec<usize> {
        let mut sampler = Sampler::new(temperature, top_p, 7);
        let mut counts = vec![0; logits.len()];
        (0..4000).for_each(|_| counts[sampler.sample(logits) as usize] += 1);
        counts
    }

    #[test]
    fn greedy_takes_the_first_of_the_highest() {
        assert_eq!(Sampler::new(0.0, 1.0, 1).sample(&[0.0, 3.0, f32::NAN, 3.0]), 1);
        assert_eq!(argmax(&[f32::NAN, f32::NEG_INFINITY]), 0);
    }

    #[test]
    fn frequencies_follow_the_probabilities() {
        let logits = [0.5_f32.ln(), 0.3_f32.ln(), 0.2_f32.ln(), f32::NEG_INFINITY, f32::NAN];
        let near = |counts: &[usize], want: [f64; 3]| {
            for (count, want) in counts.iter().zip(want) {
                assert!((*count as f64 / 4000.0 - want).abs() < 0.03, "{counts:?}");
            }
            assert_eq!(counts[3..], [0, 0]);
        };
        near(&counts(1.0, 1.0, &logits), [0.5, 0.3, 0.2]);
        near(&counts(1.0, 0.75, &logits), [0.625, 0.375, 0.0]);
        near(&counts(1.0, 0.1, &logits), [1.0, 0.0, 0.0]);
        near(&counts(0.5, 1.0, &logits), [0.25 / 0.38, 0.09 / 0.38, 0.04 / 0.38]);
    }

    #[test]
    fn logprobs_are_logarithms_of_probabilities() {
        let logits = [1.0, 2.0, 3.0];
        let total: f32 = (0..3).map(|id| logprob(&logits, id).exp()).sum();
        assert!((total - 1.0).abs() < 1e-6);
        assert!((logprob(&logits, 2) - (-0.407_606)).abs() < 1e-5);
    }

    proptest! {
        #[test]
        fn a_seed_decides_and_any_logits_do(
            logits in prop::collection::vec(any::<f32>(), 1..50),
            temperature in 0.0_f32..3.0,
            top_p in 0.01_f32..=1.0,
            seed in any::<u64>(),
        ) {
            let draw = || {
                let mut sampler = Sampler::new(temperature, top_p, seed);
                [sampler.sample(&logits), sampler.sample(&logits)]
            };
            let drawn = draw();
            prop_assert_eq!(drawn, draw());
            prop_assert!(drawn.iter().all(|id| (*id as usize) < logits.len()));
        }
    }
}
