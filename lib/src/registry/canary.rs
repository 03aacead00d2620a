//! A new model that answers a share of the requests, and what takes it back.
//!
//! Answers of both models are judged as they come. The canary is taken back when its run rate is clearly lower over enough calls,
//! or when a bet on its being worse has won so much that chance is no explanation: the e-value of a test that may be looked at
//! after every call (Ramdas, Grünwald, Vovk, Shafer 2023).

use serde::{Deserialize, Serialize};

/// The bet has won enough: were the canary no worse, it would come to this in one of ten runs at most.
const HARM: f64 = 10.0;
/// What is bet on: how often it is the champion that runs, of the pairs of which one runs.
const BETS: [f64; 9] = [0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95];

/// Who answered a request to the alias.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Share {
    Champion,
    Canary,
}

impl Share {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Champion => "champion",
            Self::Canary => "canary",
        }
    }
}

/// When a canary is taken back.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Judged calls of each from which on the rates are compared.
    pub calls: u32,
    /// How much lower the canary's run rate may be, 0 to 1.
    pub drop: f64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { calls: 50, drop: 0.10 }
    }
}

/// What the calls so far say.
#[derive(Clone, Debug, PartialEq)]
pub enum Finding {
    Continue,
    /// Why the canary goes.
    RollBack(String),
    /// It held over the calls that were asked for.
    Held,
}

/// Judged calls of one canary.
#[derive(Clone, Debug)]
pub struct Watch {
    limits: Limits,
    /// Whether each answer ran, in the order of the calls.
    champion: Vec<bool>,
    canary: Vec<bool>,
}

impl Watch {
    pub fn new(limits: Limits) -> Self {
        Self { limits, champion: Vec::new(), canary: Vec::new() }
    }

    /// Takes in one more call.
    pub fn add(&mut self, share: Share, runs: bool) -> Finding {
        match share {
            Share::Champion => self.champion.push(runs),
            Share::Canary => self.canary.push(runs),
        }
        self.finding()
    }

    pub fn finding(&self) -> Finding {
        let (champion, canary) = (rate(&self.champion), rate(&self.canary));
        let calls = self.champion.len().min(self.canary.len());
        let enough = calls >= self.limits.calls as usize;
        let percent = |rate: f64| format!("{:.0}%", 100.0 * rate);
        let rates = || {
            let (of, to) = (self.canary.len(), self.champion.len());
            format!(
                "{} of {of} answers ran, of the champion's {to} it were {}",
                percent(canary),
                percent(champion)
            )
        };
        if enough && canary < champion - self.limits.drop {
            return Finding::RollBack(rates());
        }
        let harm = self.harm();
        if harm >= HARM {
            return Finding::RollBack(format!("{}: e-value of harm {harm:.0}", rates()));
        }
        if enough { Finding::Held } else { Finding::Continue }
    }

    /// The e-value against "it runs at least as often": each call of the one is set against a call of the other, and of the pairs
    /// in which only one ran, half should be the canary's.
    fn harm(&self) -> f64 {
        let pairs = self.champion.iter().zip(&self.canary).filter(|(champion, canary)| champion != canary);
        let mut won = [0.0; BETS.len()];
        for (champion_ran, _) in pairs {
            for (log, bet) in won.iter_mut().zip(BETS) {
                *log += (2.0 * if *champion_ran { bet } else { 1.0 - bet }).ln();
            }
        }
        won.iter().map(|log| log.exp()).sum::<f64>() / BETS.len() as f64
    }

    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Calls so far: the champion's and the canary's.
    pub fn calls(&self) -> (usize, usize) {
        (self.champion.len(), self.canary.len())
    }
}

fn rate(runs: &[bool]) -> f64 {
    runs.iter().filter(|runs| **runs).count() as f64 / runs.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use rand::{RngExt as _, SeedableRng, rngs::ChaCha8Rng};

    use super::*;

    /// Calls until a canary is taken back, or none of 400 a side.
    fn until_rollback(rates: (f64, f64), seed: u64) -> Option<usize> {
        let mut draw = ChaCha8Rng::seed_from_u64(seed);
        let mut watch = Watch::new(Limits { calls: 50, drop: 1.0 });
        for call in 0..400 {
            for (share, rate) in [(Share::Champion, rates.0), (Share::Canary, rates.1)] {
                if let Finding::RollBack(_) = watch.add(share, draw.random_bool(rate)) {
                    return Some(call + 1);
                }
            }
        }
        None
    }

    #[test]
    fn a_canary_that_is_no_worse_is_seldom_taken_back_by_the_bet() {
        let back = (0..500).filter(|seed| until_rollback((0.8, 0.8), *seed).is_some()).count();
        assert!(back <= 50, "{back} of 500: at most a tenth, however often it is looked at");
        let better = (0..500).filter(|seed| until_rollback((0.7, 0.9), *seed).is_some()).count();
        assert!(better <= back, "{better}");
    }

    #[test]
    fn a_canary_that_breaks_is_taken_back_soon() {
        for seed in 0..50 {
            let calls = until_rollback((0.9, 0.2), seed);
            assert!(calls.is_some_and(|calls| calls < 50), "{calls:?}");
        }
    }

    #[test]
    fn a_lower_rate_counts_from_enough_calls_on() {
        let mut watch = Watch::new(Limits { calls: 20, drop: 0.10 });
        let mut last = Finding::Continue;
        // Every fifth answer of the canary fails at a time at which the champion's does too, and two more.
        for call in 0..20 {
            assert_eq!(last, Finding::Continue, "after {call} calls");
            watch.add(Share::Champion, call % 5 != 0);
            last = watch.add(Share::Canary, call % 5 != 0 && call != 7 && call != 8 && call != 9);
        }
        let Finding::RollBack(why) = last else { panic!("{last:?}") };
        assert_eq!(why, "65% of 20 answers ran, of the champion's 20 it were 80%");
        let mut same = Watch::new(Limits { calls: 20, drop: 0.10 });
        for call in 0..20 {
            same.add(Share::Champion, call % 5 != 0);
            same.add(Share::Canary, call % 5 != 0);
        }
        assert_eq!((same.finding(), same.calls()), (Finding::Held, (20, 20)));
    }
}
