//! Everything that decides a run: given by options, or taken from the run that goes on.

use std::{
    collections::BTreeSet,
    fmt::{self, Display},
};

use anyhow::{Context, Result, bail, ensure};
use burn_ema::{
    AverageConfig,
    model::{Activation, MlpConfig},
};
use burn_ema_lab::{
    data::{Missing, Prepared, Reading, Table, Task, digits},
    run::{OptimizerKind, RunConfig, RunDirectory},
};

use clap::ValueEnum;

use crate::{args::Args, reading::Learned};

/// The way on where another setting is wanted, for an error.
const ANEW: &str = "--run DIR begins another run, --overwrite replaces this one";

/// The run that was in the directory before.
pub struct Earlier {
    /// There is a run.
    pub exists: bool,
    /// The configuration of the run, where this one goes on with it.
    pub config: Option<RunConfig>,
    /// The configuration of its newest commit, where this one goes on with it.
    pub committed: Option<RunConfig>,
}

impl Earlier {
    pub fn find(args: &Args) -> Result<Self> {
        let older = RunDirectory::open(&args.run);
        let mut earlier = Self { exists: older.is_ok(), config: None, committed: None };
        match older {
            Ok(older) if args.resume => {
                let (config, committed) = (older.config(), older.committed_config()?);
                let config = match committed.is_some() {
                    true => config.context(
                        "the configuration of the run cannot be used: delete its config.json, and \
                         --resume takes the one in the last commit",
                    )?,
                    false => config?,
                };
                same_data(args, &config)?;
                (earlier.config, earlier.committed) = (Some(config), committed);
            }
            // The digits are begun by a command without --resume, so that a slip in --run begins
            // none.
            Err(error) if args.resume && args.data.is_none() => {
                return Err(error).with_context(|| {
                    format!(
                        "--resume finds no run in {} and no --data to begin one with; without \
                         --resume a run of the digits begins",
                        args.run.display()
                    )
                });
            }
            _ => {}
        }
        Ok(earlier)
    }

    /// Says if the averages are others than those of the newest commit, by this command or by one
    /// before that did not come as far as a commit.
    pub fn changes_averages(&self, config: &RunConfig) -> Result<bool> {
        let Some(committed) = &self.committed else { return Ok(false) };
        let averages = |config: &RunConfig| serde_json::to_value(&config.averages);
        Ok(averages(committed)? != averages(config)?)
    }

    /// Prints what becomes of the averages of a run that goes on.
    pub fn print_changes(&self, config: &RunConfig) {
        let before = self.committed.iter().flat_map(|committed| &committed.averages);
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
}

/// The data, and the configuration of the run.
pub fn read(args: &Args, saved: Option<&RunConfig>) -> Result<(Prepared, RunConfig)> {
    let seed = args.seed.or(saved.map(|saved| saved.seed)).unwrap_or(1);
    let file = args.data.as_ref().map(|file| file.canonicalize().unwrap_or(file.clone()));
    let file = file.or(saved.and_then(|saved| saved.data.clone()));
    let target = args.target.as_deref().or(saved.map(|saved| saved.preparation.target()));
    let table = match (&file, target) {
        (Some(file), Some(target)) => {
            let task = args.task.or(saved.map(|saved| Learned::of(saved.preparation.task())));
            let reading = match saved {
                Some(saved) => same_reading(args, saved.preparation.reading())?,
                None => args.reading.reading(),
            };
            Table::read_with(file, target, task.map(Learned::kind), &reading)?
        }
        (Some(_), None) => bail!("--data needs --target, the column to learn, to begin a run"),
        (None, _) => {
            args.reading.refuse()?;
            digits()?
        }
    };
    let data = Prepared::new(&table, seed)?;
    let config = match saved {
        Some(saved) => resumed(args, saved, &data, &table.sha256(), seed)?,
        None => begun(args, &data, table.sha256(), seed),
    };
    let config = RunConfig { data: file, ..config };
    config.check()?;
    Ok((data, config))
}

/// The configuration of a run that goes on, which more epochs, other averages and another
/// `--commit-every` change.
fn resumed(
    args: &Args,
    saved: &RunConfig,
    data: &Prepared,
    data_sha256: &str,
    seed: u64,
) -> Result<RunConfig> {
    same("--seed", Some(seed), saved.seed)?;
    same("--batch-size", args.batch_size, saved.batch_size)?;
    same("--lr", args.lr, saved.lr)?;
    same("--optimizer", args.optimizer().map(OptimizerKind::name), saved.optimizer.name())?;
    // The target and the task are the run's by now, and so is the seed of the split.
    let file = args.data.as_ref().or(saved.data.as_ref());
    ensure!(
        data.preparation == saved.preparation && data_sha256 == saved.data_sha256,
        "--data: the data differs from that of the run, which cannot change: the rows of {} have \
         the SHA-256 {data_sha256}, those of the run {}; {ANEW}",
        file.map_or("the digits".into(), |file| file.display().to_string()),
        saved.data_sha256
    );
    let epochs = args.epochs.unwrap_or(saved.epochs);
    ensure!(
        epochs >= saved.epochs,
        "--epochs is {epochs}, but the run has {}, which can only grow; {ANEW}",
        saved.epochs
    );
    let averages = args.averages();
    let averages = if averages.is_empty() { saved.averages.clone() } else { averages };
    let commit_every = args.commit_every.or(saved.commit_every);
    let keep_every = args.keep_every.or(saved.keep_every);
    Ok(RunConfig { epochs, averages, commit_every, keep_every, ..saved.clone() })
}

/// The configuration of a new run.
fn begun(args: &Args, data: &Prepared, data_sha256: String, seed: u64) -> RunConfig {
    let preparation = data.preparation.clone();
    let output = match preparation.task() {
        Task::Classification { .. } => Activation::Sigmoid,
        Task::Regression { .. } => Activation::Identity,
    };
    let sizes = vec![preparation.inputs(), 64, preparation.outputs()];
    let optimizer = args.optimizer().unwrap_or(OptimizerKind::Adam);
    let lr = args.lr.unwrap_or(if optimizer == OptimizerKind::Adam { 0.02 } else { 2.0 });
    let (epochs, batch_size) = (args.epochs.unwrap_or(40), args.batch_size.unwrap_or(8));
    let steps = epochs * data.train.len().div_ceil(batch_size.max(1));
    let mut averages = args.averages();
    if averages.is_empty() {
        averages = vec![AverageConfig::new(AverageConfig::suggest(steps as u64).rule)];
    }
    RunConfig {
        model: MlpConfig::new(sizes).with_output(output),
        preparation,
        averages,
        optimizer,
        lr,
        epochs,
        batch_size,
        data: None,
        data_sha256,
        seed,
        commit_every: args.commit_every,
        keep_every: args.keep_every,
    }
}

/// Refuses an option that names other data than the run's, before it is read.
fn same_data(args: &Args, saved: &RunConfig) -> Result<()> {
    if let (Some(data), None) = (&args.data, &saved.data) {
        bail!("--data is {}, but the run learns the digits; {ANEW}", data.display());
    }
    same("--target", args.target.as_deref(), saved.preparation.target())?;
    same("--task", args.task, Learned::of(saved.preparation.task()))
}

/// The run's way of reading its table; refuses an option that differs from it.
fn same_reading(args: &Args, saved: &Reading) -> Result<Reading> {
    let given = &args.reading;
    same("--delimiter", given.delimiter, saved.delimiter)?;
    same("--no-header", given.no_header.then_some(true), !saved.header)?;
    // In whatever order they are given, and however often.
    let names = |drop: &[String]| {
        let names: Vec<_> = drop.iter().collect::<BTreeSet<_>>().into_iter().collect();
        format!("{names:?}")
    };
    let drop = (!given.drop.is_empty()).then(|| names(&given.drop));
    same("--drop", drop, names(&saved.drop))?;
    same("--missing", given.missing().map(Missing::name), saved.missing.name())?;
    Ok(saved.clone())
}

/// Refuses another value of a setting than the run's.
fn same<T: PartialEq + Display>(option: &str, wanted: Option<T>, saved: T) -> Result<()> {
    if let Some(wanted) = wanted.filter(|wanted| *wanted != saved) {
        bail!("{option} is {wanted}, but {saved} in the run, which cannot change; {ANEW}");
    }
    Ok(())
}

impl Learned {
    /// The option for the task of a run.
    pub fn of(task: &Task) -> Self {
        match task {
            Task::Classification { .. } => Self::Classification,
            Task::Regression { .. } => Self::Regression,
        }
    }
}

impl Display for Learned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value();
        f.write_str(value.as_ref().map_or("", |value| value.get_name()))
    }
}
