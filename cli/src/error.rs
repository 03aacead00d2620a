//! The one error of commands, and the exit codes.

use std::fmt;

use hone::error::{Explain, Kind};

/// How a command ends. Documented in `docs/exit-codes.md`; scripts rely on the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    Ok = 0,
    Internal = 1,
    Usage = 2,
    Input = 3,
    /// The verdict is not "promote", a deployment has none, a critique is below the threshold, or the critic misses a target.
    Verdict = 4,
    Budget = 5,
    Provider = 6,
    Environment = 7,
    Cancelled = 130,
}

impl From<Kind> for Exit {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Internal => Self::Internal,
            Kind::Usage => Self::Usage,
            Kind::Input => Self::Input,
            Kind::Verdict => Self::Verdict,
            Kind::Budget => Self::Budget,
            Kind::Provider => Self::Provider,
            Kind::Environment => Self::Environment,
            Kind::Cancelled => Self::Cancelled,
        }
    }
}

/// What went wrong, who has to act, and what would mend it.
#[derive(Debug)]
pub struct CommandError {
    pub kind: Kind,
    pub message: String,
    pub hints: Vec<String>,
}

pub type Result<T = Exit> = std::result::Result<T, CommandError>;

impl CommandError {
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hints: Vec::new() }
    }

    /// The command was called wrongly in a way that the argument parser does not see.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }
}

impl<E: Explain> From<E> for CommandError {
    fn from(error: E) -> Self {
        let hints = error.hint().into_iter().collect();
        Self { kind: error.kind(), message: error.to_string(), hints }
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.message)?;
        for hint in &self.hints {
            write!(f, "\nhint: {hint}")?;
        }
        Ok(())
    }
}
