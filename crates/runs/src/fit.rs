//! A training that returns its errors as an `Err`, writes commits, and goes on from them.

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
/// returns errors as an `Err`. With [`with_commits`](Fit::with_commits) the training survives
/// whatever ends the process, and [`resume`](Fit::resume) goes on from its commits:
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
/// # What commits when
///
/// | strategy | commits | resumes at | bit for bit |
/// |---|---|---|---|
/// | [commits](Self::with_commits) | each epoch, n steps or minutes; at a stop | any commit | yes |
/// | commits, [kept strategy](Self::keep_strategy) | each epoch | the end of an epoch | no |
/// | no commits | what the training says | what the training says | no |
///
/// By default, a training with commits runs on one device, in a loop of this crate.
/// A kept strategy is the training's own, such as one for several devices, a distributed one or one
/// of yours. It is not bit for bit, since Burn starts the order of the data over and saves no
/// random state, and early stopping starts over.
/// If a broken worker of a loader cuts an epoch short, Burn takes it for a whole one. After a
/// signal the current epoch is lost.
/// A strategy of yours that does not call [`valid`](burn::module::Module::valid) before it saves, as
/// Burn's do to validate, saves batch-norm statistics one forward pass late.
///
/// # What "bit for bit" asks for
///
/// - One program, machine and device, on which Burn itself computes the same bits twice, as its CPU
///   backends do.
/// - A loader whose order depends on its seed alone. So it has at most one worker
///   (`num_workers(1)`), since several race.
/// - Random numbers from the device alone, which is seeded before every batch. The batcher of a
///   worker may draw none, since it runs ahead of the training.
/// - One training at a time in a program, since Burn's devices have one random state per process.
///
/// A metric of training that is no mean over batches, such as a perplexity, covers only the rest of
/// an epoch that was resumed within, and is marked `part` in `metrics.csv`.
/// A loader of your own must end with [`progress`](burn::data::dataloader::DataLoaderIterator) at
/// its total; an epoch that ends before that is an error.
pub struct Fit<M: RunModel> {
    training: SupervisedTraining<M>,
    model: M,
    optimizer: ModuleOptimizer,
    lr: ModuleLrScheduler,
    committer: Option<Committer>,
    device: Option<Device>,
    keeps_strategy: bool,
    resumed: Option<Resumed>,
    /// The size of the training loader at the commit that it goes on from, within an epoch.
    loader: Option<LoaderSize>,
    warnings: Warnings,
}

/// The place at which a training goes on.
#[derive(Debug)]
#[non_exhaustive]
pub struct Resumed {
    /// The place of the commit; none if there was no commit yet, and the training begins anew.
    pub from: Option<Progress>,
    /// The optimizer steps until then; 0 where they are not counted.
    pub steps: u64,
    /// The reasons why something was not used: a newer commit that is not whole, which is set
    /// aside, or a damaged file of metrics.
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
    /// Writes commits of the training to the directory of a run, which is locked from now on until
    /// the training has ended.
    ///
    /// A commit holds the model, the optimizer, the schedule, the place in the data, the metrics
    /// and the configuration of the run: whole, durable and checked, or not there.
    /// Commits replace the training's checkpointers. They replace its strategy too, unless it is
    /// [kept](Self::keep_strategy): the training runs on one device, in a loop that can stop at any
    /// batch.
    /// The metrics go to `metrics.csv`. A metric logger of the training's own is an error, and
    /// Burn's `summary()` finds no metrics, since it reads the files of Burn's own logger.
    ///
    /// The training's setting `gradient_checkpointing` has an effect in Burn's own strategies
    /// alone; here it is a setting of the device, see [`on`](Self::on).
    ///
    /// # Errors
    ///
    /// A directory that cannot be made, or that another process has locked; a parameter that Burn
    /// would save and could not [load](RunModel::check_loadable), by path.
    pub fn with_commits(mut self, config: CommitConfig) -> Result<Self> {
        self.model.check_loadable()?;
        let interrupter = self.training.interrupter();
        let warnings = self.warnings.clone();
        self.committer = Some(Committer::new(config, &self.model, interrupter, warnings)?);
        Ok(self)
    }

    /// Sets the device to train on with commits, such as
    /// `device.autodiff().gradient_checkpointing()`; by default it is the model's.
    pub fn on(mut self, device: Device) -> Self {
        self.device = Some(device);
        self
    }

    /// Keeps the training's own strategy; commits are then written at the end of epochs alone.
    pub fn keep_strategy(mut self) -> Self {
        self.keeps_strategy = true;
        self
    }

    /// Goes on from the newest whole commit, or begins where there is none.
    ///
    /// # Errors
    ///
    /// No [commits](Self::with_commits); commits of which none is whole; a commit of another
    /// configuration or seed, of another model, or of another kind of optimizer or schedule: the
    /// error names the field or parameter that differs.
    ///
    /// The numbers of an optimizer and a schedule that are no state of theirs, such as a constant
    /// learning rate, are those of this program. Name them in the configuration
    /// ([`with_config`](CommitConfig::with_config)), so that others are refused.
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

    /// Goes on from the commit at a place in the run.
    ///
    /// At the [launch](Self::launch), later commits are set aside under names that end in
    /// `.aside-1` (or the next free number), and so is a copy of `metrics.csv`, which has their
    /// metrics.
    ///
    /// # Errors
    ///
    /// The errors of [`resume`](Self::resume); no whole commit of this place.
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

    /// The findings of [`resume`](Self::resume).
    pub fn resumed(&self) -> Option<&Resumed> {
        self.resumed.as_ref()
    }

    /// The warnings of the training with commits, to read while it runs and when it has ended.
    pub fn warnings(&self) -> Warnings {
        self.warnings.clone()
    }

    /// Trains, and returns the result.
    ///
    /// A training that was stopped by [`Interrupter::stop`](burn::train::Interrupter::stop) is no
    /// error, see [`LearningResult::interrupted`]; with commits, it can go on where it stopped.
    /// A training that is resumed at its end, or after early stopping ended it, returns at once.
    ///
    /// Burn's dashboard stays on the screen until the result's `renderer` is dropped; what is
    /// printed before that is lost.
    /// When the dashboard ends, Burn forgets that a training was stopped, or that its data or a
    /// metric failed. Only with commits in their own loop does the result still say so.
    ///
    /// After an error the model is not returned. What it shares with a clone that was made before
    /// the launch, such as averages of weights, is still there in the clone, as it was before the
    /// step that failed. Not so after a resume, which loads the model anew: the newest commit has
    /// it then.
    ///
    /// # Errors
    ///
    /// - The first error of a step, a commit or the file of metrics.
    /// - The error that stopped Burn's training.
    /// - A panic in the model, the data or a metric.
    /// - A training loader without a batch, for a model that
    ///   [counts its steps](RunModel::attempted_steps), and with commits for any.
    ///
    /// With commits also:
    ///
    /// - A validation loader without a batch.
    /// - An epoch whose data ended early, unless the strategy is kept, which does not show it.
    /// - A resume within an epoch whose training loader has another number of items or another
    ///   batch size than at the commit, or whose `grads_accumulation` is another.
    /// - A metric that gives no number, or a NaN, by which the
    ///   [best commit](CommitConfig::with_keep_best) is to be kept or early stopping asks: after the
    ///   first epoch of this launch, which is committed. Where the best is kept by default, it is a
    ///   [warning](Self::warnings). For early stopping, a NaN after numbers is no improvement.
    /// - A metric logger of the training's own.
    /// - A run that has commits and is not resumed.
    /// - A kept strategy that would go on within an epoch.
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
        // Otherwise statistics of an earlier forward pass would replace those of a commit.
        model.update_statistics();
        let (steps, on_end) = (model.attempted_steps(), model.on_end());
        let model = model.train().with_interrupter(training.interrupter());
        // A panic in the caller's own code, which Burn lets through, becomes an error.
        let launched =
            catch_unwind(AssertUnwindSafe(|| training.launch(Learner::new(model, optimizer, lr))));
        if let (Err(_), Some(committer)) = (&launched, &committer) {
            committer.wait_for_threads();
        }
        // Whatever ended it: clones from before the launch share what the model has seen.
        on_end();
        if let Ok(result) = &launched {
            result.model.on_end()();
        }
        if let Some(error) = committer.as_ref().and_then(Committer::error) {
            return Err(error);
        }
        let mut result = launched.map_err(|panic| Error::Panic(message(&*panic)))?;
        // Burn's dashboard has cleared both in the result by now.
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
