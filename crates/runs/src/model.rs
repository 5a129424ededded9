//! The trait of a model whose trainings can commit.

use burn::{
    tensor::Bytes,
    train::{Interrupter, LearnerModel},
};

use crate::{Error, Result, strict};

/// A model whose trainings can commit. The methods are what these trainings need beyond Burn's
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
/// A model that holds more than it trains, such as averages of its weights, implements some of
/// them: which part of it computes the outputs in validation, which steps its record counts, how a
/// record is loaded, and its first error.
pub trait RunModel: LearnerModel {
    /// The named parts of the model, each with a description. The first part computes the outputs
    /// in validation.
    ///
    /// Every commit holds the names and descriptions, and the metrics of a run say from which epoch
    /// on which part was the first.
    /// A plain model has no parts and computes the outputs itself.
    fn parts(&self) -> Vec<(String, String)> {
        Vec::new()
    }

    /// Reads how many optimizer steps and samples a record of such a model has counted, from its
    /// bytes.
    ///
    /// None for a record without counts: a commit then has the training's own count of steps.
    ///
    /// # Errors
    ///
    /// Bytes that are no record of such a model.
    fn counts(record: Bytes) -> Result<Option<Counts>> {
        let _ = record;
        Ok(None)
    }

    /// Checks that Burn will load what it saves of the model, before a training commits it.
    ///
    /// Burn's own load, to which a resume leads, refuses a parameter that is saved in another shape
    /// than it has in memory, such as the weight of a `Linear` in the column layout.
    /// A model whose `try_load_record` is its own, and takes such a parameter, has nothing to check.
    ///
    /// # Errors
    ///
    /// The first such parameter, by path.
    fn check_loadable(&self) -> Result<()> {
        strict::check_loadable(self)
    }

    /// Loads a record whole or not at all, from its bytes.
    ///
    /// # Errors
    ///
    /// Bytes that are no record; the first parameter, by path, that is missing, unknown, or of
    /// another shape or dtype.
    fn load_strictly(self, record: Bytes) -> Result<Self> {
        strict::model_record(record, self)
    }

    /// Brings the model's statistics up to date, before a record is saved or loaded.
    ///
    /// Burn's batch norms show the statistics of a forward pass only after the next one, or after
    /// [`valid`](burn::module::Module::valid).
    fn update_statistics(&self) {
        drop(self.valid());
    }

    /// The first error of a step, if the model keeps one; it ends the training.
    ///
    /// With commits, it is asked for before each validation and each commit, and the model that has
    /// one gets neither. To end the training at the step itself, or in a
    /// [kept strategy](crate::Fit::keep_strategy), which asks at the end alone, a model fails the
    /// [interrupter](Self::with_interrupter) too.
    fn error(&self) -> Option<Error> {
        None
    }

    /// The optimizer steps that the model was asked for so far, those that it refused among them, if
    /// it counts them.
    ///
    /// A training in which this number stays the same had no batch, which is an error without
    /// commits too; with commits, the loop finds it for any model.
    fn attempted_steps(&self) -> Option<u64> {
        None
    }

    /// Gives the model the interrupter of its training, by which it may end the training with an
    /// error.
    fn with_interrupter(self, interrupter: Interrupter) -> Self {
        drop(interrupter);
        self
    }

    /// A call that says to the model, and to what its clones share, that the training has ended.
    ///
    /// `fit` asks for one before the training, and for one of the result, and calls both after the
    /// training, whatever ended it, a panic too. So the call must keep no weights alive.
    fn on_end(&self) -> Box<dyn FnOnce()> {
        Box::new(|| ())
    }
}

/// The progress of a training, as its model has counted it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// The optimizer steps.
    pub steps: u64,
    /// The samples; 0 where they are not counted.
    pub samples: u64,
}
