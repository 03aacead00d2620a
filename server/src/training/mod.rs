//! Fine-tuning jobs: checked by the server, trained by a child process, watched by whichever server runs.
//!
//! Reading order: `data` checks training files, `plan` settles hyperparameters, `supervisor` runs one child after the
//! other, `child` is what runs in it.

mod child;
pub(crate) mod data;
mod plan;
mod report;
mod supervisor;

pub use child::run_training_child;
pub use plan::fault;
pub use supervisor::Supervisor;
