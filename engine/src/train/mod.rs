//! LoRA fine-tuning on the CPU: hand-written forward and backward, AdamW, checkpoints that a killed run resumes from.
//!
//! Reading order: [`run()`] drives a run; `batch` turns examples into packed rows; `objective` says what is learnt from
//! them (to predict, or to prefer); `pass` is the model with its derivatives, over `frozen` (the weights), `adapt` (matrices
//! with their pairs), `attention`, `head` and `ops`, which are made of products (`matmul` in f32, `bf16`, both on the
//! loops of `tile`); `optim` updates the adapter; `state` keeps a run on disk.
//!
//! Same weights, examples, options and machine: same adapter, byte for byte, whatever the number of threads and however
//! often the run was interrupted. Every sum has a fixed order for that.

mod adapt;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod amx;
mod attention;
mod batch;
mod bf16;
mod error;
mod frozen;
mod head;
mod matmul;
mod objective;
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
mod tile;

pub use batch::{Intake, intake};
pub use error::TrainError;
pub use frozen::{Frozen, Precision};
pub use options::{EarlyStop, Options};
pub use run::{Best, Control, Outcome, Step, Trained, evaluate, run};
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

/// Two answers to one prompt, of which one is wanted. `trained` marks the answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pair {
    pub preferred: Example,
    pub non_preferred: Example,
}

/// What a run learns from, and what it is measured on.
#[derive(Clone, Copy, Debug)]
pub enum Data<'a> {
    /// To predict the trained tokens.
    Supervised { train: &'a [Example], valid: &'a [Example] },
    /// To prefer one answer to another: direct preference optimisation (Rafailov et al., 2023). The reference is the model
    /// that the run starts from.
    Preference { train: &'a [Pair], valid: &'a [Pair] },
}

/// How well a model predicts trained tokens, or tells wanted answers from others.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Metrics {
    /// Supervised: mean `-ln p` per target, in nats. Preference: mean `-ln sigma(margin)` per pair.
    pub loss: f64,
    /// Share of targets that were the most likely token, 0-1; of the preferred answers where there are pairs.
    pub token_accuracy: f64,
    /// Number of targets that the accuracy is a mean over.
    pub targets: usize,
    /// Of preference training.
    pub rewards: Option<Rewards>,
}

/// Implicit rewards of a set of pairs. The reward of an answer is `beta` times how much likelier it has become since the
/// start, in nats.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rewards {
    /// Share of pairs whose preferred answer has the larger reward, 0-1.
    pub accuracy: f64,
    /// Mean reward of preferred answers, and of the others.
    pub preferred: f64,
    pub non_preferred: f64,
    pub pairs: usize,
}

impl Rewards {
    /// Mean difference between the two.
    pub fn margin(&self) -> f64 {
        self.preferred - self.non_preferred
    }
}

/// Sums from which [`Metrics`] are made.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Totals {
    loss: f64,
    hits: usize,
    targets: usize,
    pairs: usize,
    wins: usize,
    preferred: f64,
    non_preferred: f64,
}

impl Totals {
    /// The rows of sequences that are to be predicted.
    fn of_rows(rows: &[ops::RowLoss]) -> Self {
        Self {
            loss: rows.iter().map(|row| f64::from(row.loss)).sum(),
            hits: rows.iter().filter(|row| row.hit).count(),
            targets: rows.len(),
            ..Self::default()
        }
    }

    fn add(&mut self, other: Self) {
        self.loss += other.loss;
        self.hits += other.hits;
        self.targets += other.targets;
        self.pairs += other.pairs;
        self.wins += other.wins;
        self.preferred += other.preferred;
        self.non_preferred += other.non_preferred;
    }

    fn metrics(&self) -> Metrics {
        let (targets, pairs) = (self.targets.max(1) as f64, self.pairs.max(1) as f64);
        let rewards = Rewards {
            accuracy: self.wins as f64 / pairs,
            preferred: self.preferred / pairs,
            non_preferred: self.non_preferred / pairs,
            pairs: self.pairs,
        };
        Metrics {
            loss: self.loss / if self.pairs > 0 { pairs } else { targets },
            token_accuracy: self.hits as f64 / targets,
            targets: self.targets,
            rewards: (self.pairs > 0).then_some(rewards),
        }
    }
}

/// The first `len` values of a buffer, grown when needed; the values are whatever was there.
fn sized(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if buffer.len() < len {
        buffer.resize(len, 0.0);
    }
    &mut buffer[..len]
}
