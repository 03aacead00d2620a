//! Other ways to spend the same calls, for comparison: what a search is worth shows only beside them.

use serde::{Deserialize, Serialize};

use super::{
    composer::Operator,
    run::EvolveError,
    search::{Found, Search},
};
use crate::agent::Candidate;

/// How calls are spent on one brief.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// One draft, improved over and over; the last one counts.
    Last,
    /// The same chain; its best counts.
    KeepBest,
    /// Drafts alone; the best counts.
    BestOf,
    /// The search of `hone evolve`.
    Default,
}

impl Strategy {
    pub const ALL: [Self; 4] = [Self::Last, Self::KeepBest, Self::BestOf, Self::Default];

    /// As flags and results spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Last => "last",
            Self::KeepBest => "keep-best",
            Self::BestOf => "best-of",
            Self::Default => "default",
        }
    }

    /// The one of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|strategy| strategy.name() == name)
    }
}

/// A search that goes on until its calls are spent: no target ends it, and no dry spell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fixed {
    pub strategy: Strategy,
    /// Replies of agent and teacher; proposals of the composer count too, so that teachers compare.
    pub calls: u32,
}

impl Search<'_> {
    /// Spends exactly so many calls, and looks once more at what the strategy would hand out. Its score is that fresh one.
    pub(super) async fn run_fixed(mut self, fixed: Fixed) -> Result<Found, EvolveError> {
        match fixed.strategy {
            Strategy::Last | Strategy::KeepBest => self.chain().await?,
            Strategy::BestOf => {
                while !self.is_spent() {
                    self.draft().await?;
                }
            }
            Strategy::Default => self.tree().await?,
        }
        let chosen = match fixed.strategy {
            Strategy::Last => self.history.last(),
            _ => self.ranked().into_iter().next(),
        };
        let Some(best) = chosen.map(|entry| entry.iteration) else { return Ok(self.found(0, vec![])) };
        self.look_again(best).await?;
        Ok(self.found(best, vec![]))
    }

    /// One draft, then each app from the one before it, whether that was better or not.
    async fn chain(&mut self) -> Result<(), EvolveError> {
        self.draft().await?;
        while !self.is_spent() {
            let last = self.history.iter().rev().find(|entry| !entry.files.is_empty());
            match last.map(|entry| entry.iteration) {
                Some(last) => self.propose(Operator::Revise, vec![last]).await?,
                None => self.propose(Operator::Restart, vec![]).await?,
            };
        }
        Ok(())
    }

    async fn look_again(&mut self, iteration: u32) -> Result<(), EvolveError> {
        let Some(at) = self.history.iter().position(|entry| entry.iteration == iteration) else {
            return Ok(());
        };
        let candidate = Candidate { files: self.history[at].files.clone() };
        let (evidence, critique) = self.critic.critique(self.brief, &candidate).await?;
        (self.history[at].evidence, self.history[at].critique) = (evidence, critique);
        Ok(())
    }
}
