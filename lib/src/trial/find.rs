//! Finished trials of a workspace, and what earlier ones bind later ones to.

use std::{
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

use serde::Deserialize;

use super::{Arm, Summary, spec::usual_alpha};
use crate::store;

/// The summary of one trial, if it is finished.
pub fn summary(trials: &Path, id: &str) -> Option<Summary> {
    serde_json::from_str(&store::read_text(&trials.join(id).join("summary.json")).ok()?).ok()
}

/// The summary of the trial that was finished last: of the given tuned model, or of any.
///
/// Trials that are not finished are passed over, and so are those whose summaries [`unreadable_summaries`] names.
pub fn last_summary(trials: &Path, model: Option<&str>) -> Option<Summary> {
    let finished = summaries(trials).filter_map(|(at, path)| Some((at, read(&path)?)));
    finished
        .filter(|(_, summary)| model.is_none_or(|model| summary.arms.tuned.model == model))
        .max_by_key(|(at, _)| *at)
        .map(|(_, summary)| summary)
}

/// Summaries that are there and cannot be read, damaged or of another version, in the order of their names: whoever takes
/// the last trial has to say that these may be later.
pub fn unreadable_summaries(trials: &Path) -> Vec<PathBuf> {
    let paths = summaries(trials).map(|(_, path)| path);
    let mut unreadable: Vec<PathBuf> = paths.filter(|path| read(path).is_none()).collect();
    unreadable.sort();
    unreadable
}

/// Every `summary.json`, with the time at which it was written.
fn summaries(trials: &Path) -> impl Iterator<Item = (SystemTime, PathBuf)> {
    folders(trials).filter_map(|folder| {
        let path = folder.join("summary.json");
        let at = path.metadata().ok()?.modified().ok()?;
        Some((at, path))
    })
}

fn folders(trials: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(trials).into_iter().flatten().flatten().map(|entry| entry.path())
}

fn read(path: &Path) -> Option<Summary> {
    serde_json::from_str(&store::read_text(path).ok()?).ok()
}

/// An error budget, and the trial that has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Share {
    pub alpha: f64,
    pub trial: String,
}

/// What is read of a `spec.json`, of whichever version.
#[derive(Deserialize)]
struct Asked {
    spec: AskedSpec,
}

#[derive(Deserialize)]
struct AskedSpec {
    arms: Vec<Arm>,
    #[serde(default = "usual_alpha")]
    alpha: f64,
    #[serde(default)]
    alpha_from: Option<String>,
}

/// The smallest error budget that any trial of this tuned model has had. A further look at the same model with a larger one
/// would undo what the earlier trial promised.
pub fn smallest_share(trials: &Path, model: &str) -> Option<Share> {
    let asked = folders(trials).filter_map(|folder| {
        let id = folder.file_name()?.to_string_lossy().into_owned();
        let text = store::read_text(&folder.join("spec.json")).ok()?;
        let spec = serde_json::from_str::<Asked>(&text).ok()?.spec;
        let of_model = spec.arms.iter().any(|arm| arm.name == Arm::TUNED && arm.model == model);
        of_model.then_some((spec.alpha, spec.alpha_from.is_some(), id))
    });
    // Of equals the one that others have their budget from.
    let least = asked.min_by(|a, b| a.0.total_cmp(&b.0).then_with(|| (a.1, &a.2).cmp(&(b.1, &b.2))));
    least.map(|(alpha, _, trial)| Share { alpha, trial })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trial::{
        Extras, Trial, TrialSpec,
        fixtures::{BASE_TUNED, GOOD, POOR, THREE_ARMS, spec, uniform},
        summarise, write_report,
    };

    #[test]
    fn the_smallest_budget_of_a_model_is_found_with_its_trial() {
        let folder = tempfile::tempdir().unwrap();
        let trials = folder.path();
        let open = |id: &str, alpha: f64, from: Option<&str>| {
            let spec = TrialSpec {
                id: id.into(),
                alpha,
                alpha_from: from.map(str::to_owned),
                ..spec(12, 1, &THREE_ARMS)
            };
            Trial::open(trials, &spec).unwrap();
        };
        assert_eq!(smallest_share(trials, "ft:tuned-2"), None);
        open("t-usual", 0.05, None);
        open("t-a-later-look", 0.0034, Some("t-round"));
        open("t-round", 0.0034, None);
        open("t-second", 0.0076, None);
        std::fs::create_dir(trials.join("t-broken")).unwrap();
        std::fs::write(trials.join("t-broken/spec.json"), "{\"spec\":").unwrap();
        let expected = Share { alpha: 0.0034, trial: "t-round".into() };
        assert_eq!(smallest_share(trials, "ft:tuned-2"), Some(expected));
        assert_eq!(smallest_share(trials, "ft:tuned-1"), None, "as the champion it was not under test");
        std::fs::remove_dir_all(trials.join("t-round")).unwrap();
        std::fs::remove_dir_all(trials.join("t-a-later-look")).unwrap();
        assert_eq!(smallest_share(trials, "ft:tuned-2").map(|share| share.alpha), Some(0.0076));
    }

    #[test]
    fn a_summary_that_cannot_be_read_is_named_and_not_taken() {
        let folder = tempfile::tempdir().unwrap();
        let trials = folder.path();
        let finish = |id: &str| {
            let spec = TrialSpec { id: id.into(), ..spec(12, 1, &BASE_TUNED) };
            let (trial, rows) = (Trial::open(trials, &spec).unwrap().trial, uniform(&spec, POOR, GOOD));
            write_report(&trial, &rows, &mut summarise(&spec, &rows), &Extras::default()).unwrap();
            trial.summary()
        };
        finish("t-1");
        let later = finish("t-2");
        assert_eq!(unreadable_summaries(trials), Vec::<PathBuf>::new());
        std::fs::write(&later, "{\"trial\":\"t-2\"").unwrap();
        assert_eq!(unreadable_summaries(trials), [later]);
        assert_eq!(last_summary(trials, Some("ft:tuned-1")).map(|summary| summary.trial), Some("t-1".into()));
        assert_eq!(last_summary(trials, Some("ft:nobody")), None);
    }
}
