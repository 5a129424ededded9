//! Warnings of a training, which do not end it.

use std::sync::{Arc, Mutex, PoisonError};

use crate::Error;

/// The warnings of a training with commits, which a program can read while the training runs and
/// after it has ended.
///
/// Clones share their warnings; [`Fit::warnings`](crate::Fit::warnings) returns a clone.
///
/// There is one kind of warning: the best commit is to be kept by `Loss` in validation, which is
/// the default, and the training has no metric of this name, or its value is a NaN.
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
