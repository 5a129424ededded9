//! The options of the command line.

use std::path::PathBuf;

use burn_ema::{AverageConfig, Rule};
use burn_ema_lab::run::OptimizerKind;
use clap::{ArgGroup, Parser, ValueEnum};

use crate::reading::{Learned, ReadingArgs};

#[derive(Parser)]
#[command(about = "Train a sigmoid perceptron; validate, test and save its average")]
// A run that goes on has its data and its target already.
#[command(group = ArgGroup::new("rows").args(["data", "resume"]).multiple(true))]
#[command(group = ArgGroup::new("column").args(["target", "resume"]).multiple(true))]
pub struct Args {
    /// Passes over the training split [default: 40]
    #[arg(long)]
    pub epochs: Option<usize>,
    /// Rows in a batch [default: 8]
    #[arg(long)]
    pub batch_size: Option<usize>,
    /// Learning rate [default: 0.02 with Adam, 2 with SGD]
    #[arg(long, allow_negative_numbers = true)]
    pub lr: Option<f64>,
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
    /// The seed of the split, the first weights and the order of the rows [default: 1]
    #[arg(long)]
    pub seed: Option<u64>,
    /// A CSV file, gzip too, whose columns are numbers, true and false, yes and no, or some texts,
    /// each of which is an input; those that only number the rows are left out; without it, the
    /// digits that ship with the crate
    #[arg(long, requires = "column")]
    pub data: Option<PathBuf>,
    /// The column of the CSV to learn
    #[arg(long, requires = "rows")]
    pub target: Option<String>,
    /// The kind of the target [default: classes for text and for few whole numbers]
    #[arg(long, requires = "rows")]
    pub task: Option<Learned>,
    #[command(flatten)]
    pub reading: ReadingArgs,
    /// The device, such as flex, ndarray or wgpu, or ws://HOST:PORT for a server of Burn's remote
    /// backend (Cargo feature `remote`); else BURN_DEVICE, else the Cargo features decide
    #[arg(long)]
    pub device: Option<String>,
    /// The directory of the run
    #[arg(long, default_value = "artifacts/runs/default")]
    pub run: PathBuf,
    /// Go on from the newest commit of the run, as it was begun: more epochs, other averages, another
    /// --commit-every and another --keep-every may be given. With --data and --target, begin it where there is none
    #[arg(long)]
    pub resume: bool,
    /// Commit within epochs too, after so many steps, and not at the end of each alone; 0 for the
    /// ends alone [default: that of the run with --resume, else 0]
    #[arg(long, value_name = "STEPS")]
    pub commit_every: Option<u64>,
    /// Keep, beside the newest commits and the best, the first commit of each so many steps, for the
    /// example `merge`; 0 to keep none of these [default: that of the run with --resume, else 0]
    #[arg(long, value_name = "STEPS")]
    pub keep_every: Option<u64>,
    /// Remove the run that is in the directory and start anew
    #[arg(long, conflicts_with = "resume")]
    pub overwrite: bool,
}

impl Args {
    /// All averages that were asked for.
    pub fn averages(&self) -> Vec<AverageConfig> {
        self.decay.iter().chain(&self.average).cloned().map(AverageConfig::new).collect()
    }

    /// The optimizer that was asked for.
    pub fn optimizer(&self) -> Option<OptimizerKind> {
        self.optimizer.map(|moved| match moved {
            Moved::Sgd => OptimizerKind::Sgd,
            Moved::Adam => OptimizerKind::Adam,
        })
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum Moved {
    Sgd,
    Adam,
}

/// A rule, or a decay with bias correction, so that the first epochs' averages already mean
/// something.
fn rule(text: &str) -> Result<Rule, burn_ema::Error> {
    match text.parse::<f64>() {
        Ok(decay) => format!("ema({decay}, debias)").parse(),
        Err(_) => text.parse(),
    }
}
