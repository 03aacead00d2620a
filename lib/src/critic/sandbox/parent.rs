//! A parent that has imported everything once and forks workers, each into namespaces of its own.
//!
//! A fork takes milliseconds where an import takes a second. It costs no wall between candidates: the parent runs no line
//! of any of them and hears nothing from them, and a worker has its own processes, mounts, network and names before it is
//! given a job, with a uid of its own or in a user namespace of its own. What workers share is what the parent had read,
//! pages of memory that are copied when somebody writes, and with them the places of libraries in memory.

use std::{
    io::{IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::{UnixListener, UnixStream},
    },
    process::Stdio,
};

use rustix::{
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, SocketFlags, SocketType, sockopt,
    },
    process::{Pid, PidfdFlags, Signal},
};

use super::{
    SandboxSpec,
    process::Tree,
    spec::Role,
    worker::{LONGEST, Ready, START, launch},
};
use crate::critic::error::CriticError;

/// A parent that waits to be asked.
#[derive(Debug)]
pub(super) struct Parent {
    control: OwnedFd,
    _tree: Tree,
}

/// A forked worker: the first process of its own namespace of processes, with which all of them end.
#[derive(Debug)]
pub(super) struct Forked {
    /// Names the process itself, not a number that another may have after it.
    process: OwnedFd,
    pub pid: Pid,
    /// All processes of the worker share the other end.
    lifeline: UnixStream,
}

/// Why there is no worker.
pub(super) enum NoFork {
    /// The parent is gone.
    Lost,
    /// The machine does not let it: namespaces within namespaces are refused.
    Refused(String),
}

impl Parent {
    /// Starts a parent and waits until it has imported everything.
    pub async fn start(spec: &SandboxSpec, wait_seconds: u64) -> Result<Self, CriticError> {
        let pair =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None);
        let (control, theirs) =
            pair.map_err(|e| CriticError::Internal(format!("no pair of sockets for a sandbox: {e}")))?;
        let command = spec.command(Role::Parent, 0, wait_seconds);
        let launched = launch(spec, command, Stdio::from(theirs)).await?;
        Ok(Self { control, _tree: launched.tree })
    }

    /// A worker that listens on `listener`, as the user `uid` when Hone is root.
    pub async fn fork(&self, uid: Option<u32>, listener: UnixListener) -> Result<(Forked, Ready), NoFork> {
        let lost = |_| NoFork::Lost;
        let (ours, theirs) = UnixStream::pair().map_err(lost)?;
        sockopt::set_socket_passcred(&ours, true).map_err(|_| NoFork::Lost)?;
        ours.set_read_timeout(Some(START)).map_err(lost)?;
        self.ask(uid, &listener, &theirs).map_err(|_| NoFork::Lost)?;
        // The worker has these now; while they are open here, their end would not be seen.
        drop((listener, theirs));
        let heard = tokio::task::spawn_blocking(move || first_words(&ours).map(|heard| (ours, heard)));
        let (lifeline, (pid, line)) = heard.await.map_err(|_| NoFork::Lost)?.map_err(lost)?;
        let ready: Ready = serde_json::from_slice(&line).map_err(|_| NoFork::Lost)?;
        if !ready.ready {
            return Err(NoFork::Refused(ready.why));
        }
        // It lives: it waits for a job.
        let process = rustix::process::pidfd_open(pid, PidfdFlags::empty());
        let process = process.map_err(|e| NoFork::Refused(format!("pidfd_open: {e}")))?;
        Ok((Forked { process, pid, lifeline }, ready))
    }

    fn ask(
        &self,
        uid: Option<u32>,
        listener: &UnixListener,
        lifeline: &UnixStream,
    ) -> rustix::io::Result<()> {
        let message = serde_json::json!({ "uid": uid }).to_string();
        let fds = [listener.as_fd(), lifeline.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        ancillary.push(SendAncillaryMessage::ScmRights(&fds));
        let parts = [IoSlice::new(message.as_bytes())];
        rustix::net::sendmsg(&self.control, &parts, &mut ancillary, SendFlags::NOSIGNAL).map(drop)
    }
}

/// The first line that a worker says, and the worker's pid as this process sees it: the kernel adds that.
fn first_words(stream: &UnixStream) -> std::io::Result<(Pid, Vec<u8>)> {
    let (mut line, mut from) = (Vec::new(), None);
    while line.last() != Some(&b'\n') && line.len() < LONGEST as usize {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut bytes = [0; 1024];
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let received = rustix::net::recvmsg(stream, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmCredentials(sender) = message {
                from = Some(sender.pid);
            }
        }
        if received.bytes == 0 {
            break;
        }
        line.extend_from_slice(&bytes[..received.bytes]);
    }
    let from = from.ok_or(std::io::ErrorKind::UnexpectedEof)?;
    Ok((from, line))
}

impl Forked {
    /// A second name of the process, to kill it by from elsewhere.
    pub fn name(&self) -> std::io::Result<OwnedFd> {
        self.process.try_clone()
    }

    /// Kills every process of the worker; their end is that of the lifeline.
    pub async fn end(&mut self) {
        kill(&self.process);
        let Ok(lifeline) = self.lifeline.try_clone() else { return };
        let drained = tokio::task::spawn_blocking(move || {
            // The timeout that the first words had holds here too.
            let _ = std::io::copy(&mut &lifeline, &mut std::io::sink());
        });
        let _ = drained.await;
    }
}

impl Drop for Forked {
    fn drop(&mut self) {
        kill(&self.process);
    }
}

/// The process may be gone already.
pub(super) fn kill(process: &OwnedFd) {
    let _ = rustix::process::pidfd_send_signal(process, Signal::KILL);
}
