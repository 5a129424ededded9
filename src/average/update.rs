//! One update of several averages of one module.

use std::borrow::Cow;

use burn::{
    backend::{DispatchTensor, TensorMetadata},
    module::Module,
};

#[cfg(feature = "train")]
use super::late::{Known, Late, SMALL, Waiting};
use super::{
    clock::Clock,
    config::NonFinite,
    course::Due,
    lerp::{self, Borrowed, Passed, Towards},
    numbers::{Move, Moved},
    state::{Average, How, Kept},
    walk::{Kind, Live},
};
use crate::{Error, Result};

/// Updates several averages of one module, which is walked and read once for all of them.
///
/// `step` is as in [`Average::update`], and `samples` as in [`Average::update_at`]; without a
/// number of them, steps are of `samples_per_step`.
///
/// # Errors
///
/// Those of [`Average::update`]; after one, all averages are as they were, but for the count of
/// refused updates.
pub fn update_all<M: Module>(
    averages: &mut [Average<M>],
    live: &M,
    step: u64,
    samples: Option<u64>,
) -> Result<()> {
    update(averages, live, step, samples, |averages, plans| {
        if !mix_while_looking(averages, plans, step)? {
            look(averages, plans, step, |_, _, _, _| true)?;
            lerp::lerp_all(mixing(averages, plans, |_| true));
        }
        Ok(())
    })
}

/// [`update_all`] of a live module of which some tensors are known to be small: they are not looked
/// at again, and the averages move towards them later.
#[cfg(feature = "train")]
pub(crate) fn update_late<M: Module>(
    averages: &mut [Average<M>],
    live: &M,
    step: u64,
    samples: Option<u64>,
    known: &Known,
) -> Result<Late> {
    let mut late = Late::default();
    if known.is_empty() {
        return update_all(averages, live, step, samples).map(|()| late);
    }
    update(averages, live, step, samples, |averages, plans| {
        look(averages, plans, step, |_, _, live, most| most < SMALL || !known.has(live))?;
        late = put_off(averages, plans, known);
        let mut waiting = late.0.iter().map(|waiting| waiting.at).peekable();
        lerp::lerp_all(mixing(averages, plans, |at| waiting.next_if_eq(&at).is_none()));
        Ok(())
    })?;
    Ok(late)
}

/// An update, of which `mix` refuses plans or moves what mixes.
fn update<M: Module>(
    averages: &mut [Average<M>],
    live: &M,
    step: u64,
    samples: Option<u64>,
    mix: impl FnOnce(&mut [Average<M>], &mut [Plan<'_>]) -> Result<()>,
) -> Result<()> {
    let clock = |average: &Average<M>| average.clock_at(step, samples);
    let dues = averages
        .iter()
        .map(|average| average.numbers.course.due(&average.schedule, clock(average)));
    let dues = dues.collect::<Result<Vec<_>>>()?;

    // A walk shows a batch norm's statistics one forward pass late, unless they are made current.
    let current;
    let due = averages.iter().zip(&dues).filter(|(_, due)| **due != Due::Nothing);
    let live = match due.clone().any(|(average, _)| average.takes_statistics()) {
        true => {
            current = live.valid();
            &current
        }
        false => live,
    };
    let live = if due.count() > 0 { Some(Live::walk(live)) } else { None };

    // Everything that can fail, before anything changes.
    let mut plans = Vec::with_capacity(averages.len());
    for (average, due) in averages.iter_mut().zip(dues) {
        plans.push(match (&live, due) {
            (None, _) | (_, Due::Nothing) => Plan::Nothing,
            (Some(live), due) => {
                let parameters = average.kept.iter().map(|kept| &kept.parameter);
                let tensors = live.pair(parameters, &mut average.paired)?;
                Plan::Take { tensors, due, moves: average.moves(due)? }
            }
        });
    }
    mix(averages, &mut plans)?;
    for (average, plan) in averages.iter_mut().zip(&plans) {
        if let Plan::Take { tensors, moves, .. } = plan {
            let each = average.kept.iter_mut().zip(tensors.iter());
            each.for_each(|(kept, live)| kept.take(live, moves, average.stays));
        }
    }
    for (average, plan) in averages.iter_mut().zip(plans) {
        let now = clock(average);
        let numbers = &mut average.numbers;
        let done = match plan {
            Plan::Nothing | Plan::Refuse => Due::Nothing,
            Plan::Take { due, moves, .. } => {
                let groups = numbers.groups.iter_mut().zip(moves);
                groups.for_each(|(group, moved)| *group = moved.group);
                numbers.refused.in_a_row = 0;
                due
            }
        };
        if now.step > numbers.course.seen.step {
            numbers.course.advance(&average.schedule, now, done);
        }
    }
    Ok(())
}

/// Refuses the plans of which a parameter that counts holds a NaN or an infinity in live.
fn look<M: Module>(
    averages: &mut [Average<M>],
    plans: &mut [Plan<'_>],
    step: u64,
    counts: impl Fn(&Kept, &[Move], &DispatchTensor, f64) -> bool,
) -> Result<()> {
    let mut finite = Finite::default();
    for (average, plan) in averages.iter_mut().zip(plans) {
        let Plan::Take { tensors, moves, .. } = plan else { continue };
        let in_order = matches!(tensors, Cow::Borrowed(_));
        let counts = |kept: &_, live: &_, most| counts(kept, moves, live, most);
        if let Some(path) = finite.first_bad(average, tensors, in_order, counts)? {
            average.refuse(path, step)?;
            *plan = Plan::Refuse;
        }
    }
    Ok(())
}

/// Moves the averages that mix and looks at live on the way, so that it is read once.
///
/// False where that does not pay, or where something was found, and no average has moved.
fn mix_while_looking<M: Module>(
    averages: &mut [Average<M>],
    plans: &mut [Plan<'_>],
    step: u64,
) -> Result<bool> {
    let (mut numbers, mut largest) = (0, 0.0f64);
    for (average, plan) in averages.iter().zip(&*plans) {
        let Plan::Take { moves, .. } = plan else { continue };
        if average.looks_before {
            return Ok(false);
        }
        numbers += average.numbers_averaged;
        largest = moves.iter().fold(largest, |largest, moved| match moved.how {
            Moved::Mixed { alpha, .. } => largest.max(alpha),
            _ => largest,
        });
    }
    if !lerp::pays_to_look_on_the_way(numbers, largest) {
        return Ok(false);
    }
    look(averages, plans, step, |kept, moves, _, _| kept.mixes(moves).is_none())?;
    let passed = lerp::lerp_all_within(mixing(averages, plans, |_| true));
    if passed == Passed::Unfit {
        averages.iter_mut().for_each(|average| average.looks_before = true);
    }
    Ok(passed == Passed::Whole)
}

/// The parameters that mix, those of all averages with the same live tensor next to each other.
///
/// `counts` is asked of all parameters in this order, by their indices.
fn mixing<'a, M: Module>(
    averages: &'a mut [Average<M>],
    plans: &'a [Plan<'_>],
    mut counts: impl FnMut([usize; 2]) -> bool,
) -> Vec<Towards<'a>> {
    let each = averages.iter_mut().zip(plans).enumerate().filter_map(|(index, (average, plan))| {
        let Plan::Take { tensors, moves, .. } = plan else { return None };
        let bounded = average.config.non_finite != NonFinite::Take;
        Some((index, average.kept.iter_mut().zip(tensors.iter()), moves, average.stays, bounded))
    });
    let mut each: Vec<_> = each.collect();
    let longest = each.iter().map(|(_, kept, ..)| kept.len()).max().unwrap_or(0);
    let mut mixing = Vec::with_capacity(longest * each.len());
    for place in 0..longest {
        mixing.extend(each.iter_mut().filter_map(|(index, kept, moves, stays, bounded)| {
            let (kept, live) = kept.next()?;
            if !counts([*index, place]) {
                return None;
            }
            kept.towards(live, moves, *stays, *bounded)
        }));
    }
    mixing
}

/// The parameters that mix and can do so later, in the order of [`mixing`].
#[cfg(feature = "train")]
fn put_off<M: Module>(averages: &[Average<M>], plans: &[Plan<'_>], known: &Known) -> Late {
    let longest = averages.iter().map(|average| average.kept.len()).max().unwrap_or(0);
    let each = (0..longest).flat_map(|place| (0..averages.len()).map(move |index| [index, place]));
    let waiting = each.filter_map(|at| {
        let Plan::Take { tensors, moves, .. } = &plans[at[0]] else { return None };
        let (kept, live) = (averages[at[0]].kept.get(at[1])?, tensors.get(at[1])?);
        let average = &kept.parameter.tensor;
        let alpha = lerp::rounded(kept.mixes(moves)?, average.dtype());
        let is_alike = average.dtype() == live.dtype() && lerp::are_beside(average, live);
        let waits = alpha > 0.0 && is_alike && known.has(live);
        waits.then(|| Waiting { at, live: live.clone(), alpha })
    });
    Late(waiting.collect())
}

/// What one average does in an update.
enum Plan<'a> {
    Nothing,
    /// A NaN or an infinity is kept out.
    Refuse,
    Take {
        tensors: Cow<'a, [DispatchTensor]>,
        due: Due,
        moves: Vec<Move>,
    },
}

impl<M: Module> Average<M> {
    /// The clock of a step; where samples are not counted, each step has `samples_per_step`.
    pub(crate) fn clock_at(&self, step: u64, samples: Option<u64>) -> Clock {
        let per_step = self.config.samples_per_step.unwrap_or(0);
        // From the last clock on, so that steps of both kinds can follow each other.
        let seen = self.numbers.course.seen;
        let since = step.saturating_sub(seen.step).saturating_mul(per_step);
        let counted = || seen.samples.saturating_add(since);
        Clock { step, samples: samples.unwrap_or_else(counted) }
    }

    fn takes_statistics(&self) -> bool {
        let mut statistics = self.kept.iter().filter(|k| k.parameter.kind == Kind::Statistic);
        statistics.any(|kept| matches!(kept.how, How::Averaged(_) | How::Copied | How::Frozen))
    }

    /// Counts an update that is refused for a parameter; an error where the policy says so.
    fn refuse(&mut self, path: String, step: u64) -> Result<()> {
        let refused = &mut self.numbers.refused;
        // The same step again, or after an error of another average, is counted once.
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

    /// What each group does.
    fn moves(&self, due: Due) -> Result<Vec<Move>> {
        self.numbers.groups.iter().map(|group| group.moved(due)).collect()
    }
}

impl Kept {
    /// The share of the way to live that its tensor goes, where that is all that happens to it.
    fn mixes(&self, moves: &[Move]) -> Option<f64> {
        let How::Averaged(group) = self.how else { return None };
        match moves[group].how {
            Moved::Mixed { alpha, beside: false } => Some(alpha),
            _ => None,
        }
    }

    /// Its tensor on its way to live, if it mixes.
    fn towards<'a>(
        &'a mut self,
        live: &'a DispatchTensor,
        moves: &[Move],
        stays: bool,
        bounded: bool,
    ) -> Option<Towards<'a>> {
        let alpha = self.mixes(moves)?;
        let most = self.how.most(&self.parameter, self.parameter.tensor.dtype(), true);
        let average = &mut self.parameter.tensor;
        if !stays {
            lerp::follow(average, live);
        }
        let live = match lerp::are_beside(live, average) {
            true => Borrowed::Tensor(live),
            false => Borrowed::Own(Box::new(lerp::on_device_of(live.clone(), average))),
        };
        let most = most.filter(|_| bounded).unwrap_or(f64::INFINITY);
        Some(Towards { average, live, alpha, most })
    }

    /// Takes live's tensor as the group says, unless it [mixes](Self::mixes).
    fn take(&mut self, live: &DispatchTensor, moves: &[Move], stays: bool) {
        if self.how == How::LeftOut {
            return;
        }
        let apart = stays && !lerp::are_beside(&self.parameter.tensor, live);
        self.live_device = apart.then(|| live.device());
        if self.mixes(moves).is_some() {
            return;
        }
        if !stays {
            lerp::follow(&mut self.parameter.tensor, live);
            self.beside.iter_mut().for_each(|tensor| lerp::follow(tensor, live));
        }
        let here =
            |tensor: &DispatchTensor| lerp::on_device_of(tensor.clone(), &self.parameter.tensor);
        let group = match self.how {
            How::LeftOut => return,
            How::Copied => {
                self.parameter.tensor = here(live);
                return;
            }
            How::Frozen => {
                // The start of the first group is that of the average.
                if let Moved::Copied { .. } = moves[0].how {
                    self.parameter.tensor = here(live);
                }
                return;
            }
            How::Averaged(group) => group,
        };
        let live = lerp::cast(here(live), self.parameter.tensor.dtype());
        match moves[group].how {
            Moved::Kept => {}
            Moved::Copied { beside } => {
                self.beside.clear();
                if beside {
                    self.beside.extend([live.clone(), live.clone()]);
                }
                self.parameter.tensor = live;
            }
            Moved::Mixed { alpha, beside } => {
                lerp::lerp(&mut self.parameter.tensor, &live, alpha);
                if beside && let Some(latest) = self.beside.back_mut() {
                    *latest = live;
                }
            }
            Moved::Snapshot { left } => {
                self.beside.push_back(live.clone());
                self.beside.drain(..left);
                // The start, or the mean so far, is not needed any more.
                self.parameter.tensor = live;
            }
        }
    }
}

/// Which tensors of live are finite, looked at once for all averages that take the same ones.
#[derive(Default)]
struct Finite {
    known: Option<(Vec<Option<f64>>, Vec<bool>)>,
}

impl Finite {
    /// The path of the first parameter whose NaN or infinity the average would take.
    ///
    /// What is known is used again for tensors in live's order.
    fn first_bad<M: Module>(
        &mut self,
        average: &Average<M>,
        tensors: &[DispatchTensor],
        in_order: bool,
        counts: impl Fn(&Kept, &DispatchTensor, f64) -> bool,
    ) -> Result<Option<String>> {
        if average.config.non_finite == NonFinite::Take {
            return Ok(None);
        }
        let begun = average.has_begun();
        let taken = average.kept.iter().zip(tensors).map(|(kept, live)| {
            let Kept { parameter, how, .. } = kept;
            let most = how.most(parameter, parameter.tensor.dtype(), begun);
            most.filter(|most| counts(kept, live, *most))
        });
        let taken: Vec<Option<f64>> = taken.collect();
        let finite = match &self.known {
            Some((known, finite)) if in_order && *known == taken => finite.clone(),
            _ => {
                let bounded = tensors.iter().zip(&taken);
                lerp::within(bounded.filter_map(|(tensor, most)| Some((tensor, (*most)?))))?
            }
        };
        let mut paths = average.kept.iter().zip(&taken).filter(|(_, taken)| taken.is_some());
        let bad = finite.iter().position(|finite| !finite);
        let bad = bad.and_then(|bad| paths.nth(bad)).map(|(kept, _)| kept.parameter.path.clone());
        if in_order {
            self.known = Some((taken, finite));
        }
        Ok(bad)
    }
}
