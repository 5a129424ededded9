//! Running states of layers of one's own.

use super::*;

/// A layer of a user's own that counts its forward passes in a running state.
#[derive(Module, Debug)]
struct Tally {
    gain: Param<Tensor<1>>,
    passes: RunningState<Tensor<1>>,
    #[module(skip)]
    kind: String,
}

impl Tally {
    fn new() -> Self {
        let device = device();
        Self {
            gain: Weights::new(&[0.5], DTYPE, &device).w,
            passes: RunningState::new(Tensor::zeros([1], &device)),
            kind: "tally".into(),
        }
    }

    fn forward(&self) {
        self.passes.update(self.passes.value_sync() + 1.0);
    }

    fn now(&self) -> f64 {
        self.passes.value_sync().into_scalar::<f32>().into()
    }
}

#[derive(Module, Debug)]
struct Nested {
    list: Vec<Tally>,
    plain: Linear,
}

#[test]
fn any_running_state_is_a_statistic_and_is_current_at_each_update() {
    let live = Tally::new();
    let mut averages = [
        copy_of_live().init(&live).unwrap(),
        AverageConfig::new(Rule::ema(0.5)).init(&live).unwrap(),
        AverageConfig::new(Rule::ema(0.5)).on("passes", Policy::Copy).init(&live).unwrap(),
        AverageConfig::new(Rule::ema(0.5)).with_statistics(Policy::Freeze).init(&live).unwrap(),
        AverageConfig::new(Rule::ema(0.5)).with_statistics(Policy::Average).init(&live).unwrap(),
    ];
    let mut mean = 0.0;
    for step in 1..=4 {
        live.forward();
        burn_ema::average::update_all(&mut averages, &live, step, None).unwrap();
        mean += 0.5 * (step as f64 - mean);
        let found: Vec<_> = averages.iter().map(|average| average.module().now()).collect();
        let now = step as f64;
        assert_eq!(found, [now, now, now, 0.0, mean]);
    }
    assert_eq!(live.now(), 4.0, "live keeps its own");
}

#[test]
fn one_that_is_left_out_is_lives_own_as_it_is_now() {
    let live = Tally::new();
    let config = copy_of_live().with_statistics(Policy::LeaveOut);
    let average = config.init(&live).unwrap();
    live.forward();
    assert_eq!(average.module_like(&live).unwrap().now(), 1.0);
    assert_eq!(average.module().now(), 0.0);
}

#[test]
fn it_is_found_wherever_it_lies() {
    let tallies = [Tally::new(), Tally::new()];
    let device = device();
    let live = Nested { list: tallies.into(), plain: LinearConfig::new(1, 1).init(&device) };
    let mut average = copy_of_live().init(&live).unwrap();
    live.list[1].forward();
    average.update(&live, 1).unwrap();
    let module = average.module();
    assert_eq!([module.list[0].now(), module.list[1].now()], [0.0, 1.0]);
    // A part of live that is frozen and shares its parameter is a weight for all that.
    let frozen = Weights::new(&[3.0], DTYPE, &device).no_grad();
    let average = AverageConfig::new(Rule::ema(0.5)).init(&frozen).unwrap();
    assert!(average.profile_of("w").is_some());
}

#[test]
fn a_copy_into_live_leaves_it_alone() {
    let live = Tally::new();
    let mut average = copy_of_live().init(&live).unwrap();
    live.forward();
    average.update(&live, 1).unwrap();
    live.forward();
    let moved = average.copy_into(live.clone(), 1.0).unwrap();
    assert_eq!([live.now(), moved.now(), average.module().now()], [2.0, 2.0, 1.0]);
}

/// A network whose own layer counts in a running state.
#[derive(Module, Debug)]
struct Counting {
    net: Net,
    tally: Tally,
}

impl TrainStep for Counting {
    type Input = Points;
    type Output = RegressionOutput;
    fn step(&self, points: Points) -> TrainOutput<RegressionOutput> {
        self.tally.forward();
        TrainStep::step(&self.net, points)
    }
}

impl InferenceStep for Counting {
    type Input = Points;
    type Output = RegressionOutput;
    fn step(&self, points: Points) -> RegressionOutput {
        InferenceStep::step(&self.net, points)
    }
}

#[test]
fn a_refused_step_puts_it_back() {
    let live = Counting { net: Net::new(0, &device()), tally: Tally::new() };
    let mut model = Averaged::new(live, [copy_of_live()]).unwrap().train();
    let mut optimizer = sgd();
    let loader = points(8, 1).to_device(&device().autodiff());
    let batch = loader.iter().next().unwrap().unwrap();
    let bad = Points { x: batch.x.clone() * f32::NAN, ..batch.clone() };
    for (batch, expected) in [(&batch, 1.0), (&bad, 1.0), (&batch, 2.0), (&bad, 2.0)] {
        let grads = TrainStep::step(&model, batch.clone()).grads;
        model = model.optimize(&mut optimizer, 0.01.into(), grads);
        assert_eq!(model.live().tally.now(), expected);
        assert_eq!(model.average(0).unwrap().tally.now(), expected);
    }
    assert_eq!(model.refused_steps().count, 2);
}
