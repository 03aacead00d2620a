//! The embedded teacher: an expert system that reads a brief into a plan and writes an idiomatic Streamlit app from it.
//!
//! Reading order: [`text`] and `lexicon` (what words mean), `bank` (sample content), `read` and
//! `subject` (a brief's phrases and what they are about), `plan`, `build`, `records` and `calculate` (from phrases to a plan),
//! `write` (a plan to code, the idiom), `variants` (the search: plans near a plan), `repair` (findings mended as a linter's
//! autofix does). It needs no model and no network; any chat model can take its place.

mod bank;
mod build;
mod calculate;
mod lexicon;
mod plan;
mod read;
mod records;
mod repair;
mod subject;
mod text;
mod variants;
mod write;

#[cfg(test)]
mod figures_tests;
#[cfg(test)]
mod tests;

use crate::{
    agent::Candidate,
    brief::Brief,
    critic::{Critique, Evidence},
};

pub use plan::Plan;
pub use repair::repair;

/// How the next candidate is made; the names are those of the evolution log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operator {
    /// A fresh plan.
    Restart,
    /// The plan, changed where the critique of the first parent finds fault.
    Revise,
    /// The first parent, with its findings mended mechanically; a fresh plan when nothing can be mended.
    Repair,
    /// The same content in another layout, with other widgets.
    Restyle,
    /// The plan with a part of a second reading of the brief.
    Merge,
}

impl Operator {
    pub const ALL: [Operator; 5] =
        [Operator::Restart, Operator::Revise, Operator::Repair, Operator::Restyle, Operator::Merge];

    /// The name in the log: `restart`, `revise`, `repair`, `restyle` or `merge`.
    pub fn as_str(self) -> &'static str {
        match self {
            Operator::Restart => "restart",
            Operator::Revise => "revise",
            Operator::Repair => "repair",
            Operator::Restyle => "restyle",
            Operator::Merge => "merge",
        }
    }
}

/// A candidate that was judged: what the next one improves on.
#[derive(Clone, Copy, Debug)]
pub struct Parent<'a> {
    pub candidate: &'a Candidate,
    pub critique: &'a Critique,
    pub evidence: &'a Evidence,
}

/// The embedded teacher. The same seed, brief, operator, attempt and parents give the same bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Composer {
    seed: u64,
}

impl Composer {
    pub fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// The operator's next candidate for a brief. `attempt` counts the proposals for it, so that each differs from the
    /// last; `parents` are the candidates to improve on, best first, and may be none.
    pub fn propose(
        &self,
        brief: &Brief,
        operator: Operator,
        attempt: u32,
        parents: &[Parent<'_>],
    ) -> Candidate {
        // Each attempt draws other sample content.
        let plan = Plan::read(brief, self.seed.wrapping_add(u64::from(attempt)));
        match (operator, parents.first()) {
            (Operator::Restart, _) => plan.variant(self.seed, attempt).write(),
            (Operator::Repair, Some(parent)) => repair(parent.candidate, parent.critique, parent.evidence)
                .unwrap_or_else(|| plan.variant(self.seed, attempt).write()),
            (Operator::Revise, Some(parent)) => {
                plan.variant(self.seed, attempt).revised(brief, parent.critique).write()
            }
            // Of each four plans near one, the last has other widgets, another order and one section more or less: the first
            // restyle. Fresh plans and restyles go through the four in opposite directions, so that two rounds meet all.
            (Operator::Restyle, _) => plan.variant(self.seed, 3 * attempt + 4).write(),
            (Operator::Merge, _) => {
                let other = Plan::read(brief, self.seed.wrapping_add(u64::from(attempt) + 101));
                plan.grafted(&other.variant(self.seed, attempt + 1)).write()
            }
            _ => plan.variant(self.seed, attempt).write(),
        }
    }
}
