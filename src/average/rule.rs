//! How much of the new weights an update takes: numbers in, numbers out, no tensors.
//!
//! Every average here is `a <- a + alpha (w - a)`.
//! A rule gives the weights `w` after each step a raw weight `m` and keeps the sum `Z` of all raw
//! weights so far, its mass; then `alpha = m / Z`.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Which average: how much weight each past step has in it.
///
/// A rule is plain data; its ranges are checked where an average is made or loaded.
///
/// It prints itself in a short form, such as `ema(0.99)`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Rule {
    /// An exponential moving average of constant decay,
    /// `a_t = decay a_{t-1} + (1 - decay) w_t`.
    ///
    /// It remembers about `1 / (1 - decay)` steps; decay 0 is no averaging.
    Constant {
        /// The share of the old average that one step keeps, in `[0, 1)`.
        decay: f64,
        /// Without bias correction (`false`) the average starts as a copy of the first weights,
        /// which keep the weight `decay^t` in it.
        /// With it (`true`) the start has no weight: the average equals `v_t / (1 - decay^t)` of
        /// `v_t = decay v_{t-1} + (1 - decay) w_t` and `v_0 = 0`
        /// (Kingma and Ba 2015, "Adam", section 3).
        debias: bool,
    },
}

impl Rule {
    /// [`Rule::Constant`] from a copy of the first weights, the form that most libraries mean by
    /// "EMA".
    pub fn ema(decay: f64) -> Self {
        Self::Constant { decay, debias: false }
    }

    /// Checks the ranges.
    pub(crate) fn check(&self) -> Result<()> {
        match *self {
            Self::Constant { decay, .. } if !(0.0..1.0).contains(&decay) => {
                Err(Error::value("decay", "a number in [0, 1)", decay))
            }
            Self::Constant { .. } => Ok(()),
        }
    }

    /// The mass of an average that has seen no step: how much its start counts.
    pub(crate) fn initial_mass(&self) -> f64 {
        match self {
            Self::Constant { debias: false, .. } => 1.0,
            Self::Constant { debias: true, .. } => 0.0,
        }
    }

    /// What one update does that covers `steps` steps, given the mass before it.
    ///
    /// The update stands for `steps` single ones with the same weights, so its width does not
    /// depend on how often one updates.
    pub(crate) fn update(&self, mass: f64, steps: u64) -> Update {
        match *self {
            Self::Constant { decay, debias } => {
                let keep = power(decay, steps);
                let new = 1.0 - keep;
                // From a copy the mass is 1 for ever: `keep * 1 + new`, without its rounding.
                let mass = if debias { keep * mass + new } else { 1.0 };
                Update { alpha: new / mass, mass }
            }
        }
    }
}

/// One step of `a <- a + alpha (w - a)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Update {
    /// The share of the new weights, in `(0, 1]`; 1 replaces the average.
    pub alpha: f64,
    /// The mass after the update, in `(0, 1]`.
    pub mass: f64,
}

/// `base^exponent`, by multiplication where that is exact for small exponents.
fn power(base: f64, exponent: u64) -> f64 {
    match i32::try_from(exponent) {
        Ok(exponent) => base.powi(exponent),
        Err(_) => base.powf(exponent as f64),
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Constant { decay, debias: false } => write!(f, "ema({decay})"),
            Self::Constant { decay, debias: true } => write!(f, "ema({decay}, debias)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DECAYS: [f64; 5] = [0.0, 0.5, 0.9, 0.99, 0.999];

    #[test]
    fn a_decay_outside_its_range_is_refused_with_its_value() {
        for decay in [-0.1, 1.0, 1.5, f64::NAN, f64::INFINITY, -f64::INFINITY] {
            for debias in [false, true] {
                let error = Rule::Constant { decay, debias }.check().unwrap_err().to_string();
                assert_eq!(error, format!("decay is {decay}, expected a number in [0, 1)"));
            }
        }
        for decay in DECAYS {
            Rule::ema(decay).check().unwrap();
        }
    }

    #[test]
    fn the_mass_with_bias_correction_is_one_minus_decay_to_the_t() {
        for decay in DECAYS {
            let rule = Rule::Constant { decay, debias: true };
            let mut mass = rule.initial_mass();
            for t in 1..=200 {
                let update = rule.update(mass, 1);
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
            assert_eq!(Rule::Constant { decay, debias: true }.update(0.0, 1).alpha, 1.0);
        }
        for debias in [false, true] {
            let rule = Rule::Constant { decay: 0.0, debias };
            assert_eq!(rule.update(1.0, 1), Update { alpha: 1.0, mass: 1.0 });
        }
    }

    #[test]
    fn rules_print_in_a_short_form() {
        assert_eq!(Rule::ema(0.99).to_string(), "ema(0.99)");
        let corrected = Rule::Constant { decay: 0.5, debias: true };
        assert_eq!(corrected.to_string(), "ema(0.5, debias)");
    }

    proptest! {
        /// One update over `k` steps weighs the past as `k` updates with the same weights do.
        #[test]
        fn an_update_over_k_steps_is_k_updates(
            decay in 0.0..0.9999f64, k in 1u64..60, before in 0u64..50, debias: bool,
        ) {
            let rule = Rule::Constant { decay, debias };
            let start = (0..before).fold(rule.initial_mass(), |mass, _| rule.update(mass, 1).mass);
            let at_once = rule.update(start, k);
            let (mut mass, mut kept) = (start, 1.0);
            for _ in 0..k {
                let update = rule.update(mass, 1);
                kept *= 1.0 - update.alpha;
                mass = update.mass;
            }
            prop_assert!((at_once.alpha - (1.0 - kept)).abs() < 1e-12);
            prop_assert!((at_once.mass - mass).abs() < 1e-12);
        }
    }
}
