//! A run: epochs, steps, validation, checkpoints; and the evaluation of a model on examples.

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::batch::{Rows, Units, epoch_order, prepare};
use super::frozen::Frozen;
use super::objective::Lesson;
use super::optim::{clip, learning_rate};
use super::pass::Pass;
use super::state::{State, fingerprint};
use super::{Data, Example, Metrics, Options, TrainError};
use crate::lora::Adapter;

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
    /// No step follows.
    pub is_last: bool,
    /// Of the last step of a run with [`Options::early_stop`]: the earlier end of an epoch whose checkpoint is the result.
    pub result: Option<Best>,
}

/// The end of the epoch with the lowest validation loss.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Best {
    pub step: usize,
    pub loss: f64,
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
    /// Folder of the checkpoint that is the result: the last one, or the best one in a run with an early stop.
    pub checkpoint: PathBuf,
    pub steps: usize,
    pub tokens_trained: u64,
}

/// Fine-tunes an adapter on `data`, reporting each step to `on_step`; resumes when `dir` holds the state of this run.
///
/// `dir` receives `checkpoint-NNNNNN/` (a PEFT adapter, named by step) after each epoch and `state.safetensors`, about
/// every [`Options::save_every`] and at the end. Uses the current rayon pool.
///
/// # Errors
/// See [`TrainError`]. Nothing in `dir` is changed by a run that is refused.
pub fn run(
    frozen: &Frozen,
    data: &Data,
    options: &Options,
    dir: &Path,
    on_step: &mut dyn FnMut(Step) -> Control,
) -> Result<Outcome, TrainError> {
    options.check()?;
    let config = &frozen.config;
    let units = |rows: Rows| {
        prepare(rows, options.max_tokens.min(config.context), config.vocab).map(|prepared| prepared.units)
    };
    let (train, valid) = (units(data.train())?, units(data.valid())?);
    if train.is_empty() {
        return Err(TrainError::NothingToLearn { examples: data.train().len() });
    }
    let run_id = fingerprint(frozen, &train, &valid, options)?;
    let fresh = Adapter::new(config, &options.lora);
    std::fs::create_dir_all(dir).map_err(|source| TrainError::Io { path: dir.to_owned(), source })?;
    let state = State::load(dir, &run_id, &fresh)?.unwrap_or_else(|| State::new(fresh));
    let rows = largest_pass(&train, options.batch_size, options.pass_tokens);
    let lesson = |units: Units| match data {
        Data::Supervised { .. } => Lesson::predict(units, options.pass_tokens),
        Data::Preference { .. } => Lesson::prefer(units, options.beta, options.pass_tokens),
    };
    let runner = Runner {
        frozen,
        train: lesson(train),
        valid: lesson(valid),
        options,
        dir,
        run_id,
        gradients: state.adapter.zeros_like(),
        pass: Pass::new(frozen, rows),
        state,
    };
    runner.drive(on_step)
}

/// Loss and accuracy of the base model, or of a tuned one, over the trained tokens of `examples`. Examples longer than the
/// model's context lose their end.
///
/// # Errors
/// When an example does not fit the model's vocabulary.
pub fn evaluate(
    frozen: &Frozen,
    adapter: Option<&Adapter>,
    examples: &[Example],
) -> Result<Metrics, TrainError> {
    let units = prepare(Rows::Examples(examples), frozen.config.context, frozen.config.vocab)?.units;
    let pass_tokens = Options::default().pass_tokens;
    let all: Vec<usize> = (0..units.len()).collect();
    let mut pass = Pass::new(frozen, largest_pass(&units, units.len(), pass_tokens));
    let mut lesson = Lesson::predict(units, pass_tokens);
    Ok(in_pool(|| lesson.measure(&mut pass, adapter, &all)).metrics())
}

/// Does something on a thread of the pool: parallel loops in it start without waking anyone up first, of which a step has a
/// thousand.
fn in_pool<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    rayon::scope(|_| work())
}

/// Tokens of the largest part that a batch can be split into.
fn largest_pass(units: &Units, batch_size: usize, pass_tokens: usize) -> usize {
    let mut lengths: Vec<usize> = (0..units.len()).map(|index| units.tokens(index)).collect();
    lengths.sort_unstable_by(|a, b| b.cmp(a));
    let longest = lengths.first().copied().unwrap_or(0);
    lengths.iter().take(batch_size).sum::<usize>().min(pass_tokens.max(longest))
}

fn checkpoint_dir(dir: &Path, step: usize) -> PathBuf {
    dir.join(format!("checkpoint-{step:06}"))
}

/// A run in progress.
struct Runner<'a> {
    frozen: &'a Frozen,
    train: Lesson,
    valid: Lesson,
    options: &'a Options,
    dir: &'a Path,
    run_id: String,
    gradients: Adapter,
    pass: Pass<'a>,
    state: State,
}

impl Runner<'_> {
    fn steps_per_epoch(&self) -> usize {
        self.train.units.len().div_ceil(self.options.batch_size)
    }

    fn total_steps(&self) -> usize {
        self.steps_per_epoch() * self.options.epochs
    }

    fn is_over(&self) -> bool {
        self.state.validation.ended || self.state.step == self.total_steps()
    }

    /// Steps until the end or until told to stop.
    ///
    /// A step is reported before the state that contains it is saved: a kill in between reports it twice, never not at
    /// all.
    fn drive(mut self, on_step: &mut dyn FnMut(Step) -> Control) -> Result<Outcome, TrainError> {
        let mut saved = Instant::now();
        while !self.is_over() {
            let control = on_step(self.step()?);
            let step = self.state.step;
            let by_count =
                self.options.save_every_steps > 0 && step.is_multiple_of(self.options.save_every_steps);
            let due = by_count || self.is_over() || saved.elapsed() >= self.options.save_every;
            if due || control == Control::Stop {
                self.state.save(self.dir, &self.run_id)?;
                saved = Instant::now();
            }
            if control == Control::Stop && !self.is_over() {
                return Ok(Outcome::Stopped { step, total_steps: self.total_steps() });
            }
        }
        let steps = self.state.step;
        Ok(Outcome::Finished(Trained {
            checkpoint: checkpoint_dir(self.dir, self.best().map_or(steps, |best| best.step)),
            steps,
            tokens_trained: self.state.tokens_trained,
        }))
    }

    fn step(&mut self) -> Result<Step, TrainError> {
        let (per_epoch, total_steps) = (self.steps_per_epoch(), self.total_steps());
        let (index, epoch) = (self.state.step, self.state.step / per_epoch);
        let batch = self.batch(epoch, index % per_epoch);
        self.gradients.tensors_mut().for_each(|tensor| tensor.fill(0.0));
        let (adapter, gradients) = (&self.state.adapter, &mut self.gradients);
        let train = in_pool(|| self.train.gradients(&mut self.pass, adapter, &batch, gradients)).metrics();
        let gradient_norm = clip(&mut self.gradients, self.options.clip);
        if !train.loss.is_finite() || !gradient_norm.is_finite() {
            return Err(TrainError::Diverged { step: index + 1 });
        }
        let rate = learning_rate(self.options.learning_rate, index, self.options.warmup, total_steps);
        in_pool(|| self.state.moments.update(&mut self.state.adapter, &self.gradients, rate));
        self.state.step += 1;
        self.state.tokens_trained +=
            batch.iter().map(|index| self.train.units.tokens(*index) as u64).sum::<u64>();
        let epoch_ends = self.state.step.is_multiple_of(per_epoch);
        let valid = self.valid_sample();
        let full_valid = epoch_ends.then(|| self.full_valid()).flatten();
        let checkpoint = epoch_ends.then(|| self.checkpoint()).transpose()?;
        if let Some(metrics) = full_valid {
            self.judge(metrics.loss);
        }
        Ok(Step {
            step: self.state.step,
            total_steps,
            epoch: epoch + 1,
            train,
            valid,
            full_valid,
            tokens_trained: self.state.tokens_trained,
            learning_rate: rate,
            gradient_norm,
            checkpoint,
            is_last: self.is_over(),
            result: self.best().filter(|best| self.is_over() && best.step != self.state.step),
        })
    }

    /// Units of batch `index` of an epoch (both from 0).
    fn batch(&self, epoch: usize, index: usize) -> Vec<usize> {
        let order = epoch_order(self.train.units.len(), self.options.seed, epoch);
        order.into_iter().skip(index * self.options.batch_size).take(self.options.batch_size).collect()
    }

    /// Takes the validation loss at the end of an epoch into account.
    fn judge(&mut self, loss: f64) {
        let step = self.state.step;
        let seen = &mut self.state.validation;
        match seen.best {
            Some(best) if best.loss <= loss || loss.is_nan() => seen.stale += 1,
            _ => (seen.best, seen.stale) = (Some(Best { step, loss }), 0),
        }
        seen.ended = self.options.early_stop.is_some_and(|stop| seen.stale >= stop.patience);
    }

    /// The epoch whose end is the result, in a run that looks for it.
    fn best(&self) -> Option<Best> {
        self.state.validation.best.filter(|_| self.options.early_stop.is_some())
    }

    /// The next `batch_size` validation units, in turn; when due.
    fn valid_sample(&mut self) -> Option<Metrics> {
        let (every, step, units) = (self.options.valid_every, self.state.step, self.valid.units.len());
        if every == 0 || units == 0 || !step.is_multiple_of(every) {
            return None;
        }
        let count = self.options.batch_size.min(units);
        let start = (step / every - 1) * count;
        let sample: Vec<usize> = (start..start + count).map(|index| index % units).collect();
        let adapter = Some(&self.state.adapter);
        Some(in_pool(|| self.valid.measure(&mut self.pass, adapter, &sample)).metrics())
    }

    fn full_valid(&mut self) -> Option<Metrics> {
        let all: Vec<usize> = (0..self.valid.units.len()).collect();
        let adapter = Some(&self.state.adapter);
        (!all.is_empty()).then(|| in_pool(|| self.valid.measure(&mut self.pass, adapter, &all)).metrics())
    }

    fn checkpoint(&self) -> Result<PathBuf, TrainError> {
        let dir = checkpoint_dir(self.dir, self.state.step);
        self.state.adapter.save(&dir, &self.frozen.config, &self.options.base_model)?;
        Ok(dir)
    }
}
