//! From logs to a fine-tuning dataset.
//!
//! Reading order: [`read`] loads the logs, [`select`] decides which candidates are worth learning from ([`alike`] tells
//! copies), [`mix`] makes rows of them and orders, trims and splits these, [`prepare`] writes the files, [`manifest`] and
//! [`summary`] say where every row came from and why everything else was left out. [`check`] tells whether any
//! fine-tuning file, ours or not, would be accepted; [`tokens`] counts.
//! [`trained_on`] tells which briefs a dataset has spent.
//!
//! The same logs and options give the same bytes: there is no clock in here, and every order comes from the seed.

mod alike;
pub mod check;
mod error;
mod manifest;
mod mix;
mod options;
mod overlap;
mod prepare;
mod read;
mod rows;
mod select;
mod summary;
pub mod tokens;

#[cfg(test)]
mod tests;

pub use error::DatasetError;
pub use manifest::{DropReason, Dropped, Manifest, RowKind, RowRecord, RowSource, Withheld};
pub use options::PrepareOptions;
pub use overlap::trained_on;
pub use prepare::{Prepared, build, prepare};
pub use read::{BadLog, Logs, OriginalEntry, OriginalLog, SourceLog, read_logs};
pub use rows::{ChatRow, PreferenceInput, PreferenceRow};
pub use summary::{Examples, Summary};
