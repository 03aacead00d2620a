//! Whether a provider is down. Pure: time comes in as the span since the gate was made.
//!
//! A provider that has answered before and then fails every time is down: while it is, nothing is sent but one probe now and
//! then, so that nothing is spent on failures. One that has never answered is not down but, more likely, a wrong address:
//! its errors are told at once.

use std::time::Duration;

/// How a provider that is down is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outage {
    /// Time to the first probe; doubles each time.
    pub first: Duration,
    /// Most that the doubling reaches.
    pub longest: Duration,
    /// After this the wait is given up.
    pub patience: Duration,
}

impl Default for Outage {
    fn default() -> Self {
        Self {
            first: Duration::from_secs(30),
            longest: Duration::from_secs(300),
            patience: Duration::from_secs(15 * 60),
        }
    }
}

/// Failures one after another, of whichever calls, that are no chance.
const TELLING: u32 = 10;

/// What a circuit says to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Closed,
    /// This call is the one that finds out.
    Probe,
    /// Not before this time.
    Wait(Duration),
    /// It has been down for longer than anybody waits.
    Down,
}

#[derive(Debug)]
struct Open {
    since: Duration,
    next: Duration,
    probes: u32,
    probing: bool,
}

#[derive(Debug)]
pub struct Circuit {
    outage: Outage,
    failures: u32,
    last_good: Option<Duration>,
    open: Option<Open>,
}

impl Circuit {
    pub fn new(outage: Outage) -> Self {
        Self { outage, failures: 0, last_good: None, open: None }
    }

    /// Asks for a turn, and takes it if it is a probe.
    pub fn state(&mut self, now: Duration) -> State {
        let Some(open) = &mut self.open else { return State::Closed };
        if now >= open.since + self.outage.patience {
            return State::Down;
        }
        let end = open.since + self.outage.patience;
        if open.probing {
            // Whoever probes wakes the others.
            return State::Wait(end);
        }
        if now < open.next {
            return State::Wait(open.next.min(end));
        }
        open.probing = true;
        State::Probe
    }

    /// The provider has answered, whatever it said.
    pub fn good(&mut self, now: Duration) {
        (self.failures, self.last_good, self.open) = (0, Some(now), None);
    }

    /// A try has failed as tries fail when a provider is down. Returns the wait when that opens the circuit.
    pub fn failed(&mut self, was_probe: bool, now: Duration) -> Option<Duration> {
        self.failures += 1;
        match &mut self.open {
            Some(open) if was_probe => {
                open.probes += 1;
                open.probing = false;
                let wait =
                    self.outage.first.saturating_mul(1 << open.probes.min(16)).min(self.outage.longest);
                open.next = now + wait;
                Some(wait)
            }
            Some(_) => None,
            None if self.failures >= TELLING => self.open(now),
            None => None,
        }
    }

    /// A call that began at `began` has failed as often as a call may. Opens the circuit, unless others had answers since.
    pub fn exhausted(&mut self, began: Duration, now: Duration) -> Option<Duration> {
        match self.last_good {
            Some(good) if good <= began => self.open(now),
            _ => None,
        }
    }

    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// A probe that ended without finding out.
    pub fn abandon_probe(&mut self) {
        if let Some(open) = &mut self.open {
            open.probing = false;
        }
    }

    fn open(&mut self, now: Duration) -> Option<Duration> {
        if self.open.is_some() || self.last_good.is_none() {
            return None;
        }
        let wait = self.outage.first;
        self.open = Some(Open { since: now, next: now + wait, probes: 0, probing: false });
        Some(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(value: u64) -> Duration {
        Duration::from_secs(value)
    }

    fn down(at: u64) -> Circuit {
        let mut circuit = Circuit::new(Outage::default());
        circuit.good(s(0));
        (1..TELLING).for_each(|_| assert_eq!(circuit.failed(false, s(at)), None));
        assert_eq!(circuit.failed(false, s(at)), Some(s(30)));
        circuit
    }

    #[test]
    fn one_probe_at_a_time_and_ever_later() {
        let mut circuit = down(1);
        assert_eq!(circuit.state(s(2)), State::Wait(s(31)));
        assert_eq!(circuit.state(s(31)), State::Probe);
        assert!(matches!(circuit.state(s(32)), State::Wait(_)), "somebody is finding out");
        assert_eq!(circuit.failed(true, s(33)), Some(s(60)));
        assert_eq!(circuit.state(s(92)), State::Wait(s(93)));
        assert_eq!(circuit.state(s(93)), State::Probe);
        circuit.good(s(94));
        assert_eq!(circuit.state(s(94)), State::Closed);
    }

    #[test]
    fn patience_ends() {
        let mut circuit = down(1);
        let (mut now, mut waits) = (1, Vec::new());
        let end = loop {
            match circuit.state(s(now)) {
                State::Probe => waits.extend(circuit.failed(true, s(now)).map(|wait| wait.as_secs())),
                State::Wait(until) => now = until.as_secs().max(now + 1),
                other => break other,
            }
        };
        assert_eq!((end, now), (State::Down, 901));
        assert_eq!(waits, [60, 120, 240, 300, 300]);
    }

    #[test]
    fn who_never_answered_is_not_down() {
        let mut circuit = Circuit::new(Outage::default());
        (0..100).for_each(|_| assert_eq!(circuit.failed(false, s(1)), None));
        assert_eq!(circuit.exhausted(s(0), s(1)), None);
        assert_eq!(circuit.state(s(1)), State::Closed);
    }

    #[test]
    fn one_call_alone_finds_out_too() {
        let mut circuit = Circuit::new(Outage::default());
        circuit.good(s(1));
        assert_eq!(circuit.exhausted(s(0), s(5)), None, "others had answers since");
        assert_eq!(circuit.exhausted(s(2), s(9)), Some(s(30)));
        circuit.state(s(39));
        circuit.abandon_probe();
        assert_eq!(circuit.state(s(39)), State::Probe);
    }

    #[test]
    fn failures_between_answers_are_chance() {
        let mut circuit = Circuit::new(Outage::default());
        for n in 0..50 {
            circuit.good(s(n));
            (1..TELLING).for_each(|_| assert_eq!(circuit.failed(false, s(n)), None));
        }
        assert!(!circuit.is_open());
    }
}
