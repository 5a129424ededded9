//! An update on a GPU, and the way back from it.

use burn::module::{Module, ParamId};

use super::state::Average;
use crate::kernel::PendingCheck;

/// An update on a GPU that has not said yet whether the weights were finite.
///
/// If they were not, the averages' tensors have not moved.
/// So a step waits for the GPU once: for its gradients, and for the weights of the step before.
pub(crate) struct Unconfirmed<M: Module> {
    /// The check of the weights.
    pub check: PendingCheck,
    pub update: Rollback<M>,
}

/// The state to restore if the numbers of an [`Unconfirmed`] update are not finite.
pub(crate) struct Rollback<M: Module> {
    /// The averages before the update; their storage is that of those after it.
    pub(super) before: Vec<Average<M>>,
    /// Live as the update saw it.
    pub(super) live: M,
    pub(super) trained: Vec<ParamId>,
    pub(super) step: u64,
    pub(super) samples: Option<u64>,
}
