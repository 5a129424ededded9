//! Statistics of batch norms against means over batches that are computed by hand.

use std::cell::RefCell;

use burn::{
    data::dataset::DatasetError,
    module::{Module, ModuleMapper, Param, ParamGroup},
    nn::{
        BatchNorm, BatchNormConfig, Dropout, DropoutConfig, Linear, LinearConfig,
        conv::{Conv2d, Conv2dConfig},
    },
    tensor::{DType, Device, Tensor, TensorData},
};
use burn_ema::{AverageConfig, Error, Rule, reestimate_statistics};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::common::{Net, assert_close, assert_same, device, flat, floats, points, randomized};

fn devices() -> Vec<Device> {
    vec![
        device(),
        #[cfg(feature = "ndarray")]
        #[expect(deprecated, reason = "Burn still ships it, and so it is checked")]
        Device::ndarray(),
    ]
}

/// Rows of numbers, in double precision, as the host computes with them.
type Rows = Vec<Vec<f64>>;

/// Batches of different sizes, each channel with a mean and width of its own.
fn batches(seed: u64, columns: usize) -> Vec<Rows> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    [7, 4, 9, 1, 6]
        .into_iter()
        .enumerate()
        .map(|(batch, rows)| {
            let mut row = || {
                let value = |column| {
                    let (column, batch) = (column as f64, batch as f64);
                    let drawn = f64::from(rng.random::<f32>());
                    f64::from(((drawn - 0.3) * (1.0 + column) + batch * 0.5 - column) as f32)
                };
                (0..columns).map(value).collect()
            };
            (0..rows).map(|_| row()).collect()
        })
        .collect()
}

fn tensor(rows: &Rows, dtype: DType, device: &Device) -> Tensor<2> {
    let shape = [rows.len(), rows[0].len()];
    let data = TensorData::new(rows.concat(), shape).convert_dtype(dtype);
    Tensor::from_data(data, (device, dtype))
}

/// The batches as a loader gives them, on the device with autodiff.
fn loaded(batches: &[Rows], dtype: DType, device: &Device) -> Vec<Result<Tensor<2>, DatasetError>> {
    let device = device.clone().autodiff();
    batches.iter().map(|rows| Ok(tensor(rows, dtype, &device))).collect()
}

/// Mean and variance of each column.
fn statistics(rows: &Rows) -> [Vec<f64>; 2] {
    let mean_of = |value: &dyn Fn(&[f64], usize) -> f64| -> Vec<f64> {
        let mean = |column| rows.iter().map(|row| value(row, column)).sum::<f64>();
        (0..rows[0].len()).map(|column| mean(column) / rows.len() as f64).collect()
    };
    let mean = mean_of(&|row, column| row[column]);
    let var = mean_of(&|row, column| (row[column] - mean[column]).powi(2));
    [mean, var]
}

/// What a batch norm is to hold, channel by channel.
struct Expected {
    mean: Vec<f64>,
    var: Vec<f64>,
    /// The largest magnitude in the channel, of which the mean's roundings are a share.
    largest: Vec<f64>,
}

impl Expected {
    /// The means of the batches' statistics, each batch with the same weight.
    fn of(batches: &[Rows]) -> Self {
        let each: Vec<_> = batches.iter().map(statistics).collect();
        let columns = 0..batches[0][0].len();
        let [mean, var] = [0, 1].map(|which| {
            let sum = |column| each.iter().map(|both| both[which][column]).sum::<f64>();
            columns.clone().map(|column| sum(column) / each.len() as f64).collect()
        });
        let rows = || batches.iter().flatten();
        let largest =
            |column: usize| rows().map(|row: &Vec<f64>| row[column].abs()).fold(0.0, f64::max);
        Self { mean, var, largest: columns.map(largest).collect() }
    }

    /// Each mean to a share of its channel's largest number, each variance to a share of itself.
    #[track_caller]
    fn check(&self, norm: &BatchNorm, share: f64) {
        let [mean, var] = held(norm);
        for (found, expected, scale) in
            [(mean, &self.mean, &self.largest), (var, &self.var, &self.var)]
        {
            assert_eq!(found.len(), expected.len());
            for (channel, (a, b)) in found.iter().zip(expected).enumerate() {
                let distance = (a - b).abs();
                assert!(distance <= share * scale[channel], "channel {channel}: {a} against {b}");
            }
        }
    }
}

/// What a batch norm holds.
fn held(norm: &BatchNorm) -> [Vec<f64>; 2] {
    [&norm.running_mean, &norm.running_var]
        .map(|statistic| statistic.value_sync().into_data().iter::<f64>().collect())
}

/// The module with every float in another dtype.
fn cast<M: Module>(module: M, dtype: DType) -> M {
    struct Cast(DType);
    impl ModuleMapper for Cast {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.map(|tensor| tensor.cast(self.0))
        }
    }
    module.map(&mut Cast(dtype))
}

#[test]
fn statistics_are_the_mean_over_batches_whatever_the_momentum() {
    for device in devices() {
        for momentum in [1.0, 0.9, 0.5, 0.1, 1.0 / 3.0, 0.01, 0.001] {
            let batches = batches(1, 5);
            let norm = BatchNormConfig::new(5).with_momentum(momentum).init(&device);
            let loaded = loaded(&batches, DType::F32, &device);
            let norm = reestimate_statistics(&norm, loaded, |norm, x| norm.forward(x)).unwrap();
            Expected::of(&batches).check(&norm, 1e-6);
        }
    }
}

#[test]
fn statistics_keep_their_digits_beside_large_and_small_ones() {
    let mut batches = batches(2, 3);
    for row in batches.iter_mut().flatten() {
        row[0] *= 2e-9;
        row[1] += 300.0;
        row[2] *= 1e12;
        row.iter_mut().for_each(|x| *x = f64::from(*x as f32));
    }
    let norm = BatchNormConfig::new(3).init(&device());
    let loaded = loaded(&batches, DType::F32, &device());
    let norm = reestimate_statistics(&norm, loaded, |norm, x| norm.forward(x)).unwrap();
    Expected::of(&batches).check(&norm, 1e-6);
}

#[test]
fn other_dtypes_are_as_right_as_they_can_be() {
    for (dtype, share) in [(DType::F64, 1e-15), (DType::F16, 4e-3), (DType::BF16, 3e-2)] {
        for momentum in [0.1, 0.25, 1.0] {
            let batches = batches(3, 4);
            let config = BatchNormConfig::new(4).with_momentum(momentum);
            let norm = cast(config.init(&Device::flex()), dtype);
            let loaded = loaded(&batches, dtype, &Device::flex());
            let norm = reestimate_statistics(&norm, loaded, |norm, x| norm.forward(x)).unwrap();
            assert_eq!(norm.running_mean.value().dtype(), dtype);
            Expected::of(&batches).check(&norm, share);
        }
    }
}

/// Batch norms at several depths, with a last one that only some batches reach.
#[derive(Module, Debug)]
struct Deep {
    blocks: Vec<Block>,
    side: Option<BatchNorm>,
}

#[derive(Module, Debug)]
struct Block {
    linear: Linear,
    norm: BatchNorm,
}

const WIDTH: usize = 4;

impl Deep {
    fn new(seed: u64, device: &Device) -> Self {
        let momenta = [0.1, 0.03, 0.7];
        let block = |momentum| Block {
            linear: LinearConfig::new(WIDTH, WIDTH).init(device),
            norm: BatchNormConfig::new(WIDTH).with_momentum(momentum).init(device),
        };
        let side = Some(BatchNormConfig::new(WIDTH).with_momentum(0.2).init(device));
        randomized(Self { blocks: momenta.map(block).into(), side }, seed)
    }

    fn forward(&self, x: Tensor<2>, side: bool) -> Tensor<2> {
        let each = |x, block: &Block| block.norm.forward(block.linear.forward(x));
        let x = self.blocks.iter().fold(x, each);
        match &self.side {
            Some(norm) if side => norm.forward(x),
            _ => x,
        }
    }
}

/// What each batch norm of the blocks sees, then what leaves the last, on the host.
fn seen(deep: &Deep, batch: &Rows) -> Vec<Rows> {
    let values = |data: TensorData| data.iter::<f64>().collect::<Vec<_>>();
    let mut seen = Vec::new();
    let mut x = batch.clone();
    for Block { linear, norm } in &deep.blocks {
        let weight = values(linear.weight.val().into_data());
        let bias = values(linear.bias.as_ref().unwrap().val().into_data());
        let [gamma, beta] = [&norm.gamma, &norm.beta].map(|param| values(param.val().into_data()));
        let product = |row: &Vec<f64>, column: usize| -> f64 {
            let terms = row.iter().enumerate().map(|(i, x)| x * weight[i * WIDTH + column]);
            terms.sum::<f64>() + bias[column]
        };
        x = x.iter().map(|row| (0..WIDTH).map(|column| product(row, column)).collect()).collect();
        seen.push(x.clone());
        let [mean, var] = statistics(&x);
        for row in &mut x {
            for (column, x) in row.iter_mut().enumerate() {
                let normal = (*x - mean[column]) / (var[column] + norm.epsilon).sqrt();
                *x = normal * gamma[column] + beta[column];
            }
        }
    }
    seen.push(x);
    seen
}

#[test]
fn a_batch_norm_after_another_sees_normalised_batches() {
    for device in devices() {
        for seed in 0..5 {
            let mut batches = batches(seed, WIDTH);
            // A batch of one row has no variance to divide by, and roundings grow without bound.
            batches.retain(|rows| rows.len() > 1);
            let given = Deep::new(seed, &device).valid();
            let before = floats(&given);
            let (numbers, loaded) = (0.., loaded(&batches, DType::F32, &device));
            let loaded = std::iter::zip(numbers, loaded).map(|(i, x)| Ok((i, x?)));
            let deep = reestimate_statistics(&given, loaded, |deep, (i, x): (usize, _)| {
                deep.forward(x, i % 2 == 1)
            })
            .unwrap();

            let seen: Vec<_> = batches.iter().map(|batch| seen(&deep, batch)).collect();
            let norm_sees = |norm: usize| seen.iter().map(move |seen| seen[norm].clone());
            for (i, block) in deep.blocks.iter().enumerate() {
                let expected = Expected::of(&norm_sees(i).collect::<Vec<_>>());
                expected.check(&block.norm, 2e-6);
            }
            let side: Vec<_> = norm_sees(3).skip(1).step_by(2).collect();
            Expected::of(&side).check(deep.side.as_ref().unwrap(), 2e-6);

            // Bit for bit and id for id the same beside the statistics; the given one wholly.
            assert_eq!(floats(&given), before);
            let after = floats(&deep);
            assert_eq!(after.len(), before.len());
            for ((path, id, values), (path_before, id_before, values_before)) in
                after.iter().zip(&before)
            {
                assert_eq!((path, id), (path_before, id_before));
                let statistic = path.contains("running_");
                assert_eq!(values == values_before, !statistic, "{path}");
            }
        }
    }
}

#[test]
fn dropout_is_on_and_does_not_disturb() {
    #[derive(Module, Debug)]
    struct Dropping {
        dropout: Dropout,
        norm: BatchNorm,
    }
    for seed in 0..5 {
        let model = Dropping {
            dropout: DropoutConfig::new(0.4).init(),
            norm: BatchNormConfig::new(3).init(&device()),
        }
        .valid();
        let batches = batches(seed, 3);
        let runs: RefCell<Vec<Rows>> = RefCell::default();
        let found =
            reestimate_statistics(&model, loaded(&batches, DType::F32, &device()), |model, x| {
                let x = model.dropout.forward(x);
                let values: Vec<f64> = x.to_data().iter().collect();
                runs.borrow_mut().push(values.chunks(3).map(<[f64]>::to_vec).collect());
                model.norm.forward(x)
            })
            .unwrap();
        let mut runs = runs.into_inner();
        assert_eq!(runs.len(), batches.len() + 1, "once more for the first batch");
        assert_ne!(runs[0], runs[1], "dropout is on");
        runs.remove(1);
        Expected::of(&runs).check(&found.norm, 1e-6);
        assert!(!found.dropout.training.is_enabled(), "in validation mode");
        assert!(found.train().dropout.training.is_enabled(), "from which training goes on");
    }
}

#[test]
fn images_are_averaged_over_places_too() {
    #[derive(Module, Debug)]
    struct Image {
        conv: Conv2d,
        norm: BatchNorm,
    }
    for device in devices() {
        let image = Image {
            conv: Conv2dConfig::new([1, 2], [1, 1]).init(&device),
            norm: BatchNormConfig::new(2).init(&device),
        };
        let image = randomized(image, 0);
        let batches = batches(5, 4);
        let loaded = loaded(&batches, DType::F32, &device)
            .into_iter()
            .map(|x| x.map(|x| x.reshape([-1, 1, 2, 2])));
        let found = reestimate_statistics(&image, loaded, |image, x| {
            image.norm.forward(image.conv.forward(x))
        })
        .unwrap();
        let weight = flat(&found.conv, true);
        let channels: Vec<Rows> = batches
            .iter()
            .map(|rows| {
                let channel = |x: f64, c: usize| x * weight[c] + weight[2 + c];
                rows.concat().into_iter().map(|x| vec![channel(x, 0), channel(x, 1)]).collect()
            })
            .collect();
        Expected::of(&channels).check(&found.norm, 2e-6);
    }
}

#[test]
fn an_average_is_reestimated_from_a_loader_and_live_stays() {
    let live = Net::new(1, &device()).train();
    let autodiff = device().autodiff();
    live.forward(Tensor::ones([4, 2], &autodiff) * 3.0);
    let before = floats(&live.valid());
    let mut average = AverageConfig::new(Rule::ema(0.5)).init(&live).unwrap();
    average.update(&randomized(live.clone(), 2).train(), 1).unwrap();
    let given = average.module();
    let weights = flat(&given, false);

    let loader = points(30, 1).to_device(&autodiff);
    let found = reestimate_statistics(&given, loader.iter(), |net, batch| {
        assert!(!net.first.weight.is_require_grad(), "no gradient is tracked");
        net.forward(batch.x)
    });
    let found = found.unwrap();
    let plain = points(30, 1).to_device(&device());
    let sees: Vec<Rows> = plain
        .iter()
        .map(|batch| {
            let hidden = found.first.forward(batch.unwrap().x).into_data();
            hidden.iter::<f64>().collect::<Vec<_>>().chunks(16).map(<[f64]>::to_vec).collect()
        })
        .collect();
    assert_eq!(sees.len(), 4);
    Expected::of(&sees).check(&found.norm, 2e-6);
    assert_eq!(flat(&found, false), weights);
    assert_eq!(flat(&given, true), flat(&average.module(), true), "the given module is as it was");
    assert_eq!(floats(&live.valid()), before, "and so is live");
    assert!(!found.norm.running_mean.value().device().is_autodiff());
    assert!(!found.first.weight.val().device().is_autodiff());

    // The given one may as well be live, in training mode.
    let again = reestimate_statistics(&live, loader.iter(), |net, batch| net.forward(batch.x));
    assert_same(&flat(&again.unwrap(), false), &flat(&live.valid(), false));
    assert_eq!(floats(&live.valid()), before);
}

#[test]
fn frozen_batch_norms_keep_their_statistics() {
    let batches = batches(0, WIDTH);
    let deep = Deep::new(0, &device());
    let group = ParamGroup::ids_from_module(deep.blocks[1].norm.clone());
    let _ = deep.blocks[1].norm.running_mean.clone().map(&mut Halves);
    let deep = deep.freeze_group(group).valid();
    let run = |deep: &Deep| {
        let loaded = loaded(&batches, DType::F32, &device());
        reestimate_statistics(deep, loaded, |deep, x| deep.forward(x, true))
    };
    let found = run(&deep).unwrap();
    assert_eq!(held(&found.blocks[1].norm), [vec![0.5; WIDTH], vec![1.0; WIDTH]]);
    assert_ne!(held(&found.blocks[0].norm), held(&deep.blocks[0].norm));
    assert_ne!(held(&found.blocks[2].norm), held(&deep.blocks[2].norm));

    let error = run(&deep.freeze()).unwrap_err().to_string();
    assert_eq!(error, "the module is without one, expected one with a batch norm that trains");
}

struct Halves;

impl ModuleMapper for Halves {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|tensor| tensor * 0.0 + 0.5)
    }
}

#[test]
fn a_batch_of_zeros_reaches_a_batch_norm() {
    let batches = vec![vec![vec![0.0, 0.0]; 3], vec![vec![2.0, 0.0], vec![4.0, 0.0]]];
    for momentum in [0.1, 1.0] {
        let norm = BatchNormConfig::new(2).with_momentum(momentum).init(&device());
        let loaded = loaded(&batches, DType::F32, &device());
        let norm = reestimate_statistics(&norm, loaded, |norm, x| norm.forward(x)).unwrap();
        assert_close(&held(&norm).concat(), &[1.5, 0.0, 0.5, 0.0], 1e-6);
    }
}

#[test]
fn one_batch_norm_in_two_places_and_twice_in_one() {
    #[derive(Module, Debug)]
    struct Shared {
        a: BatchNorm,
        b: BatchNorm,
    }
    let batches = batches(4, 2);
    let doubled: Vec<Rows> = batches
        .iter()
        .map(|rows| rows.iter().map(|row| row.iter().map(|x| x * 2.0).collect()).collect())
        .collect();
    let a = BatchNormConfig::new(2).init(&device());
    let shared = Shared { b: a.clone(), a };
    let found = reestimate_statistics(
        &shared,
        loaded(&batches, DType::F32, &device()),
        |shared, x: Tensor<2>| {
            shared.a.forward(x.clone());
            shared.b.forward(x * 2.0)
        },
    )
    .unwrap();
    Expected::of(&batches).check(&found.a, 1e-6);
    Expected::of(&doubled).check(&found.b, 1e-6);

    let found = reestimate_statistics(
        &shared.a,
        loaded(&batches, DType::F32, &device()),
        |norm, x: Tensor<2>| {
            norm.forward(x.clone());
            norm.forward(x * 2.0)
        },
    )
    .unwrap();
    // Momentum 0.1 twice: 0.09 of the first run and 0.1 of the second.
    let (once, mut twice) = (Expected::of(&batches), Expected::of(&doubled));
    let pairs = [(&once.mean, &mut twice.mean), (&once.var, &mut twice.var)];
    for (a, b) in pairs.into_iter().flat_map(|(a, b)| a.iter().zip(b)) {
        *b = (0.09 * a + 0.1 * *b) / 0.19;
    }
    twice.check(&found, 1e-6);
}

#[test]
fn what_cannot_be_reestimated_is_an_error_with_the_path() {
    let batches = batches(0, WIDTH);
    let ready = || loaded(&batches, DType::F32, &device());
    let deep = Deep::new(0, &device()).valid();
    let before = floats(&deep);
    let refused = |error: Error, expected: &str| {
        assert!(error.to_string().contains(expected), "{error}");
        assert_eq!(floats(&deep), before, "the given module is as it was");
    };

    let linear = LinearConfig::new(WIDTH, 1).init(&device());
    let error = reestimate_statistics(&linear, ready(), |linear, x| linear.forward(x));
    refused(error.unwrap_err(), "the module is without one");

    let error = reestimate_statistics(&deep, [], |deep, x| deep.forward(x, true));
    refused(error.unwrap_err(), "the number of batches is 0, expected at least 1");

    // `forward` that leaves one batch norm out, or that runs another module.
    let error = reestimate_statistics(&deep, ready(), |deep, x| deep.forward(x, false));
    refused(
        error.unwrap_err(),
        "side: expected a batch norm that is reached on an autodiff device",
    );
    let error = reestimate_statistics(&deep, ready(), |_, x| x);
    refused(error.unwrap_err(), "blocks.0.norm: expected a batch norm that is reached");

    // A batch on a device without autodiff, where a batch norm does not train.
    let norm = BatchNormConfig::new(WIDTH).init(&device());
    let plain = ready().into_iter().map(|x| x.map(|x| x.without_autodiff()));
    let error = reestimate_statistics(&norm, plain, |norm, x| norm.forward(x));
    refused(error.unwrap_err(), "the module: expected a batch norm that is reached on an autodiff");

    let zero = BatchNormConfig::new(WIDTH).with_momentum(0.0).init(&device());
    let error = reestimate_statistics(&zero, ready(), |norm, x| norm.forward(x));
    refused(error.unwrap_err(), "found momentum 0");

    for bad in [f64::NAN, f64::INFINITY] {
        let mut batches = batches.clone();
        batches[2][0][1] = bad;
        let loaded = loaded(&batches, DType::F32, &device());
        let error = reestimate_statistics(&deep, loaded, |deep, x| deep.forward(x, true));
        let found = format!("expected finite statistics, found {bad} from batch 3");
        refused(error.unwrap_err(), &format!("blocks.0.norm.running_mean: {found}"));
    }

    // The largest number of half precision, and a momentum that makes it round up.
    let config = BatchNormConfig::new(1).with_momentum(0.2503);
    let norm = cast(config.init(&Device::flex()), DType::F16);
    let largest = loaded(&[vec![vec![65504.0]]], DType::F16, &Device::flex());
    let error = reestimate_statistics(&norm, largest, |norm, x| norm.forward(x));
    refused(error.unwrap_err(), "running_mean: expected finite statistics, found inf");

    let broken = ready().into_iter().take(2).chain([Err(DatasetError::new(std::fmt::Error))]);
    let error = reestimate_statistics(&deep, broken, |deep, x| deep.forward(x, true));
    refused(error.unwrap_err(), "cannot load batch 3");
}
