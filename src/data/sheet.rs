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
    rows: Vec<Row>,
}

/// The cells of a row, trimmed, and the number of the row in a text editor.
struct Row {
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
        let mut place = Place { text, byte: 0, row: 1 };
        for record in reader.records() {
            let cells = record.map_err(|error| Error::file("read", path, error))?;
            let byte = cells.position().map_or(0, |position| position.byte() as usize);
            rows.push(Row { number: place.row_at(byte), cells });
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

    /// How many rows of data there are.
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

/// A walk through a text that counts rows as a text editor does, blank ones too.
struct Place<'a> {
    text: &'a str,
    byte: usize,
    row: usize,
}

impl Place<'_> {
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

/// How many rows end in a text: at `\n`, `\r\n` or a lone `\r`.
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<Sheet> {
        Sheet::parse(Path::new("t.csv"), text.as_bytes())
    }

    fn refusal(text: &str) -> String {
        parse(text).err().unwrap().to_string()
    }

    #[test]
    fn cells_are_trimmed_and_a_mark_in_front_is_dropped() {
        let sheet = parse("\u{feff} a ,b\n 1 ,\" x, \"\"y\"\" \"\n").unwrap();
        assert_eq!(sheet.header(), ["a", "b"]);
        assert_eq!(sheet.number(0, 0).unwrap(), 1.0);
        assert_eq!(sheet.text(0, 1).unwrap(), "x, \"y\"");
    }

    #[test]
    fn rows_are_counted_as_in_a_text_editor() {
        for end in ["\n", "\r\n", "\r"] {
            let rows = ["a,b", "1,2", "", "", "\"x", "y\",3", "4,5", "", "6,7"];
            let sheet = parse(&rows.join(end)).unwrap();
            let numbers: Vec<_> = (0..sheet.len()).map(|row| sheet.row_number(row)).collect();
            assert_eq!(numbers, [2, 5, 7, 9], "rows end with {end:?}");
        }
        let after_blanks = parse("\n\na,b\n1,2\n").unwrap();
        assert_eq!(after_blanks.row_number(0), 4);
    }

    #[test]
    fn what_is_no_sheet_is_refused() {
        assert_eq!(refusal(""), "t.csv: row 1: expected a header row, found an empty file");
        assert_eq!(
            refusal("a,b\n"),
            "t.csv: after row 1: expected rows of data, found nothing but the header"
        );
        assert_eq!(
            refusal("a,b\n1,2\n3\n"),
            "t.csv: row 3: expected as many cells as the header has, 2, found 1"
        );
        assert_eq!(
            refusal("a,b\n\n1,2,3\n"),
            "t.csv: row 3: expected as many cells as the header has, 2, found 3"
        );
        assert_eq!(
            refusal("a,b,a\n1,2,3\n"),
            "t.csv: row 1, cell 3: expected a name that no other column has, \
             found \"a\" a second time"
        );
        assert_eq!(
            refusal(",a\n0,1\n"),
            "t.csv: row 1, cell 1: expected the name of a column, found an empty cell"
        );
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for bad in ["x", "", "NaN", "inf", "-Infinity", "1e39", "1 2"] {
            let error = parse(&format!("a,b\n0,0\n1,{bad}\n")).unwrap().number(1, 1);
            let found = if bad.is_empty() { "an empty cell".into() } else { format!("{bad:?}") };
            assert_eq!(
                error.unwrap_err().to_string(),
                format!(
                    "t.csv: row 3, column \"b\": \
                     expected a number between -3.4e38 and 3.4e38, found {found}"
                )
            );
        }
        for (good, number) in [("-0", 0.0), ("1e-3", 0.001), ("+.5", 0.5), ("3e38", 3e38)] {
            let sheet = parse(&format!("a,b\n{good},1\n")).unwrap();
            assert_eq!(sheet.number(0, 0).unwrap(), number);
        }
    }

    #[test]
    fn a_missing_column_is_refused_with_those_that_are_there() {
        let sheet = parse("a,b\n1,2\n").unwrap();
        assert_eq!(
            sheet.column("c").unwrap_err().to_string(),
            "t.csv: the header: expected a column \"c\", found the columns \"a\", \"b\""
        );
        let many: Vec<_> = (0..25).map(|i| i.to_string()).collect();
        assert!(listed(&many).ends_with("\"19\", and 5 more"));
    }

    #[test]
    fn bytes_that_are_no_text_are_refused() {
        let error = Sheet::parse(Path::new("t.csv"), b"a,b\n1,caf\xe9\n").err().unwrap();
        assert_eq!(error.to_string(), "t.csv: row 2: expected UTF-8 text, found the byte 0xE9");
    }

    #[test]
    fn a_file_that_cannot_be_read_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let missing = directory.path().join("missing.csv");
        for path in [directory.path(), &missing] {
            let error = Sheet::read(path).err().unwrap();
            assert!(matches!(error, Error::File { action: "read", .. }));
            assert!(error.to_string().contains(&path.display().to_string()));
        }
    }

    proptest! {
        #[test]
        fn no_content_panics(text in "[a0,;\"' \r\n\u{e9}\u{feff}]{0,60}") {
            if let Ok(sheet) = parse(&text) {
                for row in 0..sheet.len() {
                    prop_assert!(sheet.row_number(row) <= row_ends(text.as_bytes()) + 1);
                    prop_assert!(sheet.row_number(row) >= 2);
                    for column in 0..sheet.header().len() {
                        let _ = (sheet.text(row, column), sheet.number(row, column));
                    }
                }
            }
        }

        #[test]
        fn what_was_written_is_read(
            cells in prop::collection::vec(prop::collection::vec("[a-z,\"\n ]{0,6}", 3), 1..8)
        ) {
            let mut writer = csv::Writer::from_writer(Vec::new());
            writer.write_record(["a", "b", "c"]).unwrap();
            for row in &cells {
                writer.write_record(row).unwrap();
            }
            let written = String::from_utf8(writer.into_inner().unwrap()).unwrap();
            let sheet = parse(&written).unwrap();
            prop_assert_eq!(sheet.len(), cells.len());
            let mut number = 2;
            for (row, cells) in cells.iter().enumerate() {
                prop_assert_eq!(sheet.row_number(row), number);
                number += 1 + cells.iter().map(|cell| cell.matches('\n').count()).sum::<usize>();
                for (column, cell) in cells.iter().enumerate() {
                    prop_assert_eq!(&sheet.rows[row].cells[column], cell.trim());
                }
            }
        }
    }
}
