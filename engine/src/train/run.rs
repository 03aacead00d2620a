//! A run: epochs, steps, validation, checkpoints; and the evaluation of a model on examples.

use std::path::{Path, PathBuf};
use std::time::Instant;

use super::batch::{Packed, epoch_order, prepare, split_by_tokens};
use super::optim::{clip, learning_rate};
use super::pass::Pass;
use super::state::{State, fingerprint};
use super::{Example, Metrics, Options, Totals, TrainError};
use crate::lora::Adapter;
use crate::weights::Weights;

/// One finished step, as reported. After a kill, the steps since the last saved state are run and reported again, with
/// the same numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// From 1.
    pub step: usize,
    pub total_steps: usize,
    /// From 1.
    pub epoch: usize,
    /// Over the targets of this step's batch, before its update.
    pub train: Metrics,
    /// Over a few validation examples, after the update; when due.
    pub valid: Option<Metrics>,
    /// Over all validation examples; at the end of an epoch.
    pub full_valid: Option<Metrics>,
    /// Tokens of all examples seen so far, prompts included, over all epochs.
    pub tokens_trained: u64,
    pub learning_rate: f64,
    /// Norm of the gradients before clipping.
    pub gradient_norm: f32,
    /// Folder of the adapter that was just written; at the end of an epoch.
    pub checkpoint: Option<PathBuf>,
}

/// What the caller wants after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    Continue,
    /// Save the state and return; a later run with the same arguments goes on from there.
    Stop,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    Finished(Trained),
    /// On request, after `step` steps; the state is saved.
    Stopped {
        step: usize,
        total_steps: usize,
    },
}

/// The result of a whole run.
#[derive(Clone, Debug, PartialEq)]
pub struct Trained {
    pub adapter: Adapter,
    /// Folder of the last checkpoint, which holds this adapter.
    pub checkpoint: PathBuf,
    pub steps: usize,
    pub tokens_trained: u64,
    /// Training examples that were cut at `max_tokens`.
    pub truncated: usize,
    /// Training examples left out because no trained token was left.
    pub skipped: usize,
}

/// Fine-tunes an adapter on `train`, reporting each step to `on_step`; resumes when `dir` holds the state of this run.
///
/// `dir` receives `checkpoint-NNNNNN/` (a PEFT adapter, named by step) after each epoch and `state.safetensors`, about
/// every [`Options::save_every`] and at the end. Uses the current rayon pool.
///
/// # Errors
/// See [`TrainError`]. Nothing in `dir` is changed by a run that is refused.
pub fn run(
    weights: &Weights,
    train: &[Example],
    valid: &[Example],
    options: &Options,
    dir: &Path,
    on_step: &mut dyn FnMut(Step) -> Control,
) -> Result<Outcome, TrainError> {
    options.check()?;
    let config = &weights.config;
    let max_tokens = options.max_tokens.min(config.context);
    let prepared = prepare(train, max_tokens, config.vocab)?;
    if prepared.examples.is_empty() {
        return Err(TrainError::NothingToLearn { examples: train.len() });
    }
    let valid = prepare(valid, max_tokens, config.vocab)?.examples;
    let run_id = fingerprint(weights, train, options)?;
    let fresh = Adapter::new(config, &options.lora);
    std::fs::create_dir_all(dir).map_err(|source| TrainError::Io { path: dir.to_owned(), source })?;
    let state = State::load(dir, &run_id, &fresh)?.unwrap_or_else(|| State::new(fresh));
    let runner = Runner {
        weights,
        examples: &prepared.examples,
        valid: &valid,
        options,
        dir,
        run_id,
        gradients: state.adapter.zeros_like(),
        pass: Pass::new(weights, largest_pass(&prepared.examples, options.batch_size, options.pass_tokens)),
        state,
    };
    let (finished, state) = runner.drive(on_step)?;
    let total_steps = total_steps(prepared.examples.len(), options);
    if !finished {
        return Ok(Outcome::Stopped { step: state.step, total_steps });
    }
    Ok(Outcome::Finished(Trained {
        adapter: state.adapter,
        checkpoint: checkpoint_dir(dir, total_steps),
        steps: total_steps,
        tokens_trained: state.tokens_trained,
        truncated: prepared.truncated,
        skipped: prepared.skipped,
    }))
}

/// Loss and accuracy of the base model, or of a tuned one, over the trained tokens of `examples`. Examples longer than the
/// model's context lose their end.
///
/// # Errors
/// When an example does not fit the model's vocabulary.
pub fn evaluate(
    weights: &Weights,
    adapter: Option<&Adapter>,
    examples: &[Example],
) -> Result<Metrics, TrainError> {
    let examples = prepare(examples, weights.config.context, weights.config.vocab)?.examples;
    let pass_tokens = Options::default().pass_tokens;
    let mut pass = Pass::new(weights, largest_pass(&examples, examples.len(), pass_tokens));
    Ok(measure(&mut pass, adapter, examples.iter(), pass_tokens))
}

fn measure<'a>(
    pass: &mut Pass,
    adapter: Option<&Adapter>,
    examples: impl Iterator<Item = &'a Example>,
    pass_tokens: usize,
) -> Metrics {
    let mut totals = Totals::default();
    for part in split_by_tokens(&examples.collect::<Vec<_>>(), pass_tokens) {
        totals.add(pass.loss(adapter, &Packed::new(part)));
    }
    totals.metrics()
}

/// Tokens of the largest part that [`split_by_tokens`] can make of a batch.
fn largest_pass(examples: &[Example], batch_size: usize, pass_tokens: usize) -> usize {
    let mut lengths: Vec<usize> = examples.iter().map(|example| example.ids.len()).collect();
    lengths.sort_unstable_by(|a, b| b.cmp(a));
    let longest = lengths.first().copied().unwrap_or(0);
    lengths.iter().take(batch_size).sum::<usize>().min(pass_tokens.max(longest))
}

fn steps_per_epoch(examples: usize, options: &Options) -> usize {
    examples.div_ceil(options.batch_size)
}

fn total_steps(examples: usize, options: &Options) -> usize {
    steps_per_epoch(examples, options) * options.epochs
}

/// Examples of batch `index` of an epoch (both from 0).
fn batch_of<'a>(examples: &'a [Example], options: &Options, epoch: usize, index: usize) -> Vec<&'a Example> {
    let order = epoch_order(examples.len(), options.seed, epoch);
    let batch = order.into_iter().skip(index * options.batch_size).take(options.batch_size);
    batch.map(|at| &examples[at]).collect()
}

fn checkpoint_dir(dir: &Path, step: usize) -> PathBuf {
    dir.join(format!("checkpoint-{step:06}"))
}

/// A run in progress.
struct Runner<'a> {
    weights: &'a Weights,
    examples: &'a [Example],
    valid: &'a [Example],
    options: &'a Options,
    dir: &'a Path,
    run_id: String,
    gradients: Adapter,
    pass: Pass<'a>,
    state: State,
}

impl Runner<'_> {
    /// Steps until the end or until told to stop; says whether the end was reached.
    ///
    /// A step is reported before the state that contains it is saved: a kill in between reports it twice, never not at
    /// all.
    fn drive(mut self, on_step: &mut dyn FnMut(Step) -> Control) -> Result<(bool, State), TrainError> {
        let total = total_steps(self.examples.len(), self.options);
        let mut saved = Instant::now();
        while self.state.step < total {
            let control = on_step(self.step()?);
            let step = self.state.step;
            let by_count =
                self.options.save_every_steps > 0 && step.is_multiple_of(self.options.save_every_steps);
            let due = by_count || step == total || saved.elapsed() >= self.options.save_every;
            if due || control == Control::Stop {
                self.state.save(self.dir, &self.run_id)?;
                saved = Instant::now();
            }
            if control == Control::Stop && step < total {
                return Ok((false, self.state));
            }
        }
        Ok((true, self.state))
    }

    fn step(&mut self) -> Result<Step, TrainError> {
        let per_epoch = steps_per_epoch(self.examples.len(), self.options);
        let total_steps = per_epoch * self.options.epochs;
        let (index, epoch) = (self.state.step, self.state.step / per_epoch);
        let batch = batch_of(self.examples, self.options, epoch, index % per_epoch);
        let train = self.gradients_of(&batch).metrics();
        let gradient_norm = clip(&mut self.gradients, self.options.clip);
        if !train.loss.is_finite() || !gradient_norm.is_finite() {
            return Err(TrainError::Diverged { step: index + 1 });
        }
        let rate = learning_rate(self.options.learning_rate, index, self.options.warmup, total_steps);
        self.state.moments.update(&mut self.state.adapter, &self.gradients, rate);
        self.state.step += 1;
        self.state.tokens_trained += batch.iter().map(|example| example.ids.len() as u64).sum::<u64>();
        let epoch_ends = self.state.step.is_multiple_of(per_epoch);
        Ok(Step {
            step: self.state.step,
            total_steps,
            epoch: epoch + 1,
            train,
            valid: self.valid_sample(),
            full_valid: epoch_ends.then(|| self.full_valid()).flatten(),
            tokens_trained: self.state.tokens_trained,
            learning_rate: rate,
            gradient_norm,
            checkpoint: epoch_ends.then(|| self.checkpoint()).transpose()?,
        })
    }

    /// Leaves in `self.gradients` those of the mean loss over the batch's targets.
    fn gradients_of(&mut self, batch: &[&Example]) -> Totals {
        self.gradients.tensors_mut().for_each(|tensor| tensor.fill(0.0));
        let targets: usize = batch.iter().map(|example| example.targets()).sum();
        let scale = 1.0 / targets as f32;
        let mut totals = Totals::default();
        for part in split_by_tokens(batch, self.options.pass_tokens) {
            let packed = Packed::new(part);
            let adapter = &self.state.adapter;
            totals.add(self.pass.loss_and_gradients(adapter, &packed, scale, &mut self.gradients));
        }
        totals
    }

    /// The next `batch_size` validation examples, in turn; when due.
    fn valid_sample(&mut self) -> Option<Metrics> {
        let (every, step) = (self.options.valid_every, self.state.step);
        if every == 0 || self.valid.is_empty() || !step.is_multiple_of(every) {
            return None;
        }
        let count = self.options.batch_size.min(self.valid.len());
        let start = (step / every - 1) * count;
        let sample = (start..start + count).map(|index| &self.valid[index % self.valid.len()]);
        Some(measure(&mut self.pass, Some(&self.state.adapter), sample, self.options.pass_tokens))
    }

    fn full_valid(&mut self) -> Option<Metrics> {
        let examples = self.valid.iter();
        (!self.valid.is_empty())
            .then(|| measure(&mut self.pass, Some(&self.state.adapter), examples, self.options.pass_tokens))
    }

    fn checkpoint(&self) -> Result<PathBuf, TrainError> {
        let dir = checkpoint_dir(self.dir, self.state.step);
        self.state.adapter.save(&dir, &self.weights.config, &self.options.base_model)?;
        Ok(dir)
    }
}
