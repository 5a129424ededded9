//! A run of the perceptron on disk: its directory, its configuration and the model that it leaves.
//!
//! ```text
//! LOCK             the lock of the process that writes the run
//! config.json      what was trained, on what and how
//! commits/         the commits to resume the run from: the newest, and the best in validation
//! metrics.csv      the metrics of each batch and epoch
//! model.bpk        the averaged model of the finished run, which plain Burn loads
//! report.json      the scores of live and of each average on the test split
//! summary.json     the profiles of the averages, and the answers on the test split
//! split.json       the rows of the table in the training, validation and test splits
//! remarks.txt      what was skipped or warned of
//! report.html      all of this on one page; its pictures are in report/
//! experiment.log   Burn's log
//! ```
//!
//! `commits/`, `metrics.csv` and `LOCK` are written by `burn_ema::runs`.
//!
//! Reading the model of a finished run needs no training stack.

mod config;
mod directory;

pub use config::{OptimizerKind, RunConfig};
pub use directory::RunDirectory;
