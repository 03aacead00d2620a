//! Where workers come from: forks of a parent where the machine lets it, else each started alone.

use tokio::sync::RwLock;

use super::{
    SandboxSpec, Worker,
    parent::{NoFork, Parent},
};
use crate::critic::error::CriticError;

/// Tries with a parent before each worker is started alone.
const PARENTS: u32 = 3;

/// Makes workers.
#[derive(Debug)]
pub(crate) struct Nursery {
    spec: SandboxSpec,
    wait_seconds: u64,
    way: RwLock<Way>,
}

#[derive(Debug)]
enum Way {
    /// Not known yet, or the parent was lost; how many parents there have been.
    Ask(u32),
    Forked(Box<Parent>, u32),
    Alone,
}

impl Nursery {
    pub fn new(spec: SandboxSpec, wait_seconds: u64) -> Self {
        let way = if spec.can_fork() { Way::Ask(0) } else { Way::Alone };
        Self { spec, wait_seconds, way: RwLock::new(way) }
    }

    /// A worker that is ready. `slot` tells workers that live at once apart.
    pub async fn worker(&self, slot: u32) -> Result<Worker, CriticError> {
        loop {
            let asked = match &*self.way.read().await {
                Way::Alone => return Worker::start(&self.spec, slot, self.wait_seconds).await,
                Way::Forked(parent, _) => Some(Worker::fork(parent, &self.spec, slot).await?),
                Way::Ask(_) => None,
            };
            match asked {
                Some(Ok(worker)) => return Ok(worker),
                None => self.find_way().await?,
                Some(Err(NoFork::Refused(why))) => {
                    tracing::debug!(why, "workers are started one by one");
                    *self.way.write().await = Way::Alone;
                }
                Some(Err(NoFork::Lost)) => {
                    let mut way = self.way.write().await;
                    if let Way::Forked(_, parents) = *way {
                        *way = if parents < PARENTS { Way::Ask(parents) } else { Way::Alone };
                    }
                }
            }
        }
    }

    /// Whoever comes first starts the parent; the others wait for it.
    async fn find_way(&self) -> Result<(), CriticError> {
        let mut way = self.way.write().await;
        if let Way::Ask(parents) = *way {
            let parent = Parent::start(&self.spec, self.wait_seconds).await?;
            *way = Way::Forked(Box::new(parent), parents + 1);
        }
        Ok(())
    }
}
