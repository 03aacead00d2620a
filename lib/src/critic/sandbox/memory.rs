//! Memory of a whole process tree: limits of the kernel without cgroups bind single processes, and a candidate may start
//! many.
//!
//! The tree is walked by the kernel's lists of children, which take well under a millisecond to read. Where a kernel does
//! not have them (no `CONFIG_PROC_CHILDREN`), only the limits of single processes hold.

use std::{fs, time::Duration};

use rustix::process::{Pid, Signal};
use tokio::task::AbortHandle;

/// Most memory of one sandbox. Streamlit with a large table takes a tenth.
const LIMIT: u64 = 3 << 30;
/// Two cores fill a few hundred megabytes in that time.
const EVERY: Duration = Duration::from_millis(150);

/// Kills a tree that takes too much, for as long as this lives: the leader must not be reaped before.
#[derive(Debug)]
pub(in crate::critic) struct Watch(AbortHandle);

impl Watch {
    /// Watches the tree below `leader`, which leads its process group.
    pub fn over_tree(leader: Option<u32>) -> Option<Self> {
        let leader = Pid::from_raw(leader?.cast_signed())?;
        let kill = move || {
            // It may be gone already.
            let _ = rustix::process::kill_process_group(leader, Signal::KILL);
        };
        Some(Self::over(leader, kill))
    }

    /// Watches the tree below `leader`, which ends by `kill`.
    pub fn over(leader: Pid, kill: impl FnOnce() + Send + 'static) -> Self {
        let leader = leader.as_raw_nonzero().get().cast_unsigned();
        let task = tokio::spawn(async move {
            while !exceeds(leader, LIMIT) {
                tokio::time::sleep(EVERY).await;
            }
            kill();
        });
        Self(task.abort_handle())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Resident memory counts shared pages once for each process, so it only tells when to look closer.
fn exceeds(leader: u32, limit: u64) -> bool {
    let tree = tree(leader);
    let sum = |of: fn(u32) -> Option<u64>| tree.iter().filter_map(|pid| of(*pid)).sum::<u64>();
    sum(resident) > limit && sum(proportional) > limit
}

/// The leader and all that came from it. Orphans belong to the first process of their pid namespace, which is below the
/// leader too.
fn tree(leader: u32) -> Vec<u32> {
    let mut found = vec![leader];
    let mut next = 0;
    while let Some(pid) = found.get(next).copied() {
        next += 1;
        for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            found.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        }
    }
    found
}

/// Bytes in memory, shared pages in full.
fn resident(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = text.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// Bytes in memory, shared pages in equal parts; in full where the kernel does not say.
fn proportional(pid: u32) -> Option<u64> {
    let pss = || {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    pss().map(|kilobytes| kilobytes * 1024).or_else(|| resident(pid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_has_its_children_and_their_memory() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let own = tree(std::process::id());
        assert!(own.contains(&child.id()), "{own:?}");
        let alone = tree(child.id());
        assert_eq!(alone, [child.id()]);
        assert!(resident(child.id()).unwrap() > 0);
        assert!(!exceeds(child.id(), LIMIT) && exceeds(std::process::id(), 1));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!exceeds(child.id(), 1), "what is gone takes nothing");
    }
}
