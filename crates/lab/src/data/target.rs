//! The target of a table: classes with exact labels, or numbers.

use serde::{Deserialize, Serialize};

use super::decimal::Decimal;
use super::scale::within_rounding;
use super::sheet::{Sheet, listed, quoted};
use crate::Result;

/// The rows of a class below which it may have none outside the training.
const FEWEST_OF_CLASS: usize = 3;

/// The rows of a class from which on it has some in each part.
const ENOUGH_OF_CLASS: usize = 5;

/// The most different whole numbers that are taken as classes without being asked to.
const MOST_NUMBERED_CLASSES: usize = 20;

/// The kind of a target: classes or numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TaskKind {
    /// Name the class of a row.
    Classification,
    /// Predict a number.
    Regression,
}

/// The targets of a table, one a row.
#[derive(Clone, Debug, PartialEq)]
pub enum Targets {
    /// Classes.
    Classes {
        /// The names of the classes, sorted as numbers if all of them are numbers, else as text.
        labels: Vec<String>,
        /// For each row the index of its class in `labels`.
        of_row: Vec<usize>,
    },
    /// For each row a number, in the target's own unit.
    Numbers(Vec<f64>),
}

/// Reads the target column in some rows, all of which have a value there, for a task, which is
/// guessed where none is given.
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
            // Nobody takes many broken numbers for classes.
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
    /// The rows of the sheet.
    rows: &'a [usize],
    cells: Vec<&'a str>,
    /// The cells as numbers, if all of them are numbers.
    numbers: Option<Vec<Decimal>>,
    texts: usize,
}

impl<'a> Labels<'a> {
    fn read(sheet: &'a Sheet, column: usize, rows: &'a [usize]) -> Result<Self> {
        let mut numbers = vec![];
        for &row in rows {
            let text = sheet.with_point(row, column);
            let number = Decimal::parse(&text);
            // A text is fine where classes are meant, but an infinity is a slip anywhere.
            if number.is_none() && text.parse::<f64>().is_ok() {
                sheet.number(row, column)?;
            }
            numbers.push(number);
        }
        let texts = numbers.iter().filter(|number| number.is_none()).count();
        let cells = rows.iter().map(|&row| sheet.cell(row, column)).collect();
        Ok(Self { rows, cells, numbers: numbers.into_iter().collect(), texts })
    }

    /// The cells of each different value, by rising values: as numbers if all are numbers, else as
    /// text.
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

    /// Says if so many different values are few enough for classes.
    fn are_few(&self, distinct: usize) -> bool {
        distinct <= MOST_NUMBERED_CLASSES && distinct * 2 < self.cells.len()
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

    /// A note on numbers that are written in several ways and so are one class.
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

    /// The classes, none of which may have too few rows.
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
            if count < FEWEST_OF_CLASS {
                let (label, row) = (quoted(label), sheet.row_number(self.rows[cells[0]]));
                let expected = format!(
                    "at least {FEWEST_OF_CLASS} rows of each class, \
                     so that one is trained and one is held out"
                );
                let hint = match self.numbers {
                    Some(_) => "; --task regression takes the numbers as a quantity",
                    None => "; leave its rows out of the file, or give them another class",
                };
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
