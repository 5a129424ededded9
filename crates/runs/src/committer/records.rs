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
    /// The size of the training loader for a place within an epoch; `None` at the end of one.
    pub loader: Option<LoaderSize>,
    /// The mark of the history at an earlier moment; `None` for the mark when the commit is made.
    pub mark: Option<Mark>,
}

/// A commit that is planned, and whose three records follow.
pub(super) struct Planned {
    pub progress: Progress,
    pub steps: u64,
    pub loader: Option<LoaderSize>,
    pub metrics: Mark,
}

/// The plans of commits, and the records for them. The records of each kind are in the order of
/// the plans.
#[derive(Default)]
pub(super) struct Records {
    state: Mutex<RecordsState>,
    changed: Condvar,
}

#[derive(Default)]
struct RecordsState {
    /// The place of the next commit if the loop has set it; `None` for the end of an epoch.
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

    /// Takes the place of the next commit; `None` if the loop has not set it.
    pub fn take_next(&self) -> Option<CommitPoint> {
        self.lock().next.take()
    }

    /// Adds a planned commit, whose records follow.
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

    /// Takes the oldest plan with its records of the model and the optimizer, in this order. Blocks
    /// until both records are there.
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
