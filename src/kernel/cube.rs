//! The tensors of CubeCL's backends: one launch for as many of them as the device binds at once.
//!
//! Under Burn's fusion a tensor may be a plan of one, which is not looked into: it takes the
//! portable path.

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
const MOST_BINDINGS: usize = 128;

/// Moves the averages whose tensors are of CubeCL, and returns the rest.
pub(super) fn lerp_all(work: Vec<Towards<'_>>) -> Vec<Towards<'_>> {
    let (mut work, rest): (Vec<_>, Vec<_>) = work.into_iter().partition(is_here);
    let same_live = |a: &Towards<'_>, b: &Towards<'_>| ptr::eq(a.live.tensor(), b.live.tensor());
    let steps = work.chunk_by_mut(same_live).filter_map(|run| {
        let live = tensor(run.first()?.live.tensor())?.clone();
        let averages = run
            .iter_mut()
            .filter_map(|towards| Some((tensor_mut(towards.average)?, towards.alpha as f32)));
        Some((live, averages.collect()))
    });
    lerp(steps.collect());
    rest
}

/// Whether each of the tensors holds numbers alone, of magnitudes up to its bound; none where they
/// are not all of CubeCL and on one device.
pub(super) fn within(tensors: &[(&DispatchTensor, f64)]) -> Option<Result<Vec<bool>>> {
    let tensors = tensors.iter().map(|(tensor, most)| Some((self::tensor(tensor)?, *most)));
    let tensors: Vec<_> = tensors.collect::<Option<_>>()?;
    let (CubeTensor { client, device, .. }, _) = tensors.first()?;
    let known = |tensor: &CubeTensor| tensor.device == *device && element(tensor).is_some();
    if !tensors.iter().all(|(tensor, _)| known(tensor)) {
        return None;
    }
    let flags = client.create_from_slice(u32::as_bytes(&vec![0; tensors.len()]));
    let shape = Shape::new([tensors.len()]);
    let flags =
        CubeTensor::new_contiguous(client.clone(), device.clone(), shape, flags, DType::U32);
    let filled = tensors.into_iter().zip(0..).filter(|((tensor, _), _)| !is_empty(tensor));
    let readings = filled.map(|((tensor, most), flag)| {
        // What lies between the numbers of a view is not looked at.
        let live = match is_dense(tensor) {
            true => tensor.clone(),
            false => into_contiguous(tensor.clone()),
        };
        let most = most.min(f64::from(f32::MAX)) as f32;
        Reading { numbers: span(&live), live, averages: Vec::new(), bound: Some((most, flag)) }
    });
    launch(readings.collect(), Some(&flags));
    let flags = client.read_one(flags.handle);
    let flags = flags.map(|flags| u32::from_bytes(&flags).iter().map(|&flag| flag == 0).collect());
    Some(flags.map_err(|error| Error::value("a tensor", "numbers that can be read back", error)))
}

/// Moves averages towards the live tensor of each.
fn lerp(steps: Vec<(CubeTensor, Vec<(&mut CubeTensor, f32)>)>) {
    let (mut copies, mut moves) = (Vec::new(), Vec::new());
    for (mut live, mut averages) in steps.into_iter().filter(|(live, _)| !is_empty(live)) {
        if !averages.iter().all(|(average, _)| are_alike(average, &live)) {
            live = into_contiguous(live);
            averages.iter_mut().for_each(|(average, _)| {
                **average = into_contiguous(average.clone());
            });
        }
        let numbers = span(&live);
        for (average, alpha) in &mut averages {
            if !average.can_mut() {
                let own = empty_like(average);
                let shared = mem::replace(*average, own.clone());
                // A share of 1 takes nothing of it.
                if *alpha < 1.0 {
                    let averages = vec![(own, 1.0)];
                    copies.push(Reading { live: shared, numbers, averages, bound: None });
                }
            }
        }
        let averages = averages.into_iter().map(|(average, alpha)| (average.clone(), alpha));
        moves.push(Reading { live, numbers, averages: averages.collect(), bound: None });
    }
    launch(copies, None);
    launch(moves, None);
}

/// Launches the kernel as often as bindings, devices and dtypes of live need it.
fn launch(readings: Vec<Reading>, flags: Option<&CubeTensor>) {
    for readings in by_kind(readings) {
        let Some((client, element)) = readings
            .first()
            .and_then(|reading| Some((reading.live.client.clone(), element(&reading.live)?)))
        else {
            continue;
        };
        let most = MOST_BINDINGS.min(client.properties().hardware.max_bindings as usize);
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

/// Those of one device and dtype together, in their order.
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

/// Whether the kernel moves this average.
fn is_here(towards: &Towards<'_>) -> bool {
    let Some((average, live)) = tensor(towards.average).zip(tensor(towards.live.tensor())) else {
        return false;
    };
    average.dtype == DType::F32 && average.device == live.device && element(live).is_some()
}

/// A float tensor of CubeCL, unless it is but planned.
fn tensor(tensor: &DispatchTensor) -> Option<&CubeTensor> {
    match &tensor.kind {
        _ if cfg!(feature = "portable") => None,
        DispatchTensorKind::Cube(BackendTensor::Float(tensor)) => {
            (tensor as &dyn Any).downcast_ref()
        }
        _ => None,
    }
}

/// The same, to be changed.
fn tensor_mut(tensor: &mut DispatchTensor) -> Option<&mut CubeTensor> {
    match &mut tensor.kind {
        DispatchTensorKind::Cube(BackendTensor::Float(tensor)) => {
            (tensor as &mut dyn Any).downcast_mut()
        }
        _ => None,
    }
}

/// The elements of a live tensor, if the kernel reads and counts such on its device.
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

/// Whether numbers with the same index lie at the same place of both buffers, and no two at one.
fn are_alike(a: &CubeTensor, b: &CubeTensor) -> bool {
    let strides = |tensor: &CubeTensor| {
        let dims = tensor.meta.shape().iter().zip(tensor.meta.strides().iter());
        dims.filter(|&(&size, _)| size != 1).map(|(_, &stride)| stride).collect::<Vec<_>>()
    };
    let rows = !a.meta.is_tiled() && !b.meta.is_tiled();
    rows && strides(a) == strides(b) && (a.is_contiguous() || a.is_nonoverlapping())
}

/// Whether its numbers, in any order, are all that lies where it begins and ends.
fn is_dense(tensor: &CubeTensor) -> bool {
    are_alike(tensor, tensor) && span(tensor) == tensor.meta.num_elements()
}

/// How many numbers of the buffer a tensor reaches over, those between its own included.
fn span(tensor: &CubeTensor) -> usize {
    let dims = tensor.meta.shape().iter().zip(tensor.meta.strides().iter());
    1 + dims.map(|(&size, &stride)| (size - 1) * stride).sum::<usize>()
}

/// A tensor laid out alike, with storage of its own and any numbers in it.
fn empty_like(tensor: &CubeTensor) -> CubeTensor {
    let handle = tensor.client.empty(span(tensor) * tensor.elem_size());
    CubeTensor { handle, ..tensor.clone() }
}

#[cfg(all(test, feature = "wgpu"))]
mod tests;
