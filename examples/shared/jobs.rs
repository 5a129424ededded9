//! Work on all cores.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
};

use anyhow::{Result, bail};
use rayon::ThreadPoolBuilder;

/// The result of each job, in their order, as many at a time as there are cores, with a line of
/// progress after each.
///
/// Each job has one thread, so that its sums do not depend on what the other cores do.
/// After an error no further job begins. Burn's random numbers are one sequence in a process: a job
/// that draws from them depends on the others.
pub fn on_all_cores<T: Send, R: Send>(
    jobs: Vec<T>,
    work: impl Fn(T) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let (count, cores) = (jobs.len(), thread::available_parallelism().map_or(1, usize::from));
    let results = Mutex::new(jobs.iter().map(|_| None).collect::<Vec<_>>());
    let queue = Mutex::new(jobs.into_iter().enumerate());
    let worker = || -> Result<()> {
        let alone = ThreadPoolBuilder::new().num_threads(1).build()?;
        loop {
            let Some((index, job)) = locked(&queue).next() else { return Ok(()) };
            let result = alone
                .install(|| work(job))
                .inspect_err(|_| locked(&queue).by_ref().for_each(drop))?;
            let mut results = locked(&results);
            results[index] = Some(result);
            eprintln!("{}/{count} trained", results.iter().flatten().count());
        }
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..cores.min(count)).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().try_for_each(|worker| match worker.join() {
            Ok(result) => result,
            Err(_) => bail!("a worker panicked"),
        })
    })?;
    let results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(results.into_iter().flatten().collect())
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
