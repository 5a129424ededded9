use proptest::prelude::*;

use super::{super::tests::devices, *};

/// For each tensor, true if all its numbers are finite.
fn flags(tensors: &[DispatchTensor]) -> Vec<bool> {
    within(tensors.iter().map(|tensor| (tensor, f64::MAX))).unwrap()
}

#[test]
fn magnitudes_above_the_bound_are_found() {
    for device in devices() {
        let row = Tensor::<1>::from_data([3.0f32, -4.0], &device).into_dispatch();
        let empty = Tensor::<1>::zeros([0], &device).into_dispatch();
        for (most, expected) in [(4.0, true), (3.9, false), (f64::INFINITY, true)] {
            let found = within([(&row, most), (&empty, most)].into_iter()).unwrap();
            assert_eq!(found, [expected, true], "{device:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    /// A bad number is found wherever it lies, and nowhere else.
    #[test]
    fn a_bad_number_is_found_in_its_tensor(
        sizes in prop::collection::vec(0usize..70, 1..5), tensor: prop::sample::Index,
        place: prop::sample::Index,
        bad in prop::sample::select(vec![f32::NAN, f32::INFINITY, f32::NEG_INFINITY]),
    ) {
        for device in devices() {
            let mut numbers: Vec<Vec<f32>> =
                sizes.iter().map(|&size| vec![f32::MAX; size]).collect();
            let at = tensor.index(sizes.len());
            if !numbers[at].is_empty() {
                let place = place.index(numbers[at].len());
                numbers[at][place] = bad;
            }
            let tensors: Vec<_> = numbers.iter().map(|row| {
                Tensor::<1>::from_data(row.as_slice(), &device).into_dispatch()
            }).collect();
            let found = flags(&tensors);
            let expected: Vec<_> =
                numbers.iter().map(|row| row.iter().all(|x| x.is_finite())).collect();
            prop_assert_eq!(found, expected, "{:?}", device);
        }
    }
}

#[test]
fn views_and_other_widths_are_looked_at_whole() {
    for device in devices() {
        let rows = Tensor::<2>::from_data([[1.0f32, f32::NAN], [3.0, 4.0]], &device);
        let column = |index| rows.clone().slice([0..2, index..index + 1]).into_dispatch();
        let transposed = rows.clone().transpose().into_dispatch();
        let [first, second] = [column(0), column(1)];
        let found = flags(&[first, second, transposed]);
        assert_eq!(found, [true, false, false], "{device:?}");
    }
    let flex = burn::tensor::Device::flex();
    let wide = |x: f64| Tensor::<1>::from_data([x, 1.0], (&flex, DType::F64)).into_dispatch();
    let half = |x: f32| Tensor::<1>::from_data([x, 1.0], (&flex, DType::F16)).into_dispatch();
    // The last number is finite, but no f32 and no sum of f16.
    let tensors = [wide(1e300), wide(f64::NAN), half(6e4), half(f32::INFINITY)];
    let found = flags(&tensors);
    assert_eq!(found, [true, false, true, false]);
}

#[test]
fn distances_add_up_over_tensors() {
    for device in devices() {
        let tensor = |row: &[f32]| Tensor::<1>::from_data(row, &device).into_dispatch();
        let pairs = [(tensor(&[1.0, 2.0]), tensor(&[4.0, 2.0])), (tensor(&[2.0]), tensor(&[6.0]))];
        assert_eq!(squared_distance(pairs.into_iter()).unwrap(), (25.0, 9.0), "{device:?}");
    }
}
