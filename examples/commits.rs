//! What a commit costs beside a training: time and bytes, of a small network and of a large one.
//!
//! ```text
//! cargo run --example commits
//! ```

#[macro_use]
mod shared; // `println!` to a reader that may leave

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use burn::{
    lr_scheduler::constant::ConstantLr,
    module::Module,
    optim::AdamConfig,
    tensor::Device,
    train::{SupervisedTraining, metric::LossMetric},
};
use burn_ema::{
    AverageConfig, Rule,
    data::{Sample, loader},
    device,
    model::{Mlp, MlpConfig},
    run::Commits,
    train::{Averaged, CommitConfig, Fit, ProgressLines, fit},
};
use clap::Parser;

/// Tensors come and go at every step.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(about = "What a commit costs beside a training")]
struct Args {
    /// How often each training is timed; the medians are shown
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Optimizer steps in an epoch
    #[arg(long, default_value_t = 50)]
    steps: usize,
    /// Rows in a batch
    #[arg(long, default_value_t = 32)]
    batch_size: usize,
    /// The device, such as flex, ndarray or wgpu; else BURN_DEVICE, else the Cargo features decide
    #[arg(long)]
    device: Option<String>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let device = device::select(args.device.as_deref())?;
    println!("device: {device}; epochs of {} steps, Adam, one average\n", args.steps);
    println!("network              commit    epoch  copying  one commit  an epoch with a commit");
    for sizes in [vec![64, 32, 10], vec![1024, 4096, 4096, 1024]] {
        compare(&args, sizes, &device.device)?;
    }
    Ok(())
}

/// Times trainings that differ in their commits alone, by turns.
fn compare(args: &Args, sizes: Vec<usize>, device: &Device) -> Result<()> {
    let directory = std::env::temp_dir().join(format!("burn-ema-commits-{}", std::process::id()));
    let many = 2.min(args.steps - 1);
    let (mut without, mut with, mut often, mut copies) = (vec![], vec![], vec![], vec![]);
    let mut bytes = 0;
    for _ in 0..args.rounds {
        let train = |commits: Option<CommitConfig>, epochs| -> Result<Duration> {
            let training = training(args, &sizes, device, &directory, epochs)?;
            let training = match commits {
                Some(commits) => training.with_commits(commits)?,
                None => training,
            };
            let started = Instant::now();
            let model = training.launch()?.model;
            let time = started.elapsed();
            drop(model);
            Ok(time)
        };
        let clear =
            || std::fs::remove_dir_all(&directory).with_context(|| directory.display().to_string());
        let commits = CommitConfig::new(&directory);
        without.push(train(None, 2)?);
        clear()?;
        with.push(train(Some(commits.clone()), 2)?);
        let commit = Commits::of(&directory).newest()?.commit.context("no commit")?;
        bytes = commit.manifest().files.values().map(|file| file.bytes).sum();
        clear()?;
        // One after another, so that each waits for the one before.
        let every = (args.steps / many) as u64;
        often.push(train(Some(commits.with_every_steps(Some(every))), 2)?);
        clear()?;
        let mlp = MlpConfig::new(sizes.clone()).init(device)?;
        let started = Instant::now();
        for _ in 0..4 {
            // Live, an average, two moments.
            drop(mlp.clone().into_record().into_bytes()?);
        }
        copies.push(started.elapsed());
    }
    let [without, with, often, copy] = [without, with, often, copies].map(median);
    let epoch = without / 2.0;
    let name = sizes.iter().map(ToString::to_string).collect::<Vec<_>>().join("-");
    println!(
        "{name:19} {:>7.2} MB {:>6.0} ms {:>5.1} ms {:>8.1} ms {:>+12.1} % of an epoch",
        bytes as f64 / 1e6,
        epoch * 1e3,
        copy * 1e3,
        (often - without) / (2 * many) as f64 * 1e3,
        100.0 * (with - without) / 2.0 / epoch,
    );
    Ok(())
}

fn training(
    args: &Args,
    sizes: &[usize],
    device: &Device,
    directory: &std::path::Path,
    epochs: usize,
) -> Result<Fit<Mlp>> {
    let [first, .., last] = sizes[..] else { unreachable!("at least two sizes") };
    let sample = |index: usize| Sample {
        inputs: (0..first).map(|column| ((index * 31 + column * 17) % 97) as f32 / 97.0).collect(),
        targets: (0..last).map(|column| ((index + column) % 2) as f32).collect(),
    };
    let rows = |count| (0..count).map(sample).collect();
    let train = loader(rows(args.steps * args.batch_size), args.batch_size, Some(1), device)?;
    let valid = loader(rows(args.batch_size), args.batch_size, None, device)?;
    let mlp = MlpConfig::new(sizes.to_vec()).init(device)?;
    let model = Averaged::new(mlp, [AverageConfig::new(Rule::ema(0.999))])?;
    let training = SupervisedTraining::new(directory, train, valid)
        .num_epochs(epochs)
        .metrics((LossMetric::new(),))
        .with_application_logger(None)
        .renderer(Box::new(ProgressLines::new(std::io::sink())));
    Ok(fit(training, model, AdamConfig::new().init(), ConstantLr::new(1e-3)))
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64()
}
