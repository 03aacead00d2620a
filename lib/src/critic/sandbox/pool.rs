//! Workers that are ready before they are asked for.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::{
    sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc},
    task::JoinHandle,
};

use super::{Nursery, Worker};
use crate::{cancel::Cancel, critic::error::CriticError};

/// A worker with its place among those that live at once.
pub(crate) struct Lease {
    pub worker: Worker,
    slot: Slot,
}

impl Lease {
    /// Ends the worker; only then is its place free.
    pub async fn close(self) {
        self.worker.kill().await;
        drop(self.slot);
    }
}

/// A number that no other living worker has.
struct Slot {
    number: u32,
    free: Arc<std::sync::Mutex<Vec<u32>>>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Ok(mut free) = self.free.lock() {
            free.push(self.number);
        }
    }
}

/// Keeps workers ready, `ahead` of those in use.
pub(crate) struct Pool {
    ready: Mutex<mpsc::Receiver<Result<Lease, CriticError>>>,
    /// Workers end when what they were forked from does.
    _nursery: Arc<Nursery>,
    starters: std::sync::Mutex<Vec<JoinHandle<()>>>,
    closing: Arc<AtomicBool>,
    stop: Cancel,
}

impl Pool {
    /// Starts to fill. `in_use` workers may run candidates at once while `ahead` more are started or wait.
    pub fn open(nursery: Nursery, in_use: usize, ahead: usize, cancel: &Cancel) -> Self {
        let total = (in_use + ahead).clamp(1, 64);
        let places = Arc::new(Semaphore::new(total));
        let free = Arc::new(std::sync::Mutex::new((0..u32::try_from(total).unwrap_or(64)).collect()));
        let (sender, ready) = mpsc::channel(ahead.max(1));
        let stop = cancel.child_token();
        let closing = Arc::new(AtomicBool::new(false));
        let nursery = Arc::new(nursery);
        let starter = || Starter {
            nursery: Arc::clone(&nursery),
            places: Arc::clone(&places),
            free: Arc::clone(&free),
            sender: sender.clone(),
            stop: stop.clone(),
        };
        let starters = (0..ahead.max(1)).map(|_| tokio::spawn(starter().run())).collect();
        Self {
            ready: Mutex::new(ready),
            _nursery: nursery,
            starters: std::sync::Mutex::new(starters),
            closing,
            stop,
        }
    }

    /// The next ready worker.
    pub async fn take(&self) -> Result<Lease, CriticError> {
        if self.closing.load(Ordering::Relaxed) {
            return Err(CriticError::Cancelled);
        }
        tokio::select! {
            () = self.stop.cancelled() => Err(CriticError::Cancelled),
            lease = async { self.ready.lock().await.recv().await } => lease.unwrap_or(Err(CriticError::Cancelled)),
        }
    }

    /// Ends every worker that nobody took and waits for it.
    pub async fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
        self.stop.cancel();
        let mut ready = self.ready.lock().await;
        ready.close();
        while let Some(lease) = ready.recv().await {
            if let Ok(lease) = lease {
                lease.close().await;
            }
        }
        for starter in self.take_starters() {
            // One that panicked has dropped, and so killed, its worker.
            let _ = starter.await;
        }
    }

    fn take_starters(&self) -> Vec<JoinHandle<()>> {
        self.starters.lock().map(|mut starters| std::mem::take(&mut *starters)).unwrap_or_default()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.stop.cancel();
        // Workers that are being started or wait die with their handles.
        self.take_starters().iter().for_each(JoinHandle::abort);
    }
}

struct Starter {
    nursery: Arc<Nursery>,
    places: Arc<Semaphore>,
    free: Arc<std::sync::Mutex<Vec<u32>>>,
    sender: mpsc::Sender<Result<Lease, CriticError>>,
    stop: Cancel,
}

impl Starter {
    async fn run(self) {
        while let Some(lease) = self.next().await {
            if let Err(unsent) = self.sender.send(lease).await {
                if let Ok(lease) = unsent.0 {
                    lease.close().await;
                }
                return;
            }
        }
    }

    async fn next(&self) -> Option<Result<Lease, CriticError>> {
        let stop = self.stop.cancelled();
        let slot = tokio::select! { () = stop => return None, slot = self.slot() => slot? };
        let stop = self.stop.cancelled();
        tokio::select! {
            () = stop => None,
            worker = self.nursery.worker(slot.number) => {
                Some(worker.map(|worker| Lease { worker, slot }))
            }
        }
    }

    async fn slot(&self) -> Option<Slot> {
        let permit = Arc::clone(&self.places).acquire_owned().await.ok()?;
        let number = self.free.lock().ok()?.pop()?;
        Some(Slot { number, free: Arc::clone(&self.free), _permit: permit })
    }
}
