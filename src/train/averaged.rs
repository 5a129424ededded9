//! The hook: a live module with its averages, as one module for Burn's Learner.

mod clock; // the steps and samples that it has seen
mod guard; // the steps that it refuses
mod handle; // its averages, which its clones share
mod module; // Burn's `Module`
mod options; // its other settings
mod record; // its records
#[cfg(feature = "runs")]
mod run; // what a training that commits asks of it
mod step; // Burn's step traits
mod validation; // the modules that answer in validation, and metrics beside them

use std::fmt;

use burn::{
    tensor::Device,
    train::{
        Interrupter, LearnerModel, TrainStep,
        metric::{Adaptor, LossInput, Metric, Numeric},
    },
};

use self::{
    clock::StepClock,
    guard::Guard,
    handle::Handle,
    options::Options,
    validation::{Output, Validation},
};
use super::{
    gauge::{DistanceMetric, Gap},
    metric::SourceMetric,
    trace::TraceMetric,
};
use crate::{
    Average, AverageConfig, Error, Result,
    average::{NonFinite, Refused, Snapshots, Warning},
};

pub use self::options::Switch;
#[cfg(feature = "runs")]
pub use self::run::AveragedCommit;

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
/// // In training mode, as Burn wants it; `runs::fit` sees to that by itself.
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
/// Gradients are looked at before each step.
/// A step whose gradients hold a NaN or an infinity changes nothing: not live, its batch norms'
/// statistics included, not the optimizer's state, not the averages, not the numbers of steps and
/// samples.
/// The learning rate goes on, since Burn moves it before the step.
/// Refused steps are [counted](Self::refused_steps), and an error once three in a row were, or
/// what [`with_non_finite`](Self::with_non_finite) says; nothing changes any more then.
///
/// - Any other step is made in place, by live's `optimize`, with no copy of live or the optimizer.
/// - Weights that hold a NaN or an infinity after it are an [error](Error::Weights) that names the
///   parameter and ends the training: live cannot be put back, the averages are as they were after
///   the step before, and [commits](crate::runs) hold no such number.
/// - Parameters without a gradient may hold anything, such as a mask of minus infinities; the
///   averages have a guard of their own, see [`NonFinite`].
/// - A loss is looked at [if asked for](Self::with_loss_guard): mostly its gradients show it.
/// - Statistics are put back to those before the first [`step`](TrainStep::step) since the last
///   `optimize`.
///
/// # Errors in a step
///
/// `optimize` can only return the module.
/// The first error of an update stops all updates and is kept, see [`error`](Self::error); it
/// stops the training if the hook has its [`Interrupter`](Self::with_interrupter), and
/// [`runs::fit`](crate::runs::fit) returns it.
/// An error is a module whose parameters changed under its averages, a step back, a NaN or an
/// infinity too often in a row (in steps or in updates), a function of a rule of yours that gives no decay, and a snapshot
/// that cannot be written (the averages are updated then).
/// Averages that no longer fit live panic when they are to answer a batch of validation.
#[derive(Clone)]
pub struct Averaged<M: LearnerModel> {
    live: M,
    clock: StepClock<M>,
    averages: Handle<M>,
    guard: Guard<M>,
    validation: Validation<M>,
    options: Options,
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
            guard: Guard::new(averages[0].has_statistics()),
            live,
            clock: StepClock::default(),
            averages: Handle::new(averages),
            validation: Validation::default(),
            options: Options::default(),
        })
    }

    /// The interrupter to fail with the first error of an update, so that the training stops.
    pub fn with_interrupter(mut self, interrupter: Interrupter) -> Self {
        self.options.interrupter = Some(interrupter);
        self
    }

    /// Sets the policy for an optimizer step whose gradients hold a NaN or an infinity; by default
    /// three in a row are an error. See [above](Self#refused-steps).
    ///
    /// Except under [`NonFinite::Take`], such a number in the updated weights is an error at once.
    ///
    /// # Errors
    ///
    /// A limit of 0.
    pub fn with_non_finite(mut self, policy: NonFinite) -> Result<Self> {
        if policy == (NonFinite::Skip { limit: 0 }) {
            let what = "the limit of steps that are refused in a row";
            return Err(Error::value(what, "1 or more", 0));
        }
        self.guard.policy = policy;
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
        self.guard.look_at_loss();
        self
    }

    /// Counts the samples of each batch, for averages whose time runs in samples.
    ///
    /// Otherwise a step has `samples_per_step` of them.
    pub fn with_samples(
        mut self,
        of: impl Fn(&<M as TrainStep>::Input) -> u64 + Send + Sync + 'static,
    ) -> Self {
        self.clock.count_by(of);
        self
    }

    /// Copies the first average back into live from time to time.
    ///
    /// # Errors
    ///
    /// No step from one time to the next; a share outside its range.
    pub fn with_switch(mut self, switch: Switch) -> Result<Self> {
        self.options.switch = Some(switch.check()?);
        Ok(self)
    }

    /// Copies the first average back into live after every so many epochs, of the
    /// `steps_per_epoch` that the average's configuration says (Li et al. 2024: after each).
    ///
    /// # Errors
    ///
    /// No `steps_per_epoch`; no epoch from one time to the next; a share outside its range.
    pub fn with_switch_at_epochs(self, epochs: u64, share: f64) -> Result<Self> {
        let steps = self.averages.average(0)?.config().steps_per_epoch;
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
    /// checkpoint's: they are from before the training returned to it.
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
        self.averages.store_in(snapshots, every, self.steps());
        Ok(self)
    }

    /// Sets whether a record may lack an average of this module, which then starts at the record's
    /// live weights. By default that is an error.
    pub fn allow_added(mut self, allow: bool) -> Self {
        self.options.allow_added = allow;
        self
    }

    /// Sets whether a record may hold an average that this module does not have, which is then
    /// dropped. By default that is an error.
    pub fn allow_dropped(mut self, allow: bool) -> Self {
        self.options.allow_dropped = allow;
        self
    }

    /// Moves the average of this index to a device, where it stays; see [`Average::keep_on`].
    ///
    /// The modules that are made of it are on live's device all the same.
    ///
    /// # Errors
    ///
    /// No average of this index.
    pub fn keep_average_on(self, index: usize, device: &Device) -> Result<Self> {
        let average = self.averages.average(index)?.keep_on(device);
        let mut averages = self.averages();
        averages[index] = average;
        Ok(Self { averages: self.averages.with(averages), ..self })
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
        self.averages.average(index)?.module_like(&self.live)
    }

    /// A copy of the averages with their numbers; it shares the weights until an update.
    pub fn averages(&self) -> Vec<Average<M>> {
        self.averages.averages()
    }

    /// The names of the averages, in their order.
    pub fn names(&self) -> Vec<String> {
        self.averages.names()
    }

    /// The optimizer steps so far, without those that were refused.
    pub fn steps(&self) -> u64 {
        self.clock.steps
    }

    /// The optimizer steps that were [refused](Self#refused-steps).
    ///
    /// The number of the last one counts those that were refused too, as the schedule of the
    /// learning rate does.
    pub fn refused_steps(&self) -> Refused {
        self.guard.refused()
    }

    /// The samples so far, where they are [counted](Self::with_samples).
    pub fn samples(&self) -> u64 {
        self.clock.samples()
    }

    /// The warnings about the averages and about refused steps, each returned once: see
    /// [`Average::warnings`](crate::Average::warnings).
    pub fn take_warnings(&self) -> Vec<Warning> {
        self.averages.take_warnings().into_iter().chain(self.guard.take_warning()).collect()
    }

    /// The first error of an update; after it the averages are not updated any more.
    pub fn error(&self) -> Option<Error> {
        self.averages.error()
    }

    /// A metric of the live module's answers in validation, beside the average's.
    ///
    /// Its name is that of `metric` with the source in brackets: `Loss (live)`.
    /// Register it for validation only:
    /// `training.metric_valid_numeric(model.live_metric(LossMetric::new()))`.
    /// The module then answers every batch of validation once more.
    pub fn live_metric<Me: Metric>(&self, metric: Me) -> SourceMetric<Me, Output<M>>
    where
        Output<M>: Adaptor<Me::Input>,
    {
        self.validation.live_metric(metric)
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
    ) -> Result<SourceMetric<Me, Output<M>>>
    where
        Output<M>: Adaptor<Me::Input>,
    {
        let average = self.averages.average(index)?;
        Ok(self.validation.average_metric(index, average.name(), metric))
    }

    /// A metric of the gap between live and the average, such as that of their losses:
    /// `Loss gap (live - average)`.
    ///
    /// Register it for validation only, as [`live_metric`](Self::live_metric).
    pub fn gap_metric<Me: Metric + Numeric>(&self, metric: Me) -> Gap<Me, Output<M>>
    where
        Output<M>: Adaptor<Me::Input>,
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
        let average = self.averages.average(index)?;
        Ok(self.validation.distance_metric(index, average.name()))
    }

    /// A metric in words of a few weights, live's and each average's, for the history of a run.
    ///
    /// Register it for training: `training.metric_train(model.trace_metric())`.
    pub fn trace_metric(&self) -> TraceMetric {
        self.validation.trace_metric()
    }
}

impl<M: LearnerModel> fmt::Debug for Averaged<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Averaged")
            .field("live", &self.live)
            .field("step", &self.steps())
            .field("averages", &self.names())
            .finish_non_exhaustive()
    }
}

impl<M: LearnerModel> fmt::Display for Averaged<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\naverages: {}", self.live, self.names().join(", "))
    }
}

#[cfg(test)]
mod fuzz;
#[cfg(all(test, feature = "wgpu"))]
mod gpu_tests;
