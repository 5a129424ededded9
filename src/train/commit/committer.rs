//! Burn's three checkpointers as one commit.
//!
//! Burn saves the model, the optimizer and the schedule each by a thread of its own, as three files
//! of which any may be missing. Here each thread hands its bytes over, and the last one commits
//! all three or nothing. The training waits for the copy, and for the commit before where that is
//! not done yet.

use std::{
    any::{Any, TypeId},
    collections::{BTreeMap, HashMap, VecDeque},
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use burn::{
    lr_scheduler::LrSchedulerRecord,
    module::ParamId,
    optim::OptimizerRecord,
    store::ModuleRecord,
    tensor::{Bytes, Device, Distribution, Tensor},
    train::{
        Interrupter, Interruption, LearnerModel, SupervisedTraining, TrainingError,
        checkpoint::{
            Checkpoint, Checkpointer, CheckpointerError, CheckpointingAction, CheckpointingStrategy,
        },
        logger::MetricLogger,
        metric::{
            MetricDefinition, MetricId, NumericEntry,
            store::{Aggregate, EpochSummary, EventStoreClient, MetricsUpdate, Split},
        },
    },
};

use super::{
    super::{Averaged, averaged, strict},
    CommitConfig,
};
use crate::{
    Error, Result,
    run::{
        Commit, Commits, FORMAT, History, MODEL, Manifest, Mark, Progress, RunLock, check_changes,
        create_directory,
    },
};

/// The other files of a commit.
pub(in crate::train) const OPTIMIZER: &str = "optimizer.bpk";
pub(in crate::train) const SCHEDULER: &str = "scheduler.bpk";

/// The commits of one training: what Burn's threads and the loop share.
#[derive(Clone)]
pub(in crate::train) struct Committer(Arc<Shared>);

struct Shared {
    config: CommitConfig,
    store: Commits,
    /// Held as long as anything of the training lives.
    _lock: Arc<RunLock>,
    averages: Vec<(String, String)>,
    interrupter: Interrupter,
    state: Mutex<State>,
    arrived: Condvar,
}

#[derive(Default)]
struct State {
    run: String,
    seed: u64,
    /// Where a resumed history goes on, and the average that validated until there.
    mark: Option<(Mark, Option<String>)>,
    history: Option<History>,
    names: HashMap<MetricId, String>,
    /// What the loop says of the next commit; an end of an epoch otherwise.
    next: Option<(Progress, Option<Mark>)>,
    planned: VecDeque<(Progress, Mark)>,
    models: VecDeque<Result<Bytes>>,
    optimizers: VecDeque<Result<Bytes>>,
    /// The bytes from which Burn restores.
    restored: BTreeMap<&'static str, Bytes>,
    error: Option<Error>,
    end: End,
}

/// What ended a training before its last epoch, if anything.
pub(in crate::train) type End = (Option<Interruption>, Option<Arc<TrainingError>>);

impl Committer {
    /// Takes the lock of the run.
    pub fn new<M: LearnerModel>(
        mut config: CommitConfig,
        model: &Averaged<M>,
        interrupter: Interrupter,
    ) -> Result<Self> {
        let lock = match config.lock.take() {
            Some(lock) => lock,
            None => {
                create_directory(&config.run)?;
                Arc::new(RunLock::take(&config.run)?)
            }
        };
        let store = Commits::of(&config.run);
        store.prepare()?;
        let averages = model.averages();
        let averages = averages.iter().map(|a| (a.name().to_owned(), a.rule().to_string()));
        Ok(Self(Arc::new(Shared {
            averages: averages.collect(),
            store,
            config,
            _lock: lock,
            interrupter,
            state: Mutex::default(),
            arrived: Condvar::new(),
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

    /// Keeps what ended the training: Burn's dashboard forgets it as soon as it is told of the end.
    pub fn ended(&self) {
        let interrupter = &self.0.interrupter;
        self.lock().end = (interrupter.interruption(), interrupter.error());
    }

    /// What ended the training when its loop did.
    pub fn end(&self) -> End {
        self.lock().end.clone()
    }

    /// The first error of a commit or of the history.
    pub fn error(&self) -> Option<Error> {
        self.lock().error.clone()
    }

    /// What the random numbers of the run are drawn from.
    pub fn seed(&self) -> u64 {
        self.lock().seed
    }

    /// Takes over what a commit says, for a training that goes on from it; nothing on disk changes.
    ///
    /// What is returned is no error: no decision rests on a damaged file of metrics.
    pub fn go_on(&self, commit: &Commit, files: [Bytes; 3]) -> Option<Error> {
        let manifest = commit.manifest();
        let mut state = self.lock();
        state.run = manifest.run.clone();
        state.seed = manifest.seed;
        let validated = manifest.averages.first().map(|(name, _)| name.clone());
        state.mark = Some((manifest.metrics.clone(), validated));
        state.restored = [MODEL, OPTIMIZER, SCHEDULER].into_iter().zip(files).collect();
        History::check(self.run(), &manifest.metrics).err()
    }

    /// Refuses a commit of a run that was configured otherwise.
    pub fn check(&self, commit: &Commit) -> Result<()> {
        let CommitConfig { config, may_change, seed, .. } = &self.0.config;
        let manifest = commit.manifest();
        check_changes(&manifest.config, config, may_change)?;
        match seed {
            Some(seed) if *seed != manifest.seed => {
                let expected = format!("{}, as in the run", manifest.seed);
                Err(Error::parameter("the seed", expected, seed))
            }
            _ => Ok(()),
        }
    }

    /// Everything that a training needs to commit here.
    pub fn attach<M: LearnerModel>(
        &self,
        training: SupervisedTraining<M>,
        from: Option<Progress>,
        device: &Device,
    ) -> Result<SupervisedTraining<M>> {
        let given_up = self.0.store.after(from)?;
        let mut state = self.lock();
        // While they tell that there is something to keep.
        if let Some((mark, _)) = &state.mark
            && !given_up.is_empty()
        {
            History::keep(self.run(), mark)?;
        }
        self.0.store.set_aside(given_up)?;
        let (mut history, validated) = match state.mark.take() {
            Some((mark, validated)) => (History::resume(self.run(), &mark)?, validated),
            None => {
                // Not a weight of anything: two runs of one seed are two runs.
                state.run = format!("{:016x}", ParamId::new().val());
                state.seed = self.0.config.seed.unwrap_or_else(|| draw(device));
                (History::create(self.run())?, None)
            }
        };
        let validates = self.0.averages.first().map(|(name, _)| name);
        if let Some(average) =
            validates.filter(|now| history.is_empty() || validated.as_ref() != Some(*now))
        {
            history.validates(from.map_or(0, |from| from.epochs) + 1, average)?;
        }
        state.history = Some(history);
        drop(state);
        let part = || Part(self.clone());
        let training = training
            .with_custom_checkpointers(part(), part(), part())
            .with_checkpointing_strategy(AtEpochs(self.clone()))
            .with_metric_logger(Log(self.clone()));
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

    /// Shows decisions that are made again what was known when they were made first.
    pub fn show_until(&self, epoch: Option<usize>) {
        if let Some(history) = &mut self.lock().history {
            history.show_until(epoch);
        }
    }

    /// Says that the next commit is of a place within an epoch.
    ///
    /// The history is as it is then, or as it was at a mark.
    pub fn next_is(&self, progress: Progress, mark: Option<Mark>) {
        self.lock().next = Some((progress, mark));
    }

    /// Where the history is. Every event that was sent before is in it.
    ///
    /// None after an error, which stops the training.
    pub fn mark(&self, store: &EventStoreClient) -> Option<Mark> {
        // The answer comes from the thread that takes the events, after them; and from the first
        // logger of the training.
        let answer = store.find_metric(PROBE, 0, Aggregate::Mean, &Split::Train);
        let mut state = self.lock();
        if answer != Some(PROBED) {
            let expected = "none: with commits, the metrics are kept in metrics.csv";
            let error = Error::value("the metric logger of the training", expected, "another one");
            self.fail(&mut state, error);
        }
        // After an error the file may lack lines, so that nothing is committed with it.
        if state.error.is_some() {
            return None;
        }
        match state.history.as_mut()?.mark() {
            Ok(mark) => Some(mark),
            Err(error) => {
                self.fail(&mut state, error);
                None
            }
        }
    }

    /// Keeps the first error, and stops the training.
    fn fail(&self, state: &mut State, error: Error) {
        let text = error.to_string();
        state.error.get_or_insert(error);
        self.0.interrupter.fail(CheckpointerError::Unknown(text));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No panic leaves the state half changed: what panics runs outside of the lock.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bytes of a record, shared, so that they can be looked into without a copy.
    fn bytes<R: Checkpoint>(record: R) -> Result<Bytes> {
        Ok(record.checkpoint_into_bytes()?.shared())
    }

    /// The last part has arrived: waits for the others, and commits all.
    fn commit(&self, scheduler: Result<Bytes>) -> Result<()> {
        let mut state = self.lock();
        let (model, optimizer) = loop {
            if !state.models.is_empty()
                && let Some(optimizer) = state.optimizers.pop_front()
                && let Some(model) = state.models.pop_front()
            {
                break (model, optimizer);
            }
            state = self.0.arrived.wait(state).unwrap_or_else(PoisonError::into_inner);
        };
        let planned = state.planned.pop_front();
        let (run, seed) = (state.run.clone(), state.seed);
        let history = state.history.as_ref().map(History::file).transpose()?;
        drop(state);
        let Some((progress, metrics)) = planned else { return Ok(()) };
        let (model, optimizer, scheduler) = (model?, optimizer?, scheduler?);

        let parts = [(MODEL, &model), (OPTIMIZER, &optimizer), (SCHEDULER, &scheduler)];
        for (name, bytes) in parts {
            if !self.0.config.non_finite {
                let path = self.0.store.path().join(progress.name()).join(name);
                strict::check_finite(bytes.clone())
                    .map_err(|error| Error::file("commit", path, error))?;
            }
        }
        let clock = averaged::clock_in(model.clone())?;
        let files: BTreeMap<&str, &[u8]> =
            parts.into_iter().map(|(name, bytes)| (name, &**bytes)).collect();
        if let Some((path, file)) = history {
            file.sync_all().map_err(|error| Error::file("sync", path, error))?;
        }
        let written = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let kept = metrics.clone();
        let manifest = Manifest {
            format: FORMAT,
            run,
            progress,
            steps: clock.step,
            samples: clock.samples,
            seed,
            averages: self.0.averages.clone(),
            config: self.0.config.config.clone(),
            metrics,
            files: BTreeMap::new(),
            versions: [env!("CARGO_PKG_VERSION").to_owned(), "0.22.1".to_owned()],
            written: written.as_secs(),
        };
        let config = &self.0.config;
        self.0.store.write(manifest, &files, |places| config.keep(places, &kept))
    }
}

/// One of Burn's three checkpointers.
struct Part(Committer);

impl<R: Checkpoint> Checkpointer<R> for Part {
    fn save(&self, _epoch: usize, record: R) -> std::result::Result<(), CheckpointerError> {
        let committer = &self.0;
        // A panic would end the thread, and Burn the process when it finds it gone.
        let bytes = caught(role::<R>(), || Committer::bytes(record));
        // Burn sends the schedule last.
        let done = match role::<R>() {
            SCHEDULER => caught("the commit", || committer.commit(bytes)),
            role => {
                let mut state = committer.lock();
                match role {
                    MODEL => state.models.push_back(bytes),
                    _ => state.optimizers.push_back(bytes),
                }
                committer.0.arrived.notify_all();
                Ok(())
            }
        };
        done.map_err(|error| {
            let text = error.to_string();
            committer.lock().error.get_or_insert(error);
            CheckpointerError::Unknown(text)
        })
    }

    /// Commits are removed when a newer one was read back, and not when Burn says so.
    fn delete(&self, _epoch: usize) -> std::result::Result<(), CheckpointerError> {
        Ok(())
    }

    fn restore(&self, _epoch: usize) -> std::result::Result<R, CheckpointerError> {
        let role = role::<R>();
        let bytes = self.0.lock().restored.remove(role);
        let bytes = bytes.ok_or_else(|| CheckpointerError::Unknown(format!("no {role}")))?;
        R::checkpoint_from_bytes(bytes).map_err(CheckpointerError::Record)
    }
}

/// A panic as an error.
fn caught<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let caught = catch_unwind(AssertUnwindSafe(work));
    caught.unwrap_or_else(|panic| Err(Error::Panic(format!("{what}: {}", message(&*panic)))))
}

/// What a panic says.
pub(in crate::train) fn message(panic: &(dyn Any + Send)) -> String {
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

/// Which file a record of this type is.
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
struct AtEpochs(Committer);

impl CheckpointingStrategy for AtEpochs {
    fn checkpointing(
        &mut self,
        epoch: usize,
        store: &EventStoreClient,
    ) -> Vec<CheckpointingAction> {
        let (progress, mark) = match self.0.lock().next.take() {
            Some((progress, mark)) => (progress, mark),
            None => (Progress::after(epoch), None),
        };
        // After an error the history may lack what a metric would have said.
        if self.0.0.interrupter.error().is_some() {
            return Vec::new();
        }
        let Some(mark) = mark.or_else(|| self.0.mark(store)) else { return Vec::new() };
        self.0.lock().planned.push_back((progress, mark));
        vec![CheckpointingAction::Save]
    }
}

/// A metric that is none, by which our logger is known, and its value.
const PROBE: &str = "\0commits";
const PROBED: f64 = 0.7171;

/// Burn's metrics on their way to the history.
struct Log(Committer);

impl MetricLogger for Log {
    fn log(&mut self, update: MetricsUpdate, epoch: usize, split: &Split) {
        let mut state = self.0.lock();
        let State { history: Some(history), names, .. } = &mut *state else { return };
        let name = |id: &MetricId| names.get(id).cloned().unwrap_or_default();
        if let Err(error) = history.log(&update, epoch, split, name) {
            self.0.fail(&mut state, error);
        }
    }

    fn read_numeric(
        &mut self,
        name: &str,
        epoch: usize,
        split: &Split,
    ) -> std::result::Result<Vec<NumericEntry>, String> {
        if name == PROBE {
            return Ok(vec![NumericEntry::Final(PROBED)]);
        }
        let state = self.0.lock();
        let value = state.history.as_ref().and_then(|history| history.value(name, epoch, split));
        Ok(value.into_iter().collect())
    }

    fn log_metric_definition(&mut self, definition: MetricDefinition) {
        self.0.lock().names.insert(definition.metric_id, definition.name.to_string());
    }

    fn log_epoch_summary(&mut self, summary: EpochSummary) {
        let mut state = self.0.lock();
        let Some(history) = &mut state.history else { return };
        if let Err(error) = history.end(summary.epoch_number, &summary.split) {
            self.0.fail(&mut state, error);
        }
    }
}
