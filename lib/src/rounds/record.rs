//! What rounds were, on disk, so that a re-run asks the same questions again and finds them answered.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Diversity, Stop};
use crate::{
    calibrate::Looks,
    error::{Explain, Kind},
    store::{self, StoreError, Workspace},
    trial::{Share, Verdict},
};

const FORMAT: &str = "hone.loop";
const VERSION: u32 = 1;

/// How large a turn is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Size {
    /// Briefs at most.
    pub limit: Option<usize>,
    pub drafts: Option<u32>,
    /// Rows that a round may add.
    pub max_rows: Option<usize>,
    pub n_epochs: Option<u32>,
    pub heldout: Option<usize>,
    pub samples: Option<u32>,
}

impl Size {
    /// What was limited, in a sentence.
    pub fn describe(&self) -> String {
        let each =
            |n: Option<u32>, what: &str| n.map(|n| format!(" with {n} {what} each")).unwrap_or_default();
        let parts = [
            self.limit.map(|n| format!("at most {n} briefs{}", each(self.drafts, "draft"))),
            self.max_rows.map(|n| format!("at most {n} rows a round")),
            self.n_epochs.map(|n| format!("{n} epochs")),
            self.heldout.map(|n| format!("at most {n} held-out briefs{}", each(self.samples, "answer"))),
        ];
        format!("{}, base against tuned", parts.into_iter().flatten().collect::<Vec<_>>().join(", "))
    }
}

/// `.hone/loop.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    format: String,
    version: u32,
    pub rounds: Vec<Round>,
    /// Why the last run ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<Stop>,
}

/// One turn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Round {
    pub round: u32,
    pub seed: u64,
    pub size: Size,
    /// The model whose drafts the round starts with.
    pub agent: String,
    /// The champion when the round began: what its model has to beat, whatever is deployed since.
    pub champion: String,
    /// Briefs that it evolves; older versions did not say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub briefs: Vec<String>,
    /// Held-out briefs of its test, drawn before anything was trained.
    pub heldout: Vec<String>,
    /// Its share of the error budget.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alpha: Option<f64>,
    /// What the critic said of the anchors when it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anchors: Option<Anchored>,
    /// Rows of its dataset that come from its own briefs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_rows: Option<usize>,
    /// Of the best apps of its evolutions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taught: Option<Diversity>,
    /// Of its model's answers to the held-out briefs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered: Option<Diversity>,
    /// Model, trial and verdict once the round is over.
    pub result: Option<RoundResult>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RoundResult {
    pub model: String,
    pub trial: String,
    pub verdict: Verdict,
}

/// The anchors as they were scored, and how far that is from the first round's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Anchored {
    #[serde(flatten)]
    pub looks: Looks,
    /// Mean change since the first round.
    pub change: f64,
}

impl Default for State {
    fn default() -> Self {
        Self { format: FORMAT.into(), version: VERSION, rounds: Vec::new(), stopped: None }
    }
}

impl State {
    /// What is on disk, or a beginning.
    ///
    /// # Errors
    /// The file is there and is no state: what it said of rounds must not be guessed.
    pub fn read(workspace: &Workspace) -> Result<Self, StateError> {
        let path = path(workspace);
        let text = match store::read_text(&path) {
            Err(e) if e.source.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            read => read?,
        };
        let unreadable = |why: String| StateError::Unreadable { path: path.clone(), why };
        let state: Self = serde_json::from_str(&text).map_err(|e| unreadable(e.to_string()))?;
        match (state.format.as_str(), state.version) {
            (FORMAT, VERSION) => Ok(state),
            (format, version) => Err(unreadable(format!("`{format} {version}` is not `{FORMAT} {VERSION}`"))),
        }
    }

    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, workspace: &Workspace) -> Result<(), StoreError> {
        store::write_json(&path(workspace), self)
    }

    /// Puts a round in its place: the one with its number, or the end.
    pub fn keep(&mut self, round: Round) {
        match self.rounds.iter_mut().find(|kept| kept.round == round.round) {
            Some(kept) => *kept = round,
            None => self.rounds.push(round),
        }
    }

    /// The smallest error budget with which a round tested this model, and its trial.
    pub fn share_of(&self, model: &str) -> Option<Share> {
        let tested = self.finished().filter(|(_, result)| result.model == model);
        let shares = tested
            .filter_map(|(round, result)| Some(Share { alpha: round.alpha?, trial: result.trial.clone() }));
        shares.min_by(|a, b| a.alpha.total_cmp(&b.alpha))
    }

    /// Rounds that are over.
    pub fn finished(&self) -> impl Iterator<Item = (&Round, &RoundResult)> {
        self.rounds.iter().filter_map(|round| Some((round, round.result.as_ref()?)))
    }
}

fn path(workspace: &Workspace) -> PathBuf {
    workspace.state().join("loop.json")
}

/// The rounds of a workspace cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("`{}` is not readable: {why}", path.display())]
    Unreadable { path: PathBuf, why: String },
}

impl Explain for StateError {
    fn kind(&self) -> Kind {
        match self {
            Self::Store(e) => e.kind(),
            Self::Unreadable { .. } => Kind::Input,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Store(e) => e.hint(),
            Self::Unreadable { .. } => Some(
                "bring it back from a copy, or begin a new workspace with `-C DIR`; without it the loop would begin anew, with \
                 its first round and the first share of its error budget"
                    .into(),
            ),
        }
    }
}

#[cfg(test)]
impl Round {
    pub(super) fn sample(round: u32) -> Self {
        Self {
            round,
            seed: 1,
            size: Size::default(),
            agent: "base".into(),
            champion: "base".into(),
            briefs: Vec::new(),
            heldout: Vec::new(),
            alpha: None,
            anchors: None,
            new_rows: None,
            taught: None,
            answered: None,
            result: None,
        }
    }

    pub(super) fn ended(round: u32, verdict: Verdict) -> Self {
        let result = RoundResult { model: format!("ft:{round}"), trial: format!("t-{round}"), verdict };
        Self { result: Some(result), ..Self::sample(round) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_of_an_older_version_is_read_and_a_spoilt_one_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let workspace = Workspace::new(folder.path());
        assert_eq!(State::read(&workspace).unwrap(), State::default());
        let old = r#"{"format":"hone.loop","version":1,"rounds":[{"round":1,"seed":1,"size":{"limit":12,
            "drafts":1,"max_rows":150,"n_epochs":2,"heldout":6,"samples":1},"agent":"a","champion":"a",
            "heldout":["x"],"result":null}]}"#;
        std::fs::create_dir_all(workspace.state()).unwrap();
        std::fs::write(path(&workspace), old).unwrap();
        let mut state = State::read(&workspace).unwrap();
        assert_eq!((state.rounds[0].heldout.len(), state.finished().count()), (1, 0));
        state.keep(Round::ended(1, Verdict::Promote));
        state.keep(Round::sample(2));
        state.write(&workspace).unwrap();
        assert_eq!(State::read(&workspace).unwrap(), state);
        assert_eq!((state.rounds.len(), state.finished().count()), (2, 1));
        for spoilt in ["{\"format\":", r#"{"format":"hone.loop","version":2,"rounds":[]}"#] {
            std::fs::write(path(&workspace), spoilt).unwrap();
            let error = State::read(&workspace).unwrap_err();
            assert!(error.to_string().contains("loop.json") && error.kind() == Kind::Input, "{error}");
            let hint = error.hint().unwrap();
            assert!(
                hint.contains("from a copy") && !hint.contains("delete"),
                "it is the only record: {hint}"
            );
        }
    }

    #[test]
    fn a_round_says_with_what_budget_its_model_was_tested() {
        let ended = |number, alpha| Round { alpha, ..Round::ended(number, Verdict::Hold) };
        let mut state = State::default();
        state.keep(ended(1, Some(0.03)));
        state.keep(ended(2, None));
        let share = Share { alpha: 0.03, trial: "t-1".into() };
        assert_eq!(state.share_of("ft:1"), Some(share));
        assert_eq!((state.share_of("ft:2"), state.share_of("ft:3")), (None, None));
        // The same data gave the same model again.
        let mut again = ended(3, Some(0.003));
        again.result =
            Some(RoundResult { model: "ft:1".into(), trial: "t-3".into(), verdict: Verdict::Hold });
        state.keep(again);
        assert_eq!(state.share_of("ft:1"), Some(Share { alpha: 0.003, trial: "t-3".into() }));
    }
}
