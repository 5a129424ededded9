//! Writes the averaged model of a run, or live, or a file of other programs, as a file that opens
//! elsewhere.
//!
//! ```text
//! cargo run --example export -- --to model.safetensors
//! cargo run --example export -- --model checkpoint.pt --prefix state_dict_ema --to model.bpk --format burnpack
//! cargo run --example export -- artifacts/runs/default --to live.bpk --format burnpack --live
//! ```

#[macro_use]
mod shared; // the standard output of a reader that may leave
#[path = "shared/origin.rs"]
mod origin; // the run that a file is of
#[path = "shared/output.rs"]
mod output; // where and how a model is written
#[path = "shared/weights.rs"]
mod weights; // files of weights, and how they are read

use std::path::PathBuf;

use anyhow::{Context, Result};
use burn_ema::{average::Description, export::Contents, train::AveragedCommit as _};
use burn_ema_lab::{device, run::RunDirectory};
use clap::Parser;

use self::{output::OutputArgs, weights::ReadOptions};

/// Tensors come and go.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(about = "Write the averaged model of a run as a file that opens elsewhere")]
struct Args {
    /// The directory of the run; while it has left no model, its newest commit has the average
    #[arg(default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../artifacts/digits"))]
    run: PathBuf,
    #[command(flatten)]
    output: OutputArgs,
    /// Live at the newest commit, in place of the average
    #[arg(long)]
    live: bool,
    /// A file with the weights to write in place of the run's: burnpack, safetensors (PyTorch's too)
    /// or of torch.save
    #[arg(long, value_name = "FILE", group = "file", conflicts_with = "live")]
    model: Option<PathBuf>,
    #[command(flatten)]
    read: ReadOptions,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let device = device::select(None)?.device;
    args.output.check()?;
    let run = RunDirectory::open(&args.run)?;
    let seed = run.config()?.seed;
    let source = origin::origin(run.path(), seed);
    let newest = || anyhow::Ok(run.commits().newest()?.commit);
    let fresh = || run.config()?.model.init(&device);
    let (model, description) = if let Some(file) = &args.model {
        let options = args.read.of_model();
        let (model, said) = args.read.read(file, &options, &run.config()?.model, &device)?;
        let source = file.display().to_string();
        let source = match origin::seed(file) {
            Some(seed) => origin::with_seed(source, seed),
            None => source,
        };
        (model, said.unwrap_or_else(|| Description::new("weights of a file", 0, source)))
    } else if args.live {
        let commit = newest()?.context("the run has no commit, and so no live weights")?;
        let steps = commit.manifest().steps;
        (commit.live(fresh()?)?, Description::new("live", steps, source))
    } else if run.model_file().exists() {
        let said = Contents::read(run.model_file())?.description;
        let steps = || anyhow::Ok(newest()?.map_or(0, |commit| commit.manifest().steps));
        let description = match said {
            Some(mut said) => {
                said.source = origin::with_seed(said.source, seed);
                said
            }
            None => Description::new("made of averages", steps()?, source),
        };
        (run.model(&device)?, description)
    } else {
        let commit = newest()?.context("the run has left no model yet, and has no commit")?;
        (commit.average(fresh()?)?, commit.describe_average(&source)?)
    };
    args.output.write(&model, &description)?;
    Ok(())
}
