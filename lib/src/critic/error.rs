//! Why the critic could not look. What is wrong with a candidate is evidence, never an error.

use std::path::PathBuf;

use crate::{
    error::{Explain, Kind},
    model::client::ModelError,
    store::StoreError,
};

/// The critic, not the candidate, is at fault or lacks something.
#[derive(Debug, thiserror::Error)]
pub enum CriticError {
    /// Candidates cannot be run in isolation here.
    #[error("no sandbox to run candidates in: {0}")]
    NoSandbox(String),
    /// The Python environment does not do what it should.
    #[error("the Python environment at `{}` does not work: {why}", python.display())]
    Runtime { python: PathBuf, why: String },
    /// An environment with another Streamlit, or none.
    #[error("the Python environment at `{}` has {found}, and {needed} is needed", python.display())]
    OtherStreamlit { python: PathBuf, found: String, needed: &'static str },
    /// Chromium does not do what it should.
    #[error("the browser does not work: {0}")]
    Browser(String),
    /// No further call of a model may be made: the budget, a provider that is down, a call that is not in the journal.
    #[error(transparent)]
    Model(ModelError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("cancelled")]
    Cancelled,
    /// A thread of the critic is gone.
    #[error("the critic failed: {0}")]
    Internal(String),
}

impl Explain for CriticError {
    fn kind(&self) -> Kind {
        match self {
            Self::NoSandbox(_) | Self::Runtime { .. } | Self::OtherStreamlit { .. } | Self::Browser(_) => {
                Kind::Environment
            }
            Self::Model(e) => e.kind(),
            Self::Store(e) => e.kind(),
            Self::Cancelled => Kind::Cancelled,
            Self::Internal(_) => Kind::Internal,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::NoSandbox(_) => Some(
                "install bubblewrap (`apt-get install bubblewrap`) on a machine that allows it, or accept scores \
                 without execution with `--static-only`"
                    .into(),
            ),
            Self::Runtime { .. } => Some("run `hone setup`, which repairs the Python environment".into()),
            Self::OtherStreamlit { needed, .. } => Some(format!(
                "`pip install \"streamlit~={needed}.0\"` there; `hone setup` repairs the environment that Hone made"
            )),
            Self::Browser(_) => Some(
                "`hone doctor` looks at it; `apt-get install --reinstall chromium-headless-shell` (or `chromium`) repairs it".into(),
            ),
            Self::Model(e) => e.hint(),
            Self::Store(e) => e.hint(),
            Self::Cancelled | Self::Internal(_) => None,
        }
    }
}
