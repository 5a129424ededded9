//! The hook as a module: Burn's traversals see live alone, its records hold everything.

use burn::{
    module::{Devices, Module, ModuleMapper, ModuleVisitor},
    store::{ModuleRecord, RecordError},
    tensor::Device,
    train::LearnerModel,
};

use super::{Averaged, change::ChangeFinder, validation::Validation};
use crate::{Average, Error, Result, average::ReadRecord};

impl<M: LearnerModel> Module for Averaged<M> {
    fn collect_devices(&self, devices: Devices) -> Devices {
        self.live.collect_devices(devices)
    }

    fn fork(self, device: &Device) -> Self {
        // A worker that takes a copy cannot be told from the learner: no average moves here.
        let (live, validation) = (self.live.fork(device), self.validation);
        let validation = validation.map(|module| module.fork(device));
        Self { live, validation, ..self }
    }

    fn to_device(self, device: &Device) -> Self {
        let (live, validation) = (self.live.to_device(device), self.validation);
        let validation = validation.map(|module| module.to_device(device));
        Self { live, validation, ..self }
    }

    fn train(self) -> Self {
        self.map_live(Module::train)
    }

    /// An independent snapshot: later updates do not reach it, and it answers without a lock.
    fn valid(&self) -> Self {
        self.stop_on_error();
        let (live, averages) = (self.live.valid(), self.averages.snapshot());
        Self {
            validation: self.validation_of(&averages.averages(), &live),
            clock: self.clock.snapshot(),
            guard: self.guard.snapshot(),
            live,
            averages,
            options: self.options.clone(),
        }
    }

    fn materialize(self) -> Self {
        let averages = self.averages().iter().map(Average::materialized).collect::<Result<_>>();
        let materialized = self.map_live(Module::materialize);
        match averages {
            Ok(averages) => Self { averages: materialized.averages.with(averages), ..materialized },
            Err(error) => {
                materialized.averages.keep_error(error);
                materialized
            }
        }
    }

    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        self.live.visit(visitor);
    }

    fn map<P: ModuleMapper>(self, mapper: &mut P) -> Self {
        let mut finder = ChangeFinder { mapper, has_changed: false };
        let mapped = self.map_live(|live| live.map(&mut finder));
        match finder.has_changed {
            true => mapped.bypassed(),
            false => mapped,
        }
    }

    fn into_record(self) -> ModuleRecord {
        self.stop_on_error();
        self.record_all()
    }

    /// Loads live and averages, into a new handle: clones keep what they had.
    fn try_load_record(self, record: ModuleRecord) -> Result<Self, RecordError> {
        ReadRecord::read(record).and_then(|opened| self.loaded(opened)).map_err(|error| match error
        {
            Error::Record(error) => error,
            error => RecordError::Validation(error.to_string()),
        })
    }
}

impl<M: LearnerModel> Averaged<M> {
    /// Stops the training if an error is kept. On a GPU an update may have failed after it
    /// returned.
    fn stop_on_error(&self) {
        if let Some(error) = self.averages.error() {
            self.options.stop(error.to_string());
        }
    }

    /// Counts a change of live outside of `optimize`.
    ///
    /// One may be meant, such as a clip of the weights after each step, and the next update takes
    /// it in. Several without an update between them are the steps of a training whose averages
    /// stand still, which is an error.
    fn bypassed(mut self) -> Self {
        self.clock.bypassed += 1;
        if self.clock.bypassed > 1 {
            let error = Error::Bypassed { changes: self.clock.bypassed };
            self.options.stop(error.to_string());
            self.averages.keep_error(error);
        }
        self
    }

    /// Maps live alone; the modules of a validation snapshot no longer fit it.
    fn map_live(self, map: impl FnOnce(M) -> M) -> Self {
        Self { live: map(self.live), validation: self.validation.without_modules(), ..self }
    }

    /// The validation snapshot of these averages; without modules if they do not fit live, so that
    /// the error appears when a batch is to be answered.
    fn validation_of(&self, averages: &[Average<M>], live: &M) -> Validation<M> {
        self.validation.measure(averages, live);
        let snapshot = self.validation.snapshot(averages, live);
        snapshot.unwrap_or_else(|_| self.validation.clone().without_modules())
    }
}
