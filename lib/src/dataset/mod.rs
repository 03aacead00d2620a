//! From logs to a fine-tuning dataset.
//!
//! Reading order: [`read`] loads the logs, [`fresh`] has looked at again what nobody looked at twice, [`select`] decides
//! which candidates are worth learning from ([`leaks`] tells what gives a held-out brief away, [`alike`] copies,
//! [`ratings`] what people said), [`lessons`] makes rows of them, [`mix`] orders, trims and splits these, [`prepare`] writes
//! the files, [`manifest`] and [`summary`] say where every row came from and why everything else was left out.
//! [`validate`] tells whether any fine-tuning file, ours or not, would be accepted, and what it would teach; [`tokens`]
//! counts, [`cost`] prices.
//! [`trained_on`] tells which briefs a dataset has spent.
//!
//! The same logs and options give the same bytes, however many cores share the work: there is no clock in here, and every
//! order comes from the seed.

mod alike;
pub mod cost;
mod error;
mod export;
mod fresh;
mod leaks;
mod lessons;
mod manifest;
mod mix;
mod options;
mod overlap;
mod prepare;
mod ratings;
mod read;
mod rft;
mod rows;
mod select;
mod summary;
pub mod tokens;
pub mod validate;
mod workers;

#[cfg(test)]
mod corpus_tests;
#[cfg(test)]
mod lessons_tests;
#[cfg(test)]
mod tests;

pub use error::DatasetError;
pub use export::{Export, Shape, export};
pub use fresh::{OriginalRecord, Refresh, wanting};
pub use manifest::{
    By, DropReason, Dropped, Manifest, Policy, Roles, RowKind, RowRecord, RowSource, Step, Withheld,
};
pub use options::PrepareOptions;
pub use overlap::trained_on;
pub use prepare::{Inputs, Prepared, build, prepare};
pub use ratings::Votes;
pub use read::{
    BadLog, Entry, LogHash, Logs, Look, OriginalEntry, OriginalLog, SourceLog, logs_sha256, read_logs,
};
pub use rft::grader;
pub use rows::{ChatRow, PreferenceInput, PreferenceRow};
pub use summary::{Examples, Summary};
