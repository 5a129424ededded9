//! A noisy weight and its averages: an exponential moving average with and without bias correction
//! and the mean of the last values, without and with an outlier.
//!
//! ```text
//! cargo run --example averages
//! cargo run --example averages -- --out artifacts/figures
//! cargo run --example averages -- --decay 0.99 --steps 1000 --outlier 20
//! ```
//!
//! All averages are this crate's own `Average`, of a module with many weights that differ in their
//! noise alone: the first is drawn, and the table goes by all.

#[path = "../shared/mod.rs"]
mod shared; // the standard output of a reader that may leave

use std::{fs, io::Write, path::PathBuf};

use anyhow::{Context, Result, ensure};
use burn::{
    module::{Module, Param, ParamId},
    tensor::{DType, Device, Tensor, TensorData},
};
use burn_ema::{Average, AverageConfig, Rule};
use burn_ema_lab::report::picture::{AxisScale, HEIGHT, Line, Lines, Of, Picture};
use clap::Parser;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use textplots::{Chart, ColorPlot, Shape};

#[derive(Parser)]
#[command(about = "Draw a noisy weight and its averages, without and with an outlier")]
#[command(after_help = "\
A weight goes from 0 to 1, a share --rate of what is left at each step, under noise.
Of each decay d there are three averages: ema(d) starts from the 0, ema(d, debias) does not,
and the window is the mean of the last n = 1 / (1 - d) values, of which it keeps n copies.

copies    how often the weights are kept in memory
error     the root mean square of the distance from 1 after the last step, over all weights
moved     by how much the outlier moves it at once
n later   what is left of that n steps later
meet      the first step at which ema(d) is within 1 % of ema(d, debias), in shares of how far
          that one is from the start; this share is d^t, so that d^t < 0.01")]
struct Args {
    /// The steps
    #[arg(long, default_value_t = 140, value_parser = clap::value_parser!(u64).range(2..=100_000))]
    steps: u64,
    /// The share of the old average that one step keeps; several make several averages [default:
    /// 0.8, 0.9 and 0.95]
    #[arg(long, value_name = "DECAY")]
    decay: Vec<f64>,
    /// The standard deviation of the noise
    #[arg(long, default_value_t = 0.2)]
    noise: f64,
    /// The share of the way that is left which the weight goes in a step, in [0, 1]
    #[arg(long, default_value_t = 0.05)]
    rate: f64,
    /// What is added to the weight at one step
    #[arg(long, default_value_t = 5.0, allow_negative_numbers = true)]
    outlier: f64,
    /// The step of the outlier
    #[arg(long, value_name = "STEP", default_value_t = 90)]
    outlier_at: u64,
    /// The number of weights that the table goes by
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    weights: u64,
    /// What the noise is drawn from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print the table alone, in Markdown
    #[arg(long)]
    markdown: bool,
    /// Write settle.svg, outlier.svg, settle.csv and outlier.csv here
    #[arg(long, value_name = "DIRECTORY")]
    out: Option<PathBuf>,
}

/// Weights that differ in their noise alone.
#[derive(Module, Debug)]
struct Weights {
    values: Param<Tensor<1>>,
}

impl Weights {
    fn new(values: &[f64], device: &Device) -> Self {
        let data = TensorData::new(values.to_vec(), [values.len()]);
        let values = Tensor::from_data(data, (device, DType::F64));
        Self { values: Param::initialized(ParamId::new(), values) }
    }

    fn read(&self) -> Result<Vec<f64>> {
        let data = self.values.val().into_data();
        data.try_into_vec().map_err(|error| anyhow::anyhow!("cannot read the weights: {error}"))
    }
}

/// Live and some averages after each step, the start included: `[step][weight]`.
struct Course {
    live: Vec<Vec<f64>>,
    averages: Vec<Vec<Vec<f64>>>,
}

/// The three averages of a decay.
struct Decay {
    decay: f64,
    /// How many values the window holds.
    count: u64,
}

/// The place of each average of a decay.
const PLAIN: usize = 0;
const CORRECTED: usize = 1;
const WINDOW: usize = 2;

impl Decay {
    fn new(decay: f64) -> Result<Self> {
        ensure!((0.0..1.0).contains(&decay), "--decay is {decay}, expected a number in [0, 1)");
        let count = (1.0 / (1.0 - decay)).round();
        ensure!(count <= 10_000.0, "--decay is {decay}, expected at most 0.9999: the window of it");
        Ok(Self { decay, count: count as u64 })
    }

    fn rules(&self) -> [Rule; 3] {
        let Self { decay, count } = *self;
        [Rule::ema(decay), Rule::debiased(decay), Rule::lawa(count, 1)]
    }
}

fn main() -> Result<()> {
    let mut args = Args::parse();
    if args.decay.is_empty() {
        args.decay = vec![0.8, 0.9, 0.95];
    }
    ensure!(
        args.noise >= 0.0 && args.noise.is_finite(),
        "--noise is {}, expected a finite number from 0",
        args.noise
    );
    ensure!(
        (0.0..=1.0).contains(&args.rate),
        "--rate is {}, expected a number in [0, 1]",
        args.rate
    );
    ensure!(args.outlier.is_finite(), "--outlier is {}, expected a finite number", args.outlier);
    let inside = (1..=args.steps).contains(&args.outlier_at);
    ensure!(inside, "--outlier-at is {}, expected a step in 1..={}", args.outlier_at, args.steps);
    let decays = args.decay.iter().map(|decay| Decay::new(*decay)).collect::<Result<Vec<_>>>()?;
    let rules: Vec<_> = decays.iter().flat_map(Decay::rules).collect();
    let settle = run(&args, &rules, 0.0)?;
    let outlier = run(&args, &rules, args.outlier)?;

    let mut out = shared::Out;
    if args.markdown {
        return table(&mut out, &args, &decays, &settle, &outlier);
    }
    let with = format!(", with an outlier of {} at step {}", args.outlier, args.outlier_at);
    for (course, with) in [(&settle, ""), (&outlier, &with)] {
        for (index, decay) in decays.iter().enumerate() {
            plot(&mut out, &args, decay, (course, with), index)?;
        }
    }
    table(&mut out, &args, &decays, &settle, &outlier)?;
    if let Some(directory) = &args.out {
        fs::create_dir_all(directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        let files = [
            ("settle.svg", Picture::stack(&pictures(&decays, &settle)?).file()),
            ("outlier.svg", picture_of_outlier(&args, &decays, &settle, &outlier)?.file()),
            ("settle.csv", csv(&rules, &settle)?),
            ("outlier.csv", csv(&rules, &outlier)?),
        ];
        for (name, text) in files {
            let path = directory.join(name);
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
            writeln!(out, "{}", shared::word(&path))?;
        }
    }
    Ok(())
}

/// Moves the weights and updates an average of each rule at every step.
fn run(args: &Args, rules: &[Rule], outlier: f64) -> Result<Course> {
    let device = Device::flex();
    let mut random = ChaCha8Rng::seed_from_u64(args.seed);
    let mut live = vec![0.0; args.weights as usize];
    let module = Weights::new(&live, &device);
    let averages = rules.iter().map(|rule| AverageConfig::new(rule.clone()).init(&module));
    let mut averages = averages.collect::<Result<Vec<Average<_>>, _>>()?;
    let mut course = Course { live: vec![live.clone()], averages: vec![Vec::new(); rules.len()] };
    let mut left = 1.0;
    for step in 0..=args.steps {
        if step > 0 {
            left *= 1.0 - args.rate;
            for weight in &mut live {
                *weight = 1.0 - left + args.noise * normal(&mut random);
                if step == args.outlier_at {
                    *weight += outlier;
                }
            }
            let module = Weights::new(&live, &device);
            for average in &mut averages {
                average.update(&module, step)?;
            }
            course.live.push(live.clone());
        }
        for (average, values) in averages.iter().zip(&mut course.averages) {
            values.push(average.module().read()?);
        }
    }
    Ok(course)
}

/// A number of mean 0 and deviation 1, almost normal: the sum of twelve even ones, which has the
/// same bits on every machine.
fn normal(random: &mut ChaCha8Rng) -> f64 {
    (0..12).map(|_| random.random::<f64>()).sum::<f64>() - 6.0
}

/// The first step at which the average from the start is within 1 % of the corrected one, in
/// shares of how far that one is from the start.
fn meeting(course: &Course, index: usize) -> Option<usize> {
    let [plain, corrected] = [PLAIN, CORRECTED].map(|one| &course.averages[3 * index + one]);
    let start = course.live[0][0];
    (1..plain.len()).find(|&step| {
        let [plain, corrected] = [plain, corrected].map(|average| average[step][0]);
        (plain - corrected).abs() < 0.01 * (corrected - start).abs()
    })
}

/// The first weight, by step.
fn first(values: &[Vec<f64>]) -> Vec<(f64, f64)> {
    values.iter().enumerate().map(|(step, weights)| (step as f64, weights[0])).collect()
}

/// The course of the weight itself.
fn live(course: &Course) -> Line {
    Line { thin: true, ..Line::new("live", Of::Live, first(&course.live)) }
}

/// Live and the averages of each decay.
fn pictures(decays: &[Decay], course: &Course) -> Result<Vec<Picture>> {
    let pictures = decays.iter().enumerate().map(|(index, Decay { decay, count })| {
        let average = |which: usize, name: String| {
            Line::new(name, Of::Average(which), first(&course.averages[3 * index + which]))
        };
        let met = meeting(course, index);
        let meets = match met {
            Some(step) => format!("meet at step {step}, the first with d^t < 1 %"),
            None => "do not meet in these steps".to_owned(),
        };
        let live = live(course);
        let window = average(WINDOW, format!("mean of the last {count}"));
        let plain = average(PLAIN, "EMA from the start".to_owned());
        let mut corrected = average(CORRECTED, "EMA with bias correction".to_owned());
        corrected.best = met.map(|step| corrected.points[step]);
        let lines = Lines {
            x: "step",
            y: format!("decay {decay}: both EMA {meets}"),
            scale: AxisScale::Linear,
            lines: vec![live, window, plain, corrected],
            height: HEIGHT * 2 / 3,
            zero: false,
            include: None,
        };
        Ok(lines.draw()?)
    });
    pictures.collect()
}

/// Live and the averages with the outlier, and by how much that moved each of them.
fn picture_of_outlier(
    args: &Args,
    decays: &[Decay],
    settle: &Course,
    outlier: &Course,
) -> Result<Picture> {
    // From a little before the outlier on.
    let from = args.outlier_at.saturating_sub(args.steps / 25) as usize;
    let moved = |index: usize| {
        let [with, without] = [outlier, settle].map(|course| first(&course.averages[index]));
        let moved =
            with.iter().zip(without).map(|((step, with), (_, without))| (*step, with - without));
        moved.skip(from).collect::<Vec<_>>()
    };
    let moved = decays.iter().enumerate().flat_map(|(index, Decay { decay, count })| {
        let line = |which: usize, name: String, thin| Line {
            thin,
            ..Line::new(name, Of::Average(index), moved(3 * index + which))
        };
        [
            line(CORRECTED, format!("ema({decay}, debias)"), false),
            line(WINDOW, format!("mean of the last {count} (thin)"), true),
        ]
    });
    let moved = Lines {
        x: "step",
        y: "by how much the outlier moved the averages".to_owned(),
        scale: AxisScale::Linear,
        lines: moved.collect(),
        height: HEIGHT,
        zero: true,
        include: None,
    };
    let mut pictures = pictures(decays, outlier)?;
    pictures.push(moved.draw()?);
    Ok(Picture::stack(&pictures))
}

/// Live and the averages of a decay as characters; in colours where a person reads.
fn plot(
    out: &mut impl Write,
    args: &Args,
    decay: &Decay,
    (course, with): (&Course, &str),
    index: usize,
) -> Result<()> {
    let points = |values: &[Vec<f64>]| -> Vec<_> {
        first(values).iter().map(|(x, y)| (*x as f32, *y as f32)).collect()
    };
    let average = |which: usize| points(&course.averages[3 * index + which]);
    let [live, window, plain, corrected] =
        [points(&course.live), average(WINDOW), average(PLAIN), average(CORRECTED)];
    let (live, window) = (Shape::Points(&live), Shape::Lines(&window));
    let (plain, corrected) = (Shape::Lines(&plain), Shape::Lines(&corrected));
    let mut chart = Chart::new(160, 60, 0.0, args.steps as f32);
    let chart = chart
        .linecolorplot(&live, (251, 146, 60).into())
        .linecolorplot(&window, (201, 155, 255).into())
        .linecolorplot(&plain, (121, 168, 255).into())
        .linecolorplot(&corrected, (52, 211, 153).into());
    chart.figures();
    let meets = meeting(course, index);
    let meets = meets.map_or("never meet".to_owned(), |step| format!("meet at step {step}"));
    writeln!(
        out,
        "{}, and the mean of the last {} values{with}: both averages {meets}",
        Rule::debiased(decay.decay),
        decay.count
    )?;
    writeln!(
        out,
        "orange: live, blue: from the start, green: with bias correction, purple: the mean of the last"
    )?;
    writeln!(out, "{chart}\n")?;
    Ok(())
}

/// What an average costs, how far it is off, and what the outlier does to it.
fn table(
    out: &mut impl Write,
    args: &Args,
    decays: &[Decay],
    settle: &Course,
    outlier: &Course,
) -> Result<()> {
    let at = args.outlier_at as usize;
    let row = |name: String,
               copies: u64,
               [without, with]: [&[Vec<f64>]; 2],
               later: usize,
               meet: String| {
        let last = &without[without.len() - 1];
        let error =
            last.iter().map(|weight| (weight - 1.0).powi(2)).sum::<f64>() / last.len() as f64;
        let moved = |step: usize| match (with.get(step), without.get(step)) {
            (Some(with), Some(without)) => {
                // What is less is the rounding of the two.
                let moved = with[0] - without[0];
                format!("{:.3}", if moved.abs() < 1e-9 { 0.0 } else { moved })
            }
            _ => "-".to_owned(),
        };
        [
            name,
            copies.to_string(),
            format!("{:.3}", error.sqrt()),
            moved(at),
            moved(at + later),
            meet,
        ]
    };
    let head = ["average", "copies", "error", "moved", "n later", "meet"].map(str::to_owned);
    let mut rows =
        vec![head, row("live".to_owned(), 0, [&settle.live, &outlier.live], 1, String::new())];
    for (index, decay) in decays.iter().enumerate() {
        let later = decay.count as usize;
        for (which, rule) in decay.rules().iter().enumerate() {
            if which == PLAIN {
                continue;
            }
            let copies = if which == WINDOW { decay.count } else { 1 };
            let name = match which {
                WINDOW => format!("mean of the last {}", decay.count),
                _ => rule.to_string(),
            };
            let [without, with] =
                [settle, outlier].map(|course| &course.averages[3 * index + which][..]);
            let meet = match (which, meeting(settle, index)) {
                (WINDOW, _) => String::new(),
                (_, None) => "never".to_owned(),
                (_, Some(step)) => step.to_string(),
            };
            rows.push(row(name, copies, [without, with], later, meet));
        }
    }
    let widths: [usize; 6] =
        std::array::from_fn(|cell| rows.iter().map(|row| row[cell].len()).max().unwrap_or(0));
    for (index, row) in rows.iter().enumerate() {
        if args.markdown {
            writeln!(out, "| {} |", row.join(" | "))?;
            if index == 0 {
                writeln!(out, "|---|{}", "---|".repeat(row.len() - 1))?;
            }
            continue;
        }
        write!(out, "{:width$}", row[0], width = widths[0])?;
        for (cell, width) in row.iter().zip(widths).skip(1) {
            write!(out, "  {cell:>width$}")?;
        }
        writeln!(out)?;
    }
    Ok(())
}

/// The first weight and its averages, a line a step.
fn csv(rules: &[Rule], course: &Course) -> Result<String> {
    let mut lines = csv::Writer::from_writer(Vec::new());
    let names = ["step".to_owned(), "live".to_owned()].into_iter();
    lines.write_record(names.chain(rules.iter().map(ToString::to_string)))?;
    for (step, live) in course.live.iter().enumerate() {
        let averages = course.averages.iter().map(|average| average[step][0].to_string());
        lines.write_record([step.to_string(), live[0].to_string()].into_iter().chain(averages))?;
    }
    Ok(String::from_utf8(lines.into_inner()?)?)
}
