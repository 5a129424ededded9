//! The columns of a table that are features, and the kind of each.

use std::collections::{HashMap, HashSet};

use super::cell::{is_missing, number_hint, truth};
use super::decimal::Decimal;
use super::problem::{Problem, Remedy, word};
use super::reading::Reading;
use super::sheet::{Sheet, first_listed, listed, quoted};
use crate::Result;

/// The most different texts of a column whose texts are in fewer than two rows on average.
const FEW_TEXTS: usize = 20;

/// The most different texts of a column whose texts are in two rows or more on average.
const MAX_TEXTS: usize = 256;

/// A text among numbers that is in fewer rows than this is taken for a slip.
const MIN_OF_TEXT: usize = 3;

/// A feature of a table.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    /// The name in the header; without a header, the number of the column, from 1.
    pub name: String,
    /// The kind of its cells.
    pub kind: ColumnKind,
}

/// The kind of a column's cells, and how [`Table::features`] represents them as numbers.
///
/// [`Table::features`]: super::Table::features
#[derive(Clone, Debug, PartialEq)]
pub enum ColumnKind {
    /// Numbers.
    Number,
    /// `true` and `false`, or `yes` and `no`: 1 and 0.
    Truth,
    /// Different texts, in the order of the file; a cell is the index of its text.
    Texts(Vec<String>),
}

/// The indices of the columns that are features: all but the target, the columns that `reading`
/// leaves out, and the columns that only number the rows. Adds a note for each of the last.
///
/// # Errors
///
/// A column to leave out that is the target or is not there; a feature whose name is empty or
/// appears twice; no feature.
pub(super) fn select(
    sheet: &Sheet,
    target: usize,
    reading: &Reading,
    notes: &mut Vec<String>,
) -> Result<Vec<usize>> {
    for name in &reading.drop {
        if *name == sheet.names()[target] {
            let expected = "columns to leave out that are not the target";
            return Err(sheet.error("the columns", expected, quoted(name)));
        }
        if !sheet.names().contains(name) {
            sheet.column(name)?;
        }
    }
    let kept =
        |column: &usize| *column != target && !reading.drop.contains(&sheet.names()[*column]);
    let kept: Vec<_> = (0..sheet.width()).filter(kept).collect();

    // If all other columns are constant, a column that counts the rows is the only one to learn
    // from, and is kept.
    let others = |column: &usize| !is_numbering(sheet, *column) && !is_constant(sheet, *column);
    let any_other = kept.iter().any(others);
    let mut columns = vec![];
    for column in kept {
        let name = &sheet.names()[column];
        if !is_numbering(sheet, column) || (!any_other && !name.is_empty()) {
            columns.push(column);
            continue;
        }
        let what = match &name[..] {
            "" => format!("column {}, which has no name,", column + 1),
            name => format!("column {}", quoted(name)),
        };
        let why = match (0..sheet.len()).all(|row| is_missing(sheet.cell(row, column))) {
            true => "has no value",
            false if counts_rows(sheet, column) => "counts the rows",
            false => "has another value in every row, as names of rows do",
        };
        notes.push(format!("{what} {why}, so it is left out"));
    }
    for &column in &columns {
        let name = &sheet.names()[column];
        if name.is_empty() {
            let hint = sheet.header_hint(None);
            let found = format!("an empty cell (--drop '' leaves the column out){hint}");
            return Err(sheet.error(sheet.name_place(column), "the name of a column", found));
        }
        if sheet.names()[..column].contains(name) {
            let expected = "a name that no other column has";
            let found = format!(
                "{} a second time (--drop {} leaves such columns out){}",
                quoted(name),
                word(name),
                sheet.header_hint(None)
            );
            return Err(sheet.error(sheet.name_place(column), expected, found));
        }
    }
    if columns.is_empty() {
        let found = format!("only the target {}", quoted(&sheet.names()[target]));
        return Err(sheet.error("the header", "at least one column of features", found));
    }
    Ok(columns)
}

/// True if a column only numbers the rows. For a column without a name also if it is the first and
/// names the rows, or if it has no value.
fn is_numbering(sheet: &Sheet, column: usize) -> bool {
    if !sheet.names()[column].is_empty() {
        return counts_rows(sheet, column);
    }
    let cells = || (0..sheet.len()).map(|row| sheet.cell(row, column));
    let is_name = |text: &str| Decimal::parse(text).is_none_or(|number| number.is_whole());
    let names = cells().all(is_name) && cells().collect::<HashSet<_>>().len() == sheet.len();
    // Delimiters at the ends of rows make a column without values.
    (column == 0 && names) || cells().all(is_missing)
}

/// True if a column counts the rows, from 0 or from 1; false for a single row.
fn counts_rows(sheet: &Sheet, column: usize) -> bool {
    let number = |row| sheet.number(row, column).ok();
    let counts = |first: f64| (0..sheet.len()).all(|row| number(row) == Some(first + row as f64));
    sheet.len() > 1 && (counts(0.0) || counts(1.0))
}

/// True if all cells of a column are the same.
fn is_constant(sheet: &Sheet, column: usize) -> bool {
    (1..sheet.len()).all(|row| sheet.cell(row, column) == sheet.cell(0, column))
}

/// The kind of a column, from all its cells that have a value. Adds a note for a column of texts.
///
/// # Errors
///
/// No value; a slip in a column of numbers; too many different texts.
pub(super) fn kind_of(
    sheet: &Sheet,
    column: usize,
    notes: &mut Vec<String>,
) -> Result<ColumnKind, Problem> {
    let cells = Cells::of(sheet, column);
    if cells.rows.is_empty() {
        return Err(cells.problem("a value in some row", "none"));
    }
    if cells.texts == 0 {
        // A number beyond `f32`.
        let beyond = cells.rows.iter().find(|row| sheet.number(**row, column).is_err());
        return beyond.map_or(Ok(ColumnKind::Number), |row| Err(cells.slip(*row)));
    }
    if cells.rows.iter().all(|row| truth(sheet.cell(*row, column)).is_some()) {
        return Ok(ColumnKind::Truth);
    }
    cells.texts(notes).map(ColumnKind::Texts)
}

/// The cells of a column that have a value.
struct Cells<'a> {
    sheet: &'a Sheet,
    column: usize,
    rows: Vec<usize>,
    /// The number of these rows whose cells are no numbers.
    texts: usize,
}

impl<'a> Cells<'a> {
    fn of(sheet: &'a Sheet, column: usize) -> Self {
        let rows = (0..sheet.len()).filter(|&row| !is_missing(sheet.cell(row, column))).collect();
        let mut cells = Self { sheet, column, rows, texts: 0 };
        cells.texts = cells.rows.iter().filter(|row| cells.is_text(**row)).count();
        cells
    }

    fn is_text(&self, row: usize) -> bool {
        self.sheet.with_point(row, self.column).parse::<f64>().is_err()
    }

    fn name(&self) -> &str {
        &self.sheet.names()[self.column]
    }

    /// The different texts in the order of the file. Adds a note if there are several.
    ///
    /// # Errors
    ///
    /// A text that is likely a slip among numbers; too many different texts.
    fn texts(&self, notes: &mut Vec<String>) -> Result<Vec<String>, Problem> {
        let mut values = vec![];
        let mut counts = HashMap::<&str, usize>::new();
        for &row in &self.rows {
            let cell = self.sheet.cell(row, self.column);
            let count = counts.entry(cell).or_default();
            *count += 1;
            if *count == 1 {
                values.push(cell.to_owned());
            }
        }
        // Among more numbers than texts, a text that is rare or beside many numbers is a slip.
        let is_slip = |row: &&usize| {
            let is_rare = counts[self.sheet.cell(**row, self.column)] < MIN_OF_TEXT;
            self.is_text(**row) && (is_rare || values.len() > FEW_TEXTS)
        };
        if 2 * self.texts < self.rows.len()
            && let Some(&row) = self.rows.iter().find(is_slip)
        {
            return Err(self.slip(row));
        }
        let (different, rows) = (values.len(), self.rows.len());
        let most = if 2 * different > rows { FEW_TEXTS } else { MAX_TEXTS };
        if different > most || different == rows {
            let first = quoted(&values[0]);
            let hint = number_hint(&values[0]);
            let found =
                format!("{different} different ones in {rows} rows, {first} the first{hint}");
            let expected = match most {
                MAX_TEXTS => format!("numbers, or at most {MAX_TEXTS} different texts"),
                _ => "numbers, or texts that are in several rows".to_owned(),
            };
            return Err(self.problem(&expected, &found));
        }
        // A column of one text is constant, which has a note of its own.
        if different > 1 {
            let mixed = if self.texts < rows { ", some of which are numbers," } else { "" };
            notes.push(format!(
                "column {} holds {different} different texts{mixed} with an input for each: {}{}",
                quoted(self.name()),
                first_listed(&values, 6),
                number_hint(&values[0])
            ));
        }
        Ok(values)
    }

    /// A problem with the whole column.
    fn problem(&self, expected: &str, found: &str) -> Problem {
        Problem {
            place: format!("column {}", quoted(self.name())),
            expected: expected.into(),
            found: found.into(),
            remedy: Remedy::Drop(self.name().into()),
        }
    }

    /// The problem of a cell in a column of numbers that holds a text, or a number beyond `f32`.
    fn slip(&self, row: usize) -> Problem {
        let (place, found) =
            (self.sheet.place(row, self.column), self.sheet.found(row, self.column));
        Problem { place, found, ..self.problem(NUMBER, "") }
    }
}

/// The numbers that a cell may hold.
const NUMBER: &str = "a number between -3.4e38 and 3.4e38";

/// The problem of the cells without a value in a column; `None` if there is no such cell, and if no
/// cell of the column has a value.
pub(super) fn missing(sheet: &Sheet, column: usize, remedy: Remedy) -> Option<Problem> {
    let mut rows = (0..sheet.len()).filter(|&row| is_missing(sheet.cell(row, column)));
    let first = rows.next()?;
    let found = sheet.found(first, column);
    let found = match rows.count() {
        more if more + 1 == sheet.len() => return None,
        0 => found,
        1 => format!("{found}, and no value in 1 row more"),
        more => format!("{found}, and no value in {more} rows more"),
    };
    Some(Problem { place: sheet.place(first, column), expected: "a value".into(), found, remedy })
}

/// A cell as a number, by the kind of its column; NaN for a cell without a value.
///
/// # Errors
///
/// A cell of another kind, or a text that is not one of the column's.
pub(super) fn value(sheet: &Sheet, row: usize, column: usize, kind: &ColumnKind) -> Result<f64> {
    let text = sheet.cell(row, column);
    if is_missing(text) {
        return Ok(f64::NAN);
    }
    let value = match kind {
        ColumnKind::Number => return sheet.number(row, column),
        ColumnKind::Truth => truth(text),
        ColumnKind::Texts(values) => {
            values.iter().position(|value| value == text).map(|index| index as f64)
        }
    };
    value.ok_or_else(|| {
        let expected = match kind {
            ColumnKind::Number => NUMBER.to_owned(),
            ColumnKind::Truth => "true or false, or yes or no".to_owned(),
            ColumnKind::Texts(values) => format!("one of {}", listed(values)),
        };
        sheet.cell_error(row, column, expected, quoted(text))
    })
}
