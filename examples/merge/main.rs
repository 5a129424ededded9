//! Merges saved perceptrons, or the commits of a run, into one file.
//!
//! ```text
//! cargo run --example merge -- a.safetensors b.bpk c.pt --to soup.safetensors
//! cargo run --example merge -- a.bpk b.bpk c.bpk --weights 0.2,0.3,0.5 --to merged.safetensors
//! cargo run --example merge -- --run artifacts/runs/default --last 5 --decay sqrt --to merged.bpk --format burnpack
//! ```
//!
//! For a module of yours, `export::merge` does this in a few lines.

#[macro_use]
#[path = "../shared/mod.rs"]
mod shared; // the standard output of a reader that may leave
#[path = "../shared/origin.rs"]
mod origin; // the run that a file is of
#[path = "../shared/output.rs"]
mod output; // where and how a model is written
#[path = "../shared/weights.rs"]
mod weights; // files of weights, and how they are read

mod commits; // the commits of a run that are merged
mod split; // the rows of the greedy merge

use std::path::PathBuf;

use anyhow::{Result, anyhow, ensure};
use burn::tensor::Device;
use burn_ema::{
    Rule,
    export::merge::{Alike, Candidate, Decay, Greedy, Merge, Merged, Weights},
    model::{Mlp, MlpConfig},
};
use burn_ema_lab::{device, report::Scores};
use clap::{ArgGroup, Parser};

use self::{commits::CommitArgs, output::OutputArgs, split::Rows, weights::ReadOptions};

#[derive(Parser)]
#[command(
    about = "Merge saved perceptrons, or the commits of a run, into one file",
    after_help = "Weights: without an option all files count alike. --weights gives one number for \
                  each file; --rule weighs the files as an average would weigh so many steps; \
                  --decay has the effect of a learning rate that decays over the checkpoints of one \
                  training; --base with --scale adds the difference of each file from a base; \
                  --greedy adds the files with which the loss on validation rows of the digits \
                  does not rise.\n\n\
                  Files are burnpack, safetensors (PyTorch's too) or of torch.save, mixed; all of \
                  one network. --prefix, --leave-out, --cast and --form hold for all files: write a \
                  file that needs others anew before, by `cargo run --example export -- --model FILE \
                  --prefix NAME --to OTHER`.\n\n\
                  The description of the result holds the SHA-256 and the weight of each file. \
                  Files whose weights have a correlation near 0, as trainings from other first \
                  weights have, are warned of."
)]
#[command(group = ArgGroup::new("file").args(["model", "run"]).required(true))]
#[command(group = ArgGroup::new("kind").args(["weights", "rule", "decay", "base", "greedy"]))]
struct Args {
    /// The files to merge, two or more; the order counts for --weights, --rule and --decay
    #[arg(id = "model", value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    commits: CommitArgs,
    /// The weights of the files, which sum to 1; they may be negative
    #[arg(long, value_delimiter = ',', allow_hyphen_values = true)]
    weights: Vec<f64>,
    /// The rule of an average over the files, such as "ema(0.9)" or "power(sigma_rel=0.1)"
    #[arg(long)]
    rule: Option<Rule>,
    /// The decay of a learning rate whose effect the merge has: sqrt (1 - sqrt(x)), linear (equal
    /// weights) or cosine
    #[arg(long, value_parser = decay)]
    decay: Option<Decay>,
    /// The base of task arithmetic: base + scale * (the sum of FILE - base)
    #[arg(long, value_name = "FILE", requires = "scale", conflicts_with = "run")]
    base: Option<PathBuf>,
    /// The factor of each difference from the base, such as 0.3
    #[arg(long, requires = "base", allow_negative_numbers = true)]
    scale: Option<f64>,
    /// Begin with the file of the least validation loss, and add each other with which the loss of
    /// the merge does not rise
    #[arg(long)]
    greedy: bool,
    /// The seed of the split whose validation rows --greedy scores by, as `train --seed` had it;
    /// needed where no file shows the run that it is of
    #[arg(long, requires = "greedy", conflicts_with = "run")]
    seed: Option<u64>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    read: ReadOptions,
}

/// A decay, as its option names it.
fn decay(text: &str) -> Result<Decay, String> {
    match text {
        "sqrt" => Ok(Decay::Sqrt),
        "linear" => Ok(Decay::Linear),
        "cosine" => Ok(Decay::Cosine),
        _ => Err("expected sqrt, linear or cosine".to_owned()),
    }
}

fn main() -> Result<()> {
    let args = Args::parse();
    let device = device::select(None)?.device;
    args.output.check()?;
    ensure!(
        args.commits.run().is_none() || args.read.prefix().is_none(),
        "--prefix is for files: of commits live is merged, or the first average with --average"
    );
    let of_run = args.commits.find()?;
    if args.decay.is_some() && !of_run.is_even() {
        println!(
            "warning: the weights of --decay are for equal distances, and the commits have others; \
             where --commit-every and --keep-every divide the steps of an epoch, they are equal"
        );
    }
    let has_prefix = args.read.prefix().is_some();
    let way_on = |error| way_on(error, has_prefix);
    let options = args.read.under(of_run.prefix.as_deref().or(args.read.prefix()));
    let commits = of_run.files.iter().map(|(path, _)| path.clone());
    let files: Vec<_> = args.base.clone().into_iter().chain(args.files).chain(commits).collect();
    let to = args.output.path();
    if let Ok(place) = to.canonicalize() {
        ensure!(
            files.iter().all(|file| !file.canonicalize().is_ok_and(|file| file == place)),
            "--to: {} is one of the files to merge; name another file",
            to.display()
        );
    }
    let weights = match (args.rule, args.decay, args.scale) {
        (Some(rule), ..) => Weights::Rule(rule),
        (_, Some(decay), _) => Weights::Decay(decay),
        (.., Some(scale)) => Weights::TaskArithmetic { scale },
        _ if args.weights.is_empty() => Weights::Equal,
        _ => Weights::Given(args.weights),
    };
    let rows =
        args.greedy.then(|| Rows::find(args.commits.run(), &files, args.seed)).transpose()?;
    // The network that the first file holds, which all others must be. Activations do not matter but
    // for a score.
    let like = rows.as_ref().map_or(MlpConfig::new(vec![1, 1]), |rows| rows.network.clone());
    let network = args.read.network(&files[0], &options, &like, args.greedy);
    let (config, _) = network.map_err(way_on)?;
    let fresh = config.init(&device)?;
    let merge = Merge::new(files).with_weights(weights).with_options(options);
    let merged = match rows {
        Some(rows) => greedy(&merge, &fresh, &rows, &device),
        None => merge.load(&fresh).map_err(Into::into),
    };
    let Merged { module, mut description, notes, least_alike, .. } = merged.map_err(way_on)?;
    // Commits hold no description of their weights; the run has it.
    for (path, said) in of_run.files {
        let path = path.display().to_string();
        let Some(file) = description.files.iter().find(|file| file.path == path) else { continue };
        description.mass_on_start += file.weight * said.mass_on_start;
        (description.step, description.samples) = (said.step, said.samples);
    }
    for file in &description.files {
        println!("{:>10.6}  {}...  {}", file.weight, &file.sha256[..16], file.path);
    }
    if let Some(Alike { files: [one, other], correlation, .. }) = least_alike {
        let [one, other] = [one, other].map(|file| file.display().to_string());
        println!("least correlation of weights: {correlation:.3}, of {one} and {other}");
    }
    notes.iter().for_each(|note| println!("warning: {note}"));
    let to = args.output.write(&module, &description)?;
    println!("to use it:");
    if config.sizes[0] == 64 && config.sizes.last() == Some(&10) {
        println!("  cargo run --example infer -- --model {}", shared::word(&to));
    } else {
        let run = args.commits.run().map_or("RUN".to_owned(), shared::word);
        println!(
            "  cargo run --example infer -- --run {run} --csv FILE --model {}",
            shared::word(&to)
        );
    }
    println!("  burn_ema::export::load(module, {to:?})? in a program, of a module of this network");
    Ok(())
}

/// The error, with what to type where the files need other prefixes; `has_prefix` if there is one
/// for all.
fn way_on(error: anyhow::Error, has_prefix: bool) -> anyhow::Error {
    let is_of_prefix = |text: &str| {
        let is_empty =
            text.contains("found no tensor") || text.contains("nothing under the prefix");
        text.contains("option prefix") || has_prefix && is_empty
    };
    match format!("{error:#}") {
        text if is_of_prefix(&text) => anyhow!(
            "{text}\n--prefix holds for all files: `cargo run --example export -- --model FILE \
             --prefix NAME --to OTHER` writes what is under the prefix as a file without one"
        ),
        _ => error,
    }
}

/// The greedy merge by the loss on validation rows.
fn greedy(merge: &Merge, fresh: &Mlp, rows: &Rows, device: &Device) -> Result<Merged<Mlp>> {
    let valid = rows.load(device)?;
    let score = |mlp: &Mlp| anyhow::Ok(-Scores::of(mlp, &*valid)?.loss);
    let Greedy { merged, score, candidates, .. } = merge.greedy(fresh, score)?;
    println!("validation loss: alone   merged");
    for Candidate { path, alone, merged, taken, .. } in candidates {
        let word = if taken { "taken" } else { "left" };
        println!("{:>22.6} {:>8.6}  {word:<5}  {}", -alone, -merged, path.display());
    }
    println!("loss of the merge: {:.6}, on rows that it was chosen by", -score);
    rows.print();
    Ok(merged)
}
