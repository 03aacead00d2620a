//! LoRA fine-tuning on the CPU: hand-written forward and backward, AdamW, checkpoints that a killed run resumes from.
//!
//! Reading order: [`run()`] drives a run; `batch` turns examples into packed rows; `pass` is the model with its
//! derivatives, over `adapt` (matrices with their pairs), `attention`, `head` and `ops`; `optim` updates the adapter;
//! `state` keeps a run on disk.
//!
//! Same weights, examples, options and machine: same adapter, byte for byte, whatever the number of threads and however
//! often the run was interrupted. Every sum has a fixed order for that.

mod adapt;
mod attention;
mod batch;
mod error;
mod head;
mod matmul;
mod ops;
mod optim;
mod options;
mod pass;
mod run;
mod state;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use error::TrainError;
pub use options::Options;
pub use run::{Control, Outcome, Step, Trained, evaluate, run};
pub(crate) use state::atomic_write;

/// One training sequence.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Example {
    /// Tokens, the prompt included.
    pub ids: Vec<u32>,
    /// Whether the model is to learn to predict this token from those before it; as long as `ids`. The first token has
    /// nothing before it, so its flag means nothing.
    pub trained: Vec<bool>,
}

impl Example {
    /// Number of tokens that the loss counts.
    pub fn targets(&self) -> usize {
        self.trained.iter().skip(1).filter(|flag| **flag).count()
    }
}

/// How well a model predicts trained tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Metrics {
    /// Mean `-ln p` per target, in nats.
    pub loss: f64,
    /// Share of targets that were the most likely token, 0-1.
    pub token_accuracy: f64,
    /// Number of targets that both are means over.
    pub targets: usize,
}

/// Sums from which [`Metrics`] are made.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Totals {
    loss: f64,
    hits: usize,
    targets: usize,
}

impl Totals {
    fn add_rows(&mut self, rows: &[ops::RowLoss]) {
        self.loss += rows.iter().map(|row| f64::from(row.loss)).sum::<f64>();
        self.hits += rows.iter().filter(|row| row.hit).count();
        self.targets += rows.len();
    }

    fn add(&mut self, other: Self) {
        self.loss += other.loss;
        self.hits += other.hits;
        self.targets += other.targets;
    }

    fn metrics(&self) -> Metrics {
        let count = self.targets.max(1) as f64;
        Metrics { loss: self.loss / count, token_accuracy: self.hits as f64 / count, targets: self.targets }
    }
}

/// The first `len` values of a buffer, grown when needed; the values are whatever was there.
fn sized(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if buffer.len() < len {
        buffer.resize(len, 0.0);
    }
    &mut buffer[..len]
}
