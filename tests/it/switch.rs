//! The average copied back into live from time to time, against loops by hand.

use burn::{
    module::{Lora, Module, ModuleVisitor, Param, ParamGroup, ParamId},
    tensor::Tensor,
    train::{InferenceStep, MultiDeviceOptim, RegressionOutput, TrainStep},
};
use burn_ema::{
    AverageConfig, Policy, Rule,
    train::{Averaged, Switch},
};

use crate::{
    common::{Net, Plan, Points, adam, assert_same, device, flat, floats, lerp, points},
    hand::{ByHand, Hand, with_floats},
};

const DECAY: f64 = 0.9;

/// The average of a plain module, copied back as a user would write it.
#[derive(Clone, Debug)]
struct CopiesBack {
    average: Vec<f64>,
    step: u64,
    switch: Switch,
}

impl CopiesBack {
    fn new<M: Module>(module: &M, switch: Switch) -> Self {
        Self { average: flat(module, false), step: 0, switch }
    }

    fn after_step_of<M: Module>(&mut self, module: M) -> M {
        self.step += 1;
        let mut live = flat(&module, false);
        lerp(&mut self.average, &live, 1.0 - DECAY);
        if !self.step.is_multiple_of(self.switch.every) {
            return module;
        }
        lerp(&mut live, &self.average, self.switch.share);
        with_floats(module, &live)
    }
}

impl Hand for CopiesBack {
    fn after_step(&mut self, net: Net) -> Net {
        self.after_step_of(net)
    }
}

fn config() -> AverageConfig {
    AverageConfig::new(Rule::ema(DECAY))
}

fn switched<M: burn::train::LearnerModel>(live: M, every: u64, share: f64) -> Averaged<M> {
    Averaged::new(live, [config()]).unwrap().with_switch(Switch { every, share }).unwrap()
}

/// Trains by the plan with the hook and by hand and compares live and the average.
///
/// `statistics` says whether those of batch norms are compared too: two workers write them in
/// the order in which they come.
#[track_caller]
fn check(plan: &Plan, seed: u64, every: u64, share: f64, statistics: bool) {
    let net = || Net::new(seed, &device());
    let switch = Switch { every, share };
    let by_hand = ByHand::of(net(), CopiesBack::new(&net(), switch));
    let by_hand = plan.launch(by_hand).model;
    let model = plan.launch(switched(net(), every, share)).model;
    assert!(model.error().is_none());
    let [found, expected] = [&model.live().valid(), &by_hand.net.valid()];
    assert_same(&flat(found, statistics), &flat(expected, statistics));
    let hand = by_hand.held();
    assert_eq!(model.steps(), hand.step);
    assert_same(&flat(&model.average(0).unwrap(), false), &hand.average);
    let (live, average) = (flat(found, false), hand.average);
    assert_eq!(live == average, share == 1.0 && hand.step.is_multiple_of(every));
}

#[test]
fn a_switch_equals_a_loop_by_hand_under_the_learner() {
    for seed in 0..3 {
        // Eight steps are an epoch; three steps do not divide one.
        for every in [1, 3, 4, 8] {
            for share in [1.0, 0.5] {
                let directory = tempfile::tempdir().unwrap();
                check(&Plan::new(directory.path()), seed, every, share, true);
            }
        }
    }
}

#[test]
fn a_switch_equals_a_loop_by_hand_with_accumulation_and_on_several_devices() {
    let alike = vec![device(); 2];
    #[cfg(feature = "ndarray")]
    #[expect(deprecated, reason = "Burn still ships it, and so it is checked")]
    let device_lists = [alike, [device(), burn::tensor::Device::ndarray()].into()];
    #[cfg(not(feature = "ndarray"))]
    let device_lists = [alike];
    for (every, share) in [(1, 1.0), (1, 0.5), (4, 1.0), (3, 0.5)] {
        let directory = tempfile::tempdir().unwrap();
        let plan = Plan { accumulate: 2, ..Plan::new(directory.path()) };
        check(&plan, 1, every, share, true);
        for devices in &device_lists {
            for optim in [MultiDeviceOptim::OptimMainDevice, MultiDeviceOptim::OptimSharded] {
                let directory = tempfile::tempdir().unwrap();
                let devices = devices.clone();
                let plan = Plan { devices, optim, ..Plan::new(directory.path()) };
                check(&plan, 2, every, share, false);
            }
        }
    }
}

/// A plain module, stepped by Burn's optimizer, beside the hook: the same gradients go to both.
///
/// `anew` makes the optimizer by hand anew after each switch, as one that lost its moments.
fn beside<M>(module: M, every: u64, share: f64, anew: bool) -> (Averaged<M>, M, CopiesBack)
where
    M: burn::train::LearnerModel
        + TrainStep<Input = Points>
        + InferenceStep<Input = Points, Output = RegressionOutput>,
{
    // Each with statistics of its own and the ids of the other.
    let [module, other] = [module.valid().train(), module.valid().train()];
    let mut hand = CopiesBack::new(&module, Switch { every, share });
    let (mut plain, mut model) = (module, switched(other, every, share));
    let mut optimizers = [adam(), adam()];
    for batch in points(96, 3).to_device(&device().autodiff()).iter() {
        let batch = batch.unwrap();
        let grads = TrainStep::step(&plain, batch.clone()).grads;
        plain = hand.after_step_of(optimizers[0].step(0.02, plain, grads));
        if anew && hand.step.is_multiple_of(every) {
            optimizers[0] = adam();
        }
        let grads = TrainStep::step(&model, batch).grads;
        model = model.clone().optimize(&mut optimizers[1], 0.02.into(), grads);
        assert!(model.error().is_none());
    }
    (model, plain, hand)
}

fn ids<M: Module>(module: &M) -> Vec<(String, ParamId)> {
    floats(module).into_iter().map(|(path, id, _)| (path, id)).collect()
}

/// What an optimizer must find of a parameter: autodiff, and whether it is trained.
fn training_states<M: Module>(module: &M) -> Vec<(bool, bool)> {
    struct States(Vec<(bool, bool)>);
    impl ModuleVisitor for States {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let tensor = param.base();
            self.0.push((tensor.is_autodiff(), tensor.is_require_grad()));
        }
    }
    let mut states = States(Vec::new());
    module.visit(&mut states);
    states.0
}

#[test]
fn the_optimizer_goes_on_with_its_moments() {
    for seed in 0..3 {
        for (every, share) in [(1, 1.0), (4, 1.0), (4, 0.5), (6, 0.25)] {
            let net = Net::new(seed, &device().autodiff()).train();
            let (model, plain, hand) = beside(net.clone(), every, share, false);
            assert_eq!(hand.step, 12);
            assert_same(&flat(&model.live().valid(), true), &flat(&plain.valid(), true));
            assert_same(&flat(&model.average(0).unwrap(), false), &hand.average);
            assert_eq!(ids(model.live()), ids(&net));
            assert_eq!(training_states(model.live()), training_states(&net));
            let (_, lost, _) = beside(net, every, share, true);
            assert_ne!(flat(&plain, false), flat(&lost, false), "else moments do not matter");
        }
    }
}

/// Parameters that are not trained stay as they are, to the bit, and stay untrained.
#[test]
fn frozen_parameters_stay() {
    let mut net = Net::new(0, &device().autodiff()).train();
    net.first.weight = net.first.weight.set_require_grad(false);
    let net = net.freeze_group(ParamGroup::from_paths(vec!["norm.gamma"]));
    for share in [1.0, 0.5] {
        let (model, plain, _) = beside(net.clone(), 2, share, false);
        assert_same(&flat(&model.live().valid(), true), &flat(&plain.valid(), true));
        let of = |path: &str, module: &Net| {
            floats(module).into_iter().find(|(known, ..)| known == path).unwrap().2
        };
        for path in ["first.weight", "norm.gamma"] {
            assert_eq!(of(path, model.live()), of(path, &net));
        }
        assert_ne!(of("last.weight", model.live()), of("last.weight", &net));
        assert_eq!(training_states(model.live()), training_states(&net));
        let again = model.live().valid().train();
        assert_eq!(training_states(&again), training_states(&net), "also after a validation");
    }
}

#[test]
fn adapters_switch_and_stay_adapters() {
    for seed in 0..2 {
        let net = Net::new(seed, &device().autodiff()).apply_lora(Lora::new(2, 2.0));
        for (every, share) in [(1, 0.5), (4, 1.0)] {
            let (model, plain, hand) = beside(net.clone(), every, share, false);
            assert_same(&flat(&model.live().valid(), true), &flat(&plain.valid(), true));
            assert_same(&flat(&model.average(0).unwrap(), false), &hand.average);
            let live = model.live();
            assert!(live.first.weight.adapter().is_some() && live.last.weight.adapter().is_some());
            assert_eq!(ids(live), ids(&net));
            assert_eq!(training_states(live), training_states(&net));
            let base = |net: &Net| net.first.weight.base().into_data();
            base(live).assert_eq(&base(&net), true);
            assert_ne!(flat(live, false), flat(&net, false), "the adapters moved");
        }
    }
}

/// Averaged statistics of batch norms are the average's own business.
#[test]
fn statistics_of_live_are_never_switched() {
    let device = device().autodiff();
    let net = || Net::new(0, &device).train();
    let averaged = config().with_statistics(Policy::Average);
    let switch = Switch { every: 1, share: 1.0 };
    let mut model = Averaged::new(net(), [averaged]).unwrap().with_switch(switch).unwrap();
    let (mut plain, mut hand) = (net(), CopiesBack::new(&net(), switch));
    let mut optimizers = [adam(), adam()];
    for batch in points(64, 4).to_device(&device).iter() {
        let batch = batch.unwrap();
        let grads = TrainStep::step(&plain, batch.clone()).grads;
        plain = hand.after_step_of(optimizers[0].step(0.02, plain, grads));
        let grads = TrainStep::step(&model, batch).grads;
        model = model.optimize(&mut optimizers[1], 0.02.into(), grads);
    }
    let live = model.live().valid();
    assert_same(&flat(&live, true), &flat(&plain.valid(), true));
    let variance = |net: &Net| net.norm.running_var.value_sync().into_data();
    assert_ne!(variance(&live), variance(&model.average(0).unwrap()), "else nothing is shown");
}

/// The step of the next switch is known after a resume, and so is the average.
#[test]
fn four_epochs_with_a_switch_are_two_and_two() {
    for (every, share) in [(8, 1.0), (3, 0.5)] {
        let [straight, stopped] = [0, 1].map(|_| tempfile::tempdir().unwrap());
        let model = |seed| switched(Net::new(seed, &device()), every, share);
        let plan = |directory: &tempfile::TempDir| Plan {
            checkpoints: true,
            ..Plan::new(directory.path())
        };
        let straight = Plan { epochs: 4, ..plan(&straight) }.launch(model(0)).model;
        plan(&stopped).launch(model(0));
        let resumed = Plan { epochs: 4, resume: Some(2), ..plan(&stopped) }.launch(model(7)).model;
        assert_eq!(flat(resumed.live(), true), flat(straight.live(), true));
        let average = |model: &Averaged<Net>| flat(&model.average(0).unwrap(), true);
        assert_eq!(average(&resumed), average(&straight));
    }
}

/// Up to its start an average is live, and a switch moves nothing.
#[test]
fn before_the_start_a_switch_moves_nothing() {
    let trained = |switch: Option<Switch>| {
        let directory = tempfile::tempdir().unwrap();
        let config = config().with_start(16);
        let model = Averaged::new(Net::new(0, &device()), [config]).unwrap();
        let model = match switch {
            Some(switch) => model.with_switch(switch).unwrap(),
            None => model,
        };
        flat(Plan::new(directory.path()).launch(model).model.live(), true)
    };
    assert_eq!(trained(Some(Switch { every: 1, share: 1.0 })), trained(None));
    assert_eq!(trained(Some(Switch { every: 3, share: 0.5 })), trained(None));
}

#[test]
fn a_switch_out_of_range_is_an_error() {
    let model = || Averaged::new(Net::new(0, &device()), [config()]).unwrap();
    let message = |every, share| {
        let switched = model().with_switch(Switch { every, share });
        switched.map(|_| ()).unwrap_err().to_string()
    };
    let expected = "the steps from switch to switch is 0, expected 1 or more";
    assert_eq!(message(0, 1.0), expected);
    for share in [0.0, -0.5, 1.0 + 1e-9, f64::NAN, f64::INFINITY] {
        let expected = format!("the share of the average is {share}, expected a number in (0, 1]");
        assert_eq!(message(1, share), expected);
        let net = Net::new(0, &device());
        let average = config().init(&net).unwrap();
        let error = average.copy_into(net, share).map(|_| ()).unwrap_err().to_string();
        assert_eq!(error, expected);
    }
    // A module of another structure is refused before anything moves.
    let average = config().init(&Net::new(0, &device())).unwrap();
    let other =
        Net { last: burn::nn::LinearConfig::new(16, 4).init(&device()), ..Net::new(1, &device()) };
    let error = average.copy_into(other, 1.0).map(|_| ()).unwrap_err().to_string();
    assert_eq!(error, "last.weight: expected f32 [16, 3], found f32 [16, 4]");
}

/// Puts another head in the place of the network's.
#[derive(Clone, Debug)]
struct Reheads;

impl Hand for Reheads {
    fn after_step(&mut self, net: Net) -> Net {
        Net { last: burn::nn::LinearConfig::new(16, 4).init(&device().autodiff()), ..net }
    }
}

/// Also where no update is due, which would have found it.
#[test]
fn a_switch_to_a_live_of_another_shape_is_an_error() {
    let live = ByHand::of(Net::new(0, &device().autodiff()).train(), Reheads);
    let model = Averaged::new(live, [config().with_every(4)]).unwrap();
    let model = model.with_switch(Switch { every: 1, share: 1.0 }).unwrap();
    let batch = points(8, 1).to_device(&device().autodiff()).iter().next().unwrap().unwrap();
    let grads = TrainStep::step(&model, batch).grads;
    let model = model.optimize(&mut adam(), 0.1.into(), grads);
    let error = model.error().expect("the switch failed").to_string();
    assert!(error.contains("last.weight: expected f32 [16, 3], found f32 [16, 4]"), "{error}");
}
