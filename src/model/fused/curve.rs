//! Sigmoid, hyperbolic tangent and exponential of many numbers at once.
//!
//! The library's functions take one number, at ten nanoseconds each.
//! These are straight lines of additions, multiplications and one division, with choices but no
//! branches, so that the compiler takes as many numbers at a time as the processor holds.
//! They have no fused multiply-add: a number has the same bits on every machine.
//!
//! For `x <= 0`, `exp(x) = 2^n exp(r)` where `n` is `x / ln 2` rounded and `|r| <= ln 2 / 2`.
//! `ln 2` is subtracted in two parts, the first so short that `n` times it is exact (Cody and
//! Waite 1980, "Software Manual for the Elementary Functions", chapter 6), and `exp(r)` is Taylor's
//! series as far as the precision goes.

use multiversion::multiversion;

/// Numbers that have the curves; each takes its arguments' place.
pub(super) trait Curve: Copy {
    /// `1 / (1 + exp(-z))`, within 2 units of the last place, subnormal numbers included.
    fn sigmoid(z: &mut [Self]);

    /// `tanh(z)`, within 3 units of the last place.
    fn tanh(z: &mut [Self]);

    /// `exp(x)` of numbers up to zero, within 2 units of the last place.
    fn exp(x: &mut [Self]);
}

macro_rules! curves {
    ($float:ident, $bits:ident, $parts:ident, $sigmoid:ident, $tanh:ident, $exp:ident,
     nought: $nought:expr, ln2: $ln2:expr, series: $series:expr) => {
        impl Curve for $float {
            fn sigmoid(z: &mut [Self]) {
                $sigmoid(z);
            }

            fn tanh(z: &mut [Self]) {
                $tanh(z);
            }

            fn exp(x: &mut [Self]) {
                $exp(x);
            }
        }

        /// `exp(r) - 1` and `2^n` in two factors, since `2^n` alone may be too small for a number.
        #[inline(always)]
        fn $parts(x: $float) -> ($float, $float, $float) {
            // Added to a small number, it leaves that number rounded in the lowest bits.
            const SHIFT: $float = 1.5 / $float::EPSILON;
            const BIAS: $bits = $float::MAX_EXP as $bits - 1;
            const EVEN: $bits = 1 << 12; // more than any -n, which must not be shifted below zero
            // What is below is zero anyway. A NaN is not below anything, and stays.
            let x = if x < $nought { $nought } else { x };
            let shifted = x * std::$float::consts::LOG2_E + SHIFT;
            let n = shifted - SHIFT;
            let r = x - n * $ln2[0] - n * $ln2[1];
            // Even and odd terms apart, which the processor computes side by side.
            let square = r * r;
            let [even, odd] = $series;
            let sum = |terms: [$float; _]| {
                let terms = terms.map(|divisor| 1.0 / divisor).into_iter();
                terms.reduce(|sum, term| sum * square + term).unwrap_or(0.0)
            };
            let q = sum(even) + r * sum(odd);
            let n = shifted.to_bits().wrapping_sub(SHIFT.to_bits());
            let half = (n.wrapping_add(EVEN) >> 1).wrapping_sub(EVEN >> 1);
            let power =
                |n: $bits| $float::from_bits(n.wrapping_add(BIAS) << ($float::MANTISSA_DIGITS - 1));
            (r + square * q, power(half), power(n.wrapping_sub(half)))
        }

        #[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl", "x86_64+avx2"))]
        fn $sigmoid(z: &mut [$float]) {
            for z in z {
                let (p, s, t) = $parts(-z.abs());
                let e = (1.0 + p) * s * t;
                let top = if *z < 0.0 { e } else { 1.0 };
                let sum = 1.0 + e;
                // What the sum lost in rounding; without it the error can pass 2 units.
                let lost = e - (sum - 1.0);
                let o = top / sum;
                *z = o - o * lost;
            }
        }

        #[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl", "x86_64+avx2"))]
        fn $tanh(z: &mut [$float]) {
            for z in z {
                let (p, s, t) = $parts(-2.0 * z.abs());
                let s = s * t;
                // exp(-2 |z|) - 1, which is exact where |z| is small: there n is zero.
                let m = s * p + (s - 1.0);
                *z = (-m / (2.0 + m)).copysign(*z);
            }
        }

        #[multiversion(targets("x86_64+avx512f+avx512dq+avx512vl", "x86_64+avx2"))]
        fn $exp(x: &mut [$float]) {
            for x in x {
                let (p, s, t) = $parts(*x);
                *x = (1.0 + p) * s * t;
            }
        }
    };
}

curves!(
    f32, u32, parts_f32, sigmoid_f32, tanh_f32, exp_f32,
    nought: -104.0,
    ln2: [355.0 / 512.0, -2.121_944_4e-4],
    series: [[720.0, 24.0, 2.0], [5_040.0, 120.0, 6.0]]
);
curves!(
    f64, u64, parts_f64, sigmoid_f64, tanh_f64, exp_f64,
    nought: -746.0,
    ln2: [6.931_471_803_691_238e-1, 1.908_214_929_270_587_7e-10],
    series: [
        [479_001_600.0, 3_628_800.0, 40_320.0, 720.0, 24.0, 2.0],
        [6_227_020_800.0, 39_916_800.0, 362_880.0, 5_040.0, 120.0, 6.0]
    ]
);

#[cfg(test)]
mod tests {
    use std::ops::{Add, Div, Mul};

    use rand::{RngExt, SeedableRng};

    use super::*;

    /// Numbers of every sign and exponent with random mantissas, and the borders between them.
    fn floats() -> (Vec<f32>, Vec<f64>) {
        let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        let special = [0.0, f32::MIN_POSITIVE, f32::MAX, f32::INFINITY, f32::NAN];
        let mut singles: Vec<f32> = special.into_iter().flat_map(|x| [x, -x]).collect();
        let mut doubles: Vec<f64> = [0.0, f64::MIN_POSITIVE, f64::MAX, f64::INFINITY, f64::NAN]
            .into_iter()
            .flat_map(|x| [x, -x])
            .collect();
        for head in 0..1 << 9 {
            // Most of what happens, happens from 2^-4 to 2^10.
            let count = if (123..137).contains(&(head & 255)) { 20_000 } else { 50 };
            let tail = |random: &mut rand_chacha::ChaCha8Rng| random.random::<u32>() >> 9;
            singles.extend((0..count).map(|_| f32::from_bits(head << 23 | tail(&mut random))));
        }
        for head in 0..1u64 << 12 {
            let count = if (1019..1034).contains(&(head & 2047)) { 3_000 } else { 5 };
            let tail = |random: &mut rand_chacha::ChaCha8Rng| random.random::<u64>() >> 12;
            doubles.extend((0..count).map(|_| f64::from_bits(head << 52 | tail(&mut random))));
        }
        (singles, doubles)
    }

    /// How far a number is from the right one, in units of its last place.
    macro_rules! units {
        ($float:ident, $found:expr, $high:expr, $low:expr) => {{
            let (found, high, low) = ($found, $high, $low);
            let nearest = high as $float;
            let unit = (nearest.abs().next_up() - nearest.abs()).min($float::MAX);
            match (found.is_nan(), high.is_nan()) {
                (true, true) => 0.0,
                (false, false) => ((found as f64 - high) - low).abs() / unit as f64,
                _ => f64::INFINITY,
            }
        }};
    }

    #[test]
    fn single_precision_is_within_its_units() {
        let (x, _) = floats();
        let exact = |x: f32| f64::from(x);
        let sigmoid = |x: f32| match exact(x) {
            x if x < 0.0 => x.exp() / (1.0 + x.exp()),
            x => 1.0 / (1.0 + (-x).exp()),
        };
        let below: Vec<_> = x.iter().map(|x| -x.abs()).collect();
        check(&x, Curve::sigmoid, |x, o| units!(f32, o, sigmoid(x), 0.0), 2.0);
        check(&x, Curve::tanh, |x, o| units!(f32, o, exact(x).tanh(), 0.0), 3.0);
        check(&below, Curve::exp, |x, o| units!(f32, o, exact(x).exp(), 0.0), 2.0);
    }

    #[test]
    fn double_precision_is_within_its_units() {
        let (_, x) = floats();
        let one = Wide(1.0, 0.0);
        let sigmoid = |x: f64| match exp(-x.abs()) {
            e if x < 0.0 => e / (one + e),
            e => one / (one + e),
        };
        // Near zero the exponential's difference from one is lost: there the series.
        let tanh = |x: f64| match x.abs() {
            magnitude if magnitude < 1e-9 => Wide(magnitude, 0.0),
            magnitude => {
                let e = exp(-2.0 * magnitude);
                (one + Wide(-e.0, -e.1)) / (one + e)
            }
        };
        let below: Vec<_> = x.iter().map(|x| -x.abs()).collect();
        check(&x, Curve::sigmoid, |x, o| units!(f64, o, sigmoid(x).0, sigmoid(x).1), 2.0);
        check(&x, Curve::tanh, |x, o| units!(f64, o.abs(), tanh(x).0, tanh(x).1), 3.0);
        check(&below, Curve::exp, |x, o| units!(f64, o, exp(x).0, exp(x).1), 2.0);
        let odd = |x: &f64, o: &f64| o.is_nan() || x.is_sign_negative() == o.is_sign_negative();
        let mut o = x.clone();
        Curve::tanh(&mut o);
        assert!(x.iter().zip(&o).all(|(x, o)| odd(x, o)));
    }

    /// The curve of the numbers, whole and one by one, against the reference.
    fn check<T: Curve + std::fmt::Debug>(
        x: &[T],
        curve: impl Fn(&mut [T]),
        units: impl Fn(T, T) -> f64,
        most: f64,
    ) {
        let mut found = x.to_vec();
        curve(&mut found);
        for (&x, &o) in x.iter().zip(&found) {
            assert!(units(x, o) <= most, "{x:?} gave {o:?}, off by {} units", units(x, o));
        }
        for (&x, &o) in x.iter().zip(&found).step_by(97) {
            let mut alone = [x];
            curve(&mut alone);
            assert_eq!(format!("{:?}", alone[0]), format!("{o:?}"), "alone: {x:?}");
        }
    }

    /// A number as the sum of two, with a precision of about 100 bits.
    #[derive(Clone, Copy)]
    struct Wide(f64, f64);

    impl Wide {
        fn of(high: f64, low: f64) -> Self {
            let sum = high + low;
            Self(sum, if sum.is_finite() { low - (sum - high) } else { 0.0 })
        }
    }

    impl Add for Wide {
        type Output = Self;
        fn add(self, other: Self) -> Self {
            let sum = self.0 + other.0;
            let back = sum - self.0;
            let lost = (self.0 - (sum - back)) + (other.0 - back);
            Self::of(sum, lost + self.1 + other.1)
        }
    }

    impl Mul for Wide {
        type Output = Self;
        fn mul(self, other: Self) -> Self {
            let product = self.0 * other.0;
            let lost = self.0.mul_add(other.0, -product);
            Self::of(product, lost + (self.0 * other.1 + self.1 * other.0))
        }
    }

    impl Div for Wide {
        type Output = Self;
        fn div(self, other: Self) -> Self {
            let quotient = self.0 / other.0;
            let rest = self + Self(-quotient, 0.0) * other;
            Self::of(quotient, rest.0 / other.0)
        }
    }

    /// `exp(x)` for `x <= 0`: the series at `x / 2^k`, squared `k` times.
    fn exp(x: f64) -> Wide {
        if x.is_nan() || x < -760.0 {
            return Wide(x.exp(), 0.0);
        }
        const HALVINGS: i32 = 14;
        let small = Wide(x / f64::from(1 << HALVINGS), 0.0);
        let one = Wide(1.0, 0.0);
        let term = |sum, k| one + small * sum / Wide(k, 0.0);
        let series = (1..16).rev().map(f64::from).fold(one, term);
        (0..HALVINGS).fold(series, |e, _| e * e)
    }
}
