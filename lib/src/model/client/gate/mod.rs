//! The gate that every chat call goes through: no more at once than the provider bears, and none while it is down.
//!
//! Callers wait in the order they came: whoever is first in line waits for time or for room, the others for the line. One
//! gate per provider, shared by its clients.

mod circuit;
mod rate;

pub use circuit::Outage;
pub(super) use rate::Outcome;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use self::{
    circuit::{Circuit, State},
    rate::{Rate, Started, Turn},
};
use crate::event::Events;

/// Cheap to clone: clones are the same gate.
#[derive(Clone, Debug)]
pub(super) struct Gate(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    begun: Instant,
    core: Mutex<Core>,
    line: tokio::sync::Mutex<()>,
    changed: Notify,
}

#[derive(Debug)]
struct Core {
    rate: Rate,
    circuit: Circuit,
    /// When the circuit opened, for people.
    down_since: Option<jiff::Timestamp>,
    why: String,
    /// Until when whoever comes is told that the wait is too long.
    shut_until: Duration,
}

/// Why nobody is let in, now or soon.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Shut {
    /// The provider is down, and nobody waits any longer.
    Down { since: String, why: String },
    /// The provider asked for a wait that is longer than anybody's.
    TooLong(Duration),
}

/// A call's turn; over when it is dropped.
#[derive(Debug)]
pub(super) struct Permit {
    gate: Gate,
    started: Started,
    is_probe: bool,
    outcome: Outcome,
}

/// What a try tells about the provider.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Health {
    /// It answers.
    Up,
    /// It fails as providers fail that are down.
    Failing,
}

impl Gate {
    pub fn new(most: usize, queues: bool, outage: Outage) -> Self {
        let core = Core {
            rate: Rate::new(most, queues),
            circuit: Circuit::new(outage),
            down_since: None,
            why: String::new(),
            shut_until: Duration::ZERO,
        };
        Self(Arc::new(Inner {
            begun: Instant::now(),
            core: Mutex::new(core),
            line: tokio::sync::Mutex::new(()),
            changed: Notify::new(),
        }))
    }

    fn core(&self) -> MutexGuard<'_, Core> {
        self.0.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Time on this gate's clock.
    pub fn now(&self) -> Duration {
        self.0.begun.elapsed()
    }

    /// Waits for a turn.
    pub async fn enter(&self) -> Result<Permit, Shut> {
        let _line = self.0.line.lock().await;
        loop {
            let until = match self.core().turn(self.now())? {
                Turn::Now => None,
                Turn::At(time) => Some(time),
                Turn::Full => Some(Duration::MAX),
            };
            let Some(until) = until else { break };
            let wait = until.saturating_sub(self.now()).min(Duration::from_secs(3600));
            // A change that came since the look above is kept by the notifier.
            let _ = tokio::time::timeout(wait, self.0.changed.notified()).await;
        }
        let core = self.core();
        let (is_probe, started) = (core.circuit.is_open(), core.rate.begun(self.now()));
        drop(core);
        Ok(Permit { gate: self.clone(), started, is_probe, outcome: Outcome::Neutral })
    }

    /// A call that began at `began` has used up its tries. Whether the provider is down, so that it should wait rather than
    /// fail.
    pub fn exhausted(&self, provider: &str, began: Duration, why: &str, events: &Events) -> bool {
        let mut core = self.core();
        if let Some(wait) = core.circuit.exhausted(began, self.now()) {
            core.announce(provider, wait, why, events);
        }
        core.circuit.is_open()
    }

    pub fn is_open(&self) -> bool {
        self.core().circuit.is_open()
    }

    /// For a while all who wait and all who come are turned away: one call was told to wait so long that it gave up, and the
    /// others would be told the same.
    pub fn shut(&self, wait: Duration) {
        let until = self.now() + wait;
        let mut core = self.core();
        core.shut_until = core.shut_until.max(until);
        drop(core);
        self.0.changed.notify_one();
    }

    /// Nothing starts for a while.
    pub fn pause(&self, wait: Duration) {
        let until = self.now() + wait;
        self.core().rate.stop_until(until);
    }
}

impl Core {
    fn turn(&mut self, now: Duration) -> Result<Turn, Shut> {
        if self.shut_until > now {
            return Err(Shut::TooLong(self.shut_until - now));
        }
        match self.circuit.state(now) {
            State::Closed => Ok(self.rate.turn(now)),
            State::Wait(time) => Ok(Turn::At(time)),
            State::Probe => {
                let turn = self.rate.turn(now);
                if turn != Turn::Now {
                    self.circuit.abandon_probe();
                }
                Ok(turn)
            }
            State::Down => {
                let since = self.down_since.unwrap_or_else(jiff::Timestamp::now);
                Err(Shut::Down { since: since.strftime("%H:%M UTC").to_string(), why: self.why.clone() })
            }
        }
    }

    fn announce(&mut self, provider: &str, wait: Duration, why: &str, events: &Events) {
        let since = *self.down_since.get_or_insert_with(jiff::Timestamp::now);
        why.clone_into(&mut self.why);
        events.warn(
            format!(
                "{provider} is down since {}: {why}; trying again in {} s",
                since.strftime("%H:%M UTC"),
                wait.as_secs()
            ),
            Some("nothing is sent meanwhile; Ctrl-C stops, and finished work is kept".into()),
        );
    }
}

impl Permit {
    /// How the try ended. Without a word of it, the try counts as never made.
    pub fn report(&mut self, outcome: Outcome) {
        self.outcome = outcome;
    }

    /// What the try tells about the provider; the user is told when it went down or came back.
    pub fn health(&mut self, health: Health, provider: &str, why: &str, events: &Events) {
        let now = self.gate.now();
        let mut core = self.gate.core();
        match health {
            Health::Up => {
                let was_open = core.circuit.is_open();
                core.circuit.good(now);
                core.down_since = None;
                drop(core);
                if was_open {
                    events.note(format!("{provider} answers again"));
                }
            }
            Health::Failing => {
                if let Some(wait) = core.circuit.failed(self.is_probe, now) {
                    core.announce(provider, wait, why, events);
                }
            }
        }
        self.is_probe = false;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let now = self.gate.now();
        let mut core = self.gate.core();
        core.rate.ended(self.started, self.outcome, now);
        if self.is_probe {
            core.circuit.abandon_probe();
        }
        drop(core);
        self.gate.0.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waits_behind_a_wait_that_is_too_long_is_turned_away() {
        let gate = Gate::new(1, false, Outage::default());
        let first = gate.enter().await.unwrap();
        let second = tokio::spawn({
            let gate = gate.clone();
            async move { gate.enter().await.map(drop) }
        });
        tokio::task::yield_now().await;
        gate.shut(Duration::from_secs(121));
        for turned_away in [second.await.unwrap(), gate.enter().await.map(drop)] {
            assert!(matches!(turned_away, Err(Shut::TooLong(wait)) if wait > Duration::from_secs(100)));
        }
        drop(first);
    }
}
