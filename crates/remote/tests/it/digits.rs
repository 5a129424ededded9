//! A training of the perceptron on digits, with two averages and with commits.

use std::{
    path::Path,
    sync::{Arc, LazyLock},
};

use burn::{
    data::dataloader::DataLoader,
    lr_scheduler::constant::ConstantLr,
    module::Module,
    tensor::{Device, Tensor, activation::sigmoid},
    train::{InferenceStep, SupervisedTraining, TrainOutput, TrainStep, metric::LossMetric},
};
use burn_ema::{
    AverageConfig, Result, Rule,
    model::{Answers, Batch, Mlp, MlpConfig},
    runs::{CommitConfig, Fit, ProgressLines, fit},
    train::Averaged,
};
use burn_ema_lab::data::{Prepared, digits, loader};

use crate::{
    common::{adam, flat, randomized},
    trap::{AtBatch, trapped},
};

/// Optimizer steps in an epoch, and between two commits.
pub const STEPS: usize = 8;
pub const COMMIT_EVERY: usize = 3;

/// Batches of a validation.
pub const BATCHES: usize = 4;

const ROWS: usize = 32;
const EPOCHS: usize = 2;

/// Something that is done at batches of the training and of validations.
#[derive(Clone)]
pub struct Traps {
    pub train: AtBatch,
    pub valid: AtBatch,
}

impl Traps {
    pub fn none() -> Self {
        Self { train: Arc::new(|_| {}), valid: Arc::new(|_| {}) }
    }
}

/// The perceptron, computed by Burn's operations everywhere: on Flex it has kernels of its own,
/// whose last bits differ.
#[derive(Module, Debug)]
pub struct Perceptron {
    mlp: Mlp,
}

impl Perceptron {
    fn answer(&self, Batch { inputs, targets }: Batch) -> Answers {
        let mut outputs = inputs;
        for layer in &self.mlp.layers {
            let bias = layer.bias.as_ref().map(|bias| bias.val().unsqueeze());
            let sum: Tensor<2> = outputs.matmul(layer.weight.val()) + bias.unwrap();
            outputs = sigmoid(sum);
        }
        let error = outputs.clone() - targets.clone();
        let loss = (error.clone() * error).sum_dim(1).squeeze_dim(1) / 2.0;
        Answers { loss, outputs, targets }
    }
}

impl TrainStep for Perceptron {
    type Input = Batch;
    type Output = Answers;

    fn step(&self, batch: Batch) -> TrainOutput<Answers> {
        let answers = self.answer(batch);
        TrainOutput::new(self, answers.loss.clone().mean().backward(), answers)
    }
}

impl InferenceStep for Perceptron {
    type Input = Batch;
    type Output = Answers;

    fn step(&self, batch: Batch) -> Answers {
        self.answer(batch)
    }
}

/// The perceptron with two averages; its weights depend on the seed alone.
pub fn averaged(seed: u64, device: &Device) -> Averaged<Perceptron> {
    let mlp = MlpConfig::new(vec![64, 32, 10]).init(device).unwrap();
    let averages = [Rule::ema(0.9), Rule::Equal].map(AverageConfig::new);
    Averaged::new(randomized(Perceptron { mlp }, seed), averages).unwrap()
}

/// The batches of the training, in an order of the seed, and those of the validation.
pub fn loaders(seed: u64, device: &Device) -> [Arc<dyn DataLoader<Batch>>; 2] {
    static DIGITS: LazyLock<Prepared> =
        LazyLock::new(|| Prepared::new(&digits().unwrap(), 3).unwrap());
    let Prepared { train, valid, .. } = &*DIGITS;
    [(train, STEPS, Some(seed)), (valid, BATCHES, None)].map(|(rows, batches, seed)| {
        let rows = rows[..batches * ROWS].to_vec();
        loader(rows, ROWS, seed, device).unwrap()
    })
}

/// The training, which has not begun.
pub fn training(
    run: &Path,
    seed: u64,
    device: &Device,
    traps: &Traps,
) -> Fit<Averaged<Perceptron>> {
    let [train, valid] = loaders(seed, device);
    let model = averaged(seed, device);
    let training = SupervisedTraining::new(
        run,
        trapped(train, traps.train.clone()),
        trapped(valid, traps.valid.clone()),
    )
    .num_epochs(EPOCHS)
    .metrics((LossMetric::new(),))
    .metric_valid_numeric(model.live_metric(LossMetric::new()))
    .with_application_logger(None)
    .renderer(Box::new(ProgressLines::new(std::io::sink())));
    let commits = CommitConfig::new(run)
        .with_seed(seed)
        .with_every_steps(Some(COMMIT_EVERY as u64))
        .with_keep_last(99);
    fit(training, model, adam(), ConstantLr::new(0.02))
        .on(device.clone())
        .with_commits(commits)
        .unwrap()
}

/// Trains from the newest commit, if there is one, and returns the numbers of the model in the end.
pub fn trained(run: &Path, seed: u64, device: &Device, traps: &Traps) -> Result<Vec<f64>> {
    let result = training(run, seed, device, traps).resume()?.launch()?;
    assert!(result.interrupted.is_none());
    Ok(numbers(&result.model))
}

/// Live and the averages in a row.
pub fn numbers(model: &Averaged<Perceptron>) -> Vec<f64> {
    let averages = (0..2).map(|index| flat(&model.average(index).unwrap(), true));
    [flat(model.live(), true)].into_iter().chain(averages).flatten().collect()
}
