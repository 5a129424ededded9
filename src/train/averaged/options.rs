//! The settings of the hook that are no part of its averages.

use burn::train::{Interrupter, TrainingError, train::WorkerFailure};

use crate::{Error, Result};

/// When and how far the first average is copied back into live (Li et al. 2024, "Switch EMA").
///
/// The optimizer's state and the average stay as they are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Switch {
    /// The steps from one copy to the next, at least 1; the published form has those of an epoch.
    pub every: u64,
    /// The share of the way to the average by which live moves, in `(0, 1]`; 1 copies the average.
    pub share: f64,
}

impl Switch {
    pub(super) fn check(self) -> Result<Self> {
        if self.every == 0 {
            return Err(Error::value("the steps from switch to switch", "1 or more", 0));
        }
        if !(self.share > 0.0 && self.share <= 1.0) {
            let found = self.share;
            return Err(Error::value("the share of the average", "a number in (0, 1]", found));
        }
        Ok(self)
    }

    pub(super) fn is_due(self, step: u64) -> bool {
        step.is_multiple_of(self.every)
    }
}

#[derive(Clone, Default)]
pub(super) struct Options {
    pub switch: Option<Switch>,
    /// The interrupter by which the first error stops the training.
    pub interrupter: Option<Interrupter>,
    /// True if a record may lack an average of the module.
    pub allow_added: bool,
    /// True if a record may hold an average that the module does not have.
    pub allow_dropped: bool,
    /// True if a record may have another teacher than the module.
    pub allow_other_teacher: bool,
}

impl Options {
    /// Stops the training with an error.
    pub fn stop(&self, message: String) {
        if let Some(interrupter) = &self.interrupter
            && !interrupter.should_stop()
        {
            // Of Burn's training errors this one carries a text unchanged.
            let failure = WorkerFailure { device_id: 0, message };
            interrupter.fail(TrainingError::Workers(vec![failure]));
        }
    }
}
