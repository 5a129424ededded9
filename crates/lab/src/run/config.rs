//! The configuration of a run: network, data, averages, optimizer. Saved as its `config.json`.

use std::path::PathBuf;

use burn::config::Config;

use burn_ema::{AverageConfig, Error, Result, model::MlpConfig};

use crate::data::Preparation;

/// Everything that decides a run of the perceptron.
#[derive(Config, Debug)]
pub struct RunConfig {
    /// The network.
    pub model: MlpConfig,
    /// Turns a row of data into inputs, and outputs into an answer.
    pub preparation: Preparation,
    /// The averages; the first one validates and is the model that the run leaves.
    pub averages: Vec<AverageConfig>,
    /// The optimizer that moves the weights.
    pub optimizer: OptimizerKind,
    /// The learning rate, the same in every step.
    pub lr: f64,
    /// Passes over the training split.
    pub epochs: usize,
    /// Rows in a batch.
    pub batch_size: usize,
    /// The file of the table; none for [`digits`](crate::data::digits()).
    pub data: Option<PathBuf>,
    /// The digest of the table, see [`Table::sha256`](crate::data::Table::sha256).
    pub data_sha256: String,
    /// The seed of the split, the first weights and the order of the rows.
    pub seed: u64,
    /// The steps after which the run commits within an epoch too; none or 0 for the ends of epochs
    /// alone.
    pub commit_every: Option<u64>,
}

impl RunConfig {
    /// Checks what the parts do not check themselves.
    ///
    /// # Errors
    ///
    /// A learning rate that is not a number above zero; no epoch; no row in a batch; no average.
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
    /// The name in options and in names of benches.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sgd => "sgd",
            Self::Adam => "adam",
        }
    }

    /// The optimizer, at its start.
    #[cfg(feature = "train")]
    pub fn init(self) -> burn::optim::ModuleOptimizer {
        match self {
            Self::Sgd => burn_ema::fast::SgdConfig::new().init(),
            Self::Adam => burn_ema::fast::AdamConfig::new().init(),
        }
    }
}
