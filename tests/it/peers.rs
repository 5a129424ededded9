//! What other systems that average weights get wrong: each defect in a few lines of our own, shown
//! to break a property, and the same property held here.

mod numbers; // widths, sums, numbers that are not finite, numbers of 16 bits
mod pairing; // which weight goes into which average
mod storage; // what an average shares with live
mod training; // resume, accumulation, starts

use std::sync::Once;

use burn::tensor::DType;
use burn_ema::{AverageConfig, Rule};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::common::{Weights, device};

/// Every rule once, of a width that some hundred steps show; a step has 8 samples and an epoch 8
/// steps.
fn every_rule() -> Vec<AverageConfig> {
    static REGISTERED: Once = Once::new();
    REGISTERED.call_once(|| {
        Rule::register("slow-start", |_, step| 1.0 - 1.0 / (1.0 + step).sqrt()).unwrap();
    });
    let forms = [
        "ema(0.98)",
        "ema(0.98, debias)",
        "half-life(40 steps)",
        "half-life(320 samples)",
        "half-life(5 epochs)",
        "warm-up(10, max=0.99)",
        "inverse-gamma(1, power=0.75, max=0.99)",
        "annealing(100, max=0.99)",
        "exp-ramp(0.99, tau=50)",
        "half-life-ramp(0.05)",
        "power(sigma_rel=0.05)",
        "power(gamma=6.94)",
        "equal",
        "window(5 snapshots, 20 steps)",
        "cosine(0.9, end=0.99, steps=200)",
        "linear(0.9, end=0.99, steps=200)",
        "bema(rho=10, gamma=1, eta=0.2, kappa=0.5)",
        "slow-start",
    ];
    let config = |form: &str| {
        AverageConfig::new(form.parse().unwrap())
            .with_samples_per_step(Some(8))
            .with_steps_per_epoch(Some(8))
    };
    forms.into_iter().map(config).collect()
}

/// Five weights at the start and after each step, which f32 holds exactly and which lie on no grid
/// of equal steps.
fn trajectory(seed: u64, steps: u64) -> Vec<Vec<f64>> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut number = || f64::from((rng.random::<f32>() - 0.5) * 0.9173);
    (0..=steps).map(|_| (0..5).map(|_| number()).collect()).collect()
}

fn weights(values: &[f64]) -> Weights {
    Weights::new(values, DType::F32, &device())
}
