//! The preparation of a network's data: rows to inputs, targets to the network's units, outputs to
//! answers. Reading files and running networks is done elsewhere.

use serde::{Deserialize, Serialize};

use super::feature::{Feature, check_names, check_scale, is_default, scaled};
use super::reading::{Missing, Reading};
use super::scale::Scale;
use super::sheet::quoted;
use super::target::Targets;
use burn_ema::{Error, Result};

/// Everything that inference needs besides the network; saved with the network.
///
/// A preparation is checked when it is made and when it is deserialised.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct Preparation {
    target: String,
    features: Vec<Feature>,
    task: Task,
    #[serde(skip_serializing_if = "is_default")]
    reading: Reading,
    #[serde(skip_serializing_if = "Option::is_none")]
    width: Option<usize>,
}

/// The meaning of the network's outputs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Task {
    /// One output per class, in `[0, 1]`, trained to be 1 for the row's class and 0 for others.
    ///
    /// A network that minimises the squared error thus estimates the probability of each class
    /// (Richard and Lippmann 1991, "Neural network classifiers estimate Bayesian a posteriori
    /// probabilities", section 2).
    /// Sigmoid outputs need not sum to 1; the probabilities are their shares of the sum.
    Classification {
        /// The names of the classes, in the order of the outputs; two or more.
        labels: Vec<String>,
    },
    /// One output: the target after `scale`.
    Regression {
        /// The scale from the unit of the target column to that of the network's output.
        scale: Scale,
    },
}

/// The answer of a network for a row.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// A class.
    Class {
        /// The name of the class with the largest output, the first of equal ones.
        label: String,
        /// The probability of each class, in the order of the labels; from 0 to 1, in sum 1.
        probabilities: Vec<f32>,
    },
    /// A number in the unit of the target column.
    Number(f64),
}

/// A preparation that was deserialised and not yet checked.
#[derive(Deserialize)]
struct Unchecked {
    target: String,
    features: Vec<Feature>,
    task: Task,
    #[serde(default)]
    reading: Reading,
    width: Option<usize>,
}

impl TryFrom<Unchecked> for Preparation {
    type Error = Error;

    fn try_from(read: Unchecked) -> Result<Self> {
        let Unchecked { target, features, task, reading, width } = read;
        Ok(Self { reading, width, ..Self::new(target, features, task)? })
    }
}

impl Preparation {
    /// A preparation for the target column of this name.
    ///
    /// # Errors
    ///
    /// [`Error::Value`] names what is out of its range: no feature, a name that appears twice
    /// among the features, the labels or the texts of a feature, fewer than two labels, a scale
    /// whose offset is not finite or whose divisor is not a finite number above 0, a feature of
    /// texts without any or without a share from 0 to 1 for each.
    pub fn new(target: String, features: Vec<Feature>, task: Task) -> Result<Self> {
        if features.is_empty() {
            return Err(Error::value("the number of features", "1 or more", 0));
        }
        check_names("feature", features.iter().map(|feature| &feature.name))?;
        features.iter().try_for_each(Feature::check)?;
        match &task {
            Task::Regression { scale } => {
                check_scale(&format!("target {}", quoted(&target)), scale)?
            }
            Task::Classification { labels } if labels.len() < 2 => {
                return Err(Error::value("the number of labels", "2 or more", labels.len()));
            }
            Task::Classification { labels } => check_names("label", labels)?,
        }
        Ok(Self { target, features, task, reading: Reading::default(), width: None })
    }

    /// This preparation for tables that are read by `reading`. For tables without a header, `width`
    /// is their number of columns, the target included; otherwise it is ignored.
    pub fn with_reading(self, reading: Reading, width: usize) -> Self {
        let width = (!reading.header).then_some(width);
        Self { reading, width, ..self }
    }

    /// The way in which the table is read.
    pub fn reading(&self) -> &Reading {
        &self.reading
    }

    /// This preparation for tables with another delimiter.
    pub fn with_delimiter(mut self, delimiter: char) -> Self {
        self.reading.delimiter = delimiter;
        self
    }

    /// The number of columns of a table, its target included; `None` for tables with a header.
    pub fn width(&self) -> Option<usize> {
        self.width
    }

    /// The name of the target column.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// The features, in the order of the inputs.
    pub fn features(&self) -> &[Feature] {
        &self.features
    }

    /// The names of the features, in the order of the inputs.
    pub fn columns(&self) -> Vec<&str> {
        self.features.iter().map(|feature| feature.name.as_str()).collect()
    }

    /// The meaning of the outputs.
    pub fn task(&self) -> &Task {
        &self.task
    }

    /// The number of inputs of the network: one per feature of numbers or truths, and one per
    /// trained text of a feature of texts.
    pub fn inputs(&self) -> usize {
        self.features.iter().map(Feature::inputs).sum()
    }

    /// The number of outputs of the network: one per class, or one for a regression.
    pub fn outputs(&self) -> usize {
        match &self.task {
            Task::Classification { labels } => labels.len(),
            Task::Regression { .. } => 1,
        }
    }

    /// Turns rows of features into the inputs of a network: `rows.len()` times
    /// [`inputs`](Self::inputs) numbers, row by row.
    ///
    /// A row has a number for each feature: in the unit of its column, or 0 and 1 for false and
    /// true, or the index of its text. NaN is a missing value, which only [`Missing::Mean`] allows.
    ///
    /// # Errors
    ///
    /// [`Error::Value`] for a row of another length, and for a value that is not finite, that is
    /// beyond an `f32` once it is scaled, or that is the index of no text.
    /// Rows are counted from 0.
    pub fn encode(&self, rows: &[Vec<f64>]) -> Result<Vec<f32>> {
        let mut inputs = Vec::with_capacity(rows.len() * self.inputs());
        for (index, row) in rows.iter().enumerate() {
            if row.len() != self.features.len() {
                let what = format!("the length of row {index}");
                return Err(Error::value(what, self.features.len().to_string(), row.len()));
            }
            for (feature, &value) in self.features.iter().zip(row) {
                let what = || format!("feature {} of row {index}", quoted(&feature.name));
                let is_filled = value.is_nan() && self.reading.missing == Missing::Mean;
                match is_filled {
                    true => inputs.extend(feature.mean()),
                    false => feature.encode(value, what, &mut inputs)?,
                }
            }
        }
        Ok(inputs)
    }

    /// Turns targets into the numbers that the network's outputs are compared with:
    /// [`outputs`](Self::outputs) numbers for each row. For classes these are 1 for the row's class
    /// and 0 for the others; for a regression it is the scaled target.
    ///
    /// # Errors
    ///
    /// [`Error::Value`] for targets of the other task or with other labels, for a class without a
    /// label, and for a number that is not finite or that is beyond an `f32` once it is scaled.
    /// Rows are counted from 0.
    pub fn encode_targets(&self, targets: &Targets) -> Result<Vec<Vec<f32>>> {
        match (&self.task, targets) {
            (Task::Classification { labels }, Targets::Classes { labels: theirs, of_row }) => {
                if theirs != labels {
                    let [expected, found] = [labels, theirs].map(|labels| labels.join(", "));
                    return Err(Error::value("the labels of the targets", expected, found));
                }
                let one_hot = |(row, &class): (usize, &usize)| {
                    let mut target = vec![0.0; labels.len()];
                    *target.get_mut(class).ok_or_else(|| {
                        let what = format!("the class of row {row}");
                        Error::value(what, format!("below {}", labels.len()), class)
                    })? = 1.0;
                    Ok(target)
                };
                of_row.iter().enumerate().map(one_hot).collect()
            }
            (Task::Regression { scale }, Targets::Numbers(numbers)) => {
                let target = |(row, &number): (usize, &f64)| {
                    let what = || format!("target {} of row {row}", quoted(&self.target));
                    Ok(vec![scaled(scale, number, what)?])
                };
                numbers.iter().enumerate().map(target).collect()
            }
            (Task::Classification { .. }, Targets::Numbers(_)) => {
                Err(Error::value("the kind of targets", "classes", "numbers"))
            }
            (Task::Regression { .. }, Targets::Classes { .. }) => {
                Err(Error::value("the kind of targets", "numbers", "classes"))
            }
        }
    }

    /// Turns the outputs of a network, [`outputs`](Self::outputs) numbers per row, into an answer
    /// for each row.
    ///
    /// # Errors
    ///
    /// [`Error::Value`] for a count that is no multiple of [`outputs`](Self::outputs), and for an
    /// output that is not finite.
    pub fn decode(&self, outputs: &[f32]) -> Result<Vec<Answer>> {
        let width = self.outputs();
        if !outputs.len().is_multiple_of(width) {
            let expected = format!("a multiple of {width}");
            return Err(Error::value("the number of outputs", expected, outputs.len()));
        }
        if let Some(index) = outputs.iter().position(|output| !output.is_finite()) {
            let what = format!("output {} of row {}", index % width, index / width);
            return Err(Error::value(what, "a finite number", outputs[index]));
        }
        let answer = |row: &[f32]| match &self.task {
            Task::Classification { labels } => {
                let probabilities = shares(row);
                let best = (0..width).fold(0, |best, i| if row[i] > row[best] { i } else { best });
                Answer::Class { label: labels[best].clone(), probabilities }
            }
            Task::Regression { scale } => Answer::Number(scale.undo(f64::from(row[0]))),
        };
        Ok(outputs.chunks_exact(width).map(answer).collect())
    }
}

/// The share of each number in the sum of all, where a number below zero counts as zero. If none is
/// above zero, the shares are equal.
fn shares(outputs: &[f32]) -> Vec<f32> {
    // In units of the largest number, so that the sum does not overflow.
    let largest = outputs.iter().copied().fold(0.0, f32::max);
    if largest == 0.0 {
        return vec![1.0 / outputs.len() as f32; outputs.len()];
    }
    let parts = outputs.iter().map(|output| output.max(0.0) / largest);
    let sum: f32 = parts.clone().sum();
    parts.map(|part| part / sum).collect()
}

#[cfg(test)]
mod tests;
