use proptest::prelude::*;

use super::*;
use crate::average::rule::tests::any_rule;

const DECAYS: [f64; 5] = [0.0, 0.5, 0.9, 0.99, 0.999];

/// The decay of whole step `t`, from a copy of the start.
fn decay(rule: &Rule, t: u32) -> f64 {
    let t = f64::from(t);
    1.0 - rule.update(1.0, t - 1.0, t).unwrap().alpha
}

#[track_caller]
fn assert_near(found: f64, expected: f64) {
    assert!((found - expected).abs() <= 1e-15, "{found} is not {expected}");
}

#[test]
fn the_mass_with_bias_correction_is_one_minus_decay_to_the_t() {
    for decay in DECAYS {
        let rule = Rule::debiased(decay);
        let mut mass = rule.initial_mass();
        for t in 1..=200 {
            let update = rule.update(mass, f64::from(t - 1), f64::from(t)).unwrap();
            mass = update.mass;
            let expected = 1.0 - decay.powi(t);
            assert!((mass - expected).abs() <= 1e-13, "decay {decay}, step {t}");
            assert!((update.alpha - (1.0 - decay) / expected).abs() <= 1e-12);
        }
    }
}

#[test]
fn the_first_corrected_update_and_every_update_of_decay_zero_replace_the_average() {
    for decay in DECAYS {
        for to in [1.0, 7.0, 0.3, 5e-324] {
            assert_eq!(Rule::debiased(decay).update(0.0, 0.0, to).unwrap().alpha, 1.0);
        }
    }
    for rule in [Rule::ema(0.0), Rule::debiased(0.0)] {
        for (from, to) in [(0.0, 1.0), (7.0, 9.0), (7.0, 7.5)] {
            let update = rule.update(1.0, from, to).unwrap();
            assert_eq!(update, Update { alpha: 1.0, mass: 1.0 });
        }
    }
}

/// Saved averages of constant decay go on with the same bits.
#[test]
fn whole_steps_of_constant_decay_are_powers_by_multiplication() {
    for decay in DECAYS {
        for (steps, mass) in [(1_u32, 0.7), (2, 0.01), (3, 1.0), (100, 0.3), (1 << 30, 0.9)] {
            let keep = decay.powi(steps as i32);
            let new = 1.0 - keep;
            let corrected = keep * mass + new;
            let (from, to) = (5.0, 5.0 + f64::from(steps));
            let update = Rule::debiased(decay).update(mass, from, to).unwrap();
            assert_eq!(update.mass.to_bits(), corrected.to_bits(), "{decay}, {steps}");
            assert_eq!(update.alpha.to_bits(), (new / corrected).to_bits());
            let update = Rule::ema(decay).update(1.0, from, to).unwrap();
            assert_eq!(update.alpha.to_bits(), new.to_bits());
            assert_eq!(update.mass, 1.0);
        }
    }
}

#[test]
fn steps_beyond_the_exponents_of_multiplication_count() {
    let alpha = Rule::ema(1.0 - 1e-10).update(1.0, 0.0, 1e10).unwrap().alpha;
    assert!((alpha - (1.0 - (-1.0_f64).exp())).abs() < 1e-6);
}

#[test]
fn a_half_life_keeps_half() {
    for steps in [1.0, 500.0, 0.25, 1e9] {
        let rule = Rule::half_life(steps);
        assert_eq!(rule.update(1.0, 3.0, 3.0 + steps).unwrap().alpha, 0.5);
        assert_eq!(rule.update(1.0, 0.0, 2.0 * steps).unwrap().alpha, 0.75);
    }
    for t in 1..20 {
        assert_eq!(decay(&Rule::half_life(1.0), t), 0.5);
        assert_near(decay(&Rule::half_life(500.0), t), 0.5_f64.powf(1.0 / 500.0));
    }
    // One minus the decay has all digits: this one differs from 1 by less than their distance.
    let alpha = Rule::half_life(1e18).update(1.0, 4.0, 5.0).unwrap().alpha;
    assert!((alpha / (LN_2 / 1e18) - 1.0).abs() < 1e-15);
}

#[test]
fn a_half_life_in_samples_or_epochs_takes_no_update() {
    for rule in [Rule::HalfLifeSamples { samples: 9.0 }, Rule::HalfLifeEpochs { epochs: 2.0 }] {
        let error = rule.update(1.0, 0.0, 1.0).unwrap_err().to_string();
        assert_eq!(error, format!("the rule is {rule}, expected one that counts steps"));
    }
}

#[test]
fn a_warm_up_follows_its_formula() {
    let rule = Rule::WarmUp { warm_up: 10.0, max_decay: 0.9 };
    for t in 1..200 {
        let expected = ((1.0 + f64::from(t)) / (10.0 + f64::from(t))).min(0.9);
        assert_near(decay(&rule, t), expected);
    }
    assert_near(decay(&rule, 1), 2.0 / 11.0);
    assert_near(decay(&Rule::WarmUp { warm_up: 1.0, max_decay: 0.8 }, 1), 0.8);
}

#[test]
fn an_inverse_gamma_follows_its_formula() {
    let rule = Rule::InverseGamma { inv_gamma: 2.0, power: 0.75, min_decay: 0.3, max_decay: 0.9 };
    assert_eq!(decay(&rule, 1), 0.0);
    for t in 2..200 {
        let s = f64::from(t - 1);
        assert_near(decay(&rule, t), (1.0 - (1.0 + s / 2.0).powf(-0.75)).clamp(0.3, 0.9));
    }
    assert_near(decay(&rule, 2), 0.3);
    assert_near(decay(&rule, 199), 0.9);
    // Known of this rule: power 2/3 reaches 0.999 at 31.6 thousand steps, 3/4 at 10 thousand.
    for (power, steps) in [(2.0 / 3.0, 31_600), (0.75, 10_000)] {
        assert!((decay(&Rule::inverse_gamma(power, 1.0), steps) - 0.999).abs() < 1e-6);
    }
}

#[test]
fn an_annealing_follows_its_formula_and_with_gamma_one_is_the_mean_with_the_start() {
    let rule = Rule::Annealing { gamma: 100.0, max_decay: 0.7 };
    for t in 1..500 {
        assert_near(decay(&rule, t), (f64::from(t) / (100.0 + f64::from(t))).min(0.7));
    }
    let mean = Rule::Annealing { gamma: 1.0, max_decay: 1.0 };
    for t in 1..100 {
        let alpha = mean.update(1.0, 0.0, f64::from(t)).unwrap().alpha;
        assert!((1.0 - alpha - 1.0 / f64::from(t + 1)).abs() < 1e-14);
    }
}

#[test]
fn the_ramps_follow_their_formulas() {
    let rule = Rule::ExponentialRamp { decay: 0.99, tau: 20.0 };
    let of_half_life = Rule::HalfLifeRamp { fraction: 0.5, max_half_life: Some(8.0) };
    for t in 1..200 {
        let time = f64::from(t);
        assert_near(decay(&rule, t), 0.99 * (1.0 - (-time / 20.0).exp()));
        let half_life = (0.5 * time).min(8.0);
        assert_near(decay(&of_half_life, t), 2_f64.powf(-1.0 / half_life));
    }
    assert_near(decay(&of_half_life, 2), 0.5);
    assert_near(decay(&Rule::half_life_ramp(0.5), 2000), 2_f64.powf(-1e-3));
}

#[test]
fn the_schedules_follow_their_formulas_and_stay_at_their_end() {
    let cosine = Rule::Cosine { start: 0.9, end: 1.0, steps: 10.0 };
    let linear = Rule::Linear { start: 0.2, end: 0.7, steps: 10.0 };
    for t in 1..10 {
        let time = f64::from(t);
        assert_near(decay(&cosine, t), 1.0 - 0.1 * ((PI * time / 10.0).cos() + 1.0) / 2.0);
        assert_near(decay(&linear, t), 0.2 + 0.5 * time / 10.0);
    }
    assert_near(decay(&cosine, 5), 0.95);
    for t in [10, 11, 1000] {
        assert_eq!(decay(&cosine, t), 1.0);
        assert_near(decay(&linear, t), 0.7);
    }
    // Decay 1 keeps all.
    assert_eq!(cosine.update(1.0, 10.0, 20.0).unwrap(), Update { alpha: 0.0, mass: 1.0 });
}

#[test]
fn the_decay_and_the_correction_of_bema_follow_their_formulas() {
    let rule = Rule::Bema { rho: 4.0, gamma: 2.0, eta: 0.3, kappa: 0.6 };
    for t in 1..100 {
        let base = 4.0 + 2.0 * f64::from(t);
        assert_near(decay(&rule, t), 1.0 - base.powf(-0.6));
        assert_near(rule.correction(f64::from(t)).unwrap(), base.powf(-0.3));
    }
    assert_eq!(Rule::Equal.correction(1.0), None);
}

#[test]
fn equal_weights_are_the_mean_and_the_power_function_a_weighted_one() {
    let values: Vec<f64> = (0..60).map(|t| (f64::from(t) * 0.7).sin() + f64::from(t)).collect();
    let average = |rule: &Rule| {
        let mut average = 1e6;
        for (index, value) in values.iter().enumerate() {
            let from = index as f64;
            average += rule.update(1.0, from, from + 1.0).unwrap().alpha * (value - average);
        }
        average
    };
    let mean = values.iter().sum::<f64>() / 60.0;
    assert!((average(&Rule::Equal) - mean).abs() < 1e-12);
    assert!((average(&Rule::PowerFunctionGamma { gamma: 0.0 }) - mean).abs() < 1e-12);
    let gamma = 6.937203937601809;
    // The density over step `t` is the difference of its integral.
    let integral = |t: usize| (t as f64 / 60.0).powf(gamma + 1.0);
    let weighted: f64 =
        values.iter().enumerate().map(|(t, value)| (integral(t + 1) - integral(t)) * value).sum();
    for rule in [Rule::PowerFunctionGamma { gamma }, Rule::power_function(0.1)] {
        assert!((average(&rule) - weighted).abs() < 1e-11, "{rule}");
        assert_eq!(rule.update(1.0, 0.0, 3.5).unwrap(), Update { alpha: 1.0, mass: 1.0 });
    }
}

#[test]
fn the_share_of_new_weights_has_all_digits_late_in_training() {
    let late = 1e15;
    let alpha = |rule: Rule| rule.update(1.0, late, late + 1.0).unwrap().alpha * late;
    assert!((alpha(Rule::Equal) - 1.0).abs() < 1e-14);
    assert!((alpha(Rule::PowerFunctionGamma { gamma: 6.0 }) - 7.0).abs() < 1e-13);
    assert!((alpha(Rule::WarmUp { warm_up: 10.0, max_decay: 1.0 }) - 9.0).abs() < 1e-13);
    assert!((alpha(Rule::Annealing { gamma: 100.0, max_decay: 1.0 }) - 100.0).abs() < 1e-10);
    assert!((alpha(Rule::half_life_ramp(0.5)) - LN_2 / 0.5).abs() < 1e-14);
    assert!((alpha(Rule::inverse_gamma(1.0, 1.0)) - 1.0).abs() < 1e-14);
}

#[test]
fn a_window_gives_the_share_of_the_snapshots_that_are_due() {
    let rule = Rule::lawa(3, 10);
    let alpha = |from: f64, to: f64| rule.update(1.0, from, to).unwrap().alpha;
    assert_eq!(alpha(0.0, 9.0), 0.0);
    assert_eq!(alpha(0.0, 10.0), 1.0);
    assert_eq!(alpha(10.0, 20.0), 0.5);
    assert_eq!(alpha(10.0, 30.0), 2.0 / 3.0);
    assert_eq!(alpha(90.0, 100.0), 1.0 / 3.0);
    assert_eq!(alpha(91.0, 99.0), 0.0);
    assert_eq!(alpha(50.0, 500.0), 1.0);
}

#[test]
fn a_step_counts_with_the_part_that_an_update_covers() {
    let rule = Rule::Annealing { gamma: 3.0, max_decay: 1.0 };
    let keep = |from: f64, to: f64| 1.0 - rule.update(1.0, from, to).unwrap().alpha;
    let (second, third, fourth) = (2.0_f64 / 5.0, 3.0_f64 / 6.0, 4.0_f64 / 7.0);
    assert_near(keep(1.25, 1.5), second.powf(0.25));
    assert_near(keep(1.25, 2.0), second.powf(0.75));
    assert_near(keep(1.25, 3.5), second.powf(0.75) * third * fourth.sqrt());
    assert_near(keep(2.0, 4.0), third * fourth);
}

#[test]
fn an_update_over_too_many_steps_is_refused_unless_there_is_a_closed_form() {
    let steps = LONGEST + 1.0;
    let error = Rule::bema().update(1.0, 3.0, 3.0 + steps).unwrap_err().to_string();
    let expected = "the number of steps of one update is 16777217, expected at most 16777216 \
                    with the rule bema(rho=10, gamma=1, eta=0.2, kappa=0.5)";
    assert_eq!(error, expected);
    for rule in [
        Rule::ema(0.999),
        Rule::half_life(500.0),
        Rule::Equal,
        Rule::power_function(0.05),
        Rule::lawa(5, 100),
    ] {
        rule.update(1.0, 3.0, 1e15).unwrap();
    }
    // A product that has become 0 ends early.
    let rule = Rule::ExponentialRamp { decay: 0.5, tau: 1.0 };
    assert_eq!(rule.update(1.0, 0.0, LONGEST).unwrap().alpha, 1.0);
}

#[test]
fn times_that_do_not_ascend_are_refused() {
    for (from, to) in [
        (2.0, 2.0),
        (2.0, 1.0),
        (-1.0, 1.0),
        (f64::NAN, 1.0),
        (0.0, f64::NAN),
        (0.0, f64::INFINITY),
    ] {
        let error = Rule::ema(0.5).update(1.0, from, to).unwrap_err().to_string();
        let expected =
            format!("the time of an update is {to}, expected a finite time after {from}");
        assert_eq!(error, expected);
    }
}

proptest! {
    /// One update over some time weighs the past as several with the same weights do,
    /// wherever the time is split.
    #[test]
    fn an_update_over_a_time_is_the_updates_over_its_parts(
        rule in any_rule(),
        start in prop_oneof![(0_u32..50).prop_map(f64::from), 0.0..50.0],
        parts in prop::collection::vec(prop_oneof![Just(1.0), Just(3.0), 0.01..9.0], 1..12),
    ) {
        // The window forgets, and its averages are no `a <- a + alpha (w - a)`; a target counts
        // updates.
        prop_assume!(rule.window().is_none() && !matches!(rule, Rule::Target { .. }));
        let before = match start {
            0.0 => rule.initial_mass(),
            start => rule.update(rule.initial_mass(), 0.0, start)?.mass,
        };
        let (mut mass, mut kept, mut from) = (before, 1.0, start);
        for part in parts {
            let to = from + part;
            let update = rule.update(mass, from, to)?;
            prop_assert!((0.0..=1.0).contains(&update.alpha), "{:?}", update);
            prop_assert!((0.0..=1.0).contains(&update.mass), "{:?}", update);
            kept *= 1.0 - update.alpha;
            (mass, from) = (update.mass, to);
        }
        let at_once = rule.update(before, start, from)?;
        prop_assert!((at_once.alpha - (1.0 - kept)).abs() < 1e-12, "{}", rule);
        prop_assert!((at_once.mass - mass).abs() < 1e-12, "{}", rule);
    }

    #[test]
    fn an_update_over_k_steps_is_k_updates(
        decay in 0.0..0.9999f64, k in 1u32..60, before in 0u32..50, debias: bool,
    ) {
        let rule = Rule::Constant { decay, debias };
        let step = |mass: f64, t: u32| rule.update(mass, f64::from(t), f64::from(t + 1));
        let mut start = rule.initial_mass();
        for t in 0..before {
            start = step(start, t)?.mass;
        }
        let at_once = rule.update(start, f64::from(before), f64::from(before + k))?;
        let (mut mass, mut kept) = (start, 1.0);
        for t in before..before + k {
            let update = step(mass, t)?;
            kept *= 1.0 - update.alpha;
            mass = update.mass;
        }
        prop_assert!((at_once.alpha - (1.0 - kept)).abs() < 1e-12);
        prop_assert!((at_once.mass - mass).abs() < 1e-12);
    }
}
