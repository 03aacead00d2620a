//! What became of the rounds so far: scores, what is still wrong, whether critic and variety held. Reads everything, changes
//! nothing.

mod picture;
mod text;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use serde::Serialize;

pub use self::picture::PictureError;
use crate::{
    critic::Issue,
    error::{Explain, Kind},
    evolve::{EvolutionLog, logs},
    registry::{Action, Registry, RegistryError},
    rounds::{Diversity, Round, State, StateError, Stop},
    store::Workspace,
    trial::{self, Summary, Verdict, stats::mean, verdict::ArmSummary},
};

/// Issues that are named; the rest is rare.
const ISSUES: usize = 12;

/// Everything that `hone monitor` shows.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Monitor {
    pub rounds: Vec<RoundView>,
    /// What is still wrong with the best apps, the most frequent first.
    pub issues: Vec<Remaining>,
    /// Null is the base model.
    pub champion: Option<String>,
    /// Deployments and rollbacks, oldest first.
    pub steps: Vec<Taken>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopped: Option<Stop>,
}

/// One round.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct RoundView {
    pub round: u32,
    pub logs: usize,
    /// Mean score of the agent's first drafts, and of what came of them.
    pub initial: Option<f64>,
    #[serde(rename = "final")]
    pub best: Option<f64>,
    /// Training rows that its briefs added.
    pub new_rows: Option<usize>,
    /// Its trial; none while it is not over.
    pub trial: Option<TrialView>,
    /// Share of the error budget.
    pub alpha: Option<f64>,
    /// How far the anchors' mean moved since the first round.
    pub drift: Option<f64>,
    /// Of the apps that it taught, and of the tuned model's answers.
    pub taught: Option<Diversity>,
    pub answered: Option<Diversity>,
}

/// The verdict of a round and the figures behind it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TrialView {
    pub trial: String,
    pub model: String,
    pub verdict: Verdict,
    pub n: usize,
    pub base: Figures,
    pub tuned: Figures,
    /// Tuned minus base, with its 95% interval.
    pub gain: Option<f64>,
    pub low: Option<f64>,
    pub high: Option<f64>,
}

/// Mean score (0-10) and rates (0-1) of an arm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Figures {
    pub score: Option<f64>,
    pub ui_first: Option<f64>,
    pub runs: Option<f64>,
}

impl From<&ArmSummary> for Figures {
    fn from(arm: &ArmSummary) -> Self {
        Self { score: arm.score, ui_first: arm.ui_first, runs: arm.runs }
    }
}

/// An issue that the best apps still have.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Remaining {
    /// The message, with names and numbers left out.
    pub message: String,
    pub guideline: Option<String>,
    /// Apps that have it, and their share.
    pub n: usize,
    pub share: f64,
    /// Share in the last round minus share in the first; none with one round.
    pub trend: Option<f64>,
}

/// A line of the registry.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Taken {
    pub at: String,
    pub action: Action,
    pub model: Option<String>,
    pub reason: String,
}

/// Why there is nothing to show.
#[derive(Debug, thiserror::Error)]
pub enum MonitorError {
    #[error("there is no evolution log to look at")]
    NoLogs,
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

impl Explain for MonitorError {
    fn kind(&self) -> Kind {
        match self {
            Self::NoLogs => Kind::Input,
            Self::State(e) => e.kind(),
            Self::Registry(e) => e.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::NoLogs => Some("`hone evolve` writes them, `hone loop` does everything".into()),
            Self::State(e) => e.hint(),
            Self::Registry(e) => e.hint(),
        }
    }
}

impl Monitor {
    /// # Errors
    /// There are no logs, or what was recorded cannot be read.
    pub fn of(workspace: &Workspace) -> Result<Self, MonitorError> {
        let logs: Vec<Evolved> = logs(&workspace.logs()).map(|(_, log)| Evolved::from(log)).collect();
        if logs.is_empty() {
            return Err(MonitorError::NoLogs);
        }
        let state = State::read(workspace)?;
        let registry = Registry::open(&workspace.registry())?;
        let summary = |id: &str| trial::summary(&workspace.trials(), id);
        let last = trial::last_summary(&workspace.trials(), None);
        let steps = registry.entries().iter().map(|entry| Taken {
            at: entry.at.clone(),
            action: entry.action,
            model: entry.subject().map(str::to_owned),
            reason: entry.reason.clone(),
        });
        Ok(Self {
            rounds: rounds(&logs, &state, summary, last.as_ref()),
            issues: remaining(&logs),
            champion: registry.champion().map(str::to_owned),
            steps: steps.collect(),
            stopped: state.stopped,
        })
    }

    /// Writes the picture: scores over the rounds with their intervals.
    ///
    /// # Errors
    /// It cannot be drawn or written.
    pub fn draw(&self, path: &Path) -> Result<(), PictureError> {
        picture::draw(&self.rounds, path)
    }
}

/// What is looked at of a log.
struct Evolved {
    round: u32,
    initial: f64,
    best: f64,
    /// Of the best app, each kind once.
    issues: BTreeSet<Sort>,
}

/// An issue without particulars, and its guideline.
type Sort = (String, Option<String>);

impl From<EvolutionLog> for Evolved {
    fn from(log: EvolutionLog) -> Self {
        let best = log.evolution_history.iter().find(|entry| entry.iteration == log.best_iteration);
        let issues = best.map(|entry| entry.critique.issues.iter().map(kind).collect());
        Self {
            round: log.round,
            initial: log.initial_score,
            best: log.final_score,
            issues: issues.unwrap_or_default(),
        }
    }
}

/// Rounds as logs and the loop's record have them. Without a loop the last trial stands by the last round.
fn rounds(
    logs: &[Evolved],
    state: &State,
    summary: impl Fn(&str) -> Option<Summary>,
    last: Option<&Summary>,
) -> Vec<RoundView> {
    let numbers: BTreeSet<u32> =
        logs.iter().map(|log| log.round).chain(state.rounds.iter().map(|round| round.round)).collect();
    let newest = numbers.last().copied();
    let view = |number: u32| {
        let own: Vec<&Evolved> = logs.iter().filter(|log| log.round == number).collect();
        let recorded = state.rounds.iter().find(|round| round.round == number);
        let trial = match recorded {
            Some(round) => round.result.as_ref().and_then(|result| summary(&result.trial)),
            None => last.filter(|_| Some(number) == newest).cloned(),
        };
        let of = |read: fn(&Round) -> Option<f64>| recorded.and_then(read);
        RoundView {
            round: number,
            logs: own.len(),
            initial: mean(own.iter().map(|log| log.initial)),
            best: mean(own.iter().map(|log| log.best)),
            new_rows: recorded.and_then(|round| round.new_rows),
            trial: trial.as_ref().map(TrialView::from),
            alpha: of(|round| round.alpha),
            drift: of(|round| Some(round.anchors.as_ref()?.change)),
            taught: recorded.and_then(|round| round.taught),
            answered: recorded.and_then(|round| round.answered),
        }
    };
    numbers.into_iter().map(view).collect()
}

impl From<&Summary> for TrialView {
    fn from(summary: &Summary) -> Self {
        let gain = summary.delta.score;
        Self {
            trial: summary.trial.clone(),
            model: summary.arms.tuned.model.clone(),
            verdict: summary.verdict,
            n: summary.n,
            base: Figures::from(&summary.arms.base),
            tuned: Figures::from(&summary.arms.tuned),
            gain: gain.mean,
            low: gain.low,
            high: gain.high,
        }
    }
}

/// Issues of the best app of every log, each once per app.
fn remaining(logs: &[Evolved]) -> Vec<Remaining> {
    let mut apps: BTreeMap<u32, usize> = BTreeMap::new();
    let mut found: BTreeMap<&Sort, BTreeMap<u32, usize>> = BTreeMap::new();
    for log in logs {
        *apps.entry(log.round).or_default() += 1;
        for sort in &log.issues {
            *found.entry(sort).or_default().entry(log.round).or_default() += 1;
        }
    }
    let all: usize = apps.values().sum();
    let share = |by: &BTreeMap<u32, usize>, round: u32| {
        by.get(&round).copied().unwrap_or_default() as f64 / apps.get(&round).copied().unwrap_or(1) as f64
    };
    let ends =
        apps.keys().next().copied().zip(apps.keys().last().copied()).filter(|(first, last)| first < last);
    let mut remaining: Vec<Remaining> = found
        .into_iter()
        .map(|((message, guideline), by)| {
            let n: usize = by.values().sum();
            let trend = ends.map(|(first, last)| share(&by, last) - share(&by, first));
            Remaining {
                message: message.clone(),
                guideline: guideline.clone(),
                n,
                share: n as f64 / all as f64,
                trend,
            }
        })
        .collect();
    remaining.sort_by(|a, b| (b.n, &a.message).cmp(&(a.n, &b.message)));
    remaining.truncate(ISSUES);
    remaining
}

/// What an issue is about: the same thing said of another field is the same issue.
fn kind(issue: &Issue) -> Sort {
    let mut message = String::new();
    // After a colon come the particulars: which words, which elements.
    let general = issue.message.split_once(": ").map_or(issue.message.as_str(), |(general, _)| general);
    for (index, part) in general.split('`').enumerate() {
        message.push_str(if index % 2 == 1 { "`..`" } else { part });
    }
    let mut plain = String::new();
    for c in message.chars() {
        match c {
            '0'..='9' if plain.ends_with('N') => {}
            '0'..='9' => plain.push('N'),
            other => plain.push(other),
        }
    }
    (plain, issue.guideline.clone())
}

#[cfg(test)]
mod tests;
