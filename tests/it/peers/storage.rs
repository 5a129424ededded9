//! What an average shares with live: nothing that either could change.

use std::{
    cell::RefCell,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
};

use burn::{
    module::{Module, ModuleMapper, Param, ParamId},
    nn::{BatchNorm, BatchNormConfig},
    tensor::{Int, Tensor},
    train::{InferenceStep, TrainStep},
};
use burn_ema::{AverageConfig, Policy, Rule, train::Averaged};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{every_rule, trajectory};
use crate::common::{Net, Points, adam, assert_close, device, flat, points};

#[test]
fn snapshots_that_share_storage_with_live_are_all_the_last_weights() {
    for seed in 0..3 {
        let path = trajectory(seed, 6);
        // As LAWA has it on the CPU, where `.cpu()` of a weight is that weight.
        let live = Rc::new(RefCell::new(path[0].clone()));
        let mut snapshots = Vec::new();
        for weights in &path[1..] {
            live.borrow_mut().clone_from(weights);
            snapshots.push(live.clone());
        }
        let mean = |of: &dyn Fn(usize) -> f64| (0..6).map(of).sum::<f64>() / 6.0;
        let found = mean(&|i| snapshots[i].borrow()[0]);
        assert_close(&[found], &[path[6][0]], 1e-12);
        assert!((found - mean(&|i| path[i + 1][0])).abs() > 1e-3, "the mean of six snapshots");
    }
}

/// Adds a number in place where the backend can.
struct Add(f32);

impl ModuleMapper for Add {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|tensor| tensor + self.0)
    }
}

/// Rules that keep live's tensors, and policies that hand them on.
fn configs_that_keep_live() -> Vec<AverageConfig> {
    let copied = |policy| AverageConfig::new(Rule::ema(0.5)).on("**", policy);
    let mut configs = every_rule();
    configs.extend([
        AverageConfig::new(Rule::lawa(3, 1)),
        AverageConfig::new(Rule::ema(0.0)),
        AverageConfig::new(Rule::ema(0.5)).with_start(100), // live until then
        AverageConfig::new(Rule::ema(0.5)).with_statistics(Policy::Average),
        copied(Policy::Copy),
        copied(Policy::Freeze),
        copied(Policy::Rule(Rule::bema())),
    ]);
    configs
}

/// Live moves in place, through operations that reuse a buffer which nothing else holds.
#[test]
fn an_average_does_not_follow_a_live_that_moves_in_place() {
    for seed in 0..3 {
        for config in configs_that_keep_live() {
            let mut live = Net::new(seed, &device());
            let mut average = config.init(&live).unwrap();
            for step in 1..=4 {
                average.update(&live, step).unwrap();
                let before = flat(&average.module(), true);
                live = live.map(&mut Add(0.25));
                assert_eq!(flat(&average.module(), true), before, "{}", config.rule);
            }
        }
    }
}

/// Without that the test above would show nothing.
#[test]
#[cfg(feature = "flex")]
fn flex_moves_a_tensor_in_place_if_nothing_else_holds_it() {
    use burn::{backend::Flex, tensor::Device};

    let address =
        |tensor: &Tensor<1>| tensor.clone().try_into_primitive::<Flex>().unwrap().bytes().as_ptr();
    let tensor = Tensor::<1>::ones([64], &Device::flex());
    let before = address(&tensor);
    let tensor = tensor + 1.0;
    assert_eq!(address(&tensor), before);
    let other = tensor.clone();
    assert_ne!(address(&(tensor + 1.0)), before);
    assert_eq!(address(&other), before);
}

/// Live is itself an average, whose updates write into its buffers.
#[test]
fn an_average_does_not_follow_a_live_that_is_an_average() {
    for seed in 0..3 {
        let net = |step| Net::new(seed + 10 * step, &device());
        for config in configs_that_keep_live() {
            let mut live = AverageConfig::new(Rule::ema(0.5)).init(&net(0)).unwrap();
            let mut average = config.init(&live.module()).unwrap();
            for step in 1..=4 {
                average.update(&live.module(), step).unwrap();
                let before = [&average, &live].map(|average| flat(&average.module(), true));
                live.update(&net(step), step).unwrap();
                let after = [&average, &live].map(|average| flat(&average.module(), true));
                assert_eq!(after[0], before[0], "{}", config.rule);
                assert_ne!(after[1], before[1]);
            }
        }
    }
}

#[test]
fn a_window_is_the_mean_of_what_live_was() {
    for seed in 0..3 {
        let mut live = Net::new(seed, &device());
        let mut average = AverageConfig::new(Rule::lawa(3, 2)).init(&live).unwrap();
        let mut snapshots = Vec::new();
        for step in 1..=10 {
            live = live.map(&mut Add(0.125 * step as f32));
            average.update(&live, step).unwrap();
            if step % 2 == 0 {
                snapshots.push(flat(&live, false));
            }
        }
        let last = &snapshots[2..];
        let mean = (0..last[0].len()).map(|i| last.iter().map(|s| s[i]).sum::<f64>() / 3.0);
        assert_close(&flat(&average.module(), false), &mean.collect::<Vec<_>>(), 1e-6);
    }
}

/// Batch norms with their statistics, and integers that count.
#[derive(Module, Debug)]
struct Counted {
    norm: BatchNorm,
    seen: Param<Tensor<1, Int>>,
}

impl Counted {
    fn new() -> Self {
        let seen = Tensor::from_data([0, 0], &device());
        Self {
            norm: BatchNormConfig::new(2).init(&device()),
            seen: Param::initialized(ParamId::new(), seen),
        }
    }

    /// One forward pass in training, which moves the statistics and the counts.
    fn pass(mut self, seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let x: Vec<f32> = (0..12).map(|_| 3.0 + rng.random::<f32>()).collect();
        let x = Tensor::<1>::from_data(&x[..], &device().autodiff()).reshape([6, 2]);
        self.norm.forward(x);
        self.seen = self.seen.map(|seen| seen + Tensor::from_data([1, 3], &device()));
        self
    }

    fn statistics(&self) -> Vec<f32> {
        let values = [&self.norm.running_mean, &self.norm.running_var].map(|s| s.value_sync());
        values.into_iter().flat_map(|s| s.into_data().try_into_vec::<f32>().unwrap()).collect()
    }

    fn counts(&self) -> Vec<i64> {
        self.seen.val().into_data().convert::<i64>().try_into_vec().unwrap()
    }
}

/// A clone of a batch norm has the statistics of the original, and a map writes through to them.
#[test]
fn a_shadow_made_by_clone_shares_its_statistics_with_live() {
    for seed in 0..3 {
        let live = Counted::new().train();
        let shadow = live.clone();
        let before = shadow.statistics();
        let live = live.pass(seed);
        assert_ne!(shadow.statistics(), before, "live's forward pass moved the shadow");
        let moved = live.statistics();
        let _ = shadow.map(&mut Add(1.0));
        assert_ne!(live.statistics(), moved, "an update of the shadow moved live");
    }
}

/// Nothing that is done to live, to the average or to a module that was handed out reaches one of
/// the others.
#[test]
fn an_average_and_live_have_statistics_of_their_own() {
    for seed in 0..3 {
        for config in configs_that_keep_live() {
            let live = Counted::new().train().pass(seed);
            let at_start = live.statistics();
            let mut average = config.init(&live).unwrap();
            let handed_out = average.module();
            assert_eq!(handed_out.statistics(), at_start);
            assert_eq!(live.statistics(), at_start, "an average that is made leaves live alone");

            let live = live.pass(seed + 10);
            let moved = live.statistics();
            assert_ne!(moved, at_start);
            assert_eq!(average.module().statistics(), at_start, "{}", config.rule);
            average.update(&live, 1).unwrap();
            let at_update = average.module().statistics();
            let _ = average.module().map(&mut Add(1.0));
            let _ = average.module_like(&live).unwrap().map(&mut Add(1.0));
            assert_eq!(live.statistics(), moved, "{}", config.rule);

            let live = live.pass(seed + 20);
            assert_ne!(live.statistics(), moved);
            assert_eq!(average.module().statistics(), at_update, "{}", config.rule);
            assert_eq!(handed_out.statistics(), at_start, "{}", config.rule);
        }
    }
}

/// As systems have it that average a whole state by floats: integers are cut off.
fn truncated(average: i64, live: i64) -> i64 {
    (0.9 * average as f64 + 0.1 * live as f64) as i64
}

#[test]
fn averaged_integers_are_cut_off_and_statistics_of_the_start_are_stale() {
    for seed in 0..3 {
        let mut live = Counted::new().train();
        let (mut counts, stale) = (live.counts(), live.valid());
        for step in 0..1000 {
            // Live stands still from step 20, and there is all the time to come near.
            live = if step < 20 { live.pass(seed + step) } else { live };
            counts = counts.iter().zip(live.counts()).map(|(&a, w)| truncated(a, w)).collect();
        }
        assert_eq!(live.counts(), [20, 60]);
        assert!(counts[0] < 12 && counts[1] < 52, "{counts:?}");
        // As systems have it that average trainable parameters alone.
        assert_ne!(stale.statistics(), live.statistics());
    }
}

#[test]
fn integers_and_statistics_are_those_of_live_after_every_update() {
    for seed in 0..3 {
        for config in every_rule() {
            let mut live = Counted::new().train();
            let mut average = config.init(&live).unwrap();
            for step in 1..=20 {
                live = live.pass(seed + step);
                average.update(&live, step).unwrap();
                let module = average.module();
                // Also between two snapshots of a window.
                assert_eq!(module.counts(), live.counts(), "{}", config.rule);
                assert_eq!(module.statistics(), live.valid().statistics(), "{}", config.rule);
            }
        }
    }
}

/// As Keras' swap for TensorFlow has it: by sums and differences, without a third buffer.
fn swapped(a: f32, b: f32) -> (f32, f32) {
    let sum = a + b;
    let b = sum - b;
    (sum - b, b)
}

#[test]
fn a_swap_by_sums_perturbs_live_and_one_that_an_error_leaves_is_not_undone() {
    for seed in 0..3 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        // Not on a grid of equal steps, whose sums are exact.
        let mut number = || (rng.random::<f32>() - 0.5) * 0.9173;
        let pairs: Vec<_> = (0..1000).map(|_| (number(), number())).collect();
        let changed = pairs.iter().filter(|&&(live, average)| {
            let (a, b) = swapped(live, average);
            swapped(a, b).0 != live
        });
        let changed = changed.count();
        assert!(changed > 300, "{changed} of 1000 weights changed by validation");

        // A validation that fails between the two swaps leaves the average in live's place.
        let (mut live, mut average) = (pairs[0], pairs[1]);
        let validated = (|| {
            std::mem::swap(&mut live, &mut average);
            Err("the validation failed")?;
            std::mem::swap(&mut live, &mut average);
            Ok::<_, &str>(())
        })();
        assert!(validated.is_err());
        assert_eq!((live, average), (pairs[1], pairs[0]));
    }
}

/// Validation answers by modules of its own, so that live and the averages are the same after it
/// bit for bit, also if it ended in a panic.
#[test]
fn validation_leaves_live_and_the_averages_bit_for_bit() {
    for seed in 0..3 {
        let device = device().autodiff();
        let net = Net::new(seed, &device);
        let configs = [
            AverageConfig::new(Rule::ema(0.9)).with_statistics(Policy::Average),
            AverageConfig::new(Rule::lawa(3, 1)),
            AverageConfig::new(Rule::bema()),
        ];
        let averaged = |net: &Net| Averaged::new(net.valid().train(), configs.clone()).unwrap();
        let run = |validates: bool| {
            let (mut model, mut optimizer) = (averaged(&net), adam());
            for batch in points(40, seed).to_device(&device).iter() {
                let grads = TrainStep::step(&model, batch.unwrap()).grads;
                model = model.optimize(&mut optimizer, 0.02.into(), grads);
                if validates {
                    validate(&model, seed);
                }
            }
            assert!(model.error().is_none());
            model
        };
        let [without, with] = [false, true].map(run);
        assert_eq!(bits(&with), bits(&without));
    }
}

/// Everything that a model and its averages hold, bit for bit.
fn bits(model: &Averaged<Net>) -> Vec<Vec<u64>> {
    let averages = model.averages();
    let averages = averages.iter().map(|average| flat(&average.module(), true));
    let all = [flat(&model.live().valid(), true)].into_iter().chain(averages);
    all.map(|floats| floats.into_iter().map(f64::to_bits).collect()).collect()
}

/// Validates in each of the ways that there are, then fails.
fn validate(model: &Averaged<Net>, seed: u64) {
    let before = bits(model);
    let batch = points(8, seed + 50).iter().next().unwrap().unwrap();
    let snapshot = model.valid();
    InferenceStep::step(&snapshot, batch.clone());
    InferenceStep::step(model, batch.clone());
    for index in 0..3 {
        InferenceStep::step(&model.average(index).unwrap(), batch.clone());
    }
    let narrow = Tensor::zeros([8, 3], &batch.x.device());
    let bad = Points { x: narrow, y: batch.y };
    for model in [model, &snapshot] {
        let answer = || InferenceStep::step(model, bad.clone());
        assert!(catch_unwind(AssertUnwindSafe(answer)).is_err(), "it has two inputs");
    }
    assert_eq!(bits(model), before);
}
