//! One kernel for many tensors of a device.
//!
//! The kernel reads each number of live once; with it, it moves averages towards live, checks it
//! against a bound, or both.
//! The number of tensors in a launch, and the work on each, are fixed when the kernel is compiled;
//! sizes, shares and bounds are arguments.

#![allow(unsafe_code)] // a launch without checks: the kernel checks its bounds itself
#![allow(clippy::collapsible_if, clippy::len_zero)] // what is known when the kernel is compiled

use burn_cubecl::tensor::CubeTensor;
use cubecl::{calculate_cube_count_elemwise, client::Client, ir::ElemType, prelude::*};

/// How many numbers are read at once, where sizes and offsets allow.
const WIDE: usize = 4;
/// How many reads each unit makes.
const READS: u32 = 4;
/// The bits of an f32 without its sign: magnitudes in their order, then infinity, then each NaN.
const MAGNITUDE: u32 = 0x7fff_ffff;

/// A live tensor, and what is done with its numbers.
pub(super) struct Reading {
    pub live: CubeTensor,
    /// How many numbers there are, one after the other.
    pub numbers: usize,
    /// Averages with live's layout, in storage of their own, and their shares of the way to live.
    pub averages: Vec<(CubeTensor, f32)>,
    /// The largest allowed magnitude, and the index of the flag that is set if a number is beyond
    /// it; `None` for no check.
    pub bound: Option<(f32, u32)>,
}

impl Reading {
    /// How many buffers the reading binds.
    pub fn bindings(&self) -> usize {
        1 + self.averages.len()
    }

    /// The reading cut into several, with at most `most` averages each.
    pub fn split(mut self, most: usize) -> Vec<Self> {
        let mut all = Vec::new();
        while self.averages.len() > most {
            let averages = self.averages.split_off(self.averages.len() - most);
            all.push(Self { live: self.live.clone(), averages, ..self });
        }
        all.push(self);
        all
    }

    /// True if [`WIDE`] numbers can be read at once.
    pub fn is_wide(&self) -> bool {
        let bytes = |tensor: &CubeTensor| (WIDE * tensor.elem_size()) as u64;
        let aligned = |tensor: &CubeTensor| {
            tensor.handle.offset_start.unwrap_or(0).is_multiple_of(bytes(tensor))
        };
        self.numbers.is_multiple_of(WIDE)
            && aligned(&self.live)
            && self.averages.iter().all(|(average, _)| aligned(average))
    }
}

/// Works on all readings in one launch.
///
/// Readings with a bound set their flags. Readings with averages move them, unless there are flags
/// and the last one, which stands for all tensors, is set.
pub(super) fn launch(
    client: &Client,
    live: ElemType,
    flags: Option<CubeTensor>,
    readings: Vec<Reading>,
) {
    let longest = readings.iter().map(Reading::lines).max().unwrap_or(0);
    let units = CubeDim::new(client, longest.div_ceil(READS as usize));
    let lines_a_cube = (units.num_elems() * READS) as usize;
    let (wide, narrow): (Vec<_>, Vec<_>) = readings.into_iter().partition(Reading::is_wide);
    let mut cubes = 0;
    let wide =
        wide.into_iter().map(|reading| reading.arguments(&mut cubes, lines_a_cube)).collect();
    let narrow_from = cubes;
    let narrow =
        narrow.into_iter().map(|reading| reading.arguments(&mut cubes, lines_a_cube)).collect();
    let count =
        calculate_cube_count_elemwise(client, cubes as usize * units.num_elems() as usize, units);
    let any = flags.iter().map(|flags| flags.meta.num_elements() as u32 - 1).next().unwrap_or(0);
    let flags = flags.into_iter().map(CubeTensor::into_buffer_arg).collect();
    #[cfg(test)]
    LAUNCHES.set(LAUNCHES.get() + 1);
    // SAFETY: the kernel does nothing in cubes from `cubes` on, and reads and writes only lines
    // below the number of lines of their tensor, which every buffer of a reading has. Every loop of
    // it ends. Nothing else reads or writes what it writes: an average has storage of its own.
    unsafe {
        pass::launch_unchecked(
            client,
            count,
            units,
            wide,
            narrow,
            flags,
            any,
            narrow_from,
            cubes,
            live,
        );
    }
}

impl Reading {
    /// The number of reads for all numbers of live.
    fn lines(&self) -> usize {
        match self.is_wide() {
            true => self.numbers / WIDE,
            false => self.numbers,
        }
    }

    /// The kernel's arguments for this reading; its cubes begin at `cubes`, which is advanced past
    /// them.
    fn arguments<N: Size>(
        self,
        cubes: &mut u32,
        lines_a_cube: usize,
    ) -> ReadingArgsLaunch<pass::W, N> {
        let (first, lines) = (*cubes, self.lines());
        *cubes += lines.div_ceil(lines_a_cube) as u32;
        let averages = self.averages.into_iter();
        let averages =
            averages.map(|(tensor, alpha)| AverageArgsLaunch::new(tensor.into_buffer_arg(), alpha));
        let bound = self.bound.map(|(most, flag)| BoundArgsLaunch::new(most.to_bits(), flag));
        ReadingArgsLaunch::new(
            self.live.into_buffer_arg(),
            averages.collect(),
            bound.into_iter().collect(),
            first,
            lines as u32,
        )
    }
}

#[derive(CubeType, CubeLaunch)]
struct AverageArgs<N: Size> {
    numbers: Box<[Vector<f32, N>]>,
    alpha: f32,
}

#[derive(CubeType, CubeLaunch)]
struct BoundArgs {
    /// As bits, which are compared, since a shader may assume that no number is a NaN or an
    /// infinity.
    most: u32,
    flag: u32,
}

#[derive(CubeType, CubeLaunch)]
struct ReadingArgs<W: Float, N: Size> {
    live: Box<[Vector<W, N>]>,
    averages: Sequence<AverageArgs<N>>,
    /// Empty, or one bound.
    bounds: Sequence<BoundArgs>,
    /// The first cube that works on this reading.
    first: u32,
    lines: u32,
}

type Flags = Sequence<Box<[Atomic<u32>]>>;

#[cube(launch_unchecked)]
fn pass<W: Float>(
    wide: &mut Sequence<ReadingArgs<W, Const<4>>>,
    narrow: &mut Sequence<ReadingArgs<W, Const<1>>>,
    flags: &mut Flags,
    any: u32,
    narrow_from: u32,
    cubes: u32,
    #[define(W)] _live: ElemType,
) {
    let cube = CUBE_POS as u32;
    if cube < narrow_from {
        if comptime!(wide.len() > 0) {
            let to = comptime!(wide.len());
            find::<W, Const<4>>(wide, flags, any, cube, 0usize, to);
        }
    } else if cube < cubes {
        if comptime!(narrow.len() > 0) {
            let to = comptime!(narrow.len());
            find::<W, Const<1>>(narrow, flags, any, cube, 0usize, to);
        }
    }
}

/// Finds the reading of a cube by bisection, and works on it.
#[cube]
fn find<W: Float, N: Size>(
    readings: &mut Sequence<ReadingArgs<W, N>>,
    flags: &mut Flags,
    any: u32,
    cube: u32,
    #[comptime] from: usize,
    #[comptime] to: usize,
) {
    if comptime!(to - from == 1) {
        read::<W, N>(readings.index_mut(from), flags, any, cube);
    } else {
        let middle = comptime!((from + to) / 2);
        if cube < readings.index(middle).first {
            find::<W, N>(readings, flags, any, cube, from, middle);
        } else {
            find::<W, N>(readings, flags, any, cube, middle, to);
        }
    }
}

/// Moves the averages and checks the bounds for the lines of a cube; neighbouring units read
/// neighbouring lines.
#[cube]
fn read<W: Float, N: Size>(
    reading: &mut ReadingArgs<W, N>,
    flags: &mut Flags,
    any: u32,
    cube: u32,
) {
    let mut closed = 0u32.runtime();
    if comptime!(flags.len() > 0 && reading.averages.len() > 0) {
        closed = flags.index(0)[any as usize].load();
    }
    let start = (cube - reading.first) * CUBE_DIM * READS + UNIT_POS;
    for i in 0..READS {
        let line = start + i * CUBE_DIM;
        if line < reading.lines {
            let w = Vector::<f32, N>::cast_from(reading.live[line as usize]);
            if closed == 0 {
                #[unroll]
                for k in 0..reading.averages.len() {
                    lerp::<N>(reading.averages.index_mut(k), w, line as usize);
                }
            }
            #[unroll]
            for k in 0..reading.bounds.len() {
                look::<N>(reading.bounds.index(k), w, flags, any);
            }
        }
    }
}

#[cube]
fn lerp<N: Size>(average: &mut AverageArgs<N>, w: Vector<f32, N>, line: usize) {
    if average.alpha == 1.0 {
        average.numbers[line] = w;
    } else {
        let a = average.numbers[line];
        average.numbers[line] = a + Vector::new(average.alpha) * (w - a);
    }
}

#[cube]
fn look<N: Size>(bound: &BoundArgs, w: Vector<f32, N>, flags: &mut Flags, any: u32) {
    let bits = Vector::<u32, N>::reinterpret(w) & Vector::new(MAGNITUDE);
    #[unroll]
    for i in 0..N::value() {
        if bits.extract(i) > bound.most {
            flags.index_mut(0)[bound.flag as usize].store(1);
            flags.index_mut(0)[any as usize].store(1);
        }
    }
}

#[cfg(test)]
thread_local! {
    static LAUNCHES: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// How many launches this thread has made.
#[cfg(test)]
pub(super) fn launches() -> usize {
    LAUNCHES.get()
}
