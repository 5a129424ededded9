//! A CSV file as features and targets of a task, before they are split and scaled.

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

/// The least number of rows: 20 % of fewer are less than one row.
const MIN_ROWS: usize = 5;

/// Rows of numbers to train on, each with a target.
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
    /// Reads a CSV file with commas between cells and a header, and finds the task from its target
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
    /// above this limit, since it is then likely a column of numbers with a slip in it.
    /// Numbers that are exactly equal are one class, with the name that the first of its rows has.
    ///
    /// # Errors
    ///
    /// Each names the file and, where it applies, the row as a text editor counts it (the header is
    /// row 1) and the column. One error names all columns that cannot be used:
    /// - the file cannot be read, is not UTF-8, is empty, or has only a header;
    /// - a quotation mark is not closed, or has text behind the one that closes it;
    /// - a name in the header is empty or appears twice, or all names are numbers;
    /// - there is no target column of that name, or no column beside it;
    /// - a row has more or fewer cells than the header;
    /// - a cell has no value: it is empty or has a mark such as `NA`;
    /// - a column has commas in some numbers and points in others (with semicolons between cells);
    /// - a cell holds a text or a number beyond `f32` where a number belongs;
    /// - a column holds nearly as many different texts as there are rows;
    /// - there are fewer than 5 rows, since 20 % of them would be less than one row;
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

    /// Reads a CSV file by other options, for the task `kind`; `None` finds the task from the
    /// target column.
    ///
    /// # Errors
    ///
    /// Like [`Table::read_as`]; also a delimiter that is not allowed, and a column to leave out
    /// that is not there or is the target.
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
        if rows.len() < MIN_ROWS {
            let lacking = sheet.len() - rows.len();
            let hint = match lacking {
                0 => String::new(),
                _ => format!(" beside {lacking} that lack a value (--drop leaves out a column)"),
            };
            return Err(sheet.error(
                "the rows of data",
                format!("at least {MIN_ROWS}, so that 60/20/20 gives each part one"),
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

    /// The largest value of the features, whose smallest is then 0; `None` if the range is not
    /// known.
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

    /// The options by which the file was read.
    pub fn reading(&self) -> &Reading {
        &self.reading
    }

    /// The number of columns in the file, including those that are no features.
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

    /// The features, `[row][column]`: numbers in the units of the file, or truths and texts as
    /// numbers by [`ColumnKind`]. With [`Missing::Mean`], NaN for a cell without a value.
    pub fn features(&self) -> &[Vec<f64>] {
        &self.features
    }

    /// The targets of the rows.
    pub fn targets(&self) -> &Targets {
        &self.targets
    }

    /// The SHA-256 of all names, numbers and targets, in hexadecimal digits. It does not depend on
    /// the path of the file, on its spacing or on columns that are left out.
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
    /// out, texts with an input each, cells that are filled, decimal commas, a feature that is
    /// constant, a task that was guessed from numbers, labels that are equal numbers, a class of so
    /// few rows (below 5) that a part may lack it.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }
}

/// Refuses a header of numbers alone, which is likely the first row of a table without a header.
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

/// The features with their kinds. Adds notes; the error has every problem of a feature or of the
/// target.
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

/// True if a row is trained on: it has a target and, with [`Missing::Drop`], all features.
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

/// A note for each column that has one value in all rows, up to rounding for numbers. Rows without
/// a value in the column do not count.
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
