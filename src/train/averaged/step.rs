//! A training step of the hook: the optimizer moves live, then every average is updated.

use burn::{
    module::ParamId,
    optim::{
        GradientsParams, ModuleOptimizer, MultiGradientsParams,
        lr_scheduler::module_lr_scheduler::ModuleLearningRate,
    },
    train::{InferenceStep, LearnerModel, TrainOutput, TrainStep},
};

use super::{Averaged, guard::Verdict, validation::Output};
use crate::{Error, Result};

impl<M: LearnerModel> TrainStep for Averaged<M> {
    type Input = <M as TrainStep>::Input;
    type Output = <M as TrainStep>::Output;

    fn step(&self, item: Self::Input) -> TrainOutput<Self::Output> {
        self.guard.before_step(&self.live, &self.clock);
        self.validation.trace(self.clock.steps, &self.live, || self.averages());
        self.clock.batch(&item);
        let output = self.pass(item);
        self.guard.after_forward(&output.item, &self.clock);
        output
    }

    fn optimize(
        self,
        optim: &mut ModuleOptimizer,
        lr_module: ModuleLearningRate,
        grads: GradientsParams,
    ) -> Self {
        let verdict = self.looked_at([&grads]);
        self.stepped(verdict, |live| live.optimize(optim, lr_module, grads))
    }

    fn optimize_multi(
        self,
        optim: &mut ModuleOptimizer,
        lr_module: ModuleLearningRate,
        grads: MultiGradientsParams,
    ) -> Self {
        let of_devices = grads.grads.iter().map(|(grads, _)| grads);
        let verdict = self.looked_at(of_devices);
        self.stepped(verdict, |live| live.optimize_multi(optim, lr_module, grads))
    }
}

impl<M: LearnerModel> InferenceStep for Averaged<M>
where
    <M as InferenceStep>::Input: Clone,
{
    type Input = <M as InferenceStep>::Input;
    type Output = Output<M>;

    fn step(&self, item: Self::Input) -> Self::Output {
        if self.validation.begins_answer() {
            return self.validation.answer(&self.live, item);
        }
        // The hook is not in validation mode: make a snapshot for this one batch.
        let live = self.live.valid();
        let checked = self.check_bypassed();
        match checked.and_then(|()| self.validation.snapshot(&self.averages(), &live)) {
            Ok(validation) => validation.answer(&live, item),
            Err(error) => panic!("the average cannot answer: {error}"),
        }
    }
}

impl<M: LearnerModel> Averaged<M> {
    /// Checks the gradients of a step, and confirms or undoes the update of the step before.
    fn looked_at<'a>(
        &self,
        grads: impl IntoIterator<Item = &'a GradientsParams>,
    ) -> Result<Verdict> {
        let unconfirmed = self.averages.take_unconfirmed();
        let (check, update) = unconfirmed.map(|waiting| (waiting.check, waiting.update)).unzip();
        let looked_at = self.guard.look(&self.live, grads, &self.clock, check);
        if let Some(update) = update {
            let within = looked_at.as_ref().ok().and_then(|(_, within)| within.as_deref());
            self.averages.confirm(update, within);
        }
        looked_at.map(|(verdict, _)| verdict)
    }

    /// Makes the step, or refuses it so that it changes nothing, by the verdict. After an error
    /// that ends the training, it refuses every step.
    fn stepped(self, verdict: Result<Verdict>, step: impl FnOnce(M) -> M) -> Self {
        let ends = |error: &Error| {
            // A teacher stands still after any error.
            self.teacher.is_some()
                || matches!(error, Error::RefusedStep { .. } | Error::Weights { .. })
        };
        if let Some(error) = self.error().filter(ends) {
            self.options.stop(error.to_string());
            return self.refused();
        }
        match verdict {
            Ok(Verdict::Step { trained }) => {
                let mut stepped = Self { live: step(self.live), ..self };
                stepped.guard.accept();
                stepped.clock.steps += 1;
                stepped.clock.attempted += 1;
                let bypassed = stepped.clock.bypassed.replace(0);
                stepped.averages.count_bypassed(bypassed.unwrap_or(0));
                stepped.updated(&trained)
            }
            Ok(Verdict::Refuse { what }) => {
                if let Err(error) = self.guard.refuse(what, &self.clock) {
                    self.options.stop(error.to_string());
                    self.averages.keep_error(error);
                }
                self.refused()
            }
            // Gradients that cannot be read back may hold a NaN.
            Err(error) => {
                self.options.stop(error.to_string());
                self.averages.keep_error(error);
                self.refused()
            }
        }
    }

    /// Ends a refused step: undoes the changes that its forward passes made.
    fn refused(mut self) -> Self {
        self.live = self.guard.restore(self.live, &self.clock);
        self.clock.attempted += 1;
        self
    }

    /// Updates the averages after a step that moved the parameters of these ids, and copies the
    /// first average into live if that is due.
    fn updated(mut self, trained: &[ParamId]) -> Self {
        let updated = self.averages.update(&self.live, &self.clock, trained);
        self.averages.stepped(self.clock.steps);
        let switched = updated.and_then(|()| match self.options.switch {
            Some(switch) if switch.is_due(self.clock.steps) => {
                let average = self.averages.average(0)?;
                // On a GPU the update may have failed after it returned.
                if let Some(error) = self.averages.error() {
                    return Err(error);
                }
                self.live = average.copy_into(self.live.clone(), switch.share)?;
                Ok(())
            }
            _ => Ok(()),
        });
        if let Err(error) = switched {
            self.options.stop(format!("averaging: {error}"));
            self.averages.keep_error(error);
        }
        self
    }
}
