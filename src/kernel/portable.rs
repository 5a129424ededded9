//! The path for every backend: Burn's own tensor operations.

use burn::backend::{
    DType, Dispatch, DispatchDevice, DispatchTensor, Scalar, TensorMetadata,
    ops::{BoolTensorOps, FloatTensorOps, IntTensorOps, QTensorOps},
};

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

/// `a + c (b - s)`, by three operations.
pub(super) fn shifted(
    average: DispatchTensor,
    live: DispatchTensor,
    start: DispatchTensor,
    share: f64,
) -> DispatchTensor {
    let way = Dispatch::float_sub(live, start);
    Dispatch::float_add(average, Dispatch::float_mul_scalar(way, Scalar::from(share)))
}

/// The float tensor in a dtype.
pub(super) fn cast(tensor: DispatchTensor, dtype: DType) -> DispatchTensor {
    if tensor.dtype() == dtype {
        return tensor;
    }
    Dispatch::float_cast(tensor, dtype.into())
}

/// The tensor, of any kind, on a device.
pub(super) fn to_device(tensor: DispatchTensor, device: &DispatchDevice) -> DispatchTensor {
    if tensor.device() == *device {
        return tensor;
    }
    match tensor.dtype() {
        DType::QFloat(_) => Dispatch::q_to_device(tensor, device),
        dtype if dtype.is_float() => Dispatch::float_to_device(tensor, device),
        dtype if dtype.is_bool() => Dispatch::bool_to_device(tensor, device),
        _ => Dispatch::int_to_device(tensor, device),
    }
}
