//! The provider's own meter never runs past the budget: with faults, kills, and two processes at once.

use std::{process::Stdio, time::Duration};

use hone_fake::{Fake, Faults, Options};

use crate::harness::{Ran, World, cache, fake_row};

fn world(cache: std::path::PathBuf, fake: &Fake) -> World {
    let world = World::with_runtime(cache);
    world.briefs(40, 1);
    let row = fake_row(&fake.url);
    world.write("hone.toml", format!("[evolve]\nconcurrency = 8\n{row}"));
    world
}

/// A budget, the share of calls that fail, and how often one of two processes is killed.
fn check(cache: std::path::PathBuf, cap: f64, faults: f64, kills: u32) {
    let options = Options {
        latency: Duration::from_millis(10),
        faults: Faults::passing(faults, 7),
        ..Options::default()
    };
    let fake = Fake::start(options).unwrap();
    let world = world(cache, &fake);
    let budget = cap.to_string();
    let evolve = || {
        world.command(&[
            "evolve",
            "--static-only",
            "--agent",
            "fake",
            "--teacher",
            "fake",
            "--judge",
            "fake",
            "--budget",
            &budget,
        ])
    };
    let within = |when: &str| {
        let billed = fake.meter().billed as f64 / 1e9;
        assert!(billed <= cap, "{when}: {billed} of {cap} is billed");
    };
    for n in 0..kills {
        let mut pair =
            [(); 2].map(|()| evolve().stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        std::thread::sleep(Duration::from_millis(150 + 70 * u64::from(n)));
        for child in &mut pair {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        within("after a kill");
    }
    let pair = [(); 2].map(|()| evolve().stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    for child in pair {
        let ran = Ran::of(child.wait_with_output().unwrap());
        ran.failed(5, "the budget of", "--budget");
    }
    within("at the end");
    let finished = world.logs().len();
    let ledger = world.json(&["calls", "--budget", &budget]);
    let amount = |key: &str| ledger[key].as_f64().unwrap();
    let billed = fake.meter().billed as f64 / 1e9;
    assert!(amount("spent_usd") <= cap && amount("held_usd") == 0.0, "{ledger}");
    assert!(billed <= amount("spent_usd") + 1e-9, "{billed} billed, {ledger}");
    eprintln!(
        "meter: cap {cap}, {:.0}% faults, {kills} kills of two processes: billed {billed:.4}, ledger {:.4}, of it lost {:.4}, \
         {finished} briefs",
        100.0 * faults,
        amount("spent_usd"),
        amount("lost_usd")
    );
}

#[test]
fn no_budget_is_exceeded_at_the_providers_meter() {
    let Some(cache) = cache("no_budget_is_exceeded_at_the_providers_meter") else { return };
    check(cache.clone(), 0.15, 0.0, 0);
    check(cache.clone(), 0.25, 0.3, 0);
    check(cache.clone(), 0.60, 0.3, 4);
}
