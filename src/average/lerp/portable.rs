//! The path for every backend: Burn's own tensor operations.

use burn::backend::{Dispatch, DispatchTensor, Scalar, TensorMetadata, ops::FloatTensorOps};

/// `a <- a + alpha (w - a)`, by three operations.
pub(super) fn lerp(average: &mut DispatchTensor, live: &DispatchTensor, alpha: f64) {
    *average = if alpha == 1.0 {
        live.clone()
    } else {
        let step = Dispatch::float_sub(live.clone(), average.clone());
        let step = Dispatch::float_mul_scalar(step, Scalar::from(alpha));
        Dispatch::float_add(average.clone(), step)
    };
}

/// Moves the average to the device of its live tensor, if it is on another.
pub(super) fn follow(average: &mut DispatchTensor, live: &DispatchTensor) {
    let device = live.device();
    if average.device() != device {
        *average = Dispatch::float_to_device(average.clone(), &device);
    }
}
