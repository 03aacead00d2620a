//! What every module's error can say beside its message: who has to act, and how.

/// Who has to act on an error. The command line turns each into one exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Our own fault.
    Internal,
    /// The command was called wrongly.
    Usage,
    /// The user's input is wrong, a job that failed for its data included.
    Input,
    /// A trial's verdict speaks against it.
    Verdict,
    /// The budget is spent.
    Budget,
    /// A provider refused or is out of reach.
    Provider,
    /// The machine lacks something: port, disk, sandbox, runtime; or the workspace is in use.
    Environment,
    /// The user stopped it.
    Cancelled,
}

/// An error that knows who has to act and what would mend it.
///
/// Messages start in lower case and end without a period; names stand in backticks. Whoever knows the cause supplies the
/// hint.
pub trait Explain: std::error::Error {
    /// Who has to act.
    fn kind(&self) -> Kind;

    /// What the user can do about it, as a sentence without a period.
    fn hint(&self) -> Option<String> {
        None
    }
}
