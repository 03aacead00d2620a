//! `hone pause` and `hone resume`, beside a server that runs.

use std::{
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use crate::harness::{DATASET, World, dataset};

/// A server that is stopped with the test.
struct Server(Child);

impl Server {
    fn start(world: &World) -> Self {
        let mut command = world.command(&["serve", "--port", "0"]);
        let server = Self(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        wait(|| world.path(".hone/server/address").exists());
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Only so that a test that hangs ends.
fn wait(done: impl Fn() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(900), "the moment never came");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_job_is_paused_and_resumed_from_the_command_line() {
    let world = World::bare();
    world.write(DATASET, dataset(40));
    world.fails(&["pause"], 3, "has started no job", "hone finetune");
    let _server = Server::start(&world);
    let job = world.json(&["finetune", "--n-epochs", "50", "--batch-size", "1", "--detach"]);
    let id = job["id"].as_str().unwrap();
    let status = || world.json(&["status", id])["status"].as_str().unwrap().to_owned();
    wait(|| status() == "running");
    assert_eq!(world.json(&["pause", id])["status"], "paused");
    assert_eq!(status(), "paused");
    let again = world.run(&["pause"]);
    assert!(again.code != 0 && again.stderr.contains("is not running"), "{again:?}");
    let resumed = world.json(&["resume", "--detach"]);
    assert!(["queued", "running"].contains(&resumed["status"].as_str().unwrap()), "{resumed}");
    let twice = world.run(&["resume", id]);
    assert!(twice.code != 0 && twice.stderr.contains("is not paused"), "{twice:?}");
    assert_eq!(world.json(&["cancel", id])["status"], "cancelled");
}
