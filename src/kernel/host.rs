//! The update of numbers in memory: vectorised, in pieces, over threads.
//!
//! One pass reads each number of live once, for all averages of it, and reads and writes each
//! average once.

use std::{
    ops::Range,
    sync::atomic::{AtomicBool, Ordering},
};

use burn_ema_host::{Real, Slice, SliceMut, threads};
use half::slice::HalfFloatSliceExt;
use multiversion::multiversion;

/// The numbers in one piece of work of a thread.
const PIECE: usize = 1 << 14;

/// The numbers of live in one block, which stay in the nearest cache for live's next average.
const BLOCK: usize = 1 << 8;

/// The least count of numbers for several threads, since sharing work takes some microseconds.
const THREADED: usize = 1 << 15;

/// An average and the numbers of live towards which it moves, both of one length.
pub(super) enum Pair<'a> {
    F32(Segment<'a, f32>),
    F64(Segment<'a, f64>),
}

impl<'a> Pair<'a> {
    /// A pair; `None` if its dtypes are not for this path. `alpha` is in `(0, 1]`, and 1 copies.
    pub fn new(average: SliceMut<'a>, live: Slice<'a>, alpha: f64) -> Option<Self> {
        match average {
            SliceMut::F32(average) => {
                Some(Self::F32(Segment { average, live: f32::live(live)?, alpha: alpha as f32 }))
            }
            SliceMut::F64(average) => {
                Some(Self::F64(Segment { average, live: f64::live(live)?, alpha }))
            }
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::F32(piece) => piece.average.len(),
            Self::F64(piece) => piece.average.len(),
        }
    }

    /// The address of live's first number.
    fn address(&self) -> usize {
        match self {
            Self::F32(piece) => piece.live.address(),
            Self::F64(piece) => piece.live.address(),
        }
    }

    /// True if both move towards the same numbers of live.
    fn has_same_live(&self, other: &Self) -> bool {
        self.address() == other.address() && self.len() == other.len()
    }

    fn mix(&mut self, part: Range<usize>) {
        match self {
            Self::F32(piece) => piece.mix(part),
            Self::F64(piece) => piece.mix(part),
        }
    }
}

/// Moves all averages towards live, on several threads if there is enough to do.
///
/// Pairs of the same live must be adjacent: they are moved together, while its numbers are cached.
pub(super) fn mix(pairs: Vec<Pair<'_>>) {
    let mut pieces = cut(pairs);
    let all = numbers(&pieces);
    let mut groups: Vec<_> = pieces.chunk_by_mut(|one, next| one.has_same_live(next)).collect();
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

/// Cuts the pairs into pieces; those of the same numbers of live are next to each other.
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

/// Moves averages towards live, where all pieces of the group have the same numbers of live. With
/// several averages, each is moved by one block before any is moved by the next block, so that the
/// block of live is in the cache for all of them.
fn mix_group(group: &mut [Pair<'_>]) {
    let len = group.first().map_or(0, Pair::len);
    let block = if group.len() == 1 { len } else { BLOCK };
    for start in (0..len).step_by(block.max(1)) {
        group.iter_mut().for_each(|piece| piece.mix(start..len.min(start + block)));
    }
}

/// Cuts items into runs of at least [`PIECE`] numbers each, except the last.
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
pub(super) struct Segment<'a, T> {
    average: &'a mut [T],
    live: Operand<'a, T>,
    alpha: T,
}

impl<'a, T: Averageable> Segment<'a, T> {
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

/// The numbers of live for an average: in the average's dtype, or in one of 16 bits.
#[derive(Clone, Copy)]
pub(super) enum Operand<'a, T> {
    Same(&'a [T]),
    Half(Slice<'a>),
}

impl<'a, T: Averageable> Operand<'a, T> {
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

    /// Calls `work` with the average and live in the same dtype; block by block if live has 16
    /// bits.
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

/// The number of 16-bit floats that are widened at once.
const WIDENED: usize = 256;

/// A type of numbers in which averages are kept.
pub(super) trait Averageable: Real {
    /// Live's numbers; `None` if they are neither of this dtype nor of 16 bits.
    fn live(numbers: Slice<'_>) -> Option<Operand<'_, Self>>;

    /// Writes 16-bit floats to `wide` in this dtype.
    fn widen(half: Slice<'_>, wide: &mut [Self]);
}

macro_rules! kept {
    ($real:ty, $same:ident, $widen:ident) => {
        impl Averageable for $real {
            fn live(numbers: Slice<'_>) -> Option<Operand<'_, Self>> {
                match numbers {
                    Slice::$same(live) => Some(Operand::Same(live)),
                    Slice::F16(_) | Slice::Bf16(_) => Some(Operand::Half(numbers)),
                    _ => None,
                }
            }

            fn widen(half: Slice<'_>, wide: &mut [Self]) {
                match half {
                    Slice::F16(half) => half.$widen(wide),
                    Slice::Bf16(half) => half.$widen(wide),
                    _ => {}
                }
            }
        }
    };
}

kept!(f32, F32, convert_to_f32_slice);
kept!(f64, F64, convert_to_f64_slice);

/// `a + alpha (w - a)`, with a rounding after each operation: without a fused one, the bits are the
/// same on every machine.
#[inline(always)]
fn towards<T: Real>(average: T, live: T, alpha: T) -> T {
    average + alpha * (live - average)
}

/// Moves numbers of an average towards equally many numbers of live.
fn mix_numbers<T: Real>(average: &mut [T], live: &[T], alpha: T) {
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

/// For each tensor, true if all its numbers are finite and their magnitudes within its bound.
pub(super) fn within(tensors: &[(Slice<'_>, f64)]) -> Vec<bool> {
    let total: usize = tensors.iter().map(|(numbers, _)| numbers.len()).sum();
    if total < THREADED {
        return tensors.iter().map(|&(numbers, most)| is_within(numbers, most)).collect();
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
            within.fetch_and(is_within(*numbers, *most), Ordering::Relaxed);
        }
    });
    within.into_iter().map(AtomicBool::into_inner).collect()
}

/// True if all numbers are finite and their magnitudes within a bound.
fn is_within(numbers: Slice<'_>, most: f64) -> bool {
    match numbers {
        Slice::F64(numbers) => are_within(numbers, most.min(f64::MAX)),
        Slice::F32(numbers) => are_within(numbers, most.min(f64::from(f32::MAX)) as f32),
        Slice::F16(_) | Slice::Bf16(_) => {
            let mut wide = [0f32; WIDENED];
            let mut starts = (0..numbers.len()).step_by(WIDENED);
            starts.all(|start| {
                let wide = &mut wide[..WIDENED.min(numbers.len() - start)];
                f32::widen(numbers.part(start, wide.len()), wide);
                are_within(wide, most.min(f64::from(f32::MAX)) as f32)
            })
        }
    }
}

/// True if no number is a NaN or has a magnitude above `most`.
#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
fn are_within<T: Real>(numbers: &[T], most: T) -> bool {
    // Without a branch in a block, so that the compiler vectorises it.
    let all = |block: &[T]| block.iter().fold(true, |all, x| all & (x.magnitude() <= most));
    numbers.chunks(4096).all(all)
}

#[cfg(test)]
mod tests;
