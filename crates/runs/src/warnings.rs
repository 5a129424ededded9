//! Remarks on a training that are no errors.

use std::sync::{Arc, Mutex, PoisonError};

use crate::Error;

/// The warnings of a training, which a program reads while it runs or when it has ended.
///
/// Clones share their warnings; [`Fit::warnings`](crate::Fit::warnings) gives one.
///
/// There is one kind: a training whose best commit would be kept by the loss in validation, as is
/// the default, and which has no such metric, or a NaN.
#[derive(Clone, Debug, Default)]
pub struct Warnings(Arc<Mutex<Vec<Error>>>);

impl Warnings {
    /// Takes the warnings since the last call.
    pub fn take(&self) -> Vec<Error> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn add(&self, warning: Error) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(warning);
    }
}
