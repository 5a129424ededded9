//! The kernels of a build without CubeCL: nothing is on a GPU.

use burn::backend::DispatchTensor;

use super::Towards;
use crate::Result;

pub(super) fn lerp_all(work: Vec<Towards<'_>>) -> Vec<Towards<'_>> {
    work
}

pub(super) fn are_here(_: &[Towards<'_>]) -> bool {
    false
}

pub(super) fn own_all(_: Vec<Towards<'_>>) {}

pub(super) fn lerp_all_unless(_: Vec<Towards<'_>>, look: &Look) {
    match *look {}
}

/// There is none.
pub(crate) enum Look {}

impl Look {
    pub fn read(_: Vec<Self>) -> Result<Vec<Vec<bool>>> {
        Ok(Vec::new())
    }

    #[cfg(feature = "train")]
    pub fn is_beside(&self, _: &Self) -> bool {
        match *self {}
    }
}

pub(super) fn look(_: &[(&DispatchTensor, f64)]) -> Option<Look> {
    None
}
