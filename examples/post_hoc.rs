//! Chooses the width of an average after the training: two averages are stored from time to time,
//! and those of other widths, and of other kinds, are made of them.
//!
//! ```text
//! cargo run --example post_hoc
//! cargo run --example post_hoc -- --from artifacts/runs/post_hoc --widths 0.17,0.18,0.19
//! ```
//!
//! The second line trains nothing: the snapshots that the first has left are enough.
//!
//! A training that was stopped does not go on here, and no signal is caught: `--overwrite` starts it
//! anew. The example `train` has both.

#[macro_use]
mod shared; // `println!` to a reader that may leave

use std::{fs, path::PathBuf};

use anyhow::{Result, bail};
use burn::lr_scheduler::constant::ConstantLr;
use burn::tensor::{Device, FloatDType};
use burn::train::{SupervisedTraining, metric::LossMetric};
use burn_ema::average::post_hoc::{Solve, Target};
use burn_ema::average::{Snapshots, save_file};
use burn_ema::model::{Mlp, MlpConfig};
use burn_ema::{AverageConfig, Rule};
use burn_ema::{
    runs::{ProgressLines, fit},
    train::Averaged,
};
use burn_ema_lab::data::{Prepared, digits, loader};
use burn_ema_lab::device;
use burn_ema_lab::report::Scores;
use burn_ema_lab::run::{OptimizerKind, RunConfig, RunDirectory};
use clap::Parser;

/// Tensors come and go at every step.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The widths that are averaged during the training; two are enough for all others.
const TRACKED: [f64; 2] = [0.05, 0.1];
/// At least so many times they are stored, evenly, and the last time after the last step.
const TIMES: usize = 40;

#[derive(Parser)]
#[command(
    about = "Train on digits, store averages, and choose the width of the average afterwards",
    after_help = "A training that was stopped, by Ctrl-C or otherwise, does not go on here: \
                  --overwrite starts it anew. The example `train` stops in order and has --resume."
)]
struct Args {
    /// The widths to make, each as a share of the training
    #[arg(long, value_delimiter = ',', value_parser = width, allow_negative_numbers = true)]
    #[arg(default_value = "0.02,0.03,0.04,0.05,0.07,0.1,0.13,0.16,0.2,0.25")]
    widths: Vec<f64>,
    /// Choose again among averages of the snapshots of this run, without training; the best one
    /// replaces its model
    #[arg(long, value_name = "DIR")]
    #[arg(conflicts_with_all = ["run", "overwrite", "epochs", "seed"])]
    from: Option<PathBuf>,
    /// The directory of the run
    #[arg(long, value_name = "DIR", default_value = "artifacts/runs/post_hoc")]
    run: PathBuf,
    /// Remove the run that is in the directory, with its snapshots, and start anew
    #[arg(long)]
    overwrite: bool,
    /// Passes over the training split
    #[arg(long, default_value_t = 40)]
    epochs: usize,
    /// The seed of the split, the first weights and the order of the rows
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The device, such as flex, ndarray or wgpu, or ws://HOST:PORT for a server of Burn's remote
    /// backend (Cargo feature `remote`); else BURN_DEVICE, else the Cargo features decide
    #[arg(long)]
    device: Option<String>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let device = device::select(args.device.as_deref())?;
    println!("device: {device}");
    let device = device.device;
    let run = match &args.from {
        // Its model is replaced, so that no one else may write there.
        Some(from) => RunDirectory::resume(from)?,
        None => start(&args)?,
    };
    println!("run: {}", run.path().display());
    let config = run.config()?;
    let data = Prepared::new(&digits()?, config.seed)?;
    let trained = match args.from {
        Some(_) => None,
        None => Some(train(&run, &config, &data, &device)?),
    };

    // What was stored.
    let snapshots = Snapshots::open(run.path().join("snapshots"))?;
    let stored = snapshots.list()?;
    let late = (stored.len() * 3 / 4).saturating_sub(1);
    let [Some(last), Some(late)] = [stored.last(), stored.get(late)] else {
        bail!("{} holds no snapshots", snapshots.directory().display())
    };
    let sizes = stored.iter().map(|snapshot| Ok(fs::metadata(&snapshot.path)?.len()));
    let size = sizes.sum::<Result<u64>>()? as f64 / 1e3;
    let (files, of_each) = (stored.len(), size / stored.len() as f64);
    println!("snapshots: {files} files of {of_each:.1} kB, {size:.0} kB together\n");

    // What is made of it, judged by rows that were not trained on.
    let steps = last.stored.step;
    // From one stored step to another: the edge of a window cannot be made in between.
    let quarter = steps - late.stored.step;
    let others = [
        Target::Constant { decay: (1e4 * (1.0 - 10.0 / steps)).round() / 1e4 },
        Target::Window { steps: quarter },
        Target::Sqrt { steps: quarter },
    ];
    let widths = args.widths.iter().map(|&sigma_rel| Target::PowerFunction { sigma_rel });
    let targets: Vec<_> = widths.chain(others).collect();
    let valid = loader(data.valid, config.batch_size, None, &device)?;
    let loss = |mlp: &Mlp| Ok::<_, burn_ema::Error>(Scores::of(mlp, &*valid)?.loss);
    let structure = config.model.init(&device)?;
    let grid = snapshots.evaluate(&structure, &targets, None, Solve::Published, loss)?;

    let header = ["error", "noise gain", "validation loss", "test loss"];
    println!("{:24}  {:>8}  {:>10}  {:>15}  {:>9}", "", header[0], header[1], header[2], header[3]);
    if let Some(model) = trained {
        let ranking = model.rank(loss)?;
        let live = ("live".to_owned(), ranking.live);
        for (name, loss) in [live].into_iter().chain(ranking.averages) {
            println!("{name:24}  {:>20}  {loss:>15.6}", "as trained");
        }
    }
    for (index, tried) in grid.tried.iter().enumerate() {
        print!("{:24}  ", tried.target.to_string());
        match &tried.outcome {
            Ok((loss, mix)) => {
                let (error, gain) = (mix.relative_error(), mix.noise_gain());
                print!("{error:>8.1e}  {gain:>10.2}  {loss:>15.6}");
            }
            Err(error) => print!("not made: {error}"),
        }
        // The test split has its say on the chosen one alone.
        if index == grid.best {
            let test = loader(data.test.clone(), config.batch_size, None, &device)?;
            print!("  {:>9.6}  best", Scores::of(&grid.module, &*test)?.loss);
        }
        println!();
    }
    let target = &grid.tried[grid.best].target;
    save_file(&grid.module, run.model_file(), &format!("{target}, post-hoc"))?;
    println!("\n{target} saved in {}; to use it:", run.path().display());
    println!("  cargo run --example infer -- --run {}", run.path().display());
    Ok(())
}

/// A new run of the `train` example's default training, but with averages by power functions;
/// never over an older one without `--overwrite`.
fn start(args: &Args) -> Result<RunDirectory> {
    let table = digits()?;
    let preparation = Prepared::new(&table, args.seed)?.preparation;
    let config = RunConfig {
        model: MlpConfig::new(vec![preparation.inputs(), 64, preparation.outputs()]),
        preparation,
        averages: TRACKED.map(|width| AverageConfig::new(Rule::power_function(width))).to_vec(),
        optimizer: OptimizerKind::Adam,
        lr: 0.02,
        epochs: args.epochs,
        batch_size: 8,
        data: None,
        data_sha256: table.sha256(),
        seed: args.seed,
        commit_every: None,
        keep_every: None,
    };
    if RunDirectory::open(&args.run).is_err() {
        return Ok(RunDirectory::create(&args.run, &config)?);
    }
    if !args.overwrite {
        let run = args.run.display();
        bail!("{run} holds a run: --from uses its snapshots, --overwrite replaces it")
    }
    Ok(RunDirectory::replace(&args.run, &config)?)
}

/// Burn's training, which stores the averages on the way.
fn train(
    run: &RunDirectory,
    config: &RunConfig,
    data: &Prepared,
    device: &Device,
) -> Result<Averaged<Mlp>> {
    let steps = config.epochs * data.train.len().div_ceil(config.batch_size);
    let every = (1..=steps / TIMES).rev().find(|every| steps.is_multiple_of(*every)).unwrap_or(1);
    let snapshots = Snapshots::create(run.path().join("snapshots"), FloatDType::F16)?;
    device.seed(config.seed);
    let model = Averaged::new(config.model.init(device)?, config.averages.clone())?;
    let model = model.with_snapshots(snapshots, every as u64)?;

    let train = loader(data.train.clone(), config.batch_size, Some(config.seed), device)?;
    let valid = loader(data.valid.clone(), config.batch_size, None, device)?;
    let training = SupervisedTraining::new(run.path(), train, valid)
        .num_epochs(config.epochs)
        .metrics((LossMetric::new(),))
        .metric_valid_numeric(model.live_metric(LossMetric::new()))
        .renderer(Box::new(ProgressLines::new(std::io::stderr())));
    let fit = fit(training, model, config.optimizer.init(), ConstantLr::new(config.lr));
    Ok(fit.with_commits(run.commit_config(config)?)?.launch()?.model)
}

/// A width that a power function can have.
fn width(text: &str) -> Result<f64> {
    let width = text.trim().parse()?;
    Rule::gamma_of(width)?;
    Ok(width)
}
