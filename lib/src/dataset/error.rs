//! Why a dataset could not be made.

use std::path::PathBuf;

use crate::{
    agent::PromptError,
    critic::CriticError,
    error::{Explain, Kind},
    store::StoreError,
};

/// Why a dataset could not be made.
#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    #[error("there are no evolution logs in `{}`", folder.display())]
    NoLogs { folder: PathBuf },
    #[error("none of {count} evolution logs can be read; `{first}`: {why}")]
    Unreadable { count: usize, first: String, why: String },
    #[error("`{file}` is an evolution log of version {version}; this program reads up to version {newest}")]
    Newer { file: String, version: u64, newest: u32 },
    #[error("none of {candidates} candidates qualifies{}", best_note(*best))]
    NothingQualifies {
        candidates: usize,
        /// Highest score among candidates that miss nothing but the score.
        best: Option<f64>,
        /// How many score at least the proposed minimum.
        would_qualify: usize,
        /// What most candidates lack, in words.
        most: String,
    },
    /// What was never run cannot be taught as something that runs.
    #[error(
        "none of {candidates} candidates was run: scores of level `static` are capped at 5 and cannot become training rows"
    )]
    StaticOnly { candidates: usize },
    #[error("cannot start a thread: {0}")]
    Thread(#[from] std::io::Error),
    #[error(transparent)]
    Critic(#[from] CriticError),
    #[error(transparent)]
    Prompt(#[from] PromptError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn best_note(best: Option<f64>) -> String {
    best.map_or_else(String::new, |score| {
        format!("; the best that runs and puts the UI first scored {score:.1}")
    })
}

impl DatasetError {
    /// The `--min-score` at which something would qualify: the best score, rounded down to halves.
    pub fn working_min_score(best: f64) -> f64 {
        (best * 2.0).floor() / 2.0
    }
}

impl Explain for DatasetError {
    fn kind(&self) -> Kind {
        match self {
            Self::Critic(e) => e.kind(),
            Self::Prompt(e) => e.kind(),
            Self::Store(e) => e.kind(),
            Self::Thread(_) => Kind::Environment,
            _ => Kind::Input,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoLogs { .. } => "run `hone evolve` first".to_owned(),
            Self::Unreadable { .. } => {
                "run `hone evolve` again; it replaces logs that are not whole".to_owned()
            }
            Self::Newer { .. } => "update hone, or move the log away".to_owned(),
            Self::NothingQualifies { best: Some(best), would_qualify, .. } => format!(
                "`--min-score {:.1}` would take {would_qualify}; or run `hone evolve` with a higher target",
                Self::working_min_score(*best)
            ),
            Self::NothingQualifies { most, .. } => {
                format!(
                    "most were left out for: {most}; run `hone evolve` on more briefs or with a better teacher"
                )
            }
            Self::StaticOnly { .. } => {
                "run `hone evolve` again without `--static-only`, on a machine with a sandbox \
                 (`hone doctor` tells)"
                    .to_owned()
            }
            Self::Thread(_) => "free memory, then run `hone prepare` again".to_owned(),
            Self::Critic(e) => return e.hint(),
            Self::Prompt(e) => return e.hint(),
            Self::Store(e) => return e.hint(),
        })
    }
}
