//! What sampling from an average gains: a small diffusion model of 8 x 8 digits, at a constant and
//! at a decaying learning rate, over several seeds: `cargo run --example diffusion`.

#[macro_use]
#[path = "../shared/mod.rs"]
mod shared; // `println!` to a reader that may leave
#[path = "../shared/uses.rs"]
mod uses; // jobs, random numbers, statistics and tables

mod network; // the diffusion

use std::{f64::consts::PI, fs, path::PathBuf};

use anyhow::{Context as _, Result};
use burn::module::Module;
use burn::optim::{AdamConfig, GradientsParams};
use burn::tensor::{Device, FloatDType, Tensor};
use burn_ema::average::post_hoc::{Solve, Target};
use burn_ema::average::{Snapshots, update_all};
use burn_ema::{AverageConfig, Rule, model::Mlp};
use burn_ema_lab::data::{Prepared, digits, loader};
use burn_ema_lab::report::picture::{AxisScale, HEIGHT, Images, Line, Lines, Of};
use burn_ema_lab::{device, report::Features};
use clap::Parser;

use self::network::{PIXELS, loss, network, sample, tensor};
use self::uses::{jobs, random::random, scores, statistics, table::table};

/// Tensors come and go at every step.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The learning rate of Adam, the rows of a batch, the digits that are made for a distance.
const RATE: f64 = 0.003;
const BATCH: usize = 32;
const MADE: usize = 500;
/// How often two power functions are stored, and the widths that are made of them, in percent.
const STORED: u64 = 20;
const WIDTHS: [f64; 12] = [1.0, 2.0, 3.0, 4.0, 5.0, 7.0, 10.0, 13.0, 16.0, 20.0, 25.0, 30.0];
const COLUMNS: [scores::Column; 3] = [
    scores::Column { title: "50 steps", digits: 2, less_is_better: true },
    scores::Column { title: "200 noisy steps", digits: 2, less_is_better: true },
    scores::Column { title: "loss", digits: 4, less_is_better: true },
];

#[derive(Parser)]
#[command(about = "Sample digits from a small diffusion model and its averages, over many seeds")]
#[command(after_help = "\
`50 steps` and `200 noisy steps` are Fréchet distances of generated digits from the test split, by
a classifier's hidden features; `loss` is that of the predicted noise on the test split. All are
means over seeds with their standard deviation, less is better. `gain` and `harm` differ from live
at the same rate by more than chance (Student's t by seed, Holm over the table, 0.05). The last
column has the 95 % interval of the difference from live at the decaying rate, in 50 steps.")]
struct Args {
    #[command(flatten)]
    uses: uses::Options,
    /// Passes over the training split
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    epochs: u64,
    /// Write diffusion-widths.svg and diffusion-samples.svg here
    #[arg(long, value_name = "DIRECTORY")]
    out: Option<PathBuf>,
}

/// What all trainings share, with the validation and the test digits as pictures.
struct Lab {
    epochs: u64,
    device: Device,
    data: Prepared,
    digits: [Tensor<2>; 2],
    features: Features,
}

/// A training: the scores of live and its averages, their first pictures, and what each width has.
struct Run {
    models: Vec<(String, [f64; 3], Vec<Vec<f64>>)>,
    widths: Vec<f64>,
}

impl Lab {
    fn run(&self, (decays, seed, mut live): (bool, u64, Mlp)) -> Result<Run> {
        let Self { epochs, device, data, digits: [valid, test], features } = self;
        let batches = loader(data.train.clone(), BATCH, Some(seed), &device.clone().autodiff())?;
        let steps = epochs * data.train.len().div_ceil(BATCH) as u64;
        let powers = [0.05, 0.1].map(Rule::power_function);
        let rules =
            [0.99, 0.999, 0.9999].map(Rule::debiased).into_iter().chain([Rule::ema(0.9999)]);
        let suggested = AverageConfig::suggest(steps);
        let name = format!("{}, suggested", suggested.rule);
        let configs = powers.into_iter().chain(rules).map(AverageConfig::new);
        let configs = configs.chain([suggested.with_name(Some(name))]);
        let mut averages = configs.map(|one| one.init(&live)).collect::<Result<Vec<_>, _>>()?;
        let directory = tempfile::tempdir().context("a directory for snapshots")?;
        let snapshots = Snapshots::create(directory.path().join("stored"), FloatDType::F32)?;
        let (mut optimizer, mut noise, mut step) = (AdamConfig::new().init(), random(seed, 0), 0);
        for _ in 0..*epochs {
            for batch in batches.iter() {
                let loss = loss(&live, batch?.inputs * 2 - 1, &mut noise);
                let gradients = GradientsParams::from_grads(loss.backward(), &live);
                let share = (1.0 + (PI * step as f64 / steps as f64).cos()) / 2.0;
                live = optimizer.step(RATE * if decays { share } else { 1.0 }, live, gradients);
                step += 1;
                update_all(&mut averages, &live, step, None)?;
                if step * STORED / steps > (step - 1) * STORED / steps {
                    averages[..2].iter().try_for_each(|one| snapshots.store(one).map(drop))?;
                }
            }
        }

        let made = |net: &Mlp, steps, noisy, purpose| {
            (sample(net, MADE, steps, noisy, &mut random(seed, purpose)) + 1) / 2
        };
        let distance = |made, digits: &Tensor<2>| features.distance(made, digits.clone());
        let (live, mut widths) = (live.valid(), vec![]);
        let targets = WIDTHS.map(|width| Target::PowerFunction { sigma_rel: width / 100.0 });
        let grid = snapshots.evaluate(&live, &targets, None, Solve::Published, |net| {
            widths.push(distance(made(net, 50, false, 1), test)?);
            distance(made(net, 50, false, 2), valid)
        })?;
        let mut models = vec![("live".to_owned(), live)];
        models.extend(averages.iter().map(|one| (one.name().to_owned(), one.module())));
        models.push(("post-hoc, width by validation".to_owned(), grid.module));
        let judge = |(name, net): (String, Mlp)| -> Result<_> {
            let pictures = made(&net, 50, false, 1);
            let ink: Vec<f64> = pictures.clone().slice([0..16]).into_data().iter().collect();
            let loss = loss(&net, test.clone().repeat_dim(0, 10) * 2 - 1, &mut random(0, 4));
            let noisy = distance(made(&net, 200, true, 3), test)?;
            let scores = [distance(pictures, test)?, noisy, loss.into_scalar::<f32>().into()];
            Ok((name, scores, ink.chunks(PIXELS).map(<[f64]>::to_vec).collect()))
        };
        eprintln!("seed {seed}, {} rate", if decays { "decaying" } else { "constant" });
        Ok(Run { models: models.into_iter().map(judge).collect::<Result<_>>()?, widths })
    }
}

fn main() -> Result<()> {
    let Args { uses, epochs, out } = Args::parse();
    let device = device::select(uses.device.as_deref())?.device;
    let data = Prepared::new(&digits()?, 1)?;
    let pictures = |rows: &Vec<_>| {
        let ink = rows.iter().flat_map(|row: &burn_ema_lab::data::Sample| row.inputs.clone());
        tensor(ink.collect(), PIXELS, &device)
    };
    let features = Features::learn(&data, 1, &device)?;
    let train = pictures(&data.train);
    let digits = [&data.valid, &data.test].map(pictures);
    let floor = format!("{:.2}", features.distance(train, digits[1].clone())?);
    let lab = Lab { epochs, device: device.clone(), digits, features, data };
    let mut trainings = vec![];
    for decays in [false, true] {
        for seed in 1..=uses.seeds {
            device.seed(seed);
            trainings.push((decays, seed, network(&device.clone().autodiff())?.clone()));
        }
    }
    let runs = jobs::on_all_cores(trainings, |training| lab.run(training))?;

    let (rates, models) = (runs.chunks(uses.seeds as usize), runs[0].models.len());
    let rows = rates.clone().enumerate().flat_map(|(rate, runs)| {
        let of =
            move |model: usize, score| runs.iter().map(|run| run.models[model].1[score]).collect();
        (0..models).map(move |model| scores::Row {
            scores: (0..3).map(|score| of(model, score)).collect(),
            against: (model > 0).then_some(rate * models),
        })
    });
    let rows: Vec<_> = rows.collect();
    let titles = ["rate", "model"].into_iter().chain(COLUMNS.map(|column| column.title));
    let titles = titles.chain(["50 steps, from live decaying"]).map(str::to_owned).collect();
    let mut lines =
        vec![titles, ["", "training digits", &floor, "", "", ""].map(str::to_owned).into()];
    for (index, cells) in scores::cells(&COLUMNS, &rows).into_iter().enumerate() {
        let rate = ["constant", "decaying"][index / models].to_owned();
        let mut line = vec![rate, runs[0].models[index % models].0.clone()];
        line.extend(cells);
        line.push(scores::difference(&rows[index].scores[0], &rows[models].scores[0], 2));
        lines.push(line);
    }
    print!("{}", table(&lines, uses.markdown));

    let Some(directory) = out else { return Ok(()) };
    let mut curves = vec![];
    for ((index, runs), rate) in rates.clone().enumerate().zip(["constant", "decaying"]) {
        let points = WIDTHS.iter().enumerate().map(|(width, percent)| {
            let all: Vec<_> = runs.iter().map(|run| run.widths[width]).collect();
            (*percent, statistics::mean(&all), statistics::deviation(&all))
        });
        curves.push(Line::of_means(format!("averages, {rate} rate"), Of::Average(index), points));
        let live = statistics::mean(&rows[index * models].scores[0]);
        let points = [WIDTHS[0], WIDTHS[11]].map(|width| (width, live));
        let of = [Of::Live, Of::Average(5)][index];
        curves.push(Line::new(format!("live, {rate} rate"), of, points));
    }
    let y = format!("distance, 50 steps: mean and deviation of {} seeds", uses.seeds);
    let x = "width of the average, % of the training";
    let (scale, lines, height) = (AxisScale::Linear, curves, HEIGHT);
    let widths = Lines { x, y, scale, lines, height, zero: false, include: None }.draw()?;
    let shown = |model: usize| {
        let (name, _, made) = &runs[0].models[model];
        (format!("{name}, constant rate"), made.clone())
    };
    let samples = Images { rows: vec![shown(0), shown(3), shown(1), shown(models - 1)], side: 8 };
    fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
    for (name, picture) in [("widths", widths), ("samples", samples.draw())] {
        let path = directory.join(format!("diffusion-{name}.svg"));
        fs::write(&path, picture.file()).with_context(|| path.display().to_string())?;
    }
    Ok(())
}
