//! The averaging engine: rules, averages of any module, the kernels that update them.
//!
//! It knows Burn's core and the crate's error, nothing else here.

mod lerp;
mod record;
mod rule;
mod state;
mod walk;

pub(crate) use record::Opened;
#[cfg(feature = "train")]
pub(crate) use record::{Saved, Words};
pub use rule::Rule;
pub use state::{Average, AverageConfig};
#[cfg(feature = "train")]
pub(crate) use state::{Start, update_all};
