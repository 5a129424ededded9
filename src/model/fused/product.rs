//! The product of two matrices in memory, by `gemm`.
//!
//! `gemm` spreads its work over threads in several rounds, each of which waits for all of them,
//! and packs one matrix on one thread. Here the output is cut in halves, as often as it pays, and
//! every piece is a product on one thread: all wait once. Cuts go by the shape alone, so that the
//! numbers have the same bits for any number of threads.

#![allow(unsafe_code)] // `gemm` takes pointers, and writes to memory that is not initialised

use burn::backend::flex::FlexTensor;
use gemm::Parallelism;

use super::host::Real;

/// Multiplications in the smallest piece: some 50 microseconds, beside which waking a thread is
/// cheap.
const PIECE: usize = 1 << 21;

/// The most pieces of a product; what they share is packed for each anew.
const PIECES: usize = 8;

/// The shortest side that is cut.
const SIDE: usize = 128;

/// Numbers that a processor multiplies at once; the first half has whole ones.
const LANES: usize = 16;

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

    /// The first rows and the others.
    fn halves(self, row: usize) -> [Self; 2] {
        let [rows, columns] = self.shape;
        let start = self.start.wrapping_add_signed(self.strides[0] * row as isize);
        let others = Self { start, shape: [rows - row, columns], ..self };
        [Self { shape: [row, columns], ..self }, others]
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
    let mut output = Vec::with_capacity(m * n);
    let whole = Piece { a, b, output: output.as_mut_ptr(), stride: n };
    // SAFETY: every element that the strides reach lies in its slice, as asserted. The output has
    // room for m n numbers, each of which is written, and initialised after that.
    unsafe {
        whole.write((whole.work() / PIECES).max(PIECE));
        output.set_len(m * n);
    }
    output
}

/// Rows of one matrix, columns of another and the place for their product.
#[derive(Clone, Copy)]
struct Piece<'a, T> {
    a: Matrix<'a, T>,
    b: Matrix<'a, T>,
    output: *mut T,
    /// From one row of the output to the next.
    stride: usize,
}

// SAFETY: the pointer is all that keeps it from being so, and no two pieces that are alive at once
// write to the same numbers.
unsafe impl<T: Sync> Send for Piece<'_, T> {}

impl<T: Real> Piece<'_, T> {
    fn work(&self) -> usize {
        let ([m, k], n) = (self.a.shape, self.b.columns());
        m.saturating_mul(n).saturating_mul(k)
    }

    /// Two halves, cut across the longer side.
    fn halves(self) -> [Self; 2] {
        let Self { a, b, output, stride } = self;
        let half = |length: usize| (length / 2).next_multiple_of(LANES);
        if a.rows() > b.columns() {
            let row = half(a.rows());
            let [first, others] = a.halves(row);
            let below = output.wrapping_add(row * stride);
            [Self { a: first, ..self }, Self { a: others, output: below, ..self }]
        } else {
            let column = half(b.columns());
            let [first, others] = b.transposed().halves(column).map(Matrix::transposed);
            let beside = output.wrapping_add(column);
            [Self { b: first, ..self }, Self { b: others, output: beside, ..self }]
        }
    }

    /// Writes the product, in pieces of at least so many multiplications.
    ///
    /// # Safety
    ///
    /// Both matrices lie in their slices, and each row of the output is a place to write to, at its
    /// stride from the one before.
    unsafe fn write(self, least: usize) {
        let long = self.a.rows().max(self.b.columns()) >= SIDE;
        if long && self.work() / 2 >= least {
            let [first, other] = self.halves();
            // SAFETY: parts of what this was called with, which have no place of the output in
            // common.
            rayon::join(
                move || unsafe { first.write(least) },
                move || unsafe { other.write(least) },
            );
            return;
        }
        let Self { a, b, output, stride } = self;
        // SAFETY: the caller's; T is f32 or f64, which `gemm` knows. It is told not to read the
        // output, and writes each number of it, zeros where there is nothing to add.
        unsafe {
            gemm::gemm(
                a.rows(),
                b.columns(),
                a.columns(),
                output,
                1,
                stride as isize,
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
                Parallelism::None,
            );
        }
    }
}
