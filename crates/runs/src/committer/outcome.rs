//! How a training ended.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use burn::train::{Interrupter, Interruption, TrainingError, checkpoint::CheckpointerError};

use crate::Error;

/// The interruption and the error that ended a training before its last epoch, if any.
pub(crate) type Ending = (Option<Interruption>, Option<Arc<TrainingError>>);

/// The first error of the model, a commit or the history, and what ended the training.
pub(super) struct Outcome {
    interrupter: Interrupter,
    state: Mutex<OutcomeState>,
}

#[derive(Default)]
struct OutcomeState {
    error: Option<Error>,
    end: Ending,
}

impl Outcome {
    pub fn new(interrupter: Interrupter) -> Self {
        Self { interrupter, state: Mutex::default() }
    }

    /// Stores the error, unless there is one already, and stops the training.
    pub fn fail(&self, error: Error) {
        self.interrupter.fail(self.keep(error));
    }

    /// Stores the error, unless there is one already. Returns `error` as a type with which Burn
    /// stops the training.
    pub fn keep(&self, error: Error) -> CheckpointerError {
        let text = error.to_string();
        self.lock().error.get_or_insert(error);
        CheckpointerError::Unknown(text)
    }

    /// The first error that was stored, if any.
    pub fn error(&self) -> Option<Error> {
        self.lock().error.clone()
    }

    /// True if the training was asked to stop, or after an error.
    pub fn is_ending(&self) -> bool {
        self.interrupter.should_stop() || self.is_failed()
    }

    /// True after any error of the training, a commit or the history, which stops the training.
    pub fn is_failed(&self) -> bool {
        self.interrupter.error().is_some() || self.lock().error.is_some()
    }

    /// Stores what ended the training, before Burn's dashboard resets the interrupter.
    pub fn ended(&self) {
        self.lock().end = (self.interrupter.interruption(), self.interrupter.error());
    }

    /// The interruption and the error that [`ended`](Self::ended) stored.
    pub fn end(&self) -> Ending {
        self.lock().end.clone()
    }

    fn lock(&self) -> MutexGuard<'_, OutcomeState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
