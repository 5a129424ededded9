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
    let rows = rows_of_numbers(sheet, column);
    let first = |sign| first_with(sign, sheet, column, &rows);
    let problem = |expected: &str, found: String| Problem {
        place: format!("column {}", quoted(&sheet.names()[column])),
        expected: expected.into(),
        found,
        remedy,
    };
    let shown = |row| format!("{} in row {}", sheet.found(row, column), sheet.row_number(row));
    match (first(','), first('.')) {
        (Some(comma), Some(point)) => Err(problem(
            "either commas or points in its numbers",
            format!("{} and {}", shown(comma), shown(point)),
        )),
        (Some(_), None) => Ok(true),
        (None, Some(point))
            if rows.iter().all(|&row| may_have_thousands(sheet.cell(row, column)))
                && (0..sheet.width()).any(|other| has_decimal_commas(sheet, other)) =>
        {
            Err(problem(
                "numbers without a point, since other columns have decimal commas",
                shown(point),
            ))
        }
        (None, _) => Ok(false),
    }
}

/// The rows with a value in a column of numbers; empty if a value of the column is no number.
fn rows_of_numbers(sheet: &Sheet, column: usize) -> Vec<usize> {
    let rows = (0..sheet.len()).filter(|&row| !is_missing(sheet.cell(row, column)));
    let number = |row| sheet.with_point(row, column).parse::<f64>().ok().map(|_| row);
    rows.map(number).collect::<Option<_>>().unwrap_or_default()
}

fn first_with(sign: char, sheet: &Sheet, column: usize, rows: &[usize]) -> Option<usize> {
    rows.iter().copied().find(|&row| sheet.cell(row, column).contains(sign))
}

fn has_decimal_commas(sheet: &Sheet, column: usize) -> bool {
    first_with(',', sheet, column, &rows_of_numbers(sheet, column)).is_some()
}

/// True for a number without a point, and for one whose point can separate thousands: one to three
/// digits before it, of which the first is not 0, and three digits after it.
fn may_have_thousands(number: &str) -> bool {
    let Some((whole, part)) = number.split_once('.') else { return true };
    let whole = whole.trim_start_matches(['+', '-']);
    let are_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let lengths_fit = (1..=3).contains(&whole.len()) && part.len() == 3;
    lengths_fit && !whole.starts_with('0') && are_digits(whole) && are_digits(part)
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
