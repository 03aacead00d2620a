//! The mix of rows: trimmed evenly, set aside by family, put in order.

use std::collections::{BTreeMap, HashMap, HashSet};

use sha2::{Digest, Sha256};

use super::{
    ChatRow, DatasetError, PreferenceRow, PrepareOptions, RowRecord, RowSource,
    leaks::Heldout,
    lessons::{Lessons, Made},
    manifest::{Split, Withheld},
    ratings::Votes,
    select::Selection,
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
    let positives = gate.clear(lessons.positives(), chat_texts)?;
    let improvements = gate.clear(lessons.improvements(workers)?, chat_texts)?;
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
    let log = record.other.as_ref().map_or("", |o| o.log.as_str());
    let parts = [format!("{:?}", record.row), record.source.iteration.to_string(), other.to_string()];
    let mut parts = vec![record.source.log.as_str(), &parts[0], &parts[1], &parts[2]];
    // Rounds of a brief are in several logs.
    parts.extend(Some(log).filter(|log| !log.is_empty() && *log != record.source.log));
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
