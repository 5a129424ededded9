//! The numbers of tensors that lie in the memory of the host: Flex's and ndarray's.

#[cfg(feature = "ndarray")]
use burn::backend::ndarray::{NdArrayTensor, SharedArray};
use burn::backend::{BackendTensor, DispatchTensor, DispatchTensorKind, flex::FlexTensor};
use burn::tensor::DType;
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

/// A float tensor of the host whose storage is its own, opened to be changed.
pub(crate) enum Opened<'a> {
    Flex(&'a mut FlexTensor),
    #[cfg(feature = "ndarray")]
    F32(Taken<'a, f32>),
    #[cfg(feature = "ndarray")]
    F64(Taken<'a, f64>),
}

/// An array that was taken out of its tensor, and goes back there in the end.
#[cfg(feature = "ndarray")]
pub(crate) struct Taken<'a, E>
where
    E: Clone + Default,
    NdArrayTensor: From<SharedArray<E>>,
{
    place: &'a mut NdArrayTensor,
    array: SharedArray<E>,
}

#[cfg(feature = "ndarray")]
impl<E> Drop for Taken<'_, E>
where
    E: Clone + Default,
    NdArrayTensor: From<SharedArray<E>>,
{
    fn drop(&mut self) {
        *self.place = std::mem::take(&mut self.array).into();
    }
}

impl<'a> Opened<'a> {
    /// Opens a tensor of f32 or f64; a storage that is shared, larger than the tensor, in another
    /// order or in a file is copied.
    pub fn open(tensor: &'a mut DispatchTensor) -> Option<Self> {
        match &mut tensor.kind {
            DispatchTensorKind::Flex(BackendTensor::Float(tensor))
                if matches!(tensor.dtype(), DType::F32 | DType::F64) =>
            {
                own(tensor);
                Some(Self::Flex(tensor))
            }
            #[cfg(feature = "ndarray")]
            DispatchTensorKind::NdArray(BackendTensor::Float(place)) => {
                // What is left there meanwhile.
                let nothing = || burn::tensor::TensorData::new(Vec::<f32>::new(), [0]);
                let taken = std::mem::replace(place, NdArrayTensor::from_data(nothing()));
                match taken {
                    NdArrayTensor::F32(storage) => {
                        Some(Self::F32(Taken { place, array: standard(storage.into_owned()) }))
                    }
                    NdArrayTensor::F64(storage) => {
                        Some(Self::F64(Taken { place, array: standard(storage.into_owned()) }))
                    }
                    other => {
                        *place = other;
                        None
                    }
                }
            }
            _ => None,
        }
    }

    /// Its numbers.
    pub fn numbers(&mut self) -> NumbersMut<'_> {
        match self {
            Self::Flex(tensor) => match tensor.dtype() {
                DType::F64 => NumbersMut::F64(tensor.storage_mut()),
                _ => NumbersMut::F32(tensor.storage_mut()),
            },
            #[cfg(feature = "ndarray")]
            Self::F32(taken) => NumbersMut::F32(taken.array.as_slice_mut().unwrap_or_default()),
            #[cfg(feature = "ndarray")]
            Self::F64(taken) => NumbersMut::F64(taken.array.as_slice_mut().unwrap_or_default()),
        }
    }
}

/// The array in standard order, in which it can be borrowed as a slice.
#[cfg(feature = "ndarray")]
fn standard<E: Clone>(array: SharedArray<E>) -> SharedArray<E> {
    match array.is_standard_layout() {
        true => array,
        false => array.as_standard_layout().into_owned().into_shared(),
    }
}

/// Gives a tensor of Flex storage of its own, in memory and laid out in order, where an update
/// writes in place.
pub(crate) fn own(tensor: &mut FlexTensor) {
    let bytes = tensor.layout().num_elements() * tensor.dtype().size();
    // A view into a larger storage would pair wrongly.
    if !tensor.is_contiguous() || tensor.bytes().len() != bytes {
        *tensor = FlexTensor::from_data(tensor.to_contiguous().into_data());
    }
    // Writing access copies a storage that is shared or still lies in a file.
    match tensor.dtype() {
        DType::F32 => _ = tensor.storage_mut::<f32>(),
        DType::F64 => _ = tensor.storage_mut::<f64>(),
        _ => {}
    }
}
