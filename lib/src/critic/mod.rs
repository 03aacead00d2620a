//! The critic: evidence first, then a pure score of it.
//!
//! A candidate is read as data ([`statics`], [`lint`]), then run in a [`sandbox`] of its own as a real Streamlit server
//! and used through Streamlit's agent API ([`agent_api`], [`interact`], [`observe`]), and shown by a [`browser`] that the
//! candidate's server cannot lie to; [`witness`] compares the two. All that was seen is [`Evidence`]; [`score`] makes a
//! [`Critique`] of it and of nothing else; a [`judge`], where one is given, may lower it afterwards. Faults of a candidate are evidence; an error means that the critic could not
//! look.

mod agent_api;
mod browser;
mod critique;
mod error;
mod evidence;
mod findings;
mod fix;
#[cfg(test)]
mod fixtures;
mod guidelines;
mod habit;
mod interact;
mod judge;
mod lint;
mod observe;
mod page;
mod project;
mod rubric;
mod sandbox;
mod score;
mod statics;
mod used;
mod witness;
mod words;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use futures::{StreamExt, TryStreamExt, stream};
use sha2::{Digest, Sha256};
use tokio::{sync::Semaphore, time::Instant};

pub use browser::{Baseline, Layout, Rendered, Violation, Wire, baseline};
pub use critique::{Cap, Citation, Critique, Issue, Severity, SubScores};
pub use error::CriticError;
pub use evidence::{
    Action, BriefMatch, Call, Element, Evidence, Exception, Fault, FileFacts, Heading, Level, Lint,
    PageFacts, Run, RunStatus, SandboxFacts, Statics, Timing,
};
pub use guidelines::{Cited, Guideline, GuidelineError, GuidelineStore, Guidelines, Retrieved, cite};
pub use habit::{Check, Habit, Kept};
pub use judge::{
    Choice, Contender, Decided, Judge, JudgeOptions, Judged, JudgedItem, Preference, Tally,
    Usage as JudgeUsage,
};
pub use project::{Asset, Project, ProjectError};
pub use rubric::{Caps, JudgeRubric, Rubric, Weights};
pub use score::{Standards, judged, score, score_by};
pub(crate) use statics::{Glance, Nature, SOURCE_CAP, STACK, glance, on_deep_stack};
pub use used::After;
pub use witness::Agreement;

use self::{
    agent_api::AgentApi,
    browser::{Browser, Looked},
    observe::Observed,
    sandbox::{Job, Lease, Nursery, Pool, SandboxSpec},
};
use crate::{
    agent::{Candidate, SourceFile},
    brief::Brief,
    cancel::Cancel,
};

/// Scores of different versions are never compared or mixed.
pub const VERSION: &str = "3";

/// Sandboxes that may end by themselves before one takes a candidate.
const ATTEMPTS: usize = 3;
/// Ruff takes 10 ms for a file, most of it to start.
const LINTED_AT_ONCE: usize = 4;

/// The programs that the critic uses.
#[derive(Clone, Debug)]
pub struct CriticRuntime {
    /// Python of the environment that has Streamlit.
    pub python: PathBuf,
    /// Bubblewrap, when it was found.
    pub bwrap: Option<PathBuf>,
    pub ruff: PathBuf,
    /// Chromium, when it was found; without it no score goes beyond level `run`.
    pub chromium: Option<PathBuf>,
}

/// How the critic works.
#[derive(Clone, Debug)]
pub struct CriticOptions {
    /// Score without running anything: the user's explicit choice, recorded in the evidence.
    pub static_only: bool,
    /// Candidates that run at once.
    pub workers: usize,
    /// Sandboxes that are started ahead of demand.
    pub ahead: usize,
    /// Where screenshots are kept; none are without it.
    pub screenshots: Option<PathBuf>,
    pub standards: Standards,
    /// A model that may lower what execution allows.
    pub judge: Option<Judge>,
}

impl Default for CriticOptions {
    /// As many at once as there are cores: waiting and computing balance.
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        Self {
            static_only: false,
            workers: cores.clamp(1, 16),
            ahead: cores.clamp(1, 8),
            screenshots: None,
            standards: Standards::default(),
            judge: None,
        }
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
    browser: Option<Browser>,
    screenshots: Option<PathBuf>,
    standards: Standards,
    /// With the fingerprint of the rubric, when it is not the shipped one.
    observer: String,
    judge: Option<Judge>,
    /// The same with the judge's fingerprint, when there is one.
    version: String,
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
        let workers = options.workers.max(1);
        let (mut pool, mut shown, mut isolation) = (None, None, "none");
        if !options.static_only {
            let spec = spec(&runtime).await?;
            versions.extend(spec.versions.clone());
            isolation = spec.isolation.name();
            let pictures = options.screenshots.is_some()
                || options.judge.as_ref().is_some_and(|judge| judge.pictures().is_some());
            shown = browser(&runtime, &spec, workers, pictures);
            if let Some(browser) = &shown {
                versions.insert("chromium".to_owned(), browser.version().await?);
                versions.insert("axe".to_owned(), browser::AXE_VERSION.to_owned());
            }
            let nursery = Nursery::new(spec, observe::WAIT_SECONDS);
            pool = Some(Pool::open(nursery, workers, options.ahead, cancel));
        }
        let pictures = || options.judge.as_ref().and_then(Judge::pictures);
        let (at_once, screenshots) = (Semaphore::new(workers), options.screenshots.or_else(pictures));
        let (standards, observer) = (options.standards.clone(), options.standards.version());
        let version = options.judge.as_ref().map_or_else(|| observer.clone(), |j| j.version(&observer));
        let shared = Shared {
            judge: options.judge,
            observer,
            runtime,
            pool,
            browser: shown,
            screenshots,
            standards,
            version,
            isolation,
            at_once,
            workers,
            versions,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Candidates that it can run at once.
    pub fn workers(&self) -> usize {
        self.shared.workers
    }

    /// Version of its scores: those of another do not compare.
    pub fn version(&self) -> &str {
        &self.shared.version
    }

    /// How far its observations can go: scores of different levels do not compare.
    pub fn level(&self) -> Level {
        match (&self.shared.pool, &self.shared.browser) {
            (None, _) => Level::Static,
            (Some(_), None) => Level::Run,
            (Some(_), Some(_)) => Level::Browser,
        }
    }

    /// Observes as far as it can, and scores.
    pub async fn critique(
        &self,
        brief: &Brief,
        candidate: &Candidate,
    ) -> Result<(Evidence, Critique), CriticError> {
        self.critique_to(brief, candidate, Level::Browser).await
    }

    /// Observes no further than a level, and scores: a search looks at many and shows few to the browser.
    pub async fn critique_to(
        &self,
        brief: &Brief,
        candidate: &Candidate,
        level: Level,
    ) -> Result<(Evidence, Critique), CriticError> {
        let evidence = self.observe(brief, candidate, level).await?;
        let executed = score_by(&evidence, &self.shared.standards);
        let critique = self.judged(brief, candidate, &evidence, executed).await?;
        Ok((evidence, critique))
    }

    /// Observes an app that people keep as far as it can, and scores: its first file is the one that is run.
    pub async fn critique_project(
        &self,
        brief: &Brief,
        project: &Project,
    ) -> Result<(Evidence, Critique), CriticError> {
        let job = Job::of_project(project);
        let evidence = self.observe_job(brief, &project.candidate, job, Level::Browser).await?;
        let executed = score_by(&evidence, &self.shared.standards);
        let critique = self.judged(brief, &project.candidate, &evidence, executed).await?;
        Ok((evidence, critique))
    }

    /// What there is to see about a candidate, no further than a level.
    pub async fn observe(
        &self,
        brief: &Brief,
        candidate: &Candidate,
        level: Level,
    ) -> Result<Evidence, CriticError> {
        self.observe_job(brief, candidate, Job::of(candidate), level).await
    }

    async fn observe_job(
        &self,
        brief: &Brief,
        candidate: &Candidate,
        job: Option<Job>,
        level: Level,
    ) -> Result<Evidence, CriticError> {
        let start = Instant::now();
        let mut statics = statics::analyse(candidate).await?;
        self.lint(candidate, &mut statics).await?;
        let level = level.min(self.level());
        let mut evidence = Evidence {
            level,
            critic: self.shared.observer.clone(),
            source_sha256: fingerprint(candidate),
            versions: self.shared.versions.clone(),
            statics,
            brief: words::wanted(brief),
            ..Evidence::default()
        };
        if level < Level::Browser {
            evidence.versions.retain(|name, _| name != "chromium" && name != "axe");
        }
        if let Some(pool) = self.shared.pool.as_ref().filter(|_| level > Level::Static) {
            evidence.sandbox.kind = "bubblewrap".to_owned();
            self.shared.isolation.clone_into(&mut evidence.sandbox.isolation);
            self.run(pool, candidate, job, &mut evidence).await?;
        }
        evidence.timing.total_ms = millis(start);
        Ok(evidence)
    }

    /// A source with what can be mended without understanding it mended; none when that is nothing.
    ///
    /// # Errors
    /// Ruff cannot be started.
    pub async fn fix(&self, file: &SourceFile) -> Result<Option<String>, CriticError> {
        fix::fix(&self.shared.runtime.ruff, file, &self.target()).await
    }

    /// Ends every sandbox and waits for it.
    pub async fn close(self) {
        if let Some(pool) = &self.shared.pool {
            pool.close().await;
        }
        if let Some(browser) = &self.shared.browser {
            browser.close().await;
        }
    }

    /// Ruff's name for the Python that runs candidates.
    fn target(&self) -> String {
        lint::target(self.shared.versions.get("python").map(String::as_str))
    }

    async fn lint(&self, candidate: &Candidate, statics: &mut Statics) -> Result<(), CriticError> {
        let clean = |path: &str| statics.files.iter().any(|f| f.path == path && f.python && f.parses);
        let files: Vec<_> = candidate.files.iter().filter(|file| clean(&file.path)).cloned().collect();
        let ruff = self.shared.runtime.ruff.as_path();
        let target = self.target();
        let target = target.as_str();
        let each = |file: SourceFile| async move { lint::lint(ruff, &file, target).await };
        let linted = stream::iter(files).map(each).buffered(LINTED_AT_ONCE);
        statics.lint.extend(linted.try_concat().await?);
        Ok(())
    }

    async fn run(
        &self,
        pool: &Pool,
        candidate: &Candidate,
        job: Option<Job>,
        evidence: &mut Evidence,
    ) -> Result<(), CriticError> {
        let observed = match (certainly_nothing(&evidence.statics), job) {
            (Some(why), _) => skipped(why),
            (None, None) => skipped("the reply holds nothing that can run"),
            (None, Some(job)) => self.run_job(pool, &job, evidence).await?,
        };
        let mut run = observed.run;
        if evidence.statics.tamper.is_empty() && evidence.agreement.agrees() {
            words::find(&mut evidence.brief, &observed.page);
        }
        evidence.actions = observed.actions;
        evidence.pages = observed.pages;
        name_places(candidate, run.exceptions.iter_mut().map(|exception| &mut exception.at));
        name_places(candidate, evidence.actions.iter_mut().map(|action| &mut action.at));
        let others = evidence.pages.iter_mut().flat_map(|page| &mut page.exceptions);
        name_places(candidate, others.map(|exception| &mut exception.at));
        evidence.run = Some(run);
        evidence.untried = observed.untried;
        evidence.timing.first_ms = observed.first_ms;
        Ok(())
    }

    /// Runs the app; once more when the witnesses contradict each other, because an app that differs from session to
    /// session is no forgery.
    async fn run_job(
        &self,
        pool: &Pool,
        job: &Job,
        evidence: &mut Evidence,
    ) -> Result<Observed, CriticError> {
        let closed = |_| CriticError::Cancelled;
        let start = Instant::now();
        let _place = self.shared.at_once.acquire().await.map_err(closed)?;
        evidence.timing.queue_ms = millis(start);
        let observed = self.run_once(pool, job, evidence).await?;
        if evidence.agreement.agrees() {
            return Ok(observed);
        }
        let again = self.run_once(pool, job, evidence).await?;
        evidence.agreement.unsteady = evidence.agreement.agrees();
        Ok(again)
    }

    async fn run_once(
        &self,
        pool: &Pool,
        job: &Job,
        evidence: &mut Evidence,
    ) -> Result<Observed, CriticError> {
        let start = Instant::now();
        let lease = take_and_give(pool, job).await?;
        evidence.timing.queue_ms += millis(start);
        evidence.sandbox.seccomp = lease.worker.seccomp;
        evidence.sandbox.forked = lease.worker.is_forked();
        let api = AgentApi::new(lease.worker.socket());
        let mut presses = Vec::new();
        let mut observed = match observe::open(&api).await {
            Ok(mut first) => {
                // Before anything is used: what a control leaves behind in the process is not what a visitor sees.
                if let Some(browser) =
                    self.shared.browser.as_ref().filter(|_| evidence.level == Level::Browser)
                {
                    let start = Instant::now();
                    let mut looked = browser.look(&lease.worker.socket(), &witness::ids()).await?;
                    evidence.timing.browser_ms += millis(start);
                    presses = std::mem::take(&mut looked.presses);
                    self.take_in(looked, &mut first, evidence)?;
                }
                let most = if evidence.level == Level::Browser { interact::MOST } else { interact::SOME };
                observe::use_page(&api, first, most).await
            }
            Err(nothing) => nothing,
        };
        lease.close().await;
        let Evidence { statics, agreement, .. } = evidence;
        agreement.contradictions.extend(used::compare(&presses, &mut observed.actions, statics));
        used::discount(&mut observed.actions, statics);
        Ok(observed)
    }

    /// Compares what the browser showed with the snapshot, and keeps its pictures.
    fn take_in(
        &self,
        looked: Looked,
        first: &mut observe::First,
        evidence: &mut Evidence,
    ) -> Result<(), CriticError> {
        let Looked { mut rendered, items, uploads, shots, presses: _ } = looked;
        let Observed { run, page, .. } = &mut first.observed;
        evidence.agreement = witness::compare(run, first.boxes, &mut rendered, &items);
        // Evidence keeps the first of a page's elements; those beyond were not compared.
        let unseen = run.elements.iter().map(|element| element.unseen).chain(std::iter::repeat(true));
        page.shown.iter_mut().zip(unseen).for_each(|(shown, unseen)| shown.element.unseen = unseen);
        first.observed.uploads(uploads);
        if let Some(folder) = &self.shared.screenshots {
            for (width, bytes) in shots {
                let name = format!("{:.16}-{width}.webp", evidence.source_sha256);
                crate::store::write_atomic(&folder.join(&name), &bytes)?;
                rendered.screenshots.push(name);
            }
        }
        evidence.browser = Some(rendered);
        Ok(())
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
    /// The look in a browser, its start not counted; null without a browser.
    pub look_ms: Option<u64>,
}

/// Runs a trivial app in a sandbox and shows it to the browser, for `hone doctor` and `hone setup`.
pub async fn probe(runtime: &CriticRuntime) -> Result<SandboxReport, CriticError> {
    let spec = spec(runtime).await?;
    let isolation = spec.isolation.name().to_owned();
    let start = Instant::now();
    let nursery = Nursery::new(spec.clone(), observe::WAIT_SECONDS);
    let worker = nursery.worker(63).await?;
    let start_ms = millis(start);
    let mut versions = worker.versions.clone();
    let app = Candidate::single("app.py", "import streamlit as st\nst.title('probe')\nst.button('go')\n");
    let job = Job::of(&app).ok_or_else(|| CriticError::Internal("a trivial app is no job".to_owned()))?;
    let given = worker.give(&job).await;
    given.map_err(|e| CriticError::NoSandbox(format!("it does not take an app: {e}")))?;
    let observed = observe::observe(&AgentApi::new(worker.socket())).await;
    let look_ms = match browser(runtime, &spec, 1, false) {
        Some(browser) => {
            versions.insert("chromium".to_owned(), browser.version().await?);
            Some(probe_look(&browser, &worker.socket()).await?)
        }
        None => None,
    };
    worker.kill().await;
    match observed.run {
        run if run.status == RunStatus::Ready && run.visible() == 2 => {
            Ok(SandboxReport { isolation, versions, start_ms, first_ms: observed.first_ms, look_ms })
        }
        run => Err(CriticError::NoSandbox(format!(
            "a trivial app does not run in it: {:?} {}",
            run.status,
            run.detail.unwrap_or_default()
        ))),
    }
}

/// How long a look takes, in milliseconds.
async fn probe_look(browser: &Browser, socket: &Path) -> Result<u64, CriticError> {
    let start = Instant::now();
    let looked = browser.look(socket, &witness::ids()).await?;
    browser.close().await;
    match looked.rendered.ready && looked.items.len() == 2 {
        true => Ok(millis(start)),
        false => Err(CriticError::Browser(format!(
            "it does not show a trivial app: {}",
            looked.rendered.detail.unwrap_or_else(|| format!("{} elements", looked.items.len()))
        ))),
    }
}

/// The browser, where there is one and there is something that draws pages for it.
fn browser(runtime: &CriticRuntime, spec: &SandboxSpec, pages: usize, pictures: bool) -> Option<Browser> {
    let (program, package) = runtime.chromium.as_deref().zip(spec.streamlit.as_deref())?;
    Some(Browser::new(spec.clone(), program, package, pages, pictures))
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
