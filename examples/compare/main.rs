//! Does the average do better on data that was not trained on? Trainings of many seeds, easy and
//! hard, their averages beside live, with the statistics of the differences.
//!
//! ```text
//! cargo run --release --example compare
//! cargo run --release --example compare -- --data table.csv --target price
//! ```
//!
//! Each run is a process of its own, since the random state of a device is one a process. What is
//! finished stays in the directory of `--out`, and is not trained again.

#[macro_use]
#[path = "../shared/mod.rs"]
mod shared; // `println!` to a reader that may leave
#[path = "../shared/reading.rs"]
mod reading; // the options for how a CSV is read
#[path = "../shared/statistics.rs"]
mod statistics; // intervals, signed ranks, many tests

mod data; // wrong labels, fewer rows, Friedman's function
mod overall; // which average is best over all settings, and how steady it is
mod results; // finished runs in a file
mod setting; // what is trained, and which averages
mod table; // what the runs say
mod training; // one run

use std::{
    fs,
    num::NonZeroUsize,
    path::PathBuf,
    process::Command,
    sync::{Mutex, PoisonError},
    thread,
    time::Instant,
};

use anyhow::{Context, Result, bail, ensure};
use burn_ema_lab::{
    data::{PublicTable, Reading, Targets},
    device,
};
use clap::Parser;

use self::{
    results::{Line, Results},
    setting::{Run, Setting, Source},
    table::Comparison,
};

/// Tensors come and go at every step.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The rows of Friedman's function, and what they are drawn from.
const FRIEDMAN: (usize, u64) = (1000, 1);

#[derive(Parser)]
#[command(
    about = "Compare live with its averages on data that was not trained on, over many seeds"
)]
#[command(after_help = "\
A loss is the mean half squared error on the test split; that of a regression is of the target
scaled to deviation 1 over the training rows, and R2 stands beside it. Wrong labels are in the training split alone; those
of the validation and the test are true. `best` epochs and widths are chosen by the validation
loss. The rules are the same everywhere, but for what `AverageConfig::suggest` gives for the steps.")]
struct Args {
    /// The runs of each setting, of seeds from 1
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(2..=10_000))]
    seeds: u64,
    /// Passes over the training split
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    epochs: u64,
    /// Only settings whose name contains this; several may be given
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// A CSV file, gzip too, as the example `train` reads it; without it, the digits and the public
    /// tables that ship with the crate, and a table of Friedman's first function
    #[arg(long, requires = "target")]
    data: Option<PathBuf>,
    /// The column of the CSV to learn
    #[arg(long, requires = "data")]
    target: Option<String>,
    /// The kind of the target [default: classes for text and for few whole numbers]
    #[arg(long, requires = "data")]
    task: Option<reading::Learned>,
    #[command(flatten)]
    reading: reading::ReadingArgs,
    /// Where finished runs are kept
    #[arg(long, value_name = "DIR", default_value = "artifacts/compare")]
    out: PathBuf,
    /// Print the tables in Markdown
    #[arg(long)]
    markdown: bool,
    /// The runs at a time [default: one a core]
    #[arg(long)]
    jobs: Option<NonZeroUsize>,
    /// The device, such as flex, ndarray or wgpu, or ws://HOST:PORT for a server of Burn's remote
    /// backend (Cargo feature `remote`); else BURN_DEVICE, else the Cargo features decide
    #[arg(long)]
    device: Option<String>,
    /// Train once and print the result, in a process of its own
    #[arg(long, hide = true)]
    run: Option<String>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let device = device::select(args.device.as_deref())?;
    if let Some(run) = &args.run {
        let line = training::train(&serde_json::from_str(run)?, &device.device)?;
        println!("{}", serde_json::to_string(&line)?);
        return Ok(());
    }
    println!("device: {device}");

    fs::create_dir_all(&args.out).with_context(|| args.out.display().to_string())?;
    let settings = settings(&args)?;
    let seeds = 1..=args.seeds;
    let run = |(setting, data_sha256): &(Setting, String), seed| Run {
        setting: setting.clone(),
        seed,
        data_sha256: data_sha256.clone(),
        device: device.to_string(),
    };
    let file = args.out.join("results.jsonl");
    let results = Mutex::new(Results::open(&file)?);
    let mut missing = vec![];
    // Seed by seed, so that the time that is left can be estimated from the beginning.
    for seed in seeds.clone() {
        for setting in &settings {
            let run = run(setting, seed);
            if locked(&results).get(&run.key()?).is_none() {
                missing.push(run);
            }
        }
    }
    let all = settings.len() * args.seeds as usize;
    println!("runs: {all}, of which {} are there: {}", all - missing.len(), file.display());
    train(&args, missing, &results)?;

    let results = locked(&results);
    let lines = |setting: &(Setting, String)| -> Result<Vec<Line>> {
        let line = |seed| {
            let line = results.get(&run(setting, seed).key()?).context("a run that is missing")?;
            // The same run may have another name elsewhere.
            Ok(Line { setting: setting.0.name.clone(), ..line.clone() })
        };
        seeds.clone().map(line).collect()
    };
    let lines = settings.iter().map(lines).collect::<Result<Vec<_>>>()?;
    println!();
    for (lines, (setting, _)) in lines.iter().zip(&settings) {
        let Line { train_rows, steps, seconds, .. } = &lines[0];
        println!(
            "{}: {train_rows} training rows, {} epochs, {steps} steps, {} seeds, {seconds:.1} s a run",
            setting.name,
            setting.epochs,
            lines.len(),
        );
    }
    let seconds: f64 = lines.iter().flatten().map(|line| line.seconds).sum();
    println!("all runs, one after another: {seconds:.0} s\n");
    print!("{}", Comparison::new(&lines)?.print(&lines, args.markdown));
    Ok(())
}

/// The trainings, each with the digest of its data.
fn settings(args: &Args) -> Result<Vec<(Setting, String)>> {
    let sources = match (&args.data, &args.target) {
        (Some(file), Some(target)) => {
            let path = file.canonicalize().with_context(|| file.display().to_string())?;
            let name = file.file_stem().map_or("data".into(), |stem| stem.display().to_string());
            let (target, task) = (target.clone(), args.task.map(reading::Learned::kind));
            let reading = args.reading.reading();
            vec![(name, Source::File { path, target, task, reading })]
        }
        _ => {
            args.reading.refuse()?;
            let path = args.out.join("friedman.csv");
            let (rows, seed) = FRIEDMAN;
            fs::write(&path, data::friedman(rows, seed))
                .with_context(|| path.display().to_string())?;
            let friedman = Source::File {
                path,
                target: "y".to_owned(),
                task: None,
                reading: Reading::default(),
            };
            let public = PublicTable::ALL.iter().map(|table| table.name.to_owned());
            let public = public.map(|name| (name.clone(), Source::Public(name)));
            let ours = [("digits".into(), Source::Digits), ("Friedman".into(), friedman)];
            ours.into_iter().chain(public).collect()
        }
    };
    let mut settings = vec![];
    for (name, source) in sources {
        let table = source.read()?;
        if !matches!(source, Source::Public(_)) {
            table.notes().iter().for_each(|note| println!("note: {note}"));
        }
        let classes = matches!(table.targets(), Targets::Classes { .. });
        // Three of five rows are trained on.
        let rows = table.features().len() * 3 / 5;
        let mut all = Setting::all(&name, &source, args.epochs as usize, classes, rows);
        let is_meant = |setting: &Setting| {
            args.only.is_empty() || args.only.iter().any(|part| setting.name.contains(part))
        };
        if matches!(source, Source::Public(_)) {
            // Many tables, each by the default training alone.
            all.truncate(1);
        }
        all.retain(is_meant);
        settings.extend(all.into_iter().map(|setting| (setting, table.sha256())));
    }
    ensure!(!settings.is_empty(), "no setting has such a name");
    Ok(settings)
}

/// Trains what is missing, in so many processes at a time.
fn train(args: &Args, missing: Vec<Run>, results: &Mutex<Results>) -> Result<()> {
    let (count, began) = (missing.len(), Instant::now());
    let jobs = args.jobs.or(thread::available_parallelism().ok()).map_or(1, usize::from);
    let queue = Mutex::new((0, missing.into_iter()));
    let work = || -> Result<()> {
        loop {
            let Some(run) = locked(&queue).1.next() else { return Ok(()) };
            let trained = child(args, &run).and_then(|line| {
                let mut results = locked(results);
                results.add(line)
            });
            if let Err(error) = trained {
                // The others finish what they have begun.
                locked(&queue).1.by_ref().for_each(drop);
                return Err(error.context(format!("{}, seed {}", run.setting.name, run.seed)));
            }
            let done = {
                let mut queue = locked(&queue);
                queue.0 += 1;
                queue.0
            };
            let left = began.elapsed().as_secs_f64() / done as f64 * (count - done) as f64;
            let Run { setting, seed, .. } = run;
            eprintln!("run {done}/{count}: {}, seed {seed}  {left:.0} s left", setting.name);
        }
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs.min(count)).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| match worker.join() {
            Ok(result) => result,
            Err(_) => bail!("a worker panicked"),
        })
    })
}

/// Starts this program as one that trains once.
fn child(args: &Args, run: &Run) -> Result<Line> {
    let mut command = Command::new(std::env::current_exe()?);
    command.env("RAYON_NUM_THREADS", "1").arg("--run").arg(serde_json::to_string(run)?);
    if let Some(device) = &args.device {
        command.args(["--device", device]);
    }
    let child = command.output().context("a process of its own")?;
    let error = String::from_utf8_lossy(&child.stderr);
    ensure!(child.status.success(), "{}: {}", child.status, error.trim());
    let line = String::from_utf8(child.stdout)?;
    serde_json::from_str(&line).with_context(|| format!("a run that says {line}"))
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
