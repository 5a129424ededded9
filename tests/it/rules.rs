//! Every rule through `Average`, on tensors: numbers of other programs, formulas written out once
//! more, and what must hold whatever the rule, the clock and the interval are.

use std::collections::BTreeSet;

use burn::{
    module::{Module, Param, ParamId, RunningState},
    nn::{BatchNorm, BatchNormConfig},
    tensor::{DType, Device, Tensor, TensorData},
};
use burn_ema::{Average, AverageConfig, Clock, Policy, Profile, Rule, average::Updated};
use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;

use crate::common::{Weights, assert_close, custom, flat, floats, kinds, numbers};

/// The samples of a step and the steps of an epoch, where a rule counts these.
const BATCH: u64 = 64;
const EPOCH: u64 = 9;

pub fn config(rule: Rule) -> AverageConfig {
    AverageConfig::new(rule).with_samples_per_step(Some(BATCH)).with_steps_per_epoch(Some(EPOCH))
}

// --- Numbers of other programs ---

/// The rule of a case of the oracle.
fn rule_of(case: &Value) -> Rule {
    let number = |key: &str| case[key].as_f64().unwrap_or_else(|| panic!("{key} in {case}"));
    match case["kind"].as_str().unwrap() {
        "constant" => {
            Rule::Constant { decay: number("decay"), debias: case["debias"].as_bool().unwrap() }
        }
        "equal" => Rule::Equal,
        "inverse_gamma" => Rule::InverseGamma {
            inv_gamma: number("inv_gamma"),
            power: number("power"),
            min_decay: case["min_decay"].as_f64().unwrap_or(0.0),
            max_decay: number("max_decay"),
        },
        "power_function" => Rule::power_function(number("sigma_rel")),
        kind => panic!("the oracle has a rule that is not checked: {kind}"),
    }
}

/// PyTorch's averages (constant, SWA), optax' bias correction, timm's warm-up and the published
/// recurrence of the power function, step by step.
#[test]
fn averages_equal_those_of_pytorch_optax_and_timm() {
    let oracle: Value = serde_json::from_str(include_str!("../oracle/averages.json")).unwrap();
    let path: Vec<_> = oracle["trajectory"].as_array().unwrap().iter().map(numbers).collect();
    let cases = oracle["cases"].as_array().unwrap();
    let mut checked = BTreeSet::new();
    for (device, dtype, tolerance) in kinds() {
        for case in cases {
            let mut average = AverageConfig::new(rule_of(&case["rule"]))
                .init(&Weights::new(&path[0], dtype, &device))
                .unwrap();
            let expected = case["average"].as_array().unwrap();
            assert_eq!(expected.len(), path.len() - 1, "one average for each step");
            for ((step, live), expected) in (1..).zip(&path[1..]).zip(expected) {
                average.update(&Weights::new(live, dtype, &device), step).unwrap();
                assert_close(&flat(&average.module(), true), &numbers(expected), tolerance);
                checked.insert(case["rule"]["kind"].as_str().unwrap());
            }
        }
    }
    let kinds = ["constant", "equal", "inverse_gamma", "power_function"];
    assert!(checked.iter().eq(&kinds), "only {checked:?} were checked");
}

// --- Formulas ---

/// Rules of every variant, some at both sides of a limit in their formula.
pub fn every_rule() -> Vec<Rule> {
    vec![
        Rule::ema(0.0),
        Rule::ema(0.97),
        Rule::debiased(0.97),
        Rule::half_life(7.5),
        Rule::HalfLifeSamples { samples: 500.0 },
        Rule::HalfLifeEpochs { epochs: 1.5 },
        Rule::warm_up(0.75), // the maximum comes after 26 steps
        Rule::WarmUp { warm_up: 3.5, max_decay: 1.0 },
        Rule::inverse_gamma(0.75, 0.9999),
        Rule::InverseGamma { inv_gamma: 3.0, power: 1.2, min_decay: 0.3, max_decay: 0.9 },
        Rule::Annealing { gamma: 20.0, max_decay: 0.7 },
        Rule::Annealing { gamma: 1.0, max_decay: 1.0 },
        Rule::ExponentialRamp { decay: 0.99, tau: 15.0 },
        Rule::half_life_ramp(0.05),
        Rule::HalfLifeRamp { fraction: 0.09, max_half_life: Some(3.0) },
        Rule::power_function(0.05),
        Rule::power_function(0.1),
        Rule::power_function(0.28),
        Rule::PowerFunctionGamma { gamma: 4.5 },
        Rule::Equal,
        Rule::lawa(3, 5),
        Rule::lawa(4, 1),
        Rule::Cosine { start: 0.6, end: 1.0, steps: 40.0 },
        Rule::Linear { start: 0.2, end: 0.95, steps: 40.0 },
        Rule::bema(),
        Rule::Bema { rho: 2.0, gamma: 0.5, eta: 1.1, kappa: 0.7 },
        Rule::target(0.05),
        Rule::target(1.0),
        Rule::copy(1),
        Rule::copy(7),
        custom(5.0),
    ]
}

/// A built-in rule that the tests below do not know shows here.
#[test]
fn the_rules_that_are_checked_are_all_that_there_are() {
    let refusal = "no such rule".parse::<Rule>().unwrap_err().to_string();
    let names = refusal.split("one of ").nth(1).unwrap();
    let names = names.split(", or ").next().unwrap().split(", ");
    let checked: Vec<_> = every_rule().iter().map(ToString::to_string).collect();
    for name in names {
        assert!(checked.iter().any(|rule| rule.split('(').next() == Some(name)), "{name}");
    }
}

/// The exponent of a relative width, as the root of its cubic equation by halving.
fn gamma_of(sigma_rel: f64) -> f64 {
    let s = sigma_rel.powi(-2);
    let (mut low, mut high) = (0.0, 1e4);
    for _ in 0..200 {
        let g: f64 = (low + high) / 2.0;
        let value = g.powi(3) + 7.0 * g.powi(2) + (16.0 - s) * g + 12.0 - s;
        if value < 0.0 { low = g } else { high = g }
    }
    low
}

/// The averages of numbers after each step, the start first, by the published formulas.
fn by_formula(rule: &Rule, w: &[f64]) -> Vec<f64> {
    let steps = || 1..w.len();
    let of_decay = |decay: &dyn Fn(f64) -> f64| -> Vec<f64> {
        let mut e = w[0];
        let each = steps().map(|t| {
            let d = decay(t as f64);
            e = d * e + (1.0 - d) * w[t];
            e
        });
        each.collect()
    };
    let of_half_life = |steps: f64| 2f64.powf(-1.0 / steps);
    let of_power = |gamma: f64| of_decay(&|t| (1.0 - 1.0 / t).powf(gamma + 1.0));
    match *rule {
        Rule::Constant { decay, debias: false } => of_decay(&|_| decay),
        Rule::Constant { decay: d, debias: true } => {
            let mut v = 0.0;
            let each = steps().map(|t| {
                v = d * v + (1.0 - d) * w[t];
                v / (1.0 - d.powi(t as i32))
            });
            each.collect()
        }
        Rule::HalfLife { steps } => of_decay(&|_| of_half_life(steps)),
        Rule::HalfLifeSamples { samples } => of_decay(&|_| of_half_life(samples / BATCH as f64)),
        Rule::HalfLifeEpochs { epochs } => of_decay(&|_| of_half_life(epochs * EPOCH as f64)),
        Rule::WarmUp { warm_up, max_decay } => {
            of_decay(&|t| f64::min(max_decay, (1.0 + t) / (warm_up + t)))
        }
        Rule::InverseGamma { inv_gamma, power, min_decay, max_decay } => of_decay(&|t| {
            let s = t - 1.0;
            if s == 0.0 {
                return 0.0;
            }
            (1.0 - (1.0 + s / inv_gamma).powf(-power)).max(min_decay).min(max_decay)
        }),
        Rule::Annealing { gamma, max_decay } => {
            of_decay(&|t| 1.0 - f64::max(1.0 - max_decay, gamma / (gamma + t)))
        }
        Rule::ExponentialRamp { decay, tau } => of_decay(&|t| decay * (1.0 - (-t / tau).exp())),
        Rule::HalfLifeRamp { fraction, max_half_life } => {
            of_decay(&|t| of_half_life((fraction * t).min(max_half_life.unwrap_or(1e300))))
        }
        Rule::PowerFunction { sigma_rel } => of_power(gamma_of(sigma_rel)),
        Rule::PowerFunctionGamma { gamma } => of_power(gamma),
        Rule::Equal => steps().map(|t| w[1..=t].iter().sum::<f64>() / t as f64).collect(),
        Rule::Window { snapshots, interval } => {
            let each = steps().map(|t| {
                let taken = (1..=t).rev().filter(|s| s % interval as usize == 0);
                let last: Vec<_> = taken.take(snapshots as usize).map(|s| w[s]).collect();
                if last.is_empty() { w[0] } else { last.iter().sum::<f64>() / last.len() as f64 }
            });
            each.collect()
        }
        Rule::Cosine { start, end, steps } => of_decay(&|t| {
            let angle = std::f64::consts::PI * f64::min(t, steps) / steps;
            end - (end - start) * (angle.cos() + 1.0) / 2.0
        }),
        Rule::Linear { start, end, steps } => {
            of_decay(&|t| start + (end - start) * f64::min(t, steps) / steps)
        }
        Rule::Bema { rho, gamma, eta, kappa } => {
            let base = |t: f64| rho + gamma * t;
            let averages = of_decay(&|t| 1.0 - base(t).powf(-kappa));
            let corrected =
                steps().zip(averages).map(|(t, e)| e + base(t as f64).powf(-eta) * (w[t] - w[0]));
            corrected.collect()
        }
        Rule::Target { tau } => of_decay(&|_| 1.0 - tau),
        Rule::Copy { every } => steps().map(|t| w[t - t % every as usize]).collect(),
        Rule::Custom { ref parameters, .. } => {
            of_decay(&|t| 1.0 - (1.0 + t / parameters[0]).powf(-0.5))
        }
        ref rule => panic!("no formula of {rule} is written here"),
    }
}

/// What weights look like while stochastic gradient descent settles: the start and `steps` more.
fn descent(seed: u64, steps: usize, size: usize) -> Vec<Vec<f64>> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut draw = |scale: f64| -> Vec<f64> {
        (0..size).map(|_| scale * (rng.random::<f64>() - 0.5)).collect()
    };
    let (target, mut w) = (draw(2.0), draw(6.0));
    let mut path = vec![w.clone()];
    for _ in 0..steps {
        let noise = draw(0.3);
        w = (0..size).map(|i| w[i] - 0.05 * (w[i] - target[i]) + noise[i]).collect();
        path.push(w.clone());
    }
    path
}

/// Each of some vectors after each step, by a function of the numbers of one place.
fn by_place(path: &[Vec<f64>], of_place: impl Fn(&[f64]) -> Vec<f64>) -> Vec<Vec<f64>> {
    let places = (0..path[0].len())
        .map(|place| of_place(&path.iter().map(|w| w[place]).collect::<Vec<_>>()));
    let places: Vec<_> = places.collect();
    (0..places[0].len()).map(|step| places.iter().map(|place| place[step]).collect()).collect()
}

#[test]
fn every_rule_follows_its_published_formula() {
    for (device, dtype, tolerance) in kinds() {
        for (seed, steps, size) in [(1, 64, 4), (2, 71, 9), (3, 1, 1)] {
            let path = descent(seed, steps, size);
            for rule in every_rule() {
                let mut average =
                    config(rule.clone()).init(&Weights::new(&path[0], dtype, &device)).unwrap();
                let expected = by_place(&path, |w| by_formula(&rule, w));
                for ((step, live), expected) in (1..).zip(&path[1..]).zip(&expected) {
                    average.update(&Weights::new(live, dtype, &device), step).unwrap();
                    assert_close(&flat(&average.module(), true), expected, tolerance);
                }
            }
        }
    }
}

/// The share of the old average that an update over some time keeps, which ends at a time.
type Kept = Box<dyn Fn(f64, f64) -> f64>;

/// Batches of other sizes than the usual: half-lives, the power function and equal weights have
/// formulas in samples.
#[test]
fn rules_follow_their_formulas_in_samples() {
    for (device, dtype, tolerance) in kinds() {
        let path = descent(4, 50, 3);
        let batches: Vec<u64> = (0..50).map(|step| [64, 64, 7, 200, 1][step % 5]).collect();
        let live = |w: &[f64]| Weights::new(w, dtype, &device);
        let gamma = gamma_of(0.1);
        let retention: [(Rule, Kept); 4] = [
            (Rule::HalfLifeSamples { samples: 700.0 }, Box::new(|b, _| 2f64.powf(-b / 700.0))),
            (Rule::HalfLife { steps: 10.0 }, Box::new(|b, _| 2f64.powf(-b / 640.0))),
            (Rule::power_function(0.1), Box::new(move |b, n| (1.0 - b / n).powf(gamma + 1.0))),
            (Rule::Equal, Box::new(|b, n| 1.0 - b / n)),
        ];
        for (rule, kept) in retention {
            let config = config(rule).with_count_samples(true);
            let mut average = config.init(&live(&path[0])).unwrap();
            let (mut expected, mut clock) = (path[0].clone(), Clock::default());
            for (w, &batch) in path[1..].iter().zip(&batches) {
                clock = clock.after(batch);
                average.update_at(&live(w), clock).unwrap();
                let kept = kept(batch as f64, clock.samples as f64);
                expected.iter_mut().zip(w).for_each(|(e, w)| *e = kept * *e + (1.0 - kept) * w);
                assert_close(&flat(&average.module(), true), &expected, tolerance);
            }
        }
    }
}

/// An update every k steps weighs the past as one every step does.
#[test]
fn rules_follow_their_formulas_every_few_steps() {
    for (device, dtype, tolerance) in kinds() {
        for every in 1..=7_u64 {
            let path = descent(5, 63, 3);
            let gamma = gamma_of(0.05);
            let retention: [(Rule, Kept); 4] = [
                (Rule::ema(0.95), Box::new(|k, _| 0.95f64.powf(k))),
                (Rule::half_life(20.0), Box::new(|k, _| 2f64.powf(-k / 20.0))),
                (Rule::power_function(0.05), Box::new(move |k, t| (1.0 - k / t).powf(gamma + 1.0))),
                (Rule::Equal, Box::new(|k, t| 1.0 - k / t)),
            ];
            for (rule, kept) in retention {
                let config = config(rule).with_every(every);
                let mut average = config.init(&Weights::new(&path[0], dtype, &device)).unwrap();
                let mut expected = path[0].clone();
                for (step, w) in (1..).zip(&path[1..]) {
                    average.update(&Weights::new(w, dtype, &device), step).unwrap();
                    if step % every == 0 {
                        let kept = kept(every as f64, step as f64);
                        let pairs = expected.iter_mut().zip(w);
                        pairs.for_each(|(e, w)| *e = kept * *e + (1.0 - kept) * w);
                    }
                    assert_close(&flat(&average.module(), true), &expected, tolerance);
                }
            }
        }
    }
}

/// A target network takes its share of live once in each update, however many steps the update
/// covers, while a decay counts them: in both loops below, one that calls at every step and one that
/// calls at every fourth.
#[test]
fn a_target_counts_updates_where_a_decay_counts_steps() {
    for (device, dtype, tolerance) in kinds() {
        let path = descent(6, 64, 3);
        for (rule, kept) in [(Rule::target(0.05), 0.95), (Rule::ema(0.95), 0.95f64.powi(4))] {
            for every in [1, 4] {
                let config = config(rule.clone()).with_every(4 / every);
                let mut average = config.init(&Weights::new(&path[0], dtype, &device)).unwrap();
                let mut expected = path[0].clone();
                for (step, w) in (1..).zip(&path[1..]) {
                    if step % every == 0 {
                        let live = Weights::new(w, dtype, &device);
                        let updated = average.update(&live, step).unwrap();
                        let due = if step % 4 == 0 { Updated::Moved } else { Updated::Kept };
                        assert_eq!(updated, due, "step {step}");
                    }
                    if step % 4 == 0 {
                        let pairs = expected.iter_mut().zip(w);
                        pairs.for_each(|(e, w)| *e = kept * *e + (1.0 - kept) * w);
                    }
                    assert_close(&flat(&average.module(), true), &expected, tolerance);
                }
                assert_eq!(average.profile().weights().len(), 16);
                let start = kept.powi(16);
                assert_close(&[average.mass_on_start()], &[start], 1e-12);
                assert_close(&[average.profile().mass_on_start()], &[start], 1e-12);
            }
        }
    }
}

/// Between its copies a target is what it was, bit for bit, and says so; where updates are called
/// at other steps, it copies at the first one after its time.
#[test]
fn a_copy_is_live_of_the_last_time_and_nothing_else() {
    for (device, dtype, _) in kinds() {
        let path = descent(7, 40, 3);
        let live = |step: usize| Weights::new(&path[step], dtype, &device);
        let mut average = config(Rule::copy(6)).init(&live(0)).unwrap();
        // Beside an average of another rule, a path of its own copies at the same steps.
        let config = config(Rule::ema(0.5)).on("w", Policy::Rule(Rule::copy(6)));
        let mut beside = config.init(&live(0)).unwrap();
        let mut copied = 0;
        for step in [1, 2, 5, 6, 7, 11, 13, 14, 15, 23, 25, 26, 29, 30, 40_usize] {
            let due = [6, 13, 23, 25, 30, 40].contains(&step);
            let updated = average.update(&live(step), step as u64).unwrap();
            assert_eq!(updated, if due { Updated::Moved } else { Updated::Kept }, "{step}");
            let updated = beside.update(&live(step), step as u64).unwrap();
            assert_eq!(updated, if due { Updated::Moved } else { Updated::Kept }, "{step}");
            if due {
                copied = step;
            }
            assert_eq!(flat(&average.module(), true), flat(&live(copied), true), "{step}");
        }
        assert_eq!(average.profile().mass_on_start(), 0.0);

        // A refused copy is made up for, and the next one is at its own time.
        let mut average = copy_of_six(&live(0));
        let bad = Weights::new(&[f64::NAN; 3], dtype, &device);
        let mut moved = vec![];
        for step in 1..=18 {
            let updated = match step {
                6 => average.update(&bad, 6).unwrap(),
                _ => average.update(&live(step), step as u64).unwrap(),
            };
            assert_eq!(updated == Updated::Refused, step == 6);
            moved.extend((updated == Updated::Moved).then_some(step));
        }
        assert_eq!(moved, [7, 12, 18]);
    }
}

fn copy_of_six(start: &Weights) -> Average<Weights> {
    config(Rule::copy(6)).init(start).unwrap()
}

/// A batch norm whose running mean is this number.
fn norm(value: f64) -> BatchNorm {
    let norm = BatchNormConfig::new(1).init(&Device::flex());
    let mean = Tensor::from_data([value as f32], &Device::flex());
    BatchNorm { running_mean: RunningState::new(mean), ..norm }
}

/// Between two copies nothing of a target moves, whether time is in steps or in samples.
#[test]
fn the_statistics_of_a_copied_target_are_copied_with_its_weights() {
    for samples in [false, true] {
        let config = config(Rule::copy(4)).with_count_samples(samples);
        let mut average = config.init(&norm(1.0)).unwrap();
        for step in 1..=12_u64 {
            let live = norm(10.0 * step as f64);
            average.update_at(&live, Clock { step, samples: BATCH * step }).unwrap();
            let copied = if step < 4 { 1.0 } else { 10.0 * (step - step % 4) as f32 };
            let kept = average.module().running_mean.value_sync().into_scalar::<f32>();
            assert_eq!(kept, copied, "step {step}");
        }
    }
}

#[test]
fn an_average_can_count_its_own_updates() {
    let path = descent(8, 12, 2);
    let live = |step: usize| Weights::new(&path[step], DType::F64, &Device::flex());
    for rule in [Rule::target(0.1), Rule::debiased(0.9), Rule::copy(5)] {
        let mut counting = config(rule).init(&live(0)).unwrap();
        let mut told = counting.clone();
        for step in 1..=12 {
            let updated = counting.advance(&live(step)).unwrap();
            assert_eq!(told.update(&live(step), step as u64).unwrap(), updated);
            // A step that was seen before.
            assert_eq!(told.update(&live(step), step as u64).unwrap(), Updated::Kept);
            assert_eq!(counting.last_step(), step as u64);
        }
        assert_eq!(flat(&counting.module(), true), flat(&told.module(), true));
        let before = counting.last_step();
        let bad = Weights::new(&[f64::NAN, 1.0], DType::F64, &Device::flex());
        let updated = (0..5).map(|_| counting.advance(&bad)).next().unwrap();
        let due = *counting.rule() != Rule::copy(5); // step 13
        assert_eq!(updated.unwrap(), if due { Updated::Refused } else { Updated::Kept });
        assert_eq!(counting.last_step(), before + 1);
    }
}

/// A step that keeps next to nothing still keeps its part where an update covers a part of it:
/// the share of the new weights alone, which rounds to 1, does not say how much.
#[test]
fn a_small_part_of_a_step_keeps_its_part_of_a_small_decay() {
    let device = Device::flex();
    for (rule, halvings) in [
        (Rule::half_life_ramp(0.05), 20.0), // torchtitan's, in its first step
        (Rule::half_life_ramp(0.01), 100.0),
        (Rule::ema(2f64.powi(-70)), 70.0),
    ] {
        let config = config(rule).with_samples_per_step(Some(256)).with_count_samples(true);
        let mut average = config.init(&Weights::new(&[1.0], DType::F64, &device)).unwrap();
        let zero = Weights::new(&[0.0], DType::F64, &device);
        for samples in 1..=16 {
            average.update_at(&zero, Clock { step: samples, samples }).unwrap();
            let kept = 2f64.powf(-halvings * samples as f64 / 256.0);
            assert_close(&flat(&average.module(), true), &[kept], 1e-12);
        }
    }
}

/// Shares that are summed over the steps of an update are rounded, but never beyond all.
#[test]
fn no_update_takes_more_than_everything() {
    let rule = Rule::Linear { start: 0.0, end: 0.030019216488798135, steps: 157.7562767503947 };
    let device = Device::flex();
    let live = Weights::new(&[1.0], DType::F64, &device);
    let mut average = config(rule).with_every(7).init(&live).unwrap();
    for step in 1..=77 {
        average.update(&live, step).unwrap();
        let profile = average.profile();
        let least = profile.weights().iter().map(|(_, weight)| *weight).fold(1.0, f64::min);
        assert!(profile.mass_on_start().min(least) >= 0.0, "step {step}: {profile:?}");
        let loaded = average.clone().try_load_record(average.clone().into_record());
        assert!(loaded.is_ok(), "step {step}: {}", loaded.map(|_| ()).unwrap_err());
    }
}

/// The correction of BEMA is not made for statistics, since a variance must stay positive.
#[test]
fn the_profile_of_a_statistic_is_that_of_its_average() {
    let norm = |value: f64| {
        let norm = BatchNormConfig::new(1).init(&Device::flex());
        let mean = Tensor::from_data([value], &Device::flex());
        BatchNorm { running_mean: RunningState::new(mean), ..norm }
    };
    let statistics = Policy::Rule(Rule::bema());
    let config = config(Rule::Equal).with_statistics(statistics);
    let mut average = config.init(&norm(1.0)).unwrap();
    average.update(&norm(0.0), 1).unwrap();
    let kept = average.module().running_mean.value_sync().into_scalar::<f32>();
    let profile = average.profile_of("running_mean").unwrap();
    assert_close(&[profile.mass_on_start()], &[f64::from(kept)], 1e-6);
}

// --- What holds of every rule ---

/// Rules of every variant in their ranges, with times that matter within a hundred steps.
fn any_rule() -> impl Strategy<Value = Rule> {
    custom(1.0);
    let share = || prop_oneof![Just(0.0), Just(1.0), 0.0..1.0, 0.9..1.0];
    let decay = || prop_oneof![Just(0.0), 0.0..1.0, 0.9..0.999];
    let times = || prop_oneof![Just(1.0), 0.01..1.0, 1.0..200.0];
    let inverse = (times(), 0.1..3.0, share(), share());
    let ramp = (1e-3..2.0, prop::option::of(times()));
    prop_oneof![
        (decay(), any::<bool>()).prop_map(|(decay, debias)| Rule::Constant { decay, debias }),
        times().prop_map(Rule::half_life),
        (1.0..1e4).prop_map(|samples| Rule::HalfLifeSamples { samples }),
        (0.1..9.0).prop_map(|epochs| Rule::HalfLifeEpochs { epochs }),
        (1.0..99.0, share()).prop_map(|(warm_up, max_decay)| Rule::WarmUp { warm_up, max_decay }),
        inverse.prop_map(|(inv_gamma, power, a, b)| {
            let (min_decay, max_decay) = (f64::min(a, b), f64::max(a, b));
            Rule::InverseGamma { inv_gamma, power, min_decay, max_decay }
        }),
        (times(), share()).prop_map(|(gamma, max_decay)| Rule::Annealing { gamma, max_decay }),
        (decay(), times()).prop_map(|(decay, tau)| Rule::ExponentialRamp { decay, tau }),
        ramp.prop_map(|(fraction, max_half_life)| Rule::HalfLifeRamp { fraction, max_half_life }),
        (0.01..0.28).prop_map(Rule::power_function),
        (0.0..50.0).prop_map(|gamma| Rule::PowerFunctionGamma { gamma }),
        Just(Rule::Equal),
        (1_u64..6, 1_u64..12).prop_map(|(snapshots, interval)| Rule::lawa(snapshots, interval)),
        (share(), share(), times()).prop_map(|(start, end, steps)| Rule::Cosine {
            start,
            end,
            steps
        }),
        (share(), share(), times()).prop_map(|(start, end, steps)| Rule::Linear {
            start,
            end,
            steps
        }),
        (1.0..50.0, 0.0..5.0, 0.0..2.0, 0.0..2.0).prop_map(|(rho, gamma, eta, kappa)| Rule::Bema {
            rho,
            gamma,
            eta,
            kappa
        }),
        (0.01..1.0).prop_map(Rule::target),
        (1_u64..12).prop_map(Rule::copy),
        (0.1..50.0).prop_map(custom),
    ]
}

/// The rules whose share depends on the time that an update covers: all but a target's.
fn any_rule_of_time() -> impl Strategy<Value = Rule> {
    any_rule().prop_filter("a target counts updates", |rule| !matches!(rule, Rule::Target { .. }))
}

fn is_bema(rule: &Rule) -> bool {
    matches!(rule, Rule::Bema { .. })
}

/// Two parameters, so that one can have a rule of its own.
#[derive(Module, Debug)]
struct Both {
    a: Param<Tensor<1>>,
    b: Param<Tensor<1>>,
}

impl Both {
    fn new(values: &[f64], dtype: DType) -> Self {
        let device = Device::flex();
        let param = |values: &[f64]| {
            let data = TensorData::new(values.to_vec(), [values.len()]);
            Param::initialized(ParamId::new(), Tensor::from_data(data, (&device, dtype)))
        };
        let (a, b) = values.split_at(values.len() / 2);
        Self { a: param(a), b: param(b) }
    }

    /// Weights that depend on the seed alone, in (-1, 1) and never 0.
    fn drawn(rng: &mut ChaCha8Rng) -> Vec<f64> {
        (0..4).map(|_| 1.9 * rng.random::<f64>() - 0.95 + 1e-9).collect()
    }
}

/// The settings of an average, and the training that it sees.
#[derive(Clone, Debug)]
struct Training {
    rule: Rule,
    /// The rule of the second parameter, if it has its own.
    own: Option<Rule>,
    every: u64,
    start: u64,
    /// Whether time runs in samples in any case.
    samples: bool,
    /// The samples of each step, and whether an update is asked for after it.
    steps: Vec<(u64, bool)>,
    seed: u64,
}

fn any_training() -> impl Strategy<Value = Training> {
    any_training_of(any_rule(), any_rule())
}

fn any_training_of(
    rule: impl Strategy<Value = Rule>,
    own: impl Strategy<Value = Rule>,
) -> impl Strategy<Value = Training> {
    let batch = prop_oneof![4 => Just(BATCH), 1 => 1_u64..300];
    let steps = prop::collection::vec((batch, prop::bool::weighted(0.9)), 1..80);
    let start = prop_oneof![2 => Just(0), 1 => 0_u64..20];
    let rules = (rule, prop::option::of(own));
    (rules, 1_u64..=7, start, any::<bool>(), steps, any::<u64>()).prop_map(
        |((rule, own), every, start, samples, steps, seed)| Training {
            rule,
            own,
            every,
            start,
            samples,
            steps,
            seed,
        },
    )
}

impl Training {
    fn config(&self) -> AverageConfig {
        let config = config(self.rule.clone())
            .with_every(self.every)
            .with_start(self.start)
            .with_count_samples(self.samples);
        match &self.own {
            Some(own) => config.on("b", Policy::Rule(own.clone())),
            None => config,
        }
    }

    /// The time of a clock as profiles count it: in steps, or in samples by those of a step.
    fn time(&self, clock: Clock) -> f64 {
        let samples = |rule: &Rule| matches!(rule, Rule::HalfLifeSamples { .. });
        let own = self.own.as_ref().is_some_and(samples);
        match self.samples || samples(&self.rule) || own {
            true => clock.samples as f64 / BATCH as f64,
            false => clock.step as f64,
        }
    }

    /// The clock and the weights after each step that the average sees, the start first.
    fn seen(&self) -> Vec<(Clock, Vec<f64>)> {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        let mut clock = Clock::default();
        let mut all = vec![(clock, Both::drawn(&mut rng))];
        for &(batch, seen) in &self.steps {
            clock = clock.after(batch);
            let weights = Both::drawn(&mut rng);
            if seen {
                all.push((clock, weights));
            }
        }
        all
    }

    /// The average at the end.
    fn run(&self, seen: &[(Clock, Vec<f64>)], dtype: DType) -> Average<Both> {
        let mut average = self.config().init(&Both::new(&seen[0].1, dtype)).unwrap();
        for (clock, weights) in &seen[1..] {
            average.update_at(&Both::new(weights, dtype), *clock).unwrap();
        }
        average
    }
}

/// The weights that a profile says the average is made of, mixed.
fn mixed(
    profile: &Profile,
    training: &Training,
    seen: &[(Clock, Vec<f64>)],
) -> Result<Vec<f64>, TestCaseError> {
    // The start is the first that is seen from the step on after which it averages.
    let start = seen.iter().find(|(clock, _)| clock.step >= training.start);
    let (_, start) = start.unwrap_or(&seen[seen.len() - 1]);
    let mut mixed: Vec<f64> = start.iter().map(|w| profile.mass_on_start() * w).collect();
    for &(time, weight) in profile.weights() {
        let at = seen.iter().find(|(clock, _)| (training.time(*clock) - time).abs() < 1e-9);
        let Some((_, weights)) = at else {
            return Err(TestCaseError::fail(format!("nothing was seen at {time}")));
        };
        mixed.iter_mut().zip(weights).for_each(|(sum, w)| *sum += weight * w);
    }
    Ok(mixed)
}

fn bits(average: &Average<Both>) -> Vec<u64> {
    flat(&average.module(), true).iter().map(|x| x.to_bits()).collect()
}

fn near(found: &[f64], expected: &[f64], tolerance: f64) -> Result<(), TestCaseError> {
    prop_assert_eq!(found.len(), expected.len());
    for (a, b) in found.iter().zip(expected) {
        prop_assert!((a - b).abs() <= tolerance, "{} against {}", a, b);
    }
    Ok(())
}

proptest! {
    #[test]
    fn an_average_is_what_its_profile_says(training in any_training()) {
        let seen = training.seen();
        let average = training.run(&seen, DType::F64);
        let own = training.own.as_ref().unwrap_or(&training.rule);
        prop_assert_eq!(average.profile_of("a"), Some(average.profile()));
        prop_assert_eq!(average.profile_of("c"), None);
        for (path, rule) in [("a", &training.rule), ("b", own)] {
            let profile = average.profile_of(path).unwrap();
            let expected = mixed(&profile, &training, &seen)?;
            let module = floats(&average.module());
            let (place, (.., found)) =
                module.iter().enumerate().find(|(_, (of, ..))| of == path).unwrap();
            near(found, &expected[2 * place..2 * place + 2], 1e-9)?;

            let weights: Vec<f64> = profile.weights().iter().map(|(_, weight)| *weight).collect();
            let sum = profile.mass_on_start() + weights.iter().sum::<f64>();
            prop_assert!((sum - 1.0).abs() < 1e-12, "{} sums to {}", rule, sum);
            if !is_bema(rule) {
                let least = weights.iter().copied().fold(profile.mass_on_start(), f64::min);
                prop_assert!(least >= 0.0, "{} has a weight of {}", rule, least);
            }
        }
    }

    /// What a configuration says before a training is what its average says after it.
    #[test]
    fn a_profile_foretold_is_that_of_the_training(
        rule in any_rule(), every in 1_u64..=7, start in 0_u64..20, steps in 1_u64..80,
        samples: bool,
    ) {
        let config = config(rule).with_every(every).with_start(start).with_count_samples(samples);
        let live = Both::new(&[0.5, 0.25], DType::F64);
        let mut average = config.init(&live).unwrap();
        for step in 1..=steps {
            average.update(&live, step).unwrap();
        }
        prop_assert_eq!(config.profile_after(steps).unwrap(), average.profile());
    }

    /// `a + alpha (a - a)` is `a`, whatever alpha is.
    #[test]
    fn the_average_of_weights_that_do_not_move_is_these_weights(training in any_training()) {
        for dtype in [DType::F32, DType::F64] {
            let mut seen = training.seen();
            let start = seen[0].1.clone();
            seen.iter_mut().for_each(|(_, weights)| weights.clone_from(&start));
            let live = Both::new(&start, dtype);
            prop_assert_eq!(flat(&training.run(&seen, dtype).module(), true), flat(&live, true));
        }
    }

    #[test]
    fn before_its_start_and_at_it_an_average_is_live(training in any_training(), start in 1_u64..60) {
        let training = Training { start, ..training };
        let seen = training.seen();
        let mut average = training.config().init(&Both::new(&seen[0].1, DType::F32)).unwrap();
        let mut begun = false;
        for (clock, weights) in &seen[1..] {
            let live = Both::new(weights, DType::F32);
            average.update_at(&live, *clock).unwrap();
            if begun {
                break;
            }
            prop_assert_eq!(flat(&average.module(), true), flat(&live, true));
            prop_assert_eq!(average.profile().mass_on_start(), 1.0);
            prop_assert!(average.profile().weights().is_empty());
            begun = clock.step >= start;
            prop_assert_eq!(average.has_begun(), begun);
        }
    }

    #[test]
    fn the_same_step_again_changes_nothing(training in any_training()) {
        let seen = training.seen();
        let mut average = training.config().init(&Both::new(&seen[0].1, DType::F64)).unwrap();
        for (clock, weights) in &seen[1..] {
            average.update_at(&Both::new(weights, DType::F64), *clock).unwrap();
            let once = average.clone();
            let other: Vec<f64> = weights.iter().map(|w| w + 1.0).collect();
            average.update_at(&Both::new(&other, DType::F64), *clock).unwrap();
            prop_assert_eq!(bits(&average), bits(&once));
            prop_assert_eq!(average.mass().to_bits(), once.mass().to_bits());
            prop_assert_eq!(average.clock(), once.clock());
        }
        prop_assert_eq!(bits(&average), bits(&training.run(&seen, DType::F64)));
    }

    /// An update that covers several steps is as many updates with the same weights.
    #[test]
    fn an_update_over_several_steps_is_these_steps(
        training in any_training_of(any_rule_of_time(), any_rule_of_time()), k in 1_usize..30,
    ) {
        // Before its start an average is live, and only what it covers after that is averaged.
        let start = training.start.min(training.steps.len() as u64);
        let mut training = Training { every: 1, start, ..training };
        training.steps.last_mut().unwrap().1 = true;
        let seen = training.seen();
        let mut at_once = training.run(&seen, DType::F64);
        let mut one_by_one = at_once.clone();
        let batches = training.steps.iter().cycle().take(k);
        let live = Both::new(&Both::drawn(&mut ChaCha8Rng::seed_from_u64(k as u64)), DType::F64);
        let mut clock = at_once.clock();
        for (batch, _) in batches {
            clock = clock.after(*batch);
            one_by_one.update_at(&live, clock).unwrap();
        }
        at_once.update_at(&live, clock).unwrap();
        near(&flat(&at_once.module(), true), &flat(&one_by_one.module(), true), 1e-12)?;
        prop_assert!((at_once.mass() - one_by_one.mass()).abs() <= 1e-12);
        let start = |average: &Average<_>| average.profile().mass_on_start();
        prop_assert!((start(&at_once) - start(&one_by_one)).abs() <= 1e-12);
    }

    /// With time in samples, half the batch size changes nothing: weights that are seen for two
    /// steps of 32 samples count as those of one step of 64 do.
    #[test]
    fn the_batch_size_does_not_change_an_average_in_samples(
        rule in any_rule_of_time(), per_step in prop_oneof![Just(64_u64), 1_u64..200],
        steps in 1_usize..60,
        seed: u64,
    ) {
        let config = config(rule).with_count_samples(true).with_samples_per_step(Some(per_step));
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let start = Both::new(&Both::drawn(&mut rng), DType::F64);
        let mut wide = config.init(&start).unwrap();
        let mut narrow = wide.clone();
        for _ in 0..steps {
            let live = Both::new(&Both::drawn(&mut rng), DType::F64);
            wide.update_at(&live, wide.clock().after(64)).unwrap();
            narrow.update_at(&live, narrow.clock().after(32)).unwrap();
            narrow.update_at(&live, narrow.clock().after(32)).unwrap();
            prop_assert_eq!(wide.clock().samples, narrow.clock().samples);
            near(&flat(&wide.module(), true), &flat(&narrow.module(), true), 1e-12)?;
        }
    }
}

/// A share that is 1 in single precision is a copy, on every backend.
#[test]
#[cfg(feature = "ndarray")]
fn a_share_of_nearly_one_is_the_same_on_every_backend() {
    #[expect(deprecated, reason = "Burn still ships it, and so it is checked")]
    let devices = [Device::flex(), Device::ndarray()];
    let [flex, ndarray] = devices.map(|device| {
        let of = |i: usize| (0..200).map(|j| (i * 211 + j) as f64 * 0.917_3).collect::<Vec<_>>();
        let start = Weights::new(&of(0), DType::F32, &device);
        let mut average = AverageConfig::new(Rule::ema(1e-9)).init(&start).unwrap();
        let live = Weights::new(&of(7), DType::F32, &device);
        average.update(&live, 1).unwrap();
        let found = flat(&average.module(), true);
        assert_eq!(found, flat(&live, true));
        found
    });
    assert_eq!(flex, ndarray);
}
