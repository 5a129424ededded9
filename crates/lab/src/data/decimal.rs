//! Decimal numbers as they are written, compared without rounding.

use std::cmp::Ordering;

/// A decimal number: `0.` followed by the digits, times ten to the exponent.
///
/// Equal numbers are equal however they are written: `12`, `0012`, `12.0` and `1.2e1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Decimal {
    negative: bool,
    /// The digits from the first to the last that is not 0; empty for zero.
    digits: String,
    exponent: i64,
}

impl Decimal {
    /// Parses digits with an optional sign, point and exponent. `None` for any other text, and for
    /// an exponent of 2^32 or more in size.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (mantissa, power) = match text.split_once(['e', 'E']) {
            // Larger powers of ten are beyond `f64`; without them no sum below overflows.
            Some((mantissa, power)) => (
                mantissa,
                power.parse::<i64>().ok().filter(|power| power.unsigned_abs() < 1 << 32)?,
            ),
            None => (text, 0),
        };
        let unsigned = mantissa.strip_prefix(['-', '+']).unwrap_or(mantissa);
        let (whole, part) = unsigned.split_once('.').unwrap_or((unsigned, ""));
        let all = format!("{whole}{part}");
        if all.is_empty() || !all.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let digits = all.trim_start_matches('0');
        let leading = (all.len() - digits.len()) as i64;
        let digits = digits.trim_end_matches('0').to_owned();
        if digits.is_empty() {
            return Some(Self { negative: false, digits, exponent: 0 });
        }
        let exponent = whole.len() as i64 - leading + power;
        Some(Self { negative: mantissa.starts_with('-'), digits, exponent })
    }

    /// True if no digit but 0 is after the point.
    pub(super) fn is_whole(&self) -> bool {
        self.digits.len() as i64 <= self.exponent.max(0)
    }
}

impl Ord for Decimal {
    fn cmp(&self, other: &Self) -> Ordering {
        // By sign, then by exponent, then by digits.
        let sign = |number: &Self| match (number.digits.is_empty(), number.negative) {
            (true, _) => 0,
            (_, true) => -1,
            (_, false) => 1,
        };
        let size = |number: &Self| (number.exponent, number.digits.clone());
        sign(self).cmp(&sign(other)).then_with(|| {
            let by_size = size(self).cmp(&size(other));
            if self.negative { by_size.reverse() } else { by_size }
        })
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn number(text: &str) -> Decimal {
        Decimal::parse(text).unwrap()
    }

    #[test]
    fn equal_numbers_are_equal_however_they_are_written() {
        for same in [
            &["12", "0012", "12.0", "1.2e1", "+12", "120e-1", "12."][..],
            &["0", "-0", "0.00", "0e9", ".0"],
            &["0.5", ".5", "5e-1", "0.50"],
            &["-1000", "-1e3", "-1.0E+3"],
        ] {
            assert!(same.iter().all(|text| number(text) == number(same[0])), "{same:?}");
        }
    }

    #[test]
    fn what_a_float_rounds_away_is_compared() {
        let rising = [
            "-9007199254740993",
            "-9007199254740992",
            "-0.30000000000000004",
            "-0.3",
            "0",
            "1e-400",
            "0.1",
            "0.10000000000000000001",
            "2",
            "10",
            "9007199254740992",
            "9007199254740993",
            "9007199254740994",
            "100000000000000000000000000000000000000000001",
            "1e45",
        ];
        assert!(rising.windows(2).all(|pair| number(pair[0]) < number(pair[1])));
    }

    #[test]
    fn whole_numbers_are_known() {
        for whole in ["0", "-3", "10", "1e3", "1.50e1", "9007199254740993", "5.000"] {
            assert!(number(whole).is_whole(), "{whole}");
        }
        for broken in ["0.5", "1e-1", "1.05e1", "-2.25"] {
            assert!(!number(broken).is_whole(), "{broken}");
        }
    }

    #[test]
    fn what_is_no_number_is_none() {
        let beyond = ["1e-9223372036854775808", "1e9223372036854775807", "1e-4294967296"];
        for text in beyond {
            assert_eq!(Decimal::parse(text), None, "{text:?}");
        }
        for text in ["", "-", ".", "e5", "1e", "1e5.0", "--1", "1 2", "inf", "NaN", "0x10", "1,5"] {
            assert_eq!(Decimal::parse(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn the_order_is_that_of_floats(a in -1e9..1e9, b in -1e9..1e9) {
            let [x, y] = [a, b].map(|float: f64| number(&float.to_string()));
            prop_assert_eq!(x.cmp(&y), a.total_cmp(&b));
        }
    }
}
