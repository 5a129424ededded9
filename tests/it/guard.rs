//! NaN and infinity: what an average refuses, and what becomes of the steps it missed.

use std::sync::{Arc, Mutex};

use burn::{
    lr_scheduler::constant::ConstantLr,
    module::{Module, ModuleMapper, Param, ParamGroup},
    nn::{Linear, LinearConfig},
    optim::{
        GradientsParams, ModuleOptimizer, lr_scheduler::module_lr_scheduler::ModuleLearningRate,
    },
    tensor::{DType, Device, FloatDType, Tensor, TensorData},
    train::{InferenceStep, RegressionOutput, TrainOutput, TrainStep},
};
use burn_ema::{
    Average, AverageConfig, Error, NonFinite, Policy, Rule, runs::fit, train::Averaged,
};

use crate::{
    common::{
        Net, Plan, Points, Weights, adam, assert_same, device, flat, floats, lerp, randomized,
    },
    hand::cast,
};

/// The network with a number in the place of the first one of the float at a path.
pub fn poisoned<M: Module>(module: M, path: &str, number: f64) -> M {
    struct Poison<'a>(Vec<String>, &'a str, f64, bool);
    impl ModuleMapper for Poison<'_> {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.0.push(name.to_owned());
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.0.pop();
        }
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            if self.0.join(".") != self.1 {
                return param;
            }
            self.3 = true;
            param.map(|tensor| {
                let data = tensor.to_data().convert::<f64>();
                let (mut numbers, shape) = (data.try_into_vec::<f64>().unwrap(), tensor.shape());
                numbers[0] = self.2;
                let data = TensorData::new(numbers, shape);
                Tensor::from_data(data, (&tensor.device(), tensor.dtype()))
                    .set_require_grad(tensor.is_require_grad())
            })
        }
    }
    let mut poison = Poison(Vec::new(), path, number, false);
    let module = module.map(&mut poison);
    assert!(poison.3, "no {path}");
    module
}

/// The network, which shows a NaN in one parameter after some steps, and goes on without it.
#[derive(Module, Debug)]
struct Unsteady {
    net: Net,
    #[module(skip)]
    sick: Arc<Mutex<Sick>>,
}

#[derive(Debug, Default)]
struct Sick {
    /// The steps after which live is not finite, and what it then holds.
    steps: Vec<u64>,
    number: f64,
    /// Live without it.
    healthy: Option<Net>,
    /// Live after each step, without it.
    healthy_ones: Vec<Net>,
}

const PATH: &str = "last.bias";

impl Unsteady {
    fn new(seed: u64, steps: &[u64], number: f64) -> Self {
        let sick = Sick { steps: steps.to_vec(), number, ..Sick::default() };
        Self { net: Net::new(seed, &device()), sick: Arc::new(Mutex::new(sick)) }
    }

    fn healthy_ones(&self) -> Vec<Net> {
        self.sick.lock().unwrap().healthy_ones.clone()
    }
}

impl TrainStep for Unsteady {
    type Input = Points;
    type Output = RegressionOutput;

    fn step(&self, points: Points) -> TrainOutput<RegressionOutput> {
        let healthy = self.sick.lock().unwrap().healthy.clone();
        TrainStep::step(&healthy.unwrap_or_else(|| self.net.clone()), points)
    }

    fn optimize(
        mut self,
        optim: &mut ModuleOptimizer,
        lr: ModuleLearningRate,
        grads: GradientsParams,
    ) -> Self {
        if let Some(healthy) = self.sick.lock().unwrap().healthy.take() {
            self.net = healthy;
        }
        self.net = optim.step(lr, self.net, grads);
        let mut sick = self.sick.lock().unwrap();
        sick.healthy_ones.push(self.net.valid());
        if sick.steps.contains(&(sick.healthy_ones.len() as u64)) {
            sick.healthy = Some(self.net.clone());
            self.net = poisoned(self.net.valid().train(), PATH, sick.number);
        }
        drop(sick);
        self
    }
}

impl InferenceStep for Unsteady {
    type Input = Points;
    type Output = RegressionOutput;

    fn step(&self, points: Points) -> RegressionOutput {
        InferenceStep::step(&self.net, points)
    }
}

/// The network with averages, whose own guard is the one that is looked at.
fn unsteady(
    live: Unsteady,
    configs: impl IntoIterator<Item = AverageConfig>,
) -> Averaged<Unsteady> {
    Averaged::new(live, configs).unwrap().with_non_finite(NonFinite::Take).unwrap()
}

/// The average of live after the steps that are taken, each update covering those since the last.
fn by_hand(seed: u64, lives: &[Net], decay: f64, refused: &[u64]) -> Vec<f64> {
    let (mut average, mut covered) = (flat(&Net::new(seed, &device()), false), 0);
    for (step, live) in (1..).zip(lives) {
        covered += 1;
        if !refused.contains(&step) {
            lerp(&mut average, &flat(live, false), 1.0 - decay.powi(covered));
            covered = 0;
        }
    }
    average
}

#[test]
fn a_step_that_is_not_finite_is_refused_whole_and_its_time_is_covered() {
    for seed in 0..3 {
        for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let directory = tempfile::tempdir().unwrap();
            let steps = [3, 7, 8];
            let take = AverageConfig::new(Rule::ema(0.5)).with_non_finite(NonFinite::Take);
            let configs = [AverageConfig::new(Rule::ema(0.9)), take];
            let model = unsteady(Unsteady::new(seed, &steps, number), configs);
            let training = Plan::new(directory.path()).training();
            let model = fit(training, model, adam(), ConstantLr::new(0.02)).launch().unwrap().model;
            let lives = model.live().healthy_ones();
            assert_eq!(lives.len(), 16);

            let [refuses, takes] = &model.averages()[..] else { panic!("two averages") };
            let expected = by_hand(seed, &lives, 0.9, &steps);
            assert_same(&flat(&refuses.module(), false), &expected);
            let refused = refuses.refused();
            assert_eq!((refused.count, refused.in_a_row), (3, 0));
            assert_eq!(refused.last, Some((format!("net.{PATH}"), 8)));
            assert_eq!(refuses.last_step(), 16, "a refused step was seen");
            // An update after a refused one has the weight of all the steps that it covers.
            let profile = refuses.profile();
            let weight = |step: f64| {
                let mut weights = profile.weights().iter();
                weights.find(|(at, _)| *at == step).map(|(_, weight)| *weight)
            };
            assert_eq!([3.0, 7.0, 8.0].map(weight), [None; 3]);
            let kept = |age: i32| 0.9f64.powi(age);
            for (step, steps) in [(2, 1), (4, 2), (6, 1), (9, 3), (16, 1)] {
                let expected = kept(16 - step) * (1.0 - kept(steps));
                let found = weight(f64::from(step)).unwrap();
                assert!((found - expected).abs() < 1e-12, "step {step}: {found}");
            }

            // The other one takes it, and only in the parameter that held it.
            assert_eq!(takes.refused().count, 0);
            let spoilt = floats(&takes.module()).into_iter();
            let spoilt: Vec<_> = spoilt
                .filter(|(.., numbers)| numbers.iter().any(|number| !number.is_finite()))
                .map(|(path, ..)| path)
                .collect();
            assert_eq!(spoilt, [format!("net.{PATH}")]);
            let healthy = |numbers: Vec<f64>| numbers[..numbers.len() - 3].to_vec();
            let expected = by_hand(seed, &lives, 0.5, &[]);
            assert_same(&healthy(flat(&takes.module(), false)), &healthy(expected));
        }
    }
}

fn trained(non_finite: NonFinite, steps: &[u64]) -> (Result<(), Error>, Vec<Average<Unsteady>>) {
    let directory = tempfile::tempdir().unwrap();
    let config = AverageConfig::new(Rule::ema(0.9)).with_non_finite(non_finite);
    let model = unsteady(Unsteady::new(0, steps, f64::NAN), [config]);
    let seen = model.clone();
    let training = Plan::new(directory.path()).training();
    let result = fit(training, model, adam(), ConstantLr::new(0.02)).launch().map(|_| ());
    (result, seen.averages())
}

#[test]
fn too_many_in_a_row_are_an_error_of_fit() {
    let skip = |limit| NonFinite::Skip { limit };
    // The limit of three is the default.
    assert_eq!(AverageConfig::new(Rule::Equal).non_finite, NonFinite::Auto);
    for (non_finite, steps, end) in [
        (NonFinite::Auto, &[2, 3, 4][..], Some((4, 3))),
        (skip(3), &[2, 3, 4][..], Some((4, 3))),
        (skip(3), &[2, 3, 5, 6, 8, 9], None),
        (skip(2), &[2, 4, 6, 7], Some((7, 2))),
        (skip(1), &[5], Some((5, 1))),
        (NonFinite::Error, &[2, 3], Some((2, 1))),
        (NonFinite::Take, &[2, 3, 4, 5, 6], None),
    ] {
        let (result, averages) = trained(non_finite, steps);
        match (result, end) {
            (Ok(()), None) => assert_eq!(averages[0].last_step(), 16),
            (Err(Error::NonFinite { path, step, in_a_row }), Some(expected)) => {
                assert_eq!((step, in_a_row), expected, "{non_finite:?}");
                assert_eq!(path, format!("net.{PATH}"));
                // As it was before, which is what was taken last.
                assert_eq!(averages[0].last_step(), step - 1);
                let finite = flat(&averages[0].module(), true).iter().all(|x| x.is_finite());
                assert!(finite, "the average is saved");
            }
            (found, expected) => panic!("{non_finite:?}: {found:?} is not {expected:?}"),
        }
    }
    let (error, _) = trained(NonFinite::Error, &[2]);
    assert_eq!(
        error.unwrap_err().to_string(),
        "net.last.bias holds a NaN or an infinity at step 2, and the average takes none: it is as \
         it was before (updates refused in a row: 1)"
    );
}

fn started(config: &AverageConfig) -> (Net, Average<Net>) {
    let net = Net::new(0, &device());
    (net.clone(), config.init(&net).unwrap())
}

/// What is copied is guarded as well, and so are statistics; what is not taken is not looked at.
#[test]
fn everything_that_is_taken_is_guarded_and_nothing_else() {
    let ema = || AverageConfig::new(Rule::ema(0.5));
    let taken = [
        (ema(), "first.weight"),
        (ema().on("first.*", Policy::Copy), "first.weight"),
        (ema().on("first.*", Policy::Rule(Rule::Equal)), "first.bias"),
        (ema(), "norm.gamma"),
        (ema(), "norm.running_var"),
        (ema().with_statistics(Policy::Average), "norm.running_mean"),
        (ema().with_start(5), "last.bias"),
        // Until the start what will be frozen is live's.
        (ema().with_start(5).on("first.*", Policy::Freeze), "first.weight"),
        (ema().on("first.*", Policy::LeaveOut), "last.weight"),
    ];
    for (config, path) in taken {
        for number in [f64::NAN, f64::INFINITY] {
            let (_, mut average) = started(&config);
            let before = flat(&average.module(), true);
            // The first time it is paired by path, the second time by the same ids.
            let live = poisoned(Net::new(1, &device()), path, number);
            for step in 1..=2 {
                average.update(&live, step).unwrap();
            }
            assert_eq!(average.refused().last, Some((path.to_owned(), 2)));
            assert_eq!(average.refused().count, 2);
            assert_eq!(flat(&average.module(), true), before, "{path}: refused whole");
            let error = average.update(&live, 3);
            assert!(matches!(error, Err(Error::NonFinite { step: 3, in_a_row: 3, .. })));
            assert_eq!((average.last_step(), average.refused().count), (2, 3), "and counted");
            assert_eq!(flat(&average.module(), true), before, "{path}: refused whole");
        }
    }
    let not_taken = [
        (ema().on("first.*", Policy::LeaveOut), "first.weight"),
        (ema().on("first.*", Policy::Freeze), "first.bias"),
        (ema().with_statistics(Policy::Freeze), "norm.running_var"),
        (ema().with_statistics(Policy::LeaveOut), "norm.running_var"),
    ];
    for (config, path) in not_taken {
        let (start, mut average) = started(&config);
        let live = Net::new(1, &device());
        average.update(&poisoned(live.clone(), path, f64::NAN), 1).unwrap();
        assert_eq!(average.refused().count, 0, "{path}");
        let mut expected = flat(&start, false);
        lerp(&mut expected, &flat(&live, false), 0.5);
        let last = expected.len() - 51..; // last.weight and last.bias
        assert_same(&flat(&average.module(), false)[last.clone()], &expected[last]);
        assert!(flat(&average.module(), true).iter().all(|number| number.is_finite()));
    }
}

/// Averages of other policies look at other parameters, in one and the same update.
#[test]
fn each_average_refuses_for_itself() {
    let ema = |decay| AverageConfig::new(Rule::ema(decay));
    let configs = [
        ema(0.9).on("last.*", Policy::LeaveOut),
        ema(0.8),
        ema(0.7).on("last.*", Policy::LeaveOut),
        ema(0.6).with_non_finite(NonFinite::Take),
        ema(0.5).with_every(2),
    ];
    let directory = tempfile::tempdir().unwrap();
    let under = |config: &AverageConfig| {
        let policies = config.policies.iter().cloned();
        policies.fold(AverageConfig { policies: Vec::new(), ..config.clone() }, |config, own| {
            config.on(format!("net.{}", own.pattern), own.policy)
        })
    };
    let configs = configs.each_ref().map(under);
    let model = unsteady(Unsteady::new(0, &[3, 6], f64::NAN), configs);
    let training = Plan::new(directory.path()).training();
    let model = fit(training, model, adam(), ConstantLr::new(0.02)).launch().unwrap().model;
    let counts: Vec<_> = model.averages().iter().map(|a| a.refused().count).collect();
    // The last one was not to be updated at step 3; refused at step 6 it tries again at 7.
    assert_eq!(counts, [0, 2, 0, 0, 1]);
    let profile = model.averages()[4].profile();
    let steps: Vec<_> = profile.weights().iter().map(|(step, _)| *step).collect();
    assert_eq!(steps, [2.0, 4.0, 7.0, 9.0, 11.0, 13.0, 15.0]);
}

#[test]
fn an_average_does_not_start_at_weights_that_are_not_finite() {
    for (path, number) in
        [("first.weight", f64::NAN), ("last.bias", f64::INFINITY), ("norm.running_mean", f64::NAN)]
    {
        let net = || poisoned(Net::new(0, &device()), path, number);
        let ema = || AverageConfig::new(Rule::ema(0.5));
        let message = |error: Error| error.to_string();
        let expected = format!(
            "{path}: expected finite numbers, found a NaN or an infinity in the weights that the \
             average starts from"
        );
        assert_eq!(ema().init(&net()).map(|_| ()).map_err(message), Err(expected.clone()));
        let hook = Averaged::new(net(), [ema()]).map(|_| ());
        assert_eq!(hook.map_err(message), Err(expected));
        let error = ema().with_non_finite(NonFinite::Error).init(&net());
        assert!(error.is_err());
        ema().with_non_finite(NonFinite::Take).init(&net()).unwrap();
        // What the average never takes may be so: a mask of minus infinities, say.
        ema().on(path, Policy::LeaveOut).init(&net()).unwrap();
        ema().on(path, Policy::Freeze).init(&net()).unwrap();
        assert!(ema().on(path, Policy::Copy).init(&net()).is_err());
    }
    let error = AverageConfig::new(Rule::Equal).with_non_finite(NonFinite::Skip { limit: 0 });
    let error = error.init(&Net::new(0, &device())).unwrap_err().to_string();
    assert!(error.contains("the limit of updates that are skipped in a row is 0"), "{error}");
}

/// A weight of 70 000 is an infinity in f16: in live's own dtype, or in that of the average.
#[test]
fn what_overflows_half_precision_is_refused() {
    if cfg!(feature = "wgpu") {
        return; // 16 bits there depend on the adapter
    }
    let large = |seed| poisoned(Net::new(seed, &device()), "last.bias", 70_000.0);
    let half = |net: Net| cast(net, DType::F16);
    // A clone would share the statistics, and a cast writes through.
    let start = || Net::new(0, &device());
    let ema = || AverageConfig::new(Rule::ema(0.5));

    let mut average = ema().init(&half(start())).unwrap();
    average.update(&half(large(1)), 1).unwrap();
    assert_eq!(average.refused().last, Some(("last.bias".to_owned(), 1)));
    average.update(&half(Net::new(1, &device())), 2).unwrap();
    assert_eq!((average.refused().count, average.refused().in_a_row), (1, 0));

    // Live in f32 holds it, and so does an average in f32.
    let mut average = ema().init(&start()).unwrap();
    average.update(&large(1), 1).unwrap();
    assert_eq!(average.refused().count, 0);

    let in_half = || ema().with_dtype(Some(FloatDType::F16));
    let mut average = in_half().init(&start()).unwrap();
    let before = flat(&average.module(), true);
    average.update(&large(1), 1).unwrap();
    assert_eq!(average.refused().last, Some(("last.bias".to_owned(), 1)));
    assert_eq!(flat(&average.module(), true), before);
    let error = in_half().init(&large(0)).map(|_| ()).unwrap_err().to_string();
    assert!(error.starts_with("last.bias: expected finite numbers"), "{error}");
    // What is copied keeps live's dtype, where it is finite.
    let mut copies = in_half().on("last.*", Policy::Copy).init(&start()).unwrap();
    copies.update(&large(1), 1).unwrap();
    assert_eq!(copies.refused().count, 0);
    assert!(flat(&copies.module(), false).contains(&70_000.0));
}

/// What was refused is known after a resume, so that the steps in a row go on.
#[test]
fn refusals_travel_with_the_record() {
    let config = AverageConfig::new(Rule::ema(0.5));
    let (_, mut average) = started(&config);
    average.update(&Net::new(1, &device()), 1).unwrap();
    for step in 2..=3 {
        average.update(&poisoned(Net::new(1, &device()), "first.bias", f64::NAN), step).unwrap();
    }
    let (_, fresh) = started(&config);
    let mut loaded = fresh.try_load_record(average.clone().into_record()).unwrap();
    assert_eq!(loaded.refused(), average.refused());
    assert_eq!(loaded.refused().in_a_row, 2);
    let error = loaded.update(&poisoned(Net::new(1, &device()), "first.bias", f64::NAN), 4);
    assert!(matches!(error, Err(Error::NonFinite { step: 4, in_a_row: 3, .. })));
    for average in [&mut average, &mut loaded] {
        average.update(&Net::new(2, &device()), 5).unwrap();
        assert_eq!(average.refused().in_a_row, 0);
    }
    assert_eq!(flat(&loaded.module(), true), flat(&average.module(), true));
}

/// A parameter that is not trained is taken all the same.
#[test]
fn untrained_parameters_are_guarded_too() {
    let net = Net::new(0, &device()).freeze_group(ParamGroup::from_paths(vec!["first.weight"]));
    let mut average = AverageConfig::new(Rule::ema(0.5)).init(&net).unwrap();
    average.update(&poisoned(net.clone(), "first.weight", f64::NAN), 1).unwrap();
    assert_eq!(average.refused().last, Some(("first.weight".to_owned(), 1)));
}

/// The difference of two numbers can be none: beyond half of the largest, a number is refused.
#[test]
fn numbers_whose_difference_is_none_are_refused() {
    let weights = |x: f64, dtype| Weights::new(&[x], dtype, &Device::flex());
    for (dtype, kept, large) in [
        (DType::F32, None, 3e38),
        (DType::F64, None, 1.5e308),
        (DType::F32, Some(FloatDType::F16), 4e4),
    ] {
        let config = AverageConfig::new(Rule::ema(0.5)).with_dtype(kept);
        let mut average = config.init(&weights(-0.4 * large, dtype)).unwrap();
        average.update(&weights(large, dtype), 1).unwrap();
        assert_eq!(average.refused().count, 1, "{dtype:?} {kept:?}");
        average.update(&weights(0.4 * large, dtype), 2).unwrap();
        assert!(flat(&average.module(), true)[0].is_finite());
        assert!(config.init(&weights(large, dtype)).is_err());
    }
    // Kept in f32, all numbers of f16 are small.
    let mut average = AverageConfig::new(Rule::ema(0.5)).init(&weights(-6e4, DType::F16)).unwrap();
    average.update(&weights(6e4, DType::F16), 1).unwrap();
    assert_eq!(average.refused().count, 0);
}

/// A model that fits no cache, whose numbers are looked at while they are taken, is refused whole
/// like any other: not a bit of what was taken before stays.
#[test]
fn a_large_model_is_refused_whole() {
    let linear = |seed| {
        randomized(LinearConfig::new(1024, 2100).init(&Device::flex()), seed) // 2.2 M weights
    };
    let live: Linear = linear(1);
    for number in [f64::NAN, f64::INFINITY, 3e38] {
        let mut average = AverageConfig::new(Rule::ema(0.999)).init(&linear(0)).unwrap();
        average.update(&live, 1).unwrap();
        let mut expected = flat(&average.module(), true);
        // The last parameter holds it, when all others were taken.
        average.update(&poisoned(live.clone(), "bias", number), 2).unwrap();
        assert_eq!(average.refused().last, Some(("bias".to_owned(), 2)));
        assert_same(&flat(&average.module(), true), &expected);
        average.update(&live, 3).unwrap();
        lerp(&mut expected, &flat(&live, true), 1.0 - 0.999f64.powi(2));
        assert_same(&flat(&average.module(), true), &expected);
    }
}

/// Where too little of a large average could be computed back, its numbers are looked at before.
#[test]
fn a_large_model_that_starts_at_zero_is_averaged_like_any_other() {
    let zeros: Linear = LinearConfig::new(1024, 2100)
        .with_initializer(burn::nn::Initializer::Zeros)
        .init(&Device::flex());
    let live = randomized(zeros.clone(), 1);
    let mut average = AverageConfig::new(Rule::ema(0.999)).init(&zeros).unwrap();
    let mut expected = flat(&zeros, true);
    for step in 1..=3 {
        average.update(&live, step).unwrap();
        lerp(&mut expected, &flat(&live, true), 1.0 - 0.999);
        assert_same(&flat(&average.module(), true), &expected);
    }
    average.update(&poisoned(live, "weight", f64::NAN), 4).unwrap();
    assert_eq!(average.refused().last, Some(("weight".to_owned(), 4)));
    assert_same(&flat(&average.module(), true), &expected);
}
