//! A run on disk: its directory, its configuration and the model that it leaves.
//!
//! ```text
//! LOCK             who trains it, while someone does
//! config.json      what was trained, on what and how
//! commits/         from which the run goes on: the newest, and the best in validation
//!   epoch-0040/    after 40 epochs: model.bpk, optimizer.bpk, scheduler.bpk, MANIFEST.json
//! metrics.csv      the metrics of each batch and epoch
//! model.bpk        the averaged model that it left, which plain Burn loads
//! report.json      the test split: live and each average
//! summary.json     what the averages are made of, and what was answered on the test split
//! remarks.txt        what was skipped or warned of
//! report.html      all of it on one page; its pictures in report/
//! experiment.log   Burn's log
//! ```
//!
//! In `metrics.csv` a line is a batch, with the number of values that it is a mean of in `count`; or
//! what an epoch came to, with `epoch` there; or `part`, for what a resumed epoch came to of which
//! the whole is not known; or `text`.
//! A manifest is JSON, and a last line with the SHA-256 of it.
//!
//! Reading a run's model needs no training stack.

#[cfg(feature = "train")]
mod changes;
mod commits;
mod config;
mod directory;
#[cfg(feature = "train")]
mod disk;
mod history;
#[cfg(feature = "train")]
mod lock;
mod manifest;

#[cfg(feature = "train")]
pub use changes::Change;
pub use commits::{Commit, Commits, Newest};
pub use config::{Optimizer, RunConfig};
pub use directory::RunDirectory;
#[cfg(feature = "train")]
pub use lock::RunLock;
pub use manifest::{File, Manifest, Progress};
#[cfg(feature = "train")]
pub(crate) use {
    changes::check as check_changes,
    commits::MODEL,
    disk::{create_directory, replace},
    history::{History, METRICS, Mark, VALIDATED},
    manifest::{FORMAT, MANIFEST, MOST_CONFIG_BYTES},
};
