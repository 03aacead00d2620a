//! The whole loop with the tiny model and a real Streamlit, and what people do after it.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use crate::harness::{DATASET, Ran, World, cache};

const LOOP: [&str; 6] = ["loop", "--quick", "--limit", "12", "--heldout", "6"];

#[test]
fn the_loop_and_all_that_follows_it() {
    let Some(cache) = cache("the_loop_and_all_that_follows_it") else { return };
    let world = World::with_runtime(cache);
    world.briefs(14, 40);
    let summary = looped(&world);
    evolved(&world);
    held_out(&world);
    tested(&summary);
    again(&world, &summary);
    let tuned = world.read("data/finetuned_model_id.txt").trim().to_owned();
    deployed(&world, &tuned, summary["verdict"] == "promote");
    traced(&world, &tuned);
    served(&world, &tuned);
    taken_back(&world);
    kept_apart(&world);
    rated(&world);
    next_rounds(&world);
    watched(&world);
}

/// The summary of a first run, which ends with its verdict's code.
fn looped(world: &World) -> Value {
    let ran = world.run(&[&LOOP[..], &["--json"]].concat());
    let summary: Value = serde_json::from_str(&ran.stdout).unwrap_or_else(|e| panic!("{e}: {ran:?}"));
    assert_eq!(ran.code, if summary["verdict"] == "promote" { 0 } else { 4 }, "{ran:?}");
    for said in ["quick: ", "evolve", "prepare", "finetune", "test"] {
        assert!(ran.stderr.contains(said), "no `{said}` in: {}", ran.stderr);
    }
    summary
}

fn evolved(world: &World) {
    let logs = world.logs();
    assert_eq!(logs.len(), 12);
    for (name, log) in &logs {
        let history = log["evolution_history"].as_array().unwrap();
        let first = &history[0];
        assert_eq!((&first["operator"], &first["model"]), (&json!("draft"), &log["agent"]), "{name}");
        assert_eq!(log["agent"], "smollm2-135m-instruct");
        assert_eq!(log["initial_score"], first["critique"]["overall_score"]);
        let best = log["best_iteration"].as_u64().unwrap() as usize;
        assert_eq!(history[best - 1]["iteration"], log["best_iteration"]);
        // What the log is read for was shown to the browser.
        for entry in [first, &history[best - 1]] {
            assert_eq!(entry["evidence"]["level"], "browser", "{name}");
        }
        let levels = history.iter().map(|entry| &entry["critique"]["level"]);
        assert!(levels.clone().all(|level| level == "browser" || level == "run"), "{name}");
    }
    let lines = world.ok(&["evolve", "--limit", "12", "--drafts", "1", "--json"]);
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 13, "one line each and a summary");
    assert!(lines[..12].iter().all(|line| line["reused"] == true && line["final_score"].is_f64()));
    for key in ["evolutions", "target_reached", "mean_initial", "mean_final", "calls", "usd", "took_ms"] {
        assert!(lines[12].get(key).is_some(), "{key} in {}", lines[12]);
    }
}

/// No held-out brief is in a log or in a row, neither by id nor by its words.
fn held_out(world: &World) {
    let briefs = world.read("briefs/heldout.jsonl");
    let mut texts = vec![world.read(DATASET)];
    for (name, _) in world.logs() {
        texts.push(world.read(&format!("data/evolutionary_logs/{name}")));
    }
    for name in ["validation.jsonl", "dpo.jsonl"] {
        let path = format!("data/ui_agent_openai_finetuning.{name}");
        texts.extend(world.path(&path).exists().then(|| world.read(&path)));
    }
    for brief in briefs.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()) {
        for key in ["id", "description"] {
            let quoted = brief[key].to_string();
            let words = quoted.trim_matches('"');
            assert!(texts.iter().all(|text| !text.contains(words)), "held-out {key} {words} was trained on");
        }
    }
    let rows = world.read(DATASET).lines().count();
    assert!((10..=150).contains(&rows), "{rows} rows");
    let prepared = world.json(&["prepare", "--max-rows", "150"]);
    for key in ["logs", "examples", "dropped", "files", "tokens"] {
        assert!(!prepared[key].is_null(), "{key} in {prepared}");
    }
    // A dataset that cannot be written takes nothing of the earlier one away.
    let earlier = world.read(DATASET);
    let inner = world.command(&["prepare", "--max-rows", "20"]);
    let mut cut = Command::new("sh");
    cut.args(["-c", "ulimit -f 8; exec \"$0\" \"$@\""]).arg(inner.get_program()).args(inner.get_args());
    cut.env_clear().envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    assert!(!cut.output().unwrap().status.success());
    assert_eq!(world.read(DATASET), earlier);
}

fn tested(summary: &Value) {
    assert_eq!((&summary["n"], &summary["samples"]), (&json!(6), &json!(1)));
    for arm in ["base", "tuned"] {
        for key in ["model", "ui_first", "runs", "score"] {
            assert!(!summary["arms"][arm][key].is_null(), "arms.{arm}.{key} in {summary}");
        }
    }
    for key in ["delta", "mde", "verdict", "reasons", "groups", "report"] {
        assert!(!summary[key].is_null(), "{key} in {summary}");
    }
    assert_eq!(summary["arms"]["base"]["model"], "smollm2-135m-instruct");
    let unseen = summary["groups"]["unseen_kinds"]["n"].as_u64().unwrap();
    assert!(unseen >= 2, "a third is of unseen kinds: {summary}");
    let report = std::fs::read_to_string(summary["report"].as_str().unwrap()).unwrap();
    assert!(report.contains("<svg") && report.contains("base") && !report.contains("src=\"http"));
}

/// A second run looks and touches nothing.
fn again(world: &World, summary: &Value) {
    let before = files(&world.root());
    let ran = world.run(&[&LOOP[..], &["--json"]].concat());
    assert_eq!(serde_json::from_str::<Value>(&ran.stdout).unwrap(), *summary);
    assert!(ran.stderr.contains("round 1 is finished"), "{}", ran.stderr);
    let after = files(&world.root());
    assert_eq!(before, after);
    let other = ["loop", "--quick", "--limit", "11", "--heldout", "6"];
    world.fails(&other, 3, "another size", "-C DIR");
}

/// What was made, by name; what was written since shows by its time.
fn files(folder: &Path) -> BTreeMap<String, std::time::SystemTime> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap()) {
        let name = entry.file_name().into_string().unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => {
                let below = files(&entry.path());
                found.extend(below.into_iter().map(|(path, at)| (format!("{name}/{path}"), at)));
            }
            false if name.ends_with(".lock") || name == "address" => {}
            false => drop(found.insert(name, entry.metadata().unwrap().modified().unwrap())),
        }
    }
    found
}

fn deployed(world: &World, tuned: &str, promoted: bool) {
    if !promoted {
        world.fails(&["deploy"], 4, "not `promote`", "--force");
        let entry = world.json(&["deploy", "--force", "--reason", "for a look"]);
        assert_eq!((&entry["action"], &entry["reason"]), (&json!("force"), &json!("for a look")));
    }
    world.fails(&["deploy", tuned, "--force"], 3, "is the champion already", "");
    world.fails(&["deploy", &tuned.replace("ui-agent", "ui-agnt"), "--force"], 3, "no model", tuned);
    assert_eq!(world.json(&["models"])["champion"], tuned);
    let made = world.json(&["generate", "a contact form"]);
    assert_eq!(made["model"], tuned);
    let listed = world.json(&["status"])["data"][0].clone();
    assert_eq!((&listed["row"], &listed["fine_tuned_model"]), (&json!("local"), &json!(tuned)));
    assert!(world.ok(&["status", "--follow"]).contains("succeeded"));
    // The next evolution is of another agent: its logs stand beside the first.
    let ran = world.run(&["evolve", "--limit", "1", "--drafts", "1"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(world.logs().iter().filter(|(name, _)| name.ends_with(".r2.json")).count(), 1);
}

/// From the deployed model back to its logs.
fn traced(world: &World, tuned: &str) {
    let lineage = world.json(&["models", tuned]);
    let states: Vec<(&str, &str)> = lineage["links"]
        .as_array()
        .unwrap()
        .iter()
        .map(|link| (link["step"].as_str().unwrap(), link["state"].as_str().unwrap()))
        .collect();
    for step in ["dataset", "job", "model", "trial", "promotion"] {
        assert!(states.contains(&(step, "ok")), "{step}: {lineage}");
    }
    let results = world.read("data/registry.jsonl");
    let entry: Value = serde_json::from_str(results.lines().next().unwrap()).unwrap();
    let path = format!("data/trials/{}/results.jsonl", entry["trial"].as_str().unwrap());
    let before = world.read(&path);
    world.write(&path, format!("{before}\n"));
    let ran = world.run(&["models", tuned]);
    assert_eq!(ran.code, 4, "an answer that was changed afterwards shows: {ran:?}");
    assert!(ran.stdout.contains("trial      changed"), "{}", ran.stdout);
    world.write(&path, before);
    world.fails(&["models", "ft:nobody"], 3, "nothing is known", "hone models");
}

/// A person compares apps, is stopped, and goes on.
fn rated(world: &World) {
    let answers = |lines: &str, limit: &str| {
        let mut command = world.command(&["rate", "--rater", "x", "--limit", limit, "--json"]);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
        let ran = Ran::of(child.wait_with_output().unwrap());
        assert_eq!(ran.code, 0, "{ran:?}");
        for told in ["smollm2", "composer", "ft:"] {
            assert!(!ran.stderr.contains(told), "`{told}` tells who wrote it: {}", ran.stderr);
        }
        serde_json::from_str::<Value>(&ran.stdout).unwrap()
    };
    let first = answers("a\nwhat\nb\n", "5");
    assert_eq!((&first["rated"], &first["left"]), (&json!(2), &json!(3)), "the end of the input ends it");
    let second = answers("t\ns\nq\n", "5");
    assert_eq!((&second["rated"], &second["skipped"]), (&json!(1), &json!(1)));
    let lines = world.read("data/ratings.jsonl");
    let ids: std::collections::BTreeSet<String> = lines
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .map(|rating| {
            format!("{} {} {}", rating["brief"]["id"], rating["a"]["iteration"], rating["b"]["iteration"])
        })
        .collect();
    assert_eq!((lines.lines().count(), ids.len()), (3, 3), "no pair twice");
    let summary = world.json(&["rate", "--summary"]);
    assert_eq!((&summary["n"], &summary["wins"][0]["of"]), (&json!(3), &json!("logs")));
    world.fails(&["rate", "--trial", "t-none"], 3, "no trial `t-none`", "--trial last");
}

/// The second round evolves what is left and trains on everything; there is no third.
fn next_rounds(world: &World) {
    let ran = world.run(&[&LOOP[..], &["--rounds", "2", "--keep-going", "--json"]].concat());
    let lines: Vec<Value> = ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((lines.len(), &lines[0]["round"], &lines[1]["round"]), (2, &json!(1), &json!(2)), "{ran:?}");
    let state: Value = serde_json::from_str(&world.read(".hone/loop.json")).unwrap();
    let briefs = |round: usize| state["rounds"][round]["briefs"].as_array().unwrap().clone();
    assert_eq!((briefs(0).len(), briefs(1).len()), (12, 2));
    assert!(briefs(1).iter().all(|brief| !briefs(0).contains(brief)), "no brief twice");
    assert!(state["rounds"][1]["anchors"]["change"].as_f64().unwrap().abs() < 0.3);
    if lines[1]["stopped"]["reason"] == "no_new_rows" {
        return;
    }
    assert_eq!(lines[1]["stopped"]["reason"], "rounds_done", "{}", lines[1]["stopped"]);
    let manifest: Value =
        serde_json::from_str(&world.read("data/ui_agent_openai_finetuning.manifest.json")).unwrap();
    let logs: Vec<&str> =
        manifest["rows"].as_array().unwrap().iter().map(|row| row["log"].as_str().unwrap()).collect();
    assert!(
        logs.iter().any(|log| log.ends_with(".r2.json")) && logs.iter().any(|log| !log.ends_with(".r2.json"))
    );
    let ran = world.run(&[&LOOP[..], &["--rounds", "3", "--keep-going"]].concat());
    assert!([0, 4].contains(&ran.code), "{ran:?}");
    assert!(ran.stdout.contains("stopped in round 3: no fresh briefs"), "{ran:?}");
}

fn watched(world: &World) {
    let view = world.json(&["monitor"]);
    let rounds = view["rounds"].as_array().unwrap();
    assert!(rounds.len() >= 2 && rounds[0]["logs"] == 12 && rounds[0]["trial"]["gain"].is_f64(), "{view}");
    assert!(!view["issues"].as_array().unwrap().is_empty());
    world.ok(&["monitor", "--markdown"]);
    assert!(world.read("data/monitor.md").contains("monitor.svg"));
    assert!(world.read("data/monitor.svg").starts_with("<svg"));
}

/// The server behind which an application stands, with a key.
fn served(world: &World, tuned: &str) {
    let mut command = world.command(&["serve", "--port", "0", "--json"]);
    command.env("HONE_API_KEY", "sk-local").stdout(Stdio::piped()).stderr(Stdio::null());
    let mut server = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let base_url = serde_json::from_str::<Value>(&line).unwrap()["base_url"].as_str().unwrap().to_owned();
    let address = base_url.trim_start_matches("http://").trim_end_matches("/v1").to_owned();
    assert!(ask(&address, "sk-wrong").starts_with("HTTP/1.1 401"));
    let answer = ask(&address, "sk-local");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains(tuned), "{answer}");
    // Commands use the server that runs, with its key.
    let mut models = world.command(&["models", "--json"]);
    assert!(models.env("HONE_API_KEY", "sk-local").output().unwrap().status.success());
    world.fails(&["models"], 6, "", "");
    world.fails(&["serve", "--port", "0"], 7, "another server runs", "stop it first");
    let pid = rustix::process::Pid::from_raw(server.id() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert!(server.wait().unwrap().code().is_some_and(|code| [0, 130].contains(&code)));
}

/// One question to the alias, over plain HTTP.
fn ask(address: &str, key: &str) -> String {
    let body = json!({"model": "ui-agent", "max_tokens": 4, "messages": [{"role": "user", "content": "hi"}]});
    let body = body.to_string();
    let mut stream = TcpStream::connect(address).unwrap();
    let head = format!("POST /v1/chat/completions HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    write!(
        stream,
        "{head}Authorization: Bearer {key}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// What would spoil the numbers is refused.
fn kept_apart(world: &World) {
    world.fails(
        &["test", "--briefs", world.path("briefs/train.jsonl").to_str().unwrap()],
        3,
        "were trained on",
        "other families",
    );
    let sealed = world.write("briefs/sealed.jsonl", world.read("briefs/train.jsonl"));
    world.fails(&["test"], 3, "sealed briefs were trained on", "hone prepare");
    std::fs::remove_file(sealed).unwrap();
    let mut other = world.command(&["generate", "a form"]);
    let weights = world.path("other.gguf");
    hone_engine::model::Model::random_tiny(2).save(&weights).unwrap();
    other.env("HONE_WEIGHTS", &weights);
    Ran::from(other).failed(3, "other weights", "-C DIR");
}

fn taken_back(world: &World) {
    let entry = world.json(&["rollback", "--reason", "enough"]);
    assert_eq!((&entry["action"], &entry["model"]), (&json!("rollback"), &Value::Null));
    assert_eq!(world.json(&["models"])["champion"], "smollm2-135m-instruct");
    assert_eq!(world.read("data/registry.jsonl").lines().count(), 2, "nothing is rewritten");
}
