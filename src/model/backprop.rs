//! The gradients of the half squared error in closed form, from cached layer outputs.
//!
//! As the textbook derives them (Rumelhart, Hinton and Williams 1986, "Learning representations
//! by back-propagating errors", equations 4 to 8; Bishop 2006, section 5.3.1): keep every
//! layer's output `o`; at the end `delta = (o - t) f'`, for sigmoids `(o - t) o (1 - o)`;
//! backwards `delta_j = o_j (1 - o_j) sum_k delta_k w_jk`; a weight's gradient is its `delta`
//! times its input.
//! Plain tensor operations on any backend; autodiff is not needed.

use burn::tensor::Tensor;

use super::{loss::half_squared_error, mlp::Mlp};

/// The loss of a batch and its gradients, in closed form.
#[derive(Clone, Debug)]
pub struct Backprop {
    /// The mean loss, `[1]`.
    pub loss: Tensor<1>,
    /// The output of every layer, first to last: `[batch, outputs of the layer]`.
    pub outputs: Vec<Tensor<2>>,
    /// The gradients of the mean loss, first layer to last.
    pub gradients: Vec<LayerGradients>,
}

/// The gradients of a layer's parameters.
#[derive(Clone, Debug)]
pub struct LayerGradients {
    /// The gradient with respect to the weights, `[inputs, outputs]`.
    pub weight: Tensor<2>,
    /// The gradient with respect to the bias, `[outputs]`; `None` if the layer has no bias.
    pub bias: Option<Tensor<1>>,
}

/// The gradients of the mean half squared error over a batch.
///
/// # Shapes
///
/// - input: `[batch, inputs]`
/// - targets: `[batch, outputs]`
///
/// # Panics
///
/// An input of another width than the network's; targets of another shape than the outputs.
pub fn backprop(mlp: &Mlp, input: Tensor<2>, targets: Tensor<2>) -> Backprop {
    let outputs = mlp.layer_outputs(input.clone());
    let Some(answer) = outputs.last().cloned() else {
        return Backprop { loss: half_squared_error(input, targets), outputs, gradients: vec![] };
    };
    let batch = answer.dims()[0] as f64;
    let loss = half_squared_error(answer.clone(), targets.clone());

    // The gradient of the mean loss with respect to the output of the current layer.
    let mut by_output = (answer - targets) / batch;
    let mut gradients = Vec::with_capacity(outputs.len());
    for (index, layer) in mlp.layers.iter().enumerate().rev() {
        let delta = layer.activation.backward(by_output, outputs[index].clone());
        let layer_input = if index == 0 { &input } else { &outputs[index - 1] };
        gradients.push(LayerGradients {
            weight: layer_input.clone().transpose().matmul(delta.clone()),
            bias: layer.bias.as_ref().map(|_| delta.clone().sum_dim(0).squeeze_dim::<1>(0)),
        });
        by_output = delta.matmul(layer.weight.val().transpose());
    }
    gradients.reverse();
    Backprop { loss, outputs, gradients }
}
