//! Widths, sums, numbers that are not finite, numbers of 16 bits.

use burn::{
    module::Module,
    tensor::{DType, FloatDType, Tensor},
};
use burn_ema::{
    Average, AverageConfig, Error, Rule,
    average::{
        Snapshots, Warning,
        post_hoc::{Solve, Stored, Target, mix},
    },
};

use super::{every_rule, trajectory, weights};
use crate::common::{Net, Weights, assert_close, assert_same, device, flat};

/// The time and the weight of everything that an average is made of.
type MadeOf = Vec<(f64, f64)>;

/// As ema-pytorch's Karras EMA has it: the decay of one step, although it is taken only every
/// `every` steps.
fn uncorrected(decay: impl Fn(f64) -> f64, every: usize, steps: usize) -> MadeOf {
    let mut made_of = vec![(0.0, 1.0)];
    for step in (every..=steps).step_by(every) {
        let keep = decay(step as f64);
        made_of.iter_mut().for_each(|(_, weight)| *weight *= keep);
        made_of.push((step as f64, 1.0 - keep));
    }
    made_of
}

/// The standard deviation of the age as a share of the steps.
fn width(made_of: &MadeOf, steps: usize) -> f64 {
    let mean: f64 = made_of.iter().map(|(time, weight)| time * weight).sum();
    let variance: f64 = made_of.iter().map(|(time, weight)| weight * (time - mean).powi(2)).sum();
    variance.sqrt() / steps as f64
}

#[test]
fn an_interval_that_is_not_accounted_for_widens_every_average() {
    let exponent = Rule::gamma_of(0.05).unwrap() + 1.0;
    let power = |t: f64| (1.0 - 1.0 / t).powf(exponent);
    let width_of = |every| width(&uncorrected(power, every, 20_000), 20_000);
    assert!((width_of(1) - 0.05).abs() < 1e-4, "as asked for: {}", width_of(1));
    for every in [10, 100] {
        assert!(width_of(every) > 0.24, "five times as wide: {}", width_of(every));
    }
    let start = uncorrected(power, 100, 20_000)[0].1;
    assert!(start > 0.3, "a third of it is the weights of the start: {start}");
    // The same slip with a constant decay, and with a decay that warms up.
    let decays: [fn(f64) -> f64; 2] = [|_| 0.99, |t| (1.0 + t) / (10.0 + t)];
    for decay in decays {
        let [one, ten] = [1, 10].map(|every| width(&uncorrected(decay, every, 5000), 5000));
        assert!(ten > 2.5 * one, "{one} became {ten}");
    }
}

/// A power function has the width that was asked for; and of every rule, an update that covers k
/// steps has the weight of these k, so that no moment changes by more than the k steps.
#[test]
fn an_interval_keeps_the_width_of_every_rule() {
    for every in [1, 10, 100] {
        let config = AverageConfig::new(Rule::power_function(0.05)).with_every(every);
        let profile = config.profile_after(20_000).unwrap();
        assert!((profile.sigma_rel() - 0.05).abs() < 1e-4, "{profile}");
        assert_eq!(profile.mass_on_start(), 0.0);
    }
    for config in every_rule() {
        let single = config.profile_after(400).unwrap();
        for every in [2, 5, 20, 40] {
            let profile = config.clone().with_every(every).profile_after(400).unwrap();
            let sum = |steps: &[(f64, f64)]| steps.iter().map(|(_, weight)| weight).sum::<f64>();
            let expected: Vec<_> = single.weights().chunks(every as usize).map(sum).collect();
            let found: Vec<_> = profile.weights().iter().map(|(_, weight)| *weight).collect();
            assert_close(&found, &expected, 1e-10);
            assert!((profile.mass_on_start() - single.mass_on_start()).abs() < 1e-10);
            assert!((profile.mean_age() - single.mean_age()).abs() <= every as f64, "{config}");
        }
    }
}

/// Live stands still for k steps at a time: updates every k steps then make the same average, and
/// its profile is the one that was promised.
#[test]
fn an_interval_keeps_the_average_of_every_rule() {
    for seed in 0..3 {
        let blocks = trajectory(seed, 12);
        for config in every_rule() {
            for every in [2, 10, 20] {
                let live = |step: u64| weights(&blocks[1 + ((step - 1) / every) as usize]);
                let mut single = config.init(&weights(&blocks[0])).unwrap();
                let wide = config.clone().with_every(every);
                let mut wide = wide.init(&weights(&blocks[0])).unwrap();
                let steps = 12 * every;
                for step in 1..=steps {
                    single.update(&live(step), step).unwrap();
                    wide.update(&live(step), step).unwrap();
                }
                let [found, expected] =
                    [&wide, &single].map(|average| flat(&average.module(), true));
                assert_close(&found, &expected, 2e-5);
                assert_eq!(wide.profile(), wide.config().profile_after(steps).unwrap());
            }
        }
    }
}

/// As ema-pytorch's post-hoc synthesis has it: the mix of stored averages (step, exponent) whose
/// profile comes nearest to another one's, by least squares and no more.
fn synthesis(stored: &[(f64, f64)], target: (f64, f64)) -> Vec<f64> {
    let product = |&(t, g): &(f64, f64), &(u, h): &(f64, f64)| {
        let power = if t < u { (t / u).powf(h) } else { (u / t).powf(g) };
        (g + 1.0) * (h + 1.0) * power / ((g + h + 1.0) * t.max(u))
    };
    let row = |a| stored.iter().chain([&target]).map(|b| product(a, b)).collect();
    let mut rows: Vec<Vec<f64>> = stored.iter().map(row).collect();
    for pivot in 0..rows.len() {
        let top: Vec<_> = rows[pivot].iter().map(|x| x / rows[pivot][pivot]).collect();
        for (index, row) in rows.iter_mut().enumerate() {
            let factor = if index == pivot { row[pivot] - 1.0 } else { row[pivot] };
            row.iter_mut().zip(&top).for_each(|(x, top)| *x -= factor * top);
        }
    }
    rows.iter().map(|row| row[stored.len()]).collect()
}

#[test]
fn a_synthesis_that_is_not_normalised_changes_constant_weights() {
    let stored: Vec<_> = [(2000.0, 16.97), (4000.0, 6.94), (6000.0, 16.97), (8000.0, 6.94)].into();
    // A stored average is the mix of itself.
    assert_close(&synthesis(&stored, stored[2]), &[0.0, 0.0, 1.0, 0.0], 1e-9);
    for (sigma_rel, constant) in [(0.15, 0.3), (0.2, -1.7), (0.25, 42.0)] {
        let gamma = Rule::gamma_of(sigma_rel).unwrap();
        let mix = synthesis(&stored, (8000.0, gamma));
        let mixed: f64 = mix.iter().map(|coefficient| coefficient * constant).sum();
        assert!((mixed / constant - 1.0).abs() > 5e-3, "{mixed} of a constant {constant}");
    }
}

/// The weights of a profile are one in sum, an average of constant weights is that constant, and
/// the profile's weights are what the average is made of.
#[test]
fn the_weights_of_every_rule_sum_to_one() {
    for seed in 0..3 {
        let path = trajectory(seed, 90);
        for config in every_rule() {
            let config = config.with_every(1 + seed);
            let mut constant = config.init(&weights(&path[0])).unwrap();
            let mut average = config.init(&weights(&path[0])).unwrap();
            for (step, live) in (1..).zip(&path[1..]) {
                if step % 7 == 3 {
                    continue; // a step that the loop did not show
                }
                constant.update(&weights(&path[0]), step).unwrap();
                average.update(&weights(live), step).unwrap();
            }
            assert_same(&flat(&constant.module(), true), &path[0]);
            let profile = average.profile();
            let parts =
                || [(0.0, profile.mass_on_start())].into_iter().chain(profile.weights().to_vec());
            let sum: f64 = parts().map(|(_, weight)| weight).sum();
            assert!((sum - 1.0).abs() < 1e-12, "{}: {sum}", config.rule);
            let mixed =
                |i: usize| parts().map(|(step, weight)| weight * path[step as usize][i]).sum();
            let mixed: Vec<f64> = (0..5).map(mixed).collect();
            assert_close(&flat(&average.module(), true), &mixed, 2e-5);
        }
    }
}

/// Where the unscaled synthesis above misses a constant, the mix of the same stored averages has
/// it.
#[test]
fn a_mix_of_stored_averages_keeps_constant_weights() {
    let stored = [(2000.0, 16.97), (4000.0, 6.94), (6000.0, 16.97), (8000.0, 6.94)];
    let stored = stored.map(|(step, gamma)| Stored { step, gamma });
    for sigma_rel in [0.09, 0.1, 0.11] {
        for solve in [Solve::Published, Solve::Constrained] {
            let target = Target::PowerFunction { sigma_rel };
            let mix = mix(&stored, &target, 8000.0, solve).unwrap();
            let sum: f64 = mix.coefficients().iter().sum();
            assert!((sum - 1.0).abs() < 1e-12, "{target}: {sum}");
        }
    }
    // Of tensors, through files.
    let directory = tempfile::tempdir().unwrap();
    let snapshots = Snapshots::create(directory.path(), FloatDType::F32).unwrap();
    for seed in 0..3 {
        let constant = &trajectory(seed, 1)[0];
        for sigma_rel in [0.05, 0.1] {
            let config = AverageConfig::new(Rule::PowerFunction { sigma_rel });
            let mut average = config.init(&weights(constant)).unwrap();
            for step in 1..=64 {
                average.update(&weights(constant), step).unwrap();
                if step % 4 == 0 {
                    snapshots.store(&average).unwrap();
                }
            }
        }
        for sigma_rel in [0.03, 0.075, 0.15, 0.25] {
            let target = Target::PowerFunction { sigma_rel };
            let start = weights(&[0.0; 5]);
            let made = snapshots.synthesize(&start, &target, None, Solve::Published).unwrap();
            assert_close(&flat(&made.module, true), constant, 1e-6);
        }
    }
}

/// The average as it is written, and nothing else.
fn unguarded(average: &mut [f64], live: &[f64]) {
    average.iter_mut().zip(live).for_each(|(a, w)| *a += 0.1 * (w - *a));
}

const BAD: [f64; 3] = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY];

#[test]
fn one_number_that_is_not_finite_spoils_an_unguarded_average_for_good() {
    for (seed, bad) in (0..).zip(BAD) {
        let mut path = trajectory(seed, 1000);
        path[5][2] = bad;
        let mut average = path[0].clone();
        path[1..].iter().for_each(|live| unguarded(&mut average, live));
        assert!(!average[2].is_finite(), "1000 good steps later");
    }
}

/// It is refused and counted, and the average goes on as if it had not been shown.
#[test]
fn a_number_that_is_not_finite_is_refused_by_every_rule() {
    for (seed, bad) in (0..).zip(BAD) {
        let path = trajectory(seed, 60);
        let spoilt = 19 + seed; // among them a step at which a snapshot is due
        for config in every_rule() {
            let mut average = config.init(&weights(&path[0])).unwrap();
            let mut without = config.init(&weights(&path[0])).unwrap();
            for (step, live) in (1..).zip(&path[1..]) {
                let mut live = live.clone();
                match step == spoilt {
                    true => live[(seed + 2) as usize] = bad,
                    false => {
                        without.update(&weights(&live), step).unwrap();
                    }
                }
                average.update(&weights(&live), step).unwrap();
            }
            let refused = average.refused();
            assert_eq!((refused.count, refused.in_a_row), (1, 0));
            assert_eq!(refused.last, Some(("w".to_owned(), spoilt)));
            let found = flat(&average.module(), true);
            assert!(found.iter().all(|x| x.is_finite()), "{}", config.rule);
            assert_same(&found, &flat(&without.module(), true));
            assert_eq!(average.profile(), without.profile());
        }
    }
}

#[test]
fn a_live_that_stays_not_finite_is_an_error_that_leaves_the_average() {
    for (seed, bad) in (0..).zip(BAD) {
        let path = trajectory(seed, 2);
        let mut average = AverageConfig::new(Rule::ema(0.9)).init(&weights(&path[0])).unwrap();
        average.update(&weights(&path[1]), 1).unwrap();
        let before = flat(&average.module(), true);
        let live = weights(&[0.0, bad, 0.0, 0.0, 0.0]);
        average.update(&live, 2).unwrap();
        average.update(&live, 3).unwrap();
        let error = average.update(&live, 4).unwrap_err();
        assert!(matches!(error, Error::NonFinite { step: 4, in_a_row: 3, .. }), "{error}");
        assert_eq!(flat(&average.module(), true), before);
        average.update(&weights(&path[2]), 5).unwrap();
        assert_eq!(average.refused().in_a_row, 0, "it goes on once live is well again");
    }
}

/// Statistics of a batch norm are copied and not averaged, and would be spoilt all the same.
#[test]
fn a_statistic_that_is_not_finite_is_refused() {
    let device = device();
    let live = Net::new(0, &device).train();
    let mut average = AverageConfig::new(Rule::ema(0.9)).init(&live).unwrap();
    let nothing = Tensor::<2>::full([4, 2], f32::NAN, &device.autodiff());
    live.forward(nothing);
    average.update(&live, 1).unwrap();
    let (path, step) = average.refused().last.clone().unwrap();
    assert!(path.starts_with("norm.running_") && step == 1, "{path}");
    assert!(flat(&average.module(), true).iter().all(|x| x.is_finite()));
}

/// The nearest number of bf16: the upper half of an f32, ties to even.
fn bf16(x: f32) -> f32 {
    let bits = x.to_bits();
    f32::from_bits((bits + 0x7fff + (bits >> 16 & 1)) & 0xffff_0000)
}

/// As a shadow in the dtype of a 16-bit model has it.
fn short_shadow(shadow: f32, live: f32, decay: f32) -> f32 {
    bf16(shadow + bf16((1.0 - decay) * bf16(live - shadow)))
}

#[test]
fn a_shadow_in_bf16_never_moves_at_a_high_decay() {
    for start in [1.0, -0.37, 1234.0] {
        let (start, live) = (bf16(start), bf16(1.1 * start));
        let (mut shadow, mut quick) = (start, start);
        for _ in 0..1000 {
            shadow = short_shadow(shadow, live, 0.999);
            quick = short_shadow(quick, live, 0.5);
        }
        assert_eq!(shadow, start, "1000 steps towards {live}");
        assert_ne!(quick, start, "the rounding eats small steps only");
    }
}

/// The average of a bf16 model is kept in f32, and moves; one that is forced into bf16 does not,
/// and says so.
#[test]
#[cfg(feature = "flex")]
fn the_average_of_a_bf16_model_moves() {
    let device = burn::tensor::Device::flex();
    for start in [1.0, -0.37, 1234.0] {
        let (start, live) = (f64::from(bf16(start)), f64::from(bf16(1.1 * start)));
        let of = |value| Weights::new(&[value], DType::BF16, &device);
        let run = |dtype: Option<FloatDType>| {
            let config = AverageConfig::new(Rule::ema(0.999)).with_dtype(dtype);
            let mut average = config.init(&of(start)).unwrap();
            for step in 1..=1000 {
                average.update(&of(live), step).unwrap();
            }
            average
        };
        let kept = |average: &Average<Weights>| average.module_as_kept().w.val().dtype();
        let stuck = |average: &Average<Weights>| {
            average.warnings().iter().any(|w| matches!(w, Warning::Dtype { .. }))
        };

        let average = run(None);
        assert_eq!(kept(&average), DType::F32);
        let expected = live + 0.999f64.powi(1000) * (start - live);
        assert_close(&flat(&average.module_as_kept(), true), &[expected], 1e-5);
        assert!(!stuck(&average));
        let handed_out = average.module();
        assert_eq!(handed_out.w.val().dtype(), DType::BF16, "as live is");
        assert_eq!(flat(&handed_out, true), [f64::from(bf16(expected as f32))]);

        let forced = run(Some(FloatDType::BF16));
        assert_eq!(kept(&forced), DType::BF16);
        assert_eq!(flat(&forced.module(), true), [start]);
        assert!(stuck(&forced), "{:?}", forced.warnings());
    }
}
