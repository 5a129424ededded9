//! Merges of several fine-tunings of one model (Wortsman et al. 2022, "Model soups") beside single
//! ones and the averages of each, over several seeds: `cargo run --example soup`.

#[macro_use]
#[path = "../shared/mod.rs"]
mod shared; // `println!` to a reader that may leave
#[path = "../shared/uses.rs"]
mod uses; // jobs, random numbers, statistics, tables

use anyhow::Result;
use burn::module::Module;
use burn::tensor::Device;
use burn::train::TrainStep;
use burn_ema::average::{Description, update_all};
use burn_ema::export::{self, Form, merge::Merge, merge::Merged};
use burn_ema::model::{Activation, Mlp, MlpConfig};
use burn_ema::{Average, AverageConfig, Rule, fast::AdamConfig};
use burn_ema_lab::data::{self, Prepared, Sample, inputs, loader};
use burn_ema_lab::device;
use clap::Parser;
use rand::RngExt as _;

use self::uses::{Better, Judged, Options, compare_each, over_seeds, random};

/// Tensors come and go at every step.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The fine-tunings: the learning rate, the rows of a batch, and the passes, as a multiple.
const TUNINGS: [(f64, usize, u64); 6] =
    [(0.001, 16, 1), (0.001, 32, 2), (0.003, 16, 1), (0.003, 32, 2), (0.003, 64, 1), (0.01, 32, 1)];
/// A second `bema` is updated so rarely: 9 to 34 times, as a long training is every 400 steps.
const RARE: u64 = 20;

#[derive(Parser)]
#[command(about = "Merge fine-tunings of one model, beside each alone and its averages")]
#[command(after_help = "\
For each seed a perceptron learns half of the training digits, and is fine-tuned six times, with
other learning rates, batches and orders, for digits that have changed: `near`, with noise in each
pixel, and `far`, upside down, at three times the learning rates.
`live` and the averages are means over the six fine-tunings; a soup is a merge of their six files.
Scores are those of the changed test split, means over the seeds with the standard deviation:
accuracy in percent, and the half squared error. `gain` and `harm` differ from live by more than
chance (Student's t by seed, Holm's correction over the table, 0.05). The last column has the
difference from live, with its 95 % interval.")]
struct Args {
    #[command(flatten)]
    uses: Options,
    /// Passes of the shortest fine-tuning; the first training has twice as many
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    epochs: u64,
}

/// The digits as the fine-tuning has them.
fn changed(samples: &[Sample], far: bool, seed: u64, split: u64) -> Vec<Sample> {
    let (mut samples, mut random) = (samples.to_vec(), random(seed, split));
    for pixels in samples.iter_mut().map(|sample| &mut sample.inputs) {
        match far {
            true => pixels.reverse(),
            false => pixels.iter_mut().for_each(|pixel| *pixel += random.random_range(-0.5..0.5)),
        }
    }
    samples
}

/// Trains live, with its averages if any; the last of them is updated rarely.
fn train(
    (mut live, rows): (Mlp, &[Sample]),
    (rate, batch, epochs): (f64, usize, u64),
    (order, device): (u64, &Device),
    averages: &mut [Average<Mlp>],
) -> Result<Mlp> {
    let batches = loader(rows.to_vec(), batch, Some(order), &device.clone().autodiff())?;
    let (mut optimizer, mut step) = (AdamConfig::new().init(), 0);
    for _ in 0..epochs {
        for batch in batches.iter() {
            let gradients = TrainStep::step(&live, batch?).grads;
            live = optimizer.step(rate, live, gradients);
            step += 1;
            if let Some((rare, others)) = averages.split_last_mut() {
                update_all(others, &live, step, None)?;
                if step % RARE == 0 {
                    rare.advance(&live)?;
                }
            }
        }
    }
    Ok(live)
}

/// The accuracy in percent, and the mean of half the squared error.
fn judge(net: &Mlp, rows: &[Sample], device: &Device) -> Result<Vec<f64>> {
    let outputs: Vec<f32> = net.forward(inputs(rows, device)?).into_data().iter().collect();
    let (mut right, mut loss) = (0.0, 0.0);
    for (Sample { targets, .. }, outputs) in rows.iter().zip(outputs.chunks(10)) {
        let class = |of: &[f32]| (0..of.len()).max_by(|&a, &b| of[a].total_cmp(&of[b]));
        right += f64::from(class(outputs) == class(targets));
        let errors = outputs.iter().zip(targets).map(|(output, target)| output - target);
        loss += errors.map(|error| f64::from(error * error)).sum::<f64>() / 2.0;
    }
    let count = rows.len() as f64;
    Ok(vec![100.0 * right / count, loss / count])
}

/// The averages of a fine-tuning of so many steps, with their names.
fn averages(live: &Mlp, steps: u64) -> Result<Vec<(&'static str, Average<Mlp>)>> {
    // Each of its updates counts as many steps in both powers, and moves the average as one step.
    let rare = Rule::Bema { rho: 10.0, gamma: RARE as f64, eta: 0.2, kappa: 0.5 };
    let configs = [
        ("ema(0.99, debias)", AverageConfig::new(Rule::debiased(0.99))),
        ("as suggested", AverageConfig::suggest(steps)),
        ("bema", AverageConfig::new(Rule::bema())),
        ("bema, every 20 steps", AverageConfig::new(rare)),
    ];
    configs.into_iter().map(|(name, config)| Ok((name, config.init(live)?))).collect()
}

/// The base, its fine-tunings, their averages and merges, judged.
fn run(
    epochs: u64,
    (data, device): (&Prepared, &Device),
    (far, seed, start): (bool, u64, Mlp),
) -> Result<Judged> {
    let half = &data.train[..data.train.len() / 2];
    let base = train((start, half), (0.003, 32, 2 * epochs), (seed, device), &mut [])?;
    let rows = changed(&data.train, far, seed, 0);
    let [valid, test] =
        [(&data.valid, 1), (&data.test, 2)].map(|(rows, split)| changed(rows, far, seed, split));
    let (directory, mut files) = (tempfile::tempdir()?, Vec::new());
    let mut alone: Vec<Judged> = Vec::new();
    for (index, (rate, batch, times)) in TUNINGS.into_iter().enumerate() {
        let rate = if far { 3.0 * rate } else { rate };
        let steps = times * epochs * rows.len().div_ceil(batch) as u64;
        let (names, mut averages): (Vec<_>, Vec<_>) = averages(&base, steps)?.into_iter().unzip();
        let (tuning, order) = ((rate, batch, times * epochs), 100 * seed + index as u64);
        let live = train((base.clone(), &rows), tuning, (order, device), &mut averages)?.valid();
        let modules = names.into_iter().zip(averages.iter().map(Average::module));
        let models = [("live", live.clone())].into_iter().chain(modules);
        let judged = models.map(|(name, net)| Ok((name.into(), judge(&net, &test, device)?)));
        alone.push(judged.collect::<Result<_>>()?);
        // A merge reads each form.
        let (form, extension) = match index % 3 {
            0 => (Form::Burnpack, "bpk"),
            1 => (Form::Safetensors, "safetensors"),
            _ => (Form::torch(), "safetensors"),
        };
        files.push(directory.path().join(format!("{index}.{extension}")));
        export::save(&live, &files[index], &form, &Description::new("live", steps, "soup"))?;
    }

    let merge = Merge::new(&files);
    let Merged { module, least_alike, .. } = merge.load(&base)?;
    let alike = least_alike.map_or(f64::NAN, |alike| alike.correlation);
    eprintln!(
        "seed {seed}{}: least correlation of weights {alike:.3}",
        if far { ", far" } else { "" }
    );
    let equal = judge(&module, &test, device)?;
    let greedy = merge.greedy(&base, |net| anyhow::Ok(judge(net, &valid, device)?[0]))?;
    let best = files.iter().position(|file| *file == greedy.candidates[0].path);
    let mean = |model: usize| -> (String, Vec<f64>) {
        let score = |score| alone.iter().map(|it| it[model].1[score]).sum::<f64>();
        (alone[0][model].0.clone(), [0, 1].map(|of| score(of) / alone.len() as f64).into())
    };
    let mut judged = vec![mean(0), ("best file".into(), alone[best.unwrap_or(0)][0].1.clone())];
    judged.push(("equal soup".into(), equal));
    judged.push(("greedy soup".into(), judge(&greedy.merged.module, &test, device)?));
    judged.extend((1..alone[0].len()).map(mean));
    judged.push(("base".into(), judge(&base.valid(), &test, device)?));
    Ok(judged)
}

fn main() -> Result<()> {
    let args = Args::parse();
    let device = device::select(args.uses.device.as_deref())?.device;
    let data = Prepared::new(&data::digits()?, 1)?;
    let config = MlpConfig::new(vec![64, 64, 10]);
    let config = config.with_hidden(Activation::Relu).with_output(Activation::Softmax);
    let tune = |it| run(args.epochs, (&data, &device), it);
    let settings =
        over_seeds([("near", false), ("far", true)], args.uses.seeds, (&config, &device), tune)?;
    let columns = [("accuracy", 2, Better::More), ("loss", 4, Better::Less)];
    print!("{}", compare_each(&settings, |run| run, &columns, args.uses.markdown));
    Ok(())
}
