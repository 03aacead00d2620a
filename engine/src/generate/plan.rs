//! How many tokens of each request go into the next forward pass.

use crate::infer::PREFILL_ROWS;

/// Prompt tokens per pass while answers are being written: whoever waits for their next token waits for these too.
const PROMPT_ROWS_BESIDE_ANSWERS: usize = 64;

/// What a request wants of the next pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// An answer's tokens: it always moves.
    Write(usize),
    /// This much of a prompt is left.
    Read(usize),
    /// Nothing yet: another request reads what this one shares with it.
    Wait,
}

/// Tokens for each need, in the order of arrival. Prompts share a budget: the oldest gets half of it, so that it is never
/// starved, the rest goes to the shortest, so that they need not wait for the long ones.
pub(super) fn takes(needs: &[Need]) -> Vec<usize> {
    let writing = needs.iter().any(|need| matches!(need, Need::Write(_)));
    let mut budget = if writing { PROMPT_ROWS_BESIDE_ANSWERS } else { PREFILL_ROWS };
    let mut takes: Vec<usize> = needs
        .iter()
        .map(|need| match need {
            Need::Write(tokens) => *tokens,
            Need::Read(_) | Need::Wait => 0,
        })
        .collect();
    let mut readers: Vec<(usize, usize)> = needs
        .iter()
        .enumerate()
        .filter_map(|(at, need)| match need {
            Need::Read(left) => Some((at, *left)),
            Need::Write(_) | Need::Wait => None,
        })
        .collect();
    let mut give = |at: usize, left: usize, most: usize, budget: &mut usize| {
        let take = (left - takes[at]).min(most).min(*budget);
        takes[at] += take;
        *budget -= take;
    };
    let Some(&(oldest, left)) = readers.first() else { return takes };
    give(oldest, left, budget.div_ceil(2), &mut budget);
    readers.sort_by_key(|(_, left)| *left);
    for (at, left) in readers {
        give(at, left, usize::MAX, &mut budget);
    }
    takes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Need::*, *};

    fn check(needs: &[Need], expected: &[usize]) {
        assert_eq!(takes(needs), expected, "{needs:?}");
    }

    #[test]
    fn prompts_share_a_budget_and_answers_always_move() {
        check(&[], &[]);
        check(&[Read(10)], &[10]);
        check(&[Read(1000)], &[256]);
        check(&[Write(1), Read(1000), Write(1)], &[1, 64, 1]);
        check(&[Read(1000), Read(300), Read(20)], &[128, 108, 20]);
        check(&[Read(20), Read(1000), Read(300)], &[20, 0, 236]);
        check(&[Wait, Read(300), Wait], &[0, 256, 0]);
        check(&[Write(3), Read(64), Read(5)], &[3, 59, 5]);
    }

    fn need() -> impl Strategy<Value = Need> {
        prop_oneof![(1..4_usize).prop_map(Write), (1..900_usize).prop_map(Read), Just(Wait)]
    }

    proptest! {
        #[test]
        fn no_more_than_is_left_or_allowed_and_nothing_idle(needs in prop::collection::vec(need(), 0..20)) {
            let takes = takes(&needs);
            let mut left = 0;
            let mut given = 0;
            for (need, take) in needs.iter().zip(&takes) {
                match need {
                    Write(tokens) => prop_assert_eq!(take, tokens),
                    Wait => prop_assert_eq!(*take, 0),
                    Read(tokens) => {
                        prop_assert!(take <= tokens);
                        given += take;
                        left += tokens;
                    }
                }
            }
            let writing = needs.iter().any(|need| matches!(need, Write(_)));
            prop_assert_eq!(given, left.min(if writing { PROMPT_ROWS_BESIDE_ANSWERS } else { PREFILL_ROWS }));
            if let Some(oldest) = needs.iter().position(|need| matches!(need, Read(_))) {
                prop_assert!(takes[oldest] > 0);
            }
        }
    }
}
