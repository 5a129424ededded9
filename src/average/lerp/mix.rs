//! The update of numbers in memory: vectorised, in pieces, over threads.
//!
//! One pass reads each number of live once, for all averages of it, and reads and writes each
//! average once.
//! Live's numbers have a bound, and where one is beyond it, no average may change.
//! Looking before would read live twice, a third more bytes where it does not stay in the caches;
//! so [`mix_within`] looks as it goes, and takes the pass back, bit for bit, where it has to.

use std::{
    ops::{Add, Mul, Range, Sub},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
};

#[cfg(feature = "train")]
use burn::backend::DispatchTensor;
use half::slice::HalfFloatSliceExt;
use multiversion::multiversion;

#[cfg(feature = "train")]
use super::host;
use super::{
    Passed,
    host::{Numbers, NumbersMut},
};
use crate::threads;

/// Numbers that a thread takes at once.
const PIECE: usize = 1 << 14;

/// Numbers of live that stay in the nearest cache for its next average.
const BLOCK: usize = 1 << 8;

/// From so many numbers on threads pay: to share work takes some microseconds.
pub(crate) const THREADED: usize = 1 << 15;

/// Up to this share a pass can be taken back cheaply: the larger the share, the more of the
/// average's last bits are lost in it, and have to be noted.
pub(super) const MOST_UNDONE: f64 = 1.0 / 256.0;

/// Where live does not stay in the caches from one pass to the next.
pub(super) const BEYOND_CACHES: usize = 1 << 21;

/// One of so many numbers may be noted in a pass.
const NOTED: usize = 8;

/// An average and what it goes towards, both of one length.
pub(super) enum Pair<'a> {
    F32(Piece<'a, f32>),
    F64(Piece<'a, f64>),
}

impl<'a> Pair<'a> {
    /// A pair, if its dtypes are for this path; `alpha` is in `(0, 1]`, and 1 copies.
    pub fn new(average: NumbersMut<'a>, live: Numbers<'a>, alpha: f64, most: f64) -> Option<Self> {
        match average {
            NumbersMut::F32(average) => {
                let most = most.min(f64::from(f32::MAX)) as f32;
                Some(Self::F32(Piece::new(average, f32::live(live)?, alpha as f32, most)))
            }
            NumbersMut::F64(average) => {
                Some(Self::F64(Piece::new(average, f64::live(live)?, alpha, most.min(f64::MAX))))
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

    fn mix_within(&mut self, part: Range<usize>) -> (bool, usize) {
        match self {
            Self::F32(piece) => piece.mix_within(part),
            Self::F64(piece) => piece.mix_within(part),
        }
    }

    fn undo(&mut self) {
        match self {
            Self::F32(piece) => piece.undo(),
            Self::F64(piece) => piece.undo(),
        }
    }
}

/// Moves all averages, whatever live's numbers are.
///
/// Pairs of the same live stand next to each other.
pub(super) fn mix(pairs: Vec<Pair<'_>>) {
    each(&mut cut(pairs), |group| side_by_side(group, Pair::mix));
}

/// Moves all averages, if no number of live is beyond its bound.
///
/// Shares are at most [`MOST_UNDONE`].
pub(super) fn mix_within(pairs: Vec<Pair<'_>>) -> Passed {
    let most = numbers(&pairs) / NOTED;
    let (noted, beyond) = (AtomicUsize::new(0), AtomicBool::new(false));
    let mut pieces = cut(pairs);
    each(&mut pieces, |group| {
        let is_over = beyond.load(Ordering::Relaxed) || noted.load(Ordering::Relaxed) > most;
        if !is_over {
            let (mut within, mut notes) = (true, 0);
            side_by_side(group, |piece, part| {
                let (part_within, part_notes) = piece.mix_within(part);
                within &= part_within;
                notes += part_notes;
            });
            noted.fetch_add(notes, Ordering::Relaxed);
            beyond.fetch_or(!within, Ordering::Relaxed);
        }
    });
    let passed = match (beyond.into_inner(), noted.into_inner() > most) {
        (false, false) => return Passed::Whole,
        (true, _) => Passed::Refused,
        (false, true) => Passed::Unfit,
    };
    each(&mut pieces, |group| group.iter_mut().for_each(Pair::undo));
    passed
}

/// How many numbers the averages have.
pub(super) fn numbers(pairs: &[Pair<'_>]) -> usize {
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

/// Works on all pieces, those of the same numbers of live at once, on threads where there is
/// enough to do.
fn each<'a>(pieces: &mut [Pair<'a>], work: impl Fn(&mut [Pair<'a>]) + Sync) {
    let all = numbers(pieces);
    let mut groups: Vec<_> = pieces.chunk_by_mut(|one, next| one.is_beside(next)).collect();
    match all < THREADED {
        true => groups.into_iter().for_each(work),
        false => threads::each(runs(&mut groups, |group| numbers(group)), |run| {
            run.iter_mut().for_each(|group| work(group));
        }),
    }
}

/// Works on pieces of the same numbers of live, block by block.
fn side_by_side<'a>(group: &mut [Pair<'a>], mut work: impl FnMut(&mut Pair<'a>, Range<usize>)) {
    let len = group.first().map_or(0, Pair::len);
    let block = if group.len() == 1 { len } else { BLOCK };
    for start in (0..len).step_by(block.max(1)) {
        group.iter_mut().for_each(|piece| work(piece, start..len.min(start + block)));
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

/// The average as it was, from an index on.
type Note<T> = (usize, [T; LANES]);

/// A part of a pair.
pub(super) struct Piece<'a, T> {
    average: &'a mut [T],
    live: Live<'a, T>,
    alpha: T,
    /// The largest magnitude that live may have.
    most: T,
    /// What cannot be computed back from what became of it.
    notes: Vec<Note<T>>,
    /// How many of its numbers were moved, from the first on.
    moved: usize,
}

impl<'a, T: Real> Piece<'a, T> {
    fn new(average: &'a mut [T], live: Live<'a, T>, alpha: T, most: T) -> Self {
        Self { average, live, alpha, most, notes: Vec::new(), moved: 0 }
    }

    fn cut(self) -> impl Iterator<Item = Self> {
        let Self { average, live, alpha, most, .. } = self;
        let averages = average.chunks_mut(PIECE).enumerate();
        averages.map(move |(index, average)| {
            let live = live.part(index * PIECE, average.len());
            Self::new(average, live, alpha, most)
        })
    }

    fn mix(&mut self, part: Range<usize>) {
        let (alpha, live) = (self.alpha, self.live.part(part.start, part.len()));
        live.beside(&mut self.average[part], |average, live, _| mix_numbers(average, live, alpha));
    }

    /// Whether live is within its bound, and how many numbers were noted.
    fn mix_within(&mut self, part: Range<usize>) -> (bool, usize) {
        let (alpha, most, notes) = (self.alpha, self.most, &mut self.notes);
        let (mut within, noted, first) = (true, notes.len(), part.start);
        let live = self.live.part(first, part.len());
        live.beside(&mut self.average[part.clone()], |average, live, start| {
            within &= mix_block_within(average, live, alpha, most, first + start, notes);
        });
        self.moved = part.end;
        (within, (notes.len() - noted) * LANES)
    }

    fn undo(&mut self) {
        let back = T::way_back(self.alpha);
        let (average, live) = (&mut self.average[..self.moved], self.live.part(0, self.moved));
        live.beside(average, |average, live, _| undo_block(average, live, back));
        for (start, before) in &self.notes {
            let average = average[*start..].iter_mut();
            average.zip(before).for_each(|(average, before)| *average = *before);
        }
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

    /// Hands out the average and live in the same dtype, block by block with its first index.
    fn beside(self, average: &mut [T], mut work: impl FnMut(&mut [T], &[T], usize)) {
        match self {
            Self::Same(live) => work(average, live, 0),
            Self::Half(live) => {
                let mut wide = [T::ONE; WIDENED];
                for (index, average) in average.chunks_mut(WIDENED).enumerate() {
                    let (start, wide) = (index * WIDENED, &mut wide[..average.len()]);
                    T::widen(live.part(start, average.len()), wide);
                    work(average, wide, start);
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
    /// The same in all bits, of which zero has two sets.
    fn is(self, other: Self) -> bool;
    /// `alpha / (1 - alpha)`, the share of the way from live that leads back.
    fn way_back(alpha: Self) -> Self;
    /// Live's numbers, if they are of this dtype or of 16 bits.
    fn live(numbers: Numbers<'_>) -> Option<Live<'_, Self>>;
    /// Numbers of 16 bits in this dtype.
    fn widen(half: Numbers<'_>, wide: &mut [Self]);
    /// The numbers of a tensor of this dtype, as [`host::numbers`] has them.
    #[cfg(feature = "train")]
    fn numbers(tensor: &DispatchTensor) -> Option<&[Self]>;
    /// The same, to be changed, as [`host::numbers_mut`] has them.
    #[cfg(feature = "train")]
    fn numbers_mut(tensor: &mut DispatchTensor) -> Option<&mut [Self]>;
}

macro_rules! real {
    ($real:ty, $same:ident, $widen:ident) => {
        impl Real for $real {
            const ONE: Self = 1.0;

            #[inline(always)]
            fn magnitude(self) -> Self {
                self.abs()
            }

            #[inline(always)]
            fn is(self, other: Self) -> bool {
                self.to_bits() == other.to_bits()
            }

            fn way_back(alpha: Self) -> Self {
                alpha / (1.0 - alpha)
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

            #[cfg(feature = "train")]
            fn numbers_mut(tensor: &mut DispatchTensor) -> Option<&mut [Self]> {
                match host::numbers_mut(tensor)? {
                    NumbersMut::$same(numbers) => Some(numbers),
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

/// What the average was, to a rounding: from `a' = a + alpha (w - a)` follows
/// `a = a' - alpha / (1 - alpha) (w - a')`.
#[inline(always)]
fn away<T: Real>(average: T, live: T, back: T) -> T {
    average - back * (live - average)
}

#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
fn undo_block<T: Real>(average: &mut [T], live: &[T], back: T) {
    for (average, &live) in average.iter_mut().zip(live) {
        *average = away(*average, live, back);
    }
}

/// Numbers that are moved at once, in some registers.
const LANES: usize = 16;

/// Moves the average, notes what [`undo_block`] would not give back, and says whether live is
/// within its bound.
#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
fn mix_block_within<T: Real>(
    average: &mut [T],
    live: &[T],
    alpha: T,
    most: T,
    start: usize,
    notes: &mut Vec<Note<T>>,
) -> bool {
    let back = T::way_back(alpha);
    let (averages, last) = average.as_chunks_mut::<LANES>();
    let (lives, last_live) = live.as_chunks::<LANES>();
    let mut within = true;
    // By index, by which the compiler keeps the lanes in registers.
    for index in 0..averages.len().min(lives.len()) {
        let before = averages[index];
        let (moved, comes_back, is_within) = mix_lanes(before, lives[index], alpha, back, most);
        averages[index] = moved;
        within &= is_within;
        if !comes_back {
            notes.push((start + index * LANES, before));
        }
    }
    if !last.is_empty() {
        let (mut before, mut live) = ([T::ONE; LANES], [T::ONE; LANES]);
        before[..last.len()].copy_from_slice(last);
        live[..last.len()].copy_from_slice(last_live);
        let (moved, _, is_within) = mix_lanes(before, live, alpha, back, most);
        last.copy_from_slice(&moved[..last.len()]);
        within &= is_within;
        notes.push((start + averages.len() * LANES, before));
    }
    within
}

/// Moved averages, whether [`away`] gives them back as they were, and whether live is within its
/// bound.
///
/// By value and without a branch, so that the compiler takes all lanes at once.
#[inline(always)]
fn mix_lanes<T: Real>(
    before: [T; LANES],
    live: [T; LANES],
    alpha: T,
    back: T,
    most: T,
) -> ([T; LANES], bool, bool) {
    let (mut moved, mut comes_back, mut within) = (before, true, true);
    for lane in 0..LANES {
        moved[lane] = towards(before[lane], live[lane], alpha);
        comes_back &= away(moved[lane], live[lane], back).is(before[lane]);
        within &= live[lane].magnitude() <= most;
    }
    (moved, comes_back, within)
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
