//! One update of several averages of one module.

use std::{borrow::Cow, slice};

use burn::{
    backend::{DispatchTensor, TensorMetadata},
    module::{Module, ParamId},
};

use super::{
    clock::Clock,
    config::NonFinite,
    course::Due,
    kept::{Kept, Treatment},
    numbers::{Move, Moved},
    sample::Sample,
    state::Average,
    unconfirmed::{Rollback, Unconfirmed},
    walk::{Live, ParameterKind, Structure},
};
use crate::{
    Error, Result,
    kernel::{self, PendingCheck, Towards},
};

/// The effect of a call of [`Average::update`] on the average.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Updated {
    /// Averaged parameters took in live's weights.
    Moved,
    /// No averaged parameter took in anything: no update was due, the rule takes nothing at this
    /// step, or the average had seen the step before.
    Kept,
    /// The update was [refused](Average::refused), since live holds a NaN or an infinity.
    Refused,
}

/// Updates several averages of one module, which is traversed and read once for all of them.
///
/// The result has an entry for each average.
///
/// `step` is that of [`Average::update`], and `samples` is the number of samples so far, as in
/// [`Average::update_at`]. With `None`, each step counts as `samples_per_step` samples.
///
/// # Errors
///
/// The errors of [`Average::update`]. After one, all averages are as they were, except for the
/// count of refused updates.
pub fn update_all<M: Module>(
    averages: &mut [Average<M>],
    live: &M,
    step: u64,
    samples: Option<u64>,
) -> Result<Vec<Updated>> {
    Ok(update_after(averages, live, step, samples, StepFacts::default())?.0)
}

/// Facts about the optimizer step before an update.
#[derive(Clone, Copy, Default)]
pub(crate) struct StepFacts<'a> {
    /// The parameters that the step moved, which must be finite.
    pub trained: &'a [ParamId],
    /// True if the update may return before a GPU has confirmed that the numbers are finite.
    pub may_wait: bool,
}

/// Like [`update_all`], after an optimizer step about which these facts are known.
///
/// Returns the effect on each average, and the update if a GPU has not confirmed it yet, see
/// [`Unconfirmed`]; else `None`.
///
/// # Errors
///
/// The errors of [`update_all`]; a NaN or an infinity in a parameter that the step moved, whatever
/// the averages' policy.
pub(crate) fn update_after<M: Module>(
    averages: &mut [Average<M>],
    live: &M,
    step: u64,
    samples: Option<u64>,
    facts: StepFacts<'_>,
) -> Result<(Vec<Updated>, Option<Unconfirmed<M>>)> {
    let clock = |average: &Average<M>| average.clock_at(step, samples);
    let dues = averages
        .iter()
        .map(|average| average.numbers.course.due(&average.schedule, clock(average)));
    let dues = dues.collect::<Result<Vec<_>>>()?;

    let is_due = dues.iter().any(|due| *due != Due::Nothing);
    // A traversal shows running states one forward pass late; `valid` makes them current.
    let current = is_due.then(|| live.valid());
    let module = current.as_ref().unwrap_or(live);
    // At a step that was seen before, live is read only to compare it with the sample of that step.
    let is_looked_at = averages.iter().any(|average| average.looks_at(step));
    let is_walked = is_due || is_looked_at || !facts.trained.is_empty();
    let live = is_walked.then(|| Live::walk(module));

    // Everything that can fail comes before anything changes.
    let mut plans = Vec::with_capacity(averages.len());
    for (average, due) in averages.iter_mut().zip(dues) {
        plans.push(match (&live, due) {
            (Some(live), Due::Nothing) if average.looks_at(step) => {
                let parameters = average.kept.iter().map(|kept| &kept.parameter);
                let tensors = live.pair(parameters, &mut average.paired)?;
                Plan::Look { sample: average.sample_of(&tensors) }
            }
            (None, _) | (_, Due::Nothing) => Plan::Nothing,
            (Some(live), due) => {
                let parameters = average.kept.iter().map(|kept| &kept.parameter);
                let tensors = live.pair(parameters, &mut average.paired)?;
                let sample = average.sample_of(&tensors);
                Plan::Take { tensors, due, moves: average.moves(due)?, sample }
            }
        });
    }
    let check = match &live {
        Some(live) => look(averages, &mut plans, live, facts, step)?,
        None => None,
    };

    let before = check.as_ref().map(|_| averages.to_vec());
    match &check {
        Some(check) => kernel::lerp_all_unless(mixing(averages, &plans), check),
        None => kernel::lerp_all(mixing(averages, &plans)),
    }
    for (average, plan) in averages.iter_mut().zip(&plans) {
        if let Plan::Take { tensors, moves, .. } = plan {
            let each = average.kept.iter_mut().zip(tensors.iter());
            each.for_each(|(kept, live)| kept.take(live, moves, average.stays.is_some()));
        }
    }
    let mut taken = Vec::with_capacity(averages.len());
    let updated =
        averages.iter().zip(&plans).map(|(average, plan)| plan.effect(&average.kept)).collect();
    for (average, plan) in averages.iter_mut().zip(plans) {
        let now = clock(average);
        let is_new = now.step > average.last_step();
        let numbers = &mut average.numbers;
        let mut sampled = None;
        taken.push(matches!(plan, Plan::Take { .. }));
        let done = match plan {
            Plan::Nothing => Due::Nothing,
            Plan::Refuse { sample } => {
                sampled = sample;
                Due::Nothing
            }
            Plan::Look { sample } => {
                let is_other = !is_new && sample != average.sample;
                average.repeated = average.repeated.saturating_add(is_other.into());
                sampled = sample;
                Due::Nothing
            }
            Plan::Take { due, moves, sample, .. } => {
                let groups = numbers.groups.iter_mut().zip(moves);
                groups.for_each(|(group, moved)| *group = moved.group);
                numbers.refused.in_a_row = 0;
                sampled = sample;
                due
            }
        };
        if is_new {
            numbers.course.advance(&average.schedule, now, done);
            average.sample = sampled;
        }
    }
    let unconfirmed = check.zip(before).map(|(check, before)| {
        // `valid`, since the structure is about to be taken from `current`.
        let (live, trained) = (module.valid(), facts.trained.to_vec());
        Unconfirmed { check, update: Rollback { before, live, trained, step, samples } }
    });
    let takers = averages
        .iter_mut()
        .zip(taken)
        .filter_map(|(average, taken)| taken.then_some(&mut average.structure));
    if let Some(current) = current {
        Structure::follow(takers, current);
    }
    Ok((updated, unconfirmed))
}

#[cfg(feature = "train")]
impl<M: Module> Rollback<M> {
    /// Ends the update by the result of its check. If a tensor was beyond its bound, the averages
    /// are put back and updated again, now with a wait for every check.
    ///
    /// # Errors
    ///
    /// The errors about numbers that are not finite, which [`update_after`] could not return yet.
    pub fn confirm(self, within: &[bool], averages: &mut Vec<Average<M>>) -> Result<()> {
        let Self { before, live, trained, step, samples } = self;
        // A replica may have made a later step meanwhile; then the averages stay as they are.
        let is_last = averages.iter().all(|average| average.last_step() == step);
        if !is_last || within.iter().all(|within| *within) {
            return Ok(());
        }
        *averages = before;
        let facts = StepFacts { trained: &trained, may_wait: false };
        update_after(averages, &live, step, samples, facts).map(drop)
    }

    /// Puts the averages back, since the check has no result.
    pub fn undo(self, averages: &mut Vec<Average<M>>) {
        *averages = self.before;
    }
}

/// Checks the numbers that the averages would take from live, and refuses a plan with a number
/// beyond its bound. Returns the check if it was only started, else `None`.
///
/// All tensors are checked at once, since each check waits for a GPU. Only if a number is beyond a
/// bound, further checks find its parameter.
/// If the update may return early, the check on the GPU is only started. The averages then move on
/// the GPU unless the started check finds a number beyond its bound.
///
/// # Errors
///
/// A trained parameter with a NaN or an infinity; too many refused updates in a row.
fn look<M: Module>(
    averages: &mut [Average<M>],
    plans: &mut [Plan<'_>],
    live: &Live<'_, M>,
    facts: StepFacts<'_>,
    step: u64,
) -> Result<Option<PendingCheck>> {
    let trained = live.places(facts.trained);
    let mut bounds = vec![None; live.tensors().len()];
    trained.iter().for_each(|&place| bounds[place] = Some(f64::MAX));
    let mut others = Vec::new();
    for (average, plan) in averages.iter().zip(&*plans) {
        let Plan::Take { tensors, .. } = plan else { continue };
        match tensors {
            Cow::Borrowed(_) => {
                for (bound, most) in bounds.iter_mut().zip(average.bounds()) {
                    *bound = [*bound, most].into_iter().flatten().reduce(f64::min);
                }
            }
            Cow::Owned(tensors) => others.extend(bounded(tensors, average.bounds())),
        }
    }
    if facts.may_wait
        && others.is_empty()
        && live.tensors().iter().any(kernel::is_on_gpu)
        && !averages.iter().any(|average| average.stays.is_some())
    {
        let checked: Vec<_> = bounded(live.tensors(), bounds.iter().copied()).collect();
        if let Some(check) = kernel::start_check(&checked)
            && kernel::can_wait_for(&mixing(averages, plans), &check)
        {
            kernel::make_all_unique(mixing(averages, plans));
            return Ok(Some(check));
        }
    }
    let checked = bounded(live.tensors(), bounds.into_iter()).chain(others);
    if kernel::within(checked)?.into_iter().all(|within| within) {
        return Ok(None);
    }

    let all = trained.iter().map(|&place| (&live.tensors()[place], f64::MAX));
    if let Some(bad) = kernel::within(all)?.iter().position(|within| !within) {
        return Err(Error::Weights { path: live.path(trained[bad]), step });
    }
    for (average, plan) in averages.iter_mut().zip(plans) {
        let Plan::Take { tensors, sample, .. } = plan else { continue };
        let taken = average.kept.iter().zip(average.bounds()).filter(|(_, most)| most.is_some());
        let taken: Vec<_> = taken.map(|(kept, _)| kept).collect();
        let within = kernel::within(bounded(tensors, average.bounds()))?;
        let bad = taken.into_iter().zip(within).find(|(_, within)| !within);
        let path = bad.map(|(kept, _)| kept.parameter.path.clone());
        if let Some(path) = path {
            average.refuse(path, step)?;
            *plan = Plan::Refuse { sample: sample.take() };
        }
    }
    Ok(None)
}

/// The tensors that have a bound, each with its bound.
fn bounded(
    tensors: &[DispatchTensor],
    bounds: impl Iterator<Item = Option<f64>>,
) -> impl Iterator<Item = (&DispatchTensor, f64)> {
    tensors.iter().zip(bounds).filter_map(|(tensor, most)| Some((tensor, most?)))
}

/// The kernels' work on all parameters that [mix](Kept::mixes). Entries with the same live tensor
/// are next to each other, as the kernels need.
fn mixing<'a, M: Module>(
    averages: &'a mut [Average<M>],
    plans: &'a [Plan<'_>],
) -> Vec<Towards<'a>> {
    let each = averages.iter_mut().zip(plans).filter_map(|(average, plan)| {
        let Plan::Take { tensors, moves, .. } = plan else { return None };
        Some((average.kept.iter_mut().zip(tensors.iter()), moves, average.stays.is_some()))
    });
    let mut each: Vec<_> = each.collect();
    let longest = each.iter().map(|(kept, ..)| kept.len()).max().unwrap_or(0);
    let mut mixing = Vec::with_capacity(longest * each.len());
    for _ in 0..longest {
        mixing.extend(each.iter_mut().filter_map(|(kept, moves, stays)| {
            let (kept, live) = kept.next()?;
            kept.towards(live, moves, *stays)
        }));
    }
    mixing
}

/// The plan of one average for an update.
enum Plan<'a> {
    Nothing,
    /// Nothing is taken: the step was seen before, or an update is not due yet.
    Look {
        sample: Option<Sample>,
    },
    /// The average stays as it is, since live holds a NaN or an infinity.
    Refuse {
        sample: Option<Sample>,
    },
    Take {
        tensors: Cow<'a, [DispatchTensor]>,
        due: Due,
        moves: Vec<Move>,
        sample: Option<Sample>,
    },
}

impl Plan<'_> {
    fn effect(&self, parameters: &[Kept]) -> Updated {
        let moves = match self {
            Self::Take { moves, .. } => moves,
            Self::Refuse { .. } => return Updated::Refused,
            Self::Nothing | Self::Look { .. } => return Updated::Kept,
        };
        let mut groups = parameters.iter().filter_map(|kept| match kept.how {
            Treatment::Averaged(group) => Some(group),
            _ => None,
        });
        let moves_any = |how: Moved| match how {
            Moved::Kept => false,
            Moved::Mixed { alpha, beside } => alpha > 0.0 || beside,
            Moved::Copied { .. } | Moved::Snapshot { .. } => true,
        };
        match groups.any(|group| moves_any(moves[group].how)) {
            true => Updated::Moved,
            false => Updated::Kept,
        }
    }
}

impl<M: Module> Average<M> {
    /// Updates the average with live's weights after optimizer step `step`, and returns the effect.
    ///
    /// Steps count from 1, through the whole training.
    /// A second call with the same step changes nothing. If live's weights are in host memory and
    /// differ from those of the first call, the call is counted and causes a
    /// [warning](Self::warnings).
    /// An update after several steps covers all of them, so that the width of the average does not
    /// depend on how often it is updated.
    ///
    /// Parameters are paired by path, and the average follows live's parameters to other devices
    /// unless it [stays](Self::keep_on) on one.
    ///
    /// If the average's time is counted in samples, each step counts as `samples_per_step` of them.
    ///
    /// # Errors
    ///
    /// Step 0 or a step before the last one; a parameter that only one side has, or of another
    /// shape or dtype; a NaN or an infinity in live, if [`NonFinite`] makes it an error; a custom
    /// rule that is not registered or returns a decay outside `[0, 1]`; with a rule whose decay
    /// changes step by step, an update that covers more than 16,777,216 steps.
    /// After an error the average is as it was, except that it [counts](Self::refused) a refused
    /// update.
    ///
    /// # Memory
    ///
    /// The update writes in place unless a module that [`module`](Self::module) has returned still
    /// shares the weights. Then it copies them first, so drop such a module before.
    pub fn update(&mut self, live: &M, step: u64) -> Result<Updated> {
        self.updated(live, step, None)
    }

    /// Like [`update`](Self::update) at the step after the last one: the average counts its calls.
    /// For loops whose averages are updated less often than, or apart from, the optimizer's steps,
    /// such as those with a target network.
    ///
    /// # Errors
    ///
    /// The errors of [`update`](Self::update).
    pub fn advance(&mut self, live: &M) -> Result<Updated> {
        self.update(live, self.last_step().saturating_add(1))
    }

    /// Like [`update`](Self::update), for a training whose steps have different numbers of samples:
    /// `clock` has the number of samples so far.
    ///
    /// # Errors
    ///
    /// The errors of [`update`](Self::update); if time is counted in samples, fewer samples than at
    /// the last step.
    pub fn update_at(&mut self, live: &M, clock: Clock) -> Result<Updated> {
        self.updated(live, clock.step, Some(clock.samples))
    }

    fn updated(&mut self, live: &M, step: u64, samples: Option<u64>) -> Result<Updated> {
        let updated = update_all(slice::from_mut(self), live, step, samples)?;
        Ok(updated[0])
    }

    /// The clock at a step. If `samples` is `None`, each step since the last clock counts as
    /// `samples_per_step`.
    pub(crate) fn clock_at(&self, step: u64, samples: Option<u64>) -> Clock {
        let per_step = self.config.samples_per_step.unwrap_or(0);
        // Counted from the last clock on, so that calls with and without `samples` can be mixed.
        let seen = self.numbers.course.seen;
        let since = step.saturating_sub(seen.step).saturating_mul(per_step);
        let counted = || seen.samples.saturating_add(since);
        Clock { step, samples: samples.unwrap_or_else(counted) }
    }

    /// The bound of each parameter, in the average's order: the largest magnitude that the average
    /// may take from live. `None` if it takes nothing from the parameter, or any number.
    fn bounds(&self) -> impl Iterator<Item = Option<f64>> {
        let looks = match self.config.non_finite {
            NonFinite::Take => false,
            NonFinite::Auto => !(self.is_target() && self.is_on_gpu()),
            NonFinite::Skip { .. } | NonFinite::Error => true,
        };
        let begun = self.has_begun();
        self.kept.iter().map(move |Kept { parameter, how, .. }| {
            how.most(parameter, parameter.tensor.dtype(), begun).filter(|_| looks)
        })
    }

    /// True if all that an update changes is mixed by the kernels, so that a GPU leaves it as it was
    /// if its check fails.
    #[cfg(feature = "train")]
    pub(crate) fn only_mixes(&self) -> bool {
        let has_begun = self.has_begun();
        self.kept.iter().all(|kept| match kept.how {
            Treatment::Averaged(group) => {
                let rule = &self.numbers.groups[group].rule;
                has_begun && rule.window().is_none() && rule.correction(1.0).is_none()
            }
            Treatment::Frozen | Treatment::LeftOut => true,
            Treatment::Copied => false,
        })
    }

    /// True if the average is a target network, by all its rules.
    fn is_target(&self) -> bool {
        self.numbers.groups.iter().all(|group| group.rule.is_target())
    }

    fn is_on_gpu(&self) -> bool {
        self.kept.iter().any(|kept| kernel::is_on_gpu(&kept.parameter.tensor))
    }

    /// True if live is sampled at this step: a new step keeps the sample for later calls, the last
    /// step again compares it with the kept one.
    fn looks_at(&self, step: u64) -> bool {
        step > self.last_step() || step == self.last_step() && self.sample.is_some()
    }

    /// The sample of live's averaged weights, from its tensors in the average's order.
    fn sample_of(&self, tensors: &[DispatchTensor]) -> Option<Sample> {
        let weights = self.kept.iter().zip(tensors).filter(|(kept, _)| {
            matches!(kept.how, Treatment::Averaged(_))
                && kept.parameter.kind == ParameterKind::Weight
        });
        Sample::of(weights.map(|(_, live)| live))
    }

    /// Counts an update that was refused because of a parameter.
    ///
    /// # Errors
    ///
    /// Too many refused updates in a row, by the [`NonFinite`] policy.
    pub(super) fn refuse(&mut self, path: String, step: u64) -> Result<()> {
        let refused = &mut self.numbers.refused;
        // A step that is tried again, such as after an error of another average, is counted once.
        if refused.last.as_ref().is_none_or(|(_, last)| *last != step) {
            refused.count += 1;
            refused.in_a_row += 1;
        }
        let in_a_row = refused.in_a_row;
        refused.last = Some((path.clone(), step));
        match self.config.non_finite.ends_at(in_a_row) {
            false => Ok(()),
            true => Err(Error::NonFinite { path, step, in_a_row }),
        }
    }

    /// The effect of an update on each group.
    fn moves(&self, due: Due) -> Result<Vec<Move>> {
        self.numbers.groups.iter().map(|group| group.moved(due)).collect()
    }
}
