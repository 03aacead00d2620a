//! Finished trials of a workspace.

use std::{path::Path, time::SystemTime};

use super::Summary;
use crate::store;

/// The summary of one trial, if it is finished.
pub fn summary(trials: &Path, id: &str) -> Option<Summary> {
    serde_json::from_str(&store::read_text(&trials.join(id).join("summary.json")).ok()?).ok()
}

/// The summary of the trial that was finished last: of the given tuned model, or of any.
///
/// Trials that are not finished, or that another version wrote, are passed over.
pub fn last_summary(trials: &Path, model: Option<&str>) -> Option<Summary> {
    let finished = std::fs::read_dir(trials).ok()?.flatten().filter_map(|entry| {
        let path = entry.path().join("summary.json");
        let at: SystemTime = path.metadata().ok()?.modified().ok()?;
        let summary: Summary = serde_json::from_str(&store::read_text(&path).ok()?).ok()?;
        Some((at, summary))
    });
    finished
        .filter(|(_, summary)| model.is_none_or(|model| summary.arms.tuned.model == model))
        .max_by_key(|(at, _)| *at)
        .map(|(_, summary)| summary)
}
