//! Data to learn: wrong labels and fewer rows for a training split, and Friedman's function.

use std::{f64::consts::PI, fmt::Write as _};

use burn_ema_lab::data::Sample;
use rand::{RngExt, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

/// Random numbers of a seed that nothing else is drawn from.
fn random(seed: u64, purpose: u64) -> ChaCha8Rng {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(purpose);
    random
}

/// Gives a share of the rows, to the nearest row, another class, each other one as likely.
///
/// Targets are one-hot, `[classes]`.
pub fn mislabel(rows: &mut [Sample], share: f64, seed: u64) {
    let mut random = random(seed, 1);
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.shuffle(&mut random);
    let wrong = (share * rows.len() as f64).round() as usize;
    for &row in order.iter().take(wrong) {
        let targets = &mut rows[row].targets;
        // From one to all but one place further on, so that it never stays.
        let further = random.random_range(1..targets.len());
        targets.rotate_right(further);
    }
}

/// Leaves so many rows, drawn at random, in their order.
pub fn thin(rows: &mut Vec<Sample>, count: usize, seed: u64) {
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.shuffle(&mut random(seed, 2));
    order.truncate(count);
    order.sort_unstable();
    *rows = order.into_iter().map(|row| rows[row].clone()).collect();
}

/// Rows of Friedman's first function as CSV (Friedman 1991, "Multivariate adaptive regression
/// splines"): `10 sin(pi x1 x2) + 20 (x3 - 0.5)^2 + 10 x4 + 5 x5` and normal noise of deviation 1,
/// of ten evenly drawn numbers, five of which do nothing.
pub fn friedman(rows: usize, seed: u64) -> String {
    let mut random = random(seed, 3);
    let mut csv = "x1,x2,x3,x4,x5,x6,x7,x8,x9,x10,y\n".to_owned();
    for _ in 0..rows {
        let x: [f64; 10] = std::array::from_fn(|_| random.random());
        // Box and Muller's; the logarithm is of a number in (0, 1].
        let (radius, turn) = (1.0 - random.random::<f64>(), random.random::<f64>());
        let noise = (-2.0 * radius.ln()).sqrt() * (2.0 * PI * turn).cos();
        let y = 10.0 * (PI * x[0] * x[1]).sin() + 20.0 * (x[2] - 0.5).powi(2) + 10.0 * x[3];
        let y = y + 5.0 * x[4] + noise;
        x.iter().chain([&y]).enumerate().for_each(|(column, number)| {
            let _ = write!(csv, "{}{number}", if column > 0 { "," } else { "" });
        });
        csv.push('\n');
    }
    csv
}
