//! A few of live's weights, by which two lives at one step are told apart.

use burn::backend::DispatchTensor;

use crate::kernel;

/// The most tensors that a sample has numbers of, and the most numbers of each.
const MOST: usize = 8;

/// A few of live's weights at the last step.
///
/// Replicas of one live have the same weights after a step. A live with other weights at the same
/// step is another one, or the step was counted wrongly.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sample(Vec<u64>);

impl Sample {
    /// Numbers of these tensors, spread evenly; none if no tensor is in host memory, since it
    /// would take a wait to read others.
    pub fn of<'a>(tensors: impl Iterator<Item = &'a DispatchTensor> + Clone) -> Option<Self> {
        let stride = tensors.clone().count().div_ceil(MOST).max(1);
        let mut numbers = Vec::with_capacity(MOST * MOST);
        for tensor in tensors.step_by(stride) {
            kernel::sample(tensor, MOST, |number: f64| numbers.push(number.to_bits()));
        }
        (!numbers.is_empty()).then_some(Self(numbers))
    }
}
