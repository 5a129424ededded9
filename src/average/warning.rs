//! What a user should know of an average.

use std::fmt;

use burn::{backend::TensorMetadata, module::Module, tensor::DType};

use super::{
    numbers::Group,
    rule::Rule,
    state::{Average, How},
    walk::Kind,
};

/// Something about an average that its user should know.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Warning {
    /// More than a tenth of the average is still what it started from.
    Start {
        /// The name of the average.
        name: String,
        /// The rule with that share.
        rule: Rule,
        /// The share of the start, in `[0, 1]`.
        share: f64,
        /// The step at which it is so.
        step: u64,
    },
    /// The average is live until the end, since its first update would come after it.
    NoUpdate {
        /// The name of the average.
        name: String,
        /// The step of the first update.
        first: u64,
        /// The last step of the training.
        end: u64,
    },
    /// An update covers more steps than the average remembers, so that it is next to live.
    Every {
        /// The name of the average.
        name: String,
        /// The steps from one update to the next.
        every: u64,
        /// The steps that it remembers, or the interval of the snapshots of a window.
        window: f64,
    },
    /// The decay comes to 1 before the end, and nothing is taken any more.
    Stops {
        /// The name of the average.
        name: String,
        /// The step from which on nothing is taken.
        step: f64,
        /// The last step of the training.
        end: u64,
    },
    /// The average remembers more steps than the training has.
    Window {
        /// The name of the average.
        name: String,
        /// The steps that it would remember.
        window: f64,
        /// The steps that there are, from its start to the end.
        steps: f64,
    },
    /// A weight would have to change by more than a tenth in one step for an update not to be
    /// lost in the rounding of the dtype that the average is kept in.
    Dtype {
        /// The name of the average.
        name: String,
        /// The path of the first parameter in question.
        path: String,
        /// The dtype.
        dtype: DType,
        /// The share of the new weights in an update.
        alpha: f64,
    },
    /// Updates were refused, since they would have taken a NaN or an infinity in.
    NonFinite {
        /// The name of the average.
        name: String,
        /// How many.
        count: u64,
        /// The path of a parameter.
        path: String,
        /// The step of the last one.
        step: u64,
    },
    /// Steps of the optimizer were refused, since their numbers were not finite.
    RefusedSteps {
        /// How many.
        count: u64,
        /// What was not finite in the last one, such as `the gradient of layers.0.weight`.
        what: String,
        /// The last one, where those that were refused count as steps.
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
                    Rule::Constant { .. } =>
                        "a smaller decay, bias correction, a later start or a rule that warms up \
                         leaves less",
                    Rule::Window { .. } => "its first snapshot comes after its first interval",
                    _ => "a shorter memory or a later start leaves less",
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
                 count, so that it is next to live: update it more often"
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
            Self::RefusedSteps { count, what, step } => write!(
                f,
                "{count} steps of the optimizer were refused, the last at step {step}: {what} held \
                 a NaN or an infinity"
            ),
        }
    }
}

/// What holds of an average, if the training ended now or at the end that its configuration says.
pub(super) fn warnings<M: Module>(average: &Average<M>) -> Vec<Warning> {
    let seen = average.last_step();
    let end = average.config.total_steps.unwrap_or(seen).max(seen);
    let steps = end.saturating_sub(average.schedule.start);
    let outlook = Outlook { average, end, steps };
    let mut warnings = vec![outlook.no_update(), outlook.stops()];
    if steps > 0 {
        warnings.extend([outlook.start(), outlook.every(), outlook.window(), outlook.dtype()]);
    }
    warnings.push(outlook.non_finite());
    warnings.into_iter().flatten().collect()
}

/// An average at the end of its training.
struct Outlook<'a, M: Module> {
    average: &'a Average<M>,
    /// The last step.
    end: u64,
    /// The steps from the start of the average on.
    steps: u64,
}

impl<M: Module> Outlook<'_, M> {
    fn name(&self) -> String {
        self.average.name().to_owned()
    }

    fn groups(&self) -> impl Iterator<Item = &Group> {
        self.average.numbers.groups.iter()
    }

    fn no_update(&self) -> Option<Warning> {
        let schedule = &self.average.schedule;
        let first = schedule.start.saturating_add(schedule.every);
        // Where the end is not known there may be more steps to come.
        let never = self.average.config.total_steps.is_some() && first > self.end;
        never.then(|| Warning::NoUpdate { name: self.name(), first, end: self.end })
    }

    fn stops(&self) -> Option<Warning> {
        let stop = |group: &Group| match group.rule {
            Rule::Cosine { end, steps, .. } | Rule::Linear { end, steps, .. } if end == 1.0 => {
                Some(self.average.schedule.start as f64 + steps)
            }
            _ => None,
        };
        let step = self.groups().filter_map(stop).reduce(f64::min)?;
        let early = step < self.end as f64;
        early.then(|| Warning::Stops { name: self.name(), step, end: self.end })
    }

    fn start(&self) -> Option<Warning> {
        let shares = self.groups().zip(self.shares());
        let shares = shares.filter_map(|(group, share)| Some((group, share?)));
        let (group, share) = shares.max_by(|a, b| a.1.total_cmp(&b.1))?;
        if share <= 0.1 || self.no_update().is_some() {
            return None;
        }
        let rule = group.rule.clone();
        Some(Warning::Start { name: self.name(), rule, share, step: self.end })
    }

    /// The share of the start in each group, where it can be told.
    fn shares(&self) -> Vec<Option<f64>> {
        let Average { numbers, schedule, foretold, .. } = self.average;
        if self.end > self.average.last_step() {
            let covered = self.steps / schedule.every * schedule.every;
            let foretell = || self.groups().map(|group| group.start_after(covered)).collect();
            return foretold.get_or_init(foretell).clone();
        }
        let last = numbers.course.last(schedule);
        let now = |group: &Group| self.average.has_begun().then(|| group.start_at(last));
        self.groups().map(now).collect()
    }

    fn every(&self) -> Option<Warning> {
        let every = self.average.schedule.every;
        let least = |group: &Group| match group.rule {
            Rule::Window { interval, .. } => Some(interval as f64),
            ref rule => memory(rule),
        };
        let window = self.groups().filter_map(least).reduce(f64::min)?;
        let sparse = every > 1 && every as f64 > window;
        sparse.then(|| Warning::Every { name: self.name(), every, window })
    }

    fn window(&self) -> Option<Warning> {
        let window = self.groups().filter_map(|group| memory(&group.rule)).reduce(f64::max)?;
        let steps = self.steps as f64;
        (window > steps).then(|| Warning::Window { name: self.name(), window, steps })
    }

    /// Of the first averaged parameter that an update at the end would not move.
    fn dtype(&self) -> Option<Warning> {
        let steps = self.steps as f64;
        let every = (self.average.schedule.every as f64).min(steps);
        let alpha = |group: &Group| match group.rule.window() {
            Some(_) => None,
            None => group.rule.update(1.0, steps - every, steps).ok().map(|update| update.alpha),
        };
        let alphas: Vec<_> = self.groups().map(alpha).collect();
        self.average.kept.iter().find_map(|kept| {
            let How::Averaged(group) = kept.how else { return None };
            let (alpha, dtype) = (alphas[group]?, kept.parameter.tensor.dtype());
            // A share of zero, as of a teacher that has come to its end, moves nothing on purpose.
            let stuck = alpha > 0.0 && least_change(dtype, alpha) > 0.1;
            let path = || kept.parameter.path.clone();
            (stuck && kept.parameter.kind == Kind::Weight).then(|| Warning::Dtype {
                name: self.name(),
                path: path(),
                dtype,
                alpha,
            })
        })
    }

    fn non_finite(&self) -> Option<Warning> {
        let refused = self.average.refused();
        let (path, step) = refused.last.clone()?;
        Some(Warning::NonFinite { name: self.name(), count: refused.count, path, step })
    }
}

/// The steps that a rule of fixed width remembers.
fn memory(rule: &Rule) -> Option<f64> {
    match *rule {
        Rule::Constant { decay, .. } => Some(1.0 / (1.0 - decay)),
        Rule::HalfLife { steps } => Some(steps / std::f64::consts::LN_2),
        Rule::Window { snapshots, interval } => Some(snapshots as f64 * interval as f64),
        _ => None,
    }
}

/// The relative difference of live that an update of this share needs to move a weight in a
/// dtype: half the distance of two of its numbers, by the share.
fn least_change(dtype: DType, alpha: f64) -> f64 {
    let half = match dtype {
        DType::BF16 => 2f64.powi(-9),
        DType::F16 => 2f64.powi(-12),
        DType::F64 => 2f64.powi(-54),
        _ => 2f64.powi(-25),
    };
    half / alpha
}
