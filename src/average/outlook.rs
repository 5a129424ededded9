//! Computes the warnings of an average, from its state now and its expected state at the end.

use burn::{backend::TensorMetadata, module::Module};

use super::{
    kept::Treatment,
    numbers::Group,
    rule::Rule,
    state::Average,
    walk::ParameterKind,
    warning::{Warning, least_change},
};

impl<M: Module> Average<M> {
    /// The warnings about this average as it will be at `total_steps`, or as it is now if
    /// `total_steps` is `None` or has passed.
    pub fn warnings(&self) -> Vec<Warning> {
        let seen = self.last_step();
        Outlook::of(self, self.config.total_steps.unwrap_or(seen).max(seen)).warnings()
    }

    /// The warnings about this average if no step follows, whatever `total_steps` is: for a
    /// training that has ended, perhaps early.
    pub fn final_warnings(&self) -> Vec<Warning> {
        Outlook { has_end: true, ..Outlook::of(self, self.last_step()) }.warnings()
    }

    /// The [warnings](Self::warnings) that are new: of a kind that no earlier call has returned, or
    /// with worse numbers than any returned before. A warning with a count is new once the count
    /// has doubled.
    pub fn take_warnings(&mut self) -> Vec<Warning> {
        let warnings = self.warnings();
        self.new_ones(warnings)
    }

    /// Like [`take_warnings`](Self::take_warnings), of the
    /// [final warnings](Self::final_warnings).
    pub fn take_final_warnings(&mut self) -> Vec<Warning> {
        let warnings = self.final_warnings();
        self.new_ones(warnings)
    }

    fn new_ones(&mut self, mut warnings: Vec<Warning>) -> Vec<Warning> {
        warnings.retain(|warning| warning.is_new_after(&self.warned));
        self.warned.extend(warnings.iter().cloned());
        warnings
    }
}

/// An average with the length of its training, from which its warnings are computed.
struct Outlook<'a, M: Module> {
    average: &'a Average<M>,
    /// The last step of the training.
    end: u64,
    /// True if the training has no step after the end.
    has_end: bool,
    /// The steps from the start of the average to `end`.
    steps: u64,
}

impl<'a, M: Module> Outlook<'a, M> {
    fn of(average: &'a Average<M>, end: u64) -> Self {
        let has_end = average.config.total_steps.is_some();
        Self { average, end, has_end, steps: end.saturating_sub(average.schedule.start) }
    }

    fn warnings(&self) -> Vec<Warning> {
        if let Some(nothing) = self.nothing() {
            return vec![nothing];
        }
        let mut warnings = vec![self.no_update(), self.stops()];
        if self.steps > 0 {
            warnings.extend([self.start(), self.every(), self.window()]);
            warnings.extend([self.overshoot(), self.dtype()]);
        }
        warnings.extend([self.non_finite(), self.repeated_step()]);
        warnings.into_iter().flatten().collect()
    }

    fn name(&self) -> String {
        self.average.name().to_owned()
    }

    fn groups(&self) -> impl Iterator<Item = &Group> {
        self.average.numbers.groups.iter()
    }

    /// The warning about a module in which nothing can be averaged, unless the policies say so.
    fn nothing(&self) -> Option<Warning> {
        let Average { kept, asks_for_nothing, .. } = self.average;
        let has_weights = kept.iter().any(|kept| {
            kept.parameter.kind == ParameterKind::Weight
                || matches!(kept.how, Treatment::Averaged(_))
        });
        (!has_weights && !asks_for_nothing).then(|| Warning::Nothing { name: self.name() })
    }

    fn no_update(&self) -> Option<Warning> {
        let schedule = &self.average.schedule;
        let first = schedule.start.saturating_add(schedule.interval());
        // Where the end is not known there may be more steps to come.
        let never = self.has_end && first > self.end;
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
        // A target network starts as live on purpose; only a training's end shows that it stayed.
        let shares = shares.filter(|(group, _)| self.has_end || !group.rule.is_target());
        let shares = shares.filter_map(|(group, share)| Some((group, share?)));
        let (group, share) = shares.max_by(|a, b| a.1.total_cmp(&b.1))?;
        if share <= 0.1 || self.no_update().is_some() {
            return None;
        }
        let rule = group.rule.clone();
        Some(Warning::Start { name: self.name(), rule, share, step: self.end })
    }

    /// The share of the starting weights in each group at the end; `None` if it cannot be computed.
    fn shares(&self) -> Vec<Option<f64>> {
        let Average { numbers, schedule, forecast, .. } = self.average;
        if self.end > self.average.last_step() {
            let every = schedule.interval();
            let updates = self.steps / every;
            let predict = || self.groups().map(|g| g.start_after(updates, every)).collect();
            return forecast.get_or_init(predict).clone();
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

    fn overshoot(&self) -> Option<Warning> {
        let Average { numbers, schedule, .. } = self.average;
        let steps = match self.end > self.average.last_step() {
            true => (self.steps - self.steps % schedule.every) as f64,
            false => numbers.course.last(schedule),
        };
        let share = self.groups().filter_map(|group| group.rule.correction(steps));
        let share = share.reduce(f64::max)?;
        // Before its first update the output is the start.
        let far = share > 0.1 && steps > 0.0 && self.no_update().is_none();
        far.then(|| Warning::Overshoot { name: self.name(), share, step: self.end })
    }

    /// The warning about the first averaged parameter that an update at the end would not move.
    fn dtype(&self) -> Option<Warning> {
        let steps = self.steps as f64;
        let every = (self.average.schedule.every as f64).min(steps);
        let alpha = |group: &Group| match group.rule.window() {
            Some(_) => None,
            None => group.rule.update(1.0, steps - every, steps).ok().map(|update| update.alpha),
        };
        let alphas: Vec<_> = self.groups().map(alpha).collect();
        self.average.kept.iter().find_map(|kept| {
            let Treatment::Averaged(group) = kept.how else { return None };
            let (alpha, dtype) = (alphas[group]?, kept.parameter.tensor.dtype());
            // A share of 0, as after the end of a cosine, is meant to change nothing.
            let stuck = alpha > 0.0 && least_change(dtype, alpha) > 0.1;
            let path = || kept.parameter.path.clone();
            (stuck && kept.parameter.kind == ParameterKind::Weight).then(|| Warning::Dtype {
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

    fn repeated_step(&self) -> Option<Warning> {
        let (count, step) = (self.average.repeated, self.average.last_step());
        (count > 0).then(|| Warning::RepeatedStep { name: self.name(), count, step })
    }
}

/// The steps that a rule of fixed width remembers; `None` for other rules.
fn memory(rule: &Rule) -> Option<f64> {
    match *rule {
        Rule::Constant { decay, .. } => Some(1.0 / (1.0 - decay)),
        Rule::HalfLife { steps } => Some(steps / std::f64::consts::LN_2),
        Rule::Window { snapshots, interval } => Some(snapshots as f64 * interval as f64),
        _ => None,
    }
}
