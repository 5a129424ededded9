//! The memory of float tensors of Flex and ndarray.

#![cfg_attr(feature = "ndarray", expect(deprecated, reason = "Burn still ships ndarray"))]

use std::ops::{Add, AddAssign, Div, Mul, Sub};

#[cfg(feature = "ndarray")]
use burn::backend::ndarray::{NdArrayTensor, SharedArray};
use burn::{
    backend::{
        BackendTensor, DispatchTensor, DispatchTensorKind, TensorMetadata, flex::FlexTensor,
    },
    tensor::{DType, Element, Shape, TensorData},
};
use bytemuck::Pod;
use half::{bf16, f16};

/// A type of numbers that kernels on the CPU compute with: `f32` or `f64`.
pub trait Real:
    Element
    + Pod
    + PartialOrd
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + AddAssign
{
    /// 0.
    const ZERO: Self;
    /// 1.
    const ONE: Self;
    /// 1/2.
    const HALF: Self;

    /// The nearest number of this type.
    fn of(number: f64) -> Self;
    /// The square root.
    fn root(self) -> Self;
    /// The absolute value.
    fn magnitude(self) -> Self;

    /// The numbers of a tensor of ndarray, row after row. `None` if the tensor has another dtype,
    /// or if its numbers are not laid out in this order.
    #[cfg(feature = "ndarray")]
    fn array_slice(tensor: &NdArrayTensor) -> Option<&[Self]>;
    /// Like [`array_slice`](Self::array_slice), but mutable; `None` also if another tensor shares
    /// the numbers.
    #[cfg(feature = "ndarray")]
    fn sole_array_slice(tensor: &mut NdArrayTensor) -> Option<&mut [Self]>;
    /// The numbers of a tensor of ndarray, row after row, to write; `None` for another dtype.
    /// If another tensor shares the numbers, or if they are laid out in another order, the tensor
    /// gets a copy of them first.
    #[cfg(feature = "ndarray")]
    fn owned_array_slice(tensor: &mut NdArrayTensor) -> Option<&mut [Self]>;
    /// A copy of a tensor of ndarray, laid out in order (row-major). `None` if the tensor has
    /// another dtype, or if it is laid out in order itself.
    #[cfg(feature = "ndarray")]
    fn ordered_array(tensor: &NdArrayTensor) -> Option<NdArrayTensor>;
    /// The tensor of ndarray with the numbers of an array.
    #[cfg(feature = "ndarray")]
    fn tensor(array: SharedArray<Self>) -> NdArrayTensor;
}

macro_rules! real {
    ($float:ident, $variant:ident) => {
        impl Real for $float {
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;
            const HALF: Self = 0.5;

            fn of(number: f64) -> Self {
                number as Self
            }

            #[inline(always)]
            fn root(self) -> Self {
                self.sqrt()
            }

            #[inline(always)]
            fn magnitude(self) -> Self {
                self.abs()
            }

            #[cfg(feature = "ndarray")]
            fn array_slice(tensor: &NdArrayTensor) -> Option<&[Self]> {
                match tensor {
                    NdArrayTensor::$variant(storage) => storage.view().to_slice(),
                    _ => None,
                }
            }

            #[cfg(feature = "ndarray")]
            fn sole_array_slice(tensor: &mut NdArrayTensor) -> Option<&mut [Self]> {
                match tensor {
                    NdArrayTensor::$variant(storage) if storage.is_unique() => {
                        storage.ensure_owned().as_slice_mut()
                    }
                    _ => None,
                }
            }

            #[cfg(feature = "ndarray")]
            fn owned_array_slice(tensor: &mut NdArrayTensor) -> Option<&mut [Self]> {
                let NdArrayTensor::$variant(storage) = tensor else { return None };
                let array = storage.ensure_owned();
                if !array.is_standard_layout() {
                    *array = array.as_standard_layout().into_owned().into_shared();
                }
                array.as_slice_mut()
            }

            #[cfg(feature = "ndarray")]
            fn ordered_array(tensor: &NdArrayTensor) -> Option<NdArrayTensor> {
                let NdArrayTensor::$variant(storage) = tensor else { return None };
                let view = storage.view();
                let ordered = || view.as_standard_layout().into_owned().into_shared().into();
                (!view.is_standard_layout()).then(ordered)
            }

            #[cfg(feature = "ndarray")]
            fn tensor(array: SharedArray<Self>) -> NdArrayTensor {
                array.into()
            }
        }
    };
}

real!(f32, F32);
real!(f64, F64);

/// The numbers of a tensor, row after row.
#[derive(Clone, Copy, Debug)]
pub enum Slice<'a> {
    /// Of dtype f32.
    F32(&'a [f32]),
    /// Of dtype f64.
    F64(&'a [f64]),
    /// Of dtype f16.
    F16(&'a [f16]),
    /// Of dtype bf16.
    Bf16(&'a [bf16]),
}

impl<'a> Slice<'a> {
    /// The number of numbers.
    pub fn len(self) -> usize {
        match self {
            Self::F32(numbers) => numbers.len(),
            Self::F64(numbers) => numbers.len(),
            Self::F16(numbers) => numbers.len(),
            Self::Bf16(numbers) => numbers.len(),
        }
    }

    /// True if there are no numbers.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The `len` numbers from the index `start` on.
    ///
    /// # Panics
    ///
    /// A range that ends after the last number.
    pub fn part(self, start: usize, len: usize) -> Self {
        let part = start..start + len;
        match self {
            Self::F32(numbers) => Self::F32(&numbers[part]),
            Self::F64(numbers) => Self::F64(&numbers[part]),
            Self::F16(numbers) => Self::F16(&numbers[part]),
            Self::Bf16(numbers) => Self::Bf16(&numbers[part]),
        }
    }

    /// The address of the first number, which is equal for slices that begin at the same number.
    pub fn address(self) -> usize {
        match self {
            Self::F32(numbers) => numbers.as_ptr().addr(),
            Self::F64(numbers) => numbers.as_ptr().addr(),
            Self::F16(numbers) => numbers.as_ptr().addr(),
            Self::Bf16(numbers) => numbers.as_ptr().addr(),
        }
    }
}

/// The numbers of a tensor, row after row, to write.
#[derive(Debug)]
pub enum SliceMut<'a> {
    /// Of dtype f32.
    F32(&'a mut [f32]),
    /// Of dtype f64.
    F64(&'a mut [f64]),
}

/// True for a float tensor of Flex or, with the feature `ndarray`, of ndarray, without autodiff.
///
/// Such a tensor is called a tensor of the host.
pub fn is_on_host(tensor: &DispatchTensor) -> bool {
    match &tensor.kind {
        DispatchTensorKind::Flex(BackendTensor::Float(_)) => true,
        #[cfg(feature = "ndarray")]
        DispatchTensorKind::NdArray(BackendTensor::Float(_)) => true,
        _ => false,
    }
}

/// True if both are tensors of Flex without autodiff, and so on the same device.
///
/// This is faster than a comparison of the devices, which Burn constructs for each tensor: that
/// takes as long as reading a hundred numbers.
pub fn are_both_flex(a: &DispatchTensor, b: &DispatchTensor) -> bool {
    matches!((&a.kind, &b.kind), (DispatchTensorKind::Flex(_), DispatchTensorKind::Flex(_)))
}

/// The shape of a float tensor of Flex without autodiff; `None` for another tensor.
pub fn shape(tensor: &DispatchTensor) -> Option<&Shape> {
    match &tensor.kind {
        DispatchTensorKind::Flex(BackendTensor::Float(tensor)) => Some(tensor.layout().shape()),
        _ => None,
    }
}

/// The numbers of a float tensor of Flex or ndarray, row after row.
///
/// `None` for another tensor, for another dtype than those of [`Slice`], and where the numbers are
/// not laid out in order (row-major, without gaps). The half precisions are those of Flex only.
pub fn slice(tensor: &DispatchTensor) -> Option<Slice<'_>> {
    match tensor.dtype() {
        DType::F32 => numbers(tensor).map(Slice::F32),
        DType::F64 => numbers(tensor).map(Slice::F64),
        dtype => match (&tensor.kind, dtype) {
            (DispatchTensorKind::Flex(BackendTensor::Float(tensor)), DType::F16) => {
                tensor.as_slice().map(Slice::F16)
            }
            (DispatchTensorKind::Flex(BackendTensor::Float(tensor)), DType::BF16) => {
                tensor.as_slice().map(Slice::Bf16)
            }
            _ => None,
        },
    }
}

/// The numbers of a float tensor of Flex or ndarray, row after row.
///
/// `None` for another tensor, for another dtype than `T`, and where the numbers are not laid out in
/// order (row-major, without gaps).
pub fn numbers<T: Real>(tensor: &DispatchTensor) -> Option<&[T]> {
    match &tensor.kind {
        DispatchTensorKind::Flex(BackendTensor::Float(tensor)) => tensor.as_slice(),
        #[cfg(feature = "ndarray")]
        DispatchTensorKind::NdArray(BackendTensor::Float(tensor)) => T::array_slice(tensor),
        _ => None,
    }
}

/// The numbers of a float tensor of Flex or ndarray, row after row, to write.
///
/// `None` for another tensor, for another dtype than `T`, where another tensor shares the numbers,
/// and where they are not laid out in order (row-major, without gaps).
pub fn sole_numbers_mut<T: Real>(tensor: &mut DispatchTensor) -> Option<&mut [T]> {
    match &mut tensor.kind {
        DispatchTensorKind::Flex(BackendTensor::Float(tensor)) if tensor.dtype() == T::dtype() => {
            let (start, end) = tensor.layout().contiguous_offsets()?;
            tensor.try_storage_mut().map(|storage| &mut storage[start..end])
        }
        #[cfg(feature = "ndarray")]
        DispatchTensorKind::NdArray(BackendTensor::Float(tensor)) => T::sole_array_slice(tensor),
        _ => None,
    }
}

/// The numbers of an f32 or f64 tensor of the host, row after row, to write; `None` for another
/// tensor.
///
/// If its storage is shared, larger than the tensor, in another order or in a file, the tensor gets
/// a copy of its numbers first.
pub fn owned_numbers_mut(tensor: &mut DispatchTensor) -> Option<SliceMut<'_>> {
    match tensor.dtype() {
        DType::F32 => owned_mut(tensor).map(SliceMut::F32),
        DType::F64 => owned_mut(tensor).map(SliceMut::F64),
        _ => None,
    }
}

fn owned_mut<T: Real>(tensor: &mut DispatchTensor) -> Option<&mut [T]> {
    match &mut tensor.kind {
        DispatchTensorKind::Flex(BackendTensor::Float(tensor)) => {
            let bytes = tensor.layout().num_elements() * tensor.dtype().size();
            // A view may be a part of a larger storage.
            if !tensor.is_contiguous() || tensor.bytes().len() != bytes {
                *tensor = FlexTensor::from_data(tensor.to_contiguous().into_data());
            }
            Some(tensor.storage_mut())
        }
        #[cfg(feature = "ndarray")]
        DispatchTensorKind::NdArray(BackendTensor::Float(tensor)) => T::owned_array_slice(tensor),
        _ => None,
    }
}

/// A copy of a float tensor of the host, such as a transposed view, laid out in order (row-major,
/// without gaps).
///
/// `None` if the tensor is laid out in order itself, or is not a tensor of the host.
pub fn to_order(tensor: &DispatchTensor) -> Option<DispatchTensor> {
    let kind = match &tensor.kind {
        DispatchTensorKind::Flex(BackendTensor::Float(tensor)) if !tensor.is_contiguous() => {
            DispatchTensorKind::Flex(BackendTensor::Float(tensor.to_contiguous()))
        }
        #[cfg(feature = "ndarray")]
        DispatchTensorKind::NdArray(BackendTensor::Float(tensor)) => {
            let ordered = f32::ordered_array(tensor).or_else(|| f64::ordered_array(tensor))?;
            DispatchTensorKind::NdArray(BackendTensor::Float(ordered))
        }
        _ => return None,
    };
    Some(DispatchTensor { kind, ..tensor.clone() })
}

/// The tensor, laid out in order (row-major, without gaps).
///
/// A float tensor of the host that is not in order, such as a transposed view, is copied. Every
/// other tensor is returned unchanged: one in order, such as a view of successive rows, and one
/// that is no float tensor of the host, in order or not.
pub fn in_order(tensor: DispatchTensor) -> DispatchTensor {
    to_order(&tensor).unwrap_or(tensor)
}

/// A tensor of `numbers`, row after row, with the backend, shape and autodiff setting of `other`,
/// a tensor of the host.
///
/// # Panics
///
/// Another count of numbers than that of `other`.
pub fn tensor_like<T: Real>(numbers: Vec<T>, other: &DispatchTensor) -> DispatchTensor {
    let shape = other.shape();
    let kind = match &other.kind {
        #[cfg(feature = "ndarray")]
        DispatchTensorKind::NdArray(_) => {
            let array = SharedArray::from_shape_vec(&shape[..], numbers);
            let array = array.expect("as many numbers as the shape says");
            DispatchTensorKind::NdArray(BackendTensor::Float(T::tensor(array)))
        }
        _ => {
            let data = TensorData::new(numbers, shape);
            DispatchTensorKind::Flex(BackendTensor::Float(FlexTensor::from_data(data)))
        }
    };
    DispatchTensor { kind, autodiff: other.autodiff }
}
