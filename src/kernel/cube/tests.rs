use burn::tensor::{Device, Tensor, TensorData};
use proptest::prelude::*;

use super::{
    super::{Borrowed, tests::expected},
    kernel::launches,
    *,
};

/// For each tensor, true if it holds finite numbers of magnitudes up to its bound.
fn within(tensors: &[(&DispatchTensor, f64)]) -> Option<Result<Vec<bool>>> {
    let check = start_check(tensors)?;
    Some(PendingCheck::read(vec![check]).map(|mut results| results.swap_remove(0)))
}

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
    most.min(MAX_BINDINGS)
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
            Towards { average, live, alpha }
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

/// A shared average is copied first, by as many launches again, unless a share of 1 overwrites it.
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
    let bits = [0x8000_0000, 0x7fc0_1234, 0xff80_0000, 1, 0x8000_0001, 0x0040_0000, 0x3f80_0001];
    let live = bits.map(f32::from_bits);
    for average in [row(&[f32::NAN; 7]), row(&[1.0; 7])] {
        let mut work = [(row(&live), vec![(average, 1.0)])];
        move_all(&mut work);
        assert_eq!(numbers(&work[0].1[0].0).iter().map(|x| x.to_bits()).collect::<Vec<_>>(), bits);
    }
}

/// A device without numbers of 16 bits leaves them to the portable path.
#[test]
fn half_precision_is_widened_on_the_way() {
    for dtype in [DType::F16, DType::BF16] {
        let live =
            |numbers: [f32; 3]| Tensor::<1>::from_data(numbers, (&device(), dtype)).into_dispatch();
        let (mut average, exact) = (row(&[0.0, 1.0, 1.0]), live([0.5, -2.0, 1.5]));
        let known = element(tensor(&exact).unwrap()).is_some();
        let work = Towards { average: &mut average, live: Borrowed::Tensor(&exact), alpha: 0.5 };
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
