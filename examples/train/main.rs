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

#[macro_use]
#[path = "../shared/mod.rs"]
mod shared; // `println!` to a reader that may leave
#[path = "../shared/origin.rs"]
mod origin; // the run that a file is of
#[path = "../shared/reading.rs"]
mod reading; // the options for how a CSV is read

mod args; // the options
mod settings; // everything that decides a run
mod trained; // the best average, reported and saved

use std::process::ExitCode;

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
    Error,
    average::Description,
    model::Mlp,
    runs::{Change, ProgressLines, Resumed, Signal, Signals, fit},
    train::Averaged,
};
use burn_ema_lab::{
    data::{Prepared, Task, loader},
    device,
    report::R2Metric,
    run::{RunConfig, RunDirectory},
};
use clap::Parser;

use self::{args::Args, settings::Earlier, trained::Trained};

/// Tensors come and go at every step.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The error of a training whose numbers left the range.
const DIVERGED: &str = "the training diverged: try a smaller --lr, with --overwrite";

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let device = device::select(args.device.as_deref())?;
    println!("device: {device}");

    // The data, and everything that decides the run.
    let earlier = Earlier::find(&args)?;
    let (data, config) = settings::read(&args, earlier.config.as_ref())?;
    match data.preparation.task() {
        Task::Classification { labels } => println!("task: {} classes", labels.len()),
        Task::Regression { scale } => println!(
            "task: regression; losses are half squares of errors in units of {}, the deviation",
            scale.divisor
        ),
    }

    // The live model with its averages.
    let changes_averages = earlier.changes_averages(&config)?;
    device.device.seed(config.seed);
    let live = config.model.init(&device.device)?;
    let model = averaged(live, &config, data.train.len(), changes_averages)?;
    println!("model: {:?}, {} parameters", config.model.sizes, model.num_params());
    let rows = [&data.train, &data.valid, &data.test].map(Vec::len);
    let [train, valid, test] = rows;
    println!("rows: {train} train, {valid} valid, {test} test");

    let run = directory(&args, &earlier, &config)?;
    println!("run: {}", run.path().display());
    if config.data.is_some() {
        run.write_json("split.json", &data.split)?;
    }
    data.notes.iter().try_for_each(|text| note(&run, format!("note: {text}")))?;
    note_warnings(&run, &model)?;

    // Burn's training, which validates the first average.
    let Prepared { train, valid, test, preparation, .. } = data;
    let load = |rows, shuffle| loader(rows, config.batch_size, shuffle, &device.device);
    let classes = matches!(preparation.task(), Task::Classification { .. });
    let r2 = if classes { None } else { R2Metric::of(&valid) };
    if !classes && r2.is_none() {
        note(&run, "note: no R2 in validation: its targets are all equal".to_owned())?;
    }
    let valid = load(valid, None)?;
    let mut training =
        SupervisedTraining::new(run.path(), load(train, Some(config.seed))?, valid.clone())
            .num_epochs(config.epochs)
            .metrics((LossMetric::new(),))
            .metric_train(model.trace_metric())
            .metric_valid_numeric(model.live_metric(LossMetric::new()));
    if classes {
        training = training
            .metrics((AccuracyMetric::new(),))
            .metric_valid_numeric(model.live_metric(AccuracyMetric::new()));
    }
    if let Some(r2) = &r2 {
        training = training
            .metric_valid_numeric(r2.clone())
            .metric_valid_numeric(model.live_metric(r2.clone()));
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
        if let Some(r2) = r2.as_ref().filter(|_| index > 0) {
            let r2 = model.average_metric(index, r2.clone())?;
            training = training.metric_valid_numeric(r2);
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
        .with_keep_every_steps(config.keep_every)
        .with_change("commit_every", Change::Free)
        .with_change("keep_every", Change::Free)
        .with_change("data", Change::Free);
    if changes_averages {
        commits = commits.with_change("averages", Change::Free);
    }
    let lr = ConstantLr::new(config.lr);
    let mut fit = fit(training, model, config.optimizer.init(), lr).with_commits(commits)?;
    if args.resume {
        fit = fit.resume()?;
        if let Some(resumed) = fit.resumed() {
            if is_done(&run, resumed, &config, &device)? {
                println!("the run has its {} epochs; --epochs gives it more", config.epochs);
                return Ok(ExitCode::SUCCESS);
            }
            if resumed.from.is_some() {
                earlier.print_changes(&config);
            }
            run.write_config(&config)?;
        }
    }
    let result = match fit.launch() {
        Err(error @ (Error::NonFinite { .. } | Error::RefusedStep { .. })) => {
            bail!(anyhow::Error::new(error).context(DIVERGED))
        }
        result => result.with_context(|| {
            format!(
                "the training on {device} has ended; this goes on from its last commit, if there \
                 is one:\n  cargo run --example train -- --resume --run {}",
                shared::word(run.path())
            )
        })?,
    };
    // The dashboard leaves the terminal with its renderer; what is printed before is lost.
    let LearningResult { model, renderer, interrupted, .. } = result;
    drop(renderer);
    if interrupted.is_some() {
        return stopped(&run, signals.received());
    }
    note_warnings(&run, &model)?;

    let test = load(test, None)?;
    let trained = Trained { model: &model, config: &config, device: &device, rows };
    let (report, summary) = trained.judge(&*valid, &*test)?;
    if let Some(signal) = signals.received() {
        return stopped(&run, Some(signal));
    }
    trained.save(&run, &report, &summary)?;
    match signals.received() {
        // It came when there was nothing left to stop.
        Some(signal) => stopped(&run, Some(signal)),
        None => Ok(ExitCode::SUCCESS),
    }
}

/// The live network with the averages of the run.
fn averaged(live: Mlp, config: &RunConfig, rows: usize, changes: bool) -> Result<Averaged<Mlp>> {
    let steps_per_epoch = rows.div_ceil(config.batch_size.max(1));
    let averages = config.averages.iter().map(|average| {
        let average = average.clone().with_steps_per_epoch(Some(steps_per_epoch as u64));
        let average = average.with_samples_per_step(Some(config.batch_size as u64));
        average.with_total_steps(Some((steps_per_epoch * config.epochs) as u64))
    });
    Ok(Averaged::new(live, averages)?
        .with_loss_guard()
        .with_samples(|batch| batch.inputs.dims()[0] as u64)
        .allow_added(changes)
        .allow_dropped(changes))
}

/// The directory of the run, never in place of an older run without `--overwrite`.
fn directory(args: &Args, earlier: &Earlier, config: &RunConfig) -> Result<RunDirectory> {
    Ok(match (earlier.exists, args.resume, args.overwrite) {
        (true, true, _) => RunDirectory::resume(&args.run)?,
        (true, _, true) => RunDirectory::replace(&args.run, config)?,
        (true, ..) => bail!(
            "{} holds a run: --resume goes on with it, --overwrite replaces it, and --run names \
             another directory",
            args.run.display()
        ),
        (false, ..) => RunDirectory::create(&args.run, config)?,
    })
}

/// Prints a line, which the report's page shows too.
fn note(run: &RunDirectory, line: String) -> Result<(), burn_ema::Error> {
    println!("{line}");
    run.note(line)
}

fn note_warnings(run: &RunDirectory, model: &Averaged<Mlp>) -> Result<(), burn_ema::Error> {
    let mut warnings = model.take_warnings().into_iter();
    warnings.try_for_each(|warning| note(run, format!("warning: {warning}")))
}

/// Prints where a resumed run stands; says if it has nothing left to do.
fn is_done(
    run: &RunDirectory,
    resumed: &Resumed,
    config: &RunConfig,
    device: &device::Selected,
) -> Result<bool> {
    for error in &resumed.passed_over {
        note(run, format!("warning: {:#}", anyhow::Error::new(error.clone())))?;
    }
    println!("{resumed}");
    let Some(from) = resumed.from else {
        ensure!(!run.is_finished(), "the commits of the run are gone; --overwrite starts it anew");
        return Ok(false);
    };
    // The model that was left may be older than the last commit, or damaged.
    let left = || Description::read(run.model_file()).is_ok_and(|m| m.step == resumed.steps);
    let is_left = || left() && run.model(&device.device).is_ok();
    if run.is_finished() && from.epochs >= config.epochs && is_left() {
        return Ok(true);
    }
    let commit = run.commits().open(from)?;
    let before = commit.manifest().config["device"].as_str();
    if let Some(before) = before.filter(|before| *before != device.to_string()) {
        let differ = format!("whose numbers may round otherwise than those of {device}");
        note(run, format!("note: until here the run was on {before}, {differ}"))?;
    }
    Ok(false)
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
