//! Threads that share the steps of a forward pass.
//!
//! A step takes microseconds and there are some two hundred of them per token, so handing over work has to cost well
//! under one: helpers spin between steps, and sleep only when no pass has come for a while. Whoever calls works
//! too, and waits only for helpers that have taken something: on a busy machine a helper that is not scheduled
//! costs nothing.

use std::{
    any::Any,
    cell::{Cell, UnsafeCell},
    fmt,
    marker::PhantomData,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle, Thread},
    time::{Duration, Instant},
};

/// How long helpers stay awake without work: longer than anything between the passes of one answer.
const PATIENCE: Duration = Duration::from_micros(200);
/// Rounds of spinning before time is looked at, and before the processor is offered to others.
const SPINS: u32 = 256;
/// Bits of the word that holds (call, number of tasks, next task).
const TASK_BITS: u32 = 20;
const TASK_MASK: u64 = (1 << TASK_BITS) - 1;
/// Most tasks of one call.
pub(super) const MAX_TASKS: usize = TASK_MASK as usize;

type Work = dyn Fn(usize) + Sync;

struct Shared {
    /// Call (upper bits), number of tasks, next task.
    state: AtomicU64,
    /// What the current call does; null between calls.
    work: UnsafeCell<*const Work>,
    done: AtomicUsize,
    fault: Mutex<Option<Box<dyn Any + Send>>>,
    sleepers: AtomicUsize,
    closed: AtomicBool,
}

// SAFETY: `work` is written only between calls, when no task is unfinished, and read only by whoever has taken a
// task of the current call; taking (compare-and-swap on `state`) comes after the writing (store to `state`).
unsafe impl Sync for Shared {}
// SAFETY: the pointer is dereferenced only while the call that it belongs to is waited for.
unsafe impl Send for Shared {}

/// The caller and its helpers.
#[derive(Debug)]
pub(super) struct Team {
    shared: Arc<Shared>,
    helpers: Vec<JoinHandle<()>>,
    /// Not `Sync`: calls come one at a time, and none from inside another's tasks.
    alone: PhantomData<Cell<()>>,
}

impl Team {
    /// `threads` counts the caller. A helper that cannot be started is done without.
    pub(super) fn new(threads: usize) -> Self {
        let nothing: &'static Work = &|_| ();
        let shared = Arc::new(Shared {
            state: AtomicU64::new(0),
            work: UnsafeCell::new(nothing),
            done: AtomicUsize::new(0),
            fault: Mutex::new(None),
            sleepers: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
        });
        let start = |_| {
            let shared = shared.clone();
            thread::Builder::new().name("decoder".into()).spawn(move || shared.help()).ok()
        };
        let helpers = (1..threads).filter_map(start).collect();
        Self { shared, helpers, alone: PhantomData }
    }

    pub(super) fn threads(&self) -> usize {
        self.helpers.len() + 1
    }

    /// Calls `work` with every number below `tasks`, at most [`MAX_TASKS`], on all threads; back when all are done.
    pub(super) fn each(&self, tasks: usize, work: impl Fn(usize) + Sync) {
        if tasks <= 1 || self.helpers.is_empty() {
            (0..tasks).for_each(work);
            return;
        }
        assert!(tasks <= MAX_TASKS, "too many tasks");
        let shared = &*self.shared;
        let work: &(dyn Fn(usize) + Sync) = &work;
        // SAFETY: only the lifetime changes; no task outlives this call, which waits for all.
        let work = unsafe { std::mem::transmute::<&(dyn Fn(usize) + Sync), *const Work>(work) };
        // SAFETY: the last call's tasks are done, this one's are not published.
        unsafe { *shared.work.get() = work };
        shared.done.store(0, Ordering::Relaxed);
        let call = (shared.state.load(Ordering::Relaxed) >> (2 * TASK_BITS)).wrapping_add(1);
        shared.state.store(call << (2 * TASK_BITS) | (tasks as u64) << TASK_BITS, Ordering::SeqCst);
        if shared.sleepers.load(Ordering::SeqCst) > 0 {
            self.helpers.iter().map(JoinHandle::thread).for_each(Thread::unpark);
        }
        while shared.take() {}
        let mut spins = 0;
        while shared.done.load(Ordering::Acquire) < tasks {
            rest(&mut spins);
        }
        let fault = shared.fault.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(fault) = fault {
            resume_unwind(fault);
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::SeqCst);
        for helper in self.helpers.drain(..) {
            helper.thread().unpark();
            // Its panics went to whoever called.
            let _ = helper.join();
        }
    }
}

impl Shared {
    /// Does one task of the current call; false when there is none left.
    fn take(&self) -> bool {
        let mut state = self.state.load(Ordering::Acquire);
        loop {
            let (tasks, next) = (state >> TASK_BITS & TASK_MASK, state & TASK_MASK);
            if next >= tasks {
                return false;
            }
            match self.state.compare_exchange_weak(state, state + 1, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => {
                    self.run(next as usize);
                    return true;
                }
                Err(now) => state = now,
            }
        }
    }

    fn run(&self, task: usize) {
        // SAFETY: the task was taken, so its call is not over and the closure alive.
        let work = unsafe { &**self.work.get() };
        // A fault must not leave the caller waiting; it is thrown again there, so nobody sees what it left behind.
        if let Err(fault) = catch_unwind(AssertUnwindSafe(|| work(task))) {
            *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = Some(fault);
        }
        self.done.fetch_add(1, Ordering::Release);
    }

    fn help(&self) {
        while !self.closed.load(Ordering::Acquire) {
            if !self.wait_awake() {
                self.sleepers.fetch_add(1, Ordering::SeqCst);
                // Looked at again after announcing: a call published before is seen, one after wakes.
                while !self.is_waiting() && !self.closed.load(Ordering::SeqCst) {
                    thread::park();
                }
                self.sleepers.fetch_sub(1, Ordering::SeqCst);
            }
            while self.take() {}
        }
    }

    /// Whether work came before patience ran out.
    fn wait_awake(&self) -> bool {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            for _ in 0..SPINS {
                if self.is_waiting() {
                    return true;
                }
                std::hint::spin_loop();
            }
        }
        false
    }

    fn is_waiting(&self) -> bool {
        let state = self.state.load(Ordering::SeqCst);
        state & TASK_MASK < state >> TASK_BITS & TASK_MASK
    }
}

fn rest(spins: &mut u32) {
    *spins += 1;
    if *spins < SPINS {
        std::hint::spin_loop();
    } else {
        thread::yield_now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once_on_any_number_of_threads() {
        for threads in [1, 2, 5] {
            let team = Team::new(threads);
            for tasks in (0..40).chain([1000, 3]) {
                let counts: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
                team.each(tasks, |task| {
                    counts[task].fetch_add(1, Ordering::Relaxed);
                });
                assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1), "{threads} {tasks}");
            }
        }
    }

    #[test]
    fn helpers_that_fell_asleep_wake_up() {
        let team = Team::new(3);
        for _ in 0..20 {
            thread::sleep(10 * PATIENCE);
            let seen = Mutex::new(std::collections::HashSet::new());
            // Every task waits for another thread's, so none of the three can do all alone.
            let arrived = AtomicUsize::new(0);
            team.each(3, |_| {
                arrived.fetch_add(1, Ordering::SeqCst);
                while arrived.load(Ordering::SeqCst) < 3 {
                    thread::yield_now();
                }
                seen.lock().unwrap().insert(thread::current().id());
            });
            assert_eq!(seen.lock().unwrap().len(), 3);
        }
    }

    #[test]
    fn a_fault_reaches_the_caller_and_the_team_goes_on() {
        let team = Team::new(2);
        let fault = catch_unwind(AssertUnwindSafe(|| team.each(8, |task| assert!(task != 5, "task five"))));
        assert!(fault.unwrap_err().downcast_ref::<&str>().is_some_and(|text| text.contains("five")));
        let count = AtomicUsize::new(0);
        team.each(8, |_| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(count.into_inner(), 8);
    }
}
