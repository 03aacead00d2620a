//! One single-use worker: started, made ready, given one job, killed.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use serde::Deserialize;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader},
    net::UnixStream,
    process::ChildStdout,
    time::timeout,
};

use super::{Job, SandboxSpec, memory::Watch, process::Tree};
use crate::{critic::error::CriticError, store::StoreError};

/// Importing Streamlit takes about a second, several on a loaded machine.
const START: Duration = Duration::from_secs(60);
/// Longest message of a worker that fails to start, in bytes.
const LONGEST: u64 = 16 * 1024;
/// How long the kernel may take to end a killed process tree.
const END: Duration = Duration::from_secs(5);

/// A worker that has imported everything and waits for its job.
#[derive(Debug)]
pub(crate) struct Worker {
    /// Ends before the tree does, so that the number that it kills by is the tree's.
    watch: Option<Watch>,
    tree: Tree,
    stdout: BufReader<ChildStdout>,
    folder: TempDir,
    pub versions: BTreeMap<String, String>,
    /// Calls that no user interface needs are refused.
    pub seccomp: bool,
}

#[derive(Deserialize)]
struct Ready {
    ready: bool,
    /// The kernel refuses it what no user interface needs.
    seccomp: bool,
    versions: BTreeMap<String, String>,
}

impl Worker {
    /// Starts a worker and waits until it is ready. `slot` tells workers that live at once apart.
    pub async fn start(spec: &SandboxSpec, slot: u32, wait_seconds: u64) -> Result<Self, CriticError> {
        let no_folder = |e| StoreError::new("make a folder in", "the temporary folder", e);
        let folder = tempfile::Builder::new().prefix(&super::spec::name()).tempdir().map_err(no_folder)?;
        let mut tree = spawn(spec, slot, wait_seconds, &socket(folder.path()))?;
        let lost = || CriticError::Internal("a sandbox has no standard streams".to_owned());
        let mut stdout = BufReader::new(tree.child().stdout.take().ok_or_else(lost)?);
        let stderr = tree.child().stderr.take().ok_or_else(lost)?;
        let mut line = String::new();
        let said = timeout(START, (&mut stdout).take(LONGEST).read_line(&mut line)).await;
        match serde_json::from_str::<Ready>(&line) {
            Ok(ready) if ready.ready => {
                let watch = Watch::over(tree.child().id());
                Ok(Self { watch, tree, stdout, folder, versions: ready.versions, seccomp: ready.seccomp })
            }
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
        self.tree.end().await;
        // All processes inside share this pipe: its end is theirs.
        let mut rest = [0; 1024];
        let drained = async { while matches!(self.stdout.read(&mut rest).await, Ok(n) if n > 0) {} };
        let _ = timeout(END, drained).await;
    }
}

fn socket(folder: &Path) -> PathBuf {
    folder.join("app.sock")
}

fn spawn(spec: &SandboxSpec, slot: u32, wait_seconds: u64, socket: &Path) -> Result<Tree, CriticError> {
    let no_socket = |e| CriticError::NoSandbox(format!("cannot listen on a unix socket: {e}"));
    let listener = std::os::unix::net::UnixListener::bind(socket).map_err(no_socket)?;
    let mut command = spec.command(slot, wait_seconds);
    command.stdin(Stdio::from(std::os::fd::OwnedFd::from(listener)));
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let program = spec.bwrap.display();
    let child = command.spawn();
    child.map(Tree::new).map_err(|e| CriticError::NoSandbox(format!("cannot start `{program}`: {e}")))
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
