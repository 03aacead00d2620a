//! How many calls may be under way, and how close after one another they may start. Pure: time comes in as the span since
//! the gate was made.
//!
//! Two things are learned from a provider. A *window*, the calls under way at once: it doubles each round trip until the
//! first trouble, and halves when the provider is overloaded. And a *pace*, the calls started per second: there is none until
//! the provider says "too many", and from then on it follows the rate at which answers really came. Both grow again while
//! all is well, the faster the longer that lasts.
//!
//! A provider that counts the calls under way needs no pace: it refuses whoever comes beside so many others and nobody else.
//! As long as its refusals look like that ([`Count`]), the window is what was under way, and there is no pace.

use std::{collections::VecDeque, time::Duration};

/// The window that a gate opens with.
const FIRST_WINDOW: f64 = 8.0;
/// Longest look back for the rate of answers.
const LOOK_BACK: Duration = Duration::from_secs(60);
/// Look back where the provider asks for no long wait: what was true a while ago says little.
const SHORT_LOOK_BACK: Duration = Duration::from_secs(5);
/// Answers are counted in spans of this length.
const SPAN_MS: u64 = 250;
/// A rate that was measured over less than this is chance.
const LEAST_MEASURED: Duration = Duration::from_secs(1);
/// How far below the measured rate the pace starts.
const BELOW: f64 = 0.95;
/// Wait when the provider does not say how long.
const UNSAID_WAIT: Duration = Duration::from_millis(250);
/// Growth of the pace per second right after it was set; doubles every [`GROWTH_DOUBLES`].
const GROWTH: f64 = 0.0025;
/// Growth of the window in a round trip right after it was cut; doubles with the pace's.
const WINDOW_GROWTH: f64 = 0.1;
const GROWTH_DOUBLES: f64 = 8.0;
const MOST_GROWTH: f64 = 0.1;
/// One call in twenty seconds still finds out when a limit is lifted.
const LEAST_PACE: f64 = 0.05;
/// More than this is as good as no pace at all.
const MOST_PACE: f64 = 1e6;
/// A caller that wakes late may catch up on this much.
const CATCH_UP: Duration = Duration::from_millis(50);

/// Waits longer than this are asked for by who counts calls over time.
const LONG_WAIT: Duration = Duration::from_secs(2);
/// How much of what others began beside may be in the air still, or gone already, when a provider counts.
const SLACK: f64 = 0.05;
/// Refusals in a row that a count has to explain before it is believed; twice as many each time that it was believed in vain.
const TELLING: u32 = 4;
/// The share of calls that may be refused while a count is believed, once there were enough.
const FEW: f64 = 0.02;
const ENOUGH: u32 = 100;
/// What an answer adds to a window that is a count, right after it was cut, and the seconds in which that doubles: to find out
/// that a limit was lifted costs a refusal each time that it was not.
const PROBING: f64 = 0.004;
const PROBING_DOUBLES: f64 = 30.0;

/// When a call began, and beside how many others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Started {
    pub at: Duration,
    pub beside: usize,
}

/// Whether refusals come of how many calls are under way. Calls that are paced begin at even distances, so what tells those
/// that are refused from the others cannot be how many began shortly before.
#[derive(Debug)]
struct Count {
    /// Most beside which a call was answered while it was paced.
    answered: usize,
    /// From the beginning of calls that were refused to their end: who began in between stood beside some that did not count.
    murky: (Duration, Duration),
    /// Refusals in a row that came beside more than any answer.
    explained: u32,
    needed: u32,
    is_believed: bool,
    /// Since it is believed.
    good: u32,
    refused: u32,
}

impl Count {
    fn new() -> Self {
        Self {
            answered: 0,
            murky: Default::default(),
            explained: 0,
            needed: TELLING,
            is_believed: false,
            good: 0,
            refused: 0,
        }
    }

    fn answered(&mut self, call: Started) {
        if !(self.murky.0..=self.murky.1).contains(&call.at) {
            self.answered = self.answered.max(call.beside);
        }
        self.good += 1;
    }

    fn in_vain(&mut self, call: Started, now: Duration) {
        let from = if call.at <= self.murky.1 { self.murky.0.min(call.at) } else { call.at };
        self.murky = (from, now);
    }

    /// Takes in the refusal of a call that was `paced` or held by the count itself; whether the count explains it.
    fn explains(&mut self, call: Started, wait: Option<Duration>, paced: bool) -> bool {
        let known = self.answered as f64;
        let is_more = call.beside as f64 > known - (SLACK * known).floor();
        let is_short = wait.is_none_or(|wait| wait <= LONG_WAIT);
        if self.is_believed {
            self.refused += 1;
            let few = f64::from(self.refused) <= FEW * f64::from(self.good) || self.good < ENOUGH;
            if !(few && is_more && is_short) {
                *self = Self { needed: self.needed.saturating_mul(2), murky: self.murky, ..Self::new() };
            }
        } else if paced {
            self.explained = if is_more && is_short { self.explained + 1 } else { 0 };
            if self.explained >= self.needed {
                (self.is_believed, self.good, self.refused) = (true, 0, 0);
            }
        } else {
            // In the first rush everything comes at once.
            self.answered = 0;
        }
        self.is_believed
    }
}

/// How a call ended, as far as the rate depends on it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Outcome {
    Good,
    /// Too many calls; the wait that was asked for.
    Limited(Option<Duration>),
    /// The provider cannot keep up.
    Overloaded,
    /// It says nothing about the rate.
    Neutral,
}

/// Whether a call may start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    Now,
    /// Not before this time.
    At(Duration),
    /// When another call has ended.
    Full,
}

#[derive(Debug)]
struct Pace {
    per_second: f64,
    next: Duration,
    /// Since when it grows, and up to when it has grown.
    set_at: Duration,
    grown_to: Duration,
}

/// What is known about a provider's rate.
#[derive(Debug)]
pub struct Rate {
    most: f64,
    window: f64,
    doubling: bool,
    in_flight: usize,
    /// When calls last had to wait for each other: a window that is not used has no reason to grow.
    full_at: Option<Duration>,
    cut_at: Option<Duration>,
    /// Nothing starts before this.
    stopped_until: Duration,
    pace: Option<Pace>,
    count: Count,
    /// Good answers by span of time, oldest first.
    good: VecDeque<(u64, u32)>,
}

impl Rate {
    /// At most so many at once. A provider that `queues` by itself is given all at once.
    pub fn new(most: usize, queues: bool) -> Self {
        let most = most.max(1) as f64;
        Self {
            most,
            window: if queues { most } else { most.min(FIRST_WINDOW) },
            doubling: true,
            in_flight: 0,
            full_at: None,
            cut_at: None,
            stopped_until: Duration::ZERO,
            pace: None,
            count: Count::new(),
            good: VecDeque::new(),
        }
    }

    /// Asks for a turn, and takes it if it is [`Turn::Now`].
    pub fn turn(&mut self, now: Duration) -> Turn {
        if now < self.stopped_until {
            return Turn::At(self.stopped_until);
        }
        if self.is_full() {
            self.full_at = Some(now);
            return Turn::Full;
        }
        if let Some(pace) = &mut self.pace {
            pace.grow(now);
            if now < pace.next {
                return Turn::At(pace.next);
            }
            pace.next =
                pace.next.max(now.saturating_sub(CATCH_UP)) + Duration::from_secs_f64(1.0 / pace.per_second);
        }
        self.in_flight += 1;
        if self.is_full() {
            self.full_at = Some(now);
        }
        Turn::Now
    }

    fn is_full(&self) -> bool {
        self.in_flight as f64 >= self.window.floor()
    }

    /// What the call that has just taken its turn is told by.
    pub fn begun(&self, now: Duration) -> Started {
        Started { at: now, beside: self.in_flight.saturating_sub(1) }
    }

    /// A call is over.
    pub fn ended(&mut self, started: Started, outcome: Outcome, now: Duration) {
        self.in_flight = self.in_flight.saturating_sub(1);
        // Calls that began before the last cut say nothing new.
        let is_news = self.cut_at.is_none_or(|cut| started.at >= cut);
        match outcome {
            Outcome::Good => {
                self.count.answered(started);
                self.note(now);
                if self.full_at.is_some_and(|full| full >= started.at) {
                    self.window = (self.window + self.growth(now)).min(self.most);
                }
            }
            Outcome::Limited(asked) => {
                // Whoever says that a call may come in a tenth of a second bears ten a second.
                let least = asked.map_or(LEAST_PACE, |wait| (1.0 / wait.as_secs_f64()).max(LEAST_PACE));
                let wait = asked.unwrap_or(UNSAID_WAIT);
                self.count.in_vain(started, now);
                if is_news && self.count.explains(started, asked, self.pace.is_some()) {
                    (self.cut_at, self.doubling, self.pace) = (Some(now), false, None);
                    self.window = (started.beside as f64).clamp(1.0, self.most);
                } else if is_news {
                    self.slow_down(wait, least, now);
                }
                // Room comes with the next answer, not with time.
                if !self.count.is_believed || asked.is_some() {
                    self.stop_until(now + wait);
                }
            }
            Outcome::Overloaded => {
                if is_news {
                    (self.cut_at, self.doubling) = (Some(now), false);
                    self.window = (self.window / 2.0).max(1.0);
                }
            }
            Outcome::Neutral => {}
        }
    }

    /// What a good answer adds to the window.
    fn growth(&self, now: Duration) -> f64 {
        let Some(cut) = self.cut_at.filter(|_| !self.doubling) else { return 1.0 };
        let well = now.saturating_sub(cut).as_secs_f64();
        if self.count.is_believed {
            return (PROBING * (well / PROBING_DOUBLES).exp2()).min(1.0);
        }
        (WINDOW_GROWTH * (well / GROWTH_DOUBLES).exp2() / self.window).min(1.0)
    }

    /// Nothing starts before `until`.
    pub fn stop_until(&mut self, until: Duration) {
        self.stopped_until = self.stopped_until.max(until);
    }

    fn slow_down(&mut self, wait: Duration, least: f64, now: Duration) {
        (self.cut_at, self.doubling) = (Some(now), false);
        let known = self.pace.as_ref().map(|pace| pace.per_second);
        let per_second = match (self.measured(wait, now), known) {
            (Some(measured), known) => BELOW * known.map_or(measured, |known| measured.min(known)),
            (None, Some(known)) => 0.9 * known,
            (None, None) => {
                // Too early to know a rate.
                self.window = (self.window / 2.0).max(1.0);
                return;
            }
        };
        let per_second = per_second.max(least).min(MOST_PACE);
        self.pace = Some(Pace { per_second, next: now + wait, set_at: now + wait, grown_to: now + wait });
    }

    /// Answers per second, the wait that is asked for included: where a provider counts by the minute, a burst and a long
    /// wait together are its rate. Measured since calls were last stopped, if that is long enough.
    fn measured(&self, wait: Duration, now: Duration) -> Option<f64> {
        let look_back = if wait > Duration::from_secs(1) { LOOK_BACK } else { SHORT_LOOK_BACK };
        let from = now.saturating_sub(look_back);
        let is_long = now.saturating_sub(self.stopped_until) >= LEAST_MEASURED;
        let from = if is_long { from.max(self.stopped_until) } else { from };
        let span = now.saturating_sub(from);
        let first = span_of(from);
        let good: u32 = self.good.iter().filter(|(span, _)| *span >= first).map(|(_, good)| good).sum();
        (good > 0 && span >= LEAST_MEASURED).then(|| f64::from(good) / (span + wait).as_secs_f64())
    }

    fn note(&mut self, now: Duration) {
        let span = span_of(now);
        match self.good.back_mut() {
            Some((last, good)) if *last == span => *good += 1,
            _ => self.good.push_back((span, 1)),
        }
        let oldest = span_of(now.saturating_sub(LOOK_BACK));
        while self.good.front().is_some_and(|(span, _)| *span < oldest) {
            self.good.pop_front();
        }
    }
}

impl Pace {
    fn grow(&mut self, now: Duration) {
        let Some(passed) = now.checked_sub(self.grown_to) else { return };
        let well = now.saturating_sub(self.set_at).as_secs_f64();
        let growth = (GROWTH * (well / GROWTH_DOUBLES).exp2()).min(MOST_GROWTH);
        self.per_second = (self.per_second * (1.0 + growth * passed.as_secs_f64().min(1.0))).min(MOST_PACE);
        self.grown_to = now;
    }
}

fn span_of(time: Duration) -> u64 {
    time.as_millis() as u64 / SPAN_MS
}

#[cfg(test)]
mod tests {
    use std::{cmp::Reverse, collections::BinaryHeap};

    use super::*;

    fn ms(value: u64) -> Duration {
        Duration::from_millis(value)
    }

    fn at(at: Duration) -> Started {
        Started { at, beside: 0 }
    }

    #[test]
    fn the_window_doubles_until_there_is_trouble() {
        let mut rate = Rate::new(64, false);
        for round in 0..3u64 {
            let taken = std::iter::from_fn(|| (rate.turn(ms(round)) == Turn::Now).then_some(())).count();
            assert_eq!(taken, 8 << round);
            (0..taken).for_each(|_| rate.ended(at(ms(round)), Outcome::Good, ms(round + 1)));
        }
        assert_eq!(rate.window, 64.0);
        (0..8).for_each(|_| assert_eq!(rate.turn(ms(10)), Turn::Now));
        // Eight calls of one round trip are one trouble.
        (0..8).for_each(|_| rate.ended(at(ms(10)), Outcome::Overloaded, ms(11)));
        assert_eq!(rate.window, 32.0);
        assert_eq!(Rate::new(4, false).window, 4.0);
        assert_eq!(Rate::new(256, true).window, 256.0);
    }

    #[test]
    fn a_wait_that_is_asked_for_holds_for_all() {
        let mut rate = Rate::new(64, false);
        (0..3).for_each(|_| assert_eq!(rate.turn(ms(0)), Turn::Now));
        rate.ended(at(ms(0)), Outcome::Good, ms(2000));
        rate.ended(at(ms(0)), Outcome::Limited(Some(ms(3000))), ms(2000));
        assert_eq!(rate.turn(ms(4000)), Turn::At(ms(5000)));
        assert_eq!(rate.turn(ms(5000)), Turn::Now);
        assert!(matches!(rate.turn(ms(5000)), Turn::At(_)), "the pace holds the next one back");
    }

    #[test]
    fn a_refusal_at_once_says_little_of_the_rate() {
        let mut rate = Rate::new(64, false);
        (0..8).for_each(|_| assert_eq!(rate.turn(ms(0)), Turn::Now));
        rate.ended(at(ms(0)), Outcome::Good, ms(1));
        (0..7).for_each(|_| rate.ended(at(ms(0)), Outcome::Limited(Some(ms(200))), ms(1)));
        assert!(rate.pace.is_none() && rate.window == 4.5, "{rate:?}");
    }

    #[test]
    fn a_short_wait_means_a_high_limit() {
        let mut rate = Rate::new(64, false);
        // One call in five is refused by chance, with a wait that says that this is none of the caller's fault.
        for n in 0..500u64 {
            assert_eq!(rate.turn(ms(10 * n)), Turn::Now);
            let outcome = if n % 5 == 0 { Outcome::Limited(Some(ms(2))) } else { Outcome::Good };
            rate.ended(at(ms(10 * n)), outcome, ms(10 * n + 1));
        }
        assert!(rate.pace.is_none_or(|pace| pace.per_second >= 500.0));
    }

    /// How a provider limits.
    #[derive(Clone, Copy, Debug)]
    enum Limiter {
        /// So many a second, with so many saved up at most.
        Bucket { rate: f64, saved: f64 },
        /// So many in each window of seconds; says how long the window still lasts.
        Window { calls: u32, seconds: u64 },
        /// So many at once.
        AtOnce(usize),
    }

    struct Simulated {
        limiter: Limiter,
        saved: f64,
        at: Duration,
        in_window: u32,
        window: u64,
        under_way: usize,
    }

    impl Simulated {
        fn ask(&mut self, now: Duration) -> Outcome {
            match self.limiter {
                Limiter::Bucket { rate, saved } => {
                    self.saved = (self.saved + (now - self.at).as_secs_f64() * rate).min(saved);
                    self.at = now;
                    if self.saved < 1.0 {
                        return Outcome::Limited(None);
                    }
                    self.saved -= 1.0;
                    Outcome::Good
                }
                Limiter::Window { calls, seconds } => {
                    let window = now.as_secs() / seconds;
                    if window != self.window {
                        (self.window, self.in_window) = (window, 0);
                    }
                    if self.in_window >= calls {
                        return Outcome::Limited(Some(Duration::from_secs((window + 1) * seconds) - now));
                    }
                    self.in_window += 1;
                    Outcome::Good
                }
                Limiter::AtOnce(most) if self.under_way >= most => Outcome::Limited(None),
                Limiter::AtOnce(_) => {
                    self.under_way += 1;
                    Outcome::Good
                }
            }
        }
    }

    /// End, start, whether it is answered, and the wait if it is refused.
    type UnderWay = (Duration, (Duration, usize), bool, Option<Duration>);

    /// Calls that were answered and refused between two times, with callers that never run out of calls.
    fn simulate(limiter: Limiter, latency: u64, from: u64, to: u64) -> (f64, f64) {
        let mut rate = Rate::new(256, false);
        let saved = if let Limiter::Bucket { saved, .. } = limiter { saved } else { 0.0 };
        let mut provider =
            Simulated { limiter, saved, at: Duration::ZERO, in_window: 0, window: 0, under_way: 0 };
        let mut under_way: BinaryHeap<Reverse<UnderWay>> = BinaryHeap::new();
        let (mut good, mut limited, mut now, mut n) = (0u32, 0u32, Duration::ZERO, 0u64);
        while now < Duration::from_secs(to) {
            while let Some(Reverse((end, (at, beside), is_good, wait))) = under_way.peek().copied() {
                if end > now {
                    break;
                }
                under_way.pop();
                if is_good && matches!(limiter, Limiter::AtOnce(_)) {
                    provider.under_way -= 1;
                }
                let outcome = if is_good { Outcome::Good } else { Outcome::Limited(wait) };
                rate.ended(Started { at, beside }, outcome, now);
                if now >= Duration::from_secs(from) {
                    if is_good { good += 1 } else { limited += 1 }
                }
            }
            while rate.turn(now) == Turn::Now {
                n += 1;
                // Answers take between half and one and a half of the usual time; refusals come at once.
                let (end, is_good, wait) = match provider.ask(now) {
                    Outcome::Limited(wait) => (now + ms(10), false, wait),
                    _ => (now + ms(latency / 2 + (n * 7919) % latency), true, None),
                };
                under_way.push(Reverse((end, (now, rate.begun(now).beside), is_good, wait)));
            }
            now += ms(1);
        }
        (f64::from(good) / (to - from) as f64, f64::from(limited) / f64::from((good + limited).max(1)))
    }

    #[test]
    fn a_provider_is_used_to_its_limit_and_hardly_ever_over_it() {
        for (limiter, latency, limit) in [
            (Limiter::Bucket { rate: 10.0, saved: 10.0 }, 1000, 10.0),
            (Limiter::Bucket { rate: 50.0, saved: 10.0 }, 500, 50.0),
            (Limiter::Bucket { rate: 300.0, saved: 300.0 }, 400, 300.0),
            (Limiter::Window { calls: 500, seconds: 60 }, 800, 500.0 / 60.0),
            (Limiter::Bucket { rate: 50.0, saved: 1.0 }, 500, 50.0),
            (Limiter::Bucket { rate: 20.0, saved: 2.0 }, 2000, 20.0),
            (Limiter::AtOnce(20), 1000, 20.0),
            (Limiter::AtOnce(3), 400, 7.5),
            (Limiter::AtOnce(100), 2000, 50.0),
        ] {
            let (per_second, refused) = simulate(limiter, latency, 120, 600);
            println!(
                "{limiter:?}: {:.1}% of the limit, {:.2}% refused",
                100.0 * per_second / limit,
                100.0 * refused
            );
            assert!(per_second >= 0.9 * limit, "{limiter:?}: only {per_second} of {limit} a second");
            assert!(refused <= 0.01, "{limiter:?}: {refused} are refused");
        }
    }
}
