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
mod shared; // the standard output of a reader that may leave
#[path = "shared/output.rs"]
mod output; // where and how a model is written
#[path = "shared/weights.rs"]
mod weights; // files of weights, and how they are read

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use burn::tensor::Device;
use burn_ema::{
    Rule,
    average::Description,
    export::{
        LoadOptions,
        merge::{Candidate, Decay, Greedy, Merge, Merged, Weights},
    },
    model::{Mlp, MlpConfig},
    runs::{Commits, LastCommits},
    train::AveragedCommit as _,
};
use burn_ema_lab::{
    data::{Prepared, digits, loader},
    device,
    report::Scores,
    run::{RunConfig, RunDirectory},
};
use clap::{ArgGroup, Parser};

use self::{output::OutputArgs, weights::ReadOptions};

#[derive(Parser)]
#[command(
    about = "Merge saved perceptrons, or the commits of a run, into one file",
    after_help = "Weights: without an option all files count alike. --weights gives one number for \
                  each file; --rule weighs the files as an average would weigh so many steps; \
                  --decay has the effect of a learning rate that decays over the checkpoints of one \
                  training; --base with --scale adds the difference of each file from a base; \
                  --greedy adds the files that make the loss on the digits' validation rows less.\n\n\
                  Files are burnpack, safetensors (PyTorch's too) or of torch.save, mixed; all of \
                  one network. The description of the result holds the SHA-256 and the weight of \
                  each."
)]
#[command(group = ArgGroup::new("file").args(["model", "run"]).required(true))]
#[command(group = ArgGroup::new("kind").args(["weights", "rule", "decay", "base", "greedy"]))]
struct Args {
    /// The files to merge, two or more; the order counts for --weights, --rule and --decay
    #[arg(id = "model", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Merge live at the newest commits of a run, oldest first, in place of files
    #[arg(long, value_name = "DIR", conflicts_with = "model")]
    run: Option<PathBuf>,
    /// How many commits of the run to merge; `train --keep-every` keeps more than the newest two
    #[arg(long, value_name = "COUNT", requires = "run", default_value_t = 5)]
    last: usize,
    /// The first average at each commit, in place of live
    #[arg(long, requires = "run")]
    average: bool,
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
    /// Begin with the file of the least loss, and add each other that does not make it greater
    #[arg(long)]
    greedy: bool,
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
    let (of_run, options) = match &args.run {
        Some(run) => commits(run, &args)?,
        None => (Vec::new(), args.read.of_model()),
    };
    let commits = of_run.iter().map(|(path, _)| path.clone());
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
    // The network that the first file holds, which all others must be. Activations do not matter but
    // for a score.
    let digits = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../artifacts/digits"));
    let trained = || RunDirectory::open(args.run.as_deref().unwrap_or(digits))?.config();
    let trained = args.greedy.then(trained).transpose()?;
    let like = trained.as_ref().map_or(MlpConfig::new(vec![1, 1]), |run| run.model.clone());
    let (config, _) = args.read.network(&files[0], &options, &like, args.greedy)?;
    let fresh = config.init(&device)?;
    let merge = Merge::new(files).with_weights(weights).with_options(options);
    let Merged { module, mut description, notes, .. } = match trained {
        Some(run) => greedy(&merge, &fresh, &run, &device)?,
        None => merge.load(&fresh)?,
    };
    // Commits hold no description of their weights; the run has it.
    for (path, said) in of_run {
        let path = path.display().to_string();
        let file = description.files.iter().find(|file| file.path == path);
        description.mass_on_start += file.map_or(0.0, |it| it.weight) * said.mass_on_start;
        (description.step, description.samples) = (said.step, said.samples);
    }
    for file in &description.files {
        println!("{:>10.6}  {}...  {}", file.weight, &file.sha256[..16], file.path);
    }
    notes.iter().for_each(|note| println!("note: {note}"));
    let to = args.output.write(&module, &description)?;
    println!("to use it:\n  cargo run --example infer -- --model {}", shared::word(&to));
    println!("  burn_ema::export::load(module, {to:?})? in a program, of a module of this network");
    Ok(())
}

/// The files of the newest commits of a run, oldest first, with what is merged of each, and how that
/// part is read.
fn commits(run: &Path, args: &Args) -> Result<(Vec<(PathBuf, Description)>, LoadOptions)> {
    let LastCommits { commits, passed_over } = Commits::of(run).last(args.last)?;
    passed_over.into_iter().for_each(|it| println!("warning: {:#}", anyhow::Error::new(it)));
    let (run, count) = (shared::word(run), commits.len());
    ensure!(
        count >= 2,
        "{run}: a merge needs 2 commits or more, found {count} (--last {}); \
         `train --keep-every STEPS` keeps more",
        args.last
    );
    if count < args.last {
        println!("note: {run} has {count} commits, fewer than --last {}", args.last);
    }
    let prefix = match (commits[0].manifest().parts.first(), args.average) {
        (Some((name, _)), true) => format!("averages.{name}.weights"),
        (Some(_), false) => "live".to_owned(),
        (None, average) => {
            ensure!(!average, "{run} has no averages: leave out --average");
            String::new()
        }
    };
    let files = commits.iter().map(|commit| {
        let said = match args.average {
            true => commit.describe_average("")?,
            false => Description::new("live", commit.manifest().steps, ""),
        };
        anyhow::Ok((commit.path().join("model.bpk"), said))
    });
    Ok((files.collect::<Result<_>>()?, args.read.under(Some(&prefix))))
}

/// The greedy merge by the loss on the validation rows of the digits.
fn greedy(merge: &Merge, fresh: &Mlp, run: &RunConfig, device: &Device) -> Result<Merged<Mlp>> {
    ensure!(run.data.is_none(), "--greedy scores by the digits, and this run learned a table");
    let valid = Prepared::new(&digits()?, run.seed)?.valid;
    let valid = loader(valid, run.batch_size, None, device)?;
    let score = |mlp: &Mlp| anyhow::Ok(-Scores::of(mlp, &*valid)?.loss);
    let Greedy { merged, score, candidates, .. } = merge.greedy(fresh, score)?;
    println!("validation loss: alone   merged");
    for Candidate { path, alone, merged, taken, .. } in candidates {
        let word = if taken { "taken" } else { "left" };
        println!("{:>22.6} {:>8.6}  {word:<5}  {}", -alone, -merged, path.display());
    }
    println!("loss of the merge: {:.6}, on rows that it was chosen by", -score);
    println!(
        "the rows are those of the validation with the seed {}: a file that was trained with another \
         seed has learned some of them, and looks better than it is",
        run.seed
    );
    Ok(merged)
}
