//! What this crate does and what PyTorch does, side by side in one run: medians, ratios and whether
//! they reach their bars, as tables in Markdown and as JSON.
//!
//! ```text
//! pip install torch
//! cargo bench --bench compare -- --python python3 --json figures.json
//! ```
//!
//! Each row is a contest. Its contestants take turns of a fifth of a second; a number of a claim is
//! made of the times of each round; the median over all rounds is printed, with the least and the most.
//! The hook is `Averaged`, whose `step` and `optimize` are called in a loop of one's own or by Burn's
//! Learner, which clones its model at each step; it guards live and the optimizer, too.
//! `Average::update` comes after `optimizer.step`, and guards the average alone.

mod answer; // answers of a network
mod contest; // contestants, their turns, what is claimed of their times
mod epoch; // an epoch of the digits against its steps
mod figures; // medians, bars, tables
mod memory; // the most memory of a training
mod step; // training steps against PyTorch's
mod update; // updates of averages against the machine's limit and PyTorch's
#[path = "../weights.rs"]
mod weights; // what is averaged
mod worker; // PyTorch in a process of its own
#[path = "../workload.rs"]
mod workload; // what is trained

use std::{fs, num::NonZeroUsize, path::PathBuf, thread};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use serde_json::json;

use self::{
    contest::Contest,
    figures::Bar,
    memory::Through,
    weights::{M_25, M_108, TINY, Tensors},
    worker::Torch,
    workload::{Network, OPTIMIZERS},
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(about = "Compare averages and training steps with PyTorch's, side by side")]
struct Args {
    /// The Python that has PyTorch
    #[arg(long, default_value = "python3")]
    python: PathBuf,
    /// How often each contestant has its turn, 7 or more for figures to publish
    #[arg(long, default_value_t = 11, value_parser = clap::value_parser!(u64).range(1..))]
    rounds: u64,
    /// Only rows whose name contains this; several may be given
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Threads of either side [default: one a core]
    #[arg(long)]
    threads: Option<NonZeroUsize>,
    /// Where the figures of all rounds go
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// List the names of the rows
    #[arg(long)]
    list: bool,
    /// Train and print the peak of memory, in the process that is measured
    #[arg(long, hide = true)]
    peak: Option<Through>,
    /// Cargo gives this to every bench
    #[arg(long, hide = true)]
    bench: bool,
}

/// Makes the contest of a name, among ours.
type Ours = Box<dyn Fn(&str) -> Result<Contest>>;

/// Makes the contest of a name, beside PyTorch.
type Both = Box<dyn Fn(&str, &Torch) -> Result<Contest>>;

/// Makes a contest of the name that it is given.
enum Make {
    Alone(Ours),
    BesideTorch(Both),
}

/// All rows, by name.
fn rows() -> Vec<(String, Make)> {
    let mut rows: Vec<(String, Make)> = Vec::new();
    let limits: [(&str, Tensors); 2] =
        [("update-10M", &[[10, 1_000_000]]), ("update-100M", &[[100, 1_000_000]])];
    for (name, tensors) in limits {
        rows.push((name.into(), Make::Alone(Box::new(move |name| update::limit(name, tensors)))));
    }
    let beside =
        [("update-25M", M_25, 1.2), ("update-108M", M_108, 1.2), ("update-1000x400", TINY, 3.0)];
    for (name, tensors, bar) in beside {
        let make = move |name: &str, torch: &_| update::beside(name, tensors, bar, torch);
        rows.push((name.into(), Make::BesideTorch(Box::new(make))));
    }
    rows.push(("update-4-at-once-25M".into(), Make::Alone(Box::new(update::together))));
    for by in OPTIMIZERS {
        for network in &workload::NETWORKS {
            let make = move |name: &str, torch: &_| step::beside(name, network, by, torch);
            let name = format!("step-{}-{}", by.name(), network.name);
            rows.push((name, Make::BesideTorch(Box::new(make))));
        }
    }
    let one = &Network { name: "64-32-10-b1", sizes: &[64, 32, 10], batch: 1 };
    let many = &Network { name: "784-512-256-10-b1024", sizes: &[784, 512, 256, 10], batch: 1024 };
    for (network, most) in [(one, Bar::AtMost(5.0)), (many, Bar::None)] {
        let make = move |name: &str, torch: &_| answer::beside(name, network, most, torch);
        rows.push((format!("answer-{}", network.name), Make::BesideTorch(Box::new(make))));
    }
    rows.push(("epoch-digits".into(), Make::Alone(Box::new(epoch::digits_epoch))));
    rows.push(("memory-adam-25M".into(), Make::Alone(Box::new(memory::peak))));
    rows
}

fn main() -> Result<()> {
    let args = Args::parse();
    let threads = args.threads.or(thread::available_parallelism().ok()).map_or(1, Into::into);
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;
    if let Some(through) = args.peak {
        return memory::train(through);
    }

    let is_meant = |name: &str| {
        args.only.is_empty() || args.only.iter().any(|part| name.contains(part.as_str()))
    };
    let rows: Vec<_> = rows().into_iter().filter(|(name, _)| is_meant(name)).collect();
    ensure!(!rows.is_empty(), "no row has such a name; --list lists them all");
    if args.list {
        rows.iter().for_each(|(name, _)| println!("{name}"));
        return Ok(());
    }
    // Whatever is missing is printed before the first row.
    let needed = rows.iter().any(|(_, make)| matches!(make, Make::BesideTorch(_)));
    let torch = needed.then(|| Torch::start(&args.python, threads)).transpose()?;
    let version = torch.as_ref().map(|torch| torch.version.clone());
    println!("threads: {threads}");
    println!("PyTorch: {}\n", version.as_deref().unwrap_or("not needed"));

    let mut outcomes = Vec::new();
    for (name, make) in rows {
        let contest = match (make, &torch) {
            (Make::Alone(make), _) => make(&name)?,
            (Make::BesideTorch(make), Some(torch)) => make(&name, torch)?,
            (Make::BesideTorch(_), None) => continue,
        };
        let outcome = contest.hold(args.rounds as usize, None)?;
        println!("{}", outcome.times());
        torch.as_ref().map_or(Ok(()), Torch::forget)?;
        outcomes.push(outcome);
    }
    println!(
        "### All\n\n{}",
        figures::table(contest::HEAD, outcomes.iter().flat_map(|o| o.rows()))
    );
    if let Some(file) = args.json {
        let figures = json!({
            "threads": threads,
            "torch": version,
            "rows": outcomes.iter().map(|outcome| outcome.json()).collect::<Vec<_>>(),
        });
        let text = serde_json::to_string_pretty(&figures)? + "\n";
        fs::write(&file, text).with_context(|| file.display().to_string())?;
    }
    Ok(())
}
