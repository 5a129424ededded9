//! The hook: a live module with its averages, as one module for Burn's Learner.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
};

use burn::{
    module::{Devices, Module, ModuleMapper, ModuleVisitor},
    optim::{
        GradientsParams, ModuleOptimizer, MultiGradientsParams,
        lr_scheduler::module_lr_scheduler::ModuleLearningRate,
    },
    store::{ModuleRecord, RecordError},
    tensor::Device,
    train::{
        InferenceStep, Interrupter, LearnerModel, TrainOutput, TrainStep, TrainingError,
        metric::{Adaptor, Metric},
        train::WorkerFailure,
    },
};

use super::metric::{Beside, Feeds, Source};
use crate::{
    Average, AverageConfig, Error, Result,
    average::{Opened, Saved, Start, Words, update_all},
};

/// A live module with its averages: itself a model for Burn's `Learner`.
///
/// Training steps the live module, through its own `optimize`, and then updates every average
/// once, whatever the strategy and however many micro-batches were accumulated.
/// Validation, and Burn's `Evaluator`, are answered by the first average; see
/// [`live_metric`](Self::live_metric) for the others.
///
/// ```no_run
/// # use burn::{optim::SgdConfig, lr_scheduler::constant::ConstantLr, train::Learner};
/// # use burn_ema::{AverageConfig, Rule, model::MlpConfig, train::Averaged};
/// # fn main() -> burn_ema::Result<()> {
/// let device = Default::default();
/// let live = MlpConfig::new(vec![64, 32, 10]).init(&device)?;
/// let model = Averaged::new(live, [AverageConfig::new(Rule::ema(0.99))])?;
/// let learner = Learner::new(model, SgdConfig::new().init(), ConstantLr::new(0.5));
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
/// # Errors in a step
///
/// `optimize` can only return the module.
/// The first error of an update stops all updates and is kept, see [`error`](Self::error); it
/// stops the training if the hook has its [`Interrupter`](Self::with_interrupter), and
/// [`fit`](super::fit) returns it.
/// An error is a module whose parameters changed under its averages, or a step back.
/// Averages that no longer fit live cannot answer, and say so in a panic.
pub struct Averaged<M: LearnerModel> {
    live: M,
    /// The optimizer steps of this clone, so that replicas which share the handle count one once.
    step: u64,
    shared: Arc<Mutex<Shared<M>>>,
    feeds: Feeds<Answer<M>>,
    /// What answers in validation mode, without a lock.
    answering: Option<Box<Answering<M>>>,
    interrupter: Option<Interrupter>,
    allow_added: bool,
    allow_dropped: bool,
}

/// What a model answers in validation.
type Answer<M> = <M as InferenceStep>::Output;

/// What the clones of an [`Averaged`] share.
#[derive(Clone)]
struct Shared<M: Module> {
    averages: Vec<Average<M>>,
    error: Option<Error>,
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
                return Err(Error::value("the name of an average", expected, average.name()));
            }
        }
        Ok(Self {
            live,
            step: 0,
            shared: Arc::new(Mutex::new(Shared { averages, error: None })),
            feeds: Feeds::default(),
            answering: None,
            interrupter: None,
            allow_added: false,
            allow_dropped: false,
        })
    }

    /// The interrupter to fail with the first error of an update, so that the training stops.
    pub fn with_interrupter(mut self, interrupter: Interrupter) -> Self {
        self.interrupter = Some(interrupter);
        self
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
        self.lock().averages.iter().map(|average| average.name().to_owned()).collect()
    }

    /// The optimizer steps so far.
    pub fn steps(&self) -> u64 {
        self.step
    }

    /// The first error of an update, after which the averages stand still.
    pub fn error(&self) -> Option<Error> {
        self.lock().error.clone()
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

    /// The averages. No guard leaves this file.
    fn lock(&self) -> MutexGuard<'_, Shared<M>> {
        self.shared.lock().unwrap_or_else(|poisoned| {
            let mut shared = poisoned.into_inner();
            shared.error.get_or_insert(Error::Poisoned);
            shared
        })
    }

    /// One optimizer step is done: every average takes live's weights.
    fn update(&mut self) {
        self.step += 1;
        let error = {
            let mut shared = self.lock();
            if shared.error.is_none() {
                shared.error = update_all(&mut shared.averages, &self.live, self.step).err();
            }
            shared.error.as_ref().map(Error::to_string)
        };
        if let (Some(error), Some(interrupter)) = (error, &self.interrupter)
            && !interrupter.should_stop()
        {
            // Of Burn's training errors this one carries a text unchanged.
            interrupter.fail(TrainingError::Workers(vec![WorkerFailure {
                device_id: 0,
                message: format!("averaging: {error}"),
            }]));
        }
    }

    /// What answers for these averages beside a live module in validation mode.
    fn answering(&self, averages: &[Average<M>], live: &M) -> Result<Answering<M>> {
        let others = self.feeds.sources().into_iter().filter_map(|source| match source {
            Source::Live => None,
            Source::Average(index) => {
                let module = averages.get(index)?.module_like(live);
                Some(module.map(|module| (source, module)))
            }
        });
        Ok(Answering {
            others: others.collect::<Result<_>>()?,
            first: averages[0].module_like(live)?,
            begun: Arc::default(),
        })
    }

    /// Answers a batch by the first average, and by whatever a metric asks for beside it.
    fn answer(
        &self,
        answering: &Answering<M>,
        live: &M,
        item: <M as InferenceStep>::Input,
    ) -> Answer<M>
    where
        <M as InferenceStep>::Input: Clone,
    {
        self.feeds.feed(|source| {
            let module = match source {
                Source::Live => Some(live),
                average => {
                    let others = &answering.others;
                    others.iter().find(|(other, _)| *other == average).map(|(_, module)| module)
                }
            };
            module.map(|module| InferenceStep::step(module, item.clone()))
        });
        InferenceStep::step(&answering.first, item)
    }

    /// Maps live alone; what answered before no longer fits it.
    fn map_live(self, map: impl FnOnce(M) -> M) -> Self {
        Self { live: map(self.live), answering: None, ..self }
    }

    /// Replaces the averages by a new handle.
    fn with_averages(self, averages: Vec<Average<M>>) -> Self {
        let error = self.error();
        Self { shared: Arc::new(Mutex::new(Shared { averages, error })), ..self }
    }

    /// Where the words of a record are kept while it is made.
    fn device(&self) -> Device {
        self.live.devices().into_iter().next().unwrap_or_default()
    }

    fn try_load(self, record: ModuleRecord) -> Result<Self> {
        let opened = Opened::read(record)?;
        if !opened.names().any(|name| name == STEP) {
            let found = "a record of a plain module; load it into the module before the averages";
            return Err(Error::parameter(STEP, "a record of a module with averages", found));
        }
        let mut words = opened.words(STEP)?;
        let step = words.u64()?;
        words.end()?;

        let averages = self.averages();
        let saved: Vec<String> = opened.names().filter_map(average_name).collect();
        for name in &saved {
            if !self.allow_dropped && !averages.iter().any(|average| average.name() == name) {
                let found = "an average in the record (it can be dropped: `allow_dropped`)";
                return Err(Error::parameter(entry(name), "no average of this name", found));
            }
        }
        let mut bundle = Saved::new().with_module(LIVE, self.live.clone());
        let mut starts = Vec::with_capacity(averages.len());
        for average in &averages {
            let name = average.name();
            let start = if saved.iter().any(|saved| saved == name) {
                bundle = bundle.with_module(entry(name) + WEIGHTS, average.module());
                Some(average.saved_start(&opened, &(entry(name) + STATE))?)
            } else if self.allow_added {
                None
            } else {
                let found = "no average of this name in the record (it can start there: \
                             `allow_added`)";
                return Err(Error::parameter(entry(name), average.rule(), found));
            };
            starts.push(start);
        }
        let known = |path: &str| match average_name(path) {
            None => path == STEP,
            Some(name) => {
                let dropped = !averages.iter().any(|average| average.name() == name);
                dropped || path == entry(&name) + STATE
            }
        };
        let mut modules = opened.apply(bundle, known)?.into_modules();
        let live = modules.next().expect("live was saved first");
        let averages = averages
            .iter()
            .zip(starts)
            .map(|(average, start)| match start {
                Some(start) => {
                    average.restored(&modules.next().expect("its weights were saved"), start)
                }
                None => average
                    .restored(&live, Start { last: step, mass: average.rule().initial_mass() }),
            })
            .collect::<Result<Vec<_>>>()?;
        let shared = Arc::new(Mutex::new(Shared { averages, error: None }));
        Ok(Self { live, step, shared, answering: None, ..self })
    }
}

/// The names of a record's entries.
const LIVE: &str = "live";
const STEP: &str = "step";
const AVERAGES: &str = "averages.";
const WEIGHTS: &str = ".weights";
const STATE: &str = ".state";

/// The error of an index that no average has.
fn no_average(count: usize, index: usize) -> Error {
    Error::value("the index of an average", format!("a number below {count}"), index)
}

/// The prefix of an average's entries.
fn entry(name: &str) -> String {
    format!("{AVERAGES}{name}")
}

/// The name of the average that an entry belongs to; no name contains `.weights`.
fn average_name(path: &str) -> Option<String> {
    let rest = path.strip_prefix(AVERAGES)?;
    let name = match rest.find(WEIGHTS) {
        Some(end) => &rest[..end],
        None => rest.strip_suffix(STATE)?,
    };
    Some(name.to_owned())
}

impl<M: LearnerModel> Module for Averaged<M> {
    fn collect_devices(&self, devices: Devices) -> Devices {
        self.live.collect_devices(devices)
    }

    fn fork(self, device: &Device) -> Self {
        // A worker that takes a copy cannot be told from the learner: no average moves here.
        let answering = self.answering.clone();
        let answering = answering.map(|modules| Box::new(modules.map(|m| m.fork(device))));
        Self { answering, ..self.map_live(|live| live.fork(device)) }
    }

    fn to_device(self, device: &Device) -> Self {
        let answering = self.answering.clone();
        let answering = answering.map(|modules| Box::new(modules.map(|m| m.to_device(device))));
        Self { answering, ..self.map_live(|live| live.to_device(device)) }
    }

    fn train(self) -> Self {
        self.map_live(Module::train)
    }

    /// An independent snapshot: later updates do not reach it, and it answers without a lock.
    fn valid(&self) -> Self {
        let (averages, error) = {
            let shared = self.lock();
            (shared.averages.clone(), shared.error.clone())
        };
        let live = self.live.valid();
        let answering = self.answering(&averages, &live).ok().map(Box::new);
        Self {
            live,
            step: self.step,
            shared: Arc::new(Mutex::new(Shared { averages, error })),
            feeds: self.feeds.clone(),
            answering,
            interrupter: self.interrupter.clone(),
            allow_added: self.allow_added,
            allow_dropped: self.allow_dropped,
        }
    }

    fn materialize(self) -> Self {
        let averages = self.averages().iter().map(Average::materialized).collect::<Result<_>>();
        let materialized = self.map_live(Module::materialize);
        match averages {
            Ok(averages) => materialized.with_averages(averages),
            Err(error) => {
                materialized.lock().error.get_or_insert(error);
                materialized
            }
        }
    }

    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        self.live.visit(visitor);
    }

    fn map<P: ModuleMapper>(self, mapper: &mut P) -> Self {
        self.map_live(|live| live.map(mapper))
    }

    fn into_record(self) -> ModuleRecord {
        let device = self.device();
        let step = Words::new().with_u64(self.step);
        let mut saved = Saved::new().with_words(STEP, step, &device);
        for average in self.averages() {
            let name = entry(average.name());
            let weights = average.module_like(&self.live).unwrap_or_else(|_| average.module());
            saved = saved.with_module(name.clone() + WEIGHTS, weights).with_words(
                name + STATE,
                average.words(),
                &device,
            );
        }
        saved.with_module(LIVE, self.live).into_record()
    }

    /// Loads live and averages, into a new handle: clones keep what they had.
    fn try_load_record(self, record: ModuleRecord) -> Result<Self, RecordError> {
        self.try_load(record).map_err(|error| match error {
            Error::Record(error) => error,
            error => RecordError::Validation(error.to_string()),
        })
    }
}

impl<M: LearnerModel> TrainStep for Averaged<M> {
    type Input = <M as TrainStep>::Input;
    type Output = <M as TrainStep>::Output;

    fn step(&self, item: Self::Input) -> TrainOutput<Self::Output> {
        TrainStep::step(&self.live, item)
    }

    fn optimize(
        mut self,
        optim: &mut ModuleOptimizer,
        lr_module: ModuleLearningRate,
        grads: GradientsParams,
    ) -> Self {
        self.live = self.live.optimize(optim, lr_module, grads);
        self.update();
        self
    }

    fn optimize_multi(
        mut self,
        optim: &mut ModuleOptimizer,
        lr_module: ModuleLearningRate,
        grads: MultiGradientsParams,
    ) -> Self {
        self.live = self.live.optimize_multi(optim, lr_module, grads);
        self.update();
        self
    }
}

impl<M: LearnerModel> InferenceStep for Averaged<M>
where
    <M as InferenceStep>::Input: Clone,
{
    type Input = <M as InferenceStep>::Input;
    type Output = Answer<M>;

    fn step(&self, item: Self::Input) -> Self::Output {
        if let Some(answering) = &self.answering {
            // What an earlier snapshot left in the queues is not of this validation.
            if !answering.begun.swap(true, Ordering::Relaxed) {
                self.feeds.clear();
            }
            return self.answer(answering, &self.live, item);
        }
        // Not in validation mode: a snapshot for this one answer.
        let live = self.live.valid();
        match self.answering(&self.averages(), &live) {
            Ok(answering) => self.answer(&answering, &live, item),
            Err(error) => panic!("the average cannot answer: {error}"),
        }
    }
}

impl<M: LearnerModel> Clone for Averaged<M> {
    fn clone(&self) -> Self {
        Self {
            live: self.live.clone(),
            step: self.step,
            shared: self.shared.clone(),
            feeds: self.feeds.clone(),
            answering: self.answering.clone(),
            interrupter: self.interrupter.clone(),
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
