//! The first row of a sheet: a header, a row of data, or neither.

use super::super::decimal::Decimal;
use super::super::delimiter;
use super::{Sheet, SheetRow};
use crate::Result;

/// The use of a table, which decides what happens where its first row does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Purpose {
    /// To train on the table, with options for reading it.
    Training,
    /// To infer an answer for each row, with the options of the training.
    Answers,
}

impl Sheet {
    /// Removes the first row, and uses its cells as the names of the columns.
    ///
    /// If all rows have the same number of cells, and another number than the header:
    /// - Surplus cells at the ends of the rows are left out where all of them are empty; so are
    ///   surplus names that are empty.
    /// - Where several rows have one cell more than the header, the first column has no name: R
    ///   writes tables with names of rows in this form, and pandas reads them.
    /// - With `row_names` a single row in this form is enough. One surplus cell that is empty in
    ///   every row is then not left out, since the rows could have either form.
    pub(super) fn take_header(&mut self, row_names: bool) {
        self.rows.remove(0);
        let Some(width) = self.rows.first().map(|row| row.cells.len()) else { return };
        let names = self.names.len();
        if self.rows.iter().any(|row| row.cells.len() != width) {
            return;
        }
        let are_surplus = |cells: &csv::StringRecord| cells.iter().skip(names).all(str::is_empty);
        let end_empty = width > names && self.rows.iter().all(|row| are_surplus(&row.cells));
        if row_names && width == names + 1 {
            self.row_names = !end_empty;
        } else if end_empty {
            self.rows.iter_mut().for_each(|row| row.cells.truncate(names));
            self.notes.push(
                "the rows end with more delimiters than the header; the empty cells behind them \
                 are left out"
                    .into(),
            );
        } else if width == names + 1 && self.rows.len() > 1 {
            self.row_names = true;
            // In a training, the columns without a name have notes of their own.
            if self.purpose == Purpose::Answers {
                self.notes.push(
                    "the header is a cell shorter than the rows, so the first column has no name"
                        .into(),
                );
            }
        } else if width < names && self.names[width..].iter().all(String::is_empty) {
            self.names.truncate(width);
            self.notes.push(
                "the header ends with more delimiters than the rows; the empty names behind them \
                 are left out"
                    .into(),
            );
        }
        if self.row_names {
            self.names.insert(0, String::new());
        }
    }

    /// Names the columns by their numbers, from 1. Leaves out a first row with another number of
    /// cells than the two rows after it: some files have the number of rows there.
    ///
    /// For [`Purpose::Answers`], only a first row that begins with this number is left out.
    pub(super) fn number_columns(&mut self) {
        let width = |row: &SheetRow| row.cells.len();
        let is_count = |row: &SheetRow| row.cells[0] == (self.rows.len() - 1).to_string();
        if let [first, second, third, ..] = &self.rows[..]
            && width(first) != width(second)
            && width(second) == width(third)
            && (self.purpose == Purpose::Training || is_count(first))
        {
            let (number, found, others) = (first.number, width(first), width(second));
            self.notes.push(format!(
                "row {number} has {found} cells and those below it {others}, so it is left out"
            ));
            self.rows.remove(0);
        }
        let width = self.rows.first().map_or(0, width);
        self.names = (1..=width).map(|number| number.to_string()).collect();
    }

    /// Refuses a file without rows, and rows that have more or fewer cells than there are names.
    pub(super) fn check_rows(&self) -> Result<()> {
        if self.rows.is_empty() {
            let place = format!("after row {}", self.first_row);
            return Err(self.error(place, "rows of data", "nothing but the header"));
        }
        let width = self.names.len();
        let Some(row) = self.rows.iter().find(|row| row.cells.len() != width) else {
            return Ok(());
        };
        let found = row.cells.len();
        let whose = if self.header { "the header" } else { "the first row" };
        // A single row may be longer because of decimal commas. If several rows have one width, the
        // first row is the one that does not fit.
        let mut hint = delimiter::hint(&self.names, self.delimiter, None);
        let others = || self.rows.iter().all(|row| row.cells.len() == found);
        if self.header && hint.is_empty() && others() {
            let is_empty = |row: &SheetRow| row.cells[found - 1].is_empty();
            let end_empty = found > width && self.rows.iter().all(is_empty);
            hint = match self.rows.len() {
                // `row_names` was given, but the surplus cells are empty.
                _ if end_empty => {
                    "; name the first column too, or end no row with a delimiter".to_owned()
                }
                1 => hint,
                _ => self.no_header(),
            };
        }
        Err(self.error(
            format!("row {}", row.number),
            format!("as many cells as {whose} has, {width}"),
            format!("{found}{hint}"),
        ))
    }

    /// A hint for a first row that is likely no header: a name in it is a number, or `wanted` is
    /// the number of a column. Empty for other first rows.
    pub(in super::super) fn header_hint(&self, wanted: Option<&str>) -> String {
        let is_place = |name: &str| {
            name.parse().is_ok_and(|number: usize| (1..=self.width()).contains(&number))
        };
        let has_number = || self.names.iter().any(|name| Decimal::parse(name).is_some());
        match self.header && (wanted.is_some_and(is_place) || has_number()) {
            true => self.no_header(),
            false => String::new(),
        }
    }

    /// The hint on what to do if the first row is no header.
    pub(super) fn no_header(&self) -> String {
        let way_on = match self.purpose {
            Purpose::Training => "--no-header says so, and the columns are called 1, 2 and so on",
            Purpose::Answers => "put the names of the columns in a row above it",
        };
        format!("; if row {} is no header, {way_on}", self.first_row)
    }
}
