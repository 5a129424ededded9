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
        // The copy for a worker looks like the learner's own move, so no average moves here.
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
        let mut trained = self.map_live(Module::train);
        trained.clock.bypassed.get_or_insert(0);
        trained
    }

    /// An independent snapshot: later updates do not change it, and it computes outputs without a
    /// lock.
    fn valid(&self) -> Self {
        self.stop_on_error();
        let (live, averages) = (self.live.valid(), self.averages.snapshot());
        Self {
            validation: self.validation_of(&averages.averages(), &live),
            clock: self.clock.snapshot(self.check_bypassed().is_err()),
            guard: self.guard.snapshot(),
            live,
            averages,
            teacher: self.teacher.clone(),
            options: self.options.clone(),
        }
    }

    fn materialize(self) -> Self {
        let averages = self.averages().iter().map(Average::materialized).collect::<Result<_>>();
        let materialized = self.map_live(Module::materialize);
        match averages {
            Ok(averages) => {
                Self { averages: materialized.averages.replaced_by(averages), ..materialized }
            }
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
        let mut finder = ChangeFinder { mapper, has_changed: Ok(false) };
        let mut mapped = self.map_live(|live| live.map(&mut finder));
        let has_changed = finder.has_changed.unwrap_or_else(|error| {
            mapped.options.stop(error.to_string());
            mapped.averages.keep_error(error);
            false
        });
        if let Some(changes) = &mut mapped.clock.bypassed {
            *changes += u64::from(has_changed);
        }
        mapped
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
    /// Stops the training if an error is kept, or if live was changed past the averages. On a GPU
    /// an update may have failed after it returned.
    fn stop_on_error(&self) {
        if let Some(error) = self.averages.error().or(self.check_bypassed().err()) {
            self.options.stop(error.to_string());
        }
    }

    /// An error if live was changed more than once since the averages' last update, such as by an
    /// optimizer that steps the hook as a plain module.
    ///
    /// A single change may be intended, such as a clip of the weights after each step; the next
    /// update takes it in.
    pub(super) fn check_bypassed(&self) -> Result<()> {
        match self.clock.bypassed {
            Some(changes) if changes > 1 => Err(Error::Bypassed { changes }),
            _ => Ok(()),
        }
    }

    /// Like [`check_bypassed`](Self::check_bypassed); before the first update a single change is an
    /// error too, since the averages are still their start, and live is not.
    pub(super) fn check_follows(&self) -> Result<()> {
        match self.clock.bypassed {
            Some(changes) if changes > 0 && self.clock.steps == 0 => {
                Err(Error::Bypassed { changes })
            }
            _ => self.check_bypassed(),
        }
    }

    /// Maps live alone; the modules of a validation snapshot no longer fit it.
    fn map_live(self, map: impl FnOnce(M) -> M) -> Self {
        Self { live: map(self.live), validation: self.validation.without_modules(), ..self }
    }

    /// The validation snapshot of these averages. It has no modules if they do not fit live or live
    /// was changed past them, so that the next batch of validation panics with the error.
    fn validation_of(&self, averages: &[Average<M>], live: &M) -> Validation<M> {
        self.validation.measure(averages, live);
        let checked = self.check_bypassed();
        let snapshot = checked.and_then(|()| self.validation.snapshot(averages, live));
        snapshot.unwrap_or_else(|_| self.validation.clone().without_modules())
    }
}
