//! The perceptron: its configuration, its shapes, its errors.

use burn::{
    config::Config,
    module::Module,
    nn::Initializer,
    tensor::{Tensor, TensorData},
};
use burn_ema::model::{Activation, MlpConfig};

use crate::common::device;

#[test]
fn wrong_sizes_are_errors_with_the_value() {
    let message = |sizes: Vec<usize>| {
        MlpConfig::new(sizes).init(&device()).map(|_| ()).unwrap_err().to_string()
    };
    assert_eq!(message(vec![]), "sizes is [], expected at least two widths");
    assert_eq!(message(vec![3]), "sizes is [3], expected at least two widths");
    assert_eq!(message(vec![3, 0, 2]), "sizes is [3, 0, 2], expected widths above zero");
    let hidden = MlpConfig::new(vec![2, 3, 1]).with_hidden(Activation::Softmax);
    let message = hidden.init(&device()).map(|_| ()).unwrap_err().to_string();
    assert_eq!(message, "hidden is Softmax, expected Sigmoid, Tanh or Relu");
}

#[test]
fn forward_has_the_documented_shapes_for_any_depth_and_activation() {
    let device = device();
    for sizes in [vec![4, 3], vec![4, 5, 3], vec![4, 7, 6, 5, 3]] {
        for output in [Activation::Sigmoid, Activation::Softmax, Activation::Identity] {
            let config = MlpConfig::new(sizes.clone()).with_output(output);
            let mlp = config.init(&device).unwrap();
            let outputs = mlp.layer_outputs(Tensor::ones([2, 4], &device));
            let widths: Vec<_> = outputs.iter().map(|o| o.dims()).collect();
            let expected: Vec<_> = sizes[1..].iter().map(|&width| [2, width]).collect();
            assert_eq!(widths, expected);
            let answer = mlp.forward(Tensor::ones([2, 4], &device)).into_data();
            answer.assert_eq(&outputs.last().unwrap().to_data(), true);
        }
    }
}

#[test]
#[should_panic(expected = "a dense layer of 4 inputs got an input of width 5")]
fn a_wrong_input_width_panics_with_both_widths() {
    let mlp = MlpConfig::new(vec![4, 3]).init(&device()).unwrap();
    mlp.forward(Tensor::ones([2, 5], &device()));
}

#[test]
fn activations_are_the_functions_of_their_names() {
    let device = device();
    let values = [-1.5f64, 0.0, 2.0];
    let sum: f64 = values.iter().map(|z| z.exp()).sum();
    let expected: [(Activation, [f64; 3]); 5] = [
        (Activation::Sigmoid, values.map(|z| 1.0 / (1.0 + (-z).exp()))),
        (Activation::Softmax, values.map(|z| z.exp() / sum)),
        (Activation::Identity, values),
        (Activation::Tanh, values.map(f64::tanh)),
        (Activation::Relu, values.map(|z| z.max(0.0))),
    ];
    for (output, expected) in expected {
        // One layer whose weighted sums are the values.
        let config = MlpConfig::new(vec![1, 3]).with_output(output).with_bias(false);
        let mut mlp = config.init(&device).unwrap();
        let row = TensorData::new(values.map(|z| z as f32).to_vec(), [1, 3]);
        mlp.layers[0].weight = burn::module::Param::from_data(row, &device);
        let found = mlp.forward(Tensor::ones([1, 1], &device)).into_data().convert::<f64>();
        crate::common::assert_close(&found.try_into_vec::<f64>().unwrap(), &expected, 1e-6);
    }
}

#[test]
fn options_change_the_network() {
    let device = device();
    let config = MlpConfig::new(vec![4, 3, 2])
        .with_bias(false)
        .with_initializer(Initializer::Constant { value: 0.5 });
    let mlp = config.init(&device).unwrap();
    assert_eq!(mlp.num_params(), 4 * 3 + 3 * 2);
    assert!(crate::common::flat(&mlp, true).iter().all(|&w| w == 0.5));
    let default = MlpConfig::new(vec![4, 3, 2]).init(&device).unwrap();
    assert_eq!(default.num_params(), 4 * 3 + 3 + 3 * 2 + 2);
    assert!(default.to_string().contains("activation: Sigmoid"), "{default}");
}

#[test]
fn a_configuration_survives_json() {
    let config = MlpConfig::new(vec![4, 3]).with_output(Activation::Softmax);
    let loaded = MlpConfig::load_binary(config.to_string().as_bytes()).unwrap();
    assert_eq!(loaded.to_string(), config.to_string());
}
