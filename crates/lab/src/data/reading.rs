//! The way in which a table's file is read: the options that a person gives, saved with the run so
//! that its answers are asked for with a table of the same form.

use serde::{Deserialize, Serialize};

/// The way in which a table is read from its file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Reading {
    /// The character between two cells, in ASCII.
    ///
    /// Several spaces in a row are one, where it is a space.
    pub delimiter: char,
    /// The first row has the names of the columns; without them they are called `1`, `2` and so on.
    pub header: bool,
    /// The header may be a cell shorter than one row alone, whose first cell then has no name.
    ///
    /// Several rows show that by themselves, and [`Table::reading`](super::Table::reading) has
    /// then `true` here.
    pub row_names: bool,
    /// The names of columns to leave out.
    pub drop: Vec<String>,
    /// The treatment of cells without a value.
    pub missing: Missing,
}

impl Default for Reading {
    /// Commas, a header, all columns, and a value in every cell.
    fn default() -> Self {
        Self {
            delimiter: ',',
            header: true,
            row_names: false,
            drop: vec![],
            missing: Missing::Error,
        }
    }
}

/// The treatment of cells without a value: empty ones, and marks such as `NA`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Missing {
    /// An error.
    #[default]
    Error,
    /// Rows with one are not learned, and get no answer.
    Drop,
    /// The mean of the training rows stands in for one; of texts, the share of each.
    ///
    /// Rows without a target are not learned.
    Mean,
}

impl Missing {
    /// The name in options and files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Drop => "drop",
            Self::Mean => "mean",
        }
    }
}
