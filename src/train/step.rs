//! How the perceptron learns and answers a batch: Burn's two step traits.

use burn::{
    tensor::{ExecutionError, Tensor},
    train::{
        InferenceStep, ItemLazy, TrainOutput, TrainStep,
        metric::{AccuracyInput, Adaptor, LossInput},
    },
};

use crate::{
    data::Batch,
    model::{Mlp, half_squared_errors},
};

/// A network's answers to a batch, beside what was right.
#[derive(Clone, Debug)]
pub struct Answers {
    /// The half squared error of each row, `[batch]`.
    pub loss: Tensor<1>,
    /// What the network answered, `[batch, outputs]`.
    pub outputs: Tensor<2>,
    /// What was right, `[batch, outputs]`; a one-hot row for a class.
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
