//! How large an error a trial may make: the usual one, or less where the model was tested before.

use hone::{
    rounds::State,
    trial::{self, Share},
};

use crate::{context::Context, error::Result};

/// A trial's error budget, and the earlier trial that it is from.
#[derive(Debug, PartialEq)]
pub struct Budget {
    pub alpha: f64,
    pub from: Option<String>,
}

/// What was asked for, else the smallest budget that a trial of the model has had: a model that a round held at its share must
/// not be promoted by looking again at the same answers with more.
///
/// # Errors
/// The rounds of the loop cannot be read.
pub fn of(asked: Option<f64>, model: &str, context: &Context) -> Result<Budget> {
    if let Some(alpha) = asked {
        return Ok(Budget { alpha, from: None });
    }
    let workspace = &context.workspace;
    let of_trials = trial::smallest_share(&workspace.trials(), model);
    let budget = smallest(of_trials, State::read(workspace)?.share_of(model));
    if let Some(trial) = &budget.from {
        let text = trial::table::budget_of_trial(budget.alpha, trial);
        context.events.note(format!("the error budget is {text}"));
    }
    Ok(budget)
}

fn smallest(of_trials: Option<Share>, of_round: Option<Share>) -> Budget {
    let shares = of_trials.into_iter().chain(of_round).filter(|share| share.alpha < trial::ALPHA);
    match shares.min_by(|a, b| a.alpha.total_cmp(&b.alpha)) {
        Some(Share { alpha, trial }) => Budget { alpha, from: Some(trial) },
        None => Budget { alpha: trial::ALPHA, from: None },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_further_look_has_no_more_to_spend() {
        let share = |alpha, trial: &str| Some(Share { alpha, trial: trial.into() });
        let check = |of_trials, of_round, alpha, from: Option<&str>| {
            assert_eq!(smallest(of_trials, of_round), Budget { alpha, from: from.map(str::to_owned) });
        };
        check(None, None, 0.05, None);
        check(share(0.05, "t-1"), None, 0.05, None);
        check(share(0.4, "t-1"), None, 0.05, None);
        check(share(0.0034, "t-1"), None, 0.0034, Some("t-1"));
        check(share(0.05, "t-2"), share(0.0034, "t-1"), 0.0034, Some("t-1"));
        check(share(0.001, "t-2"), share(0.0034, "t-1"), 0.001, Some("t-2"));
    }
}
