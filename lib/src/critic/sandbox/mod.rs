//! Single-use sandboxes: each candidate runs once in a process tree of its own and everything of it is killed after.
//!
//! A worker is a Python process in bubblewrap without network, with an empty environment, an unprivileged uid and no
//! writable path of the host. It has Streamlit imported before it is given anything, so a few are kept warm ahead of demand.
//! It inherits one listening unix socket; the file of that socket is outside its view.
//!
//! Where the machine lets it, a [`parent`] forks workers into namespaces of their own, which takes a fifth of the time;
//! elsewhere each is a bubblewrap of its own ([`nursery`] knows). Why not a fork server whose children share one sandbox:
//! one that breaks out of its process would meet the others.

mod filter;
mod job;
mod memory;
mod nursery;
mod parent;
mod pool;
mod process;
mod spec;
mod uids;
mod worker;

pub(crate) use job::Job;
pub(in crate::critic) use memory::Watch;
pub(crate) use nursery::Nursery;
pub(crate) use pool::{Lease, Pool};
pub(in crate::critic) use process::{Tree, isolate};
pub(crate) use spec::SandboxSpec;
pub(in crate::critic) use spec::system_folders;
pub(crate) use worker::Worker;
