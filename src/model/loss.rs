//! The half squared error, for sigmoid, softmax and identity outputs alike.

use burn::tensor::Tensor;

/// `L = 1/2 sum_k (y_k - o_k)^2` of each row of outputs `o` and targets `y`.
///
/// # Shapes
///
/// - outputs, targets: `[batch, outputs]`
/// - loss: `[batch]`
pub fn half_squared_errors(outputs: Tensor<2>, targets: Tensor<2>) -> Tensor<1> {
    let difference = targets - outputs;
    (difference.clone() * difference).sum_dim(1).squeeze_dim::<1>(1) * 0.5
}

/// The mean over the batch of [`half_squared_errors`].
///
/// # Shapes
///
/// - outputs, targets: `[batch, outputs]`
/// - loss: `[1]`
pub fn half_squared_error(outputs: Tensor<2>, targets: Tensor<2>) -> Tensor<1> {
    half_squared_errors(outputs, targets).mean()
}
