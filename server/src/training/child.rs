//! The training child: a process of its own that knows nothing but a job's folder.
//!
//! It may be killed at any time. Whatever it does on its way is either repeated with the same result (steps, names of
//! models, the result file) or looked up before it is done again (events), so the next child goes on as if nothing had
//! happened.

use std::{
    io::{self, Write},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use hone::{
    model::wire::{Checkpoint, CheckpointMetrics, Job, JobEvent, JobStatus, Level},
    store::{Lock, LockError, StoreError},
};
use hone_engine::{
    chat::ChatMessage,
    infer,
    lora::Adapter,
    model::Model,
    train::{self, Control, Data, Example, Frozen, Options, Outcome, Pair, Step, TrainError, Trained},
    weights::Weights,
};

use super::{
    data::{self, Format, Row},
    plan, report,
};
use crate::{
    disk::{Files, JobFolder, JobRecord, Tuned, TunedModel},
    ids,
};

/// Checkpoints that stay usable.
const KEPT: usize = 3;
/// How long to wait for whoever looks at the lock.
const LOCK_WAIT: Duration = Duration::from_secs(10);

/// Why a child gives up.
#[derive(Debug, thiserror::Error)]
enum Fault {
    /// The job's own fault: it has failed.
    #[error("{message}")]
    Job { code: &'static str, message: String, param: Option<&'static str> },
    /// The machine's: another child may have more luck.
    #[error("{0}")]
    Machine(String),
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::Machine(error.to_string())
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Machine(error.to_string())
    }
}

/// Trains the job in `folder`, or goes on training it. Returns the process's exit code: 0 when the job has come to an
/// end, whichever; 1 when it may be tried again, with the reason on stderr.
///
/// Products use no instructions beyond those of `kernels`, and f32 where those are exact and the job names no precision.
///
/// Call it at the start of a process made for it: the process becomes a session of its own, so that closing the terminal
/// leaves it running, and gives way to interactive work.
pub fn run_training_child(folder: &Path, kernels: infer::Options) -> u8 {
    // A process group leader cannot start a session, and needs none.
    let _ = rustix::process::setsid();
    let _ = rustix::process::nice(5);
    let folder = JobFolder::at(folder);
    match run(&folder, kernels) {
        Ok(()) => 0,
        Err(Fault::Machine(why)) => {
            // Nobody may read stderr; the exit code says enough.
            let _ = writeln!(io::stderr(), "{why}");
            1
        }
        Err(Fault::Job { code, message, param }) => match folder.fail(code, &message, param) {
            Ok(()) => 0,
            Err(error) => {
                let _ = writeln!(io::stderr(), "{error}");
                1
            }
        },
    }
}

fn run(folder: &JobFolder, kernels: infer::Options) -> Result<(), Fault> {
    let _lock = lock(folder)?;
    let record = folder.read()?;
    if !record.job.status.is_trained() {
        return Ok(());
    }
    let record = folder.update(|record| record.job.status = JobStatus::Running)?;
    let run = Run::new(folder, record, kernels)?;
    // One job trains at a time, so what is half written is nobody's any more.
    run.tuned.clean();
    run.start()
}

/// Takes the lock; a server that only looks whether it is free has it for an instant.
fn lock(folder: &JobFolder) -> Result<Lock, Fault> {
    let started = Instant::now();
    loop {
        match folder.lock() {
            Ok(lock) => return Ok(lock),
            Err(LockError::Busy { .. }) if started.elapsed() < LOCK_WAIT => {
                std::thread::sleep(Duration::from_millis(50));
            }
            Err(error) => return Err(Fault::Machine(error.to_string())),
        }
    }
}

/// The rows of a file as tokens, and their lines. Of `examples` and `pairs` one is empty.
#[derive(Default)]
struct Rows {
    examples: Vec<Example>,
    pairs: Vec<Pair>,
    lines: Vec<usize>,
}

/// A job being trained.
struct Run<'a> {
    folder: &'a JobFolder,
    record: JobRecord,
    files: Files,
    tuned: Tuned,
    kernels: infer::Options,
    /// The last step that the history has.
    reported: u64,
}

impl<'a> Run<'a> {
    fn new(folder: &'a JobFolder, record: JobRecord, kernels: infer::Options) -> Result<Self, Fault> {
        let root = folder.path().parent().and_then(Path::parent);
        let root =
            root.ok_or_else(|| Fault::Machine("the job's folder is not in a server's folder".into()))?;
        let reported = folder.events()?.iter().filter_map(report::step_of).max().unwrap_or(0);
        Ok(Self { folder, record, files: Files::new(root), tuned: Tuned::new(root), kernels, reported })
    }

    fn job(&self) -> &Job {
        &self.record.job
    }

    fn start(mut self) -> Result<(), Fault> {
        if !self.folder.events()?.iter().any(|event| event.message == STARTED) {
            let event = JobEvent::new(ids::random("ftevent-"), ids::now(), Level::Info, STARTED);
            self.folder.append(&JobEvent { data: None, ..event })?;
        }
        let model = load(&self.record.base.path)?;
        let train = self.rows(&model, &self.job().training_file, "training_file")?;
        let valid = match &self.job().validation_file {
            Some(file) => self.rows(&model, file, "validation_file")?,
            None => Rows::default(),
        };
        let weights = self.with_parents(model)?;
        let frozen =
            Frozen::with(weights, plan::precision(self.job(), self.kernels.precision), self.kernels.level);
        self.folder.event_once(Level::Info, &format!("Computing in {}", frozen.computing()))?;
        match self.train(&frozen, &train, &valid)? {
            Outcome::Stopped { .. } if self.folder.is_cancel_asked() => Ok(self.folder.cancelled()?),
            Outcome::Stopped { step, total_steps } => Ok(self.folder.paused(Some((step, total_steps)))?),
            Outcome::Finished(trained) => self.finish(&trained),
        }
    }

    /// The weights to start from: the base model's, or those of the tuned model that is trained further. They are changed
    /// where they are: a copy would be the largest thing that training ever holds.
    fn with_parents(&self, model: Model) -> Result<Weights, Fault> {
        let mut weights = Arc::unwrap_or_clone(model.weights);
        let Some(parent) = &self.record.parent else { return Ok(weights) };
        let gone = || Fault::Job {
            code: "model_not_available",
            message: format!("model `{parent}`, which this job goes on from, is gone"),
            param: Some("model"),
        };
        for link in self.tuned.chain(parent)?.ok_or_else(gone)? {
            let adapter = Adapter::load(&self.tuned.folder(&link.id), &weights.config);
            adapter.map_err(|e| Fault::Machine(e.to_string()))?.merge_into(&mut weights);
        }
        Ok(weights)
    }

    fn rows(&self, model: &Model, file: &str, param: &'static str) -> Result<Rows, Fault> {
        let path = self.files.content(file);
        let code = super::supervisor::data_code(param);
        let gone = |e: io::Error| Fault::Job {
            code,
            message: format!("file `{file}` cannot be read: {e}"),
            param: Some(param),
        };
        let mut rows = Rows::default();
        data::read(&path, Format::of(self.job()), |line, row| {
            let render = |messages: &[ChatMessage]| {
                let rendered = model.render_training(messages);
                let (ids, trained) = rendered.map_err(|e| io::Error::other(format!("line {line}: {e}")))?;
                io::Result::Ok(Example { ids, trained })
            };
            rows.lines.push(line);
            match row {
                Row::Chat(messages) => rows.examples.push(render(&messages)?),
                Row::Pair { preferred, non_preferred } => rows
                    .pairs
                    .push(Pair { preferred: render(&preferred)?, non_preferred: render(&non_preferred)? }),
            }
            Ok(())
        })
        .map_err(gone)?;
        Ok(rows)
    }

    fn train(&mut self, frozen: &Frozen, train: &Rows, valid: &Rows) -> Result<Outcome, Fault> {
        let options = plan::options(self.job(), &self.record.base.id);
        let data = if self.job().is_dpo() {
            Data::Preference { train: &train.pairs, valid: &valid.pairs }
        } else {
            Data::Supervised { train: &train.examples, valid: &valid.examples }
        };
        self.warn(&data, &options, frozen, &train.lines)?;
        let run_path = self.folder.run_path();
        let (mut clock, mut fault) = (Clock::start(), None);
        let mut on_step = |step: Step| match self.step(&step, &mut clock) {
            Ok(control) => control,
            Err(error) => {
                fault = Some(error);
                Control::Stop
            }
        };
        let outcome = train::run(frozen, &data, &options, &run_path, &mut on_step);
        match fault {
            Some(fault) => Err(fault),
            None => outcome.map_err(|error| self.training_fault(error)),
        }
    }

    /// Says before anything is trained which examples the length limit cuts.
    fn warn(&self, data: &Data, options: &Options, frozen: &Frozen, lines: &[usize]) -> Result<(), Fault> {
        let intake =
            train::intake(data, options, &frozen.config).map_err(|e| Fault::Machine(e.to_string()))?;
        for warning in report::warnings(&intake, lines) {
            self.folder.event_once(Level::Warn, &warning)?;
        }
        if options.early_stop.is_some() && self.job().validation_file.is_none() {
            let message = "`early_stopping_patience` has no effect, as there is no validation file";
            self.folder.event_once(Level::Warn, message)?;
        }
        Ok(())
    }

    fn training_fault(&self, error: TrainError) -> Fault {
        let message = error.to_string();
        match error {
            TrainError::NothingToLearn { .. } => {
                Fault::Job { code: "invalid_training_file", message, param: Some("training_file") }
            }
            TrainError::Diverged { .. } => {
                let message = format!("{message}: lower `learning_rate_multiplier`");
                Fault::Job { code: "training_diverged", message, param: Some("hyperparameters") }
            }
            TrainError::OtherRun { .. } | TrainError::State { .. } => {
                // Damaged, or of another version of the trainer: the next child starts over.
                let _ = std::fs::remove_dir_all(self.folder.run_path());
                Fault::Machine(message)
            }
            _ => Fault::Machine(message),
        }
    }

    fn step(&mut self, step: &Step, clock: &mut Clock) -> Result<Control, Fault> {
        if step.step as u64 > self.reported {
            self.folder.append(&report::event(step))?;
            self.reported = step.step as u64;
        }
        if let Some(adapter) = step.checkpoint.as_ref().filter(|_| !step.is_last || step.result.is_some()) {
            self.keep_checkpoint(step, adapter)?;
        }
        let finish = clock.estimate(step);
        self.folder.update(|record| record.job.estimated_finish = finish)?;
        if step.is_last {
            self.keep_final(step)?;
            return Ok(Control::Continue);
        }
        let stop = self.folder.is_cancel_asked() || self.folder.is_pause_asked();
        Ok(if stop { Control::Stop } else { Control::Continue })
    }

    /// Makes the model after an epoch usable; the oldest of too many goes.
    fn keep_checkpoint(&self, step: &Step, adapter: &Path) -> Result<(), Fault> {
        let id = format!("{}:ckpt-step-{}", self.model_id(&step.step.to_string()), step.step);
        self.tuned.add(&self.tuned_model(&id), adapter)?;
        self.list_checkpoint(report::metrics(step), &id)?;
        Ok(self
            .folder
            .event_once(Level::Info, &format!("Checkpoint created at step {} with model: {id}", step.step))?)
    }

    /// The last checkpoint is the tuned model itself: the state after the last step, or after the best epoch of a run that
    /// looks for it.
    fn keep_final(&self, step: &Step) -> Result<(), Fault> {
        let Some(best) = &step.result else {
            return self.list_checkpoint(report::metrics(step), &self.final_id());
        };
        self.folder.event_once(Level::Info, &report::best_epoch(step, best))?;
        let metrics = report::metrics_of_step(&self.folder.events()?, best.step as u64);
        self.list_checkpoint(metrics, &self.final_id())
    }

    fn list_checkpoint(&self, metrics: CheckpointMetrics, id: &str) -> Result<(), Fault> {
        let mut checkpoints = self.folder.checkpoints()?;
        checkpoints.retain(|known| known.fine_tuned_model_checkpoint != id);
        let name = format!("ftckpt_{}", ids::derived(&[&self.job().id, id], 24));
        checkpoints.push(Checkpoint::new(name, ids::now(), id, &self.job().id, metrics));
        while checkpoints.len() > KEPT {
            let oldest = checkpoints.remove(0);
            self.tuned.delete(&oldest.fine_tuned_model_checkpoint)?;
        }
        Ok(self.folder.write_checkpoints(&checkpoints)?)
    }

    fn finish(&self, trained: &Trained) -> Result<(), Fault> {
        let id = self.final_id();
        self.tuned.add(&self.tuned_model(&id), &trained.checkpoint)?;
        let result = self.write_results()?;
        self.folder.event_once(Level::Info, &format!("New fine-tuned model created: {id}"))?;
        self.folder.event_once(Level::Info, "The job has successfully completed")?;
        self.folder.end(JobStatus::Succeeded, |job| {
            job.fine_tuned_model = Some(id);
            job.trained_tokens = Some(trained.tokens_trained);
            job.result_files = vec![result];
        })?;
        // The model is safe in its own folder; the trainer's is large.
        let _ = std::fs::remove_dir_all(self.folder.run_path());
        Ok(())
    }

    fn write_results(&self) -> Result<String, Fault> {
        let content = report::result_file(&self.folder.events()?);
        let id = format!("file-{}", ids::derived(&[&self.job().id, "results"], 24));
        let size = content.len() as u64;
        let file =
            hone::model::wire::File::new(&id, "step_metrics.csv", "fine-tune-results", size, ids::now());
        self.files.write(&file, content.as_bytes())?;
        Ok(id)
    }

    fn final_id(&self) -> String {
        self.model_id("final")
    }

    /// Names depend on the job and the step alone. Every checkpoint has a last part of its own.
    fn model_id(&self, what: &str) -> String {
        let suffix = self.job().user_provided_suffix.as_deref().unwrap_or_default().to_lowercase();
        format!("ft:{}:local:{suffix}:{}", self.record.base.id, ids::derived(&[&self.job().id, what], 8))
    }

    fn tuned_model(&self, id: &str) -> TunedModel {
        TunedModel {
            id: id.into(),
            base: self.record.base.id.clone(),
            parent: self.record.parent.clone(),
            job: self.job().id.clone(),
            created: ids::now(),
        }
    }
}

const STARTED: &str = "Fine-tuning job started";

fn load(path: &Path) -> Result<Model, Fault> {
    Model::load(path).map_err(|e| Fault::Machine(format!("the base model cannot be loaded: {e}")))
}

/// Says when a run will be over, from the speed of this process.
struct Clock {
    started: Instant,
    first: Option<usize>,
}

impl Clock {
    fn start() -> Self {
        Self { started: Instant::now(), first: None }
    }

    /// Unix seconds of the expected end; none until a second step was seen.
    fn estimate(&mut self, step: &Step) -> Option<i64> {
        let Some(first) = self.first else {
            self.first = Some(step.step);
            self.started = Instant::now();
            return None;
        };
        let per_step = self.started.elapsed().as_secs_f64() / (step.step - first).max(1) as f64;
        let left = per_step * (step.total_steps - step.step) as f64;
        Some(ids::now().saturating_add(left.ceil() as i64))
    }
}
