//! A dense layer and the half squared error as one operation each, with their own backward passes.
//!
//! Burn's autodiff sees one step where a composition has four or five. Of the numbers that a layer
//! computes, autodiff keeps the output alone: every nonlinearity's derivative is a function of the
//! output.
//! Gradients are computed for the parents that autodiff tracks, and for no others.
//!
//! The kernels are for Flex, in f32 and f64; for other tensors the operations are composed of
//! Burn's, with Burn's backward passes.

mod autodiff; // the operations as steps of Burn's autodiff
mod curve; // sigmoid, tanh and exp of many numbers
mod host; // the operations on Flex
mod product; // the product of two matrices

use burn::{
    backend::{
        Backend, BackendTensor, Dispatch, DispatchTensor, DispatchTensorKind, ExtensionType,
        TensorMetadata, backend_extension, tensor::FloatTensor,
    },
    tensor::{DType, Tensor, activation},
};

/// The function that a dense layer applies to its weighted sums `z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nonlinearity {
    /// `1 / (1 + exp(-z))`, in `(0, 1)`.
    Sigmoid,
    /// `tanh(z)`, in `(-1, 1)`.
    Tanh,
    /// `max(z, 0)`.
    Relu,
    /// `exp(z_k) / sum_j exp(z_j)`: the outputs of a row are positive and sum to one.
    Softmax,
    /// `z` itself.
    Identity,
}

impl Nonlinearity {
    /// The function of `z`, by Burn's operations. `z` and the result are `[batch, outputs]`; the
    /// softmax is over the outputs of a row.
    pub fn apply(self, z: Tensor<2>) -> Tensor<2> {
        match self {
            // Some backends compute Burn's sigmoid in single precision whatever the dtype.
            // Below -709 `exp(-z)` overflows, and its gradient would be NaN.
            Self::Sigmoid if z.dtype() == DType::F64 => {
                (z.clamp_min(-700.0).neg().exp() + 1.0).recip()
            }
            Self::Sigmoid => activation::sigmoid(z),
            Self::Tanh => z.tanh(),
            Self::Relu => activation::relu(z),
            Self::Softmax => activation::softmax(z, 1),
            Self::Identity => z,
        }
    }
}

/// A dense layer: `f(x W + b)` for a batch of inputs `x`, where `f` is the `nonlinearity`.
///
/// # Shapes
///
/// - input: `[batch, inputs]`
/// - weight: `[inputs, outputs]`
/// - bias: `[outputs]`, or `None` for no bias
/// - output: `[batch, outputs]`
///
/// # Panics
///
/// Shapes that do not fit together. A bias of shape `[1]` is added to every output.
pub fn dense(
    input: Tensor<2>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
    nonlinearity: Nonlinearity,
) -> Tensor<2> {
    let (input, weight) = (input.into_dispatch(), weight.into_dispatch());
    let bias = bias.map(Tensor::into_dispatch);
    let width = weight.shape()[1];
    // A bias of another width is left to Burn, which broadcasts it or panics.
    let fits = bias.iter().all(|bias| bias.shape()[0] == width);
    if fits && supports([&input, &weight].into_iter().chain(&bias)) {
        let bias = bias.map_or(Bias::None, Bias::Each);
        return Tensor::from_dispatch(Dispatch::dense(input, weight, bias, nonlinearity));
    }
    let (input, weight) = (Tensor::<2>::from_dispatch(input), Tensor::from_dispatch(weight));
    let z = input.matmul(weight);
    nonlinearity.apply(match bias.map(Tensor::<1>::from_dispatch) {
        Some(bias) => z + bias.unsqueeze(),
        None => z,
    })
}

/// `1/2 sum_k (y_k - o_k)^2` of each row of outputs `o` and targets `y`.
///
/// # Shapes
///
/// - outputs, targets: `[batch, outputs]`
/// - errors: `[batch]`
///
/// # Panics
///
/// Outputs and targets of different shapes.
pub fn half_squared_errors(outputs: Tensor<2>, targets: Tensor<2>) -> Tensor<1> {
    let [found, expected] = [targets.dims(), outputs.dims()];
    assert!(found == expected, "outputs of shape {expected:?} got targets of shape {found:?}");
    let (outputs, targets) = (outputs.into_dispatch(), targets.into_dispatch());
    if supports([&outputs, &targets].into_iter()) {
        return Tensor::from_dispatch(Dispatch::half_squared_errors(outputs, targets));
    }
    let difference = Tensor::<2>::from_dispatch(targets) - Tensor::from_dispatch(outputs);
    (difference.clone() * difference).sum_dim(1).squeeze_dim::<1>(1) * 0.5
}

/// True if the kernels support these tensors: float tensors of Flex, with autodiff or without, all
/// f32 or all f64. False in a build with the feature `portable`.
fn supports<'a>(mut tensors: impl Iterator<Item = &'a DispatchTensor> + Clone) -> bool {
    let is_flex = |tensor: &DispatchTensor| {
        let kind = match &tensor.kind {
            DispatchTensorKind::Autodiff(kind) => &**kind,
            kind => kind,
        };
        // A tensor with autodiff has another variant than one without.
        matches!(
            kind,
            DispatchTensorKind::Flex(BackendTensor::Float(_) | BackendTensor::Autodiff(_))
        )
    };
    let dtype = tensors.clone().next().map(TensorMetadata::dtype);
    !cfg!(feature = "portable")
        && matches!(dtype, Some(DType::F32 | DType::F64))
        && tensors.all(|tensor| is_flex(tensor) && Some(tensor.dtype()) == dtype)
}

/// The bias of a layer: an `Option` that can be an argument of a backend extension.
#[derive(ExtensionType)]
pub enum Bias<B: Backend> {
    Each(FloatTensor<B>),
    None,
}

impl<B: Backend> Bias<B> {
    fn into_option(self) -> Option<FloatTensor<B>> {
        match self {
            Self::Each(bias) => Some(bias),
            Self::None => None,
        }
    }
}

/// The operations of this module, for the backends that have kernels for them.
#[backend_extension(Flex, Autodiff)]
trait Operations: Backend {
    fn dense(
        input: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        #[extension_type] bias: Bias<Self>,
        nonlinearity: Nonlinearity,
    ) -> FloatTensor<Self>;

    fn half_squared_errors(
        outputs: FloatTensor<Self>,
        targets: FloatTensor<Self>,
    ) -> FloatTensor<Self>;
}
