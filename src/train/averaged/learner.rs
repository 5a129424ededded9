//! What Burn's Learner does with the hook: `Module` and the two step traits.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering},
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
        InferenceStep, LearnerModel, TrainOutput, TrainStep, TrainingError, train::WorkerFailure,
    },
};

use super::{super::metric::Source, Answer, Answering, Averaged, Shared, Storing, Switch};
use crate::{
    Average, Error, Result,
    average::{Known, Late, Opened, Snapshots, update_late},
};

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
        let shared = self.lock().clone();
        let live = self.live.valid();
        let answering = self.answering(&shared.averages, &live).ok().map(Box::new);
        self.gauges.measure(|index| {
            let distance = shared.averages.get(index)?.distance(&live).ok()?;
            Some(distance.relative)
        });
        Self {
            live,
            step: self.step,
            tried: self.tried,
            samples: Arc::new(AtomicU64::new(self.samples())),
            count: self.count.clone(),
            switch: self.switch,
            snapshots: self.snapshots.clone(),
            shared: Arc::new(Mutex::new(shared)),
            feeds: self.feeds.clone(),
            gauges: self.gauges.clone(),
            traces: self.traces.clone(),
            answering,
            interrupter: self.interrupter.clone(),
            sure: None,
            non_finite: self.non_finite,
            finite_loss: self.finite_loss.clone(),
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
        self.record_all()
    }

    /// Loads live and averages, into a new handle: clones keep what they had.
    fn try_load_record(self, record: ModuleRecord) -> Result<Self, RecordError> {
        Opened::read(record).and_then(|opened| self.loaded(opened)).map_err(|error| match error {
            Error::Record(error) => error,
            error => RecordError::Validation(error.to_string()),
        })
    }
}

impl<M: LearnerModel> TrainStep for Averaged<M> {
    type Input = <M as TrainStep>::Input;
    type Output = <M as TrainStep>::Output;

    fn step(&self, item: Self::Input) -> TrainOutput<Self::Output> {
        self.remember();
        self.traces.batch(self.step, &self.live, || self.averages());
        if let Some(count) = &self.count {
            self.samples.fetch_add(count(&item), Ordering::Relaxed);
        }
        let output = TrainStep::step(&self.live, item);
        self.look_at_loss(&output.item);
        output
    }

    fn optimize(
        self,
        optim: &mut ModuleOptimizer,
        lr_module: ModuleLearningRate,
        grads: GradientsParams,
    ) -> Self {
        let gradients = self.looked_at([&grads], &lr_module);
        self.try_step(optim, gradients, |live, optim| live.optimize(optim, lr_module, grads))
    }

    fn optimize_multi(
        self,
        optim: &mut ModuleOptimizer,
        lr_module: ModuleLearningRate,
        grads: MultiGradientsParams,
    ) -> Self {
        let gradients = self.looked_at(grads.grads.iter().map(|(grads, _)| grads), &lr_module);
        self.try_step(optim, gradients, |live, optim| live.optimize_multi(optim, lr_module, grads))
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

impl<M: LearnerModel> Averaged<M> {
    /// One optimizer step is done: every average takes live's weights, and gives its own where
    /// that is due.
    ///
    /// They look at those of live's tensors that are not known to be small, and go towards the
    /// others later.
    pub(super) fn updated(mut self, known: &Known) -> Self {
        self.step += 1;
        self.tried += 1;
        let samples = self.count.is_some().then(|| self.samples());
        let mut error = {
            let Shared { averages, late, error, .. } = &mut *self.lock();
            if error.is_none() {
                let updated = update_late(averages, &self.live, self.step, samples, known);
                let stored = updated.and_then(|left| {
                    *late = left;
                    self.store(averages, late)
                });
                *error = stored.err();
            }
            error.as_ref().map(Error::to_string)
        };
        if let Some(storing) = &mut self.snapshots {
            storing.last = self.step;
        }
        if let Some(Switch { every, share }) = self.switch
            && error.is_none()
            && self.step.is_multiple_of(every)
        {
            let average = self.lock().averages[0].clone();
            self.sure = None;
            match average.copy_into(self.live.clone(), share) {
                Ok(live) => self.live = live,
                Err(unfit) => {
                    error = Some(unfit.to_string());
                    self.lock().error.get_or_insert(unfit);
                }
            }
        }
        if let Some(error) = error {
            self.stop(format!("averaging: {error}"));
        }
        self
    }

    /// Stops the training with an error.
    pub(super) fn stop(&self, message: String) {
        if let Some(interrupter) = &self.interrupter
            && !interrupter.should_stop()
        {
            // Of Burn's training errors this one carries a text unchanged.
            let failure = WorkerFailure { device_id: 0, message };
            interrupter.fail(TrainingError::Workers(vec![failure]));
        }
    }

    /// Stores the averages that can be, where that is due.
    fn store(&self, averages: &mut [Average<M>], late: &mut Late) -> Result<()> {
        let Some(Storing { snapshots, every, last }) = &self.snapshots else { return Ok(()) };
        // A checkpoint was loaded: what was stored after it is of a course that was given up.
        if self.step != last + 1 {
            snapshots.remove_after(self.step - 1, None)?;
        }
        if !self.step.is_multiple_of(*every) {
            return Ok(());
        }
        late.finish(averages);
        let stored = averages.iter().filter(|average| Snapshots::takes(average.rule()));
        // One whose start has not come yet has nothing to store.
        let mut stored = stored.filter(|average| average.has_updates());
        stored.try_for_each(|average| snapshots.store(average).map(drop))
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
}
