//! Turns of the loop: which briefs each draws, what error each may make, and what ends them.
//!
//! Every round trains from the base on the logs of all rounds, so a round is worth its time only when it adds something:
//! [`fresh`] draws briefs that no round had, [`alpha`] shares one error budget among all rounds that will ever be,
//! [`Diversity`] tells whether what is taught and answered becomes uniform, and [`look`] says when to stop, and why.

mod diversity;
mod draw;
mod record;
mod rules;

pub use diversity::{Diversity, Fall};
pub use draw::{drawn_before, fresh};
pub use record::{Anchored, Round, RoundResult, Size, State, StateError};
pub use rules::{Moment, Reason, Stop, alpha, look};
