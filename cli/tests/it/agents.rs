//! The user's own agent, replies that exist already, strategies side by side, and plans: as commands.

use hone_fake::{Fake, Options};
use serde_json::{Value, json};

use crate::harness::{World, cache};

/// An agent that writes the description into an app, and counts how often it was asked.
const AGENT: &str = r#"
import json, os, sys
asked = json.load(sys.stdin)
with open("asked.txt", "a") as counted:
    counted.write("x")
assert "HONE_CACHE" not in os.environ and os.environ["MODE"] == "fast"
title = asked["brief"]["description"][:40]
code = f"import streamlit as st\n\nst.title({title!r})\nname = st.text_input('Name')\nst.write('Hello', name)\n"
print(json.dumps({"files": [{"path": "app.py", "content": code}]}))
"#;

const ROW: &str = "[agent]\nmodel = \"mine\"\n\n[models.mine]\nprovider = \"command\"\ncommand = [\"python3\", \"agent.py\"]\nenv = { MODE = \"fast\" }\n";

fn asked(world: &World) -> usize {
    std::fs::read(world.path("asked.txt")).map_or(0, |bytes| bytes.len())
}

fn summary(text: &str) -> Value {
    serde_json::from_str(text.lines().last().unwrap()).unwrap()
}

#[test]
fn a_program_is_evolved_like_a_model_and_asked_once() {
    let Some(cache) = cache("a_program_is_evolved_like_a_model_and_asked_once") else { return };
    let world = World::with_runtime(cache);
    world.briefs(2, 1);
    world.write("hone.toml", ROW);
    world.write("agent.py", AGENT);
    let evolve = ["evolve", "--drafts", "1", "--static-only", "--json"];
    let first = summary(&world.ok(&evolve));
    assert_eq!((&first["evolutions"], &first["reused"]), (&json!(2), &json!(0)), "{first}");
    assert_eq!(asked(&world), 2);
    let (_, log) = &world.logs()[0];
    let agent = log["agent"].as_str().unwrap();
    assert!(agent.starts_with("mine@"), "{agent}");
    assert_eq!(log["evolution_history"][0]["model"], agent);
    assert!(log["evolution_history"][0]["ui_code"].as_str().unwrap().starts_with("import streamlit as st"));

    // What it answered is read again; another program is another agent.
    std::fs::remove_dir_all(world.path("data/evolutionary_logs")).unwrap();
    world.ok(&evolve);
    assert_eq!(asked(&world), 2);
    world.write("agent.py", AGENT.replace("Hello", "Good day"));
    assert_eq!(summary(&world.ok(&evolve))["reused"], 0);
    assert_eq!(asked(&world), 4);

    // It cannot do what only a chat model can.
    world.fails(&["evolve", "--judge", "mine"], 3, "not a chat model", "name a chat model");
    world.write("agent.py", "import sys\nsys.exit('no model today')");
    world.fails(&["generate", "a form"], 3, "no model today", "");
}

#[test]
fn replies_that_exist_become_first_candidates() {
    let Some(cache) = cache("replies_that_exist_become_first_candidates") else { return };
    let world = World::with_runtime(cache);
    world.briefs(1, 1);
    let rows = "prompt,reply\nA form for library cards,\"```python\nimport streamlit as st\nst.title('Cards')\n```\"\nA form without a reply,\n";
    let file = world.write("old.csv", rows);
    let import = ["import", file.to_str().unwrap()];
    let done = world.json(&import);
    assert_eq!((&done["imported"], &done["briefs"]), (&json!(1), &json!(1)));
    assert_eq!(done["skipped"], json!({"without a reply": 1}));
    assert_eq!(world.json(&import)["imported"], 0);
    let briefs = world.path("briefs/imported.jsonl");
    let made = world.ok(&[
        "evolve",
        "--briefs",
        briefs.to_str().unwrap(),
        "--drafts",
        "1",
        "--static-only",
        "--json",
    ]);
    assert_eq!((&summary(&made)["calls"], &summary(&made)["evolutions"]), (&json!(0), &json!(1)));
    let draft = &world.logs()[0].1["evolution_history"][0];
    assert_eq!((&draft["operator"], &draft["model"]), (&json!("draft"), &json!("imported")));
    let text = world.write("notes.txt", "no table at all");
    world.fails(&["import", text.to_str().unwrap()], 3, "not a table", "`prompt` and `reply`");
}

#[test]
fn strategies_stand_side_by_side() {
    let Some(cache) = cache("strategies_stand_side_by_side") else { return };
    let world = World::with_runtime(cache);
    world.briefs(3, 1);
    world.write("hone.toml", ROW);
    world.write("agent.py", AGENT);
    let compare = [
        "evolve",
        "compare",
        "--strategies",
        "last,keep-best,default",
        "--budget-calls",
        "4",
        "--static-only",
    ];
    let table = world.json(&compare);
    let names: Vec<&str> =
        table["strategies"].as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["last", "keep-best", "default"]);
    assert!(table["strategies"].as_array().unwrap().iter().all(|row| row["calls"] == 12), "{table}");
    assert_eq!(table["differences"].as_array().unwrap().len(), 3);
    // A draft for each brief, and a second for the search's; what is there is not asked for again.
    assert_eq!(asked(&world), 6);
    assert_eq!(world.json(&compare), table);
    assert!(world.ok(&compare).contains("keep-best - last"));
    assert_eq!(world.run(&["evolve", "compare", "--strategies", "luck"]).code, 2);
}

/// The model is a fake, and so is what the table says of it: it is the same table that counts.
#[test]
fn a_comparison_is_made_again_elsewhere_from_a_journal() {
    let Some(cache) = cache("a_comparison_is_made_again_elsewhere_from_a_journal") else { return };
    let fake = Fake::start(Options::default()).unwrap();
    let world = || {
        let world = World::with_runtime(cache.clone());
        world.briefs(4, 1);
        let row = "[models.fake]\nprovider = \"openai-compatible\"\nmodel = \"m\"\n";
        world.write("hone.toml", format!("{row}base_url = \"{}\"\n", fake.url));
        world
    };
    let compare =
        ["evolve", "compare", "--agent", "fake", "--teacher", "fake", "--budget-calls", "6", "--static-only"];
    let table = |world: &World, flags: &[&str]| {
        let mut table = world.json(&[&compare[..], flags].concat());
        table.as_object_mut().unwrap().remove("folder");
        table
    };
    let (here, there) = (world(), world());
    let first = table(&here, &[]);
    let asked = fake.meter().requests;
    assert!(asked > 0 && fake.meter().by_body.values().all(|times| *times == 1), "{:?}", fake.meter());
    let file = here.path("calls.jsonl");
    here.ok(&["calls", "export", file.to_str().unwrap()]);
    there.ok(&["calls", "import", file.to_str().unwrap()]);
    assert_eq!(table(&there, &["--offline"]), first);
    assert_eq!(fake.meter().requests, asked);
    // A plan promises no fewer calls than are made.
    let plan = here.json(&["evolve", "--agent", "fake", "--teacher", "fake", "--dry-run"]);
    assert_eq!(fake.meter().requests, asked);
    here.ok(&["evolve", "--agent", "fake", "--teacher", "fake", "--static-only", "--json"]);
    assert!(fake.meter().requests - asked <= plan["calls"].as_u64().unwrap(), "{plan}");
}

#[test]
fn a_plan_says_what_it_stands_on_and_nothing_happens() {
    let world = World::bare();
    let plan = world.json(&["loop", "--quick", "--dry-run"]);
    let phases: Vec<&str> =
        plan["phases"].as_array().unwrap().iter().map(|row| row["phase"].as_str().unwrap()).collect();
    assert_eq!(phases, ["evolve", "prepare", "finetune", "test", "deploy"]);
    assert_eq!((&plan["phases"][0]["calls"], &plan["phases"][3]["calls"]), (&json!(60), &json!(48)));
    assert_eq!((&plan["usd"], &plan["hours"]), (&json!(0.0), &json!(null)));
    assert!(!world.root().exists() && !world.folder.path().join("cache").exists());

    let row = "[models.gpt]\nprovider = \"openai\"\nmodel = \"no-such-model\"\napi_key_env = \"NO_SUCH_KEY\"\n[finetune]\nmodel = \"gpt\"\n";
    world.write("hone.toml", row);
    let text = world.ok(&["loop", "--dry-run", "--limit", "5"]);
    assert!(text.contains("finetune needs you to set `NO_SUCH_KEY`") && text.contains("unknown"), "{text}");
    let mine = world.json(&["evolve", "a form", "--teacher", "gpt", "--dry-run"]);
    assert_eq!((&mine["usd"], &mine["calls"]), (&json!(null), &json!(10)));
    let priced = format!("{row}[models.gpt.price]\ninput = 1.0\noutput = 10.0\nas_of = \"2026-01-31\"\n");
    world.write("hone.toml", priced.replace("[finetune]\nmodel = \"gpt\"\n", ""));
    let mine = world.json(&["evolve", "a form", "--teacher", "gpt", "--dry-run"]);
    assert!(mine["usd"].as_f64().is_some_and(|usd| usd > 0.05), "{mine}");
    world.fails(&["finetune", "--dry-run"], 3, "", "hone prepare");
}
