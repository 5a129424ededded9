//! Rows of which few have a label.

use std::iter::repeat_n;

use burn_ema_lab::data::Sample;
use rand::{SeedableRng as _, seq::SliceRandom as _};
use rand_chacha::ChaCha8Rng;

/// The classes of digits.
const CLASSES: usize = 10;

/// The rows, of which `each` of every class, drawn by the seed, keep their label; the targets of the
/// others are zeros. Rows with a label are repeated until they are a third of all.
pub fn few_labels(rows: &[Sample], each: u64, seed: u64) -> Vec<Sample> {
    let mut order: Vec<_> = rows.iter().collect();
    order.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    let mut seen = [0; CLASSES];
    let (labelled, others): (Vec<_>, Vec<_>) = order.into_iter().partition(|row| {
        let class = row.targets.iter().position(|target| *target == 1.0).unwrap_or_default();
        seen[class] += 1;
        seen[class] <= each
    });
    let times = (others.len() / labelled.len() / 2).max(1);
    let labelled = labelled.into_iter().flat_map(|row| repeat_n(row.clone(), times));
    let unknown = |row: &Sample| Sample { targets: vec![0.0; CLASSES], ..row.clone() };
    labelled.chain(others.into_iter().map(unknown)).collect()
}
