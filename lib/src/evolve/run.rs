//! Many briefs at once: skips what is finished, writes each log before it counts.

use std::{path::PathBuf, time::Instant};

use futures::{StreamExt, stream};
use serde::{Deserialize, Serialize};

use super::{
    bandit::{self, Bandit},
    log::{EvolutionLog, FORMAT, FORMAT_VERSION},
    search::{Found, Means, Options, Search, Teacher},
};
use crate::{
    agent::{PromptError, Writer},
    brief::Brief,
    cancel::Cancel,
    critic::{Critic, CriticError, GuidelineError, GuidelineStore, Tally},
    error::{Explain, Kind},
    event::{Event, Events, Phase},
    model::client::ModelError,
    store::{self, StoreError, Workspace},
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
}

impl Explain for EvolveError {
    fn kind(&self) -> Kind {
        match self {
            Self::NoBriefs => Kind::Input,
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
            Self::Cancelled => Some("run the same command again to go on".into()),
        }
    }
}

const ABSENT_HINT: &str = "their scores are those of a critic without a judge: they come after all that were judged, and \
                           `hone prepare` leaves them out";

/// Result of `hone evolve`, over finished and newly made logs alike.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    pub evolutions: usize,
    /// How many of them were there already.
    pub reused: usize,
    pub target_reached: usize,
    pub mean_initial: f64,
    pub mean_final: f64,
    /// Model calls of the new evolutions.
    pub calls: u64,
    /// Null when a price is unknown.
    pub usd: Option<f64>,
    pub took_ms: u64,
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
        let started = Instant::now();
        let total = Some(briefs.len() as u64);
        self.events.emit(Event::Begin { phase: Phase::Evolve, total });
        let mut summary = Summary { usd: Some(0.0), ..Summary::default() };
        let mut unknown = 0;
        let mut open = Vec::new();
        for brief in briefs {
            match self.finished(brief) {
                Some(log) => self.report(&log, false, total, &mut summary),
                None => open.push(brief),
            }
        }
        self.set_aside(&open)?;
        let mut learnt = Bandit::default();
        for wave in self.waves(briefs) {
            let due = wave.iter().filter(|brief| open.contains(brief));
            let mut results = stream::iter(due)
                .map(|brief| self.one(brief, &learnt))
                .buffer_unordered(self.concurrency.max(1));
            while let Some(log) = results.next().await {
                let log = log?;
                unknown += log.evolution_history.iter().map(|entry| entry.guidelines_unknown).sum::<u32>();
                self.report(&log, true, total, &mut summary);
            }
            drop(results);
            self.learn(wave, &mut learnt);
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
        summary.add_judge(self.critic.judge().map(|judge| judge.tally()), self.events);
        summary.took_ms = started.elapsed().as_millis() as u64;
        self.events.emit(Event::End { phase: Phase::Evolve, summary: summary.sentence() });
        Ok(summary)
    }

    fn report(&self, log: &EvolutionLog, new: bool, total: Option<u64>, summary: &mut Summary) {
        summary.add(log, new);
        self.events.emit(Event::Evolved {
            id: log.id.clone(),
            initial_score: log.initial_score,
            final_score: log.final_score,
            iterations: log.total_iterations,
            target_reached: log.target_reached,
            reused: !new,
        });
        let done = summary.evolutions as u64;
        let note = format!("{}  {:.1} -> {:.1}", log.id, log.initial_score, log.final_score);
        self.events.emit(Event::Progress { phase: Phase::Evolve, done, total, note });
    }

    /// Moves the logs of these briefs out of the way, where there are any.
    fn set_aside(&self, briefs: &[&Brief]) -> Result<(), EvolveError> {
        let mut moved = 0;
        for path in briefs.iter().map(|brief| self.log_path(brief)).filter(|path| path.exists()) {
            store::set_aside(&path)?;
            moved += 1;
        }
        if moved > 0 {
            self.events.warn(
                format!(
                    "{moved} logs are of another text, agent, teacher, seed or critic: kept as `*.json.old`"
                ),
                Some("`--round N` keeps the logs of several runs apart".into()),
            );
        }
        Ok(())
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

    /// Evolves one brief; its log is on disk when this returns.
    async fn one(&self, brief: &Brief, learnt: &Bandit) -> Result<EvolutionLog, EvolveError> {
        if self.cancel.is_cancelled() {
            return Err(EvolveError::Cancelled);
        }
        let Self { agent, teacher, critic, guidelines, options, .. } = self;
        let search = Search::new(brief, Means { agent, teacher, critic, guidelines, options, learnt });
        let found = tokio::select! {
            found = search.run() => found.map_err(EvolveError::or_stopped)?,
            () = self.cancel.cancelled() => return Err(EvolveError::Cancelled),
        };
        let log = self.log(brief, found);
        store::write_json(&self.log_path(brief), &log)?;
        Ok(log)
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

impl Summary {
    fn add(&mut self, log: &EvolutionLog, new: bool) {
        let n = self.evolutions as f64;
        self.mean_initial = (self.mean_initial * n + log.initial_score) / (n + 1.0);
        self.mean_final = (self.mean_final * n + log.final_score) / (n + 1.0);
        self.evolutions += 1;
        self.target_reached += usize::from(log.target_reached);
        if !new {
            self.reused += 1;
            return;
        }
        for entry in log.evolution_history.iter().filter(|entry| entry.usage.output_tokens > 0) {
            self.calls += 1;
            self.usd = self.usd.zip(entry.usage.usd).map(|(sum, usd)| sum + usd);
        }
    }

    /// Adds what the judge did, and warns when it was absent: those scores do not compare.
    fn add_judge(&mut self, tally: Option<Tally>, events: &Events) {
        let Some(tally) = tally else { return };
        self.calls += tally.calls;
        self.usd = self.usd.zip(tally.usd).map(|(sum, usd)| sum + usd);
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
    use super::{
        super::log::{LogEntry, LogUsage},
        *,
    };
    use crate::critic;

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

    fn log(calls: &[(u64, Option<f64>)]) -> EvolutionLog {
        let entry = |&(output_tokens, usd): &(u64, Option<f64>)| LogEntry {
            iteration: 1,
            operator: "draft".into(),
            parents: vec![],
            model: "m".into(),
            files: vec![],
            ui_code: String::new(),
            critique: critic::score(&critic::Evidence::sample()),
            evidence: critic::Evidence::sample(),
            usage: LogUsage { input_tokens: 1, output_tokens, usd },
            guidelines: vec![],
            guidelines_unknown: 0,
            finish_reason: None,
            took_ms: 0,
        };
        EvolutionLog {
            format: FORMAT.into(),
            version: FORMAT_VERSION,
            id: "a".into(),
            kind: String::new(),
            family: String::new(),
            description: "a".into(),
            requirements: vec![],
            framework: "Streamlit".into(),
            target_score: 8.0,
            max_iterations: 1,
            seed: 1,
            critic: critic::VERSION.into(),
            agent: "m".into(),
            teacher: "composer".into(),
            round: 1,
            evolution_history: calls.iter().map(entry).collect(),
            initial_score: 1.0,
            final_score: 1.0,
            best_iteration: 1,
            improvement: 0.0,
            target_reached: false,
            total_iterations: 1,
            prompts: None,
            pairs: vec![],
        }
    }

    #[test]
    fn an_unknown_price_makes_the_sum_unknown_and_a_free_call_does_not() {
        let sum = |calls: &[(u64, Option<f64>)]| {
            let mut summary = Summary { usd: Some(0.0), ..Summary::default() };
            summary.add(&log(calls), true);
            summary.usd
        };
        assert_eq!(sum(&[(5, Some(0.0)), (0, None)]), Some(0.0));
        assert_eq!(sum(&[(5, Some(0.25)), (5, Some(0.5))]), Some(0.75));
        assert_eq!(sum(&[(5, Some(0.25)), (5, None)]), None);
    }
}
