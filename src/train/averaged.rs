//! The hook: a live module with its averages, as one module for Burn's Learner.

mod change; // whether a traversal has changed live
mod clock; // the steps and samples that the hook has seen
mod display; // how it is shown
mod guard; // which steps it refuses
mod handle; // its averages, which its clones share
mod module; // Burn's `Module` for it
mod options; // its other settings
mod record; // its records
#[cfg(feature = "runs")]
mod run; // `RunModel` for it, for trainings that commit
mod step; // Burn's step traits for it
mod teacher; // the average that live learns from
mod validation; // the modules that compute outputs in validation, and their metrics

use std::sync::Arc;

use burn::{
    tensor::Device,
    train::{
        Interrupter, LearnerModel, TrainOutput, TrainStep,
        metric::{Adaptor, LossInput, Metric, Numeric},
    },
};

use self::{
    clock::StepClock,
    guard::Guard,
    handle::Handle,
    options::Options,
    teacher::Teacher,
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

/// A live module together with its averages, which is itself a model for Burn's `Learner`.
///
/// An optimizer step calls live's own `optimize`, and then updates every average once. This holds
/// for every training strategy and for any number of accumulated micro-batches.
/// In validation and in Burn's `Evaluator`, the first average computes the outputs; see
/// [`live_metric`](Self::live_metric) and [`average_metric`](Self::average_metric) for metrics of
/// live and of the other averages.
///
/// ```no_run
/// # use burn::{lr_scheduler::constant::ConstantLr, module::Module, optim::SgdConfig, train::Learner};
/// # use burn_ema::{AverageConfig, Rule, model::MlpConfig, train::Averaged};
/// # fn main() -> burn_ema::Result<()> {
/// let device = Default::default();
/// let live = MlpConfig::new(vec![64, 32, 10]).init(&device)?;
/// let model = Averaged::new(live, [AverageConfig::new(Rule::ema(0.99))])?;
/// // `train()`, since Burn expects a model in training mode; `runs::fit` calls it by itself.
/// let learner = Learner::new(model.train(), SgdConfig::new().init(), ConstantLr::new(0.5));
/// # let _ = learner;
/// # Ok(())
/// # }
/// ```
///
/// # What is shared
///
/// The averages are behind a handle, which `clone` and `fork` share, so that the Learner's copy
/// of its model at every step copies no weights.
/// A clone is therefore no backup of the averages; `valid().train()` is an independent copy.
/// Loading a record, `materialize` and [`keep_average_on`](Self::keep_average_on) make a new
/// handle. The clones from before keep the old one: once the new averages have seen later steps,
/// [`average`](Self::average) refuses the old ones, and [`take_warnings`](Self::take_warnings)
/// returns a warning.
/// When live moves to another device, an average moves there at its next update, unless it
/// [stays](Self::keep_average_on) on a device.
///
/// # What Burn sees
///
/// `visit` and `map` go through the live module alone. So optimizers, `num_params`, freezing and
/// LoRA, which use them, see no average.
/// An optimizer that steps an `Averaged` as a plain module therefore moves live past its averages.
/// After the second such change without an update, `average` returns an
/// [error](Error::Bypassed), validation panics with it, and the
/// [interrupter](Self::with_interrupter) stops the training.
/// At the next `optimize` the averages take in all these changes.
/// [`take_warnings`](Self::take_warnings) reports their number, since a single change may be
/// intended, such as a clip of the weights after each step.
/// A loop of your own calls `optimize` for each step, as Burn's does:
///
/// ```
/// # use burn::{module::Module, optim::{GradientsParams, ModuleOptimizer, SgdConfig}, tensor::{Device, Tensor}};
/// # use burn::train::TrainStep;
/// # use burn_ema::{AverageConfig, Rule, model::MlpConfig, train::Averaged};
/// # let device = Device::default();
/// # let live = MlpConfig::new(vec![2, 3, 1]).init(&device)?;
/// # let mut averaged = Averaged::new(live, [AverageConfig::new(Rule::ema(0.99))])?.train();
/// # let mut optimizer: ModuleOptimizer = SgdConfig::new().init();
/// # let input = Tensor::<2>::ones([4, 2], &device.autodiff());
/// let output = averaged.live().forward(input);
/// let loss = output.powi_scalar(2).mean();
/// let grads = GradientsParams::from_grads(loss.backward(), &averaged);
/// averaged = averaged.optimize(&mut optimizer, 0.1.into(), grads);
/// assert_eq!(averaged.steps(), 1);
/// # Ok::<_, burn_ema::Error>(())
/// ```
///
/// Where `Averaged` is a field of a module of yours, that module's `optimize` and `optimize_multi`
/// must call those of the field.
///
/// Records (`into_record`, `try_load_record`, `save_file`) hold everything: live under `live.`,
/// each average under `averages.NAME.`.
/// A struct of yours that contains an `Averaged` and derives `Module` saves live alone, and so
/// does burn-store: both use `visit`.
/// For a plain record of an average, save [`average(0)`](Self::average).
///
/// A record is loaded whole or not at all, even with the options `allow_partial` and
/// `cast_to_module_dtype`, since live and averages must agree.
/// As in any Burn module, clones share live's batch-norm statistics, so a load changes them in the
/// clones too.
///
/// # Refused steps
///
/// The gradients are checked before each step.
/// A step whose gradients hold a NaN or an infinity is refused and changes nothing: not live, nor
/// the statistics of its batch norms, not the optimizer's state, not the averages, not the numbers
/// of steps and samples.
/// Only the learning rate goes on, since Burn changes it before the step.
/// Refused steps are [counted](Self::refused_steps). The third in a row is an error, unless
/// [`with_non_finite`](Self::with_non_finite) sets another policy; after that error no step changes
/// anything.
///
/// - Any other step is made in place, by live's `optimize`, without a copy of live or of the
///   optimizer.
/// - Weights that hold a NaN or an infinity after a step are an [error](Error::Weights), which
///   names the parameter and ends the training. Live cannot be restored then; the averages are as
///   they were after the step before, and [commits](crate::runs) hold no such number.
/// - Parameters without a gradient may hold anything, such as a mask of minus infinities. The
///   averages have a check of their own, see [`NonFinite`].
/// - The loss is checked only [if asked for](Self::with_loss_guard): if it is not finite, the
///   gradients mostly are not either.
/// - Refusing a step restores the statistics of batch norms to what they were before the first
///   [`step`](TrainStep::step) since the last `optimize`.
///
/// # Errors in a step
///
/// `optimize` returns the module, and so cannot return an error.
/// Instead the first error of a step or an update is kept, see [`error`](Self::error), and no
/// average is updated after it. The error stops the training if the hook has its
/// [`Interrupter`](Self::with_interrupter), and [`runs::fit`](crate::runs::fit) returns it.
/// An error is:
///
/// - parameters of the module that changed under its averages;
/// - a step before the last one;
/// - weights that are not finite after a step, or too many refused steps or updates in a row;
/// - a rule of yours whose function returns no number in `[0, 1]`;
/// - numbers that cannot be read back from a device;
/// - a snapshot that cannot be written; the averages are updated then.
///
/// If averages no longer fit live, the next batch of validation panics.
#[derive(Clone)]
pub struct Averaged<M: LearnerModel> {
    live: M,
    clock: StepClock<M>,
    averages: Handle<M>,
    guard: Guard<M>,
    validation: Validation<M>,
    teacher: Option<Teacher<M>>,
    options: Options,
}

impl<M: LearnerModel> Averaged<M> {
    /// The module with averages that start at its weights.
    ///
    /// To go on from a plain record, load it into the module first.
    ///
    /// The call initialises parameters that are not initialised yet, in the module's order. So
    /// under a seed, a module whose forward pass uses them in another order starts from other
    /// weights than it would without averages.
    ///
    /// # Errors
    ///
    /// An empty list; two averages of one name, or one named `live`; the errors of
    /// [`AverageConfig::init`].
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
            guard: Guard::new(averages[0].statistics()),
            live,
            clock: StepClock::default(),
            averages: Handle::new(averages),
            validation: Validation::default(),
            teacher: None,
            options: Options::default(),
        })
    }

    /// Gives the hook the training's interrupter, by which the hook's first error stops the
    /// training.
    pub fn with_interrupter(mut self, interrupter: Interrupter) -> Self {
        self.options.interrupter = Some(interrupter);
        self
    }

    /// Sets the policy for an optimizer step whose gradients hold a NaN or an infinity. By default
    /// such a step is [refused](Self#refused-steps), and the third refused step in a row is an
    /// error.
    ///
    /// Except under [`NonFinite::Take`], a NaN or an infinity in the weights after a step is an
    /// error at once. The averages have a policy of their own for the weights that they take from
    /// live, `AverageConfig::with_non_finite`. On a GPU, every step waits for a check unless both
    /// policies are [`NonFinite::Take`].
    ///
    /// # Errors
    ///
    /// [`NonFinite::Skip`] with a `limit` of 0.
    pub fn with_non_finite(mut self, policy: NonFinite) -> Result<Self> {
        if policy == (NonFinite::Skip { limit: 0 }) {
            let what = "the limit of steps that are refused in a row";
            return Err(Error::value(what, "1 or more", 0));
        }
        self.guard.policy = policy;
        Ok(self)
    }

    /// Also refuses a step whose loss is a NaN or an infinity though all its gradients are finite.
    /// Where gradients are accumulated, the loss of any batch of the step counts.
    ///
    /// Each loss is read back, so that every batch waits for a GPU.
    pub fn with_loss_guard(mut self) -> Self
    where
        <M as TrainStep>::Output: Adaptor<LossInput>,
    {
        self.guard.look_at_loss();
        self
    }

    /// Counts the samples of each batch by a function, for averages whose time is counted in
    /// samples.
    ///
    /// Without it, each step counts as `samples_per_step` samples.
    pub fn with_samples(
        mut self,
        of: impl Fn(&<M as TrainStep>::Input) -> u64 + Send + Sync + 'static,
    ) -> Self {
        self.clock.count_by(of);
        self
    }

    /// Makes the average of this index the teacher of live: `learn` computes each training step
    /// from live, the teacher and the batch, in place of live's own [`TrainStep::step`]
    /// (Tarvainen and Valpola 2017, "Mean Teachers Are Better Role Models"; the teachers of BYOL,
    /// DINO and JEPA).
    ///
    /// The teacher is the average as it is after the last optimizer step, on live's device, without
    /// a copy of its weights where they are there already. All micro-batches and all devices of a
    /// step have the same teacher.
    ///
    /// - It is in validation mode: its dropout is off, and its batch norms use their running
    ///   statistics. See [`with_teacher_in_training_mode`](Self::with_teacher_in_training_mode).
    /// - Its weights are constants: Burn combines tensors with and without autodiff, and takes the
    ///   latter as constants. So no gradient reaches the teacher, the batch needs no conversion,
    ///   and its outputs can be used in a loss with live's at once. Gradients through an *input* of
    ///   the teacher that live has computed are kept; `detach` such an input if that is not wanted.
    /// - Parameters that the average leaves out ([`Policy::LeaveOut`](crate::Policy::LeaveOut)),
    ///   such as a head that only live has, are live's own.
    /// - `learn` must keep no tensor of the teacher's weights beyond its call, or the next update
    ///   copies them first.
    /// - A record holds the name of the teacher's average and the teacher's mode, but not `learn`,
    ///   which the program of a resumed training passes again. A load with another teacher, or with
    ///   none, is an error unless [`allow_other_teacher`](Self::allow_other_teacher) permits it.
    ///
    /// ```
    /// # use burn::train::TrainOutput;
    /// # use burn_ema::{AverageConfig, Rule, model::{Answers, Batch, Mlp, MlpConfig, half_squared_errors}, train::Averaged};
    /// # let device = Default::default();
    /// # let live = MlpConfig::new(vec![2, 3, 1]).init(&device)?;
    /// let model = Averaged::new(live, [AverageConfig::new(Rule::ema(0.99))])?
    ///     .with_teacher(0, |student: &Mlp, teacher: &Mlp, batch: Batch| {
    ///         let outputs = student.forward(batch.inputs.clone());
    ///         let targets = teacher.forward(batch.inputs);
    ///         let loss = half_squared_errors(outputs.clone(), targets.clone());
    ///         let gradients = loss.clone().mean().backward();
    ///         TrainOutput::new(student, gradients, Answers { loss, outputs, targets })
    ///     })?;
    /// # let _ = model;
    /// # Ok::<_, burn_ema::Error>(())
    /// ```
    ///
    /// If the average cannot teach, since it no longer fits live, live was changed
    /// [past](Self#what-burn-sees) it, or this clone's averages [stand still](Self#what-is-shared),
    /// that is an [error](Self#errors-in-a-step): `learn` then gets live itself in the teacher's
    /// place, and the step is not made. After any error no step is made, since the teacher stands
    /// still.
    ///
    /// # Errors
    ///
    /// No average of this index.
    pub fn with_teacher(
        self,
        index: usize,
        learn: impl Fn(&M, &M, <M as TrainStep>::Input) -> TrainOutput<<M as TrainStep>::Output>
        + Send
        + Sync
        + 'static,
    ) -> Result<Self> {
        self.taught_by(index, false, Arc::new(learn))
    }

    /// Like [`with_teacher`](Self::with_teacher), but the teacher is in training mode: its dropout
    /// is on, and its batch norms use the statistics of each batch.
    ///
    /// Burn's layers do so only for inputs on a device with autodiff, as the Learner's batches are;
    /// give an input of your own that is not there to the teacher by `autodiff()`.
    ///
    /// The changes that its forward passes make to its running statistics are dropped with it.
    ///
    /// # Errors
    ///
    /// No average of this index.
    pub fn with_teacher_in_training_mode(
        self,
        index: usize,
        learn: impl Fn(&M, &M, <M as TrainStep>::Input) -> TrainOutput<<M as TrainStep>::Output>
        + Send
        + Sync
        + 'static,
    ) -> Result<Self> {
        self.taught_by(index, true, Arc::new(learn))
    }

    /// Copies the first average back into live at regular steps, see [`Switch`].
    ///
    /// # Errors
    ///
    /// An `every` of 0; a share outside its range.
    pub fn with_switch(mut self, switch: Switch) -> Result<Self> {
        self.options.switch = Some(switch.check()?);
        Ok(self)
    }

    /// Copies the first average back into live after every `epochs` epochs (Li et al. 2024: after
    /// each). The steps of an epoch are the `steps_per_epoch` of the first average's configuration.
    ///
    /// # Errors
    ///
    /// No `steps_per_epoch`; 0 epochs; a share outside its range.
    pub fn with_switch_at_epochs(self, epochs: u64, share: f64) -> Result<Self> {
        let steps = self.averages.average(0)?.config().steps_per_epoch;
        let Some(steps) = steps else {
            let expected = "a number of 1 or more, for a switch at epochs";
            return Err(Error::value("steps_per_epoch", expected, "none"));
        };
        self.with_switch(Switch { every: steps.saturating_mul(epochs), share })
    }

    /// Stores the averages by power functions every `every` steps. From these, the average of any
    /// width can be made afterwards: see [`Snapshots`]. The training waits for the disk meanwhile.
    ///
    /// After a checkpoint is loaded, the first step removes all snapshots of steps after the
    /// checkpoint's, since the training makes those steps again.
    ///
    /// # Errors
    ///
    /// An `every` of 0; no average that can be stored; an average by a power function that cannot
    /// be stored, since some paths have other rules; stored averages that start at different
    /// steps, have different policies for a path, or have the same profile.
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
        self.averages.store_in(snapshots, every, self.clock.steps);
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

    /// Sets whether a record may be of a module with another [teacher](Self::with_teacher), with
    /// one in another mode, or with none, or may have a teacher where this module has none. By
    /// default that is an error. A training that is resumed goes on with this module's teacher.
    pub fn allow_other_teacher(mut self, allow: bool) -> Self {
        self.options.allow_other_teacher = allow;
        self
    }

    /// Moves the average of this index to a device, where it stays; see [`Average::keep_on`].
    ///
    /// Modules that are made from it are on live's device nevertheless.
    ///
    /// # Errors
    ///
    /// No average of this index.
    pub fn keep_average_on(self, index: usize, device: &Device) -> Result<Self> {
        let average = self.averages.average(index)?.keep_on(device);
        let mut averages = self.averages();
        averages[index] = average;
        Ok(Self { averages: self.averages.replaced_by(averages), ..self })
    }

    /// The live module.
    pub fn live(&self) -> &M {
        &self.live
    }

    /// The average of this index, as an owned plain module in validation mode, in live's dtype
    /// and on its devices; see [`Average::module_like`].
    ///
    /// # Errors
    ///
    /// No average of this index; live's parameters are no longer those of the average; live was
    /// changed [past](Self#what-burn-sees) the averages, several times, or before the first update;
    /// averages that [stand still](Self#what-is-shared), since a clone goes on with others.
    pub fn average(&self, index: usize) -> Result<M> {
        self.check_follows()?;
        self.averages.of_training(index)?.module_like(&self.live)
    }

    /// A copy of the averages with their numbers, which shares their weights until the next update.
    pub fn averages(&self) -> Vec<Average<M>> {
        self.averages.averages()
    }

    /// The names of the averages, in their order.
    pub fn names(&self) -> Vec<String> {
        self.averages.names()
    }

    /// Live and all averages as plain modules in validation mode, each with its name, `live` first.
    ///
    /// # Errors
    ///
    /// The errors of [`average`](Self::average).
    pub fn modules(&self) -> Result<Vec<(String, M)>> {
        let averages = self.names().into_iter().enumerate();
        let averages = averages.map(|(index, name)| Ok((name, self.average(index)?)));
        let live = Ok(("live".to_owned(), self.live.valid()));
        [live].into_iter().chain(averages).collect()
    }

    /// The optimizer steps so far, without those that were refused. In a clone whose averages
    /// another clone trains on, these are the steps that the averages have seen.
    pub fn steps(&self) -> u64 {
        self.clock.steps.max(self.averages.last_step())
    }

    /// The optimizer steps that were [refused](Self#refused-steps).
    ///
    /// The step number of the last one counts refused steps too, as the schedule of the learning
    /// rate does.
    pub fn refused_steps(&self) -> Refused {
        self.guard.refused()
    }

    /// The samples so far; 0 if they are not [counted](Self::with_samples).
    pub fn samples(&self) -> u64 {
        self.clock.samples()
    }

    /// The warnings about the averages, about refused steps and about changes of live outside of
    /// `optimize`, each returned once, or again when its numbers are much worse: see
    /// [`Average::take_warnings`].
    ///
    /// After [`runs::fit`](crate::runs::fit) these are the [final](Self::take_final_warnings) ones.
    pub fn take_warnings(&self) -> Vec<Warning> {
        let warnings = self.averages.take_warnings(self.clock.bypassed.unwrap_or(0));
        warnings.into_iter().chain(self.guard.take_warning()).collect()
    }

    /// Like [`take_warnings`](Self::take_warnings) for a training that has ended: the averages are
    /// judged by the steps that they have seen, whatever their `total_steps` is.
    pub fn take_final_warnings(&self) -> Vec<Warning> {
        self.averages.end();
        self.take_warnings()
    }

    /// The first error of a step or an update; after it the averages are not updated any more.
    pub fn error(&self) -> Option<Error> {
        self.averages.error()
    }

    /// A metric of the live module's outputs in validation, beside the same metric of the average.
    ///
    /// Its name is that of `metric` with the source in brackets: `Loss (live)`.
    /// Register it for validation only:
    /// `training.metric_valid_numeric(model.live_metric(LossMetric::new()))`.
    /// Live then computes every batch of validation too.
    pub fn live_metric<Me: Metric>(&self, metric: Me) -> SourceMetric<Me, Output<M>>
    where
        Output<M>: Adaptor<Me::Input>,
    {
        self.validation.live_metric(metric)
    }

    /// A metric of the outputs of the average of this index, like
    /// [`live_metric`](Self::live_metric) of those of live: `Loss (ema(0.999))`.
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

    /// A metric of the difference between live and the first average in another metric, such as
    /// the loss: `Loss gap (live - average)`.
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

    /// A text metric that records a few weights of live and of each average, for the history of a
    /// run.
    ///
    /// Register it for training: `training.metric_train(model.trace_metric())`.
    pub fn trace_metric(&self) -> TraceMetric {
        self.validation.trace_metric()
    }
}

#[cfg(test)]
mod fuzz;
#[cfg(all(test, feature = "wgpu"))]
mod gpu_tests;
