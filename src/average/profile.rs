//! What an average is made of: how much weight each past update has in it.

use std::{collections::VecDeque, fmt};

use super::rule::Rule;
use crate::{Error, Result};

/// What an average is made of: how much weight its start and each past update have in it.
///
/// Ages are counted back from the step that it was asked for; the start counts with its age, the
/// steps since it.
/// All weights together are 1.
/// Those of [`Rule::Bema`] can be negative, and so can the mean age then.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    mass_on_start: f64,
    weights: Vec<(f64, f64)>,
    mean_age: f64,
    standard_deviation: f64,
    sigma_rel: f64,
    half_life: f64,
    effective_steps: f64,
}

/// The most updates that a profile lists, which then takes 2 GiB while it is made.
const MOST_UPDATES: usize = 1 << 26;

impl Profile {
    /// The profile of a rule in steps, from the times of its updates.
    ///
    /// Times are in steps since the start of the average, ascending; `now` is not before the last.
    pub(crate) fn of(
        rule: &Rule,
        start_step: f64,
        times: impl IntoIterator<Item = f64>,
        now: f64,
    ) -> Result<Self> {
        Self::corrected(rule, start_step, times, now, |last| rule.correction(last))
    }

    /// Like [`of`](Self::of), for a parameter to which no correction is made.
    pub(crate) fn uncorrected(
        rule: &Rule,
        start_step: f64,
        times: impl IntoIterator<Item = f64>,
        now: f64,
    ) -> Result<Self> {
        Self::corrected(rule, start_step, times, now, |_| None)
    }

    fn corrected(
        rule: &Rule,
        start_step: f64,
        times: impl IntoIterator<Item = f64>,
        now: f64,
        correction: impl Fn(f64) -> Option<f64>,
    ) -> Result<Self> {
        let times: Vec<f64> = times.into_iter().take(MOST_UPDATES + 1).collect();
        if times.len() > MOST_UPDATES {
            let expected = format!("at most {MOST_UPDATES}");
            return Err(Error::value("the number of updates of a profile", expected, "more"));
        }
        let last = times.last().copied().unwrap_or(0.0);
        if !(now >= last && now.is_finite()) {
            let expected = format!("a finite time from {last}, that of the last update");
            return Err(Error::value("the time of a profile", expected, now));
        }
        let (mut start, mut weights) = match rule.window() {
            Some((snapshots, _)) => of_snapshots(rule, snapshots, &times)?,
            None => of_updates(rule, &times)?,
        };
        // Rounding, once an update, leaves the sum a little beside 1.
        let total = start + weights.iter().sum::<f64>();
        start /= total;
        weights.iter_mut().for_each(|weight| *weight /= total);
        if let (Some(newest), Some(correction)) = (weights.last_mut(), correction(last)) {
            *newest += correction;
            start -= correction;
        }
        Ok(Self::new(start_step, start, &times, &weights, now))
    }

    /// The moments of some weights.
    fn new(start_step: f64, start: f64, times: &[f64], weights: &[f64], now: f64) -> Self {
        let aged = || {
            let updates = times.iter().zip(weights).map(|(time, &weight)| (now - time, weight));
            updates.chain([(now, start)])
        };
        let mean_age: f64 = aged().map(|(age, weight)| weight * age).sum();
        let variance: f64 = aged().map(|(age, weight)| weight * (age - mean_age).powi(2)).sum();
        let standard_deviation = variance.max(0.0).sqrt();
        Self {
            mass_on_start: start,
            weights: times
                .iter()
                .zip(weights)
                .map(|(time, &weight)| (start_step + time, weight))
                .collect(),
            mean_age,
            standard_deviation,
            sigma_rel: if now > 0.0 { standard_deviation / now } else { 0.0 },
            half_life: half_life(times, weights, now),
            effective_steps: 1.0 / aged().map(|(_, weight)| weight * weight).sum::<f64>(),
        }
    }

    /// The profile of which nothing is known: all its numbers are NaN.
    pub(crate) fn unknown() -> Self {
        Self::new(f64::NAN, f64::NAN, &[], &[], f64::NAN)
    }

    /// The weight of the weights that it started from.
    pub fn mass_on_start(&self) -> f64 {
        self.mass_on_start
    }

    /// The step and the weight of every update, oldest first.
    ///
    /// Where time runs in samples, a step stands for `samples_per_step` of them.
    /// An update that covered several steps stands once, at its step.
    /// One that no longer counts has the weight 0.
    pub fn weights(&self) -> &[(f64, f64)] {
        &self.weights
    }

    /// The mean age in steps.
    pub fn mean_age(&self) -> f64 {
        self.mean_age
    }

    /// The standard deviation of the age in steps.
    ///
    /// It is 0 where negative weights leave none.
    pub fn standard_deviation(&self) -> f64 {
        self.standard_deviation
    }

    /// The standard deviation of the age as a share of the steps since the start.
    pub fn sigma_rel(&self) -> f64 {
        self.sigma_rel
    }

    /// The age in steps of the newest weights that together have half of all weight.
    ///
    /// The weight of an update is spread evenly over the steps that it covers.
    /// Where the start has more than half, it is the age of the start.
    pub fn half_life(&self) -> f64 {
        self.half_life
    }

    /// By how much independent noise is averaged down: one over the sum of the squared weights,
    /// that of the start included.
    pub fn effective_steps(&self) -> f64 {
        self.effective_steps
    }
}

/// The weight of the start and of every update, for `a <- a + alpha (w - a)`.
fn of_updates(rule: &Rule, times: &[f64]) -> Result<(f64, Vec<f64>)> {
    let (mut mass, mut from) = (rule.initial_mass(), 0.0);
    let mut weights = Vec::with_capacity(times.len());
    for &to in times {
        let update = rule.update(mass, from, to)?;
        weights.push(update.alpha);
        (mass, from) = (update.mass, to);
    }
    // Newer updates keep one minus their alpha of everything before them.
    let mut kept = 1.0;
    for weight in weights.iter_mut().rev() {
        let alpha = *weight;
        *weight = kept * alpha;
        kept *= 1.0 - alpha;
    }
    Ok((kept, weights))
}

/// The weight of the start and of every update, for the mean of the last snapshots.
fn of_snapshots(rule: &Rule, snapshots: u64, times: &[f64]) -> Result<(f64, Vec<f64>)> {
    // The updates that hold snapshots, oldest first, each with their number.
    let mut held = VecDeque::new();
    let (mut count, mut from) = (0, 0.0);
    for (index, &to) in times.iter().enumerate() {
        // The shares say less than the snapshots; times out of order are refused all the same.
        rule.update(1.0, from, to)?;
        let due = rule.snapshots_due(from, to).min(snapshots);
        from = to;
        if due == 0 {
            continue;
        }
        let mut surplus = due.saturating_sub(snapshots - count);
        count = (count + due).min(snapshots);
        while surplus > 0
            && let Some((_, oldest)) = held.front_mut()
        {
            let dropped = surplus.min(*oldest);
            surplus -= dropped;
            *oldest -= dropped;
            if *oldest == 0 {
                held.pop_front();
            }
        }
        held.push_back((index, due));
    }
    let mut weights = vec![0.0; times.len()];
    for &(index, number) in &held {
        weights[index] = number as f64 / count as f64;
    }
    Ok((if held.is_empty() { 1.0 } else { 0.0 }, weights))
}

/// The age of the newest weights that together have half of all weight.
fn half_life(times: &[f64], weights: &[f64], now: f64) -> f64 {
    let mut newer = 0.0;
    for (index, (&time, &weight)) in times.iter().zip(weights).enumerate().rev() {
        if newer + weight >= 0.5 {
            let before = index.checked_sub(1).map_or(0.0, |index| times[index]);
            return now - time + (0.5 - newer) / weight * (time - before);
        }
        newer += weight;
    }
    now
}

/// One readable line.
impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} % on the start, mean age {} steps (standard deviation {}), half-life {} steps, \
             sigma_rel {}, as much noise as the mean of {} steps",
            short(100.0 * self.mass_on_start),
            short(self.mean_age),
            short(self.standard_deviation),
            short(self.half_life),
            short(self.sigma_rel),
            short(self.effective_steps),
        )
    }
}

/// About three digits, without trailing zeros.
fn short(value: f64) -> String {
    let size = value.abs();
    if size != 0.0 && size < 1e-3 {
        return format!("{value:.1e}");
    }
    let places = match size {
        size if size < 0.1 => 4,
        size if size < 1.0 => 3,
        size if size < 10.0 => 2,
        size if size < 100.0 => 1,
        _ => 0,
    };
    let text = format!("{value:.places$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_string(),
        false => text,
    }
}

#[cfg(test)]
mod tests {
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
    fn before_the_first_update_all_is_the_start() {
        for rule in
            [Rule::ema(0.9), Rule::debiased(0.9), Rule::Equal, Rule::lawa(2, 3), Rule::bema()]
        {
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
        for (index, (corrected, plain)) in
            corrected.weights().iter().zip(plain.weights()).enumerate()
        {
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

        /// What a profile says is what the average is.
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
}
