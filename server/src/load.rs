//! Who is being served: requests that somebody waits for go before batches.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::watch;

/// Counts requests for answers that clients wait for. Cheap to clone.
#[derive(Clone, Default)]
pub struct Load {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    interactive: watch::Sender<usize>,
    /// Time of an answer, the recent ones counting most; zero until there is one.
    mean_ms: AtomicU64,
}

/// A request that somebody waits for, until it is dropped.
pub struct Interactive {
    load: Load,
    since: Instant,
}

impl Load {
    pub fn begin(&self) -> Interactive {
        self.inner.interactive.send_modify(|count| *count += 1);
        Interactive { load: self.clone(), since: Instant::now() }
    }

    /// Tells of changes in the number of requests that clients wait for.
    pub fn watch(&self) -> watch::Receiver<usize> {
        self.inner.interactive.subscribe()
    }

    /// A guess at how long `waiting` answers take, `at_once` of them being written at the same time.
    pub fn until_empty(&self, waiting: usize, at_once: usize) -> Duration {
        let rounds = waiting.div_ceil(at_once.max(1));
        let mean = Duration::from_millis(self.inner.mean_ms.load(Ordering::Relaxed));
        mean.saturating_mul(u32::try_from(rounds).unwrap_or(u32::MAX))
    }

    fn took(&self, time: Duration) {
        let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let mean = self.inner.mean_ms.load(Ordering::Relaxed);
        // An answer that is lost to a race changes a guess, nothing else.
        let mean = if mean == 0 { ms } else { mean - mean / 8 + ms / 8 };
        self.inner.mean_ms.store(mean, Ordering::Relaxed);
    }
}

impl Drop for Interactive {
    fn drop(&mut self) {
        self.load.inner.interactive.send_modify(|count| *count -= 1);
        self.load.took(self.since.elapsed());
    }
}

/// Lines of batches that may be in the engine: one while somebody waits, so that a batch goes on; otherwise most of its
/// places, so that whoever comes finds one free.
pub fn batch_places(interactive: usize, max_batch: usize) -> usize {
    if interactive > 0 { 1 } else { max_batch - (max_batch / 4).max(1).min(max_batch.saturating_sub(1)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_leave_room() {
        for (interactive, max_batch, expected) in
            [(0, 16, 12), (0, 4, 3), (0, 2, 1), (0, 1, 1), (1, 16, 1), (99, 16, 1)]
        {
            assert_eq!(batch_places(interactive, max_batch), expected, "{interactive} {max_batch}");
        }
    }

    #[test]
    fn requests_are_counted_until_they_are_over() {
        let load = Load::default();
        let count = load.watch();
        let (first, second) = (load.begin(), load.begin());
        assert_eq!(*count.borrow(), 2);
        drop((first, second));
        assert_eq!(*count.borrow(), 0);
    }

    #[test]
    fn a_full_queue_takes_rounds() {
        let load = Load::default();
        assert_eq!(load.until_empty(9, 4), Duration::ZERO);
        load.took(Duration::from_millis(800));
        load.took(Duration::from_millis(800));
        assert_eq!(load.until_empty(9, 4), Duration::from_millis(2400));
        assert_eq!(load.until_empty(0, 4), Duration::ZERO);
    }
}
