//! `hone loop` killed in every phase, and run again.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::harness::{World, cache};

const LOOP: [&str; 8] = ["loop", "--quick", "--limit", "12", "--heldout", "6", "--n-epochs", "8"];

#[test]
fn a_loop_that_is_killed_goes_on() {
    let Some(cache) = cache("a_loop_that_is_killed_goes_on") else { return };
    let world = World::with_runtime(cache);
    world.briefs(14, 40);
    let mut kept = Kept::default();
    kill(&world, |w| w.path(".hone").exists());
    for logs in [1, 5, 9] {
        kill(&world, |w| w.logs().len() >= logs);
        kept.check(&world);
    }
    kill(&world, |w| w.path(".hone/finetune.json").exists());
    kill(&world, |w| jobs(w).iter().any(|job| lines(&job.join("events.jsonl")) > 8));
    kill(&world, |w| results(w).len() >= 2);
    kept.check(&world);
    kill(&world, |w| results(w).len() >= 7);
    kept.check(&world);

    let ran = world.run(&LOOP);
    assert!([0, 4].contains(&ran.code), "{ran:?}");
    kept.check(&world);
    assert_eq!(world.logs().len(), 12);
    assert_eq!(jobs(&world).len(), 1, "one job, however often it was asked for");
    let rows = results(&world);
    let distinct: BTreeSet<String> = rows.iter().map(asked).collect();
    assert_eq!((rows.len(), distinct.len()), (12, 12), "each answer once: {distinct:?}");
    assert_eq!(world.run(&LOOP).code, ran.code);
}

/// Starts the loop, waits for a moment, kills it with SIGKILL, and looks for what it left running.
fn kill(world: &World, moment: impl Fn(&World) -> bool) {
    let mut child = world.command(&LOOP).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let begun = Instant::now();
    while !moment(world) && running(&mut child) {
        assert!(begun.elapsed() < Duration::from_secs(900), "the moment never came");
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let ours = format!("hone-sandbox-{}-", child.id());
    for _ in 0..200 {
        if !commands().iter().any(|line| line.contains(&ours)) {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("sandboxes outlived their critic: {:?}", commands());
}

fn running(child: &mut Child) -> bool {
    child.try_wait().unwrap().is_none()
}

/// Command lines of everything that runs.
pub fn commands() -> Vec<String> {
    let of = |entry: fs::DirEntry| fs::read(entry.path().join("cmdline")).ok();
    let lines = fs::read_dir("/proc").unwrap().flatten().filter_map(of);
    lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " ")).collect()
}

fn jobs(world: &World) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(world.path(".hone/server/jobs")) else { return Vec::new() };
    entries.flatten().map(|entry| entry.path()).filter(|path| path.join("job.json").exists()).collect()
}

fn lines(path: &std::path::Path) -> usize {
    fs::read_to_string(path).map(|text| text.lines().count()).unwrap_or_default()
}

fn results(world: &World) -> Vec<Value> {
    let Ok(trials) = fs::read_dir(world.path("data/trials")) else { return Vec::new() };
    let text = |entry: fs::DirEntry| fs::read_to_string(entry.path().join("results.jsonl")).ok();
    let texts: Vec<String> = trials.flatten().filter_map(text).collect();
    texts.iter().flat_map(|text| text.lines()).filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// What a row answers.
fn asked(row: &Value) -> String {
    format!("{} {} {}", row["brief"], row["arm"], row["sample"])
}

/// Finished work as it was first seen.
#[derive(Default)]
struct Kept {
    logs: BTreeMap<String, Value>,
    rows: BTreeMap<String, Value>,
}

impl Kept {
    /// What was finished before is there still, to the letter.
    fn check(&mut self, world: &World) {
        let logs: BTreeMap<_, _> = world.logs().into_iter().collect();
        assert!(self.logs.iter().all(|(name, log)| logs.get(name) == Some(log)), "a finished log was redone");
        let rows: BTreeMap<_, _> = results(world).into_iter().map(|row| (asked(&row), row)).collect();
        assert!(self.rows.iter().all(|(asked, row)| rows.get(asked) == Some(row)), "an answer was redone");
        (self.logs, self.rows) = (logs, rows);
    }
}
