//! Burn's two step traits for the perceptron: a training step and an inference step on a batch.

use burn::{
    tensor::{ExecutionError, Tensor},
    train::{
        InferenceStep, ItemLazy, TrainOutput, TrainStep,
        metric::{AccuracyInput, Adaptor, LossInput},
    },
};

use super::{Mlp, half_squared_errors};

/// Samples to learn from, one per row.
///
/// The numbers are in the network's units: scaled inputs, and targets in the range of the last
/// layer's activation.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The inputs of the network, `[batch, inputs]`.
    pub inputs: Tensor<2>,
    /// The outputs that the network should have, `[batch, outputs]`; for a class a one-hot row.
    pub targets: Tensor<2>,
}

/// A network's outputs for a [`Batch`], with its targets and losses.
#[derive(Clone, Debug)]
pub struct Answers {
    /// The [half squared error](half_squared_errors) of each row, `[batch]`.
    pub loss: Tensor<1>,
    /// The outputs of the network, `[batch, outputs]`.
    pub outputs: Tensor<2>,
    /// The targets of the batch, `[batch, outputs]`.
    pub targets: Tensor<2>,
}

impl TrainStep for Mlp {
    type Input = Batch;
    type Output = Answers;

    fn step(&self, batch: Batch) -> TrainOutput<Answers> {
        let answers = answer(self, batch);
        let gradients = answers.loss.clone().mean().backward();
        TrainOutput::new(self, gradients, answers)
    }
}

impl InferenceStep for Mlp {
    type Input = Batch;
    type Output = Answers;

    fn step(&self, batch: Batch) -> Answers {
        answer(self, batch)
    }
}

fn answer(mlp: &Mlp, Batch { inputs, targets }: Batch) -> Answers {
    let outputs = mlp.forward(inputs);
    let loss = half_squared_errors(outputs.clone(), targets.clone());
    Answers { loss, outputs, targets }
}

impl ItemLazy for Answers {
    fn sync(self) -> Result<Self, ExecutionError> {
        self.loss.device().flush()?;
        Ok(Self {
            loss: self.loss.without_autodiff(),
            outputs: self.outputs.without_autodiff(),
            targets: self.targets.without_autodiff(),
        })
    }
}

impl Adaptor<LossInput> for Answers {
    fn adapt(&self) -> LossInput {
        LossInput::new(self.loss.clone())
    }
}

/// The class of a row is that of its largest target.
impl Adaptor<AccuracyInput> for Answers {
    fn adapt(&self) -> AccuracyInput {
        let [batch, _] = self.targets.dims();
        let classes = self.targets.clone().argmax(1).reshape([batch]);
        AccuracyInput::new(self.outputs.clone(), classes)
    }
}
