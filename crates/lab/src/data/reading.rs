//! The options for reading the file of a table. They are saved with the run, since tables for
//! inference must have the same form as the table of the training.

use serde::{Deserialize, Serialize};

/// The options for reading the file of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Reading {
    /// The character between two cells: in ASCII, no quotation mark and no line end.
    ///
    /// If it is a space, several successive spaces count as one.
    pub delimiter: char,
    /// True if the first row has the names of the columns; else they are called `1`, `2` and so on.
    pub header: bool,
    /// True if the header may be one cell shorter than a single row of data; the first column then
    /// has no name.
    ///
    /// With several rows of data such a header is found without this option, and
    /// [`Table::reading`](super::Table::reading) then has `true` here.
    pub row_names: bool,
    /// The names of columns to leave out.
    pub drop: Vec<String>,
    /// The treatment of cells without a value.
    pub missing: Missing,
}

impl Default for Reading {
    /// Commas between cells, a header, no column left out, and an error for a cell without a value.
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

/// The treatment of cells without a value, which are empty or have a mark such as `NA`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Missing {
    /// An error.
    #[default]
    Error,
    /// Rows with such a cell are left out of the training, and get no answer.
    Drop,
    /// The cell gets the mean of the training rows; for texts, each input gets the share of its
    /// text.
    ///
    /// Rows without a target are left out of the training.
    Mean,
}

impl Missing {
    /// The name in options of programs and in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Drop => "drop",
            Self::Mean => "mean",
        }
    }
}
