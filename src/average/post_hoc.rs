//! Computes the mix of stored averages that makes another average: numbers in, numbers out, no
//! tensors.
//!
//! From the averages of power functions that a training stored, an average of another width, or of
//! another kind, can be made later: it is close to `sum_i x_i a_i` of the stored ones. [`mix`]
//! computes the coefficients `x` and the error
//! (Karras et al. 2024, "Analyzing and Improving the Training Dynamics of Diffusion Models",
//! section 3 and appendix C).
//!
//! # Mathematics
//!
//! The profile of an average is the weight that the weights of each time have in it; its integral
//! is 1. The profile of a stored average of exponent `g` at step `T` is, on `(0, T]`,
//!
//! ```math
//! p(t) = \frac{(g + 1)\,t^g}{T^{\,g + 1}}
//! ```
//!
//! With the weights after step `t` standing for the time `(t - 1, t]`, an average of this profile
//! is exactly what the updates `a <- a + (1 - (1 - 1 / t)^(g + 1)) (w - a)` make.
//! The mix is the sum whose profile is nearest to the wanted profile, in the L2 norm.
//!
//! The published way (appendix C) solves, with `q` the wanted profile,
//!
//! ```math
//! A x = b, \qquad A_{ij} = \int p_i(t)\,p_j(t)\,\mathrm{d}t, \qquad
//! b_i = \int p_i(t)\,q(t)\,\mathrm{d}t
//! ```
//!
//! Profiles of neighbours are almost parallel, so `A` is full and badly conditioned.
//! But two profiles of one exponent are proportional below the earlier step. So the increment
//! `d_i = p_i - (T_j / T_i)^(g + 1) p_j`, with `j` the stored average of the same exponent before
//! `i`, is zero up to `T_j` and is `p_i` itself on `(T_j, T_i]`.
//! The `d` span what the `p` span, and most pairs of them are orthogonal because they do not
//! overlap: averages of `k` widths that are stored at the same steps leave blocks of `k` rows.
//! Here the least squares are solved in the `d`, and the coefficients are converted to those of the
//! `p`: the same solution, from a few small and better conditioned systems.

mod density;
mod increments;

use std::fmt;

use density::{Density, Part, Piece};
use increments::{Increments, chains};
use serde::{Deserialize, Serialize};

use super::rule::Rule;
pub use super::snapshots::Stored;
use crate::{Error, Result};

/// The relative error above which [`mix`] returns an error: 0.5.
///
/// For weights with independent noise at every step, the variance of the difference of the mix and
/// the wanted average, as a share of the variance of the wanted average, is the square of the
/// relative error.
/// With a share above a quarter, the mix is another average than the wanted one.
/// A good mix has an error of a few hundredths; [`Mix::require`] takes a stricter limit.
pub const LIMIT: f64 = 0.5;

/// The relative error of a mix from the rounding of its files above which it is refused: 0.03.
///
/// A number that is stored in `f16` is off by at most `2^-11` of itself, in `f32` by `2^-24`.
/// These errors are independent, so that a mix of weights of one size is off by about that number
/// times its [noise gain](Mix::noise_gain); if the files differ in dtype, by the root of the sum of
/// the squares of each coefficient times the error of its file.
/// Random errors of 3 % are those of weights that are quantized to 6 bits, which networks bear;
/// with greater ones the mix is another module than the wanted one.
/// The limit is a noise gain of 61 in `f16` and of 500 000 in `f32`.
/// Averages of widths 0.05 and 0.1 that were stored 40 times make one of 0.02 with a gain of 15,
/// and wider ones with about 1.
pub const ROUNDING_LIMIT: f64 = 0.03;

/// The number of stored averages in one system of equations above which [`mix`] fails: 128.
///
/// Averages of all widths that are stored at the same steps fall into many small systems, one for
/// each step.
/// At steps that differ from width to width they all fall into one system, whose cost grows with
/// the cube of its size: 128 averages take 2 seconds without compiler optimization, 256 take 16.
pub const SYSTEM_LIMIT: usize = 128;

/// The wanted profile of an average at the step `at`.
///
/// A target is displayed in a short form, such as `power(sigma_rel=0.1)`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Target {
    /// A power function of this relative width.
    PowerFunction {
        /// The standard deviation of the profile, as a share of `at`; in `(0, 1 / sqrt(12)]`.
        sigma_rel: f64,
    },
    /// A power function of this exponent: `(gamma + 1) t^gamma / at^(gamma + 1)`.
    PowerFunctionGamma {
        /// The exponent, at least 0; 0 is the mean of all steps.
        gamma: f64,
    },
    /// The exponential moving average of constant decay with bias correction: a density in
    /// proportion to `decay^(at - t)` on `(0, at]`.
    ///
    /// Its integral over one step is the weight that the recurrence gives to that step.
    /// Decay 0, no averaging, is the last step alone.
    Constant {
        /// The share of the old average that one step keeps, in `[0, 1)`.
        decay: f64,
    },
    /// Equal weights over the last `steps` steps: stochastic weight averaging (SWA).
    ///
    /// The profile jumps from 0 at the step `at - steps`. A mix can have a jump only at a stored
    /// step, so its [relative error](Mix::relative_error) is least if `at - steps` is one.
    Window {
        /// How many steps, in `(0, at]`.
        steps: f64,
    },
    /// A merge that emulates a decay of the learning rate as `1 - sqrt(x)` over the last steps,
    /// with `x` from 0 to 1.
    ///
    /// An update keeps the share of the later weights in the mix, so the density is
    /// `1 / (2 sqrt(x) steps)`, the slope of the decay.
    /// No sum of squares of that exists: the slope is infinite at the start.
    /// So the density is levelled from the start to the first stored step after it, with the same
    /// integral: the updates that lead to that step share one factor, as in a merge of
    /// checkpoints. Averages that were stored at closer steps follow the decay more closely.
    Sqrt {
        /// How many steps, in `(0, at]`.
        steps: f64,
    },
}

/// The way in which the coefficients get the sum 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Solve {
    /// Least squares without a condition, then divided by their sum, as published.
    #[default]
    Published,
    /// Least squares under the condition that the sum is 1, by a Lagrange multiplier.
    ///
    /// Of all mixes with the sum 1 it has the least error.
    Constrained,
}

/// A mix of stored averages, and how good it is.
#[derive(Clone, Debug)]
pub struct Mix {
    /// The target and its step in words, for error messages.
    wanted: String,
    coefficients: Vec<f64>,
    relative_error: f64,
    squared_error_before_scaling: f64,
    condition: f64,
    /// The profile that the coefficients make: increments with their factors.
    made: Vec<(Piece, f64)>,
    target: Density,
}

/// Computes the mix of `stored` averages that is nearest to the average `target` at the step `at`.
///
/// Only the averages stored up to `at` take part, the others get the coefficient 0.
/// No stored average has the steps between the last of them and `at`, which adds to the error of
/// the mix: the error is least if `at` is a stored step.
/// `at` is in steps from the start of the averages.
///
/// # Errors
///
/// Numbers outside their ranges, an average that is given twice, an `at` before the first stored
/// step, a system of equations above [`SYSTEM_LIMIT`], and a mix whose
/// [relative error](Mix::relative_error) is above [`LIMIT`].
pub fn mix(stored: &[Stored], target: &Target, at: f64, solve: Solve) -> Result<Mix> {
    best(stored, target, at, solve)?.require(LIMIT)
}

/// The mix, without a limit on its error.
fn best(stored: &[Stored], target: &Target, at: f64, solve: Solve) -> Result<Mix> {
    check_stored(stored)?;
    check_at(stored, at)?;
    let target_profile = target.profile(stored, at)?;
    let increments = Increments::new(stored, at);
    let largest = increments.groups().iter().map(Vec::len).max().unwrap_or(0);
    if largest > SYSTEM_LIMIT {
        return Err(Error::value(
            "the number of stored averages whose steps interlock",
            format!("at most {SYSTEM_LIMIT} (averages of all widths at the same steps do not)"),
            largest,
        ));
    }
    let solution = increments.solve(&target_profile, solve).ok_or_else(|| {
        Error::value(
            format!("the mix for {target} at step {at}"),
            "a system of equations that can be solved",
            "one whose eigenvalues cannot be computed",
        )
    })?;
    Ok(Mix {
        wanted: format!("{target} at step {at}"),
        coefficients: increments.coefficients(&solution.factors, stored.len()),
        relative_error: solution.squared_share.sqrt(),
        squared_error_before_scaling: solution.squared_share_before * target_profile.squared_norm(),
        condition: solution.condition,
        made: increments.pieces.into_iter().zip(solution.factors).collect(),
        target: target_profile,
    })
}

impl Mix {
    /// One coefficient for each stored average, in their order; their sum is 1.
    pub fn coefficients(&self) -> &[f64] {
        &self.coefficients
    }

    /// The L2 distance between the profile that the coefficients make and the wanted one, as a
    /// share of the L2 norm of the wanted one.
    ///
    /// Below `1e-7` it is rounding.
    pub fn relative_error(&self) -> f64 {
        self.relative_error
    }

    /// The squared L2 distance between the wanted profile and the least-squares mix before its
    /// coefficients are made to sum to 1: `<r, r> - 2 x.b + x.A x`.
    ///
    /// `r` is the wanted profile and `x` the coefficients; `A` has the inner products of the stored
    /// profiles with each other, and `b` those with `r`.
    pub fn squared_error_before_scaling(&self) -> f64 {
        self.squared_error_before_scaling
    }

    /// The L2 norm of the coefficients.
    ///
    /// Independent errors of the stored averages, such as their rounding to `f16`, come into the
    /// mix multiplied by this.
    pub fn noise_gain(&self) -> f64 {
        self.coefficients.iter().map(|x| x * x).sum::<f64>().sqrt()
    }

    /// The condition number of the system that was solved: the inner products of the increments of
    /// the profiles from one stored average to the next of its width, scaled to a diagonal of ones.
    ///
    /// The number is the ratio of the largest eigenvalue to the smallest one that is above
    /// rounding; combinations below that are left out.
    /// The matrix of the inner products of the averages themselves has a larger condition number.
    pub fn condition(&self) -> f64 {
        self.condition
    }

    /// The profile of the mix at the time `t`, in steps from the start of the averages.
    pub fn profile_at(&self, t: f64) -> f64 {
        // Folded from 0.0, since an empty sum of floats is -0.0.
        self.made.iter().fold(0.0, |sum, (piece, factor)| sum + factor * piece.at(t))
    }

    /// The wanted profile at the time `t`.
    pub fn target_at(&self, t: f64) -> f64 {
        self.target.parts.iter().fold(0.0, |sum, part| sum + part.at(t))
    }

    /// The mix with coefficients for `count` averages: its own at `places`, 0 for all others.
    pub(super) fn among(self, places: &[usize], count: usize) -> Self {
        let mut coefficients = vec![0.0; count];
        places.iter().zip(&self.coefficients).for_each(|(&place, &x)| coefficients[place] = x);
        Self { coefficients, ..self }
    }

    /// The mix itself, if the rounding of its stored averages changes it by at most
    /// [`ROUNDING_LIMIT`], as a share of the weights. `roundings` has the largest relative error of
    /// a number in each stored average.
    pub(super) fn require_rounding(self, roundings: impl Iterator<Item = f64>) -> Result<Self> {
        let parts = self.coefficients.iter().zip(roundings).map(|(x, rounding)| x * rounding);
        let rounding = parts.map(|x| x * x).sum::<f64>().sqrt();
        if rounding <= ROUNDING_LIMIT {
            return Ok(self);
        }
        Err(Error::value(
            format!("the stored rounding in the mix for {}", self.wanted),
            format!(
                "at most {ROUNDING_LIMIT} of the weights (averages that are stored in f32, or fewer of almost the same width, help)"
            ),
            format!("{rounding:.3}, at a noise gain of {:.3e}", self.noise_gain()),
        ))
    }

    /// The mix itself, if its relative error is at most `limit`.
    ///
    /// # Errors
    ///
    /// A greater error; the message has the target and a remedy.
    pub fn require(self, limit: f64) -> Result<Self> {
        // False for NaN too, which is what numbers beyond the range of f64 lead to.
        if self.relative_error <= limit {
            return Ok(self);
        }
        Err(Error::value(
            format!("the relative error of the mix for {}", self.wanted),
            format!("at most {limit} (averages of another width too, or at closer steps, help)"),
            format!("{:.3}", self.relative_error),
        ))
    }
}

/// Checks the numbers of each stored average, and that none is given twice.
fn check_stored(stored: &[Stored]) -> Result<()> {
    for (i, Stored { step, gamma }) in stored.iter().enumerate() {
        if !(step.is_finite() && *step > 0.0) {
            let what = format!("the step of stored average {i}");
            return Err(Error::value(what, "a finite number above 0", step));
        }
        if !(gamma.is_finite() && *gamma >= 0.0) {
            let what = format!("the exponent gamma of stored average {i}");
            return Err(Error::value(what, "a finite number of at least 0", gamma));
        }
    }
    for pair in chains(stored).windows(2) {
        if stored[pair[0]] == stored[pair[1]] {
            let Stored { step, gamma } = stored[pair[0]];
            return Err(Error::value(
                format!("stored average {}", pair[1]),
                "another step or width",
                format!("that of step {step} and gamma {gamma} again, like number {}", pair[0]),
            ));
        }
    }
    Ok(())
}

/// Checks that an average is stored at or before `at`.
fn check_at(stored: &[Stored], at: f64) -> Result<()> {
    let Some(first) = stored.iter().map(|s| s.step).reduce(f64::min) else {
        return Err(Error::value("the number of stored averages", "at least 1", 0));
    };
    if at.is_finite() && at >= first {
        return Ok(());
    }
    let expected = format!("a number from {first}, the first stored step");
    Err(Error::value("the step of the wanted average", expected, at))
}

impl Target {
    /// The wanted profile at the step `at`; an error for numbers outside their ranges.
    fn profile(&self, stored: &[Stored], at: f64) -> Result<Density> {
        let whole = |gamma| Part::Power { piece: Piece { from: 0.0, to: at, gamma }, factor: 1.0 };
        let range = |what: &str, expected: &str, found: f64| {
            Error::value(format!("{what} of the wanted average"), expected, found)
        };
        let window = |steps: f64| {
            if 0.0 < steps && steps <= at {
                Ok(at - steps)
            } else {
                Err(range("the number of steps", &format!("a number in (0, {at}]"), steps))
            }
        };
        let parts = match *self {
            Self::PowerFunction { sigma_rel } => {
                if !(0.0 < sigma_rel && sigma_rel <= 1.0 / 12f64.sqrt()) {
                    let expected = "a number in (0, 1 / sqrt(12)], which is 0.2887";
                    return Err(range("sigma_rel", expected, sigma_rel));
                }
                vec![whole(Rule::gamma_of(sigma_rel)?)]
            }
            Self::PowerFunctionGamma { gamma } => {
                if !(gamma.is_finite() && gamma >= 0.0) {
                    return Err(range("gamma", "a finite number of at least 0", gamma));
                }
                vec![whole(gamma)]
            }
            Self::Constant { decay } => {
                if !(0.0..1.0).contains(&decay) {
                    return Err(range("decay", "a number in [0, 1)", decay));
                }
                if decay == 0.0 {
                    vec![Part::level((at - 1.0).max(0.0), at, 1.0)]
                } else {
                    vec![Part::Exponential { rate: -decay.ln(), to: at }]
                }
            }
            Self::Window { steps } => vec![Part::level(window(steps)?, at, 1.0)],
            Self::Sqrt { steps } => {
                let origin = window(steps)?;
                let later = stored.iter().map(|s| s.step).filter(|&step| step > origin);
                let from = later.fold(at, f64::min);
                let share = ((from - origin) / (at - origin)).sqrt();
                let level = Part::level(origin, from, share);
                if from < at {
                    vec![level, Part::InverseSqrt { origin, from, to: at }]
                } else {
                    vec![level]
                }
            }
        };
        Ok(Density { parts })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PowerFunction { sigma_rel } => write!(f, "power(sigma_rel={sigma_rel})"),
            Self::PowerFunctionGamma { gamma } => write!(f, "power(gamma={gamma})"),
            Self::Constant { decay } => write!(f, "ema({decay}, debias)"),
            Self::Window { steps } => write!(f, "window({steps} steps)"),
            Self::Sqrt { steps } => write!(f, "sqrt({steps} steps)"),
        }
    }
}

#[cfg(test)]
mod tests;
