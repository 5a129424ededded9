//! Which optimizer steps are refused: those whose numbers are not finite.

use std::{
    collections::BTreeMap,
    panic::resume_unwind,
    sync::{Arc, Mutex, atomic::Ordering},
};

use burn::{
    backend::{DispatchTensor, TensorMetadata},
    data::dataloader::Progress,
    module::{Module, ModuleVisitor, Param, ParamId},
    optim::{
        GradientsParams, ModuleOptimizer, lr_scheduler::module_lr_scheduler::ModuleLearningRate,
    },
    tensor::{DType, Tensor},
    train::{
        LearnerModel, TrainStep,
        metric::{LossInput, LossMetric, Metric, MetricMetadata, Numeric},
    },
};

use super::{super::strict, Averaged, Shared};
use crate::{
    Error, NonFinite, Result,
    average::{Known, Refused, Warning, arrive, path_of, put_statistics, statistics, within},
    optim::{LARGEST_GRADIENT, LARGEST_RATE, Watched, watched},
};

/// What the clones of an [`Averaged`] know of refused steps.
#[derive(Clone, Default)]
pub(super) struct Guard {
    pub refused: Refused,
    warned: bool,
    /// The step of which a loss is not finite.
    bad_loss: Option<u64>,
    before: Option<Before>,
}

/// What the forward passes of a step change.
#[derive(Clone)]
struct Before {
    step: u64,
    samples: u64,
    statistics: BTreeMap<String, DispatchTensor>,
}

impl Guard {
    pub fn of(refused: Refused) -> Self {
        Self { refused, ..Self::default() }
    }

    /// What the user should know of refused steps, once.
    pub fn take_warning(&mut self) -> Option<Warning> {
        let (what, step) = self.refused.last.clone()?;
        let warned = std::mem::replace(&mut self.warned, true);
        let count = self.refused.count;
        (!warned).then_some(Warning::RefusedSteps { count, what, step })
    }

    /// Counts a step that is refused; the same one of another replica is counted once.
    fn refuse(&mut self, what: &str, step: u64) {
        if self.refused.last.as_ref().is_none_or(|(_, last)| *last != step) {
            self.refused.count += 1;
            self.refused.in_a_row += 1;
        }
        self.refused.last = Some((what.to_owned(), step));
    }
}

/// Whether the mean of a loss is finite.
pub(super) fn is_finite(loss: &LossInput) -> bool {
    let mut mean = LossMetric::new();
    let nothing = MetricMetadata { progress: Progress::new(0, 0, None), iteration: None, lr: None };
    // One that cannot be read is no number.
    let read = mean.update(loss, &nothing).is_ok();
    read && mean.value().is_some_and(|value| value.current().is_finite())
}

impl<M: LearnerModel> Averaged<M> {
    fn is_guarded(&self) -> bool {
        self.non_finite != NonFinite::Take
    }

    /// Keeps what the forward passes of the next step change, before the first of them.
    pub(super) fn remember(&self) {
        let (step, mut shared) = (self.tried + 1, self.lock_as_is());
        if !self.is_guarded() || shared.guard.before.as_ref().is_some_and(|b| b.step == step) {
            return;
        }
        let has_statistics = shared.averages[0].has_statistics();
        let statistics = if has_statistics { statistics(&self.live) } else { BTreeMap::new() };
        shared.guard.before = Some(Before { step, samples: self.samples(), statistics });
    }

    pub(super) fn look_at_loss(&self, output: &<M as TrainStep>::Output) {
        if let Some(finite) = &self.finite_loss
            && self.is_guarded()
            && !finite(output)
        {
            self.lock_as_is().guard.bad_loss = Some(self.tried + 1);
        }
    }

    /// What is to be known of the gradients of a step before it takes them, if anything is.
    ///
    /// They are not kept: the step may free each as it goes.
    pub(super) fn looked_at<'a>(
        &self,
        grads: impl IntoIterator<Item = &'a GradientsParams>,
        rates: &ModuleLearningRate,
    ) -> Option<Result<Gradients>> {
        let look = || Gradients::look_at(&self.live, grads.into_iter().collect(), rates);
        self.is_guarded().then(look)
    }

    /// Makes a step with gradients that were looked at, and keeps it if all its numbers are finite.
    pub(super) fn try_step(
        mut self,
        optim: &mut ModuleOptimizer,
        gradients: Option<Result<Gradients>>,
        step: impl FnOnce(M, &mut ModuleOptimizer) -> M,
    ) -> Self {
        let Some(gradients) = gradients else {
            let (live, known) = riding(&self.shared, || step(self.live, optim));
            (self.live, self.sure) = (live, None);
            return self.updated(&known);
        };
        let (ended, bad_loss) = {
            let Shared { error, guard, .. } = &*self.lock_as_is();
            let ended = matches!(error, Some(Error::RefusedStep { .. }));
            (ended, guard.bad_loss == Some(self.tried + 1))
        };
        if ended {
            return self.undone();
        }
        if bad_loss {
            return self.refused("the loss".to_owned());
        }
        let gradients = match gradients {
            Ok(Gradients { bad: Some(what), .. }) => return self.refused(what),
            Ok(gradients) => gradients,
            Err(error) => return self.ended_by(error),
        };
        // A step that is sure to be finite needs no copy to go back to, and so is made in place.
        let is_sure = gradients.are_small
            && self.sure.as_deref() == Some(&gradients.ids)
            && !optim.has_gradient_clipping();
        let before = (!is_sure).then(|| (self.live.clone(), optim.clone()));
        let (live, known) = riding(&self.shared, || step(self.live, optim));
        self.live = live;
        self.sure = None;
        let is_known = gradients.are_known_after(&self.live, &known);
        let found = match is_known {
            true => Ok(None),
            false => gradients.first_bad_after(&self.live, optim),
        };
        let bad = match found {
            Ok(None) => {
                self.sure = is_known.then(|| Arc::new(gradients.ids));
                self.lock_as_is().guard.refused.in_a_row = 0;
                return self.updated(&known);
            }
            Ok(Some(what)) => Ok(what),
            Err(error) => Err(error),
        };
        let can_go_back = before.is_some();
        if let Some((live, earlier)) = before {
            (self.live, *optim) = (live, earlier);
        }
        match bad {
            Ok(what) if can_go_back => self.refused(what),
            // An `optimize` that does more than the optimizer's step, or an optimizer that someone
            // has loaded something else into.
            Ok(what) => {
                let expected = format!("finite numbers after step {}", self.tried + 1);
                let found = "a NaN or an infinity; the averages are as they were before";
                self.ended_by(Error::parameter(what, expected, found))
            }
            Err(error) => self.ended_by(error),
        }
    }

    /// What cannot be looked at may be anything.
    fn ended_by(self, error: Error) -> Self {
        self.stop(error.to_string());
        self.lock_as_is().error.get_or_insert(error);
        self.undone()
    }

    /// Counts a step that changes nothing, and ends the training where there are too many.
    fn refused(self, what: String) -> Self {
        let step = self.tried + 1;
        let error = {
            let mut shared = self.lock_as_is();
            shared.guard.refuse(&what, step);
            let in_a_row = shared.guard.refused.in_a_row;
            self.non_finite.ends_at(in_a_row).then(|| {
                let error = Error::RefusedStep { what, step, in_a_row };
                shared.error.get_or_insert(error.clone());
                error.to_string()
            })
        };
        if let Some(error) = error {
            self.stop(error);
        }
        self.undone()
    }

    /// Takes back what the forward passes of this step changed.
    fn undone(mut self) -> Self {
        self.tried += 1;
        let before = self.lock_as_is().guard.before.take();
        let Some(before) = before.filter(|before| before.step == self.tried) else { return self };
        self.samples.store(before.samples, Ordering::Relaxed);
        if !before.statistics.is_empty() {
            self.live = put_statistics(self.live, &before.statistics);
        }
        self
    }
}

/// Has a step made, in which the averages finish their last update; says which of live's tensors
/// are known to be small after it.
fn riding<M: Module>(shared: &Mutex<Shared<M>>, step: impl FnOnce() -> M) -> (M, Known) {
    let mut shared = Shared::lock(shared);
    let Shared { averages, late, .. } = &mut *shared;
    let riders = late.ride(averages);
    let Watched { result, known, .. } = match riders.is_empty() {
        true => {
            drop(shared);
            watched(riders, step)
        }
        // Until they are back, nobody may see the averages.
        false => {
            let mut watched = watched(riders, step);
            arrive(&mut shared.averages, std::mem::take(&mut watched.riders));
            drop(shared);
            watched
        }
    };
    (result.unwrap_or_else(|panic| resume_unwind(panic)), known)
}

/// What was seen of the gradients of a step.
pub(super) struct Gradients {
    /// The parameters that have one, in the module's order.
    ids: Vec<ParamId>,
    /// The first that holds a NaN or an infinity.
    bad: Option<String>,
    /// Whether one is so large that its square may be an infinity.
    large: bool,
    /// Whether a step that is sure with small gradients and rates is sure with these.
    are_small: bool,
}

/// Floats of a module, or their gradients, each with the id of its parameter.
#[derive(Default)]
struct Floats(Vec<(ParamId, DispatchTensor)>);

impl Floats {
    fn push<const D: usize>(&mut self, id: ParamId, tensor: Tensor<D>) {
        self.0.push((id, tensor.without_autodiff().into_dispatch()));
    }

    /// The first of them with a magnitude above its bound, or with none.
    fn first_above(&self, most: impl Fn(DType) -> f64) -> Result<Option<ParamId>> {
        let bounded = self.0.iter().map(|(_, tensor)| (tensor, most(tensor.dtype())));
        // All at once: on a GPU, an answer is waited for.
        let above = within(bounded)?.iter().position(|within| !within);
        Ok(above.map(|index| self.0[index].0))
    }

    /// The gradients of the module's parameters, of which each device may have one, the parameters
    /// that have any, and whether the learning rates of these are small.
    fn gradients<M: Module>(
        module: &M,
        grads: Vec<&GradientsParams>,
        rates: &ModuleLearningRate,
    ) -> (Self, Vec<ParamId>, bool) {
        struct Visit<'a> {
            grads: Vec<&'a GradientsParams>,
            rates: &'a ModuleLearningRate,
            /// The path so far, and how long it was before each of its names.
            path: String,
            ends: Vec<usize>,
            found: Floats,
            ids: Vec<ParamId>,
            are_small: bool,
        }
        impl ModuleVisitor for Visit<'_> {
            fn enter_module(&mut self, name: &str, _container: &str) {
                self.ends.push(self.path.len());
                if !self.path.is_empty() {
                    self.path.push('.');
                }
                self.path.push_str(name);
            }
            fn exit_module(&mut self, _name: &str, _container: &str) {
                self.path.truncate(self.ends.pop().unwrap_or(0));
            }
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                let before = self.found.0.len();
                for gradient in self.grads.iter().filter_map(|grads| grads.get::<D>(param.id)) {
                    self.found.push(param.id, gradient);
                }
                if self.found.0.len() > before {
                    self.ids.push(param.id);
                    let rate = self.rates.lr_from_param(param.id, Some(&self.path));
                    self.are_small &= rate.abs() <= LARGEST_RATE;
                }
            }
        }
        let mut visit = Visit {
            are_small: grads.len() == 1,
            grads,
            rates,
            path: String::new(),
            ends: Vec::new(),
            found: Self::default(),
            ids: Vec::new(),
        };
        module.visit(&mut visit);
        (visit.found, visit.ids, visit.are_small)
    }

    /// The module's parameters of these ids, which are in its order.
    fn weights<M: Module>(module: &M, ids: &[ParamId]) -> Self {
        struct Visit<'a> {
            ids: &'a [ParamId],
            /// Those that come next, if the order is still the same.
            next: &'a [ParamId],
            found: Floats,
        }
        impl ModuleVisitor for Visit<'_> {
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                let is_next = self.next.first() == Some(&param.id);
                if is_next || self.ids.contains(&param.id) {
                    self.next = self.next.get(1..).filter(|_| is_next).unwrap_or(self.next);
                    self.found.push(param.id, param.base());
                }
            }
        }
        let mut visit = Visit { ids, next: ids, found: Self::default() };
        module.visit(&mut visit);
        visit.found
    }
}

impl Gradients {
    fn look_at<M: Module>(
        live: &M,
        grads: Vec<&GradientsParams>,
        rates: &ModuleLearningRate,
    ) -> Result<Self> {
        let (gradients, ids, rates_are_small) = Floats::gradients(live, grads, rates);
        let large = gradients.first_above(small)?.is_some();
        let bad = if large { gradients.first_above(|_| f64::MAX)? } else { None };
        let bad = bad.map(|id| format!("the gradient of {}", path(live, id)));
        Ok(Self { ids, bad, large, are_small: rates_are_small && !large })
    }

    /// Whether all weights that had a gradient are known to be small after the step.
    fn are_known_after<M: Module>(&self, live: &M, known: &Known) -> bool {
        if known.is_empty() {
            return false;
        }
        let weights = Floats::weights(live, &self.ids).0;
        weights.len() == self.ids.len() && weights.iter().all(|(_, weight)| known.has(weight))
    }

    /// What of the weights that had a gradient, or of the optimizer, holds a NaN or an infinity
    /// after the step.
    fn first_bad_after<M: Module>(
        &self,
        live: &M,
        optim: &ModuleOptimizer,
    ) -> Result<Option<String>> {
        if let Some(bad) = Floats::weights(live, &self.ids).first_above(|_| f64::MAX)? {
            return Ok(Some(path(live, bad)));
        }
        if !self.large {
            return Ok(None);
        }
        match strict::check_finite(optim.to_record().into_bytes()?) {
            Ok(()) => Ok(None),
            Err(Error::Parameter { path: entry, .. }) => {
                // Such as `123.moment_2`, by the parameter's id.
                let (id, field) = entry.split_once('.').unwrap_or((&entry, "state"));
                let of = id.parse::<u64>().map_or(id.to_owned(), |id| path(live, id.into()));
                Ok(Some(format!("the optimizer's {field} of {of}")))
            }
            Err(error) => Err(error),
        }
    }
}

/// The path of a parameter, for a message.
fn path<M: Module>(live: &M, id: ParamId) -> String {
    path_of(live, id).unwrap_or_else(|| id.to_string())
}

/// Up to here the squares of gradients, and their sums over a training, are finite.
fn small(dtype: DType) -> f64 {
    match dtype {
        DType::F16 => 1.0,
        _ => LARGEST_GRADIENT,
    }
}
