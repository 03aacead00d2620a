//! Work on many things at once, in the order in which they came.

use std::{
    io,
    num::NonZeroUsize,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::critic::STACK;

/// Things that a worker takes at a time: few enough that none ends long after the others.
const HANDFUL: usize = 16;

/// How many workers a machine has room for.
pub(super) fn count() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

/// What `work` makes of each item, in the items' order whatever the number of workers. Stacks are deep: what is read here,
/// a model wrote, and parsing recurses.
///
/// # Errors
/// A thread cannot be started.
pub(super) fn map<'a, T: Sync, R: Send>(
    workers: usize,
    items: &'a [T],
    work: impl Fn(&'a T) -> R + Sync,
) -> io::Result<Vec<R>> {
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<(usize, Vec<R>)>> = Mutex::default();
    let take = || {
        loop {
            let start = next.fetch_add(HANDFUL, Ordering::Relaxed);
            let Some(rest) = items.get(start..).filter(|rest| !rest.is_empty()) else { return };
            let results: Vec<R> = rest.iter().take(HANDFUL).map(&work).collect();
            done.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((start, results));
        }
    };
    std::thread::scope(|scope| {
        let started: io::Result<Vec<_>> = (0..workers.clamp(1, items.len().div_ceil(HANDFUL).max(1)))
            .map(|_| {
                let builder = std::thread::Builder::new().name("prepare".to_owned()).stack_size(STACK);
                builder.spawn_scoped(scope, take)
            })
            .collect();
        for worker in started? {
            worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
        Ok::<_, io::Error>(())
    })?;
    let mut done = done.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    done.sort_unstable_by_key(|(start, _)| *start);
    Ok(done.into_iter().flat_map(|(_, results)| results).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_stand_in_the_order_of_what_they_are_of() {
        let items: Vec<usize> = (0..1000).collect();
        for workers in [1, 2, 8] {
            let squares = map(workers, &items, |n| n * n).unwrap();
            assert!(squares.iter().enumerate().all(|(n, square)| *square == n * n) && squares.len() == 1000);
        }
        assert_eq!(map(4, &[] as &[u8], |n| *n).unwrap(), [0; 0]);
    }
}
