use proptest::prelude::*;

use super::*;

fn singles(values: &[f64]) -> Vec<Diff> {
    values.iter().enumerate().map(|(i, v)| Diff::new(format!("c{i:03}"), *v)).collect()
}

fn score(diffs: &[Diff]) -> Estimate {
    score_difference(diffs, &Precision::usual(1))
}

#[track_caller]
fn near(found: impl Into<Option<f64>>, wanted: f64, tolerance: f64) {
    let found = found.into().expect("a value");
    assert!((found - wanted).abs() <= tolerance, "{found} is not {wanted} +- {tolerance}");
}

#[test]
fn mcnemar_mid_p_is_the_published_one() {
    // Fagerland, Lydersen and Laake (2013), airway hyper-responsiveness: 1 and 7 discordant pairs, mid-p 0.039.
    near(mcnemar_mid_p(1, 7), 10.0 / 256.0, 1e-12);
    near(mcnemar_mid_p(7, 1), 10.0 / 256.0, 1e-12);
    // By hand: 2 * 1/8 - 1/8.
    near(mcnemar_mid_p(3, 0), 0.125, 1e-12);
    near(mcnemar_mid_p(0, 0), 1.0, 0.0);
    near(mcnemar_mid_p(5, 5), 1.0, 1e-12);
    assert!(mcnemar_mid_p(500, 400) < 0.001);
}

#[test]
fn wilson_is_the_published_one() {
    // Newcombe (1998), method 3: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
    for (passed, n, low, high) in [
        (81.0, 263, 0.2553, 0.3662),
        (15.0, 148, 0.0624, 0.1605),
        (0.0, 20, 0.0, 0.1611),
        (1.0, 29, 0.0061, 0.1718),
    ] {
        let (l, h) = wilson(passed, n).unwrap();
        near(l, low, 5e-5);
        near(h, high, 5e-5);
    }
    assert_eq!(wilson(0.0, 0), None);
}

#[test]
fn holm_steps_down() {
    // R: p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm")
    let adjusted = holm(&[0.01, 0.04, 0.03, 0.005]);
    for (found, wanted) in adjusted.iter().zip([0.03, 0.06, 0.06, 0.02]) {
        near(*found, wanted, 1e-12);
    }
    assert_eq!(holm(&[]), Vec::<f64>::new());
    assert_eq!(holm(&[0.9, 0.8]), [1.0, 1.0]);
}

#[test]
fn permutation_p_of_few_clusters_is_exact() {
    // All eight sign patterns of 1, 2, 3: only +++ and --- reach 6.
    near(score(&singles(&[1.0, 2.0, 3.0])).p, 2.0 / 8.0, 1e-12);
    // Of 1, 1, -1: every pattern has |sum| >= 1.
    near(score(&singles(&[1.0, 1.0, -1.0])).p, 1.0, 1e-12);
    // One cluster of three variants is one coin, not three.
    let one = [1.0, 2.0, 3.0].map(|v| Diff::new("same", v));
    near(score(&one).p, 1.0, 1e-12);
}

#[test]
fn one_sided_p_counts_one_side() {
    // Of the eight sign patterns of 1, 2, -4 (sum -1): 1+2+4, -1+2+4, 1-2+4, 1+2-4, -1-2+4 reach -1.
    near(score(&singles(&[1.0, 2.0, -4.0])).p_above, 5.0 / 8.0, 1e-12);
    near(score(&singles(&[1.0, 2.0, 3.0])).p_above, 1.0 / 8.0, 1e-12);
    near(score(&singles(&[1.0; 70])).p_above, 1.0 / 10_001.0, 1e-12);
    near(score(&singles(&[-1.0; 70])).p_above, 1.0, 1e-12);
}

#[test]
fn an_interval_holds_zero_where_the_exact_test_sees_nothing() {
    // Four wins among 60 pairs: p 2/16, mid-p 1/16; the bootstrap alone would exclude zero.
    let with = |wins: usize| -> Vec<f64> { (0..60).map(|i| if i < wins { 9.0 } else { 0.0 }).collect() };
    let plain = bootstrap(&Clusters::of(&singles(&with(4))), &Precision::usual(1)).unwrap();
    assert!(plain.low > 0.0, "{}", plain.low);
    let four = score(&singles(&with(4)));
    assert_eq!((four.low, four.lower), (Some(0.0), Some(plain.lower)));
    assert!(score(&singles(&with(6))).low > Some(0.0), "p 2/64");
}

#[test]
fn a_smaller_share_of_the_error_budget_asks_for_more() {
    let values: Vec<f64> = (0..30).map(|i| f64::from(i % 9) - 2.0).collect();
    let at = |alpha| score_difference(&singles(&values), &Precision { alpha, ..Precision::usual(1) });
    let (usual, strict) = (at(0.05), at(0.0125));
    assert!(strict.lower < usual.lower && strict.upper > usual.upper);
    assert_eq!((strict.low, strict.high, strict.p_above), (usual.low, usual.high, usual.p_above));
    let rate = |alpha| rate_difference(&singles(&[1.0, 0.0, 0.0, 1.0]), alpha).lower;
    assert!(rate(0.0125) < rate(0.05));
}

#[test]
fn turning_the_labels_turns_the_figures() {
    for (count, shape) in [(10, 7), (40, 11), (70, 3)] {
        let values: Vec<f64> = (0..count).map(|i| f64::from(i * i % shape) - 1.7).collect();
        let turned: Vec<f64> = values.iter().map(|v| -v).collect();
        let (one, other) = (score(&singles(&values)), score(&singles(&turned)));
        near(other.mean, -one.mean.unwrap(), 1e-9);
        near(other.low, -one.high.unwrap(), 1e-9);
        near(other.high, -one.low.unwrap(), 1e-9);
        near(other.lower, -one.upper.unwrap(), 1e-9);
        near(other.upper, -one.lower.unwrap(), 1e-9);
        near(other.p, one.p.unwrap(), 1e-9);
        let scaled = |values: &[f64]| singles(&values.iter().map(|v| v / 10.0).collect::<Vec<_>>());
        let (one, other) = (rate_difference(&scaled(&values), 0.05), rate_difference(&scaled(&turned), 0.05));
        near(other.low, -one.high.unwrap(), 1e-9);
        near(other.p, one.p.unwrap(), 1e-9);
    }
}

#[test]
fn many_wins_have_a_small_p_that_is_never_zero() {
    let p = score(&singles(&[1.0; 40])).p.unwrap();
    near(p, 1.0 / 10_001.0, 1e-12);
}

#[test]
fn the_interval_agrees_with_t_for_a_symmetric_sample() {
    // 1..=30: mean 15.5, sd 8.803, so t-interval 15.5 +- 2.045 * 1.607 = 12.21 to 18.79.
    let values: Vec<f64> = (1..=30).map(f64::from).collect();
    let estimate = score(&singles(&values));
    near(estimate.mean, 15.5, 1e-12);
    near(estimate.low, 12.21, 0.25);
    near(estimate.high, 18.79, 0.25);
    assert!(estimate.lower > estimate.low && estimate.upper < estimate.high);
}

#[test]
fn variants_of_one_family_do_not_narrow_the_interval() {
    let values: Vec<f64> = (0..20).map(|i| f64::from(i % 7) - 2.0).collect();
    let once = score(&singles(&values));
    let fourfold: Vec<Diff> = singles(&values).into_iter().flat_map(|d| vec![d; 4]).collect();
    let fourfold = score(&fourfold);
    assert_eq!((fourfold.n, fourfold.clusters), (80, 20));
    near(fourfold.low, once.low.unwrap(), 1e-9);
    near(fourfold.p, once.p.unwrap(), 1e-12);
}

#[test]
fn without_pairs_there_are_no_figures_and_no_nan() {
    let none = score(&[]);
    assert_eq!(none, Estimate::default());
    assert_eq!(rate_difference(&[], 0.05), Estimate::default());
    let json = serde_json::to_string(&none).unwrap();
    assert!(json.starts_with(r#"{"mean":null,"low":null,"high":null,"p":null"#), "{json}");
    assert_eq!((detectable_score(&[]), detectable_rate(0, 0, 0)), (None, None));
    assert_eq!((mean([]), quantile_of([], 0.5)), (None, None));
    assert_eq!(quantile_of([3.0, 1.0, 2.0], 0.5), Some(2.0));
    assert_eq!(quantile_of((0..=10).map(f64::from), 0.9), Some(9.0));
}

#[test]
fn one_pair_has_a_mean_and_no_interval() {
    let (score, rate) = (score(&singles(&[2.0])), rate_difference(&singles(&[1.0]), 0.05));
    for estimate in [score, rate] {
        assert!(estimate.mean.is_some());
        assert_eq!((estimate.low, estimate.high, estimate.lower, estimate.upper), (None, None, None, None));
    }
    near(score.p, 1.0, 1e-12);
    // The mid-p of a single coin: half of 1/2, twice.
    near(rate.p, 0.5, 1e-12);
}

#[test]
fn ties_everywhere_are_no_difference() {
    let same = score(&singles(&[0.0; 24]));
    assert_eq!((same.mean, same.low, same.high, same.p), (Some(0.0), Some(0.0), Some(0.0), Some(1.0)));
    let rate = rate_difference(&singles(&[0.0; 24]), 0.05);
    assert!(rate.low.unwrap() < -0.05 && rate.high.unwrap() > 0.05, "{rate:?}");
    near(rate.p, 1.0, 1e-12);
    assert_eq!(detectable_score(&singles(&[0.0; 24])), None);
}

#[test]
fn a_rate_that_always_wins_has_an_interval_below_one() {
    let rate = rate_difference(&singles(&[1.0; 24]), 0.05);
    assert_eq!((rate.mean, rate.high), (Some(1.0), Some(1.0)));
    // By hand: mean 24/26, standard error sqrt(4)/26.
    near(rate.low, (24.0 - 1.96 * 2.0) / 26.0, 1e-4);
}

#[test]
fn detectable_differences_are_those_of_sample_size_tables() {
    // sd 1.5 and +0.5 need 71 pairs.
    let spread = 1.5 * (70.0_f64 / 71.0).sqrt();
    let values: Vec<f64> = (0..71).map(|i| [spread, -spread, 0.0][if i == 70 { 2 } else { i % 2 }]).collect();
    near(detectable_score(&singles(&values)), 0.5, 0.01);
    // Connor (1987): 10 points with 20% of pairs discordant need 155 pairs, 30 points with 40% need 33.
    near(detectable_rate(155, 22, 7), 0.10, 0.003);
    near(detectable_rate(33, 1, 11), 0.30, 0.01);
    assert_eq!(detectable_rate(2, 2, 0), None);
    let (few, many) = (detectable_rate(24, 0, 0).unwrap(), detectable_rate(240, 0, 0).unwrap());
    assert!(many < few / 3.0, "{few} {many}");
}

/// Standard normal draws that depend on the seed alone.
fn normal(rng: &mut ChaCha8Rng) -> f64 {
    normal_quantile(rng.random_range(1e-9..1.0 - 1e-9))
}

/// Share of simulated trials whose 95% interval holds the truth.
fn coverage(clusters: usize, per_cluster: usize, draw: impl Fn(&mut ChaCha8Rng) -> f64, truth: f64) -> f64 {
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let trials = 300;
    let holds = (0..trials).filter(|trial| {
        let mut diffs = Vec::new();
        for cluster in 0..clusters {
            let shared = draw(&mut rng);
            let own = (0..per_cluster).map(|_| shared + 0.3 * normal(&mut rng));
            diffs.extend(own.map(|v| Diff::new(cluster.to_string(), v)));
        }
        let bounds =
            bootstrap(&Clusters::of(&diffs), &Precision { resamples: 500, ..Precision::usual(*trial) })
                .unwrap();
        bounds.low <= truth && truth <= bounds.high
    });
    holds.count() as f64 / trials as f64
}

#[test]
fn intervals_hold_the_truth_about_95_times_in_100() {
    // 2,000 trials of 5, 8, 10, 20 clusters gave 90.1, 93.9, 94.5, 95.5%; here fewer, for speed.
    for (clusters, per_cluster) in [(10, 1), (20, 2), (30, 1)] {
        let share = coverage(clusters, per_cluster, normal, 0.0);
        assert!((0.915..=0.985).contains(&share), "{clusters} clusters: {share}");
    }
    // Skewed differences, mean 1.
    let share = coverage(30, 1, |rng| -(rng.random_range(1e-9..1.0_f64)).ln(), 1.0);
    assert!((0.90..=0.985).contains(&share), "skewed: {share}");
}

#[test]
fn rate_intervals_hold_the_truth_too() {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    for (better, worse) in [(0.05, 0.05), (0.3, 0.1), (0.9, 0.0)] {
        let trials = 400;
        let holds = (0..trials).filter(|_| {
            let flip = |u: f64| {
                if u < better {
                    1.0
                } else if u < better + worse {
                    -1.0
                } else {
                    0.0
                }
            };
            let values: Vec<f64> = (0..24).map(|_| flip(rng.random_range(0.0..1.0))).collect();
            let clusters = Clusters::of(&singles(&values));
            let bounds = rate_bounds(&clusters, 0.05).unwrap();
            (bounds.low..=bounds.high).contains(&(better - worse))
        });
        let share = holds.count() as f64 / f64::from(trials);
        assert!(share >= 0.93, "{better}/{worse}: {share}");
    }
}

#[test]
fn the_permutation_test_is_rarely_wrong_under_the_null() {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let trials = 400;
    let mut significant = |n: usize| {
        let hits = (0..trials).filter(|_| {
            let values: Vec<f64> = (0..n).map(|_| normal(&mut rng)).collect();
            sign_flips(&Clusters::of(&singles(&values)), &Precision::usual(1)).unwrap().two_sided < 0.05
        });
        hits.count() as f64 / f64::from(trials)
    };
    let share = significant(9);
    assert!((0.02..=0.08).contains(&share), "{share}");
}

#[test]
fn pairs_that_are_needed_are_those_of_sample_size_tables() {
    let around = |mean: f64, sd: f64| {
        let at = sd * (59.0 / 60.0_f64).sqrt();
        singles(&(0..60).map(|i| if i % 2 == 0 { mean + at } else { mean - at }).collect::<Vec<_>>())
    };
    // (1.645 + 0.842)^2 / 0.5^2 = 24.7 by the normal distribution, two more by Student's t, one more by its expansion.
    let half = pairs_for_score(&around(1.0, 2.0), 0.3, 0.05).unwrap();
    assert!((25..=28).contains(&half), "{half}");
    // The figures of a third round of a loop: its budget is 0.0034, (2.709 + 0.842)^2 (2.796 / 0.697)^2 = 203.
    let third = pairs_for_score(&around(0.697, 2.796), 0.3, 0.003_377).unwrap();
    assert!((203..=210).contains(&third), "{third}");
    // A gain that is hardly worth a new champion: (0.842 * 2 / 0.1)^2 = 283.
    let barely = pairs_for_score(&around(0.4, 2.0), 0.3, 0.05).unwrap();
    assert!((280..=290).contains(&barely), "{barely}");
    assert_eq!(pairs_for_score(&around(0.0, 2.0), 0.3, 0.05), Some(MOST_PAIRS));
    assert_eq!(pairs_for_score(&singles(&[1.0]), 0.3, 0.05), None);
    // Where no pair differs the two pseudo-pairs alone widen the bound: 1.645 * 2^0.5 / 47 is below 0.05.
    assert_eq!(pairs_for_rate(&singles(&[0.0; 12]), -0.05, 0.05), Some(45));
    let differing: Vec<f64> = (0..60).map(|i| [0.0, 0.0, 0.0, 0.0, 1.0, -1.0][i % 6]).collect();
    // (1.645 + 0.842)^2 * 0.33 / 0.05^2 = 825, and a few for the pseudo-pairs.
    let rate = pairs_for_rate(&singles(&differing), -0.05, 0.05).unwrap();
    assert!((820..=850).contains(&rate), "{rate}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn order_does_not_show(values in proptest::collection::vec((0usize..6, -10.0..10.0f64), 0..20), cut in 0usize..20) {
        let diffs: Vec<Diff> = values.iter().map(|(c, v)| Diff::new(c.to_string(), *v)).collect();
        let mut turned = diffs.clone();
        let turn = cut.min(diffs.len());
        turned.rotate_left(turn);
        turned.reverse();
        prop_assert_eq!(score(&diffs), score(&turned));
        prop_assert_eq!(rate_difference(&diffs, 0.05), rate_difference(&turned, 0.05));
        prop_assert_eq!(detectable_score(&diffs), detectable_score(&turned));
    }

    #[test]
    fn bounds_surround_the_mean_and_are_finite(values in proptest::collection::vec((0usize..9, -1.0..=1.0f64), 1..25)) {
        let diffs: Vec<Diff> = values.iter().map(|(c, v)| Diff::new(c.to_string(), *v)).collect();
        for e in [score(&diffs), rate_difference(&diffs, 0.05)] {
            let (mean, p) = (e.mean.unwrap(), e.p.unwrap());
            prop_assert!((0.0..=1.0).contains(&p));
            if let (Some(low), Some(high), Some(lower), Some(upper)) = (e.low, e.high, e.lower, e.upper) {
                prop_assert!(low <= mean && mean <= high && lower <= mean && mean <= upper);
                prop_assert!(low <= lower + 1e-9 && upper <= high + 1e-9);
                prop_assert!(low.is_finite() && high.is_finite());
            }
        }
    }

    #[test]
    fn holm_only_raises_and_keeps_the_order(p in proptest::collection::vec(0.0..=1.0f64, 0..8)) {
        let adjusted = holm(&p);
        for i in 0..p.len() {
            prop_assert!(adjusted[i] >= p[i] && adjusted[i] <= 1.0);
            for j in 0..p.len() {
                prop_assert!(p[i] > p[j] || adjusted[i] <= adjusted[j]);
            }
        }
    }

    #[test]
    fn wilson_holds_the_rate(n in 1usize..500, share in 0.0..=1.0f64) {
        let passed = (n as f64 * share).round();
        let (low, high) = wilson(passed, n).unwrap();
        let rate = passed / n as f64;
        prop_assert!(0.0 <= low && low <= rate && rate <= high && high <= 1.0);
    }
}
