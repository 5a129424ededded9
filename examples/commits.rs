//! The cost of a commit beside a training: time and bytes, of a small network and of a large one.
//!
//! ```text
//! cargo run --example commits
//! ```

#[macro_use]
mod shared; // `println!` to a reader that may leave

use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use burn::{
    lr_scheduler::{constant::ConstantLr, module_lr_scheduler::ModuleLearningRate},
    module::Module,
    optim::{AdamConfig, GradientsParams, ModuleOptimizer},
    tensor::Device,
    train::{InferenceStep, SupervisedTraining, TrainOutput, TrainStep, metric::LossMetric},
};
use burn_ema::{
    AverageConfig, Rule,
    model::{Answers, Batch, Mlp, MlpConfig},
    runs::{CommitConfig, Commits, Fit, ProgressLines, fit},
    train::Averaged,
};
use burn_ema_lab::{
    data::{Sample, loader},
    device,
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
    /// The device, such as flex, ndarray or wgpu, or ws://HOST:PORT for a server of Burn's remote
    /// backend (Cargo feature `remote`); else BURN_DEVICE, else the Cargo features decide
    #[arg(long)]
    device: Option<String>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    ensure!(args.steps >= 2, "a commit within an epoch needs two steps, found {}", args.steps);
    let device = device::select(args.device.as_deref())?;
    println!("device: {device}; epochs of {} steps, Adam, one average\n", args.steps);
    println!(
        "network              commit     epoch    a commit: is waited for  and adds in all  one an epoch"
    );
    for sizes in [vec![64, 32, 10], vec![1024, 4096, 4096, 1024]] {
        compare(&args, sizes, &device.device)?;
    }
    Ok(())
}

/// When the last step ended, and the times from one step's end to the beginning of the next.
static GAPS: Mutex<(Option<Instant>, Vec<Duration>)> = Mutex::new((None, Vec::new()));

/// A network that notes when its steps begin and end: what the training does between them, it
/// waits for.
#[derive(Module, Debug)]
struct Timed {
    mlp: Mlp,
}

impl TrainStep for Timed {
    type Input = Batch;
    type Output = Answers;

    fn step(&self, batch: Batch) -> TrainOutput<Answers> {
        {
            let (end, gaps) = &mut *GAPS.lock().unwrap();
            gaps.extend(end.take().map(|end| end.elapsed()));
        }
        TrainStep::step(&self.mlp, batch)
    }

    fn optimize(
        self,
        optimizer: &mut ModuleOptimizer,
        lr: ModuleLearningRate,
        gradients: GradientsParams,
    ) -> Self {
        let stepped = optimizer.step(lr, self, gradients);
        GAPS.lock().unwrap().0 = Some(Instant::now());
        stepped
    }
}

impl InferenceStep for Timed {
    type Input = Batch;
    type Output = Answers;

    fn step(&self, batch: Batch) -> Answers {
        InferenceStep::step(&self.mlp, batch)
    }
}

/// Times trainings that differ in their commits alone, by turns.
fn compare(args: &Args, sizes: Vec<usize>, device: &Device) -> Result<()> {
    let directory = std::env::temp_dir().join(format!("burn-ema-commits-{}", std::process::id()));
    let every = args.steps / 2;
    let (mut without, mut with, mut waits) = (vec![], vec![], vec![]);
    let mut bytes = 0;
    for _ in 0..args.rounds {
        let train = |commits: Option<CommitConfig>| -> Result<Duration> {
            let training = training(args, &sizes, device, &directory)?;
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
        without.push(train(None)?);
        clear()?;
        with.push(train(Some(commits.clone()))?);
        let commit = Commits::of(&directory).newest()?.commit.context("no commit")?;
        bytes = commit.manifest().files.values().map(|file| file.bytes).sum();
        clear()?;
        // Within each epoch, where nothing else lies between two steps.
        *GAPS.lock().unwrap() = (None, Vec::new());
        train(Some(commits.with_every_steps(Some(every as u64))))?;
        clear()?;
        let gaps = std::mem::take(&mut GAPS.lock().unwrap().1);
        let usual = median(gaps.clone());
        let committed = (0..EPOCHS).map(|epoch| gaps[epoch * args.steps + every - 1]);
        waits.extend(committed.map(|gap| gap.saturating_sub(Duration::from_secs_f64(usual))));
    }
    let [without, with, wait] = [without, with, waits].map(median);
    let epoch = without / EPOCHS as f64;
    let added = (with - without) / EPOCHS as f64;
    let name = sizes.iter().map(ToString::to_string).collect::<Vec<_>>().join("-");
    println!(
        "{name:19} {:>7.2} MB {:>7.0} ms {:>20.1} ms {:>13.1} ms {:>+10.1} %",
        bytes as f64 / 1e6,
        epoch * 1e3,
        wait * 1e3,
        added * 1e3,
        100.0 * added / epoch,
    );
    Ok(())
}

/// The epochs of each training.
const EPOCHS: usize = 2;

fn training(
    args: &Args,
    sizes: &[usize],
    device: &Device,
    directory: &std::path::Path,
) -> Result<Fit<Averaged<Timed>>> {
    let [first, .., last] = sizes[..] else { unreachable!("at least two sizes") };
    let sample = |index: usize| Sample {
        inputs: (0..first).map(|column| ((index * 31 + column * 17) % 97) as f32 / 97.0).collect(),
        targets: (0..last).map(|column| ((index + column) % 2) as f32).collect(),
    };
    let rows = |count| (0..count).map(sample).collect();
    let train = loader(rows(args.steps * args.batch_size), args.batch_size, Some(1), device)?;
    let valid = loader(rows(args.batch_size), args.batch_size, None, device)?;
    let mlp = MlpConfig::new(sizes.to_vec()).init(device)?;
    let model = Averaged::new(Timed { mlp }, [AverageConfig::new(Rule::ema(0.999))])?;
    let training = SupervisedTraining::new(directory, train, valid)
        .num_epochs(EPOCHS)
        .metrics((LossMetric::new(),))
        .with_application_logger(None)
        .renderer(Box::new(ProgressLines::new(std::io::sink())));
    Ok(fit(training, model, AdamConfig::new().init(), ConstantLr::new(1e-3)))
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64()
}
