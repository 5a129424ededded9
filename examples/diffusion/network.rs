//! The diffusion around a perceptron that predicts noise (Ho et al. 2020, "Denoising Diffusion
//! Probabilistic Models"). Pictures are `[rows, PIXELS]`, in [-1, 1].

use burn::tensor::{Device, Tensor, TensorData};
use burn_ema::model::{Activation, Mlp, MlpConfig};
use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;

use crate::uses::random::normal;

pub const PIXELS: usize = 64;
/// At this time a picture is almost noise alone, and at time 0 it has none.
const TIMES: usize = 200;
/// The sines and cosines by which the network sees a time.
const WAVES: usize = 32;

/// A perceptron from a noisy picture and its time to the noise in it.
pub fn network(device: &Device) -> burn_ema::Result<Mlp> {
    let config = MlpConfig::new(vec![PIXELS + WAVES, 128, 128, PIXELS]);
    config.with_hidden(Activation::Relu).with_output(Activation::Identity).init(device)
}

/// The noise that the network sees in pictures of these times, one for each, or one for all.
fn predict(net: &Mlp, pictures: Tensor<2>, times: &[usize]) -> Tensor<2> {
    let angle = |time, wave| time as f32 / 100f32.powf(wave as f32 / (WAVES / 2) as f32);
    let waves = times.iter().flat_map(|&time| {
        (0..WAVES / 2).flat_map(move |wave| <[f32; 2]>::from(angle(time, wave).sin_cos()))
    });
    let waves = tensor(waves.collect(), WAVES, &pictures.device());
    let waves = waves.expand([pictures.dims()[0], WAVES]);
    net.forward(Tensor::cat(vec![pictures, waves], 1))
}

/// The mean squared error of the predicted noise, in pictures that are given noise at random times.
pub fn loss(net: &Mlp, pictures: Tensor<2>, random: &mut ChaCha8Rng) -> Tensor<1> {
    let (rows, device) = (pictures.dims()[0], pictures.device());
    let times: Vec<_> = (0..rows).map(|_| random.random_range(1..=TIMES)).collect();
    let column = |share: fn(f64) -> f64| {
        tensor(times.iter().map(|&time| share(kept(time)).sqrt() as f32).collect(), 1, &device)
    };
    let noise = tensor(normal(rows * PIXELS, random), PIXELS, &device);
    let noisy = pictures * column(|kept| kept) + noise.clone() * column(|kept| 1.0 - kept);
    let off = predict(net, noisy, &times) - noise;
    (off.clone() * off).mean()
}

/// Pictures made of noise in so many steps: without further noise (Song et al. 2021, "Denoising
/// Diffusion Implicit Models"), or with that of the random walk to noise, taken backwards.
pub fn sample(
    net: &Mlp,
    rows: usize,
    steps: usize,
    noisy: bool,
    random: &mut ChaCha8Rng,
) -> Tensor<2> {
    let device = net.layers[0].weight.val().device();
    let mut draw = || tensor(normal(rows * PIXELS, random), PIXELS, &device);
    let mut x = draw();
    for step in (1..=steps).rev() {
        let [from, to] = [step, step - 1].map(|step| step * TIMES / steps);
        let [a, b] = [from, to].map(kept);
        let noise = predict(net, x.clone(), &[from]);
        let clean = ((x.clone() - noise * (1.0 - a).sqrt()) / a.sqrt()).clamp(-1, 1);
        let noise = (x - clean.clone() * a.sqrt()) / (1.0 - a).sqrt();
        let fresh = if noisy { (1.0 - b) / (1.0 - a) * (1.0 - a / b) } else { 0.0 };
        x = clean * b.sqrt() + noise * (1.0 - b - fresh).sqrt();
        if fresh > 0.0 {
            x = x + draw() * fresh.sqrt();
        }
    }
    x
}

/// The share of the picture in the variance of a noisy one at a time: the schedule of Ho et al. for
/// 1,000 times, in fewer.
fn kept(time: usize) -> f64 {
    let added =
        |time| (1e-4 + 0.0199 * (time - 1) as f64 / (TIMES - 1) as f64) * 1e3 / TIMES as f64;
    (1..=time).map(|time| 1.0 - added(time)).product()
}

pub fn tensor(numbers: Vec<f32>, width: usize, device: &Device) -> Tensor<2> {
    let rows = numbers.len() / width;
    Tensor::from_data(TensorData::new(numbers, [rows, width]), device)
}
