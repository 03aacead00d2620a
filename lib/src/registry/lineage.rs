//! From a model back to the logs that it learnt from, every step by its hash.

use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Action, Entry, Registry, RegistryError};
use crate::{
    dataset::{LogHash, logs_sha256},
    finetune::{self, Origin},
    store::{Workspace, read_text},
    text::hex,
};

/// A step of the way from logs to deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    Logs,
    Dataset,
    Job,
    Model,
    Trial,
    Promotion,
}

/// Whether what is on disk is what was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Ok,
    Changed,
    Gone,
    /// Nothing was recorded to compare with.
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Link {
    pub step: Step,
    pub state: State,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// What it is, in a few words.
    pub detail: String,
}

/// Where one model came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Lineage {
    pub model: String,
    pub links: Vec<Link>,
}

impl Lineage {
    /// Traces a model. `weights` is the file with what training made of it, where that is on this machine.
    ///
    /// # Errors
    /// The registry cannot be read.
    pub fn of(workspace: &Workspace, model: &str, weights: Option<&Path>) -> Result<Self, RegistryError> {
        let registry = Registry::open(&workspace.registry())?;
        let deployed = registry
            .entries()
            .iter()
            .rev()
            .find(|entry| entry.action != Action::Rollback && entry.subject() == Some(model));
        let origin = finetune::origin_of(workspace, model);
        let origin = origin.as_ref();
        let links = vec![
            logs(workspace, origin),
            dataset(workspace, origin),
            job(workspace, origin),
            weights_of(weights, deployed),
            trial(workspace, deployed),
            promotion(deployed),
        ];
        Ok(Self { model: model.to_owned(), links })
    }

    /// Whether nothing that was recorded has changed since.
    pub fn is_intact(&self) -> bool {
        self.links.iter().all(|link| link.state != State::Changed)
    }

    /// Whether nothing at all is known of it.
    pub fn is_unknown(&self) -> bool {
        self.links.iter().all(|link| link.state == State::Unknown)
    }

    /// As a table.
    pub fn text(&self) -> String {
        let mut lines = vec![format!("`{}`", self.model)];
        for link in &self.links {
            let short = link.sha256.as_deref().map(|sha256| sha256.get(..12).unwrap_or(sha256));
            let line = format!(
                "{:<9}  {:<7}  {:<12}  {}",
                word(&link.step),
                word(&link.state),
                short.unwrap_or("-"),
                link.detail
            );
            lines.push(line.trim_end().to_owned());
        }
        lines.join("\n")
    }
}

/// A variant as it is serialised.
fn word<T: Serialize>(value: &T) -> String {
    serde_json::to_value(value).ok().and_then(|value| Some(value.as_str()?.to_owned())).unwrap_or_default()
}

/// As much of a kept manifest as is needed here.
#[derive(Deserialize)]
struct Account {
    #[serde(default)]
    logs: Vec<LogHash>,
}

fn logs(workspace: &Workspace, origin: Option<&Origin>) -> Link {
    let sha256 = origin.and_then(|origin| origin.learnt.logs_sha256.clone());
    let link = |state, detail: String| Link { step: Step::Logs, state, sha256: sha256.clone(), detail };
    let kept = origin.and_then(|origin| origin.dataset_sha256.as_deref());
    let account: Option<Account> = kept
        .and_then(|sha256| read_text(&workspace.kept_manifest(sha256)).ok())
        .and_then(|text| serde_json::from_str(&text).ok());
    let (Some(recorded), Some(account)) = (&sha256, account) else {
        return link(State::Unknown, "no record of the logs behind it".into());
    };
    if logs_sha256(&account.logs) != *recorded {
        return link(State::Changed, "the list of logs is not the one that was recorded".into());
    }
    let states: Vec<(State, &str)> = account
        .logs
        .iter()
        .map(|log| (compare(&workspace.logs().join(&log.file), &log.sha256), log.file.as_str()))
        .collect();
    for state in [State::Changed, State::Gone] {
        let such: Vec<&str> = states.iter().filter(|(of, _)| *of == state).map(|(_, file)| *file).collect();
        if let Some(first) = such.first() {
            let detail = format!("{} of {} logs, `{first}` among them", such.len(), states.len());
            return link(state, detail);
        }
    }
    link(State::Ok, format!("{} logs", states.len()))
}

fn dataset(workspace: &Workspace, origin: Option<&Origin>) -> Link {
    let sha256 = origin.and_then(|origin| origin.dataset_sha256.clone());
    let (state, detail) = match (origin, &sha256) {
        (Some(origin), Some(sha256)) => {
            let rows = origin.learnt.rows.map(|rows| format!("{rows} rows")).unwrap_or_default();
            (compare(&workspace.kept_dataset(sha256), sha256), rows)
        }
        _ => (State::Unknown, "no record of its dataset".into()),
    };
    Link { step: Step::Dataset, state, sha256, detail }
}

fn job(workspace: &Workspace, origin: Option<&Origin>) -> Link {
    let (state, detail) = match origin {
        None => (State::Unknown, "no job of this workspace made it".into()),
        Some(origin) => {
            let epochs = origin.epochs.map(|n| format!(", {n} epochs")).unwrap_or_default();
            let detail =
                format!("`{}` at {}, {} of `{}`{epochs}", origin.job, origin.row, origin.method, origin.base);
            let state = match finetune::record_of(workspace, &origin.job) {
                None => State::Gone,
                Some(record) if record.dataset_sha256 == origin.dataset_sha256 => State::Ok,
                Some(_) => State::Changed,
            };
            (state, detail)
        }
    };
    Link { step: Step::Job, state, sha256: None, detail }
}

fn weights_of(weights: Option<&Path>, deployed: Option<&Entry>) -> Link {
    let recorded = deployed.and_then(|entry| entry.source.model_sha256.clone());
    let (state, detail) = match (weights, &recorded) {
        (Some(path), Some(sha256)) => (compare(path, sha256), String::new()),
        (Some(_), None) => (State::Unknown, "recorded when it is deployed".into()),
        (None, Some(_)) => (State::Gone, "it is not on this machine any more".into()),
        (None, None) => (State::Unknown, "it is not on this machine".into()),
    };
    let sha256 = recorded.or_else(|| sha256_of(weights?));
    Link { step: Step::Model, state, sha256, detail }
}

fn trial(workspace: &Workspace, deployed: Option<&Entry>) -> Link {
    let named = deployed.and_then(|entry| Some((entry.trial.as_deref()?, entry)));
    let recorded = deployed.and_then(|entry| entry.source.trial_sha256.clone());
    let (state, detail) = match (named, &recorded) {
        (None, _) => (State::Unknown, "no trial supports it".into()),
        (Some((id, entry)), recorded) => {
            let verdict = entry.verdict.map(|verdict| format!(", {}", verdict.as_str())).unwrap_or_default();
            let now = trial_sha256(&workspace.trials(), id);
            let state = match (recorded, now) {
                (None, _) => State::Unknown,
                (Some(_), None) => State::Gone,
                (Some(before), Some(now)) if *before == now => State::Ok,
                (Some(_), Some(_)) => State::Changed,
            };
            (state, format!("`{id}`{verdict}"))
        }
    };
    Link { step: Step::Trial, state, sha256: recorded, detail }
}

fn promotion(deployed: Option<&Entry>) -> Link {
    let (state, detail) = match deployed {
        None => (State::Unknown, "it was never deployed".into()),
        Some(entry) => {
            let forced = if entry.forced { " by force" } else { "" };
            (State::Ok, format!("{}{forced} at {}: {}", word(&entry.action), entry.at, entry.reason))
        }
    };
    Link { step: Step::Promotion, state, sha256: None, detail }
}

/// Of what a trial asked and of every answer it got: its spec and its results.
pub fn trial_sha256(trials: &Path, id: &str) -> Option<String> {
    let mut hash = Sha256::new();
    for name in ["spec.json", "results.jsonl"] {
        hash.update(sha256_of(&trials.join(id).join(name))?);
    }
    Some(hex(&hash.finalize()))
}

fn compare(path: &Path, sha256: &str) -> State {
    match sha256_of(path) {
        None => State::Gone,
        Some(now) if now == sha256 => State::Ok,
        Some(_) => State::Changed,
    }
}

/// Of a file, if it can be read.
pub fn sha256_of(path: &Path) -> Option<String> {
    finetune::sha256_of(path).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        registry::{Deployment, Source},
        store::{append_line, write_json},
    };

    fn states(lineage: &Lineage) -> Vec<State> {
        lineage.links.iter().map(|link| link.state).collect()
    }

    /// A workspace in which `ft:a` was trained from two logs and deployed.
    fn deployed() -> (tempfile::TempDir, Workspace) {
        let folder = tempfile::tempdir().unwrap();
        let workspace = Workspace::new(folder.path());
        let write = |path: &Path, text: &str| {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
            sha256_of(path).unwrap()
        };
        let logs: Vec<(&str, String)> =
            ["a.json", "b.json"].map(|name| (name, write(&workspace.logs().join(name), name))).into();
        let text: String = logs.iter().map(|(name, sha256)| format!("{name}\n{sha256}\n")).collect();
        let logs_sha256 = hex(&Sha256::digest(text));
        let dataset = write(&workspace.dataset(), "rows");
        write(&workspace.kept_dataset(&dataset), "rows");
        let logs: Vec<_> =
            logs.iter().map(|(file, sha256)| serde_json::json!({"file": file, "sha256": sha256})).collect();
        write_json(&workspace.kept_manifest(&dataset), &serde_json::json!({ "logs": logs })).unwrap();
        let origin = serde_json::json!({
            "format": "hone.model", "version": 1, "at": "2026-01-31T12:00:00Z", "model": "ft:a", "job": "ftjob-1",
            "row": "local", "base": "base", "method": "supervised", "epochs": 2, "dataset_sha256": dataset,
            "logs_sha256": logs_sha256, "rows": 107,
        });
        append_line(&workspace.models(), &origin).unwrap();
        for name in ["spec.json", "results.jsonl"] {
            write(&workspace.trials().join("t-1").join(name), name);
        }
        let deployment = Deployment {
            model: Some("ft:a".into()),
            force: true,
            trial: Some(crate::registry::TrialResult {
                id: "t-1".into(),
                model: "ft:a".into(),
                champion: None,
                verdict: crate::trial::Verdict::Promote,
                cause: None,
            }),
            source: Source {
                model_sha256: Some(write(&workspace.root().join("adapter"), "weights")),
                trial_sha256: trial_sha256(&workspace.trials(), "t-1"),
                ..Source::default()
            },
            ..Deployment::default()
        };
        let mut registry = Registry::open(&workspace.registry()).unwrap();
        registry.deploy(deployment, jiff::Timestamp::UNIX_EPOCH).unwrap();
        (folder, workspace)
    }

    #[test]
    fn every_step_is_checked_against_what_is_on_disk() {
        use State::{Changed, Gone, Ok, Unknown};
        let (_folder, workspace) = deployed();
        let weights = workspace.root().join("adapter");
        let look = || Lineage::of(&workspace, "ft:a", Some(&weights)).unwrap();
        // Its job's record is not here.
        assert_eq!(states(&look()), [Ok, Ok, Gone, Ok, Ok, Ok]);
        assert!(look().is_intact());
        expect_test::expect![[r#"
            `ft:a`
            logs       ok       b3170ce5adab  2 logs
            dataset    ok       -             107 rows
            job        gone     -             `ftjob-1` at local, supervised of `base`, 2 epochs
            model      ok       -
            trial      ok       -             `t-1`, promote
            promotion  ok       -             promote at 1970-01-01T00:00:00Z: trial `t-1` says promote"#]]
        .assert_eq(&masked(&look()));

        std::fs::write(workspace.logs().join("b.json"), "edited").unwrap();
        std::fs::remove_file(workspace.logs().join("a.json")).unwrap();
        std::fs::write(&weights, "other").unwrap();
        std::fs::write(workspace.trials().join("t-1/results.jsonl"), "kinder").unwrap();
        let now = look();
        assert_eq!(states(&now), [Changed, Ok, Gone, Changed, Changed, Ok]);
        assert_eq!(now.links[0].detail, "1 of 2 logs, `b.json` among them");
        assert!(!now.is_intact());
        let elsewhere = Lineage::of(&workspace, "ft:b", None).unwrap();
        assert_eq!(states(&elsewhere), [Unknown; 6]);
    }

    /// Hashes of files whose text does not matter here.
    fn masked(lineage: &Lineage) -> String {
        let mut lineage = lineage.clone();
        for link in &mut lineage.links[1..] {
            link.sha256 = None;
        }
        lineage.text()
    }
}
