//! The first row of a sheet: the names of its columns, a row of data, or neither.

use super::super::decimal::Decimal;
use super::super::delimiter;
use super::{Sheet, SheetRow};
use crate::Result;

/// The use of a table, which decides what can be done where its first row does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Purpose {
    /// To learn it, in a way that options say.
    Training,
    /// To ask about its rows, in the way of the training; each has an answer.
    Answers,
}

impl Sheet {
    /// Takes the first row for the names of the columns.
    ///
    /// Where the rows have more cells, all of which are empty, they end with delimiters, and those
    /// cells are left out.
    /// Where the rows, which are several, have one cell more that is not, the first column has no
    /// name: so R writes tables with names of rows, and pandas reads them.
    /// One row is enough where the table of the training had that form, but its rows may then not end
    /// with an empty cell, which could be either.
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

    /// Names the columns by their numbers, and leaves out a first row that is none of the table's:
    /// some files say there how many rows follow.
    ///
    /// Where each row has an answer, only a row that begins with that count is left out.
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
        // Decimal commas look like more cells, and with one row more of this width, the first row
        // is the odd one.
        let mut hint = delimiter::hint(&self.names, self.delimiter, None);
        let others = || self.rows.iter().all(|row| row.cells.len() == found);
        if self.header && hint.is_empty() && others() {
            let is_empty = |row: &SheetRow| row.cells[found - 1].is_empty();
            let end_empty = found > width && self.rows.iter().all(is_empty);
            hint = match self.rows.len() {
                // In the form of a header without a name for the first column.
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

    /// A hint for a first row that is likely no header: one with a number in it, or whose columns
    /// are asked for by their numbers.
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

    /// The way on where the first row is no header.
    pub(super) fn no_header(&self) -> String {
        let way_on = match self.purpose {
            Purpose::Training => "--no-header says so, and the columns are called 1, 2 and so on",
            Purpose::Answers => "put the names of the columns in a row above it",
        };
        format!("; if row {} is no header, {way_on}", self.first_row)
    }
}
