//! Which operator a teacher that is a model tries next: Thompson sampling over what each operator gained so far.
//!
//! Each operator has a Beta distribution over "how much of a worthwhile gain will it bring": one draw from each, the highest
//! is tried (Thompson 1933; Chapelle and Li, "An Empirical Evaluation of Thompson Sampling", 2011). What was learnt is
//! shared over briefs, and still nothing hangs on which brief ends first: briefs go in waves, in the order of their file,
//! and a brief knows its own candidates and the logs of the waves before its own. So concurrency, a kill and a second run
//! change no choice.

use std::ops::Range;

use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};
use statrs::distribution::{Beta, ContinuousCDF};

use super::{composer::Operator, log::LogEntry};

/// A gain of this many points is as good as an operator's next try can be.
const FULL_GAIN: f64 = 2.0;
/// Briefs of the first wave; each further one is twice as large, up to [`WIDEST_WAVE`]: learn soon, then work wide.
const FIRST_WAVE: usize = 8;
const WIDEST_WAVE: usize = 32;

/// What is known of the operators.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bandit {
    /// Sums of rewards and of what was missing to a full one, in the order of [`Operator::ALL`].
    arms: [Arm; Operator::ALL.len()],
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Arm {
    won: f64,
    missed: f64,
}

impl Bandit {
    /// Counts one try: `gain` is the child's score over that of what it was made from.
    pub fn learn(&mut self, operator: Operator, gain: f64) {
        let reward = if gain.is_finite() { (gain / FULL_GAIN).clamp(0.0, 1.0) } else { 0.0 };
        let tried = Operator::ALL.iter().position(|other| *other == operator);
        if let Some(arm) = tried.and_then(|index| self.arms.get_mut(index)) {
            arm.won += reward;
            arm.missed += 1.0 - reward;
        }
    }

    /// Counts what a finished search tried.
    pub fn learn_from(&mut self, history: &[LogEntry]) {
        for (at, entry) in history.iter().enumerate() {
            let operator = Operator::ALL.into_iter().find(|operator| operator.as_str() == entry.operator);
            if let Some(operator) = operator {
                self.learn(operator, gain(entry, &history[..at]));
            }
        }
    }

    /// One of the operators that can be tried, drawn by a seed; none of none.
    pub fn choose(&self, eligible: &[Operator], seed: u64) -> Option<Operator> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        // Every arm draws, eligible or not, so that an arm's luck does not hang on the others.
        let draws =
            Operator::ALL.iter().zip(self.arms).map(|(operator, arm)| (*operator, arm.draw(&mut rng)));
        let draws: Vec<(Operator, f64)> = draws.filter(|(operator, _)| eligible.contains(operator)).collect();
        draws.into_iter().max_by(|a, b| a.1.total_cmp(&b.1)).map(|(operator, _)| operator)
    }
}

impl Arm {
    /// By the inverse of the distribution function, which takes one number of the generator whatever the shape.
    fn draw(self, rng: &mut ChaCha8Rng) -> f64 {
        let at: f64 = rng.random();
        // Both parameters are at least 1, so the distribution exists.
        Beta::new(1.0 + self.won, 1.0 + self.missed).map_or(0.0, |beta| beta.inverse_cdf(at))
    }
}

/// A candidate's score over that of its best parent; of a fresh one over the best before it.
pub(super) fn gain(entry: &LogEntry, before: &[LogEntry]) -> f64 {
    let parent = |other: &&LogEntry| entry.parents.is_empty() || entry.parents.contains(&other.iteration);
    let best = before.iter().filter(parent).map(|other| other.critique.overall_score).reduce(f64::max);
    entry.critique.overall_score - best.unwrap_or(0.0)
}

/// So many briefs in waves, in their order.
pub(crate) fn waves(briefs: usize) -> Vec<Range<usize>> {
    let (mut waves, mut start, mut size) = (Vec::new(), 0, FIRST_WAVE);
    while start < briefs {
        waves.push(start..(start + size).min(briefs));
        start += size;
        size = (2 * size).min(WIDEST_WAVE);
    }
    waves
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pulls of each operator over a run in which `gains` tells what each brings.
    fn pulls(eligible: &[Operator], gains: impl Fn(Operator, usize) -> f64) -> Vec<(Operator, usize)> {
        let mut bandit = Bandit::default();
        let mut counts: Vec<(Operator, usize)> = eligible.iter().map(|operator| (*operator, 0)).collect();
        for step in 0..600 {
            let operator = bandit.choose(eligible, step as u64).unwrap();
            bandit.learn(operator, gains(operator, step));
            counts.iter_mut().filter(|(other, _)| *other == operator).for_each(|(_, count)| *count += 1);
        }
        counts
    }

    #[test]
    fn the_operator_that_gains_more_is_tried_more_and_the_others_not_given_up() {
        // Restyle brings a point in two of three tries, the others a point in one of six.
        let gains = |operator, step: usize| match operator {
            Operator::Restyle => f64::from(u8::from(!step.is_multiple_of(3))),
            _ => f64::from(u8::from(step.is_multiple_of(6))),
        };
        let counts = pulls(&[Operator::Revise, Operator::Restyle, Operator::Merge], gains);
        assert!(counts[1].1 > 400, "{counts:?}");
        assert!(counts.iter().all(|(_, count)| *count >= 5), "{counts:?}");
        // Where all are alike, none is preferred for long.
        let alike = pulls(&Operator::ALL, |_, step| f64::from(u8::from(step.is_multiple_of(2))));
        assert!(alike.iter().all(|(_, count)| *count >= 30), "{alike:?}");
    }

    #[test]
    fn choices_hang_on_seed_knowledge_and_what_can_be_tried() {
        let bandit = Bandit::default();
        assert_eq!(bandit.choose(&[], 1), None);
        assert_eq!(bandit.choose(&[Operator::Merge], 1), Some(Operator::Merge));
        let drawn: Vec<_> = (0..20).map(|seed| bandit.choose(&Operator::ALL, seed)).collect();
        assert_eq!(drawn, (0..20).map(|seed| bandit.choose(&Operator::ALL, seed)).collect::<Vec<_>>());
        assert!(Operator::ALL.iter().all(|operator| drawn.contains(&Some(*operator))), "{drawn:?}");
        let mut odd = Bandit::default();
        odd.learn(Operator::Merge, f64::NAN);
        odd.learn(Operator::Merge, -9.0);
        assert_eq!(odd.arms[4], Arm { won: 0.0, missed: 2.0 });
    }

    #[test]
    fn waves_grow_and_cover_all() {
        assert!(waves(0).is_empty());
        let check = |briefs, ends: &[usize]| {
            let waves = waves(briefs);
            assert_eq!(waves.iter().map(|wave| wave.end).collect::<Vec<_>>(), ends);
            let starts = waves.iter().map(|wave| wave.start).skip(1);
            assert!(starts.eq(ends.iter().copied().take(ends.len() - 1)));
        };
        check(5, &[5]);
        check(8, &[8]);
        check(120, &[8, 24, 56, 88, 120]);
    }
}
