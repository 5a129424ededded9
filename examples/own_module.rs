//! A module of your own, here a small convolutional network, trained with its average:
//! `cargo run --example own_module`

#[macro_use]
mod shared; // `println!` to a reader that may leave

use burn::{
    lr_scheduler::constant::ConstantLr,
    module::Module,
    nn::conv::{Conv2d, Conv2dConfig},
    nn::{Linear, LinearConfig},
    optim::AdamConfig,
    tensor::{
        Device, Tensor,
        activation::{log_softmax, relu},
    },
    train::metric::{AccuracyMetric, LossMetric},
    train::{ClassificationOutput, InferenceStep, SupervisedTraining, TrainOutput, TrainStep},
};
use burn_ema::model::Batch;
use burn_ema::{AverageConfig, Rule};
use burn_ema::{
    runs::{ProgressLines, fit},
    train::Averaged,
};
use burn_ema_lab::data::{Prepared, digits, loader};
use burn_ema_lab::device;

/// Tensors come and go at every step.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Module, Debug)]
struct ConvNet {
    conv: Conv2d,
    head: Linear,
}

impl ConvNet {
    fn new(device: &Device) -> Self {
        let conv = Conv2dConfig::new([1, 8], [3, 3]).init(device);
        Self { conv, head: LinearConfig::new(8 * 6 * 6, 10).init(device) }
    }

    fn answer(&self, batch: Batch) -> ClassificationOutput {
        let [rows, _] = batch.inputs.dims();
        let images: Tensor<4> = batch.inputs.reshape([rows, 1, 8, 8]);
        let output = self.head.forward(relu(self.conv.forward(images)).flatten::<2>(1, 3));
        // The cross-entropy of each row, so that metrics weigh a shorter batch by its rows.
        let shares = log_softmax(output.clone(), 1) * batch.targets.clone();
        let loss = -shares.sum_dim(1).squeeze_dim::<1>(1);
        ClassificationOutput::new(loss, output, batch.targets.argmax(1).squeeze_dim::<1>(1))
    }
}

impl TrainStep for ConvNet {
    type Input = Batch;
    type Output = ClassificationOutput;
    fn step(&self, batch: Batch) -> TrainOutput<ClassificationOutput> {
        let output = self.answer(batch);
        TrainOutput::new(self, output.loss.clone().mean().backward(), output)
    }
}

impl InferenceStep for ConvNet {
    type Input = Batch;
    type Output = ClassificationOutput;
    fn step(&self, batch: Batch) -> ClassificationOutput {
        self.answer(batch)
    }
}

fn main() -> anyhow::Result<()> {
    let device = device::select(None)?;
    println!("device: {device}");
    let data = Prepared::new(&digits()?, 1)?;
    let train = loader(data.train, 32, Some(1), &device.device)?;
    let valid = loader(data.valid, 32, None, &device.device)?;

    // The hook: the live module with its averages is a module for Burn's Learner.
    let model = Averaged::new(ConvNet::new(&device.device), [AverageConfig::new(Rule::ema(0.99))])?;
    let directory = std::env::temp_dir().join("burn-ema-own-module");
    let training = SupervisedTraining::new(&directory, train, valid)
        .metrics((LossMetric::new(), AccuracyMetric::new()))
        .metric_valid_numeric(model.live_metric(LossMetric::new()))
        .metric_valid_numeric(model.live_metric(AccuracyMetric::new()))
        .renderer(Box::new(ProgressLines::new(std::io::stdout())))
        .num_epochs(10);
    let model =
        fit(training, model, AdamConfig::new().init(), ConstantLr::new(0.01)).launch()?.model;

    // The average is a plain ConvNet, and its record one of Burn's.
    model.average(0)?.save_file(directory.join("average.bpk"))?;
    println!("saved {}", directory.join("average.bpk").display());
    Ok(())
}
