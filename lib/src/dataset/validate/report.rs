//! What was found in a file.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    code::CodeTally,
    problem::{Code, Problem, Severity},
    row::Format,
};
use crate::{dataset::tokens::Counts, text::thousands};

/// Problems, of which so many of each code are kept and all are counted.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Collected {
    most: usize,
    pub counts: BTreeMap<Code, u64>,
    listed: BTreeMap<Code, usize>,
    pub kept: Vec<Problem>,
}

impl Collected {
    pub fn new(most: usize) -> Self {
        Self { most, ..Self::default() }
    }

    pub fn add(&mut self, problem: Problem) {
        *self.counts.entry(problem.code).or_default() += 1;
        self.keep(problem);
    }

    fn keep(&mut self, problem: Problem) {
        let listed = self.listed.entry(problem.code).or_default();
        if *listed < self.most {
            *listed += 1;
            self.kept.push(problem);
        }
    }

    pub fn merge(&mut self, other: Self) {
        for (code, count) in other.counts {
            *self.counts.entry(code).or_default() += count;
        }
        other.kept.into_iter().for_each(|problem| self.keep(problem));
    }

    /// By line, what is about the whole file first.
    pub fn sorted(mut self) -> (BTreeMap<Code, u64>, Vec<Problem>) {
        self.kept.sort_by(|a, b| (a.line, a.code, &a.field).cmp(&(b.line, b.code, &b.field)));
        (self.counts, self.kept)
    }
}

/// Tokens of a file, each example once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenCounts {
    /// OpenAI's, by the cookbook's rule; schemas of tools and pictures make it low by a few percent.
    pub o200k_base: u64,
    /// The embedded engine's base model's, where it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local: Option<u64>,
}

/// How long examples are, in tokens of the target.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Lengths {
    pub min: u64,
    pub mean: f64,
    pub max: u64,
}

/// What was found when a sample was run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RunTally {
    pub answers: u64,
    pub runs: u64,
    pub ui_first: u64,
    /// Mean score, 0-10.
    pub score: f64,
}

/// What was found in a file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Whether a job would take it, and should.
    pub ok: bool,
    pub format: Format,
    /// Rows without an error.
    pub examples: u64,
    /// By o200k_base.
    pub tokens: u64,
    pub token_counts: TokenCounts,
    /// Tokens that one epoch trains on: long examples are cut.
    #[serde(skip)]
    pub read: Counts,
    /// Of the model that the file was measured for.
    pub lengths: Lengths,
    pub model: String,
    pub code: CodeTally,
    pub duplicates: u64,
    pub without_system: u64,
    pub without_user: u64,
    /// How often each problem was found.
    pub counts: BTreeMap<Code, u64>,
    /// Problems that are not listed.
    pub more: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<RunTally>,
    pub problems: Vec<Problem>,
}

impl Report {
    /// The problems that stop a job.
    pub fn errors(&self) -> impl Iterator<Item = &Problem> {
        self.problems.iter().filter(|problem| problem.severity == Severity::Error)
    }

    /// Adds what was found beside the file itself.
    pub fn add(&mut self, problem: Problem) {
        *self.counts.entry(problem.code).or_default() += 1;
        self.ok &= problem.severity != Severity::Error;
        self.problems.push(problem);
    }

    /// How many there are of them, those that are not listed included.
    pub fn errors_found(&self) -> u64 {
        let errors = self.counts.iter().filter(|(code, _)| code.severity() == Severity::Error);
        errors.map(|(_, count)| count).sum()
    }

    /// For people: the problems, a line each, then what the file is.
    pub fn text(&self, file: &str) -> String {
        let severity = |problem: &Problem| match problem.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let mut lines: Vec<String> =
            self.problems.iter().map(|problem| format!("{:<7}  {problem}", severity(problem))).collect();
        if self.more > 0 {
            lines.push(format!("         and {} more: `--most N` lists them", thousands(self.more)));
        }
        let mut told = std::collections::BTreeSet::new();
        let remedies = self.problems.iter().filter(|problem| told.insert(problem.code));
        lines.extend(remedies.map(|problem| format!("hint: {}: {}", problem.code, problem.remedy)));
        lines.push(self.summary());
        lines.push(if self.ok {
            format!("`{file}` can be trained on")
        } else {
            format!("`{file}` should not be trained on")
        });
        lines.join("\n")
    }

    fn summary(&self) -> String {
        let Self { examples, token_counts, lengths, code, duplicates, .. } = self;
        let mut text = format!(
            "{} examples ({}), {} tokens by o200k_base",
            thousands(*examples),
            super::rules::name(self.format),
            thousands(token_counts.o200k_base)
        );
        if let Some(local) = token_counts.local {
            text.push_str(&format!(", {} by the local model", thousands(local)));
        }
        text.push_str(&format!(
            "; {:.0} an example, {} to {}, for {}",
            lengths.mean, lengths.min, lengths.max, self.model
        ));
        if code.answers > 0 {
            text.push_str(&format!(
                "\n{} answers hold code: {} begin with a user interface, {} with configuration, {} do not parse",
                thousands(code.answers),
                thousands(code.ui_first),
                thousands(code.config_first),
                thousands(code.does_not_parse)
            ));
        }
        if *duplicates > 0 {
            text.push_str(&format!("\n{} rows repeat another", thousands(*duplicates)));
        }
        if let Some(run) = &self.run {
            text.push_str(&format!(
                "\nof {} answers that were run, {} run and {} put the UI first; their mean score is {:.1}",
                run.answers, run.runs, run.ui_first, run.score
            ));
        }
        text
    }
}
