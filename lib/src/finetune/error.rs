//! Why there is no tuned model.

use std::path::PathBuf;

use crate::{
    error::{Explain, Kind},
    model::{client::ModelError, price::Usd, wire::MIN_EXAMPLES},
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
    /// The provider looks at the files for so long that it has forgotten them.
    #[error("job `{job}` is in `validating_files` for {minutes} minutes; 5 to 10 are usual")]
    Stuck { job: String, minutes: i64 },
    /// Something that a job needs is missing; found before anything was uploaded.
    #[error("{detail}")]
    NotReady { detail: String, fix: String },
    /// A creation was not answered, and nobody can say what came of it.
    #[error("it is not known whether `{row}` created a job, and it lists none")]
    Unsettled { row: String },
    #[error("`{row}` estimates {usd} for this job, more than the account has")]
    NoCredit { row: String, usd: Usd },
    /// The job might cost more than is left.
    #[error(
        "the budget of {cap} does not bear the job: it may cost {next}, {spent} is spent, and {held} may still be billed for \
         what is under way"
    )]
    Budget { spent: Usd, held: Usd, next: Usd, cap: Usd },
    /// A budget cannot be kept where a price is not known.
    #[error("what training `{model}` at `models.{row}` costs is not known, so no budget can be kept")]
    NoPrice { row: String, model: String },
    #[error("`{row}` cannot {what}")]
    Unsupported { row: String, what: String, instead: String },
    #[error("`models.{row}` does not say whose account its jobs belong to")]
    NoAccount { row: String },
    #[error("no row that can be asked knows a job `{job}`")]
    NoJob { job: String },
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
            Self::NoDataset { .. }
            | Self::TooFew { .. }
            | Self::Unsupported { .. }
            | Self::NoAccount { .. }
            | Self::NoJob { .. } => Kind::Input,
            Self::Stuck { .. } | Self::NotReady { .. } | Self::Unsettled { .. } | Self::NoCredit { .. } => {
                Kind::Provider
            }
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
            Self::Budget { .. } | Self::NoPrice { .. } => Kind::Budget,
            Self::JobCancelled { .. } | Self::Cancelled | Self::Detached { .. } => Kind::Cancelled,
            Self::Model(e) => e.kind(),
            Self::Store(e) => e.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NoDataset { .. } => {
                "run `hone prepare` to make one from the evolutions; see docs/troubleshooting/no-dataset.md"
                    .into()
            }
            Self::TooFew { .. } => {
                "lower `--min-score` of `hone prepare`, or run `hone evolve` on more briefs; see \
                 docs/troubleshooting/too-few-examples.md"
                    .into()
            }
            Self::Failed { code, local, .. } => return failure_hint(code.as_deref(), *local),
            Self::Stuck { job, .. } => format!(
                "`hone finetune --restart-stuck` cancels it and starts another, `hone status {job} --follow` goes on waiting; see docs/troubleshooting/stuck-in-validating.md"
            ),
            Self::NotReady { fix, .. } => fix.clone(),
            Self::Unsettled { row } => format!(
                "look at the jobs on the provider's own page: if `{row}` has none of this workspace, delete \
                 `.hone/finetune.json` and run the same command again; see docs/troubleshooting/unanswered-creation.md"
            ),
            Self::NoCredit { .. } => QUOTA.into(),
            Self::Budget { spent, held, next, cap } => {
                return ModelError::Budget { spent: *spent, held: *held, next: *next, cap: *cap }.hint();
            }
            Self::NoPrice { row, .. } => format!(
                "say it under `[models.{row}]`: `price = {{ input = 0.0, output = 0.0, training = 0.0, as_of = \"2026-01-31\" }}` \
                 in US dollars per million tokens; or go without a budget: `--budget inf`; see \
                 docs/troubleshooting/unknown-price.md"
            ),
            Self::Unsupported { instead, .. } => instead.clone(),
            Self::NoAccount { row } => {
                format!(
                    "add `account = \"...\"` under `[models.{row}]`, or set `FIREWORKS_ACCOUNT_ID`; see \
                     docs/troubleshooting/no-account.md"
                )
            }
            Self::NoJob { .. } => {
                "`hone status` without an id lists the jobs of all rows; `hone finetune` starts one; see \
                 docs/troubleshooting/unknown-job.md"
                    .into()
            }
            Self::JobCancelled { .. } => {
                "run `hone finetune` to start another; see docs/troubleshooting/job-cancelled.md".into()
            }
            Self::Cancelled => "run the same command again to go on".into(),
            Self::Detached { job } => format!("pick it up with `hone status {job} --follow`"),
            Self::Model(e) => return model_hint(e),
            Self::Store(e) => return e.hint(),
        };
        Some(hint)
    }
}

const QUOTA: &str = "the account is out of credit: check its billing page, or train with the local engine; see \
    docs/troubleshooting/insufficient-quota.md";

/// What a refusal means for training, where it means more than for other calls.
fn model_hint(error: &ModelError) -> Option<String> {
    match error.code() {
        Some("training_not_available") => Some(
            "this provider no longer trains for this account (OpenAI closes self-serve fine-tuning: new organisations since \
             2026-05-07, everyone on 2027-01-06): train with the local engine, `[finetune] model = \"local\"`, or hand \
             `data/ui_agent_openai_finetuning.jsonl` to another trainer and take its adapter back with `hone models add`; \
             see docs/troubleshooting/training-not-available.md"
                .into(),
        ),
        Some("insufficient_quota" | "credit_balance_exhausted" | "exceeded_quota") => Some(QUOTA.into()),
        _ => error.hint(),
    }
}

fn failure_hint(code: Option<&str>, local: bool) -> Option<String> {
    let hint = match code? {
        "invalid_training_file" | "invalid_validation_file" => {
            "the message names what is wrong and where; `hone prepare` writes a file without such faults; see \
             docs/troubleshooting/invalid-format.md"
        }
        "invalid_n_examples" => {
            "run `hone evolve` on more briefs and `hone prepare` again; see docs/troubleshooting/too-few-examples.md"
        }
        "unsafe_file" => {
            "the provider's moderation refused the data: take the rows out that it names; see \
             docs/troubleshooting/job-failed.md"
        }
        "exceeded_quota" => QUOTA,
        "training_diverged" => {
            "lower the learning rate, or give the data more examples; see docs/troubleshooting/job-failed.md"
        }
        "server_error" if local => {
            "check free memory and disk with `hone doctor`, then run `hone finetune` again"
        }
        "server_error" => {
            "the provider is in trouble: run `hone finetune` again later; see docs/troubleshooting/job-failed.md"
        }
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
