//! Work on several threads: [`each`] divides work among the caller and helper threads, which spin
//! for a moment between calls.
//!
//! A training step on the CPU is about a dozen operations of microseconds to milliseconds each.
//! Waking a sleeping thread takes as long as many of these operations. So helpers spin for a moment
//! before they sleep, as OpenMP's threads do, counted from the beginning of the last operation.
//! Counting from its end made no measurable difference to a training step.
//! While they spin, they yield to other threads of the machine.
//!
//! The helpers are a rayon pool of their own. In rayon's global pool, a thread that waits for other
//! work could pick up the task that spins, and would be delayed by that task.
//! A helper gets the same share of the pieces at each call, so that the numbers of its share are
//! still in its core's cache. Once its own pieces are done, it takes pieces of other threads.
//!
//! A call uses as many threads as rayon has for the caller (`RAYON_NUM_THREADS`, or the size of the
//! rayon pool that the caller runs in), but at most 16, beyond which these operations gain little.
//! A process that was forked has no helpers and must not call [`each`]; nor may it use rayon.

use std::{
    cell::Cell,
    collections::VecDeque,
    hint::spin_loop,
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rayon::{ThreadPool, ThreadPoolBuilder};

/// The most threads for the work of a call, the caller included.
const MAX_THREADS: usize = 16;

/// How long helpers spin before they sleep, counted from the time at which they were last given
/// work: longer than the time between two parallel operations of a step.
const SPIN_TIME: Duration = Duration::from_micros(300);

/// The number of threads that [`each`] uses for enough pieces, the caller included: 1 to 16.
pub fn count() -> usize {
    rayon::current_num_threads().min(MAX_THREADS)
}

/// Calls `work` on each piece, on several threads, and returns once all calls have returned.
///
/// All calls are on the caller's thread if the caller is a helper, or if there is one piece, one
/// thread or no helper.
///
/// # Panics
///
/// A call of `work` that panics.
pub fn each<T: Send>(pieces: Vec<T>, work: impl Fn(T) + Sync) {
    let threads = count().min(pieces.len());
    let helpers = (threads > 1).then(Helpers::get).flatten();
    let Some(helpers) = helpers.filter(|helpers| helpers.pool.current_thread_index().is_none())
    else {
        return pieces.into_iter().for_each(work);
    };
    let shares = Shares::new(pieces, threads);
    let left = AtomicUsize::new(threads - 1);
    helpers.pool.in_place_scope(|scope| {
        for _ in 1..threads {
            scope.spawn(|_| {
                let _done = CountdownGuard(&left);
                // The first share is the caller's.
                let index = rayon::current_thread_index().unwrap_or(0);
                shares.work(1 + index % (threads - 1), &work);
            });
        }
        helpers.keep_spinning();
        shares.work(0, &work);
        wait_until(|| left.load(Ordering::Acquire) == 0);
    });
}

/// The pieces of a call, divided among its threads in order.
struct Shares<T>(Vec<Share<T>>);

/// The pieces of one thread, aligned so that no two shares are in one cache line.
#[repr(align(128))]
struct Share<T>(Mutex<VecDeque<T>>);

impl<T: Send> Shares<T> {
    fn new(pieces: Vec<T>, threads: usize) -> Self {
        let (count, mut pieces) = (pieces.len(), pieces.into_iter());
        let share = |thread: usize| {
            let size = (thread + 1) * count / threads - thread * count / threads;
            Share(Mutex::new(pieces.by_ref().take(size).collect()))
        };
        Self((0..threads).map(share).collect())
    }

    /// Works on the pieces of the share `own`, and then on those that are left in other shares.
    fn work(&self, own: usize, work: impl Fn(T)) {
        while let Some(piece) = self.take(own) {
            work(piece);
        }
    }

    /// The first piece of the share `own`, or else the last of another; `None` if all are empty.
    fn take(&self, own: usize) -> Option<T> {
        let count = self.0.len();
        (own..own + count).find_map(|thread| {
            let Share(share) = &self.0[thread % count];
            let mut share = share.lock().unwrap_or_else(PoisonError::into_inner);
            match thread == own {
                true => share.pop_front(),
                false => share.pop_back(),
            }
        })
    }
}

/// A guard that lowers the number of working helpers by one when it is dropped, in a panic too.
struct CountdownGuard<'a>(&'a AtomicUsize);

impl Drop for CountdownGuard<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Release);
    }
}

/// Spins until `is_done` returns true: to sleep and wake up would take longer than most waits.
fn wait_until(is_done: impl Fn() -> bool) {
    while !is_done() {
        pause();
    }
}

/// Pauses for a moment, in which other threads may run.
fn pause() {
    (0..32).for_each(|_| spin_loop());
    thread::yield_now();
}

/// The helper threads of the process.
struct Helpers {
    pool: ThreadPool,
    start: Instant,
    /// The time at which [`each`] last gave work to the helpers, in microseconds since `start`.
    /// They spin for [`SPIN_TIME`] from then on.
    last: AtomicU64,
    /// The number of helpers that are spinning.
    spinning: AtomicUsize,
}

impl Helpers {
    /// The helpers of the process, which the first call starts. `None` if rayon has one thread, or
    /// if the helpers cannot be started.
    fn get() -> Option<&'static Self> {
        static HELPERS: OnceLock<Option<Helpers>> = OnceLock::new();
        let make = || {
            // A new thread is in no rayon pool, so that rayon returns the size of the global pool.
            let all = thread::Builder::new().spawn(rayon::current_num_threads).ok()?.join().ok()?;
            Helpers::new(all.max(rayon::current_num_threads()).min(MAX_THREADS) - 1)
        };
        HELPERS.get_or_init(make).as_ref()
    }

    fn new(helpers: usize) -> Option<Self> {
        let builder = ThreadPoolBuilder::new().num_threads(helpers);
        let builder = builder.thread_name(|index| format!("burn-ema-{index}"));
        let pool = (helpers > 0).then(|| builder.build().ok()).flatten()?;
        let (last, spinning) = (AtomicU64::new(0), AtomicUsize::new(0));
        Some(Self { pool, start: Instant::now(), last, spinning })
    }

    /// The time in microseconds since `start`.
    fn now(&self) -> u64 {
        self.start.elapsed().as_micros() as u64
    }

    /// Keeps all helpers spinning for [`SPIN_TIME`] from now on.
    ///
    /// All are kept awake, since rayon wakes a sleeping helper for each new task, whichever helper
    /// then does the task.
    fn keep_spinning(&'static self) {
        thread_local! {
            static SPINS: Cell<bool> = const { Cell::new(false) };
        }
        self.last.store(self.now(), Ordering::Release);
        if self.spinning.load(Ordering::Acquire) == self.pool.current_num_threads() {
            return;
        }
        // A broadcast is a task for each helper, which no other helper can take.
        self.pool.spawn_broadcast(|_| {
            if SPINS.replace(true) {
                return;
            }
            self.spinning.fetch_add(1, Ordering::AcqRel);
            let until = || self.last.load(Ordering::Acquire) + SPIN_TIME.as_micros() as u64;
            while self.now() < until() {
                if rayon::yield_now() != Some(rayon::Yield::Executed) {
                    pause();
                }
            }
            self.spinning.fetch_sub(1, Ordering::AcqRel);
            SPINS.set(false);
        });
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::HashSet,
        panic::{AssertUnwindSafe, catch_unwind},
    };

    use super::*;

    /// How often each of so many pieces is worked on.
    fn counts(pieces: usize) -> Vec<usize> {
        let counts: Vec<_> = (0..pieces).map(|_| AtomicUsize::new(0)).collect();
        each((0..pieces).collect(), |piece: usize| {
            counts[piece].fetch_add(1, Ordering::Relaxed);
        });
        counts.into_iter().map(AtomicUsize::into_inner).collect()
    }

    #[test]
    fn every_piece_is_worked_on_once() {
        for threads in [1, 2, 3, 8] {
            let pool = ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            for pieces in [0, 1, 2, 3, 7, 64, 1000] {
                assert_eq!(pool.install(|| counts(pieces)), vec![1; pieces], "{threads} threads");
                assert_eq!(counts(pieces), vec![1; pieces]);
            }
        }
    }

    #[test]
    fn several_threads_work_at_once_and_in_each_other() {
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for pieces in 0..200 {
                        assert_eq!(counts(pieces), vec![1; pieces]);
                    }
                    each(vec![5; 20], |pieces| assert_eq!(counts(pieces), vec![1; pieces]));
                });
            }
        });
    }

    /// Pieces that wait for each other are done by different threads.
    #[test]
    fn helpers_help() {
        if Helpers::get().is_none() {
            return;
        }
        let pool = ThreadPoolBuilder::new().num_threads(2).build().unwrap();
        let (arrived, threads) = (AtomicUsize::new(0), Mutex::new(HashSet::new()));
        pool.install(|| {
            each(vec![(), ()], |()| {
                arrived.fetch_add(1, Ordering::AcqRel);
                wait_until(|| arrived.load(Ordering::Acquire) == 2);
                threads.lock().unwrap().insert(thread::current().id());
            });
        });
        assert_eq!(threads.into_inner().unwrap().len(), 2);
    }

    #[test]
    fn a_panic_of_a_piece_is_the_callers() {
        for bad in [0, 5, 9] {
            let work = |piece: usize| assert!(piece != bad, "piece {bad}");
            let panic = catch_unwind(AssertUnwindSafe(|| each((0..10).collect(), work)));
            assert!(panic.is_err());
        }
        assert_eq!(counts(100), vec![1; 100]);
    }

    /// All helpers spin, no helper counts twice, and all sleep in the end.
    #[test]
    fn helpers_spin_and_sleep_in_the_end() {
        let helpers: &'static Helpers = Box::leak(Box::new(Helpers::new(3).unwrap()));
        let spinning = || helpers.spinning.load(Ordering::Acquire);
        for _ in 0..3 {
            let start = Instant::now();
            let (mut most, mut calls) = (0, 0);
            while most < 3 || calls < 1000 {
                helpers.keep_spinning();
                most = most.max(spinning());
                calls += 1;
                assert!(start.elapsed() < Duration::from_secs(60), "{most} of 3 awake");
            }
            assert_eq!(most, 3);
            // No task of the calls above is left to wake a helper again.
            while spinning() > 0 {
                assert!(start.elapsed() < Duration::from_secs(60), "{} still awake", spinning());
                assert!(spinning() <= 3);
                thread::sleep(Duration::from_micros(50));
            }
        }
    }
}
