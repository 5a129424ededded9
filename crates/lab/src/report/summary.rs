//! The summary of a run: the profiles of its averages, and the answers of live and of the saved
//! average on the test split.

use burn::{data::dataloader::DataLoader, module::Module};
use burn_ema::{
    Error, Profile, Result,
    model::{Batch, Mlp},
    train::Averaged,
};
use serde::{Deserialize, Deserializer, Serialize};

use crate::data::{Answer, Preparation, Task};

/// The summary of a run: the `summary.json` of its directory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Summary {
    /// The number of optimizer steps.
    pub steps: u64,
    /// The number of optimizer steps that were refused, since a number was not finite.
    pub refused_steps: u64,
    /// The number of parameters of the network.
    pub parameters: usize,
    /// The numbers of rows of the training, validation and test splits.
    pub rows: [usize; 3],
    /// The profile of each average, in the order of the run.
    pub averages: Vec<MadeOf>,
    /// The answers on the test split.
    pub answers: Answered,
}

/// Reads a number, with null as NaN: JSON has no NaN, which the profile of an average has if the
/// average had more updates than a profile lists.
fn or_nan<'de, D: Deserializer<'de>>(number: D) -> std::result::Result<f64, D::Error> {
    Option::deserialize(number).map(|number| number.unwrap_or(f64::NAN))
}

/// The profile of an average in few enough numbers to draw.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MadeOf {
    /// The name of the average in the run.
    pub name: String,
    /// The rule of the average, in its short form.
    pub rule: String,
    /// The number of updates that the average refused, since a number was not finite.
    pub refused_updates: u64,
    /// The weight of the start in the average; all weights sum to 1.
    #[serde(deserialize_with = "or_nan")]
    pub mass_on_start: f64,
    /// The mean age of the averaged weights, in steps.
    #[serde(deserialize_with = "or_nan")]
    pub mean_age: f64,
    /// The standard deviation of the age, in steps.
    #[serde(deserialize_with = "or_nan")]
    pub standard_deviation: f64,
    /// The age in steps of the newest weights that together have half of all weight.
    #[serde(deserialize_with = "or_nan")]
    pub half_life: f64,
    /// The number of independent steps whose mean has as much noise as the average.
    #[serde(deserialize_with = "or_nan")]
    pub effective_steps: f64,
    /// The number of the last step.
    pub step: u64,
    /// The number of steps in a column.
    pub width: u64,
    /// The weight of the updates in each column of `width` steps, oldest first; the last column
    /// ends at the last step.
    pub columns: Vec<f64>,
    /// The weight of the updates before the first column.
    pub older: f64,
}

/// The answers of live and of the saved average on the test split.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Answered {
    /// Counts of answers, by class of the row and class of the answer.
    Classes {
        /// The names of the classes.
        labels: Vec<String>,
        /// The confusion matrix of live without its zeros: the index in `labels` of the class of
        /// the row, that of the class of the answer, and the number of such rows.
        live: Vec<(usize, usize, u64)>,
        /// Counts of the saved average.
        average: Vec<(usize, usize, u64)>,
    },
    /// Predictions beside targets, in the target's unit.
    Numbers {
        /// The name of the target.
        target: String,
        /// The number of rows in the test split, of which at most 500 are listed.
        rows: usize,
        /// The targets of the listed rows.
        right: Vec<f64>,
        /// The predictions of live.
        live: Vec<f64>,
        /// The predictions of the saved average.
        average: Vec<f64>,
    },
}

/// The most columns of a picture of a profile.
const COLUMNS: u64 = 200;

/// The share of all weight that a picture of a profile may leave out on its left.
const LEFT_OUT: f64 = 1e-3;

/// The most predictions that are kept.
const PREDICTIONS: usize = 500;

impl Summary {
    /// The summary of a training that has ended. `saved` is the index of the average that is saved,
    /// and `rows` the numbers of rows of the training, validation and test splits.
    ///
    /// # Errors
    ///
    /// An average that no longer fits live; a batch that cannot be loaded; outputs that cannot be
    /// read from the device; for a regression, an output that is not finite.
    pub fn of(
        model: &Averaged<Mlp>,
        saved: usize,
        preparation: &Preparation,
        rows: [usize; 3],
        test: &dyn DataLoader<Batch>,
    ) -> Result<Self> {
        let steps = model.steps();
        let averages = model.averages();
        let averages = averages.iter().map(|average| {
            let made_of = MadeOf::of(&average.profile(), steps);
            let (name, rule) = (average.name().to_owned(), average.rule().to_string());
            MadeOf { name, rule, refused_updates: average.refused().count, ..made_of }
        });
        Ok(Self {
            steps,
            refused_steps: model.refused_steps().count,
            parameters: model.num_params(),
            rows,
            averages: averages.collect(),
            answers: Answered::of(
                &model.live().valid(),
                &model.average(saved)?,
                preparation,
                test,
            )?,
        })
    }
}

impl MadeOf {
    /// The numbers of a profile at a step, with empty names and no refused update.
    fn of(profile: &Profile, step: u64) -> Self {
        let (width, columns, older) = columns(profile, step);
        Self {
            name: String::new(),
            rule: String::new(),
            refused_updates: 0,
            mass_on_start: profile.mass_on_start(),
            mean_age: profile.mean_age(),
            standard_deviation: profile.standard_deviation(),
            half_life: profile.half_life(),
            effective_steps: profile.effective_steps(),
            step,
            width,
            columns,
            older,
        }
    }
}

/// The number of steps of a column, the weight in each column, and the weight before the first.
///
/// A column has a whole number of steps, since columns with unequal numbers of updates would look
/// ragged. The columns reach back until at most the share [`LEFT_OUT`] of all weight is older. The
/// weight of an update is spread evenly over the steps that the update covers.
fn columns(profile: &Profile, step: u64) -> (u64, Vec<f64>, f64) {
    let now = step as f64;
    let steps: Vec<f64> = profile.weights().iter().map(|(step, _)| *step).collect();
    // The first update is taken to cover as many steps as the second.
    let first = match steps[..] {
        [first, second, ..] => (2.0 * first - second).max(0.0),
        _ => 0.0,
    };
    let begins = [first].into_iter().chain(steps);
    let covered = || profile.weights().iter().zip(begins.clone());
    let total: f64 = covered().map(|((_, weight), _)| weight.abs()).sum();
    let mut newer = 0.0;
    let mut newest_first = covered().collect::<Vec<_>>().into_iter().rev();
    let oldest = newest_first.find(|((_, weight), _)| {
        newer += weight.abs();
        newer >= (1.0 - LEFT_OUT) * total
    });
    let shown = oldest.map_or(1.0, |(_, begin)| (now - begin).ceil().max(1.0)) as u64;
    let width = shown.div_ceil(COLUMNS);
    let count = shown.div_ceil(width) as usize;

    let left = now - (count as u64 * width) as f64;
    let place = |step: f64| (step - left) / width as f64;
    let (mut columns, mut older) = (vec![0.0; count], 0.0);
    for ((end, weight), begin) in covered() {
        let (begin, end) = (place(begin), place(*end));
        let within =
            |from: f64, to: f64| weight * (end.min(to) - begin.max(from)).max(0.0) / (end - begin);
        older += within(f64::NEG_INFINITY, 0.0);
        let touched = begin.max(0.0) as usize..count.min(end.max(0.0).ceil() as usize);
        touched.for_each(|column| columns[column] += within(column as f64, column as f64 + 1.0));
    }
    (width, columns, older)
}

impl Answered {
    fn of(
        live: &Mlp,
        average: &Mlp,
        preparation: &Preparation,
        test: &dyn DataLoader<Batch>,
    ) -> Result<Self> {
        let [mut right, mut of_live, mut of_average] = [const { Vec::new() }; 3];
        for batch in test.iter() {
            let Batch { inputs, targets } =
                batch.map_err(|error| Error::value("a batch", "rows of data", error))?;
            right.extend(super::numbers(targets)?);
            of_live.extend(super::numbers(live.forward(inputs.clone()))?);
            of_average.extend(super::numbers(average.forward(inputs))?);
        }
        let all = [right, of_live, of_average];
        match preparation.task() {
            Task::Classification { labels } => {
                let classes = |outputs: &[f64]| -> Vec<usize> {
                    // The first of equal outputs, as in `Preparation::decode`.
                    let best = |row: &[f64]| {
                        (0..row.len()).fold(0, |best, i| if row[i] > row[best] { i } else { best })
                    };
                    outputs.chunks_exact(labels.len()).map(best).collect()
                };
                let [right, live, average] = all.map(|outputs| classes(&outputs));
                let labels = labels.clone();
                let [live, average] = [live, average].map(|answers| confusion(&right, &answers));
                Ok(Self::Classes { labels, live, average })
            }
            Task::Regression { .. } => {
                let rows = all[0].len();
                let some = rows.div_ceil(PREDICTIONS).max(1);
                let predictions = |outputs: Vec<f64>| -> Result<Vec<f64>> {
                    let some: Vec<_> =
                        outputs.into_iter().step_by(some).map(|output| output as f32).collect();
                    let answers = preparation.decode(&some)?;
                    let number = |answer| match answer {
                        Answer::Number(number) => Some(number),
                        Answer::Class { .. } => None,
                    };
                    Ok(answers.into_iter().filter_map(number).collect())
                };
                let [right, live, average] = all.map(predictions);
                let target = preparation.target().to_owned();
                Ok(Self::Numbers { target, rows, right: right?, live: live?, average: average? })
            }
        }
    }
}

/// Counts of answers by class of the row and class of the answer, without zeros.
fn confusion(right: &[usize], answers: &[usize]) -> Vec<(usize, usize, u64)> {
    let mut counts = std::collections::BTreeMap::new();
    for (&right, &answer) in right.iter().zip(answers) {
        *counts.entry((right, answer)).or_default() += 1;
    }
    counts.into_iter().map(|((right, answer), count)| (right, answer, count)).collect()
}

#[cfg(test)]
mod tests;
