//! A training and its averages: everything that decides a run.

use std::path::PathBuf;

use anyhow::{Context, Result};
use burn_ema::{AverageConfig, Rule};
use burn_ema_lab::{
    data::{PublicTable, Reading, Table, TaskKind, digits},
    run::OptimizerKind,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Runs that were made with another version of this program are not taken for ours.
const VERSION: u32 = 4;

/// The values between inputs and outputs.
pub const HIDDEN: usize = 64;
pub const OPTIMIZER: OptimizerKind = OptimizerKind::Adam;

/// The widths of the averages that are stored through the training.
pub const TRACKED: [f64; 2] = [0.05, 0.1];
/// How often they are stored, evenly, the last time after the last step.
pub const TIMES: usize = 40;
/// The widths that are made of them afterwards.
pub const WIDTHS: [f64; 10] = [0.02, 0.03, 0.04, 0.05, 0.07, 0.1, 0.13, 0.16, 0.2, 0.25];

/// The averages of a training of so many steps, by the names that they have in tables.
pub fn averages(steps: usize) -> Vec<(&'static str, AverageConfig)> {
    let average = AverageConfig::new;
    vec![
        ("as suggested", AverageConfig::suggest(steps as u64)),
        ("1 % of the steps", average(Rule::debiased(1.0 - (100.0 / steps as f64).min(1.0)))),
        ("ema(0.99, debias)", average(Rule::debiased(0.99))),
        ("power(sigma_rel=0.1)", average(Rule::power_function(0.1))),
        ("equal, last half", average(Rule::Equal).with_start(steps as u64 / 2)),
    ]
}

/// Where the rows come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Source {
    /// The digits that ship with the crate.
    Digits,
    /// The public table of this name, which ships with the crate.
    Public(String),
    /// A table.
    File { path: PathBuf, target: String, task: Option<TaskKind>, reading: Reading },
}

impl Source {
    pub fn read(&self) -> Result<Table> {
        Ok(match self {
            Self::Digits => digits()?,
            Self::Public(name) => PublicTable::named(name).context("no public table")?.read()?,
            Self::File { path, target, task, reading } => {
                Table::read_with(path, target, *task, reading)?
            }
        })
    }
}

/// A training, but for its seed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Setting {
    pub name: String,
    pub source: Source,
    pub epochs: usize,
    pub lr: f64,
    pub batch_size: usize,
    /// The share of the training rows whose class is wrong.
    pub wrong_labels: f64,
    /// So many rows of the training split, or all.
    pub train_rows: Option<usize>,
}

impl Setting {
    /// The default training of the example `train`.
    pub fn new(name: &str, source: Source, epochs: usize) -> Self {
        let name = name.to_owned();
        let [lr, wrong_labels] = [0.02, 0.0];
        Self { name, source, epochs, lr, batch_size: 8, wrong_labels, train_rows: None }
    }

    /// The default training and what may make it harder to settle: those that fit the data.
    pub fn all(
        named: &str,
        source: &Source,
        epochs: usize,
        classes: bool,
        rows: usize,
    ) -> Vec<Self> {
        let new = |name: &str| Self::new(&format!("{named}{name}"), source.clone(), epochs);
        let mut all = vec![new("")];
        if classes {
            all.push(Self { wrong_labels: 0.1, ..new(", 10 % wrong labels") });
            all.push(Self { wrong_labels: 0.3, ..new(", 30 % wrong labels") });
        }
        all.push(Self { lr: 0.06, ..new(", 3 x learning rate") });
        all.push(Self { batch_size: 4, ..new(", batches of 4") });
        if rows > 200 {
            all.push(Self { train_rows: Some(200), ..new(", 200 training rows") });
        }
        all
    }
}

/// One training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    pub setting: Setting,
    pub seed: u64,
    /// The digest of what is learned from.
    pub data_sha256: String,
    /// The device of the run, in words.
    pub device: String,
}

impl Run {
    /// A digest of everything that decides the result, what this program holds included, if its
    /// [`VERSION`] goes with what it does; where a table lies and what the setting is called does
    /// not.
    pub fn key(&self) -> Result<String> {
        let mut setting = self.setting.clone();
        setting.name.clear();
        if let Source::File { path, .. } = &mut setting.source {
            path.clear();
        }
        let averages: Vec<_> = (0..24).map(|power| averages(1 << power)).collect();
        let network = (HIDDEN, OPTIMIZER);
        let decides = (
            (VERSION, env!("CARGO_PKG_VERSION"), network, averages, TRACKED, TIMES, WIDTHS),
            (setting, self.seed, &self.data_sha256, &self.device),
        );
        let text = serde_json::to_vec(&decides).context("a digest of the setting")?;
        Ok(Sha256::digest(text).iter().take(16).map(|byte| format!("{byte:02x}")).collect())
    }
}
