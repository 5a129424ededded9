//! The half squared error, for sigmoid, softmax and identity outputs alike.

use burn::tensor::Tensor;

/// `L = 1/2 sum_k (y_k - o_k)^2` of each row of outputs `o` and targets `y`.
///
/// # Shapes
///
/// - outputs, targets: `[batch, outputs]`
/// - loss: `[batch]`
///
/// # Panics
///
/// Outputs and targets of different shapes.
pub fn half_squared_errors(outputs: Tensor<2>, targets: Tensor<2>) -> Tensor<1> {
    let [found, expected] = [targets.dims(), outputs.dims()];
    assert!(found == expected, "outputs of shape {expected:?} got targets of shape {found:?}");
    #[cfg(feature = "fast")]
    return burn_ema_fast::half_squared_errors(outputs, targets);
    #[cfg(not(feature = "fast"))]
    {
        let difference = targets - outputs;
        (difference.clone() * difference).sum_dim(1).squeeze_dim::<1>(1) * 0.5
    }
}

/// The mean over the batch of [`half_squared_errors`].
///
/// # Shapes
///
/// - outputs, targets: `[batch, outputs]`
/// - loss: `[1]`
///
/// # Panics
///
/// Outputs and targets of different shapes.
pub fn half_squared_error(outputs: Tensor<2>, targets: Tensor<2>) -> Tensor<1> {
    half_squared_errors(outputs, targets).mean()
}
