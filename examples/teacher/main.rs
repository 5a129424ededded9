//! What a teacher gains with few labels (Tarvainen and Valpola 2017, "Mean teachers are better
//! role models"): digits, over several seeds, by Burn's Learner, in runs that go on where they were
//! after Ctrl-C or a kill: `cargo run --example teacher`.

#[macro_use]
#[path = "../shared/mod.rs"]
mod shared; // `println!` to a reader that may leave
#[path = "../shared/table.rs"]
mod columns; // columns, or Markdown
mod labels; // rows of which few have a label
#[path = "../shared/statistics.rs"]
mod statistics; // means, intervals, p values of many tests
mod table; // the trainings, their differences by seed, what of these is more than chance

use std::{io::sink, path::PathBuf};

use anyhow::{Context as _, Result, ensure};
use burn::module::{Module, RunningState};
use burn::tensor::{Distribution, Tensor, activation};
use burn::train::{InferenceStep, SupervisedTraining, TrainOutput, TrainStep, metric};
use burn::{lr_scheduler::constant::ConstantLr, optim::AdamConfig};
use burn_ema::model::{Activation, Answers, Batch, Mlp, MlpConfig, half_squared_errors};
use burn_ema::runs::{CommitConfig, ProgressLines, fit};
use burn_ema::{AverageConfig, Rule, train::Averaged};
use burn_ema_lab::data::{Prepared, digits, loader};
use burn_ema_lab::{device, report::Scores};
use clap::Parser;

use self::labels::few_labels;
use self::table::{By, Training, compare};

/// Tensors come and go at every step.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BATCH: usize = 64;
const RATE: f64 = 0.01;
const RAMP: f64 = 300.0; // the steps over which the weight of consistency rises

#[derive(Parser)]
#[command(allow_negative_numbers = true)]
#[command(about = "Learn digits from few labels, and from outputs that are consistent under noise")]
#[command(after_help = "\
Accuracies are means over the seeds with the standard deviation, those of the student and of its
average, which is the teacher. Differences are by seed, in points, with their 95 % interval: from
the same model of the training by labels alone, from that by the student's own answers with the same
weight, and from the student. `gain` and `harm` are more than chance (Student's t test of five seeds
or more, Holm's correction over the table, 0.05).")]
struct Args {
    /// The trainings of each row of the table
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=1000))]
    seeds: u64,
    /// The first seed; a seed decides the split, the labels, the first weights, order and noise
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(..=1 << 32))]
    first_seed: u64,
    /// A weight of consistency, tried in trainings of its own; it may be given several times
    #[arg(long, default_values_t = [1.0, 3.0, 10.0, 100.0], value_parser = not_negative)]
    weight: Vec<f64>,
    /// The labels of each class
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=100))]
    labels: u64,
    /// The deviation of the noise on the pixels, which are in [0, 1]
    #[arg(long, default_value_t = 0.3, value_parser = not_negative)]
    noise: f64,
    /// The rule of the average
    #[arg(long, value_name = "RULE", default_value = "ema(0.99, debias)")]
    average: Rule,
    /// Passes over the training split
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    epochs: u64,
    /// Show accuracies on the validation split, to choose settings by, and not on the test split
    #[arg(long)]
    valid: bool,
    /// The directory of the runs; those that are there go on where they were
    #[arg(long, value_name = "DIR", default_value = "artifacts/runs/teacher")]
    run: PathBuf,
    /// Print the table in Markdown
    #[arg(long)]
    markdown: bool,
    /// The device, such as flex, ndarray or wgpu, or ws://HOST:PORT for a server of Burn's remote
    /// backend (Cargo feature `remote`); else BURN_DEVICE, else the Cargo features decide
    #[arg(long)]
    device: Option<String>,
}

fn not_negative(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number: &f64| number.is_finite() && *number >= 0.0);
    number.ok_or_else(|| "expected a number of 0 or more".to_owned())
}

/// The network that learns, with the state of its loss.
#[derive(Module, Debug)]
struct Student {
    net: Mlp,
    /// The steps so far. Records hold this state, so that the ramp goes on with the run.
    steps: RunningState<Tensor<1>>,
    #[module(skip)]
    noise: f64,
}

impl Student {
    /// The cross-entropy of the rows that have a label; and with a weight, the half squared
    /// difference of every row's probabilities from those of a model under other noise.
    fn learn(&self, batch: Batch, consistency: Option<(&Self, f64)>) -> TrainOutput<Answers> {
        let Batch { inputs, targets } = batch;
        let noise = || inputs.random_like(Distribution::Normal(0.0, self.noise));
        let outputs = self.net.forward(inputs.clone() + noise());
        // The targets of a row without a label are zeros.
        let shares = activation::log_softmax(outputs.clone(), 1) * targets.clone();
        let mut loss = -shares.sum_dim(1).squeeze_dim::<1>(1);
        if let Some((other, weight)) = consistency {
            let steps = self.steps.value_sync();
            self.steps.update(steps.clone() + 1);
            let left = (steps / RAMP).clamp_max(1).neg() + 1;
            let ramp = Tensor::from_inner((left.clone() * left * -5).exp());
            let wanted = other.net.forward(inputs.clone() + noise()).detach();
            let [own, wanted] = [outputs.clone(), wanted].map(|it| activation::softmax(it, 1));
            loss = loss + half_squared_errors(own, wanted) * ramp * weight;
        }
        TrainOutput::new(self, loss.clone().mean().backward(), Answers { loss, outputs, targets })
    }
}

impl TrainStep for Student {
    type Input = Batch;
    type Output = Answers;
    fn step(&self, batch: Batch) -> TrainOutput<Answers> {
        self.learn(batch, None)
    }
}

impl InferenceStep for Student {
    type Input = Batch;
    type Output = Answers;
    fn step(&self, batch: Batch) -> Answers {
        InferenceStep::step(&self.net, batch)
    }
}

/// Trains, from where the run is, for the accuracies of the student and of its average, in percent.
fn train(
    args: &Args,
    device: &device::Selected,
    (seed, data): (u64, &Prepared),
    Training { by, weight }: Training,
) -> Result<[f64; 2]> {
    let (backend, device) = (device.to_string(), &device.device);
    device.seed(seed);
    let config = MlpConfig::new(vec![64, 64, 10]).with_hidden(Activation::Relu);
    let net = config.with_output(Activation::Identity).init(device)?;
    let steps = RunningState::new(Tensor::zeros([1], device));
    let student = Student { net, steps, noise: args.noise };
    let rows = few_labels(&data.train, args.labels, seed);
    let average = AverageConfig::new(args.average.clone())
        .with_steps_per_epoch(Some(rows.len().div_ceil(BATCH) as u64))
        .with_samples_per_step(Some(BATCH as u64));
    let mut model = Averaged::new(student, [average])?;
    if by != By::Labels {
        model = model.with_teacher(0, move |student: &Student, teacher, batch| {
            let other = if by == By::Teacher { teacher } else { student };
            student.learn(batch, Some((other, weight)))
        })?;
    }
    let run = args.run.join(format!("{}-{weight}-{seed}", by.name().replace(' ', "-")));
    let few = loader(rows, BATCH, Some(seed), device)?;
    let [valid, test] = [&data.valid, &data.test].map(|it| loader(it.clone(), 512, None, device));
    let (valid, test) = (valid?, test?);
    let burns = SupervisedTraining::new(&run, few, valid.clone())
        .num_epochs(args.epochs as usize)
        .metric_train_numeric(metric::LossMetric::new())
        .metric_valid_numeric(metric::AccuracyMetric::new())
        .with_application_logger(None)
        .renderer(Box::new(ProgressLines::new(sink())));
    let decides = serde_json::json!({ "labels": args.labels, "noise": args.noise,
        "epochs": args.epochs, "backend": backend, "constants": [BATCH as f64, RATE, RAMP] });
    let commits = CommitConfig::new(&run).with_config(&decides)?.with_seed(seed).without_best();
    let fit = fit(burns, model, AdamConfig::new().init(), ConstantLr::new(RATE));
    let fit = fit.with_commits(commits)?.resume().context("--run names another directory")?;
    fit.resumed().iter().flat_map(|it| &it.passed_over).for_each(|it| eprintln!("warning: {it}"));
    let model = fit.launch()?.model;
    model.take_warnings().iter().for_each(|it| eprintln!("warning: {it}"));
    let split = if args.valid { valid } else { test };
    let scores = |net: &Mlp| Scores::of(net, &*split);
    let percent = |scores: Scores| 100.0 * scores.accuracy.unwrap_or(f64::NAN);
    Ok([scores(&model.live().valid().net)?, scores(&model.average(0)?.net)?].map(percent))
}

fn main() -> Result<()> {
    let args = Args::parse();
    for (index, weight) in args.weight.iter().enumerate() {
        let is_new = !args.weight[..index].contains(weight);
        ensure!(is_new, "--weight {weight} is given twice: each weight is one training a seed");
    }
    let device = device::select(args.device.as_deref())?;
    eprintln!("device: {device}\nruns: {}", args.run.display());
    let (digits, trainings) = (digits()?, Training::all(&args.weight));
    let mut accuracies = vec![vec![]; trainings.len()];
    for seed in (args.first_seed..).take(args.seeds as usize) {
        let data = Prepared::new(&digits, seed)?;
        for (training, accuracies) in trainings.iter().zip(&mut accuracies) {
            let both = train(&args, &device, (seed, &data), *training)
                .with_context(|| format!("seed {seed}, {training}"))?;
            eprintln!("seed {seed}, {training}: {:.1} %, the average {:.1} %", both[0], both[1]);
            accuracies.push(both);
        }
    }
    print!("{}", compare(&trainings, &accuracies, args.markdown));
    Ok(())
}
