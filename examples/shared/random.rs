//! Random numbers of a seed, which depend on nothing that is drawn elsewhere.

use std::f64::consts::TAU;

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

/// Random numbers of a seed that nothing of another purpose is drawn from.
pub fn random(seed: u64, purpose: u64) -> ChaCha8Rng {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(purpose);
    random
}

/// So many standard normal numbers, an even count (Box and Muller 1958, "A note on the generation
/// of random normal deviates").
pub fn normal(count: usize, random: &mut ChaCha8Rng) -> Vec<f32> {
    let pairs = (0..count / 2).flat_map(|_| {
        // The logarithm is of a number in (0, 1].
        let (radius, turn) = (1.0 - random.random::<f64>(), random.random::<f64>());
        let radius = (-2.0 * radius.ln()).sqrt();
        <[f64; 2]>::from((TAU * turn).sin_cos()).map(|number| (radius * number) as f32)
    });
    pairs.collect()
}
