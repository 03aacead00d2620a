//! The mix of rows: trimmed evenly, set aside by family, put in order.

use std::collections::{BTreeMap, HashMap, HashSet};

use sha2::{Digest, Sha256};

use super::{
    ChatRow, DatasetError, PreferenceRow, PrepareOptions, RowRecord, RowSource,
    leaks::Heldout,
    lessons::{Lessons, Made},
    manifest::{RowKind, Split, Withheld},
    ratings::Votes,
    select::{Positive, Selection},
    workers,
};
use crate::model::wire::Message;

/// The rows of a dataset.
#[derive(Debug, Default)]
pub(super) struct Mix {
    pub train: Vec<Made<ChatRow>>,
    pub validation: Vec<Made<ChatRow>>,
    pub preferences: Vec<Made<PreferenceRow>>,
    /// Positives that did not fit into `max_rows`.
    pub over: Vec<RowSource>,
    /// Rows of any sort that would give away a held-out brief.
    pub withheld: Vec<Withheld>,
}

/// Makes the rows of a selection.
///
/// # Errors
/// [`DatasetError::Prompt`], [`DatasetError::Thread`].
pub(super) fn mix(
    selection: &Selection<'_>,
    heldout: &Heldout,
    votes: &Votes,
    options: &PrepareOptions,
    workers: usize,
) -> Result<Mix, DatasetError> {
    let lessons = Lessons { selection, heldout, votes, options };
    let mut gate = Gate { heldout, withheld: Vec::new(), workers };
    let positives = gate.clear(lessons.positives(workers)?, chat_texts)?;
    let improvements = improvements(&lessons, &mut gate, positives.len())?;
    let (kept, over) = trim(positives, improvements, options);
    let (train, validation) = split(kept, options);
    let trained: HashSet<&str> = train.iter().map(|made| made.record.family.as_str()).collect();
    let mut preferences = gate.clear(lessons.preferences(workers)?, |row| row.texts().collect())?;
    // A family that validates must not be learnt from another file.
    preferences.retain(|made| trained.contains(made.record.family.as_str()));
    let source = |made: Made<ChatRow>| made.record.source;
    Ok(Mix {
        over: over.into_iter().map(source).collect(),
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
    workers: usize,
}

impl Gate<'_> {
    /// The rows that may be written.
    fn clear<R: Sync>(
        &mut self,
        rows: Vec<Made<R>>,
        texts: impl Fn(&R) -> Vec<&Message> + Sync,
    ) -> Result<Vec<Made<R>>, DatasetError> {
        let leak = |made: &Made<R>| {
            texts(&made.row).iter().find_map(|message| self.heldout.text_leak(&message.content))
        };
        let leaks = workers::map(self.workers, &rows, leak)?;
        let mut cleared = Vec::new();
        for (made, leak) in rows.into_iter().zip(leaks) {
            match leak {
                None => cleared.push(made),
                Some(why) => {
                    let RowRecord { row, source, other, .. } = made.record;
                    self.withheld.push(Withheld { row, source, other, why });
                }
            }
        }
        Ok(cleared)
    }
}

/// The rows of steps that there is room for beside so many positives, in turns. Rendering and counting both apps of a step
/// costs more than everything else about it, so rows that would not be kept are not made.
fn improvements(
    lessons: &Lessons<'_>,
    gate: &mut Gate<'_>,
    positives: usize,
) -> Result<Vec<Made<ChatRow>>, DatasetError> {
    if lessons.options.improvement_share <= 0.0 {
        return Ok(Vec::new());
    }
    let seed = lessons.options.seed;
    let turn = |positive: &&Positive<'_>| Turn {
        rank: positive.rank,
        kind: positive.case.source.brief.kind.clone(),
        order: order(seed, RowKind::Improvement, positive.case.place(), None),
    };
    let steps = in_turns(lessons.improved(gate.workers)?, turn);
    let most = Room::new(positives, steps.len(), lessons.options).improvements;
    let (mut rows, mut steps) = (Vec::new(), steps.as_slice());
    while rows.len() < most && !steps.is_empty() {
        let (now, later) = steps.split_at(steps.len().min(most - rows.len()));
        rows.extend(gate.clear(lessons.improvements(now, gate.workers)?, chat_texts)?);
        steps = later;
    }
    Ok(rows)
}

/// How many rows of each sort are kept of so many.
struct Room {
    positives: usize,
    improvements: usize,
}

impl Room {
    fn new(positives: usize, improvements: usize, options: &PrepareOptions) -> Self {
        let all = options.max_rows.unwrap_or(usize::MAX);
        let share = options.improvement_share.clamp(0.0, 1.0);
        let total = all.min(positives + improvements);
        let wanted = improvements.min((total as f64 * share) as usize);
        let positives = positives.min(all.saturating_sub(wanted));
        // With few positives the share counts on what is really there.
        let allowed = if share >= 1.0 { wanted } else { (positives as f64 * share / (1.0 - share)) as usize };
        Self { positives, improvements: wanted.min(allowed) }
    }
}

/// Keeps the share of improvements, which stand in turns, and the number of rows; also returns the positives that had to
/// go.
fn trim(
    positives: Vec<Made<ChatRow>>,
    improvements: Vec<Made<ChatRow>>,
    options: &PrepareOptions,
) -> (Vec<Made<ChatRow>>, Vec<Made<ChatRow>>) {
    let room = Room::new(positives.len(), improvements.len(), options);
    let turn = |made: &Made<ChatRow>| Turn {
        rank: made.rank,
        kind: made.ui_kind.clone(),
        order: order_of(options.seed, &made.record),
    };
    let mut kept = in_turns(positives, turn);
    let over = kept.split_off(room.positives);
    kept.extend(improvements.into_iter().take(room.improvements));
    (kept, over)
}

/// What the place of a thing in its turns depends on.
struct Turn {
    rank: usize,
    kind: String,
    order: [u8; 32],
}

/// Briefs take turns, and kinds of UI within each turn.
fn in_turns<T>(items: Vec<T>, turn: impl Fn(&T) -> Turn) -> Vec<T> {
    let mut items: Vec<_> = items.into_iter().map(|item| (turn(&item), item)).collect();
    items.sort_by(|(a, _), (b, _)| (a.rank, &a.order).cmp(&(b.rank, &b.order)));
    let mut turns: HashMap<(usize, String), usize> = HashMap::new();
    let mut turned: Vec<_> = items
        .into_iter()
        .map(|(Turn { rank, kind, order }, item)| {
            let turn = turns.entry((rank, kind)).or_default();
            *turn += 1;
            ((rank, *turn, order), item)
        })
        .collect();
    turned.sort_by_key(|(place, _)| *place);
    turned.into_iter().map(|(_, item)| item).collect()
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
    let mut rows: Vec<_> = rows.into_iter().map(|made| (order_of(seed, &made.record), made)).collect();
    rows.sort_by_key(|(order, _)| *order);
    let mut rows: Vec<_> = rows.into_iter().map(|(_, made)| made).collect();
    for (made, line) in rows.iter_mut().zip(1..) {
        (made.record.split, made.record.line) = (split, line);
    }
    rows
}

/// A row's place in a shuffle depends on itself and the seed alone, so that one more log moves no other row.
fn order_of(seed: u64, record: &RowRecord) -> [u8; 32] {
    let beside = record.other.as_ref().map(|other| (other.log.as_str(), other.iteration));
    order(seed, record.row, (&record.source.log, record.source.iteration), beside)
}

/// Of what is made of an app, and beside which other.
fn order(seed: u64, row: RowKind, of: (&str, u32), beside: Option<(&str, u32)>) -> [u8; 32] {
    let (log, other) = beside.unwrap_or(("", 0));
    let parts = [format!("{row:?}"), of.1.to_string(), other.to_string()];
    let mut parts = vec![of.0, &parts[0], &parts[1], &parts[2]];
    // Rounds of a brief are in several logs.
    parts.extend(Some(log).filter(|log| !log.is_empty() && *log != of.0));
    hash(seed, &parts)
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
