//! One pass over weights, gradient and moments: block by block, in place, over threads.
//!
//! A tensor that is the only owner of its numbers is changed in place.
//! For a tensor that shares its numbers, the new ones are written elsewhere: new weights over the
//! gradient, if the gradient has one owner, since nobody needs it after the step; all others into
//! new memory.
//! The new value of a number depends on numbers of the same index alone, so that neither blocks nor
//! threads change a bit.

#![allow(unsafe_code)] // new memory is given to a tensor once each of its numbers was written

use std::mem::MaybeUninit;

use burn::{
    backend::{DispatchTensor, TensorMetadata},
    tensor::{DType, Tensor},
};

use burn_ema_host::{self as host, Real, in_order, is_on_host, sole_numbers_mut, threads};

/// The number of weights in a block: with their gradients and moments they stay in the nearest
/// cache between being copied and being updated.
const BLOCK: usize = 1 << 10;

/// The number of weights from which on threads pay, since sharing work takes some microseconds.
const THREADED: usize = 1 << 15;

/// The number of weights that a thread takes at once.
const PIECE: usize = 1 << 14;

/// How an optimizer moves weights by a gradient, and what it keeps: its moments.
pub(super) trait Formula<const N: usize>: Sync {
    /// Moves numbers of the same indices; all slices are of one length.
    ///
    /// In a first step the moments are -0, since `-0 + x` has the bits of `x` for every number `x`.
    fn step<T: Real>(&self, weights: &mut [T], gradient: &[T], moments: [&mut [T]; N]);
}

/// The tensors that a step starts from; before the first one there are no moments.
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

    /// Gives back the weights, the gradient and the moments that this was made of.
    pub fn into_parts<const D: usize>(self) -> (Tensor<D>, Tensor<D>, Option<[Tensor<D>; N]>) {
        let moments = self.moments.map(|moments| moments.map(Tensor::from_dispatch));
        (Tensor::from_dispatch(self.weights), Tensor::from_dispatch(self.gradient), moments)
    }

    /// True if one pass can make the step: tensors of the host, of one shape, all of f32 or all of
    /// f64.
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

    /// Weights and moments after the step, of tensors that [fit](Self::fits) and are of rank `D`.
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

/// Where the numbers of a tensor go.
enum Buffer<T> {
    /// Back to where they are.
    Own(DispatchTensor),
    /// To new memory, `to`. The numbers of `from` are copied there before the update, since another
    /// tensor shares its memory; without `from`, in a first step, they are -0 before it.
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

    fn open(&mut self) -> BufferPart<'_, T> {
        match self {
            Self::Own(tensor) => {
                BufferPart::Own(sole_numbers_mut(tensor).expect("it had one owner before"))
            }
            Self::New { from, to } => BufferPart::New { from: from.as_ref().map(numbers), to },
        }
    }

    /// The tensor of these numbers, after a [`Work::run`] on all of them.
    fn tensor(self, like: &DispatchTensor) -> DispatchTensor {
        match self {
            Self::Own(tensor) => tensor,
            Self::New { to, .. } => {
                // SAFETY: `Work::run` goes through all blocks, and `BufferPart::opened` writes each
                // number of one.
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
    /// Splits off the first `count` numbers, and returns them.
    fn split_off(&mut self, count: usize) -> Self {
        match self {
            Self::Own(numbers) => Self::Own(first_mut(numbers, count)),
            Self::New { from, to } => Self::New {
                from: from.as_mut().map(|from| first(from, count)),
                to: first_mut(to, count),
            },
        }
    }

    /// The numbers to update, where the results go: copied there if need be; at most a block of
    /// them.
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

/// Where the new weights go.
enum Destination<'a, T> {
    Weights {
        place: BufferPart<'a, T>,
        gradient: &'a [T],
    },
    /// Over the gradient, since others look at the weights.
    Gradient {
        place: &'a mut [T],
        weights: &'a [T],
    },
}

impl<'a, T: Real> Destination<'a, T> {
    /// Splits off the first `count` numbers, and returns them.
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

    /// Splits off the first `count` numbers, and returns them.
    fn split_off(&mut self, count: usize) -> Self {
        Self {
            target: self.target.split_off(count),
            moments: self.moments.each_mut().map(|moment| moment.split_off(count)),
        }
    }

    /// Makes the step, on threads where there is enough to do.
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

    /// Takes the first of the numbers, at most a block, and makes the step on them.
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
