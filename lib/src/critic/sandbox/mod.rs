//! Single-use sandboxes: each candidate runs once in a process tree of its own and everything of it is killed after.
//!
//! A worker is a Python process in bubblewrap without network, with an empty environment, an unprivileged uid and no
//! writable path of the host. It imports Streamlit before it is given anything, so a few are kept warm ahead of demand.
//! It inherits one listening unix socket; the file of that socket is outside its view. Why not a fork server inside one
//! sandbox: candidates would share it, and one that breaks out of its child meets the others.

mod filter;
mod job;
mod memory;
mod pool;
mod process;
mod spec;
mod uids;
mod worker;

pub(crate) use job::Job;
pub(in crate::critic) use memory::Watch;
pub(crate) use pool::{Lease, Pool};
pub(in crate::critic) use process::{Tree, isolate};
pub(crate) use spec::SandboxSpec;
pub(in crate::critic) use spec::system_folders;
pub(crate) use worker::Worker;
