//! Shared code of the examples, tests and benches of burn-ema: everything around a training of the
//! perceptron that is not averaging. It is not published.
//!
//! - [`data`]: the scanned digits, tables from CSV, their split, scaling and batches;
//! - [`device`]: the device that a program runs on, chosen by name and checked;
//! - [`run`]: the directory of a run of the perceptron, and the configuration in it;
//! - [`report`]: scores of live and of averages on the test split, and runs as a page of HTML.
//!
//! The order of their use, from a table to a page:
//!
//! 1. [`device::select`] opens the device;
//! 2. [`data::digits`] or [`data::Table::read`] reads a table, and [`data::Prepared::new`] makes
//!    its samples and the [`data::Preparation`] that a trained model is used with;
//! 3. [`data::loader`] makes batches of the samples;
//! 4. a [`run::RunConfig`] is all settings of a run, which [`run::RunDirectory::create`] begins;
//! 5. `run::RunDirectory::commit_config` and `burn_ema::runs::fit` train it;
//! 6. [`report::Report`], [`report::Summary`] and [`report::Page`] show the result;
//! 7. [`run::RunDirectory::model`] loads the model, which needs no training stack.
//!
//! Loaders, writing runs, and `report` need the default feature `train`.
//!
//! Modules import only from modules on their left: `error <- {data, device} <- run <- report`.

#![cfg_attr(not(feature = "train"), allow(rustdoc::broken_intra_doc_links))]
#![deny(unsafe_code)]
#![warn(missing_docs)]

pub mod data;
pub mod device;
mod error;
#[cfg(feature = "train")]
pub mod report;
pub mod run;

pub use error::{Error, Result};
