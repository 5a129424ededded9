//! The hook: a live module with its averages, as one module for Burn's Learner.

mod guard; // which of its steps are refused
mod learner; // what Burn's Learner does with it
mod record; // what a record holds of it

pub(super) use record::clock_in;

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use burn::{
    module::{Module, ParamId},
    tensor::Device,
    train::{
        InferenceStep, Interrupter, LearnerModel, TrainStep,
        metric::{Adaptor, LossInput, Metric, Numeric},
    },
};

use self::guard::{Guard, is_finite};
use super::{
    gauge::{DistanceMetric, Gap, Gauges},
    metric::{Beside, Feeds, Source},
    trace::{TraceMetric, Traces},
};
use crate::{
    Average, AverageConfig, Error, Result,
    average::{Late, NonFinite, Refused, Snapshots, Warning},
};

/// A live module with its averages: itself a model for Burn's `Learner`.
///
/// Training steps the live module, through its own `optimize`, and then updates every average
/// once, whatever the strategy and however many micro-batches were accumulated.
/// Validation, and Burn's `Evaluator`, are answered by the first average; see
/// [`live_metric`](Self::live_metric) for the others.
///
/// ```no_run
/// # use burn::{lr_scheduler::constant::ConstantLr, module::Module, optim::SgdConfig, train::Learner};
/// # use burn_ema::{AverageConfig, Rule, model::MlpConfig, train::Averaged};
/// # fn main() -> burn_ema::Result<()> {
/// let device = Default::default();
/// let live = MlpConfig::new(vec![64, 32, 10]).init(&device)?;
/// let model = Averaged::new(live, [AverageConfig::new(Rule::ema(0.99))])?;
/// // In training mode, as Burn wants it; `fit` sees to that by itself.
/// let learner = Learner::new(model.train(), SgdConfig::new().init(), ConstantLr::new(0.5));
/// # let _ = learner;
/// # Ok(())
/// # }
/// ```
///
/// # What is shared
///
/// The averages live behind one handle that `clone` and `fork` share, so that the Learner's copy
/// of its model at every step copies no weights.
/// A clone is therefore no backup of the averages: `valid().train()` is one.
/// They are locked while a step is made that [moves](crate::optim#with-averages) them: live's
/// `optimize` must not use a clone of the hook, nor wait for a thread that does, and jobs of one
/// rayon pool must not train clones of one hook.
/// An average follows live to other devices at its next update, or
/// [stays](Self::keep_average_on) on one.
///
/// # What Burn sees
///
/// `visit` and `map`, and with them optimizers, `num_params`, freezing and LoRA, see the live
/// module alone.
/// Records (`into_record`, `try_load_record`, `save_file`) hold everything: live under `live.`,
/// each average under `averages.NAME.`.
/// A struct of yours that contains an `Averaged` and derives `Module` goes by `visit`, and so
/// does burn-store: both save live alone.
/// For a plain record of an average, save [`average(0)`](Self::average).
///
/// A record is loaded whole or not at all, whatever options it was given (`allow_partial`,
/// `cast_to_module_dtype`), since live and averages must agree.
/// Live's batch-norm statistics are shared by clones, as Burn's are, and so is what a load puts
/// there.
///
/// # Refused steps
///
/// A step whose gradients or updated weights hold a NaN or an infinity changes nothing: not live,
/// its batch norms' statistics included, not the optimizer's state, not the averages, not the
/// numbers of steps and samples.
/// The learning rate goes on, since Burn moves it before the step.
/// The steps are [counted](Self::refused_steps), and an error once three in a row were, or what
/// [`with_non_finite`](Self::with_non_finite) says; nothing changes any more then.
///
/// - Live's `optimize` runs on a copy of live and of the optimizer. What it changes beside them is
///   not put back. Until the step is kept, the optimizer's state and the weights are in memory as
///   they were and as they become.
/// - A step of an [optimizer of ours](crate::optim) without clipping is made in place, with no
///   copy, where it is known before to be finite: from the numbers that came of the step before,
///   with gradients up to 10^9 and rates up to 10^3. Should it not be so after all, since `optimize`
///   does more, or this is another optimizer or one with another state than in the step before, that
///   is an error at once, and live is not put back; the averages are as they were.
/// - Looked at are the parameters that have a gradient, all at once.
///   The others may hold what they like, such as a mask of minus infinities; the averages have a
///   guard of their own, see [`NonFinite`].
/// - The optimizer's state is looked at where a gradient is so large (above 10^9; above 1 in f16)
///   that its square, or a sum of such, could be an infinity.
///   An infinity that came into it otherwise shows in the weights, but for a second moment, by
///   which Adam divides: it holds its weight still, and no commit takes it.
/// - A loss is looked at [if asked for](Self::with_loss_guard): mostly its gradients tell.
/// - Statistics are put back to those before the first [`step`](TrainStep::step) since the last
///   `optimize`.
///
/// # Errors in a step
///
/// `optimize` can only return the module.
/// The first error of an update stops all updates and is kept, see [`error`](Self::error); it
/// stops the training if the hook has its [`Interrupter`](Self::with_interrupter), and
/// [`fit`](super::fit) returns it.
/// An error is a module whose parameters changed under its averages, a step back, a NaN or an
/// infinity too often in a row (in steps or in updates), a function of a rule of yours that gives no decay, and a snapshot
/// that cannot be written (the averages are updated then).
/// Averages that no longer fit live cannot answer, and say so in a panic.
pub struct Averaged<M: LearnerModel> {
    live: M,
    /// The optimizer steps of this clone, so that replicas which share the handle count one once.
    step: u64,
    /// The same, with those that were refused.
    tried: u64,
    /// The samples that all clones have seen, if they are counted.
    samples: Arc<AtomicU64>,
    count: Option<Count<M>>,
    switch: Option<Switch>,
    snapshots: Option<Storing>,
    shared: Arc<Mutex<Shared<M>>>,
    feeds: Feeds<Answer<M>>,
    gauges: Gauges,
    traces: Traces,
    /// What answers in validation mode, without a lock.
    answering: Option<Box<Answering<M>>>,
    interrupter: Option<Interrupter>,
    /// The parameters from whose weights and moments the next step is known to be finite.
    sure: Option<Arc<Vec<ParamId>>>,
    non_finite: NonFinite,
    finite_loss: Option<FiniteLoss<M>>,
    allow_added: bool,
    allow_dropped: bool,
}

/// Whether the loss of an output is finite.
type FiniteLoss<M> = Arc<dyn Fn(&<M as TrainStep>::Output) -> bool + Send + Sync>;

/// What a model answers in validation.
type Answer<M> = <M as InferenceStep>::Output;

/// The number of samples in a batch.
type Count<M> = Arc<dyn Fn(&<M as TrainStep>::Input) -> u64 + Send + Sync>;

/// When the average is copied back into live (Li et al. 2024, "Switch EMA").
///
/// The optimizer's state and the average stay as they are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Switch {
    /// The steps from one time to the next: those of an epoch for the published form.
    pub every: u64,
    /// The share of the way to the average that live goes, in `(0, 1]`; 1 copies the average.
    pub share: f64,
}

/// Where and how often averages are stored.
#[derive(Clone)]
struct Storing {
    snapshots: Snapshots,
    every: u64,
    /// The last optimizer step, from which the next one differs by more than 1 after a load.
    last: u64,
}

/// What the clones of an [`Averaged`] share.
#[derive(Clone)]
struct Shared<M: Module> {
    averages: Vec<Average<M>>,
    /// What is left of their last update; done with the next step, or before anyone looks.
    late: Late,
    error: Option<Error>,
    guard: Guard,
}

impl<M: Module> Shared<M> {
    fn new(averages: Vec<Average<M>>, guard: Guard) -> Self {
        Self { averages, late: Late::default(), error: None, guard }
    }

    fn lock(shared: &Mutex<Self>) -> MutexGuard<'_, Self> {
        shared.lock().unwrap_or_else(|poisoned| {
            let mut shared = poisoned.into_inner();
            shared.error.get_or_insert(Error::Poisoned);
            shared
        })
    }
}

/// The modules of a validation snapshot.
#[derive(Clone)]
struct Answering<M> {
    first: M,
    /// The other averages, where a metric asks for them.
    others: Vec<(Source, M)>,
    /// Whether it has answered a batch before.
    begun: Arc<AtomicBool>,
}

impl<M: Module> Answering<M> {
    fn map(self, mut map: impl FnMut(M) -> M) -> Self {
        let others = self.others.into_iter().map(|(source, module)| (source, map(module)));
        Self { others: others.collect(), first: map(self.first), begun: self.begun }
    }
}

impl<M: LearnerModel> Averaged<M> {
    /// The module with averages that start at its weights.
    ///
    /// To go on from a plain record, load it into the module before.
    ///
    /// Parameters that are not initialised yet are initialised by this, in the module's order;
    /// under a seed, a module that uses them in another order starts from other weights than
    /// without the averages.
    ///
    /// # Errors
    ///
    /// No average; two of one name, or one named `live`; and those of [`AverageConfig::init`].
    pub fn new(live: M, averages: impl IntoIterator<Item = AverageConfig>) -> Result<Self> {
        let averages =
            averages.into_iter().map(|config| config.init(&live)).collect::<Result<Vec<_>>>()?;
        if averages.is_empty() {
            return Err(Error::value("the list of averages", "at least one", "none"));
        }
        for (index, average) in averages.iter().enumerate() {
            let taken = averages[..index].iter().any(|other| other.name() == average.name());
            if taken || average.name() == "live" {
                let expected = "a name of its own, other than `live`";
                let found = average.name().to_owned() + if taken { " again" } else { "" };
                return Err(Error::value("the name of an average", expected, found));
            }
        }
        Ok(Self {
            live,
            step: 0,
            tried: 0,
            samples: Arc::default(),
            count: None,
            switch: None,
            snapshots: None,
            shared: Arc::new(Mutex::new(Shared::new(averages, Guard::default()))),
            feeds: Feeds::default(),
            gauges: Gauges::default(),
            traces: Traces::default(),
            answering: None,
            interrupter: None,
            sure: None,
            non_finite: NonFinite::Skip { limit: 3 },
            finite_loss: None,
            allow_added: false,
            allow_dropped: false,
        })
    }

    /// The interrupter to fail with the first error of an update, so that the training stops.
    pub fn with_interrupter(mut self, interrupter: Interrupter) -> Self {
        self.interrupter = Some(interrupter);
        self
    }

    /// What is done with an optimizer step whose gradients, or whose updated weights, hold a NaN or
    /// an infinity; by default three in a row are an error. See [above](Self#refused-steps).
    ///
    /// # Errors
    ///
    /// A limit of 0.
    pub fn with_non_finite(mut self, policy: NonFinite) -> Result<Self> {
        if policy == (NonFinite::Skip { limit: 0 }) {
            let what = "the limit of steps that are refused in a row";
            return Err(Error::value(what, "1 or more", 0));
        }
        self.non_finite = policy;
        Ok(self)
    }

    /// Refuses also the steps of which a loss is a NaN or an infinity though all gradients are
    /// finite; of an accumulated step, any loss.
    ///
    /// Each loss is read back, for which a GPU is waited for at every batch.
    pub fn with_loss_guard(mut self) -> Self
    where
        <M as TrainStep>::Output: Adaptor<LossInput>,
    {
        self.finite_loss = Some(Arc::new(|output| is_finite(&output.adapt())));
        self
    }

    /// Counts the samples of each batch, for averages whose time runs in samples.
    ///
    /// Otherwise a step has `samples_per_step` of them.
    pub fn with_samples(
        mut self,
        of: impl Fn(&<M as TrainStep>::Input) -> u64 + Send + Sync + 'static,
    ) -> Self {
        self.count = Some(Arc::new(of));
        self
    }

    /// Copies the first average back into live from time to time.
    ///
    /// # Errors
    ///
    /// No step from one time to the next; a share outside its range.
    pub fn with_switch(mut self, switch: Switch) -> Result<Self> {
        if switch.every == 0 {
            return Err(Error::value("the steps from switch to switch", "1 or more", 0));
        }
        if !(switch.share > 0.0 && switch.share <= 1.0) {
            let found = switch.share;
            return Err(Error::value("the share of the average", "a number in (0, 1]", found));
        }
        self.switch = Some(switch);
        Ok(self)
    }

    /// Copies the first average back into live after every so many epochs, of the
    /// `steps_per_epoch` that the average's configuration says (Li et al. 2024: after each).
    ///
    /// # Errors
    ///
    /// No `steps_per_epoch`; no epoch from one time to the next; a share outside its range.
    pub fn with_switch_at_epochs(self, epochs: u64, share: f64) -> Result<Self> {
        let steps = self.lock().averages[0].config().steps_per_epoch;
        let Some(steps) = steps else {
            let expected = "a number of 1 or more, for a switch at epochs";
            return Err(Error::value("steps_per_epoch", expected, "none"));
        };
        self.with_switch(Switch { every: steps.saturating_mul(epochs), share })
    }

    /// Stores the averages by power functions every so many steps, from which the average of any
    /// width can be made afterwards: see [`Snapshots`].
    ///
    /// The first step after a checkpoint is loaded removes all snapshots of later steps than the
    /// checkpoint's: they are of a course that was given up.
    ///
    /// # Errors
    ///
    /// No step from one time to the next; no average that can be stored, or one that cannot be
    /// stored since paths have other rules; one that starts at another step than the first, has
    /// another policy for a path, or has the profile of another.
    pub fn with_snapshots(mut self, snapshots: Snapshots, every: u64) -> Result<Self> {
        if every == 0 {
            return Err(Error::value("the steps from snapshot to snapshot", "1 or more", 0));
        }
        let averages = self.averages();
        let stored = averages.iter().filter(|average| Snapshots::takes(average.rule()));
        let stored: Vec<_> = stored.collect();
        if stored.is_empty() {
            let expected = "one by a power function, such as power(sigma_rel=0.05)";
            return Err(Error::value("the averages to store", expected, self.names().join(", ")));
        }
        Snapshots::check(&stored)?;
        self.snapshots = Some(Storing { snapshots, every, last: self.step });
        Ok(self)
    }

    /// Whether a record may lack an average of this module, which then starts at the live
    /// weights of the record. Otherwise, and by default, that is an error.
    pub fn allow_added(mut self, allow: bool) -> Self {
        self.allow_added = allow;
        self
    }

    /// Whether a record may hold an average that this module has not, which is then dropped.
    /// Otherwise, and by default, that is an error.
    pub fn allow_dropped(mut self, allow: bool) -> Self {
        self.allow_dropped = allow;
        self
    }

    /// Moves the average of this index to a device, where it stays; see [`Average::keep_on`].
    ///
    /// What is handed out or validated is on live's device all the same.
    ///
    /// # Errors
    ///
    /// No average of this index.
    pub fn keep_average_on(self, index: usize, device: &Device) -> Result<Self> {
        let mut averages = self.averages();
        let count = averages.len();
        let average = averages.get_mut(index).ok_or_else(|| no_average(count, index))?;
        *average = average.clone().keep_on(device);
        Ok(self.with_averages(averages))
    }

    /// The live module.
    pub fn live(&self) -> &M {
        &self.live
    }

    /// The average of this index, as an owned plain module in validation mode, in live's dtype
    /// and on its devices.
    ///
    /// # Errors
    ///
    /// No average of this index; live's parameters are no longer those of the average.
    pub fn average(&self, index: usize) -> Result<M> {
        let shared = self.lock();
        let count = shared.averages.len();
        let average = shared.averages.get(index).ok_or_else(|| no_average(count, index))?;
        average.module_like(&self.live)
    }

    /// A copy of the averages with their numbers; it shares the weights until an update.
    pub fn averages(&self) -> Vec<Average<M>> {
        self.lock().averages.clone()
    }

    /// The names of the averages, in their order.
    pub fn names(&self) -> Vec<String> {
        self.lock_as_is().averages.iter().map(|average| average.name().to_owned()).collect()
    }

    /// The optimizer steps so far, without those that were refused.
    pub fn steps(&self) -> u64 {
        self.step
    }

    /// The optimizer steps that were [refused](Self#refused-steps).
    ///
    /// The number of the last one counts those that were refused too, as the schedule of the
    /// learning rate does.
    pub fn refused_steps(&self) -> Refused {
        self.lock_as_is().guard.refused.clone()
    }

    /// The samples so far, where they are [counted](Self::with_samples).
    pub fn samples(&self) -> u64 {
        self.samples.load(Ordering::Relaxed)
    }

    /// What the user should know of the averages, and of refused steps, each once: see
    /// [`Average::warnings`](crate::Average::warnings).
    pub fn take_warnings(&self) -> Vec<Warning> {
        let Shared { averages, guard, .. } = &mut *self.lock();
        averages.iter_mut().flat_map(Average::take_warnings).chain(guard.take_warning()).collect()
    }

    /// The first error of an update, after which the averages stand still.
    pub fn error(&self) -> Option<Error> {
        self.lock_as_is().error.clone()
    }

    /// A metric of the live module's answers in validation, beside the average's.
    ///
    /// It is called as the metric is, with the source in brackets: `Loss (live)`.
    /// Register it for validation only:
    /// `training.metric_valid_numeric(model.live_metric(LossMetric::new()))`.
    /// The module then answers every batch of validation once more.
    pub fn live_metric<Me: Metric>(&self, metric: Me) -> Beside<Me, Answer<M>>
    where
        Answer<M>: Adaptor<Me::Input>,
    {
        self.feeds.subscribe(Source::Live, "live", metric)
    }

    /// A metric of the answers of the average of this index, as [`live_metric`](Self::live_metric)
    /// for live: `Loss (ema(0.999))`.
    ///
    /// The first average has the plain metrics already.
    ///
    /// # Errors
    ///
    /// No average of this index.
    pub fn average_metric<Me: Metric>(
        &self,
        index: usize,
        metric: Me,
    ) -> Result<Beside<Me, Answer<M>>>
    where
        Answer<M>: Adaptor<Me::Input>,
    {
        let names = self.names();
        let name = names.get(index).ok_or_else(|| no_average(names.len(), index))?;
        Ok(self.feeds.subscribe(Source::Average(index), name, metric))
    }

    /// A metric of the gap between live and the average, such as that of their losses:
    /// `Loss gap (live - average)`.
    ///
    /// Register it for validation only, as [`live_metric`](Self::live_metric).
    pub fn gap_metric<Me: Metric + Numeric>(&self, metric: Me) -> Gap<Me, Answer<M>>
    where
        Answer<M>: Adaptor<Me::Input>,
    {
        Gap::new(metric.clone(), self.live_metric(metric))
    }

    /// A metric of the distance of live's weights from the average of this index, as a share of
    /// the average's norm: `Distance (ema(0.999))`.
    ///
    /// Register it for validation only; it is measured when a validation begins.
    ///
    /// # Errors
    ///
    /// No average of this index.
    pub fn distance_metric(&self, index: usize) -> Result<DistanceMetric> {
        let names = self.names();
        let name = names.get(index).ok_or_else(|| no_average(names.len(), index))?;
        Ok(self.gauges.subscribe(index, name))
    }

    /// A metric in words of a few weights, live's and each average's, for the history of a run.
    ///
    /// Register it for training: `training.metric_train(model.trace_metric())`.
    pub fn trace_metric(&self) -> TraceMetric {
        self.traces.subscribe()
    }

    /// The averages. No guard leaves this module.
    fn lock(&self) -> MutexGuard<'_, Shared<M>> {
        let mut shared = self.lock_as_is();
        let Shared { averages, late, .. } = &mut *shared;
        late.finish(averages);
        shared
    }

    /// The same, of which the last update may not be finished.
    fn lock_as_is(&self) -> MutexGuard<'_, Shared<M>> {
        Shared::lock(&self.shared)
    }

    /// Maps live alone; what answered before no longer fits it.
    fn map_live(self, map: impl FnOnce(M) -> M) -> Self {
        Self { live: map(self.live), answering: None, sure: None, ..self }
    }

    /// Replaces the averages by a new handle.
    fn with_averages(self, averages: Vec<Average<M>>) -> Self {
        let shared = Shared { averages, ..self.lock().clone() };
        Self { shared: Arc::new(Mutex::new(shared)), ..self }
    }
}

/// The error of an index that no average has.
fn no_average(count: usize, index: usize) -> Error {
    Error::value("the index of an average", format!("a number below {count}"), index)
}

impl<M: LearnerModel> Clone for Averaged<M> {
    fn clone(&self) -> Self {
        Self {
            live: self.live.clone(),
            step: self.step,
            tried: self.tried,
            samples: self.samples.clone(),
            count: self.count.clone(),
            switch: self.switch,
            snapshots: self.snapshots.clone(),
            shared: self.shared.clone(),
            feeds: self.feeds.clone(),
            gauges: self.gauges.clone(),
            traces: self.traces.clone(),
            answering: self.answering.clone(),
            interrupter: self.interrupter.clone(),
            sure: self.sure.clone(),
            non_finite: self.non_finite,
            finite_loss: self.finite_loss.clone(),
            allow_added: self.allow_added,
            allow_dropped: self.allow_dropped,
        }
    }
}

impl<M: LearnerModel> fmt::Debug for Averaged<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Averaged")
            .field("live", &self.live)
            .field("step", &self.step)
            .field("averages", &self.names())
            .finish_non_exhaustive()
    }
}

impl<M: LearnerModel> fmt::Display for Averaged<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\naverages: {}", self.live, self.names().join(", "))
    }
}
