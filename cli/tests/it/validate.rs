//! `hone validate` and `hone cost`: what they print, exit codes, and what `hone finetune` makes of it.

use hone_fake::{Fake, Options};
use serde_json::{Value, json};

use crate::harness::{DATASET, Ran, World, dataset};

const APP: &str = "```python\n# app.py\nimport streamlit as st\nst.title('Form')\nst.button('Save')\n```";

fn row(n: usize, answer: &str) -> String {
    let messages = json!([
        {"role": "user", "content": format!("form number {n}")},
        {"role": "assistant", "content": answer},
    ]);
    format!("{}\n", json!({ "messages": messages }))
}

/// 11 rows: 3 begin with `requirements.txt`, 5 hold Python that does not parse.
fn poisoned() -> String {
    let config = format!("```text\n# requirements.txt\nstreamlit\n```\n\n{APP}");
    let broken = APP.replace("('Save')", "('Save'");
    (0..11)
        .map(|n| match n {
            0..3 => row(n, &config),
            3..8 => row(n, &broken),
            _ => row(n, APP),
        })
        .collect()
}

/// Runs in the workspace's folder, so that files can be named as users name them.
fn here(world: &World, arguments: &[&str]) -> Ran {
    let mut command = world.command(arguments);
    command.current_dir(world.root());
    Ran::from(command)
}

fn checked(world: &World, arguments: &[&str]) -> (i32, Value) {
    let ran = here(world, &[arguments, &["--json"]].concat());
    (ran.code, serde_json::from_str(&ran.stdout).unwrap_or_else(|e| panic!("{e}: {ran:?}")))
}

#[test]
fn a_good_file_can_be_trained_on() {
    let world = World::bare();
    world.write("rows.jsonl", dataset(12));
    let (code, report) = checked(&world, &["validate", "rows.jsonl", "--model", "gpt-4.1"]);
    assert_eq!(
        (code, &report["ok"], &report["format"], &report["examples"]),
        (0, &json!(true), &json!("chat"), &json!(12))
    );
    assert_eq!(report["problems"], json!([]));
    assert_eq!(report["tokens"], report["token_counts"]["o200k_base"]);
    assert!(here(&world, &["validate", "rows.jsonl"]).stdout.contains("`rows.jsonl` can be trained on"));
    let (code, report) = checked(&world, &["validate", "rows.jsonl", "--method", "dpo"]);
    assert_eq!((code, &report["problems"][0]["code"]), (3, &json!("wrong_method")));
}

#[test]
fn faults_have_lines_fields_and_remedies() {
    let world = World::bare();
    world
        .write("rows.jsonl", dataset(12) + "{\"messages\": [{\"role\": \"wizard\", \"content\": \"hm\"}]}\n");
    let (code, report) = checked(&world, &["validate", "rows.jsonl"]);
    assert_eq!((code, &report["ok"], &report["counts"]["unrecognized_role"]), (3, &json!(false), &json!(1)));
    let problem = &report["problems"][0];
    assert_eq!((&problem["line"], &problem["severity"]), (&json!(13), &json!("error")));
    let fields: Vec<&str> = ["field", "message", "remedy"].map(|key| problem[key].as_str().unwrap()).into();
    assert_eq!(fields[0], "messages[0].role");
    assert!(report["problems"][1]["field"] == "messages" && !fields[2].is_empty(), "{report}");
    here(&world, &["validate", "none.jsonl"]).failed(3, "none.jsonl", "check the path");
}

#[test]
fn what_this_machine_does_not_train_on_is_said_for_its_models_alone() {
    let world = World::bare();
    let content = json!([
        {"type": "text", "text": "Which form?"},
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
    ]);
    let seen = json!({"messages": [{"role": "user", "content": content}, {"role": "assistant", "content": "An order."}]});
    let parts = json!({"messages": [{"role": "user", "content": [content[0]]}, {"role": "assistant", "content": "Mine."}]});
    world.write("rows.jsonl", format!("{}{seen}\n{parts}\n", dataset(12)));
    for arguments in [&["validate", "rows.jsonl"][..], &["validate", "rows.jsonl", "--model", "local"]] {
        let (code, report) = checked(&world, arguments);
        assert_eq!((code, &report["counts"]), (3, &json!({"not_trained_locally": 1})), "{report}");
        let problem = &report["problems"][0];
        assert_eq!((&problem["line"], &problem["field"]), (&json!(13), &json!("messages[0].content[1]")));
    }
    let (code, report) = checked(&world, &["validate", "rows.jsonl", "--model", "gpt-4.1"]);
    assert_eq!((code, &report["problems"], &report["examples"]), (0, &json!([]), &json!(14)));
    let (code, report) = checked(&world, &["validate", "rows.jsonl", "--fix"]);
    assert_eq!((code, &report["fixed"]["reasons"]), (0, &json!({"not_trained_locally": 1})), "{report}");
    assert_eq!(checked(&world, &["cost", "rows.jsonl"]).1["examples"], 14);
    // Nothing is set up or sent for a dataset that the local engine would refuse.
    world.write(DATASET, world.read("rows.jsonl"));
    here(&world, &["finetune"]).failed(3, "line 13: `messages[0].content[1]`", "mend these lines");
}

#[test]
fn a_copy_holds_what_could_be_mended() {
    let world = World::bare();
    let text = format!(
        "\u{feff}{}\n{}{}",
        poisoned(),
        row(8, APP),
        dataset(6).replace("\"role\":\"user\"", "\"mood\":1,\"role\":\"user\"")
    );
    world.write("rows.jsonl", &text);
    let (code, report) = checked(&world, &["validate", "rows.jsonl", "--fix"]);
    let fixed = &report["fixed"];
    assert_eq!((code, &fixed["ok"]), (0, &json!(true)), "{report}");
    assert_eq!((&fixed["rows"], &fixed["changed"], &fixed["left_out"]), (&json!(12), &json!(9), &json!(7)));
    assert_eq!(fixed["reasons"], json!({"blank_line": 1, "duplicate": 1, "code_does_not_parse": 5}));
    assert_eq!(checked(&world, &["validate", "rows.fixed.jsonl"]).1["problems"], json!([]));
    assert!(world.read("rows.fixed.jsonl").contains("requirements.txt"), "it is moved, not removed");
    // Applied to the original, the diff gives the copy.
    let patched = std::process::Command::new("patch")
        .args(["-s", "-o", "-", "rows.jsonl", "rows.fixed.diff"])
        .current_dir(world.root())
        .output();
    if let Ok(patched) = patched {
        assert_eq!(String::from_utf8(patched.stdout).unwrap(), world.read("rows.fixed.jsonl"));
    }
    here(&world, &["validate", "-", "--fix"]).failed(2, "stdin", "");
    here(&world, &["validate", "/dev/zero", "--fix"]).failed(2, "a pipe", "write it to a file first");
}

#[test]
fn a_copy_takes_no_other_files_place() {
    let world = World::bare();
    let text = dataset(12);
    for name in ["rows.jsonl", "rows.diff"] {
        world.write(name, &text);
    }
    let to = |file: &str, out: &str| here(&world, &["validate", file, "--fix", "--out", out]);
    to("rows.jsonl", "rows.jsonl").failed(2, "is the file itself", "--out");
    to("rows.jsonl", "./rows.jsonl").failed(2, "is the file itself", "--out");
    to("rows.diff", "rows.txt").failed(2, "is the file itself", "--out");
    to("rows.jsonl", "copy.diff").failed(2, "both the copy and its diff", ".jsonl");
    assert_eq!([world.read("rows.jsonl"), world.read("rows.diff")], [text.clone(), text]);
}

#[test]
fn a_poisoned_dataset_is_refused_before_anything_is_uploaded() {
    let fake = Fake::start(Options { record: true, ..Options::default() }).unwrap();
    let world = World::bare();
    world.write(
        "hone.toml",
        format!(
            "[finetune]\nmodel = \"far\"\n[models.far]\nprovider = \"openai-compatible\"\nbase_url = \"{}\"\nmodel = \"m\"\napi_key_env = \"FAR_KEY\"\n",
            fake.url
        ),
    );
    world.write(DATASET, poisoned());
    let mut command = world.command(&["finetune"]);
    command.env("FAR_KEY", "sk-right");
    let ran = Ran::from(command);
    ran.failed(3, "teaches the habit you want to remove: 3 of 11", "hone validate");
    assert!(
        ran.stderr.contains("5 of 11 answers with code hold Python that does not parse (45%)"),
        "{ran:?}"
    );
    assert_eq!(fake.requests(), [], "nobody has seen the file");
}

#[test]
fn the_cost_is_known_before_anything_is_spent() {
    let world = World::bare();
    world.write("rows.jsonl", dataset(40));
    let (code, cost) = checked(&world, &["cost", "rows.jsonl"]);
    assert_eq!((code, &cost["examples"], &cost["epochs"]), (0, &json!(40), &json!(3)));
    let tokens = cost["tokens"]["o200k_base"].as_u64().unwrap();
    assert_eq!(cost["billable_tokens"], 3 * tokens);
    let openai =
        cost["prices"].as_array().unwrap().iter().find(|row| row["model"] == "gpt-4.1-2025-04-14").unwrap();
    let usd = openai["usd"].as_f64().unwrap();
    assert!((usd - 3.0 * tokens as f64 * 25.0 / 1e6).abs() < 1e-12 && openai["as_of"].is_string());
    assert_eq!(checked(&world, &["cost", "rows.jsonl", "--n-epochs", "1"]).1["billable_tokens"], tokens);
    world.write(
        "prices.toml",
        "[[prices]]\nprovider = \"far\"\nmodel = \"mine\"\ntraining = 2.0\nas_of = \"2026-11-01\"\n",
    );
    let mine = checked(&world, &["cost", "rows.jsonl", "--model", "mine"]).1;
    assert_eq!(mine["prices"].as_array().unwrap().len(), 1);
    assert_eq!(mine["prices"][0]["provider"], "far");
    assert!(here(&world, &["cost", "rows.jsonl"]).stdout.contains("openai gpt-4.1-2025-04-14"));
    world.write("bad.jsonl", "{\n");
    here(&world, &["cost", "bad.jsonl"]).failed(3, "no usable example", "hone validate");

    assert_eq!((&cost["local"]["seconds"], cost["local"].get("tokens_per_second")), (&Value::Null, None));
    let measured = &checked(&world, &["cost", "rows.jsonl", "--measure"]).1["local"];
    assert_eq!(measured["measured"], "now");
    let (tokens, speed) = (measured["billable_tokens"].as_f64(), measured["tokens_per_second"].as_f64());
    let seconds = tokens.unwrap() / speed.unwrap();
    assert!((measured["seconds"].as_f64().unwrap() / seconds - 1.0).abs() < 1e-9, "{measured}");
    assert!(!world.path(".hone/server").exists(), "nothing of it is kept");
}
