//! An update on a GPU, and the way back from it.

use burn::module::Module;

use super::{course::Due, state::Average};
use crate::{Error, Result, kernel::PendingCheck};

/// An update on a GPU that has not said yet whether the weights were finite.
///
/// If they were not, the averages' tensors have not moved.
/// So a step waits for the GPU once: for its gradients, and for the weights of the step before.
pub(crate) struct Unconfirmed<M: Module> {
    /// The look that has the answer.
    pub look: PendingCheck,
    pub update: Rollback<M>,
}

/// The state to restore if the numbers of an [`Unconfirmed`] update are not finite.
pub(crate) struct Rollback<M: Module> {
    /// The averages before the update; their storage is that of those after it.
    pub(super) before: Vec<Average<M>>,
    /// The index of an average in live's order.
    pub(super) in_order: usize,
    /// The places in live's order of the tensors that were checked.
    pub(super) places: Vec<usize>,
    /// The places of those that the step moved.
    pub(super) trained: Vec<usize>,
    pub(super) step: u64,
}

impl<M: Module> Rollback<M> {
    /// Ends the update: puts the averages back if a tensor was not within its bound.
    ///
    /// # Errors
    ///
    /// The errors about numbers that are not finite, which `update_after` could not return yet.
    pub fn confirm(self, within: &[bool], averages: &mut Vec<Average<M>>) -> Result<()> {
        let Self { before, in_order, places, trained, step } = self;
        let Some(bad) = within.iter().position(|within| !within) else { return Ok(()) };
        let clocks: Vec<_> = averages.iter().map(Average::clock).collect();
        *averages = before;
        let place = places[bad];
        let path = averages[in_order].kept[place].parameter.path.clone();
        if trained.contains(&place) {
            return Err(Error::Weights { path, step });
        }
        for (average, now) in averages.iter_mut().zip(clocks) {
            average.refuse(path.clone(), step)?;
            let Average { numbers, schedule, .. } = average;
            numbers.course.advance(schedule, now, Due::Nothing);
        }
        Ok(())
    }
}
