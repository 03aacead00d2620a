//! Stopping work that others started.
//!
//! One token is handed down from the command line. Whoever does long work either selects on [`Cancel::cancelled`] or asks
//! [`Cancel::is_cancelled`] between units, stops with everything finished on disk, and returns its module's
//! `Cancelled` error.

pub use tokio_util::sync::CancellationToken as Cancel;
