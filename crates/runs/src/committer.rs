//! Burn's three checkpointers as one commit.
//!
//! Burn saves the model, the optimizer and the schedule each by a thread of its own, as three files
//! of which any may be missing. Here the threads of the model and the optimizer hand their bytes
//! over to that of the schedule, which commits all three or nothing. The training waits for the
//! copy of the records, and until the commit before is written.

mod log; // the history of metrics, and Burn's logger for it
mod outcome; // how a training ended
mod records; // plans of commits, and the records for them

use std::{
    any::{Any, TypeId},
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{Arc, Mutex, Once, OnceLock, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use burn::{
    lr_scheduler::LrSchedulerRecord,
    module::ParamId,
    optim::OptimizerRecord,
    store::ModuleRecord,
    tensor::{Bytes, Device, Distribution, Tensor},
    train::{
        Interrupter, SupervisedTraining,
        checkpoint::{
            Checkpoint, Checkpointer, CheckpointerError, CheckpointingAction, CheckpointingStrategy,
        },
        metric::store::{EventStoreClient, Split},
    },
};
use burn_ema_base::disk;

pub(crate) use self::{log::no_step, outcome::Ending, records::CommitPoint};
use self::{
    log::{Log, Logger, no_batch},
    outcome::Outcome,
    records::{Planned, Records},
};
use crate::{
    Commit, CommitConfig, Commits, Counts, Error, Manifest, Progress, Result, RunLock, RunModel,
    Warnings, changes,
    commits::MODEL,
    config::BestEpoch,
    history::{History, Mark},
    manifest::FORMAT,
    strict,
};

/// The files of a commit that hold the states of the optimizer and of the schedule.
pub(crate) const OPTIMIZER: &str = "optimizer.bpk";
pub(crate) const SCHEDULER: &str = "scheduler.bpk";

/// The state that Burn's threads and the loop share to commit one training. Clones share it.
#[derive(Clone)]
pub(crate) struct Committer(Arc<SharedCommitter>);

struct SharedCommitter {
    config: CommitConfig,
    store: Commits,
    /// Held until the last clone of the [`Committer`] is dropped.
    _lock: Arc<RunLock>,
    about: AboutModel,
    /// The commit to go on from: set by a resume, taken when the training begins.
    restored: Mutex<Option<ResumePoint>>,
    /// Set when the training begins.
    identity: OnceLock<RunIdentity>,
    log: Log,
    records: Records,
    outcome: Outcome,
    warnings: Warnings,
    /// The optimizer steps at the commits whose manifests were read or written.
    steps: Mutex<BTreeMap<Progress, u64>>,
    /// Completed when the metric by which the best commit is kept was checked.
    best: Once,
}

/// The facts of the model for a manifest: the name and description of each part, and the function
/// that reads the numbers of optimizer steps and samples from a record of the model.
struct AboutModel {
    parts: Vec<(String, String)>,
    counts: fn(Bytes) -> Result<Option<Counts>>,
}

/// The id of a run and the seed of its random numbers.
#[derive(Clone, Default)]
struct RunIdentity {
    run: String,
    seed: u64,
}

/// The content of a commit that a training goes on with.
struct ResumePoint {
    identity: RunIdentity,
    mark: Mark,
    /// The part of the model that computed the outputs in validation before the commit; `None` for
    /// a plain model.
    validated: Option<String>,
    files: [Bytes; 3],
}

impl Committer {
    /// Takes the lock of the run, unless `config` holds it, creates the directories and removes
    /// unfinished commits.
    pub fn new<M: RunModel>(
        mut config: CommitConfig,
        model: &M,
        interrupter: Interrupter,
        warnings: Warnings,
    ) -> Result<Self> {
        let lock = match config.lock.take() {
            Some(lock) => lock,
            None => {
                disk::create_directory(&config.run)?;
                Arc::new(RunLock::take(&config.run)?)
            }
        };
        let store = Commits::of(&config.run);
        store.prepare()?;
        Ok(Self(Arc::new(SharedCommitter {
            config,
            store,
            _lock: lock,
            about: AboutModel { parts: model.parts(), counts: M::counts },
            restored: Mutex::default(),
            identity: OnceLock::new(),
            log: Log::default(),
            records: Records::default(),
            outcome: Outcome::new(interrupter),
            warnings,
            steps: Mutex::default(),
            best: Once::new(),
        })))
    }

    pub fn config(&self) -> &CommitConfig {
        &self.0.config
    }

    pub fn store(&self) -> &Commits {
        &self.0.store
    }

    fn run(&self) -> &Path {
        &self.0.config.run
    }

    /// Stores what ended the training, for [`end`](Self::end).
    pub fn ended(&self) {
        self.0.outcome.ended();
    }

    /// The interruption and the error that [`ended`](Self::ended) stored; both are `None` with a
    /// kept strategy, which does not call it.
    pub fn end(&self) -> Ending {
        self.0.outcome.end()
    }

    /// Stores the error, unless there is one already, and stops the training.
    pub fn fail(&self, error: Error) {
        self.0.outcome.fail(error);
    }

    /// Fails the training, since a loader has no batch.
    pub fn fail_without_batch(&self, split: &Split, epoch: usize) {
        self.fail(no_batch(split, epoch));
    }

    /// The first error of the model, a commit or the history.
    pub fn error(&self) -> Option<Error> {
        self.0.outcome.error()
    }

    /// The seed of the run's random numbers; 0 before the training begins.
    pub fn seed(&self) -> u64 {
        self.0.identity.get().map_or(0, |identity| identity.seed)
    }

    /// Stores the identity, the metrics and the records of a commit, for a training that goes on
    /// from it. Nothing on disk changes.
    ///
    /// Returns the error of a damaged `metrics.csv`, or `None`. The damage does not prevent a
    /// resume, since the commit holds all metrics that decisions need.
    pub fn go_on(&self, commit: &Commit, files: [Bytes; 3]) -> Option<Error> {
        let manifest = commit.manifest();
        let restored = ResumePoint {
            identity: RunIdentity { run: manifest.run.clone(), seed: manifest.seed },
            mark: manifest.metrics.clone(),
            validated: manifest.parts.first().map(|(name, _)| name.clone()),
            files,
        };
        *self.0.restored.lock().unwrap_or_else(PoisonError::into_inner) = Some(restored);
        History::check(self.run(), &manifest.metrics).err()
    }

    /// Refuses a commit whose configuration or seed differs from the settings.
    pub fn check(&self, commit: &Commit) -> Result<()> {
        let CommitConfig { config, may_change, seed, .. } = &self.0.config;
        let manifest = commit.manifest();
        changes::check(&manifest.config, config, may_change)?;
        match seed {
            Some(seed) if *seed != manifest.seed => {
                let expected = format!("{}, as in the run", manifest.seed);
                Err(Error::parameter("the seed", expected, seed))
            }
            _ => Ok(()),
        }
    }

    /// Attaches the checkpointers, the commit strategy and the metric logger to a training.
    ///
    /// Renames the commits after `from`, and opens `metrics.csv`, without the lines after `from`.
    pub fn attach<M: RunModel>(
        &self,
        training: SupervisedTraining<M>,
        from: Option<Progress>,
        device: &Device,
    ) -> Result<SupervisedTraining<M>> {
        let given_up = self.0.store.after(from)?;
        let restored = self.0.restored.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Before these commits are renamed: if the process ends between, the next resume finds them
        // and copies the metrics again.
        if let Some(ResumePoint { mark, .. }) = &restored
            && !given_up.is_empty()
        {
            History::keep(self.run(), mark)?;
        }
        self.0.store.set_aside(given_up)?;
        let (mut history, identity, validated, files) = match restored {
            Some(ResumePoint { identity, mark, validated, files }) => {
                let history = History::resume(self.run(), &mark)?;
                (history, identity, validated, files.map(Some))
            }
            None => {
                let identity = RunIdentity {
                    // Used only as a random number that the seed does not determine: two runs with
                    // the same seed have different ids.
                    run: format!("{:016x}", ParamId::new().val()),
                    seed: self.0.config.seed.unwrap_or_else(|| draw(device)),
                };
                (History::create(self.run())?, identity, None, [const { None }; 3])
            }
        };
        if let Some((part, _)) = self.0.about.parts.first()
            && (history.is_empty() || validated.as_ref() != Some(part))
        {
            history.validates(from.map_or(0, |from| from.epochs) + 1, part)?;
        }
        self.0.identity.get_or_init(|| identity);
        self.0.log.begin(history);
        let [model, optimizer, scheduler] = files.map(|restored| RecordCheckpointer {
            committer: self.clone(),
            restored: restored.into(),
        });
        let training = training
            .with_custom_checkpointers(model, optimizer, scheduler)
            .with_checkpointing_strategy(CommitStrategy(self.clone()))
            .with_metric_logger(Logger(self.clone()));
        Ok(match from {
            Some(progress) => training.checkpoint(progress.epochs),
            None => training,
        })
    }

    /// Waits until the threads of a training that panicked have dropped the run's lock, for at most
    /// 5 seconds.
    pub fn wait_for_threads(&self) {
        let until = Instant::now() + Duration::from_secs(5);
        while Arc::strong_count(&self.0) > 1 && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Hides the metrics of the epochs after `epoch`, so that early stopping decides again as it
    /// did at the end of `epoch`; `None` shows all.
    pub fn show_until(&self, epoch: Option<usize>) {
        self.0.log.show_until(epoch);
    }

    /// Announces the next metrics: those of a batch with this number of items, or with `None` those
    /// of the end of a split.
    pub fn expect(&self, items: Option<usize>) {
        self.0.log.expect(items);
    }

    /// Sets the place of the next commit. Without a call, it is the end of the epoch.
    pub fn next_is(&self, place: CommitPoint) {
        self.0.records.next_is(place);
    }

    /// The mark of the history now, after all events that were sent before. Waits for these events.
    ///
    /// `None` after an error of the training. An error of the history stops the training.
    pub fn mark(&self, store: &EventStoreClient) -> Option<Mark> {
        let mark = self.0.log.mark(store);
        let mark = mark.unwrap_or_else(|error| {
            self.0.outcome.fail(error);
            None
        });
        // After an error the file may lack lines, so that nothing must be committed.
        mark.filter(|_| self.0.outcome.error().is_none())
    }

    /// Plans the commit that Burn asks for; false after an error, when nothing is committed.
    fn plan(&self, epoch: usize, store: &EventStoreClient) -> bool {
        let place = self.0.records.take_next();
        let place = place.unwrap_or(CommitPoint {
            progress: Progress::after(epoch),
            steps: 0,
            loader: None,
            mark: None,
        });
        // After an error the history may lack values of metrics.
        if self.0.outcome.is_failed() {
            return false;
        }
        let CommitPoint { progress, steps, loader, mark } = place;
        let Some(metrics) = mark.or_else(|| self.mark(store)) else { return false };
        self.0.records.plan(Planned { progress, steps, loader, metrics });
        if progress.batches == 0 {
            self.0.best.call_once(|| self.look_for_best(progress.epochs));
        }
        true
    }

    /// Checks, after an epoch, that the metric by which the best commit is kept has a number. If
    /// not, the training fails, or gets a warning if the metric is the default.
    ///
    /// The epoch is committed all the same, so that a run with another setting can go on from it.
    fn look_for_best(&self, epoch: usize) {
        let Some(BestEpoch { key, chosen, .. }) = &self.0.config.best else { return };
        let Some(found) = self.0.log.lacks(key, epoch) else { return };
        let expected = "a metric that gives numbers, by which the best commit is kept (register it \
                        with `metric_valid_numeric`, or choose by `with_keep_best` or \
                        `without_best`)";
        let error = Error::parameter(key, expected, found);
        match chosen {
            true => self.0.outcome.fail(error),
            false => self.0.warnings.add(error),
        }
    }

    /// Writes the planned commit, with the record of the schedule, which Burn hands over last.
    /// Waits for the other two records.
    fn commit(&self, scheduler: Result<Bytes>) -> Result<()> {
        let (plan, [model, optimizer]) = self.0.records.take();
        let Some(Planned { progress, steps, loader, metrics }) = plan else { return Ok(()) };
        let (model, optimizer, scheduler) = (model?, optimizer?, scheduler?);
        let SharedCommitter { config, store, about: AboutModel { parts, counts }, .. } = &*self.0;

        let files = [(MODEL, &model), (OPTIMIZER, &optimizer), (SCHEDULER, &scheduler)];
        if !config.allows_non_finite() {
            for (name, bytes) in files {
                let path = store.path().join(progress.name()).join(name);
                strict::check_finite(bytes.clone())
                    .map_err(|error| Error::file("commit", path, error))?;
            }
        }
        let counts = counts(model.clone())?.unwrap_or(Counts { steps, samples: 0 });
        let files: BTreeMap<&str, &[u8]> =
            files.into_iter().map(|(name, bytes)| (name, &**bytes)).collect();
        self.0.log.sync()?;
        let RunIdentity { run, seed } = self.0.identity.get().cloned().unwrap_or_default();
        let written = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let kept = metrics.clone();
        let manifest = Manifest {
            format: FORMAT,
            run,
            progress,
            steps: counts.steps,
            samples: counts.samples,
            loader,
            seed,
            parts: parts.clone(),
            config: config.config.clone(),
            metrics,
            files: BTreeMap::new(),
            versions: vec![env!("CARGO_PKG_VERSION").to_owned()],
            written: written.as_secs(),
        };
        let mut known = self.0.steps.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(progress, counts.steps);
        let steps = |place| store.steps(place, &mut known);
        store.write(manifest, &files, |places| config.keep(places, &kept, steps))
    }
}

/// One of Burn's three checkpointers.
struct RecordCheckpointer {
    committer: Committer,
    /// The bytes from which Burn restores, once; `None` for a new run.
    restored: Mutex<Option<Bytes>>,
}

impl<R: Checkpoint> Checkpointer<R> for RecordCheckpointer {
    fn save(&self, _epoch: usize, record: R) -> std::result::Result<(), CheckpointerError> {
        let SharedCommitter { records, outcome, .. } = &*self.committer.0;
        // A panic would end this thread, and Burn panics when it finds the thread gone, even in a
        // drop, which can end the process.
        let bytes = caught(role::<R>(), || Ok(record.checkpoint_into_bytes()?.shared()));
        match role::<R>() {
            MODEL => records.add_model(bytes),
            OPTIMIZER => records.add_optimizer(bytes),
            _ => caught("the commit", || self.committer.commit(bytes))
                .map_err(|error| outcome.keep(error))?,
        }
        Ok(())
    }

    /// Does nothing: commits are removed after a newer one was read back, and not when Burn asks.
    fn delete(&self, _epoch: usize) -> std::result::Result<(), CheckpointerError> {
        Ok(())
    }

    fn restore(&self, _epoch: usize) -> std::result::Result<R, CheckpointerError> {
        let bytes = self.restored.lock().unwrap_or_else(PoisonError::into_inner).take();
        let none = || CheckpointerError::Unknown(format!("no {}", role::<R>()));
        R::checkpoint_from_bytes(bytes.ok_or_else(none)?).map_err(CheckpointerError::Record)
    }
}

/// Calls `work` and returns a panic in it as an error, whose message begins with `what`.
fn caught<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let caught = catch_unwind(AssertUnwindSafe(work));
    caught.unwrap_or_else(|panic| Err(Error::Panic(format!("{what}: {}", message(&*panic)))))
}

/// The message of a panic; `no message` if its payload is no text.
pub(crate) fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "no message".to_owned())
}

/// Draws a seed from the random state of a device.
fn draw(device: &Device) -> u64 {
    let tensor = Tensor::<1>::random([2], Distribution::Default, &device.clone().inner());
    let bits = |number: f64| u64::from((number as f32).to_bits());
    tensor.into_data().iter::<f64>().fold(0, |seed, number| seed << 32 | bits(number))
}

/// The name of the file for a record of type `R`.
fn role<R: 'static>() -> &'static str {
    let record = TypeId::of::<R>();
    if record == TypeId::of::<ModuleRecord>() {
        MODEL
    } else if record == TypeId::of::<OptimizerRecord>() {
        OPTIMIZER
    } else {
        debug_assert_eq!(record, TypeId::of::<LrSchedulerRecord>());
        SCHEDULER
    }
}

/// Commits at every call: Burn calls it at the end of each epoch, the loop of this crate also
/// within an epoch.
struct CommitStrategy(Committer);

impl CheckpointingStrategy for CommitStrategy {
    fn checkpointing(
        &mut self,
        epoch: usize,
        store: &EventStoreClient,
    ) -> Vec<CheckpointingAction> {
        match self.0.plan(epoch, store) {
            true => vec![CheckpointingAction::Save],
            false => Vec::new(),
        }
    }
}
