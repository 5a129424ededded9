//! One column's way to values around 0 and back; which columns have one is decided elsewhere.

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
    /// The deviation is that of all values, divided by their number.
    /// Where it is 0 the divisor is 1, so that a constant column becomes 0 instead of undefined.
    pub fn standard(values: &[f64]) -> Self {
        let Some(&first) = values.first() else { return Self { offset: 0.0, divisor: 1.0 } };
        // A rounded mean of equal values can differ from them, and would then give them a
        // deviation that is nothing but the rounding.
        if values.iter().all(|&value| value == first) {
            return Self { offset: first, divisor: 1.0 };
        }
        let mean = |values: &mut dyn Iterator<Item = f64>, count: usize| {
            values.sum::<f64>() / count as f64
        };
        let offset = mean(&mut values.iter().copied(), values.len());
        let variance = mean(&mut values.iter().map(|x| (x - offset).powi(2)), values.len());
        let deviation = variance.sqrt();
        Self { offset, divisor: if deviation > 0.0 { deviation } else { 1.0 } }
    }

    /// From the column's own unit to values around 0.
    pub fn apply(&self, value: f64) -> f64 {
        (value - self.offset) / self.divisor
    }

    /// From values around 0 to the column's own unit.
    pub fn undo(&self, value: f64) -> f64 {
        value * self.divisor + self.offset
    }
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
