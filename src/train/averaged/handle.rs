//! The handle of the averages, which all clones of the hook share.

use std::sync::{
    Arc, Mutex, MutexGuard,
    atomic::{AtomicU64, Ordering},
};

use burn::{module::ParamId, train::LearnerModel};

use super::clock::StepClock;
use crate::{
    Average, Error, Result,
    average::{Rollback, Snapshots, StepFacts, Unconfirmed, Warning, update_after},
    kernel::PendingCheck,
};

/// A handle of a training's averages and their first error, which clones share, and the schedule of
/// their snapshots.
///
/// `Learner` clones its model at every step. A clone of the handle copies no weights, so that an
/// update is made in place.
/// No lock guard leaves this file, and none is held during a forward pass or an `optimize`.
/// An update holds the lock, so the function of a custom rule must not use the hook.
#[derive(Clone)]
pub(super) struct Handle<M: LearnerModel> {
    shared: Arc<Mutex<Shared<M>>>,
    snapshots: Option<SnapshotSchedule>,
}

struct Shared<M: LearnerModel> {
    averages: Vec<Average<M>>,
    /// The last update of the averages, if a GPU has not confirmed yet that its numbers are finite.
    unconfirmed: Option<Unconfirmed<M>>,
    error: Option<Error>,
    /// True if the training has ended.
    has_ended: bool,
    /// The last step of these averages, for the handle that they replaced.
    last: Arc<AtomicU64>,
    /// The last step of the averages that replaced these in a clone of the hook; `None` if there
    /// are none, and after an update of these.
    successor: Option<Arc<AtomicU64>>,
    /// The changes of live outside of `optimize` that an update has taken in.
    bypassed: u64,
    /// The warnings about the handle itself that were returned.
    returned: Vec<Warning>,
}

/// Where averages are stored, and how often.
#[derive(Clone)]
struct SnapshotSchedule {
    snapshots: Snapshots,
    every: u64,
    /// The last optimizer step. If the next one is not the step after it, a checkpoint was loaded.
    last: u64,
}

impl<M: LearnerModel> Handle<M> {
    pub fn new(averages: Vec<Average<M>>) -> Self {
        let last = averages.iter().map(Average::last_step).max().unwrap_or(0);
        let shared = Shared {
            averages,
            unconfirmed: None,
            error: None,
            has_ended: false,
            last: Arc::new(AtomicU64::new(last)),
            successor: None,
            bypassed: 0,
            returned: Vec::new(),
        };
        Self { shared: Arc::new(Mutex::new(shared)), snapshots: None }
    }

    /// A new handle of the same averages, whose weights are shared until an update.
    pub fn snapshot(&self) -> Self {
        self.with(self.averages())
    }

    /// A new handle of other averages, with the same snapshots and first error.
    fn with(&self, averages: Vec<Average<M>>) -> Self {
        let new = Self { snapshots: self.snapshots.clone(), ..Self::new(averages) };
        {
            let (mut shared, mine) = (new.lock(), self.lock());
            shared.error.clone_from(&mine.error);
            shared.returned.clone_from(&mine.returned);
            shared.successor.clone_from(&mine.successor);
            (shared.has_ended, shared.bypassed) = (mine.has_ended, mine.bypassed);
        }
        new
    }

    /// A new handle of these averages, with which the training goes on; the clones of this handle
    /// can then compare their last steps.
    pub fn replaced_by(&self, averages: Vec<Average<M>>) -> Self {
        self.succeeded_by(self.with(averages))
    }

    /// A new handle of averages that were loaded, with the same snapshots and no error; the clones
    /// of this handle can then compare their last steps.
    pub fn restored(&self, averages: Vec<Average<M>>) -> Self {
        self.succeeded_by(Self { snapshots: self.snapshots.clone(), ..Self::new(averages) })
    }

    fn succeeded_by(&self, new: Self) -> Self {
        self.lock().successor = Some(new.lock().last.clone());
        new
    }

    /// The last step at which the averages were updated.
    pub fn last_step(&self) -> u64 {
        self.lock_as_is().last.load(Ordering::Relaxed)
    }

    /// The names of the averages.
    pub fn names(&self) -> Vec<String> {
        self.lock().averages.iter().map(|average| average.name().to_owned()).collect()
    }

    /// A copy of the average of this index, which shares its weights until an update.
    ///
    /// # Errors
    ///
    /// No average of this index.
    pub fn average(&self, index: usize) -> Result<Average<M>> {
        let shared = self.lock();
        let average = shared.averages.get(index).cloned();
        average.ok_or_else(|| no_average(shared.averages.len(), index))
    }

    /// Like [`average`](Self::average), with an error if the training goes on with other averages.
    ///
    /// # Errors
    ///
    /// No average of this index; averages that were replaced by others with later steps.
    pub fn of_training(&self, index: usize) -> Result<Average<M>> {
        self.lock().of_training(index)
    }

    /// Like [`of_training`](Self::of_training), but without a wait for a GPU where that is possible:
    /// if the last update is unconfirmed and its check fails, the GPU leaves the weights as they
    /// were.
    ///
    /// # Errors
    ///
    /// The errors of [`of_training`](Self::of_training).
    pub fn teacher(&self, index: usize) -> Result<Average<M>> {
        let shared = self.lock_as_is();
        let waits = shared.unconfirmed.is_some()
            && !shared.averages.get(index).is_some_and(Average::only_mixes);
        if !waits {
            return shared.of_training(index);
        }
        drop(shared);
        self.of_training(index)
    }

    /// Counts changes of live outside of `optimize` that an update is about to take in.
    pub fn count_bypassed(&self, changes: u64) {
        if changes > 0 {
            self.lock().bypassed += changes;
        }
    }

    /// The warnings of the averages, each once; `bypassed` counts the changes of live outside of
    /// `optimize` since the last update.
    pub fn take_warnings(&self, bypassed: u64) -> Vec<Warning> {
        let mut shared = self.lock();
        let changes = shared.bypassed + bypassed;
        let bypassed = (changes > 0).then_some(Warning::Bypassed { changes });
        let replaced = shared.replaced_at();
        let replaced = replaced.map(|(step, last)| Warning::Replaced { step, last });
        let mut warnings: Vec<_> = bypassed.into_iter().chain(replaced).collect();
        warnings.retain(|warning| warning.is_new_after(&shared.returned));
        shared.returned.extend(warnings.iter().cloned());
        let take = match shared.has_ended {
            true => Average::take_final_warnings,
            false => Average::take_warnings,
        };
        warnings.extend(shared.averages.iter_mut().flat_map(take));
        warnings
    }

    /// Notes that the training has ended, so that warnings are about what the averages have seen.
    pub fn end(&self) {
        self.lock().has_ended = true;
    }

    /// A function that calls [`end`](Self::end) if the averages still exist then; it does not keep
    /// them alive.
    #[cfg(feature = "runs")]
    pub fn on_end(&self) -> impl FnOnce() + use<M> {
        let shared = Arc::downgrade(&self.shared);
        move || {
            if let Some(shared) = shared.upgrade() {
                Self { shared, snapshots: None }.end();
            }
        }
    }

    /// A copy of the averages, which shares their weights until an update.
    pub fn averages(&self) -> Vec<Average<M>> {
        self.lock().averages.clone()
    }

    pub fn error(&self) -> Option<Error> {
        self.lock().error.clone()
    }

    /// Keeps an error, unless there is one already.
    pub fn keep_error(&self, error: Error) {
        self.lock().error.get_or_insert(error);
    }

    /// Stores the averages every `every` steps; `step` is the last optimizer step so far.
    pub fn store_in(&mut self, snapshots: Snapshots, every: u64, step: u64) {
        self.snapshots = Some(SnapshotSchedule { snapshots, every, last: step });
    }

    /// Updates the averages with live's weights after the clock's step, and stores them if that is
    /// due.
    ///
    /// The parameters with the ids in `trained` must be finite.
    /// After an error the averages are not updated any more.
    ///
    /// # Errors
    ///
    /// The first error of an update; it is kept.
    pub fn update(&mut self, live: &M, clock: &StepClock<M>, trained: &[ParamId]) -> Result<()> {
        let mut shared = self.lock();
        (shared.has_ended, shared.successor) = (false, None);
        let Shared { averages, unconfirmed, error, last, .. } = &mut *shared;
        if let Some(error) = error {
            return Err(error.clone());
        }
        last.store(clock.steps, Ordering::Relaxed);
        // What is stored must be confirmed, so an update that is stored waits for the GPU.
        let stores = self.snapshots.as_ref().is_some_and(|storing| storing.is_due(clock.steps));
        let facts = StepFacts { trained, may_wait: !stores };
        let updated = update_after(averages, live, clock.steps, clock.counted(), facts);
        let updated = updated.and_then(|(_, waiting)| {
            *unconfirmed = waiting;
            match &self.snapshots {
                Some(storing) => storing.store(averages, clock.steps),
                None => Ok(()),
            }
        });
        updated.inspect_err(|first| *error = Some(first.clone()))
    }

    /// Stores the last step, from which the next update detects that a checkpoint was loaded.
    pub fn stepped(&mut self, step: u64) {
        if let Some(storing) = &mut self.snapshots {
            storing.last = step;
        }
    }

    /// Removes and returns the last update, if a GPU has not confirmed it yet;
    /// [`confirm`](Self::confirm) must then end it.
    pub fn take_unconfirmed(&self) -> Option<Unconfirmed<M>> {
        self.lock_as_is().unconfirmed.take()
    }

    /// Ends an update by the result of its check, or undoes it if `within` is `None`; an error is
    /// kept.
    pub fn confirm(&self, update: Rollback<M>, within: Option<&[bool]>) {
        self.lock_as_is().confirm(update, within);
    }

    /// Locks the averages, and ends an unconfirmed update first, for which it waits.
    fn lock(&self) -> MutexGuard<'_, Shared<M>> {
        let mut shared = self.lock_as_is();
        if let Some(Unconfirmed { check, update }) = shared.unconfirmed.take() {
            match PendingCheck::read(vec![check]) {
                Ok(results) => shared.confirm(update, Some(&results[0])),
                Err(error) => {
                    shared.confirm(update, None);
                    shared.error.get_or_insert(error);
                }
            }
        }
        shared
    }

    /// Locks the averages without a wait: their last update may be unconfirmed.
    fn lock_as_is(&self) -> MutexGuard<'_, Shared<M>> {
        self.shared.lock().unwrap_or_else(|poisoned| {
            let mut shared = poisoned.into_inner();
            shared.error.get_or_insert(Error::Poisoned);
            shared
        })
    }
}

impl<M: LearnerModel> Shared<M> {
    /// A copy of the average of this index; an error if there is none, or if the training goes on
    /// with other averages.
    fn of_training(&self, index: usize) -> Result<Average<M>> {
        let average = self.averages.get(index).cloned();
        let average = average.ok_or_else(|| no_average(self.averages.len(), index))?;
        match self.replaced_at() {
            None => Ok(average),
            Some((step, last)) => {
                let expected = format!("those of step {step}, with which a clone goes on");
                let found = format!("those of step {last}; ask the model of the training");
                Err(Error::value("the averages of this clone", expected, found))
            }
        }
    }

    /// The last step of the averages that replaced these, then that of these; `None` unless the
    /// first is later.
    fn replaced_at(&self) -> Option<(u64, u64)> {
        let last = self.last.load(Ordering::Relaxed);
        let successor = self.successor.as_ref()?.load(Ordering::Relaxed);
        (successor > last).then_some((successor, last))
    }

    fn confirm(&mut self, update: Rollback<M>, within: Option<&[bool]>) {
        let confirmed = match within {
            Some(within) => update.confirm(within, &mut self.averages),
            None => {
                update.undo(&mut self.averages);
                Ok(())
            }
        };
        if let Err(error) = confirmed {
            self.error.get_or_insert(error);
        }
    }
}

/// The error of an index that no average has.
pub(super) fn no_average(count: usize, index: usize) -> Error {
    Error::value("the index of an average", format!("a number below {count}"), index)
}

impl SnapshotSchedule {
    fn is_due(&self, step: u64) -> bool {
        step.is_multiple_of(self.every)
    }

    /// Stores the averages that can be stored, if that is due at this step.
    fn store<M: LearnerModel>(&self, averages: &[Average<M>], step: u64) -> Result<()> {
        // A checkpoint was loaded: snapshots of later steps are from before that.
        if step != self.last + 1 {
            self.snapshots.remove_after(step - 1, None)?;
        }
        if !self.is_due(step) {
            return Ok(());
        }
        let stored = averages.iter().filter(|average| Snapshots::takes(average.rule()));
        // An average that has not started yet has nothing to store.
        let mut stored = stored.filter(|average| average.has_updates());
        stored.try_for_each(|average| self.snapshots.store(average).map(drop))
    }
}

#[cfg(all(test, feature = "runs"))]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::{AverageConfig, Rule, model::MlpConfig};

    #[test]
    fn the_end_of_a_training_keeps_no_average_alive() -> Result<()> {
        let live = MlpConfig::new(vec![2, 1]).init(&Device::default())?;
        let handle = Handle::new(vec![AverageConfig::new(Rule::ema(0.9)).init(&live)?]);
        let shared = Arc::downgrade(&handle.shared);
        let (on_end, too_late) = (handle.on_end(), handle.on_end());
        on_end();
        assert!(handle.lock().has_ended);
        drop(handle);
        assert!(shared.upgrade().is_none());
        too_late();
        Ok(())
    }
}
