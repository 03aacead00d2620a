//! A program of the user as an agent: a process for each question, with its own environment and a time limit.
//!
//! It is trusted as the user is: it runs outside of the sandbox, in the workspace. But it gets nothing that it was not
//! given: no variable of ours but those that its row names, a home that is gone afterwards, and when its time is up, or
//! it is done, or we are, everything it started in its process group ends with it.

use std::{
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::{
        Arc,
        atomic::{AtomicI32, Ordering},
    },
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::{Child, Command},
    sync::Semaphore,
};

use super::reply::MAX_REPLY;
use crate::{
    cancel::Cancel,
    model::{
        client::{ModelError, Scrubber, Secret},
        wire::{ChatChoice, ChatReply, Finish},
    },
};

/// How long a program may take for an answer.
const LIMIT: Duration = Duration::from_secs(120);
/// Programs of one row at once: each is a process, and many load an interpreter first.
const AT_ONCE: usize = 4;
/// Bytes of what it says to stderr that an error quotes: the last ones.
const COMPLAINT: usize = 600;
/// What is read beyond what is shown or kept, so that a key across the edge is seen whole.
const EDGE: usize = 16 << 10;
/// Passed values that are shorter are words, not keys.
const LEAST_SECRET: usize = 6;

/// How a program is run.
#[derive(Clone, Debug)]
pub struct Program {
    /// What errors call it.
    pub row: String,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Where it runs: relative names in `command` start there.
    pub folder: PathBuf,
    /// Its environment as the row spells it; part of what the program is.
    pub settings: Vec<(String, String)>,
    /// What it is handed of our environment; values of these never stand in a reply or an error.
    pub passed: Vec<(String, String)>,
    /// Of the machine: where programs are found.
    pub search_path: String,
    pub limit: Duration,
    pub at_once: Arc<Semaphore>,
    pub cancel: Cancel,
}

/// How a process ended and what it said.
struct Ended {
    status: ExitStatus,
    out: Vec<u8>,
    complaint: Vec<u8>,
}

impl Program {
    /// With the usual limits and nothing in its environment.
    pub fn new(row: impl Into<String>, folder: impl Into<PathBuf>) -> Self {
        Self {
            row: row.into(),
            command: Vec::new(),
            folder: folder.into(),
            settings: Vec::new(),
            passed: Vec::new(),
            search_path: String::new(),
            limit: LIMIT,
            at_once: Arc::new(Semaphore::new(AT_ONCE)),
            cancel: Cancel::new(),
        }
    }

    /// Asks with a JSON object on stdin; the reply is what it writes to stdout. One that writes more than
    /// [`MAX_REPLY`] bytes is cut there, and its reply says so.
    ///
    /// # Errors
    /// It cannot be started, takes too long, ends with another code than 0, or is told to stop.
    pub async fn answer(&self, asked: &Value) -> Result<ChatReply, ModelError> {
        let fail = |what: String| ModelError::Endpoint(format!("`models.{}` {what}", self.row));
        let Ok(_turn) = self.at_once.acquire().await else { return Err(ModelError::Cancelled) };
        let home = tempfile::tempdir().map_err(|e| fail(format!("has no home: {e}")))?;
        let mut child =
            self.start(home.path()).map_err(|e| fail(format!("cannot start `{}`: {e}", self.name())))?;
        let group = Group::of(&child);
        let ended = tokio::select! {
            () = self.cancel.cancelled() => return Err(ModelError::Cancelled),
            ended = tokio::time::timeout(self.limit, converse(&mut child, &group, asked)) => ended,
        };
        let ended = ended
            .map_err(|_| fail(format!("gave no answer within {} s (`timeout_s`)", self.limit.as_secs())))?
            .map_err(|e| fail(format!("cannot be waited for: {e}")))?;
        self.reply(ended).map_err(fail)
    }

    fn reply(&self, ended: Ended) -> Result<ChatReply, String> {
        let cut = ended.out.len() > MAX_REPLY;
        if !cut && !ended.status.success() {
            // Secrets are taken out before anything is cut: half of one would not be known any more.
            let complaint = self.without_secrets(&ended.complaint);
            let doubtful = if ended.complaint.len() < COMPLAINT + EDGE { 0 } else { self.longest_secret() };
            let last = complaint.len().saturating_sub(COMPLAINT).max(doubtful.min(complaint.len()));
            let said = complaint[complaint.ceil_char_boundary(last)..].trim();
            let said = if said.is_empty() { "and says nothing" } else { said };
            return Err(format!("ended with {}: {said}", ended.status));
        }
        let mut text = self.without_secrets(&ended.out);
        let doubtful = if ended.out.len() < MAX_REPLY + EDGE { 0 } else { self.longest_secret() };
        text.truncate(text.floor_char_boundary(text.len().saturating_sub(doubtful).min(MAX_REPLY)));
        let finish = if cut { Finish::Length } else { Finish::Complete };
        Ok(reply_of(&self.row, text, &finish))
    }

    /// Bytes of the longest passed value in its longest spelling: where a stream was cut, so many may be a part of it.
    fn longest_secret(&self) -> usize {
        3 * self.passed.iter().map(|(_, value)| value.len()).max().unwrap_or_default()
    }

    fn name(&self) -> &str {
        self.command.first().map_or("", String::as_str)
    }

    fn start(&self, home: &Path) -> std::io::Result<Child> {
        Command::new(self.name())
            .args(self.command.iter().skip(1))
            .current_dir(&self.folder)
            .env_clear()
            .env("PATH", &self.search_path)
            .env("HOME", home)
            .env("LANG", "C.UTF-8")
            .envs(self.passed.iter().map(|(name, value)| (name, value)))
            .envs(self.settings.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
    }

    /// The text without the values of passed variables, in any form in which a key is known to be repeated: replies are kept,
    /// and errors are shown.
    fn without_secrets(&self, bytes: &[u8]) -> String {
        let mut text = String::from_utf8_lossy(bytes).into_owned();
        for (name, value) in self.passed.iter().filter(|(_, value)| value.len() >= LEAST_SECRET) {
            let scrubber = Scrubber::new([&Secret::new(value.as_str())]).marking(&format!("[{name}]"));
            text = scrubber.words(&text);
        }
        text
    }
}

/// Writes the question, reads what comes until the process ends or says too much, and ends what it left behind.
async fn converse(child: &mut Child, group: &Group, asked: &Value) -> std::io::Result<Ended> {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let feed = async {
        if let Some(mut stdin) = stdin {
            // A program need not listen.
            let _ = stdin.write_all(format!("{asked}\n").as_bytes()).await;
        }
    };
    let listen = async {
        let mut out = Vec::new();
        if let Some(stdout) = stdout {
            let _ = stdout.take((MAX_REPLY + EDGE) as u64).read_to_end(&mut out).await;
        }
        if out.len() > MAX_REPLY {
            group.end();
        }
        out
    };
    let end = async {
        let status = child.wait().await;
        // What it left running holds its pipes open.
        group.end();
        status
    };
    let ((), out, complaint, status) = tokio::join!(feed, listen, tail(stderr), end);
    Ok(Ended { status: status?, out, complaint })
}

/// The last bytes of a stream, which is read to its end.
async fn tail(stream: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let (mut kept, mut buffer) = (Vec::new(), [0; 4096]);
    let Some(mut stream) = stream else { return kept };
    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
        kept.extend_from_slice(&buffer[..read]);
        let over = kept.len().saturating_sub(COMPLAINT + EDGE);
        kept.drain(..over);
    }
    kept
}

/// The processes of one question, by the number of the first. They end when this is dropped, however that comes.
struct Group(AtomicI32);

impl Group {
    fn of(child: &Child) -> Self {
        Self(AtomicI32::new(child.id().and_then(|id| i32::try_from(id).ok()).unwrap_or(0)))
    }

    /// Once: later the number may be somebody else's.
    fn end(&self) {
        if let Some(pid) = Pid::from_raw(self.0.swap(0, Ordering::AcqRel)) {
            // That nobody is left is what is wanted.
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.end();
    }
}

/// A reply as a chat model would have given it.
pub(super) fn reply_of(model: &str, text: impl Into<String>, finish: &Finish) -> ChatReply {
    let choices = vec![ChatChoice::new(0, text, finish.as_str())];
    ChatReply { choices, service_tier: None, system_fingerprint: None, ..ChatReply::new("", 0, model) }
}
