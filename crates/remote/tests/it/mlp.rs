//! The perceptron of burn-ema, which has kernels of its own on Flex and uses Burn's operations on a
//! server: their last bits differ.

use burn::{
    module::Module as _,
    optim::ModuleOptimizer,
    tensor::{Device, Tensor},
    train::{TrainOutput, TrainStep},
};
use burn_ema::{
    AverageConfig, Rule,
    fast::SgdConfig,
    model::{Activation, Mlp, MlpConfig},
};

use crate::{
    common::{adam, assert_close, flat, randomized},
    digits::loaders,
    server::Server,
};

const SEEDS: u64 = 5;

/// Of the largest number of its kind.
const TOLERANCE: f64 = 1e-6;

fn mlp(seed: u64, output: Activation, device: &Device) -> Mlp {
    let config = MlpConfig::new(vec![64, 32, 16, 10]).with_output(output);
    randomized(config.init(device).unwrap(), seed)
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
    tensor.try_into_vec_as().unwrap()
}

/// The outputs of a batch of digits, the losses, and the gradient of each parameter.
fn first_step(seed: u64, output: Activation, device: &Device) -> Vec<Vec<f64>> {
    let [train, _] = loaders(seed, &device.clone().autodiff());
    let mlp = mlp(seed, output, device).train();
    let TrainOutput { grads, item } = mlp.step(train.iter().next().unwrap().unwrap());
    let mut numbers = vec![values(item.outputs), values(item.loss)];
    for layer in &mlp.layers {
        let weight = grads.get::<2>(layer.weight.id).unwrap();
        let bias = grads.get::<1>(layer.bias.as_ref().unwrap().id).unwrap();
        numbers.extend([values(weight), values(bias)]);
    }
    numbers
}

/// Live after eight steps, and its average.
fn trained(
    seed: u64,
    output: Activation,
    mut optimizer: ModuleOptimizer,
    lr: f64,
    device: &Device,
) -> Vec<Vec<f64>> {
    let [train, _] = loaders(seed, &device.clone().autodiff());
    let mut mlp = mlp(seed, output, device).train();
    let mut average = AverageConfig::new(Rule::ema(0.9)).init(&mlp).unwrap();
    for (batch, step) in train.iter().zip(1..) {
        let TrainOutput { grads, .. } = mlp.step(batch.unwrap());
        mlp = optimizer.step(lr, mlp, grads);
        average.update(&mlp, step).unwrap();
    }
    vec![flat(&mlp, true), flat(&average.module(), true)]
}

#[test]
fn a_step_is_that_on_flex_to_the_last_bits() {
    compare("outputs, losses and gradients", TOLERANCE, first_step);
}

#[test]
fn a_training_by_sgd_is_that_on_flex_to_the_last_bits() {
    let sgd = || SgdConfig::new().init();
    compare("SGD", TOLERANCE, |seed, output, device| trained(seed, output, sgd(), 0.5, device));
}

/// Adam moves a weight by its gradient's share of the gradient's own size, so that the last bits of
/// a gradient near zero are some of the first of a move.
#[test]
fn a_training_by_adam_is_near_that_on_flex() {
    compare("Adam", 1e-5, |seed, output, device| trained(seed, output, adam(), 0.02, device));
}

/// Compares lists of numbers on a server with those on Flex.
fn compare(
    what: &str,
    tolerance: f64,
    numbers: impl Fn(u64, Activation, &Device) -> Vec<Vec<f64>>,
) {
    let server = Server::start();
    let (here, there) = (Device::flex(), server.device());
    let mut largest = 0.0;
    for output in [Activation::Sigmoid, Activation::Softmax, Activation::Identity] {
        for seed in 0..SEEDS {
            let [expected, found] = [&here, &there].map(|device| numbers(seed, output, device));
            assert_eq!(found.len(), expected.len());
            for (found, expected) in found.iter().zip(&expected) {
                assert_close(found, expected, tolerance);
                let scale = expected.iter().fold(f64::MIN_POSITIVE, |max, x| x.abs().max(max));
                let deviations = found.iter().zip(expected).map(|(a, b)| (a - b).abs() / scale);
                largest = deviations.fold(largest, f64::max);
            }
        }
    }
    println!("{what}: at most {largest:.1e} of the largest number");
}
