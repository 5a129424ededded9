//! Resume, accumulation of gradients, starts.

use burn::{lr_scheduler::constant::ConstantLr, store::ModuleRecord, train::metric::LossMetric};
use burn_ema::{AverageConfig, Rule, runs::fit, train::Averaged};

use super::{every_rule, trajectory, weights};
use crate::{
    common::{Net, Plan, adam, assert_same, device, flat, lerp},
    hand::{ByHand, Hand},
    metrics::logged_at,
};

/// As d2go and others have it: an average that warms up, saved without its counter.
#[derive(Clone)]
struct Shadow {
    weights: Vec<f64>,
    updates: f64,
}

impl Shadow {
    fn of(weights: &[f64]) -> Self {
        Self { weights: weights.to_vec(), updates: 0.0 }
    }

    fn update(&mut self, live: &[f64]) {
        self.updates += 1.0;
        lerp(&mut self.weights, live, 9.0 / (10.0 + self.updates));
    }
}

#[test]
fn a_counter_that_is_not_saved_makes_the_warm_up_start_again() {
    for seed in 0..3 {
        let path = trajectory(seed, 400);
        let mut straight = Shadow::of(&path[0]);
        path[1..=390].iter().for_each(|live| straight.update(live));
        let mut resumed = Shadow::of(&straight.weights);
        let saved = straight.weights.clone();
        straight.update(&path[391]);
        resumed.update(&path[391]);
        // What it has of live at once: a fortieth, and nine elevenths.
        let taken = |shadow: &Shadow| (shadow.weights[0] - saved[0]) / (path[391][0] - saved[0]);
        assert!(taken(&straight) < 0.025 && taken(&resumed) > 0.8);
    }
}

/// N steps and M steps are N steps, a save, a load into another process' objects, and M steps:
/// bit for bit, whether the save falls into an interval, before the start or between.
#[test]
fn every_rule_goes_on_where_it_was() {
    for seed in 0..3 {
        let path = trajectory(seed, 60);
        for config in every_rule() {
            let config = match seed {
                0 => config,
                1 => config.with_every(3),
                _ => config.with_start(40),
            };
            let mut straight = config.init(&weights(&path[0])).unwrap();
            let mut resumed = None;
            for (step, live) in (1..).zip(&path[1..]) {
                if step == 30 + seed {
                    let bytes = straight.clone().into_record().into_bytes().unwrap();
                    let fresh = config.init(&weights(&[9.0; 5])).unwrap();
                    let record = ModuleRecord::from_bytes(bytes).unwrap();
                    resumed = Some(fresh.try_load_record(record).unwrap());
                }
                straight.update(&weights(live), step).unwrap();
                if let Some(resumed) = &mut resumed {
                    resumed.update(&weights(live), step).unwrap();
                    let [found, expected] = [&*resumed, &straight].map(|a| flat(&a.module(), true));
                    assert_eq!(found, expected, "{} at step {step}", config.rule);
                    assert_eq!(resumed.mass().to_bits(), straight.mass().to_bits());
                }
            }
            assert_eq!(resumed.unwrap().profile(), straight.profile());
        }
    }
}

/// The same through Burn's own checkpoints of the hook.
#[test]
fn every_rule_goes_on_in_a_resumed_training() {
    for seed in 0..2 {
        let [straight, stopped] = [0, 1].map(|_| tempfile::tempdir().unwrap());
        let plan = |directory: &tempfile::TempDir| Plan {
            checkpoints: true,
            ..Plan::new(directory.path())
        };
        let model = |seed| Averaged::new(Net::new(seed, &device()), every_rule()).unwrap();
        let straight = Plan { epochs: 4, ..plan(&straight) }.launch(model(seed)).model;
        plan(&stopped).launch(model(seed));
        let resumed = Plan { epochs: 4, resume: Some(2), ..plan(&stopped) };
        let resumed = resumed.launch(model(seed + 100)).model;
        for (found, expected) in resumed.averages().iter().zip(straight.averages()) {
            let floats = [found, &expected].map(|average| flat(&average.module(), true));
            assert_eq!(floats[0], floats[1], "{}", found.name());
            assert_eq!(found.profile(), expected.profile(), "{}", found.name());
        }
    }
}

/// As Keras and hand-written loops have it: an average that is updated where a batch is computed
/// and not where the optimizer steps.
#[derive(Clone, Debug)]
struct PerBatch {
    shadow: Vec<f64>,
    updates: usize,
    /// Live after every optimizer step.
    steps: Vec<Vec<f64>>,
}

impl Hand for PerBatch {
    fn at_batch(&mut self, net: &Net, _: u64) {
        lerp(&mut self.shadow, &flat(net, false), 0.1);
        self.updates += 1;
    }

    fn after_step(&mut self, net: Net) -> Net {
        self.steps.push(flat(&net, false));
        net
    }
}

/// 16 batches, of which four make one step of the optimizer: decay 0.9 is that of a step.
#[test]
fn an_average_under_accumulation_moves_once_per_optimizer_step() {
    for seed in 0..3 {
        let directory = tempfile::tempdir().unwrap();
        let plan = Plan { accumulate: 4, ..Plan::new(directory.path()) };
        let start = Net::new(seed, &device());
        let mut expected = flat(&start, false);
        let hand = PerBatch { shadow: expected.clone(), updates: 0, steps: Vec::new() };
        let model =
            Averaged::new(ByHand::of(start, hand), [AverageConfig::new(Rule::ema(0.9))]).unwrap();
        let model = plan.launch(model).model;
        let seen = model.live().held();
        assert_eq!(seen.steps.len(), 4);
        seen.steps.iter().for_each(|live| lerp(&mut expected, live, 0.1));

        assert_eq!(seen.updates, 16, "the average of each batch remembers a quarter of the steps");
        let apart = |found: &[f64]| {
            let each = found.iter().zip(&expected).map(|(a, b)| (a - b).abs());
            each.fold(0.0, f64::max)
        };
        assert!(apart(&seen.shadow) > 1e-3, "{}", apart(&seen.shadow));

        let average = &model.averages()[0];
        assert_same(&flat(&average.module(), false), &expected);
        assert_eq!(average.profile().weights().len(), 4);
        assert!((average.profile().mass_on_start() - 0.9f64.powi(4)).abs() < 1e-12);
    }
}

/// As Lightning's callback has it: the copy of the start is validated until the first update.
#[test]
fn an_average_that_waits_for_its_start_is_validated_stale() {
    for seed in 0..3 {
        let path = trajectory(seed, 20);
        let start = 10;
        let mut shadow = path[0].clone();
        for (step, live) in path.iter().enumerate().skip(1) {
            if step > start {
                lerp(&mut shadow, live, 0.1);
            }
            assert_ne!(&shadow, live);
            assert_eq!(shadow == path[0], step <= start);
        }
    }
}

/// Up to its start an average is live, after every step and whatever the interval; from there it
/// is the average that starts at live then.
#[test]
fn an_average_is_live_until_its_start() {
    for seed in 0..3 {
        let (start, every) = (10 + seed, 1 + seed);
        let path = trajectory(seed, 40);
        for config in every_rule() {
            let config = config.with_every(every);
            let mut average = config.clone().with_start(start).init(&weights(&path[0])).unwrap();
            let mut later = None;
            for (step, live) in (1..).zip(&path[1..]) {
                average.update(&weights(live), step).unwrap();
                if step <= start {
                    assert_eq!(flat(&average.module(), true), *live, "{}", config.rule);
                    assert_eq!(average.profile().mass_on_start(), 1.0);
                }
                assert_eq!(average.has_begun(), step >= start);
                match &mut later {
                    None if step == start => later = Some(config.init(&weights(live)).unwrap()),
                    None => {}
                    Some(later) => {
                        later.update(&weights(live), step - start).unwrap();
                        let found = flat(&average.module(), true);
                        assert_eq!(found, flat(&later.module(), true), "{}", config.rule);
                    }
                }
            }
        }
    }
}

/// The hook validates what is live before the start: the metrics of both are equal there, bit for
/// bit, and only there.
#[test]
fn validation_before_the_start_is_that_of_live() {
    for (seed, by_epoch) in [(0, false), (0, true), (1, true), (2, false)] {
        let directory = tempfile::tempdir().unwrap();
        let config = AverageConfig::new(Rule::ema(0.9)).with_every(3);
        // Two epochs of 8 steps each.
        let config = match by_epoch {
            true => config.with_start_epoch(Some(2)).with_steps_per_epoch(Some(8)),
            false => config.with_start(16),
        };
        let model = Averaged::new(Net::new(seed, &device()), [config]).unwrap();
        let training = Plan { epochs: 4, ..Plan::new(directory.path()) }
            .training()
            .metrics((LossMetric::new(),))
            .metric_valid_numeric(model.live_metric(LossMetric::new()));
        let result = fit(training, model, adam(), ConstantLr::new(0.02)).launch().unwrap();
        let loss = |epoch, name| logged_at(directory.path(), "valid", epoch, name).to_bits();
        for epoch in 1..=4 {
            let same = loss(epoch, "Loss") == loss(epoch, "Loss_(live)");
            assert_eq!(same, epoch <= 2, "epoch {epoch}");
        }
        assert_ne!(loss(1, "Loss_(live)"), loss(2, "Loss_(live)"), "live moves before the start");
        let profile = result.model.averages()[0].profile();
        let steps: Vec<_> = profile.weights().iter().map(|(step, _)| *step).collect();
        assert_eq!(steps, [19.0, 22.0, 25.0, 28.0, 31.0], "every third step after the start");
    }
}
