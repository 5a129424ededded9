//! The gradients in closed form: against PyTorch, Burn's autodiff and central differences.

use burn::{
    module::{Module, Param, ParamId},
    tensor::{DType, Device, Tensor, TensorData},
};
use burn_ema::model::{Activation, Backprop, Dense, Mlp, MlpConfig, backprop, half_squared_error};
use serde_json::Value;

use crate::common::{EXACT, assert_close, device, floats, numbers, randomized};

fn tensor<const D: usize>(value: &Value, shape: [usize; D], at: (&Device, DType)) -> Tensor<D> {
    Tensor::from_data(TensorData::new(numbers(value), shape), at)
}

fn read<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
    tensor.into_data().convert::<f64>().try_into_vec().unwrap()
}

fn devices() -> Vec<(Device, DType, f64)> {
    let mut devices = vec![(device(), DType::F32, 1e-5)];
    if EXACT {
        devices.push((device(), DType::F64, 1e-12));
    }
    #[cfg(feature = "ndarray")]
    {
        #[expect(deprecated, reason = "Burn still ships it, and so it is checked")]
        let ndarray = Device::ndarray();
        devices.extend([(ndarray.clone(), DType::F32, 1e-5), (ndarray, DType::F64, 1e-12)]);
    }
    devices
}

/// Loss, every layer's output and every gradient of PyTorch's autograd.
#[test]
fn equals_pytorch() {
    let cases: Value = serde_json::from_str(include_str!("../oracle/backprop.json")).unwrap();
    for (device, dtype, tolerance) in devices() {
        let at = (&device, dtype);
        for case in cases.as_array().unwrap() {
            let sizes: Vec<usize> =
                numbers(&case["sizes"]).into_iter().map(|s| s as usize).collect();
            let rows = case["input"].as_array().unwrap().len();
            let last = sizes.len() - 2;
            let layers = (0..=last).map(|l| Dense {
                weight: Param::initialized(
                    ParamId::new(),
                    tensor(&case["weights_in_by_out"][l], [sizes[l], sizes[l + 1]], at),
                ),
                bias: Some(Param::initialized(
                    ParamId::new(),
                    tensor(&case["biases"][l], [sizes[l + 1]], at),
                )),
                activation: match (l == last, case["loss"].as_str().unwrap()) {
                    (true, "softmax_half_squared_error") => Activation::Softmax,
                    _ => Activation::Sigmoid,
                },
            });
            let mlp = Mlp { layers: layers.collect() };
            let input = tensor(&case["input"], [rows, sizes[0]], at);
            let target = tensor(&case["target"], [rows, sizes[last + 1]], at);
            let Backprop { loss, outputs, gradients } = backprop(&mlp, input, target);
            assert_close(&read(loss), &numbers(&case["loss_value"]), tolerance);
            for (l, (output, gradients)) in outputs.into_iter().zip(gradients).enumerate() {
                assert_close(&read(output), &numbers(&case["layer_outputs"][l]), tolerance);
                let expected = numbers(&case["weight_gradients"][l]);
                assert_close(&read(gradients.weight), &expected, tolerance);
                let expected = numbers(&case["bias_gradients"][l]);
                assert_close(&read(gradients.bias.unwrap()), &expected, tolerance);
            }
        }
    }
}

/// Networks of several depths with every activation, and a batch for each.
fn networks(device: &Device) -> Vec<(Mlp, Tensor<2>, Tensor<2>)> {
    let mut networks = Vec::new();
    for (seed, sizes) in [vec![3, 2], vec![3, 4, 2], vec![3, 5, 4, 3, 2]].into_iter().enumerate() {
        for hidden in [Activation::Sigmoid, Activation::Tanh, Activation::Relu] {
            for output in [Activation::Sigmoid, Activation::Softmax, Activation::Identity] {
                let config = MlpConfig::new(sizes.clone()).with_hidden(hidden).with_output(output);
                let mlp = randomized(config.init(device).unwrap(), seed as u64);
                let x = drawn([5, 3], 7, device);
                let y = drawn([5, 2], 8, device);
                networks.push((mlp, x, y));
            }
        }
    }
    networks
}

/// Numbers in (-0.5, 0.5) from the seed.
fn drawn(shape: [usize; 2], seed: u64, device: &Device) -> Tensor<2> {
    let zeros = Param::initialized(ParamId::new(), Tensor::zeros(shape, device));
    randomized(zeros, seed).val()
}

/// The gradients in the order in which a module shows its parameters.
fn in_order(backprop: Backprop) -> Vec<Vec<f64>> {
    let layers = backprop.gradients.into_iter();
    layers.flat_map(|g| [read(g.weight), read(g.bias.unwrap())]).collect()
}

#[test]
#[cfg(feature = "train")]
fn equals_autodiff() {
    let devices = devices().into_iter().filter(|(_, dtype, _)| *dtype == DType::F32);
    let networks = devices.flat_map(|(device, ..)| networks(&device.autodiff()));
    for (mlp, x, y) in networks {
        let loss = half_squared_error(mlp.forward(x.clone()), y.clone());
        let gradients = loss.backward();
        let found = in_order(backprop(&mlp.valid(), x.without_autodiff(), y.without_autodiff()));
        let mut found = found.into_iter();
        for layer in &mlp.layers {
            let expected = read(layer.weight.val().grad(&gradients).unwrap());
            assert_close(&found.next().unwrap(), &expected, 1e-5);
            let bias = layer.bias.as_ref().unwrap();
            let expected = read(bias.val().grad(&gradients).unwrap());
            assert_close(&found.next().unwrap(), &expected, 1e-5);
        }
    }
}

/// In double precision: `(L(w + h) - L(w - h)) / 2h` for every single weight.
#[test]
fn equals_central_differences() {
    const H: f64 = 1e-5;
    let devices = devices().into_iter().filter(|(_, dtype, _)| *dtype == DType::F64);
    for (mlp, x, y) in devices.flat_map(|(device, ..)| networks(&device)) {
        let mlp = Cast::double(mlp, None);
        let (x, y) = (x.cast(DType::F64), y.cast(DType::F64));
        let found: Vec<_> = in_order(backprop(&mlp, x.clone(), y.clone())).concat();
        let count: usize = floats(&mlp).iter().map(|(.., values)| values.len()).sum();
        assert_eq!(found.len(), count);
        let loss = |index, step| {
            let moved = Cast::double(mlp.clone(), Some((index, step)));
            read(half_squared_error(moved.forward(x.clone()), y.clone()))[0]
        };
        let expected: Vec<_> = (0..count).map(|i| (loss(i, H) - loss(i, -H)) / (2.0 * H)).collect();
        assert_close(&found, &expected, 1e-7);
    }
}

/// Casts to double precision and may move one weight, counted over all parameters.
struct Cast {
    seen: usize,
    moved: Option<(usize, f64)>,
}

impl Cast {
    fn double(mlp: Mlp, moved: Option<(usize, f64)>) -> Mlp {
        mlp.map(&mut Self { seen: 0, moved })
    }
}

impl burn::module::ModuleMapper for Cast {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|tensor| {
            let (shape, device) = (tensor.shape(), tensor.device());
            let mut values = read(tensor);
            if let Some((index, step)) = self.moved
                && let Some(value) = index.checked_sub(self.seen).and_then(|i| values.get_mut(i))
            {
                *value += step;
            }
            self.seen += values.len();
            Tensor::from_data(TensorData::new(values, shape), (&device, DType::F64))
        })
    }
}
