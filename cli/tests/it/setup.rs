//! `hone setup` killed and stopped, with a Python that only pretends to install.

use std::{
    os::unix::{
        fs::PermissionsExt,
        process::{CommandExt, ExitStatusExt},
    },
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal};

use crate::{
    harness::{Ran, World},
    kill::commands,
};

/// Answers as Python does where set-up asks, and writes down what it was handed. The first time that packages are to be installed
/// it starts a program that writes into the environment for as long as `$PIP_BUSY` says, whatever happens to itself. (Of
/// variables that Python has no use for, set-up hands it none but pip's.)
const PYTHON: &str = r#"#!/bin/sh
{ echo "asked: $*"; env; } >> "$PIP_WORKING.handed"
case "$*" in
  *ensurepip*) echo "3 12 1" ;;
  "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
  *"pip install"*)
    [ -e "$PIP_WORKING" ] && exit 0
    touch "$PIP_WORKING"
    sh -c 'i=0; while [ $i -lt "$PIP_BUSY" ]; do i=$((i + 1)); mkdir -p "$1"; touch "$1/late-$i"; sleep 0.05; done' \
      writer "${0%/bin/python}" ;;
esac
"#;

struct Machine {
    world: World,
}

impl Machine {
    fn new() -> Self {
        let world = World::bare();
        let python = world.folder.path().join("programs/python3");
        std::fs::create_dir_all(python.parent().unwrap()).unwrap();
        std::fs::write(&python, PYTHON).unwrap();
        std::fs::set_permissions(&python, std::fs::Permissions::from_mode(0o755)).unwrap();
        Self { world }
    }

    fn working(&self) -> PathBuf {
        self.world.folder.path().join("working")
    }

    fn command(&self, busy: u32) -> Command {
        let mut command = self.world.command(&["setup"]);
        let programs = self.world.folder.path().join("programs");
        let path = std::env::var_os("PATH").unwrap();
        let path = std::env::join_paths([programs].into_iter().chain(std::env::split_paths(&path))).unwrap();
        command.env("PATH", path).env("PIP_BUSY", busy.to_string()).env("PIP_WORKING", self.working());
        command
    }

    /// A set-up that is installing packages.
    fn installing(&self, busy: u32) -> Child {
        let mut command = self.command(busy);
        let mut child = command.process_group(0).stderr(Stdio::piped()).spawn().unwrap();
        while !self.working().exists() {
            assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
            std::thread::sleep(Duration::from_millis(5));
        }
        child
    }

    /// Everything in the cache, by the end of its path.
    fn venv(&self) -> Vec<String> {
        let cache = self.world.folder.path().join("cache");
        let folders = std::fs::read_dir(cache).unwrap().map(|entry| entry.unwrap().path());
        let venv = folders.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("venv-"));
        let entries = venv.flat_map(|path| std::fs::read_dir(path).unwrap());
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

#[test]
fn a_setup_that_is_killed_goes_on() {
    let machine = Machine::new();
    let mut killed = machine.installing(40);
    killed.kill().unwrap();
    assert_eq!(killed.wait().unwrap().signal(), Some(9));
    let ran = Ran::from(machine.command(40));
    assert_eq!(ran.code, 0, "{ran:?}");
    let made = machine.venv();
    assert!(made.contains(&"hone-ready.json".to_owned()), "{made:?}");
    assert!(!made.iter().any(|name| name.starts_with("late-")), "another set-up wrote into it: {made:?}");
}

#[test]
fn a_setup_that_is_stopped_says_so_and_leaves_nothing_running() {
    let machine = Machine::new();
    let stopped = machine.installing(2000);
    let group = Pid::from_raw(stopped.id().cast_signed()).unwrap();
    rustix::process::kill_process_group(group, Signal::TERM).unwrap();
    let ended = stopped.wait_with_output().unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(130), "{said}");
    assert!(said.contains("error: stopped") && said.contains("hint: run `hone setup` again"), "{said}");
    let ours = machine.world.folder.path().to_str().unwrap();
    let left = || commands().into_iter().filter(|line| line.contains(ours)).collect::<Vec<_>>();
    for _ in 0..200 {
        if left().is_empty() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("still running: {:?}", left());
}

/// Python, pip, and whatever packages do while they are installed.
#[test]
fn no_program_of_set_up_is_handed_a_key() {
    let machine = Machine::new();
    let mut command = machine.command(0);
    for name in
        ["OPENAI_API_KEY", "MY_OWN_NAME_FOR_A_KEY", "HF_TOKEN", "HONE_API_KEY", "AWS_SECRET_ACCESS_KEY"]
    {
        command.env(name, "sk-canary-0123456789");
    }
    command.env("PIP_INDEX_URL", "http://127.0.0.1:9/simple").env("HTTPS_PROXY", "http://127.0.0.1:9");
    // Without weights of the user's own it downloads them too, of which this Python knows nothing.
    command.env_remove("HONE_WEIGHTS");
    Ran::from(command).failed(7, "downloaded without its file", "hone setup");
    let handed = std::fs::read_to_string(machine.working().with_extension("handed")).unwrap();
    for part in ["-I -c", "-m venv", "-m pip install", "import streamlit", "-m pip download"] {
        assert!(
            handed.lines().any(|line| line.starts_with("asked: ") && line.contains(part)),
            "{part}: {handed}"
        );
    }
    assert!(
        handed.contains("PIP_INDEX_URL=http://127.0.0.1:9/simple") && handed.contains("HTTPS_PROXY="),
        "{handed}"
    );
    assert!(!handed.contains("canary"), "{handed}");
}
