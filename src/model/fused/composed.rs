//! The operations composed of Burn's, for backends without kernels of ours.

use burn::{
    backend::{Backend, DispatchKindConversion, DispatchTensor, tensor::FloatTensor},
    tensor::Tensor,
};

use super::Kept;
use crate::model::Activation;

/// `f(x W + b)`.
pub(super) fn dense(
    input: Tensor<2>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
    activation: Activation,
) -> Tensor<2> {
    let z = input.matmul(weight);
    activation.apply(match bias {
        Some(bias) => z + bias.unsqueeze(),
        None => z,
    })
}

/// `1/2 sum_k (y_k - o_k)^2` of each row.
pub(super) fn half_squared_errors(outputs: Tensor<2>, targets: Tensor<2>) -> Tensor<1> {
    let difference = targets - outputs;
    (difference.clone() * difference).sum_dim(1).squeeze_dim::<1>(1) * 0.5
}

/// The gradients of [`dense`] by input, weight and bias, of those that are wanted.
pub(super) fn dense_backward<B: Tensors>(
    gradient: FloatTensor<B>,
    kept: Kept<B>,
) -> [Option<FloatTensor<B>>; 3] {
    let delta = kept.activation.backward(B::tensor(gradient), B::tensor(kept.output));
    let by_input = kept.weight.map(|weight| {
        let weight: Tensor<2> = B::tensor(weight);
        B::primitive(delta.clone().matmul(weight.transpose()))
    });
    let by_weight = kept.input.map(|input| {
        let input: Tensor<2> = B::tensor(input);
        B::primitive(input.transpose().matmul(delta.clone()))
    });
    let by_bias = kept.bias.then(|| B::primitive(delta.sum_dim(0).squeeze_dim::<1>(0)));
    [by_input, by_weight, by_bias]
}

/// The gradient of [`half_squared_errors`] by the outputs.
pub(super) fn half_squared_errors_backward<B: Tensors>(
    gradient: FloatTensor<B>,
    outputs: FloatTensor<B>,
    targets: FloatTensor<B>,
) -> FloatTensor<B> {
    let gradient: Tensor<1> = B::tensor(gradient);
    let [outputs, targets] = [outputs, targets].map(B::tensor::<2>);
    B::primitive((outputs - targets) * gradient.unsqueeze_dim(1))
}

/// Backends whose primitives are the insides of a [`Tensor`].
pub(super) trait Tensors: Backend {
    fn tensor<const D: usize>(primitive: FloatTensor<Self>) -> Tensor<D>;

    /// The way back, for what operations made of such a tensor.
    fn primitive<const D: usize>(tensor: Tensor<D>) -> FloatTensor<Self>;
}

impl<B: Backend> Tensors for B
where
    DispatchTensor: DispatchKindConversion<B>,
{
    fn tensor<const D: usize>(primitive: FloatTensor<B>) -> Tensor<D> {
        Tensor::from_primitive::<B>(primitive)
    }

    fn primitive<const D: usize>(tensor: Tensor<D>) -> FloatTensor<B> {
        let primitive = tensor.try_into_primitive::<B>();
        primitive.unwrap_or_else(|error| unreachable!("an operation left its backend: {error:?}"))
    }
}
