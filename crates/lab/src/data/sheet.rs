//! A CSV file as named columns of text cells, each with its place in the file; what the cells mean
//! is decided elsewhere.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// A CSV file with a header row.
///
/// Every row has as many cells as the header, and the names in the header differ.
pub(super) struct Sheet {
    path: PathBuf,
    header: Vec<String>,
    rows: Vec<SheetRow>,
}

/// The cells of a row, trimmed, and the number of the row in a text editor.
struct SheetRow {
    number: usize,
    cells: csv::StringRecord,
}

impl Sheet {
    /// Reads a file.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|error| Error::file("read", path, error))?;
        Self::parse(path, &bytes)
    }

    /// Reads the content of a file; the path is only for errors.
    pub(super) fn parse(path: &Path, bytes: &[u8]) -> Result<Self> {
        let text = utf8(path, bytes)?;
        // Rows of other lengths are let through here, since csv's own error for them does not
        // count rows as a text editor does.
        let mut reader = csv::ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .trim(csv::Trim::All)
            .from_reader(text.as_bytes());

        let mut rows = Vec::new();
        let mut place = RowCounter { text, byte: 0, row: 1 };
        for record in reader.records() {
            let cells = record.map_err(|error| Error::file("read", path, error))?;
            let byte = cells.position().map_or(0, |position| position.byte() as usize);
            rows.push(SheetRow { number: place.row_at(byte), cells });
        }

        let mut rows = rows.into_iter();
        let Some(header) = rows.next() else {
            return Err(Error::table(path, "row 1", "a header row", "an empty file"));
        };
        let sheet = Self {
            path: path.into(),
            header: header.cells.iter().map(String::from).collect(),
            rows: rows.collect(),
        };
        sheet.check_names(header.number)?;
        sheet.check_rows(header.number)?;
        Ok(sheet)
    }

    /// Refuses names that are empty or appear twice.
    fn check_names(&self, row: usize) -> Result<()> {
        let mut seen = HashSet::new();
        for (column, name) in self.header.iter().enumerate() {
            let place = || format!("row {row}, cell {}", column + 1);
            if name.is_empty() {
                return Err(self.error(place(), "the name of a column", "an empty cell"));
            }
            if !seen.insert(name) {
                let found = format!("{} a second time", quoted(name));
                return Err(self.error(place(), "a name that no other column has", found));
            }
        }
        Ok(())
    }

    /// Refuses a file without rows, and rows that are longer or shorter than the header.
    fn check_rows(&self, header: usize) -> Result<()> {
        if self.rows.is_empty() {
            let place = format!("after row {header}");
            return Err(self.error(place, "rows of data", "nothing but the header"));
        }
        let width = self.header.len();
        match self.rows.iter().find(|row| row.cells.len() != width) {
            None => Ok(()),
            Some(row) => Err(self.error(
                format!("row {}", row.number),
                format!("as many cells as the header has, {width}"),
                row.cells.len().to_string(),
            )),
        }
    }

    /// The names of the columns.
    pub(super) fn header(&self) -> &[String] {
        &self.header
    }

    /// The number of rows of data.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// The index of the column with this name.
    pub(super) fn column(&self, name: &str) -> Result<usize> {
        self.header.iter().position(|other| other == name).ok_or_else(|| {
            let expected = format!("a column {}", quoted(name));
            self.error("the header", expected, format!("the columns {}", listed(&self.header)))
        })
    }

    /// The text of a cell, which may not be empty.
    pub(super) fn text(&self, row: usize, column: usize) -> Result<&str> {
        match &self.rows[row].cells[column] {
            "" => Err(self.cell_error(row, column, "a value", "an empty cell")),
            text => Ok(text),
        }
    }

    /// The number in a cell.
    pub(super) fn number(&self, row: usize, column: usize) -> Result<f64> {
        let text = &self.rows[row].cells[column];
        // The range of f32, since that is what a network computes with.
        match text.parse::<f64>() {
            // Adding 0 makes -0 and 0 the same number.
            Ok(number) if number.abs() <= f64::from(f32::MAX) => Ok(number + 0.0),
            _ => {
                let found = if text.is_empty() { "an empty cell".into() } else { quoted(text) };
                Err(self.cell_error(row, column, "a number between -3.4e38 and 3.4e38", found))
            }
        }
    }

    /// The numbers in these columns, row by row.
    pub(super) fn numbers(&self, columns: &[usize]) -> Result<Vec<Vec<f64>>> {
        let row = |row| columns.iter().map(|&column| self.number(row, column)).collect();
        (0..self.len()).map(row).collect()
    }

    /// The number that a row of data has in a text editor.
    pub(super) fn row_number(&self, row: usize) -> usize {
        self.rows[row].number
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
    fn cell_error(
        &self,
        row: usize,
        column: usize,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Error {
        let (row, column) = (self.row_number(row), quoted(&self.header[column]));
        self.error(format!("row {row}, column {column}"), expected, found)
    }
}

/// A counter of the rows of a text, which counts as a text editor does, blank ones too.
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

/// The number of rows that end in a text: at `\n`, `\r\n` or a lone `\r`.
fn row_ends(text: &[u8]) -> usize {
    let ends = |(i, byte): (usize, &u8)| match byte {
        b'\n' => true,
        b'\r' => text.get(i + 1) != Some(&b'\n'),
        _ => false,
    };
    text.iter().enumerate().filter(|&item| ends(item)).count()
}

/// The text of a file without the mark that some programs put in front.
fn utf8<'a>(path: &Path, bytes: &'a [u8]) -> Result<&'a str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(text.strip_prefix('\u{feff}').unwrap_or(text)),
        Err(error) => {
            let (good, bad) = bytes.split_at(error.valid_up_to());
            let row = format!("row {}", row_ends(good) + 1);
            Err(Error::table(path, row, "UTF-8 text", format!("the byte 0x{:02X}", bad[0])))
        }
    }
}

/// A text in quotes, cut where it is too long for an error.
pub(super) fn quoted(text: &str) -> String {
    const LONGEST: usize = 60;
    match text.char_indices().nth(LONGEST) {
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?}...", &text[..end]),
    }
}

/// Names in quotes, cut where they are too many for an error.
fn listed(names: &[String]) -> String {
    const MOST: usize = 20;
    let mut list: Vec<_> = names.iter().take(MOST).map(|name| quoted(name)).collect();
    if names.len() > MOST {
        list.push(format!("and {} more", names.len() - MOST));
    }
    list.join(", ")
}

#[cfg(test)]
mod tests;
