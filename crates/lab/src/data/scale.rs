//! The scale of a column, to values around 0 and back; other modules decide which columns have one.

use serde::{Deserialize, Serialize};

/// Turns a value `x` into `(x - offset) / divisor`, and back.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scale {
    /// The value that becomes 0, in the column's own unit; finite.
    pub offset: f64,
    /// The distance from the offset that becomes 1, in the column's own unit; finite, above 0.
    pub divisor: f64,
}

impl Scale {
    /// The scale after which these values have mean 0 and standard deviation 1.
    ///
    /// The variance is the sum of squares divided by the number of values.
    /// Where the values differ by no more than rounding the divisor is 1, so that a constant column
    /// becomes 0 and not noise or NaN. Without values, the offset is 0 and the divisor 1.
    pub fn standard(values: &[f64]) -> Self {
        let Some(&first) = values.first() else { return Self { offset: 0.0, divisor: 1.0 } };
        // The rounded mean of equal values can differ from the values, so that their deviation
        // would be rounding alone. The same holds for equal values that were rounded differently.
        if within_rounding(values) {
            return Self { offset: first, divisor: 1.0 };
        }
        let mean = |values: &mut dyn Iterator<Item = f64>, count: usize| {
            values.sum::<f64>() / count as f64
        };
        let mean_from = |offset: f64| {
            offset + mean(&mut values.iter().map(|value| value - offset), values.len())
        };
        // The mean is computed again with the first mean as offset, since the sum of many large
        // values loses small differences.
        let offset = mean_from(mean_from(0.0));
        let variance = mean(&mut values.iter().map(|x| (x - offset).powi(2)), values.len());
        let deviation = variance.sqrt();
        Self { offset, divisor: if deviation > 0.0 { deviation } else { 1.0 } }
    }

    /// A value in the column's own unit as a value around 0.
    pub fn apply(&self, value: f64) -> f64 {
        (value - self.offset) / self.divisor
    }

    /// A value around 0 as a value in the column's own unit.
    pub fn undo(&self, value: f64) -> f64 {
        value * self.divisor + self.offset
    }
}

/// True if values differ, in relation to their size, by no more than the rounding of a few
/// operations.
///
/// For whole numbers that an `f64` holds without rounding, true only if all are equal.
pub(super) fn within_rounding(values: &[f64]) -> bool {
    /// The largest difference that counts as rounding, in units of `f64::EPSILON` and in relation
    /// to the values' size; enough for the rounding of a few operations.
    const ROUNDINGS: f64 = 16.0;
    /// An `f64` holds all whole numbers up to this one, 2^53, without rounding.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let (least, most) = range(values);
    let is_exact = |value: &f64| value.fract() == 0.0 && value.abs() < EXACT;
    let roundings = if values.iter().all(is_exact) { 0.0 } else { ROUNDINGS };
    most - least <= roundings * f64::EPSILON * least.abs().max(most.abs())
}

/// The least and the largest of values that differ, in relation to their size, by so little that
/// they may be either equal numbers which an `f32` has rounded, or different numbers. `None` for
/// values that differ by more, that [`within_rounding`] takes as equal, or of which there are none.
pub(super) fn narrow_range(values: &[f64]) -> Option<(f64, f64)> {
    /// Some roundings of an `f32`, in relation to a number's size.
    const NARROW: f64 = 1e-6;
    values.first()?;
    let (least, most) = range(values);
    let is_narrow = most - least < NARROW * least.abs().max(most.abs());
    (is_narrow && !within_rounding(values)).then_some((least, most))
}

/// The least and the largest of values; infinity and minus infinity if there are none.
fn range(values: &[f64]) -> (f64, f64) {
    let fold = |start, pick: fn(f64, f64) -> f64| values.iter().copied().fold(start, pick);
    (fold(f64::INFINITY, f64::min), fold(f64::NEG_INFINITY, f64::max))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn mean_and_deviation_of_known_values() {
        let scale = Scale::standard(&[2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]);
        assert_eq!(scale, Scale { offset: 5.0, divisor: 2.0 });
        assert_eq!((scale.apply(9.0), scale.undo(2.0)), (2.0, 9.0));
    }

    #[test]
    fn a_constant_column_becomes_0() {
        // The sum of ten times 0.1 is not 1 in floating point.
        for (value, count) in [(0.1, 10), (1e-300, 7), (-3e38, 9), (0.0, 3)] {
            let scale = Scale::standard(&vec![value; count]);
            assert_eq!(scale, Scale { offset: value, divisor: 1.0 });
            assert_eq!(scale.apply(value), 0.0);
        }
        // Different values whose deviation is too small for a float count as constant.
        assert_eq!(Scale::standard(&[1e-300, 2e-300]).divisor, 1.0);
        assert_eq!(Scale::standard(&[]), Scale { offset: 0.0, divisor: 1.0 });
    }

    #[test]
    fn rounding_is_no_deviation() {
        let alternating = |a, b| [a, b].repeat(50);
        for (a, b, other, expected) in [
            (0.3, 0.1 + 0.2, 0.31, 0.01),
            (0.6, 0.1 + 0.2 + 0.3, -0.4, -1.0),
            (1e20, 1e20 + 16384.0, 1e20 + 1e18, 1e18),
            (-7e-12, -7e-12 * (1.0 + 4.0 * f64::EPSILON), 1.0, 1.0),
        ] {
            assert_ne!(a, b);
            let scale = Scale::standard(&alternating(a, b));
            assert_eq!(scale, Scale { offset: a, divisor: 1.0 });
            assert!((scale.apply(other) / expected - 1.0).abs() < 1e-10, "{other}");
        }
    }

    #[test]
    fn small_steps_that_are_no_rounding_stay() {
        for (offset, step) in
            [(0.0, 1e-20), (1e-18, 1e-20), (1.0, 1e-12), (1.7e9, 1e-3), (2e15, 1.0), (1e20, 1e8)]
        {
            // So many that their sum is not exact.
            let values: Vec<_> = (0..5).map(|i| offset + f64::from(i) * step).collect();
            let scale = Scale::standard(&values.repeat(2000));
            let error = scale.divisor / (step * 2f64.sqrt()) - 1.0;
            assert!(error.abs() < 1e-2, "{offset} {step} {scale:?}");
            assert!(scale.apply(values[2]).abs() < 0.1, "{offset} {step} {scale:?}");
        }
    }

    #[test]
    fn a_range_that_may_be_rounding_is_known() {
        let single = f64::from(0.3f32);
        assert_eq!(narrow_range(&[0.3, single, 0.3]), Some((0.3, single)));
        assert_eq!(narrow_range(&[-1e9, -1e9 - 64.0]), Some((-1e9 - 64.0, -1e9)));
        // Steps that can be seen, equal numbers, their rounding, nothing.
        for values in
            [&[1.0, 1.0 + 1e-5][..], &[0.0, 1e-20], &[0.3, 0.3], &[0.3, 0.1 + 0.2], &[0.5], &[]]
        {
            assert_eq!(narrow_range(values), None, "{values:?}");
        }
    }

    proptest! {
        #[test]
        fn scaled_values_have_mean_0_and_deviation_1(
            values in prop::collection::vec(-1e6..1e6, 2..50)
        ) {
            let scale = Scale::standard(&values);
            let again: Vec<_> = values.iter().map(|&value| scale.apply(value)).collect();
            let Scale { offset, divisor } = Scale::standard(&again);
            prop_assert!(offset.abs() < 1e-6, "mean {}", offset);
            prop_assert!((divisor - 1.0).abs() < 1e-6, "deviation {}", divisor);
            for (value, scaled) in values.iter().zip(again) {
                prop_assert!((scale.undo(scaled) - value).abs() < 1e-6);
            }
        }
    }
}
