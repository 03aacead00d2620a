//! Trials: paired comparison of models on held-out briefs.
//!
//! A [`TrialSpec`] says what is compared; [`Trial`] is its folder on disk; [`run`] generates and judges what is missing,
//! each result on disk before it counts; [`summarise`] turns the rows into a verdict; [`report`] and [`table`] show it.
//! Base and tuned get the same brief, decoding and sampling seed, interleaved, so that the difference between two rows is
//! the model's.

mod causes;
mod chart;
mod find;
#[cfg(test)]
mod fixtures;
mod gates;
mod judge;
pub mod pairs;
mod parts;
mod pictures;
pub mod report;
mod row;
mod run;
mod sequential;
#[cfg(test)]
mod simulate_tests;
mod spec;
pub mod stats;
mod strategies;
pub mod table;
pub mod verdict;

pub use find::{Share, last_summary, smallest_share, summary, unreadable_summaries};
pub use gates::{Gate, Status};
pub use judge::JudgeFigures;
pub use pairs::{Better, Pair, PairFigures};
pub use parts::Part;
pub use report::{Extras, LossPoint, write_report};
pub use row::{Generation, Judgement, Row};
pub use run::{Limits, run};
pub use sequential::Sequential;
pub use spec::{ALPHA, Arm, Opened, Training, Trial, TrialError, TrialSpec};
pub use strategies::{Comparison, StrategyDifference, StrategyRow, StrategyTable};
pub use table::{side_by_side, table};
pub use verdict::{Other, Summary, Verdict, summarise, summarise_with};
