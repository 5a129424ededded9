//! Averages stored during a training, and others made of them afterwards.

use std::{fs, path::Path};

use burn::{
    lr_scheduler::constant::ConstantLr,
    module::{Module, ModuleMapper, Param},
    nn::{Linear, LinearConfig},
    tensor::{DType, FloatDType, Tensor},
};
use burn_ema::{
    Average, AverageConfig, Error, Policy, Rule,
    average::{
        Snapshot, Snapshots,
        post_hoc::{Mix, Solve, Target},
    },
    runs::fit,
    train::Averaged,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{
    common::{EXACT, Net, Plan, adam, assert_close, device, flat, floats},
    hand::{Diary, cast, with_floats},
};

/// The network with this number in all statistics.
fn with_statistics(net: Net, number: f64) -> Net {
    struct Put(f64);
    impl ModuleMapper for Put {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.map(|tensor| tensor.zeros_like() + self.0)
        }
    }
    let running_mean = net.norm.running_mean.clone().map(&mut Put(number));
    let running_var = net.norm.running_var.clone().map(&mut Put(number));
    let norm = burn::nn::BatchNorm { running_mean, running_var, ..net.norm };
    Net { norm, ..net }
}

/// A training: each weight goes along a curve of its own, with noise; the statistics of a batch
/// norm are the number of the step.
struct Course {
    seed: u64,
    noise: ChaCha8Rng,
}

impl Course {
    fn new(seed: u64) -> Self {
        Self { seed, noise: ChaCha8Rng::seed_from_u64(seed) }
    }

    fn live(&mut self, step: u64) -> Net {
        let net = Net::new(self.seed, &device());
        let weights = flat(&net, false).into_iter().enumerate().map(|(index, start)| {
            let t = step as f64;
            let curve = (t / (30.0 + index as f64)).sin() + 0.3 * (1.0 + t).ln();
            start + curve + 0.5 * (self.noise.random::<f64>() - 0.5)
        });
        let weights: Vec<_> = weights.collect();
        with_statistics(with_floats(net, &weights), step as f64)
    }
}

const WIDTHS: [f64; 2] = [0.05, 0.1];
const STEPS: u64 = 160;
const EVERY: u64 = 10;

fn widths() -> [AverageConfig; 2] {
    WIDTHS.map(|width| AverageConfig::new(Rule::power_function(width)))
}

fn target(sigma_rel: f64) -> Target {
    Target::PowerFunction { sigma_rel }
}

/// Trains, and stores the averages by these configurations.
fn stored(
    directory: &Path,
    dtype: FloatDType,
    seed: u64,
    configs: &[AverageConfig],
    mut also: impl FnMut(u64, &Net, &[Average<Net>]),
) -> Snapshots {
    let snapshots = Snapshots::create(directory, dtype).unwrap();
    let mut course = Course::new(seed);
    let start = course.live(0);
    let mut averages: Vec<_> = configs.iter().map(|config| config.init(&start).unwrap()).collect();
    for step in 1..=STEPS {
        let live = course.live(step);
        for average in &mut averages {
            average.update(&live, step).unwrap();
        }
        if step.is_multiple_of(EVERY) {
            averages.iter().for_each(|average| drop(snapshots.store(average).unwrap()));
        }
        also(step, &live, &averages);
    }
    snapshots
}

/// By how much a mix may differ from the average that was wanted, at most: its error in the
/// profile, times the length of the way (the inequality of Cauchy and Schwarz).
fn bounds(mix: &Mix, lives: &[Vec<f64>]) -> Vec<f64> {
    let fine = 64;
    let squares = (0..STEPS * fine).map(|index| {
        let t = (index as f64 + 0.5) / fine as f64;
        mix.target_at(t).powi(2) / fine as f64
    });
    let apart = mix.relative_error() * squares.sum::<f64>().sqrt();
    (0..lives[0].len())
        .map(|weight| {
            // All profiles have the sum 1, so that the way may be seen from anywhere.
            let way = lives.iter().map(|live| live[weight]);
            let mean = way.clone().sum::<f64>() / lives.len() as f64;
            apart * way.map(|x| (x - mean).powi(2)).sum::<f64>().sqrt()
        })
        .collect()
}

fn rms(a: &[f64], b: &[f64]) -> f64 {
    let squares = a.iter().zip(b).map(|(a, b)| (a - b).powi(2));
    (squares.sum::<f64>() / a.len() as f64).sqrt()
}

#[test]
fn a_width_that_was_not_stored_is_made_within_the_reported_error() {
    for seed in 0..3 {
        let directory = tempfile::tempdir().unwrap();
        let wanted = [
            (target(0.07), Rule::power_function(0.07)),
            (target(0.15), Rule::power_function(0.15)),
            (Target::PowerFunctionGamma { gamma: 4.0 }, Rule::PowerFunctionGamma { gamma: 4.0 }),
            (Target::PowerFunctionGamma { gamma: 0.0 }, Rule::Equal),
            (Target::Constant { decay: 0.95 }, Rule::debiased(0.95)),
        ];
        let mut course = Course::new(seed);
        let start = course.live(0);
        let tracked = wanted.each_ref().map(|(_, rule)| AverageConfig::new(rule.clone()));
        let mut tracked = tracked.map(|config| config.init(&start).unwrap());
        let mut lives = Vec::new();
        let mut ends = Vec::new();
        let snapshots =
            stored(directory.path(), FloatDType::F32, seed, &widths(), |step, live, averages| {
                for average in &mut tracked {
                    average.update(live, step).unwrap();
                }
                lives.push(flat(live, false));
                ends = averages.iter().map(|average| flat(&average.module(), false)).collect();
            });
        for ((target, rule), tracked) in wanted.iter().zip(&tracked) {
            for solve in [Solve::Published, Solve::Constrained] {
                let made = snapshots.synthesize(&start, target, None, solve).unwrap();
                let (found, expected) = (flat(&made.module, false), flat(&tracked.module(), false));
                let bounds = bounds(&made.mix, &lives);
                for ((found, expected), bound) in found.iter().zip(&expected).zip(&bounds) {
                    let apart = (found - expected).abs();
                    assert!(apart <= bound + 2e-5, "{rule}: {apart} is above {bound}");
                }
                // And it is no stored one: those lie several times further off.
                let nearest = ends.iter().map(|end| rms(end, &expected)).fold(f64::MAX, f64::min);
                let apart = rms(&found, &expected);
                assert!(apart < 0.3 * nearest, "{rule} ({solve:?}): {apart} of {nearest}");
                assert!(made.mix.relative_error() < 0.35, "{rule}");
            }
        }
    }
}

#[test]
fn the_weights_are_the_coefficients_times_the_stored_averages() {
    for (seed, dtype) in [(0, FloatDType::F32), (1, FloatDType::F32), (2, FloatDType::F16)] {
        if !EXACT && dtype == FloatDType::F16 {
            continue; // 16 bits there depend on the adapter
        }
        let directory = tempfile::tempdir().unwrap();
        let mut known = Vec::new();
        let snapshots = stored(directory.path(), dtype, seed, &widths(), |step, _, averages| {
            if step.is_multiple_of(EVERY) {
                // Of one step the smaller exponent, which is the larger width, comes first.
                for average in averages.iter().rev() {
                    let rounded = cast(average.module(), dtype.into());
                    known.push((step, flat(&rounded, false)));
                }
            }
        });
        let list = snapshots.list().unwrap();
        let steps = |list: &[Snapshot]| list.iter().map(|s| s.step).collect::<Vec<_>>();
        assert_eq!(steps(&list), known.iter().map(|(step, _)| *step).collect::<Vec<_>>());
        let exponents = WIDTHS.map(|width| Rule::gamma_of(width).unwrap());
        for (index, snapshot) in list.iter().enumerate() {
            assert_eq!(snapshot.stored.step, snapshot.step as f64);
            assert_eq!(snapshot.stored.gamma, exponents[1 - index % 2]);
        }
        for at in [None, Some(80)] {
            let start = Net::new(9, &device());
            let made = snapshots.synthesize(&start, &target(0.12), at, Solve::Published).unwrap();
            let coefficients = made.mix.coefficients();
            assert_eq!(coefficients.len(), list.len());
            let mut expected = vec![0.0; known[0].1.len()];
            for (share, (_, weights)) in coefficients.iter().zip(&known) {
                expected.iter_mut().zip(weights).for_each(|(sum, x)| *sum += share * x);
            }
            assert_close(&flat(&made.module, false), &expected, 1e-6);
            // Of later snapshots there is nothing in it.
            let last = at.unwrap_or(STEPS);
            for (snapshot, share) in list.iter().zip(coefficients) {
                assert!(snapshot.step <= last || *share == 0.0, "{snapshot:?}: {share}");
            }
        }
    }
}

#[test]
fn statistics_are_those_of_the_newest_snapshot() {
    let directory = tempfile::tempdir().unwrap();
    let snapshots = stored(directory.path(), FloatDType::F32, 0, &widths(), |_, _, _| {});
    for (at, expected) in [(None, 160.0), (Some(160), 160.0), (Some(70), 70.0)] {
        let like = with_statistics(Net::new(5, &device()), 7.5);
        let made = snapshots.synthesize(&like, &target(0.08), at, Solve::Published).unwrap();
        for (path, _, numbers) in floats(&made.module) {
            assert!(!path.contains("running_") || numbers == [expected; 16], "{path} at {at:?}");
        }
        // The module that gives the structure stays as it was.
        assert_eq!(flat(&like, false), flat(&Net::new(5, &device()), false));
        assert!(flat(&like.norm.valid(), true).contains(&7.5));
    }
    // Averaged statistics are mixed as weights are.
    let averaged = widths().map(|config| config.with_statistics(Policy::Average));
    let directory = tempfile::tempdir().unwrap();
    let snapshots = stored(directory.path(), FloatDType::F32, 0, &averaged, |_, _, _| {});
    let made = snapshots.synthesize(&Net::new(5, &device()), &target(0.1), None, Solve::Published);
    let variance = made.unwrap().module.norm.running_var.value_sync().into_data();
    // The mean age of that power function is the share `1 / (gamma + 2)` of the training.
    let gamma = Rule::gamma_of(0.1).unwrap();
    let mean = 160.0 * (gamma + 1.0) / (gamma + 2.0) + 0.5;
    assert_close(&variance.convert::<f64>().try_into_vec::<f64>().unwrap(), &[mean; 16], 1e-3);
}

#[test]
fn what_is_left_out_is_the_modules_own() {
    let configs = widths().map(|config| {
        config.on("first.*", Policy::LeaveOut).on("norm.running_*", Policy::LeaveOut)
    });
    let directory = tempfile::tempdir().unwrap();
    let snapshots = stored(directory.path(), FloatDType::F32, 0, &configs, |_, _, _| {});
    let like = with_statistics(Net::new(5, &device()), 7.5);
    let made = snapshots.synthesize(&like, &target(0.08), None, Solve::Published).unwrap().module;
    let (found, own) = (floats(&made), floats(&like));
    for ((path, _, found), (.., own)) in found.into_iter().zip(own) {
        let left_out = path.starts_with("first") || path.contains("running_");
        assert_eq!(found == own, left_out, "{path}");
    }
    // Copied and frozen parameters are those of the newest snapshot.
    let configs =
        widths().map(|config| config.on("first.*", Policy::Copy).on("last.*", Policy::Freeze));
    let directory = tempfile::tempdir().unwrap();
    let mut newest = None;
    let snapshots = stored(directory.path(), FloatDType::F16, 0, &configs, |_, live, averages| {
        newest = Some((live.clone(), averages[0].module()));
    });
    let made = snapshots.synthesize(&like, &target(0.08), None, Solve::Published).unwrap().module;
    let (live, average) = newest.unwrap();
    let of = |module: &Net, start: &str| -> Vec<f64> {
        let floats = floats(module).into_iter().filter(|(path, ..)| path.starts_with(start));
        floats.flat_map(|(.., numbers)| numbers).collect()
    };
    // They are not rounded either.
    assert_eq!(of(&made, "first"), of(&live, "first"));
    assert_eq!(of(&made, "last"), of(&average, "last"));
}

#[test]
fn files_of_half_precision_are_half_the_size() {
    let linear = LinearConfig::new(128, 128).init(&device());
    let mut average = widths()[0].init(&linear).unwrap();
    average.update(&linear, 1).unwrap();
    let [half, single] = [FloatDType::F16, FloatDType::F32].map(|dtype| {
        let directory = tempfile::tempdir().unwrap();
        let path = Snapshots::create(directory.path(), dtype).unwrap().store(&average).unwrap();
        fs::metadata(path).unwrap().len() as f64
    });
    assert!((half / single - 0.5).abs() < 0.02, "{half} of {single}");
    assert!(single >= 128.0 * 129.0 * 4.0);
}

/// The module takes the dtype and the device of the one that gives the structure.
#[test]
fn the_dtype_and_device_are_those_of_the_module() {
    let directory = tempfile::tempdir().unwrap();
    let snapshots = stored(directory.path(), FloatDType::F32, 0, &widths(), |_, _, _| {});
    let make = |like: &Net| {
        let made = snapshots.synthesize(like, &target(0.08), None, Solve::Published);
        made.map(|made| made.module)
    };
    let expected = flat(&make(&Net::new(5, &device())).unwrap(), false);
    #[cfg(feature = "ndarray")]
    {
        #[expect(deprecated, reason = "Burn still ships it, and so it is checked")]
        let ndarray = burn::tensor::Device::ndarray();
        let made = make(&Net::new(5, &ndarray)).unwrap();
        assert_eq!(made.devices(), [ndarray]);
        assert_eq!(flat(&made, false), expected);
    }
    let trains = make(&Net::new(5, &device().autodiff()).train()).unwrap();
    assert!(!trains.first.weight.val().is_require_grad(), "in validation mode");
    assert_eq!(flat(&trains, false), expected);
    if EXACT {
        // Statistics are copied as they are, so that their dtype is the one they were stored in.
        let like = Net::new(5, &device());
        let double = Net { first: cast(like.first, DType::F64), ..Net::new(5, &device()) };
        let made = make(&double).unwrap();
        assert_eq!(made.first.weight.val().dtype(), DType::F64);
        assert_eq!(made.last.weight.val().dtype(), DType::F32);
        assert_close(&flat(&made, false), &expected, 1e-6);
    }
}

#[test]
fn the_learner_stores_and_what_is_made_is_what_was_tracked() {
    for seed in 0..2 {
        let [directory, files] = [0, 1].map(|_| tempfile::tempdir().unwrap());
        let plan = Plan { epochs: 8, ..Plan::new(directory.path()) };
        let snapshots = Snapshots::create(files.path(), FloatDType::F32).unwrap();
        let other = AverageConfig::new(Rule::ema(0.9));
        let configs = [vec![other], widths().to_vec()].concat();
        let model = Averaged::new(Diary::new(seed), configs).unwrap();
        let model = model.with_snapshots(snapshots.clone(), 4).unwrap();
        let model =
            fit(plan.training(), model, adam(), ConstantLr::new(0.02)).launch().unwrap().model;

        let list = snapshots.list().unwrap();
        assert_eq!(list.len(), 2 * 16, "the average of constant decay is not stored");
        for (snapshot, step) in list.iter().zip((1..).flat_map(|index| [4 * index; 2])) {
            let name = snapshot.path.file_name().unwrap().to_str().unwrap();
            assert_eq!(snapshot.step, step);
            assert!(name.starts_with(&format!("{step:010}-power(sigma_rel=0.")), "{name}");
        }
        // A stored width comes back as it is.
        for (index, width) in [(1, 0.05), (2, 0.1)] {
            let start = Diary::new(9);
            let made = snapshots.synthesize(&start, &target(width), None, Solve::Published);
            let made = made.unwrap();
            assert!(made.mix.relative_error() < 1e-6);
            let expected = flat(&model.average(index).unwrap(), true);
            assert_close(&flat(&made.module, true), &expected, 1e-5);
        }
        // Another is near the one that the diary gives.
        let mut tracked =
            AverageConfig::new(Rule::power_function(0.15)).init(&Diary::new(seed)).unwrap();
        let pages = model.live().pages();
        for (clock, live) in &pages {
            tracked.update(live, clock.step).unwrap();
        }
        let made = snapshots.synthesize(&Diary::new(9), &target(0.15), None, Solve::Published);
        let made = flat(&made.unwrap().module, false);
        let expected = flat(&tracked.module(), false);
        let nearest = rms(&flat(&model.average(2).unwrap(), false), &expected);
        assert!(rms(&made, &expected) < 0.3 * nearest);
    }
}

/// Four epochs are two and two, also in what is stored.
#[test]
fn a_resumed_training_stores_on() {
    let trained = |stops: bool| {
        let [directory, files] = [0, 1].map(|_| tempfile::tempdir().unwrap());
        let snapshots = Snapshots::create(files.path(), FloatDType::F32).unwrap();
        let model = |seed| {
            let model = Averaged::new(Net::new(seed, &device()), widths()).unwrap();
            model.with_snapshots(snapshots.clone(), 3).unwrap()
        };
        let plan = Plan { checkpoints: true, epochs: 4, ..Plan::new(directory.path()) };
        if stops {
            Plan { epochs: 2, ..plan.clone() }.launch(model(0));
            Plan { resume: Some(2), ..plan }.launch(model(7));
        } else {
            plan.launch(model(0));
        }
        let stored: Vec<_> = snapshots.list().unwrap().iter().map(|s| s.stored).collect();
        let start = Net::new(9, &device());
        let made = snapshots.synthesize(&start, &target(0.07), None, Solve::Published).unwrap();
        (stored, flat(&made.module, true))
    };
    assert_eq!(trained(true), trained(false));
}

/// What was stored after the checkpoint that a training goes on from is not mixed in.
#[test]
fn a_course_that_was_given_up_is_removed() {
    // Whether the directory is resumed, and whether anything was stored after the checkpoint.
    let run = |resumes: bool, stores_on: bool| {
        let directory = tempfile::tempdir().unwrap();
        let snapshots = Snapshots::create(directory.path(), FloatDType::F32).unwrap();
        let mut course = Course::new(0);
        let start = course.live(0);
        let mut averages = widths().map(|config| config.init(&start).unwrap());
        let mut at_checkpoint = None;
        for step in 1..=200 {
            let live = course.live(step);
            for average in &mut averages {
                average.update(&live, step).unwrap();
            }
            if step.is_multiple_of(EVERY) && (step <= 100 || stores_on) {
                averages.iter().for_each(|average| drop(snapshots.store(average).unwrap()));
            }
            if step == 100 {
                at_checkpoint = Some(averages.clone());
            }
        }
        let snapshots = match resumes {
            true => Snapshots::resume(directory.path(), FloatDType::F32, 100).unwrap(),
            false => snapshots,
        };
        if resumes {
            assert_eq!(snapshots.list().unwrap().len(), 20);
        }
        let mut averages = at_checkpoint.unwrap();
        let mut course = Course::new(5);
        for step in 101..=150 {
            let live = course.live(step);
            for average in &mut averages {
                average.update(&live, step).unwrap();
            }
            if step.is_multiple_of(EVERY) {
                averages.iter().for_each(|average| drop(snapshots.store(average).unwrap()));
            }
        }
        let made = snapshots.synthesize(&start, &target(0.07), None, Solve::Published).unwrap();
        assert_eq!(snapshots.list().unwrap().len(), 30);
        flat(&made.module, true)
    };
    let straight = run(false, false);
    assert_eq!(run(false, true), straight);
    assert_eq!(run(true, true), straight);
    assert_eq!(run(true, false), straight);
}

/// By the hook, too, which stores no more what it does not average any more.
#[test]
fn the_hook_removes_a_course_that_was_given_up() {
    let [directory, files] = [0, 1].map(|_| tempfile::tempdir().unwrap());
    let snapshots = Snapshots::create(files.path(), FloatDType::F32).unwrap();
    let every = std::cell::Cell::new(2);
    let model = |seed, configs: &[AverageConfig]| {
        let model = Averaged::new(Net::new(seed, &device()), configs.to_vec()).unwrap();
        model.allow_dropped(true).with_snapshots(snapshots.clone(), every.get()).unwrap()
    };
    let plan = Plan { checkpoints: true, epochs: 4, ..Plan::new(directory.path()) };
    plan.clone().launch(model(0, &widths()));
    let last = |name: &str| {
        let list = snapshots.list().unwrap();
        list.iter().filter(|s| s.name == name).map(|s| s.step).max().unwrap()
    };
    let [dropped, kept] = widths().map(|config| config.rule.to_string());
    let all = last(&kept);
    assert_eq!(last(&dropped), all);
    // From the checkpoint of epoch 3, at other steps than before.
    every.set(3);
    Plan { resume: Some(3), ..plan }.launch(model(7, &widths()[1..]));
    let steps: Vec<_> = snapshots.list().unwrap().iter().map(|s| s.step).collect();
    assert_eq!((all, last(&dropped), last(&kept)), (32, 24, 30));
    assert_eq!(steps[steps.len() - 4..], [24, 24, 27, 30]);
}

/// Averages of one training that do not have the same parameters cannot be mixed: the shares of a
/// parameter would not sum to one.
#[test]
fn averages_of_other_policies_or_paths_are_refused() {
    let [narrow, wide] = widths();
    let refusal = |configs: [AverageConfig; 2]| {
        let directory = tempfile::tempdir().unwrap();
        let snapshots = stored(directory.path(), FloatDType::F32, 0, &configs, |_, _, _| {});
        let start = Net::new(9, &device());
        let made = snapshots.synthesize(&start, &target(0.07), None, Solve::Published).map(drop);
        let Err(Error::File { action: "mix", path, source }) = made else { panic!("{made:?}") };
        assert!(path.starts_with(directory.path()));
        let newest = &snapshots.list().unwrap().pop().unwrap().path.display().to_string();
        let message = source.to_string();
        assert!(message.contains(newest), "{message}");
        message.replace(newest, "NEWEST")
    };
    // The newest is that of the greater exponent, which is the narrow one.
    for (policy, role) in [
        (Policy::LeaveOut, "left out"),
        (Policy::Freeze, "copied or frozen"),
        (Policy::Copy, "copied or frozen"),
    ] {
        assert_eq!(
            refusal([narrow.clone(), wide.clone().on("last.*", policy.clone())]),
            format!(
                "last.bias: expected an averaged parameter as in NEWEST, found a parameter that \
                 is {role}"
            )
        );
        assert_eq!(
            refusal([narrow.clone().on("last.*", policy), wide.clone()]),
            format!(
                "last.bias: expected a parameter that is {role} as in NEWEST, found an averaged \
                 parameter"
            )
        );
    }

    // Of a model that lacks a parameter.
    let directory = tempfile::tempdir().unwrap();
    let snapshots = Snapshots::create(directory.path(), FloatDType::F32).unwrap();
    let net = Net::new(0, &device());
    let bare = || Bare { first: net.first.clone(), last: net.last.clone() };
    let (mut before, mut after) = (wide.init(&bare()).unwrap(), narrow.init(&net).unwrap());
    for step in 1..=60 {
        before.update(&bare(), step).unwrap();
        after.update(&net, step).unwrap();
        if step.is_multiple_of(EVERY) {
            snapshots.store(&before).unwrap();
            snapshots.store(&after).unwrap();
        }
    }
    let made = snapshots.synthesize(&net, &target(0.07), None, Solve::Published).map(drop);
    let Err(Error::File { action: "mix", source, .. }) = made else { panic!("{made:?}") };
    let message = source.to_string();
    assert!(message.starts_with("norm.beta: expected an averaged parameter as in "), "{message}");
    assert!(message.ends_with("found none of this path"), "{message}");
}

/// Two averages of one profile are two averages, and neither takes the other's place.
#[test]
fn two_averages_of_one_profile_are_refused() {
    let [narrow, wide] = widths();
    let other = wide.clone().with_name(Some("other".into())).on("last.*", Policy::LeaveOut);
    let directory = tempfile::tempdir().unwrap();
    let configs = [narrow, wide, other];
    let snapshots = stored(directory.path(), FloatDType::F32, 0, &configs, |_, _, _| {});
    let list = snapshots.list().unwrap();
    let mut names: Vec<_> = list[..3].iter().map(|s| (&s.name[..], &s.rule[..])).collect();
    names.sort();
    let [narrow, wide] = ["power(sigma_rel=0.05)", "power(sigma_rel=0.1)"];
    assert_eq!(names, [("other", wide), (narrow, narrow), (wide, wide)]);
    let start = Net::new(9, &device());
    let made = snapshots.synthesize(&start, &target(0.07), None, Solve::Published).map(drop);
    let message = made.unwrap_err().to_string();
    for part in [
        "the average of one profile in ",
        "other (power(sigma_rel=0.1)) at step 10",
        "power(sigma_rel=0.1) (power(sigma_rel=0.1)) at step 10",
        ", expected one, under one name",
    ] {
        assert!(message.contains(part), "{part}: {message}");
    }
}

/// Nearly equal widths need large coefficients, which carry the rounding of f16 into the mix.
#[test]
fn a_mix_of_mostly_rounding_is_refused() {
    let near = [0.05, 0.0505, 0.051].map(|width| AverageConfig::new(Rule::power_function(width)));
    let made = |dtype: FloatDType, configs: &[AverageConfig], width: f64| {
        let directory = tempfile::tempdir().unwrap();
        let snapshots = Snapshots::create(directory.path(), dtype).unwrap();
        let one = LinearConfig::new(1, 1).init(&device());
        let mut averages: Vec<_> = configs.iter().map(|c| c.init(&one).unwrap()).collect();
        for step in 1..=1000 {
            for average in &mut averages {
                average.update(&one, step).unwrap();
                if step.is_multiple_of(50) {
                    snapshots.store(average).unwrap();
                }
            }
        }
        assert!(snapshots.list().unwrap().iter().all(|s| s.dtype == dtype));
        let targets = [target(width)];
        let grid =
            snapshots.evaluate(&one, &targets, None, Solve::Published, |_| Ok::<_, Error>(0.0));
        let made = snapshots.synthesize(&one, &target(width), None, Solve::Published);
        assert_eq!(grid.is_ok(), made.is_ok());
        made.map(|made| {
            let weights = |linear: &Linear| linear.weight.val().into_data().iter::<f64>().next();
            (made.mix, weights(&made.module).unwrap() / weights(&one).unwrap())
        })
    };
    let message = made(FloatDType::F16, &near, 0.02).unwrap_err().to_string();
    for part in [
        "the stored rounding in the mix for power(sigma_rel=0.02) at step 1000 is ",
        ", at a noise gain of 4.",
        ", expected at most 0.03 of the weights (averages that are stored in f32, or fewer of almost \
         the same width, help)",
    ] {
        assert!(message.contains(part), "{part}: {message}");
    }
    let (mix, weight) = made(FloatDType::F32, &near, 0.02).unwrap();
    assert!(mix.relative_error() < 0.01 && mix.noise_gain() > 1e4);
    assert!((weight - 1.0).abs() < 0.03, "{weight}");
    let (mix, weight) = made(FloatDType::F16, &widths(), 0.02).unwrap();
    assert!((weight - 1.0).abs() < mix.noise_gain() * 0.5f64.powi(11), "{weight}");
}

/// An average that is updated less often than it is stored is stored twice as it is; one of the
/// two counts.
#[test]
fn an_average_that_did_not_move_since_is_stored_and_counts_once() {
    let [once, twice] = [10, 5].map(|every| {
        let [directory, files] = [0, 1].map(|_| tempfile::tempdir().unwrap());
        let snapshots = Snapshots::create(files.path(), FloatDType::F32).unwrap();
        let configs = widths().map(|config| config.with_every(10));
        let model = Averaged::new(Net::new(0, &device()), configs).unwrap();
        let model = model.with_snapshots(snapshots.clone(), every).unwrap();
        let plan = Plan { epochs: 10, ..Plan::new(directory.path()) };
        fit(plan.training(), model, adam(), ConstantLr::new(0.02)).launch().unwrap();
        let list = snapshots.list().unwrap();
        let start = Net::new(9, &device());
        let made = snapshots.synthesize(&start, &target(0.07), None, Solve::Published).unwrap();
        assert_eq!(made.mix.coefficients().len(), list.len());
        let sum: f64 = made.mix.coefficients().iter().sum();
        assert!((sum - 1.0).abs() < 1e-9);
        (list.len(), flat(&made.module, false))
    });
    assert_eq!((once.0, twice.0), (16, 30), "at step 5 there was no update yet");
    assert_close(&once.1, &twice.1, 1e-6);
}

#[test]
fn averages_that_cannot_be_stored_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let snapshots = Snapshots::create(directory.path(), FloatDType::F16).unwrap();
    let net = Net::new(0, &device());
    let after = |config: AverageConfig, steps: u64| {
        let mut average = config.init(&net).unwrap();
        for step in 1..=steps {
            average.update(&net, step).unwrap();
        }
        average
    };
    let refusal = |average: &Average<Net>| snapshots.store(average).unwrap_err().to_string();
    let power = || AverageConfig::new(Rule::power_function(0.1));

    for rule in [Rule::ema(0.9), Rule::lawa(3, 1), Rule::warm_up(0.9), Rule::half_life(3.0)] {
        let expected = format!(
            "the rule of a stored average is {rule}, expected one power function for all paths"
        );
        assert_eq!(refusal(&after(AverageConfig::new(rule), 2)), expected);
    }
    let own = power().on("last.*", Policy::Rule(Rule::Equal));
    assert_eq!(
        refusal(&after(own, 2)),
        "the rule of a stored average is equal beside power(sigma_rel=0.1), expected one power \
         function for all paths"
    );
    let expected = "the updates of a stored average is 0, expected 1 or more";
    assert_eq!(refusal(&after(power(), 0)), expected);
    assert_eq!(refusal(&after(power().with_start(5), 5)), expected, "it is live still");
    assert_eq!(refusal(&after(power().with_every(5), 4)), expected);

    let with_one = |number: f64, step: u64| {
        let mut large = flat(&net, false);
        large[40] = number;
        let mut average = power().init(&net).unwrap();
        average.update(&with_floats(Net::new(0, &device()), &large), step).unwrap();
        average
    };
    // 65504 is the largest number of f16, and 65520 the first that rounds to an infinity.
    snapshots.store(&with_one(65_519.0, 1)).unwrap();
    fs::remove_file(snapshots.list().unwrap().pop().unwrap().path).unwrap();
    for (number, step, expected) in [
        (65_520.0, 7, "inf in the place of 65520 at step 7; f32 holds it"),
        (-1e9, 3, "-inf in the place of -1000000000 at step 3; f32 holds it"),
        (2f64.powi(100), 5, "inf in the place of 1.2676506002282294e30 at step 5; f32 holds it"),
        (70_000.0, 1, "inf in the place of 70000 at step 1; f32 holds it"),
    ] {
        let error = refusal(&with_one(number, step));
        let expected = format!("first.bias: expected numbers that fit f16, found {expected}");
        assert!(error.starts_with(&expected), "{error}");
    }
    let average = with_one(70_000.0, 1);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "nothing was written");
    let single = Snapshots::create(directory.path(), FloatDType::F32).unwrap();
    single.store(&average).unwrap();

    for rule in [Rule::Equal, Rule::PowerFunctionGamma { gamma: 3.0 }, Rule::power_function(0.2)] {
        snapshots.store(&after(AverageConfig::new(rule), 2)).unwrap();
    }
    // The same step and name take the place of what was there.
    let path = snapshots.store(&after(power(), 7)).unwrap();
    let count = fs::read_dir(directory.path()).unwrap().count();
    assert_eq!(snapshots.store(&after(power(), 7)).unwrap(), path);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), count);
}

#[test]
fn the_hook_refuses_snapshots_that_it_could_not_store() {
    let directory = tempfile::tempdir().unwrap();
    let snapshots = Snapshots::create(directory.path(), FloatDType::F32).unwrap();
    let refusal = |configs: Vec<AverageConfig>, every| {
        let model = Averaged::new(Net::new(0, &device()), configs).unwrap();
        model.with_snapshots(snapshots.clone(), every).map(|_| ()).unwrap_err().to_string()
    };
    let power = || AverageConfig::new(Rule::power_function(0.1));
    let ema = || AverageConfig::new(Rule::ema(0.9));
    assert_eq!(
        refusal(vec![power()], 0),
        "the steps from snapshot to snapshot is 0, expected 1 or more"
    );
    assert_eq!(
        refusal(vec![ema(), ema().with_name(Some("other".into()))], 4),
        "the averages to store is ema(0.9), other, expected one by a power function, such as \
         power(sigma_rel=0.05)"
    );
    let own = power().on("last.*", Policy::Rule(Rule::ema(0.5)));
    assert!(refusal(vec![ema(), own], 4).contains("ema(0.5) beside power(sigma_rel=0.1)"));
    let late = AverageConfig::new(Rule::power_function(0.05)).with_start(8);
    assert_eq!(
        refusal(vec![power(), ema(), late], 4),
        "the start of the stored average power(sigma_rel=0.05) is step 8, expected step 0, that \
         of power(sigma_rel=0.1): they could not be mixed"
    );
    let kept = AverageConfig::new(Rule::power_function(0.05));
    for (config, expected, found) in [
        (kept.clone().on("last.*", Policy::LeaveOut), "average", "leave out"),
        (kept.clone().on("last.*", Policy::Freeze), "average", "freeze"),
        (kept.clone().with_statistics(Policy::Average), "copy", "average"),
    ] {
        let path = if expected == "copy" { "norm.running_mean" } else { "last.weight" };
        assert_eq!(
            refusal(vec![power(), config], 4),
            format!(
                "the policy for {path} of the stored average power(sigma_rel=0.05) is {found}, \
                 expected {expected}, as in power(sigma_rel=0.1): they could not be mixed"
            )
        );
    }
    assert_eq!(
        refusal(vec![power(), power().with_every(2).with_name(Some("other".into()))], 4),
        "the profile of the stored average other is power(sigma_rel=0.1), expected another than \
         that of power(sigma_rel=0.1): they could not be mixed"
    );
    let same = kept.on("last.*", Policy::Rule(Rule::power_function(0.05)));
    let model = Averaged::new(Net::new(0, &device()), [power(), same]).unwrap();
    model.with_snapshots(snapshots.clone(), 4).unwrap(); // other words, the same policy

    // What goes wrong later stops the training with the file in the error.
    let training = tempfile::tempdir().unwrap();
    let model = Averaged::new(Net::new(0, &device()), [power()]).unwrap();
    let model = model.with_snapshots(snapshots, 4).unwrap();
    let taken = directory.path().join("0000000004-power(sigma_rel=0.1).bpk");
    fs::create_dir_all(taken.join("in the way")).unwrap();
    let plan = Plan::new(training.path());
    let result = fit(plan.training(), model, adam(), ConstantLr::new(0.02)).launch().map(|_| ());
    let Err(Error::File { action: "write", path, .. }) = result else { panic!("{result:?}") };
    assert_eq!(path, taken);
}

#[test]
fn an_average_that_has_not_begun_is_not_stored_yet() {
    let [directory, files] = [0, 1].map(|_| tempfile::tempdir().unwrap());
    let snapshots = Snapshots::create(files.path(), FloatDType::F32).unwrap();
    let configs = widths().map(|config| config.with_start(10));
    let model = Averaged::new(Net::new(0, &device()), configs).unwrap();
    let model = model.with_snapshots(snapshots.clone(), 4).unwrap();
    let training = Plan::new(directory.path()).training();
    fit(training, model, adam(), ConstantLr::new(0.02)).launch().unwrap();
    let list = snapshots.list().unwrap();
    let stored: Vec<_> = list.iter().map(|s| (s.step, s.stored.step, s.start)).collect();
    // Profiles count from the start of the average.
    assert_eq!(stored, [(12, 2.0, 10.0), (12, 2.0, 10.0), (16, 6.0, 10.0), (16, 6.0, 10.0)]);
    let start = Net::new(1, &device());
    snapshots.synthesize(&start, &target(0.07), Some(16), Solve::Published).unwrap();
}

/// The network without its batch norm.
#[derive(Module, Debug)]
struct Bare {
    first: Linear,
    last: Linear,
}

#[test]
fn what_a_killed_training_had_begun_is_removed_by_the_next() {
    let directory = tempfile::tempdir().unwrap();
    stored(directory.path(), FloatDType::F32, 0, &widths(), |_, _, _| {});
    let begun = ["0000000010-a.bpk.1-0.tmp", "0000000010-a.b.bpk.4194304-17.tmp"];
    let others = ["0000000010-a.bpk.tmp", "a.bpk.1-.tmp", "a.bpk.1-0.tmp.txt", "a.txt.1-0.tmp"];
    let there = |name: &&str| directory.path().join(name).exists();
    type Begin = fn(&Path) -> bool;
    let ways: [Begin; 2] = [
        |path| Snapshots::create(path, FloatDType::F32).is_err(),
        |path| Snapshots::resume(path, FloatDType::F32, 160).is_ok(),
    ];
    for way in ways {
        for name in begun.iter().chain(&others) {
            fs::write(directory.path().join(name), "half").unwrap();
        }
        // Who reads changes nothing.
        assert_eq!(Snapshots::open(directory.path()).unwrap().list().unwrap().len(), 32);
        assert!(begun.iter().all(there));
        assert!(way(directory.path()));
        assert!(!begun.iter().any(there) && others.iter().all(there));
        assert_eq!(Snapshots::open(directory.path()).unwrap().list().unwrap().len(), 32);
    }
}

#[test]
fn directories_and_files_that_do_not_fit_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    for dtype in [FloatDType::F64, FloatDType::BF16, FloatDType::Flex32] {
        let error = Snapshots::create(directory.path(), dtype).unwrap_err().to_string();
        assert_eq!(error, format!("the dtype of snapshots is {dtype:?}, expected f16 or f32"));
    }
    let missing = directory.path().join("missing");
    assert!(matches!(Snapshots::open(&missing), Err(Error::File { action: "read", .. })));
    let file = directory.path().join("file");
    fs::write(&file, "text").unwrap();
    assert!(matches!(Snapshots::create(&file, FloatDType::F32), Err(Error::File { .. })));

    let net = || Net::new(0, &device());
    let make = |snapshots: &Snapshots, step| {
        let made = snapshots.synthesize(&net(), &target(0.07), step, Solve::Published);
        made.map(|_| ()).unwrap_err()
    };
    let empty = Snapshots::create(directory.path().join("empty"), FloatDType::F32).unwrap();
    let message = make(&empty, None).to_string();
    assert!(message.starts_with("the snapshots is none in"), "{message}");

    let files = directory.path().join("files");
    stored(&files, FloatDType::F32, 0, &widths(), |_, _, _| {});
    // Reading needs no dtype, and other files may lie there.
    fs::write(files.join("remarks.txt"), "text").unwrap();
    let snapshots = Snapshots::open(&files).unwrap();
    assert_eq!((snapshots.directory(), snapshots.list().unwrap().len()), (&*files, 32));
    for step in [0, 5, 161] {
        let message = make(&snapshots, Some(step)).to_string();
        assert!(message.contains(&format!(" is {step}, expected one of {{10, 20,")), "{message}");
    }
    // A new training does not store beside an older one; one that goes on does.
    let message = Snapshots::create(&files, FloatDType::F32).unwrap_err().to_string();
    assert!(message.starts_with("the directory of new snapshots is "), "{message}");
    assert!(
        message.contains(&format!("{}, which holds 0000000010-", files.display())),
        "{message}"
    );
    let advice = "expected one without snapshots (`Snapshots::resume` goes on with those)";
    assert!(message.ends_with(advice), "{message}");
    let resumed = Snapshots::resume(&files, FloatDType::F32, 160).unwrap();
    assert_eq!(resumed.list().unwrap().len(), 32);

    // Another architecture: the path, what it should be and what it is.
    let source = |error: Error| match error {
        Error::File { action: "mix", source, .. } => source.to_string(),
        other => panic!("{other:?}"),
    };
    let other = LinearConfig::new(2, 16).init(&device());
    let made = snapshots.synthesize(&other, &target(0.07), None, Solve::Published).map(|_| ());
    assert_eq!(
        source(made.unwrap_err()),
        "first.bias: expected no entry of this path, found f32 [16]"
    );
    let wider = Net { last: LinearConfig::new(16, 4).init(&device()), ..net() };
    let made = snapshots.synthesize(&wider, &target(0.07), None, Solve::Published).map(|_| ());
    assert_eq!(source(made.unwrap_err()), "last.bias: expected f32 [4], found f32 [3]");
    let longer = (net(), LinearConfig::new(2, 2).init(&device()));
    let made = snapshots.synthesize(&longer, &target(0.07), None, Solve::Published).map(|_| ());
    assert!(matches!(made, Err(Error::File { action: "mix", .. })));

    // What was copied and is not mixed must have its place too.
    let copied = widths().map(|config| config.on("norm.*", Policy::Copy));
    let copies = directory.path().join("copies");
    let copies = stored(&copies, FloatDType::F32, 0, &copied, |_, _, _| {});
    let Net { first, last, .. } = net();
    let made = copies.synthesize(&Bare { first, last }, &target(0.07), None, Solve::Published);
    let message = source(made.map(|_| ()).unwrap_err());
    assert!(message.starts_with("norm.beta: expected no entry of this path"), "{message}");

    // A plain module's file, and one that is damaged.
    let foreign = files.join("foreign.bpk");
    net().save_file(&foreign).unwrap();
    let error = make(&snapshots, None);
    let Error::File { action: "find a stored average in", path, .. } = &error else {
        panic!("{error:?}")
    };
    assert_eq!(*path, foreign);
    assert!(snapshots.list().is_err());
    fs::remove_file(&foreign).unwrap();
    let broken = &snapshots.list().unwrap()[3].path;
    let bytes = fs::read(broken).unwrap();
    fs::write(broken, &bytes[..bytes.len() / 2]).unwrap();
    let error = make(&snapshots, None);
    assert!(matches!(&error, Error::File { path, .. } if path == broken), "{error:?}");
}

/// Profiles count from the start of an average; of two starts they cannot be compared.
#[test]
fn averages_of_several_starts_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let [narrow, wide] = widths();
    let configs = [narrow, wide.with_start(20)];
    let snapshots = Snapshots::create(directory.path(), FloatDType::F32).unwrap();
    let mut course = Course::new(0);
    let start = course.live(0);
    let mut averages = configs.map(|config| config.init(&start).unwrap());
    for step in 1..=60 {
        let live = course.live(step);
        for average in &mut averages {
            average.update(&live, step).unwrap();
            if step > 20 && step.is_multiple_of(EVERY) {
                snapshots.store(average).unwrap();
            }
        }
    }
    let made = snapshots.synthesize(&start, &target(0.07), None, Solve::Published).map(|_| ());
    let message = made.unwrap_err().to_string();
    assert!(message.contains("is step 0 and step 20, expected one of all"), "{message}");
}

#[test]
fn evaluation_names_the_best_width_and_passes_over_what_cannot_be() {
    let directory = tempfile::tempdir().unwrap();
    let snapshots = stored(directory.path(), FloatDType::F32, 1, &widths(), |_, _, _| {});
    let start = Net::new(9, &device());
    let targets = [
        target(0.05),
        target(1e-4), // narrower than the last step
        target(0.08),
        Target::Window { steps: 1e9 },
        target(0.12),
        target(0.12),
        target(0.15),
    ];
    let made = |target: &Target| {
        snapshots.synthesize(&start, target, None, Solve::Published).unwrap().module
    };
    let wanted = flat(&made(&targets[4]), false);
    let loss = |net: &Net| Ok::<_, Error>(rms(&flat(net, false), &wanted));
    let grid = snapshots.evaluate(&start, &targets, None, Solve::Published, loss).unwrap();
    assert_eq!(grid.best, 4, "the first of equal ones");
    assert_eq!(flat(&grid.module, true), flat(&made(&targets[4]), true));
    assert_eq!(grid.tried.len(), targets.len());
    for (index, (tried, target)) in grid.tried.iter().zip(&targets).enumerate() {
        assert_eq!(tried.target, *target);
        match &tried.outcome {
            Ok((found, mix)) => {
                assert_eq!(*found, loss(&made(target)).unwrap());
                assert!(mix.relative_error() < 0.5);
                assert!(![1, 3].contains(&index));
            }
            Err(error) => assert!([1, 3].contains(&index), "{target}: {error}"),
        }
    }
    // Each target by itself is the same, bit for bit.
    for target in targets.iter().filter(|target| **target != targets[1] && **target != targets[3]) {
        let one = [target.clone()];
        let grid = snapshots.evaluate(&start, &one, None, Solve::Published, loss).unwrap();
        assert_eq!(flat(&grid.module, true), flat(&made(target), true));
    }
    // No file is read again for another target.
    let elsewhere = tempfile::tempdir().unwrap();
    for snapshot in snapshots.list().unwrap() {
        fs::copy(&snapshot.path, elsewhere.path().join(snapshot.path.file_name().unwrap()))
            .unwrap();
    }
    let copies = Snapshots::open(elsewhere.path()).unwrap();
    let mut elsewhere = Some(elsewhere);
    let again = copies.evaluate(&start, &targets, None, Solve::Published, |net| {
        elsewhere.take().into_iter().for_each(|directory| directory.close().unwrap());
        loss(net)
    });
    assert_eq!(flat(&again.unwrap().module, true), flat(&grid.module, true));
    // A loss that is no number is never the best.
    let mut calls = 0;
    let grid = snapshots.evaluate(&start, &targets[4..], None, Solve::Published, |_| {
        calls += 1;
        Ok::<_, Error>(if calls == 1 { f64::NAN } else { -f64::from(calls) })
    });
    assert_eq!(grid.unwrap().best, 2);
    let none =
        snapshots.evaluate(&start, &targets, None, Solve::Published, |_| Ok::<_, Error>(f64::NAN));
    let message = none.map(|_| ()).unwrap_err().to_string();
    assert_eq!(message, "the targets is none, expected one whose loss is a number");
    let none = snapshots.evaluate(&start, &targets[1..2], None, Solve::Published, loss);
    let message = none.map(|_| ()).unwrap_err().to_string();
    assert!(message.starts_with("the targets is none; the relative error of the mix"), "{message}");
    let error = snapshots.evaluate(&start, &targets, Some(5), Solve::Published, loss).map(|_| ());
    assert!(error.unwrap_err().to_string().contains(" is 5, expected one of {10, 20,"));
    let error =
        snapshots.evaluate(&start, &targets, None, Solve::Published, |_| Err(Error::Poisoned));
    assert!(matches!(error, Err(Error::Poisoned)));
    // An error type of the caller's own comes back as it is.
    let own = |_: &Net| Err(anyhow::anyhow!("no validation set"));
    let error = snapshots.evaluate(&start, &targets, None, Solve::Published, own).map(|_| ());
    assert_eq!(error.unwrap_err().to_string(), "no validation set");
}
