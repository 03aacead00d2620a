//! What a selection teaches, as rows: a brief and its app; an app, its faults and the better app; the better and the worse.

use std::{cell::LazyCell, io};

use super::{
    ChatRow, DatasetError, Entry, PreferenceInput, PreferenceRow, PrepareOptions, RowRecord, RowSource,
    alike::CodePrint,
    leaks::Heldout,
    manifest::{By, Policy, Roles, RowKind, Split, Step},
    ratings::Votes,
    select::{Case, Positive, Selection, brief_key, tokens_more},
    tokens, workers,
};
use crate::{
    agent::PromptError,
    evolve::{Shown, improvement_messages},
    model::wire::Message,
};

/// Rejected answers of one positive at most.
const MOST_REJECTED: usize = 2;

/// A row, where it came from, and what its place in the mix depends on.
#[derive(Clone, Debug)]
pub(super) struct Made<R> {
    pub row: R,
    pub record: RowRecord,
    /// 0 for a brief's first row of its sort, 1 for its second...
    pub rank: usize,
    pub ui_kind: String,
}

/// What rows are made of.
pub(super) struct Lessons<'a> {
    pub selection: &'a Selection<'a>,
    pub heldout: &'a Heldout,
    pub votes: &'a Votes,
    pub options: &'a PrepareOptions,
}

impl Lessons<'_> {
    /// A row for each positive.
    pub fn positives(&self, workers: usize) -> io::Result<Vec<Made<ChatRow>>> {
        workers::map(workers, &self.selection.positives, |positive| {
            let row = ChatRow::new(positive.prompt.to_vec(), positive.ready.answer.clone());
            made(row, RowKind::Positive, positive, None, positive.tokens())
        })
    }

    /// The positives that are a better version of an app with named faults.
    pub fn improved(&self, workers: usize) -> io::Result<Vec<&Positive<'_>>> {
        let all = &self.selection.positives;
        let improved = workers::map(workers, all, |positive| !self.befores(positive).is_empty())?;
        Ok(all.iter().zip(improved).filter_map(|(positive, improved)| improved.then_some(positive)).collect())
    }

    /// One row for each positive at most: the step to it from an app with named faults. The answers differ as positives
    /// do, so no two rows are alike.
    pub fn improvements(
        &self,
        of: &[&Positive<'_>],
        workers: usize,
    ) -> Result<Vec<Made<ChatRow>>, DatasetError> {
        let rows = workers::map(workers, of, |positive| self.improvement(positive))?;
        let rows: Result<Vec<_>, PromptError> = rows.into_iter().filter_map(Result::transpose).collect();
        Ok(rows?)
    }

    fn improvement(&self, positive: &Positive<'_>) -> Result<Option<Made<ChatRow>>, PromptError> {
        let brief = &positive.case.source.brief;
        for (before, step) in self.befores(positive) {
            let shown = Shown { files: &before.entry.files, issues: &before.entry.look.issues };
            let messages =
                improvement_messages(&self.options.prompts, brief, shown, &positive.case.entry.guidelines)?;
            let tokens = tokens::chat_tokens(&messages) + positive.ready.tokens;
            if tokens <= self.options.max_improvement_tokens {
                let row = ChatRow::new(messages, positive.ready.answer.clone());
                let mut made = made(row, RowKind::Improvement, positive, Some(before), tokens);
                made.record.step = Some(step);
                return Ok(Some(made));
            }
        }
        Ok(None)
    }

    /// The apps that a positive is a better version of: those that it was made from, then those that its brief had before
    /// it, the best first; when it gained enough and there is something to say about them.
    fn befores<'b>(&'b self, positive: &Positive<'b>) -> Vec<(Case<'b>, Step)> {
        let after = positive.case;
        let earlier = |case: &Case<'_>| {
            // Of one log: what another round began with, this one did not start from.
            case.source.file == after.source.file
                && case.entry.iteration < after.entry.iteration
                && !case.entry.files.is_empty()
                && !case.entry.look.issues.is_empty()
                && after.score() - case.score() >= self.options.min_gain
        };
        let step = |case: Case<'b>| match after.entry.parents.contains(&case.entry.iteration) {
            true => (case, Step::Parent),
            false => (case, Step::Trajectory),
        };
        let mut all: Vec<_> = self.rivals(after).iter().copied().filter(earlier).map(step).collect();
        all.sort_by(|a, b| a.1.cmp(&b.1).then_with(|| b.0.score().total_cmp(&a.0.score())));
        all
    }

    /// Everything of the same brief that compares, in the order of the logs.
    fn rivals(&self, case: Case<'_>) -> &[Case<'_>] {
        self.selection.comparable.get(&brief_key(case.source)).map_or(&[], Vec::as_slice)
    }

    /// For each positive the answers to the same brief over which a person preferred it, and those that are clearly
    /// worse; of those by the same writer first, and of near-copies of each other one.
    pub fn preferences(&self, workers: usize) -> Result<Vec<Made<PreferenceRow>>, DatasetError> {
        let rows = workers::map(workers, &self.selection.positives, |positive| self.pairs_of(positive))?;
        Ok(rows.into_iter().flatten().collect())
    }

    fn pairs_of(&self, positive: &Positive<'_>) -> Vec<Made<PreferenceRow>> {
        let chosen = positive.case;
        let rivals = self.rivals(chosen).iter().copied();
        let mut worse: Vec<_> =
            rivals.filter_map(|other| Some((other, self.pair(positive, other)?))).collect();
        worse.sort_by_key(|(other, by)| (*by, other.entry.model != chosen.entry.model, other.place()));
        // Most apps have one rival, and parsing it would tell nothing.
        let mut rejected = Vec::new();
        let mut rows = Vec::new();
        for (other, by) in worse {
            if rejected.len() == MOST_REJECTED {
                break;
            }
            let answer = other.answer();
            let print = LazyCell::new(|| CodePrint::of(&other.entry.files));
            let is_near =
                |shown: &LazyCell<CodePrint, _>| shown.similarity(&print) >= self.options.similarity;
            if !rejected.iter().any(is_near) && self.heldout.text_leak(&answer).is_none() {
                rows.push(preference_row(positive, other, answer, by));
                rejected.push(print);
            }
        }
        rows
    }

    /// Who finds the other worse, if anybody does and the two make a pair.
    fn pair(&self, positive: &Positive<'_>, other: Case<'_>) -> Option<By> {
        let chosen = positive.case;
        let by = match self.votes.between(chosen.place(), other.place()) {
            1.. => By::Human,
            // Who was asked and did not prefer it is believed before the critic.
            0 if self.votes.were_asked(chosen.place(), other.place()) => return None,
            0 if chosen.score() - other.score() >= self.options.pair_gap => By::Critic,
            _ => return None,
        };
        let on_policy = !self.options.on_policy || policy(chosen, other) == Policy::On;
        let fits =
            !other.entry.files.is_empty() && on_policy && self.are_about_as_long(positive, other.entry);
        fits.then_some(by)
    }

    fn are_about_as_long(&self, positive: &Positive<'_>, other: &Entry) -> bool {
        let length = |entry: &Entry| entry.files.iter().map(|file| file.content.len()).sum::<usize>() as f64;
        let (a, b) = (length(positive.case.entry), length(other));
        a.max(b) <= a.min(b) * self.options.pair_length_ratio
    }
}

fn policy(chosen: Case<'_>, rejected: Case<'_>) -> Policy {
    if chosen.entry.model == rejected.entry.model { Policy::On } else { Policy::Off }
}

fn preference_row(
    positive: &Positive<'_>,
    rejected: Case<'_>,
    answer: String,
    by: By,
) -> Made<PreferenceRow> {
    let row = PreferenceRow {
        preferred_output: vec![Message::assistant(positive.ready.answer.as_str())],
        non_preferred_output: vec![Message::assistant(answer)],
        input: PreferenceInput { messages: positive.prompt.to_vec() },
    };
    let tokens = positive.tokens() + tokens_more(&row.non_preferred_output);
    let mut made = made(row, RowKind::Preference, positive, Some(rejected), tokens);
    made.record.policy = Some(policy(positive.case, rejected));
    made.record.roles = Some(Roles { chosen: role(positive.case), rejected: role(rejected) });
    made.record.by = Some(by);
    made
}

/// Who wrote it as what.
fn role(case: Case<'_>) -> String {
    match case.entry.operator.as_str() {
        "draft" => "agent draft".to_owned(),
        operator => format!("{} {operator}", case.entry.model),
    }
}

fn source(case: Case<'_>) -> RowSource {
    let (log, iteration) = case.place();
    RowSource { log: log.to_owned(), iteration, score: case.score(), model: case.entry.model.clone() }
}

fn made<R>(
    row: R,
    kind: RowKind,
    positive: &Positive<'_>,
    other: Option<Case<'_>>,
    tokens: usize,
) -> Made<R> {
    let brief = &positive.case.source.brief;
    let record = RowRecord {
        // Both are known once the rows are in order.
        split: Split::Train,
        line: 0,
        row: kind,
        brief: brief.id.to_string(),
        family: brief.family.clone(),
        source: source(positive.case),
        other: other.map(source),
        step: None,
        policy: None,
        roles: None,
        by: None,
        tokens,
    };
    Made { row, record, rank: positive.rank, ui_kind: brief.kind.clone() }
}
