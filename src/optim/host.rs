//! The numbers of float tensors in the memory of the host: Flex's and ndarray's.

#![cfg_attr(feature = "ndarray", expect(deprecated, reason = "Burn still ships ndarray"))]

use std::ops::{Add, Div, Mul, Sub};

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

/// `f32` and `f64`, and where tensors of them keep their numbers.
///
/// Numbers are found where a tensor is of this dtype and laid out in order; to be changed, where
/// it is their only owner too.
pub(super) trait Real:
    Element
    + Send
    + Sync
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
{
    fn of(number: f64) -> Self;
    fn root(self) -> Self;

    fn flex(tensor: &FlexTensor) -> Option<&[Self]>;
    fn flex_mut(tensor: &mut FlexTensor) -> Option<&mut [Self]>;

    #[cfg(feature = "ndarray")]
    fn ndarray(tensor: &NdArrayTensor) -> Option<&[Self]>;
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

    fn flex(tensor: &FlexTensor) -> Option<&[f32]> {
        tensor.as_slice()
    }

    fn flex_mut(tensor: &mut FlexTensor) -> Option<&mut [f32]> {
        let (start, end) = tensor.layout().contiguous_offsets()?;
        tensor.try_storage_mut().map(|storage| &mut storage[start..end])
    }

    #[cfg(feature = "ndarray")]
    fn ndarray(tensor: &NdArrayTensor) -> Option<&[f32]> {
        match tensor {
            NdArrayTensor::F32(storage) => storage.view().to_slice(),
            _ => None,
        }
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

    fn flex(tensor: &FlexTensor) -> Option<&[f64]> {
        tensor.as_slice()
    }

    fn flex_mut(tensor: &mut FlexTensor) -> Option<&mut [f64]> {
        let (start, end) = tensor.layout().contiguous_offsets()?;
        tensor.try_storage_mut().map(|storage| &mut storage[start..end])
    }

    #[cfg(feature = "ndarray")]
    fn ndarray(tensor: &NdArrayTensor) -> Option<&[f64]> {
        match tensor {
            NdArrayTensor::F64(storage) => storage.view().to_slice(),
            _ => None,
        }
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

/// Whether it is a float tensor of the host.
pub(super) fn is_here(tensor: &DispatchTensor) -> bool {
    match &tensor.kind {
        DispatchTensorKind::Flex(BackendTensor::Float(_)) => true,
        #[cfg(feature = "ndarray")]
        DispatchTensorKind::NdArray(BackendTensor::Float(_)) => true,
        _ => false,
    }
}

pub(super) fn numbers<T: Real>(tensor: &DispatchTensor) -> Option<&[T]> {
    match &tensor.kind {
        DispatchTensorKind::Flex(BackendTensor::Float(tensor)) => T::flex(tensor),
        #[cfg(feature = "ndarray")]
        DispatchTensorKind::NdArray(BackendTensor::Float(tensor)) => T::ndarray(tensor),
        _ => None,
    }
}

pub(super) fn numbers_mut<T: Real>(tensor: &mut DispatchTensor) -> Option<&mut [T]> {
    match &mut tensor.kind {
        DispatchTensorKind::Flex(BackendTensor::Float(tensor)) => T::flex_mut(tensor),
        #[cfg(feature = "ndarray")]
        DispatchTensorKind::NdArray(BackendTensor::Float(tensor)) => T::ndarray_mut(tensor),
        _ => None,
    }
}

/// The tensor, of the host, laid out in order: a view, such as a transposed one, is copied.
pub(super) fn in_order(tensor: DispatchTensor) -> DispatchTensor {
    let autodiff = tensor.autodiff;
    let kind = match tensor.kind {
        DispatchTensorKind::Flex(BackendTensor::Float(tensor)) if !tensor.is_contiguous() => {
            DispatchTensorKind::Flex(BackendTensor::Float(tensor.to_contiguous()))
        }
        #[cfg(feature = "ndarray")]
        DispatchTensorKind::NdArray(BackendTensor::Float(tensor)) => {
            DispatchTensorKind::NdArray(BackendTensor::Float(standard(tensor)))
        }
        kind => kind,
    };
    DispatchTensor { kind, autodiff }
}

#[cfg(feature = "ndarray")]
fn standard(tensor: NdArrayTensor) -> NdArrayTensor {
    match tensor {
        NdArrayTensor::F32(storage) if !storage.view().is_standard_layout() => {
            storage.view().as_standard_layout().into_owned().into_shared().into()
        }
        NdArrayTensor::F64(storage) if !storage.view().is_standard_layout() => {
            storage.view().as_standard_layout().into_owned().into_shared().into()
        }
        ordered => ordered,
    }
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
