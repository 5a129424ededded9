//! Random numbers of a seed, which depend on nothing that is drawn elsewhere.

use std::f32::consts::TAU;

use burn::tensor::{Device, Tensor, TensorData};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

/// Random numbers of a seed that nothing of another purpose is drawn from.
pub fn random(seed: u64, purpose: u64) -> ChaCha8Rng {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(purpose);
    random
}

/// Standard normal numbers, `[rows, width]` of an even width (Box and Muller 1958, "A note on the
/// generation of random normal deviates").
pub fn normal(rows: usize, width: usize, random: &mut ChaCha8Rng, device: &Device) -> Tensor<2> {
    let pairs = (0..rows * width / 2).flat_map(|_| {
        // The logarithm is of a number in (0, 1].
        let (radius, turn) = (1.0 - random.random::<f32>(), random.random::<f32>());
        let radius = (-2.0 * radius.ln()).sqrt();
        <[f32; 2]>::from((TAU * turn).sin_cos()).map(|number| radius * number)
    });
    Tensor::from_data(TensorData::new(pairs.collect::<Vec<_>>(), [rows, width]), device)
}
