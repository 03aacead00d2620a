//! What the library has to say while it works: one enum for terminal, JSON, logs and tests.

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

/// A thing that happened. What is recorded can be replayed through the same display.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// A phase of a command begins; `total` units are expected when it is known.
    Begin { phase: Phase, total: Option<u64> },
    /// `done` units of a phase are finished; `note` says what the last one was.
    Progress { phase: Phase, done: u64, total: Option<u64>, note: String },
    /// A phase is over; `summary` is its result in a sentence.
    End { phase: Phase, summary: String },
    /// Something the user should know that is not an error.
    Note { text: String },
    /// Something that may spoil the result, and what to do about it.
    Warning { text: String, hint: Option<String> },
    /// One brief's evolution is finished and its log written (or found written).
    Evolved {
        id: String,
        initial_score: f64,
        final_score: f64,
        iterations: u32,
        target_reached: bool,
        reused: bool,
    },
    /// A training step as the job's events report it.
    Step {
        job: String,
        step: u64,
        total_steps: u64,
        loss: f64,
        tokens: Option<u64>,
        seconds_left: Option<u64>,
    },
    /// A job's status changed.
    Job { job: String, status: String, text: String },
}

/// The phases of the product, as progress names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    Setup,
    Evolve,
    Prepare,
    Finetune,
    Test,
    Deploy,
    Calibrate,
    /// Models that come and go.
    Models,
}

/// Where events go. Cheap to clone; never blocks; events without a listener are dropped.
#[derive(Clone, Debug, Default)]
pub struct Events(Option<mpsc::UnboundedSender<Event>>);

impl Events {
    /// A sink and the receiver that displays or records what goes into it.
    pub fn channel() -> (Self, mpsc::UnboundedReceiver<Event>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self(Some(sender)), receiver)
    }

    /// A sink that drops everything.
    pub fn none() -> Self {
        Self(None)
    }

    pub fn emit(&self, event: Event) {
        if let Some(sender) = &self.0 {
            // A display that is gone must not stop the work.
            let _ = sender.send(event);
        }
    }

    pub fn note(&self, text: impl Into<String>) {
        self.emit(Event::Note { text: text.into() });
    }

    pub fn warn(&self, text: impl Into<String>, hint: Option<String>) {
        self.emit(Event::Warning { text: text.into(), hint });
    }
}
