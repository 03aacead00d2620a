//! `hone evolve` killed with SIGKILL at random moments, a hundred times: nothing is lost but calls that were under way.

use std::{
    collections::BTreeMap,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use hone_fake::{Fake, Options};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::harness::{Ran, World, cache, fake_row};

const KILLS: u32 = 100;
const BRIEFS: usize = 24;
const LATENCY: Duration = Duration::from_millis(50);
/// Calls that a process has under way at most: a brief asks for one after the other.
const AT_ONCE: u64 = 4;

/// Numbers by a seed: the storm comes at other moments in each run of the test only as far as the machine is faster or slower.
struct Dice(u64, u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.1 += 1;
        let hash = Sha256::digest(format!("{}/{}", self.0, self.1));
        hash[..8].iter().fold(0, |number, byte| (number << 8) | u64::from(*byte)) % n
    }
}

fn world(cache: std::path::PathBuf, fake: &Fake) -> World {
    let world = World::with_runtime(cache);
    world.briefs(BRIEFS, 1);
    let row = fake_row(&fake.url);
    world.write("hone.toml", format!("[budget]\nusd = inf\n[evolve]\nconcurrency = {AT_ONCE}\n{row}"));
    world
}

fn evolve(world: &World, round: u32) -> Command {
    let round = round.to_string();
    world.command(&["evolve", "--static-only", "--agent", "fake", "--teacher", "fake", "--round", &round])
}

fn start(world: &World, round: u32) -> Child {
    evolve(world, round).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Lets processes run and kills them at random moments until one has done everything; how many were killed, and the round
/// that is finished.
fn storm(world: &World, fake: &Fake, processes: usize, kills: u32) -> (u32, u32) {
    let mut dice = Dice(processes as u64, 0);
    let (mut killed, mut round) = (0, 1);
    let mut children: Vec<Option<Child>> = (0..processes).map(|_| None).collect();
    while killed < kills {
        let at = dice.below(processes as u64) as usize;
        let child = children[at].get_or_insert_with(|| start(world, round));
        // Three in four come when calls are on their way, the others at any moment, that of starting included.
        if dice.below(4) > 0 {
            let before = fake.meter().requests;
            while fake.meter().requests == before && child.try_wait().unwrap().is_none() {
                std::thread::sleep(Duration::from_millis(2));
            }
            std::thread::sleep(Duration::from_millis(dice.below(150)));
        } else {
            std::thread::sleep(Duration::from_millis(dice.below(500)));
        }
        match child.try_wait().unwrap() {
            None => {
                child.kill().unwrap();
                child.wait().unwrap();
                killed += 1;
            }
            Some(status) => {
                assert!(status.success(), "{status:?}");
                round += 1;
            }
        }
        children[at] = None;
    }
    for mut child in children.into_iter().flatten() {
        let status = child.wait().unwrap();
        assert!(status.success(), "{status:?}");
    }
    (killed, round)
}

/// What a log says apart from times.
pub fn timeless(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let kept = map.iter().filter(|(key, _)| !["took_ms", "timing", "at"].contains(&key.as_str()));
            Value::Object(kept.map(|(key, value)| (key.clone(), timeless(value))).collect())
        }
        Value::Array(items) => items.iter().map(timeless).collect(),
        other => other.clone(),
    }
}

pub fn logs(world: &World) -> BTreeMap<String, Value> {
    world.logs().iter().map(|(name, log)| (name.clone(), timeless(log))).collect()
}

fn survives(name: &str, processes: usize) {
    let Some(cache) = cache(name) else { return };
    let begun = Instant::now();
    let fake = Fake::start(Options { latency: LATENCY, ..Options::default() }).unwrap();
    let world = world(cache.clone(), &fake);
    let (killed, rounds) = storm(&world, &fake, processes, KILLS);
    for round in 1..=rounds {
        let ran = Ran::from(evolve(&world, round));
        assert_eq!(ran.code, 0, "{ran:?}");
    }
    let stormy = logs(&world);
    assert_eq!(stormy.len(), BRIEFS * rounds as usize, "one log for each brief and round");
    let aside = std::fs::read_dir(world.path("data/evolutionary_logs")).unwrap().flatten();
    let aside = aside.filter(|entry| entry.file_name().to_string_lossy().contains(".old")).count();
    assert_eq!(aside, 0, "no log was made twice");

    let meter = fake.meter();
    let ledger = world.json(&["calls"]);
    let sum = |key: &str| {
        ledger["rows"].as_array().unwrap().iter().map(|row| row[key].as_u64().unwrap()).sum::<u64>()
    };
    let (paid, lost) = (sum("calls"), sum("lost"));
    assert_eq!(paid, meter.by_body.len() as u64, "each call is answered once");
    assert!(meter.repeated() <= lost, "{} repeated, {lost} under way at kills", meter.repeated());
    assert!(lost <= u64::from(killed) * AT_ONCE, "{lost} lost in {killed} kills");
    let spent = (ledger["spent_usd"].as_f64().unwrap() * 1e9).round() as u64;
    assert!(meter.billed <= spent, "{} billed, {spent} in the ledger", meter.billed);
    eprintln!(
        "{name}: {killed} kills, {rounds} rounds, {} requests for {paid} calls, {} repeated, {lost} under way at kills, {:.0} s",
        meter.requests,
        meter.repeated(),
        begun.elapsed().as_secs_f64()
    );

    // The same without a storm, with the same replies: the same logs.
    let calm = crate::storm::world(cache, &fake);
    for round in 1..=rounds {
        let ran = Ran::from(evolve(&calm, round));
        assert_eq!(ran.code, 0, "{ran:?}");
    }
    assert_eq!(logs(&calm), stormy);
}

#[test]
fn a_storm_of_kills_loses_calls_under_way_alone() {
    survives("a_storm_of_kills_loses_calls_under_way_alone", 1);
}

#[test]
fn two_processes_at_once_survive_a_storm_too() {
    survives("two_processes_at_once_survive_a_storm_too", 2);
}
