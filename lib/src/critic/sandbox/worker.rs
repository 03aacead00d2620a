//! One single-use worker: started or forked, given one job, killed.

use std::{
    collections::BTreeMap,
    os::{fd::OwnedFd, unix::net::UnixListener},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use serde::Deserialize;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader},
    net::UnixStream,
    process::{ChildStdout, Command},
    time::timeout,
};

use super::{
    Job, SandboxSpec,
    memory::Watch,
    parent::{self, Forked, NoFork, Parent},
    process::Tree,
    spec::Role,
};
use crate::{critic::error::CriticError, store::StoreError};

/// Importing Streamlit takes about a second, several on a loaded machine.
pub(super) const START: Duration = Duration::from_secs(60);
/// Longest message of a worker that starts or fails to, in bytes.
pub(super) const LONGEST: u64 = 16 * 1024;
/// How long the kernel may take to end a killed process tree.
const END: Duration = Duration::from_secs(5);

/// A worker that has imported everything and waits for its job.
#[derive(Debug)]
pub(crate) struct Worker {
    /// Ends before the processes do, so that what it kills by is theirs.
    watch: Option<Watch>,
    processes: Processes,
    folder: TempDir,
    pub versions: BTreeMap<String, String>,
    /// Calls that no user interface needs are refused.
    pub seccomp: bool,
}

/// What there is to kill.
#[derive(Debug)]
enum Processes {
    Started(Box<Launched>),
    Forked(Forked),
}

/// What a worker says when it is ready, or cannot be.
#[derive(Deserialize)]
pub(super) struct Ready {
    pub ready: bool,
    #[serde(default)]
    pub why: String,
    /// The kernel refuses it what no user interface needs.
    #[serde(default)]
    seccomp: bool,
    #[serde(default)]
    versions: BTreeMap<String, String>,
}

/// Bubblewrap with a Python inside that has imported everything.
#[derive(Debug)]
pub(super) struct Launched {
    pub tree: Tree,
    stdout: BufReader<ChildStdout>,
}

/// Starts bubblewrap and waits until what runs inside says that it is ready.
pub(super) async fn launch(
    spec: &SandboxSpec,
    command: Command,
    stdin: Stdio,
) -> Result<Launched, CriticError> {
    launch_ready(spec, command, stdin).await.map(|(launched, _)| launched)
}

async fn launch_ready(
    spec: &SandboxSpec,
    mut command: Command,
    stdin: Stdio,
) -> Result<(Launched, Ready), CriticError> {
    command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
    let program = spec.bwrap.display();
    let child = command.spawn();
    // The command holds the other end of standard input, which has to go when the child does.
    drop(command);
    let child = child.map_err(|e| CriticError::NoSandbox(format!("cannot start `{program}`: {e}")))?;
    let mut tree = Tree::new(child);
    let lost = || CriticError::Internal("a sandbox has no standard streams".to_owned());
    let mut stdout = BufReader::new(tree.child().stdout.take().ok_or_else(lost)?);
    let stderr = tree.child().stderr.take().ok_or_else(lost)?;
    let mut line = String::new();
    let said = timeout(START, (&mut stdout).take(LONGEST).read_line(&mut line)).await;
    match serde_json::from_str::<Ready>(&line) {
        Ok(ready) if ready.ready => Ok((Launched { tree, stdout }, ready)),
        _ if said.is_err() => {
            tree.end().await;
            Err(CriticError::NoSandbox(format!("no worker within {} s", START.as_secs())))
        }
        _ => {
            tree.end().await;
            Err(explain(spec, read_capped(stderr).await.trim()))
        }
    }
}

impl Worker {
    /// Starts a worker and waits until it is ready. `slot` tells workers that live at once apart.
    pub async fn start(spec: &SandboxSpec, slot: u32, wait_seconds: u64) -> Result<Self, CriticError> {
        let (folder, listener) = listen()?;
        let command = spec.command(Role::Worker, slot, wait_seconds);
        let (mut launched, ready) = launch_ready(spec, command, Stdio::from(OwnedFd::from(listener))).await?;
        let watch = Watch::over_tree(launched.tree.child().id());
        let Ready { versions, seccomp, .. } = ready;
        Ok(Self { watch, processes: Processes::Started(Box::new(launched)), folder, versions, seccomp })
    }

    /// As [`Self::start`], by a fork of a parent that has everything imported.
    pub(super) async fn fork(
        parent: &Parent,
        spec: &SandboxSpec,
        slot: u32,
    ) -> Result<Result<Self, NoFork>, CriticError> {
        let (folder, listener) = listen()?;
        let (forked, ready) = match parent.fork(spec.uid(slot), listener).await {
            Ok(worker) => worker,
            Err(why) => return Ok(Err(why)),
        };
        let watch = forked.name().ok().map(|name| Watch::over(forked.pid, move || parent::kill(&name)));
        let Ready { versions, seccomp, .. } = ready;
        Ok(Ok(Self { watch, processes: Processes::Forked(forked), folder, versions, seccomp }))
    }

    /// Whether it came from a parent.
    pub fn is_forked(&self) -> bool {
        matches!(self.processes, Processes::Forked(_))
    }

    /// Hands over the job; the app's server answers on [`Self::socket`] soon after.
    pub async fn give(&self, job: &Job) -> std::io::Result<()> {
        let mut line = serde_json::to_vec(job).map_err(std::io::Error::other)?;
        line.push(b'\n');
        let mut stream = UnixStream::connect(self.socket()).await?;
        stream.write_all(&line).await?;
        // The worker closes this connection when its limits are set.
        stream.read(&mut [0]).await.map(|_| ())
    }

    /// The unix socket that the app's server listens on.
    pub fn socket(&self) -> PathBuf {
        socket(self.folder.path())
    }

    /// Kills everything in the sandbox and waits for its end.
    pub async fn kill(mut self) {
        drop(self.watch.take());
        match &mut self.processes {
            Processes::Forked(forked) => forked.end().await,
            Processes::Started(launched) => {
                let Launched { tree, stdout } = &mut **launched;
                tree.end().await;
                // All processes inside share this pipe: its end is theirs.
                let mut rest = [0; 1024];
                let drained = async { while matches!(stdout.read(&mut rest).await, Ok(n) if n > 0) {} };
                let _ = timeout(END, drained).await;
            }
        }
    }
}

fn socket(folder: &Path) -> PathBuf {
    folder.join("app.sock")
}

/// A folder that nobody inside sees, with the socket that a worker listens on.
fn listen() -> Result<(TempDir, UnixListener), CriticError> {
    let no_folder = |e| StoreError::new("make a folder in", "the temporary folder", e);
    let folder = tempfile::Builder::new().prefix(&super::spec::name()).tempdir().map_err(no_folder)?;
    let no_socket = |e| CriticError::NoSandbox(format!("cannot listen on a unix socket: {e}"));
    let listener = UnixListener::bind(socket(folder.path())).map_err(no_socket)?;
    Ok((folder, listener))
}

/// Bubblewrap's own complaint is about the sandbox, Python's about the environment.
fn explain(spec: &SandboxSpec, message: &str) -> CriticError {
    let last = message.lines().last().unwrap_or("it ended without a message").to_owned();
    if message.contains("Traceback") || message.contains("No module named") {
        return CriticError::Runtime { python: spec.python.clone(), why: last };
    }
    CriticError::NoSandbox(last)
}

async fn read_capped(stream: impl AsyncRead + Unpin) -> String {
    let mut bytes = Vec::new();
    let mut capped = stream.take(LONGEST);
    let _ = timeout(END, capped.read_to_end(&mut bytes)).await;
    String::from_utf8_lossy(&bytes).into_owned()
}
