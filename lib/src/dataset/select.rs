//! Which candidates are worth learning from.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::{
    DropReason, Dropped, Logs, PrepareOptions, SourceLog,
    alike::{CodePrint, OTHER_BRIEF, SAME_BRIEF, Shelf},
};
use crate::{
    agent::{self, Candidate},
    brief::{
        self, Brief, BriefId,
        near::{Fingerprint, LEAK_SIMILARITY, Reason},
    },
    critic::Level,
    evolve::{EvolutionLog, LogEntry},
    model::wire::Finish,
};

/// A candidate with its log.
#[derive(Clone, Copy, Debug)]
pub(super) struct Case<'a> {
    pub source: &'a SourceLog,
    pub entry: &'a LogEntry,
}

impl<'a> Case<'a> {
    pub fn score(&self) -> f64 {
        self.entry.critique.overall_score
    }

    pub fn candidate(&self) -> Candidate {
        Candidate { files: self.entry.files.clone() }
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

/// A candidate that was taken, and whether it is its brief's first (0) or a further one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Positive<'a> {
    pub case: Case<'a>,
    pub rank: usize,
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
    /// Everything that passed every gate, taken or not.
    pub qualified: Vec<Case<'a>>,
    /// Everything that compares (held-out briefs and other standards left out), however bad.
    pub comparable: Vec<Case<'a>>,
    pub dropped: Vec<Dropped>,
}

/// Selects positives: those that run, put the UI first and score enough, without copies, the best of each brief and then
/// what differs most from it.
pub(super) fn select<'a>(
    logs: &'a Logs,
    standard: &Standard,
    heldout: &Heldout,
    options: &PrepareOptions,
) -> Selection<'a> {
    let mut selection = Selection { dropped: originals(logs), ..Selection::default() };
    for source in &logs.logs {
        let leak = heldout.brief_leak(&source.log);
        for entry in &source.log.evolution_history {
            let case = Case { source, entry };
            if let Some(why) = &leak {
                selection.dropped.push(case.dropped(DropReason::HeldOut, Some(why.clone())));
            } else if let Some(reason) = other_standard(entry, standard) {
                selection.dropped.push(case.dropped(reason, None));
            } else if let Some(reason) = incomplete(entry) {
                // Neither taught nor shown as what to avoid: it is not what its model would have written.
                selection.dropped.push(case.dropped(reason, entry.finish_reason.clone()));
            } else if !entry.evidence.trusted() {
                // Neither taught nor shown as what to avoid: nothing that was seen of it is believed.
                selection.dropped.push(case.dropped(DropReason::Tampers, None));
            } else {
                selection.comparable.push(case);
                match gate(case, heldout, options) {
                    Ok(()) => selection.qualified.push(case),
                    Err((reason, detail)) => selection.dropped.push(case.dropped(reason, detail)),
                }
            }
        }
    }
    take_best(&mut selection, options);
    selection
}

/// The newest critic's scores count, at the highest level that at least half of its logs have: a search shows the browser
/// only what may be taught, and one look with a browser must not outweigh a hundred logs without. Of level `static` only
/// when there is no other: nothing of it can be taught.
pub(super) fn standard(logs: &Logs) -> Option<Standard> {
    let mut counts: BTreeMap<VersionKey, BTreeMap<&str, BTreeMap<Level, usize>>> = BTreeMap::new();
    for source in &logs.logs {
        let standards: BTreeSet<(&str, Level)> = source
            .log
            .evolution_history
            .iter()
            .map(|entry| (entry.critique.critic.as_str(), entry.critique.level))
            .collect();
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

fn other_standard(entry: &LogEntry, standard: &Standard) -> Option<DropReason> {
    if entry.critique.critic != standard.critic {
        Some(DropReason::OtherCritic)
    } else if entry.critique.level != standard.level {
        Some(DropReason::OtherLevel)
    } else {
        None
    }
}

/// Why a reply is not whole. Logs from before this was recorded do not say.
fn incomplete(entry: &LogEntry) -> Option<DropReason> {
    let how = entry.finish_reason.as_deref()?;
    Some(if how == Finish::Length.as_str() { DropReason::Truncated } else { DropReason::Refused })
}

fn originals(logs: &Logs) -> Vec<Dropped> {
    let drop = |log: &str, entry: &super::OriginalEntry| Dropped {
        log: log.to_owned(),
        iteration: entry.iteration,
        score: entry.score,
        reason: DropReason::NoEvidence,
        detail: Some("a log without `format`: nothing shows that it ran".to_owned()),
    };
    logs.originals.iter().flat_map(|log| log.entries.iter().map(|entry| drop(&log.file, entry))).collect()
}

type Refusal = (DropReason, Option<String>);

/// What execution says comes before the score, so that the score's shortfall is named only when it is what is lacking.
fn gate(case: Case<'_>, heldout: &Heldout, options: &PrepareOptions) -> Result<(), Refusal> {
    let refuse = |reason| Err((reason, None));
    if !case.entry.evidence.ui_first() {
        return refuse(DropReason::NotUiFirst);
    }
    if let Some(habit) = case.entry.critique.habits.iter().find(|habit| !habit.holds) {
        return Err((DropReason::HabitMissed, Some(format!("{}: {}", habit.name, habit.missed.join("; ")))));
    }
    if !case.entry.evidence.runs() {
        return refuse(DropReason::DoesNotRun);
    }
    if !reads_back(&case.candidate()) {
        return refuse(DropReason::DoesNotReadBack);
    }
    // A score that is no number is below every minimum.
    if case.score().is_nan() || case.score() < options.min_score {
        return refuse(DropReason::BelowMinScore);
    }
    match heldout.text_leak(&agent::reply_of(&case.candidate())) {
        Some(why) => Err((DropReason::HeldOut, Some(why))),
        None => Ok(()),
    }
}

/// What is taught must come out of the parser as what was scored.
fn reads_back(candidate: &Candidate) -> bool {
    let read = agent::parse_reply(&agent::reply_of(candidate));
    let same = |(a, b): (&agent::SourceFile, &agent::SourceFile)| {
        a.path == b.path && a.content.trim() == b.content.trim()
    };
    !read.files.is_empty()
        && read.files.len() == candidate.files.len()
        && read.files.iter().zip(&candidate.files).all(same)
}

fn take_best(selection: &mut Selection<'_>, options: &PrepareOptions) {
    let mut by_brief: BTreeMap<String, Vec<Case<'_>>> = BTreeMap::new();
    for case in &selection.qualified {
        by_brief.entry(brief_key(&case.source.log)).or_default().push(*case);
    }
    let mut shelf = Shelf::default();
    for mut cases in by_brief.into_values() {
        cases.sort_by(|a, b| b.score().total_cmp(&a.score()).then_with(|| a.place().cmp(&b.place())));
        let mut left: Vec<(Case<'_>, CodePrint)> = Vec::new();
        for case in cases {
            let print = CodePrint::of(&case.entry.files);
            let copy = shelf.has(&print) || left.iter().any(|(_, other)| other.exact == print.exact);
            match copy {
                true => selection.dropped.push(case.dropped(DropReason::Duplicate, None)),
                false => left.push((case, print)),
            }
        }
        take_of_brief(left, &mut shelf, selection, options);
    }
}

fn take_of_brief<'a>(
    mut left: Vec<(Case<'a>, CodePrint)>,
    shelf: &mut Shelf,
    selection: &mut Selection<'a>,
    options: &PrepareOptions,
) {
    let mut taken: Vec<CodePrint> = Vec::new();
    while !left.is_empty() {
        let (case, print) = left.remove(most_different(&left, &taken));
        let like_own = taken.iter().any(|other| other.similarity(&print) >= SAME_BRIEF);
        if like_own || shelf.has_like(&print, OTHER_BRIEF) {
            selection.dropped.push(case.dropped(DropReason::NearDuplicate, None));
        } else if taken.len() >= options.max_per_brief {
            selection.dropped.push(case.dropped(DropReason::EnoughOfBrief, None));
        } else {
            selection.positives.push(Positive { case, rank: taken.len() });
            taken.push(print);
        }
    }
    taken.into_iter().for_each(|print| shelf.add(print));
}

/// The first of `left` while nothing is taken, then the one whose nearest relative among the taken is farthest.
fn most_different(left: &[(Case<'_>, CodePrint)], taken: &[CodePrint]) -> usize {
    let nearest = |print: &CodePrint| taken.iter().map(|other| other.similarity(print)).fold(0.0, f64::max);
    let distances = left.iter().map(|(_, print)| nearest(print)).enumerate();
    distances.min_by(|a, b| a.1.total_cmp(&b.1)).map_or(0, |(index, _)| index)
}

/// Rounds of a brief share its id; the text is part of the key, because an id may be given to another brief later.
pub(super) fn brief_key(log: &EvolutionLog) -> String {
    format!("{}\n{}", log.id, log.description)
}

/// The brief that a log is about.
pub(super) fn brief_of(log: &EvolutionLog) -> Brief {
    Brief {
        id: BriefId::new(log.id.clone()).unwrap_or_else(|_| BriefId::from_description(&log.description)),
        kind: log.kind.clone(),
        family: family_of(log).to_owned(),
        description: log.description.clone(),
        framework: Some(log.framework.clone()).filter(|f| !f.is_empty()),
        requirements: log.requirements.clone(),
    }
}

/// A brief without a family is one of its own.
pub(super) fn family_of(log: &EvolutionLog) -> &str {
    if log.family.is_empty() { &log.id } else { &log.family }
}

/// The briefs that no row may give away: those that it is made from, and the shipped sealed ones in any case, since nobody
/// sees them and so nobody would notice.
///
/// A row quotes all of a brief, requirements included, so requirements are compared too, on both sides. Between two of
/// them only a copy counts: many briefs wish for much the same.
pub(super) struct Heldout {
    ids: HashSet<String>,
    families: HashSet<String>,
    /// What the briefs ask for: each description, alone and with its requirements.
    texts: Vec<Fingerprint>,
    /// Each requirement by itself.
    requirements: Vec<Fingerprint>,
}

impl Heldout {
    pub fn new(briefs: &[Brief]) -> Self {
        let sealed = brief::shipped_sealed().into_iter().filter(|sealed| !briefs.contains(sealed));
        let briefs: Vec<Brief> = briefs.iter().cloned().chain(sealed).collect();
        let requirements = briefs.iter().flat_map(|b| &b.requirements);
        let texts = briefs.iter().flat_map(|b| wordings(&b.description, &b.requirements));
        Self {
            ids: briefs.iter().map(|b| b.id.to_string()).collect(),
            families: briefs.iter().map(|b| b.family.clone()).filter(|f| !f.is_empty()).collect(),
            texts: texts.map(|text| Fingerprint::of(&text)).collect(),
            requirements: requirements.map(|text| Fingerprint::of(text)).collect(),
        }
    }

    /// Why nothing of a log may be trained on.
    fn brief_leak(&self, log: &EvolutionLog) -> Option<String> {
        if self.ids.contains(&log.id) {
            return Some("its brief is held out".to_owned());
        }
        if self.families.contains(family_of(log)) {
            return Some(format!("its family `{}` is held out", family_of(log)));
        }
        let mut wordings = wordings(&log.description, &log.requirements).into_iter();
        let leak = wordings.find_map(|text| self.text_leak(&text));
        let leak = leak.or_else(|| log.requirements.iter().find_map(|text| self.requirement_leak(text)));
        leak.map(|why| format!("like a held-out brief: {why}"))
    }

    /// Why a text may not be in a row.
    pub fn text_leak(&self, text: &str) -> Option<String> {
        let print = Fingerprint::of(text);
        let overlap = self.texts.iter().find_map(|held| print.overlaps(held));
        let quote = || self.requirements.iter().find_map(|held| print.quotes(held));
        overlap.or_else(quote).map(|reason| reason.to_string())
    }

    /// A requirement that is nearly a held-out description; whole copies show in the brief's full wording.
    fn requirement_leak(&self, text: &str) -> Option<String> {
        let print = Fingerprint::of(text);
        let mut similar = self.texts.iter().map(|held| print.similarity(held));
        let near = similar.find(|similarity| *similarity >= LEAK_SIMILARITY)?;
        Some(Reason::Similar(near).to_string())
    }
}

/// A brief's description, alone and with its requirements.
fn wordings(description: &str, requirements: &[String]) -> Vec<String> {
    let mut wordings = vec![description.to_owned()];
    if !requirements.is_empty() {
        wordings.push(format!("{description}\n{}", requirements.join("\n")));
    }
    wordings
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
