//! The kernels: `a <- a + alpha (w - a)` for pairs of tensors.
//!
//! All pairs of an update come at once, and each takes the fastest path there is for its backend:
//! numbers in the memory of the host by [`mix`], tensors of CubeCL by one launch for many of them,
//! others by Burn's own operations.
//! All paths of the host compute the same expression with the same roundings, without a fused
//! multiply-add, so that an average has the same bits on every x86.

#[cfg(any(feature = "wgpu", feature = "cuda", feature = "rocm", feature = "cpu"))]
mod cube;
#[cfg(any(feature = "flex", feature = "train"))] // burn-train brings Flex along
#[cfg_attr(feature = "ndarray", expect(deprecated, reason = "Burn still ships ndarray"))]
pub(crate) mod host;
mod measure;
#[cfg(any(feature = "flex", feature = "train"))]
mod mix;
mod portable;

use burn::{
    backend::{DispatchDevice, DispatchTensor, TensorMetadata},
    tensor::DType,
};

#[cfg(feature = "train")]
pub(super) use measure::element;
pub(super) use measure::squared_distance;
pub(crate) use measure::within;
#[cfg(feature = "train")]
pub(crate) use mix::{Real, are_within, mix_numbers};

/// An average and the live tensor that it goes towards.
///
/// Shapes and devices agree; live may have another dtype.
pub(super) struct Towards<'a> {
    pub average: &'a mut DispatchTensor,
    pub live: Borrowed<'a>,
    /// The share of the way, in `[0, 1]`.
    ///
    /// 1 copies: `a + 1 (w - a)` differs from `w` in one of ten pairs of numbers.
    pub alpha: f64,
    /// The largest magnitude that live may have, where that is looked at on the way.
    pub most: f64,
}

/// A tensor of someone else's, or one that was made for this once.
pub(super) enum Borrowed<'a> {
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

/// How a pass that looks at live on its way ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Passed {
    /// All averages moved.
    Whole,
    /// A number of live is beyond its bound; all averages are as they were.
    Refused,
    /// This is no way here; all averages are as they were, and nothing is known of live.
    Unfit,
}

/// Moves each average towards its live tensor; those of the same one stand next to each other.
pub(super) fn lerp_all(mut work: Vec<Towards<'_>>) {
    work.iter_mut().for_each(Towards::round);
    work.retain(|towards| towards.alpha > 0.0);
    #[cfg(any(feature = "flex", feature = "train"))]
    let work = on_host(work, mix::mix);
    #[cfg(any(feature = "wgpu", feature = "cuda", feature = "rocm", feature = "cpu"))]
    let work = cube::lerp_all(work);
    for Towards { average, live, alpha, .. } in work {
        let live = portable::cast(live.tensor().clone(), average.dtype());
        portable::lerp(average, &live, alpha);
    }
}

/// Whether so many numbers are better looked at while they are taken, by up to such a share, than
/// before: where live does not stay in the caches, it is read once and not twice.
pub(super) fn pays_to_look_on_the_way(numbers: usize, largest: f64) -> bool {
    #[cfg(any(feature = "flex", feature = "train"))]
    return numbers >= mix::BEYOND_CACHES && largest <= mix::MOST_UNDONE;
    #[cfg(not(any(feature = "flex", feature = "train")))]
    return false;
}

/// Moves each average towards its live tensor, unless a number of live is beyond its bound.
///
/// For what [`pays_to_look_on_the_way`].
pub(super) fn lerp_all_within(work: Vec<Towards<'_>>) -> Passed {
    #[cfg(any(feature = "flex", feature = "train"))]
    {
        let mut work = work;
        work.iter_mut().for_each(Towards::round);
        work.retain(|towards| towards.alpha > 0.0);
        if work.iter().all(Towards::is_on_host) {
            let mut passed = Passed::Unfit;
            on_host(work, |pairs| passed = mix::mix_within(pairs));
            return passed;
        }
    }
    #[cfg(not(any(feature = "flex", feature = "train")))]
    drop(work);
    Passed::Unfit
}

/// Gives those pairs whose numbers are in the memory of the host to a kernel, and returns the rest.
#[cfg(any(feature = "flex", feature = "train"))]
fn on_host<'a>(
    work: Vec<Towards<'a>>,
    kernel: impl FnOnce(Vec<mix::Pair<'_>>),
) -> Vec<Towards<'a>> {
    let (mut work, rest) = match work.iter().all(Towards::is_on_host) {
        true => (work, Vec::new()),
        false => work.into_iter().partition(Towards::is_on_host),
    };
    for Towards { live, .. } in &mut work {
        if let Some(ordered) = host::laid_out(live.tensor()) {
            *live = Borrowed::Own(Box::new(ordered));
        }
    }
    let mut pairs = Vec::with_capacity(work.len());
    pairs.extend(work.iter_mut().filter_map(|Towards { average, live, alpha, most }| {
        let (average, live) = (host::numbers_mut(average)?, host::numbers(live.tensor())?);
        mix::Pair::new(average, live, *alpha, *most)
    }));
    kernel(pairs);
    rest
}

/// The share by which an average of a dtype moves: one rounding for all paths, before what they
/// decide by it.
pub(super) fn rounded(alpha: f64, dtype: DType) -> f64 {
    match dtype {
        DType::F64 => alpha,
        _ => f64::from(alpha as f32),
    }
}

impl Towards<'_> {
    fn round(&mut self) {
        self.alpha = rounded(self.alpha, self.average.dtype());
    }

    /// Whether both tensors are of the host, in dtypes that its kernel pairs.
    #[cfg(any(feature = "flex", feature = "train"))]
    fn is_on_host(&self) -> bool {
        let (average, live) = (&*self.average, self.live.tensor());
        let pairs = match (average.dtype(), live.dtype()) {
            (DType::F32 | DType::F64, DType::F16 | DType::BF16) => true,
            (average @ (DType::F32 | DType::F64), live) => average == live,
            _ => false,
        };
        !cfg!(feature = "portable") && pairs && host::is_here(average) && host::is_here(live)
    }
}

/// Moves one average towards its live tensor.
pub(super) fn lerp(average: &mut DispatchTensor, live: &DispatchTensor, alpha: f64) {
    let live = Borrowed::Tensor(live);
    lerp_all(vec![Towards { average, live, alpha, most: f64::INFINITY }]);
}

/// `a + c (b - s)`: an average with a share of how far live is from where it started.
pub(super) fn shifted(
    average: &DispatchTensor,
    live: &DispatchTensor,
    start: &DispatchTensor,
    share: f64,
) -> DispatchTensor {
    portable::shifted(average.clone(), live.clone(), start.clone(), share)
}

/// The float tensor in a dtype.
pub(super) fn cast(tensor: DispatchTensor, dtype: DType) -> DispatchTensor {
    portable::cast(tensor, dtype)
}

/// The tensor, of any kind, on a device.
pub(super) fn to_device(tensor: DispatchTensor, device: &DispatchDevice) -> DispatchTensor {
    portable::to_device(tensor, device)
}

/// Gives the tensor storage of its own, in memory, where an update could write in place.
pub(super) fn own(tensor: &mut DispatchTensor) {
    #[cfg(any(feature = "flex", feature = "train"))]
    let _ = host::numbers_mut(tensor);
    #[cfg(not(any(feature = "flex", feature = "train")))]
    let _ = tensor;
}

/// Where the numbers of a tensor are in the memory of the host, and how many.
#[cfg(feature = "train")]
pub(crate) type Spot = [usize; 2];

/// None for a tensor without numbers, in another order or of another memory.
#[cfg(feature = "train")]
pub(crate) fn spot(tensor: &DispatchTensor) -> Option<Spot> {
    let numbers = host::numbers(tensor).filter(|numbers| numbers.len() > 0)?;
    Some([numbers.address(), numbers.len()])
}

/// Whether two tensors are on one device.
pub(super) fn are_beside(a: &DispatchTensor, b: &DispatchTensor) -> bool {
    #[cfg(any(feature = "flex", feature = "train"))]
    if host::are_here(a, b) {
        return true;
    }
    a.device() == b.device()
}

/// Whether two tensors have the same shape.
pub(super) fn are_alike(a: &DispatchTensor, b: &DispatchTensor) -> bool {
    #[cfg(any(feature = "flex", feature = "train"))]
    if let Some((a, b)) = host::shape(a).zip(host::shape(b)) {
        return a == b;
    }
    a.shape() == b.shape()
}

/// Moves a tensor, of any kind, to the device of another, if that is another device.
pub(super) fn follow(tensor: &mut DispatchTensor, other: &DispatchTensor) {
    if !are_beside(tensor, other) {
        *tensor = on_device_of(tensor.clone(), other);
    }
}

/// The tensor, of any kind, on the device of another.
pub(super) fn on_device_of(tensor: DispatchTensor, other: &DispatchTensor) -> DispatchTensor {
    to_device(tensor, &other.device())
}

#[cfg(test)]
mod tests;
