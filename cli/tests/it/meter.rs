//! The provider's own meter never runs past the budget: with faults, kills, and two processes at once.

use std::{process::Stdio, time::Duration};

use hone_fake::{Fake, Faults, Options};

use serde_json::{Value, json};

use crate::harness::{DATASET, Ran, World, cache, dataset, fake_row};

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
        let mut ran = Ran::of(child.wait_with_output().unwrap());
        // Kills draw faults anew, now and then more of them in a row than a call is tried.
        while faults > 0.0 && ran.code == 6 {
            ran = Ran::from(evolve());
        }
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

/// A workspace with a dataset, whose trainer says what training costs, or does not.
fn tuning_world(fake: &Fake, training: &str) -> World {
    let world = World::bare();
    world.write(DATASET, dataset(12));
    let row = fake_row(&fake.url).replace("output = 15.0", &format!("output = 15.0{training}"));
    world.write("hone.toml", format!("[finetune]\nmodel = \"fake\"\nn_epochs = 3\n{row}"));
    world
}

/// The line of the ledger for jobs.
fn jobs(ledger: &Value) -> Value {
    let rows = ledger["rows"].as_array().unwrap();
    rows.iter().find(|row| row["phase"] == "finetune").cloned().unwrap_or_default()
}

#[test]
fn training_counts_against_the_budget_and_is_booked_once() {
    let fake = Fake::start(Options::default()).unwrap();
    let world = tuning_world(&fake, ", training = 25.0");
    let refused = world.run(&["finetune", "--budget", "0.0001"]);
    refused.failed(5, "the budget of $0.0001 does not bear the job", "--budget");
    assert_eq!((fake.meter().jobs, fake.meter().uploads), (0, 0));
    let started = world.json(&["finetune", "--detach", "--budget", "1"]);
    let ledger = world.json(&["calls"]);
    assert!(ledger["held_usd"].as_f64().unwrap() > 0.0 && ledger["spent_usd"] == 0.0, "{ledger}");
    // What the job may cost is kept free for it: a call that would need it is not made.
    world.write("hone.toml", world.read("hone.toml") + "[agent]\nmax_tokens = 4000\n");
    let held = ledger["held_usd"].as_f64().unwrap();
    world
        .run(&["generate", "a form", "--agent", "fake", "--budget", &format!("{}", held + 0.01)])
        .failed(5, "budget", "");
    let ended = world.json(&["finetune", "--budget", "1"]);
    assert_eq!((&ended["id"], &ended["trained_tokens"]), (&started["id"], &json!(12_345)));
    for _ in 0..2 {
        world.json(&["finetune", "--budget", "1"]);
        world.json(&["status", started["id"].as_str().unwrap()]);
        let ledger = world.json(&["calls"]);
        let row = jobs(&ledger);
        assert_eq!(
            (&row["role"], &row["calls"], &row["input_tokens"]),
            (&json!("trainer"), &json!(1), &json!(12_345))
        );
        assert_eq!((&row["usd"], &ledger["held_usd"]), (&json!(0.308_625), &json!(0.0)), "{ledger}");
    }
    assert_eq!(fake.meter().jobs, 1);
}

#[test]
fn a_check_is_in_the_ledger() {
    let fake = Fake::start(Options::default()).unwrap();
    let world = tuning_world(&fake, "");
    for calls in 1..3u64 {
        let checked = world.json(&["models", "check", "fake"]);
        let ledger = world.json(&["calls"]);
        let row = &ledger["rows"].as_array().unwrap().iter().filter(|row| row["phase"] == "check").count();
        assert_eq!((fake.meter().requests, *row as u64), (calls, calls), "{ledger}");
        let spent = (ledger["spent_usd"].as_f64().unwrap() * 1e9).round() as u64;
        assert_eq!(spent, fake.meter().billed, "{ledger}");
        assert!(checked["usd"].as_f64().unwrap() > 0.0);
    }
    let ran = world.run(&["models", "check", "fake", "--budget", "0.000001"]);
    assert_eq!((ran.code, fake.meter().requests), (5, 2), "{ran:?}");
}
