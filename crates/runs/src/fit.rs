//! A training that returns its errors as an `Err`, writes commits, and resumes from them.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use burn::{
    optim::{ModuleOptimizer, lr_scheduler::module_lr_scheduler::ModuleLrScheduler},
    tensor::{Bytes, Device},
    train::{Learner, LearningResult, SupervisedTraining, TrainingStrategy},
};
use burn_ema_base::header;

use crate::{
    Commit, CommitConfig, Error, LoaderSize, Newest, Progress, Result, RunModel, Warnings,
    commits::MODEL,
    committer::{Committer, OPTIMIZER, SCHEDULER, message, no_step},
    epochs::EpochLoop,
    manifest::MANIFEST,
    strict,
};

/// Prepares a training of this model, which [`launch`](Fit::launch) begins.
///
/// `launch` does what `training.launch(Learner::new(model.train(), optimizer, lr))` does, and
/// returns errors and panics as an `Err`. With [`with_commits`](Fit::with_commits) the training
/// writes commits, and [`resume`](Fit::resume) goes on from the newest one after the process has
/// ended for any reason:
///
/// ```no_run
/// # use burn::{lr_scheduler::constant::ConstantLr, optim::AdamConfig, train::SupervisedTraining};
/// # use burn_ema_runs::{CommitConfig, RunModel, fit};
/// # fn run<M: RunModel>(training: SupervisedTraining<M>, model: M) -> burn_ema_runs::Result<()> {
/// let result = fit(training, model, AdamConfig::new().init(), ConstantLr::new(1e-3))
///     .with_commits(CommitConfig::new("runs/a").with_every_steps(Some(500)))?
///     .resume()? // from the newest whole commit; from the beginning where there is none
///     .launch()?;
/// # Ok(())
/// # }
/// ```
pub fn fit<M: RunModel>(
    training: SupervisedTraining<M>,
    model: M,
    optimizer: ModuleOptimizer,
    lr: impl Into<ModuleLrScheduler>,
) -> Fit<M> {
    Fit {
        training,
        model,
        optimizer,
        lr: lr.into(),
        committer: None,
        device: None,
        keeps_strategy: false,
        resumed: None,
        loader: None,
        warnings: Warnings::default(),
    }
}

/// A training that has not begun; see [`fit`].
///
/// # When commits are written
///
/// | strategy | commits | resumes at | bit for bit |
/// |---|---|---|---|
/// | [commits](Self::with_commits) | each epoch, n steps or minutes; at a stop | any commit | yes |
/// | commits, [kept strategy](Self::keep_strategy) | each epoch | the end of an epoch | no |
/// | no commits | the training's own checkpoints | the training's own checkpoints | no |
///
/// By default, a training with commits runs on one device, in a loop of this crate.
/// A kept strategy is the training's own strategy, for example for several devices, distributed, or
/// one that you wrote. Its resume is not bit for bit: Burn starts the order of the data and early
/// stopping anew, and saves no random state.
/// With a kept strategy, an epoch that a panic in a loader's worker cuts short counts as a whole
/// epoch, and a stop by a signal loses the current epoch.
/// A strategy that you wrote should call [`valid`](burn::module::Module::valid) before it saves, as
/// Burn's strategies do to validate. Otherwise it saves batch-norm statistics without those of the
/// last forward pass.
///
/// # Conditions of "bit for bit"
///
/// - One program, machine and device, on which Burn itself computes the same bits twice, as its CPU
///   backends do.
/// - A loader whose order depends on its seed alone, and with at most one worker
///   (`num_workers(1)`), since the order of batches from several workers varies.
/// - Random numbers from the device alone, which is seeded before every training batch and every
///   validation. A batcher that runs in a worker may draw no random numbers, since the worker runs
///   ahead of the training.
/// - One training at a time in a program, since Burn's devices have one random state per process.
///
/// After a resume within an epoch, the epoch's value of a training metric that is no mean over
/// batches, such as a perplexity, covers only the rest of the epoch, and is marked `part` in
/// `metrics.csv`.
/// The iterator of a loader that you wrote must end with its
/// [`progress`](burn::data::dataloader::DataLoaderIterator) at the total; an epoch that ends
/// before is an error.
pub struct Fit<M: RunModel> {
    training: SupervisedTraining<M>,
    model: M,
    optimizer: ModuleOptimizer,
    lr: ModuleLrScheduler,
    committer: Option<Committer>,
    device: Option<Device>,
    keeps_strategy: bool,
    resumed: Option<Resumed>,
    /// The size of the training loader at the commit from which the training goes on; `None` for
    /// the end of an epoch.
    loader: Option<LoaderSize>,
    warnings: Warnings,
}

/// The place from which a resumed training goes on.
#[derive(Debug)]
#[non_exhaustive]
pub struct Resumed {
    /// The place of the commit; `None` if the run has no commit, so that the training begins anew.
    pub from: Option<Progress>,
    /// The number of optimizer steps until the commit; 0 if they are not counted.
    pub steps: u64,
    /// The errors of newer commits that are damaged, and of a damaged `metrics.csv`. The launch
    /// renames these, with the ending `.aside-1` or the next number that is free.
    pub passed_over: Vec<Error>,
}

impl fmt::Display for Resumed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.from {
            None => write!(f, "no commit yet: starting from the beginning"),
            Some(progress) if self.steps == 0 => write!(f, "resuming after {progress}"),
            Some(progress) => write!(f, "resuming after {progress}, step {}", self.steps),
        }
    }
}

impl<M: RunModel> Fit<M> {
    /// Writes commits of the training to the directory of a run. Creates the directory if it is
    /// missing, and locks it from now on until the training has ended.
    ///
    /// A commit holds the model, the optimizer, the schedule, the place in the data, the metrics
    /// and the configuration of the run. It is whole, durable and checked, or absent. Commits
    /// replace the training's checkpointers. They replace its strategy too, unless it is
    /// [kept](Self::keep_strategy), by a loop on one device that can stop at any batch. The metrics
    /// are written to [`metrics.csv`](crate::METRICS). A metric logger of the training's own is an
    /// error at the launch, and Burn's `summary()` finds no metrics, since it reads the files of
    /// Burn's own logger.
    ///
    /// The training's setting `gradient_checkpointing` has an effect only in Burn's own strategies.
    /// In the loop of this crate it is a setting of the device, see [`on`](Self::on).
    ///
    /// # Errors
    ///
    /// A directory that cannot be created or locked, for example because another process has the
    /// lock; a parameter that Burn can save and cannot [load](RunModel::check_loadable), with its
    /// path.
    pub fn with_commits(mut self, config: CommitConfig) -> Result<Self> {
        self.model.check_loadable()?;
        let interrupter = self.training.interrupter();
        let warnings = self.warnings.clone();
        self.committer = Some(Committer::new(config, &self.model, interrupter, warnings)?);
        Ok(self)
    }

    /// Sets the device on which a training with commits runs, such as
    /// `device.autodiff().gradient_checkpointing()`. The default is the first device of the model.
    /// Has no effect on where a training without commits or with a kept strategy runs.
    pub fn on(mut self, device: Device) -> Self {
        self.device = Some(device);
        self
    }

    /// Keeps the training's own strategy. Commits are then written only at the end of epochs.
    pub fn keep_strategy(mut self) -> Self {
        self.keeps_strategy = true;
        self
    }

    /// Goes on from the newest whole commit, or from the beginning if the run has no commit.
    ///
    /// Reads and checks the commit; nothing on disk changes before the [launch](Self::launch).
    ///
    /// # Errors
    ///
    /// A training [without commits](Self::with_commits); commits of which none is whole; a commit
    /// with another configuration, seed or model, or another kind of optimizer or schedule, or with
    /// a NaN or an infinity that is not [allowed](CommitConfig::allow_non_finite). The error names
    /// the field or parameter.
    ///
    /// Hyperparameters of the optimizer and the schedule that are not in their state, such as a
    /// constant learning rate, are not in a commit and not compared: those of this program apply.
    /// Put them in the configuration ([`with_config`](CommitConfig::with_config)) to refuse other
    /// values.
    pub fn resume(self) -> Result<Self> {
        let Newest { commit, passed_over } = self.committer()?.store().newest()?;
        match (commit, passed_over) {
            (Some(commit), passed_over) => self.go_on(&commit, passed_over),
            (None, passed_over) => match passed_over.into_iter().next() {
                Some(error) => Err(error),
                None => {
                    let resumed = Resumed { from: None, steps: 0, passed_over: Vec::new() };
                    Ok(Self { resumed: Some(resumed), ..self })
                }
            },
        }
    }

    /// Goes on from the commit at this place in the run.
    ///
    /// At the [launch](Self::launch), later commits are renamed, with the ending `.aside-1` or the
    /// next number that is free. `metrics.csv`, which contains their metrics, is copied under such
    /// a name, and its lines after the commit are removed.
    ///
    /// # Errors
    ///
    /// The errors of [`resume`](Self::resume); a commit of this place that is damaged or missing.
    pub fn resume_from(self, progress: Progress) -> Result<Self> {
        let commit = self.committer()?.store().open(progress)?;
        self.go_on(&commit, Vec::new())
    }

    fn committer(&self) -> Result<&Committer> {
        let committer = self.committer.as_ref();
        committer.ok_or_else(|| Error::value("the commits", "a directory, for a resume", "none"))
    }

    fn go_on(mut self, commit: &Commit, mut passed_over: Vec<Error>) -> Result<Self> {
        let committer = self.committer()?;
        committer
            .check(commit)
            .map_err(|error| Error::file("resume from", commit.path().join(MANIFEST), error))?;
        let files = self.checked(commit, committer)?;
        passed_over.extend(committer.go_on(commit, files));
        let from = Some(commit.progress());
        self.resumed = Some(Resumed { from, steps: commit.manifest().steps, passed_over });
        self.loader = commit.manifest().loader;
        Ok(self)
    }

    /// Reads the files of a commit, and checks that Burn will load them without an error.
    fn checked(&self, commit: &Commit, committer: &Committer) -> Result<[Bytes; 3]> {
        let within = |name: &'static str| {
            let path = commit.path().join(name);
            move |error: Error| Error::file("resume from", path, error)
        };
        let read = |name| {
            let bytes = Bytes::from_bytes_vec(commit.read(name)?).shared();
            header::check(&bytes).map_err(within(name))?;
            if !committer.config().allows_non_finite() {
                strict::check_finite(bytes.clone()).map_err(within(name))?;
            }
            Ok::<_, Error>(bytes)
        };
        let (model, optimizer, scheduler) = (read(MODEL)?, read(OPTIMIZER)?, read(SCHEDULER)?);
        // Into a copy that shares no batch-norm statistics, since the commit may yet be refused.
        let copy = self.model.valid().train();
        let loaded = copy.load_strictly(model.clone()).map_err(within(MODEL))?;
        let steps = commit.manifest().steps;
        let counts = M::counts(model.clone()).map_err(within(MODEL))?;
        if let Some(found) = counts.map(|counts| counts.steps).filter(|found| *found != steps) {
            let error = Error::parameter("step", format!("{steps}, as in {MANIFEST}"), found);
            return Err(within(MODEL)(error));
        }
        let parameters = strict::Parameters::of(&loaded);
        // Dropped early, since averages in it take memory of their own.
        drop(loaded);
        strict::Probe::new(&self.optimizer, parameters)
            .and_then(|probe| probe.record(optimizer.clone(), steps))
            .map_err(within(OPTIMIZER))?;
        strict::scheduler_record(scheduler.clone(), &self.lr).map_err(within(SCHEDULER))?;
        Ok([model, optimizer, scheduler])
    }

    /// The result of [`resume`](Self::resume) or [`resume_from`](Self::resume_from); `None` before
    /// either is called.
    pub fn resumed(&self) -> Option<&Resumed> {
        self.resumed.as_ref()
    }

    /// The warnings of a training with commits, to be read while it runs or after it has ended.
    /// Empty for a training without commits.
    pub fn warnings(&self) -> Warnings {
        self.warnings.clone()
    }

    /// Trains, and returns the result.
    ///
    /// A stop by [`Interrupter::stop`](burn::train::Interrupter::stop) is no error, see
    /// [`LearningResult::interrupted`]; with commits, the training can be resumed where it stopped.
    /// A training that is resumed at its end, or after early stopping ended it, returns at once.
    ///
    /// Burn's dashboard stays on the screen until the result's `renderer` is dropped. What is
    /// printed before is lost.
    /// When the dashboard ends, Burn drops the information that a training was stopped, or that its
    /// data or a metric failed. Only with commits and without a kept strategy, the result contains
    /// this information.
    ///
    /// After an error the model is not returned. State that the model shares with a clone from
    /// before the launch, such as averages of weights, remains in the clone, as it was before the
    /// step that failed. After a resume, which loads the model anew, the clone shares nothing: load
    /// the newest commit instead.
    ///
    /// # Errors
    ///
    /// - The first error of a step, a commit or the file of metrics.
    /// - The error that stopped Burn's training.
    /// - A panic in the model, the data or a metric.
    /// - A training loader without a batch; without commits, only for a model that
    ///   [counts its steps](RunModel::attempted_steps).
    ///
    /// With commits also:
    ///
    /// - A validation loader without a batch.
    /// - An epoch whose data ended early, unless the strategy is kept.
    /// - A resume within an epoch with another number of items, batch size or `grads_accumulation`
    ///   of the training loader than at the commit.
    /// - A missing value or a NaN of the metric of early stopping or of the [best
    ///   commit](CommitConfig::with_keep_best), after the first epoch of this launch, which is
    ///   committed. For the default metric of the best commit, this is only a
    ///   [warning](Self::warnings). For early stopping, a NaN after numbers counts as an epoch
    ///   without improvement.
    /// - A metric logger of the training's own.
    /// - A run that has commits and is not resumed.
    /// - A resume within an epoch with a kept strategy.
    pub fn launch(self) -> Result<LearningResult<M>> {
        if let Some(error) = self.model.error() {
            return Err(error);
        }
        let Self { mut training, model, optimizer, lr, committer, device, loader, .. } = self;
        if let Some(committer) = &committer {
            let from = match &self.resumed {
                Some(resumed) => resumed.from,
                None if committer.store().list()?.is_empty() => None,
                None => {
                    let error =
                        Error::value("the run", "a new one, or one to resume", "one with commits");
                    return Err(Error::file("start in", committer.store().path(), error));
                }
            };
            let batches = from.map_or(0, |progress| progress.batches);
            if self.keeps_strategy && batches > 0 {
                let expected = "the end of an epoch, at which a kept strategy can go on";
                return Err(Error::value("the commit", expected, from.unwrap_or_default()));
            }
            let device = device.or_else(|| model.devices().into_iter().next()).unwrap_or_default();
            training = committer.attach(training, from, &device)?;
            if !self.keeps_strategy {
                let device = if device.is_autodiff() { device } else { device.autodiff() };
                let steps = self.resumed.as_ref().map_or(0, |resumed| resumed.steps);
                let committer = committer.clone();
                let strategy = EpochLoop { device, committer, batches, steps, loader };
                training =
                    training.with_training_strategy(TrainingStrategy::Custom(Arc::new(strategy)));
            }
        }
        // Without this, statistics of an earlier forward pass would replace those of a commit.
        model.update_statistics();
        let (steps, on_end) = (model.attempted_steps(), model.on_end());
        let model = model.train().with_interrupter(training.interrupter());
        // A panic in the caller's code, which Burn does not catch, becomes an error.
        let launched =
            catch_unwind(AssertUnwindSafe(|| training.launch(Learner::new(model, optimizer, lr))));
        if let (Err(_), Some(committer)) = (&launched, &committer) {
            committer.wait_for_threads();
        }
        // Called after an error or a panic too, since clones from before the launch share state
        // with the model.
        on_end();
        if let Ok(result) = &launched {
            result.model.on_end()();
        }
        if let Some(error) = committer.as_ref().and_then(Committer::error) {
            return Err(error);
        }
        let mut result = launched.map_err(|panic| Error::Panic(message(&*panic)))?;
        // If there was a dashboard, Burn has cleared the interruption and the error in the result.
        if let Some((interrupted, error)) = committer.as_ref().map(Committer::end) {
            result.interrupted = result.interrupted.or(interrupted);
            result.error = result.error.or(error);
        }
        if let Some(error) = result.model.error() {
            return Err(error);
        }
        if let Some(error) = &result.error {
            return Err(Error::Training(error.clone()));
        }
        // With commits, an epoch without a batch has been found already.
        let stood_still = steps.is_some() && steps == result.model.attempted_steps();
        match stood_still && committer.is_none() && result.interrupted.is_none() {
            true => Err(no_step()),
            false => Ok(result),
        }
    }
}
