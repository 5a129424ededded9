//! The kernels: `a <- a + alpha (w - a)` for pairs of tensors.
//!
//! One call gets all pairs of an update and uses the fastest path for the backend of each: slices
//! for tensors in host memory, one launch for many tensors of CubeCL, and Burn's own operations for
//! all others.
//! All paths of the host compute the same expression with the same roundings, without a fused
//! multiply-add, so that an average has the same bits on every x86.

#[cfg(any(feature = "wgpu", feature = "cuda", feature = "rocm", feature = "cpu"))]
mod cube;
#[cfg(not(any(feature = "wgpu", feature = "cuda", feature = "rocm", feature = "cpu")))]
#[path = "no_cube.rs"]
mod cube;
#[cfg(feature = "flex")]
mod host;
mod measure;
mod portable;

#[cfg(feature = "train")]
use burn::tensor::Tensor;
use burn::{
    backend::{DispatchDevice, DispatchTensor, TensorMetadata},
    tensor::DType,
};

#[cfg(feature = "flex")]
use burn_ema_host::{Slice, are_both_flex, is_on_host, owned_numbers_mut, shape, slice, to_order};

#[cfg(feature = "train")]
use crate::{Error, Result};

pub(crate) use measure::{squared_distance, within};

/// An average and the live tensor towards which it moves.
///
/// Shapes and devices agree; live may have another dtype.
pub(crate) struct Towards<'a> {
    pub average: &'a mut DispatchTensor,
    pub live: Borrowed<'a>,
    /// The share of the way to live by which the average moves, in `[0, 1]`.
    ///
    /// 1 copies `w`, since `a + 1 (w - a)` rounds to another number for one in ten pairs.
    pub alpha: f64,
}

/// A tensor that is borrowed, or one that was made for a single call.
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

/// Moves each average towards its live tensor; averages with the same live tensor must be adjacent.
pub(crate) fn lerp_all(work: Vec<Towards<'_>>) {
    let work = rounded(work);
    #[cfg(feature = "flex")]
    let work = on_host(work);
    let work = cube::lerp_all(work);
    for Towards { average, live, alpha, .. } in work {
        let live = portable::cast(live.tensor().clone(), average.dtype());
        portable::lerp(average, &live, alpha);
    }
}

pub(crate) use cube::PendingCheck;
#[cfg(all(test, feature = "wgpu", feature = "train"))]
pub(crate) use cube::reads;

/// Starts the check of [`within`] without waiting for its result; `None` if the tensors are not all
/// on one GPU.
pub(crate) fn start_check(tensors: &[(&DispatchTensor, f64)]) -> Option<PendingCheck> {
    cube::start_check(tensors)
}

/// The result of [`within`] and that of an earlier check, if there is one. Both are read with one
/// wait if they are on one device.
#[cfg(feature = "train")]
pub(crate) fn within_and(
    tensors: &[(&DispatchTensor, f64)],
    earlier: Option<PendingCheck>,
) -> Result<(Vec<bool>, Option<Vec<bool>>)> {
    let Some(earlier) = earlier else { return Ok((within(tensors.iter().copied())?, None)) };
    let looks = match cube::start_check(tensors) {
        Some(look) if look.is_on_same_device(&earlier) => vec![earlier, look],
        _ => vec![earlier],
    };
    let mut answers = PendingCheck::read(looks)?.into_iter();
    let earlier = answers.next();
    let now = match answers.next() {
        Some(now) => now,
        None => within(tensors.iter().copied())?,
    };
    Ok((now, earlier))
}

/// True if this is a tensor of a GPU that the kernels read.
pub(crate) fn is_on_gpu(tensor: &DispatchTensor) -> bool {
    cube::is_read(tensor)
}

/// True if [`lerp_all_unless`] can move all of these averages, on the device of this check.
pub(crate) fn can_wait_for(work: &[Towards<'_>], check: &PendingCheck) -> bool {
    cube::can_wait_for(work, check)
}

/// Gives each average storage of its own; all of them must [wait for a check](can_wait_for).
pub(crate) fn make_all_unique(work: Vec<Towards<'_>>) {
    cube::make_all_unique(work);
}

/// Moves averages as [`lerp_all`] does, unless a check finds a number beyond its bound.
///
/// Each average must [have storage of its own](make_all_unique); a tensor that shares it changes
/// too.
pub(crate) fn lerp_all_unless(work: Vec<Towards<'_>>, look: &PendingCheck) {
    cube::lerp_all_unless(rounded(work), look);
}

/// The work whose share is above 0, with each share rounded to f32, or kept in f64 for an average
/// of f64.
///
/// Shares are rounded here, once, so that all paths decide and compute by the same number.
fn rounded(mut work: Vec<Towards<'_>>) -> Vec<Towards<'_>> {
    for Towards { average, alpha, .. } in &mut work {
        if average.dtype() != DType::F64 {
            *alpha = f64::from(*alpha as f32);
        }
    }
    work.retain(|towards| towards.alpha > 0.0);
    work
}

/// Moves the averages whose numbers are in host memory, and returns the rest of the work.
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
    /// True if both tensors are in host memory, in dtypes that the host's kernel pairs.
    #[cfg(feature = "flex")]
    fn is_on_host(&self) -> bool {
        let (average, live) = (&*self.average, self.live.tensor());
        let pairs = match (average.dtype(), live.dtype()) {
            (DType::F32 | DType::F64, DType::F16 | DType::BF16) => true,
            (average @ (DType::F32 | DType::F64), live) => average == live,
            _ => false,
        };
        !cfg!(feature = "portable") && pairs && is_on_host(average) && is_on_host(live)
    }
}

/// Calls `take` with up to `most` numbers of a tensor, spread evenly, if they are in host memory.
pub(crate) fn sample(tensor: &DispatchTensor, most: usize, take: impl FnMut(f64)) {
    #[cfg(feature = "flex")]
    if let Some(numbers) = slice(tensor) {
        let each = (0..numbers.len()).step_by(numbers.len().div_ceil(most).max(1));
        match numbers {
            Slice::F32(numbers) => each.map(|i| f64::from(numbers[i])).for_each(take),
            Slice::F64(numbers) => each.map(|i| numbers[i]).for_each(take),
            Slice::F16(numbers) => each.map(|i| f64::from(numbers[i])).for_each(take),
            Slice::Bf16(numbers) => each.map(|i| f64::from(numbers[i])).for_each(take),
        }
    }
    #[cfg(not(feature = "flex"))]
    let _ = (tensor, most, take);
}

/// True if two float tensors of one dtype have the same shape and the same bits; it waits for a
/// GPU.
///
/// # Errors
///
/// Tensors that cannot be read back.
#[cfg(feature = "train")]
pub(crate) fn are_equal(a: DispatchTensor, b: DispatchTensor) -> Result<bool> {
    let data = |tensor| {
        let data = Tensor::<1>::from_dispatch(tensor).try_into_data();
        data.map_err(|error| Error::value("a tensor", "numbers that can be read back", error))
    };
    Ok(have_same_shape(&a, &b) && data(a)?.as_bytes() == data(b)?.as_bytes())
}

/// Moves one average towards its live tensor.
pub(crate) fn lerp(average: &mut DispatchTensor, live: &DispatchTensor, alpha: f64) {
    let live = Borrowed::Tensor(live);
    lerp_all(vec![Towards { average, live, alpha }]);
}

/// `a + c (b - s)`: the average plus a share of the difference between live and its start.
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

/// Gives a tensor of Flex storage of its own, which updates then change in place; does nothing for
/// other backends.
pub(crate) fn make_unique(tensor: &mut DispatchTensor) {
    #[cfg(feature = "flex")]
    let _ = owned_numbers_mut(tensor);
    #[cfg(not(feature = "flex"))]
    let _ = tensor;
}

/// True if two tensors are on one device.
pub(crate) fn are_on_same_device(a: &DispatchTensor, b: &DispatchTensor) -> bool {
    #[cfg(feature = "flex")]
    if are_both_flex(a, b) {
        return true;
    }
    a.device() == b.device()
}

/// True if two tensors have the same shape.
pub(crate) fn have_same_shape(a: &DispatchTensor, b: &DispatchTensor) -> bool {
    #[cfg(feature = "flex")]
    if let Some((a, b)) = shape(a).zip(shape(b)) {
        return a == b;
    }
    a.shape() == b.shape()
}

/// Moves a tensor, of any kind, to the device of another one, unless it is there already.
pub(crate) fn move_to_device_of(tensor: &mut DispatchTensor, other: &DispatchTensor) {
    if !are_on_same_device(tensor, other) {
        *tensor = on_device_of(tensor.clone(), other);
    }
}

/// The tensor, of any kind, on the device of another.
pub(crate) fn on_device_of(tensor: DispatchTensor, other: &DispatchTensor) -> DispatchTensor {
    to_device(tensor, &other.device())
}

#[cfg(test)]
mod tests;
