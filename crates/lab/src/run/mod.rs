//! A run of the perceptron on disk: its directory, its configuration and the model that it leaves.
//!
//! ```text
//! LOCK             who trains it, while someone does
//! config.json      what was trained, on what and how
//! commits/         from which the run goes on: the newest, and the best in validation
//! metrics.csv      the metrics of each batch and epoch
//! model.bpk        the averaged model that it left, which plain Burn loads
//! report.json      the test split: live and each average
//! summary.json     what the averages are made of, and what was answered on the test split
//! split.json       the rows of a table that were trained on, validated by and tested
//! remarks.txt      what was skipped or warned of
//! report.html      all of it on one page; its pictures in report/
//! experiment.log   Burn's log
//! ```
//!
//! `commits/`, `metrics.csv` and `LOCK` are those of `burn_ema::runs`.
//!
//! Reading the model that a run has left needs no training stack.

mod config;
mod directory;

pub use config::{OptimizerKind, RunConfig};
pub use directory::RunDirectory;
