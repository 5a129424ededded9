//! What an update does: the share of the old average that its steps keep.
//!
//! Every rule has a retention, the product of the decays of the steps that an update covers, so
//! that keeping from `a` to `b` and then from `b` to `c` is keeping from `a` to `c`.
//! Some have it in closed form; for the others a step of which an update covers a part counts with
//! that part as the exponent of its decay.

use std::f64::consts::{LN_2, PI};

use super::{Rule, Update, custom, power, taken};
use crate::{Error, Result};

/// The most steps that one update of a rule without a closed form may cover.
const LONGEST: f64 = (1 << 24) as f64;

/// The shares of the old average and of the new weights, which together are 1.
///
/// Both are kept, since one minus a small share has lost most of its digits.
#[derive(Clone, Copy)]
struct Shares {
    keep: f64,
    new: f64,
}

impl Shares {
    /// Replaces the average.
    const REPLACE: Self = Self { keep: 0.0, new: 1.0 };

    fn of_decay(decay: f64) -> Self {
        Self { keep: decay, new: 1.0 - decay }
    }

    fn of_new(new: f64) -> Self {
        Self { keep: 1.0 - new, new }
    }

    /// Given what is kept and its logarithm, which says more near 1.
    fn of_logarithm(keep: f64, logarithm: f64) -> Self {
        Self { keep, new: -logarithm.exp_m1() }
    }

    fn of_half_life(steps: f64, half_life: f64) -> Self {
        let halvings = steps / half_life;
        Self::of_logarithm((-halvings).exp2(), -halvings * LN_2)
    }

    fn with_decay_in(self, min: f64, max: f64) -> Self {
        match self.keep {
            keep if keep > max => Self::of_decay(max),
            keep if keep < min => Self::of_decay(min),
            _ => self,
        }
    }

    /// Of a part of the step.
    fn part(self, part: f64) -> Self {
        if part == 1.0 {
            return self;
        }
        // Of the two shares the smaller one has the digits.
        let logarithm = if self.keep < 0.5 { self.keep.ln() } else { (-self.new).ln_1p() };
        Self::of_logarithm(self.keep.powf(part), part * logarithm)
    }

    /// Of these steps after older ones.
    fn after(self, older: Self) -> Self {
        Self { keep: self.keep * older.keep, new: self.new + self.keep * older.new }
    }
}

impl Rule {
    /// What one update does that covers the time from `from` to `to`, given the mass before it.
    ///
    /// Times are in steps since the start of the average, `0 <= from < to`, and need not be whole.
    ///
    /// Of a window it gives the share of the snapshots that are due; older ones make room.
    pub(crate) fn update(&self, mass: f64, from: f64, to: f64) -> Result<Update> {
        if !(from >= 0.0 && from < to && to.is_finite()) {
            let expected = format!("a finite time after {from}");
            return Err(Error::value("the time of an update", expected, to));
        }
        let Shares { keep, new } = self.shares(from, to)?;
        // From a copy the mass is 1 for ever: `keep * 1 + new`, without its rounding.
        let after = if self.initial_mass() == 0.0 { keep * mass + new } else { 1.0 };
        // The first corrected update replaces the average, even where its mass underflows.
        Ok(Update { alpha: if mass == 0.0 { 1.0 } else { new / after }, mass: after })
    }

    fn shares(&self, from: f64, to: f64) -> Result<Shares> {
        let steps = to - from;
        match *self {
            Self::Constant { decay, .. } => Ok(constant(decay, steps)),
            Self::HalfLife { steps: half_life } => Ok(Shares::of_half_life(steps, half_life)),
            Self::HalfLifeSamples { .. } | Self::HalfLifeEpochs { .. } => {
                Err(Error::value("the rule", "one that counts steps", self))
            }
            Self::PowerFunction { sigma_rel } => {
                Ok(power_function(power::gamma_of(sigma_rel), from, to))
            }
            Self::PowerFunctionGamma { gamma } => Ok(power_function(gamma, from, to)),
            Self::Equal => Ok(Shares { keep: from / to, new: steps / to }),
            Self::Window { snapshots, interval } => {
                let due = self.snapshots_due(from, to).min(snapshots);
                let held = taken(interval, to).min(snapshots);
                // Before the first snapshot nothing is held and nothing is due.
                Ok(Shares::of_new(due as f64 / held.max(1) as f64))
            }
            Self::WarmUp { warm_up, max_decay } => self.product(from, to, |t| {
                let (keep, new) = ((1.0 + t) / (warm_up + t), (warm_up - 1.0) / (warm_up + t));
                Ok(Shares { keep, new }.with_decay_in(0.0, max_decay))
            }),
            Self::InverseGamma { inv_gamma, power, min_decay, max_decay } => {
                self.product(from, to, |t| {
                    if t == 1.0 {
                        return Ok(Shares::REPLACE);
                    }
                    let new = (1.0 + (t - 1.0) / inv_gamma).powf(-power);
                    Ok(Shares::of_new(new).with_decay_in(min_decay, max_decay))
                })
            }
            Self::Annealing { gamma, max_decay } => self.product(from, to, |t| {
                let (keep, new) = (t / (gamma + t), gamma / (gamma + t));
                Ok(Shares { keep, new }.with_decay_in(0.0, max_decay))
            }),
            Self::ExponentialRamp { decay, tau } => self.product(from, to, |t| {
                let (keep, new) =
                    (-decay * (-t / tau).exp_m1(), 1.0 - decay + decay * (-t / tau).exp());
                Ok(Shares { keep, new })
            }),
            Self::HalfLifeRamp { fraction, max_half_life } => self.product(from, to, |t| {
                let half_life = (fraction * t).min(max_half_life.unwrap_or(f64::INFINITY));
                Ok(Shares::of_half_life(1.0, half_life))
            }),
            Self::Cosine { start, end, steps } => self.product(from, to, |t| {
                let left = if t < steps { ((PI * t / steps).cos() + 1.0) / 2.0 } else { 0.0 };
                Ok(between(start, end, left))
            }),
            Self::Linear { start, end, steps } => self.product(from, to, |t| {
                let left = if t < steps { 1.0 - t / steps } else { 0.0 };
                Ok(between(start, end, left))
            }),
            Self::Bema { rho, gamma, kappa, .. } => {
                self.product(from, to, |t| Ok(Shares::of_new((rho + gamma * t).powf(-kappa))))
            }
            Self::Custom { ref name, ref parameters } => {
                let function = custom::function(name)?;
                self.product(from, to, |t| match function(parameters, t) {
                    decay if (0.0..=1.0).contains(&decay) => Ok(Shares::of_decay(decay)),
                    decay => {
                        let what = format!("the decay of the rule {self} at step {t}");
                        Err(Error::value(what, "a number in [0, 1]", decay))
                    }
                })
            }
        }
    }

    /// The shares of all steps that the time from `from` to `to` touches.
    fn product(
        &self,
        from: f64,
        to: f64,
        of_step: impl Fn(f64) -> Result<Shares>,
    ) -> Result<Shares> {
        let (first, last) = (from.floor() + 1.0, to.ceil());
        let steps = last - first + 1.0;
        if steps > LONGEST {
            let expected = format!("at most {LONGEST} with the rule {self}");
            return Err(Error::value("the number of steps of one update", expected, steps));
        }
        let mut product = Shares { keep: 1.0, new: 0.0 };
        for back in 0..steps as u64 {
            let step = last - back as f64;
            let covered = to.min(step) - from.max(step - 1.0);
            product = product.after(of_step(step)?.part(covered));
            if product.keep == 0.0 {
                break;
            }
        }
        // The sum of the new shares has all digits where it is small, and may pass 1 by rounding.
        Ok(if product.keep > 0.5 { product } else { Shares::of_decay(product.keep) })
    }
}

/// Constant decay over some steps, by multiplication where their number is whole.
fn constant(decay: f64, steps: f64) -> Shares {
    match steps {
        steps if steps.fract() != 0.0 => Shares::of_decay(decay).part(steps),
        steps if steps <= f64::from(i32::MAX) => Shares::of_decay(decay.powi(steps as i32)),
        steps => Shares::of_decay(decay.powf(steps)),
    }
}

fn power_function(gamma: f64, from: f64, to: f64) -> Shares {
    let exponent = gamma + 1.0;
    Shares::of_logarithm((from / to).powf(exponent), exponent * (-(to - from) / to).ln_1p())
}

/// The decay on the way from `start` to `end`, of which the share `left` is still to go.
fn between(start: f64, end: f64, left: f64) -> Shares {
    Shares::of_decay(end - (end - start) * left)
}

#[cfg(test)]
mod tests {
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
        let rule =
            Rule::InverseGamma { inv_gamma: 2.0, power: 0.75, min_decay: 0.3, max_decay: 0.9 };
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
        let weighted: f64 = values
            .iter()
            .enumerate()
            .map(|(t, value)| (integral(t + 1) - integral(t)) * value)
            .sum();
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
            // The window forgets, and its averages are no `a <- a + alpha (w - a)`.
            prop_assume!(rule.window().is_none());
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
}
