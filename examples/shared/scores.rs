//! Scores of models over seeds as cells of a table: means, deviations, and what is more than chance.

use super::statistics::{Interval, deviation, holm, interval, mean, student};

/// A column of scores.
pub struct Column {
    pub title: &'static str,
    /// The digits after the point.
    pub digits: usize,
    /// True for an error or a distance, false for a share of right answers or a return.
    pub less_is_better: bool,
}

/// The scores of a model.
pub struct Row {
    /// The score of each seed, for each column.
    pub scores: Vec<Vec<f64>>,
    /// The row with whose scores these are compared, seed by seed; `None` if with none.
    pub against: Option<usize>,
}

/// A cell for each score: the mean over the seeds, with more than one seed the standard deviation,
/// and `gain` or `harm` where the differences from the other row are more than chance: Student's t
/// test, and an adjusted p below 0.05 by Holm's correction over all cells that are compared.
pub fn cells(columns: &[Column], rows: &[Row]) -> Vec<Vec<String>> {
    let compared = |row: &Row, column: usize| -> Option<Vec<f64>> {
        let others = &rows[row.against?].scores[column];
        Some(row.scores[column].iter().zip(others).map(|(own, other)| own - other).collect())
    };
    let all = rows.iter().flat_map(|row| (0..columns.len()).map(move |column| (row, column)));
    let differences: Vec<_> = all.map(|(row, column)| compared(row, column)).collect();
    let tests: Vec<_> = differences.iter().flatten().map(|all| student(all)).collect();
    let mut adjusted = holm(&tests).into_iter();
    let words = differences.iter().enumerate().map(|(index, differences)| {
        let Some(differences) = differences else { return "" };
        let fell = mean(differences) < 0.0;
        match adjusted.next() {
            Some(p) if p >= 0.05 => "",
            None => "",
            _ if fell == columns[index % columns.len()].less_is_better => " gain",
            _ => " harm",
        }
    });
    let mut words = words.collect::<Vec<_>>().into_iter();
    let cell = |(scores, column): (&Vec<f64>, &Column)| {
        let (digits, word) = (column.digits, words.next().unwrap_or_default());
        let spread = match scores.len() {
            0 | 1 => String::new(),
            _ => format!(" ± {:.digits$}", deviation(scores)),
        };
        format!("{:.digits$}{spread}{word}", mean(scores))
    };
    let mut cell = cell;
    rows.iter().map(|row| row.scores.iter().zip(columns).map(&mut cell).collect()).collect()
}

/// The mean difference of scores, seed by seed, with its 95 % interval (Student's t) where there is
/// more than one seed.
pub fn difference(scores: &[f64], others: &[f64], digits: usize) -> String {
    let all: Vec<_> = scores.iter().zip(others).map(|(own, other)| own - other).collect();
    match interval(&all) {
        Some(Interval { mean, low, high }) => {
            format!("{mean:+.digits$} [{low:+.digits$}, {high:+.digits$}]")
        }
        None => format!("{:+.digits$}", mean(&all)),
    }
}
