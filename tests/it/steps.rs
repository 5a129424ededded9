//! Optimizer steps whose numbers are not finite: refused, and as if they had not been.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use burn::{
    grad_clipping::GradientClippingConfig,
    lr_scheduler::{constant::ConstantLr, cosine::CosineAnnealingLrSchedulerConfig},
    module::{Module, ModuleVisitor, Param, ParamGroup},
    optim::{
        GradientsParams, ModuleOptimizer, MultiGradientsParams, OptimizerRecord,
        decay::WeightDecayConfig,
        lr_scheduler::module_lr_scheduler::{ModuleLearningRate, ModuleLrScheduler},
        momentum::MomentumConfig,
    },
    tensor::{Bytes, Device, Tensor, TensorData},
    train::{
        InferenceStep, Interrupter, MultiDeviceOptim, RegressionOutput, TrainOutput, TrainStep,
    },
};
use burn_ema::{
    AverageConfig, Error, NonFinite, Policy, Rule,
    average::Warning,
    fast::{AdamConfig, SgdConfig},
    runs::fit,
    train::Averaged,
};
use burn_pack::{Reader, Writer};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{
    common::{Net, Plan, Points, adam, device, flat, kinds, tensors},
    guard::poisoned,
    hand::cast,
    survive::rows,
};

/// Where a number comes in that is none.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Site {
    Input,
    Target,
    /// The loss that is shown; the gradients are those of a finite one.
    Loss,
    Gradient,
}

/// The network, into whose batches a number comes that is none.
#[derive(Module, Debug)]
struct Faulty {
    net: Net,
    #[module(skip)]
    faults: Arc<Mutex<Faults>>,
}

#[derive(Clone, Debug, Default)]
struct Faults {
    calls: u64,
    /// The calls with a fault, from 1.
    at: Vec<u64>,
    fault: Option<(Site, f32)>,
}

impl Faulty {
    fn new(seed: u64, device: &Device, at: &[u64], site: Site, number: f32) -> Self {
        let faults = Faults { calls: 0, at: at.to_vec(), fault: Some((site, number)) };
        Self { net: Net::new(seed, device), faults: Arc::new(Mutex::new(faults)) }
    }
}

/// The tensor with a number in the first place.
fn with_first<const D: usize>(tensor: Tensor<D>, number: f32) -> Tensor<D> {
    let shape = tensor.shape();
    let mut numbers = tensor.to_data().convert::<f32>().try_into_vec::<f32>().unwrap();
    numbers[0] = number;
    Tensor::from_data(TensorData::new(numbers, shape), (&tensor.device(), tensor.dtype()))
}

/// The gradient of a parameter with a number in the first place.
fn spoil<M: Module>(module: &M, grads: &mut GradientsParams, path: &str, number: f32) {
    struct Spoil<'a>(Vec<String>, &'a mut GradientsParams, &'a str, f32, bool);
    impl ModuleVisitor for Spoil<'_> {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.0.push(name.to_owned());
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.0.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if self.0.join(".") == self.2 {
                let gradient = self.1.remove::<D>(param.id).unwrap();
                self.1.register(param.id, with_first(gradient, self.3));
                self.4 = true;
            }
        }
    }
    let mut spoil = Spoil(Vec::new(), grads, path, number, false);
    module.visit(&mut spoil);
    assert!(spoil.4, "no {path}");
}

const PATH: &str = "net.first.weight";

impl TrainStep for Faulty {
    type Input = Points;
    type Output = RegressionOutput;

    fn step(&self, mut points: Points) -> TrainOutput<RegressionOutput> {
        let fault = {
            let mut faults = self.faults.lock().unwrap();
            faults.calls += 1;
            faults.fault.filter(|_| faults.at.contains(&faults.calls))
        };
        match fault {
            Some((Site::Input, number)) => points.x = with_first(points.x, number),
            Some((Site::Target, number)) => points.y = with_first(points.y, number),
            _ => {}
        }
        let mut output = TrainStep::step(&self.net, points);
        match fault {
            Some((Site::Loss, number)) => output.item.loss = with_first(output.item.loss, number),
            Some((Site::Gradient, number)) => spoil(self, &mut output.grads, PATH, number),
            _ => {}
        }
        output
    }
}

impl InferenceStep for Faulty {
    type Input = Points;
    type Output = RegressionOutput;

    fn step(&self, points: Points) -> RegressionOutput {
        InferenceStep::step(&self.net, points)
    }
}

fn batch(step: u64, device: &Device) -> Points {
    let mut rng = ChaCha8Rng::seed_from_u64(step);
    let mut rows = |width: usize| {
        let numbers: Vec<f32> = (0..8 * width).map(|_| rng.random::<f32>() - 0.5).collect();
        Tensor::from_data(TensorData::new(numbers, [8, width]), device)
    };
    Points { x: rows(2), y: rows(3) }
}

/// A training by hand, in the order of Burn's.
struct Training<M: burn::train::LearnerModel> {
    model: Averaged<M>,
    optim: ModuleOptimizer,
    lr: ModuleLrScheduler,
    device: Device,
}

type Clip = Option<GradientClippingConfig>;

fn clips() -> [Clip; 3] {
    [None, Some(GradientClippingConfig::Value(0.01)), Some(GradientClippingConfig::Norm(0.01))]
}

impl<M> Training<M>
where
    M: burn::train::LearnerModel + TrainStep<Input = Points, Output = RegressionOutput>,
{
    fn new(live: M, clip: Clip) -> Self {
        let device = live.devices()[0].clone();
        let averages = [Rule::ema(0.9), Rule::Equal].map(AverageConfig::new);
        let model = Averaged::new(live, averages).unwrap();
        let model = model.with_samples(|points: &Points| {
            let [rows, _] = points.x.dims();
            rows as u64
        });
        let lr = CosineAnnealingLrSchedulerConfig::new(0.05, 12).init().unwrap();
        let optim = AdamConfig::new().with_grad_clipping(clip).init();
        Self { model, optim, lr, device }
    }

    fn step(&mut self, step: u64) {
        let output = TrainStep::step(&self.model, batch(step, &self.device));
        let lr = self.lr.step();
        self.optimize(lr, output.grads);
    }

    fn optimize(&mut self, lr: ModuleLearningRate, grads: GradientsParams) {
        // As in Burn's Learner, whose own copy stays meanwhile.
        self.model = self.model.clone().optimize(&mut self.optim, lr, grads);
        for average in self.model.averages() {
            assert!(flat(&average.module(), true).iter().all(|number| number.is_finite()));
        }
    }

    /// The bits of all that a step may change, by name.
    fn digest(&self) -> BTreeMap<String, Vec<u32>> {
        let bits = |data: TensorData| -> Vec<u32> {
            data.try_into_vec::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
        };
        let mut digest = BTreeMap::new();
        let mut paths = BTreeMap::new();
        for (path, id, _, data) in tensors(&self.model.live().valid()) {
            digest.insert(format!("live {path}"), bits(data));
            paths.insert(id.val().to_string(), path);
        }
        for average in self.model.averages() {
            let name = average.name();
            for (path, _, _, data) in tensors(&average.module()) {
                digest.insert(format!("{name} {path}"), bits(data));
            }
            let numbers = format!(
                "{name}: step {}, mass {:x}, refused {:?}, weights {:?}",
                average.last_step(),
                average.mass().to_bits(),
                average.refused(),
                average.profile().weights()
            );
            digest.insert(numbers, Vec::new());
        }
        let counts = [self.model.steps(), self.model.samples()].map(|count| count as u32);
        digest.insert("steps and samples".to_owned(), counts.to_vec());
        let bytes = self.optim.to_record().into_bytes().unwrap();
        let reader = Reader::from_bytes(bytes).unwrap();
        let named = |name: &str| {
            let (id, field) = name.split_once('.').unwrap();
            format!("{field} of {}", paths[id])
        };
        for (name, scalar) in reader.scalars() {
            digest.insert(format!("{} is {scalar:?}", named(name)), Vec::new());
        }
        for tensor in reader.into_tensors().unwrap() {
            let name = named(&tensor.name);
            let bytes = tensor.into_bytes().unwrap();
            let words =
                bytes.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().unwrap()));
            digest.insert(name, words.collect());
        }
        digest
    }
}

const STEPS: u64 = 9;
const NUMBERS: [f32; 3] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY];

/// What comes of a training by Burn's optimizer without a guard or a fault, in which some steps are
/// left out.
fn without(seed: u64, clip: Clip, steps: u64, left_out: &[u64]) -> BTreeMap<String, Vec<u32>> {
    let live = Faulty::new(seed, &device().autodiff(), &[], Site::Loss, 0.0);
    let mut training = Training::new(live, clip.clone());
    training.optim = burns_adam(clip);
    training.model = training.model.with_non_finite(NonFinite::Take).unwrap();
    for step in 1..=steps {
        match left_out.contains(&step) {
            true => _ = training.lr.step(),
            false => training.step(step),
        }
    }
    training.digest()
}

#[test]
fn a_refused_step_changes_nothing_wherever_the_number_comes_in() {
    let mut cases = 0;
    for (seed, clip) in (0..).zip(clips()) {
        let mut expected = BTreeMap::new();
        for first in [1, 4, STEPS] {
            for length in 1..=4 {
                let first = first.min(STEPS + 1 - length);
                let at: Vec<u64> = (first..first + length).collect();
                for site in [Site::Input, Site::Target, Site::Loss, Site::Gradient] {
                    for number in NUMBERS {
                        let case = format!("{site:?} {number} at {at:?}, {clip:?}");
                        cases += 1;
                        let live = Faulty::new(seed, &device().autodiff(), &at, site, number);
                        let mut training = Training::new(live, clip.clone());
                        let interrupter = Interrupter::new();
                        training.model = training.model.with_interrupter(interrupter.clone());
                        if site == Site::Loss {
                            training.model = training.model.with_loss_guard();
                        }
                        // On to the last fault where there are too many, though Burn stops before.
                        let end = if length < 3 { STEPS } else { first + length - 1 };
                        (1..=end).for_each(|step| training.step(step));

                        let expected = expected
                            .entry((at.clone(), end))
                            .or_insert_with(|| without(seed, clip.clone(), end, &at));
                        assert_eq!(training.digest(), *expected, "{case}");
                        let refused = training.model.refused_steps();
                        let (what, step) = refused.last.unwrap();
                        match site {
                            Site::Loss => assert_eq!(what, "the loss"),
                            Site::Gradient => assert_eq!(what, format!("the gradient of {PATH}")),
                            _ => {
                                assert!(what.starts_with("the gradient of net."), "{case}: {what}")
                            }
                        }
                        assert_eq!(refused.count, length.min(3), "{case}");
                        let in_a_row = if end < first + length { length.min(3) } else { 0 };
                        assert_eq!(refused.in_a_row, in_a_row, "{case}");
                        assert_eq!(step, first + length.min(3) - 1, "{case}");
                        let error = training.model.error().map(|error| error.to_string());
                        let text = format!(
                            "step {step}: {what} holds a NaN or an infinity (steps refused in a \
                             row: 3); the model is as it was after step {}",
                            first - 1
                        );
                        assert_eq!(error, (length >= 3).then_some(text), "{case}");
                        assert_eq!(interrupter.should_stop(), length >= 3, "{case}");
                    }
                }
            }
        }
    }
    assert_eq!(cases, 3 * 3 * 4 * 4 * 3);
    rows::ran(15, cases);
}

/// The optimizer with a number in the first place of one of its moments.
fn with_moment(optim: ModuleOptimizer, id: u64, field: &str, number: f32) -> ModuleOptimizer {
    let reader = Reader::from_bytes(optim.to_record().into_bytes().unwrap()).unwrap();
    let (scalars, metadata) = (reader.scalars().clone(), reader.metadata().clone());
    let name = format!("{id}.{field}");
    let mut found = false;
    let tensors = reader.into_tensors().unwrap().into_iter().map(|tensor| {
        if tensor.name != name {
            return tensor;
        }
        found = true;
        let (name, dtype, shape, id, bytes) = tensor.into_parts().unwrap();
        let mut bytes = bytes.to_vec();
        bytes[..4].copy_from_slice(&number.to_le_bytes());
        burn_pack::Tensor::new(name, dtype, shape, id, Bytes::from_bytes_vec(bytes))
    });
    let mut writer = Writer::new(tensors.collect());
    assert!(found, "{name}");
    for (name, value) in scalars {
        writer = writer.with_scalar(&name, value);
    }
    for (name, value) in metadata {
        writer = writer.with_metadata(&name, &value);
    }
    let record = OptimizerRecord::from_bytes(writer.into_bytes().unwrap()).unwrap();
    optim.load_record(record)
}

/// The bits that stand for a NaN or an infinity, by name.
fn bad(digest: &BTreeMap<String, Vec<u32>>) -> Vec<&str> {
    let bad = |bits: &&u32| !f32::from_bits(**bits).is_finite();
    let each = digest.iter().filter(|(name, _)| *name != "steps and samples");
    each.flat_map(|(name, bits)| bits.iter().filter(bad).map(|_| name.as_str())).collect()
}

/// The part of a digest that is of the averages.
fn of_averages(digest: &BTreeMap<String, Vec<u32>>) -> BTreeMap<String, Vec<u32>> {
    let is_theirs = |name: &str| name.starts_with("ema(0.9)") || name.starts_with("equal");
    let theirs = digest.iter().filter(|(name, _)| is_theirs(name));
    let theirs: BTreeMap<_, _> = theirs.map(|(name, bits)| (name.clone(), bits.clone())).collect();
    assert!(theirs.len() > 2);
    theirs
}

/// The training has ended at a step with weights that are not finite: its averages are as they were
/// before, and nothing changes any more.
#[track_caller]
fn ended_with_weights<M>(mut training: Training<M>, before: &BTreeMap<String, Vec<u32>>, step: u64)
where
    M: burn::train::LearnerModel + TrainStep<Input = Points, Output = RegressionOutput>,
{
    let text = format!(
        "step {step}: {PATH} holds a NaN or an infinity after a step with finite gradients; the \
         averages are as they were after step {}",
        step - 1
    );
    assert_eq!(training.model.error().map(|error| error.to_string()), Some(text));
    assert_eq!(training.model.refused_steps().count, 0);
    let after = training.digest();
    assert_eq!(of_averages(&after), of_averages(before));
    assert!(bad(&after).contains(&format!("live {PATH}").as_str()));
    training.step(step + 1);
    assert_eq!(training.digest(), after);
}

/// A weight that is not finite shows in the gradients of the next step, which is refused; a moment
/// shows in the weights after it.
#[test]
fn a_weight_or_moment_that_is_not_finite_ends_the_training() {
    let mut cases = 0;
    for (seed, clip) in (0..).zip(clips()) {
        for field in ["", "momentum.moment_1", "momentum.moment_2"] {
            for number in NUMBERS {
                for first in [2, 5, STEPS - 2] {
                    let case = format!("{field} {number} at {first}, {clip:?}");
                    cases += 1;
                    let live = Faulty::new(seed, &device().autodiff(), &[], Site::Loss, 0.0);
                    let mut training = Training::new(live, clip.clone());
                    if cases % 2 == 0 {
                        training.optim = burns_adam(clip.clone());
                    }
                    (1..first).for_each(|step| training.step(step));
                    let id = training.model.live().net.first.weight.id.val();
                    match field {
                        "" => {
                            let number = f64::from(number);
                            training.model = poisoned(training.model, PATH, number);
                        }
                        field => training.optim = with_moment(training.optim, id, field, number),
                    }
                    let before = training.digest();
                    let place = if field.is_empty() { "live" } else { field };
                    assert!(bad(&before)[0].starts_with(place), "{case}");
                    assert_eq!(bad(&before).len(), 1, "{case}");
                    if field.is_empty() {
                        (first..=STEPS).for_each(|step| training.step(step));
                        assert_eq!(training.digest(), before, "{case}");
                        let found = training.model.error();
                        let Some(Error::RefusedStep { what, step, in_a_row }) = found else {
                            panic!("{case}: {found:?}")
                        };
                        assert_eq!((step, in_a_row), (first + 2, 3), "{case}");
                        assert!(what.starts_with("the gradient of net."), "{case}: {what}");
                    } else if field.ends_with('2') && number == f32::INFINITY {
                        // A weight by an infinity does not move, and nothing else knows of it.
                        (first..=STEPS).for_each(|step| training.step(step));
                        assert!(training.model.error().is_none(), "{case}");
                        assert_eq!(bad(&training.digest()).len(), 1, "{case}");
                    } else {
                        training.step(first);
                        ended_with_weights(training, &before, first);
                    }
                }
            }
        }
    }
    assert_eq!(cases, 3 * 3 * 3 * 3);
    rows::ran(15, cases);
}

fn burns_adam(clip: Clip) -> ModuleOptimizer {
    burn::optim::AdamConfig::new().with_grad_clipping(clip).init()
}

fn faulty(at: &[u64], site: Site, number: f32) -> Training<Faulty> {
    Training::new(Faulty::new(0, &device().autodiff(), at, site, number), None)
}

/// The root of a negative moment is not finite, though the moment itself is.
#[test]
fn a_negative_moment_that_is_loaded_within_a_training_ends_it() {
    for burns in [false, true] {
        let mut training = faulty(&[], Site::Loss, 0.0);
        if burns {
            training.optim = burns_adam(None);
        }
        (1..4).for_each(|step| training.step(step));
        let id = training.model.live().net.first.weight.id.val();
        training.optim = with_moment(training.optim, id, "momentum.moment_2", -1.0);
        let before = training.digest();
        assert!(bad(&before).is_empty());
        training.step(4);
        ended_with_weights(training, &before, 4);
    }
}

/// The moment divides by it, so that its weight moves no more; no commit takes it.
#[test]
fn a_gradient_whose_square_is_an_infinity_spoils_its_moment_unless_it_is_clipped() {
    let moments = |clip| {
        let live = Faulty::new(0, &device().autodiff(), &[2], Site::Gradient, -1e30);
        let mut training = Training::new(live, clip);
        (1..=3).for_each(|step| training.step(step));
        assert_eq!((training.model.steps(), training.model.refused_steps().count), (3, 0));
        bad(&training.digest()).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(moments(None), [format!("momentum.moment_2 of {PATH}")]);
    assert!(moments(Some(GradientClippingConfig::Value(0.01))).is_empty());
    assert!(moments(Some(GradientClippingConfig::Norm(0.01))).is_empty());
}

#[test]
fn a_step_to_a_weight_that_is_not_finite_ends_the_training() {
    let mut training = faulty(&[1], Site::Gradient, 1e12);
    training.optim = SgdConfig::new().init();
    let before = training.digest();
    let output = TrainStep::step(&training.model, batch(1, &training.device));
    training.optimize(1e30.into(), output.grads);
    ended_with_weights(training, &before, 1);
}

/// A rate that is not finite, or so large that weights become so.
#[test]
fn a_rate_that_is_not_finite_or_too_large_ends_the_training() {
    let optimizers = || [SgdConfig::new().init(), AdamConfig::new().init(), burns_adam(None)];
    for optim in optimizers() {
        for number in [f64::NAN, f64::INFINITY, 1e300, -1e300] {
            let mut training = faulty(&[], Site::Loss, 0.0);
            training.optim = optim.clone();
            (1..=4).for_each(|step| training.step(step));
            let before = training.digest();
            let grads = TrainStep::step(&training.model, batch(9, &training.device)).grads;
            training.optimize(number.into(), grads);
            let Some(Error::Weights { step: 5, .. }) = training.model.error() else {
                panic!("{number}: {:?}", training.model.error())
            };
            assert_eq!(of_averages(&training.digest()), of_averages(&before), "{number}");
        }
    }
}

/// The first step does not use the shares of the momentum.
#[test]
fn a_momentum_that_is_not_finite_ends_the_training_at_the_second_step() {
    for momentum in [
        MomentumConfig::new().with_momentum(f64::NAN),
        MomentumConfig::new().with_dampening(f64::NAN),
        MomentumConfig::new().with_dampening(f64::INFINITY),
    ] {
        let mut training = faulty(&[], Site::Loss, 0.0);
        training.optim = SgdConfig::new().with_momentum(Some(momentum)).init();
        training.step(1);
        let before = training.digest();
        training.step(2);
        ended_with_weights(training, &before, 2);
    }
}

/// The decay of a weight that someone puts in overflows, with gradients of zero.
#[test]
fn a_weight_that_is_put_in_within_a_training_is_looked_at() {
    struct Zeros(GradientsParams);
    impl ModuleVisitor for Zeros {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if param.is_require_grad() {
                self.0.register(param.id, param.val().inner().zeros_like());
            }
        }
    }
    let mut training = faulty(&[], Site::Loss, 0.0);
    let decay = Some(WeightDecayConfig::new(1e3));
    training.optim = SgdConfig::new().with_weight_decay(decay).init();
    let step = |training: &mut Training<Faulty>| {
        let mut zeros = Zeros(GradientsParams::new());
        training.model.live().net.visit(&mut zeros);
        training.optimize(1e-4.into(), zeros.0);
    };
    (1..=3).for_each(|_| step(&mut training));
    training.model = poisoned(training.model, PATH, 1e37);
    let before = training.digest();
    step(&mut training);
    ended_with_weights(training, &before, 4);
}

/// A mask of minus infinities is no reason to refuse: it has no gradient.
#[test]
fn weights_without_a_gradient_are_not_looked_at() {
    #[derive(Module, Debug)]
    struct Masked {
        net: Net,
        mask: Param<Tensor<1>>,
    }
    impl TrainStep for Masked {
        type Input = Points;
        type Output = RegressionOutput;
        fn step(&self, points: Points) -> TrainOutput<RegressionOutput> {
            TrainStep::step(&self.net, points)
        }
    }
    impl InferenceStep for Masked {
        type Input = Points;
        type Output = RegressionOutput;
        fn step(&self, points: Points) -> RegressionOutput {
            InferenceStep::step(&self.net, points)
        }
    }
    let device = device().autodiff();
    let mask = Param::from_tensor(Tensor::from_data([f32::NEG_INFINITY, 0.0], &device));
    let masked = Masked { net: Net::new(0, &device), mask };
    let masked = masked.freeze_group(ParamGroup::from_paths(vec!["mask"]));
    let config = AverageConfig::new(Rule::ema(0.9)).on("mask", Policy::Freeze);
    let mut model = Averaged::new(masked, [config]).unwrap();
    let mut optim = adam();
    for step in 1..=3 {
        let output = TrainStep::step(&model, batch(step, &device));
        model = model.optimize(&mut optim, 0.01.into(), output.grads);
    }
    assert_eq!((model.steps(), model.refused_steps().count), (3, 0));
}

#[test]
fn what_is_done_can_be_chosen() {
    let with = |policy, site| {
        let mut training = faulty(&[2, 3], site, f32::NAN);
        training.model = training.model.with_non_finite(policy).unwrap();
        training.step(1);
        training.step(2);
        training
    };
    let training = with(NonFinite::Take, Site::Gradient);
    assert_eq!((training.model.steps(), training.model.refused_steps().count), (2, 0));
    assert!(bad(&training.digest()).contains(&"live net.first.weight"));
    // Nor is a loss looked at, unless that is asked for.
    let training = with(NonFinite::Error, Site::Loss);
    assert_eq!((training.model.steps(), training.model.refused_steps().count), (2, 0));

    // The first is an error, and after it nothing changes, be it fine.
    let mut training = with(NonFinite::Error, Site::Gradient);
    let text = format!(
        "step 2: the gradient of {PATH} holds a NaN or an infinity (steps refused in a row: 1); the \
         model is as it was after step 1"
    );
    assert_eq!(training.model.error().unwrap().to_string(), text);
    (3..=5).for_each(|step| training.step(step));
    assert_eq!(training.digest(), without(0, None, 1, &[]));
    assert_eq!(training.model.refused_steps().count, 1);

    let training = with(NonFinite::Skip { limit: 2 }, Site::Gradient);
    assert!(training.model.error().is_none());
    let error = training.model.with_non_finite(NonFinite::Skip { limit: 0 }).map(|_| ());
    let error = error.unwrap_err().to_string();
    assert_eq!(error, "the limit of steps that are refused in a row is 0, expected 1 or more");
}

/// What was refused is known after a resume, so that the steps in a row go on.
#[test]
fn refused_steps_are_in_the_record_and_in_one_warning() {
    let at = [2, 4, 5, 6, 7];
    let mut training = faulty(&at, Site::Gradient, f32::NAN);
    (1..=5).for_each(|step| training.step(step));
    let refused = training.model.refused_steps();
    let what = format!("the gradient of {PATH}");
    assert_eq!((refused.count, refused.in_a_row), (3, 2));
    assert_eq!(refused.last, Some((what.clone(), 5)));
    assert_eq!(training.model.valid().refused_steps(), refused);
    let warning = training.model.take_warnings().pop();
    let expected = Warning::RefusedSteps { count: 3, what: what.clone(), step: 5 };
    assert_eq!(
        expected.to_string(),
        format!(
            "3 steps of the optimizer were refused, the last at step 5: {what} held a NaN or an \
             infinity"
        )
    );
    assert_eq!(warning, Some(expected));
    assert!(training.model.take_warnings().is_empty());

    let record = training.model.clone().into_record();
    let mut resumed = faulty(&[1], Site::Gradient, f32::NAN);
    resumed.model = resumed.model.try_load_record(record).unwrap();
    assert_eq!(resumed.model.refused_steps(), refused);
    let mut copy =
        Training { model: training.model.valid().train(), ..faulty(&[], Site::Loss, 0.0) };
    for training in [&mut training, &mut copy, &mut resumed] {
        training.step(6);
        let error = training.model.error();
        let Some(Error::RefusedStep { step: 6, in_a_row: 3, .. }) = error else {
            panic!("{error:?}")
        };
    }
}

#[test]
fn every_backend_and_dtype_is_looked_at() {
    for (device, dtype, _) in kinds() {
        for number in NUMBERS {
            let live = Faulty::new(0, &device, &[2], Site::Gradient, number);
            let live = Faulty { net: cast(live.net, dtype), ..live }.train();
            let device = device.clone().autodiff();
            let mut model = Averaged::new(live, [AverageConfig::new(Rule::ema(0.5))]).unwrap();
            let mut optim = adam();
            let mut lives = Vec::new();
            for step in 1..=3 {
                let Points { x, y } = batch(step, &device);
                let points = Points { x: x.cast(dtype), y: y.cast(dtype) };
                let output = TrainStep::step(&model, points);
                model = model.optimize(&mut optim, 0.01.into(), output.grads);
                lives.push(flat(&model.live().valid(), true));
            }
            assert_eq!(
                (model.steps(), model.refused_steps().count),
                (2, 1),
                "{device:?} {dtype:?}"
            );
            assert_eq!(lives[0], lives[1]);
            assert_ne!(lives[1], lives[2]);
        }
    }
}

#[test]
fn every_strategy_refuses_a_step_once() {
    let directory = tempfile::tempdir().unwrap();
    let single = || Plan::new(directory.path());
    let two = |optim| Plan { devices: vec![device(); 2], optim, ..single() };
    // The strategy, its optimizer steps, and the one that a fault in the fifth batch is of.
    let plans = [
        (single(), 16, 5),
        (Plan { accumulate: 4, ..single() }, 4, 2),
        (two(MultiDeviceOptim::OptimMainDevice), 8, 3),
        (two(MultiDeviceOptim::OptimSharded), 8, 3),
    ];
    for (plan, steps, refused_one) in plans {
        for site in [Site::Input, Site::Loss, Site::Gradient] {
            let live = Faulty::new(0, &device(), &[5], site, f32::NAN);
            let model = Averaged::new(live, [AverageConfig::new(Rule::ema(0.9))]).unwrap();
            let lr = ConstantLr::new(0.02);
            let model = fit(plan.training(), model.with_loss_guard(), adam(), lr).launch();
            let model = model.unwrap().model;
            let refused = model.refused_steps();
            assert_eq!((refused.count, refused.in_a_row), (1, 0), "{site:?}");
            assert_eq!(refused.last.map(|(_, step)| step), Some(refused_one), "{site:?}");
            assert_eq!(model.steps(), steps - 1, "{site:?}");
            assert_eq!(model.averages()[0].last_step(), steps - 1, "{site:?}");
            assert!(flat(&model.live().valid(), true).iter().all(|number| number.is_finite()));
            assert!(flat(&model.average(0).unwrap(), true).iter().all(|number| number.is_finite()));
        }
    }
}

/// An infinity that is clipped, of one device among two.
#[test]
fn the_gradients_of_every_device_are_looked_at() {
    let clip = Some(GradientClippingConfig::Value(0.01));
    for bad in 0..2 {
        let live = Faulty::new(0, &device().autodiff(), &[bad + 1], Site::Gradient, f32::INFINITY);
        let mut training = Training::new(live, clip.clone());
        let before = training.digest();
        let grads = (1..=2).map(|number| {
            let points = batch(number, &training.device);
            (TrainStep::step(&training.model, points).grads, device())
        });
        let grads = MultiGradientsParams { grads: grads.collect() };
        training.model = training.model.optimize_multi(&mut training.optim, 0.01.into(), grads);
        assert_eq!(training.digest(), before);
        let what = format!("the gradient of {PATH}");
        assert_eq!(training.model.refused_steps().last, Some((what, 1)));
    }
}

#[test]
fn statistics_that_no_average_takes_are_put_back_too() {
    let after = |steps| {
        let config = AverageConfig::new(Rule::ema(0.9)).with_statistics(Policy::LeaveOut);
        let mut training = faulty(&[3], Site::Input, f32::NAN);
        training.model = Averaged::new(training.model.live().clone(), [config]).unwrap();
        (1..=steps).for_each(|step| training.step(step));
        training.digest()
    };
    assert_eq!(after(3), after(2));
}

/// Gradients of another origin than the hook's own `step`.
#[test]
fn only_what_this_step_changed_is_put_back() {
    let mut training = faulty(&[], Site::Loss, 0.0);
    training.step(1);
    let mut grads = TrainStep::step(training.model.live(), batch(2, &training.device)).grads;
    spoil(training.model.live(), &mut grads, PATH, f32::NAN);
    training.optimize(0.01.into(), grads);
    assert_eq!((training.model.refused_steps().count, training.model.steps()), (1, 1));
    assert_eq!(training.model.samples(), 8);
}

/// Replicas that make the same step share the averages, and the count.
#[test]
fn a_step_of_several_replicas_is_counted_once() {
    let mut one = faulty(&[1, 2], Site::Gradient, f32::NAN);
    let mut other = Training {
        model: one.model.clone(),
        optim: one.optim.clone(),
        ..faulty(&[], Site::Loss, 0.0)
    };
    for replica in [&mut one, &mut other] {
        replica.step(1);
    }
    assert_eq!(one.model.refused_steps(), other.model.refused_steps());
    assert_eq!(one.model.refused_steps().count, 1);
    for replica in [&mut one, &mut other] {
        replica.step(2);
    }
    assert_eq!((one.model.steps(), other.model.steps()), (1, 1));
    assert_eq!(other.model.refused_steps().in_a_row, 0);
    assert_eq!(one.model.averages()[0].last_step(), 1);
}

#[test]
fn too_many_in_a_row_are_an_error_of_fit() {
    let directory = tempfile::tempdir().unwrap();
    let live = Faulty::new(0, &device(), &[2, 5, 6, 7], Site::Gradient, f32::INFINITY);
    let model = Averaged::new(live, [AverageConfig::new(Rule::ema(0.9))]).unwrap();
    let seen = model.clone();
    let training = Plan::new(directory.path()).training();
    let error = fit(training, model, adam(), ConstantLr::new(0.02)).launch().map(|_| ());
    let text = format!(
        "step 7: the gradient of {PATH} holds a NaN or an infinity (steps refused in a row: 3); the \
         model is as it was after step 4"
    );
    assert_eq!(error.unwrap_err().to_string(), text);
    // One of the four before it was refused, too.
    assert_eq!(seen.averages()[0].last_step(), 3);
    assert_eq!(seen.refused_steps().count, 4);
}
