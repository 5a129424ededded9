//! A run on disk: its directory, its configuration and the model that it leaves.
//!
//! ```text
//! config.json      what was trained, on what and how
//! model.bpk        the averaged model, a plain record of Burn
//! report.json      the test split: live and each average
//! checkpoint/      Burn's checkpoints, from which a run resumes
//! train/, valid/   Burn's metrics of each epoch
//! experiment.log   Burn's log
//! ```
//!
//! Reading a run's model needs no training stack.

mod config;
mod directory;

pub use config::{Optimizer, RunConfig};
pub use directory::RunDirectory;
