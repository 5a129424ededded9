//! A run on disk: its commits, what they say of themselves, its history, who may write.
//!
//! ```text
//! LOCK             who trains it, while someone does
//! commits/         from which the run goes on: the newest, and the best in validation
//!   epoch-0040/    after 40 epochs: model.bpk, optimizer.bpk, scheduler.bpk, MANIFEST.json
//! metrics.csv      the metrics of each batch and epoch
//! ```
//!
//! In `metrics.csv` a line is a batch, with the number of values that it is a mean of in `count`; or
//! what an epoch came to, with `epoch` there; or `part`, for what a resumed epoch came to of which
//! the whole is not known; or `text`.
//! A manifest is JSON, and a last line with the SHA-256 of it.
//!
//! Reading a model of a commit needs no training stack.

#[cfg(feature = "train")]
mod changes;
mod commits;
#[cfg(feature = "train")]
mod disk;
mod history;
#[cfg(feature = "train")]
mod lock;
mod manifest;

#[cfg(feature = "train")]
pub use changes::Change;
pub use commits::{Commit, Commits, Newest};
#[cfg(feature = "train")]
pub use disk::{create_directory, replace};
#[cfg(feature = "train")]
pub use history::{METRICS, VALIDATED};
#[cfg(feature = "train")]
pub use lock::RunLock;
pub use manifest::{File, Manifest, Progress};
#[cfg(feature = "train")]
pub(crate) use {
    changes::check as check_changes,
    commits::MODEL,
    history::{History, Mark},
    manifest::{FORMAT, MANIFEST, MOST_CONFIG_BYTES},
};
