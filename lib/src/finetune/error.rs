//! Why there is no tuned model.

use std::path::PathBuf;

use crate::{
    error::{Explain, Kind},
    model::{client::ModelError, wire::MIN_EXAMPLES},
    store::StoreError,
};

/// Why there is no tuned model.
#[derive(Debug, thiserror::Error)]
pub enum FinetuneError {
    #[error("there is no dataset at `{}`", path.display())]
    NoDataset { path: PathBuf },
    #[error("dataset has {examples} examples, at least {MIN_EXAMPLES} are needed")]
    TooFew { examples: usize },
    /// The job ran into its own or its provider's trouble.
    #[error("job `{job}` failed: {message}{}", with_code(code))]
    Failed {
        job: String,
        code: Option<String>,
        message: String,
        /// `training_file` or `validation_file` when the data is to blame.
        param: Option<String>,
        /// Trained by the local engine.
        local: bool,
    },
    #[error("job `{job}` was cancelled")]
    JobCancelled { job: String },
    /// Starting was stopped; its steps so far are on disk.
    #[error("stopped; what was uploaded or created is kept")]
    Cancelled,
    /// Following was stopped; the job was not.
    #[error("stopped following job `{job}`, which goes on")]
    Detached { job: String },
    #[error(transparent)]
    Model(ModelError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn with_code(code: &Option<String>) -> String {
    code.as_ref().map(|code| format!(" ({code})")).unwrap_or_default()
}

impl From<ModelError> for FinetuneError {
    fn from(error: ModelError) -> Self {
        match error {
            ModelError::Cancelled => Self::Cancelled,
            other => Self::Model(other),
        }
    }
}

impl Explain for FinetuneError {
    fn kind(&self) -> Kind {
        match self {
            Self::NoDataset { .. } | Self::TooFew { .. } => Kind::Input,
            Self::Failed { code, param, local, .. } => {
                let code = code.as_deref().unwrap_or_default();
                let data =
                    matches!(param.as_deref(), Some("training_file" | "validation_file" | "hyperparameters"));
                match (data || code.starts_with("invalid_") || code == "unsafe_file", local) {
                    (true, _) => Kind::Input,
                    (false, true) => Kind::Environment,
                    (false, false) => Kind::Provider,
                }
            }
            Self::JobCancelled { .. } | Self::Cancelled | Self::Detached { .. } => Kind::Cancelled,
            Self::Model(e) => e.kind(),
            Self::Store(e) => e.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NoDataset { .. } => "run `hone prepare` to make one from the evolutions".into(),
            Self::TooFew { .. } => {
                "lower `--min-score` of `hone prepare`, or run `hone evolve` on more briefs".into()
            }
            Self::Failed { code, local, .. } => return failure_hint(code.as_deref(), *local),
            Self::JobCancelled { .. } => "run `hone finetune` to start another".into(),
            Self::Cancelled => "run the same command again to go on".into(),
            Self::Detached { job } => format!("pick it up with `hone status {job} --follow`"),
            Self::Model(e) => return e.hint(),
            Self::Store(e) => return e.hint(),
        };
        Some(hint)
    }
}

fn failure_hint(code: Option<&str>, local: bool) -> Option<String> {
    let hint = match code? {
        "invalid_training_file" | "invalid_validation_file" => {
            "the message names what is wrong and where; `hone prepare` writes a file without such faults"
        }
        "invalid_n_examples" => "run `hone evolve` on more briefs and `hone prepare` again",
        "unsafe_file" => "the provider's moderation refused the data: take the rows out that it names",
        "exceeded_quota" => {
            "the account is out of credit: check its billing page, or train with the local engine"
        }
        "training_diverged" => "lower the learning rate, or give the data more examples",
        "server_error" if local => {
            "check free memory and disk with `hone doctor`, then run `hone finetune` again"
        }
        "server_error" => "the provider is in trouble: run `hone finetune` again later",
        _ => return None,
    };
    Some(hint.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(code: &str, param: Option<&str>, local: bool, expected: Kind) {
        let error = FinetuneError::Failed {
            job: "ftjob-1".into(),
            code: Some(code.into()),
            message: "m".into(),
            param: param.map(Into::into),
            local,
        };
        assert_eq!(error.kind(), expected, "{code}");
        assert!(error.hint().is_some(), "{code}");
        assert_eq!(error.to_string(), format!("job `ftjob-1` failed: m ({code})"));
    }

    #[test]
    fn data_is_the_users_fault_trouble_is_not() {
        check("invalid_training_file", Some("training_file"), true, Kind::Input);
        check("invalid_n_examples", None, false, Kind::Input);
        check("server_error", None, true, Kind::Environment);
        check("server_error", None, false, Kind::Provider);
        check("exceeded_quota", None, false, Kind::Provider);
    }

    #[test]
    fn a_stop_says_how_to_go_on() {
        let error = FinetuneError::from(ModelError::Cancelled);
        assert_eq!(error.kind(), Kind::Cancelled);
        assert_eq!(error.hint().unwrap(), "run the same command again to go on");
    }

    #[test]
    fn too_few_examples_are_said_with_the_number() {
        let error = FinetuneError::TooFew { examples: 7 };
        assert_eq!(error.to_string(), "dataset has 7 examples, at least 10 are needed");
        assert!(error.hint().unwrap().contains("--min-score"));
    }
}
