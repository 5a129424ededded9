//! The tensors of CubeCL's backends: one launch for as many of them as the device binds at once.
//!
//! Under Burn's fusion a tensor may be a plan of one, which is not looked into: it takes the
//! portable path.

mod kernel;

use std::{any::Any, mem, ptr};

use burn::{
    backend::{BackendTensor, DispatchTensor, DispatchTensorKind},
    tensor::{DType, Shape},
};
use burn_cubecl::{kernel::into_contiguous, tensor::CubeTensor};
use cubecl::{
    features::TypeUsage,
    ir::{ElemType, FloatKind},
    prelude::CubeElement,
};

use self::kernel::Reading;
use super::Towards;
use crate::{Error, Result};

/// The largest number of buffers that a launch binds: a kernel has code for each of its tensors,
/// which takes time to compile.
const MOST_BINDINGS: usize = 128;

/// Moves the averages whose tensors are of CubeCL, and returns the rest.
pub(super) fn lerp_all(work: Vec<Towards<'_>>) -> Vec<Towards<'_>> {
    let (mut work, rest): (Vec<_>, Vec<_>) = work.into_iter().partition(is_here);
    let same_live = |a: &Towards<'_>, b: &Towards<'_>| ptr::eq(a.live.tensor(), b.live.tensor());
    let steps = work.chunk_by_mut(same_live).filter_map(|run| {
        let live = tensor(run.first()?.live.tensor())?.clone();
        let averages = run
            .iter_mut()
            .filter_map(|towards| Some((tensor_mut(towards.average)?, towards.alpha as f32)));
        Some((live, averages.collect()))
    });
    lerp(steps.collect());
    rest
}

/// Whether each of the tensors holds numbers alone, of magnitudes up to its bound; none where they
/// are not all of CubeCL and on one device.
pub(super) fn within(tensors: &[(&DispatchTensor, f64)]) -> Option<Result<Vec<bool>>> {
    let tensors = tensors.iter().map(|(tensor, most)| Some((self::tensor(tensor)?, *most)));
    let tensors: Vec<_> = tensors.collect::<Option<_>>()?;
    let (CubeTensor { client, device, .. }, _) = tensors.first()?;
    let known = |tensor: &CubeTensor| tensor.device == *device && element(tensor).is_some();
    if !tensors.iter().all(|(tensor, _)| known(tensor)) {
        return None;
    }
    let flags = client.create_from_slice(u32::as_bytes(&vec![0; tensors.len()]));
    let shape = Shape::new([tensors.len()]);
    let flags =
        CubeTensor::new_contiguous(client.clone(), device.clone(), shape, flags, DType::U32);
    let filled = tensors.into_iter().zip(0..).filter(|((tensor, _), _)| !is_empty(tensor));
    let readings = filled.map(|((tensor, most), flag)| {
        // What lies between the numbers of a view is not looked at.
        let live = match is_dense(tensor) {
            true => tensor.clone(),
            false => into_contiguous(tensor.clone()),
        };
        let most = most.min(f64::from(f32::MAX)) as f32;
        Reading { numbers: span(&live), live, averages: Vec::new(), bound: Some((most, flag)) }
    });
    launch(readings.collect(), Some(&flags));
    let flags = client.read_one(flags.handle);
    let flags = flags.map(|flags| u32::from_bytes(&flags).iter().map(|&flag| flag == 0).collect());
    Some(flags.map_err(|error| Error::value("a tensor", "numbers that can be read back", error)))
}

/// Moves averages towards the live tensor of each.
fn lerp(steps: Vec<(CubeTensor, Vec<(&mut CubeTensor, f32)>)>) {
    let (mut copies, mut moves) = (Vec::new(), Vec::new());
    for (mut live, mut averages) in steps.into_iter().filter(|(live, _)| !is_empty(live)) {
        if !averages.iter().all(|(average, _)| are_alike(average, &live)) {
            live = into_contiguous(live);
            averages.iter_mut().for_each(|(average, _)| {
                **average = into_contiguous(average.clone());
            });
        }
        let numbers = span(&live);
        for (average, alpha) in &mut averages {
            if !average.can_mut() {
                let own = empty_like(average);
                let shared = mem::replace(*average, own.clone());
                // A share of 1 takes nothing of it.
                if *alpha < 1.0 {
                    let averages = vec![(own, 1.0)];
                    copies.push(Reading { live: shared, numbers, averages, bound: None });
                }
            }
        }
        let averages = averages.into_iter().map(|(average, alpha)| (average.clone(), alpha));
        moves.push(Reading { live, numbers, averages: averages.collect(), bound: None });
    }
    launch(copies, None);
    launch(moves, None);
}

/// Launches the kernel as often as bindings, devices and dtypes of live need it.
fn launch(readings: Vec<Reading>, flags: Option<&CubeTensor>) {
    for readings in by_kind(readings) {
        let Some((client, element)) = readings
            .first()
            .and_then(|reading| Some((reading.live.client.clone(), element(&reading.live)?)))
        else {
            continue;
        };
        let most = MOST_BINDINGS.min(client.properties().hardware.max_bindings as usize);
        let most = most - flags.iter().len();
        let readings = readings.into_iter().flat_map(|reading| reading.split(most - 1));
        let mut readings: Vec<_> = readings.collect();
        // Like with like, so that few kernels serve many launches.
        readings.sort_by_key(|reading| !reading.is_wide());
        for group in groups(readings, Reading::bindings, most) {
            kernel::launch(&client, element, flags.cloned(), group);
        }
    }
}

/// Those of one device and dtype together, in their order.
fn by_kind(readings: Vec<Reading>) -> Vec<Vec<Reading>> {
    let mut kinds: Vec<Vec<Reading>> = Vec::new();
    for reading in readings {
        let (device, dtype) = (&reading.live.device, reading.live.dtype);
        let same = |kind: &&mut Vec<Reading>| {
            kind[0].live.device == *device && kind[0].live.dtype == dtype
        };
        match kinds.iter_mut().find(same) {
            Some(kind) => kind.push(reading),
            None => kinds.push(vec![reading]),
        }
    }
    kinds
}

/// Cuts items into groups whose sizes add up to no more than the most that a group takes.
fn groups<T>(
    items: impl IntoIterator<Item = T>,
    size: impl Fn(&T) -> usize,
    most: usize,
) -> Vec<Vec<T>> {
    let (mut groups, mut free) = (Vec::<Vec<T>>::new(), 0);
    for item in items {
        let size = size(&item);
        match groups.last_mut() {
            Some(group) if size <= free => {
                group.push(item);
                free -= size;
            }
            _ => {
                groups.push(vec![item]);
                free = most.saturating_sub(size);
            }
        }
    }
    groups
}

/// Whether the kernel moves this average.
fn is_here(towards: &Towards<'_>) -> bool {
    let Some((average, live)) = tensor(towards.average).zip(tensor(towards.live.tensor())) else {
        return false;
    };
    average.dtype == DType::F32 && average.device == live.device && element(live).is_some()
}

/// A float tensor of CubeCL, unless it is but planned.
fn tensor(tensor: &DispatchTensor) -> Option<&CubeTensor> {
    match &tensor.kind {
        _ if cfg!(feature = "portable") => None,
        DispatchTensorKind::Cube(BackendTensor::Float(tensor)) => {
            (tensor as &dyn Any).downcast_ref()
        }
        _ => None,
    }
}

/// The same, to be changed.
fn tensor_mut(tensor: &mut DispatchTensor) -> Option<&mut CubeTensor> {
    match &mut tensor.kind {
        DispatchTensorKind::Cube(BackendTensor::Float(tensor)) => {
            (tensor as &mut dyn Any).downcast_mut()
        }
        _ => None,
    }
}

/// The elements of a live tensor, if the kernel reads and counts such on its device.
fn element(live: &CubeTensor) -> Option<ElemType> {
    let element = ElemType::Float(match live.dtype {
        DType::F32 => FloatKind::F32,
        DType::F16 => FloatKind::F16,
        DType::BF16 => FloatKind::BF16,
        _ => return None,
    });
    let usage = live.client.properties().type_usage(element);
    let known = usage.is_superset(TypeUsage::Buffer | TypeUsage::Conversion);
    (known && i32::try_from(live.handle.size()).is_ok()).then_some(element)
}

fn is_empty(tensor: &CubeTensor) -> bool {
    tensor.meta.num_elements() == 0
}

/// Whether numbers with the same index lie at the same place of both buffers, and no two at one.
fn are_alike(a: &CubeTensor, b: &CubeTensor) -> bool {
    let strides = |tensor: &CubeTensor| {
        let dims = tensor.meta.shape().iter().zip(tensor.meta.strides().iter());
        dims.filter(|&(&size, _)| size != 1).map(|(_, &stride)| stride).collect::<Vec<_>>()
    };
    let rows = !a.meta.is_tiled() && !b.meta.is_tiled();
    rows && strides(a) == strides(b) && (a.is_contiguous() || a.is_nonoverlapping())
}

/// Whether its numbers, in any order, are all that lies where it begins and ends.
fn is_dense(tensor: &CubeTensor) -> bool {
    are_alike(tensor, tensor) && span(tensor) == tensor.meta.num_elements()
}

/// How many numbers of the buffer a tensor reaches over, those between its own included.
fn span(tensor: &CubeTensor) -> usize {
    let dims = tensor.meta.shape().iter().zip(tensor.meta.strides().iter());
    1 + dims.map(|(&size, &stride)| (size - 1) * stride).sum::<usize>()
}

/// A tensor laid out alike, with storage of its own and any numbers in it.
fn empty_like(tensor: &CubeTensor) -> CubeTensor {
    let handle = tensor.client.empty(span(tensor) * tensor.elem_size());
    CubeTensor { handle, ..tensor.clone() }
}

#[cfg(all(test, feature = "wgpu"))]
mod tests {
    use burn::tensor::{Device, Tensor, TensorData};
    use proptest::prelude::*;

    use super::{
        super::{Borrowed, tests::expected},
        kernel::launches,
        *,
    };

    fn device() -> Device {
        Device::wgpu(Default::default())
    }

    fn row(numbers: &[f32]) -> DispatchTensor {
        Tensor::<1>::from_data(numbers, &device()).into_dispatch()
    }

    fn numbers(tensor: &DispatchTensor) -> Vec<f32> {
        let data = Tensor::<1>::from_dispatch(tensor.clone()).into_data();
        data.convert::<f32>().try_into_vec().unwrap()
    }

    /// How many buffers a launch binds on this device.
    fn most_bindings() -> usize {
        let row = row(&[1.0]);
        let most = tensor(&row).unwrap().client.properties().hardware.max_bindings as usize;
        most.min(MOST_BINDINGS)
    }

    /// Where the buffer of a tensor is kept.
    fn storage(tensor: &DispatchTensor) -> usize {
        ptr::from_ref(self::tensor(tensor).unwrap().handle.memory.descriptor()).addr()
    }

    /// Moves the averages of each live tensor by their shares; how many launches it takes.
    fn move_all(work: &mut [(DispatchTensor, Vec<(DispatchTensor, f64)>)]) -> usize {
        let work = work.iter_mut().flat_map(|(live, averages)| {
            averages.iter_mut().map(|(average, alpha)| {
                let (live, alpha) = (Borrowed::Tensor(live), *alpha);
                Towards { average, live, alpha, most: f64::INFINITY }
            })
        });
        let before = launches();
        assert!(lerp_all(work.collect()).is_empty(), "all are of the device");
        launches() - before
    }

    #[derive(Clone, Copy, Debug)]
    enum Layout {
        Rows,
        /// A view of the transposed matrix.
        Columns,
        /// A view of the middle of a larger buffer.
        Middle,
    }

    /// How many rows a view of the middle has before and after it.
    const MARGIN: usize = 64;

    fn laid_out(layout: Layout, [rows, columns]: [usize; 2], numbers: &[f32]) -> DispatchTensor {
        let matrix = |numbers: Vec<f32>, shape: [usize; 2]| {
            Tensor::<2>::from_data(TensorData::new(numbers, shape), &device())
        };
        let matrix = match layout {
            Layout::Rows => matrix(numbers.to_vec(), [rows, columns]),
            Layout::Columns => {
                let place = |i| i % rows * columns + i / rows;
                let numbers = (0..rows * columns).map(|i| numbers[place(i)]).collect();
                matrix(numbers, [columns, rows]).transpose()
            }
            Layout::Middle => {
                let margin = vec![f32::NAN; MARGIN * columns];
                let all = [&margin, numbers, &margin].concat();
                let all = matrix(all, [rows + 2 * MARGIN, columns]);
                all.slice([MARGIN..MARGIN + rows, 0..columns])
            }
        };
        matrix.into_dispatch()
    }

    fn matrix(tensor: &DispatchTensor) -> Vec<f32> {
        Tensor::<2>::from_dispatch(tensor.clone()).into_data().try_into_vec().unwrap()
    }

    prop_compose! {
        /// A shape, the numbers and layouts of live and of some averages, whether each of these is
        /// shared, and its share of the way.
        fn work()(
            shape in (0usize..10, prop_oneof![1usize..10, Just(4), Just(300)])
                .prop_map(|(rows, columns)| [rows, columns]),
            averages in prop::collection::vec(
                (layout(), any::<bool>(), prop_oneof![Just(1.0), 1e-4f64..1.0]), 1..4,
            ),
            live in layout(),
            seed in any::<u32>(),
        ) -> ([usize; 2], Layout, Vec<(Layout, bool, f64)>, u32) {
            (shape, live, averages, seed)
        }
    }

    fn layout() -> impl Strategy<Value = Layout> {
        prop::sample::select(vec![Layout::Rows, Layout::Columns, Layout::Middle])
    }

    /// Numbers between -4 and 4.
    fn scattered(count: usize, seed: u32) -> Vec<f32> {
        let number = |i: u32| (i.wrapping_add(seed).wrapping_mul(2_654_435_761) >> 8) as f32;
        (0..count as u32).map(|i| number(i) / (1 << 21) as f32 - 4.0).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        /// Every layout and size, to within one rounding of the larger number: a shader may
        /// contract.
        #[test]
        fn the_kernel_computes_the_expression(works in prop::collection::vec(work(), 1..20)) {
            let mut tensors: Vec<_> = works.iter().map(|(shape, live, averages, seed)| {
                let count = shape[0] * shape[1];
                let averages = averages.iter().zip(1..).map(|(&(layout, _, alpha), i)| {
                    (laid_out(layout, *shape, &scattered(count, seed.wrapping_add(i))), alpha)
                });
                (laid_out(*live, *shape, &scattered(count, *seed)), averages.collect::<Vec<_>>())
            }).collect();
            let shared: Vec<Vec<_>> = tensors.iter().zip(&works).map(|((_, tensors), work)| {
                let pairs = tensors.iter().zip(&work.2);
                pairs.map(|((tensor, _), (_, shared, _))| shared.then(|| tensor.clone())).collect()
            }).collect();
            move_all(&mut tensors);
            for (((live, averages), shared), (shape, _, _, seed)) in
                tensors.iter().zip(&shared).zip(&works)
            {
                let count = shape[0] * shape[1];
                let w = scattered(count, *seed);
                prop_assert_eq!(&matrix(live), &w);
                for (((average, alpha), shared), i) in averages.iter().zip(shared).zip(1..) {
                    let a = scattered(count, seed.wrapping_add(i));
                    if let Some(shared) = shared {
                        prop_assert_eq!(&matrix(shared), &a, "what was shared stays");
                    }
                    for ((found, &a), &w) in matrix(average).into_iter().zip(&a).zip(&w) {
                        let expected = expected(a, w, f64::from(*alpha as f32));
                        let ulp = f32::EPSILON * a.abs().max(w.abs());
                        prop_assert!((found - expected).abs() <= ulp, "{} {}", found, expected);
                    }
                }
            }
        }
    }

    #[test]
    fn views_of_the_middle_have_an_offset() {
        let middle = laid_out(Layout::Middle, [3, 5], &scattered(15, 1));
        assert!(tensor(&middle).unwrap().handle.offset_start.is_some());
    }

    /// Nothing after the numbers of a tensor, nor between those of a view, is looked at or lost.
    #[test]
    fn what_lies_beside_the_numbers_is_left_alone() {
        for (numbers, kept) in [(4, 4), (5, 3)] {
            let (live, average) = (row(&[3.0; 8]), row(&[1.0; 8]));
            let [live_numbers, average_numbers] =
                [&live, &average].map(|row| tensor(row).unwrap().clone());
            let averages = vec![(average_numbers, 1.0)];
            launch(vec![Reading { live: live_numbers, numbers, averages, bound: None }], None);
            let found = self::numbers(&average);
            assert_eq!(found, [vec![3.0; numbers], vec![1.0; kept]].concat());
        }
        let columns = |numbers: [f32; 3]| {
            let rows = numbers.repeat(2).into_iter().flat_map(|x| [x; MARGIN]).collect();
            let rows = TensorData::new::<f32, _>(rows, [2, 3 * MARGIN]);
            Tensor::<2>::from_data(rows, &device()).slice([0..2, MARGIN..2 * MARGIN])
        };
        let live = columns([f32::NAN, 3.0, f32::NAN]).into_dispatch();
        assert!(tensor(&live).unwrap().meta.strides()[0] == 3 * MARGIN, "with gaps");
        assert_eq!(within(&[(&live, 3.0)]).unwrap().unwrap(), [true]);
        for average in [columns([0.0, 1.0, 0.0]), Tensor::ones([2, MARGIN], &device())] {
            let mut work = [(live.clone(), vec![(average.into_dispatch(), 0.5)])];
            move_all(&mut work);
            assert!(matrix(&work[0].1[0].0).into_iter().all(|x| x == 2.0));
        }
    }

    #[test]
    fn a_launch_takes_as_many_tensors_as_the_device_binds() {
        let a_launch = most_bindings() / 2;
        for count in [1, a_launch, a_launch + 1, 2000] {
            let mut work: Vec<_> = (0..count)
                .map(|i| {
                    let size = 1 + i % 9;
                    (row(&vec![3.0; size]), vec![(row(&vec![1.0; size]), 0.5)])
                })
                .collect();
            let before: Vec<_> = work.iter().map(|(_, averages)| storage(&averages[0].0)).collect();
            assert_eq!(move_all(&mut work), count.div_ceil(a_launch), "{count} tensors");
            for ((_, averages), before) in work.iter().zip(before) {
                assert_eq!(storage(&averages[0].0), before, "in place");
                assert!(numbers(&averages[0].0).iter().all(|&x| x == 2.0));
            }
        }
    }

    #[test]
    fn more_averages_of_one_tensor_than_a_launch_binds_are_moved() {
        let count = most_bindings() + 3;
        let averages = (0..count).map(|i| (row(&[i as f32; 5]), 0.5)).collect();
        let mut work = [(row(&[1.0; 5]), averages)];
        assert_eq!(move_all(&mut work), 2);
        for (i, (average, _)) in work[0].1.iter().enumerate() {
            assert_eq!(numbers(average), [(i as f32 + 1.0) / 2.0; 5]);
        }
    }

    /// What is shared is copied first, by as many launches again, unless nothing of it is left.
    #[test]
    fn a_shared_average_gets_storage_of_its_own_once() {
        let count = most_bindings() + 1;
        let launch = count.div_ceil(most_bindings() / 2);
        let work = |alpha| (0..count).map(move |_| (row(&[3.0; 6]), vec![(row(&[1.0; 6]), alpha)]));
        for (alpha, first) in [(0.5, 2 * launch), (1.0, launch)] {
            let mut work: Vec<_> = work(alpha).collect();
            let shared: Vec<_> = work.iter().map(|(_, averages)| averages[0].0.clone()).collect();
            assert_eq!(move_all(&mut work), first);
            assert_eq!(move_all(&mut work), launch);
            assert!(shared.iter().all(|shared| numbers(shared) == [1.0; 6]));
            let expected = if alpha == 1.0 { 3.0 } else { 2.5 };
            assert!(work.iter().all(|(_, averages)| numbers(&averages[0].0) == [expected; 6]));
        }
    }

    /// The averages of one tensor are moved where it is read.
    #[test]
    fn averages_of_one_tensor_share_a_launch() {
        let averages = vec![(row(&[1.0; 8]), 0.5), (row(&[5.0; 8]), 0.25)];
        let mut work = [(row(&[9.0; 8]), averages)];
        assert_eq!(move_all(&mut work), 1);
        assert_eq!(numbers(&work[0].1[0].0), [5.0; 8]);
        assert_eq!(numbers(&work[0].1[1].0), [6.0; 8]);
    }

    #[test]
    fn a_share_of_one_copies_every_bit() {
        let bits =
            [0x8000_0000, 0x7fc0_1234, 0xff80_0000, 1, 0x8000_0001, 0x0040_0000, 0x3f80_0001];
        let live = bits.map(f32::from_bits);
        for average in [row(&[f32::NAN; 7]), row(&[1.0; 7])] {
            let mut work = [(row(&live), vec![(average, 1.0)])];
            move_all(&mut work);
            assert_eq!(
                numbers(&work[0].1[0].0).iter().map(|x| x.to_bits()).collect::<Vec<_>>(),
                bits
            );
        }
    }

    /// A device without numbers of 16 bits leaves them to the portable path.
    #[test]
    fn half_precision_is_widened_on_the_way() {
        for dtype in [DType::F16, DType::BF16] {
            let live = |numbers: [f32; 3]| {
                Tensor::<1>::from_data(numbers, (&device(), dtype)).into_dispatch()
            };
            let (mut average, exact) = (row(&[0.0, 1.0, 1.0]), live([0.5, -2.0, 1.5]));
            let known = element(tensor(&exact).unwrap()).is_some();
            let work = Towards {
                average: &mut average,
                live: Borrowed::Tensor(&exact),
                alpha: 0.5,
                most: f64::INFINITY,
            };
            assert_eq!(lerp_all(vec![work]).is_empty(), known, "{dtype:?}");
            if known {
                assert_eq!(numbers(&average), [0.25, -0.5, 1.25]);
            }
            let endless = live([1.0, f32::NEG_INFINITY, 1.0]);
            let found = within(&[(&exact, 2.0), (&exact, 1.9), (&endless, f64::INFINITY)]);
            assert_eq!(found.map(Result::unwrap), known.then(|| vec![true, false, false]));
        }
    }

    #[test]
    fn one_look_takes_as_many_tensors_as_the_device_binds() {
        let count = 3 * most_bindings();
        let tensors: Vec<_> = (0..count)
            .map(|i| {
                let mut numbers = vec![-2.0; i % 9];
                if let (Some(last), 0) = (numbers.last_mut(), i % 5) {
                    *last = if i % 2 == 0 { f32::NAN } else { 2.5 };
                }
                (row(&numbers), i % 9 == 0 || i % 5 != 0)
            })
            .collect();
        let before = launches();
        let bounded: Vec<_> = tensors.iter().map(|(tensor, _)| (tensor, 2.0)).collect();
        let found = within(&bounded).unwrap().unwrap();
        let filled = (0..count).filter(|i| i % 9 != 0).count();
        assert_eq!(launches() - before, filled.div_ceil(most_bindings() - 1));
        assert_eq!(found, tensors.iter().map(|(_, within)| *within).collect::<Vec<_>>());
    }

    #[test]
    fn groups_are_full() {
        let sizes = |most| groups([3, 3, 2, 5, 1, 9, 1], |size| *size, most);
        assert_eq!(sizes(8), [vec![3, 3, 2], vec![5, 1], vec![9], vec![1]]);
        assert_eq!(sizes(100).len(), 1);
    }
}
