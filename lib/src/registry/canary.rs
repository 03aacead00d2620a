//! A new model that answers a share of the requests, and what takes it back.
//!
//! Answers of both models are judged as they come. The canary is taken back when its run rate is clearly lower over enough calls,
//! or when a bet on its being worse has won so much that chance is no explanation: the e-value of a test that may be looked at
//! after every call (Ramdas, Grünwald, Vovk, Shafer 2023).

use std::collections::VecDeque;

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
    /// Over these calls no answer of either side ran, which says nothing of the canary.
    NoneRan,
}

/// Judged calls of one canary.
#[derive(Clone, Debug)]
pub struct Watch {
    limits: Limits,
    champion: Tally,
    canary: Tally,
    /// Calls of the side that is ahead, which wait for a call of the other to be set against.
    ahead: VecDeque<(Share, bool)>,
    /// What each bet has come to, as logarithms.
    won: [f64; BETS.len()],
    /// What was said already.
    said: Vec<Finding>,
}

/// Calls of one side.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    calls: u32,
    ran: u32,
}

impl Tally {
    fn rate(self) -> f64 {
        f64::from(self.ran) / f64::from(self.calls.max(1))
    }
}

impl Watch {
    pub fn new(limits: Limits) -> Self {
        let (champion, canary) = (Tally::default(), Tally::default());
        Self { limits, champion, canary, ahead: VecDeque::new(), won: [0.0; BETS.len()], said: Vec::new() }
    }

    /// Takes in one more call.
    pub fn add(&mut self, share: Share, runs: bool) -> Finding {
        let tally = match share {
            Share::Champion => &mut self.champion,
            Share::Canary => &mut self.canary,
        };
        tally.calls += 1;
        tally.ran += u32::from(runs);
        match self.ahead.front().copied() {
            Some((other, ran)) if other != share => {
                self.ahead.pop_front();
                self.pair(if share == Share::Champion { (runs, ran) } else { (ran, runs) });
            }
            _ => self.ahead.push_back((share, runs)),
        }
        self.finding()
    }

    /// Sets a call of the champion against one of the canary: of those in which only one ran, half should be the canary's.
    fn pair(&mut self, (champion, canary): (bool, bool)) {
        if champion == canary {
            return;
        }
        for (log, bet) in self.won.iter_mut().zip(BETS) {
            *log += (2.0 * if champion { bet } else { 1.0 - bet }).ln();
        }
    }

    pub fn finding(&self) -> Finding {
        let (champion, canary) = (self.champion.rate(), self.canary.rate());
        let enough = self.champion.calls.min(self.canary.calls) >= self.limits.calls;
        let rates = || {
            format!(
                "{:.0}% of {} answers ran, of the champion's {} it were {:.0}%",
                100.0 * canary,
                self.canary.calls,
                self.champion.calls,
                100.0 * champion
            )
        };
        if enough && canary < champion - self.limits.drop {
            return Finding::RollBack(rates());
        }
        let harm = self.harm();
        if harm >= HARM {
            return Finding::RollBack(format!("{}: e-value of harm {harm:.0}", rates()));
        }
        match enough {
            false => Finding::Continue,
            true if self.champion.ran + self.canary.ran == 0 => Finding::NoneRan,
            true => Finding::Held,
        }
    }

    /// What is to be done or said now: that the canary held, or that nothing can be said of it, once each; that it goes, as
    /// long as it is there.
    pub fn news(&mut self) -> Finding {
        let finding = self.finding();
        if !matches!(finding, Finding::Held | Finding::NoneRan) {
            return finding;
        }
        if self.said.contains(&finding) {
            return Finding::Continue;
        }
        self.said.push(finding.clone());
        finding
    }

    /// The e-value against "it runs at least as often": the mean of the bets.
    fn harm(&self) -> f64 {
        self.won.iter().map(|log| log.exp()).sum::<f64>() / BETS.len() as f64
    }

    /// Calls so far: the champion's and the canary's.
    pub fn calls(&self) -> (u32, u32) {
        (self.champion.calls, self.canary.calls)
    }
}

#[cfg(test)]
mod tests {
    use rand::{RngExt as _, SeedableRng, rngs::ChaCha8Rng};

    use super::*;

    /// Calls until a canary is taken back, or none of 200 a side.
    fn until_rollback(rates: (f64, f64), seed: u64) -> Option<usize> {
        let mut draw = ChaCha8Rng::seed_from_u64(seed);
        let mut watch = Watch::new(Limits { calls: 50, drop: 1.0 });
        for call in 0..200 {
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
        let back = (0..300).filter(|seed| until_rollback((0.8, 0.8), *seed).is_some()).count();
        assert!(back <= 30, "{back} of 300: at most a tenth, however often it is looked at");
        let better = (0..300).filter(|seed| until_rollback((0.7, 0.9), *seed).is_some()).count();
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

    #[test]
    fn that_it_held_is_said_once() {
        let mut watch = Watch::new(Limits { calls: 3, drop: 0.10 });
        let mut call = |share, runs| {
            watch.add(share, runs);
            watch.news()
        };
        for share in [Share::Champion, Share::Canary, Share::Champion, Share::Canary, Share::Champion] {
            assert_eq!(call(share, true), Finding::Continue);
        }
        assert_eq!(call(Share::Canary, true), Finding::Held);
        // The other side of the least number of calls goes on to grow.
        for share in [Share::Champion, Share::Champion, Share::Canary] {
            assert_eq!(call(share, true), Finding::Continue);
        }
    }

    #[test]
    fn where_nothing_runs_no_canary_held() {
        let mut watch = Watch::new(Limits { calls: 2, drop: 1.0 });
        let mut said = Vec::new();
        for runs in [false, false, false, true] {
            for share in [Share::Champion, Share::Canary] {
                watch.add(share, runs);
                said.push(watch.news());
            }
        }
        said.retain(|finding| *finding != Finding::Continue);
        assert_eq!(said, [Finding::NoneRan, Finding::Held], "once something runs, it counts");
    }

    #[test]
    fn that_it_goes_is_news_until_it_is_gone() {
        let mut watch = Watch::new(Limits { calls: 1, drop: 0.10 });
        watch.add(Share::Champion, true);
        watch.add(Share::Canary, false);
        for _ in 0..2 {
            assert!(matches!(watch.news(), Finding::RollBack(_)));
        }
    }
}
