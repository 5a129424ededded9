//! The numbers of float tensors in the memory of the host: Flex's and ndarray's.

#![cfg_attr(feature = "ndarray", expect(deprecated, reason = "Burn still ships ndarray"))]

use std::ops::Div;

#[cfg(feature = "ndarray")]
use burn::{
    backend::ndarray::{NdArrayTensor, SharedArray},
    tensor::Shape,
};
use burn::{
    backend::{
        BackendTensor, DispatchTensor, DispatchTensorKind, TensorMetadata, flex::FlexTensor,
    },
    tensor::{Element, TensorData},
};

use crate::average::{self, laid_out};

/// `f32` and `f64`, and where tensors of them keep their numbers.
///
/// Numbers are found where a tensor is of this dtype and laid out in order; to be changed, where
/// it is their only owner too.
pub(super) trait Real: average::Real + Element + Div<Output = Self> {
    fn of(number: f64) -> Self;
    fn root(self) -> Self;

    fn flex_mut(tensor: &mut FlexTensor) -> Option<&mut [Self]>;

    #[cfg(feature = "ndarray")]
    fn ndarray_mut(tensor: &mut NdArrayTensor) -> Option<&mut [Self]>;
    #[cfg(feature = "ndarray")]
    fn ndarray_of(numbers: Vec<Self>, shape: &Shape) -> NdArrayTensor;
}

impl Real for f32 {
    fn of(number: f64) -> Self {
        number as f32
    }

    fn root(self) -> Self {
        self.sqrt()
    }

    fn flex_mut(tensor: &mut FlexTensor) -> Option<&mut [f32]> {
        let (start, end) = tensor.layout().contiguous_offsets()?;
        tensor.try_storage_mut().map(|storage| &mut storage[start..end])
    }

    #[cfg(feature = "ndarray")]
    fn ndarray_mut(tensor: &mut NdArrayTensor) -> Option<&mut [f32]> {
        match tensor {
            NdArrayTensor::F32(storage) if storage.is_unique() => {
                storage.ensure_owned().as_slice_mut()
            }
            _ => None,
        }
    }

    #[cfg(feature = "ndarray")]
    fn ndarray_of(numbers: Vec<f32>, shape: &Shape) -> NdArrayTensor {
        ordered(numbers, shape).into()
    }
}

impl Real for f64 {
    fn of(number: f64) -> Self {
        number
    }

    fn root(self) -> Self {
        self.sqrt()
    }

    fn flex_mut(tensor: &mut FlexTensor) -> Option<&mut [f64]> {
        let (start, end) = tensor.layout().contiguous_offsets()?;
        tensor.try_storage_mut().map(|storage| &mut storage[start..end])
    }

    #[cfg(feature = "ndarray")]
    fn ndarray_mut(tensor: &mut NdArrayTensor) -> Option<&mut [f64]> {
        match tensor {
            NdArrayTensor::F64(storage) if storage.is_unique() => {
                storage.ensure_owned().as_slice_mut()
            }
            _ => None,
        }
    }

    #[cfg(feature = "ndarray")]
    fn ndarray_of(numbers: Vec<f64>, shape: &Shape) -> NdArrayTensor {
        ordered(numbers, shape).into()
    }
}

#[cfg(feature = "ndarray")]
fn ordered<T: Real>(numbers: Vec<T>, shape: &Shape) -> SharedArray<T> {
    SharedArray::from_shape_vec(&shape[..], numbers).expect("as many numbers as the shape says")
}

pub(super) fn sole_numbers_mut<T: Real>(tensor: &mut DispatchTensor) -> Option<&mut [T]> {
    match &mut tensor.kind {
        DispatchTensorKind::Flex(BackendTensor::Float(tensor)) => T::flex_mut(tensor),
        #[cfg(feature = "ndarray")]
        DispatchTensorKind::NdArray(BackendTensor::Float(tensor)) => T::ndarray_mut(tensor),
        _ => None,
    }
}

/// The tensor, of the host, laid out in order: a view, such as a transposed one, is copied.
pub(super) fn in_order(tensor: DispatchTensor) -> DispatchTensor {
    laid_out(&tensor).unwrap_or(tensor)
}

/// A tensor of these numbers, of the backend and shape of another one of the host.
pub(super) fn tensor_like<T: Real>(numbers: Vec<T>, other: &DispatchTensor) -> DispatchTensor {
    let shape = other.shape();
    let kind = match &other.kind {
        #[cfg(feature = "ndarray")]
        DispatchTensorKind::NdArray(_) => {
            DispatchTensorKind::NdArray(BackendTensor::Float(T::ndarray_of(numbers, &shape)))
        }
        _ => {
            let data = TensorData::new(numbers, shape);
            DispatchTensorKind::Flex(BackendTensor::Float(FlexTensor::from_data(data)))
        }
    };
    DispatchTensor { kind, autodiff: other.autodiff }
}
