//! The files of a dataset.

use std::{collections::BTreeMap, path::Path};

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::{
    ChatRow, DatasetError, DropReason, Dropped, Examples, Logs, Manifest, PreferenceRow, PrepareOptions,
    RowRecord, RowSource, Summary,
    manifest::{FORMAT, FORMAT_VERSION, RowKind},
    mix::{Made, Mix, mix},
    read_logs,
    select::{Heldout, Selection, Standard, select, standard},
};
use crate::{
    brief::Brief,
    critic::{self, Level},
    event::{Event, Events, Phase},
    model::wire::MIN_EXAMPLES,
    store::{self, StoreError, Workspace},
};

/// With fewer logs than this the habit is rarely learnt.
const FEW_LOGS: usize = 50;
/// With fewer rows than this gains are small.
const FEW_ROWS: usize = 100;
/// A dataset: its rows in the order of their files, and its account.
#[derive(Clone, Debug, PartialEq)]
pub struct Prepared {
    pub train: Vec<ChatRow>,
    pub validation: Vec<ChatRow>,
    pub preferences: Vec<PreferenceRow>,
    pub manifest: Manifest,
    pub summary: Summary,
}

/// Makes a workspace's dataset from its logs and writes it: training rows, validation rows, preference pairs, manifest.
///
/// Files of an earlier dataset that this one has no rows for are removed. The training file goes first and comes last:
/// with it, the dataset is whole.
///
/// # Errors
/// No logs, none that can be read, one of a newer version, nothing that qualifies, or a file that cannot be written. Then the
/// earlier dataset is untouched, unless it was the writing that failed.
pub fn prepare(
    workspace: &Workspace,
    heldout: &[Brief],
    options: &PrepareOptions,
    events: &Events,
) -> Result<Prepared, DatasetError> {
    events.emit(Event::Begin { phase: Phase::Prepare, total: None });
    let logs = read_logs(&workspace.logs())?;
    for bad in &logs.bad {
        events.warn(
            format!("left out `{}`: {}", bad.file, bad.why),
            Some("run `hone evolve` to make it again".into()),
        );
    }
    let mut prepared = build(&logs, heldout, options)?;
    prepared.write(workspace)?;
    for warning in &prepared.summary.warnings {
        events.warn(warning.clone(), Some("run `hone evolve` on more briefs, or lower `--min-score`".into()));
    }
    events.emit(Event::End { phase: Phase::Prepare, summary: prepared.summary.sentence() });
    Ok(prepared)
}

/// Makes a dataset from logs: a pure function of its arguments.
///
/// # Errors
/// [`DatasetError::NothingQualifies`], [`DatasetError::StaticOnly`], [`DatasetError::Thread`].
pub fn build(logs: &Logs, heldout: &[Brief], options: &PrepareOptions) -> Result<Prepared, DatasetError> {
    // Apps are parsed to be compared, and logs hold whatever a model wrote.
    critic::on_deep_stack(|| build_here(logs, heldout, options))?
}

fn build_here(logs: &Logs, heldout: &[Brief], options: &PrepareOptions) -> Result<Prepared, DatasetError> {
    let heldout = Heldout::new(heldout);
    let standard = standard(logs);
    let selection = match &standard {
        Some(standard) => select(logs, standard, &heldout, options),
        // Only logs without evidence: select says so of each candidate.
        None => {
            select(logs, &Standard { critic: String::new(), level: Default::default() }, &heldout, options)
        }
    };
    let mix = mix(&selection, &heldout, options)?;
    let dropped = all_dropped(&selection, &mix);
    let (Some(standard), false) = (&standard, mix.train.is_empty()) else {
        return Err(nothing(standard.as_ref(), &dropped, options));
    };
    account(logs, standard.clone(), mix, dropped, options)
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
    dropped.extend(mix.long.iter().map(|source| late(source, DropReason::TooLong)));
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
) -> Result<Prepared, DatasetError> {
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
    let bytes = jsonl(&train);
    let dataset_sha256 = sha256(&bytes);
    let summary = Summary {
        logs: logs.found(),
        examples,
        dropped: counted(&dropped),
        files: BTreeMap::new(),
        tokens,
        validation: validation.len(),
        bytes: bytes.len(),
        critic: standard.critic.clone(),
        level: standard.level,
        dataset_sha256: dataset_sha256.clone(),
        bad_logs: logs.bad.clone(),
        warnings: warnings(logs.found(), train.len()),
    };
    let manifest = Manifest {
        format: FORMAT.to_owned(),
        version: FORMAT_VERSION,
        critic: standard.critic,
        level: standard.level,
        options: options.clone(),
        prompt_sha256: options.prompts.asked_sha256()?,
        dataset_sha256,
        logs_sha256: None,
        validation_sha256: (!validation.is_empty()).then(|| sha256(&jsonl(&validation))),
        preferences_sha256: (!preferences.is_empty()).then(|| sha256(&jsonl(&preferences))),
        examples,
        tokens,
        rows: records,
        dropped,
        withheld: mix.withheld,
        bad_logs: logs.bad.clone(),
    };
    Ok(Prepared { train, validation, preferences, manifest, summary })
}

fn apart<R>(rows: Vec<Made<R>>) -> (Vec<R>, Vec<RowRecord>) {
    rows.into_iter().map(|made| (made.row, made.record)).unzip()
}

fn warnings(logs: usize, rows: usize) -> Vec<String> {
    let mut warnings = Vec::new();
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
fn jsonl<T: Serialize>(rows: &[T]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for row in rows {
        if serde_json::to_writer(&mut bytes, row).is_ok() {
            bytes.push(b'\n');
        }
    }
    bytes
}

impl Prepared {
    fn write(&mut self, workspace: &Workspace) -> Result<(), DatasetError> {
        // Everything else is used beside a training file only. So there is none while old and new files lie together:
        // whoever is killed here leaves no dataset, and not a mixture of two.
        remove(&workspace.dataset())?;
        self.write_rows("validation", &workspace.validation(), jsonl(&self.validation))?;
        self.write_rows("preference", &workspace.preferences(), jsonl(&self.preferences))?;
        store::write_json(&workspace.manifest(), &self.manifest)?;
        self.note_file("manifest", &workspace.manifest());
        self.write_rows("train", &workspace.dataset(), jsonl(&self.train))
    }

    fn write_rows(&mut self, name: &str, path: &Path, bytes: Vec<u8>) -> Result<(), DatasetError> {
        if bytes.is_empty() {
            return remove(path);
        }
        store::write_atomic(path, &bytes)?;
        self.note_file(name, path);
        Ok(())
    }

    fn note_file(&mut self, name: &str, path: &Path) {
        self.summary.files.insert(name.to_owned(), path.display().to_string());
    }
}

fn remove(path: &Path) -> Result<(), DatasetError> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(StoreError::new("remove", path, e).into()),
        _ => Ok(()),
    }
}
