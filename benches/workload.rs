//! What is measured: networks, batches, and a step in the two ways that one trains.

use burn::{
    lr_scheduler::constant::ConstantLr,
    module::Module,
    optim::ModuleOptimizer,
    tensor::{Device, Distribution, Tensor},
    train::{Learner, TrainStep},
};
use burn_ema::{
    Average, AverageConfig, NonFinite, Result, Rule,
    model::{Batch, Mlp, MlpConfig},
    train::Averaged,
};
use burn_ema_lab::run::OptimizerKind;

/// A network of sigmoids and the batch that it is trained with.
pub struct Network {
    pub name: &'static str,
    pub sizes: &'static [usize],
    pub batch: usize,
}

/// From a few thousand weights to some millions.
pub const NETWORKS: [Network; 5] = [
    Network { name: "64-32-10-b32", sizes: &[64, 32, 10], batch: 32 },
    Network { name: "784-128-10-b64", sizes: &[784, 128, 10], batch: 64 },
    Network { name: "784-512-256-10-b64", sizes: &[784, 512, 256, 10], batch: 64 },
    Network { name: "784-512-256-10-b512", sizes: &[784, 512, 256, 10], batch: 512 },
    Network { name: "1024-2048-2048-1024-b256", sizes: &[1024, 2048, 2048, 1024], batch: 256 },
];

impl Network {
    /// The network itself, ready for training on a device with autodiff.
    pub fn init(&self, device: &Device) -> Result<Mlp> {
        MlpConfig::new(self.sizes.to_vec()).init(device)
    }

    /// How many weights it has.
    pub fn weights(&self) -> usize {
        self.sizes.windows(2).map(|pair| (pair[0] + 1) * pair[1]).sum()
    }

    /// Numbers to learn from.
    pub fn rows(&self, device: &Device) -> Batch {
        let random =
            |width, distribution| Tensor::random([self.batch, width], distribution, device);
        Batch {
            inputs: random(self.sizes[0], Distribution::Normal(0.0, 1.0)),
            targets: random(self.sizes[self.sizes.len() - 1], Distribution::Default),
        }
    }
}

/// Burn's CPU backend, for training.
pub fn device() -> Device {
    Device::flex().autodiff()
}

/// An average as most have it, with its guard against numbers that are not finite.
pub fn average() -> AverageConfig {
    AverageConfig::new(Rule::ema(0.999))
}

/// The optimizers that are measured.
pub const OPTIMIZERS: [OptimizerKind; 2] = [OptimizerKind::Sgd, OptimizerKind::Adam];

/// A learning rate at which any network here stays finite.
pub fn rate(optimizer: OptimizerKind) -> f64 {
    match optimizer {
        OptimizerKind::Sgd => 0.01,
        OptimizerKind::Adam => 0.001,
    }
}

/// A training in a loop of one's own.
pub struct OwnLoop {
    model: Option<Mlp>,
    optimizer: ModuleOptimizer,
    rate: f64,
    average: Option<Average<Mlp>>,
    steps: u64,
}

impl OwnLoop {
    pub fn new(
        network: &Network,
        optimizer: OptimizerKind,
        averages: bool,
        device: &Device,
    ) -> Result<Self> {
        let model = network.init(device)?;
        let average = averages.then(|| average().init(&model)).transpose()?;
        let rate = rate(optimizer);
        Ok(Self { model: Some(model), optimizer: optimizer.init(), rate, average, steps: 0 })
    }

    /// Forward and backward pass, a step of the optimizer, an update of the average.
    pub fn step(&mut self, batch: Batch) -> Result<()> {
        // The optimizer must own the weights alone to move them in place.
        let Some(model) = self.model.take() else { return Ok(()) };
        let gradients = TrainStep::step(&model, batch).grads;
        let model = self.optimizer.step(self.rate, model, gradients);
        self.steps += 1;
        if let Some(average) = &mut self.average {
            average.update(&model, self.steps)?;
        }
        self.model = Some(model);
        Ok(())
    }
}

/// A training in a loop of one's own, of a model with an average in it.
pub struct Hooked {
    model: Option<Averaged<Mlp>>,
    optimizer: ModuleOptimizer,
    rate: f64,
}

impl Hooked {
    pub fn new(network: &Network, optimizer: OptimizerKind, device: &Device) -> Result<Self> {
        let model = Averaged::new(network.init(device)?, [average()])?.train();
        Ok(Self { model: Some(model), optimizer: optimizer.init(), rate: rate(optimizer) })
    }

    /// Without any check for numbers that are not finite.
    #[allow(dead_code)] // for a GPU, where a check waits for the device
    pub fn unchecked(network: &Network, by: OptimizerKind, device: &Device) -> Result<Self> {
        let average = average().with_non_finite(NonFinite::Take);
        let model = Averaged::new(network.init(device)?, [average])?.train();
        let model = model.with_non_finite(NonFinite::Take)?;
        Ok(Self { model: Some(model), optimizer: by.init(), rate: rate(by) })
    }

    /// The same as in the [loop](OwnLoop::step) without one.
    pub fn step(&mut self, batch: Batch) {
        let Some(model) = self.model.take() else { return };
        let gradients = TrainStep::step(&model, batch).grads;
        self.model = Some(model.optimize(&mut self.optimizer, self.rate.into(), gradients));
    }
}

/// A training by Burn's Learner, which clones its model at every step, with one average in it.
pub struct Learned(Learner<Averaged<Mlp>>);

impl Learned {
    pub fn new(network: &Network, optimizer: OptimizerKind, device: &Device) -> Result<Self> {
        let model = Averaged::new(network.init(device)?, [average()])?.train();
        Ok(Self(Learner::new(model, optimizer.init(), ConstantLr::new(rate(optimizer)))))
    }

    /// The same as in the [loop](OwnLoop::step).
    pub fn step(&mut self, batch: Batch) {
        let gradients = self.0.train_step(batch).grads;
        self.0.lr_step();
        self.0.optimizer_step(gradients);
    }
}
