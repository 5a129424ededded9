//! Sigmoid, hyperbolic tangent and exponential of many numbers at once.
//!
//! The standard library's functions compute one number in some ten nanoseconds.
//! The functions here are straight-line code of additions, multiplications and at most one
//! division, with selections but no branches, so that the compiler can vectorise them.
//! None uses a fused multiply-add, so that a result has the same bits on every machine.
//!
//! For `x <= 0`, `exp(x) = 2^n exp(r)` where `n` is `x / ln 2` rounded and `|r| <= ln 2 / 2`.
//! `ln 2` is subtracted in two parts, the first so short that `n` times it is exact (Cody and
//! Waite 1980, "Software Manual for the Elementary Functions", chapter 6), and `exp(r)` is Taylor's
//! series as far as the precision goes.

use burn_ema_host::Real;
use multiversion::multiversion;

/// The float types that have these functions. Each function overwrites its arguments with its
/// results.
pub(super) trait Curve: Real {
    /// `1 / (1 + exp(-z))`, with an error of at most 2 units in the last place, also where the
    /// result is subnormal.
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

        /// `exp(r) - 1`, and two factors whose product is `2^n`, with the `r` and `n` of the
        /// module's comment; for `x <= 0`. There are two since `2^n` can be below the least normal
        /// number, which the exponent bits of one float cannot express.
        #[inline(always)]
        fn $parts(x: $float) -> ($float, $float, $float) {
            // A small number plus this constant has the rounded number in its lowest bits.
            const SHIFT: $float = 1.5 / $float::EPSILON;
            const BIAS: $bits = $float::MAX_EXP as $bits - 1;
            const EVEN: $bits = 1 << 12; // above any -n, so that n + EVEN is not negative
            // The exponential of a lesser number is zero too. A NaN is not less, and stays.
            let x = if x < $nought { $nought } else { x };
            let shifted = x * std::$float::consts::LOG2_E + SHIFT;
            let n = shifted - SHIFT;
            let r = x - n * $ln2[0] - n * $ln2[1];
            // Even and odd terms are summed apart: the processor computes both sums in parallel.
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
                // The rounding error of the sum; uncorrected, it can be off by more than 2 units.
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
                // exp(-2 |z|) - 1. Where |z| is small, n is zero and m is p: no digit is lost.
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
mod tests;
