//! Live and its averages as samplers: a diffusion model (Ho et al. 2020, "Denoising Diffusion
//! Probabilistic Models") of 8 x 8 digits, over several seeds: `cargo run --example diffusion`.

#[macro_use]
#[path = "../shared/mod.rs"]
mod shared; // `println!` to a reader that may leave
#[path = "../shared/uses.rs"]
mod uses; // jobs, random numbers, statistics, tables

use std::{f64::consts::PI, path::PathBuf};

use anyhow::Result;
use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::{Device, FloatDType, Tensor};
use burn_ema::average::{Snapshots, post_hoc::Solve, post_hoc::Target, update_all};
use burn_ema::model::{Activation, Mlp, MlpConfig};
use burn_ema::{AverageConfig, Rule, fast::AdamConfig};
use burn_ema_lab::data::{self, Prepared, inputs, loader};
use burn_ema_lab::report::picture::{Images, Line, Lines, Of};
use burn_ema_lab::{device, report::Features};
use clap::Parser;
use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;

use self::uses::{Better::Less, Judged, Options, compare, normal, over_seeds, random, write};

/// Tensors come and go at every step.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const PIXELS: usize = 64;
/// At this time a picture is almost noise alone; at time 0 it has none.
const TIMES: usize = 200;
/// The network sees a time by so many sines and cosines.
const WAVES: usize = 16;
const BATCH: usize = 32;
const RATE: f64 = 0.003;
/// Two power functions are stored so often, and these widths, in percent, made of them; 0 is live.
const STORED: u64 = 40;
const WIDTHS: [f64; 11] = [0.0, 2.0, 3.0, 4.0, 5.0, 7.0, 10.0, 13.0, 16.0, 20.0, 25.0];

#[derive(Parser)]
#[command(about = "Sample digits from a small diffusion model and its averages, over many seeds")]
#[command(after_help = "\
`50 steps` and `200 noisy steps` are Fréchet distances of generated digits from the test split, by
a classifier's hidden features; `loss` is that of the predicted noise there. All are means over the
seeds with the standard deviation. `gain` and `harm` differ from live at the same rate by more than
chance (Student's t by seed, Holm's correction over the table, 0.05). The last column has the
difference from live at the decaying rate, with its 95 % interval.")]
struct Args {
    #[command(flatten)]
    uses: Options,
    /// Passes over the training split
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    epochs: u64,
    /// The digits that a model makes for a distance
    #[arg(long, default_value_t = 360, value_parser = clap::value_parser!(u64).range(2..=100_000))]
    digits: u64,
    /// Write diffusion-widths.svg and diffusion-samples.svg here
    #[arg(long, value_name = "DIRECTORY")]
    out: Option<PathBuf>,
}

/// The noise that the network sees in pictures, in [-1, 1], at one time or at one for each.
fn predict(net: &Mlp, pictures: Tensor<2>, times: Tensor<2>) -> Tensor<2> {
    let frequencies: [f32; WAVES] = std::array::from_fn(|wave| 0.75f32.powi(wave as i32));
    let angles = times * Tensor::<2>::from_data([frequencies], &pictures.device());
    let waves = Tensor::cat(vec![angles.clone().sin(), angles.cos()], 1);
    let waves = waves.expand([pictures.dims()[0], 2 * WAVES]);
    net.forward(Tensor::cat(vec![pictures, waves], 1))
}

/// The mean squared error of the noise predicted in pictures that are given some at random times.
fn loss(net: &Mlp, pictures: Tensor<2>, random: &mut ChaCha8Rng) -> Tensor<1> {
    let (rows, device) = (pictures.dims()[0], pictures.device());
    let times: Vec<_> = (0..rows).map(|_| random.random_range(1..=TIMES)).collect();
    let column = |of: fn(usize) -> f64| -> Tensor<2> {
        let numbers: Vec<_> = times.iter().map(|&time| of(time)).collect();
        Tensor::<1>::from_data(&numbers[..], &device).unsqueeze_dim(1)
    };
    let (kept, noise) = (column(kept), normal(rows, PIXELS, random, &device));
    let noisy = pictures * kept.clone().sqrt() + noise.clone() * (kept.neg() + 1).sqrt();
    let off = predict(net, noisy, column(|time| time as f64)) - noise;
    (off.clone() * off).mean()
}

/// Pictures made of noise: in fewer steps than times without further noise (Song et al. 2021,
/// "Denoising Diffusion Implicit Models"), else with that of the random walk, taken backwards.
fn sample(net: &Mlp, rows: usize, steps: usize, random: &mut ChaCha8Rng) -> Tensor<2> {
    let device = net.layers[0].weight.val().device();
    let mut x = normal(rows, PIXELS, random, &device);
    for step in (1..=steps).rev() {
        let [from, to] = [step, step - 1].map(|step| step * TIMES / steps);
        let noise = predict(net, x.clone(), Tensor::full([1, 1], from as f64, &device));
        let [a, b] = [from, to].map(kept);
        let clean = ((x.clone() - noise * (1.0 - a).sqrt()) / a.sqrt()).clamp(-1, 1);
        let fresh = if steps == TIMES { (1.0 - b) / (1.0 - a) * (1.0 - a / b) } else { 0.0 };
        let left = ((1.0 - b - fresh) / (1.0 - a)).sqrt();
        x = clean * (b.sqrt() - left * a.sqrt()) + x * left;
        if fresh > 0.0 {
            x = x + normal(rows, PIXELS, random, &device) * fresh.sqrt();
        }
    }
    x
}

/// The picture's share of the variance at a time: Ho et al.'s schedule of 1,000 times, in fewer.
fn kept(time: usize) -> f64 {
    let added = |time| 1e-4 + 0.0199 * (time - 1) as f64 / (TIMES - 1) as f64;
    (1..=time).map(|time| 1.0 - added(time) * 1e3 / TIMES as f64).product()
}

/// Trains, for the scores of live and its averages, the distances of all widths, and two models.
fn run(
    Args { epochs, digits, .. }: &Args,
    (data, features, device): (&Prepared, &Features, &Device),
    (decays, seed, mut live): (bool, u64, Mlp),
) -> Result<(Judged, Vec<f64>, [Mlp; 2])> {
    let batches = loader(data.train.clone(), BATCH, Some(seed), &device.clone().autodiff())?;
    let steps = epochs * data.train.len().div_ceil(BATCH) as u64;
    let rules = [0.99, 0.999, 0.9999].map(Rule::debiased).into_iter().chain([Rule::ema(0.9999)]);
    let rules = [0.05, 0.1].map(Rule::power_function).into_iter().chain(rules);
    let suggested = AverageConfig::suggest(steps).with_name(Some("as suggested".to_owned()));
    let configs = rules.map(AverageConfig::new).chain([suggested]);
    let mut averages = configs.map(|one| one.init(&live)).collect::<Result<Vec<_>, _>>()?;
    let directory = tempfile::tempdir()?;
    let snapshots = Snapshots::create(directory.path().join("stored"), FloatDType::F32)?;
    let (mut optimizer, mut noise, mut step) = (AdamConfig::new().init(), random(seed, 0), 0);
    for _ in 0..*epochs {
        for batch in batches.iter() {
            let loss = loss(&live, batch?.inputs * 2 - 1, &mut noise);
            let gradients = GradientsParams::from_grads(loss.backward(), &live);
            let left = (1.0 + (PI * step as f64 / steps as f64).cos()) / 2.0;
            live = optimizer.step(if decays { RATE * left } else { RATE }, live, gradients);
            step += 1;
            update_all(&mut averages, &live, step, None)?;
            if step * STORED / steps > (step - 1) * STORED / steps {
                averages[..2].iter().try_for_each(|one| snapshots.store(one).map(drop))?;
            }
        }
    }

    let live = live.valid();
    let distance = |net: &Mlp, steps, purpose, real| {
        let made = sample(net, *digits as usize, steps, &mut random(seed, purpose));
        features.distance((made + 1) / 2, real)
    };
    let targets = WIDTHS.map(|width| Target::PowerFunction { sigma_rel: width / 100.0 });
    let validate = |net: &Mlp| distance(net, 50, 2, &data.valid);
    let grid = snapshots.evaluate(&live, &targets[1..], None, Solve::Published, validate)?;
    let widths = grid.tried.iter().map(|it| it.outcome.as_ref().map_or(f64::NAN, |it| it.0));
    let widths = [validate(&live)?].into_iter().chain(widths).collect();
    let mut models = vec![("live".to_owned(), live.clone())];
    models.extend(averages.iter().map(|one| (one.name().to_owned(), one.module())));
    models.push(("post-hoc, best width".to_owned(), grid.module));
    let judge = |(name, net): (String, Mlp)| -> Result<_> {
        let test = inputs(&data.test, device)?.repeat_dim(0, 10) * 2 - 1;
        let loss = loss(&net, test, &mut random(0, 4)).into_scalar::<f32>();
        let noisy = distance(&net, TIMES, 3, &data.test)?;
        Ok((name, vec![distance(&net, 50, 1, &data.test)?, noisy, loss.into()]))
    };
    let judged = models.into_iter().map(judge).collect::<Result<_>>()?;
    Ok((judged, widths, [live, averages[2].module()]))
}

fn main() -> Result<()> {
    let args = Args::parse();
    let device = device::select(args.uses.device.as_deref())?.device;
    let data = Prepared::new(&data::digits()?, 1)?;
    let features = Features::learn(&data, 1, &device)?;
    let floor = features.distance(inputs(&data.train, &device)?, &data.test)?;
    eprintln!("training digits: {floor:.2}");
    let config = MlpConfig::new(vec![PIXELS + 2 * WAVES, 128, 128, PIXELS]);
    let config = config.with_hidden(Activation::Relu).with_output(Activation::Identity);
    let settings = [("constant rate", false), ("decaying rate", true)];
    let train = |it| run(&args, (&data, &features, &device), it);
    let settings = over_seeds(settings, args.uses.seeds, (&config, &device), train)?;
    let columns = [("50 steps", 2, Less), ("200 noisy steps", 2, Less), ("loss", 4, Less)];
    print!("{}", compare(&settings, |run| &run.0, &columns, args.uses.markdown));

    let Some(directory) = &args.out else { return Ok(()) };
    let curves = settings.iter().enumerate().map(|(index, (name, runs))| {
        Line::of_means(*name, Of::Average(index), &WIDTHS, runs.iter().map(|run| &run.1[..]))
    });
    let widths = Lines::log("width, % of the training", "distance in 50 steps, live at 0", curves);
    let rows = settings.iter().flat_map(|(name, runs)| {
        ["live", "ema(0.99, debias)"].into_iter().zip(&runs[0].2).map(move |(model, net)| {
            let made = (sample(net, 16, 50, &mut random(1, 5)) + 1) / 2;
            (format!("{model}, {name}"), made.into_data().iter().collect())
        })
    });
    let samples = Images { rows: rows.collect(), side: 8 }.draw();
    write(directory, [("diffusion-widths", widths.draw()?), ("diffusion-samples", samples)])
}
