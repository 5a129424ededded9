//! The trait of a model whose trainings can commit.

use burn::{
    tensor::Bytes,
    train::{Interrupter, LearnerModel},
};

use crate::{Error, Result, strict};

/// A model whose trainings can commit, with the methods that these trainings need beyond Burn's
/// [`LearnerModel`].
///
/// The defaults fit a plain Burn model, for which one line is enough:
///
/// ```
/// # use burn::{module::Module, nn::Linear, tensor::{Tensor, Transaction}};
/// # use burn::train::{InferenceStep, RegressionOutput, TrainOutput, TrainStep};
/// # #[derive(Module, Debug)] struct MyModel { layer: Linear }
/// # type Output = RegressionOutput;
/// # impl TrainStep for MyModel {
/// #     type Input = Tensor<2>; type Output = Output;
/// #     fn step(&self, batch: Tensor<2>) -> TrainOutput<Output> { todo!() }
/// # }
/// # impl InferenceStep for MyModel {
/// #     type Input = Tensor<2>; type Output = Output;
/// #     fn step(&self, batch: Tensor<2>) -> Output { todo!() }
/// # }
/// impl burn_ema_runs::RunModel for MyModel {}
/// ```
///
/// A model that holds more than it trains, such as averages of its weights, implements some of the
/// methods itself, for example [`parts`](Self::parts), [`counts`](Self::counts),
/// [`load_strictly`](Self::load_strictly) and [`error`](Self::error).
pub trait RunModel: LearnerModel {
    /// The name and the description of each part of the model, such as an average. The first part
    /// computes the outputs in validation.
    ///
    /// Every commit holds the names and descriptions. The metrics of a run record the first part,
    /// and the epoch from which on it is the first, see [`VALIDATED`](crate::VALIDATED). The
    /// default is no parts, for a plain model, which computes the outputs itself.
    fn parts(&self) -> Vec<(String, String)> {
        Vec::new()
    }

    /// Reads the numbers of optimizer steps and samples from the bytes of a record of this type of
    /// model.
    ///
    /// Returns `None`, the default, for a record without counts. A commit then holds the number of
    /// steps that the training has counted, and 0 samples.
    ///
    /// # Errors
    ///
    /// Bytes that are no record of this type of model.
    fn counts(record: Bytes) -> Result<Option<Counts>> {
        let _ = record;
        Ok(None)
    }

    /// Checks, before a training commits the model, that Burn can load the record that it saves.
    ///
    /// Burn's load, which a resume calls, refuses a parameter that is saved in another shape than
    /// it has in memory, such as the weight of a `Linear` in the column layout. A model with its
    /// own `try_load_record` that accepts these parameters may return `Ok(())`.
    ///
    /// # Errors
    ///
    /// The first parameter, in the module's order, that Burn would refuse to load, with its path.
    fn check_loadable(&self) -> Result<()> {
        strict::check_loadable(self)
    }

    /// Loads the whole record in `record`, in Burn's bytes, or fails.
    ///
    /// # Errors
    ///
    /// Bytes that are no record; the first parameter, by path, that is missing in the record,
    /// missing in the model, or of another shape or dtype.
    fn load_strictly(self, record: Bytes) -> Result<Self> {
        strict::model_record(record, self)
    }

    /// Updates the model's batch-norm statistics, before a record is saved or loaded.
    ///
    /// Burn's batch norms include the statistics of a forward pass only after the next pass, or
    /// after [`valid`](burn::module::Module::valid), which the default calls.
    fn update_statistics(&self) {
        drop(self.valid());
    }

    /// The first error of a step, which ends the training; `None`, the default, without an error.
    ///
    /// With commits, it is called before each validation and each commit, and after an error
    /// neither is made. Without commits, or with a [kept strategy](crate::Fit::keep_strategy), it
    /// is called only before and after the training. To end the training at the step, a model also
    /// fails the [interrupter](Self::with_interrupter).
    fn error(&self) -> Option<Error> {
        None
    }

    /// The number of optimizer steps so far, including those that the model refused; `None`, the
    /// default, if the model does not count them.
    ///
    /// A training without commits in which this number does not change had no batch, and ends with
    /// an error. A training with commits detects this for any model.
    fn attempted_steps(&self) -> Option<u64> {
        None
    }

    /// Gives the model the interrupter of its training, with which the model can end the training
    /// with an error. The default ignores the interrupter.
    fn with_interrupter(self, interrupter: Interrupter) -> Self {
        drop(interrupter);
        self
    }

    /// Returns a closure that is called after the training, even after a panic in it, so that the
    /// model can update the state that its clones share. The default does nothing.
    ///
    /// [`launch`](crate::Fit::launch) takes a closure of the model before the training and one of
    /// the trained model. The closure must not hold weights, whose memory it would occupy during
    /// the training.
    fn on_end(&self) -> Box<dyn FnOnce()> {
        Box::new(|| ())
    }
}

/// The progress of a training, as the model has counted it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// The number of optimizer steps.
    pub steps: u64,
    /// The number of samples; 0 if they are not counted.
    pub samples: u64,
}
