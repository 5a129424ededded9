//! The tensors of CubeCL's backends: one launch for as many of them as the device binds at once.
//!
//! Under Burn's fusion a tensor may be planned and not yet computed. The kernel here does not read
//! such a tensor; Burn's own operations update it.

mod kernel;

use std::{any::Any, mem, ptr};

use burn::{
    backend::{BackendTensor, DispatchTensor, DispatchTensorKind},
    tensor::{DType, Shape},
};
use burn_cubecl::{kernel::into_contiguous, tensor::CubeTensor};
use cubecl::{
    features::TypeUsage,
    ir::{ElemType, FloatKind},
    prelude::CubeElement,
};

use self::kernel::Reading;
use super::Towards;
use crate::{Error, Result};

/// The largest number of buffers that a launch binds: a kernel has code for each of its tensors,
/// which takes time to compile.
const MAX_BINDINGS: usize = 128;

/// Moves the averages whose tensors are of CubeCL, and returns the rest.
pub(super) fn lerp_all(work: Vec<Towards<'_>>) -> Vec<Towards<'_>> {
    let (mut work, rest): (Vec<_>, Vec<_>) = work.into_iter().partition(is_supported);
    lerp(steps(&mut work));
    rest
}

/// True if this is a tensor that the kernel reads.
pub(super) fn is_read(tensor: &DispatchTensor) -> bool {
    self::tensor(tensor).is_some()
}

/// True if the kernel can move all of these averages, on the device of a check.
pub(super) fn can_wait_for(work: &[Towards<'_>], check: &PendingCheck) -> bool {
    let is_there = |towards: &Towards<'_>| {
        tensor(towards.average).is_some_and(|average| average.device == check.flags.device)
    };
    work.iter().all(|towards| is_supported(towards) && is_there(towards))
}

/// Gives each average storage of its own, laid out as live is.
pub(super) fn make_all_unique(mut work: Vec<Towards<'_>>) {
    prepare(&mut steps(&mut work), true);
}

/// Moves averages towards their live tensors, unless the check `look` finds a number that is not
/// finite or whose magnitude is above the bound of its tensor: then no average moves. The device
/// decides that, and the host does not wait for the decision.
///
/// The averages must be such that [`can_wait_for`] is true, and each must have
/// [storage of its own](make_all_unique): another tensor that shares the storage, such as that of a
/// clone, would change too.
pub(super) fn lerp_all_unless(mut work: Vec<Towards<'_>>, look: &PendingCheck) {
    launch(moves(steps(&mut work)), Some(&look.flags));
}

/// A live tensor, and its averages with their shares.
type OneLive<'a> = (CubeTensor, Vec<(&'a mut CubeTensor, f32)>);

/// Groups work on tensors of CubeCL by live tensor; work with the same one must be adjacent.
fn steps<'a>(work: &'a mut [Towards<'_>]) -> Vec<OneLive<'a>> {
    let same_live = |a: &Towards<'_>, b: &Towards<'_>| ptr::eq(a.live.tensor(), b.live.tensor());
    let steps = work.chunk_by_mut(same_live).filter_map(|run| {
        let live = tensor(run.first()?.live.tensor())?.clone();
        let averages = run
            .iter_mut()
            .filter_map(|towards| Some((tensor_mut(towards.average)?, towards.alpha as f32)));
        Some((live, averages.collect()))
    });
    steps.collect()
}

/// A check of tensors for numbers beyond a bound, whose result is still on the device.
pub(crate) struct PendingCheck {
    /// A flag for each tensor, set if a number is beyond its bound; a last one is set if any is.
    flags: CubeTensor,
    count: usize,
}

impl PendingCheck {
    /// Waits for the results of several checks of tensors of one device, by one read: for each
    /// tensor, true if it holds finite numbers alone, of magnitudes up to its bound.
    ///
    /// # Errors
    ///
    /// Flags that cannot be read back.
    pub fn read(looks: Vec<Self>) -> Result<Vec<Vec<bool>>> {
        let Some(Self { flags, .. }) = looks.first() else { return Ok(Vec::new()) };
        let client = flags.client.clone();
        let (counts, handles) = looks
            .into_iter()
            .map(|look| (look.count, look.flags.handle))
            .unzip::<_, _, Vec<_>, _>();
        #[cfg(all(test, feature = "wgpu", feature = "train"))]
        READS.set(READS.get() + 1);
        let answers = client.read(handles);
        let answers = answers
            .map_err(|error| Error::value("a tensor", "numbers that can be read back", error))?;
        let within = answers.iter().zip(counts).map(|(flags, count)| {
            u32::from_bytes(flags)[..count].iter().map(|&flag| flag == 0).collect()
        });
        Ok(within.collect())
    }

    /// True if both are on one device, so that one read gets both results.
    #[cfg(feature = "train")]
    pub fn is_on_same_device(&self, other: &Self) -> bool {
        self.flags.device == other.flags.device
    }
}

/// Starts a check that each tensor holds only finite numbers of magnitudes up to its bound; `None`
/// if they are not all of CubeCL and on one device.
pub(super) fn start_check(tensors: &[(&DispatchTensor, f64)]) -> Option<PendingCheck> {
    let tensors = tensors.iter().map(|(tensor, most)| Some((self::tensor(tensor)?, *most)));
    let tensors: Vec<_> = tensors.collect::<Option<_>>()?;
    let (CubeTensor { client, device, .. }, _) = tensors.first()?;
    let known = |tensor: &CubeTensor| tensor.device == *device && element(tensor).is_some();
    if !tensors.iter().all(|(tensor, _)| known(tensor)) {
        return None;
    }
    let count = tensors.len();
    let flags = client.create_from_slice(u32::as_bytes(&vec![0; count + 1]));
    let shape = Shape::new([count + 1]);
    let flags =
        CubeTensor::new_contiguous(client.clone(), device.clone(), shape, flags, DType::U32);
    let filled = tensors.into_iter().zip(0..).filter(|((tensor, _), _)| !is_empty(tensor));
    let readings = filled.map(|((tensor, most), flag)| {
        // A view is copied, since the numbers between its own must not be checked.
        let live = match is_dense(tensor) {
            true => tensor.clone(),
            false => into_contiguous(tensor.clone()),
        };
        let most = most.min(f64::from(f32::MAX)) as f32;
        Reading { numbers: span(&live), live, averages: Vec::new(), bound: Some((most, flag)) }
    });
    launch(readings.collect(), Some(&flags));
    Some(PendingCheck { flags, count })
}

/// Moves averages towards the live tensor of each.
fn lerp(mut steps: Vec<OneLive<'_>>) {
    prepare(&mut steps, false);
    launch(moves(steps), None);
}

/// Gives live and its averages the same layout, and each average storage of its own.
///
/// The average's numbers are copied to that storage. An average with a share of 1, which is about
/// to be overwritten, is copied only if `all` is true.
fn prepare(steps: &mut [OneLive<'_>], all: bool) {
    let mut copies = Vec::new();
    for (live, averages) in steps.iter_mut().filter(|(live, _)| !is_empty(live)) {
        if !averages.iter().all(|(average, _)| have_same_layout(average, live)) {
            *live = into_contiguous(live.clone());
            averages.iter_mut().for_each(|(average, _)| {
                **average = into_contiguous(average.clone());
            });
        }
        let numbers = span(live);
        for (average, alpha) in averages {
            if !average.can_mut() {
                let own = empty_like(average);
                let shared = mem::replace(*average, own.clone());
                // With a share of 1 the old numbers are not needed.
                if all || *alpha < 1.0 {
                    let averages = vec![(own, 1.0)];
                    copies.push(Reading { live: shared, numbers, averages, bound: None });
                }
            }
        }
    }
    launch(copies, None);
}

/// The readings that move averages, which were [prepared](prepare).
fn moves(steps: Vec<OneLive<'_>>) -> Vec<Reading> {
    let filled = steps.into_iter().filter(|(live, _)| !is_empty(live));
    let moves = filled.map(|(live, averages)| {
        let live = match averages.iter().all(|(average, _)| have_same_layout(average, &live)) {
            true => live,
            false => into_contiguous(live),
        };
        let averages = averages.into_iter().map(|(average, alpha)| (average.clone(), alpha));
        Reading { numbers: span(&live), live, averages: averages.collect(), bound: None }
    });
    moves.collect()
}

#[cfg(all(test, feature = "wgpu", feature = "train"))]
thread_local! {
    static READS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// The number of times that this thread has waited for the result of a [`PendingCheck`].
#[cfg(all(test, feature = "wgpu", feature = "train"))]
pub(crate) fn reads() -> usize {
    READS.get()
}

/// Launches the kernel for all readings: once for each device, dtype of live and set of bindings.
fn launch(readings: Vec<Reading>, flags: Option<&CubeTensor>) {
    for readings in by_kind(readings) {
        let Some((client, element)) = readings
            .first()
            .and_then(|reading| Some((reading.live.client.clone(), element(&reading.live)?)))
        else {
            continue;
        };
        let most = MAX_BINDINGS.min(client.properties().hardware.max_bindings as usize);
        let most = most - flags.iter().len();
        let readings = readings.into_iter().flat_map(|reading| reading.split(most - 1));
        let mut readings: Vec<_> = readings.collect();
        // Like with like, so that few kernels serve many launches.
        readings.sort_by_key(|reading| !reading.is_wide());
        for group in groups(readings, Reading::bindings, most) {
            kernel::launch(&client, element, flags.cloned(), group);
        }
    }
}

/// The readings in groups of one device and dtype, in their order.
fn by_kind(readings: Vec<Reading>) -> Vec<Vec<Reading>> {
    let mut kinds: Vec<Vec<Reading>> = Vec::new();
    for reading in readings {
        let (device, dtype) = (&reading.live.device, reading.live.dtype);
        let same = |kind: &&mut Vec<Reading>| {
            kind[0].live.device == *device && kind[0].live.dtype == dtype
        };
        match kinds.iter_mut().find(same) {
            Some(kind) => kind.push(reading),
            None => kinds.push(vec![reading]),
        }
    }
    kinds
}

/// Cuts items into groups whose sizes add up to no more than the most that a group takes.
fn groups<T>(
    items: impl IntoIterator<Item = T>,
    size: impl Fn(&T) -> usize,
    most: usize,
) -> Vec<Vec<T>> {
    let (mut groups, mut free) = (Vec::<Vec<T>>::new(), 0);
    for item in items {
        let size = size(&item);
        match groups.last_mut() {
            Some(group) if size <= free => {
                group.push(item);
                free -= size;
            }
            _ => {
                groups.push(vec![item]);
                free = most.saturating_sub(size);
            }
        }
    }
    groups
}

/// True if the kernel can move this average.
fn is_supported(towards: &Towards<'_>) -> bool {
    let Some((average, live)) = tensor(towards.average).zip(tensor(towards.live.tensor())) else {
        return false;
    };
    average.dtype == DType::F32 && average.device == live.device && element(live).is_some()
}

/// The float tensor of CubeCL behind a tensor; `None` for others, or if Burn's fusion has only
/// planned it.
fn tensor(tensor: &DispatchTensor) -> Option<&CubeTensor> {
    match &tensor.kind {
        _ if cfg!(feature = "portable") => None,
        DispatchTensorKind::Cube(BackendTensor::Float(tensor)) => {
            (tensor as &dyn Any).downcast_ref()
        }
        _ => None,
    }
}

/// Like [`tensor`], but mutable.
fn tensor_mut(tensor: &mut DispatchTensor) -> Option<&mut CubeTensor> {
    match &mut tensor.kind {
        DispatchTensorKind::Cube(BackendTensor::Float(tensor)) => {
            (tensor as &mut dyn Any).downcast_mut()
        }
        _ => None,
    }
}

/// The element type of a live tensor; `None` if the kernel cannot read it on this device, or cannot
/// index all its elements.
fn element(live: &CubeTensor) -> Option<ElemType> {
    let element = ElemType::Float(match live.dtype {
        DType::F32 => FloatKind::F32,
        DType::F16 => FloatKind::F16,
        DType::BF16 => FloatKind::BF16,
        _ => return None,
    });
    let usage = live.client.properties().type_usage(element);
    let known = usage.is_superset(TypeUsage::Buffer | TypeUsage::Conversion);
    (known && i32::try_from(live.handle.size()).is_ok()).then_some(element)
}

fn is_empty(tensor: &CubeTensor) -> bool {
    tensor.meta.num_elements() == 0
}

/// True if each index is at the same place in both buffers, and no two indices share a place.
fn have_same_layout(a: &CubeTensor, b: &CubeTensor) -> bool {
    let strides = |tensor: &CubeTensor| {
        let dims = tensor.meta.shape().iter().zip(tensor.meta.strides().iter());
        dims.filter(|&(&size, _)| size != 1).map(|(_, &stride)| stride).collect::<Vec<_>>()
    };
    let rows = !a.meta.is_tiled() && !b.meta.is_tiled();
    rows && strides(a) == strides(b) && (a.is_contiguous() || a.is_nonoverlapping())
}

/// True if the tensor's numbers, in any order, fill its span of the buffer without gaps.
fn is_dense(tensor: &CubeTensor) -> bool {
    have_same_layout(tensor, tensor) && span(tensor) == tensor.meta.num_elements()
}

/// The numbers of the buffer from a tensor's first to its last, with those between that are not its
/// own.
fn span(tensor: &CubeTensor) -> usize {
    let dims = tensor.meta.shape().iter().zip(tensor.meta.strides().iter());
    1 + dims.map(|(&size, &stride)| (size - 1) * stride).sum::<usize>()
}

/// A tensor of the same layout, with storage of its own whose numbers are undefined.
fn empty_like(tensor: &CubeTensor) -> CubeTensor {
    let handle = tensor.client.empty(span(tensor) * tensor.elem_size());
    CubeTensor { handle, ..tensor.clone() }
}

#[cfg(all(test, feature = "wgpu"))]
mod tests;
