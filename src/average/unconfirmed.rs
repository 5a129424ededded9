//! An update on a GPU whose numbers are not checked yet, and how it is undone.

use burn::module::{Module, ParamId};

use super::state::Average;
use crate::kernel::PendingCheck;

/// An update on a GPU of which it is not known yet whether live's weights were finite.
///
/// If they were not, the GPU has left the averages' tensors as they were.
/// The next step reads the result together with the check of its gradients, so that a step waits
/// for the GPU only once.
pub(crate) struct Unconfirmed<M: Module> {
    /// The check of live's weights, whose result is still on the GPU.
    pub check: PendingCheck,
    /// The state to go back to.
    pub update: Rollback<M>,
}

/// The state to restore if the numbers of an [`Unconfirmed`] update are not finite.
pub(crate) struct Rollback<M: Module> {
    /// The averages before the update. They share their storage with the averages after it, which
    /// the GPU has left unchanged if the update must be undone.
    pub(super) before: Vec<Average<M>>,
    /// Live as the update saw it, to make the update again with all checks.
    pub(super) live: M,
    /// The parameters that the step moved.
    pub(super) trained: Vec<ParamId>,
    pub(super) step: u64,
    pub(super) samples: Option<u64>,
}
