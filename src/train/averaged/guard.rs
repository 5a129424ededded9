//! The guard: it refuses optimizer steps whose gradients are not finite, so that such a step
//! changes nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use burn::{
    backend::DispatchTensor,
    data::dataloader::Progress,
    module::{Module, ModuleVisitor, Param, ParamId},
    optim::GradientsParams,
    tensor::Tensor,
    train::{
        LearnerModel, TrainStep,
        metric::{Adaptor, LossInput, LossMetric, Metric, MetricMetadata, Numeric},
    },
};

use super::clock::StepClock;
use crate::{
    Error, NonFinite, Result,
    average::{Refused, Warning, path_of, put_statistics, statistics},
    kernel::{PendingCheck, within_and},
};

/// A function that returns true if the loss of an output is finite.
type FiniteLoss<M> = Arc<dyn Fn(&<M as TrainStep>::Output) -> bool + Send + Sync>;

/// Decides by a policy which optimizer steps are refused, and counts those for all clones of the
/// hook.
#[derive(Clone)]
pub(super) struct Guard<M: LearnerModel> {
    pub policy: NonFinite,
    /// The paths of live's running states, such as the statistics of batch norms, which a forward
    /// pass changes.
    statistics: Arc<BTreeSet<String>>,
    finite_loss: Option<FiniteLoss<M>>,
    state: Arc<Mutex<State>>,
}

#[derive(Clone, Default)]
struct State {
    refused: Refused,
    /// The warnings that were returned.
    warned: Vec<Warning>,
    /// The number of the latest step with a loss that is not finite; refused steps count too.
    bad_loss: Option<u64>,
    before: Option<StepBackup>,
}

/// A backup of all that the forward passes of a step change: the number of samples and the running
/// states, as they were before the first of these passes.
#[derive(Clone)]
struct StepBackup {
    step: u64,
    samples: u64,
    statistics: BTreeMap<String, DispatchTensor>,
}

impl<M: LearnerModel> Guard<M> {
    pub fn new(statistics: BTreeSet<String>) -> Self {
        let (policy, statistics) = (NonFinite::Auto, Arc::new(statistics));
        Self { policy, statistics, finite_loss: None, state: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No panic leaves the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn is_on(&self) -> bool {
        self.policy != NonFinite::Take
    }

    /// Makes the guard check each loss from now on.
    pub fn look_at_loss(&mut self)
    where
        <M as TrainStep>::Output: Adaptor<LossInput>,
    {
        self.finite_loss = Some(Arc::new(|output| is_finite(&output.adapt())));
    }

    /// An independent copy of the guard.
    pub fn snapshot(&self) -> Self {
        let state = self.lock().clone();
        Self { state: Arc::new(Mutex::new(state)), ..self.clone() }
    }

    /// A guard with the same policy and these refused steps.
    pub fn with_refused(&self, refused: Refused) -> Self {
        let state = State { refused, ..State::default() };
        Self { state: Arc::new(Mutex::new(state)), ..self.clone() }
    }

    pub fn refused(&self) -> Refused {
        self.lock().refused.clone()
    }

    /// The warning about refused steps: at the first call with any, then once they have doubled;
    /// else `None`.
    pub fn take_warning(&self) -> Option<Warning> {
        let mut state = self.lock();
        let (what, step) = state.refused.last.clone()?;
        let warning = Warning::RefusedSteps { count: state.refused.count, what, step };
        let is_new = warning.is_new_after(&state.warned);
        is_new.then(|| {
            state.warned.push(warning.clone());
            warning
        })
    }

    /// Saves the running states and the number of samples before the first forward pass of a
    /// step, so that a refused step can restore them.
    pub fn before_step(&self, live: &M, clock: &StepClock<M>) {
        let step = clock.attempted + 1;
        if !self.is_on() || self.lock().before.as_ref().is_some_and(|b| b.step == step) {
            return;
        }
        let statistics = match self.statistics.is_empty() {
            true => BTreeMap::new(),
            false => statistics(live, &self.statistics),
        };
        let before = StepBackup { step, samples: clock.samples(), statistics };
        self.lock().before = Some(before);
    }

    /// Checks the loss of a forward pass, if that was asked for.
    pub fn after_forward(&self, output: &<M as TrainStep>::Output, clock: &StepClock<M>) {
        if let Some(finite) = &self.finite_loss
            && self.is_on()
            && !finite(output)
        {
            self.lock().bad_loss = Some(clock.attempted + 1);
        }
    }

    /// Checks the gradients of a step before it is made, and reads the result of an earlier check:
    /// for each of its tensors, true if its numbers are within their bound.
    ///
    /// On a GPU this waits for the device, once for both.
    ///
    /// # Errors
    ///
    /// Numbers that cannot be read back.
    pub fn look<'a>(
        &self,
        live: &M,
        grads: impl IntoIterator<Item = &'a GradientsParams>,
        clock: &StepClock<M>,
        earlier: Option<PendingCheck>,
    ) -> Result<(Verdict, Option<Vec<bool>>)> {
        let grads = if self.is_on() { grads.into_iter().collect() } else { Vec::new() };
        let gradients = Gradients::of(live, grads);
        let (bad, earlier) = gradients.first_non_finite(earlier)?;
        let has_bad_loss = self.lock().bad_loss == Some(clock.attempted + 1);
        let verdict = match bad {
            _ if has_bad_loss => Verdict::Refuse { what: "the loss".to_owned() },
            Some(id) => {
                let path = path_of(live, id).unwrap_or_else(|| id.to_string());
                Verdict::Refuse { what: format!("the gradient of {path}") }
            }
            None => Verdict::Step { trained: gradients.trained },
        };
        Ok((verdict, earlier))
    }

    /// Counts a refused step.
    ///
    /// # Errors
    ///
    /// Too many refused steps in a row, by the policy.
    pub fn refuse(&self, what: String, clock: &StepClock<M>) -> Result<()> {
        let step = clock.attempted + 1;
        let refused = &mut self.lock().refused;
        // Replicas refuse the same step, which is counted once.
        if refused.last.as_ref().is_none_or(|(_, last)| *last != step) {
            refused.count += 1;
            refused.in_a_row += 1;
        }
        refused.last = Some((what.clone(), step));
        let in_a_row = refused.in_a_row;
        match self.policy.ends_at(in_a_row) {
            true => Err(Error::RefusedStep { what, step, in_a_row }),
            false => Ok(()),
        }
    }

    /// Ends a row of refused steps, since a step was made.
    pub fn accept(&self) {
        self.lock().refused.in_a_row = 0;
    }

    /// Undoes the changes that the forward passes of a refused step made.
    pub fn restore(&self, live: M, clock: &StepClock<M>) -> M {
        let before = self.lock().before.take().filter(|before| before.step == clock.attempted + 1);
        let Some(before) = before else { return live };
        clock.reset_samples(before.samples);
        match before.statistics.is_empty() {
            true => live,
            false => put_statistics(live, &before.statistics),
        }
    }
}

/// The decision about a step, from its gradients.
pub(super) enum Verdict {
    /// The step is made, and moves the parameters with these ids, in the module's order.
    Step { trained: Vec<ParamId> },
    /// The step is refused, since `what` is not finite.
    Refuse { what: String },
}

/// The gradients of a module's parameters, from the `GradientsParams` of one or several devices. A
/// parameter has as many gradients here as there are devices that computed one.
#[derive(Default)]
struct Gradients<'a> {
    grads: Vec<&'a GradientsParams>,
    /// The parameters that have a gradient, in the module's order.
    trained: Vec<ParamId>,
    found: Vec<(ParamId, DispatchTensor)>,
}

impl<'a> Gradients<'a> {
    fn of<M: Module>(module: &M, grads: Vec<&'a GradientsParams>) -> Self {
        let mut gradients = Self { grads, ..Self::default() };
        if !gradients.grads.is_empty() {
            module.visit(&mut gradients);
        }
        gradients
    }

    /// The first parameter whose gradient is not finite, and the result of an earlier check, as
    /// [`Guard::look`] returns it.
    fn first_non_finite(
        &self,
        earlier: Option<PendingCheck>,
    ) -> Result<(Option<ParamId>, Option<Vec<bool>>)> {
        let bounded: Vec<_> = self.found.iter().map(|(_, grad)| (grad, f64::MAX)).collect();
        let (finite, earlier) = within_and(&bounded, earlier)?;
        let bad = finite.iter().position(|finite| !finite).map(|index| self.found[index].0);
        Ok((bad, earlier))
    }
}

impl ModuleVisitor for Gradients<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let before = self.found.len();
        let gradients = self.grads.iter().filter_map(|grads| grads.get::<D>(param.id));
        let gradients = gradients.map(|grad| (param.id, grad.without_autodiff().into_dispatch()));
        self.found.extend(gradients);
        if self.found.len() > before {
            self.trained.push(param.id);
        }
    }
}

/// True if the mean of a loss is finite.
fn is_finite(loss: &LossInput) -> bool {
    let mut mean = LossMetric::new();
    let nothing = MetricMetadata { progress: Progress::new(0, 0, None), iteration: None, lr: None };
    // A loss that cannot be read is not finite.
    let read = mean.update(loss, &nothing).is_ok();
    read && mean.value().is_some_and(|value| value.current().is_finite())
}
