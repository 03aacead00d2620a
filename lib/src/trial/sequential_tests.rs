use rand::RngExt;

use super::*;
use crate::trial::{
    Verdict,
    fixtures::{BASE_TUNED, GOOD, POOR, Quality, rows, spec, uniform},
    summarise,
};

fn trial(families: usize, variants: usize) -> TrialSpec {
    TrialSpec { sequential: true, ..spec(families, variants, &BASE_TUNED) }
}

fn look(spec: &TrialSpec, rows: &[Row]) -> Sequential {
    watch(spec, &Results::of(rows.iter()), Arm::BASE)
}

#[test]
fn a_clear_gain_ends_the_trial_at_the_first_look() {
    let spec = trial(60, 1);
    let all = uniform(&spec, POOR, GOOD);
    let found = look(&spec, &all);
    assert_eq!((found.n, found.of, found.stopped), (30, 60, true));
    assert!(found.e > 20.0 && found.harm_e <= 1.0, "{found:?}");
    let summary = summarise(&spec, &all);
    assert_eq!((summary.verdict, summary.n), (Verdict::Promote, 30), "{:#?}", summary.reasons);
    // What was in flight beyond the look does not count, and neither does its absence.
    let counted: Vec<Row> = counted(&spec, &all, 30).into_iter().cloned().collect();
    assert_eq!(counted.len(), 60);
    assert_eq!(summarise(&spec, &counted), summary);
}

#[test]
fn harm_ends_it_too_and_promotes_nothing() {
    let spec = trial(60, 1);
    let summary = summarise(&spec, &uniform(&spec, GOOD, POOR));
    let found = summary.sequential.unwrap();
    assert!(found.stopped && found.harm_e >= HARM && found.e <= 1.0, "{found:?}");
    assert_eq!(summary.verdict, Verdict::Hold);
}

#[test]
fn without_a_difference_it_goes_to_the_end() {
    let spec = trial(40, 1);
    let same = uniform(&spec, GOOD, GOOD);
    let found = look(&spec, &same);
    assert_eq!((found.n, found.stopped), (40, false));
    assert!(found.e < 20.0 && found.harm_e < HARM, "{found:?}");
    assert_eq!(summarise(&spec, &same).verdict, Verdict::Hold);
    assert_eq!(look(&spec, &[]), Sequential { e: 1.0, harm_e: 1.0, n: 0, of: 40, stopped: false });
}

#[test]
fn a_brief_without_all_its_answers_ends_the_prefix() {
    let spec = trial(40, 1);
    let mut all = rows(&spec, |_, arm| match arm {
        Arm::TUNED => Quality { score: 5.6, ..GOOD },
        _ => Quality { score: 5.0, ..GOOD },
    });
    let twentieth = spec.briefs[order(&spec)[20]].id.to_string();
    all.retain(|row| row.brief != twentieth || row.arm != Arm::TUNED);
    assert_eq!(look(&spec, &all).n, 18, "the last look before it");
    assert_eq!(look(&spec, &all[..0]).n, 0);
}

#[test]
fn families_stay_together_in_an_order_of_the_seed() {
    let spec = trial(12, 3);
    let places = order(&spec);
    assert_eq!(places.iter().collect::<BTreeSet<_>>().len(), 36);
    for three in places.chunks(3) {
        let of: BTreeSet<&str> = three.iter().map(|place| family(&spec.briefs[*place])).collect();
        assert_eq!(of.len(), 1);
    }
    assert_eq!(places, order(&spec));
    assert_ne!(places, order(&TrialSpec { seed: 8, ..spec.clone() }));
    assert_eq!(order(&TrialSpec { sequential: false, ..spec }), (0..36).collect::<Vec<_>>());
}

#[test]
fn stages_lead_from_one_look_to_the_next() {
    assert_eq!(stages(&trial(60, 1)), [30, 36, 42, 48, 54, 60]);
    assert_eq!(stages(&trial(32, 1)), [30, 32]);
    assert_eq!(stages(&trial(12, 1)), [12]);
    assert_eq!(stages(&spec(60, 1, &BASE_TUNED)), [60]);
}

#[test]
fn turning_the_labels_turns_the_capitals() {
    let spec = trial(40, 1);
    let all = rows(&spec, |_, arm| Quality { score: if arm == Arm::TUNED { 5.4 } else { 5.0 }, ..GOOD });
    let mut turned = all.clone();
    for row in &mut turned {
        row.arm = if row.arm == Arm::TUNED { Arm::BASE } else { Arm::TUNED }.to_owned();
    }
    let (one, other) = (look(&spec, &all), look(&spec, &turned));
    assert_eq!((one.e, one.harm_e), (other.harm_e, other.e));
}

/// Share of simulated games without a gain in which the capital ever reaches 1 / alpha, looking after every bet.
fn false_alarms(games: usize, bets: usize, draw: impl Fn(&mut ChaCha8Rng) -> f64) -> f64 {
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    let hits = (0..games).filter(|_| {
        let mut capital = Capital::default();
        // All draws are made, so that one game's end does not move the next.
        (0..bets).fold(false, |hit, _| {
            capital.bet(draw(&mut rng));
            hit || capital.capital >= 20.0
        })
    });
    hits.count() as f64 / games as f64
}

#[test]
fn whoever_looks_after_every_brief_is_seldom_fooled() {
    for discordant in [0.1, 0.3, 0.6] {
        let share = false_alarms(2_000, 120, |rng| match rng.random_range(0.0..1.0) {
            lot if lot < discordant / 2.0 => 0.9,
            lot if lot < discordant => -0.9,
            _ => 0.0,
        });
        assert!(share <= 0.05, "{discordant}: {share}");
    }
    // No gain on the whole, however it is spread.
    let skewed = false_alarms(2_000, 120, |rng| if rng.random_range(0..10) == 0 { -0.9 } else { 0.1 });
    assert!(skewed <= 0.05, "{skewed}");
}
