//! `Average` in a loop of your own, over one of two modules that train in turn: a generator of
//! points on a circle and its critic: `cargo run --example own_loop`.
//!
//! A generator never settles, since its critic moves on; its average does.

#[macro_use]
mod shared; // `println!` to a reader that may leave

use burn::{
    module::Module,
    optim::{AdamConfig, GradientsParams, ModuleOptimizer},
    tensor::{Device, Distribution, Tensor},
};
use burn_ema::{
    AverageConfig, Rule,
    model::{Activation, Mlp, MlpConfig},
};
use burn_ema_lab::device;

/// Tensors come and go at every step.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BATCH: usize = 64;
const STEPS: u64 = 4000;

/// One step of Adam on a loss.
fn step(module: Mlp, optimizer: &mut ModuleOptimizer, loss: Tensor<1>) -> Mlp {
    let gradients = GradientsParams::from_grads(loss.backward(), &module);
    optimizer.step(1e-3, module, gradients)
}

/// Points on the unit circle, with a little noise: `[batch, 2]`.
fn circle(device: &Device) -> Tensor<2> {
    let turn = Distribution::Uniform(0.0, std::f64::consts::TAU);
    let angle = Tensor::<2>::random([BATCH, 1], turn, device);
    let noise = Tensor::random([BATCH, 2], Distribution::Normal(0.0, 0.05), device);
    Tensor::cat(vec![angle.clone().cos(), angle.sin()], 1) + noise
}

fn noise(rows: usize, device: &Device) -> Tensor<2> {
    Tensor::random([rows, 2], Distribution::Normal(0.0, 1.0), device)
}

/// How far generated points lie from the circle, and from all of it: the mean distance to it, and
/// the distance of their mean to its centre.
fn error(generator: &Mlp, noise: Tensor<2>) -> f32 {
    let points = generator.forward(noise);
    let radius = (points.clone() * points.clone()).sum_dim(1).sqrt();
    let off: f32 = (radius - 1.0).abs().mean().into_scalar();
    let centre = points.mean_dim(0);
    off + (centre.clone() * centre).sum().sqrt().into_scalar::<f32>()
}

fn main() -> anyhow::Result<()> {
    let device = device::select(None)?;
    println!("device: {device}");
    device.device.seed(1);
    let (plain, device) = (device.device.clone(), device.device.autodiff());
    let network = |output| {
        let config = MlpConfig::new(vec![2, 32, 32, output]).with_hidden(Activation::Tanh);
        config.with_output(Activation::Identity).init(&device)
    };
    let (mut generator, mut critic) = (network(2)?, network(1)?);
    let [mut for_generator, mut for_critic] =
        [(); 2].map(|()| AdamConfig::new().with_beta_1(0.5).init());

    // The average of the generator alone; the critic is only there to teach it.
    let mut average = AverageConfig::new(Rule::ema(0.99)).init(&generator)?;
    let test = noise(1000, &plain);
    let (mut live_errors, mut average_errors) = (0.0, 0.0);
    println!("{:>5}  {:>8}  {:>8}", "step", "live", "average");
    for number in 1..=STEPS {
        let square = |x: Tensor<2>| (x.clone() * x).mean();
        let fake = generator.forward(noise(BATCH, &device)).detach();
        let loss = square(critic.forward(circle(&device)) - 1.0) + square(critic.forward(fake));
        critic = step(critic, &mut for_critic, loss);
        let fake = generator.forward(noise(BATCH, &device));
        let loss = square(critic.forward(fake) - 1.0);
        generator = step(generator, &mut for_generator, loss);

        average.update(&generator, number)?; // once, after the generator's step

        if number % (STEPS / 10) == 0 {
            let [live, averaged] =
                [generator.valid(), average.module()].map(|module| error(&module, test.clone()));
            println!("{number:>5}  {live:>8.4}  {averaged:>8.4}");
            live_errors += live / 10.0;
            average_errors += averaged / 10.0;
        }
    }
    println!("\nmean error: live {live_errors:.4}, average {average_errors:.4}");
    Ok(())
}
