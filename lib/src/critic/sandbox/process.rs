//! A process tree that can be ended whole.
//!
//! The outermost process leads a session of its own, so everything that bubblewrap starts before the candidate stays in
//! its process group: killing the group reaches bubblewrap's inner process at any moment of its start, and with that
//! process, the first of its pid namespace, the kernel ends the rest. Bubblewrap's own `--new-session` would take the
//! inner process out of the group, and its `--die-with-parent` alone leaves it behind when the outer one is killed early.

use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::{
    process::{Child, Command},
    time::timeout,
};

/// How long the kernel may take to end a killed process tree.
const END: Duration = Duration::from_secs(5);
/// Descriptors beyond this number are not closed on kernels before 5.11.
const MOST_FDS: libc::c_int = 4096;

/// Makes the command lead a session and inherit nothing but its standard streams.
///
/// What this process itself inherited without close-on-exec would otherwise reach the candidate.
pub(in crate::critic) fn isolate(command: &mut Command) {
    let prepare = || {
        rustix::process::setsid()?;
        close_inherited();
        Ok(())
    };
    // SAFETY: between fork and exec only the system calls setsid, close_range and fcntl are made, which allocate nothing
    // and take no lock; they touch descriptors of the child alone.
    unsafe {
        command.pre_exec(prepare);
    }
}

/// Marks every descriptor above the standard streams to be closed on exec.
fn close_inherited() {
    // SAFETY: plain system calls on numbers; a number that is no descriptor is an error without effect.
    unsafe {
        let flags = libc::CLOSE_RANGE_CLOEXEC;
        if libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, flags) != 0 {
            for fd in 3..MOST_FDS {
                libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC);
            }
        }
    }
}

/// A child that [`isolate`] made the leader of its tree; dropping it kills the tree.
#[derive(Debug)]
pub(in crate::critic) struct Tree {
    child: Child,
    ended: bool,
}

impl Tree {
    pub fn new(child: Child) -> Self {
        Self { child, ended: false }
    }

    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Kills everything and reaps the leader.
    pub async fn end(&mut self) {
        self.kill();
        let _ = timeout(END, self.child.wait()).await;
        self.ended = true;
    }

    /// The leader is killed too, in case it was not yet a leader, and the group again, for what it started meanwhile. It
    /// is not reaped in between, so its number is still its own.
    fn kill(&mut self) {
        let Some(group) = self.child.id().and_then(|id| Pid::from_raw(id.cast_signed())) else { return };
        // Each may be gone already.
        let _ = rustix::process::kill_process_group(group, Signal::KILL);
        let _ = self.child.start_kill();
        let _ = rustix::process::kill_process_group(group, Signal::KILL);
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        if !self.ended {
            self.kill();
        }
    }
}
