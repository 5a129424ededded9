//! Work on all cores.

use std::{
    sync::{Mutex, PoisonError},
    thread,
};

use anyhow::{Result, bail};

/// The result of each job, in their order, as many at a time as there are cores.
///
/// After an error no further job begins. Burn's random numbers are one sequence in a process, so
/// that a job which draws from them depends on the others.
pub fn on_all_cores<T: Send, R: Send>(
    jobs: Vec<T>,
    work: impl Fn(T) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let cores = thread::available_parallelism().map_or(1, usize::from).min(jobs.len());
    let results = Mutex::new(jobs.iter().map(|_| None).collect::<Vec<_>>());
    let queue = Mutex::new(jobs.into_iter().enumerate());
    let worker = || -> Result<()> {
        loop {
            let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some((index, job)) = next else { return Ok(()) };
            let result = work(job).inspect_err(|_| {
                queue.lock().unwrap_or_else(PoisonError::into_inner).by_ref().for_each(drop);
            })?;
            results.lock().unwrap_or_else(PoisonError::into_inner)[index] = Some(result);
        }
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().try_for_each(|worker| match worker.join() {
            Ok(result) => result,
            Err(_) => bail!("a worker panicked"),
        })
    })?;
    let results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(results.into_iter().flatten().collect())
}
