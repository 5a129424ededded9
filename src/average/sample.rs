//! A few of live's weights, by which two lives at one step are distinguished.

use burn::backend::DispatchTensor;

use crate::kernel;

/// The numbers that a sample has at least, where there are so many; it has two of each tensor.
const LEAST: usize = 64;

/// A few of live's weights at the last step.
///
/// Replicas of one live have the same weights after a step. A live with other weights at the same
/// step is another one, or the step was counted wrongly.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sample(Vec<u64>);

impl Sample {
    /// Numbers of each of these tensors, spread evenly; none if no tensor is in host memory, since
    /// it would take a wait to read others.
    pub fn of<'a>(tensors: impl Iterator<Item = &'a DispatchTensor> + Clone) -> Option<Self> {
        let each = LEAST.div_ceil(tensors.clone().count().max(1)).max(2);
        let mut numbers = Vec::with_capacity(LEAST);
        for tensor in tensors {
            kernel::sample(tensor, each, |number: f64| numbers.push(number.to_bits()));
        }
        (!numbers.is_empty()).then_some(Self(numbers))
    }
}
