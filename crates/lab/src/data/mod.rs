//! Data: scanned digits, tables from CSV, their split, scaling and batches.
//!
//! The way from a file to a training is [`Table::read`] (or [`digits()`]), then [`Prepared::new`],
//! then a [`loader`] for each part.
//! The way from a trained network to answers is [`read_features`], then [`Preparation::encode`],
//! the network, and [`Preparation::decode`].

#[cfg(feature = "train")]
mod batch;
mod digits;
mod preparation;
mod prepared;
mod scale;
mod sheet;
mod split;
mod table;

#[cfg(feature = "train")]
pub use batch::loader;
pub use digits::digits;
pub use preparation::{Answer, Feature, Preparation, Task};
pub use prepared::{Prepared, Sample};
pub use scale::Scale;
pub use split::Split;
pub use table::{Table, Targets, TaskKind, read_features};
