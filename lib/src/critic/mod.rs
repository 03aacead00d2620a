//! The critic: evidence first, then a pure score of it.
//!
//! A candidate is read as data ([`statics`], [`lint`]), then run in a [`sandbox`] of its own as a real Streamlit server
//! and used through Streamlit's agent API ([`agent_api`], [`interact`], [`observe`]). All that was seen is
//! [`Evidence`]; [`score`] makes a [`Critique`] of it and of nothing else. Faults of a candidate are evidence; an error
//! means that the critic could not look.

mod agent_api;
mod critique;
mod error;
mod evidence;
mod findings;
#[cfg(test)]
mod fixtures;
mod guidelines;
mod interact;
mod lint;
mod observe;
mod page;
mod sandbox;
mod score;
mod statics;
mod words;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use sha2::{Digest, Sha256};
use tokio::{sync::Semaphore, time::Instant};

pub use critique::{Cap, Citation, Critique, Issue, Severity, SubScores};
pub use error::CriticError;
pub use evidence::{
    Action, BriefMatch, Call, Element, Evidence, Exception, Fault, FileFacts, Heading, Level, Lint, Run,
    RunStatus, SandboxFacts, Statics, Timing,
};
pub use guidelines::{Cited, Guideline, GuidelineError, GuidelineStore, Guidelines, Retrieved, cite};
pub use score::score;
pub(crate) use statics::{SOURCE_CAP, on_deep_stack};

use self::{
    agent_api::AgentApi,
    observe::Observed,
    sandbox::{Job, Lease, Pool, SandboxSpec},
};
use crate::{agent::Candidate, brief::Brief, cancel::Cancel};

/// Scores of different versions are never compared or mixed.
pub const VERSION: &str = "1";

/// Sandboxes that may end by themselves before one takes a candidate.
const ATTEMPTS: usize = 3;

/// The programs that the critic uses.
#[derive(Clone, Debug)]
pub struct CriticRuntime {
    /// Python of the environment that has Streamlit.
    pub python: PathBuf,
    /// Bubblewrap, when it was found.
    pub bwrap: Option<PathBuf>,
    pub ruff: PathBuf,
}

/// How the critic works.
#[derive(Clone, Copy, Debug)]
pub struct CriticOptions {
    /// Score without running anything: the user's explicit choice, recorded in the evidence.
    pub static_only: bool,
    /// Candidates that run at once.
    pub workers: usize,
    /// Sandboxes that are started ahead of demand.
    pub ahead: usize,
}

impl Default for CriticOptions {
    /// As many at once as there are cores: waiting and computing balance.
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        Self { static_only: false, workers: cores.clamp(1, 16), ahead: cores.clamp(1, 8) }
    }
}

/// Observes and scores candidates; cheap to clone.
#[derive(Clone)]
pub struct Critic {
    shared: Arc<Shared>,
}

struct Shared {
    runtime: CriticRuntime,
    /// Null when the user opted for static scoring.
    pool: Option<Pool>,
    isolation: &'static str,
    at_once: Semaphore,
    workers: usize,
    versions: BTreeMap<String, String>,
}

impl Critic {
    /// Finds out what there is to look with, whether candidates can be run, and starts the first sandboxes. Without one this is an error, unless the
    /// user chose `static_only`.
    pub async fn open(
        runtime: CriticRuntime,
        options: CriticOptions,
        cancel: &Cancel,
    ) -> Result<Self, CriticError> {
        let ruff = lint::version(&runtime.ruff).await?;
        let mut versions = BTreeMap::from([("ruff".to_owned(), ruff)]);
        let (pool, isolation) = if options.static_only {
            (None, "none")
        } else {
            let spec = spec(&runtime).await?;
            versions.extend(spec.versions.clone());
            let isolation = spec.isolation.name();
            let workers = options.workers.max(1);
            (Some(Pool::open(spec, workers, options.ahead, observe::WAIT_SECONDS, cancel)), isolation)
        };
        let at_once = Semaphore::new(options.workers.max(1));
        Ok(Self {
            shared: Arc::new(Shared {
                runtime,
                pool,
                isolation,
                at_once,
                workers: options.workers.max(1),
                versions,
            }),
        })
    }

    /// Candidates that it can run at once.
    pub fn workers(&self) -> usize {
        self.shared.workers
    }

    /// How far its observations go: scores of different levels do not compare.
    pub fn level(&self) -> Level {
        if self.shared.pool.is_some() { Level::Run } else { Level::Static }
    }

    /// Observes and scores.
    pub async fn critique(
        &self,
        brief: &Brief,
        candidate: &Candidate,
    ) -> Result<(Evidence, Critique), CriticError> {
        let evidence = self.observe(brief, candidate).await?;
        let critique = score(&evidence);
        Ok((evidence, critique))
    }

    /// Everything there is to see about a candidate.
    pub async fn observe(&self, brief: &Brief, candidate: &Candidate) -> Result<Evidence, CriticError> {
        let start = Instant::now();
        let mut statics = statics::analyse(candidate).await?;
        self.lint(candidate, &mut statics).await?;
        let mut evidence = Evidence {
            source_sha256: fingerprint(candidate),
            versions: self.shared.versions.clone(),
            statics,
            brief: words::wanted(brief),
            ..Evidence::default()
        };
        if let Some(pool) = &self.shared.pool {
            evidence.level = Level::Run;
            evidence.sandbox.kind = "bubblewrap".to_owned();
            self.shared.isolation.clone_into(&mut evidence.sandbox.isolation);
            self.run(pool, candidate, &mut evidence).await?;
        }
        evidence.timing.total_ms = millis(start);
        Ok(evidence)
    }

    /// Ends every sandbox and waits for it.
    pub async fn close(self) {
        if let Some(pool) = &self.shared.pool {
            pool.close().await;
        }
    }

    async fn lint(&self, candidate: &Candidate, statics: &mut Statics) -> Result<(), CriticError> {
        let clean = |path: &str| statics.files.iter().any(|f| f.path == path && f.python && f.parses);
        let files: Vec<_> = candidate.files.iter().filter(|file| clean(&file.path)).take(8).collect();
        for file in files {
            statics.lint.extend(lint::lint(&self.shared.runtime.ruff, file).await?);
        }
        Ok(())
    }

    async fn run(
        &self,
        pool: &Pool,
        candidate: &Candidate,
        evidence: &mut Evidence,
    ) -> Result<(), CriticError> {
        let observed = match (certainly_nothing(&evidence.statics), Job::of(candidate)) {
            (Some(why), _) => skipped(why),
            (None, None) => skipped("the reply holds nothing that can run"),
            (None, Some(job)) => self.run_job(pool, &job, evidence).await?,
        };
        let mut run = observed.run;
        if evidence.statics.tamper.is_empty() {
            words::find(&mut evidence.brief, &observed.page);
        }
        evidence.actions = observed.actions;
        name_places(candidate, run.exceptions.iter_mut().map(|exception| &mut exception.at));
        name_places(candidate, evidence.actions.iter_mut().map(|action| &mut action.at));
        evidence.run = Some(run);
        evidence.untried = observed.untried;
        evidence.timing.first_ms = observed.first_ms;
        Ok(())
    }

    async fn run_job(
        &self,
        pool: &Pool,
        job: &Job,
        evidence: &mut Evidence,
    ) -> Result<Observed, CriticError> {
        let start = Instant::now();
        let closed = |_| CriticError::Cancelled;
        let _place = self.shared.at_once.acquire().await.map_err(closed)?;
        let lease = take_and_give(pool, job).await?;
        evidence.timing.queue_ms = millis(start);
        let observed = observe::observe(&AgentApi::new(lease.worker.socket())).await;
        lease.close().await;
        Ok(observed)
    }
}

/// A worker that has the job. One that ended while it waited is no fault of the candidate, whose code has not run yet.
async fn take_and_give(pool: &Pool, job: &Job) -> Result<Lease, CriticError> {
    let mut last = None;
    for _ in 0..ATTEMPTS {
        let lease = pool.take().await?;
        match lease.worker.give(job).await {
            Ok(()) => return Ok(lease),
            Err(e) => last = Some(e),
        }
        lease.close().await;
    }
    let why = last.map(|e| e.to_string()).unwrap_or_default();
    Err(CriticError::NoSandbox(format!("{ATTEMPTS} sandboxes ended before they took an app: {why}")))
}

/// What a sandbox that works was seen to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SandboxReport {
    /// `own-uid` or `user-namespace`.
    pub isolation: String,
    pub versions: BTreeMap<String, String>,
    /// From start to ready.
    pub start_ms: u64,
    /// From the files to the first page.
    pub first_ms: u64,
}

/// Runs a trivial app in a sandbox, for `hone doctor` and `hone setup`.
pub async fn probe(runtime: &CriticRuntime) -> Result<SandboxReport, CriticError> {
    let spec = spec(runtime).await?;
    let isolation = spec.isolation.name().to_owned();
    let start = Instant::now();
    let worker = sandbox::Worker::start(&spec, 63, observe::WAIT_SECONDS).await?;
    let start_ms = millis(start);
    let versions = worker.versions.clone();
    let app = Candidate::single("app.py", "import streamlit as st\nst.title('probe')\nst.button('go')\n");
    let observed = match Job::of(&app) {
        Some(job) => {
            let given = worker.give(&job).await;
            given.map_err(|e| CriticError::NoSandbox(format!("it does not take an app: {e}")))?;
            observe::observe(&AgentApi::new(worker.socket())).await
        }
        None => Observed::default(),
    };
    worker.kill().await;
    match observed.run {
        run if run.status == RunStatus::Ready && run.visible() == 2 => {
            Ok(SandboxReport { isolation, versions, start_ms, first_ms: observed.first_ms })
        }
        run => Err(CriticError::NoSandbox(format!(
            "a trivial app does not run in it: {:?} {}",
            run.status,
            run.detail.unwrap_or_default()
        ))),
    }
}

async fn spec(runtime: &CriticRuntime) -> Result<SandboxSpec, CriticError> {
    let missing = || CriticError::NoSandbox("bubblewrap is not installed".to_owned());
    let bwrap: &Path = runtime.bwrap.as_deref().ok_or_else(missing)?;
    SandboxSpec::find(&runtime.python, bwrap).await
}

/// Why nothing can render, where the source alone makes it certain.
fn certainly_nothing(statics: &Statics) -> Option<&'static str> {
    let python = || statics.files.iter().filter(|file| file.python);
    if python().next().is_none() {
        return Some("no file is Python");
    }
    if python().all(|file| !file.parses) {
        return Some("no file compiles");
    }
    let streamlit = |module: &String| module == "streamlit" || module.starts_with("streamlit.");
    if !statics.imports.iter().any(streamlit) && statics.tamper.is_empty() {
        return Some("no file imports Streamlit");
    }
    None
}

fn skipped(why: &str) -> Observed {
    let run = Run { status: RunStatus::Skipped, detail: Some(why.to_owned()), ..Run::default() };
    Observed { run, ..Observed::default() }
}

/// Places in a job's files as places in the candidate's.
fn name_places<'a>(candidate: &Candidate, places: impl Iterator<Item = &'a mut Option<String>>) {
    for place in places {
        let Some((path, line)) = place.as_deref().and_then(|at| at.split_once(':')) else { continue };
        if let Some(original) = Job::original(candidate, path) {
            *place = Some(format!("{original}:{line}"));
        }
    }
}

fn fingerprint(candidate: &Candidate) -> String {
    let mut hash = Sha256::new();
    for file in &candidate.files {
        for part in [&file.path, &file.content] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
    }
    crate::text::hex(&hash.finalize())
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}
