//! Decimal commas in a column of numbers: they are noted, and refused beside points.

use super::cell::is_missing;
use super::problem::{Problem, Remedy};
use super::sheet::{Sheet, listed, quoted};

/// True if some numbers of a column have decimal commas; false for a column that has other texts
/// than numbers.
///
/// # Errors
///
/// Other numbers of the column have points: either sign is likely a separator of thousands. So are
/// points that are each before three digits, where other columns have decimal commas.
pub(super) fn check(sheet: &Sheet, column: usize, remedy: Remedy) -> Result<bool, Problem> {
    let rows = || (0..sheet.len()).filter(|&row| !is_missing(sheet.cell(row, column)));
    let is_number = |row| sheet.with_point(row, column).parse::<f64>().is_ok();
    let first = |sign: char| rows().find(|&row| sheet.cell(row, column).contains(sign));
    if !rows().all(is_number) {
        return Ok(false);
    }
    let Some(comma) = first(',') else {
        let others = || (0..sheet.width()).any(|other| has_decimal_commas(sheet, other));
        return match thousands(sheet, column).filter(|_| others()) {
            None => Ok(false),
            Some(row) => Err(Problem {
                place: format!("column {}", quoted(&sheet.names()[column])),
                expected: "numbers without a point, since other columns have decimal commas".into(),
                found: format!("{} in row {}", sheet.found(row, column), sheet.row_number(row)),
                remedy,
            }),
        };
    };
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

/// True if all values of a column are numbers, and some have a decimal comma.
fn has_decimal_commas(sheet: &Sheet, column: usize) -> bool {
    let mut rows = (0..sheet.len()).filter(|&row| !is_missing(sheet.cell(row, column)));
    let numbers = rows.clone().all(|row| sheet.with_point(row, column).parse::<f64>().is_ok());
    numbers && rows.any(|row| sheet.cell(row, column).contains(','))
}

/// The first row with a point, if each point of the column can separate thousands: one to three
/// digits before it, of which the first is not 0, and three digits after it.
fn thousands(sheet: &Sheet, column: usize) -> Option<usize> {
    let separates = |(whole, part): (&str, &str)| {
        let whole = whole.trim_start_matches(['+', '-']);
        let are_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        (1..=3).contains(&whole.len())
            && part.len() == 3
            && !whole.starts_with('0')
            && are_digits(whole)
            && are_digits(part)
    };
    let mut first = None;
    for row in 0..sheet.len() {
        if let Some(halves) = sheet.cell(row, column).split_once('.') {
            if !separates(halves) {
                return None;
            }
            first = first.or(Some(row));
        }
    }
    first
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
