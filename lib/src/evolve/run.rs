//! Many briefs at once: skips what is finished, writes each log before it counts.
//!
//! A brief is worked on by one process at a time. What fails for one brief does not end the others, and what fails for all
//! ends the run only when the briefs under way are through: their calls are paid for.

use std::{
    path::PathBuf,
    time::{Duration, Instant, SystemTime},
};

use futures::{StreamExt, stream};
use serde::{Deserialize, Serialize};

use super::{
    bandit::{self, Bandit},
    log::{EvolutionLog, FORMAT, FORMAT_VERSION, LogEntry},
    search::{Found, Means, Options, Search, Teacher},
};
use crate::{
    agent::{PromptError, Writer},
    brief::Brief,
    cancel::Cancel,
    critic::{Critic, CriticError, GuidelineError, GuidelineStore, Tally},
    error::{Explain, Kind},
    event::{Event, Events, Phase},
    model::{
        client::ModelError,
        journal::{Journal, Sent},
    },
    store::{self, Lock, LockError, StoreError, Workspace},
};

/// Why evolving stopped.
#[derive(Debug, thiserror::Error)]
pub enum EvolveError {
    #[error("there is no brief to evolve")]
    NoBriefs,
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Critic(#[from] CriticError),
    #[error(transparent)]
    Guidelines(#[from] GuidelineError),
    #[error(transparent)]
    Prompt(#[from] PromptError),
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Some briefs failed, each for itself.
    #[error("{failed} of {of} briefs are not finished: {first}")]
    Unfinished { failed: usize, of: usize, first: Box<EvolveError> },
    #[error("stopped; finished evolutions are kept")]
    Cancelled,
}

impl EvolveError {
    /// A call or a look that was given up because everything is: whichever notices first, it is the same stop.
    fn or_stopped(self) -> Self {
        match self {
            Self::Model(ModelError::Cancelled)
            | Self::Critic(CriticError::Cancelled)
            | Self::Guidelines(GuidelineError::Service(ModelError::Cancelled)) => Self::Cancelled,
            other => other,
        }
    }

    /// It is about this brief: what a model made of it, or that it is too long. Others may go well.
    fn is_of_one_brief(&self) -> bool {
        match self {
            Self::Model(ModelError::Garbled { .. }) => true,
            Self::Model(error @ ModelError::Refused { .. }) => {
                error.kind() == Kind::Input || matches!(error.status(), Some(400 | 413 | 422))
            }
            _ => false,
        }
    }
}

impl Explain for EvolveError {
    fn kind(&self) -> Kind {
        match self {
            Self::NoBriefs => Kind::Input,
            Self::Unfinished { first, .. } => first.kind(),
            Self::Model(e) => e.kind(),
            Self::Critic(e) => e.kind(),
            Self::Guidelines(e) => e.kind(),
            Self::Prompt(e) => e.kind(),
            Self::Store(e) => e.kind(),
            Self::Cancelled => Kind::Cancelled,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::NoBriefs => {
                Some("`hone init` writes the shipped ones; or give a description or `--briefs FILE`".into())
            }
            Self::Model(e) => e.hint(),
            Self::Critic(e) => e.hint(),
            Self::Guidelines(e) => e.hint(),
            Self::Prompt(e) => e.hint(),
            Self::Store(e) => e.hint(),
            Self::Unfinished { .. } => Some(
                "run the same command again: finished briefs are kept, and no call is paid for twice".into(),
            ),
            Self::Cancelled => Some("run the same command again to go on".into()),
        }
    }
}

/// So many briefs that fail one after the other are not the briefs' fault.
const FAILURES_IN_A_ROW: usize = 3;
/// How often a brief is looked at that another process works on.
const OTHERS: Duration = Duration::from_millis(200);
/// A temporary file that nobody has touched for so long was left by a process that was killed.
const LEFT_OVER: Duration = Duration::from_secs(600);

const ABSENT_HINT: &str = "their scores are those of a critic without a judge: they come after all that were judged, and \
                           `hone prepare` leaves them out";

const CUT_HINT: &str =
    "raise `max_tokens` in the model's row or under `[agent]`; see docs/troubleshooting/cut-off.md";
const DECLINED_HINT: &str = "`finish_reason` in the logs says which; say otherwise what is wanted, or choose another model; \
                             see docs/troubleshooting/declined-by-the-model.md";

/// Result of `hone evolve`, over finished and newly made logs alike.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    pub evolutions: usize,
    /// How many of them were there already.
    pub reused: usize,
    pub target_reached: usize,
    pub mean_initial: f64,
    pub mean_final: f64,
    /// Model calls that were sent in this run; what the journal answered is not among them.
    pub calls: u64,
    /// What they cost; null when a price is unknown.
    pub usd: Option<f64>,
    pub took_ms: u64,
    /// Replies that came in this run and that the limit on their length cut.
    #[serde(default)]
    pub cut: u64,
    /// Replies that came in this run and that a model refused or its provider held back.
    #[serde(default)]
    pub declined: u64,
    /// What the judge did in this run, where there is one; its calls and their price are in those above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub judge: Option<Tally>,
}

/// Everything that evolving needs, handed in.
pub struct Evolver<'a> {
    pub workspace: &'a Workspace,
    pub agent: &'a Writer,
    pub teacher: &'a Teacher,
    pub critic: &'a Critic,
    /// Where guidelines for the teacher's prompts are searched.
    pub guidelines: &'a GuidelineStore,
    pub options: Options,
    /// Briefs worked on at once.
    pub concurrency: usize,
    pub events: &'a Events,
    pub cancel: &'a Cancel,
}

impl Evolver<'_> {
    /// Evolves every brief that has no finished log of the same text, agent, teacher, seed and critic. A log that answers
    /// another question is set aside, not overwritten.
    pub async fn run(&self, briefs: &[Brief]) -> Result<Summary, EvolveError> {
        if briefs.is_empty() {
            return Err(EvolveError::NoBriefs);
        }
        let (started, before) = (Instant::now(), self.sent());
        let total = Some(briefs.len() as u64);
        self.events.emit(Event::Begin { phase: Phase::Evolve, total });
        self.sweep();
        let mut run = Run { total, ..Run::default() };
        let mut open = Vec::new();
        for brief in briefs {
            match self.finished(brief) {
                Some(log) => self.report(&log, false, &mut run),
                None => open.push(brief),
            }
        }
        self.announce_set_aside(&open);
        let mut learnt = Bandit::default();
        for wave in self.waves(briefs) {
            let due = wave.iter().filter(|brief| open.contains(brief)).collect();
            let others = self.each(due, &learnt, false, &mut run).await;
            // What other processes worked on meanwhile is finished by now, or by one of us.
            self.each(others, &learnt, true, &mut run).await;
            if run.failures.may_pass() {
                // What a log teaches is missing as long as the log is: what comes later would be searched differently.
                break;
            }
            self.learn(wave, &mut learnt);
        }
        let Run { mut summary, unknown, failures, .. } = run;
        if let Some(error) = failures.into_error(briefs.len()) {
            return Err(error);
        }
        if unknown > 0 {
            self.events.warn(
                format!(
                    "the guideline store named {unknown} guidelines that do not exist: they were left out"
                ),
                Some(
                    "fill the store again from this version's table (`lib/src/critic/guidelines.jsonl`)"
                        .into(),
                ),
            );
        }
        let sent = self.sent().since(before);
        (summary.calls, summary.usd) = (sent.calls, sent.usd);
        summary.warn_of_halves(self.events);
        summary.add_judge(self.critic.judge().map(|judge| judge.tally()), self.events);
        summary.took_ms = started.elapsed().as_millis() as u64;
        self.events.emit(Event::End { phase: Phase::Evolve, summary: summary.sentence() });
        Ok(summary)
    }

    /// What agent, teacher and judge have sent; those that share a journal count together.
    fn sent(&self) -> Sent {
        let teacher = match self.teacher {
            Teacher::Model(writer) => Some(writer.journal()),
            Teacher::Composer(_) => None,
        };
        let judge = self.critic.judge().map(|judge| judge.journal());
        let mut journals: Vec<&Journal> = vec![self.agent.journal()];
        for journal in teacher.into_iter().chain(judge) {
            if !journals.iter().any(|known| known.is_shared_with(journal)) {
                journals.push(journal);
            }
        }
        let nothing = Sent { calls: 0, usd: Some(0.0) };
        journals.into_iter().map(Journal::sent).fold(nothing, |sum, sent| sum + sent)
    }

    /// Works on briefs, and waits for all that is under way when one of them ends it. Returns those that another process works
    /// on, unless they are waited for.
    async fn each<'b>(
        &self,
        briefs: Vec<&'b Brief>,
        learnt: &Bandit,
        wait: bool,
        run: &mut Run,
    ) -> Vec<&'b Brief> {
        let stopping = Cancel::new();
        if run.failures.end_the_run() {
            return Vec::new();
        }
        let mut results = stream::iter(briefs)
            .map(|brief| self.one(brief, learnt, wait, &stopping))
            .buffer_unordered(self.concurrency.max(1));
        let mut others = Vec::new();
        while let Some(result) = results.next().await {
            match result {
                Ok(Done::Made(log, declined)) => {
                    run.summary.add_halves(&log, declined);
                    run.unknown +=
                        log.evolution_history.iter().map(|entry| entry.guidelines_unknown).sum::<u32>();
                    run.failures.in_a_row = 0;
                    self.report(&log, true, run);
                }
                Ok(Done::Found(log)) => self.report(&log, false, run),
                Ok(Done::Others(brief)) => others.push(brief),
                Ok(Done::Skipped) => {}
                Err(error) => run.failures.add(error),
            }
            if run.failures.end_the_run() {
                stopping.cancel();
            }
        }
        others
    }

    fn report(&self, log: &EvolutionLog, new: bool, run: &mut Run) {
        run.summary.add(log, new);
        self.events.emit(Event::Evolved {
            id: log.id.clone(),
            initial_score: log.initial_score,
            final_score: log.final_score,
            iterations: log.total_iterations,
            target_reached: log.target_reached,
            reused: !new,
        });
        let done = run.summary.evolutions as u64;
        let note = format!("{}  {:.1} -> {:.1}", log.id, log.initial_score, log.final_score);
        self.events.emit(Event::Progress { phase: Phase::Evolve, done, total: run.total, note });
    }

    /// Says how many logs are about to be moved out of the way.
    fn announce_set_aside(&self, briefs: &[&Brief]) {
        let stale = briefs.iter().filter(|brief| self.log_path(brief).exists()).count();
        if stale > 0 {
            self.events.warn(
                format!(
                    "{stale} logs are of another text, agent, teacher, seed or critic: kept as `*.json.old`"
                ),
                Some("`--round N` keeps the logs of several runs apart".into()),
            );
        }
    }

    /// Removes halves of logs that killed processes left. What cannot be removed harms nobody.
    fn sweep(&self) {
        let Ok(entries) = std::fs::read_dir(self.workspace.logs()) else { return };
        let long_ago = SystemTime::now() - LEFT_OVER;
        for entry in
            entries.flatten().filter(|entry| entry.file_name().as_encoded_bytes().starts_with(b".tmp"))
        {
            let touched = entry.metadata().and_then(|data| data.modified());
            if touched.is_ok_and(|touched| touched < long_ago) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }

    /// Briefs that are worked on together. What a model that teaches learns of one wave is used in the next; the composer
    /// learns nothing.
    fn waves<'b>(&self, briefs: &'b [Brief]) -> Vec<&'b [Brief]> {
        match self.teacher {
            Teacher::Composer(_) => vec![briefs],
            Teacher::Model(_) => bandit::waves(briefs.len()).into_iter().map(|wave| &briefs[wave]).collect(),
        }
    }

    /// From the logs on disk, new or reused: what a later wave knows does not hang on which run made them.
    fn learn(&self, wave: &[Brief], learnt: &mut Bandit) {
        if let Teacher::Model(_) = self.teacher {
            let logs = wave.iter().filter_map(|brief| self.finished(brief));
            logs.for_each(|log| learnt.learn_from(&log.evolution_history));
        }
    }

    fn log_path(&self, brief: &Brief) -> PathBuf {
        self.workspace.log(brief.id.as_str(), self.options.round)
    }

    /// The right to work on a brief, until it is dropped; nothing while another process has it.
    fn claim(&self, brief: &Brief) -> Result<Option<Lock>, EvolveError> {
        let name = format!("briefs/{}.r{}", brief.id, self.options.round);
        match Lock::take(&self.workspace.lock(&name)) {
            Ok(lock) => Ok(Some(lock)),
            Err(LockError::Busy { .. }) => Ok(None),
            Err(LockError::Store(error)) => Err(error.into()),
        }
    }

    /// Evolves one brief; its log is on disk when this returns.
    async fn one<'b>(
        &self,
        brief: &'b Brief,
        learnt: &Bandit,
        wait: bool,
        stopping: &Cancel,
    ) -> Result<Done<'b>, EvolveError> {
        let _claim = loop {
            if self.cancel.is_cancelled() {
                return Err(EvolveError::Cancelled);
            }
            if stopping.is_cancelled() {
                return Ok(Done::Skipped);
            }
            match self.claim(brief)? {
                Some(claim) => break claim,
                None if !wait => return Ok(Done::Others(brief)),
                None => tokio::select! {
                    () = self.cancel.cancelled() => {}
                    () = stopping.cancelled() => {}
                    () = tokio::time::sleep(OTHERS) => {}
                },
            }
        };
        if let Some(log) = self.finished(brief) {
            return Ok(Done::Found(log));
        }
        let Self { agent, teacher, critic, guidelines, options, .. } = self;
        let search = Search::new(brief, Means { agent, teacher, critic, guidelines, options, learnt });
        let found = tokio::select! {
            found = search.run() => found.map_err(EvolveError::or_stopped)?,
            () = self.cancel.cancelled() => return Err(EvolveError::Cancelled),
        };
        let declined = found.declined;
        let (log, path) = (self.log(brief, found), self.log_path(brief));
        if path.exists() {
            store::set_aside(&path)?;
        }
        store::write_json(&path, &log)?;
        Ok(Done::Made(log, declined))
    }

    fn log(&self, brief: &Brief, found: Found) -> EvolutionLog {
        let initial_score = found.history.first().map_or(0.0, |entry| entry.critique.overall_score);
        // Where the judge was absent throughout, the log is not one of this critic, and another run makes it again.
        let best = found.history.iter().find(|entry| entry.iteration == found.best);
        let critic = best.map_or(self.critic.version(), |entry| &entry.critique.critic).to_owned();
        EvolutionLog {
            format: FORMAT.into(),
            version: FORMAT_VERSION,
            id: brief.id.to_string(),
            kind: brief.kind.clone(),
            family: brief.family.clone(),
            description: brief.description.clone(),
            requirements: brief.requirements.clone(),
            framework: brief.framework.clone().unwrap_or_else(|| "Streamlit".into()),
            target_score: self.options.target_score,
            max_iterations: self.options.max_iterations,
            seed: self.options.seed,
            critic,
            agent: self.agent.model().into(),
            teacher: self.teacher.name().into(),
            round: self.options.round,
            total_iterations: found.history.len() as u32,
            evolution_history: found.history,
            initial_score,
            final_score: found.score,
            best_iteration: found.best,
            improvement: found.score - initial_score,
            target_reached: found.target_reached,
            prompts: self.options.prompts.name().map(str::to_owned),
            pairs: found.pairs,
        }
    }

    /// A log that is there and still answers the same question.
    fn finished(&self, brief: &Brief) -> Option<EvolutionLog> {
        let log: EvolutionLog = serde_json::from_str(&store::read_text(&self.log_path(brief)).ok()?).ok()?;
        let same = log.version == FORMAT_VERSION
            && log.description == brief.description
            && log.requirements == brief.requirements
            && log.agent == self.agent.model()
            && log.teacher == self.teacher.name()
            && log.seed == self.options.seed
            && log.prompts.as_deref() == self.options.prompts.name()
            && self.options.imports.fit(&log)
            && log.critic == self.critic.version()
            && log.evolution_history.first().is_some_and(|entry| entry.evidence.level == self.critic.level());
        same.then_some(log)
    }
}

/// What became of a brief.
enum Done<'b> {
    /// With the times that the teacher declined, of which a log has no entry.
    Made(EvolutionLog, u32),
    /// Another process has finished it.
    Found(EvolutionLog),
    /// Another process works on it.
    Others(&'b Brief),
    /// The run ends before it was begun.
    Skipped,
}

/// A run so far.
#[derive(Default)]
struct Run {
    total: Option<u64>,
    summary: Summary,
    unknown: u32,
    failures: Failures,
}

/// What went wrong in a run.
#[derive(Default)]
struct Failures {
    /// That ended it.
    fatal: Option<EvolveError>,
    /// The first that was of one brief alone, and how many there are.
    first: Option<EvolveError>,
    of_briefs: usize,
    /// One of them was an answer that nobody could read.
    garbled: bool,
    in_a_row: usize,
}

impl Failures {
    fn add(&mut self, error: EvolveError) {
        if !error.is_of_one_brief() {
            self.fatal.get_or_insert(error);
            return;
        }
        self.garbled |= matches!(error, EvolveError::Model(ModelError::Garbled { .. }));
        self.of_briefs += 1;
        self.in_a_row += 1;
        self.first.get_or_insert(error);
    }

    /// Another run may get further with a brief that failed in this one.
    fn may_pass(&self) -> bool {
        self.fatal.is_some() || self.garbled
    }

    fn end_the_run(&self) -> bool {
        self.fatal.is_some() || self.in_a_row >= FAILURES_IN_A_ROW
    }

    /// What is told at the end, if anything went wrong in so many briefs.
    fn into_error(self, of: usize) -> Option<EvolveError> {
        self.fatal.or_else(|| match (self.first, self.of_briefs) {
            (Some(first), failed) if of > 1 => {
                Some(EvolveError::Unfinished { failed, of, first: Box::new(first) })
            }
            (first, _) => first,
        })
    }
}

impl Summary {
    fn add(&mut self, log: &EvolutionLog, new: bool) {
        let n = self.evolutions as f64;
        self.mean_initial = (self.mean_initial * n + log.initial_score) / (n + 1.0);
        self.mean_final = (self.mean_final * n + log.final_score) / (n + 1.0);
        self.evolutions += 1;
        self.target_reached += usize::from(log.target_reached);
        self.reused += usize::from(!new);
    }

    /// Counts replies of a new log that are no whole answers.
    fn add_halves(&mut self, log: &EvolutionLog, declined: u32) {
        let halves: Vec<&LogEntry> =
            log.evolution_history.iter().filter(|entry| entry.finish_reason.is_some()).collect();
        let cut = halves.iter().filter(|entry| entry.is_cut()).count();
        self.cut += cut as u64;
        self.declined += (halves.len() - cut) as u64 + u64::from(declined);
    }

    /// Says how many replies were no whole answers: nothing is learnt from them, and nobody would look for them in the logs.
    fn warn_of_halves(&self, events: &Events) {
        if self.cut > 0 {
            events.warn(
                format!("replies cut by the limit on their length: {} (they are never taught)", self.cut),
                Some(CUT_HINT.into()),
            );
        }
        if self.declined > 0 {
            events.warn(
                format!("replies refused by the model or held back by its provider: {}", self.declined),
                Some(DECLINED_HINT.into()),
            );
        }
    }

    /// Adds what the judge did, and warns when it was absent: those scores do not compare.
    fn add_judge(&mut self, tally: Option<Tally>, events: &Events) {
        let Some(tally) = tally else { return };
        if let Some(text) = tally.complaint() {
            events.warn(text, Some(ABSENT_HINT.into()));
        }
        self.judge = Some(tally);
    }

    fn sentence(&self) -> String {
        format!(
            "{} evolutions, mean score {:.1} -> {:.1}, target reached by {}",
            self.evolutions, self.mean_initial, self.mean_final, self.target_reached
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_notices_the_stop_says_how_to_go_on() {
        for error in [ModelError::Cancelled.into(), CriticError::Cancelled.into(), EvolveError::Cancelled] {
            let error = EvolveError::or_stopped(error);
            assert!(matches!(error, EvolveError::Cancelled), "{error}");
            assert_eq!(error.hint().unwrap(), "run the same command again to go on");
        }
        let other = EvolveError::or_stopped(CriticError::NoSandbox("x".into()).into());
        assert!(matches!(other, EvolveError::Critic(_)));
    }

    fn refused(status: u16) -> EvolveError {
        let (provider, message) = ("p".to_owned(), "no".to_owned());
        ModelError::Refused { provider, status, code: None, message, request_id: None }.into()
    }

    fn garbled() -> EvolveError {
        ModelError::Garbled { provider: "p".into(), why: "it is empty".into() }.into()
    }

    fn ended(errors: Vec<EvolveError>, of: usize) -> (bool, String, Kind) {
        let mut failures = Failures::default();
        errors.into_iter().for_each(|error| failures.add(error));
        let end = failures.end_the_run();
        let error = failures.into_error(of).unwrap();
        (end, error.to_string(), error.kind())
    }

    #[test]
    fn what_fails_for_one_brief_does_not_end_the_others() {
        let (end, text, kind) = ended(vec![garbled(), refused(400)], 9);
        assert_eq!((end, kind), (false, Kind::Provider));
        assert_eq!(text, "2 of 9 briefs are not finished: p gave an answer that cannot be used: it is empty");
        assert!(
            ended(vec![garbled(), garbled(), garbled()], 9).0,
            "three in a row are not the briefs' fault"
        );
        for error in [refused(401), refused(429), refused(500), EvolveError::Cancelled] {
            let want = (true, error.to_string(), error.kind());
            assert_eq!(ended(vec![garbled(), error], 9), want);
        }
        assert_eq!(ended(vec![garbled()], 1).1, "p gave an answer that cannot be used: it is empty");
    }
}
