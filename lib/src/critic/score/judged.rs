//! What a judge's answers take away from a score: a pure function that never adds.

use super::{round, unit, weighted};
use crate::critic::{Cap, Rubric, SubScores};

/// The score (0-10) that is left of `executed` when a judge finds `share` (0-1) of what it was asked, and the cap that
/// this share sets, if it sets one.
///
/// The share is a part of its own in the weighted mean of `scores`. It is at most `executed` for any share, equal to it when
/// everything holds, and never rises when the share falls.
pub fn judged(executed: f64, scores: &SubScores, share: f64, rubric: &Rubric) -> (f64, Option<Cap>) {
    let (share, numbers) = (unit(share), &rubric.judge);
    let mean = weighted(scores, &rubric.weights);
    let weight = numbers.weight / (rubric.weights.list().iter().sum::<f64>() + numbers.weight);
    // In this form the mean of a share of 1 is not below that of the sub-scores, whatever is rounded on the way.
    let blended = round(mean + weight * (10.0 * share - mean));
    let bound = match share {
        s if s < 0.25 => Some((numbers.quarter, "less than a quarter")),
        s if s < 0.5 => Some((numbers.half, "less than half")),
        _ => None,
    };
    let cap = bound.map(|(value, how_much)| Cap {
        value,
        why: format!("the judge finds {how_much} of what it was asked"),
    });
    let lowest = cap.as_ref().map_or(10.0, |cap| cap.value);
    (executed.min(blended).min(lowest), cap)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::critic::{Evidence, score};

    #[track_caller]
    fn check(part: f64, executed: f64, share: f64, expected: f64) {
        let scores = SubScores { behaviour: Some(part), executes: Some(part), ..SubScores::default() };
        assert_eq!(judged(executed, &scores, share, &Rubric::default()).0, expected);
    }

    #[test]
    fn what_is_missing_takes_points_away() {
        check(9.0, 9.0, 1.0, 9.0);
        check(9.0, 9.0, 0.75, 8.65);
        check(9.0, 9.0, 0.5, 8.08);
        check(9.0, 9.0, 0.4, 6.5);
        check(9.0, 9.0, 0.0, 5.0);
        // What execution capped stays capped, and what is poor already is not made better.
        check(9.0, 4.5, 1.0, 4.5);
        check(3.0, 3.0, 0.6, 3.0);
    }

    #[test]
    fn a_cap_says_why() {
        let (_, cap) = judged(9.0, &SubScores::default(), 0.3, &Rubric::default());
        assert_eq!(cap.unwrap().why, "the judge finds less than half of what it was asked");
    }

    #[test]
    fn all_that_holds_leaves_the_sample_as_it_was() {
        let critique = score(&Evidence::sample());
        let kept = judged(critique.overall_score, &critique.scores, 1.0, &Rubric::default());
        assert_eq!(kept, (critique.overall_score, None));
    }

    fn part() -> impl Strategy<Value = Option<f64>> {
        prop::option::of((0u32..=1000).prop_map(|n| f64::from(n) / 100.0))
    }

    prop_compose! {
        fn scores()(behaviour in part(), executes in part(), accessibility in part(), visual in part(),
            match_ in part(), code in part()) -> SubScores {
            SubScores { behaviour, executes, accessibility, visual, match_, code }
        }
    }

    proptest! {
        #[test]
        fn no_answer_raises_a_score(
            scores in scores(),
            cap in 0.0..10.0f64,
            shares in (0.0..=1.0f64, 0.0..=1.0f64),
            weight in 0.0..9.0f64,
        ) {
            let mut rubric = Rubric::default();
            rubric.judge.weight = weight;
            let executed = round(weighted(&scores, &rubric.weights).min(cap));
            let of = |share: f64| judged(executed, &scores, share, &rubric).0;
            prop_assert!(of(shares.0) <= executed && of(shares.0) >= 0.0);
            prop_assert!(of(shares.0.min(shares.1)) <= of(shares.0.max(shares.1)));
            prop_assert_eq!(of(1.0), executed);
        }
    }
}
