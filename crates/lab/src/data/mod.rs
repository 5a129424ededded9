//! Data: scanned digits, public tables, tables from CSV, their split, scaling and batches.
//!
//! The way from a file to a training is [`Table::read`] (or [`digits()`], or
//! [`PublicTable::read`]), then [`Prepared::new`],
//! then a [`loader`] for each part.
//! The way from a trained network to answers is [`read_rows`], then [`Preparation::encode`], the
//! network, and [`Preparation::decode`].
//!
//! `content` turns a file into text, `quotes` checks the quotation marks of the text, and `sheet`
//! splits the text into cells with their places in the file.
//! `column` finds the kind of a feature from the cells of its column, and `target` the task.

#[cfg(feature = "train")]
mod batch;
mod cell;
mod column;
mod commas;
mod content;
mod decimal;
mod delimiter;
mod digits;
mod feature;
mod preparation;
mod prepared;
mod problem;
mod quotes;
mod reading;
mod rows;
mod scale;
mod sheet;
mod split;
mod table;
mod tables;
mod target;

#[cfg(feature = "train")]
pub use batch::{inputs, loader};
pub use column::{Column, ColumnKind};
pub use digits::digits;
pub use feature::{Feature, FeatureKind, Texts};
pub use preparation::{Answer, Preparation, Task};
pub use prepared::{Prepared, Sample};
pub use reading::{Missing, Reading};
pub use rows::{Rows, read_rows};
pub use scale::Scale;
pub use split::Split;
pub use table::Table;
pub use tables::PublicTable;
pub use target::{Targets, TaskKind};
