//! Which candidates are worth learning from.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

use super::{
    DropReason, Dropped, Entry, Logs, OriginalEntry, PrepareOptions, SourceLog,
    alike::{CodePrint, Filed, Rarity, Shelf},
    leaks::Heldout,
    ratings::Votes,
    tokens, workers,
};
use crate::{
    agent::{self, Candidate, PromptError},
    critic::Level,
    model::wire::{Finish, Message},
};

/// A candidate with its log.
#[derive(Clone, Copy, Debug)]
pub(super) struct Case<'a> {
    pub source: &'a SourceLog,
    pub entry: &'a Entry,
}

impl<'a> Case<'a> {
    pub fn score(&self) -> f64 {
        self.entry.look.score
    }

    /// As a reply would have it.
    pub fn answer(&self) -> String {
        agent::reply_of(&Candidate { files: self.entry.files.clone() })
    }

    /// Its log, and its place in it: the order in which everything was written.
    pub fn place(&self) -> (&'a str, u32) {
        (&self.source.file, self.entry.iteration)
    }

    fn dropped(&self, reason: DropReason, detail: Option<String>) -> Dropped {
        let (log, iteration) = self.place();
        Dropped { log: log.to_owned(), iteration, score: Some(self.score()), reason, detail }
    }
}

/// A log of which every candidate was held to the gates, none yet to the others.
#[derive(Debug)]
pub(super) struct Weighed<'a> {
    source: &'a SourceLog,
    /// What asks for its brief.
    pub prompt: Vec<Message>,
    prompt_tokens: usize,
    verdicts: Vec<Verdict>,
}

#[derive(Debug)]
enum Verdict {
    /// Neither taught nor shown as what to avoid.
    Out(DropReason, Option<String>),
    /// Not good enough to be taught; it compares, however bad it is.
    Short(DropReason, Option<String>),
    /// It passes every gate.
    Ready(Box<Ready>),
}

/// What was found out about a candidate on its way through the gates.
#[derive(Debug)]
pub(super) struct Ready {
    pub answer: String,
    pub print: CodePrint,
    /// That it adds to its prompt.
    pub tokens: usize,
}

/// A candidate that was taken, and whether it is its brief's first (0) or a further one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Positive<'a> {
    pub case: Case<'a>,
    pub rank: usize,
    pub ready: &'a Ready,
    pub prompt: &'a [Message],
    prompt_tokens: usize,
}

impl Positive<'_> {
    /// Of the row that it makes with its prompt.
    pub fn tokens(&self) -> usize {
        self.prompt_tokens + self.ready.tokens
    }
}

/// Scores of one critic at one level: the only ones that compare.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Standard {
    pub critic: String,
    pub level: Level,
}

/// What was taken and what was not.
#[derive(Debug, Default)]
pub(super) struct Selection<'a> {
    pub positives: Vec<Positive<'a>>,
    /// By [`brief_key`]: everything that compares (held-out briefs and other standards left out), however bad, in the order
    /// of the logs.
    pub comparable: BTreeMap<String, Vec<Case<'a>>>,
    pub dropped: Vec<Dropped>,
}

/// What candidates are held to.
pub(super) struct Gates<'a> {
    pub standard: &'a Standard,
    pub heldout: &'a Heldout,
    pub options: &'a PrepareOptions,
}

impl Gates<'_> {
    /// Holds every candidate of every log to the gates.
    ///
    /// # Errors
    /// A thread that cannot be started.
    pub fn weigh<'a>(
        &self,
        logs: &'a Logs,
        workers: usize,
    ) -> io::Result<Vec<Result<Weighed<'a>, PromptError>>> {
        workers::map(workers, &logs.logs, |source| self.weigh_log(source))
    }

    fn weigh_log<'a>(&self, source: &'a SourceLog) -> Result<Weighed<'a>, PromptError> {
        let prompt = self.options.prompts.ask(&source.brief)?;
        let leak = self.heldout.brief_leak(&source.brief);
        let row = RowGate {
            // A prompt brings in what templates and settings say, beside the brief.
            leak: prompt.iter().find_map(|message| self.heldout.text_leak(&message.content)),
            tokens: tokens::chat_tokens(&prompt),
        };
        let verdict = |entry: &Entry| match &leak {
            Some(why) => Verdict::Out(DropReason::HeldOut, Some(why.clone())),
            None => self.verdict(Case { source, entry }, &row),
        };
        let verdicts = source.entries.iter().map(verdict).collect();
        Ok(Weighed { source, prompt, prompt_tokens: row.tokens, verdicts })
    }

    fn verdict(&self, case: Case<'_>, row: &RowGate) -> Verdict {
        let entry = case.entry;
        if let Some(reason) = other_standard(entry, self.standard) {
            return Verdict::Out(reason, None);
        }
        // Neither taught nor shown as what to avoid: it is not what its model would have written.
        if let Some(reason) = incomplete(entry) {
            return Verdict::Out(reason, entry.finish_reason.clone());
        }
        // Nothing that was seen of it is believed.
        if !entry.look.trusted {
            return Verdict::Out(DropReason::Tampers, None);
        }
        match self.gate(case, row) {
            Ok(ready) => Verdict::Ready(Box::new(ready)),
            Err((reason, detail)) => Verdict::Short(reason, detail),
        }
    }

    /// What execution says comes before the score, so that the score's shortfall is named only when it is what is lacking.
    fn gate(&self, case: Case<'_>, row: &RowGate) -> Result<Ready, (DropReason, Option<String>)> {
        let look = &case.entry.look;
        let refuse = |reason| Err((reason, None));
        if !look.ui_first {
            return refuse(DropReason::NotUiFirst);
        }
        if let Some(missed) = &look.habit_missed {
            return Err((DropReason::HabitMissed, Some(missed.clone())));
        }
        if !look.runs {
            return refuse(DropReason::DoesNotRun);
        }
        let answer = case.answer();
        if !reads_back(case.entry, &answer) {
            return refuse(DropReason::DoesNotReadBack);
        }
        // A score that is no number is below every minimum.
        if case.score().is_nan() || case.score() < self.options.min_score {
            return refuse(DropReason::BelowMinScore);
        }
        if !case.entry.fresh {
            return refuse(DropReason::NotFresh);
        }
        if let Some(why) = self.heldout.text_leak(&answer).or_else(|| row.leak.clone()) {
            return Err((DropReason::HeldOut, Some(why)));
        }
        let tokens = tokens_more(&[Message::assistant(answer.as_str())]);
        if row.tokens + tokens > self.options.max_row_tokens {
            return refuse(DropReason::TooLong);
        }
        Ok(Ready { print: CodePrint::of(&case.entry.files), answer, tokens })
    }
}

/// What the rows of a log have in common.
struct RowGate {
    leak: Option<String>,
    tokens: usize,
}

/// What messages add to a conversation.
pub(super) fn tokens_more(messages: &[Message]) -> usize {
    tokens::chat_tokens(messages) - tokens::chat_tokens(&[])
}

/// What is taught must come out of the parser as what was scored.
fn reads_back(entry: &Entry, answer: &str) -> bool {
    let read = agent::parse_reply(answer);
    let same = |(a, b): (&agent::SourceFile, &agent::SourceFile)| {
        a.path == b.path && a.content.trim() == b.content.trim()
    };
    !read.files.is_empty()
        && read.files.len() == entry.files.len()
        && read.files.iter().zip(&entry.files).all(same)
}

/// Selects positives: of those that passed every gate the best of each brief and then what differs most from it, without
/// copies. What people preferred comes before what the critic did.
///
/// # Errors
/// A thread that cannot be started.
pub(super) fn select<'a>(
    weighed: &'a [Weighed<'a>],
    originals: Vec<Dropped>,
    votes: &Votes,
    options: &PrepareOptions,
    workers: usize,
) -> io::Result<Selection<'a>> {
    let mut selection = Selection { dropped: originals, ..Selection::default() };
    let mut ready: BTreeMap<String, Vec<Positive<'_>>> = BTreeMap::new();
    for log in weighed {
        let key = brief_key(log.source);
        for (entry, verdict) in log.source.entries.iter().zip(&log.verdicts) {
            let case = Case { source: log.source, entry };
            match verdict {
                Verdict::Out(reason, detail) => {
                    selection.dropped.push(case.dropped(*reason, detail.clone()));
                    continue;
                }
                Verdict::Short(reason, detail) => {
                    selection.dropped.push(case.dropped(*reason, detail.clone()));
                }
                Verdict::Ready(found) => {
                    let (prompt, prompt_tokens) = (&log.prompt, log.prompt_tokens);
                    let positive = Positive { case, rank: 0, ready: found, prompt, prompt_tokens };
                    ready.entry(key.clone()).or_default().push(positive);
                }
            }
            selection.comparable.entry(key.clone()).or_default().push(case);
        }
    }
    let prints: Vec<&CodePrint> = ready.values().flatten().map(|positive| &positive.ready.print).collect();
    let rarity = Rarity::new(options.similarity, &prints, workers)?;
    let mut filed = workers::map(workers, &prints, |print| rarity.file(print))?.into_iter();
    let mut taker = Taker { shelf: rarity.shelf(), names: Vec::new(), selection, options };
    for (_, cases) in ready {
        let mut cases: Vec<_> = cases.into_iter().zip(&mut filed).collect();
        let liked = |positive: &Positive<'_>| votes.liking(positive.case.place());
        cases.sort_by(|(a, _), (b, _)| {
            let by_score = || b.case.score().total_cmp(&a.case.score());
            liked(b).cmp(&liked(a)).then_with(by_score).then_with(|| a.case.place().cmp(&b.case.place()))
        });
        taker.take_of_brief(cases);
    }
    Ok(taker.selection)
}

/// A candidate that was not looked at yet.
struct Waiting<'a> {
    positive: Positive<'a>,
    filed: Filed<'a>,
    /// How similar its nearest relative among the taken of its brief is.
    nearest: f64,
}

/// Takes candidates one by one, each unless something like it was taken.
struct Taker<'a, 'o> {
    shelf: Shelf<'a>,
    /// Of what is on the shelf, in its order.
    names: Vec<(&'a str, u32)>,
    selection: Selection<'a>,
    options: &'o PrepareOptions,
}

impl<'a> Taker<'a, '_> {
    fn take_of_brief(&mut self, cases: Vec<(Positive<'a>, Filed<'a>)>) {
        let mut taken: Vec<Positive<'a>> = Vec::new();
        let mut left: Vec<Waiting<'a>> =
            cases.into_iter().map(|(positive, filed)| Waiting { positive, filed, nearest: 0.0 }).collect();
        while !left.is_empty() {
            let enough = taken.len() >= self.options.max_per_brief;
            let next = left.remove(if enough { 0 } else { most_different(&left) });
            let case = next.positive.case;
            if let Some((reason, detail)) = self.like_taken(&next.filed) {
                self.selection.dropped.push(case.dropped(reason, Some(detail)));
            } else if enough {
                self.selection.dropped.push(case.dropped(DropReason::EnoughOfBrief, None));
            } else {
                let print = next.filed.print;
                for other in &mut left {
                    other.nearest = other.nearest.max(other.filed.print.similarity(print));
                }
                self.shelf.add(next.filed);
                self.names.push(case.place());
                taken.push(Positive { rank: taken.len(), ..next.positive });
            }
        }
        self.selection.positives.extend(taken);
    }

    /// Why it would teach nothing new, and what does already.
    fn like_taken(&mut self, filed: &Filed<'_>) -> Option<(DropReason, String)> {
        let twin = self.shelf.twin(filed)?;
        let (log, iteration) = self.names[twin.index];
        Some(match self.shelf.copy(filed.print) {
            Some(_) => (DropReason::Duplicate, format!("like {log}#{iteration}")),
            None => (DropReason::NearDuplicate, format!("like {log}#{iteration} ({:.2})", twin.similarity)),
        })
    }
}

/// The first while nothing is taken, then the one whose nearest relative among the taken is farthest.
fn most_different(left: &[Waiting<'_>]) -> usize {
    let nearest = left.iter().map(|waiting| waiting.nearest).enumerate();
    nearest.min_by(|a, b| a.1.total_cmp(&b.1)).map_or(0, |(index, _)| index)
}

/// The newest critic's scores count, at the highest level that at least half of its logs have: a search shows the browser
/// only what may be taught, and one look with a browser must not outweigh a hundred logs without. Of level `static` only
/// when there is no other: nothing of it can be taught.
pub(super) fn standard(logs: &Logs) -> Option<Standard> {
    let mut counts: BTreeMap<VersionKey, BTreeMap<&str, BTreeMap<Level, usize>>> = BTreeMap::new();
    for source in &logs.logs {
        let standards: BTreeSet<(&str, Level)> =
            source.entries.iter().map(|entry| (entry.look.critic.as_str(), entry.look.level)).collect();
        for (critic, level) in standards {
            let of_version = counts.entry(version_key(critic)).or_default();
            *of_version.entry(critic).or_default().entry(level).or_default() += 1;
        }
    }
    // Standards and judges of one version have no order, so the one that most logs were held to counts.
    let (_, critics) = counts.pop_last()?;
    let (critic, levels) = critics.into_iter().max_by_key(|(_, levels)| levels.values().sum::<usize>())?;
    let most = levels.values().copied().max()?;
    let common = |(level, count): &(&Level, &usize)| **level != Level::Static && 2 * **count >= most;
    let level = levels.iter().rfind(common).or_else(|| levels.iter().next_back()).map(|(level, _)| *level)?;
    Some(Standard { critic: critic.to_owned(), level })
}

type VersionKey = Vec<u64>;

/// "1.10" is newer than "1.9".
fn version_key(version: &str) -> VersionKey {
    // What follows a plus names the standards, which have no order.
    let version = version.split('+').next().unwrap_or_default();
    version.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
}

fn other_standard(entry: &Entry, standard: &Standard) -> Option<DropReason> {
    if entry.look.critic != standard.critic {
        Some(DropReason::OtherCritic)
    } else if entry.look.level != standard.level {
        Some(DropReason::OtherLevel)
    } else {
        None
    }
}

/// Whether its reply is whole, as far as its log says.
pub(super) fn is_whole(entry: &Entry) -> bool {
    incomplete(entry).is_none()
}

/// Why a reply is not whole. Logs from before this was recorded do not say.
fn incomplete(entry: &Entry) -> Option<DropReason> {
    let how = entry.finish_reason.as_deref()?;
    Some(if how == Finish::Length.as_str() { DropReason::Truncated } else { DropReason::Refused })
}

/// Candidates of the original workflow that nobody looked at: nothing shows that they ran.
pub(super) fn originals(logs: &Logs) -> Vec<Dropped> {
    let drop = |log: &str, entry: &OriginalEntry| Dropped {
        log: log.to_owned(),
        iteration: entry.iteration,
        score: entry.score,
        reason: DropReason::NoEvidence,
        detail: Some("a log without `format`: nothing shows that it ran".to_owned()),
    };
    logs.originals.iter().flat_map(|log| log.entries.iter().map(|entry| drop(&log.file, entry))).collect()
}

/// Rounds of a brief share its id; the text is part of the key, because an id may be given to another brief later.
pub(super) fn brief_key(source: &SourceLog) -> String {
    format!("{}\n{}", source.brief.id, source.brief.description)
}

#[cfg(test)]
mod unit_tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        assert!(version_key("10") > version_key("9"));
        assert!(version_key("1.10") > version_key("1.9"));
        assert!(version_key("2") > version_key("1.9.9"));
        assert!(version_key("v2") > version_key("v1"));
    }
}
