//! Warnings of a training, which do not end it.

use std::sync::{Arc, Mutex, PoisonError};

use crate::Error;

/// The warnings of a training with commits, which a program can read while the training runs and
/// after it has ended.
///
/// Clones share their warnings; [`Fit::warnings`](crate::Fit::warnings) returns a clone.
///
/// There is one kind of warning, after an epoch: the metric `Loss` in validation, by which the best
/// commit is kept by default, is missing, gives text or is a NaN. If you chose the metric by
/// [`with_keep_best`](crate::CommitConfig::with_keep_best), this is an error and no warning.
#[derive(Clone, Debug, Default)]
pub struct Warnings(Arc<Mutex<Vec<Error>>>);

impl Warnings {
    /// Returns the warnings since the last call on any clone, and removes them.
    pub fn take(&self) -> Vec<Error> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn add(&self, warning: Error) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(warning);
    }
}
