//! Shared code of the examples, tests and benches of burn-ema: everything around a training of the
//! perceptron that is not averaging. It is not published.
//!
//! - [`data`]: the scanned digits, tables from CSV, their split, scaling and batches;
//! - [`device`]: the device that a program runs on, chosen by name and checked;
//! - [`run`]: the directory of a run of the perceptron, and the configuration in it;
//! - [`report`]: live and averages on the test split, and a run as a page of HTML.
//!
//! The order of their use, from a table to a page:
//!
//! 1. [`device::select`] gives the device;
//! 2. [`data::digits`] or [`data::Table::read`] gives a table, and [`data::Prepared::new`] its
//!    samples and the [`data::Preparation`] that a trained model is used with;
//! 3. [`data::loader`] makes batches of the samples;
//! 4. a [`run::RunConfig`] says what is trained, and [`run::RunDirectory::create`] begins the run;
//! 5. `run::RunDirectory::commit_config` and `burn_ema::runs::fit` train it;
//! 6. [`report::Report`], [`report::Summary`] and [`report::Page`] say what came of it;
//! 7. [`run::RunDirectory::model`] loads the model, with no need of the training stack.
//!
//! Loaders, runs that are written, and `report` are behind the default feature `train`.
//!
//! Imports run one way: `error <- {data, device} <- run <- report`.

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
