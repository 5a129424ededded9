//! What averages and training steps cost on a GPU, beside PyTorch on CUDA and what the card copies,
//! as a page of Markdown and as JSON. `benches/gpu.sh` builds and runs it; its `--help` says how.
//!
//! Products, gradients and averages are compared with Flex first, since drivers can compute wrongly
//! in silence. If one differs, the program ends with an error and without a figure.
//! Each row is a contest whose contestants take turns, as in the bench `compare`. The page is
//! written anew after each row, and again when the time is over, with what was left out and why.

mod check; // products, gradients and averages against Flex
#[allow(dead_code)] // what the comparison on the CPU uses alone, here and below
#[path = "../compare/contest.rs"]
mod contest; // contestants, their turns, what is claimed of their times
mod copy; // what the card copies
#[allow(dead_code)]
#[path = "../compare/figures.rs"]
mod figures; // medians, bars, tables
mod machine; // the card, the driver, versions, the date
mod peer; // PyTorch, where there is one
mod report; // the page and the JSON
mod step; // training steps
mod update; // updates of averages
mod waits; // how often the host waits for the device
#[allow(dead_code)]
#[path = "../weights.rs"]
mod weights; // what is averaged
#[path = "../compare/worker.rs"]
mod worker; // PyTorch in a process of its own
#[allow(dead_code)]
#[path = "../workload.rs"]
mod workload; // what is trained

use std::{
    panic::{self, AssertUnwindSafe},
    path::PathBuf,
    process, thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use burn_ema_lab::device::{self, Selected};
use clap::Parser;

use self::{
    contest::Contest,
    peer::Peer,
    report::Report,
    update::Set,
    workload::{NETWORKS, Network, OPTIMIZERS},
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The time before the end in which no row and no round begins, so that the last one ends.
const MARGIN: Duration = Duration::from_secs(5);

#[derive(Parser)]
#[command(about = "Measure averages and training steps on a GPU, beside PyTorch on CUDA")]
struct Args {
    /// The directory for the page `gpu.md` and the figures `gpu.json`
    #[arg(long, value_name = "DIRECTORY")]
    out: PathBuf,
    /// The Python that has PyTorch with CUDA
    #[arg(long, default_value = "python3")]
    python: PathBuf,
    /// The device [default: the first one that the build has]
    #[arg(long, value_name = "NAME")]
    device: Option<String>,
    /// How often each contestant has its turn [default: 9, or 3 with --small]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    rounds: Option<u64>,
    /// The time for all of it; what does not fit is left out, and the page says so
    #[arg(long, default_value_t = 450, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Fewer and smaller rows, to test the program itself; set for a driver in software
    #[arg(long)]
    small: bool,
    /// Cargo gives this to every bench
    #[arg(long, hide = true)]
    bench: bool,
}

/// Makes a contest of the name that it is given.
type Make = Box<dyn FnOnce(&str) -> Result<Contest>>;

fn main() -> Result<()> {
    let args = Args::parse();
    let end = Instant::now() + Duration::from_secs(args.seconds);
    let report = Report::new(&args.out)?;
    watch(report.clone(), end);
    waits::listen();

    let selected = device::select(args.device.as_deref())?;
    let is_software = machine::is_software(&selected);
    let small = args.small || is_software;
    let peer = Peer::start(&args.python, is_software);
    for (what, fact) in machine::facts(&selected, &peer, small) {
        println!("{what}: {fact}");
        report.fact(what, fact);
    }

    let networks = &NETWORKS[..if small { 1 } else { NETWORKS.len() }];
    let sets = if small { update::SMALL } else { update::SETS };
    let checks = check::all(&selected.device, networks, sets)
        .with_context(|| format!("{selected}: no figures, since a check of its results failed"))?;
    for line in checks {
        println!("{line}");
        report.check(line);
    }

    let rows = rows(networks, sets, &selected, &peer, &report);
    report.plan(rows.iter().map(|(name, _)| name.clone()).collect())?;
    let rounds = args.rounds.unwrap_or(if small { 3 } else { 9 }) as usize;
    let (mut left, mut failed) = (rows.len() as u32, Vec::new());
    for (name, make) in rows {
        let now = Instant::now();
        let time = end.saturating_duration_since(now + MARGIN);
        if time.is_zero() {
            report.end(&name, Err("no time was left".into()))?;
            continue;
        }
        // What one row does not need is for the others.
        let until = now + time / left;
        left -= 1;
        let measure = || make(&name).and_then(|contest| contest.hold(rounds, Some(until)));
        // Burn panics where a device refuses something; the other rows may still be measured.
        let measured = panic::catch_unwind(AssertUnwindSafe(measure));
        match measured.unwrap_or_else(|_| Err(anyhow!("a panic, see above"))) {
            Ok(outcome) => {
                println!("\n{}", outcome.times());
                report.end(&name, Ok(outcome))?;
            }
            Err(error) => {
                report.end(&name, Err(format!("an error: {error:#}")))?;
                failed.push(name);
            }
        }
        // A PyTorch that has ended is left out of the rows to come, which say so.
        let _ = peer.forget();
    }
    println!("{}", report.summary());
    match failed.is_empty() {
        true => Ok(()),
        false => bail!("rows that failed: {}; the page has the errors", failed.join(", ")),
    }
}

/// All rows, by name.
fn rows(
    networks: &'static [Network],
    sets: &'static [Set],
    selected: &Selected,
    peer: &Peer,
    report: &Report,
) -> Vec<(String, Make)> {
    let mut rows: Vec<(String, Make)> = Vec::new();
    for set in sets {
        let (selected, peer) = (selected.clone(), peer.clone());
        let make = move |name: &str| update::beside(name, set, &selected, &peer);
        rows.push((format!("update-{}", set.name), Box::new(make)));
    }
    let device = selected.device.clone().autodiff();
    match waits::can_be_counted(&device) {
        Ok(()) => {
            for network in networks {
                let device = device.clone();
                let make = move |name: &str| waits::of_steps(name, network, &device);
                rows.push((format!("waits-{}", network.name), Box::new(make)));
            }
        }
        Err(reason) => report.left_out("waits", format!("{reason:#}")),
    }
    // Adam first, which more trainings use.
    for by in OPTIMIZERS.into_iter().rev() {
        for network in networks {
            let (device, peer) = (device.clone(), peer.clone());
            let make = move |name: &str| step::beside(name, network, by, &device, &peer);
            rows.push((format!("step-{}-{}", by.name(), network.name), Box::new(make)));
        }
    }
    rows
}

/// Ends the program when its time is over, whatever it is doing.
fn watch(report: Report, end: Instant) {
    thread::spawn(move || {
        thread::sleep(end.saturating_duration_since(Instant::now()));
        let stopped = report.stop();
        match &stopped {
            Ok(()) => println!("{}", report.summary()),
            Err(error) => eprintln!("Error: {error:#}"),
        }
        process::exit(stopped.is_err().into());
    });
}
