//! What a run can be asked for.

use std::time::Duration;

use serde::Serialize;

use super::TrainError;
use crate::lora::LoraConfig;

/// When a run ends before its last epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct EarlyStop {
    /// Epochs in a row that may end without a validation loss below the lowest so far; at least 1.
    pub patience: usize,
}

/// Settings of a run. The defaults are those that taught a 135M model a habit from a hundred examples.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Times that every example is seen.
    pub epochs: usize,
    /// Examples per step.
    pub batch_size: usize,
    /// Peak learning rate; falls towards 0 along a cosine.
    pub learning_rate: f64,
    /// Steps over which the learning rate rises.
    pub warmup: usize,
    /// Limit on the norm of the gradients.
    pub clip: f32,
    /// Seed of the order of examples. (That of the adapter's first values is in `lora`.)
    pub seed: u64,
    /// Longer examples lose their end.
    pub max_tokens: usize,
    /// Tokens that one pass works on. A batch of more tokens is worked through in parts, with the same result up to rounding.
    pub pass_tokens: usize,
    pub lora: LoraConfig,
    /// How strongly preference training is held to the reference, in `(0, 2]`; nothing to supervised training.
    pub beta: f64,
    /// End the run when it no longer helps; needs validation rows.
    pub early_stop: Option<EarlyStop>,
    /// Every so many steps the loss of the next few validation examples is measured; 0: never.
    pub valid_every: usize,
    /// Save the state at least this often. Does not change the result.
    pub save_every: Duration,
    /// Also save the state every so many steps; 0: by time alone.
    pub save_every_steps: usize,
    /// Recorded in the adapters that the run writes.
    pub base_model: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            epochs: 3,
            batch_size: 4,
            learning_rate: 1e-3,
            warmup: 3,
            clip: 1.0,
            seed: 0,
            max_tokens: 2048,
            pass_tokens: 640,
            lora: LoraConfig::default(),
            beta: 0.1,
            early_stop: None,
            valid_every: 10,
            save_every: Duration::from_secs(30),
            save_every_steps: 0,
            base_model: String::new(),
        }
    }
}

/// The options that the result of a run depends on.
#[derive(Serialize)]
pub(super) struct Identity<'a> {
    epochs: usize,
    batch_size: usize,
    learning_rate: f64,
    warmup: usize,
    clip: f32,
    seed: u64,
    max_tokens: usize,
    pass_tokens: usize,
    lora: &'a LoraConfig,
    beta: f64,
    early_stop: Option<EarlyStop>,
}

impl Options {
    pub(super) fn identity(&self) -> Identity<'_> {
        Identity {
            epochs: self.epochs,
            batch_size: self.batch_size,
            learning_rate: self.learning_rate,
            warmup: self.warmup,
            clip: self.clip,
            seed: self.seed,
            max_tokens: self.max_tokens,
            pass_tokens: self.pass_tokens,
            lora: &self.lora,
            beta: self.beta,
            early_stop: self.early_stop,
        }
    }

    pub(super) fn check(&self) -> Result<(), TrainError> {
        let positive = |value: f64| value.is_finite() && value > 0.0;
        let faults = [
            (self.epochs == 0, "no epoch"),
            (self.batch_size == 0, "an empty batch"),
            (!positive(self.learning_rate), "a learning rate that is not a positive number"),
            (!positive(f64::from(self.clip)), "a gradient limit that is not a positive number"),
            (self.max_tokens < 2, "fewer than 2 tokens per example"),
            (self.lora.rank == 0, "a LoRA rank of 0"),
            (!positive(f64::from(self.lora.alpha)), "a LoRA alpha that is not a positive number"),
            (self.lora.targets.is_empty(), "no matrix to adapt"),
            (self.lora.top_layers == Some(0), "no layer to adapt"),
            (!positive(self.beta) || self.beta > 2.0, "a beta outside (0, 2]"),
            (self.early_stop.is_some_and(|stop| stop.patience == 0), "an early stop without patience"),
        ];
        match faults.iter().find(|(present, _)| *present) {
            Some((_, fault)) => Err(TrainError::Options((*fault).to_owned())),
            None => Ok(()),
        }
    }
}
