//! `hone doctor` beyond this machine: money, keys, and what is asked of whom.

use std::collections::BTreeMap;

use hone_fake::{Fake, Options};
use serde_json::Value;

use crate::harness::{DATASET, Ran, World, dataset};

const KEY: &str = "sk-of-the-doctor-0123456789";

/// Rows of all kinds.
fn world(fake: &Fake) -> World {
    let world = World::bare();
    let url = &fake.url;
    let rows = format!(
        "[finetune]\nmodel = \"near\"\n\
         [models.near]\nprovider = \"openai-compatible\"\nbase_url = \"{url}\"\nmodel = \"m\"\napi_key_env = \"NEAR_KEY\"\n\
         [models.far]\nprovider = \"openai-compatible\"\nbase_url = \"http://192.0.2.1/v1\"\nmodel = \"m\"\napi_key_env = \"NOT_SET\"\n\
         [models.mine]\nprovider = \"command\"\ncommand = [\"true\"]\npass_env = [\"NEAR_KEY\", \"NOT_SET\"]\n\
         [models.service]\nprovider = \"http\"\nbase_url = \"{url}\"\napi_key_env = \"NEAR_KEY\"\n"
    );
    world.write("hone.toml", rows);
    world.write(DATASET, dataset(12));
    world
}

fn doctor(world: &World, flags: &[&str]) -> Ran {
    let mut command = world.command(&[&["doctor"], flags].concat());
    command.env("NEAR_KEY", KEY);
    let ran = Ran::from(command);
    // Nothing of a runtime is here.
    assert_eq!(ran.code, 7, "{ran:?}");
    assert!(!format!("{ran:?}").contains(KEY), "{ran:?}");
    ran
}

/// What was found, by name.
fn found(world: &World, flags: &[&str]) -> BTreeMap<String, (bool, String, Option<String>)> {
    let ran = doctor(world, &[flags, &["--json"]].concat());
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(report["ok"], false);
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let checks = report["checks"].as_array().unwrap().iter().map(|check| {
        let (name, detail) = (text(&check["name"]).unwrap(), text(&check["detail"]).unwrap());
        (name, (check["ok"].as_bool().unwrap(), detail, text(&check["fix"])))
    });
    checks.collect()
}

#[test]
fn keys_are_set_or_missing_and_never_shown() {
    let fake = Fake::start(Options::default()).unwrap();
    let found = found(&world(&fake), &["--offline"]);
    let check = |name: &str, ok: bool, said: &str| {
        let (is_ok, detail, fix) = &found[name];
        assert!(*is_ok == ok && detail.contains(said) && fix.is_some() != ok, "{name}: {:?}", found[name]);
    };
    check("key of `near`", true, "`NEAR_KEY` is set");
    check("key of `far`", false, "`NOT_SET` is not set");
    check("key of `mine`", false, "not set: `NOT_SET`");
    check("key of `service`", true, "`NEAR_KEY` is set");
}

#[test]
fn with_offline_nobody_is_asked_and_that_is_said() {
    let fake = Fake::start(Options { record: true, ..Options::default() }).unwrap();
    let world = world(&fake);
    let mut start = world.command(&["finetune", "--detach"]);
    start.env("NEAR_KEY", KEY);
    assert_eq!(Ran::from(start).code, 0);
    let before = fake.requests().len();
    let offline = found(&world, &["--offline"]);
    assert_eq!(fake.requests().len(), before);
    for name in ["endpoint of `near`", "last job"] {
        assert!(offline[name].0 && offline[name].1.contains("skipped"), "{name}: {:?}", offline[name]);
    }
    assert!(!offline.contains_key("endpoint of `service`"), "only it knows what that costs");
    let asked = found(&world, &[]);
    assert!(fake.requests().len() > before);
    for name in ["endpoint of `near`", "base model of `near`", "last job"] {
        assert!(asked[name].0 && !asked[name].1.contains("skipped"), "{name}: {:?}", asked[name]);
    }
    assert_eq!(fake.meter().requests, 0, "no call that costs");
}

#[test]
fn journal_budget_and_prices_are_looked_at() {
    let fake = Fake::start(Options::default()).unwrap();
    let world = world(&fake);
    let first = found(&world, &["--offline"]);
    assert_eq!(first["journal of calls"].1, "none yet; the first call makes it");
    assert!(first["budget"].0 && first["budget"].1.contains("$0.00 is spent"), "{:?}", first["budget"]);
    assert!(!first["price of `far`"].0, "{:?}", first["price of `far`"]);
    assert!(!first.contains_key("price of `near`"), "what is on this machine is free");
    assert!(!world.path(".hone/journal").exists(), "a look makes no journal");

    // A row on this machine that has a price is paid for as any other is.
    let priced = "price = { input = 4000.0, output = 4000.0, as_of = \"2026-01-31\" }\n[models.far]";
    world.write("hone.toml", world.read("hone.toml").replace("[models.far]", priced));
    let mut ask = world.command(&["generate", "a form", "--agent", "near", "--budget", "inf"]);
    ask.env("NEAR_KEY", KEY);
    let asked = Ran::from(ask);
    assert_eq!(asked.code, 0, "{asked:?}");
    let spent = world.json(&["calls"])["spent_usd"].as_f64().unwrap();
    assert!(spent > 0.01, "{spent}");
    let then = found(&world, &["--offline", "--budget", "0.01"]);
    assert!(
        then["journal of calls"].1.starts_with("whole, version 1, 1 calls in "),
        "{:?}",
        then["journal of calls"]
    );
    let (ok, detail, fix) = &then["budget"];
    assert!(!ok && detail.starts_with(&format!("${spent:.2} is spent")), "{detail}");
    assert!(fix.as_ref().unwrap().contains("budget-reached.md"), "{fix:?}");
    assert!(
        then["price of `near`"].0 && then["price of `near`"].1.starts_with("as of 2026-01-31"),
        "{:?}",
        then["price of `near`"]
    );
    assert!(
        found(&world, &["--offline", "--budget", "inf"])["price of `far`"].0,
        "without a budget it is only said"
    );
}
