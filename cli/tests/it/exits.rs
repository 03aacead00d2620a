//! Every exit code of `docs/exit-codes.md`, and what is said with it.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::Stdio,
    time::Duration,
};

use serde_json::Value;

use crate::harness::{DATASET, Ran, World, cache, dataset};

const STATIC: &str = "--static-only";

#[test]
fn code_0_is_done() {
    let world = World::bare();
    assert!(world.ok(&["init"]).contains("briefs/heldout.jsonl"));
    assert_eq!(world.read("briefs/train.jsonl").lines().count(), 120);
    assert_eq!(world.read("briefs/heldout.jsonl").lines().count(), 60);
    assert!(!world.path("briefs/sealed.jsonl").exists(), "sealed briefs lie open");
    let config = world.json(&["config"]);
    assert_eq!(config["evolve.target_score"], serde_json::json!({"value": 8.0, "origin": "default"}));
    for command in ["evolve", "prepare", "finetune", "test", "deploy", "loop", "serve"] {
        assert!(world.ok(&[command, "--help"]).contains("Usage: hone"), "{command}");
    }
}

#[test]
fn code_2_is_a_wrong_call() {
    let world = World::bare();
    let none = ["--rounds", "--limit", "--heldout", "--n-epochs"].map(|flag| ["loop", flag, "0"]);
    let limit = ["test", "--limit", "0", "--dry-run"];
    let wrong = [&["evolve", "--no-such-flag"][..], &["nothing"], &["loop", "--n-epochs", "51"], &limit, &[]];
    let prepare = [("--min-score", "nan"), ("--min-score", "11"), ("--max-rows", "0")]
        .map(|(flag, value)| ["prepare", flag, value]);
    for arguments in wrong.into_iter().chain(none.iter().chain(&prepare).map(|call| &call[..])) {
        let ran = world.run(arguments);
        assert_eq!(ran.code, 2, "{ran:?}");
        assert!(ran.stderr.contains("Usage:") || ran.stderr.contains("--help"), "{ran:?}");
    }
}

#[test]
fn code_2_is_a_flag_of_another_method() {
    let world = World::bare();
    world.write(DATASET, dataset(12));
    for supervised in [&["finetune", "--beta", "0.1"][..], &["finetune", "--beta", "0.1", "--dry-run"]] {
        world.fails(supervised, 2, "`--beta` belongs to `--method dpo`", "leave it out");
    }
    assert_eq!(world.ok(&["status"]).trim(), "no jobs");
}

#[test]
fn code_3_is_wrong_input_to_evolve() {
    let world = World::bare();
    world.fails(&["evolve"], 3, "no such file", "hone init");
    world.fails(&["evolve", "--briefs", "/no/such.jsonl"], 3, "/no/such.jsonl", "--briefs");
    let check = |name: &str, content: &[u8], message: &str, hint: &str| {
        let path = world.write(name, content);
        world.fails(&["evolve", "--briefs", path.to_str().unwrap()], 3, message, hint);
    };
    check("empty.jsonl", b"", "holds no brief", "one description a line");
    check("blank.txt", b"\n \n", "holds no brief", "one description a line");
    check("broken.jsonl", b"{\"description\":\"a\"}\n{\"desc", "line 2: column", "one whole JSON object");
    check("array.json", b"[{\"description\":\"a\"}]", "JSON array", "jq -c");
    check("bytes.txt", b"a form\n\xff\xfe", "line 2: byte 1 is not valid UTF-8", "UTF-8");
    check("unsafe.jsonl", b"{\"id\":\"../x\",\"description\":\"a\"}", "unsafe id", "call it");
    check("react.jsonl", b"{\"description\":\"a\",\"framework\":\"React\"}", "`React`", "Streamlit");
    check("long.txt", "word ".repeat(20_000).as_bytes(), "99999 bytes", "in words");
    let twice = b"{\"id\":\"a\",\"description\":\"a\"}\n{\"id\":\"a\",\"description\":\"b\"}";
    check("twice.jsonl", twice, "is used on line 1 already", "id of its own");
    world.fails(&["evolve", ""], 3, "empty", "say what the UI is for");
    world.fails(&["evolve", &"word ".repeat(20_000)], 3, "at most", "in words");
    assert!(world.logs().is_empty());
}

#[test]
fn code_3_is_a_wrong_setting() {
    let world = World::bare();
    let check = |settings: &str, message: &str, hint: &str| {
        world.write("hone.toml", settings);
        world.fails(&["config"], 3, message, hint);
    };
    check("[agent\n", "not valid TOML", "hone config");
    check("[agent]\ntemperature = \"hot\"", "agent.temperature", "hone config");
    check("[judge]\nsamples = 6", "judge.samples", "hone config");
    check("[agent]\nframework = \"React\"", "`React` is not supported", "Streamlit");
    check("[models.a]\nprovider = \"openai\"", "models.a", "`provider` and `model`");
    world.write("hone.toml", "[agent]\nmodel = \"ui-agnt\"");
    world.briefs(1, 1).fails(&["evolve"], 3, "did you mean `ui-agent`", "hone models");
    world.fails(
        &["evolve", "--judge", "gptt"],
        3,
        "no model named `gptt`",
        "add a row under `[models.NAME]`",
    );
    world.write("hone.toml", "[evolve]\ntarget_scor = 7.0");
    let ran = world.run(&["config"]);
    assert_eq!(ran.code, 0);
    assert!(ran.stderr.contains("did you mean `evolve.target_score`"), "{}", ran.stderr);
}

#[test]
fn code_3_is_a_phase_without_what_it_needs() {
    let world = World::bare();
    world.briefs(2, 2);
    world.ok(&["init"]);
    world.fails(&["init"], 3, "is a workspace already", "--force");
    let mut nowhere = std::process::Command::new(env!("CARGO_BIN_EXE_hone"));
    nowhere.args(["-C", "/dev/null", "init"]);
    Ran::from(nowhere).failed(3, "/dev/null", "`-C DIR`");
    world.fails(&["prepare"], 3, "no", "hone evolve");
    world.fails(&["finetune"], 3, "there is no dataset", "hone prepare");
    world.write(DATASET, dataset(9));
    world.fails(&["finetune"], 3, "dataset has 9 examples, at least 10", "--min-score");
    assert_eq!(world.ok(&["status"]).trim(), "no jobs");
    world.fails(&["status", "--follow"], 3, "has started no job", "hone finetune");
    world.fails(&["cancel"], 3, "has started no job", "hone finetune");
    world.fails(&["status", "ftjob-none"], 3, "`ftjob-none`", "`hone status` without an id");
    world.fails(&["cancel", "ftjob-none"], 3, "`ftjob-none`", "`hone status` without an id");
    world.fails(&["test"], 3, "there is no tuned model", "hone finetune");
    world.fails(&["deploy"], 3, "no trial names a model", "hone test");
    world.fails(&["rollback"], 3, "nothing to roll back", "hone models");
    world.fails(&["deploy", "ft:nobody", "--force"], 3, "no model", "hone models");
    world.fails(&["critique", "no.py", STATIC], 3, "no.py", "name a Python file");
}

/// A round that has made nothing yet may be begun otherwise; one with logs may not.
#[test]
fn code_3_is_a_round_of_another_size() {
    let world = World::bare();
    world.briefs(2, 2);
    let run = |limit: &str| {
        let mut command = world.command(&["loop", "--quick", "--limit", limit, "--heldout", "1"]);
        command.env("PATH", world.folder.path());
        Ran::from(command)
    };
    // Without Python no round gets as far as its first log.
    run("1").failed(7, "no Python", "apt-get");
    run("2").failed(7, "no Python", "apt-get");
    let state: Value = serde_json::from_str(&world.read(".hone/loop.json")).unwrap();
    assert_eq!(state["rounds"].as_array().unwrap().len(), 1);
    assert_eq!(state["rounds"][0]["size"]["limit"], 2);
    let brief: Value =
        serde_json::from_str(world.read("briefs/train.jsonl").lines().next().unwrap()).unwrap();
    world.write(&format!("data/evolutionary_logs/{}.json", brief["id"].as_str().unwrap()), "{}");
    run("1").failed(3, "another size", "-C DIR");
    run("2").failed(7, "no Python", "apt-get");
}

/// On a machine without runtime, Python or network, for which any set-up would be another error.
#[test]
fn a_mistake_is_told_before_anything_is_set_up() {
    let world = World::bare();
    let run = |arguments: &[&str]| {
        let mut command = world.command(arguments);
        command.env_remove("HONE_WEIGHTS").env("PATH", world.folder.path());
        Ran::from(command)
    };
    run(&["status", "--follow"]).failed(3, "has started no job", "hone finetune");
    assert_eq!(run(&["status", "--json"]).stdout.trim(), r#"{"object":"list","data":[],"has_more":false}"#);
    run(&["status", "ftjob-none"]).failed(3, "`ftjob-none`", "`hone status` without an id");
    run(&["cancel"]).failed(3, "has started no job", "hone finetune");
    run(&["finetune"]).failed(3, "there is no dataset", "hone prepare");
    world.write(DATASET, dataset(9));
    run(&["finetune"]).failed(3, "dataset has 9 examples, at least 10", "--min-score");
    world.write(DATASET, dataset(9) + "{}\n");
    run(&["finetune"]).failed(3, "line 10: ", "hone prepare");
    let listed = run(&["models", "--json"]);
    assert_eq!(listed.code, 0, "{listed:?}");
    let listed: Value = serde_json::from_str(&listed.stdout).unwrap();
    assert_eq!(listed["local"], serde_json::json!([]));
    assert!(!world.folder.path().join("cache").exists(), "set-up began");
}

#[test]
fn code_3_is_a_dataset_that_would_be_refused() {
    let world = World::bare();
    world.write(DATASET, dataset(9) + "{\"messages\": [{\"role\": \"wizard\", \"content\": \"hm\"}]}\n");
    world.fails(&["finetune"], 3, "line 10: ", "hone prepare");
    assert_eq!(world.ok(&["status"]).trim(), "no jobs");
    assert!(world.read(DATASET).contains("wizard"), "nothing is lost");
    // As an editor of another system saves it: each line feed is half a character.
    let utf16 = dataset(12).encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>();
    world.write(DATASET, [&b"\xff\xfe"[..], &utf16].concat());
    world.fails(&["finetune"], 3, "line 1: byte 1 is not valid UTF-8", "UTF-8");
    world.write(DATASET, [dataset(12).as_bytes(), b"{\"na\xefve\": 1}\n"].concat());
    world.fails(&["finetune"], 3, "line 13: byte 5 is not valid UTF-8", "UTF-8");
}

#[test]
fn code_4_is_a_critique_below_the_threshold() {
    let Some(cache) = cache("code_4_is_a_critique_below_the_threshold") else { return };
    let world = World::with_runtime(cache);
    let app = world.write("app.py", "import streamlit as st\nst.title('Hello')\n");
    let critique = |more: &[&str]| {
        let ran = world.run(&[&["critique", app.to_str().unwrap(), STATIC, "--json"], more].concat());
        let value: Value = serde_json::from_str(&ran.stdout).unwrap_or_else(|e| panic!("{e}: {ran:?}"));
        (ran.code, value)
    };
    assert_eq!(critique(&[]).0, 0);
    let (code, value) = critique(&["--threshold", "9.9"]);
    assert_eq!(code, 4);
    assert_eq!(value[0]["level"], "static");
    for key in
        ["path", "score", "sub_scores", "caps", "issues", "citations", "sandbox_level", "critic", "took_ms"]
    {
        assert!(!value[0][key].is_null(), "{key} in {value}");
    }
}

#[test]
fn code_5_is_a_budget_of_nothing() {
    let world = World::bare();
    let row =
        "[models.far]\nprovider = \"openai-compatible\"\nbase_url = \"http://192.0.2.1/v1\"\nmodel = \"m\"\n";
    world.write("hone.toml", format!("[budget]\nusd = 0\n{row}"));
    world.fails(&["generate", "a form", "--agent", "far"], 5, "the budget is 0", "[budget]");
}

#[test]
fn code_5_is_a_budget_that_cannot_be_kept() {
    let world = World::bare();
    let row =
        "[models.far]\nprovider = \"openai-compatible\"\nbase_url = \"http://192.0.2.1/v1\"\nmodel = \"m\"\n";
    world.write("hone.toml", row);
    let ask = ["generate", "a form", "--agent", "far"];
    world.fails(&ask, 5, "what `models.far` costs is not known", "price = {");
    let price = "price = { input = 3.0, output = 12.0, as_of = \"2026-01-31\" }\n";
    world.write("hone.toml", format!("{row}{price}"));
    world.fails(&[&ask[..], &["--budget", "0.001"]].concat(), 5, "the budget of $0.0010", "`--budget");
    world.fails(&[&ask[..], &["--offline"]].concat(), 6, "the journal has no answer", "hone calls import");
    world.write("prices.toml", "[[price]]\n");
    world.fails(&ask, 3, "prices.toml` is not a table of prices", "docs/calls.md");
}

#[test]
fn code_130_is_a_run_that_was_stopped() {
    let Some(cache) = cache("code_130_is_a_run_that_was_stopped") else { return };
    let world = World::with_runtime(cache);
    world.briefs(20, 1);
    let mut child = world.command(&["evolve"]).stderr(Stdio::piped()).spawn().unwrap();
    while world.logs().is_empty() {
        assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
        std::thread::sleep(Duration::from_millis(20));
    }
    let pid = rustix::process::Pid::from_raw(child.id() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let ended = child.wait_with_output().unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(130), "{said}");
    assert!(said.contains("finished evolutions are kept") && said.contains("hint: "), "{said}");
}

/// One command's server is another's: when the first ends, the second goes on.
#[test]
fn a_borrowed_server_is_taken_over() {
    let world = World::bare();
    world.write("hone.toml", "[agent]\nmax_tokens = 1500\n");
    let mut serving = world.command(&["serve", "--port", "0"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(serving.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let asking: Vec<_> = (0..3)
        .map(|n| {
            world
                .command(&["generate", &format!("form {n}"), "--json"])
                .stdout(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    std::thread::sleep(Duration::from_millis(300));
    serving.kill().unwrap();
    serving.wait().unwrap();
    for child in asking {
        let ended = child.wait_with_output().unwrap();
        assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    }
}

#[test]
fn code_7_is_a_port_that_is_taken() {
    let world = World::bare();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    world.fails(&["serve", "--port", &port], 7, &port, "--port");
}

/// Runs `hone` where the workspace is mounted as these arguments of bubblewrap say.
fn mounted(world: &World, mount: &[&str], arguments: &[&str]) -> Ran {
    std::fs::create_dir_all(world.root()).unwrap();
    let inner = world.command(arguments);
    let mut outer = std::process::Command::new("bwrap");
    outer.args(["--dev-bind", "/", "/"]).args(mount);
    outer.arg("--").arg(inner.get_program()).args(inner.get_args());
    outer.env_clear().envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    Ran::from(outer)
}

#[test]
fn code_7_is_a_read_only_workspace() {
    let world = World::bare();
    let root = world.root();
    let root = root.to_str().unwrap();
    mounted(&world, &["--ro-bind", root, root], &["init"]).failed(7, "cannot write", "writable");
    world.briefs(1, 1);
    mounted(&world, &["--ro-bind", root, root], &["loop", "--quick"]).failed(7, "cannot", "writable");
}

#[test]
fn code_7_is_a_full_disk() {
    let world = World::bare();
    let root = world.root();
    let full = ["--size", "8192", "--tmpfs", root.to_str().unwrap()];
    mounted(&world, &full, &["init"]).failed(7, "cannot write", "free some space");
}

#[test]
fn code_7_is_a_machine_without_a_sandbox() {
    let Some(cache) = cache("code_7_is_a_machine_without_a_sandbox") else { return };
    let world = World::with_runtime(cache);
    world.briefs(1, 1);
    let programs = world.folder.path().join("programs");
    std::fs::create_dir(&programs).unwrap();
    let without = |arguments: &[&str]| {
        let mut command = world.command(arguments);
        command.env("PATH", &programs);
        Ran::from(command)
    };
    without(&["evolve"]).failed(7, "bubblewrap", STATIC);
    assert!(world.logs().is_empty());
    let ran = without(&["evolve", STATIC]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let (_, log) = &world.logs()[0];
    let evidence = &log["evolution_history"][0]["evidence"];
    assert_eq!((&evidence["level"], &evidence["sandbox"]["kind"]), (&"static".into(), &"none".into()));
    // Scores of other evidence are never taken for these.
    let ran = without(&["doctor"]);
    assert_eq!(ran.code, 7, "{ran:?}");
    assert!(ran.stdout.contains("FAULT") && ran.stdout.contains("apt-get"), "{ran:?}");
}

#[test]
fn code_7_is_weights_with_another_checksum() {
    let Some(cache) = cache("code_7_is_weights_with_another_checksum") else { return };
    let world = World::with_runtime(cache.clone());
    let broken = world.write("broken.gguf", b"GGUF but not really");
    let mut command = world.command(&["generate", "a form"]);
    command.env("HONE_WEIGHTS", &broken);
    let ran = Ran::from(command);
    ran.failed(7, "broken.gguf` cannot be used", "");
    // What set-up made, and something has spoilt since.
    let cache = Path::new(&cache);
    let spoilt = world.folder.path().join("spoilt");
    std::fs::create_dir_all(spoilt.join("weights")).unwrap();
    for entry in std::fs::read_dir(cache).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.file_name().unwrap().to_string_lossy().starts_with("venv") {
            std::os::unix::fs::symlink(&entry, spoilt.join(entry.file_name().unwrap())).unwrap();
        }
    }
    let weights = spoilt.join("weights/smollm2-135m-instruct.gguf");
    let mut bytes = std::fs::read(cache.join("weights/smollm2-135m-instruct.gguf")).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    let run = |arguments: &[&str]| {
        let mut command = world.command(arguments);
        command.env_remove("HONE_WEIGHTS").env("HONE_CACHE", &spoilt);
        Ran::from(command)
    };
    std::fs::write(&weights, &bytes).unwrap();
    let doctor = run(&["doctor"]);
    assert_eq!(doctor.code, 7, "{doctor:?}");
    assert!(doctor.stdout.contains("FAULT  weights") && doctor.stdout.contains("sha256"), "{doctor:?}");
    // A single byte among many numbers: they load, and would answer something.
    run(&["generate", "a form"]).failed(7, "its sha256 is", "hone setup");
    assert!(!world.path(".hone/weights.json").exists(), "a workspace does not begin with them");
    std::fs::write(&weights, &bytes[..bytes.len() / 2]).unwrap();
    run(&["generate", "a form"]).failed(7, "cannot be used", "hone setup");
}

#[test]
fn code_7_is_a_workspace_in_use() {
    let world = World::bare();
    world.briefs(1, 1);
    let _held = hone::store::Lock::take(&world.path(".hone/loop.lock")).unwrap();
    world.fails(&["loop", "--quick"], 7, "in use", "");
}

/// Nothing of it is left behind, the folder of a trial among it.
#[test]
fn code_7_is_a_release_while_a_loop_runs() {
    let world = World::bare();
    world.briefs(1, 1);
    let _held = hone::store::Lock::take(&world.path(".hone/loop.lock")).unwrap();
    world.fails(&["test", TUNED, "--release"], 7, "while a loop runs", "wait until it is over");
    assert!(!world.path("data").exists(), "the refusal left something");
}

/// The base, which is there, as if it had been tuned.
const TUNED: &str = "smollm2-135m-instruct";

/// Whether anybody was to see the sealed briefs stands on disk before they are asked, and not before every model has answered.
#[test]
fn a_model_that_is_not_there_does_not_open_the_sealed_briefs() {
    let world = World::bare();
    world.briefs(1, 2);
    world.write("hone.toml", "[agent]\nmax_tokens = 8\n");
    let without_python = |arguments: &[&str]| {
        let mut command = world.command(arguments);
        command.env("PATH", world.folder.path());
        Ran::from(command)
    };
    for typo in
        [&["test", "ft:no:local:such:1", "--release"][..], &["test", TUNED, "--release", "--arm", "x=nosuch"]]
    {
        without_python(typo).failed(6, "does not exist on this server", "hone models");
    }
    assert!(!world.path("data").exists(), "a typo opened them");
    without_python(&["test", TUNED, "--release"]).failed(7, "no Python", "apt-get");
    let opening: Value = serde_json::from_str(world.read("data/sealed_openings.jsonl").trim()).unwrap();
    assert_eq!(opening["model"], TUNED);
}

/// A round held its model at 0.0034: whoever looks again at the same answers has no more to spend.
#[test]
fn a_further_look_at_a_model_of_a_loop_keeps_the_budget_of_its_round() {
    let world = World::bare();
    world.briefs(1, 2);
    world.write("hone.toml", "[agent]\nmax_tokens = 8\n");
    let result = serde_json::json!({"model": TUNED, "trial": "t-round", "verdict": "hold"});
    let round = serde_json::json!({
        "round": 3, "seed": 1, "size": {"limit": null, "drafts": null, "max_rows": null, "n_epochs": null, "heldout": null,
        "samples": null}, "agent": "a", "champion": "a", "heldout": [], "alpha": 0.0034, "result": result,
    });
    let state = serde_json::json!({"format": "hone.loop", "version": 1, "rounds": [round]});
    world.write(".hone/loop.json", state.to_string());
    let look = |more: &[&str]| {
        let mut command = world.command(&[&["test", TUNED, "--limit", "3"], more].concat());
        command.env("PATH", world.folder.path());
        let ran = Ran::from(command);
        ran.failed(7, "no Python", "apt-get");
        assert!(
            ran.stderr.contains("has 2 held-out briefs, not 3") && ran.stderr.contains("add 1 of families"),
            "{ran:?}"
        );
        ran.stderr
    };
    let specs = || -> Vec<Value> {
        let folders =
            std::fs::read_dir(world.path("data/trials")).unwrap().map(|entry| entry.unwrap().path());
        folders
            .map(|path| std::fs::read_to_string(path.join("spec.json")).unwrap())
            .map(|text| serde_json::from_str::<Value>(&text).unwrap()["spec"].clone())
            .collect()
    };
    assert!(look(&[]).contains("the error budget is 0.0034, as in trial `t-round`"));
    let [spec] = &specs()[..] else { panic!("one trial") };
    assert_eq!((&spec["alpha"], &spec["alpha_from"]), (&0.0034.into(), &"t-round".into()));
    // The record of the rounds is gone, and the trial is not.
    std::fs::remove_file(world.path(".hone/loop.json")).unwrap();
    assert!(look(&["--no-prompt-arm"]).contains("the error budget is 0.0034"));
    assert!(specs().iter().all(|spec| spec["alpha"] == 0.0034));
    // Whoever says otherwise is taken at their word.
    assert!(!look(&["--alpha", "0.05"]).contains("the error budget"));
    world.write(".hone/loop.json", "{\"format\":");
    world.fails(&["test", TUNED], 3, "loop.json", "from a copy");
    let dry = world.run(&["test", TUNED, "--limit", "3", "--dry-run"]);
    assert!(dry.code == 0 && dry.stderr.contains("has 2 held-out briefs, not 3"), "{dry:?}");
}
