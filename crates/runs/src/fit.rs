//! A training whose errors are an `Err`, which commits, and which goes on where it was.

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
    Commit, CommitConfig, Error, Newest, Progress, Result, RunModel,
    commits::MODEL,
    committer::{Committer, OPTIMIZER, SCHEDULER, message},
    epochs::EpochLoop,
    manifest::MANIFEST,
    strict,
};

/// A training of this model, to launch.
///
/// [`launch`](Fit::launch) is `training.launch(Learner::new(model.train(), optimizer, lr))` with the
/// errors at hand; [`with_commits`](Fit::with_commits) makes it survive whatever ends the process,
/// and [`resume`](Fit::resume) goes on:
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
    }
}

/// A training that has not begun; see [`fit`].
///
/// # What commits when
///
/// | strategy | commits | resumes at | bit for bit |
/// |---|---|---|---|
/// | [commits](Self::with_commits), one device | each epoch, every n steps, every t minutes, when stopped | any commit | yes |
/// | commits and the training's own ([`keep_strategy`](Self::keep_strategy)): several devices, distributed, yours | each epoch | the end of an epoch | no: Burn starts the order of the data over, and saves no random state; early stopping starts over; an epoch that a loader's broken worker cut short is one to Burn; a signal loses the epoch; a strategy of yours that does not call [`valid`](burn::module::Module::valid) before it saves, as Burn's do to validate, saves batch-norm statistics one forward pass late |
/// | neither | what the training says | what the training says | no |
///
/// # What "bit for bit" asks for
///
/// One program, machine and device, on which Burn itself computes the same twice (the CPU
/// backends do); a loader whose order is decided by its seed, so with at most one worker
/// (`num_workers(1)`), since several race; random numbers from the device alone, which is seeded
/// before every batch; no such number in the batcher of a worker, which runs ahead.
/// A metric of training that is no mean over batches (such as a perplexity) covers the rest of the
/// epoch alone where that was resumed, and is marked `part` in `metrics.csv`.
/// A loader of your own must end with [`progress`](burn::data::dataloader::DataLoaderIterator) at
/// its total; an epoch that ends before is an error.
/// A program that trains twice at once shares one random state, as Burn's devices do.
pub struct Fit<M: RunModel> {
    training: SupervisedTraining<M>,
    model: M,
    optimizer: ModuleOptimizer,
    lr: ModuleLrScheduler,
    committer: Option<Committer>,
    device: Option<Device>,
    keeps_strategy: bool,
    resumed: Option<Resumed>,
}

/// The place at which a training goes on.
#[derive(Debug)]
#[non_exhaustive]
pub struct Resumed {
    /// The place of the commit; none where there was no commit yet, and the training begins.
    pub from: Option<Progress>,
    /// The optimizer steps until then; 0 where they are not counted.
    pub steps: u64,
    /// The reasons why something was not used: newer commits that are not whole, which are set
    /// aside, and a damaged file of metrics.
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
    /// Commits the training in the directory of a run, which is locked from now on until the
    /// training has ended.
    ///
    /// A commit is the model, the optimizer, the schedule, the place in the data, the metrics and the
    /// configuration of the run: whole, durable and checked, or not there.
    /// Commits replace the training's checkpointers and strategy: the training runs on one device,
    /// in a loop that can stop at any batch, unless the strategy is [kept](Self::keep_strategy).
    /// The metrics go to `metrics.csv`; a metric logger of the training's own is an error, and
    /// Burn's `summary()`, which reads its own logger's files, finds none.
    ///
    /// The training's setting `gradient_checkpointing` reaches Burn's own strategies alone; see
    /// [`on`](Self::on).
    ///
    /// # Errors
    ///
    /// A directory that cannot be made, or that another process has locked; a parameter that Burn
    /// would save and could not [load](RunModel::check_loadable), by path.
    pub fn with_commits(mut self, config: CommitConfig) -> Result<Self> {
        self.model.check_loadable()?;
        let interrupter = self.training.interrupter();
        self.committer = Some(Committer::new(config, &self.model, interrupter)?);
        Ok(self)
    }

    /// The device to train on with commits, such as `device.autodiff().gradient_checkpointing()`;
    /// that of the model otherwise.
    pub fn on(mut self, device: Device) -> Self {
        self.device = Some(device);
        self
    }

    /// Leaves the training its own strategy, which commits at the end of epochs alone.
    pub fn keep_strategy(mut self) -> Self {
        self.keeps_strategy = true;
        self
    }

    /// Goes on from the newest whole commit, or begins where there is none.
    ///
    /// # Errors
    ///
    /// No [commits](Self::with_commits); commits of which none is whole; a commit of another
    /// configuration, seed, model, optimizer or schedule, by the field or parameter that differs.
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

    /// Goes on from the commit of a place in the run; later ones are set aside at the
    /// [launch](Self::launch), under names that end in `.aside-1`, and so is a copy of
    /// `metrics.csv` with what they came to.
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
        Ok(self)
    }

    /// The files of a commit, which Burn will load without an error.
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
        // Into a copy that shares no statistics of batch norms: this one may yet be refused.
        let copy = self.model.valid().train();
        let loaded = copy.load_strictly(model.clone()).map_err(within(MODEL))?;
        let steps = commit.manifest().steps;
        let counts = M::counts(model.clone()).map_err(within(MODEL))?;
        if let Some(found) = counts.map(|counts| counts.steps).filter(|found| *found != steps) {
            let error = Error::parameter("step", format!("{steps}, as in {MANIFEST}"), found);
            return Err(within(MODEL)(error));
        }
        let parameters = strict::Parameters::of(&loaded);
        // Averages in it have memory of their own.
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

    /// Trains, and returns the result.
    ///
    /// A training that was stopped by [`Interrupter::stop`](burn::train::Interrupter::stop) is no
    /// error, see [`LearningResult::interrupted`]; with commits, it can go on where it stopped.
    /// One that goes on from its end, or from where it stopped early, is done at once.
    ///
    /// Burn's dashboard stays on the screen until the result's `renderer` is dropped; what is
    /// printed before is lost. At the end it makes Burn forget that a training was stopped or
    /// failed on its data or a metric, which is known here with commits in their own loop alone.
    ///
    /// An error keeps the model; what it shares with a clone that was made before, as averages of
    /// weights are, is at hand there, as it was before the step that failed. With commits, the last
    /// one is there.
    ///
    /// # Errors
    ///
    /// The first error of a step, a commit or a file of metrics; the
    /// error that stopped Burn's training; a panic in the model, the data or a metric; with
    /// commits, an epoch whose data ended early (unless the strategy is kept, which cannot tell), a
    /// metric logger beside ours, a run that has commits and is not resumed, and a kept strategy
    /// that would go on within an epoch.
    pub fn launch(self) -> Result<LearningResult<M>> {
        if let Some(error) = self.model.error() {
            return Err(error);
        }
        let Self { mut training, model, optimizer, lr, committer, device, .. } = self;
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
                let strategy = EpochLoop { device, committer: committer.clone(), batches, steps };
                training =
                    training.with_training_strategy(TrainingStrategy::Custom(Arc::new(strategy)));
            }
        }
        // Statistics of an earlier forward pass would come after those of a commit.
        model.update_statistics();
        let model = model.train().with_interrupter(training.interrupter());
        // A panic of the caller's own code, which Burn lets through.
        let launched =
            catch_unwind(AssertUnwindSafe(|| training.launch(Learner::new(model, optimizer, lr))));
        if let (Err(_), Some(committer)) = (&launched, &committer) {
            committer.wait_for_threads();
        }
        if let Some(error) = committer.as_ref().and_then(Committer::error) {
            return Err(error);
        }
        let mut result = launched.map_err(|panic| Error::Panic(message(&*panic)))?;
        // What Burn's dashboard has forgotten by now.
        if let Some((interrupted, error)) = committer.as_ref().map(Committer::end) {
            result.interrupted = result.interrupted.or(interrupted);
            result.error = result.error.or(error);
        }
        if let Some(error) = result.model.error() {
            return Err(error);
        }
        match &result.error {
            Some(error) => Err(Error::Training(error.clone())),
            None => Ok(result),
        }
    }
}
