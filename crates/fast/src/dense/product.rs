//! The product of two matrices in memory, by `gemm`.
//!
//! `gemm` divides its work among threads in several rounds, each of which waits for all threads,
//! and packs one matrix on one thread. Here the output is cut in halves, until there is a piece for
//! each thread or smaller pieces do not pay. Every piece is a product on one thread, so that the
//! threads wait for each other only once.
//! However the output is cut, each number is the same sum in the same order, and so has the same
//! bits for any number of threads.

#![allow(unsafe_code)] // `gemm` takes pointers, and writes to memory that is not initialised

use burn::backend::flex::FlexTensor;
use burn_ema_host::{Real, threads};
use gemm::Parallelism;

/// The least number of multiplications in a piece; so many take some 25 microseconds.
const PIECE: usize = 1 << 20;

/// `gemm` sums in another order where both sides of the product are at most this long, where the
/// product has at most [`SMALL_AREA`] numbers, and where it is a single row or column.
const SMALL_SIDE: usize = 64;
/// See [`SMALL_SIDE`].
const SMALL_AREA: usize = 16 * 16;

/// The most numbers that a processor multiplies at once (`f32` in AVX-512). Where a matrix is cut
/// in two, the number of rows or columns of the first half is a multiple of this.
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
    /// A tensor of rank 2 and of the dtype `T` as a matrix.
    pub fn of(tensor: &'a FlexTensor) -> Self {
        let layout = tensor.layout();
        Self {
            numbers: tensor.storage(),
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

    /// True if every element lies in the slice.
    fn is_within(&self) -> bool {
        let ends = self.shape.iter().zip(self.strides).map(|(&count, stride)| {
            let span = stride * (count as isize - 1);
            [span.min(0), span.max(0)]
        });
        let start = self.start as isize;
        let [low, high] = ends.fold([start, start], |[l, h], [low, high]| [l + low, h + high]);
        self.shape.contains(&0) || (low >= 0 && high < self.numbers.len() as isize)
    }

    /// The first `row` rows, and the others.
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

/// The product `a b`, row after row.
///
/// # Panics
///
/// Matrices that do not fit together, or that reach out of their slices; a product of more numbers
/// than a `usize` counts.
pub(super) fn product<T: Real>(a: Matrix<'_, T>, b: Matrix<'_, T>) -> Vec<T> {
    let threads = threads::count();
    // Halving gives a power of two of pieces; another number of threads gets several pieces each.
    let pieces = if threads.is_power_of_two() { threads } else { 2 * threads.next_power_of_two() };
    product_in(a, b, pieces)
}

/// The product in at most `most` pieces, a power of two.
fn product_in<T: Real>(a: Matrix<'_, T>, b: Matrix<'_, T>, most: usize) -> Vec<T> {
    let ([m, k], [inner, n]) = (a.shape, b.shape);
    assert!(k == inner, "a matrix of {k} columns times one of {inner} rows");
    assert!(a.is_within() && b.is_within(), "a matrix reaches out of its storage");
    let numbers = m.checked_mul(n).expect("too many numbers for memory");
    let mut output = Vec::with_capacity(numbers);
    let mut pieces = Vec::with_capacity(most);
    Tile { a, b, output: output.as_mut_ptr(), stride: n }.cut(most, &mut pieces);
    // SAFETY: every element that the strides reach lies in its slice, as asserted. The output has
    // room for m n numbers, of which no two pieces share one. All are written before the length is
    // set.
    unsafe {
        threads::each(pieces, |piece| piece.write());
        output.set_len(numbers);
    }
    output
}

/// Rows of one matrix, columns of another and the place for their product.
#[derive(Clone, Copy)]
struct Tile<'a, T> {
    a: Matrix<'a, T>,
    b: Matrix<'a, T>,
    output: *mut T,
    /// The distance from one row of the output to the next, in numbers.
    stride: usize,
}

// SAFETY: only the pointer keeps a tile from being `Send`, and no two pieces that are alive at once
// write to the same numbers.
unsafe impl<T: Sync> Send for Tile<'_, T> {}

impl<T: Real> Tile<'_, T> {
    /// The number of multiplications.
    fn work(&self) -> usize {
        let ([m, k], n) = (self.a.shape, self.b.columns());
        m.saturating_mul(n).saturating_mul(k)
    }

    /// This tile in halves, cut across its longer side or, where that fails, across the other.
    /// `None` if either cut gives a half so small that `gemm` sums it in another order.
    fn halves(self) -> Option<[Self; 2]> {
        let sides = [self.a.rows(), self.b.columns()];
        let cut = |side: usize| {
            // Neither half is a single row or column then.
            let halves = (sides[side] >= 2 * LANES).then(|| match side {
                0 => self.upper_and_lower(),
                _ => self.left_and_right(),
            })?;
            let is_large = |half: &Self| {
                let [rows, columns] = [half.a.rows(), half.b.columns()];
                rows.max(columns) > SMALL_SIDE && rows * columns > SMALL_AREA
            };
            halves.iter().all(is_large).then_some(halves)
        };
        let longer = usize::from(sides[0] <= sides[1]);
        cut(longer).or_else(|| cut(1 - longer))
    }

    fn upper_and_lower(self) -> [Self; 2] {
        let row = half(self.a.rows());
        let [first, others] = self.a.halves(row);
        let output = self.output.wrapping_add(row * self.stride);
        [Self { a: first, ..self }, Self { a: others, output, ..self }]
    }

    fn left_and_right(self) -> [Self; 2] {
        let column = half(self.b.columns());
        let [first, others] = self.b.transposed().halves(column).map(Matrix::transposed);
        let output = self.output.wrapping_add(column);
        [Self { b: first, ..self }, Self { b: others, output, ..self }]
    }

    /// Adds this tile to `pieces`, cut in at most `most` pieces of about [`PIECE`] multiplications
    /// or more.
    fn cut(self, most: usize, pieces: &mut Vec<Self>) {
        let pays = most > 1 && self.work() / 2 >= PIECE;
        match pays.then(|| self.halves()).flatten() {
            Some(halves) => halves.into_iter().for_each(|half| half.cut(most / 2, pieces)),
            None => pieces.push(self),
        }
    }

    /// Writes the product to the output, on this thread.
    ///
    /// # Safety
    ///
    /// Both matrices lie in their slices. Each row of the output, at `stride` from the row before,
    /// is valid for writes, and nothing else reads or writes it.
    unsafe fn write(self) {
        let Self { a, b, output, stride } = self;
        // SAFETY: as the caller guarantees; `gemm` supports T, f32 or f64. It does not read the
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

/// About half of a length, as a multiple of [`LANES`].
fn half(length: usize) -> usize {
    (length / 2).next_multiple_of(LANES)
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    /// Sides around those at which `gemm` takes another way, and of the networks that are measured,
    /// in all layouts.
    #[test]
    fn the_bits_do_not_depend_on_the_cut() {
        check::<f32>(|number| number);
        check::<f64>(f64::from);
    }

    fn check<T: Real>(of: fn(f32) -> T) {
        let shapes = [
            [64, 784, 128],
            [128, 64, 784],
            [784, 512, 256],
            [63, 2000, 129],
            [65, 1025, 130],
            [300, 8000, 1],
            [1, 8000, 300],
            [512, 4096, 1],
            [1, 4096, 512],
            [200, 6000, 2],
            [3, 6000, 190],
            [129, 600, 257],
            [7, 5000, 1000],
            [100, 30000, 17],
            [300, 5000, 33],
        ];
        let mut cut = 0;
        for (seed, [m, k, n]) in (0..).zip(shapes) {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let mut random = |rows: usize, columns: usize| -> Vec<T> {
                (0..rows * columns).map(|_| of(rng.random::<f32>() - 0.5)).collect()
            };
            let (left, right) = (random(m, k), random(k, n));
            for layout in 0..4 {
                let matrix = |numbers, shape: [usize; 2], is_by_columns| {
                    let shape = if is_by_columns { [shape[1], shape[0]] } else { shape };
                    let strides = [shape[1] as isize, 1];
                    let matrix = Matrix { numbers, start: 0, shape, strides };
                    if is_by_columns { matrix.transposed() } else { matrix }
                };
                let a = matrix(&left[..], [m, k], layout & 1 > 0);
                let b = matrix(&right[..], [k, n], layout & 2 > 0);
                let whole = product_in(a, b, 1);
                for most in [2, 4, 8, 16, 32] {
                    let mut pieces = Vec::new();
                    Tile::<T> { a, b, output: std::ptr::null_mut(), stride: n }
                        .cut(most, &mut pieces);
                    cut += usize::from(pieces.len() > 1);
                    let same = product_in(a, b, most) == whole;
                    assert!(same, "{m} x {k} x {n}, layout {layout}, {} pieces", pieces.len());
                }
            }
        }
        assert!(cut > 100, "{cut} products are in pieces");
    }
}
