//! The retention of a rule: the share of the old average that the steps of an update keep.
//!
//! Every rule has a retention, the product of the decays of the steps that an update covers, so
//! that keeping from `a` to `b` and then from `b` to `c` is keeping from `a` to `c`.
//! Some rules have it in closed form. For the others, a step that an update covers only in part
//! counts with the covered part as the exponent of its decay.
//! The rule of a target network is the exception: its share counts per update.

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

    /// The shares from the kept one and its logarithm, which is more precise near 1.
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

    /// The shares of a part of the step.
    fn part(self, part: f64) -> Self {
        if part == 1.0 {
            return self;
        }
        // Of the two shares the smaller one has the digits.
        let logarithm = if self.keep < 0.5 { self.keep.ln() } else { (-self.new).ln_1p() };
        Self::of_logarithm(self.keep.powf(part), part * logarithm)
    }

    /// The shares of `older` steps and these after them.
    fn after(self, older: Self) -> Self {
        Self { keep: self.keep * older.keep, new: self.new + self.keep * older.new }
    }
}

impl Rule {
    /// The update that covers the time from `from` to `to`, given the mass before it.
    ///
    /// Times are in steps since the start of the average, `0 <= from < to`, and need not be whole.
    ///
    /// For a window, `alpha` is the share of the snapshots that are due in all that the window then
    /// holds.
    pub(crate) fn update(&self, mass: f64, from: f64, to: f64) -> Result<Update> {
        if !(from >= 0.0 && from < to && to.is_finite()) {
            let expected = format!("a finite time after {from}");
            return Err(Error::value("the time of an update", expected, to));
        }
        let Shares { keep, new } = self.shares(from, to)?;
        // If the mass was 1 at first, it stays 1: `keep * 1 + new`, without its rounding.
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
            Self::Target { tau } => Ok(Shares::of_new(tau)),
            Self::Copy { every } => Ok(match taken(every, to) > taken(every, from) {
                true => Shares::REPLACE,
                false => Shares { keep: 1.0, new: 0.0 },
            }),
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

    /// The shares over the time from `from` to `to`: the steps' shares, one after the other. A step
    /// that is only partly in this time counts by that part.
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
mod tests;
