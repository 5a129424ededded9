//! Paired differences: their mean with its interval, tests that it is 0, and p values of many tests.

#![allow(dead_code)] // each example uses some

use statrs::distribution::{ContinuousCDF, Normal, StudentsT};

/// So many differences are ranked exactly; more go by the normal distribution.
const MAX_EXACT: usize = 50;

/// A mean with the 95 % interval of Student's t.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    pub mean: f64,
    pub low: f64,
    pub high: f64,
}

/// The mean of numbers; NaN of none.
pub fn mean(numbers: &[f64]) -> f64 {
    numbers.iter().sum::<f64>() / numbers.len() as f64
}

/// The standard deviation of numbers from their mean, of a sample; NaN of fewer than two.
pub fn deviation(numbers: &[f64]) -> f64 {
    let mean = mean(numbers);
    let squares: f64 = numbers.iter().map(|number| (number - mean).powi(2)).sum();
    (squares / (numbers.len() as f64 - 1.0)).sqrt()
}

/// The interval of a mean; none for fewer than two numbers.
pub fn interval(numbers: &[f64]) -> Option<Interval> {
    let count = numbers.len() as f64;
    let free = StudentsT::new(0.0, 1.0, count - 1.0).ok()?;
    let mean = mean(numbers);
    let half = free.inverse_cdf(0.975) * deviation(numbers) / count.sqrt();
    Some(Interval { mean, low: mean - half, high: mean + half })
}

/// The two-sided p of Student's t test that normally distributed differences have the mean 0; 1 for
/// fewer than two of them and for those that are all 0.
pub fn student(differences: &[f64]) -> f64 {
    let count = differences.len() as f64;
    let t = mean(differences) / deviation(differences) * count.sqrt();
    match StudentsT::new(0.0, 1.0, count - 1.0) {
        Ok(free) if !t.is_nan() => 2.0 * free.cdf(-t.abs()),
        _ => 1.0,
    }
}

/// The two-sided p of Wilcoxon's signed-rank test that differences lie evenly around 0 (Wilcoxon
/// 1945, "Individual comparisons by ranking methods").
///
/// Differences of 0 are left out, and equal ones share the mean of their ranks.
/// The p is exact, given the ranks, for up to 50 differences that are not 0; beyond, it is that of
/// the normal distribution, with the variance that ties leave and no correction for continuity.
/// Without any difference it is 1.
pub fn signed_rank(differences: &[f64]) -> f64 {
    let mut differences: Vec<f64> = differences.iter().copied().filter(|d| *d != 0.0).collect();
    differences.sort_by(|a, b| a.abs().total_cmp(&b.abs()));
    // Twice the ranks, which are whole numbers also where ranks are shared.
    let mut ranks = Vec::with_capacity(differences.len());
    for equal in differences.chunk_by(|a, b| a.abs() == b.abs()) {
        let rank = 2 * ranks.len() + equal.len() + 1;
        ranks.extend(std::iter::repeat_n(rank, equal.len()));
    }
    let positive = ranks.iter().zip(&differences).filter(|(_, difference)| **difference > 0.0);
    let positive: usize = positive.map(|(rank, _)| rank).sum();
    let below = positive.min(ranks.iter().sum::<usize>() - positive);
    let tail = match ranks.len() {
        0 => 1.0,
        count if count <= MAX_EXACT => exact_tail(&ranks, below),
        _ => normal_tail(&ranks, below),
    };
    f64::min(1.0, 2.0 * tail)
}

/// How likely a sum of ranks is at most this one, when each has its sign from a fair coin.
fn exact_tail(ranks: &[usize], most: usize) -> f64 {
    // The share of the choices of signs that give each sum.
    let mut shares = vec![0.0; ranks.iter().sum::<usize>() + 1];
    shares[0] = 1.0;
    for &rank in ranks {
        for sum in (0..shares.len()).rev() {
            let with = sum.checked_sub(rank).map_or(0.0, |without| shares[without]);
            shares[sum] = (shares[sum] + with) / 2.0;
        }
    }
    shares[..=most].iter().sum()
}

fn normal_tail(ranks: &[usize], most: usize) -> f64 {
    // Each rank is there or not, as a coin falls; ties are in the squares already.
    let mean = ranks.iter().sum::<usize>() as f64 / 2.0;
    let variance = ranks.iter().map(|&rank| (rank as f64).powi(2)).sum::<f64>() / 4.0;
    Normal::standard().cdf((most as f64 - mean) / variance.sqrt())
}

/// The p values of many tests as if each were the only one (Holm 1979, "A simple sequentially
/// rejective multiple test procedure"), in their order.
pub fn holm(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut adjusted = vec![0.0; values.len()];
    let mut least: f64 = 0.0;
    for (place, index) in order.into_iter().enumerate() {
        least = least.max((values[index] * (values.len() - place) as f64).min(1.0));
        adjusted[index] = least;
    }
    adjusted
}
