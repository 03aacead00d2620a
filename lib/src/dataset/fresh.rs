//! A second look at what may be taught.
//!
//! The score by which a candidate was picked is the best of several, and biased upwards; a log of the original workflow has
//! no evidence at all. Such candidates are looked at again, each on disk before it counts: `data/re_evaluated/` has a file
//! for each, named for what was looked at and by whom, so that a second `prepare` looks at none of them.

use std::{borrow::Cow, future::Future, path::Path};

use futures::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{
    DatasetError, Entry, Logs, Look, OriginalLog, PrepareOptions, SourceLog,
    select::{is_whole, standard},
};
use crate::{
    agent::{Candidate, SourceFile},
    brief::Brief,
    cancel::Cancel,
    critic::{Critic, CriticError, Critique, Evidence, Level},
    event::{Event, Events, Phase},
    evolve::LogUsage,
    store,
};

/// Who the original workflow's candidates are by; its logs do not say.
const UNKNOWN: &str = "unknown";
/// What scores this much below the minimum may reach it on a second look.
const MARGIN: f64 = 1.0;

/// What became of a log of the original workflow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OriginalRecord {
    pub log: String,
    /// What our logs have and it has not.
    pub lacked: Vec<String>,
    pub candidates: usize,
    /// Candidates that were looked at again.
    pub re_evaluated: usize,
}

/// How many candidates nobody looked at twice that could be taught if somebody did.
pub fn wanting(logs: &Logs, options: &PrepareOptions) -> usize {
    due(logs, options).count()
}

/// Where a candidate stands in [`Logs`]: the index of its log, and its own.
#[derive(Clone, Copy, Debug)]
enum At {
    Original(usize, usize),
    Ours(usize, usize),
}

#[derive(Clone, Debug)]
struct Wanted {
    at: At,
    brief: Brief,
    files: Vec<SourceFile>,
}

/// Every candidate that wants a second look, with its brief.
fn due<'l>(
    logs: &'l Logs,
    options: &'l PrepareOptions,
) -> impl Iterator<Item = (At, Cow<'l, Brief>, &'l [SourceFile])> {
    let originals = logs.originals.iter().enumerate().filter_map(|(log, original)| {
        let brief = brief_of(original)?;
        let candidates = original.entries.iter().enumerate().filter(|(_, entry)| !entry.files.is_empty());
        Some(candidates.map(move |(index, entry)| {
            (At::Original(log, index), Cow::Owned(brief.clone()), entry.files.as_slice())
        }))
    });
    let ours = logs.logs.iter().enumerate().flat_map(move |(log, source)| {
        let candidates = source.entries.iter().enumerate().filter(|(_, entry)| is_due(entry, options));
        candidates.map(move |(index, entry)| {
            (At::Ours(log, index), Cow::Borrowed(&source.brief), entry.files.as_slice())
        })
    });
    originals.flatten().chain(ours)
}

fn is_due(entry: &Entry, options: &PrepareOptions) -> bool {
    let look = &entry.look;
    let may_pass = look.ui_first && look.runs && look.trusted && look.habit_missed.is_none();
    !entry.fresh
        && is_whole(entry)
        && !entry.files.is_empty()
        && may_pass
        && look.score >= options.min_score - MARGIN
}

/// The brief of an original log: its description is all that it says about it.
fn brief_of(log: &OriginalLog) -> Option<Brief> {
    let brief = Brief::from_description(&log.description).ok()?;
    Some(Brief { framework: log.framework.clone(), ..brief })
}

/// A look as it lies on disk.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    format: String,
    version: u32,
    brief: Brief,
    evidence: Evidence,
    critique: Critique,
}

const FORMAT: &str = "hone.look";
const FORMAT_VERSION: u32 = 1;

/// What a second look takes.
pub struct Refresh<'a> {
    pub critic: &'a Critic,
    /// Where looks are kept.
    pub folder: &'a Path,
    pub options: &'a PrepareOptions,
    pub events: &'a Events,
    pub cancel: &'a Cancel,
}

impl Refresh<'_> {
    /// Looks at everything that is wanting, as closely as the logs' standard asks for.
    ///
    /// # Errors
    /// The critic cannot look or was told to stop, or a look cannot be written.
    pub async fn run(&self, logs: &mut Logs) -> Result<(), DatasetError> {
        let looker = Looker {
            version: self.critic.version(),
            level: level(logs).min(self.critic.level()),
            at_once: self.critic.workers(),
            folder: self.folder,
            events: self.events,
            cancel: self.cancel,
        };
        let look = |brief: Brief, candidate: Candidate| async move {
            self.critic.critique_to(&brief, &candidate, looker.level).await
        };
        looker.refresh(logs, self.options, look).await
    }
}

/// How closely to look: as at the rest of the logs, so that the scores compare.
fn level(logs: &Logs) -> Level {
    standard(logs)
        .map(|standard| standard.level)
        .filter(|level| *level != Level::Static)
        .unwrap_or(Level::Browser)
}

/// Looks with whatever it is handed.
#[derive(Clone, Copy)]
struct Looker<'a> {
    version: &'a str,
    level: Level,
    at_once: usize,
    folder: &'a Path,
    events: &'a Events,
    cancel: &'a Cancel,
}

impl Looker<'_> {
    async fn refresh<L>(
        self,
        logs: &mut Logs,
        options: &PrepareOptions,
        look: impl Fn(Brief, Candidate) -> L,
    ) -> Result<(), DatasetError>
    where
        L: Future<Output = Result<(Evidence, Critique), CriticError>>,
    {
        let wanted: Vec<Wanted> = due(logs, options)
            .map(|(at, brief, files)| Wanted { at, brief: brief.into_owned(), files: files.to_vec() })
            .collect();
        let total = wanted.len() as u64;
        let mut running = stream::iter(wanted)
            .map(|wanted| {
                let looking = self.look(wanted.brief, wanted.files, &look);
                async move { Ok::<_, DatasetError>((wanted.at, looking.await?)) }
            })
            .buffer_unordered(self.at_once.max(1));
        let mut found = Vec::new();
        loop {
            let next = tokio::select! {
                () = self.cancel.cancelled() => return Err(CriticError::Cancelled.into()),
                next = running.try_next() => next?,
            };
            let Some(next) = next else { break };
            found.push(next);
            let note = "looked at again".to_owned();
            let done = found.len() as u64;
            self.events.emit(Event::Progress { phase: Phase::Prepare, done, total: Some(total), note });
        }
        drop(running);
        enter(logs, found);
        Ok(())
    }

    /// A look from disk, or a new one that is on disk before this returns.
    async fn look<L>(
        self,
        brief: Brief,
        files: Vec<SourceFile>,
        look: impl Fn(Brief, Candidate) -> L,
    ) -> Result<Look, DatasetError>
    where
        L: Future<Output = Result<(Evidence, Critique), CriticError>>,
    {
        let file = self.folder.join(format!("{}.json", self.name(&brief, &files)));
        // What is there and cannot be read is made again.
        let kept = store::read_text(&file).ok().and_then(|text| serde_json::from_str::<Kept>(&text).ok());
        if let Some(kept) = kept.filter(|kept| kept.format == FORMAT && kept.version == FORMAT_VERSION) {
            return Ok(Look::of(&kept.evidence, kept.critique));
        }
        let (evidence, critique) = look(brief.clone(), Candidate { files }).await?;
        let kept = Kept { format: FORMAT.into(), version: FORMAT_VERSION, brief, evidence, critique };
        store::write_json(&file, &kept)?;
        Ok(Look::of(&kept.evidence, kept.critique))
    }

    /// What is looked at, for what, by whom and how closely.
    fn name(self, brief: &Brief, files: &[SourceFile]) -> String {
        let what = serde_json::json!([brief, files, self.version, self.level]).to_string();
        crate::text::hex(&Sha256::digest(what))
    }
}

/// Enters what was seen: ours get the new score, originals become logs like ours.
fn enter(logs: &mut Logs, found: Vec<(At, Look)>) {
    let mut of_originals: Vec<Vec<(usize, Look)>> = vec![Vec::new(); logs.originals.len()];
    for (at, look) in found {
        match at {
            At::Original(log, index) => of_originals[log].push((index, look)),
            At::Ours(log, index) => {
                let entry = &mut logs.logs[log].entries[index];
                (entry.look, entry.fresh) = (look, true);
            }
        }
    }
    let originals = std::mem::take(&mut logs.originals);
    for (mut original, mut looks) in originals.into_iter().zip(of_originals) {
        let Some(brief) = brief_of(&original).filter(|_| !looks.is_empty()) else {
            logs.originals.push(original);
            continue;
        };
        looks.sort_unstable_by_key(|(index, _)| *index);
        logs.refreshed.push(OriginalRecord {
            log: original.file.clone(),
            lacked: original.lacks.clone(),
            candidates: original.entries.len(),
            re_evaluated: looks.len(),
        });
        logs.logs.push(as_ours(&mut original, brief, looks));
        if !original.entries.is_empty() {
            logs.originals.push(original);
        }
    }
    logs.logs.sort_by(|a, b| a.file.cmp(&b.file));
}

/// Takes what was looked at out of an original log. Each was made from the one before it.
fn as_ours(original: &mut OriginalLog, brief: Brief, looks: Vec<(usize, Look)>) -> SourceLog {
    let first = original.entries.first().map(|entry| entry.iteration);
    let mut entries: Vec<Entry> = Vec::new();
    for (index, look) in &looks {
        let old = &mut original.entries[*index];
        let before = entries.last().map(|entry| entry.iteration);
        entries.push(Entry {
            iteration: old.iteration,
            operator: if first == Some(old.iteration) { "draft" } else { "revise" }.to_owned(),
            parents: before.into_iter().collect(),
            model: UNKNOWN.to_owned(),
            files: std::mem::take(&mut old.files),
            guidelines: Vec::new(),
            finish_reason: None,
            usage: LogUsage::default(),
            took_ms: 0,
            look: look.clone(),
            fresh: true,
        });
    }
    original.entries.retain(|old| !entries.iter().any(|entry| entry.iteration == old.iteration));
    SourceLog { file: original.file.clone(), brief, entries }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::{
        critic::{self, SubScores},
        dataset::{DropReason, Inputs, build},
    };

    /// A log of the original workflow with so many candidates, of which the first holds no code.
    fn original(name: &str, description: &str) -> Logs {
        let app = |n: u32| {
            let lines: String = (0..12).map(|i| format!("st.write('{name} {n} line {i}')\\n")).collect();
            format!("import streamlit as st\\n{lines}")
        };
        let text = format!(
            r#"{{"description": "{description}", "evolution_history": [
                {{"iteration": 1, "ui_code": "", "critique": {{"score": 1.0}}}},
                {{"iteration": 2, "ui_code": {{"requirements.txt": "streamlit\n", "app.py": "{}"}}, "critique": {{"score": 4.0}}}},
                {{"iteration": 3, "ui_code": "{}", "critique": {{"overall_score": 8.1}}}}]}}"#,
            app(2),
            app(3)
        );
        let mut logs = Logs::default();
        logs.add(&format!("{name}.json"), &text).unwrap();
        logs
    }

    /// A critic that finds what it is told to, and counts its looks.
    async fn refreshed(logs: &mut Logs, folder: &Path, score: impl Fn(&Candidate) -> f64) -> usize {
        let looks = Cell::new(0);
        let looker = Looker {
            version: "3",
            level: Level::Run,
            at_once: 2,
            folder,
            events: &Events::none(),
            cancel: &Cancel::new(),
        };
        let look = async |_: Brief, candidate: Candidate| {
            looks.set(looks.get() + 1);
            let evidence = Evidence::sample();
            let critique = Critique {
                overall_score: score(&candidate),
                level: Level::Run,
                scores: SubScores::default(),
                ..critic::score(&evidence)
            };
            Ok((evidence, critique))
        };
        looker.refresh(logs, &PrepareOptions::default(), look).await.unwrap();
        looks.get()
    }

    #[tokio::test]
    async fn original_logs_become_rows_when_somebody_looks_at_them() {
        let folder = tempfile::tempdir().unwrap();
        let last_is_good = |candidate: &Candidate| if candidate.files.len() == 1 { 8.0 } else { 2.0 };
        let mut logs = original("old", "a form for the club");
        assert_eq!(wanting(&logs, &PrepareOptions::default()), 2);
        assert_eq!(refreshed(&mut logs, folder.path(), last_is_good).await, 2);
        assert_eq!(logs.found(), 1);
        let prepared = build(&logs, &Inputs::default(), &PrepareOptions::default()).unwrap();
        assert_eq!((prepared.train.len(), prepared.preferences.len()), (1, 1));
        let record = &prepared.manifest.rows[0];
        assert_eq!(
            (record.source.log.as_str(), record.source.iteration, record.source.score),
            ("old.json", 3, 8.0)
        );
        assert!(prepared.train[0].messages[1].content.contains("a form for the club"));
        let lost: Vec<_> = prepared.manifest.dropped.iter().map(|d| (d.iteration, d.reason)).collect();
        assert_eq!(lost, [(1, DropReason::NoEvidence), (2, DropReason::BelowMinScore)]);
        let lacked = ["format", "family", "files", "evidence", "critic", "level"].map(str::to_owned).to_vec();
        let expected = OriginalRecord { log: "old.json".into(), lacked, candidates: 3, re_evaluated: 2 };
        assert_eq!(prepared.manifest.originals, [expected]);
        let warning = &prepared.summary.warnings[0];
        assert!(warning.contains("`evidence`") && warning.contains("2 of their 3"), "{warning}");

        // What was looked at is on disk and is not looked at again; another brief is another look.
        let mut again = original("old", "a form for the club");
        assert_eq!(refreshed(&mut again, folder.path(), |_| 0.0).await, 0);
        assert_eq!(again, logs);
        assert_eq!(refreshed(&mut original("old", "a list for the club"), folder.path(), |_| 0.0).await, 2);
        // Half a file is none.
        let files: Vec<_> =
            std::fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().path()).collect();
        files.iter().for_each(|file| std::fs::write(file, "{\"format\": \"hone.lo").unwrap());
        assert_eq!(refreshed(&mut original("old", "a form for the club"), folder.path(), |_| 0.0).await, 2);
    }

    #[tokio::test]
    async fn only_what_may_be_taught_is_looked_at_and_the_fresh_score_counts() {
        let folder = tempfile::tempdir().unwrap();
        let last_is_good = |candidate: &Candidate| if candidate.files.len() == 1 { 8.0 } else { 2.0 };
        let mut logs = original("old", "a form for the club");
        refreshed(&mut logs, folder.path(), last_is_good).await;
        let options = PrepareOptions::default();
        assert_eq!(wanting(&logs, &options), 0);
        let change = |index: usize, score: f64| {
            let mut logs = logs.clone();
            let entry = &mut logs.logs[0].entries[index];
            (entry.fresh, entry.look.score) = (false, score);
            logs
        };
        for (score, expected) in [(5.9, 0), (6.0, 1), (9.9, 1)] {
            assert_eq!(wanting(&change(0, score), &options), expected, "{score}");
        }
        let mut stale = change(1, 9.9);
        stale.logs[0].entries[1].finish_reason = Some("length".into());
        assert_eq!(wanting(&stale, &options), 0);
        // Of a score that was the best of many, the fresh one remains.
        let mut biased = change(1, 9.9);
        let other = tempfile::tempdir().unwrap();
        assert_eq!(refreshed(&mut biased, other.path(), |_| 6.4).await, 1);
        let entry = &biased.logs[0].entries[1];
        assert_eq!((entry.look.score, entry.fresh), (6.4, true));
    }

    #[tokio::test]
    async fn logs_without_a_description_stay_what_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let mut logs = original("old", " ");
        assert_eq!(refreshed(&mut logs, folder.path(), |_| 9.0).await, 0);
        assert_eq!((logs.originals.len(), logs.logs.len(), logs.found()), (1, 0, 1));
    }
}
