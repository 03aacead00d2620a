//! Runs what is missing of a trial: generate, judge, write down.
//!
//! The world comes in as two async functions, so that the same code runs against a provider, the local server and a
//! test's closures.

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::pin,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use futures::{Stream, StreamExt, stream};
use rand::{SeedableRng, rngs::ChaCha8Rng, seq::SliceRandom};
use tokio::sync::Semaphore;

use super::{
    Arm, Generation, Judgement, Opened, Row, Trial, TrialError, TrialSpec, row::Key, sequential,
    spec::same_critic, verdict::Results,
};
use crate::{
    agent::{Candidate, parse_reply},
    brief::Brief,
    cancel::Cancel,
    error::Explain,
    event::{Event, Events, Phase},
    store::{StoreError, append_line, write_atomic},
};

/// How many calls of each sort are in flight at once; zero counts as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub generate: usize,
    pub judge: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { generate: 8, judge: 2 }
    }
}

/// Finishes a trial and returns all its rows, in the order of the plan: brief by brief, sample by sample, arms shuffled
/// by seed.
///
/// Rows already there are not redone. `generate` gets the arm, the brief and the sample's ordinal (its sampling seed is
/// [`TrialSpec::sampling_seed`]); `judge` gets the parsed candidate. The first error stops new calls, lets those in
/// flight finish and be written, and is returned; a cancel returns at once. A trial that may stop early asks as many
/// briefs as the next look needs, and no more once the evidence is enough. Once complete, `results.jsonl` is put in the
/// order of the plan, so that equal replies give equal bytes whatever the concurrency was.
///
/// # Errors
/// What `generate` and `judge` return (an answer that never came is no zero score), a critic that changed midway, files
/// that cannot be written, and [`TrialError::Cancelled`].
pub async fn run<G, J, GE, JE>(
    opened: Opened,
    limits: Limits,
    generate: G,
    judge: J,
    events: &Events,
    cancel: &Cancel,
) -> Result<(Trial, Vec<Row>), TrialError>
where
    G: AsyncFn(&Arm, &Brief, u32) -> Result<Generation, GE>,
    J: AsyncFn(&Brief, &Candidate) -> Result<Judgement, JE>,
    GE: Explain + Send + Sync + 'static,
    JE: Explain + Send + Sync + 'static,
{
    let Opened { trial, rows, unreadable } = opened;
    warn_unreadable(&unreadable, events);
    let plan = plan(trial.spec());
    let ledger = Ledger::new(&trial, rows, &plan, events);
    let (generating, judging) = (Semaphore::new(limits.generate.max(1)), Semaphore::new(limits.judge.max(1)));
    let stopped = AtomicBool::new(false);
    let work = |unit: Unit| {
        let (ledger, stopped, generating, judging) = (&ledger, &stopped, &generating, &judging);
        let (generate, judge, spec) = (&generate, &judge, trial.spec());
        async move {
            let (brief, arm) = (&spec.briefs[unit.brief], &spec.arms[unit.arm]);
            let generation = {
                let _permit = generating.acquire().await;
                if stopped.load(Ordering::Relaxed) {
                    return Ok(());
                }
                generate(arm, brief, unit.sample).await
            };
            let generation = generation.map_err(|e| failed_generate(arm, brief, e))?;
            let candidate = parse_reply(&generation.reply);
            let judgement = {
                let _permit = judging.acquire().await;
                judge(brief, &candidate).await
            };
            let judgement = judgement.map_err(|e| failed_judge(arm, brief, e))?;
            ledger.add(Row::new(spec, (brief, arm, unit.sample), generation, candidate, judgement))
        }
    };
    let in_flight = limits.generate.max(1) + limits.judge.max(1);
    let per_brief = plan.len() / trial.spec().briefs.len();
    for stage in sequential::stages(trial.spec()) {
        if ledger.has_ended() {
            break;
        }
        let asked = plan[..stage * per_brief].iter().copied();
        let missing: Vec<Unit> = asked.filter(|unit| !ledger.has(&unit.key(trial.spec()))).collect();
        let results = stream::iter(missing).map(&work).buffer_unordered(in_flight);
        tokio::select! {
            biased;
            () = cancel.cancelled() => return Err(ledger.cancelled()),
            done = drain(results, &stopped) => done?,
        }
    }
    let rows = ledger.finish(&plan)?;
    Ok((trial, rows))
}

/// Waits for all that is in flight. The first error stops what has not begun, and is the one that is told.
async fn drain(
    results: impl Stream<Item = Result<(), TrialError>>,
    stopped: &AtomicBool,
) -> Result<(), TrialError> {
    let mut results = pin!(results);
    let mut first = Ok(());
    while let Some(result) = results.next().await {
        if result.is_err() {
            stopped.store(true, Ordering::Relaxed);
            first = first.and(result);
        }
    }
    first
}

fn warn_unreadable(unreadable: &[String], events: &Events) {
    if let Some(first) = unreadable.first() {
        let text = format!(
            "{} unreadable line(s) in the trial's results are ignored and redone: {first}",
            unreadable.len()
        );
        events.warn(text, None);
    }
}

fn failed_generate(arm: &Arm, brief: &Brief, e: impl Explain + Send + Sync + 'static) -> TrialError {
    TrialError::Generate { arm: arm.name.clone(), brief: brief.id.to_string(), cause: Box::new(e) }
}

fn failed_judge(arm: &Arm, brief: &Brief, e: impl Explain + Send + Sync + 'static) -> TrialError {
    TrialError::Judge { arm: arm.name.clone(), brief: brief.id.to_string(), cause: Box::new(e) }
}

/// One answer to get: places in the spec's briefs and arms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Unit {
    brief: usize,
    sample: u32,
    arm: usize,
}

impl Unit {
    fn key(self, spec: &TrialSpec) -> Key {
        (spec.briefs[self.brief].id.to_string(), self.sample, spec.arms[self.arm].name.clone())
    }
}

/// Every answer of the trial. The arms take turns in random order, so that whatever drifts while it runs (load, a
/// provider's mood) hits all of them alike.
fn plan(spec: &TrialSpec) -> Vec<Unit> {
    let mut rng = ChaCha8Rng::seed_from_u64(spec.seed);
    let mut units = Vec::new();
    for brief in sequential::order(spec) {
        for sample in 0..spec.samples {
            let mut arms: Vec<usize> = (0..spec.arms.len()).collect();
            arms.shuffle(&mut rng);
            units.extend(arms.into_iter().map(|arm| Unit { brief, sample, arm }));
        }
    }
    units
}

/// The rows so far, in memory and on disk.
struct Ledger<'a> {
    trial: &'a Trial,
    rows: Mutex<BTreeMap<Key, Row>>,
    total: usize,
    events: &'a Events,
}

impl<'a> Ledger<'a> {
    fn new(trial: &'a Trial, rows: Vec<Row>, plan: &[Unit], events: &'a Events) -> Self {
        let wanted: BTreeSet<Key> = plan.iter().map(|unit| unit.key(trial.spec())).collect();
        let rows = rows.into_iter().map(|row| (row.key(), row)).filter(|(key, _)| wanted.contains(key));
        let ledger = Self { trial, rows: Mutex::new(rows.collect()), total: plan.len(), events };
        events.emit(Event::Begin { phase: Phase::Test, total: Some(plan.len() as u64) });
        if ledger.done() > 0 {
            ledger.progress(ledger.done(), "picked up where the last run stopped".into());
        }
        ledger
    }

    fn rows(&self) -> std::sync::MutexGuard<'_, BTreeMap<Key, Row>> {
        // A panic elsewhere leaves whole rows behind.
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn done(&self) -> usize {
        self.rows().len()
    }

    fn has(&self, key: &Key) -> bool {
        self.rows().contains_key(key)
    }

    /// Whether a trial that may stop early has seen enough.
    fn has_ended(&self) -> bool {
        let spec = self.trial.spec();
        let rows = self.rows();
        let ended = || sequential::watch(spec, &Results::of(rows.values()), spec.reference()).stopped;
        spec.sequential && ended()
    }

    /// On disk first, then it counts.
    fn add(&self, row: Row) -> Result<(), TrialError> {
        if !row.has_score() {
            return Err(TrialError::NoScore { brief: row.brief });
        }
        let mut rows = self.rows();
        if let Some(first) = rows.values().next() {
            same_critic(first, &row)?;
        }
        append_line(&self.trial.results(), &row)?;
        let note = format!("{} {} {:.1}", row.brief, row.arm, row.score);
        rows.insert(row.key(), row);
        let done = rows.len();
        drop(rows);
        self.progress(done, note);
        Ok(())
    }

    fn progress(&self, done: usize, note: String) {
        let (done, total) = (done as u64, Some(self.total as u64));
        self.events.emit(Event::Progress { phase: Phase::Test, done, total, note });
    }

    fn cancelled(&self) -> TrialError {
        TrialError::Cancelled { done: self.done(), total: self.total }
    }

    /// All rows in the order of the plan; the file gets the same order.
    fn finish(self, plan: &[Unit]) -> Result<Vec<Row>, TrialError> {
        let mut rows = std::mem::take(&mut *self.rows());
        let rows: Vec<Row> =
            plan.iter().filter_map(|unit| rows.remove(&unit.key(self.trial.spec()))).collect();
        let (path, mut bytes) = (self.trial.results(), Vec::new());
        for row in &rows {
            let line = serde_json::to_vec(row).map_err(|e| StoreError::new("write", &path, e.into()))?;
            bytes.extend(line);
            bytes.push(b'\n');
        }
        write_atomic(&path, &bytes)?;
        let summary = format!("{} answers judged", rows.len());
        self.events.emit(Event::End { phase: Phase::Test, summary });
        Ok(rows)
    }
}

#[cfg(test)]
#[path = "run_tests.rs"]
mod tests;
