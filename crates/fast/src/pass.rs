//! One pass over weights, gradient and moments: block by block, in place, over threads.
//!
//! A tensor that is the only owner of its numbers is changed in place.
//! For a tensor that shares its numbers, the new numbers are written elsewhere: new weights over
//! the gradient, if the gradient has one owner, since the gradient is not needed after the step;
//! all other numbers into new memory.
//! The new value of a number depends on numbers of the same index alone, so that neither blocks nor
//! threads change a bit.

#![allow(unsafe_code)] // new memory is given to a tensor once each of its numbers was written

use std::mem::MaybeUninit;

use burn::{
    backend::{DispatchTensor, TensorMetadata},
    tensor::{DType, Tensor},
};

use burn_ema_host::{self as host, Real, in_order, is_on_host, sole_numbers_mut, threads};

/// The number of weights in a block. A block of weights, gradients and moments fits in the
/// first-level cache, where it stays between being copied and being updated.
const BLOCK: usize = 1 << 10;

/// The least number of weights for a step on several threads: to divide work among threads takes
/// some microseconds.
const THREADED: usize = 1 << 15;

/// The number of weights in a piece, which one thread updates.
const PIECE: usize = 1 << 14;

/// The update formula of an optimizer that keeps `N` moments per weight.
pub(super) trait Formula<const N: usize>: Sync {
    /// Updates weights and moments in place by their gradients; all slices have one length.
    ///
    /// In a first step the moments are -0, since `-0 + x` has the bits of `x` for every number `x`.
    fn step<T: Real>(&self, weights: &mut [T], gradient: &[T], moments: [&mut [T]; N]);
}

/// The tensors that a step starts from; `moments` is `None` before the first step.
///
/// The rank is no part of the type, so that a pass is compiled once and not for each rank.
pub(super) struct Tensors<const N: usize> {
    weights: DispatchTensor,
    gradient: DispatchTensor,
    moments: Option<[DispatchTensor; N]>,
}

impl<const N: usize> Tensors<N> {
    pub fn new<const D: usize>(
        weights: Tensor<D>,
        gradient: Tensor<D>,
        moments: Option<[Tensor<D>; N]>,
    ) -> Self {
        Self {
            weights: weights.into_dispatch(),
            gradient: gradient.into_dispatch(),
            moments: moments.map(|moments| moments.map(Tensor::into_dispatch)),
        }
    }

    /// The weights, the gradient and the moments that [`new`](Self::new) was called with.
    pub fn into_parts<const D: usize>(self) -> (Tensor<D>, Tensor<D>, Option<[Tensor<D>; N]>) {
        let moments = self.moments.map(|moments| moments.map(Tensor::from_dispatch));
        (Tensor::from_dispatch(self.weights), Tensor::from_dispatch(self.gradient), moments)
    }

    /// True if the pass can make the step: the tensors are on the host (see [`is_on_host`]), have
    /// one shape, and are all f32 or all f64. False in a build with the feature `portable`.
    pub fn fits(&self) -> bool {
        let (dtype, shape) = (self.weights.dtype(), self.weights.shape());
        let is_like = |tensor: &DispatchTensor| {
            is_on_host(tensor) && tensor.dtype() == dtype && tensor.shape() == shape
        };
        !cfg!(feature = "portable")
            && matches!(dtype, DType::F32 | DType::F64)
            && [&self.weights, &self.gradient].into_iter().all(is_like)
            && self.moments.iter().flatten().all(is_like)
    }

    /// Makes the step, and returns the new weights and moments.
    ///
    /// The tensors must [fit](Self::fits) and have the rank `D`.
    pub fn step<const D: usize>(self, formula: &impl Formula<N>) -> (Tensor<D>, [Tensor<D>; N]) {
        let (weights, moments) = self.step_in_dtype(formula);
        (Tensor::from_dispatch(weights), moments.map(Tensor::from_dispatch))
    }

    fn step_in_dtype(self, formula: &impl Formula<N>) -> (DispatchTensor, [DispatchTensor; N]) {
        match self.weights.dtype() {
            DType::F64 => self.step_in::<f64>(formula),
            _ => self.step_in::<f32>(formula),
        }
    }

    fn step_in<T: Real>(self, formula: &impl Formula<N>) -> (DispatchTensor, [DispatchTensor; N]) {
        let mut weights = in_order(self.weights);
        let mut gradient = in_order(self.gradient);
        let count = weights.shape().num_elements();
        let mut moments = match self.moments {
            Some(moments) => moments.map(|moment| Buffer::<T>::of(moment, count)),
            None => std::array::from_fn(|_| Buffer::New { from: None, to: fresh(count) }),
        };
        let is_shared = sole_numbers_mut::<T>(&mut weights).is_none();
        match sole_numbers_mut(&mut gradient) {
            Some(place) if is_shared => {
                let target = Destination::Gradient { place, weights: numbers(&weights) };
                Work::new(target, &mut moments).run(formula);
                let moments = moments.map(|moment| moment.tensor(&weights));
                (DispatchTensor { autodiff: weights.autodiff, ..gradient }, moments)
            }
            _ => {
                let mut weights = Buffer::of(weights, count);
                let target =
                    Destination::Weights { place: weights.open(), gradient: numbers(&gradient) };
                Work::new(target, &mut moments).run(formula);
                let moments = moments.map(|moment| moment.tensor(&gradient));
                (weights.tensor(&gradient), moments)
            }
        }
    }
}

fn numbers<T: Real>(tensor: &DispatchTensor) -> &[T] {
    host::numbers(tensor).expect("a tensor of the host in order and of this dtype")
}

fn fresh<T>(count: usize) -> Box<[MaybeUninit<T>]> {
    Box::new_uninit_slice(count)
}

/// The memory for the new numbers of a tensor.
enum Buffer<T> {
    /// The tensor's own memory.
    Own(DispatchTensor),
    /// New memory, `to`. Before the update it is filled with the numbers of `from`, a tensor that
    /// shares its memory with another tensor. The moments of a first step have no `from`: their
    /// memory is filled with -0.
    New { from: Option<DispatchTensor>, to: Box<[MaybeUninit<T>]> },
}

impl<T: Real> Buffer<T> {
    fn of(tensor: DispatchTensor, count: usize) -> Self {
        let mut tensor = in_order(tensor);
        match sole_numbers_mut::<T>(&mut tensor) {
            Some(_) => Self::Own(tensor),
            None => Self::New { from: Some(tensor), to: fresh(count) },
        }
    }

    /// All of the memory, open for writing.
    fn open(&mut self) -> BufferPart<'_, T> {
        match self {
            Self::Own(tensor) => {
                BufferPart::Own(sole_numbers_mut(tensor).expect("it had one owner before"))
            }
            Self::New { from, to } => BufferPart::New { from: from.as_ref().map(numbers), to },
        }
    }

    /// The tensor of the new numbers, once [`Work::run`] has written all of them. New memory
    /// becomes a tensor with the backend, shape and autodiff setting of `like`.
    fn tensor(self, like: &DispatchTensor) -> DispatchTensor {
        match self {
            Self::Own(tensor) => tensor,
            Self::New { to, .. } => {
                // SAFETY: `Work::run` goes through all blocks, and `BufferPart::into_slice` writes
                // each number of a block.
                let numbers = unsafe { to.assume_init() };
                host::tensor_like(numbers.into_vec(), like)
            }
        }
    }
}

/// A part of a [`Buffer`] that is open for writing.
enum BufferPart<'a, T> {
    Own(&'a mut [T]),
    New { from: Option<&'a [T]>, to: &'a mut [MaybeUninit<T>] },
}

impl<'a, T: Real> BufferPart<'a, T> {
    /// Removes the first `count` numbers, and returns them.
    fn split_off(&mut self, count: usize) -> Self {
        match self {
            Self::Own(numbers) => Self::Own(first_mut(numbers, count)),
            Self::New { from, to } => Self::New {
                from: from.as_mut().map(|from| first(from, count)),
                to: first_mut(to, count),
            },
        }
    }

    /// The memory for the new numbers, with the old ones in it; new memory gets them here.
    /// The part has at most [`BLOCK`] numbers.
    fn into_slice(self) -> &'a mut [T] {
        match self {
            Self::Own(numbers) => numbers,
            Self::New { from: Some(from), to } => to.write_copy_of_slice(from),
            Self::New { from: None, to } => {
                to.write_copy_of_slice(&[T::of(-0.0); BLOCK][..to.len()])
            }
        }
    }
}

fn first<'a, T>(numbers: &mut &'a [T], count: usize) -> &'a [T] {
    numbers.split_off(..count).expect("so many numbers")
}

fn first_mut<'a, T>(numbers: &mut &'a mut [T], count: usize) -> &'a mut [T] {
    numbers.split_off_mut(..count).expect("so many numbers")
}

/// The memory for the new weights, and the other input of the step.
enum Destination<'a, T> {
    Weights {
        place: BufferPart<'a, T>,
        gradient: &'a [T],
    },
    /// The memory of the gradient, since another tensor shares that of the weights.
    Gradient {
        place: &'a mut [T],
        weights: &'a [T],
    },
}

impl<'a, T: Real> Destination<'a, T> {
    /// Removes the first `count` numbers, and returns them.
    fn split_off(&mut self, count: usize) -> Self {
        match self {
            Self::Weights { place, gradient } => {
                Self::Weights { place: place.split_off(count), gradient: first(gradient, count) }
            }
            Self::Gradient { place, weights } => {
                Self::Gradient { place: first_mut(place, count), weights: first(weights, count) }
            }
        }
    }
}

/// A step on some of the numbers.
struct Work<'a, T, const N: usize> {
    target: Destination<'a, T>,
    moments: [BufferPart<'a, T>; N],
}

impl<'a, T: Real, const N: usize> Work<'a, T, N> {
    fn new(target: Destination<'a, T>, moments: &'a mut [Buffer<T>; N]) -> Self {
        Self { target, moments: moments.each_mut().map(Buffer::open) }
    }

    fn len(&self) -> usize {
        match &self.target {
            Destination::Weights { gradient, .. } => gradient.len(),
            Destination::Gradient { place, .. } => place.len(),
        }
    }

    /// Removes the first `count` numbers, and returns them.
    fn split_off(&mut self, count: usize) -> Self {
        Self {
            target: self.target.split_off(count),
            moments: self.moments.each_mut().map(|moment| moment.split_off(count)),
        }
    }

    /// Makes the step; on several threads for [`THREADED`] weights or more.
    fn run(mut self, formula: &impl Formula<N>) {
        if self.len() < THREADED {
            return self.run_here(formula);
        }
        let mut pieces = Vec::with_capacity(self.len().div_ceil(PIECE));
        while self.len() > PIECE {
            pieces.push(self.split_off(PIECE));
        }
        pieces.push(self);
        threads::each(pieces, |piece| piece.run_here(formula));
    }

    fn run_here(mut self, formula: &impl Formula<N>) {
        while self.len() > 0 {
            self.run_block(self.len().min(BLOCK), formula);
        }
    }

    /// Removes the first `count` numbers, at most [`BLOCK`], and makes the step on them.
    fn run_block(&mut self, count: usize, formula: &impl Formula<N>) {
        let moments = self.moments.each_mut().map(|moment| moment.split_off(count).into_slice());
        let mut held;
        let (weights, gradient) = match self.target.split_off(count) {
            Destination::Weights { place, gradient } => (place.into_slice(), gradient),
            Destination::Gradient { place, weights } => {
                held = [T::of(0.0); BLOCK];
                let gradient = &mut held[..count];
                gradient.copy_from_slice(place);
                place.copy_from_slice(weights);
                (place, &*gradient)
            }
        };
        formula.step(weights, gradient, moments);
    }
}
