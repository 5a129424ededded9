//! The path for Flex: in place on the average's storage, no memory allocated.

use std::borrow::Cow;

use burn::{
    backend::{BackendTensor, DispatchTensor, DispatchTensorKind, flex::FlexTensor},
    tensor::DType,
};

/// `a <- a + alpha (w - a)`; `false`, and nothing done, if the pair is not one for this path.
pub(super) fn lerp(average: &mut DispatchTensor, live: &DispatchTensor, alpha: f64) -> bool {
    let (Some(average), Some(live)) = (as_flex_mut(average), as_flex(live)) else { return false };
    let live = laid_out(live);
    own_flex(average);
    match average.dtype() {
        DType::F32 => {
            let Some(live) = live.as_slice::<f32>() else { return false };
            let alpha = alpha as f32; // exact
            mix(average.storage_mut(), live, alpha == 1.0, |a, w| a + alpha * (w - a));
        }
        DType::F64 => {
            let Some(live) = live.as_slice::<f64>() else { return false };
            mix(average.storage_mut(), live, alpha == 1.0, |a, w| a + alpha * (w - a));
        }
        _ => return false,
    }
    true
}

/// Whether no magnitude is above `most`; `None` if the tensor is not one for this path.
pub(super) fn is_within(tensor: &DispatchTensor, most: f64) -> Option<bool> {
    let tensor = as_flex(tensor)?;
    let tensor = laid_out(tensor);
    // Without a branch in a block, so that the compiler takes many numbers at once. A NaN is not
    // within anything.
    match tensor.dtype() {
        DType::F32 => {
            let most = most.min(f64::from(f32::MAX)) as f32;
            let all = |block: &[f32]| block.iter().fold(true, |all, x| all & (x.abs() <= most));
            tensor.as_slice::<f32>().map(|numbers| numbers.chunks(4096).all(all))
        }
        DType::F64 => {
            let most = most.min(f64::MAX);
            let all = |block: &[f64]| block.iter().fold(true, |all, x| all & (x.abs() <= most));
            tensor.as_slice::<f64>().map(|numbers| numbers.chunks(4096).all(all))
        }
        _ => None,
    }
}

/// A view, such as a transposed weight, laid out in order for this once.
fn laid_out(tensor: &FlexTensor) -> Cow<'_, FlexTensor> {
    match tensor.is_contiguous() {
        true => Cow::Borrowed(tensor),
        false => Cow::Owned(tensor.to_contiguous()),
    }
}

fn mix<T: Copy>(average: &mut [T], live: &[T], copy: bool, step: impl Fn(T, T) -> T) {
    if copy {
        average.copy_from_slice(live);
    } else {
        average.iter_mut().zip(live).for_each(|(a, &w)| *a = step(*a, w));
    }
}

/// Gives the tensor storage that is its own, in memory and laid out in order.
pub(super) fn own(tensor: &mut DispatchTensor) {
    if let Some(tensor) = as_flex_mut(tensor) {
        own_flex(tensor);
    }
}

fn own_flex(tensor: &mut FlexTensor) {
    let bytes = tensor.layout().num_elements() * tensor.dtype().size();
    // A view into a larger storage would pair wrongly with live below.
    if !tensor.is_contiguous() || tensor.bytes().len() != bytes {
        *tensor = FlexTensor::from_data(tensor.to_contiguous().into_data());
    }
    // Writing access copies a storage that is shared or still lies in a file.
    match tensor.dtype() {
        DType::F32 => _ = tensor.storage_mut::<f32>(),
        DType::F64 => _ = tensor.storage_mut::<f64>(),
        _ => {}
    }
}

fn as_flex(tensor: &DispatchTensor) -> Option<&FlexTensor> {
    match &tensor.kind {
        DispatchTensorKind::Flex(BackendTensor::Float(tensor)) => Some(tensor),
        _ => None,
    }
}

fn as_flex_mut(tensor: &mut DispatchTensor) -> Option<&mut FlexTensor> {
    match &mut tensor.kind {
        DispatchTensorKind::Flex(BackendTensor::Float(tensor)) => Some(tensor),
        _ => None,
    }
}
