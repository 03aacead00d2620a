//! What a call to a chat or fine-tuning provider can end in.

use std::time::Duration;

use crate::{
    error::{Explain, Kind},
    model::price::Usd,
    store::StoreError,
};

/// A call that gave no usable answer. `provider` is the endpoint's name.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The provider said no, in its own words.
    #[error("{provider} refused: {message} (HTTP {status}{})", with_code(code))]
    Refused {
        provider: String,
        status: u16,
        code: Option<String>,
        message: String,
        /// The provider's name for this exchange, for its support.
        request_id: Option<String>,
    },
    /// No answer: nobody listens, or the connection broke.
    #[error("cannot reach {provider} at `{url}`: {why}")]
    Unreachable { provider: String, url: String, why: String, local: bool },
    /// It was reached, and its answer did not come in time, or stopped in the middle.
    #[error("{provider} is too slow: {why}")]
    TooSlow { provider: String, why: String },
    /// An answer that is not what the protocol promises.
    #[error("{provider} gave an answer that cannot be used: {why}")]
    Garbled { provider: String, why: String },
    /// The provider asked for a longer wait than two minutes.
    #[error("{provider} asks to wait {} s before the next try", wait.as_secs())]
    WaitTooLong { provider: String, wait: Duration },
    /// The next call might cost more than is left.
    #[error(
        "the budget of {cap} is reached: {spent} is spent, {held} may still be billed for calls under way, and the next call may cost {next}"
    )]
    Budget { spent: Usd, held: Usd, next: Usd, cap: Usd },
    /// A budget cannot be kept where a price is not known.
    #[error("what `models.{row}` costs is not known, so no budget can be kept")]
    NoPrice { row: String },
    /// Nothing but failures for so long that it makes no sense to go on.
    #[error("{provider} is down since {since}: {why}")]
    Down { provider: String, since: String, why: String },
    /// Nothing may be sent, and the journal does not have it.
    #[error("the journal has no answer of {provider} to a call of `{model}`, and nothing may be sent")]
    NotInJournal { provider: String, model: String },
    /// The endpoint's settings are unusable.
    #[error("{0}")]
    Endpoint(String),
    #[error("cancelled")]
    Cancelled,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The code for a conversation that does not fit into the model's context.
const TOO_LONG: &str = "context_length_exceeded";
/// The code for a job that the provider does not know.
const NO_JOB: &str = "fine_tune_not_found";

fn with_code(code: &Option<String>) -> String {
    code.as_ref().map(|code| format!(", {code}")).unwrap_or_default()
}

impl ModelError {
    /// The provider's error code, if it gave one.
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Refused { code, .. } => code.as_deref(),
            _ => None,
        }
    }

    /// The HTTP status of a refusal.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// True when the provider does not know the model (yet).
    pub fn is_unknown_model(&self) -> bool {
        self.status() == Some(404)
            && matches!(
                self.code(),
                Some("model_not_found" | "not_found_error" | "DeploymentNotFound") | None
            )
    }

    /// True when what was asked for may have been done, though no answer says so: the connection broke, what came was
    /// unreadable, or the server failed. A creation in doubt is looked for before it is tried again.
    pub fn is_in_doubt(&self) -> bool {
        match self {
            Self::Refused { status, .. } => *status >= 500 || matches!(status, 408 | 409),
            Self::Unreachable { .. } | Self::TooSlow { .. } | Self::Garbled { .. } => true,
            _ => false,
        }
    }
}

impl Explain for ModelError {
    fn kind(&self) -> Kind {
        match self {
            // The provider is fine; what it was asked is too long for the model, or about a job of somebody else's.
            Self::Refused { .. } if matches!(self.code(), Some(TOO_LONG | NO_JOB)) => Kind::Input,
            Self::Refused { .. }
            | Self::Unreachable { .. }
            | Self::TooSlow { .. }
            | Self::Garbled { .. }
            | Self::WaitTooLong { .. }
            | Self::Down { .. }
            | Self::NotInJournal { .. } => Kind::Provider,
            Self::Budget { .. } | Self::NoPrice { .. } => Kind::Budget,
            Self::Endpoint(_) => Kind::Input,
            Self::Cancelled => Kind::Cancelled,
            Self::Store(e) => e.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Refused { status, code, .. } => {
                return refusal_hint(*status, code.as_deref()).map(Into::into);
            }
            Self::Unreachable { local: true, .. } => {
                "start the server (`hone serve` is Hone's own), or leave `base_url` out to use the embedded engine; see \
                 docs/troubleshooting/out-of-reach.md"
            }
            Self::Unreachable { .. } => {
                "check the network and the row's `base_url`, then run the same command again; see \
                 docs/troubleshooting/out-of-reach.md"
            }
            Self::TooSlow { .. } => {
                "run the same command again: finished calls are kept; where answers take this long, raise `timeout_s` in \
                 the row; see docs/troubleshooting/too-slow.md"
            }
            Self::Garbled { .. } => {
                "run the same command again; if it stays so, check that `base_url` is the API's address (it usually ends \
                 in `/v1`) and not a web page or a proxy; see docs/troubleshooting/unusable-answer.md"
            }
            Self::WaitTooLong { .. } => {
                "run the same command again later; finished calls are kept; see docs/troubleshooting/asked-to-wait.md"
            }
            Self::Budget { spent, held, next, cap } => {
                let enough = (2.0 * cap.dollars()).max((*spent + *held + *next).dollars());
                let enough = if enough >= 1.0 { enough.ceil() } else { (enough * 1e4).ceil() / 1e4 };
                return Some(format!(
                    "run the same command again with a higher `--budget`, {enough} for example, or raise `usd` under \
                     `[budget]`; finished work is kept; see docs/troubleshooting/budget-reached.md"
                ));
            }
            Self::NoPrice { row } => {
                return Some(format!(
                    "say it under `[models.{row}]`: `price = {{ input = 0.0, output = 0.0, as_of = \"2026-01-31\" }}` in US \
                     dollars per million tokens; or go without a budget: `--budget inf`; see \
                     docs/troubleshooting/unknown-price.md"
                ));
            }
            Self::Down { .. } => {
                "run the same command again later: it goes on, and finished calls are kept; see \
                 docs/troubleshooting/provider-down.md"
            }
            Self::NotInJournal { .. } => {
                "import the journal of the run that made this call (`hone calls import FILE`), or leave `--offline` out; \
                 see docs/troubleshooting/not-in-the-journal.md"
            }
            Self::Endpoint(_) => "correct the row under `[models]` in `hone.toml`",
            Self::Cancelled => return None,
            Self::Store(e) => return e.hint(),
        };
        Some(hint.into())
    }
}

fn refusal_hint(status: u16, code: Option<&str>) -> Option<&'static str> {
    Some(match (status, code) {
        (_, Some("training_not_available")) => {
            "this provider no longer trains for this account (OpenAI closes self-serve fine-tuning: new organisations \
             since 2026-05-07, everyone on 2027-01-06); train with the local engine instead: `[finetune] model = \"local\"`"
        }
        (_, Some("insufficient_quota" | "credit_balance_exhausted" | "exceeded_quota")) | (402, _) => {
            "the account is out of credit: check its billing page, or use the local engine; see \
             docs/troubleshooting/insufficient-quota.md"
        }
        (_, Some("model_not_found" | "not_found_error" | "DeploymentNotFound")) => {
            "correct `model` in the row, `hone models` shows it: the provider has none of this name; see \
             docs/troubleshooting/unknown-model.md"
        }
        (_, Some(TOO_LONG)) => {
            "shorten the brief, or choose a model with a longer context; see docs/troubleshooting/too-long.md"
        }
        (_, Some(NO_JOB)) => "`hone status` without an id shows the last job; `hone finetune` starts one",
        (401, _) => {
            "check the API key: the variable that the row's `api_key_env` names, or `.env`; see \
             docs/troubleshooting/invalid-key.md"
        }
        (403, _) => {
            "the key lacks permission for this: check its scope and the account's region; see \
             docs/troubleshooting/no-permission.md"
        }
        (404, _) => "check `base_url` and the name of the model or the job",
        (413, _) => "the upload is too large: 512 MB is the limit",
        (429, _) => {
            "the provider limits the rate: run again with less concurrency; finished calls are kept; see \
             docs/troubleshooting/rate-limited.md"
        }
        (408 | 409 | 500.., _) => {
            "the provider is in trouble: run the same command again; finished calls are kept; see \
             docs/troubleshooting/server-error.md"
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16, code: Option<&str>) -> ModelError {
        ModelError::Refused {
            provider: "openai".into(),
            status,
            code: code.map(Into::into),
            message: "no".into(),
            request_id: None,
        }
    }

    #[test]
    fn a_refusal_names_provider_status_and_code() {
        assert_eq!(
            refused(401, Some("invalid_api_key")).to_string(),
            "openai refused: no (HTTP 401, invalid_api_key)"
        );
        assert_eq!(refused(500, None).to_string(), "openai refused: no (HTTP 500)");
    }

    #[test]
    fn hints_say_who_can_mend_it() {
        let hint = |status, code| refused(status, code).hint().unwrap_or_default();
        assert!(hint(401, Some("invalid_api_key")).contains("API key"));
        assert!(hint(429, Some("insufficient_quota")).contains("billing"));
        let closed = hint(403, Some("training_not_available"));
        assert!(closed.contains("2027-01-06") && closed.contains("local"), "{closed}");
        assert_eq!(hint(400, None), "");
        assert!(hint(400, Some(TOO_LONG)).contains("shorten the brief"));
        assert!(hint(404, Some(NO_JOB)).contains("`hone status`"));
    }

    #[test]
    fn only_what_was_asked_is_the_users_fault() {
        assert_eq!(refused(400, Some(TOO_LONG)).kind(), Kind::Input);
        assert_eq!(refused(404, Some(NO_JOB)).kind(), Kind::Input);
        assert_eq!(refused(404, None).kind(), Kind::Provider);
        assert_eq!(refused(400, Some("server_error")).kind(), Kind::Provider);
        assert_eq!(refused(400, None).kind(), Kind::Provider);
    }
}
