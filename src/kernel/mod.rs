//! The kernels: `a <- a + alpha (w - a)` for pairs of tensors.
//!
//! All pairs of an update come at once, and each takes the fastest path there is for its backend:
//! numbers in the memory of the host as slices, tensors of CubeCL by one launch for many of them,
//! others by Burn's own operations.
//! All paths of the host compute the same expression with the same roundings, without a fused
//! multiply-add, so that an average has the same bits on every x86.

#[cfg(any(feature = "wgpu", feature = "cuda", feature = "rocm", feature = "cpu"))]
mod cube;
#[cfg(feature = "flex")]
mod host;
mod measure;
mod portable;

use burn::{
    backend::{DispatchDevice, DispatchTensor, TensorMetadata},
    tensor::DType,
};

#[cfg(feature = "flex")]
use burn_ema_host::{are_here, is_here, owned_numbers_mut, shape, slice, to_order};

pub(crate) use measure::squared_distance;
pub(crate) use measure::within;

/// An average and the live tensor that it goes towards.
///
/// Shapes and devices agree; live may have another dtype.
pub(crate) struct Towards<'a> {
    pub average: &'a mut DispatchTensor,
    pub live: Borrowed<'a>,
    /// The share of the way, in `[0, 1]`.
    ///
    /// 1 copies: `a + 1 (w - a)` differs from `w` in one of ten pairs of numbers.
    pub alpha: f64,
}

/// A tensor of someone else's, or one that was made for this once.
pub(crate) enum Borrowed<'a> {
    Tensor(&'a DispatchTensor),
    Own(Box<DispatchTensor>),
}

impl Borrowed<'_> {
    fn tensor(&self) -> &DispatchTensor {
        match self {
            Self::Tensor(tensor) => tensor,
            Self::Own(tensor) => tensor,
        }
    }
}

/// Moves each average towards its live tensor; those of the same one stand next to each other.
pub(crate) fn lerp_all(mut work: Vec<Towards<'_>>) {
    work.iter_mut().for_each(Towards::round);
    work.retain(|towards| towards.alpha > 0.0);
    #[cfg(feature = "flex")]
    let work = on_host(work);
    #[cfg(any(feature = "wgpu", feature = "cuda", feature = "rocm", feature = "cpu"))]
    let work = cube::lerp_all(work);
    for Towards { average, live, alpha, .. } in work {
        let live = portable::cast(live.tensor().clone(), average.dtype());
        portable::lerp(average, &live, alpha);
    }
}

/// Gives those pairs whose numbers are in the memory of the host to a kernel, and returns the rest.
#[cfg(feature = "flex")]
fn on_host(work: Vec<Towards<'_>>) -> Vec<Towards<'_>> {
    let (mut work, rest) = match work.iter().all(Towards::is_on_host) {
        true => (work, Vec::new()),
        false => work.into_iter().partition(Towards::is_on_host),
    };
    for Towards { live, .. } in &mut work {
        if let Some(ordered) = to_order(live.tensor()) {
            *live = Borrowed::Own(Box::new(ordered));
        }
    }
    let mut pairs = Vec::with_capacity(work.len());
    pairs.extend(work.iter_mut().filter_map(|Towards { average, live, alpha }| {
        let (average, live) = (owned_numbers_mut(average)?, slice(live.tensor())?);
        host::Pair::new(average, live, *alpha)
    }));
    host::mix(pairs);
    rest
}

impl Towards<'_> {
    /// Rounds the share to the dtype of the average: one rounding for all paths, before they decide
    /// by it.
    fn round(&mut self) {
        if self.average.dtype() != DType::F64 {
            self.alpha = f64::from(self.alpha as f32);
        }
    }

    /// Whether both tensors are of the host, in dtypes that its kernel pairs.
    #[cfg(feature = "flex")]
    fn is_on_host(&self) -> bool {
        let (average, live) = (&*self.average, self.live.tensor());
        let pairs = match (average.dtype(), live.dtype()) {
            (DType::F32 | DType::F64, DType::F16 | DType::BF16) => true,
            (average @ (DType::F32 | DType::F64), live) => average == live,
            _ => false,
        };
        !cfg!(feature = "portable") && pairs && is_here(average) && is_here(live)
    }
}

/// Moves one average towards its live tensor.
pub(crate) fn lerp(average: &mut DispatchTensor, live: &DispatchTensor, alpha: f64) {
    let live = Borrowed::Tensor(live);
    lerp_all(vec![Towards { average, live, alpha }]);
}

/// `a + c (b - s)`: an average with a share of how far live is from where it started.
pub(crate) fn shifted(
    average: &DispatchTensor,
    live: &DispatchTensor,
    start: &DispatchTensor,
    share: f64,
) -> DispatchTensor {
    portable::shifted(average.clone(), live.clone(), start.clone(), share)
}

/// The float tensor in a dtype.
pub(crate) fn cast(tensor: DispatchTensor, dtype: DType) -> DispatchTensor {
    portable::cast(tensor, dtype)
}

/// The tensor, of any kind, on a device.
pub(crate) fn to_device(tensor: DispatchTensor, device: &DispatchDevice) -> DispatchTensor {
    portable::to_device(tensor, device)
}

/// Gives the tensor storage of its own, in memory, where an update could write in place.
pub(crate) fn own(tensor: &mut DispatchTensor) {
    #[cfg(feature = "flex")]
    let _ = owned_numbers_mut(tensor);
    #[cfg(not(feature = "flex"))]
    let _ = tensor;
}

/// Whether two tensors are on one device.
pub(crate) fn are_beside(a: &DispatchTensor, b: &DispatchTensor) -> bool {
    #[cfg(feature = "flex")]
    if are_here(a, b) {
        return true;
    }
    a.device() == b.device()
}

/// Whether two tensors have the same shape.
pub(crate) fn are_alike(a: &DispatchTensor, b: &DispatchTensor) -> bool {
    #[cfg(feature = "flex")]
    if let Some((a, b)) = shape(a).zip(shape(b)) {
        return a == b;
    }
    a.shape() == b.shape()
}

/// Moves a tensor, of any kind, to the device of another, if that is another device.
pub(crate) fn follow(tensor: &mut DispatchTensor, other: &DispatchTensor) {
    if !are_beside(tensor, other) {
        *tensor = on_device_of(tensor.clone(), other);
    }
}

/// The tensor, of any kind, on the device of another.
pub(crate) fn on_device_of(tensor: DispatchTensor, other: &DispatchTensor) -> DispatchTensor {
    to_device(tensor, &other.device())
}

#[cfg(test)]
mod tests;
