//! What a trial compares, and its folder on disk.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{
    row::{FORMAT, Row, VERSION},
    stats::Precision,
};
use crate::{
    brief::Brief,
    critic::{self, Level},
    error::{Explain, Kind},
    store::{self, StoreError, parse_lines, write_json},
};

/// One side of the comparison.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arm {
    /// `base`, `tuned`, `prompted`, `champion`, `previous`, or a name of the user's own.
    pub name: String,
    pub model: String,
    /// A system message in place of the agent's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
}

impl Arm {
    pub const BASE: &str = "base";
    pub const TUNED: &str = crate::rating::TUNED;
    pub const PROMPTED: &str = "prompted";
    pub const CHAMPION: &str = "champion";

    /// The champion before the one under test.
    pub const PREVIOUS: &str = "previous";

    /// Names that mean something to the verdict.
    pub const KNOWN: [&str; 5] = [Self::BASE, Self::TUNED, Self::PROMPTED, Self::CHAMPION, Self::PREVIOUS];

    pub fn new(name: impl Into<String>, model: impl Into<String>) -> Self {
        Self { name: name.into(), model: model.into(), system: None }
    }

    /// The base model with a system message that says everything that tuning is to teach: what words alone can do.
    pub fn prompted(base: impl Into<String>) -> Self {
        let system = include_str!("prompted.system.txt").trim_ascii().to_owned();
        Self { system: Some(system), ..Self::new(Self::PROMPTED, base) }
    }
}

/// What a trial compares. Everything that may change a result is here, so that its hash tells trials apart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrialSpec {
    /// Folder name; empty for one made from the hash.
    pub id: String,
    pub briefs: Vec<Brief>,
    pub arms: Vec<Arm>,
    /// Answers per brief and arm.
    pub samples: u32,
    pub seed: u64,
    pub temperature: f64,
    pub max_tokens: u32,
    /// Kinds that training saw; results on others are shown apart.
    pub seen_kinds: BTreeSet<String>,
    /// The champion when the trial was asked for: what "roll back" would be about. Not part of the hash.
    #[serde(default)]
    pub deployed: Option<String>,
    /// Version of the judge whose answers stand beside the executed scores; null without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub judge: Option<String>,
    /// Of the prompt templates, when they are not the shipped ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompts: Option<String>,
    /// SHA-256 of what the arms are asked; see [`crate::agent::Prompts::asked_sha256`]. Not part of the hash, which has
    /// the prompts by themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked_sha256: Option<String>,
    /// Stop as soon as the evidence is enough, by e-values.
    #[serde(default, skip_serializing_if = "is_false")]
    pub sequential: bool,
    /// How probable a promotion of a model that is no better may be; a round of a loop has a share of 0.05.
    #[serde(default = "usual_alpha", skip_serializing_if = "is_usual")]
    pub alpha: f64,
    /// The earlier trial of the same model whose budget this is; see [`super::smallest_share`]. Not part of the hash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alpha_from: Option<String>,
    /// Held-out briefs of the workspace, of which the trial may ask a part; none where others are asked. Not part of the
    /// hash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heldout: Option<usize>,
    /// What the tuned model learned from, as far as it is known. Not part of the hash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub training: Option<Training>,
}

/// What the model under test learned from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Training {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataset_sha256: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logs_sha256: Option<String>,
    /// See [`crate::agent::Prompts::asked_sha256`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_sha256: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epochs: Option<u32>,
    /// Share of the answers in the training file whose first file is no UI (0 to 1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_first_share: Option<f64>,
}

/// The usual error budget of a trial.
pub const ALPHA: f64 = 0.05;

pub(super) fn usual_alpha() -> f64 {
    ALPHA
}

fn is_false(value: &bool) -> bool {
    !value
}

fn is_usual(alpha: &f64) -> bool {
    alpha.to_bits() == ALPHA.to_bits()
}

impl TrialSpec {
    /// SHA-256 of everything that may change a result, the critic's version and the agent's system message included.
    pub fn sha256(&self) -> String {
        let asked = Self {
            id: String::new(),
            deployed: None,
            training: None,
            asked_sha256: None,
            alpha_from: None,
            heldout: None,
            ..self.clone()
        };
        // A struct of plain data always serialises; field order is fixed by its declaration.
        let text = serde_json::to_string(&(asked, critic::VERSION, crate::agent::SYSTEM)).unwrap_or_default();
        crate::text::hex(&Sha256::digest(text))
    }

    /// The sampling seed of one brief's `sample`, the same for every arm; below 2^31, as some providers want an int32.
    pub fn sampling_seed(&self, brief: &Brief, sample: u32) -> u64 {
        let mut hash = Sha256::new();
        hash.update(self.seed.to_le_bytes());
        hash.update(sample.to_le_bytes());
        hash.update(brief.id.as_str());
        let bytes = hash.finalize();
        u64::from(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) >> 1)
    }

    /// How sure the trial's bounds are: its share of the error budget.
    pub fn precision(&self) -> Precision {
        Precision { alpha: self.alpha, ..Precision::usual(self.seed) }
    }

    /// The arm of that name.
    pub fn arm(&self, name: &str) -> Option<&Arm> {
        self.arms.iter().find(|arm| arm.name == name)
    }

    /// Name of the arm that the tuned one has to beat: the champion where it takes part, else the base.
    pub fn reference(&self) -> &'static str {
        if self.arm(Arm::CHAMPION).is_some() { Arm::CHAMPION } else { Arm::BASE }
    }

    /// # Errors
    /// The spec is none that could be tried.
    pub fn check(&self) -> Result<(), TrialError> {
        let unique = |names: Vec<&str>| names.iter().collect::<BTreeSet<_>>().len() == names.len();
        let wrong = |why: &str, hint: &str| Err(TrialError::Spec { why: why.into(), hint: hint.into() });
        if self.briefs.is_empty() {
            return wrong("a trial needs at least one held-out brief", "add some to `briefs/heldout.jsonl`");
        }
        if self.samples == 0 {
            return wrong("a trial needs at least one sample per brief", "ask for 1 or 2");
        }
        if !(self.alpha > 0.0 && self.alpha <= 0.5) {
            return wrong("a trial's error budget lies above 0 and is at most 0.5", "0.05 is usual");
        }
        if self.arm(Arm::BASE).is_none() || self.arm(Arm::TUNED).is_none() {
            return wrong(
                "a trial needs the arms `base` and `tuned`",
                "name a tuned model, or run `hone finetune`",
            );
        }
        if !unique(self.arms.iter().map(|a| a.name.as_str()).collect()) {
            return wrong("two arms of the trial have one name", "give each arm its own name");
        }
        if !unique(self.briefs.iter().map(|b| b.id.as_str()).collect()) {
            return wrong("two held-out briefs have one id", "give each brief its own `id`");
        }
        Ok(())
    }
}

/// `spec.json`: the spec and its hash.
#[derive(Serialize, Deserialize)]
struct SpecFile {
    format: String,
    version: u32,
    sha256: String,
    spec: TrialSpec,
}

/// A trial on disk: `spec.json`, `results.jsonl`, later `summary.json` and `report.html`.
#[derive(Clone, Debug)]
pub struct Trial {
    folder: PathBuf,
    spec: TrialSpec,
}

/// A trial and what is already known of it.
#[derive(Clone, Debug)]
pub struct Opened {
    pub trial: Trial,
    /// Results from earlier runs.
    pub rows: Vec<Row>,
    /// Lines of `results.jsonl` that a killed process left unreadable; their work is redone.
    pub unreadable: Vec<String>,
}

impl Trial {
    /// Opens the trial of this spec below `trials`, or starts it. A folder that holds another spec's results is left
    /// alone: the id gets `-2`, `-3`... until one is free or holds this very spec.
    pub fn open(trials: &Path, spec: &TrialSpec) -> Result<Opened, TrialError> {
        spec.check()?;
        let sha256 = spec.sha256();
        let wanted = if spec.id.is_empty() { format!("t-{}", &sha256[..8]) } else { spec.id.clone() };
        for attempt in 1.. {
            let id = if attempt == 1 { wanted.clone() } else { format!("{wanted}-{attempt}") };
            let trial = Self { folder: trials.join(&id), spec: TrialSpec { id, ..spec.clone() } };
            match trial.stored_hash()? {
                Some(stored) if stored != sha256 => {}
                Some(_) => return trial.load(),
                None => {
                    trial.start(sha256)?;
                    return trial.load();
                }
            }
        }
        unreachable!("some id is free")
    }

    pub fn id(&self) -> &str {
        &self.spec.id
    }

    /// The spec, with the id that the trial got.
    pub fn spec(&self) -> &TrialSpec {
        &self.spec
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn results(&self) -> PathBuf {
        self.folder.join("results.jsonl")
    }

    pub fn summary(&self) -> PathBuf {
        self.folder.join("summary.json")
    }

    pub fn report(&self) -> PathBuf {
        self.folder.join("report.html")
    }

    /// Where the critic keeps pictures of the apps.
    pub fn screenshots(&self) -> PathBuf {
        self.folder.join("screenshots")
    }

    fn spec_file(&self) -> PathBuf {
        self.folder.join("spec.json")
    }

    fn stored_hash(&self) -> Result<Option<String>, TrialError> {
        let path = self.spec_file();
        if !path.exists() {
            return Ok(None);
        }
        let text = store::read_text(&path)?;
        // A spec of another version is another trial, and so is a file that is not a spec.
        let stored = serde_json::from_str::<SpecFile>(&text).ok();
        Ok(Some(stored.filter(|s| s.version == VERSION).map(|s| s.sha256).unwrap_or_default()))
    }

    fn start(&self, sha256: String) -> Result<(), TrialError> {
        let (format, spec) = ("hone.trial.spec".into(), self.spec.clone());
        Ok(write_json(&self.spec_file(), &SpecFile { format, version: VERSION, sha256, spec })?)
    }

    fn load(self) -> Result<Opened, TrialError> {
        let path = self.results();
        let text = if path.exists() { store::read_text(&path)? } else { String::new() };
        let (lines, errors) = parse_lines::<Row>(&text);
        if let Some(line) = lines.iter().find(|line| !line.value.has_score()) {
            return Err(TrialError::Score { path, line: line.number, score: line.value.score });
        }
        let rows: Vec<Row> = lines.into_iter().map(|line| line.value).collect();
        if let Some(row) = rows.iter().find(|r| r.format != FORMAT || r.version != VERSION) {
            let found = format!("{} {}", row.format, row.version);
            return Err(TrialError::Version { path, found });
        }
        rows.iter().try_for_each(|row| same_critic(&rows[0], row))?;
        Ok(Opened { trial: self, rows, unreadable: errors.iter().map(ToString::to_string).collect() })
    }
}

/// Scores of other critics or levels of evidence do not compare.
pub(super) fn same_critic(first: &Row, row: &Row) -> Result<(), TrialError> {
    if (&first.critic, first.level) == (&row.critic, row.level) {
        return Ok(());
    }
    Err(TrialError::Mixed {
        brief: row.brief.clone(),
        first: (first.critic.clone(), first.level),
        other: (row.critic.clone(), row.level),
    })
}

/// Why a trial did not end.
#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    #[error("{why}")]
    Spec { why: String, hint: String },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("`{}` is in the format `{found}`, this version reads `{FORMAT} {VERSION}`", path.display())]
    Version { path: PathBuf, found: String },
    #[error(
        "brief `{brief}` was judged by critic {} on {:?} evidence, the trial so far by {} on {:?}; such scores do not \
         compare", other.0, other.1, first.0, first.1
    )]
    Mixed { brief: String, first: (String, Level), other: (String, Level) },
    #[error("line {line} of `{}` has the score {score}, and scores are numbers from 0 to 10", path.display())]
    Score { path: PathBuf, line: usize, score: f64 },
    #[error("the critic gave brief `{brief}` a score that is no number from 0 to 10")]
    NoScore { brief: String },
    #[error("arm `{arm}` has no answer to brief `{brief}`: {cause}")]
    Generate { arm: String, brief: String, cause: Box<dyn Explain + Send + Sync> },
    #[error("the answer of arm `{arm}` to brief `{brief}` was not judged: {cause}")]
    Judge { arm: String, brief: String, cause: Box<dyn Explain + Send + Sync> },
    #[error("the trial was stopped after {done} of {total} answers")]
    Cancelled { done: usize, total: usize },
}

impl Explain for TrialError {
    fn kind(&self) -> Kind {
        match self {
            Self::Spec { .. } | Self::Version { .. } | Self::Score { .. } => Kind::Input,
            Self::Store(e) => e.kind(),
            Self::Mixed { .. } => Kind::Environment,
            Self::NoScore { .. } => Kind::Internal,
            Self::Generate { cause, .. } | Self::Judge { cause, .. } => cause.kind(),
            Self::Cancelled { .. } => Kind::Cancelled,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Spec { hint, .. } => Some(hint.clone()),
            Self::Store(e) => e.hint(),
            Self::Version { .. } => Some("move the trial's folder away and run `hone test` again".into()),
            Self::Mixed { .. } => Some(
                "run `hone doctor` to see why the evidence changed; to start over, move the trial's folder away".into(),
            ),
            Self::Score { .. } => Some(
                "something else wrote it: take the line out and run `hone test` again, which asks for that answer anew"
                    .into(),
            ),
            Self::NoScore { .. } => None,
            Self::Generate { cause, .. } | Self::Judge { cause, .. } => cause
                .hint()
                .or_else(|| Some("run the same command again: finished answers are kept".into())),
            Self::Cancelled { .. } => Some("run the same command again: finished answers are kept".into()),
        }
    }
}
