//! The teacher: an average that live learns from, inside its loss.

use std::sync::Arc;

use burn::{
    module::{Flag, Module, ModuleMapper, Param},
    train::{LearnerModel, TrainOutput, TrainStep},
};

use super::Averaged;
use crate::Result;

/// Computes a training step from live, the teacher and a batch.
pub(super) type Learn<M> = Arc<
    dyn Fn(&M, &M, <M as TrainStep>::Input) -> TrainOutput<<M as TrainStep>::Output> + Send + Sync,
>;

/// Which average teaches live, and how live learns from it.
#[derive(Clone)]
pub(super) struct Teacher<M: LearnerModel> {
    average: usize,
    /// True if the teacher is in training mode.
    trains: bool,
    learn: Learn<M>,
}

impl<M: LearnerModel> Averaged<M> {
    /// This module with the average of this index as the teacher; `trains` is true for one in
    /// training mode.
    ///
    /// # Errors
    ///
    /// No average of this index.
    pub(super) fn taught_by(self, average: usize, trains: bool, learn: Learn<M>) -> Result<Self> {
        self.averages.average(average)?;
        Ok(Self { teacher: Some(Teacher { average, trains, learn }), ..self })
    }

    /// The forward and backward pass of a batch: live's own, or with the teacher.
    ///
    /// An error of the teacher is kept; live then takes its place, and the step is refused later.
    pub(super) fn pass(
        &self,
        batch: <M as TrainStep>::Input,
    ) -> TrainOutput<<M as TrainStep>::Output> {
        let Some(teacher) = &self.teacher else { return TrainStep::step(&self.live, batch) };
        let module = self.teaching_module(teacher).unwrap_or_else(|error| {
            self.options.stop(format!("the teacher: {error}"));
            self.averages.keep_error(error);
            self.live.valid()
        });
        (teacher.learn)(&self.live, &module, batch)
    }

    /// The teacher as a plain module, on live's devices.
    fn teaching_module(&self, teacher: &Teacher<M>) -> Result<M> {
        self.check_follows()?;
        let module = self.averages.teacher(teacher.average)?.module_beside(&self.live)?;
        Ok(if teacher.trains { module.map(&mut TrainingMode) } else { module })
    }
}

/// Switches the layers that distinguish training and validation to training, and leaves the weights
/// without autodiff.
struct TrainingMode;

impl ModuleMapper for TrainingMode {
    fn map_flag(&mut self, flag: Param<Flag>) -> Param<Flag> {
        flag.train()
    }
}
