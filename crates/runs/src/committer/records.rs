//! The records of the commits that are being made, as Burn's threads hand them over.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
};

use burn::tensor::Bytes;

use crate::{LoaderSize, Progress, Result, history::Mark};

/// A place where the loop is about to commit.
pub(crate) struct CommitPoint {
    pub progress: Progress,
    /// The optimizer steps so far.
    pub steps: u64,
    /// The size of the training loader, within an epoch.
    pub loader: Option<LoaderSize>,
    /// The mark of the history at an earlier moment; `None` for the mark when the commit is made.
    pub mark: Option<Mark>,
}

/// A commit to be made of three records.
pub(super) struct Planned {
    pub progress: Progress,
    pub steps: u64,
    pub loader: Option<LoaderSize>,
    pub metrics: Mark,
}

/// The plans of commits, and the records for them; those of one kind come in the order of plans.
#[derive(Default)]
pub(super) struct Records {
    state: Mutex<RecordsState>,
    changed: Condvar,
}

#[derive(Default)]
struct RecordsState {
    /// The place of the next commit, where the loop says it; the end of an epoch otherwise.
    next: Option<CommitPoint>,
    plans: VecDeque<Planned>,
    models: VecDeque<Result<Bytes>>,
    optimizers: VecDeque<Result<Bytes>>,
}

impl Records {
    /// Sets the place of the next commit.
    pub fn next_is(&self, place: CommitPoint) {
        self.lock().next = Some(place);
    }

    /// The place of the next commit, where the loop said it.
    pub fn take_next(&self) -> Option<CommitPoint> {
        self.lock().next.take()
    }

    /// Plans a commit, whose records follow.
    pub fn plan(&self, plan: Planned) {
        self.lock().plans.push_back(plan);
    }

    pub fn add_model(&self, record: Result<Bytes>) {
        self.lock().models.push_back(record);
        self.changed.notify_all();
    }

    pub fn add_optimizer(&self, record: Result<Bytes>) {
        self.lock().optimizers.push_back(record);
        self.changed.notify_all();
    }

    /// The oldest plan with its records of model and optimizer, for which this waits.
    pub fn take(&self) -> (Option<Planned>, [Result<Bytes>; 2]) {
        let mut state = self.lock();
        loop {
            let RecordsState { plans, models, optimizers, .. } = &mut *state;
            if !models.is_empty()
                && let Some(optimizer) = optimizers.pop_front()
                && let Some(model) = models.pop_front()
            {
                return (plans.pop_front(), [model, optimizer]);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, RecordsState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
