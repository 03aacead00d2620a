//! Candidates that run at the same time, in workers of one parent, and look for each other.

use hone::critic::{Critic, Level};

use super::{app, brief, open, runtime};

/// Leaves traces wherever a neighbour might see them, looks for a neighbour's for three seconds, and tells what it found.
const LOOKS: &str = r#"
import os, socket, time
import streamlit as st

own = os.urandom(8).hex()
found = set()
doors = []
for port in range(9000, 9004):
    door = socket.socket()
    try:
        door.bind(("127.0.0.1", port))
        door.listen()
        doors.append(door)
        break
    except OSError:
        found.add(f"port {port} is taken")
name = socket.socket(socket.AF_UNIX)
try:
    name.bind("\0hone-neighbour")
except OSError:
    found.add("the abstract name is taken")
open(f"/tmp/trace-{own}", "w").close()
open(f"/app/trace-{own}", "w").close()
os.environ["TRACE"] = own
try:
    terminal = os.openpty()
except OSError:
    terminal = None

first = int(open("/proc/self/stat").read().split()[0])
until = time.monotonic() + 3
while time.monotonic() < until:
    for folder in ("/tmp", "/app", "/dev/shm", "/dev/pts"):
        for entry in os.listdir(folder):
            if entry.startswith("trace-") and own not in entry or folder.startswith("/dev") and entry != "ptmx":
                found.add(f"{folder}/{entry}")
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if int(pid) != first:
            found.add(f"process {pid}")
    time.sleep(0.05)
try:
    os.kill(-1, 0)
    found.add("somebody to send signals to")
except OSError:
    pass
status = dict(line.split(":\t", 1) for line in open("/proc/self/status") if ":\t" in line)
for key, want in (("CapEff", 0), ("CapPrm", 0), ("CapInh", 0), ("CapAmb", 0), ("NoNewPrivs", 1), ("Seccomp", 2)):
    if int(status[key], 16) != want:
        found.add(f"{key} {status[key].strip()}")
st.text("found " + repr(sorted(found)))
st.text(f"pid {os.getpid()}, uid {os.getuid()}, random {own}")
import numpy, random
st.text(f"numpy {numpy.random.random()}, random {random.random()}")
"#;

async fn said(critic: &Critic) -> Vec<String> {
    let evidence = critic.observe(&brief("anything"), &app(LOOKS), Level::Run).await.unwrap();
    let run = evidence.run.clone().unwrap();
    let by_root = evidence.sandbox.isolation == "own-uid";
    assert!(evidence.sandbox.forked || !by_root, "root may fork workers: {:?}", evidence.sandbox);
    run.elements.iter().filter(|e| e.kind == "text").map(|e| e.label.clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn neighbours_do_not_meet() {
    let Some(runtime) = runtime("neighbours") else { return };
    let _alone = super::ALONE.lock().await;
    let critic = open(runtime).await;
    let (one, two) = tokio::join!(said(&critic), said(&critic));
    for said in [&one, &two] {
        assert_eq!(said[0], "found []", "{said:?}");
        assert!(said[1].contains(", uid "), "{said:?}");
    }
    assert_ne!(one[2], two[2], "random numbers repeat from worker to worker");
    critic.close().await;
}

/// What a worker was forked from is gone with the critic, and so are workers that wait or run.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_ends_with_the_critic() {
    let Some(runtime) = runtime("the end of workers") else { return };
    let _alone = super::ALONE.lock().await;
    let critic = open(runtime).await;
    let running = {
        let critic = critic.clone();
        tokio::spawn(async move { critic.observe(&brief("x"), &app("while True: pass"), Level::Run).await })
    };
    tokio::time::sleep(std::time::Duration::from_secs(4)).await;
    running.abort();
    let _ = running.await;
    drop(critic);
    super::hostile::check_nothing_left().await;
}
