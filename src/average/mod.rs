//! The averaging engine: rules, averages of any module, the kernels that update them.
//!
//! This module depends on Burn's core, on the kernels, and on the errors and files of
//! `burn-ema-base`.
//!
//! One formula updates every average `a`. A rule gives each step a raw weight `m`, and the mass `Z`
//! is the sum of the raw weights of all steps so far. The share of live `w` is `alpha`.
//!
//! ```math
//! a \leftarrow a + \alpha\,(w - a), \qquad \alpha = \frac{m}{Z}
//! ```
//!
//! - Numbers, without tensors: [`Rule`] computes the share of live in an update, [`Profile`] the
//!   weight of each past step in an average, [`post_hoc`] the mix of stored averages that makes
//!   another average. Beside its tensors an average keeps only its course (what it has seen, when
//!   it was updated) and the mass of each of its rules.
//! - Tensors: [`Average`] and its update, [`Snapshots`] on disk. Only the walk over two modules
//!   side by side and the kernels touch parameters.
//! - Around them: [`AverageConfig`] with [`Policy`], [`Clock`] and [`NonFinite`]; [`Warning`]; the
//!   saved form, in Burn's records and as a file with its [`Description`].

mod clock;
#[cfg(feature = "runs")]
mod committed;
mod config;
mod course;
mod file;
mod kept;
mod numbers;
mod outlook;
mod pack;
mod policy;
#[cfg(feature = "post-hoc")]
pub mod post_hoc;
mod profile;
mod record;
mod rule;
mod sample;
mod saved;
mod snapshots;
mod state;
#[cfg(feature = "train")]
mod statistics;
#[cfg(feature = "post-hoc")]
mod synthesis;
#[cfg_attr(not(feature = "train"), expect(dead_code, reason = "the hook alone waits"))]
mod unconfirmed;
mod update;
mod walk;
mod warning;

pub use clock::Clock;
pub use config::{AverageConfig, NonFinite};
#[cfg(feature = "export")]
pub(crate) use file::KEPT;
pub use file::{Description, MergedFile, load_file, save_file};
pub use numbers::Refused;
#[cfg(any(feature = "export", feature = "train"))]
pub(crate) use pack::Pack;
#[cfg(feature = "export")]
pub(crate) use pack::{DIGEST, OURS, OpenPack, check_digest, write_whole};
pub use policy::{PathPolicy, Policy};
pub use profile::Profile;
#[cfg(any(feature = "export", feature = "train"))]
pub(crate) use record::ReadRecord;
#[cfg(feature = "train")]
pub(crate) use record::{AVERAGES, LIVE, RecordModule, STATE, WEIGHTS, WordReader, Words};
pub use rule::Rule;
pub use snapshots::{Snapshot, Snapshots, Stored};
pub use state::{Average, Distance};
#[cfg(feature = "train")]
pub use statistics::reestimate_statistics;
#[cfg(feature = "post-hoc")]
pub use synthesis::{Grid, Synthesis, Tried};
#[cfg(feature = "train")]
pub(crate) use unconfirmed::{Rollback, Unconfirmed};
#[cfg(feature = "train")]
pub(crate) use update::{StepFacts, update_after};
pub use update::{Updated, update_all};
#[cfg(any(feature = "export", feature = "train"))]
pub(crate) use walk::Entry;
#[cfg(feature = "export")]
pub(crate) use walk::{Place, Recorded, describe, load, recorded, running_states};
#[cfg(feature = "train")]
pub(crate) use walk::{path_of, put_statistics, statistics};
pub use warning::Warning;
