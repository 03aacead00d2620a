//! Which model the agent uses, and why: an append-only file.
//!
//! Every deployment and every way back is one line with its trial, verdict and reason; the champion is what is left after
//! folding over them. Nothing is ever rewritten, so the file is also the history.

mod canary;
mod current;
mod lineage;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{
    error::{Explain, Kind},
    store::{self, StoreError, append_line, parse_lines},
    trial::{Summary, Verdict},
};

pub use canary::{Finding, Limits, Share, Watch};
pub use current::{Current, Office};
pub use lineage::{Lineage, Link, State, Step, sha256_of, trial_sha256};

const FORMAT: &str = "hone.registry";
const VERSION: u32 = 2;
/// Lines of this version said less.
const OLDEST: u32 = 1;

/// Why a line was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Deployed on a trial's verdict.
    Promote,
    /// Deployed without one, or against it.
    Force,
    /// A share of the requests goes to another model on trial; the champion stays.
    Canary,
    /// Back to the champion before, or to the champion alone.
    Rollback,
}

/// One line of `data/registry.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    pub format: String,
    pub version: u32,
    /// RFC 3339, UTC.
    pub at: String,
    pub action: Action,
    /// The champion from now on; null is the base model.
    pub model: Option<String>,
    /// The champion until now; null is the base model.
    pub previous: Option<String>,
    /// The model that begins to answer a share of the requests, or that is taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<String>,
    /// Its share, above 0 and below 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<f64>,
    /// Whether a canary began without a verdict that supports it, or against it; of a champion the action says so.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub forced: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trial: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    #[serde(flatten)]
    pub source: Source,
    pub reason: String,
}

impl Entry {
    /// The model that the line is about.
    pub fn subject(&self) -> Option<&str> {
        self.canary.as_deref().or(self.model.as_deref())
    }
}

/// A model that answers a share of the requests.
#[derive(Clone, Debug, PartialEq)]
pub struct Canary {
    pub model: String,
    pub share: f64,
    /// Since when, which tells it from an earlier try of the same model. Another share begins no other try.
    pub at: String,
    /// See [`Entry::forced`].
    pub forced: bool,
}

/// What a deployed model came from, by hashes. Those that are not known are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logs_sha256: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataset_sha256: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
    /// Of the adapter's weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_sha256: Option<String>,
    /// See [`trial_sha256`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trial_sha256: Option<String>,
}

/// What a trial said of the model that is to be deployed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrialResult {
    pub id: String,
    /// The tuned model of the trial.
    pub model: String,
    /// The champion it was compared with; none for the base.
    pub champion: Option<String>,
    pub verdict: Verdict,
    /// Why it is no promotion.
    pub cause: Option<String>,
}

impl From<&Summary> for TrialResult {
    fn from(summary: &Summary) -> Self {
        Self {
            id: summary.trial.clone(),
            model: summary.arms.tuned.model.clone(),
            champion: summary.champion.as_ref().map(|arm| arm.model.clone()),
            verdict: summary.verdict,
            cause: summary.cause.clone(),
        }
    }
}

/// What is to be deployed, and on what grounds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deployment {
    /// None is the base model: nothing is deployed any more, and trials compare with the base again.
    pub model: Option<String>,
    pub trial: Option<TrialResult>,
    pub source: Source,
    /// Deploy whatever the verdict; recorded as `force`.
    pub force: bool,
    /// In the user's words; empty for the verdict's.
    pub reason: String,
}

/// The file and what it says.
#[derive(Clone, Debug)]
pub struct Registry {
    path: PathBuf,
    entries: Vec<Entry>,
    /// Champions in the order of their deployment, without those taken back; the last is in office, and none is the base.
    stack: Vec<Option<String>>,
    canary: Option<Canary>,
    unreadable: Vec<String>,
}

impl Registry {
    /// Reads the registry; a missing file is an empty one.
    ///
    /// # Errors
    /// A file that cannot be read, and lines of a format or version that this program does not know: leaving one out
    /// could name the wrong champion. A line that a killed process left half-written is only reported
    /// ([`Registry::unreadable`]): what it meant to say never took effect.
    pub fn open(path: &Path) -> Result<Self, RegistryError> {
        let text = if path.exists() { store::read_text(path)? } else { String::new() };
        let (lines, errors) = parse_lines::<serde_json::Value>(&text);
        let unreadable = errors.iter().map(ToString::to_string).collect();
        let mut registry =
            Self { path: path.to_owned(), entries: Vec::new(), stack: Vec::new(), canary: None, unreadable };
        for line in lines {
            let entry = entry_of(line.value).map_err(|why| RegistryError::Format {
                path: path.to_owned(),
                line: line.number,
                why,
            })?;
            registry.apply(entry);
        }
        Ok(registry)
    }

    /// The model that the agent uses; none for the base.
    pub fn champion(&self) -> Option<&str> {
        self.stack.last()?.as_deref()
    }

    /// The model that a rollback of `champion` leads to; none for the base.
    pub fn before(&self, champion: &str) -> Option<&str> {
        let place = self.stack.iter().rposition(|model| model.as_deref() == Some(champion))?;
        self.stack[..place].last()?.as_deref()
    }

    /// Who answers.
    pub fn office(&self) -> Office {
        Office { champion: self.champion().map(str::to_owned), canary: self.canary.clone() }
    }

    /// The model that answers a share of the requests, if one does.
    pub fn canary(&self) -> Option<&Canary> {
        self.canary.as_ref()
    }

    /// Deployments in force, those below the champion included; those before a return to the base are over.
    pub fn deployments(&self) -> usize {
        self.stack.iter().rev().take_while(|model| model.is_some()).count()
    }

    /// Every line, oldest first.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Lines that a killed process left half-written.
    pub fn unreadable(&self) -> &[String] {
        &self.unreadable
    }

    /// Makes a model the champion.
    ///
    /// # Errors
    /// Without `force`: no trial, a trial of another model or against another champion than today's, a verdict that is
    /// not "promote". Always: a model that is the champion already, a file that cannot be written, and who answers having
    /// changed since the registry was read.
    pub fn deploy(&mut self, deployment: Deployment, at: jiff::Timestamp) -> Result<Entry, RegistryError> {
        self.step(|registry| {
            let action = registry.supported(&deployment)?;
            let reason = default_reason(action, action == Action::Force, deployment.trial.as_ref());
            Ok(registry.deployed(action, deployment.model.clone(), &deployment, reason, at))
        })
    }

    /// Lets a model answer a share of the requests; the champion answers the rest. A model that has a share already has this
    /// one from now on, and what was judged of it goes on to count.
    ///
    /// # Errors
    /// As [`Registry::deploy`], and for a share that is none, and the base, which is what a rollback leads to.
    pub fn try_out(
        &mut self,
        deployment: Deployment,
        share: f64,
        at: jiff::Timestamp,
    ) -> Result<Entry, RegistryError> {
        if !(share > 0.0 && share < 1.0) {
            return Err(RegistryError::NoShare { share });
        }
        self.step(|registry| {
            let Some(model) = &deployment.model else {
                return Err(match registry.champion() {
                    None => RegistryError::AlreadyChampion { model: named(None) },
                    Some(_) => RegistryError::BaseOnTrial,
                });
            };
            let forced = registry.supported(&deployment)? == Action::Force;
            let mut reason = default_reason(Action::Canary, forced, deployment.trial.as_ref());
            if let Some(running) = registry.canary.as_ref().filter(|canary| canary.model == *model) {
                reason = format!("its share was {}, now {share}; {reason}", running.share);
            }
            let champion = registry.champion().map(str::to_owned);
            let entry = registry.deployed(Action::Canary, champion, &deployment, reason, at);
            Ok(Entry { canary: Some(model.clone()), share: Some(share), forced, ..entry })
        })
    }

    /// With what right a model may answer.
    fn supported(&self, deployment: &Deployment) -> Result<Action, RegistryError> {
        let model = deployment.model.as_deref();
        if self.champion() == model {
            return Err(RegistryError::AlreadyChampion { model: named(model) });
        }
        match (self.objection(deployment).err(), deployment.force) {
            (None, _) => Ok(Action::Promote),
            (Some(_), true) => Ok(Action::Force),
            (Some(objection), false) => Err(objection),
        }
    }

    fn deployed(
        &self,
        action: Action,
        model: Option<String>,
        deployment: &Deployment,
        usual: String,
        at: jiff::Timestamp,
    ) -> Entry {
        let Deployment { trial, source, reason, .. } = deployment;
        let reason = if reason.is_empty() { usual } else { reason.clone() };
        Entry {
            trial: trial.as_ref().map(|t| t.id.clone()),
            verdict: trial.as_ref().map(|t| t.verdict),
            source: source.clone(),
            ..self.entry(action, model, reason, at)
        }
    }

    /// Takes the last step back: a canary goes, or else the champion before, or the base, is in office again. A forced return
    /// to the base is a step as well.
    ///
    /// # Errors
    /// Nothing was ever deployed, or all of it is taken back; the file cannot be written; who answers has changed since the
    /// registry was read.
    pub fn rollback(&mut self, reason: &str, at: jiff::Timestamp) -> Result<Entry, RegistryError> {
        self.step(|registry| registry.back(reason, at))
    }

    fn back(&self, reason: &str, at: jiff::Timestamp) -> Result<Entry, RegistryError> {
        let canary = self.canary.as_ref().map(|canary| canary.model.clone());
        let (gone, model) = match (&canary, self.stack.split_last()) {
            (Some(model), _) => (named(Some(model)), self.champion()),
            (None, Some((champion, below))) => {
                (named(champion.as_deref()), below.last().and_then(Option::as_deref))
            }
            (None, None) => return Err(RegistryError::NothingDeployed),
        };
        let reason = if reason.is_empty() { format!("{gone} was taken back") } else { reason.to_owned() };
        let entry = self.entry(Action::Rollback, model.map(str::to_owned), reason, at);
        Ok(Entry { canary, ..entry })
    }

    /// What speaks against a deployment.
    fn objection(&self, deployment: &Deployment) -> Result<(), RegistryError> {
        let model = deployment.model.as_deref();
        let of_it = deployment.trial.as_ref().filter(|trial| Some(trial.model.as_str()) == model);
        let Some(trial) = of_it else {
            return Err(RegistryError::Untested { model: named(model) });
        };
        if trial.verdict != Verdict::Promote {
            return Err(RegistryError::Unsupported { trial: Box::new(trial.clone()) });
        }
        if trial.champion.as_deref() != self.champion() {
            let champion = named(self.champion());
            return Err(RegistryError::OtherChampion { trial: trial.id.clone(), champion });
        }
        Ok(())
    }

    fn entry(&self, action: Action, model: Option<String>, reason: String, at: jiff::Timestamp) -> Entry {
        Entry {
            format: FORMAT.into(),
            version: VERSION,
            at: at.to_string(),
            action,
            model,
            previous: self.champion().map(str::to_owned),
            canary: None,
            share: None,
            forced: false,
            trial: None,
            verdict: None,
            source: Source::default(),
            reason,
        }
    }

    /// Decides on a line and writes it: on disk first, then it counts.
    ///
    /// It is decided twice: before the file is touched, and on what the file says once no other process writes to it. Where
    /// who answers has changed in between, nothing is written even if the decision would be the same: whoever asked for
    /// the step knew nothing of the other.
    fn step(
        &mut self,
        decide: impl Fn(&Self) -> Result<Entry, RegistryError>,
    ) -> Result<Entry, RegistryError> {
        decide(self)?;
        let _alone = store::alone(&self.path)?;
        let known = self.office();
        *self = Self::open(&self.path)?;
        let entry = decide(self)?;
        if self.office() != known {
            return Err(RegistryError::Changed { office: self.office() });
        }
        append_line(&self.path, &entry)?;
        self.apply(entry.clone());
        Ok(entry)
    }

    fn apply(&mut self, entry: Entry) {
        // Every step ends a trial run: of the model that is promoted, or of one that was to beat another champion.
        let running = self.canary.take();
        match (entry.action, &entry.canary) {
            (Action::Promote | Action::Force, _) => self.stack.push(entry.model.clone()),
            (Action::Canary, Some(model)) => {
                let begun = running.filter(|canary| canary.model == *model).map(|canary| canary.at);
                self.canary = Some(Canary {
                    model: model.clone(),
                    share: entry.share.unwrap_or_default(),
                    at: begun.unwrap_or_else(|| entry.at.clone()),
                    forced: entry.forced,
                });
            }
            (Action::Canary, None) | (Action::Rollback, Some(_)) => {}
            (Action::Rollback, None) => drop(self.stack.pop()),
        }
        self.entries.push(entry);
    }
}

/// A champion in a sentence.
fn named(model: Option<&str>) -> String {
    model.map_or_else(|| "the base model".to_owned(), |model| format!("`{model}`"))
}

fn entry_of(value: serde_json::Value) -> Result<Entry, String> {
    let entry: Entry = serde_json::from_value(value).map_err(|e| e.to_string())?;
    if entry.format == FORMAT && (OLDEST..=VERSION).contains(&entry.version) {
        return Ok(entry);
    }
    Err(format!("`{} {}` is not `{FORMAT} {VERSION}`", entry.format, entry.version))
}

fn default_reason(action: Action, forced: bool, trial: Option<&TrialResult>) -> String {
    let begun = match (action, forced) {
        (Action::Canary, true) => "on trial by force",
        (Action::Canary, false) => "on trial",
        (_, true) => "forced",
        (_, false) => {
            return trial.map(|trial| format!("trial `{}` says promote", trial.id)).unwrap_or_default();
        }
    };
    match trial {
        Some(trial) => format!("{begun}, the verdict was `{}`", trial.verdict.as_str()),
        None => format!("{begun}, without a trial"),
    }
}

/// Why the champion did not change.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("`{}` line {line} is not an entry that this version reads: {why}", path.display())]
    Format { path: PathBuf, line: usize, why: String },
    /// `model` as it stands in a sentence: a name in backticks, or "the base model".
    #[error("no trial of {model} supports its deployment")]
    Untested { model: String },
    #[error("the verdict of trial `{}` on `{}` is `{}`, not `promote`", trial.id, trial.model, trial.verdict.as_str())]
    Unsupported { trial: Box<TrialResult> },
    #[error("trial `{trial}` did not compare with today's champion, {champion}")]
    OtherChampion { trial: String, champion: String },
    #[error("{model} is the champion already")]
    AlreadyChampion { model: String },
    #[error("a share of {share} of the requests is none: it lies between 0 and 1")]
    NoShare { share: f64 },
    #[error("the base model answers all requests or none: it is no canary")]
    BaseOnTrial,
    #[error("another command was faster: {}, and nothing was changed", office.sentence())]
    Changed { office: Office },
    #[error("there is nothing to roll back: the agent uses the base model")]
    NothingDeployed,
}

impl Explain for RegistryError {
    fn kind(&self) -> Kind {
        match self {
            Self::Store(e) => e.kind(),
            Self::Untested { .. } | Self::Unsupported { .. } | Self::OtherChampion { .. } => Kind::Verdict,
            Self::Format { .. }
            | Self::AlreadyChampion { .. }
            | Self::NoShare { .. }
            | Self::BaseOnTrial
            | Self::NothingDeployed => Kind::Input,
            Self::Changed { .. } => Kind::Environment,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Store(e) => e.hint(),
            Self::Format { .. } => Some(
                "use the version of hone that wrote it, or move the file away to start with the base".into(),
            ),
            Self::Untested { .. } => Some(
                "run `hone test` first, or deploy it all the same with `--force` (which is recorded)".into(),
            ),
            Self::Unsupported { trial, .. } => {
                let cause = trial.cause.as_ref().map(|cause| format!("{cause}; ")).unwrap_or_default();
                Some(format!("{cause}deploy it all the same with `--force` (which is recorded)"))
            }
            Self::OtherChampion { .. } => {
                Some("run `hone test` again to compare with it, or use `--force`".into())
            }
            Self::AlreadyChampion { .. } => {
                Some("there is nothing to do; `hone rollback` takes it back".into())
            }
            Self::NoShare { .. } => {
                Some("`--canary 0.1` sends it one request in ten; without it all go there".into())
            }
            Self::BaseOnTrial => Some(
                "`hone rollback` goes back one step; leave `--canary` out to return to the base model".into(),
            ),
            Self::Changed { .. } => Some(
                "give the command again if it is still what you want; `hone models` shows what there is"
                    .into(),
            ),
            Self::NothingDeployed => Some("`hone models` shows which models there are".into()),
        }
    }
}

#[cfg(test)]
mod tests;
