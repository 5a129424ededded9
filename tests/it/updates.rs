//! Updates of the hook after each step against `Average::update` in a loop by hand, where a module
//! of a user does more in its `optimize` than the optimizer's step.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex},
};

use burn::{
    module::{Module, ModuleMapper, ModuleVisitor, Param},
    optim::{
        GradientsParams, ModuleOptimizer, decay::WeightDecayConfig,
        lr_scheduler::module_lr_scheduler::ModuleLearningRate, momentum::MomentumConfig,
    },
    tensor::{DType, FloatDType, Tensor, TensorData},
    train::{InferenceStep, Interrupter, TrainOutput, TrainStep},
};
use burn_ema::{
    Average, AverageConfig, Error, Policy, Rule,
    fast::{AdamConfig, AdamWConfig, SgdConfig},
    model::{Answers, Batch, Mlp, MlpConfig},
    train::Averaged,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{
    common::{device, flat, randomized},
    guard::poisoned,
    hand::cast,
};

/// Two layers above and below the numbers from which on threads share the work.
const SIZES: [usize; 3] = [200, 190, 10];

/// The perceptron, whose own `optimize` may do more than the optimizer's step.
#[derive(Module, Debug)]
struct Own {
    mlp: Mlp,
    #[module(skip)]
    deed: Arc<Mutex<Deed>>,
}

/// Additions to the optimizer's step.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Deed {
    #[default]
    Nothing,
    PanicBefore,
    PanicAfter,
    /// Halves the weights after the step.
    Halve,
    /// Makes a weight a NaN after the step.
    Spoil,
}

const SPOILED: &str = "mlp.layers.1.weight";

impl Own {
    fn new(seed: u64, dtype: DType) -> Self {
        let mlp = MlpConfig::new(SIZES.to_vec()).init(&device()).unwrap();
        Self { mlp: cast(randomized(mlp, seed), dtype), deed: Arc::default() }.train()
    }

    /// Sets what the next `optimize` of all clones does.
    fn will(&self, deed: Deed) {
        *self.deed.lock().unwrap() = deed;
    }
}

impl TrainStep for Own {
    type Input = Batch;
    type Output = Answers;

    fn step(&self, batch: Batch) -> TrainOutput<Answers> {
        TrainStep::step(&self.mlp, batch)
    }

    fn optimize(
        self,
        optim: &mut ModuleOptimizer,
        lr: ModuleLearningRate,
        grads: GradientsParams,
    ) -> Self {
        struct Halve;
        impl ModuleMapper for Halve {
            fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
                param.map(|tensor| {
                    let tracked = tensor.is_require_grad();
                    tensor.inner().mul_scalar(0.5).autodiff().set_require_grad(tracked)
                })
            }
        }
        let deed = *self.deed.lock().unwrap();
        assert!(deed != Deed::PanicBefore, "a panic of a user, before the step");
        let stepped = optim.step(lr, self, grads);
        assert!(deed != Deed::PanicAfter, "a panic of a user, after the step");
        match deed {
            Deed::Halve => stepped.map(&mut Halve),
            Deed::Spoil => poisoned(stepped, SPOILED, f64::NAN),
            _ => stepped,
        }
    }
}

impl InferenceStep for Own {
    type Input = Batch;
    type Output = Answers;

    fn step(&self, batch: Batch) -> Answers {
        InferenceStep::step(&self.mlp, batch)
    }
}

fn batch(number: u64, dtype: DType) -> Batch {
    let mut rng = ChaCha8Rng::seed_from_u64(number);
    let mut rows = |width| {
        let numbers: Vec<f32> = (0..16 * width).map(|_| rng.random()).collect();
        let device = device().autodiff();
        Tensor::<2>::from_data(TensorData::new(numbers, [16, width]), &device).cast(dtype)
    };
    Batch { inputs: rows(SIZES[0]), targets: rows(SIZES[2]) }
}

/// Optimizers with their rates.
fn optimizers() -> Vec<(&'static str, ModuleOptimizer, f64)> {
    use burn::optim as burns;

    let momentum = MomentumConfig::new().with_momentum(0.9).with_nesterov(true);
    let decay = Some(WeightDecayConfig::new(1e-4));
    vec![
        ("sgd", SgdConfig::new().init(), 0.5),
        ("sgd, momentum", SgdConfig::new().with_momentum(Some(momentum.clone())).init(), 0.1),
        ("adam", AdamConfig::new().with_weight_decay(decay).init(), 0.01),
        ("adamw", AdamWConfig::new().init(), 0.01),
        ("burn's sgd", burns::SgdConfig::new().with_momentum(Some(momentum)).init(), 0.1),
        ("burn's adam", burns::AdamConfig::new().init(), 0.01),
        ("burn's adamw", burns::AdamWConfig::new().init(), 0.01),
    ]
}

/// Averages that mix at each step, copy, skip steps, start late, keep a window, leave paths out or
/// have another dtype.
fn configs() -> Vec<AverageConfig> {
    let named = |rule, name: &str| AverageConfig::new(rule).with_name(Some(name.into()));
    vec![
        AverageConfig::new(Rule::debiased(0.99)),
        named(Rule::ema(0.0), "live-again"),
        AverageConfig::new(Rule::Equal).with_every(2).with_start(3),
        named(Rule::ema(0.999), "part").on("mlp.layers.0.*", Policy::Copy),
        AverageConfig::new(Rule::Window { snapshots: 2, interval: 2 }),
        named(Rule::ema(0.9), "wide").with_dtype(Some(FloatDType::F64)),
        named(Rule::ema(0.9), "short"),
    ]
}

fn bits(module: &impl Module) -> Vec<u64> {
    flat(module, false).into_iter().map(f64::to_bits).collect()
}

/// The bits of live and of all averages.
type State = Vec<Vec<u64>>;

fn state(live: &Own, averages: &[Average<Own>]) -> State {
    let averages = averages.iter().map(|average| bits(&average.module()));
    [bits(live)].into_iter().chain(averages).collect()
}

/// The optimizer's step by hand, and then the update of each average.
struct ByHand {
    live: Own,
    averages: Vec<Average<Own>>,
    optim: ModuleOptimizer,
    lr: f64,
}

impl ByHand {
    fn new(live: Own, configs: &[AverageConfig], optim: ModuleOptimizer, lr: f64) -> Self {
        let averages = configs.iter().map(|config| config.init(&live).unwrap()).collect();
        Self { live, averages, optim, lr }
    }

    fn step(mut self, step: u64, deed: Deed, dtype: DType) -> Self {
        self.live.will(deed);
        let grads = TrainStep::step(&self.live, batch(step, dtype)).grads;
        let live = self.live.optimize(&mut self.optim, self.lr.into(), grads);
        for average in &mut self.averages {
            average.update(&live, step).unwrap();
        }
        Self { live, ..self }
    }

    fn state(&self) -> State {
        state(&self.live, &self.averages)
    }
}

/// The same by the hook.
struct ByHook {
    model: Averaged<Own>,
    optim: ModuleOptimizer,
    lr: f64,
    /// True if a clone of the model stays during each step, as in Burn's Learner.
    copies: bool,
}

impl ByHook {
    fn new(
        live: Own,
        configs: Vec<AverageConfig>,
        optim: ModuleOptimizer,
        lr: f64,
        copies: bool,
    ) -> Self {
        Self { model: Averaged::new(live, configs).unwrap().train(), optim, lr, copies }
    }

    fn step(mut self, step: u64, deed: Deed, dtype: DType) -> Self {
        self.model.live().will(deed);
        let grads = TrainStep::step(&self.model, batch(step, dtype)).grads;
        let before = self.copies.then(|| self.model.clone());
        let model = self.model.optimize(&mut self.optim, self.lr.into(), grads);
        drop(before);
        Self { model, ..self }
    }

    fn state(&self) -> State {
        state(self.model.live(), &self.model.averages())
    }
}

const STEPS: u64 = 11;

#[test]
fn the_bits_are_those_of_updates_by_hand() {
    for (seed, dtype) in [(0, DType::F32), (1, DType::F32), (2, DType::F64), (3, DType::F64)] {
        for (name, optim, lr) in optimizers() {
            // Weights that a user changes are averaged as they are.
            let deed = |step: u64| match seed % 2 == 1 && step.is_multiple_of(3) {
                true => Deed::Halve,
                false => Deed::Nothing,
            };
            let mut hand = ByHand::new(Own::new(seed, dtype), &configs(), optim.clone(), lr);
            let mut hooks = [false, true].map(|copies| {
                let live = Own::new(seed, dtype);
                ByHook::new(live, configs(), optim.clone(), lr, copies)
            });
            // Averages that someone holds do not follow.
            let mut held = Vec::new();
            for step in 1..=STEPS {
                hand = hand.step(step, deed(step), dtype);
                hooks = hooks.map(|hook| hook.step(step, deed(step), dtype));
                if step % 4 != 2 && step != STEPS {
                    continue;
                }
                let expected = hand.state();
                for hook in &hooks {
                    let case = format!("{name}, {dtype:?}, step {step}, copies: {}", hook.copies);
                    assert!(hook.state() == expected, "{case}");
                    assert_eq!(hook.model.steps(), step, "{case}");
                    held.push((hook.model.averages(), expected.clone()));
                }
            }
            for (averages, expected) in held {
                assert!(state(&hand.live, &averages)[1..] == expected[1..], "{name}, {dtype:?}");
            }
            for ByHook { model, .. } in hooks {
                assert!(model.error().is_none());
                assert_eq!(model.refused_steps().count, 0);
            }
        }
    }
}

#[test]
fn a_panic_in_a_step_leaves_the_averages_of_the_step_before() {
    for (name, optim, lr) in optimizers() {
        for (seed, deed) in [(4, Deed::PanicBefore), (5, Deed::PanicAfter)] {
            let dtype = DType::F32;
            let case = format!("{name}, {deed:?}");
            let mut hand = ByHand::new(Own::new(seed, dtype), &configs(), optim.clone(), lr);
            let mut hook = ByHook::new(Own::new(seed, dtype), configs(), optim.clone(), lr, true);
            for step in 1..=3 {
                hand = hand.step(step, Deed::Nothing, dtype);
                hook = hook.step(step, Deed::Nothing, dtype);
            }
            let before = hand.state();

            let model = hook.model.clone();
            model.live().will(deed);
            let grads = TrainStep::step(&model, batch(4, dtype)).grads;
            let panic = catch_unwind(AssertUnwindSafe(|| {
                model.optimize(&mut hook.optim, lr.into(), grads)
            }));
            assert!(panic.is_err(), "{case}");
            assert!(hook.model.error().is_none(), "{case}");
            assert!(hook.state() == before, "{case}");

            // The training goes on from there, with the optimizer as the panic left it.
            if deed == Deed::PanicAfter {
                let grads = TrainStep::step(&hand.live, batch(4, dtype)).grads;
                drop(hand.optim.step(lr, hand.live.clone(), grads));
            }
            for step in 4..=8 {
                hand = hand.step(step, Deed::Nothing, dtype);
                hook = hook.step(step, Deed::Nothing, dtype);
            }
            assert!(hook.model.error().is_none(), "{case}");
            assert_eq!(hook.model.steps(), 8, "{case}");
            assert!(hook.state() == hand.state(), "{case}");
        }
    }
}

#[test]
fn weights_that_are_spoiled_after_the_optimizers_step_end_the_training() {
    for (name, optim, lr) in optimizers() {
        for (steps, copies) in [(0, false), (0, true), (3, false), (3, true)] {
            let dtype = DType::F32;
            let case = format!("{name}, {steps} steps, copies: {copies}");
            let mut hook = ByHook::new(Own::new(6, dtype), configs(), optim.clone(), lr, copies);
            let interrupter = Interrupter::new();
            hook.model = hook.model.with_interrupter(interrupter.clone());
            for step in 1..=steps {
                hook = hook.step(step, Deed::Nothing, dtype);
            }
            let before = hook.state();
            assert!(hook.model.error().is_none() && !interrupter.should_stop(), "{case}");
            hook = hook.step(steps + 1, Deed::Spoil, dtype);
            let error = hook.model.error();
            let Some(Error::Weights { path, step }) = error else { panic!("{case}: {error:?}") };
            assert_eq!((&*path, step), (SPOILED, steps + 1), "{case}");
            assert!(interrupter.should_stop(), "{case}");
            assert_eq!(hook.model.refused_steps().count, 0, "{case}");
            let after = hook.state();
            assert!(after[1..] == before[1..], "{case}");
            for average in hook.model.averages() {
                assert_eq!(average.last_step(), steps, "{case}");
                assert_eq!(average.refused().count, 0, "{case}");
            }

            // Nothing changes any more: the module's own `optimize` is not called again.
            for step in steps + 2..=steps + 4 {
                hook = hook.step(step, Deed::PanicBefore, dtype);
            }
            assert!(hook.state() == after, "{case}");
            assert_eq!(hook.model.steps(), steps + 1, "{case}");
        }
    }
}

/// Weights that f32 holds, and that such an average does not.
#[test]
fn an_average_in_f16_refuses_what_overflows_there() {
    struct Steep(GradientsParams);
    impl ModuleVisitor for Steep {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0.register(param.id, param.val().inner().ones_like().mul_scalar(1e3));
        }
    }
    let config = AverageConfig::new(Rule::ema(0.9)).with_dtype(Some(FloatDType::F16));
    let beside = AverageConfig::new(Rule::ema(0.99));
    let mut model = Averaged::new(Own::new(7, DType::F32), [config, beside]).unwrap();
    let mut optim = SgdConfig::new().init();
    for step in 1..=2 {
        let mut steep = Steep(GradientsParams::new());
        model.live().visit(&mut steep);
        model = model.optimize(&mut optim, 1e2.into(), steep.0);
        assert_eq!((model.steps(), model.refused_steps().count), (step, 0));
        let averages = model.averages();
        let refused = [0, 1].map(|index| averages[index].refused().count);
        assert_eq!(refused, [step, 0]);
    }
    assert!(model.error().is_none());
}
