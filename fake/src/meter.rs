//! What the provider has counted.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde_json::{Value, json};

/// What a token costs, in thousandths of a millionth of a US dollar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Price {
    pub input: u64,
    pub output: u64,
}

/// 3.75 and 15 US dollars per million.
impl Default for Price {
    fn default() -> Self {
        Self { input: 3_750, output: 15_000 }
    }
}

/// The counts at a moment. All of chat calls unless they say otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meter {
    /// Calls of which the whole request came.
    pub requests: u64,
    /// How often each body came, by its SHA-256 in hex.
    pub by_body: BTreeMap<String, u32>,
    /// What they cost in nano-dollars, those included of which the answer was cut, reset or never read. A call is billed when
    /// it comes.
    pub billed: u64,
    pub in_flight: u64,
    pub most_in_flight: u64,
    /// Calls that were refused with status 429.
    pub limited: u64,
    /// Connections that were made, for whatever.
    pub connections: u64,
    /// Fine-tuning jobs that were created.
    pub jobs: u64,
    /// Files that were uploaded.
    pub uploads: u64,
    pub batches: u64,
}

impl Meter {
    /// As `GET /meter` has it.
    pub fn to_json(&self) -> Value {
        json!({
            "requests": self.requests, "by_body": self.by_body, "billed": self.billed, "in_flight": self.in_flight,
            "most_in_flight": self.most_in_flight, "limited": self.limited, "connections": self.connections,
            "jobs": self.jobs, "uploads": self.uploads, "batches": self.batches,
        })
    }

    /// Calls beyond the first of each body.
    pub fn repeated(&self) -> u64 {
        self.by_body.values().map(|times| u64::from(times.saturating_sub(1))).sum()
    }
}

/// A meter that many connections write to.
#[derive(Debug, Default)]
pub(crate) struct Shared(Mutex<Meter>);

impl Shared {
    pub fn lock(&self) -> MutexGuard<'_, Meter> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a call that begins; how often its body came before.
    pub fn begin(&self, sha: &str) -> (u32, InFlight<'_>) {
        let mut meter = self.lock();
        meter.requests += 1;
        meter.in_flight += 1;
        meter.most_in_flight = meter.most_in_flight.max(meter.in_flight);
        let times = meter.by_body.entry(sha.to_owned()).or_default();
        *times += 1;
        (*times - 1, InFlight(self))
    }
}

/// A call under way, until it is dropped.
pub(crate) struct InFlight<'a>(&'a Shared);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.lock().in_flight -= 1;
    }
}
