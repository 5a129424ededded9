//! A plain Burn model, without any average, in a run that survives being killed:
//! `cargo run --example plain_run -- runs/plain`. Kill it at any moment and start it again: it ends
//! with the same weights, bit for bit.

use burn::data::{dataloader::*, dataset::InMemDataset};
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig, loss::*};
use burn::{lr_scheduler::constant::ConstantLr, module::Module, optim::AdamConfig};
use burn::{tensor::*, train::metric::LossMetric, train::*};
use burn_ema::runs::{CommitConfig, ProgressLines, RunModel, fit};

#[derive(Module, Debug)]
struct Net {
    norm: BatchNorm,
    layer: Linear,
}

impl RunModel for Net {} // all that a plain model needs
impl InferenceStep for Net {
    type Input = Tensor<2>;
    type Output = RegressionOutput;
    fn step(&self, rows: Tensor<2>) -> RegressionOutput {
        let output = self.layer.forward(self.norm.forward(rows.clone()));
        let errors = MseLoss::new().forward_no_reduction(output.clone(), rows.clone());
        RegressionOutput::new(errors.mean_dim(1).squeeze_dim(1), output, rows) // a loss a row
    }
}

impl TrainStep for Net {
    type Input = Tensor<2>;
    type Output = RegressionOutput;
    fn step(&self, rows: Tensor<2>) -> TrainOutput<RegressionOutput> {
        let noise = rows.random_like(Distribution::Default); // goes on, too
        let output = InferenceStep::step(self, rows + noise);
        TrainOutput::new(self, output.loss.clone().mean().backward(), output)
    }
}

struct Rows;
impl batcher::Batcher<[f32; 2], Tensor<2>> for Rows {
    fn batch(&self, rows: Vec<[f32; 2]>, device: &Device) -> Tensor<2> {
        Tensor::from_data(TensorData::new(rows.concat(), [rows.len(), 2]), device)
    }
}

fn main() -> burn_ema::Result<()> {
    let run = std::env::args().nth(1).unwrap_or_else(|| "runs/plain".into());
    let data = || InMemDataset::new((0..999_u16).map(|i| f32::from(i).sin_cos().into()).collect());
    let loader = |seed| DataLoaderBuilder::new(Rows).batch_size(9).shuffle(seed).build(data());
    let device = Device::default();
    device.seed(1);
    let (norm, layer) = (BatchNormConfig::new(2).init(&device), LinearConfig::new(2, 2));
    let net = Net { norm, layer: layer.init(&device) };
    let training = SupervisedTraining::new(&run, loader(2), loader(3)).num_epochs(8);
    let lines = Box::new(ProgressLines::new(std::io::stderr()));
    let training = training.metrics((LossMetric::new(),)).renderer(lines);
    let fit = fit(training, net, AdamConfig::new().init(), ConstantLr::new(1e-3));
    fit.with_commits(CommitConfig::new(&run).with_every_steps(Some(10)))?.resume()?.launch()?;
    Ok(())
}
