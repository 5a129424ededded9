//! The product of two matrices in memory.

#![allow(unsafe_code)] // `gemm` takes pointers, and writes to memory that is not initialised

use burn::backend::flex::FlexTensor;
use gemm::Parallelism;

use super::host::Real;

/// Multiplications from which on a product is spread over threads: a tenth of a millisecond on one,
/// beside which waking another is cheap.
const SPREAD: usize = 1 << 22;

/// A matrix that lies in a slice, with any strides.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a, T> {
    numbers: &'a [T],
    start: usize,
    shape: [usize; 2],
    strides: [isize; 2],
}

impl<'a, T: Real> Matrix<'a, T> {
    /// The numbers of a tensor of rank 2.
    pub fn of(tensor: &'a FlexTensor) -> Self {
        let layout = tensor.layout();
        Self {
            numbers: T::storage(tensor),
            start: layout.start_offset(),
            shape: layout.shape().dims(),
            strides: [layout.strides()[0], layout.strides()[1]],
        }
    }

    pub fn rows(&self) -> usize {
        self.shape[0]
    }

    pub fn columns(&self) -> usize {
        self.shape[1]
    }

    pub fn transposed(self) -> Self {
        let ([rows, columns], [down, right]) = (self.shape, self.strides);
        Self { shape: [columns, rows], strides: [right, down], ..self }
    }

    /// Whether every element lies in the slice.
    fn is_within(&self) -> bool {
        let ends = self.shape.iter().zip(self.strides).map(|(&count, stride)| {
            let span = stride * (count as isize - 1);
            [span.min(0), span.max(0)]
        });
        let start = self.start as isize;
        let [low, high] = ends.fold([start, start], |[l, h], [low, high]| [l + low, h + high]);
        self.shape.contains(&0) || (low >= 0 && high < self.numbers.len() as isize)
    }

    fn pointer(&self) -> *const T {
        self.numbers.as_ptr().wrapping_add(self.start)
    }
}

/// `a b`, row after row.
///
/// # Panics
///
/// Matrices that do not fit together.
pub(super) fn product<T: Real>(a: Matrix<'_, T>, b: Matrix<'_, T>) -> Vec<T> {
    let ([m, k], [inner, n]) = (a.shape, b.shape);
    assert!(k == inner, "a matrix of {k} columns times one of {inner} rows");
    assert!(a.is_within() && b.is_within(), "a matrix reaches out of its storage");
    let parallelism = match m.saturating_mul(n).saturating_mul(k) < SPREAD {
        true => Parallelism::None,
        false => Parallelism::Rayon(0),
    };
    let mut output = Vec::with_capacity(m * n);
    // SAFETY: every element that the strides reach lies in its slice, as asserted; T is f32 or
    // f64, which `gemm` knows. The output has room for m n numbers, and `gemm`, told not to read
    // them, writes each of them, zeros where k is zero; after that they are initialised.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            output.as_mut_ptr(),
            1,
            n as isize,
            false,
            a.pointer(),
            a.strides[1],
            a.strides[0],
            b.pointer(),
            b.strides[1],
            b.strides[0],
            T::ZERO,
            T::ONE,
            false,
            false,
            false,
            parallelism,
        );
        output.set_len(m * n);
    }
    output
}
