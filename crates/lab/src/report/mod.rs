//! Reports: scores of live and of each average on the test split, and a page on all of a run.

mod curves; // metrics by epoch and weights by step, from the history of a run
mod frechet; // the distance of generated pictures from real ones
mod half; // mean and worst of the metrics over the second half of the epochs
mod page; // the page of runs, as HTML
pub mod picture; // lines, bars, cells, points and images, as SVG
mod run; // all that the directory of a run holds
mod score; // the accuracy of classes, or R2 of a quantity
mod summary; // profiles of averages, answers on the test split
mod text; // text of a user, as HTML and as a word of a shell

pub use frechet::{Features, frechet};
pub use half::{HalfRow, SecondHalf, Spread};
pub use page::Page;
pub use score::{R2Metric, ScoreKind, r2};
pub use summary::{Answered, MadeOf, Summary};

use std::fmt;

use burn::{data::dataloader::DataLoader, module::Module, tensor::Tensor};
use burn_ema::{
    Error, Result,
    model::{Batch, Mlp, half_squared_errors},
    train::{Averaged, Ranking},
};
use serde::{Deserialize, Serialize};

use self::score::variance;

/// The scores of live and of each average on the test split, in full precision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The device that computed the scores, in words.
    pub device: String,
    /// The seed of the run.
    pub seed: u64,
    /// The losses on the validation split, by which the best average was chosen.
    pub validation: Ranking,
    /// The scores of live.
    pub live: Scores,
    /// The scores of each average, in the order of the run.
    pub averages: Vec<AverageScores>,
}

/// The scores of a network on a split; in a report, on the test split.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// The mean over rows of the half squared error, in the network's units.
    #[serde(rename = "test_loss")]
    pub loss: f64,
    /// The share of rows whose largest output is that of their class, in `[0, 1]`; `None` for a
    /// regression.
    #[serde(rename = "test_accuracy")]
    pub accuracy: Option<f64>,
    /// The coefficient of determination, see [`r2`]; `None` for classes, and for targets that are
    /// all equal.
    #[serde(rename = "test_r2", default, skip_serializing_if = "Option::is_none")]
    pub r2: Option<f64>,
}

/// The scores of an average on the test split.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AverageScores {
    /// The rule of the average, in its short form.
    pub rule: String,
    /// The scores of the average.
    #[serde(flatten)]
    pub scores: Scores,
}

impl Report {
    /// Scores live and its averages on a test split. `validation`, `device` and `seed` are only
    /// stored.
    ///
    /// # Errors
    ///
    /// An average that no longer fits live; a batch that cannot be loaded; outputs that cannot be
    /// read from the device.
    pub fn of(
        model: &Averaged<Mlp>,
        validation: Ranking,
        test: &dyn DataLoader<Batch>,
        device: impl ToString,
        seed: u64,
    ) -> Result<Self> {
        let averages = model.averages();
        let averages = averages.iter().map(|average| {
            let scores = Scores::of(&average.module_like(model.live())?, test)?;
            Ok(AverageScores { rule: average.rule().to_string(), scores })
        });
        Ok(Self {
            device: device.to_string(),
            seed,
            validation,
            live: Scores::of(&model.live().valid(), test)?,
            averages: averages.collect::<Result<_>>()?,
        })
    }
}

impl Scores {
    /// The score beside the loss; `None` for targets that are all equal.
    pub fn score(&self) -> Option<(ScoreKind, f64)> {
        let accuracy = self.accuracy.map(|accuracy| (ScoreKind::Accuracy, accuracy));
        accuracy.or(self.r2.map(|r2| (ScoreKind::R2, r2)))
    }

    /// The kind of the score and its change from that of other scores.
    pub(crate) fn change_from(&self, other: &Self) -> Option<(ScoreKind, f64)> {
        let ((kind, score), (_, other)) = self.score().zip(other.score())?;
        Some((kind, score - other))
    }

    /// Scores a network, usually in validation mode, on a split; NaN for a split without rows.
    ///
    /// # Errors
    ///
    /// A batch that cannot be loaded; outputs that cannot be read from the device.
    pub fn of(mlp: &Mlp, test: &dyn DataLoader<Batch>) -> Result<Self> {
        let (mut rows, mut loss, mut right, mut classes) = (0, 0.0, 0.0, 0);
        let mut quantities = Vec::new();
        for batch in test.iter() {
            let Batch { inputs, targets } =
                batch.map_err(|error| Error::value("a batch", "rows of data", error))?;
            let outputs = mlp.forward(inputs);
            [rows, classes] = [rows + targets.dims()[0], targets.dims()[1]];
            loss += sum(half_squared_errors(outputs.clone(), targets.clone()))?;
            if classes == 1 {
                quantities.extend(numbers(targets)?);
                continue;
            }
            right += sum(outputs.argmax(1).equal(targets.argmax(1)).float().squeeze_dim::<1>(1))?;
        }
        let mean = |sum: f64| sum / rows as f64;
        let loss = mean(loss);
        let accuracy = (classes > 1).then(|| mean(right));
        let variance = variance(quantities.iter().copied());
        Ok(Self { loss, accuracy, r2: variance.map(|variance| r2(loss, variance)) })
    }
}

/// The sum of a vector's numbers, in double precision.
fn sum(row: Tensor<1>) -> Result<f64> {
    Ok(numbers(row)?.iter().sum())
}

/// The numbers of a tensor, row by row, in double precision.
fn numbers<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f64>> {
    let numbers = tensor.reshape([-1]) as Tensor<1>;
    let numbers = numbers.try_into_vec_as::<f64>();
    numbers.map_err(|error| Error::value("the outputs", "numbers", error))
}

/// A table of the scores, with the change of each average from live.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.averages.iter().map(|average| average.rule.len());
        let width = names.max().unwrap_or(0).max("live".len());
        write!(f, "{:width$}  {:>10}", "", "test loss")?;
        if let Some((kind, _)) = self.live.score() {
            write!(f, "  {:>13}", format!("test {}", kind.name()))?;
        }
        write!(f, "\n{:width$}  {}", "live", self.live)?;
        for (index, AverageScores { rule, scores }) in self.averages.iter().enumerate() {
            let change = 100.0 * (scores.loss / self.live.loss - 1.0);
            write!(f, "\n{rule:width$}  {scores}  loss {change:+.1} %")?;
            if let Some((kind, change)) = scores.change_from(&self.live) {
                write!(f, ", {} {}", kind.name(), kind.change(change))?;
            }
            if self.averages.len() > 1 && index == self.validation.best {
                write!(f, ", best in validation")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Scores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>10.6}", self.loss)?;
        match self.score() {
            Some((kind, score)) => write!(f, "  {:>13}", kind.text(score)),
            None => Ok(()),
        }
    }
}
