//! Trains a sigmoid perceptron, on the digits that ship with the crate or on a CSV of yours, and
//! validates, tests and saves its average.
//!
//! ```text
//! cargo run --example train
//! cargo run --example train --features wgpu
//! cargo run --example train -- --data table.csv --target price
//! cargo run --example train -- --data table.csv --target price --delimiter ';' --missing mean
//! cargo run --example train -- --resume
//! ```
//!
//! It ends with code 0, also where a resumed run had nothing left to do; 1 on an error, 2 on a
//! misused option; 130, 143 or 129 when SIGINT, SIGTERM or SIGHUP stopped it, after a commit, and 1
//! when Burn's dashboard (`--features tui`, keys q and s) did.

mod reading; // the options for how a CSV is read
#[macro_use]
mod shared; // `println!` to a reader that may leave

use std::{
    fmt::{self, Display},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::{Context, Result, bail, ensure};
use burn::{
    lr_scheduler::constant::ConstantLr,
    module::Module,
    train::{
        LearningResult, SupervisedTraining,
        metric::{AccuracyMetric, LossMetric},
    },
};
#[cfg(feature = "tui")]
use burn_ema::train::Dashboard;
use burn_ema::{
    AverageConfig, Error, Rule,
    average::Description,
    model::{Activation, MlpConfig},
    runs::{Change, Progress, ProgressLines, Signal, Signals, fit},
    train::Averaged,
};
use burn_ema_lab::{
    data::{Prepared, Table, Task, TaskKind, digits, loader},
    device,
    report::{Page, Report, Scores, Summary},
    run::{OptimizerKind, RunConfig, RunDirectory},
};
use clap::{ArgGroup, Parser, ValueEnum};

/// Tensors come and go at every step.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(about = "Train a sigmoid perceptron; validate, test and save its average")]
// A run that goes on has its data and its target already.
#[command(group = ArgGroup::new("rows").args(["data", "resume"]).multiple(true))]
#[command(group = ArgGroup::new("column").args(["target", "resume"]).multiple(true))]
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
    /// [default: what `AverageConfig::suggest` gives for the steps]
    #[arg(long, value_name = "RULE", value_parser = rule, allow_negative_numbers = true)]
    average: Vec<Rule>,
    /// The share of an average that one step keeps, in [0, 1), with bias correction: the rule
    /// "ema(DECAY, debias)"; several make several averages, before those of --average
    #[arg(long, value_name = "DECAY", value_parser = rule, allow_negative_numbers = true)]
    decay: Vec<Rule>,
    /// What the split, the first weights and the order of the rows are drawn from [default: 1]
    #[arg(long)]
    seed: Option<u64>,
    /// A CSV file, gzip too, whose columns are numbers, true and false, yes and no, or some texts,
    /// each of which is an input; those that only number the rows are left out; without it, the
    /// digits that ship with the crate
    #[arg(long, requires = "column")]
    data: Option<PathBuf>,
    /// The column of the CSV to learn
    #[arg(long, requires = "rows")]
    target: Option<String>,
    /// What the target is [default: classes for text and for few whole numbers]
    #[arg(long, requires = "rows")]
    task: Option<Learned>,
    #[command(flatten)]
    reading: reading::ReadingArgs,
    /// The device, such as flex, ndarray or wgpu; else BURN_DEVICE, else the Cargo features decide
    #[arg(long)]
    device: Option<String>,
    /// The directory of the run
    #[arg(long, default_value = "artifacts/runs/default")]
    run: PathBuf,
    /// Go on from the newest commit of the run, as it was begun: more epochs, other averages and
    /// another --commit-every may be given. With --data and --target, begin it where there is none
    #[arg(long)]
    resume: bool,
    /// Commit within epochs too, after so many steps, and not at the end of each alone; 0 for the
    /// ends alone [default: that of the run with --resume, else 0]
    #[arg(long, value_name = "STEPS")]
    commit_every: Option<u64>,
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

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Learned {
    Classification,
    Regression,
}

impl Learned {
    /// The option that stands for the task of a run.
    fn of(task: &Task) -> Self {
        match task {
            Task::Classification { .. } => Self::Classification,
            Task::Regression { .. } => Self::Regression,
        }
    }

    fn kind(self) -> TaskKind {
        match self {
            Self::Classification => TaskKind::Classification,
            Self::Regression => TaskKind::Regression,
        }
    }
}

impl Display for Learned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value();
        f.write_str(value.as_ref().map_or("", |value| value.get_name()))
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum Moved {
    Sgd,
    Adam,
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let device = device::select(args.device.as_deref())?;
    println!("device: {device}");

    // The data, and everything that decides the run.
    let older = RunDirectory::open(&args.run);
    let begun = older.is_ok();
    let (saved, committed) = match older {
        Ok(older) if args.resume => {
            let (saved, committed) = (older.config(), older.committed_config()?);
            let saved = match committed.is_some() {
                true => saved.context(
                    "the configuration of the run cannot be used: delete its config.json, and \
                     --resume takes the one in the last commit",
                )?,
                false => saved?,
            };
            (Some(saved), committed)
        }
        // The digits are begun by a command without --resume, so that a slip in --run begins none.
        Err(error) if args.resume && args.data.is_none() => {
            return Err(error).with_context(|| {
                format!(
                    "--resume finds no run in {} and no --data to begin one with; without \
                     --resume a run of the digits begins",
                    args.run.display()
                )
            });
        }
        _ => (None, None),
    };
    if let Some(saved) = &saved {
        same_data(&args, saved)?;
    }
    let seed = args.seed.or(saved.as_ref().map(|saved| saved.seed)).unwrap_or(1);
    let file = args.data.as_ref().map(|file| file.canonicalize().unwrap_or(file.clone()));
    let file = file.or(saved.as_ref().and_then(|saved| saved.data.clone()));
    let target = args.target.as_deref().or(saved.as_ref().map(|s| s.preparation.target()));
    let task = args.task.or(saved.as_ref().map(|saved| Learned::of(saved.preparation.task())));
    let reading = args.reading.reading(saved.as_ref().map(|saved| saved.preparation.reading()))?;
    let table = match (&file, target) {
        (Some(file), Some(target)) => {
            Table::read_with(file, target, task.map(Learned::kind), &reading)?
        }
        (Some(_), None) => bail!("--data needs --target, the column to learn, to begin a run"),
        (None, _) => {
            ensure!(
                !args.reading.is_given(),
                "--delimiter, --no-header, --drop and --missing say how the CSV of --data is read"
            );
            digits()?
        }
    };
    let data = Prepared::new(&table, seed)?;
    match data.preparation.task() {
        Task::Classification { labels } => println!("task: {} classes", labels.len()),
        Task::Regression { scale } => println!(
            "task: regression; losses are half squares of errors in units of {}, the deviation",
            scale.divisor
        ),
    }
    let configured = configure(&args, saved.as_ref(), &data, table.sha256(), seed)?;
    let config = RunConfig { data: file, ..configured };

    config.check()?;

    // Other averages than those of the newest commit, now or before a resume that did not come far.
    let averages = |config: &RunConfig| serde_json::to_value(&config.averages);
    let changes_averages = match &committed {
        Some(committed) => averages(committed)? != averages(&config)?,
        None => false,
    };

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
        .with_loss_guard()
        .with_samples(|batch| batch.inputs.dims()[0] as u64)
        .allow_added(changes_averages)
        .allow_dropped(changes_averages);
    println!("model: {:?}, {} parameters", config.model.sizes, model.num_params());
    let rows = [&data.train, &data.valid, &data.test].map(Vec::len);
    let [train, valid, test] = rows;
    println!("rows: {train} train, {valid} valid, {test} test");

    // The run's directory, never over an older run unless told so.
    let run = match (begun, args.resume, args.overwrite) {
        (true, true, _) => RunDirectory::resume(&args.run)?,
        (true, _, true) => RunDirectory::replace(&args.run, &config)?,
        (true, ..) => bail!(
            "{} holds a run: --resume goes on with it, --overwrite replaces it, and --run names \
             another directory",
            args.run.display()
        ),
        (false, ..) => RunDirectory::create(&args.run, &config)?,
    };
    println!("run: {}", run.path().display());
    // Told here, and on the report's page.
    let tell = |line: String| {
        println!("{line}");
        run.note(line)
    };
    if config.data.is_some() {
        run.write_json("split.json", &data.split)?;
    }
    data.notes.iter().try_for_each(|note| tell(format!("note: {note}")))?;
    model.take_warnings().iter().try_for_each(|warning| tell(format!("warning: {warning}")))?;

    // Burn's training, which validates the first average.
    let load = |rows, shuffle| loader(rows, config.batch_size, shuffle, &device.device);
    let valid = load(data.valid, None)?;
    let mut training =
        SupervisedTraining::new(run.path(), load(data.train, Some(config.seed))?, valid.clone())
            .num_epochs(config.epochs)
            .metrics((LossMetric::new(),))
            .metric_train(model.trace_metric())
            .metric_valid_numeric(model.live_metric(LossMetric::new()));
    let classes = matches!(config.preparation.task(), Task::Classification { .. });
    if classes {
        training = training
            .metrics((AccuracyMetric::new(),))
            .metric_valid_numeric(model.live_metric(AccuracyMetric::new()));
    }
    for index in 0..config.averages.len() {
        training = training.metric_valid_numeric(model.distance_metric(index)?);
        // The first average has the plain metrics.
        if index > 0 {
            let loss = model.average_metric(index, LossMetric::new())?;
            training = training.metric_valid_numeric(loss);
        }
        if index > 0 && classes {
            let accuracy = model.average_metric(index, AccuracyMetric::new())?;
            training = training.metric_valid_numeric(accuracy);
        }
    }
    // Burn's dashboard where it is compiled in and someone looks, else a line an epoch, without how
    // far live is from its averages, which stands in the report.
    let lines = ProgressLines::new(std::io::stderr()).without("Distance");
    training = training.renderer(Box::new(lines));
    #[cfg(feature = "tui")]
    if std::io::IsTerminal::is_terminal(&std::io::stdout()) {
        let dashboard = Dashboard::new(training.interrupter());
        training = training.renderer(Box::new(dashboard));
    }
    // Everything is committed, so that the run can go on from wherever it ends.
    let signals = Signals::install(training.interrupter())?;
    let mut committed_as = serde_json::to_value(&config)?;
    committed_as["device"] = device.to_string().into();
    let mut commits = run
        .commit_config(&config)?
        .with_config(&committed_as)?
        .with_every_steps(config.commit_every)
        .with_change("commit_every", Change::Free)
        .with_change("data", Change::Free);
    if changes_averages {
        commits = commits.with_change("averages", Change::Free);
    }
    let lr = ConstantLr::new(config.lr);
    let mut fit =
        fit(training, model.clone(), config.optimizer.init(), lr).with_commits(commits)?;
    if args.resume {
        fit = fit.resume()?;
        if let Some(resumed) = fit.resumed() {
            for error in &resumed.passed_over {
                tell(format!("warning: {:#}", anyhow::Error::new(error.clone())))?;
            }
            println!("{resumed}");
            ensure!(
                resumed.from.is_some() || !run.is_finished(),
                "the commits of the run are gone; --overwrite starts it anew"
            );
            let is_done = |progress: Progress| progress.epochs >= config.epochs;
            // The model that was left may be older than the last commit, or damaged.
            let left =
                || Description::read(run.model_file()).is_ok_and(|m| m.step == resumed.steps);
            let is_left = run.is_finished() && left() && run.model(&device.device).is_ok();
            if is_left && resumed.from.is_some_and(is_done) {
                println!("the run has its {} epochs; --epochs gives it more", config.epochs);
                return Ok(ExitCode::SUCCESS);
            }
            if let Some(from) = resumed.from {
                let commit = run.commits().open(from)?;
                let before = commit.manifest().config["device"].as_str();
                if let Some(before) = before.filter(|before| *before != device.to_string()) {
                    tell(format!(
                        "note: until here the run was on {before}, whose numbers differ"
                    ))?;
                }
                print_changes(&config, committed.as_ref());
            }
            run.write_config(&config)?;
        }
    }
    let diverged = "the training diverged: try a smaller --lr, with --overwrite";
    let result = match fit.launch() {
        Err(error @ (Error::NonFinite { .. } | Error::RefusedStep { .. })) => {
            bail!(anyhow::Error::new(error).context(diverged))
        }
        result => result.with_context(|| {
            let run = shared::word(run.path());
            format!(
                "the training has ended; this goes on from its last commit, if there is one:\n  \
                 cargo run --example train -- --resume --run {run}"
            )
        })?,
    };
    // The dashboard leaves the terminal with its renderer; what is printed before is lost.
    let LearningResult { model, renderer, interrupted, .. } = result;
    drop(renderer);
    if interrupted.is_some() {
        return stopped(&run, signals.received());
    }
    model.take_warnings().iter().try_for_each(|warning| tell(format!("warning: {warning}")))?;

    // The best average by validation, and what each gained on rows that nothing was chosen by.
    let ranking = model.rank(|mlp| Ok(Scores::of(mlp, &*valid)?.loss))?;
    let best = ranking.best;
    let test = load(data.test, None)?;
    let report = Report::of(&model, ranking, &*test, &device, config.seed)?;
    let losses = report.averages.iter().map(|average| average.scores.loss);
    ensure!(losses.chain([report.live.loss]).all(f64::is_finite), diverged);
    if let Some(signal) = signals.received() {
        return stopped(&run, Some(signal));
    }
    let source =
        format!("{} of the run in {}", report.validation.best_name(), run.path().display());
    // The model comes last: where it is, the run is whole.
    run.write_json("report.json", &report)?;
    let summary = Summary::of(&model, best, &config.preparation, rows, &*test)?;
    run.write_json("summary.json", &summary)?;
    model.averages()[best].save_file(run.model_file(), &source)?;
    println!("\n{report}\n");
    let name = report.validation.best_name();
    if report.validation.live < report.validation.averages[best].1 {
        tell("note: in validation, live does better than every average".to_owned())?;
    }
    println!("{name} saved in {}:", run.path().display());
    println!("  model.bpk    the average, which plain Burn loads too");
    let page = run.path().join("report.html");
    match Page::of(std::slice::from_ref(&run)).and_then(|drawn| drawn.write(&page)) {
        Ok(_) => {
            println!("  report.html  what was gained, with pictures; to look at it:");
            println!("  {OPEN} {}", shared::word(&page));
        }
        // The model is there all the same.
        Err(error) => println!("warning: no report.html: {:#}", anyhow::Error::new(error)),
    }
    println!("to use it:");
    println!("  cargo run --example infer -- --run {}", shared::word(run.path()));
    match signals.received() {
        // It came when there was nothing left to stop.
        Some(signal) => stopped(&run, Some(signal)),
        None => Ok(ExitCode::SUCCESS),
    }
}

/// Says how a run goes on that was stopped, by a signal or in the dashboard, and how to end.
fn stopped(run: &RunDirectory, signal: Option<Signal>) -> Result<ExitCode> {
    let by = signal.map_or("a request".to_owned(), |signal| signal.to_string());
    let at = match run.commits().newest()?.commit {
        Some(commit) => format!("committed after {}", commit.progress()),
        None => "before the first step".to_owned(),
    };
    println!("stopped by {by}, {at}; to go on:");
    println!("  cargo run --example train -- --resume --run {}", shared::word(run.path()));
    let code = signal.map_or(1, Signal::exit_code);
    Ok(ExitCode::from(code as u8))
}

/// What shows a file on this system.
const OPEN: &str = match () {
    () if cfg!(windows) => "explorer",
    () if cfg!(target_os = "macos") => "open",
    () => "xdg-open",
};

/// What becomes of the averages of a run that goes on.
fn print_changes(config: &RunConfig, saved: Option<&RunConfig>) {
    let before = saved.iter().flat_map(|saved| &saved.averages);
    for AverageConfig { rule, .. } in &config.averages {
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

/// The configuration of a new run, or that of a run that goes on.
fn configure(
    args: &Args,
    saved: Option<&RunConfig>,
    data: &Prepared,
    data_sha256: String,
    seed: u64,
) -> Result<RunConfig> {
    let preparation = data.preparation.clone();
    let average = |rule| AverageConfig::new(rule);
    let averages: Vec<_> = args.rules().cloned().map(average).collect();
    let optimizer = args.optimizer.map(|moved| match moved {
        Moved::Sgd => OptimizerKind::Sgd,
        Moved::Adam => OptimizerKind::Adam,
    });
    if let Some(saved) = saved {
        same("--seed", Some(seed), saved.seed)?;
        same("--batch-size", args.batch_size, saved.batch_size)?;
        same("--lr", args.lr, saved.lr)?;
        same("--optimizer", optimizer.map(OptimizerKind::name), saved.optimizer.name())?;
        // The target and the task are the run's by now, and so is the seed of the split.
        let file = args.data.as_ref().or(saved.data.as_ref());
        ensure!(
            preparation == saved.preparation && data_sha256 == saved.data_sha256,
            "--data: the data differs from that of the run, which cannot change: the rows of {} \
             have the SHA-256 {data_sha256}, those of the run {}; {ANEW}",
            file.map_or("the digits".into(), |file| file.display().to_string()),
            saved.data_sha256
        );
        let epochs = args.epochs.unwrap_or(saved.epochs);
        ensure!(
            epochs >= saved.epochs,
            "--epochs is {epochs}, but the run has {}, which can only grow; {ANEW}",
            saved.epochs
        );
        let averages = if averages.is_empty() { saved.averages.clone() } else { averages };
        let commit_every = args.commit_every.or(saved.commit_every);
        return Ok(RunConfig { epochs, averages, commit_every, ..saved.clone() });
    }
    let output = match preparation.task() {
        Task::Classification { .. } => Activation::Sigmoid,
        Task::Regression { .. } => Activation::Identity,
    };
    let sizes = vec![preparation.inputs(), 64, preparation.outputs()];
    let optimizer = optimizer.unwrap_or(OptimizerKind::Adam);
    let lr = args.lr.unwrap_or(if optimizer == OptimizerKind::Adam { 0.02 } else { 2.0 });
    let (epochs, batch_size) = (args.epochs.unwrap_or(40), args.batch_size.unwrap_or(8));
    let steps = epochs * data.train.len().div_ceil(batch_size.max(1));
    Ok(RunConfig {
        model: MlpConfig::new(sizes).with_output(output),
        preparation,
        averages: match averages.is_empty() {
            true => vec![average(AverageConfig::suggest(steps as u64).rule)],
            false => averages,
        },
        optimizer,
        lr,
        epochs,
        batch_size,
        data: None,
        data_sha256,
        seed,
        commit_every: args.commit_every,
    })
}

/// Refuses an option that names other data than the run's, before it is read.
fn same_data(args: &Args, saved: &RunConfig) -> Result<()> {
    if let (Some(data), None) = (&args.data, &saved.data) {
        bail!("--data is {}, but the run learns the digits; {ANEW}", data.display());
    }
    same("--target", args.target.as_deref(), saved.preparation.target())?;
    same("--task", args.task, Learned::of(saved.preparation.task()))
}

/// What to do where another setting is wanted.
const ANEW: &str = "--run DIR begins another run, --overwrite replaces this one";

/// Refuses another value of a setting than the run's.
fn same<T: PartialEq + Display>(option: &str, wanted: Option<T>, saved: T) -> Result<()> {
    if let Some(wanted) = wanted.filter(|wanted| *wanted != saved) {
        bail!("{option} is {wanted}, but {saved} in the run, which cannot change; {ANEW}");
    }
    Ok(())
}

/// A rule, or a decay with bias correction, so that the first epochs' averages already mean
/// something.
fn rule(text: &str) -> Result<Rule, burn_ema::Error> {
    match text.parse::<f64>() {
        Ok(decay) => format!("ema({decay}, debias)").parse(),
        Err(_) => text.parse(),
    }
}
