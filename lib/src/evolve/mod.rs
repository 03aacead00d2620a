//! The search for one brief, and its log.

pub mod composer;
mod log;
mod run;
mod search;
mod teach;

pub use log::{EvolutionLog, FORMAT, FORMAT_VERSION, LogEntry, LogUsage, Pair};
pub use run::{EvolveError, Evolver, Summary};
pub use search::{Options, Teacher};
pub(crate) use teach::improvement_messages;
