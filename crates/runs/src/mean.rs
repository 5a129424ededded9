//! The mean of a metric over the batches of an epoch, weighted by their numbers of items.

use serde::{Deserialize, Serialize};

/// A float that is saved as text, since it may be a NaN or an infinity, which JSON cannot save.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Number(pub f64);

impl PartialEq for Number {
    fn eq(&self, other: &Self) -> bool {
        self.0.to_bits() == other.0.to_bits()
    }
}

impl From<Number> for String {
    fn from(Number(number): Number) -> Self {
        number.to_string()
    }
}

impl TryFrom<String> for Number {
    type Error = std::num::ParseFloatError;

    fn try_from(text: String) -> std::result::Result<Self, Self::Error> {
        text.parse().map(Self)
    }
}

/// The weighted sum of a metric over the batches of an epoch, and the sum of the weights.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Running {
    pub sum: Number,
    pub count: usize,
}

impl Running {
    pub fn add(&mut self, value: f64, count: usize) {
        if count > 0 {
            self.sum.0 += value * count as f64;
            self.count += count;
        }
    }

    pub fn mean(&self) -> f64 {
        self.sum.0 / self.count as f64
    }
}

/// The weight of a batch in the mean of an epoch. It is `count`, the number of values whose mean
/// the metric is, as the metric reports it; if `count` is 1, it is `items`, the number of items in
/// the batch, if known.
///
/// A loss that is one number for a batch has a count of 1, so that Burn weights a short last batch
/// like a whole one.
pub(crate) fn weight(count: usize, items: Option<usize>) -> usize {
    match (count, items) {
        (1, Some(items)) => items.max(1),
        _ => count,
    }
}

/// The sums of a metric over the batches of an epoch that this process has seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// Weighted by the metric's own counts, as in Burn's mean.
    burns: Running,
    /// Weighted by [`weight`].
    pub weighted: Running,
}

impl Seen {
    pub fn add(&mut self, value: f64, count: usize, items: Option<usize>) {
        self.burns.add(value, count);
        self.weighted.add(value, weight(count, items));
    }

    /// True if `value`, with which Burn ends the epoch, is the mean over these batches bit for bit,
    /// and not something else, such as a perplexity.
    pub fn ends_with(&self, value: f64) -> bool {
        self.burns.mean().to_bits() == value.to_bits()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_number_for_a_batch_weighs_as_its_items() {
        for (count, items, expected) in
            [(1, Some(8), 8), (1, Some(1), 1), (1, Some(0), 1), (1, None, 1), (8, Some(8), 8)]
        {
            assert_eq!(weight(count, items), expected, "{count} of {items:?}");
        }
        // A metric of tokens counts these, and one that counts nothing has no weight.
        assert_eq!(weight(120, Some(8)), 120);
        assert_eq!(weight(0, Some(8)), 0);
    }

    #[test]
    fn the_mean_of_burn_is_known_and_that_of_the_items_is_given() {
        let mut seen = Seen::default();
        for (value, items) in [(1.0, 8), (2.0, 8), (9.0, 1)] {
            seen.add(value, 1, Some(items));
        }
        assert!(seen.ends_with(4.0) && !seen.ends_with(33.0 / 17.0));
        assert_eq!(seen.weighted.mean(), 33.0 / 17.0);
    }
}
