//! The columns of a table that cannot be used, all in one error, with options that help.

use std::collections::BTreeSet;

use super::sheet::Sheet;
use crate::{Error, Result};

/// A problem that makes a column unusable as it is.
#[derive(Debug)]
pub(super) struct Problem {
    /// The place in the table, such as `row 3, column "age"`.
    pub place: String,
    pub expected: String,
    pub found: String,
    pub remedy: Remedy,
}

/// A remedy for a problem.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Remedy {
    /// To leave out the column of this name.
    Drop(String),
    /// To leave out the rows without a value in a feature, or to fill them.
    Fill,
    /// To leave out the rows without a target.
    DropRows,
    /// To write all numbers of the column with the same decimal separator, a comma or a point, and
    /// without a separator of thousands.
    OneSign,
}

/// Refuses a table with problems, in one error.
pub(super) fn refuse(sheet: &Sheet, problems: Vec<Problem>) -> Result<()> {
    let remedies = remedies(problems.iter().map(|problem| &problem.remedy).collect());
    match &problems[..] {
        [] => Ok(()),
        [Problem { place, expected, found, .. }] => {
            Err(sheet.error(place, expected, format!("{found} ({remedies})")))
        }
        _ => {
            let line = |Problem { place, expected, found, .. }: &Problem| {
                format!("{place}: expected {expected}, found {found}")
            };
            let problems = problems.iter().map(line).collect();
            Err(Error::Columns { path: sheet.path().into(), problems, remedies })
        }
    }
}

/// The remedies in words: options with their effects, or a change of the file.
fn remedies(all: BTreeSet<&Remedy>) -> String {
    let drops = all.iter().filter_map(|remedy| match remedy {
        Remedy::Drop(name) => Some(format!("--drop {}", word(name))),
        Remedy::Fill | Remedy::DropRows | Remedy::OneSign => None,
    });
    let drops: Vec<_> = drops.collect();
    let mut texts = vec![];
    match drops.len() {
        0 => {}
        1 => texts.push(format!("{} leaves the column out", drops[0])),
        _ => texts.push(format!("{} leaves these columns out", drops.join(" "))),
    }
    if all.contains(&Remedy::Fill) || all.contains(&Remedy::DropRows) {
        texts.push("--missing drop leaves rows without a value out".into());
    }
    if all.contains(&Remedy::Fill) {
        texts.push("--missing mean takes the mean of the training rows for it".into());
    }
    if all.contains(&Remedy::OneSign) {
        texts.push(
            "write all of them in the file with the same sign, and none for thousands".into(),
        );
    }
    texts.join("; ")
}

/// A name as one word of a shell command, in quotes if needed.
pub(super) fn word(name: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./".contains(c);
    match !name.is_empty() && !name.starts_with('-') && name.chars().all(plain) {
        true => name.into(),
        false => format!("'{}'", name.replace('\'', r"'\''")),
    }
}
