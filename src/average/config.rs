//! The configuration of an average.

use std::fmt;

use burn::{
    config::Config,
    tensor::{DType, FloatDType},
};
use serde::{Deserialize, Serialize};

use super::{
    course::Schedule,
    policy::{PathPolicy, Policies, Policy},
    profile::Profile,
    rule::Rule,
    walk::ParameterKind,
};
use crate::{Error, Result};

/// Configuration of an [`Average`](crate::Average).
///
/// ```
/// use burn::nn::LinearConfig;
/// use burn_ema::{AverageConfig, Policy, Rule};
///
/// let model = LinearConfig::new(2, 3).init(&Default::default());
/// let average = AverageConfig::new(Rule::ema(0.99))
///     .with_start(1000) // a copy of live until step 1000
///     .with_every(10) // updated every 10 steps; its width stays that of updates at every step
///     .on("bias", Policy::Copy)
///     .init(&model)?;
/// assert_eq!(average.name(), "ema(0.99)");
/// # Ok::<_, burn_ema::Error>(())
/// ```
#[derive(Config, Debug, PartialEq)]
pub struct AverageConfig {
    /// The rule of the average.
    pub rule: Rule,
    /// The name of the average in metrics, tables and records; with `None`, the rule's printed
    /// form. That form can contain commas, as `ema(0.999, debias)` does, so set a name for a log
    /// whose cells are not quoted.
    pub name: Option<String>,
    /// The steps from one update to the next, at least 1. An update covers all of these steps, so
    /// the width of the average does not depend on `every`.
    #[config(default = 1)]
    pub every: u64,
    /// The step after which the average starts; until then it is a copy of live.
    #[config(default = 0)]
    pub start: u64,
    /// The epoch after which the average starts. It replaces `start`, which must be 0 beside it,
    /// and needs `steps_per_epoch`. With `None`, `start` is used.
    pub start_epoch: Option<u64>,
    /// The samples of one optimizer step, at least 1; required if time is counted in samples.
    pub samples_per_step: Option<u64>,
    /// The optimizer steps of one epoch, at least 1; required by rules and starts that count
    /// epochs.
    pub steps_per_epoch: Option<u64>,
    /// True if the rule's time is counted in samples, `samples_per_step` of them for one step of
    /// the rule, so that a change of the batch size does not change the average.
    ///
    /// [`Rule::HalfLifeSamples`] counts samples in any case.
    #[config(default = false)]
    pub count_samples: bool,
    /// The policies for parameters whose path matches a glob, in place of averaging by the rule; if
    /// several match, the last one decides.
    #[config(default = "Vec::new()")]
    pub policies: Vec<PathPolicy>,
    /// The policy for running states, such as the statistics of batch norms, that no glob matches.
    #[config(default = "Policy::Copy")]
    pub statistics: Policy,
    /// The dtype in which averaged parameters are kept; with `None`, f32 for 16-bit parameters and
    /// the parameter's own dtype for others.
    pub dtype: Option<FloatDType>,
    /// The policy for an update that would take in a NaN or an infinity.
    #[config(default = "NonFinite::Auto")]
    pub non_finite: NonFinite,
    /// The optimizer steps of the whole training, at least 1, or `None` if unknown. If it is set,
    /// warnings describe from the start on what the average will be at the end.
    pub total_steps: Option<u64>,
}

/// The policy for an update of an average, or a step of an optimizer, that would take in a NaN or
/// an infinity.
///
/// Except under [`Take`](Self::Take), the update or step is refused as a whole and changes nothing;
/// the next update covers the steps of a refused one.
/// An average also refuses a finite number of more than half the largest one of the dtype in which
/// it keeps the parameter, since the difference of average and live must be finite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NonFinite {
    /// `Skip { limit: 3 }`, except for a target network on a GPU (all of whose rules are
    /// [`Rule::Target`] or [`Rule::Copy`]): it takes any number without a check, since a check
    /// waits for the device, and a loop that uses a target at each step should wait for nothing.
    Auto,
    /// Skips the update or step and counts it; at `limit` refusals in a row an error is returned.
    Skip {
        /// The number of refusals in a row at which an error is returned; at least 1.
        limit: u64,
    },
    /// Returns an error at the first refused update or step.
    Error,
    /// Takes any number without a check, which saves one more read of the weights.
    Take,
}

impl NonFinite {
    /// True if this many refusals in a row are an error.
    pub(crate) fn ends_at(self, in_a_row: u64) -> bool {
        match self {
            Self::Auto => in_a_row >= 3,
            Self::Skip { limit } => in_a_row >= limit,
            Self::Error | Self::Take => true,
        }
    }
}

/// The longest memory that [`AverageConfig::suggest`] gives, in steps: a decay of 0.9999.
const LONGEST: u64 = 10_000;

impl AverageConfig {
    /// A first choice for a training of `total_steps` optimizer steps: a constant decay with bias
    /// correction, which remembers `1 / (1 - decay)` steps, a fifth of the training at most.
    ///
    /// The memory is the largest of 1, 2, 5, 10, 20, 50, ..., 10,000 steps that is at most a fifth
    /// of the training. For 10 to 50,000 steps this is between 8 % and 20 % of the training.
    ///
    /// ```
    /// use burn_ema::AverageConfig;
    ///
    /// let rule = |steps| AverageConfig::suggest(steps).rule.to_string();
    /// assert_eq!(rule(300), "ema(0.98, debias)");
    /// assert_eq!(rule(5_400), "ema(0.999, debias)");
    /// assert_eq!(rule(1_000_000), "ema(0.9999, debias)");
    /// ```
    ///
    /// Why:
    ///
    /// - A longer memory averages more noise away, but the average lags behind by as many steps.
    ///   With a memory beyond a fifth it still contains much of the beginning, as
    ///   `ema(0.9999, debias)` after 20,000 steps in the [table of
    ///   profiles](Rule#what-they-are-made-of).
    /// - Without bias correction the start keeps `decay^total_steps`, and the averages of the first
    ///   epochs are mostly the start. With it they contain none of the start.
    /// - Decays above 0.9999 are rare, and a longer memory needs more digits: a share of 1e-4 per
    ///   update is far above the rounding of 32 bits.
    /// - The average needs one copy of the weights and has one setting, which is easily stated.
    /// - Of five averages chosen beforehand, over twenty trainings at a constant learning rate, it has
    ///   the least mean test loss and is never the worst: [`guide::evidence`](crate::guide::evidence).
    ///
    /// A training of fewer than 10 steps has nothing to average: the decay is 0, and the average
    /// equals live.
    /// The configuration has `total_steps` set, so that warnings describe from the start on what
    /// the average will be at the end; with this rule there is none to give.
    /// The guide of the crate has the whole choice.
    ///
    /// # Errors
    ///
    /// None here; if `total_steps` is 0, [`init`](Self::init) returns an error.
    pub fn suggest(total_steps: u64) -> Self {
        let most = (total_steps / 5).clamp(1, LONGEST);
        let round = (0..).flat_map(|power| [1, 2, 5].map(|times| times * 10_u64.pow(power)));
        let memory = round.take_while(|memory| *memory <= most).last().unwrap_or(1);
        Self::new(Rule::debiased(1.0 - 1.0 / memory as f64)).with_total_steps(Some(total_steps))
    }

    /// Adds a policy for the parameters whose path matches a glob, such as `encoder.**`,
    /// `*.bias` or `layers.0.weight`.
    pub fn on(mut self, pattern: impl Into<String>, policy: Policy) -> Self {
        self.policies.push(PathPolicy { pattern: pattern.into(), policy });
        self
    }

    /// The profile that the average will have after `steps` steps, if it is called after every step
    /// and each step has `samples_per_step` samples.
    ///
    /// # Errors
    ///
    /// A setting outside its range, or one that another setting needs and that is missing; more
    /// updates than a profile lists, 67 million.
    pub fn profile_after(&self, steps: u64) -> Result<Profile> {
        let schedule = self.check()?;
        let start = schedule.start.min(steps);
        let first = start as f64;
        let elapsed = steps - start;
        let every = schedule.interval();
        let updates = (1..=elapsed / every).map(|i| (i * every) as f64);
        Profile::of(&self.in_steps(&self.rule)?, first, updates, elapsed as f64)
    }

    /// The name of the average: `name`, or the rule's printed form if `name` is `None`.
    pub fn label(&self) -> String {
        self.name.clone().unwrap_or_else(|| self.rule.to_string())
    }

    /// Checks all ranges, and returns when the average starts and is updated.
    pub(super) fn check(&self) -> Result<Schedule> {
        // Names are parts of the paths of records and of the file names of metrics.
        let name = self.label();
        let refused = |c: char| c == '/' || c == '\\' || c.is_control();
        let long = name.len() > 200;
        if name.is_empty() || long || name.contains(".weights") || name.contains(refused) {
            let expected = "a text of up to 200 bytes without `.weights`, slashes and control \
                            characters";
            return Err(Error::value("the name of an average", expected, format!("{name:?}")));
        }
        let counts = [
            ("every", Some(self.every)),
            ("samples_per_step", self.samples_per_step),
            ("steps_per_epoch", self.steps_per_epoch),
            ("total_steps", self.total_steps),
            (
                "the limit of updates that are skipped in a row",
                match self.non_finite {
                    NonFinite::Skip { limit } => Some(limit),
                    _ => None,
                },
            ),
        ];
        if let Some((what, _)) = counts.into_iter().find(|(_, count)| *count == Some(0)) {
            return Err(Error::value(what, "1 or more", 0));
        }
        for rule in self.rules() {
            rule.check()?;
            self.in_steps(rule)?;
        }
        let missing = |what: &str, for_what: &str| {
            Error::value(what, format!("a number of 1 or more, for {for_what}"), "none")
        };
        let start = match (self.start_epoch, self.steps_per_epoch) {
            (None, _) => self.start,
            (Some(_), _) if self.start > 0 => {
                let expected = "none beside a `start_epoch`";
                return Err(Error::value("start", expected, self.start));
            }
            (Some(epoch), Some(steps)) => epoch.checked_mul(steps).ok_or_else(|| {
                let expected = "an epoch whose first step has a number";
                Error::value("start_epoch", expected, epoch)
            })?,
            (Some(_), None) => return Err(missing("steps_per_epoch", "a start in epochs")),
        };
        let samples = self.counts_samples();
        let per_step = match (samples, self.samples_per_step) {
            (false, _) => 1,
            (true, Some(samples)) => samples,
            (true, None) => return Err(missing("samples_per_step", "time in samples")),
        };
        let copies = match self.rule {
            Rule::Copy { every } if self.rules().all(|rule| *rule == self.rule) => Some(every),
            _ => None,
        };
        Ok(Schedule { samples, per_step, start, every: self.every, copies })
    }

    /// A rule with its times in steps.
    pub(super) fn in_steps(&self, rule: &Rule) -> Result<Rule> {
        let number = |count: Option<u64>| count.map(|count| count as f64);
        rule.in_steps(number(self.samples_per_step), number(self.steps_per_epoch))
    }

    /// The policy of each parameter, in their order.
    pub(super) fn policies<'a>(
        &self,
        parameters: impl Iterator<Item = (&'a str, ParameterKind)> + Clone,
    ) -> Result<Vec<Policy>> {
        let mut globs = Policies::new(&self.policies)?;
        let each = parameters.clone().map(|(path, kind)| {
            match globs.of(path, kind != ParameterKind::Constant) {
                Some(policy) => policy.clone(),
                None if kind == ParameterKind::Statistic => self.statistics.clone(),
                None => Policy::Average,
            }
        });
        let each = each.collect();
        globs.check_used(parameters.map(|(path, _)| path))?;
        Ok(each)
    }

    /// The dtype that an averaged parameter is kept in.
    pub(super) fn kept_dtype(&self, live: DType) -> DType {
        match (self.dtype, live) {
            (Some(dtype), _) => dtype.into(),
            // In 16 bits an average of high decay does not change: its updates are rounded to 0.
            (None, DType::F16 | DType::BF16) => DType::F32,
            (None, live) => live,
        }
    }

    /// The settings, by name, that must be equal in an average and in the saved one that it loads.
    pub(super) fn settings(&self) -> Vec<(&'static str, String)> {
        let policies: Vec<_> = self.policies.iter().map(ToString::to_string).collect();
        // A number that neither a rule nor the start uses may change.
        let epochs = self.start_epoch.is_some() || self.rules().any(Rule::counts_epochs);
        let samples = self.counts_samples();
        vec![
            ("the rule", self.rule.to_string()),
            ("every", self.every.to_string()),
            ("start", self.start.to_string()),
            ("start_epoch", shown(self.start_epoch)),
            ("samples_per_step", shown(self.samples_per_step.filter(|_| samples))),
            ("steps_per_epoch", shown(self.steps_per_epoch.filter(|_| epochs))),
            ("count_samples", samples.to_string()),
            ("policies", format!("[{}]", policies.join(", "))),
            ("statistics", self.statistics.to_string()),
        ]
    }

    /// True if the average's time is counted in samples.
    fn counts_samples(&self) -> bool {
        self.count_samples || self.rules().any(Rule::counts_samples)
    }

    /// The rule and those of single paths.
    fn rules(&self) -> impl Iterator<Item = &Rule> {
        let own = self.policies.iter().map(|own| &own.policy).chain([&self.statistics]);
        [&self.rule].into_iter().chain(own.filter_map(|policy| match policy {
            Policy::Rule(rule) => Some(rule),
            _ => None,
        }))
    }
}

fn shown(value: Option<impl fmt::Display>) -> String {
    value.map_or_else(|| "none".to_owned(), |value| value.to_string())
}

#[cfg(test)]
mod tests;
