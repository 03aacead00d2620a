//! How often the gates are wrong, and how often they see what is there, by simulated trials.
//!
//! `full` prints the table of docs/design/statistics.md; the smaller tests run with all others.

use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};

use super::{
    Arm, Row, Status, TrialSpec, Verdict,
    fixtures::{BASE_TUNED, GOOD, rows as fixture_rows, spec},
    gates::{self, Beside},
    sequential,
    stats::{self, Precision},
    verdict::{Metric, Results},
};

/// The sum of twelve uniform draws has a variance of one and is as good as normal.
fn normal(rng: &mut ChaCha8Rng) -> f64 {
    (0..12).map(|_| rng.random_range(0.0..1.0)).sum::<f64>() - 6.0
}

/// What the answers of the two arms to one brief are like.
#[derive(Clone, Copy, Debug)]
enum Shape {
    /// Around 5, as far apart as this standard deviation.
    Normal { sd: f64 },
    /// One of the two fails (0) and the other succeeds (9) in this share of the pairs; both alike in the others.
    AllOrNothing { discordant: f64 },
    /// The tuned one a point better in nine of ten, and nine points worse in the tenth: no better on the whole.
    Skewed,
}

/// One sort of trial.
#[derive(Clone, Copy, Debug)]
struct World {
    shape: Shape,
    /// Whether a failure is an app that does not run; else it runs and is bad.
    crashes: bool,
    families: usize,
    /// Briefs of each family, of which half are like its first.
    variants: usize,
    samples: u32,
    /// The true mean difference.
    shift: f64,
}

impl World {
    fn new(shape: Shape, families: usize) -> Self {
        Self { shape, crashes: false, families, variants: 1, samples: 1, shift: 0.0 }
    }

    fn name(&self) -> String {
        let shape = match self.shape {
            Shape::Normal { sd } => format!("normal, sd {sd}"),
            Shape::AllOrNothing { discordant } => format!("0 or 9, {:.0}% discordant", 100.0 * discordant),
            Shape::Skewed => "+1 nine times, -9 once".to_owned(),
        };
        let crashes = if self.crashes { ", failures crash" } else { "" };
        let (n, families, k) = (self.families * self.variants, self.families, self.samples);
        format!("{shape}{crashes} | {n} | {families} | {k}")
    }

    /// Scores of base and tuned.
    fn pair(&self, rng: &mut ChaCha8Rng) -> (f64, f64) {
        match self.shape {
            Shape::Normal { sd } => (5.0 + sd * normal(rng), 5.0 + self.shift + sd * normal(rng)),
            Shape::AllOrNothing { discordant } => {
                let wins = (discordant + self.shift / 9.0) / 2.0;
                let lot: f64 = rng.random_range(0.0..1.0);
                match lot {
                    lot if lot < wins => (0.0, 9.0),
                    lot if lot < discordant => (9.0, 0.0),
                    lot if lot < (1.0 + discordant) / 2.0 => (0.0, 0.0),
                    _ => (9.0, 9.0),
                }
            }
            Shape::Skewed => (8.0, if rng.random_range(0..10) == 0 { 0.0 } else { 9.0 - 1.0 / 9.0 }),
        }
    }

    fn spec(&self) -> TrialSpec {
        TrialSpec { samples: self.samples, ..spec(self.families, self.variants, &BASE_TUNED) }
    }

    /// Fills in the scores of one trial: `rows` are in the order brief, sample, arm.
    fn draw(&self, rows: &mut [Row], rng: &mut ChaCha8Rng) {
        let per_brief = 2 * self.samples as usize;
        for family in rows.chunks_mut(per_brief * self.variants) {
            let shared: Vec<(f64, f64)> = (0..self.samples).map(|_| self.pair(rng)).collect();
            for (variant, brief) in family.chunks_mut(per_brief).enumerate() {
                let like_the_first = variant == 0 || rng.random();
                for (pair, first) in brief.chunks_mut(2).zip(&shared) {
                    let (base, tuned) = if like_the_first { *first } else { self.pair(rng) };
                    for (row, score) in pair.iter_mut().zip([base, tuned]) {
                        row.score = score;
                        row.runs = !self.crashes || score > 0.0;
                        row.ui_first = row.runs;
                    }
                }
            }
        }
    }
}

/// Shares of the simulated trials.
#[derive(Clone, Copy, Debug, Default)]
struct Found {
    /// The 95% interval holds the true difference.
    covered: f64,
    /// The score gate passes.
    gate: f64,
    promoted: f64,
    /// "Surely worse than the base", were it the champion.
    taken_back: f64,
    /// The 95% interval lies on one side of zero.
    seen: f64,
    /// Mean of the smallest difference that a trial says it can show.
    stated: f64,
}

fn simulate(world: &World, trials: usize, resamples: usize) -> Found {
    let spec = TrialSpec { deployed: Some(BASE_TUNED[1].1.into()), ..world.spec() };
    let mut rows = blank(&spec);
    let mut rng = ChaCha8Rng::seed_from_u64(2_000 + spec.briefs.len() as u64);
    let mut found = Found::default();
    let share = 1.0 / trials as f64;
    let count = |true_for: bool| if true_for { share } else { 0.0 };
    for trial in 0..trials {
        world.draw(&mut rows, &mut rng);
        let results = Results::of(rows.iter());
        let precision = Precision { resamples, ..Precision::usual(trial as u64) };
        let decision = gates::decide(&spec, &results, &precision, &Beside::default());
        let score = results.difference(Arm::TUNED, Arm::BASE, Metric::Score, &precision);
        let gate = decision.gates.iter().find(|gate| gate.name == "score").unwrap();
        let bounds = score.low.zip(score.high).unwrap();
        found.covered += count(bounds.0 - 1e-9 <= world.shift && world.shift <= bounds.1 + 1e-9);
        found.gate += count(gate.status == Status::Pass);
        found.promoted += count(decision.verdict == Verdict::Promote);
        found.taken_back += count(decision.verdict == Verdict::RollBack);
        found.seen += count(bounds.0 > 0.0 || bounds.1 < 0.0);
        let diffs = results.diffs(Arm::TUNED, Arm::BASE, Metric::Score);
        found.stated += share * stats::detectable_score(&diffs).unwrap_or(0.0);
    }
    found
}

/// Of trials that may stop early: the share that ends with the evidence for a promotion, and the briefs asked on average.
fn stopping(world: &World, trials: usize) -> (f64, f64) {
    let spec = TrialSpec { sequential: true, ..world.spec() };
    let mut rows = blank(&spec);
    let mut rng = ChaCha8Rng::seed_from_u64(77);
    let (mut promoted, mut asked) = (0usize, 0usize);
    for _ in 0..trials {
        world.draw(&mut rows, &mut rng);
        let found = sequential::watch(&spec, &Results::of(rows.iter()), Arm::BASE);
        promoted += usize::from(found.e >= 1.0 / spec.alpha);
        asked += found.n;
    }
    (promoted as f64 / trials as f64, asked as f64 / trials as f64)
}

/// Rows without text, which would only be copied.
fn blank(spec: &TrialSpec) -> Vec<Row> {
    let mut rows = fixture_rows(spec, |_, _| GOOD);
    for row in &mut rows {
        row.reply = String::new();
        row.files = Vec::new();
        row.issues = Vec::new();
    }
    rows
}

/// Trials without a difference between the arms.
fn nulls() -> Vec<World> {
    use Shape::{AllOrNothing, Normal, Skewed};
    let mut worlds = Vec::new();
    for families in [10, 24, 60] {
        worlds.push(World::new(Normal { sd: 1.5 }, families));
        for discordant in [0.1, 0.3, 0.6] {
            worlds.push(World::new(AllOrNothing { discordant }, families));
        }
    }
    let crashing = World { crashes: true, ..World::new(AllOrNothing { discordant: 0.3 }, 60) };
    worlds.push(crashing);
    worlds.push(World { samples: 2, ..World::new(AllOrNothing { discordant: 0.3 }, 60) });
    worlds.push(World { samples: 2, ..World::new(Normal { sd: 1.5 }, 60) });
    worlds.push(World { variants: 2, ..World::new(AllOrNothing { discordant: 0.3 }, 30) });
    worlds.push(World { variants: 3, ..World::new(Normal { sd: 1.5 }, 20) });
    worlds.push(World { crashes: true, ..World::new(Skewed, 24) });
    worlds.push(World { crashes: true, ..World::new(Skewed, 60) });
    worlds
}

/// The difference that a trial of this world shows with 80% power, by its own formula and the world's true spread.
fn at_the_smallest_difference(world: World) -> World {
    let n = world.families as f64;
    let spread = |shift: f64| match world.shape {
        Shape::Normal { sd } => 2.0 * sd * sd,
        Shape::AllOrNothing { discordant } => 81.0 * discordant - shift * shift,
        Shape::Skewed => 9.0,
    };
    let diffs = |variance: f64| -> Vec<stats::Diff> {
        // Half above and half below, with this variance.
        let at = (variance * (n - 1.0) / n).sqrt();
        let value = |i: usize| if i.is_multiple_of(2) { at } else { -at };
        (0..world.families).map(|i| stats::Diff::new(i.to_string(), value(i))).collect()
    };
    let mut shift = 0.0;
    for _ in 0..50 {
        shift = stats::detectable_score(&diffs(spread(shift) / f64::from(world.samples))).unwrap();
    }
    World { shift, ..world }
}

#[test]
fn a_model_that_is_no_better_is_seldom_promoted() {
    use Shape::AllOrNothing;
    let worlds = [
        World::new(AllOrNothing { discordant: 0.3 }, 60),
        World { crashes: true, ..World::new(AllOrNothing { discordant: 0.6 }, 24) },
    ];
    for world in worlds {
        let found = simulate(&world, 150, 150);
        // Three standard errors of 150 trials around 95% and 5%.
        assert!((0.897..=0.9999).contains(&found.covered), "{}: {found:?}", world.name());
        assert!(found.gate <= 0.103 && found.promoted <= 0.103, "{}: {found:?}", world.name());
        assert!(found.taken_back <= 0.103, "{}: {found:?}", world.name());
    }
}

#[test]
fn what_a_trial_says_it_can_show_it_shows_in_four_of_five() {
    let world = at_the_smallest_difference(World::new(Shape::Normal { sd: 1.5 }, 60));
    let found = simulate(&world, 100, 150);
    // Three standard errors of 100 trials around 80%.
    assert!((0.68..=0.92).contains(&found.seen), "{found:?}");
    assert!((found.stated / world.shift - 1.0).abs() < 0.05, "{found:?}");
}

/// The number of briefs that a hold names, by the world's true difference and spread; and the share of trials of that size
/// whose score gate passes.
fn at_the_number_needed(world: World, alpha: f64, trials: usize, resamples: usize) -> (usize, f64) {
    let variance = match world.shape {
        Shape::Normal { sd } => 2.0 * sd * sd,
        Shape::AllOrNothing { discordant } => 81.0 * discordant - world.shift * world.shift,
        Shape::Skewed => 9.0,
    };
    let at = (variance * 59.0 / 60.0).sqrt();
    let value = |i: usize| world.shift + if i.is_multiple_of(2) { at } else { -at };
    let diffs: Vec<stats::Diff> = (0..60).map(|i| stats::Diff::new(i.to_string(), value(i))).collect();
    let needed = stats::pairs_for_score(&diffs, 0.3, alpha).unwrap();
    let world = World { families: needed, ..world };
    let mut rows = blank(&world.spec());
    let mut rng = ChaCha8Rng::seed_from_u64(9);
    let passes = (0..trials).filter(|trial| {
        world.draw(&mut rows, &mut rng);
        let precision = Precision { alpha, resamples, ..Precision::usual(*trial as u64) };
        let found = Results::of(rows.iter()).difference(Arm::TUNED, Arm::BASE, Metric::Score, &precision);
        let (mean, bound) = (found.mean.unwrap(), found.lower.unwrap());
        mean >= 0.3 && bound > 0.0 && found.p_above.unwrap() <= alpha
    });
    (needed, passes.count() as f64 / trials as f64)
}

/// With the budget of each.
fn held_for_want_of_briefs() -> [(World, f64); 4] {
    use Shape::{AllOrNothing, Normal};
    let world = |shape, shift| World { shift, ..World::new(shape, 60) };
    [
        (world(Normal { sd: 1.5 }, 0.8), 0.05),
        (world(AllOrNothing { discordant: 0.3 }, 1.5), 0.03),
        // A gain that is hardly worth a new champion: there it is the mean that has to be sure.
        (world(Normal { sd: 0.5 }, 0.4), 0.05),
        // As in the third round of docs/loop.md.
        (world(Normal { sd: 2.0 }, 0.7), 0.0034),
    ]
}

#[test]
fn as_many_briefs_as_a_hold_names_tell_in_four_of_five_trials() {
    // The last one asks for more draws than a quick test has time for.
    for (world, alpha) in held_for_want_of_briefs().into_iter().take(3) {
        let (needed, share) = at_the_number_needed(world, alpha, 100, 400);
        // Three standard errors of 100 trials around 80%; half-widths alone gave 36 to 50%.
        assert!((0.68..=0.92).contains(&share), "{}: {needed} briefs, {share}", world.name());
    }
}

#[test]
#[ignore = "takes minutes; prints a table of docs/design/statistics.md and holds it to its bounds"]
fn full_of_briefs_needed() {
    println!("at the number that a hold names | difference | budget | briefs needed | score gate");
    for (world, alpha) in held_for_want_of_briefs() {
        let (needed, share) = at_the_number_needed(world, alpha, 1_000, 1_000);
        let shape = world.name().split(" |").next().unwrap_or_default().to_owned();
        println!("{shape} | {:.1} | {alpha} | {needed} | {:.1}%", world.shift, 100.0 * share);
        assert!((0.75..=0.85).contains(&share), "{shape}: {share}");
    }
}

#[test]
#[ignore = "takes minutes; prints the tables of docs/design/statistics.md and holds them to their bounds"]
fn full() {
    let (trials, resamples) = (2_000, 500);
    // What so many trials may show of a true share, at three standard errors.
    let noise = |share: f64| 3.0 * (share * (1.0 - share) / trials as f64).sqrt();
    println!("{trials} trials each\n");
    println!("no difference | briefs | families | answers | coverage | score gate | promoted | taken back");
    let mut faults = Vec::new();
    for world in nulls() {
        let found = simulate(&world, trials, resamples);
        let percent = |share: f64| format!("{:.1}%", 100.0 * share);
        let shares = [found.covered, found.gate, found.promoted, found.taken_back].map(percent);
        println!("{} | {}", world.name(), shares.join(" | "));
        let exchangeable = !matches!(world.shape, Shape::Skewed);
        if found.promoted > 0.05 + noise(0.05) || (exchangeable && found.gate > 0.05 + noise(0.05)) {
            faults.push(world.name());
        }
    }
    println!(
        "\nat the smallest difference | briefs | families | answers | difference | stated | seen | promoted"
    );
    for world in [
        World::new(Shape::Normal { sd: 1.5 }, 24),
        World::new(Shape::Normal { sd: 1.5 }, 60),
        World { samples: 2, ..World::new(Shape::Normal { sd: 1.5 }, 60) },
        World::new(Shape::AllOrNothing { discordant: 0.3 }, 60),
        World::new(Shape::AllOrNothing { discordant: 0.6 }, 60),
    ] {
        let world = at_the_smallest_difference(world);
        let found = simulate(&world, trials, resamples);
        println!(
            "{} | {:.2} | {:.2} | {:.1}% | {:.1}%",
            world.name(),
            world.shift,
            found.stated,
            100.0 * found.seen,
            100.0 * found.promoted
        );
        // Of three values the tests take what is possible, which is less than 5%, and see a little less for it.
        let least = if matches!(world.shape, Shape::Normal { .. }) { 0.75 } else { 0.70 };
        if !(least..=0.85).contains(&found.seen) {
            faults.push(world.name());
        }
    }
    println!(
        "\nstopping early, of 60 briefs | briefs | families | answers | difference | promoted | mean briefs asked"
    );
    for (shape, shift) in [
        (Shape::AllOrNothing { discordant: 0.3 }, 0.0),
        (Shape::Normal { sd: 1.5 }, 0.0),
        (Shape::Skewed, 0.0),
        (Shape::Normal { sd: 1.5 }, 1.0),
        (Shape::Normal { sd: 1.5 }, 2.0),
        (Shape::AllOrNothing { discordant: 0.5 }, 3.0),
        (Shape::AllOrNothing { discordant: 0.8 }, 6.0),
    ] {
        let world = World { shift, ..World::new(shape, 60) };
        let (promoted, asked) = stopping(&world, trials);
        println!("{} | {shift:.1} | {:.1}% | {asked:.1}", world.name(), 100.0 * promoted);
        if shift == 0.0 && promoted > 0.05 + noise(0.05) {
            faults.push(format!("stopping early, {}", world.name()));
        }
    }
    assert!(faults.is_empty(), "outside their bounds: {faults:#?}");
}
