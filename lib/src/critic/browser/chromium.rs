//! One Chromium in a sandbox of its own: bubblewrap without network around it, and Chromium's own sandbox around each
//! page.
//!
//! The network namespace holds a loopback and nothing else. Its listening sockets are handed to this process, which is
//! all that a page can reach: no host, no other port, no other candidate.

use std::{
    ffi::OsString,
    net::TcpListener as StdListener,
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::Path,
    process::Stdio,
    time::Duration,
};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use serde_json::json;
use tokio::{net::TcpListener, process::Command, time::timeout};

use super::cdp::Cdp;
use crate::critic::{
    error::CriticError,
    sandbox::{SandboxSpec, Tree, Watch},
};

const LAUNCH: &str = include_str!("launch.py");
/// From start to the first answer; half a second when nothing else runs.
const START: Duration = Duration::from_secs(60);
/// The first port; see launch.py.
pub(super) const FIRST_PORT: u16 = 8501;
/// Most pages shown at once.
pub(super) const MOST_SLOTS: usize = 8;
/// The language that both witnesses say they speak; see [`FLAGS`].
pub(in crate::critic) const LOCALE: &str = "en-US";
/// The place among the uids of a critic's sandboxes that is the browser's.
const SLOT: u32 = 62;

const FLAGS: &[&str] = &[
    "--headless=new",
    "--remote-debugging-pipe",
    "--user-data-dir=/tmp/profile",
    "--window-size=1280,800",
    "--lang=en-US",
    "--disable-gpu",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-background-timer-throttling",
    "--disable-backgrounding-occluded-windows",
    "--disable-renderer-backgrounding",
    "--disable-breakpad",
    "--disable-crash-reporter",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-sync",
    "--disable-quic",
    "--disable-features=Translate,OptimizationHints,MediaRouter,DialMediaRouteProvider",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
    "--force-color-profile=srgb",
    "--hide-scrollbars",
    "--mute-audio",
    "--js-flags=--max-old-space-size=512",
    "about:blank",
];

/// A browser that runs, with the sockets that its pages may reach.
pub(super) struct Chromium {
    pub cdp: Cdp,
    /// One for each page that may be shown at once; port [`FIRST_PORT`] and following inside.
    pub listeners: Vec<TcpListener>,
    pub version: String,
    _watch: Option<Watch>,
    _tree: Tree,
}

impl Chromium {
    pub async fn start(spec: &SandboxSpec, program: &Path, slots: usize) -> Result<Self, CriticError> {
        let (ours, theirs) = UnixStream::pair().map_err(|e| broken(format!("no socket pair: {e}")))?;
        let mut command = command(spec, program, slots);
        command.stdin(Stdio::from(OwnedFd::from(theirs)));
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let started = command.spawn();
        // The command holds the other end of the socket: it has to go for the socket to end with the browser.
        drop(command);
        let mut tree = Tree::new(started.map_err(|e| broken(format!("cannot start: {e}")))?);
        let watch = Watch::over_tree(tree.child().id());
        let receive = tokio::task::spawn_blocking(move || receive(&ours, slots).map(|fds| (ours, fds)));
        let received = timeout(START, receive).await;
        let (ours, fds) = received
            .map_err(|_| broken("it does not start".to_owned()))?
            .map_err(|e| CriticError::Internal(e.to_string()))?
            .map_err(|e| broken(format!("it ended at its start: {e}")))?;
        let listeners = fds.into_iter().map(listener).collect::<std::io::Result<Vec<_>>>();
        let listeners = listeners.map_err(|e| broken(format!("its sockets cannot be used: {e}")))?;
        let cdp = Cdp::new(ours).map_err(|e| broken(format!("its pipe cannot be used: {e}")))?;
        let about = cdp.call(None, "Browser.getVersion", json!({}), START).await;
        let about = about.map_err(|e| broken(format!("it does not answer: {e:?}")))?;
        let version = about["product"].as_str().unwrap_or("unknown").to_owned();
        let version = version.rsplit('/').next().unwrap_or_default().to_owned();
        Ok(Self { cdp, listeners, version, _watch: watch, _tree: tree })
    }
}

fn broken(why: String) -> CriticError {
    CriticError::Browser(why)
}

fn listener(fd: OwnedFd) -> std::io::Result<TcpListener> {
    let listener = StdListener::from(fd);
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// The sockets that the launcher sends with its first byte.
fn receive(control: &UnixStream, slots: usize) -> std::io::Result<Vec<OwnedFd>> {
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_SLOTS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let mut buffers = [std::io::IoSliceMut::new(&mut byte)];
    let received = rustix::net::recvmsg(control, &mut buffers, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    let mut fds = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    if received.bytes == 1 && fds.len() == slots {
        Ok(fds)
    } else {
        Err(std::io::ErrorKind::UnexpectedEof.into())
    }
}

fn command(spec: &SandboxSpec, program: &Path, slots: usize) -> Command {
    let mut command = Command::new(&spec.bwrap);
    command.env_clear().args(arguments(spec, program)).arg("--").args(spec.drop_root(SLOT)).arg(&spec.python);
    command.args(["-s", "-P", "-B", "-c", LAUNCH]).arg(slots.to_string()).arg(program).args(FLAGS);
    command.current_dir("/").kill_on_drop(true);
    crate::critic::sandbox::isolate(&mut command);
    command
}

fn arguments(spec: &SandboxSpec, program: &Path) -> Vec<OsString> {
    let mut list = spec.namespaces();
    let mut add = |words: &[&str]| list.extend(words.iter().map(OsString::from));
    add(&["--ro-bind", "/usr", "/usr"]);
    add(&["--ro-bind-try", "/etc/fonts", "/etc/fonts"]);
    add(&["--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache", "--proc", "/proc", "--dev", "/dev"]);
    for folder in ["/tmp", "/dev/shm"] {
        add(&["--perms", "1777", "--size", "536870912", "--tmpfs", folder]);
    }
    list.extend(crate::critic::sandbox::system_folders());
    let own = program.parent().filter(|folder| !folder.starts_with("/usr")).map(Path::to_owned);
    list.extend(spec.bound(own));
    list.extend(["--remount-ro", "/", "--chdir", "/tmp"].map(OsString::from));
    list
}
