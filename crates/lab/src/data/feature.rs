//! A column of a table as inputs of a network: numbers, truths and texts.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::scale::Scale;
use super::sheet::quoted;
use burn_ema::{Error, Result};

/// A column of the table that is an input of the network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Feature {
    /// The name of the column.
    pub name: String,
    /// The scale of numbers and truths; texts are not scaled.
    pub scale: Scale,
    /// The kind of the column's cells.
    #[serde(default, skip_serializing_if = "is_default")]
    pub kind: FeatureKind,
}

/// The kind of a feature's cells.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FeatureKind {
    /// Numbers: one input.
    #[default]
    Number,
    /// `true` or `yes` for 1, `false` or `no` for 0: one input.
    Truth,
    /// Texts: one input for each text of the training rows, 1 for the text of the row and 0 for all
    /// other texts.
    Texts(Texts),
}

/// The texts of a feature. A row holds the index of its text: first `trained`, then `untrained`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Texts {
    /// The texts that have an input each, in the order of the training rows.
    pub trained: Vec<String>,
    /// The share of each text of `trained` in the training rows that have a value, from 0 to 1.
    /// [`Missing::Mean`](super::Missing::Mean) uses the shares as inputs for a missing value.
    pub shares: Vec<f64>,
    /// The texts of the table that no training row has: all inputs are 0.
    pub untrained: Vec<String>,
}

impl Texts {
    /// All texts, in the order of their indices.
    pub fn all(&self) -> impl Iterator<Item = &String> {
        self.trained.iter().chain(&self.untrained)
    }
}

impl Feature {
    /// A feature of numbers.
    pub fn number(name: impl Into<String>, scale: Scale) -> Self {
        Self { name: name.into(), scale, kind: FeatureKind::Number }
    }

    /// The number of the network's inputs for this feature.
    pub(super) fn inputs(&self) -> usize {
        match &self.kind {
            FeatureKind::Number | FeatureKind::Truth => 1,
            FeatureKind::Texts(texts) => texts.trained.len(),
        }
    }

    /// The mean of each of its inputs over the training rows.
    pub(super) fn mean(&self) -> Vec<f32> {
        match &self.kind {
            FeatureKind::Number | FeatureKind::Truth => vec![0.0],
            FeatureKind::Texts(texts) => texts.shares.iter().map(|share| *share as f32).collect(),
        }
    }

    /// Adds the inputs for a value: a number, 0 or 1 for a truth, or the index of a text.
    ///
    /// The error for a value that cannot be encoded names it by `what`.
    pub(super) fn encode(
        &self,
        value: f64,
        what: impl FnOnce() -> String,
        inputs: &mut Vec<f32>,
    ) -> Result<()> {
        let FeatureKind::Texts(texts) = &self.kind else {
            inputs.push(scaled(&self.scale, value, what)?);
            return Ok(());
        };
        let count = texts.all().count();
        if !(0..count).any(|text| text as f64 == value) {
            let expected = format!("the index of a text, below {count}");
            return Err(Error::value(what(), expected, value));
        }
        let is_it = |text| f32::from(u8::from(text as f64 == value));
        inputs.extend((0..texts.trained.len()).map(is_it));
        Ok(())
    }

    /// Refuses a scale or texts that cannot be used.
    pub(super) fn check(&self) -> Result<()> {
        let what = format!("feature {}", quoted(&self.name));
        check_scale(&what, &self.scale)?;
        match &self.kind {
            FeatureKind::Number | FeatureKind::Truth => Ok(()),
            FeatureKind::Texts(texts) => check_texts(&what, texts),
        }
    }
}

/// True if a value is the default of its type, and so need not be saved.
pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A value after its scale; an error that names it by `what` if the result is not finite in `f32`.
pub(super) fn scaled(scale: &Scale, value: f64, what: impl FnOnce() -> String) -> Result<f32> {
    let scaled = scale.apply(value) as f32;
    if scaled.is_finite() {
        return Ok(scaled);
    }
    let Scale { offset, divisor } = scale;
    let expected = format!("a number near enough to {offset} for a scale of {divisor}");
    Err(Error::value(what(), expected, value))
}

/// Refuses a name that appears twice.
pub(super) fn check_names<'a>(
    what: &str,
    names: impl IntoIterator<Item = &'a String>,
) -> Result<()> {
    let mut seen = HashSet::new();
    match names.into_iter().find(|name| !seen.insert(*name)) {
        None => Ok(()),
        Some(name) => {
            let found = format!("{} twice", quoted(name));
            Err(Error::value(format!("the name of a {what}"), "one that no other has", found))
        }
    }
}

/// Refuses texts without a trained one, a text that appears twice, another number of shares than of
/// trained texts, and a share outside `[0, 1]`.
fn check_texts(what: &str, texts: &Texts) -> Result<()> {
    if texts.trained.is_empty() {
        return Err(Error::value(format!("the number of texts of {what}"), "1 or more", 0));
    }
    check_names(&format!("text of {what}"), texts.all())?;
    let (expected, found) = (texts.trained.len(), texts.shares.len());
    if found != expected {
        let what = format!("the number of shares of {what}");
        return Err(Error::value(what, expected.to_string(), found));
    }
    match texts.shares.iter().find(|share| !(0.0..=1.0).contains(*share)) {
        None => Ok(()),
        Some(share) => Err(Error::value(format!("a share of {what}"), "0 to 1", share)),
    }
}

/// Refuses an offset that is not finite, and a divisor that is not a finite number above 0.
pub(super) fn check_scale(what: &str, Scale { offset, divisor }: &Scale) -> Result<()> {
    if !offset.is_finite() {
        return Err(Error::value(format!("the offset of {what}"), "a finite number", offset));
    }
    if !(divisor.is_finite() && *divisor > 0.0) {
        let expected = "a finite number above 0";
        return Err(Error::value(format!("the divisor of {what}"), expected, divisor));
    }
    Ok(())
}
