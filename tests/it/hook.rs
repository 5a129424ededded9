//! `Averaged` in Burn's Learner: every strategy against a loop by hand.

#[cfg(feature = "ndarray")]
use burn::tensor::Device;
#[cfg(feature = "wgpu")]
use burn::train::Learner;
use burn::{
    lr_scheduler::constant::ConstantLr,
    module::{Lora, Module, ModuleVisitor, Param},
    optim::{ModuleOptimizer, SgdConfig},
    tensor::Tensor,
    train::{
        EvaluatorBuilder, InferenceStep, Interrupter, MultiDeviceOptim, TrainStep,
        metric::LossMetric,
    },
};
use burn_ema::{
    AverageConfig, Error, Rule,
    runs::{ProgressLines, fit},
    train::Averaged,
};

use crate::{
    common::{Net, Plan, Points, adam, assert_same, device, flat, floats, lerp, points},
    hand::{ByHand, Diary, Pages},
};

const RULES: [Rule; 3] = [
    Rule::Constant { decay: 0.9, debias: false },
    Rule::Constant { decay: 0.99, debias: true },
    Rule::Constant { decay: 0.0, debias: false },
];

fn configs() -> [AverageConfig; 3] {
    RULES.map(AverageConfig::new)
}

/// The averages of a list of weights, by the recurrence as it is written.
fn by_hand(rule: Rule, start: &[f64], steps: &[Vec<f64>]) -> (Vec<f64>, f64) {
    let Rule::Constant { decay, debias } = rule else {
        unreachable!("rules of constant decay alone")
    };
    let (mut average, mut mass) = (start.to_vec(), if debias { 0.0 } else { 1.0 });
    for live in steps {
        if debias {
            mass = decay * mass + (1.0 - decay);
        }
        lerp(&mut average, live, (1.0 - decay) / mass);
    }
    (average, mass)
}

/// Trains by the plan with and without the hook and compares everything with a loop by hand.
#[track_caller]
fn check(plan: &Plan, seed: u64, steps: usize) {
    let diary = Diary::new(seed);
    let plain = ByHand::of(diary.net.valid().train().valid(), Pages::default());
    let start = flat(&diary, false);
    let model = Averaged::new(diary, configs()).unwrap();
    let result = plan.launch(model);
    let live = result.model.live();
    let pages: Vec<_> = live.pages().iter().map(|(_, page)| flat(page, false)).collect();
    assert_eq!(pages.len(), steps, "one page per optimizer step");
    assert_eq!(result.model.steps(), steps as u64);

    for (average, rule) in result.model.averages().iter().zip(RULES) {
        let (expected, mass) = by_hand(rule, &start, &pages);
        assert_same(&flat(&average.module(), false), &expected);
        assert_eq!(average.mass().to_bits(), mass.to_bits());
        assert_eq!(average.last_step(), steps as u64);
    }
    let decay_zero = result.model.average(2).unwrap();
    assert_eq!(flat(&decay_zero, true), flat(live, true), "decay 0 is live");

    let without = plan.launch(plain).model;
    // Workers share the statistics of a batch norm, and which of them comes last is chance.
    let statistics = plan.devices.len() == 1;
    assert_same(&flat(&without, statistics), &flat(live, statistics));
}

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn single_device_equals_a_loop_by_hand() {
    for seed in 0..3 {
        let directory = directory();
        check(&Plan::new(directory.path()), seed, 16);
    }
}

#[test]
fn gradient_accumulation_updates_once_per_optimizer_step() {
    let directory = directory();
    check(&Plan { accumulate: 4, ..Plan::new(directory.path()) }, 1, 4);
}

#[test]
fn multi_device_strategies_equal_a_loop_by_hand() {
    for optim in [MultiDeviceOptim::OptimMainDevice, MultiDeviceOptim::OptimSharded] {
        let directory = directory();
        let plan = Plan { devices: vec![device(); 2], optim, ..Plan::new(directory.path()) };
        check(&plan, 2, 8);
    }
}

/// Two devices of two backends: live and its averages cross between them.
#[test]
#[cfg(feature = "ndarray")]
fn two_distinct_devices_equal_a_loop_by_hand() {
    #[expect(deprecated, reason = "Burn still ships it, and so it is checked")]
    let ndarray = Device::ndarray();
    for optim in [MultiDeviceOptim::OptimMainDevice, MultiDeviceOptim::OptimSharded] {
        let directory = directory();
        let devices = vec![device(), ndarray.clone()];
        check(&Plan { devices, optim, ..Plan::new(directory.path()) }, 3, 8);
    }
}

/// A worker takes a clone and forks it: neither may copy or move an average.
#[test]
#[cfg(all(feature = "flex", feature = "ndarray"))]
fn a_worker_receives_no_average() {
    #[expect(deprecated, reason = "Burn still ships it, and so it is checked")]
    let ndarray = Device::ndarray();
    let model = Averaged::new(Diary::new(0), configs()).unwrap();
    let worker = model.clone().fork(&ndarray);
    assert_eq!(worker.live().devices(), std::slice::from_ref(&ndarray));
    for average in worker.averages() {
        assert_eq!(average.module().devices(), [device()], "its averages stayed");
    }
    assert_eq!(worker.average(0).unwrap().devices(), [ndarray], "handed out beside live");
}

#[test]
fn live_and_average_keep_their_own_statistics() {
    let directory = directory();
    let model = Averaged::new(Net::new(0, &device()), configs()).unwrap();
    let before = model.averages()[0].module();
    let statistics = |net: &Net| net.norm.running_var.value_sync().into_data();
    let result = Plan::new(directory.path()).launch(model);
    let average = result.model.average(0).unwrap();
    statistics(&before).assert_eq(&[1.0f32; 16].into(), true);
    statistics(&average).assert_eq(&statistics(result.model.live()), true);
    // They are equal, and yet two: moving one leaves the other.
    let moved = average.norm.running_var.clone().map(&mut Zero);
    assert_eq!(moved.value_sync().into_data().as_slice::<f32>().unwrap(), [0.0; 16]);
    assert_ne!(statistics(result.model.live()).as_slice::<f32>().unwrap(), [0.0; 16]);
    assert_ne!(statistics(&result.model.average(0).unwrap()).as_slice::<f32>().unwrap(), [0.0; 16]);
}

struct Zero;

impl burn::module::ModuleMapper for Zero {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|tensor| tensor.zeros_like())
    }
}

#[test]
fn no_average_ever_has_autodiff_or_a_gradient() {
    let mut model = Averaged::new(Net::new(0, &device()).train(), configs()).unwrap();
    let mut optimizer = adam();
    for batch in points(32, 1).to_device(&device().autodiff()).iter() {
        let output = TrainStep::step(&model, batch.unwrap());
        assert_eq!(output.grads.len(), 6, "the six parameters of live");
        model = model.optimize(&mut optimizer, 0.01.into(), output.grads);
        for index in 0..RULES.len() {
            for average in [model.averages()[index].module(), model.average(index).unwrap()] {
                let mut plain = Plain(0);
                average.visit(&mut plain);
                assert_eq!(plain.0, 8);
            }
        }
    }
    assert!(model.live().first.weight.val().is_autodiff());
}

struct Plain(usize);

impl ModuleVisitor for Plain {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        assert!(!param.val().is_autodiff() && !param.val().is_require_grad());
        self.0 += 1;
    }
}

#[test]
fn visit_and_map_show_live_only() {
    let net = Net::new(0, &device());
    let model = Averaged::new(net.clone(), configs()).unwrap();
    assert_eq!(floats(&model), floats(&net));
    assert_eq!(model.num_params(), net.num_params());
    let before = flat(&model.average(0).unwrap(), false);
    let zeroed = model.map(&mut Zero);
    assert!(flat(zeroed.live(), false).iter().all(|&w| w == 0.0));
    assert_eq!(flat(&zeroed.averages()[0].module(), false), before);
}

/// Two replicas that share the handle, as the distributed strategy has them, fed one gradient:
/// averages and their mass are those of a single replica.
#[test]
fn replicas_on_one_handle_count_each_step_once() {
    for seed in 0..3 {
        let device = device().autodiff();
        let net = Net::new(seed, &device); // its ids are the keys of the gradients
        let start = || Averaged::new(net.valid().train(), configs()).unwrap();
        let (mut single, mut replicas) = (start(), vec![start()]);
        replicas.push(replicas[0].clone());
        let mut optimizers = [sgd(), sgd(), sgd()];
        for batch in points(40, seed).to_device(&device).iter() {
            let batch = batch.unwrap();
            let gradients = || TrainStep::step(&single, batch.clone()).grads;
            let (for_single, for_replicas) = (gradients(), [gradients(), gradients()]);
            for ((replica, optimizer), grads) in
                replicas.iter_mut().zip(&mut optimizers[1..]).zip(for_replicas)
            {
                *replica = replica.clone().optimize(optimizer, 0.1.into(), grads);
            }
            single = single.optimize(&mut optimizers[0], 0.1.into(), for_single);
        }
        for replica in &replicas {
            assert!(replica.error().is_none());
            for (found, expected) in replica.averages().iter().zip(single.averages()) {
                assert_same(&flat(&found.module(), false), &flat(&expected.module(), false));
                assert_eq!(found.mass().to_bits(), expected.mass().to_bits());
                assert_eq!(found.last_step(), 5);
            }
        }
    }
}

fn sgd() -> ModuleOptimizer {
    SgdConfig::new().init()
}

/// What the distributed strategy does to its model before it trains.
/// Flex refuses it even for a plain model, so this runs on wgpu.
#[test]
#[cfg(feature = "wgpu")]
fn the_distributed_strategys_sharding_is_survived() {
    let device = device().autodiff();
    let start = Net::new(0, &device);
    let model = Averaged::new(start.clone(), configs()).unwrap();
    let mut learner = Learner::new(model, sgd(), ConstantLr::new(0.1));
    learner.fork(&device);
    learner.grad_sharded();
    let model = learner.model();
    assert_eq!(flat(model.live(), true), flat(&start, true));
    assert_eq!(flat(&model.average(0).unwrap(), true), flat(&start, true));
}

#[test]
fn a_clone_given_to_a_second_training_is_an_error_of_fit() {
    let directory = directory();
    let plan = Plan::new(directory.path());
    let model = Averaged::new(Net::new(0, &device()), configs()).unwrap();
    let second = model.clone();
    plan.launch(model);
    let averages = |model: &Averaged<Net>| flat(&model.averages()[0].module(), false);
    let before = averages(&second);
    let error = fit(plan.training(), second.clone(), adam(), ConstantLr::new(0.1))
        .launch()
        .map(|_| ())
        .unwrap_err();
    assert!(matches!(error, Error::StepBack { step: 1, last: 16 }), "{error}");
    assert_eq!(averages(&second), before, "the averages stand still");
}

#[test]
fn an_error_fails_the_interrupter_that_the_hook_was_given() {
    let interrupter = Interrupter::new();
    let device = device().autodiff();
    let model = Averaged::new(Net::new(0, &device), configs()).unwrap();
    let behind = model.clone().with_interrupter(interrupter.clone());
    let batch = points(8, 1).to_device(&device).iter().next().unwrap().unwrap();
    let gradients = || TrainStep::step(&behind, batch.clone()).grads;
    let model = model.optimize(&mut sgd(), 0.1.into(), gradients());
    model.optimize(&mut sgd(), 0.1.into(), gradients());
    assert!(!interrupter.should_stop());
    behind.clone().optimize(&mut sgd(), 0.1.into(), gradients());
    assert!(interrupter.should_stop());
    let error = interrupter.error().unwrap().to_string();
    assert!(error.contains("averaging: step 1 lies before step 2"), "{error}");
}

#[test]
fn a_snapshot_does_not_move() {
    let device = device().autodiff();
    let mut model = Averaged::new(Net::new(0, &device), configs()).unwrap();
    let batch = points(8, 1).to_device(&device).iter().next().unwrap().unwrap();
    let snapshot = model.valid();
    let before = flat(&snapshot.average(0).unwrap(), true);
    for _ in 0..3 {
        let grads = TrainStep::step(&model, batch.clone()).grads;
        model = model.optimize(&mut sgd(), 0.1.into(), grads);
    }
    assert_eq!(flat(&snapshot.average(0).unwrap(), true), before);
    assert_ne!(flat(&model.average(0).unwrap(), true), before);

    // The snapshot answers with the average, and so does the model itself.
    let x = batch.x.clone().without_autodiff();
    let y = batch.y.clone().without_autodiff();
    let batch = Points { x, y };
    for model in [snapshot, model] {
        let found = InferenceStep::step(&model, batch.clone()).output.into_data();
        let expected = model.average(0).unwrap().forward(batch.x.clone()).into_data();
        found.assert_eq(&expected, true);
    }
}

#[test]
fn names_and_numbers_of_averages_are_checked() {
    let net = || Net::new(0, &device());
    let message = |configs: Vec<AverageConfig>| {
        Averaged::new(net(), configs).map(|_| ()).unwrap_err().to_string()
    };
    assert_eq!(message(vec![]), "the list of averages is none, expected at least one");
    let twice = vec![AverageConfig::new(RULES[0].clone()); 2];
    assert!(message(twice).contains("is ema(0.9) again, expected a name of its own"));
    let live = AverageConfig::new(RULES[0].clone()).with_name(Some("live".into()));
    assert!(message(vec![live]).contains("is live, expected a name of its own"));

    let model = Averaged::new(net(), configs()).unwrap();
    assert_eq!(model.names(), ["ema(0.9)", "ema(0.99, debias)", "ema(0)"]);
    let error = model.average(3).map(|_| ()).unwrap_err().to_string();
    assert_eq!(error, "the index of an average is 3, expected a number below 3");
}

#[test]
fn all_modules_come_by_name_with_live_first() {
    let directory = directory();
    let model = Averaged::new(Net::new(1, &device()), configs()).unwrap();
    let before = model.clone();
    let model = Plan::new(directory.path()).launch(model).model;
    let modules = model.modules().unwrap();
    let names: Vec<_> = modules.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["live", "ema(0.9)", "ema(0.99, debias)", "ema(0)"]);
    assert_same(&flat(&modules[0].1, true), &flat(&model.live().valid(), true));
    for (index, (_, module)) in modules[1..].iter().enumerate() {
        assert_same(&flat(module, true), &flat(&model.average(index).unwrap(), true));
    }
    // A clone from before counts the steps of its averages, which the training has updated.
    assert_eq!((model.steps(), before.steps()), (16, 16));
    assert_eq!(before.averages()[0].last_step(), 16);
}

/// LoRA from before the averages: adapters are averaged as any parameter, and folding them into
/// the weights folds the averages too.
#[test]
fn adapters_are_averaged_and_materialize_with_live() {
    let device = device().autodiff();
    let net = Net::new(0, &device).apply_lora(Lora::new(2, 2.0));
    let mut model = Averaged::new(net, configs()).unwrap();
    for batch in points(24, 1).to_device(&device).iter() {
        let grads = TrainStep::step(&model, batch.unwrap()).grads;
        model = model.optimize(&mut adam(), 0.05.into(), grads);
    }
    assert!(model.error().is_none());
    let expected = flat(&model.average(0).unwrap().materialize(), false);
    assert_ne!(expected, flat(&model.live().valid().materialize(), false));
    let before = model.clone();
    let model = model.materialize();
    assert_eq!(flat(&model.average(0).unwrap(), false), expected);
    assert_eq!(model.averages()[0].last_step(), 3);
    assert!(flat(&before.average(0).unwrap(), false).len() > expected.len(), "it kept adapters");
}

/// An average that stays on the host: the same numbers, handed out beside live.
#[test]
#[cfg(feature = "ndarray")]
fn an_average_can_stay_on_another_device() {
    #[expect(deprecated, reason = "Burn still ships it, and so it is checked")]
    let ndarray = Device::ndarray();
    let [here, there] = [false, true].map(|stays| {
        let directory = directory();
        let model = Averaged::new(Net::new(0, &device()), configs()).unwrap();
        let model = match stays {
            true => model.keep_average_on(1, &ndarray).unwrap(),
            false => model,
        };
        let model = Plan::new(directory.path()).launch(model).model;
        let record = model.clone().into_record();
        // A load keeps the device as well.
        model.try_load_record(record).unwrap()
    });
    assert!(there.error().is_none());
    assert_eq!(there.averages()[1].module_as_kept().devices(), [ndarray]);
    assert_eq!(there.averages()[1].module().devices(), [device()], "where live was");
    assert_eq!(there.averages()[0].module().devices(), [device()]);
    assert_eq!(there.average(1).unwrap().devices(), [device()], "handed out beside live");
    for index in 0..RULES.len() {
        let [here, there] = [&here, &there].map(|model| model.average(index).unwrap());
        assert_same(&flat(&there, true), &flat(&here, true));
    }
    assert!(there.keep_average_on(3, &device()).is_err());
}

/// Validation answers on the device to which the module was moved.
#[test]
#[cfg(feature = "ndarray")]
fn a_moved_snapshot_answers_where_it_is() {
    #[expect(deprecated, reason = "Burn still ships it, and so it is checked")]
    let ndarray = Device::ndarray();
    let model = Averaged::new(Net::new(0, &device()), configs()).unwrap().valid();
    let batch = |device: &Device| points(8, 1).to_device(device).iter().next().unwrap().unwrap();
    let here = InferenceStep::step(&model, batch(&device())).output.into_data();
    for moved in [model.clone().to_device(&ndarray), model.fork(&ndarray)] {
        let there = InferenceStep::step(&moved, batch(&ndarray)).output;
        assert_eq!(there.device(), ndarray);
        there.into_data().assert_approx_eq::<f32>(&here, Default::default());
    }
}

#[test]
fn burns_evaluator_runs_a_test_split_with_the_hooked_module() {
    let trained = directory();
    let model = Averaged::new(Net::new(0, &device()), configs()).unwrap();
    let model = Plan::new(trained.path()).launch(model).model;
    let live = model.live_metric(LossMetric::new());
    let (plain, tested) = (model.clone(), directory());
    let result = EvaluatorBuilder::new(tested.path())
        .with_application_logger(None)
        .renderer(Box::new(ProgressLines::new(std::io::sink())))
        .metrics((LossMetric::new(),))
        .metric_numeric(live)
        .build(model)
        .eval("test", points(24, 5));
    assert!(result.error.is_none());
    drop(result);
    let loss = |net: &Net| {
        let batches = points(24, 5);
        let batches = batches.iter().map(|b| InferenceStep::step(net, b.unwrap()).loss);
        batches.map(|loss| loss.into_scalar::<f64>()).sum::<f64>() / 3.0
    };
    let logged = |name: &str| crate::metrics::logged(tested.path(), "test", name);
    crate::common::assert_close(&[logged("Loss")], &[loss(&plain.average(0).unwrap())], 1e-6);
    crate::common::assert_close(&[logged("Loss_(live)")], &[loss(plain.live())], 1e-6);
}
