//! The columns of a table that are features, and the kind of each.

use std::collections::{HashMap, HashSet};

use super::cell::{is_missing, truth};
use super::decimal::Decimal;
use super::problem::{Problem, Remedy};
use super::reading::Reading;
use super::sheet::{Sheet, listed, quoted};
use crate::Result;

/// The different texts that a column may have in any table.
const FEW_TEXTS: usize = 20;

/// The different texts that a column may have where each is in two rows on average.
const MOST_TEXTS: usize = 256;

/// The rows of a text among numbers below which it is taken for a slip.
const FEWEST_OF_TEXT: usize = 3;

/// A feature of a table.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// The kind of its cells.
    pub kind: ColumnKind,
}

/// The kind of a column's cells, and how they are numbers in [`Table::features`].
///
/// [`Table::features`]: super::Table::features
#[derive(Clone, Debug, PartialEq)]
pub enum ColumnKind {
    /// Numbers.
    Number,
    /// `true` and `false`, or `yes` and `no`: 1 and 0.
    Truth,
    /// Some different texts, in the order of the file: the index of the cell's.
    Texts(Vec<String>),
}

/// The columns that are features: all but the target, those that were asked to be left out, and
/// those that only number the rows, each of which has a note.
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

    // A column that counts the rows is all that there is to learn from, where the others are
    // constant.
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
            let found = "an empty cell (--drop '' leaves the column out)";
            return Err(sheet.error(sheet.name_place(column), "the name of a column", found));
        }
        sheet.column(name)?;
    }
    if columns.is_empty() {
        let found = format!("only the target {}", quoted(&sheet.names()[target]));
        return Err(sheet.error("the header", "at least one column of features", found));
    }
    Ok(columns)
}

/// Says if a column only numbers the rows or, where it has no name, names them.
fn is_numbering(sheet: &Sheet, column: usize) -> bool {
    if !sheet.names()[column].is_empty() {
        return counts_rows(sheet, column);
    }
    let cells = || (0..sheet.len()).map(|row| sheet.cell(row, column));
    let is_name = |text: &str| Decimal::parse(text).is_none_or(|number| number.is_whole());
    let names = cells().all(is_name) && cells().collect::<HashSet<_>>().len() == sheet.len();
    // A row that ends with a delimiter has one empty cell more.
    (column == 0 && names) || cells().all(is_missing)
}

/// Says if a column counts the rows, from 0 or from 1.
fn counts_rows(sheet: &Sheet, column: usize) -> bool {
    let number = |row| sheet.number(row, column).ok();
    let counts = |first: f64| (0..sheet.len()).all(|row| number(row) == Some(first + row as f64));
    sheet.len() > 1 && (counts(0.0) || counts(1.0))
}

/// Says if all cells of a column are the same.
fn is_constant(sheet: &Sheet, column: usize) -> bool {
    (1..sheet.len()).all(|row| sheet.cell(row, column) == sheet.cell(0, column))
}

/// The kind of a column by all of its cells that have a value.
pub(super) fn kind_of(
    sheet: &Sheet,
    column: usize,
    notes: &mut Vec<String>,
) -> Result<ColumnKind, Problem> {
    let name = &sheet.names()[column];
    let problem = |place, expected: &str, found| {
        let remedy = Remedy::Drop(name.clone());
        Problem { place, expected: expected.into(), found, remedy }
    };
    let place = || format!("column {}", quoted(name));
    let rows = (0..sheet.len()).filter(|&row| !is_missing(sheet.cell(row, column)));
    let rows: Vec<_> = rows.collect();
    if rows.is_empty() {
        return Err(problem(place(), "a value in some row", "none".into()));
    }
    let is_text = |row: &&usize| sheet.with_point(**row, column).parse::<f64>().is_err();
    let texts = rows.iter().filter(is_text).count();
    if texts == 0 {
        // A number that no f32 holds.
        return match rows.iter().find(|row| sheet.number(**row, column).is_err()) {
            None => Ok(ColumnKind::Number),
            Some(&row) => Err(problem(sheet.place(row, column), NUMBER, sheet.found(row, column))),
        };
    }
    if rows.iter().all(|row| truth(sheet.cell(*row, column)).is_some()) {
        return Ok(ColumnKind::Truth);
    }

    let mut values = vec![];
    let mut counts = HashMap::<&str, usize>::new();
    for cell in rows.iter().map(|&row| sheet.cell(row, column)) {
        let count = counts.entry(cell).or_default();
        *count += 1;
        if *count == 1 {
            values.push(cell.to_owned());
        }
    }
    // Among more numbers than texts, a text that is rare or beside many numbers is a slip.
    let is_slip = |row: &&usize| {
        let is_rare = counts[sheet.cell(**row, column)] < FEWEST_OF_TEXT;
        is_text(row) && (is_rare || values.len() > FEW_TEXTS)
    };
    let few = 2 * texts < rows.len();
    if let Some(&row) = rows.iter().find(|row| few && is_slip(row)) {
        return Err(problem(sheet.place(row, column), NUMBER, sheet.found(row, column)));
    }
    let most = if 2 * values.len() > rows.len() { FEW_TEXTS } else { MOST_TEXTS };
    if values.len() > most || values.len() == rows.len() {
        let count = values.len();
        let found =
            format!("{count} different ones in {} rows, {}", rows.len(), quoted(&values[0]));
        let found = format!("{found} the first");
        return Err(problem(place(), "numbers, or texts that are in several rows", found));
    }
    let mixed = if texts < rows.len() { ", some of which are numbers," } else { "" };
    notes.push(format!(
        "column {} holds {} different texts{mixed} with an input for each: {}",
        quoted(name),
        values.len(),
        listed(&values)
    ));
    Ok(ColumnKind::Texts(values))
}

/// The numbers that a cell may hold.
const NUMBER: &str = "a number between -3.4e38 and 3.4e38";

/// The cells without a value in a column that has some, as a problem.
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

/// A cell of a column as a number; NaN where it has no value.
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
