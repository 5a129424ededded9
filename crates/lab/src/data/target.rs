//! The target of a table: classes with exact labels, or numbers.

use serde::{Deserialize, Serialize};

use super::cell::number_hint;
use super::decimal::Decimal;
use super::scale::within_rounding;
use super::sheet::{Sheet, listed, quoted};
use crate::Result;

/// The least number of rows of a class of which at least one is outside the training.
const MIN_OF_CLASS: usize = 3;

/// The least number of rows of a class of which each part has at least one.
const ENOUGH_OF_CLASS: usize = 5;

/// The most different whole numbers that are taken as classes if no task is given.
const MAX_NUMBERED_CLASSES: usize = 20;

/// The kind of a target: classes or numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TaskKind {
    /// To name the class of a row.
    Classification,
    /// To predict a number.
    Regression,
}

/// The targets of a table, one per row.
#[derive(Clone, Debug, PartialEq)]
pub enum Targets {
    /// Classes.
    Classes {
        /// The names of the classes, sorted as numbers if all of them are numbers, else as text.
        labels: Vec<String>,
        /// For each row the index of its class in `labels`.
        of_row: Vec<usize>,
    },
    /// For each row a number, in the unit of the target column.
    Numbers(Vec<f64>),
}

/// Reads the target column of some rows, all of which have a target. `kind` is the task; `None`
/// guesses it. Adds notes on a guess, on merged labels and on small classes.
///
/// # Errors
///
/// A target that is the same in every row; for a regression a text; a class of too few rows.
pub(super) fn read(
    sheet: &Sheet,
    column: usize,
    rows: &[usize],
    kind: Option<TaskKind>,
    notes: &mut Vec<String>,
) -> Result<Targets> {
    let labels = Labels::read(sheet, column, rows)?;
    let name = quoted(&sheet.names()[column]);
    let place = format!("column {name}");
    let groups = labels.groups();
    let constant = || {
        let found = format!("{} in every row", quoted(labels.cells[0]));
        Err(sheet.error(&place, "at least two different values", found))
    };
    if let [_] = groups[..] {
        return constant();
    }
    let guessed = kind.is_none();
    match kind.unwrap_or_else(|| labels.guess(groups.len())) {
        TaskKind::Regression => {
            let numbers = rows.iter().map(|&row| sheet.number(row, column));
            let numbers = numbers.collect::<Result<Vec<_>>>()?;
            if within_rounding(&numbers) {
                return constant();
            }
            // Many different numbers with fractions are hardly classes, and need no note.
            if guessed && (labels.are_whole() || labels.are_few(groups.len())) {
                let whole = if labels.are_whole() { " whole" } else { "" };
                notes.push(format!(
                    "column {name} holds {} different{whole} numbers, which are taken as a \
                     quantity; --task classification takes them as classes",
                    groups.len()
                ));
            }
            Ok(Targets::Numbers(numbers))
        }
        TaskKind::Classification => {
            if guessed && labels.numbers.is_some() {
                notes.push(format!(
                    "column {name} holds {} different whole numbers, which are taken as classes; \
                     --task regression takes them as a quantity",
                    groups.len()
                ));
            }
            notes.extend(labels.merged(&name, &groups));
            labels.classes(sheet, &place, &groups, notes)
        }
    }
}

/// The cells of a target.
struct Labels<'a> {
    /// The index in the sheet of each cell's row.
    rows: &'a [usize],
    cells: Vec<&'a str>,
    /// The cells as numbers; `None` if one of them is no number.
    numbers: Option<Vec<Decimal>>,
    /// The number of cells that are no numbers.
    texts: usize,
}

impl<'a> Labels<'a> {
    fn read(sheet: &'a Sheet, column: usize, rows: &'a [usize]) -> Result<Self> {
        let mut numbers = vec![];
        for &row in rows {
            let text = sheet.with_point(row, column);
            let number = Decimal::parse(&text);
            // A text may be a class, but an infinity or NaN is always a slip.
            if number.is_none() && text.parse::<f64>().is_ok() {
                sheet.number(row, column)?;
            }
            numbers.push(number);
        }
        let texts = numbers.iter().filter(|number| number.is_none()).count();
        let cells = rows.iter().map(|&row| sheet.cell(row, column)).collect();
        Ok(Self { rows, cells, numbers: numbers.into_iter().collect(), texts })
    }

    /// The indices of the cells of each different value, by rising values: as numbers if all are
    /// numbers, else as text.
    fn groups(&self) -> Vec<Vec<usize>> {
        let order = |a: &usize, b: &usize| match &self.numbers {
            Some(numbers) => numbers[*a].cmp(&numbers[*b]),
            None => self.cells[*a].cmp(self.cells[*b]),
        };
        let mut cells: Vec<usize> = (0..self.cells.len()).collect();
        // A stable sort, so that the rows of a value keep the order of the file.
        cells.sort_by(order);
        cells.chunk_by(|a, b| order(a, b).is_eq()).map(<[usize]>::to_vec).collect()
    }

    fn are_whole(&self) -> bool {
        self.numbers.as_ref().is_some_and(|numbers| numbers.iter().all(Decimal::is_whole))
    }

    /// True if `distinct` different values are few enough for classes.
    fn are_few(&self, distinct: usize) -> bool {
        distinct <= MAX_NUMBERED_CLASSES && distinct * 2 < self.cells.len()
    }

    /// The task that the cells suggest, by how many different values there are.
    fn guess(&self, distinct: usize) -> TaskKind {
        let few = self.are_few(distinct);
        let classes = match self.texts {
            0 => self.are_whole() && few,
            _ => self.texts == self.cells.len() || few,
        };
        if classes { TaskKind::Classification } else { TaskKind::Regression }
    }

    /// A note on equal numbers that are written differently and become one class; `None` if there
    /// are none.
    fn merged(&self, name: &str, groups: &[Vec<usize>]) -> Option<String> {
        let ways = |group: &Vec<usize>| {
            let mut ways: Vec<_> = group.iter().map(|&cell| self.cells[cell].to_owned()).collect();
            let first = ways[0].clone();
            ways.sort();
            ways.dedup();
            (ways.len() > 1).then(|| format!("{} are one class, {}", listed(&ways), quoted(&first)))
        };
        let merged: Vec<_> = groups.iter().filter_map(ways).collect();
        let more = match merged.len() {
            0 | 1 => String::new(),
            count => format!(", and {} others likewise", count - 1),
        };
        Some(format!("column {name}: as equal numbers {}{more}", merged.first()?))
    }

    /// The classes, with a note on each small one; an error for a class of too few rows.
    fn classes(
        &self,
        sheet: &Sheet,
        place: &str,
        groups: &[Vec<usize>],
        notes: &mut Vec<String>,
    ) -> Result<Targets> {
        let mut labels = Vec::new();
        let mut of_row = vec![0; self.cells.len()];
        for cells in groups {
            let (count, label) = (cells.len(), self.cells[cells[0]]);
            if count < MIN_OF_CLASS {
                let expected = format!(
                    "at least {MIN_OF_CLASS} rows of each class, \
                     so that one is trained and one is held out"
                );
                let hint = match self.numbers {
                    Some(_) => "; --task regression takes the numbers as a quantity",
                    None => match number_hint(label) {
                        "" => "; leave its rows out of the file, or give them another class",
                        hint => hint,
                    },
                };
                let (label, row) = (quoted(label), sheet.row_number(self.rows[cells[0]]));
                let found = format!("{count} of {label} (the first is row {row}{hint})");
                return Err(sheet.error(place, expected, found));
            }
            if count < ENOUGH_OF_CLASS {
                notes.push(format!(
                    "class {} has {count} rows, so the validation or the test may lack it",
                    quoted(label)
                ));
            }
            cells.iter().for_each(|&cell| of_row[cell] = labels.len());
            labels.push(label.to_owned());
        }
        Ok(Targets::Classes { labels, of_row })
    }
}
