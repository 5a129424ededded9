//! Products, gradients, averages and trainings of the device, compared with those of Flex.

use anyhow::{Context, Result, ensure};
use burn::{
    module::Module,
    tensor::{Device, Tensor, TensorData},
    train::TrainStep,
};
use burn_ema::{
    AverageConfig, Rule,
    model::{Batch, Mlp},
    train::Averaged,
};
use burn_ema_lab::run::OptimizerKind;

use crate::{update::Set, weights::Weights, workload::Network};

/// How far a number may be off, of the largest one: products and gradients of numbers that all
/// formats of tensor cores hold exactly, so that what deviates is an error and not rounding.
const PRODUCT: f64 = 1e-4;

/// How far a number of an average of weights may be off, of the largest one.
const AVERAGE: f64 = 1e-6;

/// How far an average may be off after a few steps, of its way: tensor cores may round gradients to
/// 11 bits.
const WAY: f64 = 1e-2;

/// All checks, each with the largest deviation that it found.
///
/// # Errors
///
/// The first deviation above its limit.
pub fn all(device: &Device, networks: &[Network], sets: &[Set]) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for network in networks {
        let worst = products(device, network).with_context(|| network.name)?;
        lines.push(format!(
            "{}: products and gradients deviate by {worst:.1e} of the largest number, \
             at most {PRODUCT:e}",
            network.name
        ));
    }
    for set in sets {
        let worst = averages(device, set).with_context(|| set.name)?;
        lines.push(format!(
            "{}: averages deviate by {worst:.1e} of the largest weight, at most {AVERAGE:e}",
            set.name
        ));
    }
    for network in networks {
        let worst = trainings(device, network).with_context(|| network.name)?;
        lines.push(format!(
            "{}: the average of a training deviates by {worst:.1e} of its way, at most {WAY:e}",
            network.name
        ));
    }
    Ok(lines)
}

/// The matrix product of each layer and its two gradients.
fn products(device: &Device, network: &Network) -> Result<f64> {
    let mut worst: f64 = 0.0;
    for sizes in network.sizes.windows(2) {
        let shapes = [[network.batch, sizes[0]], [sizes[0], sizes[1]], [network.batch, sizes[1]]];
        let [expected, found] = [&Device::flex(), device].map(|device| product(shapes, device));
        let names = ["the product", "the gradient of its left", "the gradient of its right"];
        for ((name, expected), found) in names.into_iter().zip(expected?).zip(found?) {
            let off = largest(expected.iter().zip(&found).map(|(a, b)| a - b));
            let off = off / largest(expected.into_iter());
            ensure!(off <= PRODUCT, "{name} of {shapes:?} deviates by {off:.1e}");
            worst = worst.max(off);
        }
    }
    Ok(worst)
}

/// `x y` and the gradients by x and y of the sum of its products with weights.
fn product(shapes: [[usize; 2]; 3], device: &Device) -> Result<[Vec<f64>; 3]> {
    let device = device.clone().autodiff();
    let [x, y, weights] = [0, 1, 2].map(|place| scattered(shapes[place], place, &device));
    let (x, y) = (x.require_grad(), y.require_grad());
    let product = x.clone().matmul(y.clone());
    let gradients = (product.clone() * weights).sum().backward();
    let by = |tensor: &Tensor<2>| tensor.grad(&gradients).context("a gradient is missing");
    Ok([numbers(product.inner())?, numbers(by(&x)?)?, numbers(by(&y)?)?])
}

/// Scattered multiples of 1/16 between -1 and 1.
fn scattered(shape: [usize; 2], seed: usize, device: &Device) -> Tensor<2> {
    let number = |i: usize| {
        let scattered = (i as u32 * 8 + seed as u32).wrapping_mul(2_654_435_761) >> 16;
        (scattered % 33) as f32 / 16.0 - 1.0
    };
    let numbers = (0..shape[0] * shape[1]).map(number).collect();
    Tensor::from_data(TensorData::new::<f32, _>(numbers, shape), device)
}

/// Updates of an average.
fn averages(device: &Device, set: &Set) -> Result<f64> {
    let lives = [(); 3].map(|()| Weights::new(set.tensors, &Device::flex()));
    let updated = |device: &Device| -> Result<Vec<Vec<f64>>> {
        let mut lives = lives.iter().map(|live| live.clone().to_device(device));
        let first = lives.next().context("no weights")?;
        let mut average = AverageConfig::new(Rule::ema(0.9)).init(&first)?;
        for (step, live) in lives.enumerate() {
            average.update(&live, step as u64 + 1)?;
        }
        average.module().tensors.into_iter().map(|tensor| numbers(tensor.val())).collect()
    };
    let (expected, found) = (updated(&Device::flex())?, updated(device)?);
    let (expected, found) = (expected.concat(), found.concat());
    let off = largest(expected.iter().zip(&found).map(|(a, b)| a - b));
    let off = off / largest(expected.into_iter());
    ensure!(off <= AVERAGE, "an average deviates by {off:.1e} of the largest weight");
    Ok(off)
}

/// A few steps of a training with the hook.
fn trainings(device: &Device, network: &Network) -> Result<f64> {
    const STEPS: usize = 5;
    let flex = Device::flex();
    let (start, rows) = (network.init(&flex)?, network.rows(&flex));
    let trained = |device: &Device| -> Result<Vec<Vec<f64>>> {
        let live = start.clone().to_device(device).train();
        let mut model = Averaged::new(live, [AverageConfig::new(Rule::ema(0.5))])?.train();
        let mut optimizer = OptimizerKind::Sgd.init();
        let device = device.clone().autodiff();
        for _ in 0..STEPS {
            let on = |tensor: &Tensor<2>| tensor.clone().to_device(&device);
            let batch = Batch { inputs: on(&rows.inputs), targets: on(&rows.targets) };
            let gradients = TrainStep::step(&model, batch).grads;
            model = model.optimize(&mut optimizer, 0.5.into(), gradients);
        }
        weights(model.average(0)?)
    };
    let (start, expected, found) = (weights(start.clone())?, trained(&flex)?, trained(device)?);
    let mut worst: f64 = 0.0;
    for ((start, expected), found) in start.into_iter().zip(expected).zip(found) {
        let off = norm(expected.iter().zip(&found).map(|(a, b)| a - b));
        let off = off / norm(expected.iter().zip(&start).map(|(a, b)| a - b));
        ensure!(off <= WAY, "the average of a training deviates by {off:.1e} of its way");
        worst = worst.max(off);
    }
    Ok(worst)
}

/// All weights and biases of a network.
fn weights(mlp: Mlp) -> Result<Vec<Vec<f64>>> {
    let mut all = Vec::new();
    for layer in mlp.layers {
        all.push(numbers(layer.weight.val())?);
        all.extend(layer.bias.map(|bias| numbers(bias.val())).transpose()?);
    }
    Ok(all)
}

/// The numbers of a tensor, read back.
fn numbers<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f64>> {
    Ok(tensor.try_into_vec_as::<f64>()?)
}

/// The largest magnitude; NaN if one is NaN, which is within no limit.
fn largest(numbers: impl Iterator<Item = f64>) -> f64 {
    numbers.fold(0.0, |most, number| match number.is_nan() || number.abs() > most {
        true => number.abs(),
        false => most,
    })
}

fn norm(numbers: impl Iterator<Item = f64>) -> f64 {
    numbers.map(|number| number * number).sum::<f64>().sqrt()
}
