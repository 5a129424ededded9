//! The warnings of an average and of the hook, and their texts.

use std::{fmt, mem};

use burn::tensor::DType;

use super::rule::Rule;
use crate::Error;

/// Something about an average that its user should know.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Warning {
    /// The module has no floating-point parameter, so that nothing is averaged.
    Nothing {
        /// The name of the average.
        name: String,
    },
    /// More than a tenth of the average is the weights that it started from.
    Start {
        /// The name of the average.
        name: String,
        /// The rule with the largest share of the start.
        rule: Rule,
        /// The share of the start, in `[0, 1]`.
        share: f64,
        /// The step at which the average has this share.
        step: u64,
    },
    /// The average is a copy of live, or of its start, until the end of the training, since its
    /// first update would come later.
    NoUpdate {
        /// The name of the average.
        name: String,
        /// The step of the first update.
        first: u64,
        /// The last step of the training.
        end: u64,
    },
    /// An update covers more steps than the average remembers, so that the average is nearly live.
    Every {
        /// The name of the average.
        name: String,
        /// The steps from one update to the next.
        every: u64,
        /// The steps that the average remembers; for a window rule, only the steps from one
        /// snapshot to the next. If its parameters have several rules, the least of these numbers.
        window: f64,
    },
    /// The decay reaches 1 before the end of the training, and the average no longer changes.
    Stops {
        /// The name of the average.
        name: String,
        /// The first step that does not change the average.
        step: f64,
        /// The last step of the training.
        end: u64,
    },
    /// The average remembers more steps than the training has.
    Window {
        /// The name of the average.
        name: String,
        /// The steps that the average would remember.
        window: f64,
        /// The steps from the start of the average to the end of the training.
        steps: f64,
    },
    /// The output goes beyond the average by more than a tenth of the way from the start to live, as
    /// that of BEMA does in all trainings of fewer than 99,990 steps.
    Overshoot {
        /// The name of the average.
        name: String,
        /// The distance of the output from the average, as a share of the distance from the start
        /// to live, above 0.1.
        share: f64,
        /// The step at which the output has this distance.
        step: u64,
    },
    /// A weight would have to change by more than a tenth in one step for an update not to be
    /// lost in the rounding of the dtype that the average is kept in.
    Dtype {
        /// The name of the average.
        name: String,
        /// The path of the first parameter in question.
        path: String,
        /// The dtype in which the average keeps the parameter.
        dtype: DType,
        /// The share of the new weights in an update, above 0 and at most 1.
        alpha: f64,
    },
    /// Updates were refused, since they would have taken in a NaN or an infinity.
    NonFinite {
        /// The name of the average.
        name: String,
        /// The number of refused updates.
        count: u64,
        /// The path of the parameter for which the last one was refused.
        path: String,
        /// The step of the last refused update.
        step: u64,
    },
    /// An update was called again at a step that the average had seen, with other weights, which it
    /// did not take in.
    RepeatedStep {
        /// The name of the average.
        name: String,
        /// How often an update was called again.
        count: u64,
        /// The last step that the average has seen.
        step: u64,
    },
    /// Live was changed outside of `optimize`, and the averages were not updated with it.
    Bypassed {
        /// The number of changes, with those that a later update has taken in.
        changes: u64,
    },
    /// A clone of the hook holds averages with which its training no longer goes on, such as after
    /// a record was loaded.
    Replaced {
        /// The last step of the training.
        step: u64,
        /// The last step that the clone's averages have seen.
        last: u64,
    },
    /// Steps of the optimizer were refused, since their numbers were not finite.
    RefusedSteps {
        /// The number of refused steps.
        count: u64,
        /// The values that were not finite in the last refused step, such as
        /// `the gradient of layers.0.weight`.
        what: String,
        /// The last refused step, in a count of steps that includes the refused ones.
        step: u64,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start { name, rule, share, step } => write!(
                f,
                "{name}: at step {step}, {:.0} % of this average is the weights it started from; \
                 {}",
                100.0 * share,
                match rule {
                    Rule::Constant { decay, .. } => format!(
                        "a smaller decay, bias correction, a later start or a rule that warms up \
                         leaves less; for a target network take the rule `{}`",
                        Rule::target((((1.0 - decay) * 1e12).round() / 1e12).max(1e-12))
                    ),
                    Rule::Window { .. } =>
                        "its first snapshot comes after its first interval".into(),
                    Rule::Target { .. } => "a larger tau or more updates leave less".into(),
                    _ => "a shorter memory or a later start leaves less".into(),
                }
            ),
            Self::NoUpdate { name, first, end } => write!(
                f,
                "{name}: its first update would come at step {first}, and the training has {end}: \
                 it is live, or what it started from, until the end"
            ),
            Self::Every { name, every, window } => write!(
                f,
                "{name}: an update every {every} steps covers more than the {window:.0} steps that \
                 count, so that it is next to live: update it more often, or for the copies of a \
                 target network take the rule `{}`",
                Rule::copy(*every)
            ),
            Self::Stops { name, step, end } => write!(
                f,
                "{name}: from step {step:.0} of {end} on it takes nothing any more, since its \
                 decay is 1"
            ),
            Self::Window { name, window, steps } => write!(
                f,
                "{name}: this average remembers about {window:.0} steps, but the training has \
                 {steps:.0} of them: it is no smoother than a mean of all steps, and lags behind; \
                 take a fifth of the training or less"
            ),
            Self::Overshoot { name, share, step } => write!(
                f,
                "{name}: at step {step}, it goes beyond its average by {:.0} % of the whole way \
                 from the start to live, which may be too far: compare it with live, or take \
                 `ema(.., debias)`, or `equal` with a late start",
                100.0 * share
            ),
            Self::Dtype { name, path, dtype, alpha } => write!(
                f,
                "{name}: {path} is kept in {}, where an update with a share of {alpha:.1e} is \
                 lost unless the weight changes by more than {:.0} % in a step: keep it in f32",
                dtype.name(),
                100.0 * least_change(*dtype, *alpha)
            ),
            Self::NonFinite { name, count, path, step } => write!(
                f,
                "{name}: {count} updates were refused, the last at step {step}: {path} held a NaN \
                 or an infinity"
            ),
            Self::Nothing { name } => write!(
                f,
                "{name}: the module has no floating-point parameter, so that nothing is averaged: \
                 make the tensors that are to be averaged a `Param<Tensor<D>>`"
            ),
            Self::RepeatedStep { name, count, step } => write!(
                f,
                "{name}: {count} times an update came again at step {step} with other weights, \
                 and it took none of them: count the optimizer steps through the whole training, \
                 not from the start of an epoch"
            ),
            Self::Bypassed { changes } => Error::Bypassed { changes: *changes }.fmt(f),
            Self::Replaced { step, last } => write!(
                f,
                "the averages of this clone are those of step {last}; their training is at step \
                 {step}, in a model that has others in their place: ask that model"
            ),
            Self::RefusedSteps { count, what, step } => write!(
                f,
                "{count} steps of the optimizer were refused, the last at step {step}: {what} held \
                 a NaN or an infinity"
            ),
        }
    }
}

impl Warning {
    /// True if this warning is news after those that were returned: of another kind, or with worse
    /// numbers than any of its kind.
    ///
    /// A count that may rise on purpose, or at every step, is news once it has doubled.
    pub(crate) fn is_new_after(&self, returned: &[Self]) -> bool {
        returned.iter().all(|before| match (self, before) {
            // A share that was foretold differs from the one that came by rounding.
            (Self::Start { share, .. }, Self::Start { share: before, .. }) => share - before > 1e-6,
            (Self::Window { steps, .. }, Self::Window { steps: before, .. }) => steps < before,
            (Self::NonFinite { count, .. }, Self::NonFinite { count: before, .. })
            | (Self::RefusedSteps { count, .. }, Self::RefusedSteps { count: before, .. })
            | (Self::RepeatedStep { count, .. }, Self::RepeatedStep { count: before, .. })
            | (Self::Bypassed { changes: count }, Self::Bypassed { changes: before }) => {
                count / 2 >= *before
            }
            _ => mem::discriminant(self) != mem::discriminant(before),
        })
    }
}

/// The relative difference of live and average from which on an update with the share `alpha`
/// changes a weight in a dtype: half the relative distance of two neighbouring numbers, divided by
/// `alpha`.
pub(super) fn least_change(dtype: DType, alpha: f64) -> f64 {
    let half = match dtype {
        DType::BF16 => 2f64.powi(-9),
        DType::F16 => 2f64.powi(-12),
        DType::F64 => 2f64.powi(-54),
        _ => 2f64.powi(-25),
    };
    half / alpha
}
