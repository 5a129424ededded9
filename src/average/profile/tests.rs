use proptest::prelude::*;

use super::*;
use crate::average::rule::tests::any_rule;

/// After `steps` updates, one a step.
fn every_step(rule: &Rule, steps: u32) -> Profile {
    let now = f64::from(steps);
    Profile::of(rule, 0.0, (1..=steps).map(f64::from), now).unwrap()
}

#[track_caller]
fn assert_near(found: f64, expected: f64) {
    let tolerance = 1e-9 * expected.abs().max(1.0);
    assert!((found - expected).abs() <= tolerance, "{found} is not {expected}");
}

#[test]
fn more_updates_than_a_profile_lists_are_an_error_and_no_list() {
    let endless = (1..).map(f64::from);
    let error = Profile::of(&Rule::Equal, 0.0, endless, 1e12).unwrap_err().to_string();
    let expected = "the number of updates of a profile is more, expected at most 67108864";
    assert_eq!(error, expected);
}

#[test]
fn of_an_unknown_profile_no_number_is_known() {
    let unknown = Profile::unknown();
    for (name, number) in [
        ("mass_on_start", unknown.mass_on_start()),
        ("mean_age", unknown.mean_age()),
        ("standard_deviation", unknown.standard_deviation()),
        ("sigma_rel", unknown.sigma_rel()),
        ("half_life", unknown.half_life()),
        ("effective_steps", unknown.effective_steps()),
    ] {
        assert!(number.is_nan(), "{name} is {number}");
    }
}

#[test]
fn before_the_first_update_all_is_the_start() {
    for rule in [Rule::ema(0.9), Rule::debiased(0.9), Rule::Equal, Rule::lawa(2, 3), Rule::bema()] {
        let profile = Profile::of(&rule, 7.0, [], 5.0).unwrap();
        assert_eq!(profile.mass_on_start(), 1.0);
        assert_eq!(profile.weights(), []);
        assert_eq!(profile.mean_age(), 5.0);
        assert_eq!(profile.half_life(), 5.0);
        assert_eq!(profile.standard_deviation(), 0.0);
        assert_eq!(profile.effective_steps(), 1.0);
        assert_eq!(Profile::of(&rule, 7.0, [], 0.0).unwrap().sigma_rel(), 0.0);
    }
}

#[test]
fn constant_decay_has_its_closed_form() {
    let decay = 0.98_f64;
    let profile = every_step(&Rule::ema(decay), 3000);
    for (index, &(step, weight)) in profile.weights().iter().enumerate() {
        assert_eq!(step, (index + 1) as f64);
        let expected = (1.0 - decay) * decay.powi(2999 - index as i32);
        assert!((weight / expected - 1.0).abs() < 1e-11);
    }
    assert!((profile.mass_on_start() / decay.powi(3000) - 1.0).abs() < 1e-11);
    assert_near(profile.mean_age(), decay / (1.0 - decay));
    assert_near(profile.standard_deviation(), decay.sqrt() / (1.0 - decay));
    assert_near(profile.half_life(), half_life_of(decay));
    assert_near(profile.effective_steps(), (1.0 + decay) / (1.0 - decay));
    assert_near(every_step(&Rule::half_life(40.0), 4000).half_life(), 40.0);
}

/// Of constant decay, in an average whose weights are spread within steps: the newest step that
/// is needed counts in part.
fn half_life_of(decay: f64) -> f64 {
    let steps = (0.5_f64.ln() / decay.ln()).floor();
    let newer = 1.0 - decay.powf(steps);
    steps + (0.5 - newer) / ((1.0 - decay) * decay.powf(steps))
}

#[test]
fn bias_correction_takes_the_weight_from_the_start() {
    let (copied, corrected) =
        (every_step(&Rule::ema(0.99), 50), every_step(&Rule::debiased(0.99), 50));
    assert_eq!(corrected.mass_on_start(), 0.0);
    let rest = 1.0 - copied.mass_on_start();
    assert_near(copied.mass_on_start(), 0.99_f64.powi(50));
    for ((_, copied), (_, corrected)) in copied.weights().iter().zip(corrected.weights()) {
        assert_near(copied / rest, *corrected);
    }
}

#[test]
fn equal_weights_are_equal() {
    let profile = every_step(&Rule::Equal, 1000);
    assert_eq!(profile.mass_on_start(), 0.0);
    assert!(profile.weights().iter().all(|(_, weight)| (weight - 1e-3).abs() < 1e-15));
    assert_near(profile.mean_age(), 499.5);
    assert_near(profile.half_life(), 500.0);
    assert_near(profile.effective_steps(), 1000.0);
    assert_near(profile.standard_deviation(), ((1e6 - 1.0) / 12.0_f64).sqrt());
}

#[test]
fn the_power_function_has_its_width_however_often_it_is_updated() {
    for sigma_rel in [0.05, 0.1, 0.2] {
        let gamma = Rule::gamma_of(sigma_rel).unwrap();
        for every in [1, 10, 100] {
            let times = (1..=20_000 / every).map(|update| f64::from(update * every));
            let profile =
                Profile::of(&Rule::power_function(sigma_rel), 0.0, times, 20_000.0).unwrap();
            assert_eq!(profile.mass_on_start(), 0.0);
            assert!((profile.sigma_rel() - sigma_rel).abs() < 1e-4, "{profile}");
            let mean = 20_000.0 / (gamma + 2.0);
            assert!((profile.mean_age() - mean).abs() <= f64::from(every), "{profile}");
            let half = 20_000.0 * (1.0 - 0.5_f64.powf(1.0 / (gamma + 1.0)));
            assert!((profile.half_life() - half).abs() < 2.0, "{profile}");
        }
    }
}

/// Mass on the start, mean and standard deviation as fractions of 20 thousand steps, of rules
/// in use, computed by another program.
#[test]
fn rules_in_use_have_their_known_profiles() {
    let rows = [
        (Rule::ema(0.9999), "0.135", "0.568", "0.332"),
        (Rule::debiased(0.9999), "0.000", "0.657", "0.263"),
        (Rule::ema(0.999), "0.000", "0.950", "0.050"),
        (Rule::warm_up(0.9999), "0.000", "0.900", "0.090"),
        (Rule::inverse_gamma(2.0 / 3.0, 0.9999), "0.000", "0.964", "0.035"),
        (Rule::inverse_gamma(0.75, 0.9999), "0.000", "0.921", "0.074"),
        (Rule::exponential_ramp(0.9999), "0.000", "0.835", "0.097"),
        (Rule::half_life_ramp(0.05), "0.000", "0.933", "0.063"),
        (Rule::Annealing { gamma: 1.0, max_decay: 1.0 }, "0.000", "0.500", "0.289"),
    ];
    for (rule, start, mean, sigma) in rows {
        let profile = every_step(&rule, 20_000);
        let mean_time = 1.0 - profile.mean_age() / 20_000.0;
        let row = [profile.mass_on_start(), mean_time, profile.sigma_rel()];
        assert_eq!(row.map(|number| format!("{number:.3}")), [start, mean, sigma], "{rule}");
    }
    let start = |rule: &Rule| format!("{:.0e}", every_step(rule, 20_000).mass_on_start());
    assert_eq!(start(&Rule::ema(0.999)), "2e-9");
    assert_eq!(start(&Rule::Annealing { gamma: 1.0, max_decay: 1.0 }), "5e-5");
}

#[test]
fn an_update_over_several_steps_spreads_its_weight_over_them() {
    let profile = Profile::of(&Rule::Equal, 100.0, [10.0, 40.0], 45.0).unwrap();
    assert_eq!(profile.weights(), [(110.0, 0.25), (140.0, 0.75)]);
    // Two thirds of the newer update: 5 + 2/3 of 30.
    assert_near(profile.half_life(), 25.0);
    assert_near(profile.mean_age(), 0.75 * 5.0 + 0.25 * 35.0);
    assert_near(profile.effective_steps(), 1.0 / (0.75 * 0.75 + 0.25 * 0.25));
}

#[test]
fn the_correction_of_bema_moves_weight_from_the_start_to_the_newest() {
    let rule = Rule::bema();
    let average = Rule::Bema { rho: 10.0, gamma: 1.0, eta: 2000.0, kappa: 0.5 };
    let (corrected, plain) = (every_step(&rule, 90), every_step(&average, 90));
    let correction = 100.0_f64.powf(-0.2);
    assert_near(corrected.mass_on_start(), plain.mass_on_start() - correction);
    for (index, (corrected, plain)) in corrected.weights().iter().zip(plain.weights()).enumerate() {
        let more = if index == 89 { correction } else { 0.0 };
        assert_near(corrected.1, plain.1 + more);
    }
    // The plain average by its own formula.
    let mut kept = 1.0;
    for (step, weight) in plain.weights().iter().rev() {
        let beta = (10.0 + step).powf(-0.5);
        assert_near(*weight, kept * beta);
        kept *= 1.0 - beta;
    }
    assert_near(plain.mass_on_start(), kept);
}

#[test]
fn the_correction_of_bema_is_that_of_the_last_update_and_may_pass_all_weight() {
    let rule = Rule::Bema { rho: 1.0, gamma: 1.0, eta: 0.2, kappa: 0.5 };
    let profile = Profile::of(&rule, 0.0, [1.0], 9.0).unwrap();
    let newest = 2.0_f64.powf(-0.5) + 2.0_f64.powf(-0.2);
    assert_near(profile.weights()[0].1, newest);
    assert_near(profile.mass_on_start(), 1.0 - newest);
    assert_near(profile.mean_age(), 9.0 - newest);
    assert_eq!(profile.standard_deviation(), 0.0);
}

#[test]
fn a_window_is_the_mean_of_its_last_snapshots() {
    let rule = Rule::lawa(3, 10);
    let profile = every_step(&rule, 9);
    assert_eq!(profile.mass_on_start(), 1.0);
    assert_eq!(profile.mean_age(), 9.0);
    for (steps, snapshots) in [
        (10, &[10.0][..]),
        (29, &[10.0, 20.0]),
        (30, &[10.0, 20.0, 30.0]),
        (57, &[30.0, 40.0, 50.0]),
    ] {
        let profile = every_step(&rule, steps);
        assert_eq!(profile.mass_on_start(), 0.0);
        assert_eq!(profile.weights().len(), steps as usize);
        let number = snapshots.len() as f64;
        for &(step, weight) in profile.weights() {
            assert_eq!(weight, if snapshots.contains(&step) { 1.0 / number } else { 0.0 });
        }
        assert_near(profile.effective_steps(), number);
    }
}

#[test]
fn an_update_over_several_intervals_is_several_snapshots_and_the_oldest_go_first() {
    let of = |snapshots: u64, times: &[f64]| {
        let now = times.last().copied().unwrap();
        let rule = Rule::lawa(snapshots, 10);
        let profile = Profile::of(&rule, 0.0, times.iter().copied(), now).unwrap();
        let counts = profile.weights.iter().map(|(_, weight)| weight * snapshots as f64);
        counts.map(|count| count.round() as u64).collect::<Vec<_>>()
    };
    assert_eq!(of(5, &[35.0, 50.0]), [3, 2]);
    assert_eq!(of(5, &[35.0, 55.0, 62.0]), [2, 2, 1]);
    assert_eq!(of(5, &[35.0, 55.0, 62.0, 100.0]), [0, 0, 1, 4]);
    assert_eq!(of(5, &[35.0, 55.0, 1000.0]), [0, 0, 5]);
    assert_eq!(of(5, &[35.0, 1000.0, 1010.0]), [0, 4, 1]);
    assert_eq!(of(5, &[35.0, 1e300]), [0, 5]);
    assert_eq!(of(1, &[10.0, 19.0, 20.0, 21.0]), [0, 0, 1, 0]);
}

#[test]
fn many_tiny_updates_still_sum_to_one() {
    let profile = every_step(&Rule::half_life(1e16), 200_000);
    let updates: f64 = profile.weights().iter().map(|(_, weight)| weight).sum();
    assert!((profile.mass_on_start() + updates - 1.0).abs() < 1e-13);
    let expected = 200_000.0 * std::f64::consts::LN_2 / 1e16;
    assert!((updates / expected - 1.0).abs() < 1e-9, "{updates}");
}

#[test]
fn times_out_of_order_are_refused() {
    for rule in [Rule::Equal, Rule::lawa(2, 3)] {
        for times in [&[2.0, 1.0][..], &[1.0, 1.0], &[0.0, 1.0], &[-1.0], &[f64::NAN]] {
            let error = Profile::of(&rule, 0.0, times.iter().copied(), 5.0).unwrap_err();
            let error = error.to_string();
            assert!(error.starts_with("the time of a"), "{error}");
            assert!(error.contains("expected a finite time"), "{error}");
        }
        for now in [1.0, f64::NAN, f64::INFINITY] {
            let error = Profile::of(&rule, 0.0, [2.0], now).unwrap_err().to_string();
            let expected = format!(
                "the time of a profile is {now}, \
                 expected a finite time from 2, that of the last update"
            );
            assert_eq!(error, expected);
        }
    }
}

#[test]
fn a_profile_prints_in_one_line() {
    let profile = every_step(&Rule::ema(0.9999), 20_000);
    let expected = "13.5 % on the start, mean age 8646 steps (standard deviation 6636), \
                    half-life 6931 steps, sigma_rel 0.332, \
                    as much noise as the mean of 54.5 steps";
    assert_eq!(profile.to_string(), expected);
}

#[test]
fn numbers_print_with_about_three_digits() {
    for (number, text) in [
        (0.0, "0"),
        (2e-9, "2.0e-9"),
        (0.05, "0.05"),
        (0.0625, "0.0625"),
        (0.1, "0.1"),
        (-2.5, "-2.5"),
        (13.53, "13.5"),
        (100.0, "100"),
        (8646.4, "8646"),
    ] {
        assert_eq!(short(number), text);
    }
}

proptest! {
    #[test]
    fn weights_sum_to_one_and_are_not_negative(
        rule in any_rule(),
        gaps in prop::collection::vec(prop_oneof![Just(1.0), Just(20.0), 0.01..9.0], 0..60),
        wait in 0.0..5.0,
    ) {
        let mut now = 0.0;
        let times: Vec<f64> = gaps.iter().map(|gap| { now += gap; now }).collect();
        let now = now + wait;
        let profile = Profile::of(&rule, 3.0, times.iter().copied(), now)?;
        let updates: f64 = profile.weights().iter().map(|(_, weight)| weight).sum();
        prop_assert!((profile.mass_on_start() + updates - 1.0).abs() < 1e-12, "{}", rule);
        prop_assert_eq!(profile.weights().len(), times.len());
        for (time, (step, weight)) in times.iter().zip(profile.weights()) {
            prop_assert_eq!(*step, 3.0 + time);
            prop_assert!(*weight >= 0.0);
        }
        prop_assert!((0.0..=now).contains(&profile.half_life()));
        if rule.correction(1.0).is_none() {
            prop_assert!(profile.mass_on_start() >= 0.0);
            prop_assert!(profile.mean_age() >= 0.0 && profile.mean_age() <= now + 1e-9);
            prop_assert!(profile.sigma_rel() <= 0.5 + 1e-9);
            let most = profile.weights().len() as f64 + 1.0;
            prop_assert!(profile.effective_steps() <= most + 1e-9);
        }
    }

    /// The weights of a profile, summed with any sequence of values, give the average of that
    /// sequence.
    #[test]
    fn a_profile_gives_the_average_of_any_weights(
        rule in any_rule(),
        steps in prop::collection::vec((1_u32..9, -1.0..1.0), 1..40),
    ) {
        prop_assume!(rule.window().is_none());
        let (start, mut mass, mut average) = (0.7, rule.initial_mass(), 0.7);
        let (mut times, mut from, mut output) = (vec![], 0.0, 0.7);
        for &(gap, value) in &steps {
            let to = from + f64::from(gap);
            let update = rule.update(mass, from, to)?;
            average += update.alpha * (value - average);
            output = average + rule.correction(to).unwrap_or(0.0) * (value - start);
            (mass, from) = (update.mass, to);
            times.push(to);
        }
        let profile = Profile::of(&rule, 0.0, times, from)?;
        let updates = profile.weights().iter().zip(&steps);
        let mixed: f64 = updates.map(|((_, weight), (_, value))| weight * value).sum();
        let mixed = profile.mass_on_start() * start + mixed;
        prop_assert!((mixed - output).abs() < 1e-12, "{}: {} is not {}", rule, mixed, output);
    }
}
