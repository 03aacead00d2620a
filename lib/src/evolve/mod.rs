//! The search for one brief, and its log.

mod bandit;
pub mod composer;
mod import;
mod log;
mod run;
mod search;
mod strategy;
mod teach;

pub use bandit::Bandit;
pub(crate) use bandit::waves;
pub use composer::Operator;
pub use import::{ImportError, ImportSummary, Imported, Imports, import};
pub use log::{EvolutionLog, FORMAT, FORMAT_VERSION, LogEntry, LogUsage, Pair, logs};
pub use run::{EvolveError, Evolver, Summary};
pub use search::{Found, Means, Options, Search, Teacher};
pub use strategy::{Fixed, Strategy};
pub(crate) use teach::{Shown, improvement_messages};
