//! Trains a sigmoid perceptron, on the digits that ship with the crate or on a CSV of yours, and
//! validates, tests and saves its average.
//!
//! ```text
//! cargo run --example train
//! cargo run --example train --features wgpu
//! cargo run --example train -- --data table.csv --target price
//! ```

use std::{io::IsTerminal, path::PathBuf};

use anyhow::{Result, bail, ensure};
use burn::{
    lr_scheduler::constant::ConstantLr,
    module::Module,
    train::{
        SupervisedTraining,
        metric::{AccuracyMetric, LossMetric},
    },
};
use burn_ema::{
    AverageConfig, Error, Rule,
    data::{Prepared, Table, Task, TaskKind, digits, loader},
    device,
    model::{Activation, MlpConfig},
    report::{Report, Scores},
    run::{Optimizer, RunConfig, RunDirectory},
    train::{Averaged, ProgressLines, fit},
};
use clap::{Parser, ValueEnum};

#[derive(Parser)]
#[command(about = "Train a sigmoid perceptron; validate, test and save its average")]
struct Args {
    /// Passes over the training split [default: 40]
    #[arg(long)]
    epochs: Option<usize>,
    /// Rows in a batch [default: 8]
    #[arg(long)]
    batch_size: Option<usize>,
    /// Learning rate [default: 0.02 with Adam, 2 with SGD]
    #[arg(long, allow_negative_numbers = true)]
    lr: Option<f64>,
    /// How the weights are moved [default: adam]
    #[arg(long)]
    optimizer: Option<Moved>,
    /// The rule of an average, such as "power(sigma_rel=0.1)" or "ema(0.99)"; several make several
    /// averages, of which the first validates, and the best by validation loss is saved
    /// [default: a decay of 0.999, less for a short training]
    #[arg(long, value_name = "RULE", value_parser = rule, allow_negative_numbers = true)]
    average: Vec<Rule>,
    /// The share of an average that one step keeps, in [0, 1), with bias correction: the rule
    /// "ema(DECAY, debias)"; several make several averages, before those of --average
    #[arg(long, value_name = "DECAY", value_parser = rule, allow_negative_numbers = true)]
    decay: Vec<Rule>,
    /// What the split, the first weights and the order of the rows are drawn from [default: 1]
    #[arg(long)]
    seed: Option<u64>,
    /// A CSV file with a header, all of whose columns but the target are numbers; without it, the
    /// digits that ship with the crate
    #[arg(long, requires = "target")]
    data: Option<PathBuf>,
    /// The column of the CSV to learn
    #[arg(long, requires = "data")]
    target: Option<String>,
    /// What the target is [default: classes for text and for few whole numbers]
    #[arg(long, requires = "data")]
    task: Option<Learned>,
    /// The device, such as flex, ndarray or wgpu; else BURN_DEVICE, else the Cargo features decide
    #[arg(long)]
    device: Option<String>,
    /// The directory of the run
    #[arg(long, default_value = "artifacts/runs/default")]
    run: PathBuf,
    /// Go on from the last checkpoint of the run; more epochs and other averages may be given
    #[arg(long)]
    resume: bool,
    /// Remove the run that is in the directory and start anew
    #[arg(long, conflicts_with = "resume")]
    overwrite: bool,
}

impl Args {
    /// The rules of all averages that were asked for.
    fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.decay.iter().chain(&self.average)
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum Learned {
    Classification,
    Regression,
}

#[derive(Clone, Copy, ValueEnum)]
enum Moved {
    Sgd,
    Adam,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let device = device::select(args.device.as_deref())?;
    println!("device: {device}");

    // The data, and everything that decides the run.
    let saved = match args.resume {
        true => Some(RunDirectory::open(&args.run)?.config()?),
        false => None,
    };
    let seed = args.seed.or(saved.as_ref().map(|saved| saved.seed)).unwrap_or(1);
    let file = args.data.as_ref().map(|file| file.canonicalize().unwrap_or(file.clone()));
    let file = file.or(saved.as_ref().and_then(|saved| saved.data.clone()));
    let target = args.target.as_deref().or(saved.as_ref().map(|s| s.preparation.target()));
    let table = match (&file, target) {
        (Some(file), Some(target)) => match args.task {
            None => Table::read(file, target)?,
            Some(Learned::Classification) => {
                Table::read_as(file, target, TaskKind::Classification)?
            }
            Some(Learned::Regression) => Table::read_as(file, target, TaskKind::Regression)?,
        },
        _ => digits()?,
    };
    let data = Prepared::new(&table, seed)?;
    data.notes.iter().for_each(|note| println!("note: {note}"));
    match data.preparation.task() {
        Task::Classification { labels } => println!("task: {} classes", labels.len()),
        Task::Regression { scale } => println!(
            "task: regression; losses are half squares of errors in units of {}, the deviation",
            scale.divisor
        ),
    }
    let config = RunConfig { data: file, ..configure(&args, saved.as_ref(), &data, seed)? };

    config.check()?;

    // The live model with its averages.
    device.device.seed(config.seed);
    let live = config.model.init(&device.device)?;
    let steps_per_epoch = data.train.len().div_ceil(config.batch_size.max(1));
    let averages = config.averages.iter().map(|average| {
        let average = average.clone().with_steps_per_epoch(Some(steps_per_epoch as u64));
        let average = average.with_samples_per_step(Some(config.batch_size as u64));
        average.with_total_steps(Some((steps_per_epoch * config.epochs) as u64))
    });
    let model = Averaged::new(live, averages)?
        .with_samples(|batch| batch.inputs.dims()[0] as u64)
        .allow_added(args.resume && args.rules().next().is_some())
        .allow_dropped(args.resume && args.rules().next().is_some());
    println!("model: {:?}, {} parameters", config.model.sizes, model.num_params());
    println!(
        "rows: {} train, {} valid, {} test",
        data.train.len(),
        data.valid.len(),
        data.test.len()
    );

    // The run's directory, never over an older run unless told so.
    let run = match RunDirectory::open(&args.run) {
        Ok(run) if args.resume => run,
        Ok(run) if args.overwrite => run.replace(&config)?,
        Ok(_) => bail!(
            "{} holds a run: --resume goes on with it, --overwrite replaces it, and --run names \
             another directory",
            args.run.display()
        ),
        Err(_) => RunDirectory::create(&args.run, &config)?,
    };
    println!("run: {}", run.path().display());
    model.take_warnings().iter().for_each(|warning| println!("warning: {warning}"));
    let last = if args.resume { run.last_epoch()? } else { None };
    match last {
        Some(epoch) if run.is_finished() && epoch >= config.epochs => {
            bail!("the run has its {epoch} epochs; give it more with --epochs")
        }
        Some(epoch) => {
            run.check_checkpoint(epoch, model.clone())?;
            run.write_config(&config)?;
            println!("resuming after epoch {epoch}");
            let before = saved.iter().flat_map(|saved| &saved.averages);
            for average in &config.averages {
                let rule = &average.rule;
                match before.clone().any(|before| before.rule == *rule) {
                    true => println!("average {rule}: goes on"),
                    false => println!("average {rule}: starts from the live weights"),
                }
            }
            for AverageConfig { rule, .. } in before {
                if !config.averages.iter().any(|average| average.rule == *rule) {
                    println!("average {rule}: dropped");
                }
            }
        }
        None if args.resume && run.is_finished() => {
            bail!("the checkpoints of the run are gone; --overwrite starts it anew")
        }
        None if args.resume => println!("no checkpoint yet: starting from the beginning"),
        None => {}
    }

    // Burn's training, which validates the first average.
    // Another order of the rows after a resume; else the first epochs' orders would come again.
    let order = config.seed.wrapping_add(last.unwrap_or(0) as u64);
    let load = |rows, shuffle| loader(rows, config.batch_size, shuffle, &device.device);
    let valid = load(data.valid, None)?;
    let mut training =
        SupervisedTraining::new(run.path(), load(data.train, Some(order))?, valid.clone())
            .num_epochs(config.epochs)
            .with_default_checkpointers()
            .metrics((LossMetric::new(),))
            .metric_valid_numeric(model.live_metric(LossMetric::new()));
    if let Task::Classification { .. } = config.preparation.task() {
        training = training
            .metrics((AccuracyMetric::new(),))
            .metric_valid_numeric(model.live_metric(AccuracyMetric::new()));
    }
    for index in 1..config.averages.len() {
        training = training.metric_valid_numeric(model.average_metric(index, LossMetric::new())?);
    }
    if !(cfg!(feature = "tui") && std::io::stdout().is_terminal()) {
        training = training.renderer(Box::new(ProgressLines::new(std::io::stderr())));
    }
    if let Some(epoch) = last {
        training = training.checkpoint(epoch);
    }
    let lr = ConstantLr::new(config.lr);
    let result = fit(training, model, config.optimizer.init(), lr);
    let diverged = "the training diverged: try a smaller --lr";
    let model = match result {
        Err(error @ Error::NonFinite { .. }) => bail!(anyhow::Error::new(error).context(diverged)),
        result => result?.model,
    };
    model.take_warnings().iter().for_each(|warning| println!("warning: {warning}"));

    // The best average by validation, and what each gained on rows that nothing was chosen by.
    let ranking = model.rank(|mlp| Ok(Scores::of(mlp, &*valid)?.loss))?;
    let best = ranking.best;
    let report = Report::of(&model, ranking, &*load(data.test, None)?, &device, config.seed)?;
    ensure!(report.live.loss.is_finite(), diverged);
    run.write_model(model.average(best)?)?;
    run.write_json("report.json", &report)?;
    println!("\n{report}\n");
    let name = report.validation.best_name();
    if report.validation.live < report.validation.averages[best].1 {
        println!("note: in validation, live does better than every average");
    }
    println!("{name} saved in {}; to use it:", run.path().display());
    println!("  cargo run --example infer -- --run {}", run.path().display());
    Ok(())
}

/// The configuration of a new run, or that of a run that goes on.
fn configure(
    args: &Args,
    saved: Option<&RunConfig>,
    data: &Prepared,
    seed: u64,
) -> Result<RunConfig> {
    let preparation = data.preparation.clone();
    let average = |rule| AverageConfig::new(rule);
    let averages: Vec<_> = args.rules().cloned().map(average).collect();
    let optimizer = args.optimizer.map(|moved| match moved {
        Moved::Sgd => Optimizer::Sgd,
        Moved::Adam => Optimizer::Adam,
    });
    if let Some(saved) = saved {
        let same = |what: &str, same: bool| {
            ensure!(same, "{what} differs from that of the run, which cannot change");
            Ok(())
        };
        same("--seed", seed == saved.seed)?;
        same("--batch-size", args.batch_size.is_none_or(|size| size == saved.batch_size))?;
        same("--lr", args.lr.is_none_or(|lr| lr == saved.lr))?;
        same("--optimizer", optimizer.is_none_or(|optimizer| optimizer == saved.optimizer))?;
        same("the data", preparation == saved.preparation)?;
        let epochs = args.epochs.unwrap_or(saved.epochs);
        ensure!(epochs >= saved.epochs, "the run has {} epochs, which can only grow", saved.epochs);
        let averages = if averages.is_empty() { saved.averages.clone() } else { averages };
        return Ok(RunConfig { epochs, averages, ..saved.clone() });
    }
    let output = match preparation.task() {
        Task::Classification { .. } => Activation::Sigmoid,
        Task::Regression { .. } => Activation::Identity,
    };
    let sizes = vec![preparation.inputs(), 64, preparation.outputs()];
    let optimizer = optimizer.unwrap_or(Optimizer::Adam);
    let lr = args.lr.unwrap_or(if optimizer == Optimizer::Adam { 0.02 } else { 2.0 });
    let (epochs, batch_size) = (args.epochs.unwrap_or(40), args.batch_size.unwrap_or(8));
    let steps = epochs * data.train.len().div_ceil(batch_size.max(1));
    Ok(RunConfig {
        model: MlpConfig::new(sizes).with_output(output),
        preparation,
        averages: match averages.is_empty() {
            true => vec![average(Rule::debiased(decay_for(steps)))],
            false => averages,
        },
        optimizer,
        lr,
        epochs,
        batch_size,
        data: None,
        seed,
    })
}

/// A rule, or a decay with bias correction, so that the first epochs' averages already mean
/// something.
fn rule(text: &str) -> Result<Rule, burn_ema::Error> {
    match text.parse::<f64>() {
        Ok(decay) => format!("ema({decay}, debias)").parse(),
        Err(_) => text.parse(),
    }
}

/// The decay for a training of this length: 0.999, but an average that remembers at most a fifth
/// of the steps.
fn decay_for(steps: usize) -> f64 {
    let most = 1.0 - 5.0 / (steps as f64).max(10.0);
    (most * 1e3).round().min(999.0) / 1e3
}
