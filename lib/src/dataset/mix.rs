//! Rows from what was selected: made, trimmed evenly, set aside by family, put in order.

use std::collections::{BTreeMap, HashMap, HashSet};

use sha2::{Digest, Sha256};

use super::{
    ChatRow, PreferenceInput, PreferenceRow, PrepareOptions, RowRecord, RowSource,
    manifest::{RowKind, Split, Withheld},
    select::{Case, Heldout, Positive, Selection, brief_key, brief_of, family_of},
    tokens,
};
use crate::{
    agent::{self, PromptError},
    evolve::improvement_messages,
    model::wire::Message,
};

/// A row, where it came from, and what its place in the mix depends on.
#[derive(Clone, Debug)]
pub(super) struct Made<R> {
    pub row: R,
    pub record: RowRecord,
    /// 0 for a brief's first row of its sort, 1 for its second...
    rank: usize,
    ui_kind: String,
}

/// The rows of a dataset.
#[derive(Debug, Default)]
pub(super) struct Mix {
    pub train: Vec<Made<ChatRow>>,
    pub validation: Vec<Made<ChatRow>>,
    pub preferences: Vec<Made<PreferenceRow>>,
    /// Positives that did not fit into `max_rows`.
    pub over: Vec<RowSource>,
    /// Positives of too many tokens.
    pub long: Vec<RowSource>,
    /// Rows of any sort that would give away a held-out brief.
    pub withheld: Vec<Withheld>,
}

/// Makes the rows of a selection.
pub(super) fn mix(
    selection: &Selection<'_>,
    heldout: &Heldout,
    options: &PrepareOptions,
) -> Result<Mix, PromptError> {
    let mut gate = Gate { heldout, withheld: Vec::new() };
    let positives: Result<Vec<_>, _> =
        selection.positives.iter().map(|positive| positive_row(positive, options)).collect();
    let positives = gate.clear(positives?, chat_texts);
    let (positives, long): (Vec<_>, Vec<_>) =
        positives.into_iter().partition(|made| made.record.tokens <= options.max_row_tokens);
    let improvements = gate.clear(improvement_rows(selection, options)?, chat_texts);
    let (kept, over) = trim(positives, improvements, options);
    let (train, validation) = split(kept, options);
    let trained: HashSet<&str> = train.iter().map(|made| made.record.family.as_str()).collect();
    let mut preferences =
        gate.clear(preference_rows(selection, heldout, options)?, |row| row.texts().collect());
    // A family that validates must not be learnt from another file.
    preferences.retain(|made| trained.contains(made.record.family.as_str()));
    let source = |made: Made<ChatRow>| made.record.source;
    Ok(Mix {
        over: over.into_iter().map(source).collect(),
        long: long.into_iter().map(source).collect(),
        withheld: gate.withheld,
        train: ordered(train, Split::Train, options.seed),
        validation: ordered(validation, Split::Validation, options.seed),
        preferences: ordered(preferences, Split::Preference, options.seed),
    })
}

fn chat_texts(row: &ChatRow) -> Vec<&Message> {
    row.messages.iter().collect()
}

/// The last look at each row, at every text of it: whatever a prompt or a critique brings in, nothing held out is
/// written.
struct Gate<'a> {
    heldout: &'a Heldout,
    withheld: Vec<Withheld>,
}

impl Gate<'_> {
    /// The rows that may be written.
    fn clear<R>(&mut self, rows: Vec<Made<R>>, texts: impl Fn(&R) -> Vec<&Message>) -> Vec<Made<R>> {
        let mut cleared = Vec::new();
        for made in rows {
            match texts(&made.row).iter().find_map(|message| self.heldout.text_leak(&message.content)) {
                None => cleared.push(made),
                Some(why) => {
                    let RowRecord { row, source, other, .. } = made.record;
                    self.withheld.push(Withheld { row, source, other, why });
                }
            }
        }
        cleared
    }
}

fn source(case: Case<'_>) -> RowSource {
    let (log, iteration) = case.place();
    RowSource { log: log.to_owned(), iteration, score: case.score(), model: case.entry.model.clone() }
}

fn made<R>(
    row: R,
    kind: RowKind,
    case: Case<'_>,
    other: Option<Case<'_>>,
    tokens: usize,
    rank: usize,
) -> Made<R> {
    let log = &case.source.log;
    let record = RowRecord {
        // Both are known once the rows are in order.
        split: Split::Train,
        line: 0,
        row: kind,
        brief: log.id.clone(),
        family: family_of(log).to_owned(),
        source: source(case),
        other: other.map(source),
        tokens,
    };
    Made { row, record, rank, ui_kind: log.kind.clone() }
}

fn answer(case: Case<'_>) -> String {
    agent::reply_of(&case.candidate())
}

fn positive_row(positive: &Positive<'_>, options: &PrepareOptions) -> Result<Made<ChatRow>, PromptError> {
    let case = positive.case;
    let row = ChatRow::new(options.prompts.ask(&brief_of(&case.source.log))?, answer(case));
    let tokens = tokens::chat_tokens(&row.messages);
    Ok(made(row, RowKind::Positive, case, None, tokens, positive.rank))
}

/// One row per brief at most: its largest step from an app with named faults to one that is good enough to learn.
fn improvement_rows(
    selection: &Selection<'_>,
    options: &PrepareOptions,
) -> Result<Vec<Made<ChatRow>>, PromptError> {
    if options.improvement_share <= 0.0 {
        return Ok(Vec::new());
    }
    let mut best: BTreeMap<String, (f64, Case<'_>, Case<'_>)> = BTreeMap::new();
    for &after in &selection.qualified {
        let Some(before) = parent(after) else { continue };
        let gain = after.score() - before.score();
        let key = brief_key(&after.source.log);
        if gain >= options.min_gain && best.get(&key).is_none_or(|(other, ..)| gain > *other) {
            best.insert(key, (gain, before, after));
        }
    }
    let rows = best.into_values().map(|(_, before, after)| improvement_row(before, after, options));
    let mut rows: Vec<_> = rows.collect::<Result<_, _>>()?;
    rows.retain(|made| made.record.tokens <= options.max_improvement_tokens);
    Ok(rows)
}

/// The best of the apps that a candidate was made from, when there is something to say about it.
fn parent(case: Case<'_>) -> Option<Case<'_>> {
    let history = &case.source.log.evolution_history;
    let parents = history.iter().filter(|e| {
        let whole = e.finish_reason.is_none() && !e.files.is_empty();
        case.entry.parents.contains(&e.iteration) && whole && !e.critique.issues.is_empty()
    });
    let best = parents.max_by(|a, b| a.critique.overall_score.total_cmp(&b.critique.overall_score))?;
    Some(Case { source: case.source, entry: best })
}

fn improvement_row<'a>(
    before: Case<'a>,
    after: Case<'a>,
    options: &PrepareOptions,
) -> Result<Made<ChatRow>, PromptError> {
    let brief = brief_of(&after.source.log);
    let messages = improvement_messages(&options.prompts, &brief, before.entry, after.entry)?;
    let row = ChatRow::new(messages, answer(after));
    let tokens = tokens::chat_tokens(&row.messages);
    Ok(made(row, RowKind::Improvement, after, Some(before), tokens, 0))
}

/// For each positive, the first clearly worse answer to the same brief, one by the same writer when there is one.
fn preference_rows(
    selection: &Selection<'_>,
    heldout: &Heldout,
    options: &PrepareOptions,
) -> Result<Vec<Made<PreferenceRow>>, PromptError> {
    let mut by_brief: HashMap<String, Vec<Case<'_>>> = HashMap::new();
    for case in &selection.comparable {
        by_brief.entry(brief_key(&case.source.log)).or_default().push(*case);
    }
    let pair = |positive: &Positive<'_>| {
        let others = by_brief.get(&brief_key(&positive.case.source.log))?;
        let worse = others.iter().copied().filter(|other| is_pair(positive.case, *other, options));
        let same_writer = |other: &Case<'_>| other.entry.model == positive.case.entry.model;
        let mut worse: Vec<_> = worse.collect();
        worse.sort_by_key(|other| (!same_writer(other), other.place()));
        let rejected = worse.into_iter().find(|other| heldout.text_leak(&answer(*other)).is_none())?;
        Some(preference_row(positive, rejected, options))
    };
    selection.positives.iter().filter_map(pair).collect()
}

fn is_pair(chosen: Case<'_>, rejected: Case<'_>, options: &PrepareOptions) -> bool {
    let (long, short) = {
        let (a, b) = (answer(chosen).len(), answer(rejected).len());
        (a.max(b) as f64, a.min(b) as f64)
    };
    !rejected.entry.files.is_empty()
        && chosen.score() - rejected.score() >= options.pair_gap
        && long <= short * options.pair_length_ratio
        && (!options.on_policy || chosen.entry.model == rejected.entry.model)
}

fn preference_row(
    positive: &Positive<'_>,
    rejected: Case<'_>,
    options: &PrepareOptions,
) -> Result<Made<PreferenceRow>, PromptError> {
    let chosen = positive.case;
    let messages = options.prompts.ask(&brief_of(&chosen.source.log))?;
    let row = PreferenceRow {
        preferred_output: vec![Message::assistant(answer(chosen))],
        non_preferred_output: vec![Message::assistant(answer(rejected))],
        input: PreferenceInput { messages },
    };
    let all: Vec<Message> = [&row.input.messages, &row.preferred_output, &row.non_preferred_output]
        .into_iter()
        .flatten()
        .cloned()
        .collect();
    let tokens = tokens::chat_tokens(&all);
    Ok(made(row, RowKind::Preference, chosen, Some(rejected), tokens, positive.rank))
}

/// Keeps the share of improvements and the number of rows; also returns the positives that had to go.
fn trim(
    positives: Vec<Made<ChatRow>>,
    improvements: Vec<Made<ChatRow>>,
    options: &PrepareOptions,
) -> (Vec<Made<ChatRow>>, Vec<Made<ChatRow>>) {
    let room = options.max_rows.unwrap_or(usize::MAX);
    let share = options.improvement_share.clamp(0.0, 1.0);
    let total = room.min(positives.len() + improvements.len());
    let wanted = improvements.len().min((total as f64 * share) as usize);
    let room_for_positives = room.saturating_sub(wanted);
    let (mut kept, over) = even(positives, room_for_positives, options.seed);
    // With few positives the share counts on what is really there.
    let allowed = if share >= 1.0 { wanted } else { (kept.len() as f64 * share / (1.0 - share)) as usize };
    kept.extend(even(improvements, wanted.min(allowed), options.seed).0);
    (kept, over)
}

/// The first `count` rows when briefs take turns, and kinds of UI within each turn.
fn even(rows: Vec<Made<ChatRow>>, count: usize, seed: u64) -> (Vec<Made<ChatRow>>, Vec<Made<ChatRow>>) {
    let mut rows: Vec<_> = rows.into_iter().map(|made| (order(seed, &made.record), made)).collect();
    rows.sort_by(|a, b| (a.1.rank, &a.0).cmp(&(b.1.rank, &b.0)));
    let mut turns: HashMap<(usize, String), usize> = HashMap::new();
    let mut turned: Vec<_> = rows
        .into_iter()
        .map(|(order, made)| {
            let turn = turns.entry((made.rank, made.ui_kind.clone())).or_default();
            *turn += 1;
            ((made.rank, *turn, order), made)
        })
        .collect();
    turned.sort_by_key(|(place, _)| *place);
    let mut kept: Vec<_> = turned.into_iter().map(|(_, made)| made).collect();
    let over = kept.split_off(count.min(kept.len()));
    (kept, over)
}

/// Sets whole families aside until the share is met, never more than half of the families.
fn split(rows: Vec<Made<ChatRow>>, options: &PrepareOptions) -> (Vec<Made<ChatRow>>, Vec<Made<ChatRow>>) {
    let wanted = (rows.len() as f64 * options.validation_share.clamp(0.0, 0.5)) as usize;
    if rows.len() < PrepareOptions::MIN_SPLIT_ROWS || wanted == 0 {
        return (rows, Vec::new());
    }
    let mut sizes: BTreeMap<&str, usize> = BTreeMap::new();
    for made in &rows {
        *sizes.entry(&made.record.family).or_default() += 1;
    }
    let mut families: Vec<(&str, usize)> = sizes.into_iter().collect();
    families.sort_by_key(|(family, _)| hash(options.seed, &["validation", family]));
    let half = families.len() / 2;
    let (mut aside, mut count) = (HashSet::new(), 0);
    for (family, size) in families.into_iter().take(half) {
        if count + size <= wanted {
            aside.insert(family.to_owned());
            count += size;
        }
    }
    rows.into_iter().partition(|made| !aside.contains(&made.record.family))
}

/// Shuffled by the seed, with the line numbers that follow from it.
fn ordered<R>(rows: Vec<Made<R>>, split: Split, seed: u64) -> Vec<Made<R>> {
    let mut rows: Vec<_> = rows.into_iter().map(|made| (order(seed, &made.record), made)).collect();
    rows.sort_by_key(|(order, _)| *order);
    let mut rows: Vec<_> = rows.into_iter().map(|(_, made)| made).collect();
    for (made, line) in rows.iter_mut().zip(1..) {
        (made.record.split, made.record.line) = (split, line);
    }
    rows
}

/// A row's place in a shuffle depends on itself and the seed alone, so that one more log moves no other row.
fn order(seed: u64, record: &RowRecord) -> [u8; 32] {
    let other = record.other.as_ref().map_or(0, |o| o.iteration);
    let parts = [format!("{:?}", record.row), record.source.iteration.to_string(), other.to_string()];
    hash(seed, &[&record.source.log, &parts[0], &parts[1], &parts[2]])
}

fn hash(seed: u64, parts: &[&str]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    hasher.update(seed.to_le_bytes());
    for part in parts {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.finalize().into()
}
