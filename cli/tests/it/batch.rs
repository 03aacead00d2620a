//! Whole runs through a provider's batches: the same logs at half the price, whoever is killed when.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    time::Duration,
};

use hone_fake::{Fake, Options};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::{
    harness::{Ran, World, cache},
    storm::logs,
};

const BRIEFS: usize = 10;

fn world(cache: std::path::PathBuf, fake: &Fake) -> World {
    let world = World::with_runtime(cache);
    world.briefs(BRIEFS, 1);
    let row = format!(
        "[models.fake]\nprovider = \"openai\"\nbase_url = \"{}\"\nmodel = \"m\"\n\
         price = {{ input = 3.75, output = 15.0, as_of = \"2026-01-31\" }}\n",
        fake.url
    );
    let pace = "[batch]\nidle_s = 0.3\nlook_s = 0.02\n";
    world.write("hone.toml", format!("[budget]\nusd = inf\n{pace}[evolve]\nmax_evaluations = 4\n{row}"));
    world
}

fn evolve(world: &World, more: &[&str]) -> Command {
    let all = ["evolve", "--static-only", "--agent", "fake", "--teacher", "fake", "--judge", "fake"];
    world.command(&[&all[..], more].concat())
}

/// What logs say apart from times, prices and what was asked before a kill.
fn priceless(world: &World) -> Value {
    without(logs(world).into_iter().collect())
}

fn without(value: Value) -> Value {
    match value {
        Value::Object(map) => map
            .into_iter()
            .filter(|(key, _)| !["usd", "took_ms", "timing", "at", "replayed"].contains(&key.as_str()))
            .map(|(key, value)| (key, without(value)))
            .collect(),
        Value::Array(items) => items.into_iter().map(without).collect(),
        other => other,
    }
}

/// A trial of a tuned model of the fake, with a judge.
fn trial(world: &World, more: &[&str]) -> Command {
    let all =
        ["test", "ft:m:fake:ui:1", "--static-only", "--no-prompt-arm", "--samples", "2", "--judge", "fake"];
    world.command(&[&all[..], more].concat())
}

/// What a trial found, apart from times, prices and what was asked before a kill.
fn found(world: &World) -> Vec<String> {
    let trials = std::fs::read_dir(world.path("data/trials")).unwrap().flatten();
    let texts = trials.map(|entry| std::fs::read_to_string(entry.path().join("results.jsonl")).unwrap());
    let rows: Vec<Value> =
        texts.collect::<String>().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut rows: Vec<String> = rows.into_iter().map(|row| without(row).to_string()).collect();
    rows.sort();
    rows
}

fn nanos(usd: &Value) -> u64 {
    (usd.as_f64().unwrap() * 1e9).round() as u64
}

#[test]
fn a_run_in_batches_is_the_live_run_at_half_the_price() {
    let Some(cache) = cache("a_run_in_batches_is_the_live_run_at_half_the_price") else { return };
    let (one_by_one, batched) =
        (Fake::start(Options::default()).unwrap(), Fake::start(Options::default()).unwrap());
    let (calm, world) = (self::world(cache.clone(), &one_by_one), self::world(cache, &batched));
    let ran = Ran::from(evolve(&calm, &[]));
    assert_eq!(ran.code, 0, "{ran:?}");
    let ran = Ran::from(evolve(&world, &["--batch"]));
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stderr.contains("run again to go on"), "{ran:?}");
    assert_eq!(priceless(&world), priceless(&calm));

    let (live, meter) = (one_by_one.meter(), batched.meter());
    let calls = meter.batched.len();
    assert_eq!((live.by_body.len(), meter.requests), (calls, 0));
    assert!(meter.batched.values().all(|times| *times == 1));
    // How many go together is a matter of time: a batch waits for a third of a second.
    assert!(calls as u64 > meter.batches, "{calls} calls in {} batches", meter.batches);
    // Each call is rounded up.
    assert!(
        2 * meter.billed - live.billed <= calls as u64,
        "{} live, {} in batches",
        live.billed,
        meter.billed
    );
    let ledger = world.json(&["calls"]);
    assert_eq!(nanos(&ledger["spent_usd"]), meter.billed);
    let sum = |key: &str| {
        ledger["rows"].as_array().unwrap().iter().map(|row| row[key].as_u64().unwrap()).sum::<u64>()
    };
    assert_eq!((sum("calls"), sum("batched"), sum("lost")), (calls as u64, calls as u64, 0));
    eprintln!(
        "batches: {calls} calls in {} batches, ${} live, ${} in batches",
        meter.batches,
        live.billed as f64 / 1e9,
        meter.billed as f64 / 1e9
    );
}

#[test]
fn a_run_in_batches_survives_kills() {
    let Some(cache) = cache("a_run_in_batches_survives_kills") else { return };
    let fake = Fake::start(Options::default()).unwrap();
    let world = world(cache.clone(), &fake);
    let mut killed = 0;
    for n in 0..12u64 {
        let mut child =
            evolve(&world, &["--batch"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(250 + 90 * n));
        killed += u32::from(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let ran = Ran::from(evolve(&world, &["--batch"]));
    assert_eq!(ran.code, 0, "{ran:?}");
    let meter = fake.meter();
    assert!(meter.batched.values().all(|times| *times == 1), "{:?}", meter.batched);
    assert_eq!(meter.requests, 0);
    let ledger = world.json(&["calls"]);
    // A process that is killed before it hands its calls to a batch leaves them as lost, though nothing was sent.
    assert!(nanos(&ledger["spent_usd"]) - nanos(&ledger["lost_usd"]) == meter.billed, "{ledger}");
    assert_eq!(nanos(&ledger["held_usd"]), 0);
    let calm_fake = Fake::start(Options::default()).unwrap();
    let calm = self::world(cache, &calm_fake);
    let ran = Ran::from(evolve(&calm, &[]));
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(priceless(&world), priceless(&calm));
    eprintln!(
        "batches: {killed} kills, {} calls in {} batches, each answered once",
        meter.batched.len(),
        meter.batches
    );
}

/// The same of a trial: answers of two models and what a judge says of them, at half the price in the ledger.
#[test]
fn a_trial_in_batches_survives_kills() {
    let Some(cache) = cache("a_trial_in_batches_survives_kills") else { return };
    let [fake, calm_fake] = [(); 2].map(|()| Fake::start(Options::default()).unwrap());
    let [world, calm] = [&fake, &calm_fake].map(|fake| {
        let world = self::world(cache.clone(), fake);
        world.briefs(2, 5);
        world.write("hone.toml", world.read("hone.toml") + "[finetune]\nmodel = \"fake\"\n");
        world
    });
    let ran = Ran::from(trial(&calm, &[]));
    assert!(matches!(ran.code, 0 | 4), "{ran:?}");
    let mut killed = 0;
    for n in 0..8u64 {
        let mut child =
            trial(&world, &["--batch"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(250 + 120 * n));
        killed += u32::from(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let ran = Ran::from(trial(&world, &["--batch"]));
    assert!(matches!(ran.code, 0 | 4), "{ran:?}");
    let rows = found(&world);
    assert_eq!((rows.len(), &rows), (20, &found(&calm)));
    let (meter, live) = (fake.meter(), calm_fake.meter());
    assert!(meter.batched.values().all(|times| *times == 1), "{:?}", meter.batched);
    assert_eq!((meter.requests, meter.batched.len()), (0, live.by_body.len()));
    assert!(
        2 * meter.billed - live.billed <= live.requests,
        "{} live, {} in batches",
        live.billed,
        meter.billed
    );
    let ledger = world.json(&["calls"]);
    assert_eq!(nanos(&ledger["spent_usd"]) - nanos(&ledger["lost_usd"]), meter.billed, "{ledger}");
    let is_batched = |row: &Value| row["phase"] == "test" && row["calls"] == row["batched"];
    assert!(ledger["rows"].as_array().unwrap().iter().all(is_batched), "{ledger}");
    let roles = ["agent", "judge"]
        .map(|role| ledger["rows"].as_array().unwrap().iter().any(|row| row["role"] == role));
    assert_eq!(roles, [true, true], "{ledger}");
    eprintln!("trial: {killed} kills, {} calls in {} batches", meter.batched.len(), meter.batches);
}

/// The whole loop: drafts, judging and the trial in batches, one job, and all of it in the ledger once.
#[test]
fn a_loop_in_batches_survives_kills() {
    let Some(cache) = cache("a_loop_in_batches_survives_kills") else { return };
    let fake = Fake::start(Options::default()).unwrap();
    let world = self::world(cache, &fake);
    world.briefs(14, 20);
    let settings = world.read("hone.toml").replace("output = 15.0", "output = 15.0, training = 25.0");
    world.write("hone.toml", settings + "[finetune]\nmodel = \"fake\"\n[agent]\nmodel = \"fake\"\n");
    let arguments = ["loop", "--quick", "--limit", "12", "--heldout", "4", "--judge", "fake", "--batch"];
    let mut killed = 0;
    for n in 0..4u64 {
        let mut child =
            world.command(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(1_500 + 4_000 * n));
        killed += u32::from(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let ran = world.run(&arguments);
    assert!(matches!(ran.code, 0 | 4), "{ran:?}");
    let meter = fake.meter();
    assert!(meter.batched.values().all(|times| *times == 1), "{:?}", meter.batched);
    assert_eq!((meter.requests, meter.jobs), (0, 1));
    let ledger = world.json(&["calls"]);
    let rows = ledger["rows"].as_array().unwrap();
    let sum = |phase: &str, key: &str| {
        rows.iter().filter(|row| row["phase"] == phase).map(|row| row[key].as_u64().unwrap()).sum::<u64>()
    };
    assert_eq!((sum("finetune", "calls"), sum("finetune", "input_tokens")), (1, 12_345), "{ledger}");
    for phase in ["evolve", "test"] {
        assert!(sum(phase, "calls") > 0 && sum(phase, "calls") == sum(phase, "batched"), "{phase}: {ledger}");
    }
    // 12,345 tokens at $25 a million.
    let trained = 308_625_000;
    assert_eq!(nanos(&ledger["spent_usd"]) - nanos(&ledger["lost_usd"]), meter.billed + trained, "{ledger}");
    assert_eq!(nanos(&ledger["held_usd"]), 0, "{ledger}");
    eprintln!("loop: {killed} kills, {} calls in {} batches, one job", meter.batched.len(), meter.batches);
}

/// Anthropic's own batches; its judge is held to schemas where its API has them.
#[test]
fn messages_go_in_batches_and_judges_are_held_to_schemas() {
    let Some(cache) = cache("messages_go_in_batches_and_judges_are_held_to_schemas") else { return };
    let fake = Fake::start(Options { record: true, ..Options::default() }).unwrap();
    let world = world(cache, &fake);
    world.write("hone.toml", world.read("hone.toml").replace("\"openai\"", "\"anthropic\""));
    let ran = Ran::from(evolve(&world, &["--batch", "--limit", "4"]));
    assert_eq!(ran.code, 0, "{ran:?}");
    let meter = fake.meter();
    assert_eq!((meter.requests, nanos(&world.json(&["calls"])["spent_usd"])), (0, meter.billed));
    let created = fake.requests().into_iter().filter(|request| request.method == "POST");
    let bodies: Vec<Value> = created.map(|request| serde_json::from_slice(&request.body).unwrap()).collect();
    let asked: Vec<&Value> = bodies
        .iter()
        .flat_map(|body| body["requests"].as_array().unwrap())
        .map(|line| &line["params"])
        .collect();
    // Without a seed, several samples are the same request; each is asked for once.
    assert_eq!(asked.len(), meter.batched.values().sum::<u32>() as usize);
    let kinds = ["You write checklists", "You check an app"];
    for params in asked {
        let system = params["system"].as_str().unwrap_or_default();
        let is_judge = kinds.iter().any(|kind| system.starts_with(kind)) || system.starts_with("You compare");
        let format = &params["output_config"]["format"];
        assert_eq!(
            format["type"] == "json_schema" && format["schema"]["type"] == "object",
            is_judge,
            "{params}"
        );
        assert!(params.get("response_format").is_none() && params.get("temperature").is_none(), "{params}");
    }
}

#[test]
fn a_provider_without_batches_is_asked_live_and_that_is_said() {
    let Some(cache) = cache("a_provider_without_batches_is_asked_live_and_that_is_said") else { return };
    let fake = Fake::start(Options::default()).unwrap();
    let world = world(cache, &fake);
    let settings = world.read("hone.toml").replace("\"openai\"", "\"openai-compatible\"");
    world.write("hone.toml", settings);
    let ran = Ran::from(evolve(&world, &["--batch", "--limit", "1"]));
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(ran.stderr.matches("is asked live").count(), 1, "{ran:?}");
    assert_eq!((fake.meter().batches, fake.meter().uploads), (0, 0));
}

/// Hone's own server takes the batches that Hone sends.
#[test]
fn hones_own_server_answers_batches() {
    let Some(cache) = cache("hones_own_server_answers_batches") else { return };
    let home = World::with_runtime(cache.clone());
    home.ok(&["init"]);
    let mut server = home
        .command(&["serve", "--port", "0", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let served: Value = serde_json::from_str(&line).unwrap();
    let world = World::with_runtime(cache);
    world.briefs(2, 1);
    let row = format!(
        "[models.mine]\nprovider = \"hone\"\nbase_url = {}\nmodel = \"smollm2-135m-instruct\"\nbatch = true\nmax_tokens = 40\n",
        json!(served["base_url"])
    );
    world.write(
        "hone.toml",
        format!("[batch]\nidle_s = 0.2\nlook_s = 0.1\n[evolve]\nmax_evaluations = 2\n{row}"),
    );
    world.ok(&["evolve", "--static-only", "--agent", "mine"]);
    assert_eq!(world.logs().len(), 2);
    let ledger = world.json(&["calls"]);
    let row = &ledger["rows"][0];
    assert!(row["calls"].as_u64().unwrap() >= 2 && row["calls"] == row["batched"], "{ledger}");
    kill_process(Pid::from_raw(server.id() as i32).unwrap(), Signal::INT).unwrap();
    server.wait().unwrap();
}
