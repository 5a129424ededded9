//! A dense layer: product, bias and activation.

use burn::{
    module::{Content, DisplaySettings, ModuleDisplay, Param},
    nn::Initializer,
    tensor::{Device, Tensor},
};
use serde::{Deserialize, Serialize};

use super::container::module_in_container;

/// The function that a dense layer applies to its weighted sums `z`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Activation {
    /// `1 / (1 + exp(-z))`, in `(0, 1)`.
    #[default]
    Sigmoid,
    /// `tanh(z)`, in `(-1, 1)`.
    Tanh,
    /// `max(z, 0)`.
    Relu,
    /// `exp(z_k) / sum_j exp(z_j)`: the outputs of a row are positive and sum to one.
    /// For the last layer.
    Softmax,
    /// `z` itself, for regression.
    /// For the last layer.
    Identity,
}

impl Activation {
    /// Applies the function to `z`, `[batch, outputs]`.
    #[cfg(not(feature = "fast"))]
    fn apply(self, z: Tensor<2>) -> Tensor<2> {
        use burn::tensor::{DType, activation};

        match self {
            // Some backends compute Burn's sigmoid in single precision whatever the dtype.
            // Below -700 the exponential overflows, and its gradient would be no number.
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

    /// The gradient of a loss with respect to `z`, from the gradient with respect to the output and
    /// the output `o` itself: all `[batch, outputs]`.
    ///
    /// For the sigmoid that is `gradient o (1 - o)`; the softmax mixes the outputs of a row,
    /// `o_i (g_i - sum_k g_k o_k)`.
    pub(crate) fn backward(self, gradient: Tensor<2>, o: Tensor<2>) -> Tensor<2> {
        match self {
            Self::Sigmoid => gradient * o.clone() * (1.0 - o),
            Self::Tanh => gradient * (1.0 - o.clone() * o),
            Self::Relu => gradient.mask_fill(o.lower_equal_scalar(0.0), 0.0),
            Self::Softmax => {
                let mixed = (gradient.clone() * o.clone()).sum_dim(1);
                o * (gradient - mixed)
            }
            Self::Identity => gradient,
        }
    }
}

/// A dense layer, `o = f(x W + b)`.
#[derive(Clone, Debug)]
pub struct Dense {
    /// `W`, `[inputs, outputs]`.
    pub weight: Param<Tensor<2>>,
    /// `b`, `[outputs]`; `None` for a layer without bias.
    pub bias: Option<Param<Tensor<1>>>,
    /// The function `f`.
    pub activation: Activation,
}

module_in_container!(Dense { weight, bias; activation });

impl Dense {
    /// The container of its fields, which no struct of a user has.
    pub(crate) const CONTAINER: &str = "Struct:burn_ema::Dense";

    /// A layer whose weights are drawn and whose bias is zero.
    pub(crate) fn new(
        [inputs, outputs]: [usize; 2],
        bias: bool,
        activation: Activation,
        initializer: &Initializer,
        device: &Device,
    ) -> Self {
        let weight = initializer.init_with([inputs, outputs], Some(inputs), Some(outputs), device);
        let bias = bias.then(|| Initializer::Zeros.init([outputs], device));
        Self { weight, bias, activation }
    }

    /// The layer's output.
    ///
    /// # Shapes
    ///
    /// - input: `[batch, inputs]`
    /// - output: `[batch, outputs]`
    ///
    /// # Panics
    ///
    /// An input whose width is not the number of the layer's inputs.
    pub fn forward(&self, input: Tensor<2>) -> Tensor<2> {
        let weight = self.weight.val();
        let [inputs, _] = weight.dims();
        let [_, width] = input.dims();
        assert!(width == inputs, "a dense layer of {inputs} inputs got an input of width {width}");
        let bias = self.bias.as_ref().map(Param::val);
        output(input, weight, bias, self.activation)
    }
}

#[cfg(feature = "fast")]
fn output(
    input: Tensor<2>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
    activation: Activation,
) -> Tensor<2> {
    use burn_ema_fast::Nonlinearity;
    let nonlinearity = match activation {
        Activation::Sigmoid => Nonlinearity::Sigmoid,
        Activation::Tanh => Nonlinearity::Tanh,
        Activation::Relu => Nonlinearity::Relu,
        Activation::Softmax => Nonlinearity::Softmax,
        Activation::Identity => Nonlinearity::Identity,
    };
    burn_ema_fast::dense(input, weight, bias, nonlinearity)
}

#[cfg(not(feature = "fast"))]
fn output(
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

impl ModuleDisplay for Dense {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        DisplaySettings::new().with_new_line_after_attribute(false).optional()
    }

    fn custom_content(&self, content: Content) -> Option<Content> {
        let [inputs, outputs] = self.weight.lazy_shape().dims();
        content
            .add("inputs", &inputs)
            .add("outputs", &outputs)
            .add("bias", &self.bias.is_some())
            .add("activation", &format!("{:?}", self.activation))
            .optional()
    }
}
