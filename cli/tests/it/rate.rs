//! `hone rate`: whoever is interrupted goes on, and nobody answers twice.

use std::{
    io::{BufRead, BufReader, Read, Write},
    process::{Child, ChildStderr, Stdio},
};

use hone::{
    agent::SourceFile,
    critic::{self, Evidence},
    evolve::{self, EvolutionLog, LogEntry, LogUsage},
};
use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{Ran, World};

fn entry(iteration: u32, operator: &str, score: f64) -> LogEntry {
    let evidence = Evidence::default();
    let mut critique = critic::score(&evidence);
    critique.overall_score = score;
    LogEntry {
        iteration,
        operator: operator.into(),
        parents: Vec::new(),
        model: "m".into(),
        files: vec![SourceFile { path: "app.py".into(), content: format!("A = {iteration}\n") }],
        ui_code: String::new(),
        critique,
        evidence,
        fresh: false,
        usage: LogUsage::default(),
        guidelines: Vec::new(),
        guidelines_unknown: 0,
        finish_reason: None,
        took_ms: 0,
    }
}

/// A workspace of `n` logs with a pair each.
fn world(n: usize) -> World {
    let world = World::bare();
    for id in (0..n).map(|n| format!("form-{n}")) {
        let log = EvolutionLog {
            format: evolve::FORMAT.into(),
            version: evolve::FORMAT_VERSION,
            id: id.clone(),
            kind: "form".into(),
            family: id.clone(),
            description: format!("a form of {id}"),
            requirements: Vec::new(),
            framework: "Streamlit".into(),
            target_score: 8.0,
            max_iterations: 4,
            seed: 1,
            critic: "3".into(),
            agent: "m".into(),
            teacher: "composer".into(),
            round: 1,
            evolution_history: vec![entry(1, "draft", 2.0), entry(2, "restyle", 8.0)],
            initial_score: 2.0,
            final_score: 8.0,
            best_iteration: 2,
            improvement: 6.0,
            target_reached: true,
            total_iterations: 1,
            prompts: None,
            pairs: Vec::new(),
        };
        let path = hone::store::Workspace::new(world.root()).log(&id, 1);
        hone::store::write_json(&path, &log).unwrap();
    }
    world
}

fn begin(world: &World, rater: &str) -> (Child, BufReader<ChildStderr>) {
    let mut command = world.command(&["rate", "--rater", rater]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let said = BufReader::new(child.stderr.take().unwrap());
    (child, said)
}

/// Waits until it asks.
fn asked(said: &mut impl BufRead) {
    let mut text = Vec::new();
    while !text.ends_with(b"[a/b/t/s/q] ") {
        assert_ne!(said.read_until(b' ', &mut text).unwrap(), 0, "{}", String::from_utf8_lossy(&text));
    }
}

#[test]
fn the_first_interrupt_ends_a_session_with_all_answers_kept() {
    let world = world(3);
    let (mut child, mut said) = begin(&world, "Ann B");
    asked(&mut said);
    // The input stays open, as that of a terminal does.
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"a\n").unwrap();
    asked(&mut said);
    kill_process(Pid::from_raw(child.id().cast_signed()).unwrap(), Signal::INT).unwrap();
    let mut rest = String::new();
    said.read_to_string(&mut rest).unwrap();
    let ran = Ran { stderr: rest, ..Ran::of(child.wait_with_output().unwrap()) };
    drop(input);
    let again = format!("`hone rate --rater 'Ann B' -C {}` goes on", world.root().display());
    ran.failed(130, "the 1 answers of this session are in", &again);
    assert_eq!(world.read("data/ratings.jsonl").lines().count(), 1);
}

#[test]
fn one_name_has_one_session_at_a_time() {
    let world = world(2);
    let (mut child, mut said) = begin(&world, "same");
    asked(&mut said);
    world.fails(&["rate", "--rater", "same"], 7, "`same` is comparing apps already", "--rater NAME");
    world.ok(&["rate", "--rater", "other"]);
    child.stdin.take().unwrap().write_all(b"a\nb\n").unwrap();
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(0));
    world.fails(&["rate", "--rater", "same"], 3, "no pair that `same` has still to compare", "--summary");
}

#[test]
fn what_names_no_trial_and_no_file_is_refused_at_once() {
    let world = world(1);
    std::fs::create_dir_all(world.path("data/trials/t-1")).unwrap();
    for id in ["", ".", "../trials/t-1"] {
        world.fails(&["rate", "--trial", id], 3, &format!("no trial `{id}`"), "--trial last");
    }
    assert_eq!(world.run(&["rate", "--rater", ""]).code, 2);
    let pairs = ["test", "m", "--pairs", "/no/such.jsonl"];
    world.fails(&pairs, 3, "`/no/such.jsonl`, and there is no such file", "`hone rate` writes");
    world.fails(&[&pairs[..], &["--dry-run"]].concat(), 3, "/no/such.jsonl", "`hone rate` writes");
}
