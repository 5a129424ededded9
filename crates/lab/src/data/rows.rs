//! The rows of a table for inference, in the form that the network's preparation encodes.

use std::path::Path;

use super::cell::is_missing;
use super::column::{self, ColumnKind};
use super::commas;
use super::feature::{Feature, FeatureKind};
use super::preparation::Preparation;
use super::problem::{Remedy, refuse};
use super::reading::Missing;
use super::sheet::{Purpose, Sheet};
use crate::Result;

/// The rows of a file for inference.
#[derive(Clone, Debug)]
pub struct Rows {
    /// The features of each row, in the form for [`Preparation::encode`]. With [`Missing::Drop`],
    /// `None` for a row that lacks a value.
    pub features: Vec<Option<Vec<f64>>>,
    /// Remarks on the file that are no errors, one sentence each.
    pub notes: Vec<String>,
}

/// Reads the features of a network from a CSV file like the one that it was trained on.
///
/// Other columns may hold anything, so the target column may be there or not.
///
/// # Errors
///
/// Each names the file and, where it applies, the row and the column: a file that cannot be read,
/// whose header lacks a feature, or whose rows differ in length; with [`Missing::Error`] a cell
/// without a value; a cell that is no number in a column of numbers, or a text that is not known
/// from the training; numbers with commas beside numbers with points in one column.
/// A table without a header must have as many columns as the table of the training, or all but the
/// target.
pub fn read_rows(path: impl AsRef<Path>, preparation: &Preparation) -> Result<Rows> {
    let reading = preparation.reading();
    let mut sheet = Sheet::read(path.as_ref(), reading, Purpose::Answers)?;
    if let Some(width) = preparation.width()
        && sheet.width() != width
    {
        match preparation.target().parse() {
            Ok(target) if sheet.width() + 1 == width => sheet.skip_number(target),
            _ => {
                let expected = format!("{width} columns, or {} without the target", width - 1);
                return Err(sheet.error("the rows", expected, sheet.width().to_string()));
            }
        }
    }
    let column = |feature: &Feature| {
        let kind = match &feature.kind {
            FeatureKind::Number => ColumnKind::Number,
            FeatureKind::Truth => ColumnKind::Truth,
            FeatureKind::Texts(texts) => ColumnKind::Texts(texts.all().cloned().collect()),
        };
        Ok((sheet.column(&feature.name)?, kind))
    };
    let columns = preparation.features().iter().map(column).collect::<Result<Vec<_>>>()?;
    let (mut notes, mut with_commas, mut problems) = (sheet.notes().to_vec(), vec![], vec![]);
    for (index, kind) in &columns {
        match commas::check(&sheet, *index, Remedy::OneSign) {
            Ok(true) if *kind == ColumnKind::Number => with_commas.push(*index),
            Err(problem) if *kind == ColumnKind::Number => problems.push(problem),
            _ => {}
        }
    }
    refuse(&sheet, problems)?;
    notes.extend(commas::note(&sheet, &with_commas));
    let row = |row| {
        let lacking = columns.iter().find(|(column, _)| is_missing(sheet.cell(row, *column)));
        match (lacking, reading.missing) {
            (Some(_), Missing::Drop) => return Ok(None),
            (Some(&(column, _)), Missing::Error) => {
                let found = sheet.found(row, column);
                return Err(sheet.cell_error(row, column, "a value", found));
            }
            (Some(_), Missing::Mean) | (None, _) => {}
        }
        let value = |(index, kind): &(usize, ColumnKind)| column::value(&sheet, row, *index, kind);
        Ok(Some(columns.iter().map(value).collect::<Result<_>>()?))
    };
    let features = (0..sheet.len()).map(row).collect::<Result<Vec<_>>>()?;
    let lacking = features.iter().filter(|row| row.is_none()).count();
    if lacking > 0 {
        notes.push(format!("{lacking} of {} rows lack a value and have no answer", sheet.len()));
    }
    Ok(Rows { features, notes })
}

#[cfg(test)]
mod tests;
