//! The numbers of tensors that lie in the memory of the host: Flex's and ndarray's.

#[cfg(feature = "ndarray")]
use burn::backend::ndarray::{NdArrayTensor, SharedArray};
use burn::backend::{BackendTensor, DispatchTensor, DispatchTensorKind, flex::FlexTensor};
use burn::tensor::{DType, Shape};
use half::{bf16, f16};

/// Floats in memory, in order.
#[derive(Clone, Copy)]
pub(crate) enum Numbers<'a> {
    F32(&'a [f32]),
    F64(&'a [f64]),
    F16(&'a [f16]),
    Bf16(&'a [bf16]),
}

impl<'a> Numbers<'a> {
    pub fn len(self) -> usize {
        match self {
            Self::F32(numbers) => numbers.len(),
            Self::F64(numbers) => numbers.len(),
            Self::F16(numbers) => numbers.len(),
            Self::Bf16(numbers) => numbers.len(),
        }
    }

    /// Some of them.
    pub fn part(self, start: usize, len: usize) -> Self {
        let part = start..start + len;
        match self {
            Self::F32(numbers) => Self::F32(&numbers[part]),
            Self::F64(numbers) => Self::F64(&numbers[part]),
            Self::F16(numbers) => Self::F16(&numbers[part]),
            Self::Bf16(numbers) => Self::Bf16(&numbers[part]),
        }
    }

    /// Where they begin.
    pub fn address(self) -> usize {
        match self {
            Self::F32(numbers) => numbers.as_ptr().addr(),
            Self::F64(numbers) => numbers.as_ptr().addr(),
            Self::F16(numbers) => numbers.as_ptr().addr(),
            Self::Bf16(numbers) => numbers.as_ptr().addr(),
        }
    }
}

/// Floats in memory, in order, to be changed.
pub(crate) enum NumbersMut<'a> {
    F32(&'a mut [f32]),
    F64(&'a mut [f64]),
}

/// Whether it is a float tensor of the host.
pub(crate) fn is_here(tensor: &DispatchTensor) -> bool {
    match &tensor.kind {
        DispatchTensorKind::Flex(BackendTensor::Float(_)) => true,
        #[cfg(feature = "ndarray")]
        DispatchTensorKind::NdArray(BackendTensor::Float(_)) => true,
        _ => false,
    }
}

/// Whether both are tensors of Flex, which has one device.
///
/// Where a device is made only to be compared, that costs as much as a hundred numbers.
pub(crate) fn are_here(a: &DispatchTensor, b: &DispatchTensor) -> bool {
    matches!((&a.kind, &b.kind), (DispatchTensorKind::Flex(_), DispatchTensorKind::Flex(_)))
}

/// The shape of a float tensor of Flex, which is there to be looked at.
pub(crate) fn shape(tensor: &DispatchTensor) -> Option<&Shape> {
    match &tensor.kind {
        DispatchTensorKind::Flex(BackendTensor::Float(tensor)) => Some(tensor.layout().shape()),
        _ => None,
    }
}

/// The numbers of a float tensor of the host that is laid out in order.
pub(crate) fn numbers(tensor: &DispatchTensor) -> Option<Numbers<'_>> {
    match &tensor.kind {
        DispatchTensorKind::Flex(BackendTensor::Float(tensor)) => match tensor.dtype() {
            DType::F32 => tensor.as_slice().map(Numbers::F32),
            DType::F64 => tensor.as_slice().map(Numbers::F64),
            DType::F16 => tensor.as_slice().map(Numbers::F16),
            DType::BF16 => tensor.as_slice().map(Numbers::Bf16),
            _ => None,
        },
        #[cfg(feature = "ndarray")]
        DispatchTensorKind::NdArray(BackendTensor::Float(tensor)) => match tensor {
            NdArrayTensor::F32(storage) => storage.view().to_slice().map(Numbers::F32),
            NdArrayTensor::F64(storage) => storage.view().to_slice().map(Numbers::F64),
            _ => None,
        },
        _ => None,
    }
}

/// A view of a tensor of the host, such as a transposed weight, laid out in order.
///
/// None where the tensor is so already, or is not of the host.
pub(crate) fn laid_out(tensor: &DispatchTensor) -> Option<DispatchTensor> {
    let kind = match &tensor.kind {
        DispatchTensorKind::Flex(BackendTensor::Float(tensor)) if !tensor.is_contiguous() => {
            DispatchTensorKind::Flex(BackendTensor::Float(tensor.to_contiguous()))
        }
        #[cfg(feature = "ndarray")]
        DispatchTensorKind::NdArray(BackendTensor::Float(tensor)) => {
            let tensor = match tensor {
                NdArrayTensor::F32(storage) if !storage.view().is_standard_layout() => {
                    storage.view().as_standard_layout().into_owned().into_shared().into()
                }
                NdArrayTensor::F64(storage) if !storage.view().is_standard_layout() => {
                    storage.view().as_standard_layout().into_owned().into_shared().into()
                }
                _ => return None,
            };
            DispatchTensorKind::NdArray(BackendTensor::Float(tensor))
        }
        _ => return None,
    };
    Some(DispatchTensor { kind, ..tensor.clone() })
}

/// The numbers of a float tensor of f32 or f64 of the host, to be changed.
///
/// A storage that is shared, larger than the tensor, in another order or in a file is copied.
pub(crate) fn numbers_mut(tensor: &mut DispatchTensor) -> Option<NumbersMut<'_>> {
    match &mut tensor.kind {
        DispatchTensorKind::Flex(BackendTensor::Float(tensor)) => match tensor.dtype() {
            DType::F32 => Some(NumbersMut::F32(own(tensor).storage_mut())),
            DType::F64 => Some(NumbersMut::F64(own(tensor).storage_mut())),
            _ => None,
        },
        #[cfg(feature = "ndarray")]
        DispatchTensorKind::NdArray(BackendTensor::Float(tensor)) => match tensor {
            NdArrayTensor::F32(storage) => {
                standard(storage.ensure_owned()).as_slice_mut().map(NumbersMut::F32)
            }
            NdArrayTensor::F64(storage) => {
                standard(storage.ensure_owned()).as_slice_mut().map(NumbersMut::F64)
            }
            _ => None,
        },
        _ => None,
    }
}

/// The array in standard order, in which it can be borrowed as a slice.
#[cfg(feature = "ndarray")]
fn standard<E: Clone>(array: &mut SharedArray<E>) -> &mut SharedArray<E> {
    if !array.is_standard_layout() {
        *array = array.as_standard_layout().into_owned().into_shared();
    }
    array
}

/// The tensor with storage of its own size, laid out in order: a view into a larger one would pair
/// wrongly.
fn own(tensor: &mut FlexTensor) -> &mut FlexTensor {
    let bytes = tensor.layout().num_elements() * tensor.dtype().size();
    if !tensor.is_contiguous() || tensor.bytes().len() != bytes {
        *tensor = FlexTensor::from_data(tensor.to_contiguous().into_data());
    }
    tensor
}
