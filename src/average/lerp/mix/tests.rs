use half::{bf16, f16};
use proptest::prelude::*;

use super::*;

/// A pair with the numbers of live in a dtype, and a bound on them.
fn pair<'a>(average: &'a mut [f32], live: Numbers<'a>, alpha: f32, most: f64) -> Pair<'a> {
    Pair::new(NumbersMut::F32(average), live, f64::from(alpha), most).unwrap()
}

fn bits(numbers: &[f32]) -> Vec<u32> {
    numbers.iter().map(|number| number.to_bits()).collect()
}

/// Numbers of many magnitudes, some of them alike.
fn number() -> impl Strategy<Value = f32> {
    prop_oneof![
        4 => -1f32..1.0,
        1 => (-40i32..30, -2f32..2.0).prop_map(|(e, m)| m * (e as f32).exp2()),
        1 => prop::sample::select(vec![0.0f32, -0.0, 1.0, f32::MIN_POSITIVE, 1e-45, -1e-45]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    /// A pass that is taken back leaves every bit as it was, and one that is not moves every
    /// number as the plain one does.
    #[test]
    fn a_pass_is_whole_or_not_made(
        rows in prop::collection::vec((number(), number()), 1..200),
        alpha in prop_oneof![Just(MOST_UNDONE as f32), 1e-7f32..MOST_UNDONE as f32],
        bad in prop::option::of((
            prop::sample::select(vec![f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e30]),
            any::<prop::sample::Index>(),
        )),
    ) {
        let (before, mut live): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
        if let Some((bad, place)) = &bad {
            let place = place.index(live.len());
            live[place] = *bad;
        }
        let mut found = before.clone();
        let passed =
            mix_within(vec![pair(&mut found, Numbers::F32(&live), alpha, 1e29)]);
        let mut expected = before.clone();
        match bad {
            None => mix(vec![pair(&mut expected, Numbers::F32(&live), alpha, 0.0)]),
            Some(_) => prop_assert_eq!(passed, Passed::Refused),
        }
        // Too much to note is no error; it is as if nothing was tried.
        if passed == Passed::Unfit {
            expected = before;
        }
        prop_assert_eq!(bits(&found), bits(&expected), "{:?}", passed);
    }
}

/// Numbers around zero that differ from each other.
fn around(count: usize, step: f32) -> Vec<f32> {
    (0..count).map(|i| ((i * 7919 % 1009) as f32 - 504.0) * step).collect()
}

#[test]
fn large_tensors_are_moved_and_taken_back_over_threads() {
    for count in [THREADED, THREADED + PIECE / 2 + 7, 3 * THREADED - 1] {
        let live = around(count, 1e-3);
        let before: Vec<_> = live.iter().map(|x| x * 1.01 + 1e-5).collect();
        let mut plain = before.clone();
        mix(vec![pair(&mut plain, Numbers::F32(&live), 1e-3, 0.0)]);
        let row = plain.iter().zip(&before).zip(&live).step_by(97);
        row.for_each(|((found, a), w)| assert_eq!(*found, a + 1e-3 * (w - a)));

        let mut found = before.clone();
        let passed = mix_within(vec![pair(&mut found, Numbers::F32(&live), 1e-3, 1.0)]);
        assert_eq!(passed, Passed::Whole);
        assert_eq!(bits(&found), bits(&plain));

        // What was moved goes back, and what was not stays.
        for place in [0, count / 2, count - 1] {
            let (mut broken, mut found) = (live.clone(), before.clone());
            broken[place] = f32::NAN;
            let passed = mix_within(vec![pair(&mut found, Numbers::F32(&broken), 1e-3, 1.0)]);
            assert_eq!(passed, Passed::Refused);
            assert_eq!(bits(&found), bits(&before));
        }
    }
}

#[test]
fn what_would_have_to_be_noted_whole_is_left_alone() {
    // From zero nothing comes back: all bits of live are new.
    let live = around(40 * LANES, 1e-3);
    let mut average = vec![0.0; live.len()];
    let passed = mix_within(vec![pair(&mut average, Numbers::F32(&live), 1e-3, 1.0)]);
    assert_eq!(passed, Passed::Unfit);
    assert_eq!(bits(&average), vec![0; live.len()]);
}

#[test]
fn several_averages_of_one_live_tensor_are_each_moved() {
    let live = around(3 * PIECE + 5, 1e-3);
    let start: Vec<_> = live.iter().map(|x| x + 0.25).collect();
    let mut averages = [start.clone(), start.clone(), start];
    let pairs = averages.iter_mut().map(|a| pair(a, Numbers::F32(&live), 0.5, 0.0));
    let pieces = cut(pairs.collect());
    let together = |pieces: &[Pair]| pieces.iter().all(|p| p.address() == pieces[0].address());
    assert_eq!(pieces.len(), 12);
    assert!(pieces.chunks(3).all(together));
    drop(pieces);
    let shares = [0.5, 1.0, 0.125];
    let pairs = averages.iter_mut().zip(shares);
    mix(pairs.map(|(a, alpha)| pair(a, Numbers::F32(&live), alpha, 0.0)).collect());
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
        (Numbers::F16(&half), half.iter().map(|x| x.to_f32()).collect::<Vec<_>>()),
        (Numbers::Bf16(&brain), brain.iter().map(|x| x.to_f32()).collect()),
    ] {
        let mut average = vec![0.5; wide.len()];
        mix(vec![pair(&mut average, live, 0.25, 0.0)]);
        for (found, w) in average.iter().zip(&exact) {
            assert_eq!(*found, 0.5 + 0.25 * (w - 0.5));
        }
        // A pass over them is taken back too.
        let (before, most) = (around(wide.len(), 2e-3), f64::from(exact[0].abs()) * 0.999);
        let mut average = before.clone();
        assert_eq!(mix_within(vec![pair(&mut average, live, 1e-3, most)]), Passed::Refused);
        assert_eq!(bits(&average), bits(&before));
        let largest = f64::from(exact.iter().fold(0f32, |most, x| most.max(x.abs())));
        assert_eq!(within(&[(live, largest), (live, largest * 0.999)]), [true, false]);
    }
}

#[test]
fn pairs_of_other_dtypes_are_not_for_this_path() {
    let mut average = [1.0f32];
    let pair = Pair::new(NumbersMut::F32(&mut average), Numbers::F64(&[1.0]), 0.5, 1.0);
    assert!(pair.is_none());
}

#[test]
fn a_bound_is_looked_at_in_every_piece() {
    for count in [1, LANES + 1, PIECE + 1, 2 * THREADED + 3] {
        let mut numbers = vec![1f32; count];
        for place in [0, count / 2, count - 1] {
            assert_eq!(within(&[(Numbers::F32(&numbers), 1.0)]), [true]);
            numbers[place] = 1.5;
            let bounded = [(Numbers::F32(&numbers), 1.0), (Numbers::F32(&numbers), 1.5)];
            assert_eq!(within(&bounded), [false, true]);
            numbers[place] = f32::NAN;
            let bounded = [(Numbers::F32(&numbers), f64::INFINITY)];
            assert_eq!(within(&bounded), [false]);
            numbers[place] = 1.0;
        }
    }
}
