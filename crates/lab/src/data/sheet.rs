//! A CSV file as named columns of text cells, each with its place in the file. Other modules decide
//! the meaning of the cells.

use std::path::{Path, PathBuf};

use super::cell::with_point;
use super::content::{self, row_ends};
use super::reading::Reading;
use super::{delimiter, quotes};
use crate::{Error, Result};

mod header;

pub(super) use header::Purpose;

/// A CSV file as rows of cells below a name for each column.
///
/// Every row has as many cells as there are names.
pub(super) struct Sheet {
    path: PathBuf,
    purpose: Purpose,
    delimiter: char,
    /// True if the first row has the names.
    header: bool,
    names: Vec<String>,
    /// True if the header is a cell shorter than the rows, so that the first column has no name.
    row_names: bool,
    /// The number in a text editor of the header's row or, without a header, of the first row.
    first_row: usize,
    rows: Vec<SheetRow>,
    notes: Vec<String>,
}

/// The cells of a row, trimmed, and the number of the row in a text editor.
struct SheetRow {
    number: usize,
    cells: csv::StringRecord,
}

impl Sheet {
    /// Reads a file.
    pub(super) fn read(path: &Path, reading: &Reading, purpose: Purpose) -> Result<Self> {
        Self::of_text(path, &content::read(path)?, reading, purpose)
    }

    /// Reads the content of a file for a training; the path is only for errors.
    pub(super) fn parse(path: &Path, bytes: &[u8], reading: &Reading) -> Result<Self> {
        let text = content::text(path, bytes.to_vec())?;
        Self::of_text(path, &text, reading, Purpose::Training)
    }

    fn of_text(path: &Path, text: &str, reading: &Reading, purpose: Purpose) -> Result<Self> {
        let byte = match u8::try_from(reading.delimiter) {
            Ok(byte) if byte.is_ascii() && !b"\"\r\n".contains(&byte) => byte,
            _ => {
                let expected = "one ASCII character that is no quotation mark and ends no row";
                let found = format!("{:?}", reading.delimiter);
                return Err(burn_ema::Error::value("the delimiter", expected, found).into());
            }
        };
        let text = quotes::checked(path, text, byte)?;
        // Rows of other lengths are let through here, since csv's own error for them does not
        // count rows as a text editor does.
        let mut reader = csv::ReaderBuilder::new()
            .delimiter(byte)
            .has_headers(false)
            .flexible(true)
            .trim(csv::Trim::All)
            .from_reader(text.as_bytes());

        let mut rows = Vec::new();
        let mut place = RowCounter { text: &text, byte: 0, row: 1 };
        for record in reader.records() {
            let cells = record.map_err(|error| Error::file("read", path, error))?;
            let byte = cells.position().map_or(0, |position| position.byte() as usize);
            rows.push(SheetRow { number: place.row_at(byte), cells });
        }
        let Some(first) = rows.first() else {
            return Err(Error::table(path, "row 1", "a header row", "an empty file"));
        };
        let mut sheet = Self {
            path: path.into(),
            purpose,
            delimiter: reading.delimiter,
            header: reading.header,
            names: first.cells.iter().map(String::from).collect(),
            row_names: false,
            first_row: first.number,
            rows,
            notes: vec![],
        };
        match reading.header {
            true => sheet.take_header(reading.row_names),
            false => sheet.number_columns(),
        }
        sheet.check_rows()?;
        Ok(sheet)
    }

    /// The number of columns.
    pub(super) fn width(&self) -> usize {
        self.names.len()
    }

    /// True if the header is a cell shorter than the rows, as R writes tables with names of rows.
    pub(super) fn has_row_names(&self) -> bool {
        self.row_names
    }

    /// The number of rows of data.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// The names of the columns.
    pub(super) fn names(&self) -> &[String] {
        &self.names
    }

    /// The index of the column with this name; an error if there is none, or more than one.
    pub(super) fn column(&self, name: &str) -> Result<usize> {
        let mut indices = (0..self.width()).filter(|&index| self.names[index] == name);
        match (indices.next(), indices.next()) {
            (Some(index), None) => Ok(index),
            (Some(_), Some(second)) => Err(self.error(
                self.name_place(second),
                "a name that no other column has",
                format!(
                    "{} a second time; rename one of them in the file{}",
                    quoted(name),
                    self.no_header()
                ),
            )),
            (None, _) => Err(self.error(
                "the header",
                format!("a column {}", quoted(name)),
                format!(
                    "the columns {}{}{}",
                    listed(&self.names),
                    delimiter::hint(&self.names, self.delimiter, Some(name)),
                    self.header_hint(Some(name))
                ),
            )),
        }
    }

    /// Names the columns of a table without a header by numbers from 1, without `skipped`: the
    /// number of a column that this table lacks.
    pub(super) fn skip_number(&mut self, skipped: usize) {
        let numbers = (1..).filter(|number| *number != skipped);
        self.names = numbers.take(self.width()).map(|number| number.to_string()).collect();
    }

    /// The text of a cell.
    pub(super) fn cell(&self, row: usize, column: usize) -> &str {
        &self.rows[row].cells[column]
    }

    /// The text of a cell, with a decimal point in place of a decimal comma.
    pub(super) fn with_point(&self, row: usize, column: usize) -> std::borrow::Cow<'_, str> {
        with_point(self.cell(row, column), self.delimiter)
    }

    /// The number in a cell; an error for another text, and for a number beyond `f32`.
    pub(super) fn number(&self, row: usize, column: usize) -> Result<f64> {
        // The range of f32, since networks compute in f32.
        match self.with_point(row, column).parse::<f64>() {
            // Adding 0 makes -0 and 0 the same number.
            Ok(number) if number.abs() <= f64::from(f32::MAX) => Ok(number + 0.0),
            _ => {
                let expected = "a number between -3.4e38 and 3.4e38";
                Err(self.cell_error(row, column, expected, self.found(row, column)))
            }
        }
    }

    /// The text of a cell as an error shows it.
    pub(super) fn found(&self, row: usize, column: usize) -> String {
        match self.cell(row, column) {
            "" => "an empty cell".into(),
            text => quoted(text),
        }
    }

    /// The number that a row of data has in a text editor.
    pub(super) fn row_number(&self, row: usize) -> usize {
        self.rows[row].number
    }

    /// Remarks on how the file was read.
    pub(super) fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// An error that names this file.
    pub(super) fn error(
        &self,
        place: impl Into<String>,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Error {
        Error::table(&self.path, place, expected, found)
    }

    /// An error that names this file and a cell of it.
    pub(super) fn cell_error(
        &self,
        row: usize,
        column: usize,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Error {
        self.error(self.place(row, column), expected, found)
    }

    /// The place of a column's name.
    pub(super) fn name_place(&self, column: usize) -> String {
        format!("row {}, cell {}", self.first_row, column + 1)
    }

    /// The place of a cell.
    pub(super) fn place(&self, row: usize, column: usize) -> String {
        format!("row {}, column {}", self.row_number(row), quoted(&self.names[column]))
    }
}

/// A counter of the rows of a text, which counts as a text editor does: blank rows too.
struct RowCounter<'a> {
    text: &'a str,
    byte: usize,
    row: usize,
}

impl RowCounter<'_> {
    /// The row in which the first record at or after a byte begins.
    ///
    /// The csv crate gives the byte where its search for a record began, and counts rows from
    /// there; the blank rows that it skipped before the record are passed here.
    fn row_at(&mut self, byte: usize) -> usize {
        let bytes = self.text.as_bytes();
        let blank = bytes[byte..].iter().take_while(|byte| b"\r\n".contains(byte)).count();
        self.row += row_ends(&bytes[self.byte..byte + blank]);
        self.byte = byte + blank;
        self.row
    }
}

/// A text in quotes, cut after 60 characters.
pub(super) fn quoted(text: &str) -> String {
    const LONGEST: usize = 60;
    match text.char_indices().nth(LONGEST) {
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?}...", &text[..end]),
    }
}

/// The first 20 of some names in quotes, and how many more there are.
pub(super) fn listed(names: &[String]) -> String {
    first_listed(names, 20)
}

/// The first `most` of some names in quotes, and how many more there are.
pub(super) fn first_listed(names: &[String], most: usize) -> String {
    let mut list: Vec<_> = names.iter().take(most).map(|name| quoted(name)).collect();
    if names.len() > most {
        list.push(format!("and {} more", names.len() - most));
    }
    list.join(", ")
}

#[cfg(test)]
mod tests;
