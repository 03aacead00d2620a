//! The files of a dataset.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::Path,
};

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::{
    ChatRow, DatasetError, DropReason, Dropped, Examples, Logs, Manifest, OriginalRecord, PreferenceRow,
    PrepareOptions, RowRecord, RowSource, Shape, Summary, Votes, export,
    leaks::Heldout,
    lessons::Made,
    manifest::{FORMAT, FORMAT_VERSION, RowKind},
    mix::{Mix, mix},
    select::{Gates, Selection, Standard, originals, select, standard},
    workers,
};
use crate::{
    brief::Brief,
    critic::Level,
    event::{Event, Events, Phase},
    model::wire::MIN_EXAMPLES,
    store::{self, Staged, StoreError, Workspace},
};

/// With fewer logs than this the habit is rarely learnt.
const FEW_LOGS: usize = 50;
/// With fewer rows than this gains are small.
const FEW_ROWS: usize = 100;

/// What a dataset is made from.
#[derive(Clone, Debug, Default)]
pub struct Inputs<'a> {
    /// Briefs that no row may give away, the sealed ones among them.
    pub heldout: &'a [Brief],
    /// What people said about candidates.
    pub votes: Votes,
}

/// A dataset: its rows in the order of their files, and its account.
#[derive(Clone, Debug, PartialEq)]
pub struct Prepared {
    pub train: Vec<ChatRow>,
    pub validation: Vec<ChatRow>,
    pub preferences: Vec<PreferenceRow>,
    pub manifest: Manifest,
    pub summary: Summary,
}

/// The rows as their files hold them.
#[derive(Debug)]
pub(super) struct Lines {
    train: Vec<u8>,
    validation: Vec<u8>,
    preferences: Vec<u8>,
}

/// Makes a workspace's dataset from its logs and writes it: training rows, validation rows, preference pairs, manifest.
///
/// Files of an earlier dataset that this one has no rows for are removed. The training file goes first and comes last:
/// with it, the dataset is whole.
///
/// # Errors
/// Nothing that qualifies, or a file that cannot be written. Then the earlier dataset is untouched, unless files could be
/// written and not be moved.
pub fn prepare(
    workspace: &Workspace,
    logs: &Logs,
    inputs: &Inputs<'_>,
    options: &PrepareOptions,
    events: &Events,
) -> Result<Prepared, DatasetError> {
    events.emit(Event::Begin { phase: Phase::Prepare, total: None });
    for bad in &logs.bad {
        events.warn(
            format!("left out `{}`: {}", bad.file, bad.why),
            Some("run `hone evolve` to make it again".into()),
        );
    }
    let (mut prepared, lines) = build_with(logs, inputs, options, workers::count())?;
    prepared.write(workspace, &lines)?;
    for warning in &prepared.summary.warnings {
        events.warn(warning.clone(), Some("run `hone evolve` on more briefs, or lower `--min-score`".into()));
    }
    events.emit(Event::End { phase: Phase::Prepare, summary: prepared.summary.sentence() });
    Ok(prepared)
}

/// Makes a dataset from logs: a pure function of its arguments.
///
/// # Errors
/// [`DatasetError::NothingQualifies`], [`DatasetError::StaticOnly`], [`DatasetError::Prompt`], [`DatasetError::Thread`].
pub fn build(logs: &Logs, inputs: &Inputs<'_>, options: &PrepareOptions) -> Result<Prepared, DatasetError> {
    build_with(logs, inputs, options, workers::count()).map(|(prepared, _)| prepared)
}

pub(super) fn build_with(
    logs: &Logs,
    inputs: &Inputs<'_>,
    options: &PrepareOptions,
    workers: usize,
) -> Result<(Prepared, Lines), DatasetError> {
    let heldout = Heldout::new(inputs.heldout);
    let found = standard(logs);
    // Without any, there is nothing to hold to it.
    let standard = found.clone().unwrap_or_else(|| Standard { critic: String::new(), level: Level::Static });
    let gates = Gates { standard: &standard, heldout: &heldout, options };
    let weighed: Vec<_> = gates.weigh(logs, workers)?.into_iter().collect::<Result<_, _>>()?;
    let selection = select(&weighed, originals(logs), &inputs.votes, options, workers)?;
    let mix = mix(&selection, &heldout, &inputs.votes, options, workers)?;
    let dropped = all_dropped(&selection, &mix);
    if mix.train.is_empty() {
        return Err(nothing(found.as_ref(), &dropped, options));
    }
    account(logs, standard, mix, dropped, options, workers)
}

/// What was left out, with what only showed when the rows were made, in the order of the logs.
fn all_dropped(selection: &Selection<'_>, mix: &Mix) -> Vec<Dropped> {
    let late = |source: &RowSource, reason| Dropped {
        log: source.log.clone(),
        iteration: source.iteration,
        score: Some(source.score),
        reason,
        detail: None,
    };
    let mut dropped = selection.dropped.clone();
    dropped.extend(mix.over.iter().map(|source| late(source, DropReason::OverMaxRows)));
    let positives = mix.withheld.iter().filter(|withheld| withheld.row == RowKind::Positive);
    dropped.extend(positives.map(|withheld| Dropped {
        detail: Some(withheld.why.clone()),
        ..late(&withheld.source, DropReason::HeldOut)
    }));
    dropped.sort_by(|a, b| (&a.log, a.iteration).cmp(&(&b.log, b.iteration)));
    dropped
}

fn counted(dropped: &[Dropped]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for drop in dropped {
        *counts.entry(drop.reason.to_string()).or_default() += 1;
    }
    counts
}

/// Says what would have to change: the scores of those that lack nothing else, or what most lack.
fn nothing(standard: Option<&Standard>, dropped: &[Dropped], options: &PrepareOptions) -> DatasetError {
    if standard.is_some_and(|standard| standard.level == Level::Static) {
        return DatasetError::StaticOnly { candidates: dropped.len() };
    }
    let low = dropped.iter().filter(|d| d.reason == DropReason::BelowMinScore);
    let scores: Vec<f64> =
        low.filter_map(|d| d.score).filter(|s| s.is_finite() && *s < options.min_score).collect();
    let best = scores.iter().copied().reduce(f64::max);
    let would = best.map_or(0, |best| {
        let minimum = DatasetError::working_min_score(best);
        scores.iter().filter(|score| **score >= minimum).count()
    });
    let most = counted(dropped).into_iter().max_by_key(|(_, count)| *count);
    DatasetError::NothingQualifies {
        candidates: dropped.len(),
        best,
        would_qualify: would,
        most: most.map_or_else(|| "there is no candidate in the logs".to_owned(), |(reason, _)| reason),
    }
}

fn account(
    logs: &Logs,
    standard: Standard,
    mix: Mix,
    dropped: Vec<Dropped>,
    options: &PrepareOptions,
    workers: usize,
) -> Result<(Prepared, Lines), DatasetError> {
    let tokens = mix.train.iter().map(|made| made.record.tokens).sum();
    let (train, train_records) = apart(mix.train);
    let (validation, validation_records) = apart(mix.validation);
    let (preferences, preference_records) = apart(mix.preferences);
    let records: Vec<RowRecord> = [train_records, validation_records, preference_records].concat();
    let count = |kind| records.iter().filter(|record| record.row == kind).count();
    let examples = Examples {
        positive: count(RowKind::Positive),
        improvement: count(RowKind::Improvement),
        preference: count(RowKind::Preference),
    };
    let originals = original_records(logs);
    let lines = Lines {
        train: jsonl(&train, workers)?,
        validation: jsonl(&validation, workers)?,
        preferences: jsonl(&preferences, workers)?,
    };
    let dataset_sha256 = sha256(&lines.train);
    let summary = Summary {
        logs: logs.found(),
        examples,
        dropped: counted(&dropped),
        files: BTreeMap::new(),
        tokens,
        validation: validation.len(),
        bytes: lines.train.len(),
        critic: standard.critic.clone(),
        level: standard.level,
        dataset_sha256: dataset_sha256.clone(),
        bad_logs: logs.bad.clone(),
        warnings: warnings(logs.found(), train.len(), &originals),
    };
    let manifest = Manifest {
        format: FORMAT.to_owned(),
        version: FORMAT_VERSION,
        critic: standard.critic,
        level: standard.level,
        options: options.clone(),
        prompt: options.prompts.asked()?,
        prompt_sha256: options.prompts.asked_sha256()?,
        dataset_sha256,
        logs_sha256: Some(logs.sha256()),
        validation_sha256: (!validation.is_empty()).then(|| sha256(&lines.validation)),
        preferences_sha256: (!preferences.is_empty()).then(|| sha256(&lines.preferences)),
        examples,
        tokens,
        rows: records,
        dropped,
        withheld: mix.withheld,
        bad_logs: logs.bad.clone(),
        originals,
        logs: logs.hashes.clone(),
    };
    Ok((Prepared { train, validation, preferences, manifest, summary }, lines))
}

fn apart<R>(rows: Vec<Made<R>>) -> (Vec<R>, Vec<RowRecord>) {
    rows.into_iter().map(|made| (made.row, made.record)).unzip()
}

/// What became of each log of the original workflow, looked at again or not.
fn original_records(logs: &Logs) -> Vec<OriginalRecord> {
    let mut records = logs.refreshed.clone();
    for log in &logs.originals {
        if !records.iter().any(|record| record.log == log.file) {
            records.push(OriginalRecord {
                log: log.file.clone(),
                lacked: log.lacks.clone(),
                candidates: log.entries.len(),
                re_evaluated: 0,
            });
        }
    }
    records.sort_by(|a, b| a.log.cmp(&b.log));
    records
}

fn warnings(logs: usize, rows: usize, originals: &[OriginalRecord]) -> Vec<String> {
    let mut warnings = Vec::new();
    if !originals.is_empty() {
        let lacked: BTreeSet<&str> =
            originals.iter().flat_map(|log| &log.lacked).map(String::as_str).collect();
        let sum = |count: fn(&OriginalRecord) -> usize| originals.iter().map(count).sum::<usize>();
        warnings.push(format!(
            "{} logs of the original workflow lack {}; {} of their {} candidates were looked at again",
            originals.len(),
            lacked.into_iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", "),
            sum(|log| log.re_evaluated),
            sum(|log| log.candidates),
        ));
    }
    if logs < FEW_LOGS {
        warnings.push(format!("only {logs} evolution logs; {FEW_LOGS} or more teach a habit reliably"));
    }
    if rows < MIN_EXAMPLES {
        warnings.push(format!("only {rows} training rows; providers refuse fewer than {MIN_EXAMPLES}"));
    } else if rows < FEW_ROWS {
        warnings.push(format!("only {rows} training rows; {FEW_ROWS} or more give a visible gain"));
    }
    warnings
}

fn sha256(bytes: &[u8]) -> String {
    crate::text::hex(&Sha256::digest(bytes))
}

/// Rows as JSON lines. Strings and numbers always become JSON.
fn jsonl<T: Serialize + Sync>(rows: &[T], workers: usize) -> io::Result<Vec<u8>> {
    let line = |row| {
        let mut line = serde_json::to_vec(row).unwrap_or_default();
        if !line.is_empty() {
            line.push(b'\n');
        }
        line
    };
    Ok(workers::map(workers, rows, line)?.concat())
}

impl Prepared {
    fn write(&mut self, workspace: &Workspace, lines: &Lines) -> Result<(), DatasetError> {
        let rows = |path: &Path, lines: &[u8]| -> Result<Option<Staged>, StoreError> {
            if lines.is_empty() { Ok(None) } else { store::stage(path, lines).map(Some) }
        };
        let files = [
            ("validation", workspace.validation(), &lines.validation),
            ("preference", workspace.preferences(), &lines.preferences),
            ("train", workspace.dataset(), &lines.train),
        ];
        // Whole on disk before an earlier dataset goes: one that there is no room for takes nothing away.
        let manifest = store::stage_json(&workspace.manifest(), &self.manifest)?;
        let staged: Vec<_> =
            files.iter().map(|(_, path, lines)| rows(path, lines)).collect::<Result<_, _>>()?;
        // Everything else is used beside a training file only. So there is none while old and new files lie together:
        // whoever is killed here leaves no dataset, and not a mixture of two.
        remove(&workspace.dataset())?;
        remove_exports(workspace)?;
        manifest.place()?;
        self.note_file("manifest", &workspace.manifest());
        for ((name, path, _), staged) in files.iter().zip(staged) {
            match staged {
                Some(staged) => {
                    staged.place()?;
                    self.note_file(name, path);
                }
                None => remove(path)?,
            }
        }
        Ok(())
    }

    /// Writes the rows in further shapes, beside those that are written already.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn write_exports(&mut self, workspace: &Workspace, shapes: &[Shape]) -> Result<(), DatasetError> {
        let files: Vec<_> = shapes.iter().flat_map(|shape| export(self, *shape)).collect();
        for file in files {
            let path = workspace.exports().join(&file.name);
            store::write_atomic(&path, &file.bytes)?;
            self.note_file(&file.name, &path);
        }
        Ok(())
    }

    fn note_file(&mut self, name: &str, path: &Path) {
        self.summary.files.insert(name.to_owned(), path.display().to_string());
    }
}

/// Exports of an earlier dataset say nothing of this one.
fn remove_exports(workspace: &Workspace) -> Result<(), DatasetError> {
    let mut names = Shape::ALL.into_iter().flat_map(Shape::files);
    names.try_for_each(|name| remove(&workspace.exports().join(name)))
}

fn remove(path: &Path) -> Result<(), DatasetError> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(StoreError::new("remove", path, e).into()),
        _ => Ok(()),
    }
}
