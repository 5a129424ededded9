//! A few of live's weights, by which two lives at one step are distinguished.

use burn::backend::DispatchTensor;

use crate::kernel;

/// About how many numbers a sample has, if the tensors have so many. Each tensor gives two at
/// least, unless it has only one.
const COUNT: usize = 64;

/// A few of live's weights at the last step.
///
/// Replicas of one live have the same weights after a step. If live has other weights at the same
/// step, it is another module, or the caller has counted the step wrongly.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sample(Vec<u64>);

impl Sample {
    /// Numbers of each of these tensors, spread evenly. `None` if no tensor is in host memory,
    /// since a read from a GPU would wait for it.
    pub fn of<'a>(tensors: impl Iterator<Item = &'a DispatchTensor> + Clone) -> Option<Self> {
        let each = COUNT.div_ceil(tensors.clone().count().max(1)).max(2);
        let mut numbers = Vec::with_capacity(COUNT);
        for tensor in tensors {
            kernel::sample(tensor, each, |number: f64| numbers.push(number.to_bits()));
        }
        (!numbers.is_empty()).then_some(Self(numbers))
    }
}
