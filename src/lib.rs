//! Weight averaging for Burn: train one model, validate and ship its average.

pub mod data;
mod error;

pub use error::{Error, Result};
