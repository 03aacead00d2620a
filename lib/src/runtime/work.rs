//! What the parts of set-up work with: the cache's lock, the display, and programs that end when set-up does.
//!
//! A program that outlives a killed set-up would go on writing into what the next one makes. So it dies with the process
//! that started it, and what it started itself, which the kernel tells nothing of that death, holds the lock for as long
//! as it lives: the lock is its standard input. The next set-up waits for the lock.

use std::{path::Path, process::Stdio, time::Duration};

use rustix::process::{Pid, Signal};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

use super::setup::SetupError;
use crate::{
    cancel::Cancel,
    event::{Event, Events, Phase},
    store::{Lock, LockError, StoreError},
};

/// Between two tries to have the lock.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Last lines of a program that are quoted when it fails.
const QUOTED: usize = 6;

/// Set-up under way; nobody else sets up the same cache meanwhile.
pub struct Work<'a> {
    lock: Lock,
    events: &'a Events,
    cancel: &'a Cancel,
}

impl<'a> Work<'a> {
    /// Waits until nobody else works on the cache.
    pub async fn begin(cache: &Path, events: &'a Events, cancel: &'a Cancel) -> Result<Self, SetupError> {
        let path = cache.join("setup.lock");
        loop {
            let owner = match Lock::take(&path) {
                Ok(lock) => return Ok(Self { lock, events, cancel }),
                Err(LockError::Busy { owner, .. }) => owner,
                Err(e) => return Err(e.into()),
            };
            step(events, 0, None, format!("waiting for the set-up that process {owner} began"));
            tokio::select! {
                () = cancel.cancelled() => return Err(SetupError::Cancelled),
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }

    /// Says how far a part is.
    pub fn step(&self, done: u64, total: Option<u64>, note: String) {
        step(self.events, done, total, note);
    }

    /// Runs a program to its end, handing each line of its output to `line`. Its last lines are the reason when it fails.
    pub async fn run(&self, command: &mut Command, mut line: impl FnMut(&str)) -> Result<(), SetupError> {
        let program = command.as_std().get_program().to_string_lossy().into_owned();
        let fail = |why: String| SetupError::Program { program: program.clone(), why };
        let lock = self.lock.share().map_err(|e| fail(e.to_string()))?;
        command.stdin(Stdio::from(lock)).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        end_with_us(command);
        let mut group = Group(command.spawn().map_err(|e| fail(e.to_string()))?);
        let (Some(stdout), Some(stderr)) = (group.0.stdout.take(), group.0.stderr.take()) else {
            return Err(fail("its output could not be read".into()));
        };
        let (mut out, mut err) = (BufReader::new(stdout).lines(), BufReader::new(stderr).lines());
        let mut last: Vec<String> = Vec::new();
        let (mut out_open, mut err_open) = (true, true);
        while out_open || err_open {
            let text = tokio::select! {
                () = self.cancel.cancelled() => return Err(SetupError::Cancelled),
                text = out.next_line(), if out_open => { let t = text.ok().flatten(); out_open = t.is_some(); t }
                text = err.next_line(), if err_open => { let t = text.ok().flatten(); err_open = t.is_some(); t }
            };
            if let Some(text) = text {
                line(text.trim());
                last.push(text);
                if last.len() > QUOTED {
                    last.remove(0);
                }
            }
        }
        let status = group.0.wait().await.map_err(|e| fail(e.to_string()))?;
        if status.success() {
            Ok(())
        } else if self.cancel.is_cancelled() {
            // Whoever stopped us may have stopped it too.
            Err(SetupError::Cancelled)
        } else {
            Err(fail(format!("{status}; it said: {}", last.join(" | "))))
        }
    }
}

fn step(events: &Events, done: u64, total: Option<u64>, note: String) {
    events.emit(Event::Progress { phase: Phase::Setup, done, total, note });
}

/// Out of reach of the terminal's Ctrl-C, which is ours to answer, and killed with the process that started it.
fn end_with_us(command: &mut Command) {
    command.process_group(0);
    let prepare = || Ok(rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?);
    // SAFETY: between fork and exec only the system call prctl is made, on the child itself.
    unsafe {
        command.pre_exec(prepare);
    }
}

/// A program and all that it starts; killed when it is dropped before it was waited for.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        // None once it was waited for: until then the number is still its own.
        if let Some(leader) = self.0.id().and_then(|id| Pid::from_raw(id.cast_signed())) {
            // It may be gone already.
            let _ = rustix::process::kill_process_group(leader, Signal::KILL);
        }
    }
}

/// Removes what set-ups that were killed left behind: under the lock, nobody writes there any more.
pub fn clear_partial(cache: &Path) -> Result<(), StoreError> {
    let entries = std::fs::read_dir(cache).map_err(|e| StoreError::new("read", cache, e))?;
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PARTIAL)) {
            std::fs::remove_dir_all(&path).map_err(|e| StoreError::new("clear", &path, e))?;
        }
    }
    Ok(())
}

/// Begin of the names of folders in the cache that are worth nothing unfinished.
pub const PARTIAL: &str = "partial-";

#[cfg(test)]
mod tests {
    use super::*;

    async fn run(script: &str, cancel: &Cancel) -> Result<(), SetupError> {
        let folder = tempfile::tempdir().unwrap();
        let events = Events::none();
        let work = Work::begin(folder.path(), &events, cancel).await.unwrap();
        work.run(Command::new("sh").args(["-c", script]), |_| {}).await
    }

    #[tokio::test]
    async fn a_failing_program_is_quoted() {
        let script = "echo first; echo no space left >&2; exit 3";
        let error = run(script, &Cancel::new()).await.unwrap_err();
        assert!(error.to_string().contains("no space left"), "{error}");
    }

    #[tokio::test]
    async fn a_cancel_stops_a_hanging_program() {
        let cancel = Cancel::new();
        cancel.cancel();
        let error = run("sleep 60", &cancel).await.unwrap_err();
        assert!(matches!(error, SetupError::Cancelled), "{error}");
    }

    /// Whoever is told to stop may see its program end first.
    #[tokio::test]
    async fn a_program_that_ends_with_a_stop_is_no_fault() {
        let (cancel, folder) = (Cancel::new(), tempfile::tempdir().unwrap());
        let events = Events::none();
        let work = Work::begin(folder.path(), &events, &cancel).await.unwrap();
        let stop = |_: &str| cancel.cancel();
        let script = "echo going; exec >&- 2>&-; kill -TERM $$";
        let error = work.run(Command::new("sh").args(["-c", script]), stop).await.unwrap_err();
        assert!(matches!(error, SetupError::Cancelled), "{error}");
    }

    #[tokio::test]
    async fn the_lock_is_held_by_what_a_program_leaves_behind() {
        let (cancel, folder) = (Cancel::new(), tempfile::tempdir().unwrap());
        let events = Events::none();
        let work = Work::begin(folder.path(), &events, &cancel).await.unwrap();
        let path = folder.path().join("late");
        let script = format!("exec 3<&0; sh -c 'sleep 1; touch {}' <&3 >/dev/null 2>&1 &", path.display());
        work.run(Command::new("sh").args(["-c", &script]), |_| {}).await.unwrap();
        drop(work);
        Work::begin(folder.path(), &events, &cancel).await.unwrap();
        assert!(path.exists(), "begun beside another writer");
    }

    #[test]
    fn only_partial_folders_are_cleared() {
        let cache = tempfile::tempdir().unwrap();
        for name in ["partial-x/tmp", "weights", "venv-1"] {
            std::fs::create_dir_all(cache.path().join(name)).unwrap();
        }
        clear_partial(cache.path()).unwrap();
        assert!(!cache.path().join("partial-x").exists());
        assert!(cache.path().join("weights").exists() && cache.path().join("venv-1").exists());
    }
}
