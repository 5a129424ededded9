//! A dense layer and the half squared error as one operation each, with backwards of their own.
//!
//! Burn's autodiff sees one step where a composition has four or five, and of a layer it keeps the
//! output alone: every activation's derivative is a function of that. A gradient is computed for
//! the parents that have one, and for no other.
//!
//! Each operation takes the fastest path there is: a kernel on Flex, otherwise a composition of
//! Burn's operations, inside the one step where the backend is listed, and with Burn's own
//! backwards where it is not.

#![cfg_attr(feature = "ndarray", allow(deprecated, reason = "Burn still ships ndarray"))]
#![cfg_attr(not(feature = "train"), allow(dead_code, reason = "only autodiff goes backwards"))]

#[cfg(feature = "train")]
mod autodiff;
mod composed;
#[cfg(any(feature = "flex", feature = "train"))] // burn-train brings Flex along
mod curve;
#[cfg(any(feature = "flex", feature = "train"))]
mod host;
#[cfg(any(feature = "flex", feature = "train"))]
mod product;

use burn::{
    backend::{
        Backend, BackendTensor, Dispatch, DispatchTensor, DispatchTensorKind, ExtensionType,
        backend_extension, tensor::FloatTensor,
    },
    tensor::Tensor,
};

use self::composed::Tensors;
use super::dense::Activation;

/// `f(x W + b)` of a batch: `[batch, inputs]`, `[inputs, outputs]` and `[outputs]` give
/// `[batch, outputs]`.
pub(super) fn dense(
    input: Tensor<2>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
    activation: Activation,
) -> Tensor<2> {
    let (input, weight) = (input.into_dispatch(), weight.into_dispatch());
    let bias = bias.map(Tensor::into_dispatch);
    if [&input, &weight].into_iter().chain(&bias).all(is_served) {
        let bias = bias.map_or(Bias::None, Bias::Each);
        return Tensor::from_dispatch(Dispatch::dense(input, weight, bias, activation));
    }
    let bias = bias.map(Tensor::from_dispatch);
    let (input, weight) = (Tensor::from_dispatch(input), Tensor::from_dispatch(weight));
    composed::dense(input, weight, bias, activation)
}

/// `1/2 sum_k (y_k - o_k)^2` of each row: twice `[batch, outputs]` give `[batch]`.
pub(super) fn half_squared_errors(outputs: Tensor<2>, targets: Tensor<2>) -> Tensor<1> {
    let (outputs, targets) = (outputs.into_dispatch(), targets.into_dispatch());
    if is_served(&outputs) && is_served(&targets) {
        return Tensor::from_dispatch(Dispatch::half_squared_errors(outputs, targets));
    }
    composed::half_squared_errors(Tensor::from_dispatch(outputs), Tensor::from_dispatch(targets))
}

/// Whether these are floats, and not quantized, of a backend that [`Operations`] lists.
fn is_served(tensor: &DispatchTensor) -> bool {
    let kind = match &tensor.kind {
        #[cfg(feature = "train")]
        DispatchTensorKind::Autodiff(kind) => &**kind,
        kind => kind,
    };
    let listed = match kind {
        #[cfg(any(feature = "flex", feature = "train"))]
        DispatchTensorKind::Flex(tensor) => is_plain(tensor),
        #[cfg(feature = "ndarray")]
        DispatchTensorKind::NdArray(tensor) => is_plain(tensor),
        #[cfg(any(feature = "wgpu", feature = "cuda", feature = "rocm", feature = "cpu"))]
        DispatchTensorKind::Cube(tensor) => is_plain(tensor),
        #[allow(unreachable_patterns, reason = "others may be compiled in")]
        _ => false,
    };
    listed && !cfg!(feature = "portable")
}

fn is_plain<B: Backend>(tensor: &BackendTensor<B>) -> bool {
    !matches!(tensor, BackendTensor::Quantized(_))
}

/// The bias of a layer, where it has one.
#[derive(ExtensionType)]
pub(super) enum Bias<B: Backend> {
    Each(FloatTensor<B>),
    None,
}

/// Backends with the operations.
#[backend_extension(
    Flex: cfg(any(feature = "flex", feature = "train")),
    NdArray: cfg(feature = "ndarray"),
    Cube: cfg(any(feature = "wgpu", feature = "cuda", feature = "rocm", feature = "cpu")),
    Autodiff: cfg(feature = "train")
)]
trait Operations: Backend {
    fn dense(
        input: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        #[extension_type] bias: Bias<Self>,
        activation: Activation,
    ) -> FloatTensor<Self>;

    fn half_squared_errors(
        outputs: FloatTensor<Self>,
        targets: FloatTensor<Self>,
    ) -> FloatTensor<Self>;
}

/// Both directions of the operations on a backend without autodiff; composed, unless it has better.
trait Kernels: Tensors {
    fn dense(
        input: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: Option<FloatTensor<Self>>,
        activation: Activation,
    ) -> FloatTensor<Self> {
        let [input, weight] = [input, weight].map(Self::tensor);
        Self::primitive(composed::dense(input, weight, bias.map(Self::tensor), activation))
    }

    /// The gradients by input, weight and bias, of those that are wanted, from that by the output.
    fn dense_backward(
        gradient: FloatTensor<Self>,
        kept: Kept<Self>,
    ) -> [Option<FloatTensor<Self>>; 3] {
        composed::dense_backward::<Self>(gradient, kept)
    }

    fn half_squared_errors(
        outputs: FloatTensor<Self>,
        targets: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let [outputs, targets] = [outputs, targets].map(Self::tensor);
        Self::primitive(composed::half_squared_errors(outputs, targets))
    }

    /// The gradient by the outputs, `(o - y) g` in each row; that by the targets is its negative.
    fn half_squared_errors_backward(
        gradient: FloatTensor<Self>,
        outputs: FloatTensor<Self>,
        targets: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        composed::half_squared_errors_backward::<Self>(gradient, outputs, targets)
    }
}

#[cfg(feature = "ndarray")]
impl Kernels for burn::backend::NdArray {}

// Where Burn's fusion is compiled in, this type holds it.
#[cfg(any(feature = "wgpu", feature = "cuda", feature = "rocm", feature = "cpu"))]
impl Kernels for burn::backend::Cube {}

/// What a layer's backward needs of its forward.
#[derive(Clone, Debug)]
struct Kept<B: Backend> {
    /// Where the weights' gradient is wanted.
    input: Option<FloatTensor<B>>,
    /// Where the input's gradient is wanted.
    weight: Option<FloatTensor<B>>,
    /// Whether the bias's gradient is wanted.
    bias: bool,
    output: FloatTensor<B>,
    activation: Activation,
}

impl<B: Kernels> Operations for B {
    fn dense(
        input: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: Bias<Self>,
        activation: Activation,
    ) -> FloatTensor<Self> {
        let bias = match bias {
            Bias::Each(bias) => Some(bias),
            Bias::None => None,
        };
        <B as Kernels>::dense(input, weight, bias, activation)
    }

    fn half_squared_errors(
        outputs: FloatTensor<Self>,
        targets: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        <B as Kernels>::half_squared_errors(outputs, targets)
    }
}
