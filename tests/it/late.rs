//! Updates that move in the pass of the next step: the same bits as at once, whatever comes between.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
};

use burn::{
    module::{Module, ModuleMapper, ModuleVisitor, Param},
    optim::{
        GradientsParams, ModuleOptimizer, decay::WeightDecayConfig,
        lr_scheduler::module_lr_scheduler::ModuleLearningRate, momentum::MomentumConfig,
    },
    tensor::{DType, FloatDType, Tensor, TensorData},
    train::{InferenceStep, TrainOutput, TrainStep},
};
use burn_ema::{
    AverageConfig, Policy, Rule,
    data::Batch,
    model::{Mlp, MlpConfig},
    optim::{AdamConfig, AdamWConfig, SgdConfig},
    train::Averaged,
};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{
    common::{device, flat, randomized},
    hand::cast,
};

/// Two layers below and above the numbers from which on threads share the work.
const SIZES: [usize; 3] = [200, 190, 10];

/// The perceptron, whose own `optimize` may do more than the optimizer's step.
#[derive(Module, Debug)]
struct Own {
    mlp: Mlp,
    #[module(skip)]
    also: Also,
    /// Whether the next step panics, before the optimizer's (1) or after it (2), or makes its weights
    /// infinite (3).
    #[module(skip)]
    fails: Arc<AtomicU8>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Also {
    Nothing,
    /// Halves the weights, after some of the steps, where they are.
    Halve,
}

impl Own {
    fn new(seed: u64, dtype: DType, also: Also) -> Self {
        let mlp = MlpConfig::new(SIZES.to_vec()).init(&device()).unwrap();
        let mlp = randomized(mlp, seed);
        Self { mlp: cast(mlp, dtype), also, fails: Arc::default() }.train()
    }
}

impl TrainStep for Own {
    type Input = Batch;
    type Output = <Mlp as TrainStep>::Output;

    fn step(&self, batch: Batch) -> TrainOutput<Self::Output> {
        TrainStep::step(&self.mlp, batch)
    }

    fn optimize(
        self,
        optim: &mut ModuleOptimizer,
        lr: ModuleLearningRate,
        grads: GradientsParams,
    ) -> Self {
        struct Times(f64);
        impl ModuleMapper for Times {
            fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
                param.map(|tensor| {
                    let tracked = tensor.is_require_grad();
                    tensor.inner().mul_scalar(self.0).autodiff().set_require_grad(tracked)
                })
            }
        }
        // Of the same numbers the same steps, in a loop by hand as well.
        let sum = |own: &Self| flat(own, false).iter().sum::<f64>().to_bits();
        let fails = self.fails.load(Ordering::Relaxed);
        assert!(fails != 1, "a panic of the caller's own, before");
        let stepped = optim.step(lr, self, grads);
        assert!(fails != 2, "a panic of the caller's own, after");
        match stepped.also {
            _ if fails == 3 => stepped.map(&mut Times(f64::INFINITY)),
            Also::Halve if sum(&stepped).is_multiple_of(3) => stepped.map(&mut Times(0.5)),
            _ => stepped,
        }
    }
}

impl InferenceStep for Own {
    type Input = Batch;
    type Output = <Mlp as InferenceStep>::Output;

    fn step(&self, batch: Batch) -> Self::Output {
        InferenceStep::step(&self.mlp, batch)
    }
}

fn batch(seed: u64, dtype: DType) -> Batch {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut rows = |width| {
        let numbers: Vec<f32> = (0..16 * width).map(|_| rng.random()).collect();
        let device = device().autodiff();
        Tensor::<2>::from_data(TensorData::new(numbers, [16, width]), &device).cast(dtype)
    };
    Batch { inputs: rows(SIZES[0]), targets: rows(SIZES[2]) }
}

fn optimizers() -> Vec<(&'static str, ModuleOptimizer, f64)> {
    let momentum = MomentumConfig::new().with_momentum(0.9).with_nesterov(true);
    let decay = Some(WeightDecayConfig::new(1e-4));
    vec![
        ("sgd", SgdConfig::new().init(), 0.5),
        ("sgd, momentum", SgdConfig::new().with_momentum(Some(momentum)).init(), 0.1),
        ("adam", AdamConfig::new().with_weight_decay(decay).init(), 0.01),
        ("adamw", AdamWConfig::new().init(), 0.01),
        ("burn's adam", burn::optim::AdamConfig::new().init(), 0.01),
    ]
}

/// Averages that mix at each step, copy, skip steps, start late, keep a window or leave paths out.
fn configs() -> Vec<AverageConfig> {
    vec![
        AverageConfig::new(Rule::Constant { decay: 0.99, debias: true }),
        AverageConfig::new(Rule::Constant { decay: 0.0, debias: false })
            .with_name(Some("live-again".into())),
        AverageConfig::new(Rule::Equal).with_every(2).with_start(3),
        AverageConfig::new(Rule::ema(0.999))
            .on("mlp.layers.0.*", Policy::Copy)
            .with_name(Some("part".into())),
        AverageConfig::new(Rule::Window { snapshots: 2, interval: 2 }),
        AverageConfig::new(Rule::ema(0.9)).with_name(Some("short".into())),
    ]
}

/// Whether a training looks at its averages after a step.
fn looks(step: u64) -> bool {
    step % 4 == 2
}

const STEPS: u64 = 11;

/// The bits of live and of all averages, at each look and at the end.
type Seen = Vec<Vec<u64>>;

fn bits(module: &impl Module) -> Vec<u64> {
    flat(module, false).into_iter().map(f64::to_bits).collect()
}

/// By hand: the optimizer's step, and then each average's update.
fn by_hand(seed: u64, dtype: DType, also: Also, mut optim: ModuleOptimizer, lr: f64) -> Seen {
    let mut live = Own::new(seed, dtype, also);
    let mut averages: Vec<_> = configs().iter().map(|c| c.init(&live).unwrap()).collect();
    let mut seen = Seen::new();
    for step in 1..=STEPS {
        let grads = TrainStep::step(&live, batch(step, dtype)).grads;
        live = live.optimize(&mut optim, lr.into(), grads);
        averages.iter_mut().for_each(|average| average.update(&live, step).unwrap());
        if looks(step) || step == STEPS {
            seen.push(bits(&live));
            seen.extend(averages.iter().map(|average| bits(&average.module())));
        }
    }
    seen
}

/// By the hook, with the copies that Burn's Learner makes or without.
fn hooked(
    seed: u64,
    dtype: DType,
    also: Also,
    mut optim: ModuleOptimizer,
    lr: f64,
    copies: bool,
) -> Seen {
    let mut model = Averaged::new(Own::new(seed, dtype, also), configs()).unwrap().train();
    let mut seen = Seen::new();
    for step in 1..=STEPS {
        let grads = TrainStep::step(&model, batch(step, dtype)).grads;
        let before = copies.then(|| model.clone());
        model = model.optimize(&mut optim, lr.into(), grads);
        drop(before);
        if looks(step) || step == STEPS {
            seen.push(bits(model.live()));
            let averages = model.averages();
            seen.extend(averages.iter().map(|average| bits(&average.module())));
        }
    }
    assert!(model.error().is_none());
    assert_eq!(model.refused_steps().count, 0);
    seen
}

#[test]
fn the_bits_are_those_of_updates_at_once() {
    for (seed, dtype) in [(0, DType::F32), (1, DType::F64)] {
        for also in [Also::Nothing, Also::Halve] {
            for (name, optim, lr) in optimizers() {
                let expected = by_hand(seed, dtype, also, optim.clone(), lr);
                for copies in [false, true] {
                    let found = hooked(seed, dtype, also, optim.clone(), lr, copies);
                    assert!(found == expected, "{name}, {dtype:?}, {also:?}, copies: {copies}");
                }
            }
        }
    }
}

/// What rides in a step that panics comes back, moved, whether the step came to it or not.
#[test]
fn a_panic_in_a_step_leaves_the_averages_of_the_step_before() {
    for panics in [1, 2] {
        let lr = ModuleLearningRate::from(0.1);
        let mut optims = [SgdConfig::new().init(), SgdConfig::new().init()];
        let mut live = Own::new(3, DType::F32, Also::Nothing);
        let config = AverageConfig::new(Rule::ema(0.9));
        let mut average = config.init(&live).unwrap();
        let mut model = Averaged::new(live.clone(), [config]).unwrap();
        for step in 1..=3 {
            let grads = |model: &Own| TrainStep::step(model, batch(step, DType::F32)).grads;
            let (ours, theirs) = (grads(model.live()), grads(&live));
            live = live.optimize(&mut optims[0], lr.clone(), theirs);
            average.update(&live, step).unwrap();
            model = model.optimize(&mut optims[1], lr.clone(), ours);
        }
        let seen = model.clone();
        seen.live().fails.store(panics, Ordering::Relaxed);
        let grads = TrainStep::step(&model, batch(4, DType::F32)).grads;
        let panic = catch_unwind(AssertUnwindSafe(|| model.optimize(&mut optims[1], lr, grads)));
        assert!(panic.is_err());
        assert!(seen.error().is_none(), "the averages are whole");
        assert_eq!(bits(&seen.averages()[0].module()), bits(&average.module()));
    }
}

/// What the optimizer says of its weights does not hold for what becomes of them after it.
#[test]
#[cfg_attr(any(feature = "portable", feature = "wgpu"), ignore = "no step is sure there")]
fn weights_that_are_spoilt_after_the_optimizers_step_are_found() {
    for steps in [0, 3] {
        let config = AverageConfig::new(Rule::ema(0.9));
        let live = Own::new(5, DType::F32, Also::Nothing);
        let mut model = Averaged::new(live, [config]).unwrap();
        let mut optim = SgdConfig::new().init();
        for step in 1..=steps + 1 {
            model.live().fails.store(if step > steps { 3 } else { 0 }, Ordering::Relaxed);
            let grads = TrainStep::step(&model, batch(step, DType::F32)).grads;
            model = model.optimize(&mut optim, 0.1.into(), grads);
        }
        assert_eq!(model.steps(), steps);
        assert_eq!(model.averages()[0].last_step(), steps);
        // The first step can be taken back; the fourth was made where the weights are.
        let found = (model.refused_steps().count, model.error().map(|error| error.to_string()));
        let text = "mlp.layers.0.weight: expected finite numbers after step 4, found a NaN or an \
                    infinity; the averages are as they were before";
        let expected = if steps == 0 { (1, None) } else { (0, Some(text.to_owned())) };
        assert_eq!(found, expected);
    }
}

/// What is small enough for a step that is sure of the next one can be too large for f16.
#[test]
fn an_average_in_f16_looks_at_what_it_takes() {
    struct Steep(GradientsParams);
    impl ModuleVisitor for Steep {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0.register(param.id, param.val().inner().ones_like().mul_scalar(1e3));
        }
    }
    let live = Own::new(4, DType::F32, Also::Nothing);
    let config = AverageConfig::new(Rule::ema(0.9)).with_dtype(Some(FloatDType::F16));
    let mut model = Averaged::new(live, [config]).unwrap();
    let mut optim = SgdConfig::new().init();
    for step in 1..=2 {
        let mut steep = Steep(GradientsParams::new());
        model.live().visit(&mut steep);
        model = model.optimize(&mut optim, 1e2.into(), steep.0);
        assert_eq!((model.steps(), model.refused_steps().count), (step, 0));
        assert_eq!(model.averages()[0].refused().count, step);
    }
}
