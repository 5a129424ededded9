//! A multilayer perceptron, sigmoids by default.

use burn::{
    config::Config,
    module::ModuleDisplay,
    nn::Initializer,
    tensor::{Device, Tensor},
};

use super::{
    container::module_in_container,
    dense::{Activation, Dense},
};
use crate::{Error, Result};

/// Configuration of an [`Mlp`].
///
/// ```
/// use burn_ema::model::{Activation, MlpConfig};
///
/// let config = MlpConfig::new(vec![64, 32, 10]).with_output(Activation::Softmax);
/// let mlp = config.init(&Default::default())?;
/// println!("{mlp}");
/// # Ok::<_, burn_ema::Error>(())
/// ```
#[derive(Config, Debug)]
pub struct MlpConfig {
    /// The widths of the layers: inputs, hidden layers, outputs. At least two widths, each above
    /// zero.
    pub sizes: Vec<usize>,
    /// The activation of the hidden layers: sigmoid, tanh or relu.
    #[config(default = "Activation::Sigmoid")]
    pub hidden: Activation,
    /// The activation of the last layer.
    #[config(default = "Activation::Sigmoid")]
    pub output: Activation,
    /// True if the layers have a bias, which starts at zero.
    #[config(default = true)]
    pub bias: bool,
    /// How the weights are drawn; Glorot's uniform by default, which suits sigmoids.
    #[config(default = "Initializer::XavierUniform { gain: 1.0 }")]
    pub initializer: Initializer,
}

impl MlpConfig {
    /// Makes the network on `device`, with its weights drawn there.
    ///
    /// # Errors
    ///
    /// Fewer than two sizes, a size of zero, softmax or identity in a hidden layer.
    pub fn init(&self, device: &Device) -> Result<Mlp> {
        if self.sizes.len() < 2 {
            let found = format!("{:?}", self.sizes);
            return Err(Error::value("sizes", "at least two widths", found));
        }
        if self.sizes.contains(&0) {
            let found = format!("{:?}", self.sizes);
            return Err(Error::value("sizes", "widths above zero", found));
        }
        if matches!(self.hidden, Activation::Softmax | Activation::Identity) {
            let found = format!("{:?}", self.hidden);
            return Err(Error::value("hidden", "Sigmoid, Tanh or Relu", found));
        }
        let last = self.sizes.len() - 2;
        let layers = self.sizes.windows(2).enumerate().map(|(index, sizes)| {
            let activation = if index == last { self.output } else { self.hidden };
            Dense::new([sizes[0], sizes[1]], self.bias, activation, &self.initializer, device)
        });
        Ok(Mlp { layers: layers.collect() })
    }
}

/// A multilayer perceptron: dense layers, one after the other.
#[derive(Clone, Debug)]
pub struct Mlp {
    /// The layers, first to last.
    pub layers: Vec<Dense>,
}

module_in_container!(Mlp { layers });

impl ModuleDisplay for Mlp {}

impl Mlp {
    /// The container of its layers, which no struct of a user has.
    pub(crate) const CONTAINER: &str = "Struct:burn_ema::Mlp";

    /// The network's output.
    ///
    /// # Shapes
    ///
    /// - input: `[batch, inputs]`
    /// - output: `[batch, outputs]`
    ///
    /// # Panics
    ///
    /// An input of another width than the network's.
    pub fn forward(&self, input: Tensor<2>) -> Tensor<2> {
        self.layers.iter().fold(input, |x, layer| layer.forward(x))
    }

    /// The output of every layer, first to last: `[batch, outputs of the layer]` each.
    ///
    /// # Panics
    ///
    /// An input of another width than the network's.
    pub fn layer_outputs(&self, input: Tensor<2>) -> Vec<Tensor<2>> {
        self.layers
            .iter()
            .scan(input, |x, layer| {
                *x = layer.forward(x.clone());
                Some(x.clone())
            })
            .collect()
    }
}
