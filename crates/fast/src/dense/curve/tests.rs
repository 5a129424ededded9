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
