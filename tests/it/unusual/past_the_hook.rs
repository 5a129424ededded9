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
fn an_optimizer_that_steps_the_hook_is_a_warning_at_once_and_the_average_is_refused() {
    for seed in 0..3 {
        let mut model = averaged(seed);
        let mut optimizer = sgd();
        let grads = gradients(&model);
        model = optimizer.step(0.1, model, grads);
        let warnings = model.take_warnings();
        assert!(matches!(warnings[..], [Warning::Bypassed { changes: 1 }]), "{warnings:?}");
        assert_eq!(model.take_warnings(), []);
        assert!(matches!(model.average(0), Err(Error::Bypassed { changes: 1 })), "it is its start");
        let grads = gradients(&model);
        model = optimizer.step(0.1, model, grads);
        let error = model.average(0).unwrap_err().to_string();
        assert!(error.contains("changes: 2") && error.contains("averaged.optimize("), "{error}");
        assert!(error.contains("`use burn::train::TrainStep;`"), "{error}");
        assert!(matches!(model.take_warnings()[..], [Warning::Bypassed { changes: 2 }]));

        // The next step by `optimize` takes all in; what was missed stays counted.
        let grads = gradients(&model);
        model = model.optimize(&mut optimizer, 0.1.into(), grads);
        assert!(model.average(0).is_ok());
        for _ in 0..2 {
            let grads = gradients(&model);
            model = optimizer.step(0.1, model, grads);
            let grads = gradients(&model);
            model = model.optimize(&mut optimizer, 0.1.into(), grads);
        }
        assert!(model.take_warnings().contains(&Warning::Bypassed { changes: 4 }));
    }
}

/// Scales every float.
struct Scale(f64);

impl ModuleMapper for Scale {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|tensor| tensor.mul_scalar(self.0))
    }
}

#[test]
fn a_mapper_of_any_kind_counts_if_it_changes_a_weight_and_only_then() {
    let model = averaged(0).map(&mut Scale(1.0)).no_grad().train().map(&mut Scale(1.0));
    assert_eq!(model.take_warnings(), []);
    assert!(model.average(0).is_ok());
    let model = averaged(0).map(&mut Scale(0.5)).map(&mut Scale(0.5)).map(&mut Scale(0.5));
    assert!(matches!(model.average(0), Err(Error::Bypassed { changes: 3 })));
    // The last parameter alone.
    let last = |model: Averaged<Net>, by: f64| {
        let mut values = flat(&model, false);
        *values.last_mut().unwrap() += by;
        with_floats(model, &values)
    };
    assert!(matches!(last(last(averaged(0), 0.1), 0.1).average(0), Err(Error::Bypassed { .. })));
    assert!(last(last(averaged(0), 0.0), 0.0).average(0).is_ok());
}

#[test]
fn changes_of_a_clone_or_of_a_snapshot_leave_the_training_alone() {
    let mut model = averaged(0);
    let mut optimizer = sgd();
    for step in 1..=3 {
        let grads = gradients(&model);
        model = model.optimize(&mut optimizer, 0.1.into(), grads);
        let pruned = model.clone().map(&mut Scale(0.5)).map(&mut Scale(0.5));
        assert!(pruned.average(0).is_err());
        let noisy = model.valid().map(&mut Scale(0.9)).map(&mut Scale(0.9));
        assert!(noisy.average(0).is_ok());
        let batch = points(8, 1).iter().next().unwrap().unwrap();
        let _ = InferenceStep::step(&noisy, batch);
        assert!(model.error().is_none() && model.average(0).is_ok());
        assert_eq!((model.steps(), model.averages()[0].last_step()), (step, step));
    }
    let warnings = model.take_warnings();
    assert!(!warnings.iter().any(|warning| matches!(warning, Warning::Bypassed { .. })));
}

#[test]
fn changes_after_each_step_are_taken_in_by_the_next_update() {
    let config = AverageConfig::new(Rule::ema(0.0));
    let mut model = Averaged::new(Net::new(0, &device()), [config]).unwrap().train();
    let mut optimizer = sgd();
    for step in 1..=5 {
        let grads = gradients(&model);
        model = model.optimize(&mut optimizer, 0.1.into(), grads);
        assert!(model.average(0).is_ok());
        for bound in [0.3, 0.2] {
            let clipped: Vec<_> =
                flat(&model, false).iter().map(|w| w.clamp(-bound, bound)).collect();
            model = with_floats(model, &clipped);
        }
        assert!(model.error().is_none(), "{:?}", model.error());
        assert_eq!(model.steps(), step);
    }
    let grads = gradients(&model);
    model = model.optimize(&mut optimizer, 0.1.into(), grads);
    assert_eq!(flat(&model.average(0).unwrap(), false), flat(&model, false));
}

impl RunModel for Wrapper {}

#[test]
fn a_training_of_a_struct_that_does_not_pass_optimize_on_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let lr = || ConstantLr::new(0.02);
    // With the interrupter it stops where the validation begins.
    let training = Plan::new(directory.path()).training();
    let averaged_there = averaged(0).with_interrupter(training.interrupter());
    let model = Wrapper { averaged: averaged_there };
    let launched = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        training.launch(Learner::new(model.train(), adam(), lr()))
    }));
    if let Ok(result) = launched {
        let error = format!("{:?}", result.error.expect("the training stops"));
        assert!(error.contains("outside of `optimize`"), "{error}");
    }
    // Without it, the average does not answer.
    let training = Plan::new(directory.path()).training();
    let model = Wrapper { averaged: averaged(0) };
    let Err(error) = fit(training, model, adam(), lr()).launch() else { panic!("it trained") };
    assert!(error.to_string().contains("outside of `optimize`"), "{error}");
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
