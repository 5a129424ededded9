//! A training whose errors are an `Err`.

use burn::{
    module::Module,
    optim::{ModuleOptimizer, lr_scheduler::module_lr_scheduler::ModuleLrScheduler},
    train::{InferenceStep, Learner, LearnerModel, LearningResult, SupervisedTraining},
};

use super::Averaged;
use crate::{Error, Result};

/// Launches the training with this model and returns its result.
///
/// It is `training.launch(Learner::new(model.train(), optimizer, lr))` with the errors at hand:
/// the first error of an update stops the training and is returned, and so is the error that
/// Burn leaves in [`LearningResult::error`].
///
/// An error keeps the model; a clone that was made before shares the averages, which are then as
/// they were before the step that failed: `clone.average(0)`.
///
/// Burn panics on a checkpoint to resume from that is missing, damaged or of another model; look
/// before, with `model.clone().try_load_file(..)`.
///
/// # Errors
///
/// The first error of an update of the averages; the error that stopped Burn's training.
pub fn fit<M: LearnerModel>(
    training: SupervisedTraining<Averaged<M>>,
    model: Averaged<M>,
    optimizer: ModuleOptimizer,
    lr: impl Into<ModuleLrScheduler>,
) -> Result<LearningResult<Averaged<M>>>
where
    <M as InferenceStep>::Input: Clone,
{
    if let Some(error) = model.error() {
        return Err(error);
    }
    let model = model.train().with_interrupter(training.interrupter());
    let result = training.launch(Learner::new(model, optimizer, lr));
    if let Some(error) = result.model.error() {
        return Err(error);
    }
    match &result.error {
        Some(error) => Err(Error::Training(error.clone())),
        None => Ok(result),
    }
}
