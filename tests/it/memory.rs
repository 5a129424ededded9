//! A training holds one copy of the weights per average: peak memory, measured in processes of
//! their own.
//!
//! `cargo test --features ndarray memory -- --nocapture` prints the figures.

use std::process::Command;

use burn::{module::Module, optim::ModuleOptimizer, tensor::Tensor, train::TrainStep};
use burn_ema::{
    AverageConfig, Rule,
    fast::{AdamConfig, SgdConfig},
    model::{Batch, Mlp, MlpConfig},
    train::Averaged,
};

const SIZES: [usize; 3] = [1024, 2048, 1024];
const COUNT: &str = "BURN_EMA_AVERAGES";
const OPTIMIZER: &str = "BURN_EMA_OPTIMIZER";

/// Peak resident memory of this process so far, without the pages of the program's own file, of
/// which more are touched the more code runs, in bytes.
pub fn peak() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let bytes = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() << 10
    };
    bytes("VmHWM") - bytes("RssFile")
}

/// The process that is measured; on its own it does nothing.
#[test]
fn child() {
    let Ok(count) = std::env::var(COUNT) else { return };
    let device = burn::tensor::Device::flex().autodiff();
    let decays = (0..count.parse::<u32>().unwrap()).map(|i| 0.9 + 0.01 * f64::from(i));
    let mlp = MlpConfig::new(SIZES.to_vec()).init(&device).unwrap();
    let mut optimizer = match std::env::var(OPTIMIZER).as_deref() {
        Ok("sgd") => SgdConfig::new().init(),
        Ok("adam") => AdamConfig::new().init(),
        _ => burn::optim::SgdConfig::new().init(),
    };
    let configs = decays.map(|decay| AverageConfig::new(Rule::ema(decay)));
    if count == "0" {
        train(mlp, &mut optimizer);
    } else {
        train(Averaged::<Mlp>::new(mlp, configs).unwrap(), &mut optimizer);
    }
    println!("peak {}", peak());
}

/// Steps and snapshots as Burn's Learner takes them, with its clone of the model at every step.
fn train<M: Module + TrainStep<Input = Batch>>(mut model: M, optimizer: &mut ModuleOptimizer) {
    let device = model.devices()[0].clone();
    for _ in 0..5 {
        let inputs = Tensor::ones([16, SIZES[0]], &device);
        let targets = Tensor::zeros([16, SIZES[2]], &device);
        let grads = TrainStep::step(&model, Batch { inputs, targets }).grads;
        model = model.clone().optimize(optimizer, 0.1.into(), grads);
        drop(model.valid());
    }
}

/// The bytes of a copy of the weights.
#[cfg(target_os = "linux")]
fn weights() -> usize {
    SIZES.windows(2).map(|pair| (pair[0] + 1) * pair[1]).sum::<usize>() * 4
}

/// The peak of a training with so many averages, in a process of its own.
#[cfg(target_os = "linux")]
fn peak_of(count: usize, optimizer: &str) -> usize {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "memory::child", "--nocapture"])
        .env(COUNT, count.to_string())
        .env(OPTIMIZER, optimizer)
        .env("RAYON_NUM_THREADS", "1")
        // Large blocks go back to the system at once, so that the peak counts what is held.
        .env("MALLOC_MMAP_THRESHOLD_", "65536")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let peak = text.split("peak ").nth(1).unwrap_or_else(|| panic!("{text}"));
    peak.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
#[cfg(target_os = "linux")]
fn each_average_costs_one_copy_of_the_weights() {
    let peaks = [0, 1, 2, 4].map(|count| (count, peak_of(count, "")));
    let mib = |bytes: usize| bytes as f64 / f64::from(1 << 20);
    for (count, peak) in peaks {
        println!("{count} averages of {:.1} MiB: peak {:.1} MiB", mib(weights()), mib(peak));
    }
    for ((few, less), (many, more)) in peaks.into_iter().zip(peaks.into_iter().skip(1)) {
        let copies = (more as f64 - less as f64) / weights() as f64;
        let expected = (many - few) as f64;
        assert!((copies - expected).abs() < 0.25, "{copies:.2} copies for {expected} averages");
    }
}

/// A step keeps no second copy of the moments to go back to.
#[test]
#[cfg(target_os = "linux")]
fn adam_costs_its_two_moments() {
    let [sgd, adam] = ["sgd", "adam"].map(|optimizer| peak_of(1, optimizer));
    let copies = (adam as f64 - sgd as f64) / weights() as f64;
    assert!((copies - 2.0).abs() < 0.25, "{copies:.2} copies for two moments");
}
