//! The layer as one operation, against the same composed of Burn's operations here.

use burn::{
    module::{Param, ParamId},
    tensor::{DType, Device, Tensor, TensorData, activation},
};
use burn_ema::model::{Activation, Dense, half_squared_errors};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::common::{assert_close, kinds};

const ACTIVATIONS: [Activation; 5] = [
    Activation::Sigmoid,
    Activation::Tanh,
    Activation::Relu,
    Activation::Softmax,
    Activation::Identity,
];

/// Numbers in (-1, 1) from the seed.
fn drawn<const D: usize>(shape: [usize; D], seed: u64, at: &(Device, DType)) -> Tensor<D> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let count = shape.iter().product();
    let values: Vec<f64> = (0..count).map(|_| random.random::<f64>() * 2.0 - 1.0).collect();
    Tensor::from_data(TensorData::new(values, shape), (&at.0, at.1))
}

fn read<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
    tensor.into_data().convert::<f64>().try_into_vec().unwrap()
}

/// The same numbers in double precision on Flex, tracked where these are.
fn exact<const D: usize>(tensor: &Tensor<D>) -> Tensor<D> {
    let tracked = tensor.is_require_grad();
    let data = TensorData::new(read(tensor.clone()), tensor.dims());
    let device = Device::flex().autodiff();
    Tensor::from_data(data, (&device, DType::F64)).set_require_grad(tracked)
}

/// Input, weights and bias of a layer.
#[derive(Clone)]
struct Parts {
    input: Tensor<2>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
}

impl Parts {
    fn drawn(
        [rows, inputs, outputs]: [usize; 3],
        bias: bool,
        seed: u64,
        at: &(Device, DType),
    ) -> Self {
        Self {
            input: drawn([rows, inputs], seed, at),
            // Sums of about one, where every activation bends.
            weight: drawn([inputs, outputs], seed + 100, at) / (inputs as f64).sqrt(),
            bias: bias.then(|| drawn([outputs], seed + 200, at)),
        }
    }

    /// The same, each tracked or not.
    fn tracked(self, [input, weight, bias]: [bool; 3]) -> Self {
        Self {
            input: self.input.set_require_grad(input),
            weight: self.weight.set_require_grad(weight),
            bias: self.bias.map(|tensor| tensor.set_require_grad(bias)),
        }
    }

    /// The layer's output.
    fn dense(&self, activation: Activation) -> Tensor<2> {
        let param = |tensor: Tensor<2>| Param::initialized(ParamId::new(), tensor);
        let bias = self.bias.clone().map(|bias| Param::initialized(ParamId::new(), bias));
        let layer = Dense { weight: param(self.weight.clone()), bias, activation };
        layer.forward(self.input.clone())
    }

    /// The same of Burn's operations.
    fn composed(&self, activation: Activation) -> Tensor<2> {
        let z = self.input.clone().matmul(self.weight.clone());
        let z = match &self.bias {
            Some(bias) => z + bias.clone().unsqueeze(),
            None => z,
        };
        match activation {
            // Burn's own has single precision on some backends.
            Activation::Sigmoid => (z.neg().exp() + 1.0).recip(),
            Activation::Tanh => z.tanh(),
            Activation::Relu => activation::relu(z),
            Activation::Softmax => activation::softmax(z, 1),
            Activation::Identity => z,
        }
    }

    /// The same numbers in double precision on Flex, each tracked where these are.
    fn exact(&self) -> Self {
        Self {
            input: exact(&self.input),
            weight: exact(&self.weight),
            bias: self.bias.as_ref().map(exact),
        }
    }

    /// The gradients of a sum of outputs with weights of their own; `None` where not tracked.
    fn gradients(&self, output: Tensor<2>) -> [Option<Vec<f64>>; 3] {
        let at = (output.device(), output.dtype());
        let loss = (drawn(output.dims(), 300, &at) * output).sum();
        let gradients = loss.backward();
        [
            self.input.grad(&gradients).map(read),
            self.weight.grad(&gradients).map(read),
            self.bias.as_ref().and_then(|bias| bias.grad(&gradients)).map(read),
        ]
    }
}

/// Outputs and gradients of both, compared; the composition in double precision.
fn check(parts: &Parts, activation: Activation, tolerance: f64) {
    let exact = parts.exact();
    let (dense, composed) = (parts.dense(activation), exact.composed(activation));
    assert_eq!((dense.dims(), dense.dtype()), (composed.dims(), parts.input.dtype()));
    assert_close(&read(dense.clone()), &read(composed.clone()), tolerance);
    let gradients = parts.gradients(dense).into_iter().zip(exact.gradients(composed));
    for (found, expected) in gradients {
        assert_eq!(found.is_some(), expected.is_some());
        assert_close(&found.unwrap_or_default(), &expected.unwrap_or_default(), tolerance);
    }
}

/// Devices with autodiff under both strategies of checkpointing, and how near numbers come.
fn autodiff() -> Vec<((Device, DType), f64)> {
    let kinds = kinds().into_iter().flat_map(|(device, dtype, tolerance)| {
        let plain = device.autodiff();
        let checkpointing = plain.clone().gradient_checkpointing();
        [plain, checkpointing].map(|device| ((device, dtype), tolerance))
    });
    kinds.collect()
}

#[test]
fn equals_burns_operations_and_their_gradients() {
    // The last two are spread over threads.
    let shapes = [[1, 1, 1], [1, 5, 3], [4, 1, 7], [3, 4, 1], [7, 13, 9], [65, 33, 31]];
    let large = [[170, 160, 160], [70, 20, 500]];
    for (at, tolerance) in autodiff() {
        for (seed, shape) in shapes.into_iter().chain(large).enumerate() {
            for activation in ACTIVATIONS {
                for bias in [false, true] {
                    let parts = Parts::drawn(shape, bias, seed as u64, &at).tracked([true; 3]);
                    check(&parts, activation, tolerance);
                }
            }
        }
    }
}

#[test]
fn only_what_is_tracked_has_a_gradient() {
    for (at, tolerance) in autodiff() {
        for mask in 0..8 {
            let tracked = [mask & 1 > 0, mask & 2 > 0, mask & 4 > 0];
            let parts = Parts::drawn([5, 4, 3], true, mask, &at).tracked(tracked);
            let output = parts.dense(Activation::Sigmoid);
            if mask == 0 {
                let expected = read(parts.exact().composed(Activation::Sigmoid));
                assert_close(&read(output), &expected, tolerance);
                continue;
            }
            check(&parts, Activation::Sigmoid, tolerance);
            assert_eq!(parts.gradients(output).map(|gradient| gradient.is_some()), tracked);
        }
    }
}

#[test]
fn without_autodiff_and_beside_it() {
    for (device, dtype, tolerance) in kinds() {
        let plain = Parts::drawn([6, 5, 4], true, 1, &(device.clone(), dtype));
        for activation in ACTIVATIONS {
            let (dense, composed) = (plain.dense(activation), plain.composed(activation));
            assert!(!dense.device().is_autodiff());
            assert_close(&read(dense), &read(composed), tolerance);
        }
        // Weights that learn, of an input that knows nothing of it.
        let tracked = Parts::drawn([6, 5, 4], true, 1, &(device.autodiff(), dtype));
        let parts = Parts { input: plain.input, ..tracked.tracked([false, true, true]) };
        check(&parts, Activation::Sigmoid, tolerance);
    }
}

#[test]
fn views_are_read_as_they_are_seen() {
    for (at, tolerance) in autodiff() {
        let wide = drawn([9, 12], 1, &at);
        let tall = drawn([12, 9], 2, &at);
        let inputs = [
            tall.clone().transpose().slice([2..7, 1..5]),
            wide.clone().slice([1..6, 3..7]),
            wide.clone().slice([0..1, 0..4]).expand([5, 4]),
            wide.clone().slice([0..5, 0..4]).flip([0, 1]),
        ];
        let weights = [
            wide.clone().transpose().slice([3..7, 2..8]),
            tall.clone().slice([8..12, 3..9]),
            tall.slice([0..4, 0..1]).expand([4, 6]),
        ];
        for input in &inputs {
            for weight in &weights {
                let bias = drawn([12], 3, &at).narrow(0, 2, 6);
                let parts =
                    Parts { input: input.clone(), weight: weight.clone(), bias: Some(bias) };
                check(&parts.tracked([true; 3]), Activation::Tanh, tolerance);
            }
        }
    }
}

/// The incoming gradient may be shared with others, and may be a view; it must survive.
#[test]
fn gradients_that_others_hold_are_left_alone() {
    for (at, tolerance) in autodiff() {
        let parts = Parts::drawn([5, 4, 3], true, 1, &at).tracked([true; 3]);
        let other = Parts::drawn([5, 4, 3], true, 2, &at).tracked([true; 3]);
        let gradients = |layer: fn(&Parts) -> Tensor<2>| {
            let gradients = (layer(&parts) + layer(&other)).mean().backward();
            let each = [&parts, &other].into_iter().flat_map(|parts| {
                [
                    read(parts.weight.grad(&gradients).unwrap()),
                    read(parts.input.grad(&gradients).unwrap()),
                ]
            });
            each.flatten().collect::<Vec<_>>()
        };
        let found = gradients(|parts| parts.dense(Activation::Sigmoid));
        assert_close(&found, &gradients(|parts| parts.composed(Activation::Sigmoid)), tolerance);
    }
}

#[test]
fn an_output_used_twice_and_layers_that_share_weights() {
    for (at, tolerance) in autodiff() {
        let parts = Parts::drawn([5, 4, 4], true, 1, &at).tracked([true; 3]);
        let network = |layer: fn(&Parts) -> Tensor<2>| {
            let first = layer(&parts);
            let second = layer(&Parts { input: first.clone(), ..parts.clone() });
            parts.gradients(first * second)
        };
        let found = network(|parts| parts.dense(Activation::Sigmoid));
        let expected = network(|parts| parts.composed(Activation::Sigmoid));
        for (found, expected) in found.into_iter().zip(expected) {
            assert_close(&found.unwrap(), &expected.unwrap(), tolerance);
        }
    }
}

#[test]
fn no_rows_give_no_outputs_and_gradients_of_zero() {
    let at = (Device::flex().autodiff(), DType::F32);
    for activation in ACTIVATIONS {
        let parts = Parts::drawn([0, 4, 3], true, 1, &at).tracked([true; 3]);
        let output = parts.dense(activation);
        assert_eq!(output.dims(), [0, 3]);
        let [input, weight, bias] = parts.gradients(output);
        assert_eq!((input, weight, bias), (Some(vec![]), Some(vec![0.0; 12]), Some(vec![0.0; 3])));
    }
}

#[test]
fn a_nan_reaches_its_row_and_every_gradient() {
    for (at, _) in autodiff() {
        for activation in ACTIVATIONS {
            let parts = Parts::drawn([3, 4, 2], true, 1, &at);
            let mut input = read(parts.input.clone());
            input[4] = f64::NAN;
            let input = Tensor::from_data(TensorData::new(input, [3, 4]), (&at.0, at.1));
            let parts = Parts { input, ..parts }.tracked([true; 3]);
            let output = parts.dense(activation);
            let nan: Vec<_> = read(output.clone()).iter().map(|o| o.is_nan()).collect();
            assert_eq!(nan, [false, false, true, true, false, false], "{activation:?}");
            let [_, weight, _] = parts.gradients(output);
            let weight: Vec<_> = weight.unwrap().iter().map(|g| g.is_nan()).collect();
            assert_eq!(weight[..2], [true, true], "{activation:?}");
        }
    }
}

/// Very large sums are saturated, and have no gradient.
#[test]
fn saturated_sums_stay_numbers() {
    for (at, tolerance) in autodiff() {
        for activation in [Activation::Sigmoid, Activation::Tanh, Activation::Softmax] {
            let parts = Parts::drawn([3, 4, 5], true, 1, &at);
            let parts = Parts { weight: parts.weight * 1e6, ..parts }.tracked([true; 3]);
            let output = parts.dense(activation);
            assert_close(&read(output.clone()), &read(output.clone().round()), tolerance);
            let numbers = parts.gradients(output).map(Option::unwrap).concat();
            assert!(numbers.iter().all(|g| g.abs() <= tolerance), "{activation:?}: {numbers:?}");
        }
    }
}

/// A dtype without a kernel of its own.
#[test]
fn other_numbers_are_left_to_burn() {
    let parts = Parts::drawn([6, 5, 4], true, 1, &(Device::flex(), DType::F32));
    let half = Parts {
        input: parts.input.clone().cast(DType::F16),
        weight: parts.weight.clone().cast(DType::F16),
        bias: parts.bias.clone().map(|bias| bias.cast(DType::F16)),
    };
    let output = half.dense(Activation::Sigmoid);
    assert_eq!(output.dtype(), DType::F16);
    assert_close(&read(output), &read(half.composed(Activation::Sigmoid)), 1e-3);
}

/// The same bits whatever the number of threads, below and above where work is spread.
#[test]
fn threads_change_no_bit() {
    for dtype in [DType::F32, DType::F64] {
        let at = (Device::flex().autodiff(), dtype);
        for shape in [[33, 70, 41], [257, 129, 211], [300, 700, 90]] {
            let parts = Parts::drawn(shape, true, 1, &at).tracked([true; 3]);
            let on = |threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| {
                    let output = parts.dense(Activation::Sigmoid);
                    (read(output.clone()), parts.gradients(output))
                })
            };
            let alone = on(1);
            assert!((2..4).all(|threads| on(threads) == alone), "{shape:?}");
        }
    }
}

/// The half squared error of rows and its gradients, of which one may be missing.
#[test]
fn the_loss_equals_burns_operations() {
    for (at, tolerance) in autodiff() {
        for (seed, shape) in [[1, 1], [3, 10], [7, 33], [0, 3]].into_iter().enumerate() {
            for tracked in [[true, true], [true, false], [false, true]] {
                let seed = seed as u64;
                let outputs = drawn(shape, seed, &at).set_require_grad(tracked[0]);
                let targets = drawn(shape, seed + 1, &at).set_require_grad(tracked[1]);
                let weights = drawn([shape[0]], seed + 2, &at);
                let each = |errors: Tensor<1>| {
                    let gradients = (errors.clone() * weights.clone()).sum().backward();
                    let by = |tensor: &Tensor<2>| tensor.grad(&gradients).map(read);
                    (read(errors), [by(&outputs), by(&targets)])
                };
                let (found, by_each) = each(half_squared_errors(outputs.clone(), targets.clone()));
                let difference = targets.clone() - outputs.clone();
                let square = difference.clone() * difference;
                let (expected, composed) = each(square.sum_dim(1).squeeze_dim::<1>(1) / 2.0);
                assert_close(&found, &expected, tolerance);
                assert_eq!(by_each.each_ref().map(Option::is_some), tracked);
                for (found, expected) in by_each.into_iter().zip(composed) {
                    assert_close(
                        &found.unwrap_or_default(),
                        &expected.unwrap_or_default(),
                        tolerance,
                    );
                }
            }
        }
    }
}
