//! `hone models check`: what each kind of trouble is called, and who can mend it.

use hone_fake::{Fake, Options};
use serde_json::{Value, json};

use crate::harness::{Ran, World};

const KEY: &str = "sk-of-this-test-0123456789";

/// A row for each way to fail; the model's name is the fault.
fn world(fake: &Fake) -> World {
    let world = World::bare();
    let row = |name: &str, more: &str| {
        format!("[models.\"{name}\"]\nbase_url = \"{}\"\nmodel = \"{name}\"\n{more}\n", fake.url)
    };
    let faults = [
        "bad-key",
        "quota",
        "no-model",
        "html",
        "empty",
        "reset-ready",
        "limit-final",
        "limit-long",
        "503",
        "forbidden",
        "refusal",
        "400",
    ];
    let mut rows: String = faults
        .iter()
        .map(|fault| {
            row(&format!("fault-{fault}"), "provider = \"openai-compatible\"\napi_key_env = \"TEST_KEY\"")
        })
        .collect();
    rows.push_str(&row(
        "m",
        "provider = \"openai-compatible\"\nprice = { input = 1.0, output = 2.0, as_of = \"2026-01-31\" }",
    ));
    rows.push_str(&row("unset", "provider = \"groq\"\napi_key_env = \"NOT_SET\""));
    rows.push_str(&row("nearly", "provider = \"antropic\""));
    rows.push_str("[models.hosted]\nprovider = \"openai\"\nmodel = \"gpt\"\n");
    rows.push_str("[models.nobody]\nprovider = \"openai-compatible\"\nbase_url = \"http://127.0.0.1:9/v1\"\nmodel = \"m\"\n");
    rows.push_str("[models.mine]\nprovider = \"command\"\ncommand = [\"true\"]\n");
    world.write("hone.toml", rows);
    world
}

fn checked(world: &World, row: &str) -> (i32, Value) {
    let mut command = world.command(&["models", "check", row, "--json"]);
    command.env("TEST_KEY", KEY);
    let ran = Ran::from(command);
    let value = serde_json::from_str(&ran.stdout).unwrap_or_else(|e| panic!("{row}: {e}: {ran:?}"));
    (ran.code, value)
}

#[test]
fn every_trouble_has_a_word_and_a_fix() {
    let fake = Fake::start(Options::default()).unwrap();
    let world = world(&fake);
    for (row, outcome) in [
        ("fault-bad-key", "bad_key"),
        ("fault-quota", "no_quota"),
        ("fault-no-model", "unknown_model"),
        ("fault-html", "not_an_api"),
        ("fault-empty", "not_an_api"),
        ("fault-reset-ready", "unreachable"),
        ("nobody", "unreachable"),
        ("fault-limit-final", "rate_limited"),
        ("fault-limit-long", "too_long_wait"),
        ("fault-503", "down"),
        ("fault-forbidden", "refused"),
        ("fault-refusal", "refused"),
        ("unset", "no_key"),
        // The usual variable of its provider: it never goes out without a key.
        ("hosted", "no_key"),
    ] {
        let (code, value) = checked(&world, row);
        assert_eq!(
            (code, &value["outcome"], &value["ok"]),
            (6, &json!(outcome), &json!(false)),
            "{row}: {value}"
        );
        assert!(value["fix"].is_string() && value["detail"] != "", "{row}: {value}");
        assert!(!value.to_string().contains(KEY), "{value}");
    }
    assert!(checked(&world, "hosted").1["detail"].as_str().unwrap().contains("`OPENAI_API_KEY` is not set"));
}

#[test]
fn an_answer_is_priced() {
    let fake = Fake::start(Options::default()).unwrap();
    let world = world(&fake);
    let before = fake.meter().requests;
    let (code, value) = checked(&world, "m");
    assert_eq!(
        (code, &value["outcome"], &value["provider"]),
        (0, &json!("ok"), &json!("openai-compatible")),
        "{value}"
    );
    let tokens = |name: &str| value["usage"][name].as_f64().unwrap();
    let usd = (tokens("prompt_tokens") + 2.0 * tokens("completion_tokens")) / 1e6;
    assert!((value["usd"].as_f64().unwrap() - usd).abs() < 1e-12, "{value}");
    assert_eq!(fake.meter().requests, before + 1);
}

#[test]
fn what_is_no_row_is_the_users_error() {
    let fake = Fake::start(Options::default()).unwrap();
    let world = world(&fake);
    world.fails(&["models", "check", "hostd"], 3, "hostd", "hosted");
    world.fails(&["models", "check", "nearly"], 3, "`antropic`", "did you mean `anthropic`?");
    world.fails(&["models", "check", "mine"], 3, "a program of yours", "hone generate");
    world.fails(&["generate", "a form", "--agent", "nearly"], 3, "`antropic`", "did you mean `anthropic`?");
    assert_eq!(fake.meter().requests, 0);
}
