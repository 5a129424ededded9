//! Live that is moved past the hook, and the hook within a module.

use super::*;

/// A struct of a user's with the default `optimize`, which steps it as a plain module.
#[derive(Module, Debug)]
struct Wrapper {
    averaged: Averaged<Net>,
}

impl TrainStep for Wrapper {
    type Input = Points;
    type Output = RegressionOutput;
    fn step(&self, points: Points) -> TrainOutput<RegressionOutput> {
        TrainStep::step(&self.averaged, points)
    }
}

impl InferenceStep for Wrapper {
    type Input = Points;
    type Output = RegressionOutput;
    fn step(&self, points: Points) -> RegressionOutput {
        InferenceStep::step(&self.averaged, points)
    }
}

#[test]
fn an_optimizer_that_steps_the_hook_is_told_at_once_and_is_an_error_at_the_second_step() {
    for seed in 0..3 {
        let mut model = averaged(seed);
        let mut optimizer = sgd();
        let grads = gradients(&model);
        model = optimizer.step(0.1, model, grads);
        assert!(model.error().is_none());
        let told = model.take_warnings();
        assert!(matches!(told[..], [Warning::Bypassed { changes: 1 }]), "{told:?}");
        assert_eq!(model.take_warnings(), []);
        let grads = gradients(&model);
        model = optimizer.step(0.1, model, grads);
        assert!(matches!(model.error(), Some(Error::Bypassed { changes: 2 })));
        let error = model.average(0).unwrap_err().to_string();
        assert!(error.contains("2 times") && error.contains("averaged.optimize("), "{error}");
        assert!(matches!(model.take_warnings()[..], [Warning::Bypassed { changes: 2 }]));
    }
}

#[test]
fn a_mapper_of_any_kind_counts_if_it_changes_a_weight_and_only_then() {
    struct Scale(f64);
    impl ModuleMapper for Scale {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.map(|tensor| tensor.mul_scalar(self.0))
        }
    }
    let model = averaged(0).map(&mut Scale(1.0)).no_grad().train().map(&mut Scale(1.0));
    assert_eq!(model.take_warnings(), []);
    let model = averaged(0).map(&mut Scale(0.5)).map(&mut Scale(0.5)).map(&mut Scale(0.5));
    assert!(matches!(model.error(), Some(Error::Bypassed { changes: 2 })));
    // The last parameter alone.
    let last = |model: Averaged<Net>, by: f64| {
        let mut values = flat(&model, false);
        *values.last_mut().unwrap() += by;
        with_floats(model, &values)
    };
    let model = last(last(averaged(0), 0.1), 0.1);
    assert!(matches!(model.average(0), Err(Error::Bypassed { .. })));
    assert!(last(last(averaged(0), 0.0), 0.0).average(0).is_ok());
}

#[test]
fn one_change_after_each_step_is_taken_in_by_the_next_update() {
    let config = AverageConfig::new(Rule::ema(0.0));
    let mut model = Averaged::new(Net::new(0, &device()), [config]).unwrap().train();
    let mut optimizer = sgd();
    for step in 1..=5 {
        let grads = gradients(&model);
        model = model.optimize(&mut optimizer, 0.1.into(), grads);
        let clipped: Vec<_> = flat(&model, false).iter().map(|w| w.clamp(-0.3, 0.3)).collect();
        model = with_floats(model, &clipped);
        assert!(model.error().is_none(), "{:?}", model.error());
        assert_eq!(model.steps(), step);
    }
    let grads = gradients(&model);
    model = model.optimize(&mut optimizer, 0.1.into(), grads);
    assert_eq!(flat(&model.average(0).unwrap(), false), flat(&model, false));
}

#[test]
fn a_training_of_a_struct_that_does_not_pass_optimize_on_stops() {
    let directory = tempfile::tempdir().unwrap();
    let plan = Plan::new(directory.path());
    let training = plan.training();
    let averaged = averaged(0).with_interrupter(training.interrupter());
    let model = Wrapper { averaged };
    let result = training.launch(burn::train::Learner::new(
        model.train(),
        adam(),
        burn::lr_scheduler::constant::ConstantLr::new(0.02),
    ));
    let error = format!("{:?}", result.error.expect("the training stops"));
    assert!(error.contains("outside of `optimize`"), "{error}");
}

#[test]
fn a_struct_shows_saves_and_moves_live() {
    let model = Wrapper { averaged: averaged(0) };
    let shown = model.to_string();
    for part in ["averaged: Averaged {", "live: Net {", "averages: ema(0.9, debias)"] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
    assert_eq!(model.num_params(), model.averaged.live().num_params());
    let paths: Vec<_> = floats(&model).into_iter().map(|(path, ..)| path).collect();
    assert!(paths.contains(&"averaged.first.weight".to_owned()), "{paths:?}");

    let record: ModuleRecord = model.clone().into_record();
    let other = Wrapper { averaged: averaged(1) }.load_record(record);
    assert_eq!(flat(&other, true), flat(&model, true));
    let start = averaged(1);
    let average = |model: &Averaged<Net>| flat(&model.averages()[0].module(), false);
    assert_eq!(average(&other.averaged), average(&start), "records of a struct hold live");

    let there = model.fork(&device().autodiff());
    assert_eq!(there.devices(), [device()]);
    assert_eq!(flat(&there.valid().averaged, true), flat(&other, true));
}
