//! Weight averaging for Burn: train one model, validate and ship its average.

pub mod average;
pub mod data;
pub mod device;
mod error;
pub mod model;
#[cfg(feature = "train")]
pub mod report;
pub mod run;
#[cfg(feature = "train")]
pub mod train;

pub use average::{Average, AverageConfig, Rule};
pub use error::{Error, Result};
