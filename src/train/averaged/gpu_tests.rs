//! Steps on a GPU: how often they wait for it, and what becomes of numbers that are not finite.

use burn::{
    module::Module,
    optim::{ModuleOptimizer, SgdConfig},
    tensor::{Device, Tensor},
    train::TrainStep,
};

use super::Averaged;
use crate::{
    AverageConfig, Error, NonFinite, Rule,
    kernel::reads,
    model::{Batch, Mlp, MlpConfig},
};

/// A training by hand, in the order of Burn's Learner.
struct Training {
    model: Averaged<Mlp>,
    optimizer: ModuleOptimizer,
    device: Device,
    /// The most reads in a step so far, its forward pass included.
    most: usize,
}

impl Training {
    fn new(live: &Mlp, device: Device) -> Self {
        let live = live.clone().to_device(&device.clone().inner()).train();
        let configs = [Rule::ema(0.9), Rule::debiased(0.99)].map(AverageConfig::new);
        let model = Averaged::new(live, configs).unwrap().train();
        Self { model, optimizer: SgdConfig::new().init(), device, most: 0 }
    }

    fn step(&mut self, input: f32, rate: f64) {
        let inputs = Tensor::<2>::full([4, 3], input, &self.device);
        let targets = Tensor::<2>::full([4, 2], 0.25, &self.device);
        let before = reads();
        let output = TrainStep::step(&self.model, Batch { inputs, targets });
        let model = self.model.clone();
        self.model = model.optimize(&mut self.optimizer, rate.into(), output.grads);
        self.most = self.most.max(reads() - before);
    }

    fn averages(&self) -> Vec<Vec<f32>> {
        let numbers = |mlp: Mlp| {
            mlp.layers
                .into_iter()
                .flat_map(|layer| layer.weight.val().into_data().try_into_vec::<f32>().unwrap())
        };
        let averages = self.model.averages();
        averages.iter().map(|average| numbers(average.module()).collect()).collect()
    }
}

fn trainings() -> [Training; 2] {
    let mlp = MlpConfig::new(vec![3, 5, 2]).init(&Device::flex()).unwrap();
    [Device::flex(), Device::wgpu(Default::default())]
        .map(|device| Training::new(&mlp, device.autodiff()))
}

/// A step on the host waits for nothing, one on the GPU once, and both have the same averages.
fn assert_one_wait_a_step(mut trainings: [Training; 2]) {
    for training in &mut trainings {
        (1..=6).for_each(|step| training.step(0.1 * step as f32, 0.5));
        assert!(training.model.error().is_none());
    }
    let [flex, gpu] = trainings;
    assert_eq!((flex.most, gpu.most), (0, 1));
    for (expected, found) in flex.averages().into_iter().zip(gpu.averages()) {
        let close = |(a, b): (f32, f32)| (a - b).abs() <= 1e-6 * a.abs().max(1.0);
        assert!(expected.into_iter().zip(found).all(close));
    }
}

#[test]
fn a_guarded_step_waits_for_the_device_once() {
    assert_one_wait_a_step(trainings());
}

/// The teacher is there before the check of its last update has come back.
#[test]
fn a_step_with_a_teacher_waits_no_more_often() {
    assert_one_wait_a_step(trainings().map(|training| {
        let model = training.model.with_teacher(0, |student: &Mlp, teacher, batch| {
            let targets = teacher.forward(batch.inputs.clone()) * 0.5 + batch.targets * 0.5;
            TrainStep::step(student, Batch { targets, ..batch })
        });
        Training { model: model.unwrap(), ..training }
    }));
}

#[test]
fn a_target_network_on_a_gpu_waits_for_nothing_unless_asked_to() {
    let mlp = MlpConfig::new(vec![3, 5, 2]).init(&Device::wgpu(Default::default())).unwrap();
    let waits = |config: AverageConfig| {
        let mut target = config.init(&mlp).unwrap();
        let before = reads();
        for _ in 0..10 {
            target.advance(&mlp).unwrap();
            drop(target.module());
        }
        reads() - before
    };
    for rule in [Rule::target(0.1), Rule::copy(2)] {
        assert_eq!(waits(AverageConfig::new(rule.clone())), 0, "{rule}");
        let asked = AverageConfig::new(rule.clone()).with_non_finite(NonFinite::Error);
        assert!(waits(asked) >= 5, "{rule}");
    }
    assert_eq!(waits(AverageConfig::new(Rule::ema(0.9))), 10);
}

#[test]
fn gradients_that_are_not_finite_are_refused() {
    for mut training in trainings() {
        (1..=3).for_each(|_| training.step(0.5, 0.5));
        let before = training.averages();
        training.step(f32::NAN, 0.5);
        assert_eq!(training.averages(), before);
        assert_eq!((training.model.refused_steps().count, training.model.steps()), (1, 3));
        assert_eq!(training.model.averages()[0].last_step(), 3);
        training.step(0.5, 0.5);
        assert_eq!(training.model.averages()[0].last_step(), 4);
        assert_ne!(training.averages(), before);
    }
}

/// Whether the training asks for its averages, or goes on to the next step.
#[test]
fn weights_that_are_not_finite_end_the_training() {
    for goes_on in [false, true] {
        for mut training in trainings() {
            (1..=3).for_each(|_| training.step(0.5, 0.5));
            let (before, mass) = (training.averages(), training.model.averages()[1].mass());
            training.step(0.5, f64::INFINITY);
            if goes_on {
                training.step(0.5, 0.5);
            }
            assert_eq!(training.averages(), before);
            let averages = training.model.averages();
            assert_eq!((averages[0].last_step(), averages[1].mass()), (3, mass));
            let Some(Error::Weights { step: 4, path }) = training.model.error() else {
                panic!("{:?}", training.model.error())
            };
            assert!(path.starts_with("layers."), "{path}");
        }
    }
}
