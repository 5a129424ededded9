//! The score beside a loss: the accuracy of classes, or R2 of a quantity.

use burn::{
    tensor::TensorReadError,
    train::metric::{
        LossInput, LossMetric, Metric, MetricAttributes, MetricMetadata, MetricName, Numeric,
        NumericAttributes, NumericEntry, SerializedEntry,
    },
};

use crate::data::Sample;

/// The kind of the score that a task has beside its loss; higher is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScoreKind {
    /// The share of rows whose largest output is that of their class.
    Accuracy,
    /// The coefficient of determination, see [`r2`].
    R2,
}

impl ScoreKind {
    /// All kinds.
    pub const ALL: [Self; 2] = [Self::Accuracy, Self::R2];

    /// The name of the metric in the history of a run.
    pub fn metric(self) -> &'static str {
        match self {
            Self::Accuracy => "Accuracy",
            Self::R2 => "R2",
        }
    }

    /// The name within a sentence.
    pub fn name(self) -> &'static str {
        match self {
            Self::Accuracy => "accuracy",
            Self::R2 => "R2",
        }
    }

    /// The score for a value of the metric: Burn's accuracy is in percent.
    pub(super) fn of_metric(self, value: f64) -> f64 {
        match self {
            Self::Accuracy => value / 100.0,
            Self::R2 => value,
        }
    }

    /// A score as text.
    pub fn text(self, score: f64) -> String {
        match self {
            Self::Accuracy => format!("{:.2} %", 100.0 * score),
            Self::R2 => format!("{score:.4}"),
        }
    }

    /// The difference of two scores as text.
    pub fn change(self, difference: f64) -> String {
        match self {
            Self::Accuracy => format!("{:+.2} points", 100.0 * difference),
            Self::R2 => format!("{difference:+.4}"),
        }
    }
}

/// The coefficient of determination of answers with this loss: one minus the mean squared error
/// over the variance of the targets. It is 1 for exact answers and 0 for the mean of the targets.
///
/// `loss` is the mean half squared error of one output, and `variance` that of the targets over the
/// same rows, in the same units.
pub fn r2(loss: f64, variance: f64) -> f64 {
    1.0 - 2.0 * loss / variance
}

/// The variance of numbers; `None` if they are all equal, or if there are none.
pub(super) fn variance(numbers: impl Iterator<Item = f64> + Clone) -> Option<f64> {
    let count = numbers.clone().count() as f64;
    let mean = numbers.clone().sum::<f64>() / count;
    let variance = numbers.map(|number| (number - mean).powi(2)).sum::<f64>() / count;
    // NaN without a number.
    (variance > 0.0).then_some(variance)
}

/// R2 on the split that it was made for, as a metric of Burn's training; see [`r2`].
///
/// The variance of the split is known beforehand, so that the mean over batches is that of the
/// split.
#[derive(Clone)]
pub struct R2Metric {
    loss: LossMetric,
    variance: f64,
}

impl R2Metric {
    /// The metric for rows with one target each; `None` if all targets are equal, for which there
    /// is no R2.
    pub fn of(rows: &[Sample]) -> Option<Self> {
        let targets = rows.iter().flat_map(|row| &row.targets);
        let variance = variance(targets.map(|&target| f64::from(target)))?;
        Some(Self { loss: LossMetric::new(), variance })
    }

    fn r2(&self, loss: &NumericEntry) -> NumericEntry {
        let r2 = |loss| r2(loss, self.variance);
        match *loss {
            NumericEntry::Value(loss) => NumericEntry::Value(r2(loss)),
            NumericEntry::Final(loss) => NumericEntry::Final(r2(loss)),
            NumericEntry::Aggregated { aggregated_value, count } => {
                NumericEntry::Aggregated { aggregated_value: r2(aggregated_value), count }
            }
        }
    }
}

impl Metric for R2Metric {
    type Input = LossInput;

    fn name(&self) -> MetricName {
        MetricName::new(ScoreKind::R2.metric().to_owned())
    }

    fn attributes(&self) -> MetricAttributes {
        NumericAttributes { unit: None, higher_is_better: true }.into()
    }

    fn update(
        &mut self,
        loss: &LossInput,
        metadata: &MetricMetadata,
    ) -> Result<SerializedEntry, TensorReadError> {
        self.loss.update(loss, metadata)?;
        Ok(match self.value() {
            Some(entry) => serialized(&entry),
            None => SerializedEntry::not_available(None),
        })
    }

    fn compute(&mut self) -> Result<SerializedEntry, TensorReadError> {
        self.loss.compute()?;
        Ok(serialized(&self.final_value()))
    }

    fn clear(&mut self) {
        self.loss.clear();
    }
}

impl Numeric for R2Metric {
    fn value(&self) -> Option<NumericEntry> {
        self.loss.value().map(|loss| self.r2(&loss))
    }

    fn running_value(&self) -> Option<NumericEntry> {
        self.loss.running_value().map(|loss| self.r2(&loss))
    }

    fn final_value(&self) -> NumericEntry {
        self.r2(&self.loss.final_value())
    }
}

fn serialized(entry: &NumericEntry) -> SerializedEntry {
    SerializedEntry::new(ScoreKind::R2.text(entry.current()), entry.serialize())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The targets 1, 2, 3, 6 have the mean 3 and the variance 14 / 4.
    #[test]
    fn r2_compares_with_the_mean_of_the_targets() {
        let targets = [1.0, 2.0, 3.0, 6.0];
        let variance = variance(targets.into_iter()).unwrap();
        assert_eq!(variance, 3.5);
        let r2_of = |answers: [f64; 4]| {
            let halves = answers.iter().zip(targets).map(|(a, t)| 0.5 * (a - t).powi(2));
            r2(halves.sum::<f64>() / 4.0, variance)
        };
        assert_eq!(r2_of(targets), 1.0);
        assert_eq!(r2_of([3.0; 4]), 0.0);
        // Errors of 1 in each row: 1 - 1 / 3.5.
        assert!((r2_of([2.0, 3.0, 4.0, 7.0]) - 5.0 / 7.0).abs() < 1e-12);
        assert_eq!(self::variance([2.0, 2.0].into_iter()), None);
        assert_eq!(self::variance([].into_iter()), None);
    }

    #[test]
    fn scores_have_their_units() {
        let [accuracy, r2] = ScoreKind::ALL;
        assert_eq!(accuracy.text(accuracy.of_metric(97.5)), "97.50 %");
        assert_eq!(accuracy.change(-0.0025), "-0.25 points");
        assert_eq!(r2.text(r2.of_metric(0.45)), "0.4500");
        assert_eq!(r2.change(0.06), "+0.0600");
    }
}
