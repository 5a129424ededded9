use half::{bf16, f16};

use super::*;

/// A pair with the numbers of live in a dtype.
fn pair<'a>(average: &'a mut [f32], live: Slice<'a>, alpha: f32) -> Pair<'a> {
    Pair::new(SliceMut::F32(average), live, f64::from(alpha)).unwrap()
}

/// Numbers around zero that differ from each other.
fn around(count: usize, step: f32) -> Vec<f32> {
    (0..count).map(|i| ((i * 7919 % 1009) as f32 - 504.0) * step).collect()
}

#[test]
fn large_tensors_are_moved_over_threads() {
    for count in [THREADED, THREADED + PIECE / 2 + 7, 3 * THREADED - 1] {
        let live = around(count, 1e-3);
        let before: Vec<_> = live.iter().map(|x| x * 1.01 + 1e-5).collect();
        let mut found = before.clone();
        mix(vec![pair(&mut found, Slice::F32(&live), 1e-3)]);
        let row = found.iter().zip(&before).zip(&live);
        row.for_each(|((found, a), w)| assert_eq!(*found, a + 1e-3 * (w - a)));
    }
}

#[test]
fn several_averages_of_one_live_tensor_are_each_moved() {
    let live = around(3 * PIECE + 5, 1e-3);
    let start: Vec<_> = live.iter().map(|x| x + 0.25).collect();
    let mut averages = [start.clone(), start.clone(), start];
    let pairs = averages.iter_mut().map(|a| pair(a, Slice::F32(&live), 0.5));
    let pieces = cut(pairs.collect());
    let together = |pieces: &[Pair]| pieces.iter().all(|p| p.address() == pieces[0].address());
    assert_eq!(pieces.len(), 12);
    assert!(pieces.chunks(3).all(together));
    drop(pieces);
    let shares = [0.5, 1.0, 0.125];
    let pairs = averages.iter_mut().zip(shares);
    mix(pairs.map(|(a, alpha)| pair(a, Slice::F32(&live), alpha)).collect());
    for (average, alpha) in averages.iter().zip(shares) {
        for (found, w) in average.iter().zip(&live) {
            let a = w + 0.25;
            let expected = if alpha == 1.0 { *w } else { a + alpha * (w - a) };
            assert_eq!(*found, expected);
        }
    }
}

#[test]
fn numbers_of_16_bits_are_widened() {
    let wide = around(2 * WIDENED + 3, 1e-3);
    let (half, brain): (Vec<_>, Vec<_>) =
        wide.iter().map(|&x| (f16::from_f32(x), bf16::from_f32(x))).unzip();
    for (live, exact) in [
        (Slice::F16(&half), half.iter().map(|x| x.to_f32()).collect::<Vec<_>>()),
        (Slice::Bf16(&brain), brain.iter().map(|x| x.to_f32()).collect()),
    ] {
        let mut average = vec![0.5; wide.len()];
        mix(vec![pair(&mut average, live, 0.25)]);
        for (found, w) in average.iter().zip(&exact) {
            assert_eq!(*found, 0.5 + 0.25 * (w - 0.5));
        }
        let largest = f64::from(exact.iter().fold(0f32, |most, x| most.max(x.abs())));
        assert_eq!(within(&[(live, largest), (live, largest * 0.999)]), [true, false]);
    }
}

#[test]
fn pairs_of_other_dtypes_are_not_for_this_path() {
    let mut average = [1.0f32];
    let pair = Pair::new(SliceMut::F32(&mut average), Slice::F64(&[1.0]), 0.5);
    assert!(pair.is_none());
}

#[test]
fn a_bound_is_looked_at_in_every_piece() {
    for count in [1, 17, PIECE + 1, 2 * THREADED + 3] {
        let mut numbers = vec![1f32; count];
        for place in [0, count / 2, count - 1] {
            assert_eq!(within(&[(Slice::F32(&numbers), 1.0)]), [true]);
            numbers[place] = 1.5;
            let bounded = [(Slice::F32(&numbers), 1.0), (Slice::F32(&numbers), 1.5)];
            assert_eq!(within(&bounded), [false, true]);
            numbers[place] = f32::NAN;
            let bounded = [(Slice::F32(&numbers), f64::INFINITY)];
            assert_eq!(within(&bounded), [false]);
            numbers[place] = 1.0;
        }
    }
}
