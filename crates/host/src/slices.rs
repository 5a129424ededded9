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

/// `f32` and `f64`, the numbers that kernels of the host compute with.
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

    /// The numbers of a tensor of ndarray, row after row; `None` if it is of another dtype or laid
    /// out otherwise.
    #[cfg(feature = "ndarray")]
    fn array_slice(tensor: &NdArrayTensor) -> Option<&[Self]>;
    /// Like [`array_slice`](Self::array_slice), to write; `None` also if another tensor shares the
    /// numbers.
    #[cfg(feature = "ndarray")]
    fn sole_array_slice(tensor: &mut NdArrayTensor) -> Option<&mut [Self]>;
    /// Like [`array_slice`](Self::array_slice), to write; copied first if another tensor shares the
    /// numbers.
    #[cfg(feature = "ndarray")]
    fn owned_array_slice(tensor: &mut NdArrayTensor) -> Option<&mut [Self]>;
    /// A copy in order, if the numbers of a tensor of ndarray of this dtype are in another one.
    #[cfg(feature = "ndarray")]
    fn ordered_array(tensor: &NdArrayTensor) -> Option<NdArrayTensor>;
    /// A tensor of ndarray with this array.
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

/// The numbers of a tensor, in order.
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
    /// How many there are.
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
    /// A range that ends behind the last number.
    pub fn part(self, start: usize, len: usize) -> Self {
        let part = start..start + len;
        match self {
            Self::F32(numbers) => Self::F32(&numbers[part]),
            Self::F64(numbers) => Self::F64(&numbers[part]),
            Self::F16(numbers) => Self::F16(&numbers[part]),
            Self::Bf16(numbers) => Self::Bf16(&numbers[part]),
        }
    }

    /// The address of the first of them, by which slices of one tensor are known.
    pub fn address(self) -> usize {
        match self {
            Self::F32(numbers) => numbers.as_ptr().addr(),
            Self::F64(numbers) => numbers.as_ptr().addr(),
            Self::F16(numbers) => numbers.as_ptr().addr(),
            Self::Bf16(numbers) => numbers.as_ptr().addr(),
        }
    }
}

/// The numbers of a tensor, in order, to write.
#[derive(Debug)]
pub enum SliceMut<'a> {
    /// Of dtype f32.
    F32(&'a mut [f32]),
    /// Of dtype f64.
    F64(&'a mut [f64]),
}

/// True if this is a float tensor of Flex or ndarray, without autodiff.
pub fn is_on_host(tensor: &DispatchTensor) -> bool {
    match &tensor.kind {
        DispatchTensorKind::Flex(BackendTensor::Float(_)) => true,
        #[cfg(feature = "ndarray")]
        DispatchTensorKind::NdArray(BackendTensor::Float(_)) => true,
        _ => false,
    }
}

/// True if both are tensors of Flex, and so on its one device.
///
/// This is faster than a comparison of their devices: Burn constructs both, which takes as long as
/// reading a hundred numbers.
pub fn are_both_flex(a: &DispatchTensor, b: &DispatchTensor) -> bool {
    matches!((&a.kind, &b.kind), (DispatchTensorKind::Flex(_), DispatchTensorKind::Flex(_)))
}

/// The shape of a float tensor of Flex, borrowed.
pub fn shape(tensor: &DispatchTensor) -> Option<&Shape> {
    match &tensor.kind {
        DispatchTensorKind::Flex(BackendTensor::Float(tensor)) => Some(tensor.layout().shape()),
        _ => None,
    }
}

/// The numbers of a float tensor of the host; none if they are not laid out in order, or if the
/// tensor is another one.
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

/// The numbers of an f32 or f64 tensor of the host, to write; none for another tensor.
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
            // A view into a larger storage begins elsewhere.
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

/// A copy of a float tensor of the host, such as a transposed view, that is laid out in order.
///
/// None where the tensor is so already, or is not of the host.
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

/// The tensor, laid out in order (row-major, without gaps) if it is of the host. It is copied only
/// if it is not so already: a transposed view is, a view of some rows is not.
pub fn in_order(tensor: DispatchTensor) -> DispatchTensor {
    to_order(&tensor).unwrap_or(tensor)
}

/// A tensor of these numbers, with the backend, shape and autodiff setting of another tensor of the
/// host.
///
/// # Panics
///
/// More or fewer numbers than the shape has.
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
