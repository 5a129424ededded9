//! The update of numbers in memory: vectorised, in pieces, over threads.
//!
//! One pass reads each number of live once, for all averages of it, and reads and writes each
//! average once.

use std::{
    ops::{Add, Mul, Range, Sub},
    sync::atomic::{AtomicBool, Ordering},
};

#[cfg(feature = "train")]
use burn::backend::DispatchTensor;
use half::slice::HalfFloatSliceExt;
use multiversion::multiversion;

#[cfg(feature = "train")]
use super::host;
use super::host::{Numbers, NumbersMut};
use crate::threads;

/// Numbers that a thread takes at once.
const PIECE: usize = 1 << 14;

/// Numbers of live that stay in the nearest cache for its next average.
const BLOCK: usize = 1 << 8;

/// From so many numbers on threads pay: to share work takes some microseconds.
pub(crate) const THREADED: usize = 1 << 15;

/// An average and what it goes towards, both of one length.
pub(super) enum Pair<'a> {
    F32(Piece<'a, f32>),
    F64(Piece<'a, f64>),
}

impl<'a> Pair<'a> {
    /// A pair, if its dtypes are for this path; `alpha` is in `(0, 1]`, and 1 copies.
    pub fn new(average: NumbersMut<'a>, live: Numbers<'a>, alpha: f64) -> Option<Self> {
        match average {
            NumbersMut::F32(average) => {
                Some(Self::F32(Piece { average, live: f32::live(live)?, alpha: alpha as f32 }))
            }
            NumbersMut::F64(average) => {
                Some(Self::F64(Piece { average, live: f64::live(live)?, alpha }))
            }
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::F32(piece) => piece.average.len(),
            Self::F64(piece) => piece.average.len(),
        }
    }

    /// Where live begins.
    fn address(&self) -> usize {
        match self {
            Self::F32(piece) => piece.live.address(),
            Self::F64(piece) => piece.live.address(),
        }
    }

    /// Whether both go towards the same numbers.
    fn is_beside(&self, other: &Self) -> bool {
        self.address() == other.address() && self.len() == other.len()
    }

    fn mix(&mut self, part: Range<usize>) {
        match self {
            Self::F32(piece) => piece.mix(part),
            Self::F64(piece) => piece.mix(part),
        }
    }
}

/// Moves all averages towards live, on threads where there is enough to do.
///
/// Pairs of the same live stand next to each other.
pub(super) fn mix(pairs: Vec<Pair<'_>>) {
    let mut pieces = cut(pairs);
    let all = numbers(&pieces);
    let mut groups: Vec<_> = pieces.chunk_by_mut(|one, next| one.is_beside(next)).collect();
    match all < THREADED {
        true => groups.into_iter().for_each(mix_group),
        false => threads::each(runs(&mut groups, |group| numbers(group)), |run| {
            run.iter_mut().for_each(|group| mix_group(group));
        }),
    }
}

/// How many numbers the averages have.
fn numbers(pairs: &[Pair<'_>]) -> usize {
    pairs.iter().map(Pair::len).sum()
}

/// The pairs in pieces, of which those of the same numbers of live stand next to each other.
fn cut(pairs: Vec<Pair<'_>>) -> Vec<Pair<'_>> {
    if pairs.iter().all(|pair| pair.len() <= PIECE) {
        return pairs;
    }
    let mut pieces: Vec<Pair<'_>> = Vec::with_capacity(pairs.len());
    let (mut last, mut start) = (None, 0);
    for pair in pairs {
        let address = pair.address();
        let again = last.replace(address) == Some(address);
        if !again {
            start = pieces.len();
        }
        match pair {
            pair if pair.len() <= PIECE => pieces.push(pair),
            Pair::F32(pair) => pieces.extend(pair.cut().map(Pair::F32)),
            Pair::F64(pair) => pieces.extend(pair.cut().map(Pair::F64)),
        }
        if again {
            pieces[start..].sort_by_key(Pair::address);
        }
    }
    pieces
}

/// Moves pieces of the same numbers of live, block by block.
fn mix_group(group: &mut [Pair<'_>]) {
    let len = group.first().map_or(0, Pair::len);
    let block = if group.len() == 1 { len } else { BLOCK };
    for start in (0..len).step_by(block.max(1)) {
        group.iter_mut().for_each(|piece| piece.mix(start..len.min(start + block)));
    }
}

/// Items that follow each other, as many at a time as make a piece.
fn runs<T>(mut items: &mut [T], len: impl Fn(&T) -> usize) -> Vec<&mut [T]> {
    let mut runs = Vec::new();
    while !items.is_empty() {
        let mut numbers = 0;
        let is_full = |item| {
            numbers += len(item);
            numbers >= PIECE
        };
        let end = items.iter().position(is_full).map_or(items.len(), |last| last + 1);
        runs.extend(items.split_off_mut(..end));
    }
    runs
}

/// A part of a pair.
pub(super) struct Piece<'a, T> {
    average: &'a mut [T],
    live: Live<'a, T>,
    alpha: T,
}

impl<'a, T: Real> Piece<'a, T> {
    fn cut(self) -> impl Iterator<Item = Self> {
        let Self { average, live, alpha } = self;
        let averages = average.chunks_mut(PIECE).enumerate();
        averages.map(move |(index, average)| {
            let live = live.part(index * PIECE, average.len());
            Self { average, live, alpha }
        })
    }

    fn mix(&mut self, part: Range<usize>) {
        let (alpha, live) = (self.alpha, self.live.part(part.start, part.len()));
        live.beside(&mut self.average[part], |average, live| mix_numbers(average, live, alpha));
    }
}

/// What an average goes towards: in its own dtype, or in one of 16 bits.
#[derive(Clone, Copy)]
pub(crate) enum Live<'a, T> {
    Same(&'a [T]),
    Half(Numbers<'a>),
}

impl<'a, T: Real> Live<'a, T> {
    fn part(self, start: usize, len: usize) -> Self {
        match self {
            Self::Same(live) => Self::Same(&live[start..start + len]),
            Self::Half(live) => Self::Half(live.part(start, len)),
        }
    }

    fn address(self) -> usize {
        match self {
            Self::Same(live) => live.as_ptr().addr(),
            Self::Half(live) => live.address(),
        }
    }

    /// Hands out the average and live in the same dtype, block by block.
    fn beside(self, average: &mut [T], mut work: impl FnMut(&mut [T], &[T])) {
        match self {
            Self::Same(live) => work(average, live),
            Self::Half(live) => {
                let mut wide = [T::ONE; WIDENED];
                for (index, average) in average.chunks_mut(WIDENED).enumerate() {
                    let (start, wide) = (index * WIDENED, &mut wide[..average.len()]);
                    T::widen(live.part(start, average.len()), wide);
                    work(average, wide);
                }
            }
        }
    }
}

/// Numbers of 16 bits that are widened at once.
const WIDENED: usize = 256;

/// `f32` and `f64`.
pub(crate) trait Real:
    Copy
    + PartialOrd
    + Send
    + Sync
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + 'static
{
    const ONE: Self;
    fn magnitude(self) -> Self;
    /// Live's numbers, if they are of this dtype or of 16 bits.
    fn live(numbers: Numbers<'_>) -> Option<Live<'_, Self>>;
    /// Numbers of 16 bits in this dtype.
    fn widen(half: Numbers<'_>, wide: &mut [Self]);
    /// The numbers of a tensor of this dtype, as [`host::numbers`] has them.
    #[cfg(feature = "train")]
    fn numbers(tensor: &DispatchTensor) -> Option<&[Self]>;
}

macro_rules! real {
    ($real:ty, $same:ident, $widen:ident) => {
        impl Real for $real {
            const ONE: Self = 1.0;

            #[inline(always)]
            fn magnitude(self) -> Self {
                self.abs()
            }

            fn live(numbers: Numbers<'_>) -> Option<Live<'_, Self>> {
                match numbers {
                    Numbers::$same(live) => Some(Live::Same(live)),
                    Numbers::F16(_) | Numbers::Bf16(_) => Some(Live::Half(numbers)),
                    _ => None,
                }
            }

            fn widen(half: Numbers<'_>, wide: &mut [Self]) {
                match half {
                    Numbers::F16(half) => half.$widen(wide),
                    Numbers::Bf16(half) => half.$widen(wide),
                    _ => {}
                }
            }

            #[cfg(feature = "train")]
            fn numbers(tensor: &DispatchTensor) -> Option<&[Self]> {
                match host::numbers(tensor)? {
                    Numbers::$same(numbers) => Some(numbers),
                    _ => None,
                }
            }
        }
    };
}

real!(f32, F32, convert_to_f32_slice);
real!(f64, F64, convert_to_f64_slice);

/// `a + alpha (w - a)`, with a rounding after each operation: without a fused one, the bits are the
/// same on every machine.
#[inline(always)]
fn towards<T: Real>(average: T, live: T, alpha: T) -> T {
    average + alpha * (live - average)
}

/// Moves numbers of an average towards those of live, of which there are as many.
pub(crate) fn mix_numbers<T: Real>(average: &mut [T], live: &[T], alpha: T) {
    match alpha == T::ONE {
        true => average.copy_from_slice(live),
        false => mix_block(average, live, alpha),
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
fn mix_block<T: Real>(average: &mut [T], live: &[T], alpha: T) {
    for (average, &live) in average.iter_mut().zip(live) {
        *average = towards(*average, live, alpha);
    }
}

/// Whether no magnitude is above its bound, for each of the tensors' numbers.
pub(super) fn within(tensors: &[(Numbers<'_>, f64)]) -> Vec<bool> {
    let total: usize = tensors.iter().map(|(numbers, _)| numbers.len()).sum();
    if total < THREADED {
        return tensors.iter().map(|&(numbers, most)| numbers.are_within(most)).collect();
    }
    let within: Vec<_> = tensors.iter().map(|_| AtomicBool::new(true)).collect();
    let pieces = tensors.iter().zip(&within).flat_map(|(&(numbers, most), within)| {
        let starts = (0..numbers.len()).step_by(PIECE);
        starts
            .map(move |start| (numbers.part(start, PIECE.min(numbers.len() - start)), most, within))
    });
    let mut pieces: Vec<_> = pieces.collect();
    threads::each(runs(&mut pieces, |(numbers, ..)| numbers.len()), |run| {
        for (numbers, most, within) in run {
            within.fetch_and(numbers.are_within(*most), Ordering::Relaxed);
        }
    });
    within.into_iter().map(AtomicBool::into_inner).collect()
}

impl Numbers<'_> {
    fn are_within(self, most: f64) -> bool {
        match self {
            Self::F64(numbers) => are_within(numbers, most.min(f64::MAX)),
            Self::F32(numbers) => are_within(numbers, most.min(f64::from(f32::MAX)) as f32),
            Self::F16(_) | Self::Bf16(_) => {
                let mut wide = [0f32; WIDENED];
                let mut starts = (0..self.len()).step_by(WIDENED);
                starts.all(|start| {
                    let wide = &mut wide[..WIDENED.min(self.len() - start)];
                    f32::widen(self.part(start, wide.len()), wide);
                    are_within(wide, most.min(f64::from(f32::MAX)) as f32)
                })
            }
        }
    }
}

/// A NaN is not within anything.
#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
pub(crate) fn are_within<T: Real>(numbers: &[T], most: T) -> bool {
    // Without a branch in a block, so that the compiler takes many numbers at once.
    let all = |block: &[T]| block.iter().fold(true, |all, x| all & (x.magnitude() <= most));
    numbers.chunks(4096).all(all)
}

#[cfg(test)]
mod tests;
