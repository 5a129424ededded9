//! Measurements of tensors: whether their numbers are finite, and how far two tensors are apart.

use burn::{
    backend::{Dispatch, DispatchTensor, TensorMetadata, ops::FloatTensorOps},
    tensor::{DType, Shape, Tensor},
};

#[cfg(feature = "flex")]
use burn_ema_host::{slice, to_order};

#[cfg(feature = "flex")]
use super::host;
use super::{cube, portable};
use crate::{Error, Result};

/// For each float tensor, true if all its numbers are finite and their magnitudes within its bound.
pub(crate) fn within<'a>(
    tensors: impl Iterator<Item = (&'a DispatchTensor, f64)>,
) -> Result<Vec<bool>> {
    let tensors: Vec<_> = tensors.collect();
    #[cfg(feature = "flex")]
    if !cfg!(feature = "portable")
        && let Some(within) = within_on_host(&tensors)
    {
        return Ok(within);
    }
    if let Some(look) = cube::start_check(&tensors) {
        return Ok(cube::PendingCheck::read(vec![look])?.swap_remove(0));
    }
    // The largest magnitude, and the sum of all, in which a NaN or an infinity shows.
    let (sums, largest) = tensors
        .iter()
        .map(|(tensor, _)| {
            let magnitudes = Dispatch::float_abs(widened((*tensor).clone()));
            (Dispatch::float_sum(magnitudes.clone()), largest(magnitudes))
        })
        .unzip();
    let (sums, largest) = (read_each(sums)?, read_each(largest)?);
    let each = tensors.into_iter().zip(sums.into_iter().zip(largest));
    each.map(|((tensor, most), (sum, largest))| {
        // The sum of finite numbers can overflow: then all of them are read, which is rare.
        Ok(match sum.is_finite() {
            true => largest <= most,
            false => read(tensor.clone())?.iter().all(|x| x.is_finite() && x.abs() <= most),
        })
    })
    .collect()
}

/// The result of [`within`], if all tensors are in host memory; else `None`.
#[cfg(feature = "flex")]
fn within_on_host(tensors: &[(&DispatchTensor, f64)]) -> Option<Vec<bool>> {
    let in_order = tensors.iter().map(|(tensor, most)| Some((slice(tensor)?, *most)));
    if let Some(numbers) = in_order.collect::<Option<Vec<_>>>() {
        return Some(host::within(&numbers));
    }
    let ordered: Vec<_> = tensors.iter().map(|(tensor, _)| to_order(tensor)).collect();
    let numbers = tensors
        .iter()
        .zip(&ordered)
        .map(|((tensor, most), ordered)| Some((slice(ordered.as_ref().unwrap_or(tensor))?, *most)));
    Some(host::within(&numbers.collect::<Option<Vec<_>>>()?))
}

/// The largest number of a tensor of magnitudes; 0 if it is empty.
fn largest(magnitudes: DispatchTensor) -> DispatchTensor {
    match magnitudes.shape().num_elements() {
        0 => Dispatch::float_sum(magnitudes),
        _ => Dispatch::float_max(magnitudes),
    }
}

/// The sum of `(a - w)^2` and the sum of `a^2`, over pairs of float tensors; the tensors of a pair
/// have one dtype and device.
pub(crate) fn squared_distance(
    pairs: impl Iterator<Item = (DispatchTensor, DispatchTensor)>,
) -> Result<(f64, f64)> {
    let pairs: Vec<_> = pairs.map(|(a, w)| (widened(a), widened(w))).collect();
    let square = |x: DispatchTensor| Dispatch::float_sum(Dispatch::float_mul(x.clone(), x));
    let (apart, norms) = pairs
        .iter()
        .map(|(a, w)| (square(Dispatch::float_sub(a.clone(), w.clone())), square(a.clone())))
        .unzip();
    let sums = read_each(apart)?.into_iter().zip(read_each(norms)?);
    let mut total = (0.0, 0.0);
    for ((mut apart, mut norm), (a, w)) in sums.zip(pairs) {
        // Squares overflow long before numbers do: then they are computed in double precision.
        if !(apart + norm).is_finite() {
            let (a, w) = (read(a)?, read(w)?);
            apart = a.iter().zip(&w).map(|(a, w)| (a - w) * (a - w)).sum();
            norm = a.iter().map(|a| a * a).sum();
        }
        total = (total.0 + apart, total.1 + norm);
    }
    Ok(total)
}

/// The tensor; in f32 if it has 16 bits, which are too few for a sum.
fn widened(tensor: DispatchTensor) -> DispatchTensor {
    match tensor.dtype() {
        DType::F16 | DType::BF16 => portable::cast(tensor, DType::F32),
        _ => tensor,
    }
}

/// The numbers in tensors of one element each, by one read if they are on one device and not f64.
fn read_each(tensors: Vec<DispatchTensor>) -> Result<Vec<f64>> {
    let Some(device) = tensors.first().map(TensorMetadata::device) else { return Ok(Vec::new()) };
    if tensors.iter().any(|tensor| tensor.device() != device || tensor.dtype() == DType::F64) {
        let each = tensors.into_iter().map(read).collect::<Result<Vec<_>>>()?;
        return Ok(each.into_iter().flatten().collect());
    }
    let tensors = tensors.into_iter().map(|tensor| portable::cast(tensor, DType::F32));
    read(Dispatch::float_cat(tensors.collect(), 0))
}

/// The numbers of a float tensor.
fn read(tensor: DispatchTensor) -> Result<Vec<f64>> {
    let count = tensor.shape().num_elements();
    let row = Dispatch::float_reshape(tensor, Shape::new([count]));
    let numbers = Tensor::<1>::from_dispatch(row).try_into_vec_as::<f64>();
    numbers.map_err(|error| Error::value("a tensor", "numbers that can be read back", error))
}

#[cfg(test)]
mod tests;
