//! The configuration of a run: network, data, averages, optimizer. Saved as `config.json`.

use std::path::PathBuf;

use burn::config::Config;

use burn_ema::{AverageConfig, Error, Result, model::MlpConfig};

use crate::data::Preparation;

/// Everything that decides a run of the perceptron.
#[derive(Config, Debug)]
pub struct RunConfig {
    /// The network.
    pub model: MlpConfig,
    /// The preparation, which turns a row of data into inputs, and outputs into an answer.
    pub preparation: Preparation,
    /// The averages, at least one. The first one runs Burn's validation; the one with the least
    /// validation loss at the end is saved as the model of the run.
    pub averages: Vec<AverageConfig>,
    /// The optimizer that moves the weights.
    pub optimizer: OptimizerKind,
    /// The learning rate, above 0; the same in every step.
    pub lr: f64,
    /// The number of passes over the training split, at least 1.
    pub epochs: usize,
    /// The number of rows in a batch, at least 1.
    pub batch_size: usize,
    /// The file of the table; `None` for [`digits`](crate::data::digits()).
    pub data: Option<PathBuf>,
    /// The digest of the table, see [`Table::sha256`](crate::data::Table::sha256).
    pub data_sha256: String,
    /// The seed of the split, the first weights and the order of the rows.
    pub seed: u64,
    /// The number of optimizer steps between two commits within an epoch. With `None` or 0, the run
    /// commits only at the ends of epochs.
    pub commit_every: Option<u64>,
    /// The number of optimizer steps from one commit that is kept for good to the next. With `None`
    /// or 0, only the newest commits and the best are kept.
    pub keep_every: Option<u64>,
}

impl RunConfig {
    /// Checks what the parts do not check themselves.
    ///
    /// # Errors
    ///
    /// A learning rate that is not a finite number above 0; no epoch; an empty batch; no average.
    pub fn check(&self) -> Result<()> {
        if !(self.lr > 0.0 && self.lr.is_finite()) {
            return Err(Error::value("the learning rate", "a number above 0", self.lr));
        }
        let counts = [
            ("the number of epochs", self.epochs),
            ("the batch size", self.batch_size),
            ("the number of averages", self.averages.len()),
        ];
        match counts.into_iter().find(|(_, count)| *count == 0) {
            Some((what, count)) => Err(Error::value(what, "1 or more", count)),
            None => Ok(()),
        }
    }
}

/// An optimizer of [`fast`](burn_ema::fast), with its defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerKind {
    /// Stochastic gradient descent, without momentum.
    Sgd,
    /// Adam.
    Adam,
}

impl OptimizerKind {
    /// The name in options of programs and in names of benches.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sgd => "sgd",
            Self::Adam => "adam",
        }
    }

    /// The optimizer before its first step.
    #[cfg(feature = "train")]
    pub fn init(self) -> burn::optim::ModuleOptimizer {
        match self {
            Self::Sgd => burn_ema::fast::SgdConfig::new().init(),
            Self::Adam => burn_ema::fast::AdamConfig::new().init(),
        }
    }
}
