//! A CSV file as features and targets of a task; splitting and scaling them is not done here.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::sheet::{Sheet, quoted};
use burn_ema_base::digest;

use crate::Result;

/// The rows below which 60/20/20 leaves a part without any.
const FEWEST_ROWS: usize = 5;

/// The rows of a class below which it may have none outside the training.
const FEWEST_OF_CLASS: usize = 3;

/// The rows of a class from which on it has some in each part.
const ENOUGH_OF_CLASS: usize = 5;

/// The most different whole numbers that are taken as classes without being asked to.
const MOST_NUMBERED_CLASSES: usize = 20;

/// The kind of a target: classes or numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskKind {
    /// Tell classes apart.
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

/// Rows of numbers to learn from, each with a target.
#[derive(Clone, Debug)]
pub struct Table {
    path: PathBuf,
    target: String,
    columns: Vec<String>,
    features: Vec<Vec<f64>>,
    targets: Targets,
    known_range: Option<f64>,
    notes: Vec<String>,
}

impl Table {
    /// Reads a CSV file, and takes the task from its target column.
    ///
    /// The file is UTF-8 text with commas between cells and a header row.
    /// The target column is the one with the given name.
    /// All other columns are features, and hold numbers that fit an `f32`.
    ///
    /// A target of texts is a classification, and so is one of whole numbers with at most 20
    /// different values that are fewer than half of the rows; any other numbers are a regression.
    /// A target of both texts and numbers is a classification under the same limit, and an error
    /// above it, since it is then likely a column of numbers with a slip in it.
    /// Numbers that are equal are the same class, named as in the first of its rows.
    ///
    /// # Errors
    ///
    /// Each names the file, the row as a text editor counts it (the header is row 1), and the
    /// column:
    /// - the file cannot be read, is not UTF-8, is empty, or has only a header;
    /// - a name in the header is empty or appears twice;
    /// - there is no target column of that name, or no column beside it;
    /// - a row has more or fewer cells than the header;
    /// - a cell is empty, or holds a text or a number beyond `f32` where a number belongs;
    ///   `NaN` and infinity are refused in the target even among texts;
    /// - there are fewer than 5 rows, since 60/20/20 would leave a part without any;
    /// - a class has fewer than 3 rows, since all of them could land in the training;
    /// - the target is the same in every row.
    pub fn read(path: impl AsRef<Path>, target: &str) -> Result<Self> {
        Self::from_sheet(path.as_ref(), &Sheet::read(path.as_ref())?, target, None)
    }

    /// Reads a CSV file for the given task, whatever its target column looks like.
    ///
    /// # Errors
    ///
    /// Like [`Table::read`]; for a regression also a text in the target.
    pub fn read_as(path: impl AsRef<Path>, target: &str, kind: TaskKind) -> Result<Self> {
        Self::from_sheet(path.as_ref(), &Sheet::read(path.as_ref())?, target, Some(kind))
    }

    /// Reads the content of a CSV file; the path is only for errors.
    pub(super) fn parse(
        path: &Path,
        bytes: &[u8],
        target: &str,
        kind: Option<TaskKind>,
    ) -> Result<Self> {
        Self::from_sheet(path, &Sheet::parse(path, bytes)?, target, kind)
    }

    /// Makes a table of a sheet: numbers for the features, classes or numbers for the target.
    fn from_sheet(
        path: &Path,
        sheet: &Sheet,
        target: &str,
        kind: Option<TaskKind>,
    ) -> Result<Self> {
        let target_index = sheet.column(target)?;
        let indices: Vec<_> = (0..sheet.header().len()).filter(|&i| i != target_index).collect();
        if indices.is_empty() {
            let found = format!("only the target {}", quoted(target));
            return Err(sheet.error("the header", "at least one column of features", found));
        }
        if sheet.len() < FEWEST_ROWS {
            return Err(sheet.error(
                "the rows of data",
                format!("at least {FEWEST_ROWS}, so that 60/20/20 gives each part one"),
                sheet.len().to_string(),
            ));
        }

        let columns: Vec<_> = indices.iter().map(|&i| sheet.header()[i].clone()).collect();
        let features = sheet.numbers(&indices)?;
        let mut notes = constant_columns(&columns, &features);
        let targets = read_targets(sheet, target_index, kind, &mut notes)?;
        Ok(Self {
            path: path.into(),
            target: target.into(),
            columns,
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

    /// The largest value of the features, where it is known; the smallest is then 0.
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

    /// The names of the features, in the order of the file.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// The features, `[row][column]`, in the units of the file.
    pub fn features(&self) -> &[Vec<f64>] {
        &self.features
    }

    /// The targets of the rows.
    pub fn targets(&self) -> &Targets {
        &self.targets
    }

    /// The SHA-256 of all names, numbers and targets, in hexadecimal digits: that of what is
    /// learned, wherever the file lies and however it is spaced.
    pub fn sha256(&self) -> String {
        let mut hash = Sha256::new();
        let mut add = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        add(self.target.as_bytes());
        add(&(self.columns.len() as u64).to_le_bytes());
        self.columns.iter().for_each(|name| add(name.as_bytes()));
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

    /// Remarks on the table that are no errors, one sentence each: a
    /// feature that is constant, whole numbers that were taken as classes, a class of so few rows
    /// (below 5) that a part may lack it.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }
}

/// Reads the columns with these names from a CSV file, `[row][column]` in the order of the names.
///
/// Other columns may hold anything, so the target column may be there or not.
///
/// # Errors
///
/// Like [`Table::read`], as far as its errors concern the file, its header, its rows and these
/// columns.
/// One row is enough.
pub fn read_features(path: impl AsRef<Path>, columns: &[impl AsRef<str>]) -> Result<Vec<Vec<f64>>> {
    let sheet = Sheet::read(path.as_ref())?;
    let indices: Result<Vec<_>> = columns.iter().map(|name| sheet.column(name.as_ref())).collect();
    sheet.numbers(&indices?)
}

/// A note for each column that is the same in every row.
fn constant_columns(columns: &[String], features: &[Vec<f64>]) -> Vec<String> {
    let constant = |column: usize| features.iter().all(|row| row[column] == features[0][column]);
    let note = |(column, name): (usize, &String)| {
        constant(column).then(|| {
            let (name, value) = (quoted(name), features[0][column]);
            format!("column {name} is {value} in every row, so nothing can be learned from it")
        })
    };
    columns.iter().enumerate().filter_map(note).collect()
}

/// Reads the target column for a task, which is guessed where none is given.
fn read_targets(
    sheet: &Sheet,
    column: usize,
    kind: Option<TaskKind>,
    notes: &mut Vec<String>,
) -> Result<Targets> {
    let rows = 0..sheet.len();
    let cells = rows.clone().map(|row| sheet.text(row, column)).collect::<Result<Vec<_>>>()?;
    // A text is fine where classes are meant, but what reads as a number and is none, such as NaN,
    // is a slip anywhere.
    let numbers = rows
        .map(|row| match cells[row].parse::<f64>() {
            Ok(_) => sheet.number(row, column).map(Some),
            Err(_) => Ok(None),
        })
        .collect::<Result<Vec<_>>>()?;
    let groups = equal_rows(&cells, &numbers);

    let name = quoted(&sheet.header()[column]);
    let place = || format!("column {name}");
    if let [_] = groups[..] {
        let found = format!("{} in every row", quoted(cells[0]));
        return Err(sheet.error(place(), "at least two different values", found));
    }
    match kind.unwrap_or_else(|| guess(&numbers, groups.len())) {
        TaskKind::Regression => {
            let number = |row| sheet.number(row, column);
            Ok(Targets::Numbers((0..sheet.len()).map(number).collect::<Result<_>>()?))
        }
        TaskKind::Classification => {
            if kind.is_none() && numbers.iter().all(Option::is_some) {
                let count = groups.len();
                notes.push(format!(
                    "column {name} holds {count} different whole numbers, \
                     which are taken as classes"
                ));
            }
            let mut labels = Vec::new();
            let mut of_row = vec![0; cells.len()];
            for rows in groups {
                let (count, label) = (rows.len(), cells[rows[0]]);
                if count < FEWEST_OF_CLASS {
                    let (label, row) = (quoted(label), sheet.row_number(rows[0]));
                    let expected = format!(
                        "at least {FEWEST_OF_CLASS} rows of each class, \
                         so that one is trained and one is held out"
                    );
                    let found = format!("{count} of {label} (the first is row {row})");
                    return Err(sheet.error(place(), expected, found));
                }
                if count < ENOUGH_OF_CLASS {
                    notes.push(format!(
                        "class {} has {count} rows, so the validation or the test may lack it",
                        quoted(label)
                    ));
                }
                rows.into_iter().for_each(|row| of_row[row] = labels.len());
                labels.push(label.into());
            }
            Ok(Targets::Classes { labels, of_row })
        }
    }
}

/// The rows of each different value, by rising values: as numbers if all are numbers, else as text.
fn equal_rows(cells: &[&str], numbers: &[Option<f64>]) -> Vec<Vec<usize>> {
    let numbers: Option<Vec<f64>> = numbers.iter().copied().collect();
    let order = |a: &usize, b: &usize| match &numbers {
        Some(numbers) => numbers[*a].total_cmp(&numbers[*b]),
        None => cells[*a].cmp(cells[*b]),
    };
    let mut rows: Vec<usize> = (0..cells.len()).collect();
    // A stable sort, so that the rows of a value keep the order of the file.
    rows.sort_by(order);
    rows.chunk_by(|a, b| order(a, b).is_eq()).map(<[usize]>::to_vec).collect()
}

/// The task that a target suggests: its cells as far as they are numbers, and how many different
/// values it has.
fn guess(numbers: &[Option<f64>], distinct: usize) -> TaskKind {
    let few = distinct <= MOST_NUMBERED_CLASSES && distinct * 2 < numbers.len();
    let texts = numbers.iter().filter(|number| number.is_none()).count();
    let whole = numbers.iter().flatten().all(|number| number.fract() == 0.0);
    let classes = match texts {
        0 => whole && few,
        _ => texts == numbers.len() || few,
    };
    if classes { TaskKind::Classification } else { TaskKind::Regression }
}

#[cfg(test)]
mod tests;
