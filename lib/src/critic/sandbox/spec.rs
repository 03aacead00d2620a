//! What a sandbox is made of, and bubblewrap's arguments for it.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::Deserialize;
use tokio::process::Command;

use super::{filter::filters, uids::UidBlock};
use crate::critic::error::CriticError;

/// The program that runs inside; see its own text.
const WORKER: &str = include_str!("worker.py");
/// Size of each folder that a candidate may write to (all of them in memory).
const TMPFS: &str = "67108864";
/// Folders of which every worker has its own, empty.
const OWN_FOLDERS: [&str; 2] = ["/tmp", "/app"];
/// The Streamlit whose agent API, messages and elements the critic knows.
const STREAMLIT: &str = "1.67";

/// What the processes and folders of this process's sandboxes are called, for whoever looks for them.
pub(super) fn name() -> String {
    format!("hone-sandbox-{}-", std::process::id())
}

/// What runs inside bubblewrap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// One worker for one candidate.
    Worker,
    /// No candidate, but what forks workers.
    Parent,
}

/// How candidates are kept in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// Hone runs as root: each worker has a uid of its own, so limits on processes bind.
    OwnUid,
    /// Hone runs as a user: a user namespace.
    UserNamespace,
}

impl Isolation {
    pub fn name(self) -> &'static str {
        match self {
            Self::OwnUid => "own-uid",
            Self::UserNamespace => "user-namespace",
        }
    }
}

/// Everything needed to start a worker.
#[derive(Clone, Debug)]
pub struct SandboxSpec {
    /// The virtual environment's Python.
    pub python: PathBuf,
    pub bwrap: PathBuf,
    pub isolation: Isolation,
    /// Of Python and, where it is there, Streamlit.
    pub versions: BTreeMap<String, String>,
    /// Streamlit's package, where it is there.
    pub streamlit: Option<PathBuf>,
    uids: Arc<UidBlock>,
    /// What a worker refuses itself; see [`super::filter`].
    filters: String,
    /// Folders that Python needs beside `/usr`: the virtual environment and its base interpreter.
    folders: Vec<PathBuf>,
}

impl SandboxSpec {
    /// Asks Python where it lives and decides how to isolate.
    pub async fn find(python: &Path, bwrap: &Path) -> Result<Self, CriticError> {
        let Found { folders, versions, streamlit } = ask(python).await?;
        check_streamlit(python, versions.get("streamlit").map(String::as_str))?;
        let root = rustix::process::geteuid().is_root();
        let isolation = if root { Isolation::OwnUid } else { Isolation::UserNamespace };
        let uids = Arc::new(if root { UidBlock::take() } else { UidBlock::default() });
        let (python, bwrap) = (python.to_owned(), bwrap.to_owned());
        Ok(Self {
            python,
            bwrap,
            isolation,
            versions,
            streamlit,
            uids,
            filters: filters(),
            folders: needed(folders),
        })
    }

    /// The uid that only this worker has; none where a user namespace takes its place.
    pub(super) fn uid(&self, slot: u32) -> Option<u32> {
        (self.isolation == Isolation::OwnUid).then(|| self.uids.uid(slot))
    }

    /// Whether workers can be forked: each mounts folders of its own, which would hide an environment that lies below them.
    pub(super) fn can_fork(&self) -> bool {
        let hides = |folder: &PathBuf| OWN_FOLDERS.iter().any(|own| folder.starts_with(own));
        !self.folders.iter().any(hides)
    }

    /// From root to a uid that only this worker has, before Python starts; limits on processes do not bind root.
    pub fn drop_root(&self, slot: u32) -> Vec<String> {
        let Some(uid) = self.uid(slot) else { return Vec::new() };
        let uid = uid.to_string();
        let words =
            ["/usr/bin/setpriv", "--reuid", &uid, "--regid", &uid, "--clear-groups", "--inh-caps=-all"];
        words.into_iter().chain(["--no-new-privs", "--"]).map(str::to_owned).collect()
    }

    /// Bubblewrap with the worker inside. The environment is empty outside too: `/proc/1/environ` shows it inside.
    pub(super) fn command(&self, role: Role, slot: u32, wait_seconds: u64) -> Command {
        let mut command = Command::new(&self.bwrap);
        command.env_clear().args(self.arguments(role));
        let (drop_root, word) = match role {
            Role::Worker => (self.drop_root(slot), "worker"),
            // It gives each worker a uid.
            Role::Parent => (Vec::new(), "parent"),
        };
        command.arg("--").args(drop_root).arg(&self.python);
        command.args(["-s", "-P", "-B", "-c", WORKER]).arg(wait_seconds.to_string()).arg(name());
        command.arg(&self.filters).arg(word);
        command.current_dir("/").kill_on_drop(true);
        super::process::isolate(&mut command);
        command
    }

    /// Namespaces of its own, no capabilities but what dropping root takes, and an empty environment.
    pub fn namespaces(&self) -> Vec<OsString> {
        let mut list: Vec<OsString> = Vec::new();
        let mut add = |words: &[&str]| list.extend(words.iter().map(OsString::from));
        add(&["--unshare-net", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]);
        add(&["--die-with-parent", "--hostname", "sandbox", "--cap-drop", "ALL"]);
        match self.isolation {
            Isolation::OwnUid => add(&["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]),
            Isolation::UserNamespace => add(&["--unshare-user", "--uid", "65534", "--gid", "65534"]),
        }
        add(&["--clearenv", "--setenv", "PATH", "/usr/bin:/bin", "--setenv", "HOME", "/tmp"]);
        add(&["--setenv", "LANG", "C.UTF-8", "--setenv", "TZ", "UTC"]);
        list
    }

    /// The folders that Python needs, and others, as they are and read-only. They come after every tmpfs, which would
    /// hide what lies below it.
    pub fn bound(&self, others: Option<PathBuf>) -> Vec<OsString> {
        let mut list: Vec<OsString> = Vec::new();
        for folder in self.folders.iter().chain(&others) {
            // Bubblewrap makes missing parents private to root.
            for parent in parents(folder) {
                list.extend(["--dir".into(), parent.into()]);
            }
            list.extend(["--ro-bind".into(), folder.into(), folder.into()]);
        }
        list
    }

    fn arguments(&self, role: Role) -> Vec<OsString> {
        let mut list = self.namespaces();
        let mut add = |words: &[&str]| list.extend(words.iter().map(OsString::from));
        if role == Role::Parent && self.isolation == Isolation::OwnUid {
            // To make namespaces, mounts in them, and their loopback; workers have none of it.
            add(&["--cap-add", "CAP_SYS_ADMIN", "--cap-add", "CAP_NET_ADMIN"]);
        }
        add(&["--setenv", "PYTHONHASHSEED", "0"]);
        // One thread each: threads count as processes, and workers share few cores.
        for library in ["OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "ARROW_IO_THREADS"] {
            add(&["--setenv", library, "1"]);
        }
        add(&["--ro-bind", "/usr", "/usr"]);
        list.extend(system_folders());
        let mut add = |words: &[&str]| list.extend(words.iter().map(OsString::from));
        add(&["--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache", "--proc", "/proc", "--dev", "/dev"]);
        for folder in OWN_FOLDERS {
            add(&["--perms", "1777", "--size", TMPFS, "--tmpfs", folder]);
        }
        list.extend(self.bound(None));
        list.extend(["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/app"].map(OsString::from));
        list
    }
}

/// `/bin`, `/lib` and the like, as links where the host has links.
pub(in crate::critic) fn system_folders() -> Vec<OsString> {
    let mut list = Vec::new();
    for folder in ["/bin", "/lib", "/lib64", "/lib32", "/sbin"] {
        let path = Path::new(folder);
        match std::fs::read_link(path) {
            Ok(target) => list.extend(["--symlink".into(), target.into(), folder.into()]),
            Err(_) if path.is_dir() => list.extend(["--ro-bind".into(), folder.into(), folder.into()]),
            Err(_) => {}
        }
    }
    list
}

/// Folders above one, outermost first, without the root and what is there already.
fn parents(folder: &Path) -> Vec<&Path> {
    let above =
        folder.ancestors().skip(1).filter(|parent| *parent != Path::new("/") && *parent != Path::new("/tmp"));
    let mut parents: Vec<&Path> = above.collect();
    parents.reverse();
    parents
}

/// What an interpreter tells about itself.
#[derive(Deserialize)]
struct Found {
    folders: Vec<PathBuf>,
    versions: BTreeMap<String, String>,
    streamlit: Option<PathBuf>,
}

/// Says where it lives and what it has. A missing Streamlit is for the worker to complain of.
const QUESTION: &str = "\
import json, sys
from importlib import metadata, util
versions = {'python': sys.version.split()[0]}
try:
    versions['streamlit'] = metadata.version('streamlit')
except metadata.PackageNotFoundError:
    pass
spec = util.find_spec('streamlit')
streamlit = spec.submodule_search_locations[0] if spec else None
folders = [sys.prefix, sys.base_prefix, sys.exec_prefix]
print(json.dumps({'folders': folders, 'versions': versions, 'streamlit': streamlit}))
";

async fn ask(python: &Path) -> Result<Found, CriticError> {
    let broken = |why: String| CriticError::Runtime { python: python.to_owned(), why };
    let output = Command::new(python)
        .env_clear()
        .args(["-I", "-c", QUESTION])
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|e| broken(format!("it cannot be started: {e}")))?;
    if !output.status.success() {
        return Err(broken(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    serde_json::from_slice(&output.stdout).map_err(|e| broken(format!("its answer cannot be read: {e}")))
}

/// Another Streamlit would be misread rather than refused.
fn check_streamlit(python: &Path, version: Option<&str>) -> Result<(), CriticError> {
    let fits = |version: &str| version.strip_prefix(STREAMLIT).is_some_and(|rest| rest.starts_with('.'));
    let found = match version {
        Some(version) if fits(version) => return Ok(()),
        Some(version) => format!("Streamlit {version}"),
        None => "no Streamlit".to_owned(),
    };
    Err(CriticError::OtherStreamlit { python: python.to_owned(), found, needed: STREAMLIT })
}

/// The folders outside `/usr` that an interpreter needs, outermost first.
fn needed(mut folders: Vec<PathBuf>) -> Vec<PathBuf> {
    // The path may go through links: what they lead to has to be there as well.
    folders.extend(folders.clone().iter().filter_map(|folder| folder.canonicalize().ok()));
    folders.retain(|folder| folder.is_absolute() && !folder.starts_with("/usr") && folder != Path::new("/"));
    folders.sort();
    folders.dedup();
    folders
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(isolation: Isolation, folder: &str) -> SandboxSpec {
        SandboxSpec {
            python: "/opt/venv/bin/python".into(),
            bwrap: "bwrap".into(),
            isolation,
            versions: BTreeMap::new(),
            streamlit: None,
            uids: Arc::default(),
            filters: String::new(),
            folders: vec![folder.into()],
        }
    }

    fn arguments(role: Role, isolation: Isolation) -> String {
        let spec = spec(isolation, "/opt/venv");
        spec.arguments(role).iter().map(|a| a.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn no_path_of_the_host_is_bound_for_writing() {
        for isolation in [Isolation::OwnUid, Isolation::UserNamespace] {
            let arguments =
                format!("{} {}", arguments(Role::Worker, isolation), arguments(Role::Parent, isolation));
            assert!(
                !arguments.split(' ').any(|word| word == "--bind" || word == "--dev-bind"),
                "{arguments}"
            );
            for flag in
                ["--unshare-net", "--unshare-pid", "--die-with-parent", "--clearenv", "--remount-ro /"]
            {
                assert!(arguments.contains(flag), "{flag} in {arguments}");
            }
        }
    }

    #[test]
    fn an_environment_that_workers_would_hide_is_not_forked_from() {
        let forks = |folder| spec(Isolation::OwnUid, folder).can_fork();
        assert!(forks("/opt/venv") && forks("/home/tmp/venv") && forks("/tmpfiles"));
        assert!(!forks("/tmp/venv") && !forks("/app/.venv") && !forks("/app"));
    }

    #[test]
    fn only_the_streamlit_that_is_known_will_do() {
        let check = |version| check_streamlit(Path::new("/p"), version).map_err(|e| e.to_string());
        assert_eq!(check(Some("1.67.0")), Ok(()));
        assert!(check(Some("1.6.7")).unwrap_err().contains("has Streamlit 1.6.7, and 1.67 is needed"));
        assert!(check(Some("1.670.1")).is_err());
        assert!(check(None).unwrap_err().contains("has no Streamlit"));
    }

    #[test]
    fn root_keeps_only_what_dropping_its_uid_takes() {
        let added = |role, isolation| arguments(role, isolation).matches("--cap-add").count();
        assert_eq!(added(Role::Worker, Isolation::OwnUid), 2);
        assert_eq!(added(Role::Parent, Isolation::OwnUid), 4);
        assert!(!arguments(Role::Worker, Isolation::OwnUid).contains("--unshare-user"));
        assert_eq!(added(Role::Worker, Isolation::UserNamespace), 0);
        assert_eq!(added(Role::Parent, Isolation::UserNamespace), 0);
    }
}
