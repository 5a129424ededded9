//! Burn's three checkpointers as one commit.
//!
//! Burn saves the model, the optimizer and the schedule each by a thread of its own, as three files
//! of which any may be missing. Here each thread hands its bytes over, and the last one commits
//! all three or nothing. The training waits for the copy, and for the commit before where that is
//! not done yet.

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

/// The other files of a commit.
pub(crate) const OPTIMIZER: &str = "optimizer.bpk";
pub(crate) const SCHEDULER: &str = "scheduler.bpk";

/// The commits of one training, as Burn's threads and the loop share them.
#[derive(Clone)]
pub(crate) struct Committer(Arc<SharedCommitter>);

struct SharedCommitter {
    config: CommitConfig,
    store: Commits,
    /// Held as long as anything of the training lives.
    _lock: Arc<RunLock>,
    about: AboutModel,
    /// Set by a resume, until the training begins.
    restored: Mutex<Option<ResumePoint>>,
    /// Known from when the training begins.
    identity: OnceLock<RunIdentity>,
    log: Log,
    records: Records,
    outcome: Outcome,
    warnings: Warnings,
    /// Done when the metric of the best commit was looked for.
    best: Once,
}

/// The part of a manifest that the model decides.
struct AboutModel {
    parts: Vec<(String, String)>,
    counts: fn(Bytes) -> Result<Option<Counts>>,
}

/// Which run it is, and from what its random numbers are drawn.
#[derive(Clone, Default)]
struct RunIdentity {
    run: String,
    seed: u64,
}

/// The content of a commit that a training goes on with.
struct ResumePoint {
    identity: RunIdentity,
    mark: Mark,
    /// The part of the model that answered validation until there.
    validated: Option<String>,
    files: [Bytes; 3],
}

impl Committer {
    /// Takes the lock of the run.
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

    /// Keeps what ended the training.
    pub fn ended(&self) {
        self.0.outcome.ended();
    }

    /// The ending that was kept; nothing where the loop was Burn's.
    pub fn end(&self) -> Ending {
        self.0.outcome.end()
    }

    /// Keeps the first error, and stops the training.
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

    /// The seed from which the random numbers of the run are drawn.
    pub fn seed(&self) -> u64 {
        self.0.identity.get().map_or(0, |identity| identity.seed)
    }

    /// Takes the identity, the metrics and the records of a commit, for a training that goes on
    /// from it; nothing on disk changes.
    ///
    /// Returns the damage of the file of metrics, if there is any; no decision depends on that
    /// file.
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

    /// Refuses a commit of a run that was configured otherwise.
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

    /// Gives a training everything that it needs to commit here.
    pub fn attach<M: RunModel>(
        &self,
        training: SupervisedTraining<M>,
        from: Option<Progress>,
        device: &Device,
    ) -> Result<SupervisedTraining<M>> {
        let given_up = self.0.store.after(from)?;
        let restored = self.0.restored.lock().unwrap_or_else(PoisonError::into_inner).take();
        // While they show that there is something to keep.
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
                    // Not a weight of anything: two runs of one seed are two runs.
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

    /// Waits until the threads of a training that panicked have let go of the run, for a while.
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

    /// Says that the metrics of a batch with so many items come next, or those of the end of a split.
    pub fn expect(&self, items: Option<usize>) {
        self.0.log.expect(items);
    }

    /// Sets the place of the next commit, which is otherwise the end of an epoch.
    pub fn next_is(&self, place: CommitPoint) {
        self.0.records.next_is(place);
    }

    /// Where the history is now; every event that was sent before is in it.
    ///
    /// None after an error, which stops the training.
    pub fn mark(&self, store: &EventStoreClient) -> Option<Mark> {
        let mark = self.0.log.mark(store);
        let mark = mark.unwrap_or_else(|error| {
            self.0.outcome.fail(error);
            None
        });
        // After an error the file may lack lines, so that nothing is committed with it.
        mark.filter(|_| self.0.outcome.error().is_none())
    }

    /// Plans the commit that Burn asks for; false if an error rules it out.
    fn plan(&self, epoch: usize, store: &EventStoreClient) -> bool {
        let place = self.0.records.take_next();
        let place = place.unwrap_or(CommitPoint {
            progress: Progress::after(epoch),
            steps: 0,
            loader: None,
            mark: None,
        });
        // After an error the history may lack what a metric would have said.
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

    /// Looks for the metric by which the best commit is kept, after an epoch.
    ///
    /// The epoch is committed all the same: a run with another setting goes on from there.
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

    /// Commits, with the record of the schedule, which Burn hands over last.
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
        store.write(manifest, &files, |places| config.keep(places, &kept))
    }
}

/// One of Burn's three checkpointers.
struct RecordCheckpointer {
    committer: Committer,
    /// The bytes from which Burn restores.
    restored: Mutex<Option<Bytes>>,
}

impl<R: Checkpoint> Checkpointer<R> for RecordCheckpointer {
    fn save(&self, _epoch: usize, record: R) -> std::result::Result<(), CheckpointerError> {
        let SharedCommitter { records, outcome, .. } = &*self.committer.0;
        // A panic would end the thread, and Burn the process when it finds it gone.
        let bytes = caught(role::<R>(), || Ok(record.checkpoint_into_bytes()?.shared()));
        match role::<R>() {
            MODEL => records.add_model(bytes),
            OPTIMIZER => records.add_optimizer(bytes),
            _ => caught("the commit", || self.committer.commit(bytes))
                .map_err(|error| outcome.keep(error))?,
        }
        Ok(())
    }

    /// Commits are removed when a newer one was read back, and not when Burn says so.
    fn delete(&self, _epoch: usize) -> std::result::Result<(), CheckpointerError> {
        Ok(())
    }

    fn restore(&self, _epoch: usize) -> std::result::Result<R, CheckpointerError> {
        let bytes = self.restored.lock().unwrap_or_else(PoisonError::into_inner).take();
        let none = || CheckpointerError::Unknown(format!("no {}", role::<R>()));
        R::checkpoint_from_bytes(bytes.ok_or_else(none)?).map_err(CheckpointerError::Record)
    }
}

/// A panic as an error.
fn caught<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let caught = catch_unwind(AssertUnwindSafe(work));
    caught.unwrap_or_else(|panic| Err(Error::Panic(format!("{what}: {}", message(&*panic)))))
}

/// The message of a panic.
pub(crate) fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "no message".to_owned())
}

/// A seed from the random numbers of a device.
fn draw(device: &Device) -> u64 {
    let tensor = Tensor::<1>::random([2], Distribution::Default, &device.clone().inner());
    let bits = |number: f64| u64::from((number as f32).to_bits());
    tensor.into_data().iter::<f64>().fold(0, |seed, number| seed << 32 | bits(number))
}

/// The file of a record of this type.
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

/// Commits whenever Burn asks, which is at the end of each epoch, and when the loop says.
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
