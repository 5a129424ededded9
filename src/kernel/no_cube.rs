//! The kernels of a build without CubeCL: nothing is on a GPU.

use burn::backend::DispatchTensor;

use super::Towards;
use crate::Result;

pub(super) fn lerp_all(work: Vec<Towards<'_>>) -> Vec<Towards<'_>> {
    work
}

pub(super) fn is_read(_: &DispatchTensor) -> bool {
    false
}

pub(super) fn can_wait_for(_: &[Towards<'_>], check: &PendingCheck) -> bool {
    match *check {}
}

pub(super) fn make_all_unique(_: Vec<Towards<'_>>) {}

pub(super) fn lerp_all_unless(_: Vec<Towards<'_>>, look: &PendingCheck) {
    match *look {}
}

/// A check on a GPU: a type without values, since there is no GPU.
pub(crate) enum PendingCheck {}

impl PendingCheck {
    pub fn read(_: Vec<Self>) -> Result<Vec<Vec<bool>>> {
        Ok(Vec::new())
    }

    #[cfg(feature = "train")]
    pub fn is_on_same_device(&self, _: &Self) -> bool {
        match *self {}
    }
}

pub(super) fn start_check(_: &[(&DispatchTensor, f64)]) -> Option<PendingCheck> {
    None
}
