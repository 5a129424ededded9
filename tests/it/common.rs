//! Models, loaders and trainings that the tests share.

use std::sync::Once;

use burn::{
    module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId},
    nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig},
    tensor::{Bool, DType, Device, Int, Tensor, TensorData, activation},
};
use burn_ema::Rule;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;

/// The device under test: wgpu where it is compiled in, else Flex.
pub fn device() -> Device {
    #[cfg(feature = "wgpu")]
    return Device::wgpu(Default::default());
    #[cfg(not(feature = "wgpu"))]
    Device::flex()
}

/// Whether the device computes `a + alpha (w - a)` with the roundings of the host.
pub const EXACT: bool = cfg!(not(feature = "wgpu"));

/// The devices and float dtypes of this build, each with how near a number of double precision it
/// comes, as a share of the largest.
pub fn kinds() -> Vec<(Device, DType, f64)> {
    let mut kinds = vec![(device(), DType::F32, 1e-6)];
    if EXACT {
        kinds.push((device(), DType::F64, 1e-12));
    }
    #[cfg(feature = "ndarray")]
    {
        #[expect(deprecated, reason = "Burn still ships it, and so it is checked")]
        let ndarray = Device::ndarray();
        kinds.extend([(ndarray.clone(), DType::F32, 1e-6), (ndarray, DType::F64, 1e-12)]);
    }
    kinds
}

/// One parameter and nothing else.
#[derive(Module, Debug)]
pub struct Weights {
    pub w: Param<Tensor<1>>,
}

impl Weights {
    pub fn new(values: &[f64], dtype: DType, device: &Device) -> Self {
        let data = TensorData::new(values.to_vec(), [values.len()]);
        Self { w: Param::initialized(ParamId::new(), Tensor::from_data(data, (device, dtype))) }
    }
}

/// A rule of these tests' own, `1 - (1 + step / slowness)^-0.5`.
pub fn custom(slowness: f64) -> Rule {
    static REGISTERED: Once = Once::new();
    REGISTERED.call_once(|| {
        Rule::register("root", |parameters, step| 1.0 - 1.0 / (1.0 + step / parameters[0]).sqrt())
            .unwrap();
    });
    Rule::Custom { name: "root".into(), parameters: vec![slowness] }
}

/// A network with a batch norm, 2 inputs and 3 outputs.
#[derive(Module, Debug)]
pub struct Net {
    pub first: Linear,
    pub norm: BatchNorm,
    pub last: Linear,
}

impl Net {
    /// Weights that depend on the seed alone; the process's random state is not touched.
    pub fn new(seed: u64, device: &Device) -> Self {
        let net = Self {
            first: LinearConfig::new(2, 16).init(device),
            norm: BatchNormConfig::new(16).init(device),
            last: LinearConfig::new(16, 3).init(device),
        };
        randomized(net, seed)
    }

    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let hidden = self.norm.forward(self.first.forward(x));
        self.last.forward(activation::sigmoid(hidden))
    }
}

/// The module with every float drawn anew from the seed, in (-0.5, 0.5), batch norm's aside.
///
/// Not on a grid of equal steps, where `a + (w - a)` would be `w` by luck.
pub fn randomized<M: Module>(module: M, seed: u64) -> M {
    struct Draw(ChaCha8Rng, String);
    impl ModuleMapper for Draw {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.1 = name.to_owned();
        }
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            if self.1.starts_with("running") || self.1 == "gamma" {
                return param;
            }
            param.map(|tensor| {
                let shape = tensor.shape();
                let values: Vec<f32> = (0..shape.num_elements())
                    .map(|_| (self.0.random::<f32>() - 0.5) * 0.9173)
                    .collect();
                Tensor::from_data(TensorData::new(values, shape), &tensor.device())
                    .set_require_grad(tensor.is_require_grad())
            })
        }
    }
    module.map(&mut Draw(ChaCha8Rng::seed_from_u64(seed), String::new()))
}

/// Parameters that no rule averages, and that depend on the seed.
pub fn constants(seed: u64) -> (Param<Tensor<1, Int>>, Param<Tensor<1, Bool>>) {
    let counts = Tensor::from_data([seed as i32, 7], &device());
    let mask = Tensor::from_data([seed.is_multiple_of(2), true], &device());
    (Param::initialized(ParamId::new(), counts), Param::initialized(ParamId::new(), mask))
}

/// Every float of a module, statistics included: path, id, dtype, data.
pub fn tensors<M: Module>(module: &M) -> Vec<(String, ParamId, DType, TensorData)> {
    #[derive(Default)]
    struct Read(Vec<String>, Vec<(String, ParamId, DType, TensorData)>);
    impl ModuleVisitor for Read {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.0.push(name.to_owned());
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.0.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let tensor = param.base();
            self.1.push((self.0.join("."), param.id, tensor.dtype(), tensor.into_data()));
        }
    }
    let mut read = Read::default();
    module.visit(&mut read);
    read.1
}

/// Every float of a module: path, id, values in double precision.
pub fn floats<M: Module>(module: &M) -> Vec<(String, ParamId, Vec<f64>)> {
    let values = |data: TensorData| data.convert::<f64>().try_into_vec().unwrap();
    tensors(module).into_iter().map(|(path, id, _, data)| (path, id, values(data))).collect()
}

/// All floats of a module in a row; `statistics` includes those of batch norms.
pub fn flat<M: Module>(module: &M, statistics: bool) -> Vec<f64> {
    floats(module)
        .into_iter()
        .filter(|(path, ..)| statistics || !path.contains("running_"))
        .flat_map(|(.., values)| values)
        .collect()
}

/// The numbers of a JSON value, in their order, however deep they lie.
pub fn numbers(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(values) => values.iter().flat_map(numbers).collect(),
        number => vec![number.as_f64().unwrap()],
    }
}

/// Equal bit for bit, or, on a device that may contract products, to 2e-6 of the largest.
#[track_caller]
pub fn assert_same(found: &[f64], expected: &[f64]) {
    if EXACT {
        let differing = found.iter().zip(expected).filter(|(a, b)| a.to_bits() != b.to_bits());
        assert_eq!(found.len(), expected.len());
        assert_eq!(differing.count(), 0, "of {} numbers", found.len());
    } else {
        assert_close(found, expected, 2e-6);
    }
}

/// Equal to a share of the largest expected magnitude.
#[track_caller]
pub fn assert_close(found: &[f64], expected: &[f64], relative: f64) {
    assert_eq!(found.len(), expected.len());
    let scale = expected.iter().fold(f64::MIN_POSITIVE, |max, x| max.max(x.abs()));
    for (index, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= relative * scale, "number {index}: {a} against {b}");
    }
}

/// `a + alpha (w - a)` in single precision, as a hand-written loop has it.
pub fn lerp(average: &mut [f64], live: &[f64], alpha: f64) {
    for (a, w) in average.iter_mut().zip(live) {
        let (x, y) = (*a as f32, *w as f32);
        *a = f64::from(if alpha == 1.0 { y } else { x + alpha as f32 * (y - x) });
    }
}

#[cfg(feature = "train")]
pub use training::*;

#[cfg(feature = "train")]
mod training {
    use std::sync::Arc;

    use burn::{
        data::{
            dataloader::{DataLoader, DataLoaderBuilder, batcher::Batcher},
            dataset::InMemDataset,
        },
        lr_scheduler::constant::ConstantLr,
        optim::ModuleOptimizer,
        tensor::{Device, Tensor, TensorData},
        train::{
            ExecutionStrategy, InferenceStep, Learner, LearnerModel, LearningResult,
            MultiDeviceOptim, RegressionOutput, SupervisedTraining, TrainOutput, TrainStep,
            TrainingStrategy,
        },
    };
    use burn_ema::fast::AdamConfig;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::Net;

    /// Points and their targets.
    #[derive(Clone, Debug)]
    pub struct Points {
        pub x: Tensor<2>,
        pub y: Tensor<2>,
    }

    struct PointBatcher;

    impl Batcher<[f32; 2], Points> for PointBatcher {
        fn batch(&self, items: Vec<[f32; 2]>, device: &Device) -> Points {
            let rows = items.len();
            let y = items.iter().flat_map(|[a, b]| [a * b, a - b, a.sin()]).collect::<Vec<_>>();
            let x = items.into_iter().flatten().collect::<Vec<_>>();
            Points {
                x: Tensor::from_data(TensorData::new(x, [rows, 2]), device),
                y: Tensor::from_data(TensorData::new(y, [rows, 3]), device),
            }
        }
    }

    /// Batches of 8 out of `count` points, in a fixed order.
    pub fn points(count: usize, seed: u64) -> Arc<dyn DataLoader<Points>> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let items = (0..count).map(|_| [rng.random(), rng.random()]).collect();
        DataLoaderBuilder::new(PointBatcher).batch_size(8).build(InMemDataset::new(items))
    }

    impl Net {
        fn answer(&self, points: Points) -> RegressionOutput {
            let output = self.forward(points.x);
            let error = output.clone() - points.y.clone();
            let loss = (error.clone() * error).mean();
            RegressionOutput::new(loss, output, points.y)
        }
    }

    impl TrainStep for Net {
        type Input = Points;
        type Output = RegressionOutput;

        fn step(&self, points: Points) -> TrainOutput<RegressionOutput> {
            let output = self.answer(points);
            TrainOutput::new(self, output.loss.backward(), output)
        }
    }

    impl InferenceStep for Net {
        type Input = Points;
        type Output = RegressionOutput;

        fn step(&self, points: Points) -> RegressionOutput {
            self.answer(points)
        }
    }

    /// Where and how a training runs.
    #[derive(Clone)]
    pub struct Plan {
        pub directory: std::path::PathBuf,
        pub epochs: usize,
        pub accumulate: usize,
        pub devices: Vec<Device>,
        pub optim: MultiDeviceOptim,
        pub resume: Option<usize>,
        pub checkpoints: bool,
        pub points: usize,
    }

    impl Plan {
        pub fn new(directory: &std::path::Path) -> Self {
            Self {
                directory: directory.to_owned(),
                epochs: 2,
                accumulate: 1,
                devices: vec![super::device()],
                optim: MultiDeviceOptim::OptimMainDevice,
                resume: None,
                checkpoints: false,
                points: 64,
            }
        }

        /// Burn's training of this plan, in batches of 8; by default 8 of them an epoch.
        pub fn training<M>(&self) -> SupervisedTraining<M>
        where
            M: LearnerModel + TrainStep<Input = Points> + InferenceStep<Input = Points>,
        {
            let strategy = match &self.devices[..] {
                [device] => ExecutionStrategy::SingleDevice(device.clone()),
                devices => ExecutionStrategy::MultiDevice(devices.to_vec(), self.optim),
            };
            let mut training =
                SupervisedTraining::new(&self.directory, points(self.points, 1), points(24, 2))
                    .num_epochs(self.epochs)
                    .with_application_logger(None)
                    .renderer(Box::new(burn_ema::runs::ProgressLines::new(std::io::sink())))
                    .with_training_strategy(TrainingStrategy::Default(strategy));
            if self.accumulate > 1 {
                training = training.grads_accumulation(self.accumulate);
            }
            if self.checkpoints {
                training = training.with_default_checkpointers();
            }
            if let Some(epoch) = self.resume {
                training = training.checkpoint(epoch);
            }
            training
        }

        /// Trains the model by this plan, with Adam.
        pub fn launch<M>(&self, model: M) -> LearningResult<M>
        where
            M: LearnerModel + TrainStep<Input = Points> + InferenceStep<Input = Points>,
        {
            let result =
                self.training().launch(Learner::new(model.train(), adam(), ConstantLr::new(0.02)));
            assert!(result.error.is_none(), "{:?}", result.error);
            result
        }
    }

    pub fn adam() -> ModuleOptimizer {
        AdamConfig::new().init()
    }
}
