//! Accuracies over seeds as a table: means, deviations, and the differences that are more than
//! chance.

use std::fmt;

use super::{
    columns::table,
    statistics::{Interval, deviation, holm, interval, mean, student},
};

/// The targets that a student learns from.
#[derive(Clone, Copy, PartialEq)]
pub enum By {
    Labels,
    /// Labels, and its own outputs under other noise.
    Own,
    /// Labels, and the outputs of its average under other noise.
    Teacher,
}

impl By {
    pub fn name(self) -> &'static str {
        match self {
            Self::Labels => "labels alone",
            Self::Own => "own answers",
            Self::Teacher => "teacher",
        }
    }
}

/// A way of training, with the weight of consistency beside labels.
#[derive(Clone, Copy)]
pub struct Training {
    pub by: By,
    pub weight: f64,
}

impl Training {
    /// By labels alone, and by both kinds of consistency with each weight.
    pub fn all(weights: &[f64]) -> Vec<Self> {
        let with = |by| weights.iter().map(move |&weight| Self { by, weight });
        let first = Self { by: By::Labels, weight: 0.0 };
        [first].into_iter().chain(with(By::Own)).chain(with(By::Teacher)).collect()
    }
}

impl fmt::Display for Training {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.by {
            By::Labels => f.write_str(self.by.name()),
            by => write!(f, "{}, weight {}", by.name(), self.weight),
        }
    }
}

/// The table of the student and the average of each training, of which `accuracies` has both for
/// each seed, in percent.
///
/// Below `trainings` of [`Training::all`], each model is compared by seed with that of the training
/// by labels alone, that of its own answers with the same weight, and an average with its student.
pub fn compare(trainings: &[Training], accuracies: &[Vec<[f64; 2]>], markdown: bool) -> String {
    let models: Vec<_> = (0..trainings.len()).flat_map(|index| [(index, 0), (index, 1)]).collect();
    let of = |(index, model): (usize, usize)| accuracies[index].iter().map(move |it| it[model]);
    let weights = trainings.len() / 2;
    let differences = |(index, model): (usize, usize)| {
        let labels = (index > 0).then_some((0, model));
        let own = (index > weights).then(|| (index - weights, model));
        let student = (model == 1).then_some((index, 0));
        [labels, own, student].map(|base| {
            let pairs = of((index, model)).zip(of(base?));
            Some(pairs.map(|(own, other)| own - other).collect::<Vec<f64>>())
        })
    };
    let tests = models.iter().flat_map(|&model| differences(model)).flatten();
    let mut adjusted = holm(&tests.map(|it| p_of(&it)).collect::<Vec<_>>()).into_iter();

    let titles = ["learns from", "weight", "model", "accuracy, %"];
    let titles =
        titles.into_iter().chain(["from labels alone", "from own answers", "from student"]);
    let mut rows = vec![titles.map(str::to_owned).collect::<Vec<_>>()];
    for &model in &models {
        let Training { by, weight } = trainings[model.0];
        let all: Vec<_> = of(model).collect();
        let accuracy = match interval(&all) {
            Some(_) => format!("{:.1} ± {:.1}", mean(&all), deviation(&all)),
            None => format!("{:.1}", mean(&all)),
        };
        let weight = if by == By::Labels { String::new() } else { weight.to_string() };
        let name = ["student", "average"][model.1].to_owned();
        let mut row = vec![by.name().to_owned(), weight, name, accuracy];
        row.extend(
            differences(model)
                .map(|it| it.map_or(String::new(), |it| cell(&it, adjusted.next().unwrap_or(1.0)))),
        );
        rows.push(row);
    }
    table(&rows, markdown)
}

/// A mean difference with its interval, and if it is more than chance.
fn cell(differences: &[f64], adjusted: f64) -> String {
    let Some(Interval { mean: middle, low, high }) = interval(differences) else {
        return format!("{:+.1}", mean(differences));
    };
    let verdict = match adjusted < 0.05 {
        true if middle > 0.0 => " gain",
        true => " harm",
        false => "",
    };
    format!("{middle:+.1} [{low:+.1}, {high:+.1}]{verdict}")
}

/// The p of Student's t test; 1 for fewer than five differences, which counts of rows may make equal
/// by chance.
fn p_of(differences: &[f64]) -> f64 {
    if differences.len() < 5 { 1.0 } else { student(differences) }
}
