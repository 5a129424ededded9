//! Decimal commas in a column of numbers: they are noted, and refused beside points.

use super::cell::is_missing;
use super::problem::{Problem, Remedy};
use super::sheet::{Sheet, listed, quoted};

/// True if some numbers of a column have decimal commas; false for a column that has other texts
/// than numbers.
///
/// # Errors
///
/// Other numbers of the column have points: either sign is likely a separator of thousands.
pub(super) fn check(sheet: &Sheet, column: usize, remedy: Remedy) -> Result<bool, Problem> {
    let rows = || (0..sheet.len()).filter(|&row| !is_missing(sheet.cell(row, column)));
    let is_number = |row| sheet.with_point(row, column).parse::<f64>().is_ok();
    let first = |sign: char| rows().find(|&row| sheet.cell(row, column).contains(sign));
    let Some(comma) = first(',').filter(|_| rows().all(is_number)) else { return Ok(false) };
    let Some(point) = first('.') else { return Ok(true) };
    let [with_comma, with_point] = [comma, point].map(|row| sheet.found(row, column));
    Err(Problem {
        place: format!("column {}", quoted(&sheet.names()[column])),
        expected: "either commas or points in its numbers".into(),
        found: format!(
            "{with_comma} in row {} and {with_point} in row {}",
            sheet.row_number(comma),
            sheet.row_number(point)
        ),
        remedy,
    })
}

/// A note on the columns with decimal commas, with an example; `None` if `columns` is empty.
pub(super) fn note(sheet: &Sheet, columns: &[usize]) -> Option<String> {
    let &first = columns.first()?;
    let row = (0..sheet.len()).find(|&row| sheet.cell(row, first).contains(','))?;
    let names: Vec<_> = columns.iter().map(|&column| sheet.names()[column].clone()).collect();
    let whose = if names.len() == 1 { "column" } else { "columns" };
    Some(format!(
        "{whose} {}: commas are read as decimal points, {} as {}",
        listed(&names),
        quoted(sheet.cell(row, first)),
        sheet.with_point(row, first)
    ))
}
