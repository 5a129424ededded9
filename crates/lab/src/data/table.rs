//! A CSV file as features and targets of a task; splitting and scaling them is not done here.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::cell::is_missing;
use super::column::{self, Column, ColumnKind};
use super::commas;
use super::problem::{Problem, Remedy, refuse};
use super::reading::{Missing, Reading};
use super::scale::within_rounding;
use super::sheet::{Purpose, Sheet, listed, quoted};
use super::target::{self, Targets, TaskKind};
use burn_ema_base::digest;

use crate::Result;

/// The rows below which 60/20/20 leaves a part without any.
const FEWEST_ROWS: usize = 5;

/// Rows of numbers to learn from, each with a target.
#[derive(Clone, Debug)]
pub struct Table {
    path: PathBuf,
    reading: Reading,
    width: usize,
    target: String,
    columns: Vec<Column>,
    rows: Vec<usize>,
    features: Vec<Vec<f64>>,
    targets: Targets,
    known_range: Option<f64>,
    notes: Vec<String>,
}

impl Table {
    /// Reads a CSV file with commas between cells and a header, and takes the task from its target
    /// column.
    ///
    /// The file is UTF-8 text, which may be compressed by gzip.
    /// The target column is the one with the given name.
    /// All other columns are features, but for those that only number the rows:
    /// - numbers that fit an `f32`;
    /// - `true` and `false`, or `yes` and `no`;
    /// - texts, at most 20 different ones, or 256 if each is in two rows on average.
    ///
    /// A target of texts is a classification, and so is one of whole numbers with at most 20
    /// different values that are fewer than half of the rows; any other numbers are a regression.
    /// A target of both texts and numbers is a classification under the same limit, and an error
    /// above it, since it is then likely a column of numbers with a slip in it.
    /// Numbers that are exactly equal are the same class, named as in the first of its rows.
    ///
    /// # Errors
    ///
    /// Each names the file, the row as a text editor counts it (the header is row 1), and the
    /// column, and all columns that cannot be used are in one:
    /// - the file cannot be read, is not UTF-8, is empty, or has only a header;
    /// - a quotation mark is not closed, or has text behind the one that closes it;
    /// - a name in the header is empty or appears twice, or all names are numbers;
    /// - there is no target column of that name, or no column beside it;
    /// - a row has more or fewer cells than the header;
    /// - a cell has no value: it is empty or has a mark such as `NA`;
    /// - a column has commas in some numbers and points in others, where a semicolon is between cells;
    /// - a cell holds a text or a number beyond `f32` where a number belongs;
    /// - a column holds nearly as many different texts as there are rows;
    /// - there are fewer than 5 rows, since 60/20/20 would leave a part without any;
    /// - a class has fewer than 3 rows, since all of them could land in the training;
    /// - the target is the same in every row, up to rounding.
    pub fn read(path: impl AsRef<Path>, target: &str) -> Result<Self> {
        Self::read_with(path, target, None, &Reading::default())
    }

    /// Reads a CSV file for the given task, whatever its target column looks like.
    ///
    /// # Errors
    ///
    /// Like [`Table::read`]; for a regression also a text in the target.
    pub fn read_as(path: impl AsRef<Path>, target: &str, kind: TaskKind) -> Result<Self> {
        Self::read_with(path, target, Some(kind), &Reading::default())
    }

    /// Reads a CSV file in another way, for a given task or that of its target column.
    ///
    /// # Errors
    ///
    /// Like [`Table::read_as`], and columns to leave out that are not there.
    pub fn read_with(
        path: impl AsRef<Path>,
        target: &str,
        kind: Option<TaskKind>,
        reading: &Reading,
    ) -> Result<Self> {
        Self::of_sheet(
            &Sheet::read(path.as_ref(), reading, Purpose::Training)?,
            target,
            kind,
            reading,
        )
    }

    /// Reads the content of a CSV file; the path is only for errors.
    pub(super) fn parse(
        path: &Path,
        bytes: &[u8],
        target: &str,
        kind: Option<TaskKind>,
        reading: &Reading,
    ) -> Result<Self> {
        Self::of_sheet(&Sheet::parse(path, bytes, reading)?, target, kind, reading)
    }

    /// Makes a table of a sheet: numbers for the features, classes or numbers for the target.
    fn of_sheet(
        sheet: &Sheet,
        target: &str,
        kind: Option<TaskKind>,
        reading: &Reading,
    ) -> Result<Self> {
        if reading.header {
            refuse_numbers_as_names(sheet)?;
        }
        let target_index = sheet.column(target)?;
        let mut notes = sheet.notes().to_vec();
        let indices = column::select(sheet, target_index, reading, &mut notes)?;
        let columns = columns(sheet, &indices, target_index, reading.missing, &mut notes)?;

        let rows: Vec<_> = (0..sheet.len())
            .filter(|&row| is_learned(sheet, row, &indices, target_index, reading.missing))
            .collect();
        if rows.len() < sheet.len() {
            let left_out = sheet.len() - rows.len();
            let what = match reading.missing {
                Missing::Mean => "a target",
                Missing::Error | Missing::Drop => "a value",
            };
            notes.push(format!("{left_out} of {} rows lack {what} and are left out", sheet.len()));
        }
        if rows.len() < FEWEST_ROWS {
            let lacking = sheet.len() - rows.len();
            let hint = match lacking {
                0 => String::new(),
                _ => format!(" beside {lacking} that lack a value (--drop leaves out a column)"),
            };
            return Err(sheet.error(
                "the rows of data",
                format!("at least {FEWEST_ROWS}, so that 60/20/20 gives each part one"),
                format!("{}{hint}", rows.len()),
            ));
        }
        let features = rows.iter().map(|&row| {
            let cells = indices.iter().zip(&columns);
            cells.map(|(&index, column)| column::value(sheet, row, index, &column.kind)).collect()
        });
        let features = features.collect::<Result<Vec<Vec<f64>>>>()?;
        let filled = features.iter().flatten().filter(|value| value.is_nan()).count();
        if filled > 0 {
            notes
                .push(format!("{filled} cells lack a value and get the mean of the training rows"));
        }
        notes.extend(constant_columns(&columns, &features));
        let targets = target::read(sheet, target_index, &rows, kind, &mut notes)?;
        Ok(Self {
            path: sheet.path().into(),
            reading: Reading { row_names: sheet.has_row_names(), ..reading.clone() },
            width: sheet.width(),
            target: target.into(),
            columns,
            rows: rows.iter().map(|&row| sheet.row_number(row)).collect(),
            features,
            targets,
            known_range: None,
            notes,
        })
    }

    /// The table with features that are known to lie from 0 to `largest`.
    ///
    /// The features are divided by `largest` instead of being standardised, so that a constant one
    /// is no problem and needs no note.
    pub(super) fn with_known_range(self, largest: f64) -> Self {
        Self { known_range: Some(largest), notes: Vec::new(), ..self }
    }

    /// The largest value of the features, where it is known; the smallest is then 0.
    pub(super) fn known_range(&self) -> Option<f64> {
        self.known_range
    }

    /// The file that the table was read from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The name of the target column.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// The way in which the file was read.
    pub fn reading(&self) -> &Reading {
        &self.reading
    }

    /// The number of columns in the file, those that are no features included.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The columns that are features, in the order of the file.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// The number that each row has in the file, as a text editor counts rows.
    pub fn rows(&self) -> &[usize] {
        &self.rows
    }

    /// The features, `[row][column]`: numbers in the units of the file, or what the
    /// [`ColumnKind`] says; NaN for a cell without a value, where those are filled.
    pub fn features(&self) -> &[Vec<f64>] {
        &self.features
    }

    /// The targets of the rows.
    pub fn targets(&self) -> &Targets {
        &self.targets
    }

    /// The SHA-256 of all names, numbers and targets, in hexadecimal digits: that of what is
    /// learned, wherever the file lies and however it is spaced.
    pub fn sha256(&self) -> String {
        let mut hash = Sha256::new();
        let mut add = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        add(self.target.as_bytes());
        add(&(self.columns.len() as u64).to_le_bytes());
        for Column { name, kind } in &self.columns {
            add(name.as_bytes());
            match kind {
                ColumnKind::Number => {}
                ColumnKind::Truth => add(b"truth"),
                ColumnKind::Texts(texts) => texts.iter().for_each(|text| add(text.as_bytes())),
            }
        }
        let bytes = |numbers: &[f64]| -> Vec<u8> {
            numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
        };
        add(&(self.features.len() as u64).to_le_bytes());
        self.features.iter().for_each(|row| add(&bytes(row)));
        match &self.targets {
            Targets::Numbers(numbers) => add(&bytes(numbers)),
            Targets::Classes { labels, of_row } => {
                add(b"classes");
                of_row.iter().for_each(|&class| add(labels[class].as_bytes()));
            }
        }
        digest::hexadecimal(hash.finalize())
    }

    /// Remarks on the table that are no errors, one sentence each: a column or rows that were left
    /// out, texts with an input each, cells that are filled, decimal commas, a feature that is constant, a task that
    /// was guessed of numbers, labels that are equal numbers, a class of so few rows (below 5) that
    /// a part may lack it.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }
}

/// Refuses a header that is likely the first row of a table without one.
fn refuse_numbers_as_names(sheet: &Sheet) -> Result<()> {
    match sheet.names().iter().all(|name| name.parse::<f64>().is_ok()) {
        false => Ok(()),
        true => Err(sheet.error(
            "the header",
            "the names of the columns",
            format!(
                "numbers alone, {} (--no-header reads a table without names, whose columns are \
                 then called 1 to {})",
                listed(sheet.names()),
                sheet.width()
            ),
        )),
    }
}

/// The features with their kinds, if all of them and the target can be used.
fn columns(
    sheet: &Sheet,
    indices: &[usize],
    target: usize,
    missing: Missing,
    notes: &mut Vec<String>,
) -> Result<Vec<Column>> {
    let (mut columns, mut problems, mut with_commas) = (vec![], vec![], vec![]);
    let mut check_commas =
        |index, remedy, problems: &mut Vec<Problem>| match commas::check(sheet, index, remedy) {
            Ok(true) => with_commas.push(index),
            Ok(false) => {}
            Err(problem) => problems.push(problem),
        };
    for &index in indices {
        check_commas(index, Remedy::Drop(sheet.names()[index].clone()), &mut problems);
        match column::kind_of(sheet, index, notes) {
            Ok(kind) => columns.push(Column { name: sheet.names()[index].clone(), kind }),
            Err(problem) => problems.push(problem),
        }
        if missing == Missing::Error {
            problems.extend(column::missing(sheet, index, Remedy::Fill));
        }
    }
    check_commas(target, Remedy::OneSign, &mut problems);
    if missing == Missing::Error {
        problems.extend(column::missing(sheet, target, Remedy::DropRows));
    }
    refuse(sheet, problems)?;
    notes.extend(commas::note(sheet, &with_commas));
    Ok(columns)
}

/// Says if a row is learned from, by the cells of it that have no value.
fn is_learned(
    sheet: &Sheet,
    row: usize,
    features: &[usize],
    target: usize,
    missing: Missing,
) -> bool {
    let is_there = |column: &usize| !is_missing(sheet.cell(row, *column));
    let features = || features.iter().all(is_there);
    is_there(&target) && (missing != Missing::Drop || features())
}

/// A note for each column that is the same in every row, up to rounding.
fn constant_columns(columns: &[Column], features: &[Vec<f64>]) -> Vec<String> {
    let note = |(index, Column { name, kind }): (usize, &Column)| {
        let values = features.iter().map(|row| row[index]).filter(|value| !value.is_nan());
        let values: Vec<_> = values.collect();
        let first = *values.first()?;
        let value = match kind {
            ColumnKind::Number if within_rounding(&values) => first.to_string(),
            ColumnKind::Number => return None,
            _ if values.iter().any(|value| *value != first) => return None,
            ColumnKind::Truth if first == 1.0 => "true".into(),
            ColumnKind::Truth => "false".into(),
            ColumnKind::Texts(texts) => quoted(&texts[first as usize]),
        };
        let name = quoted(name);
        Some(format!("column {name} is {value} in every row, so nothing can be learned from it"))
    };
    columns.iter().enumerate().filter_map(note).collect()
}

#[cfg(test)]
mod tests;
