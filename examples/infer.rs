//! Answers with a saved average: digits drawn as text, or the rows of a CSV.
//!
//! ```text
//! cargo run --example infer
//! cargo run --example infer -- --draw my_digits.txt
//! cargo run --example infer -- --run artifacts/runs/default --csv rows.csv > answers.csv
//! cargo run --example infer -- --model model.safetensors
//! cargo run --example infer -- --model checkpoint.pt --prefix state_dict_ema --cast
//! ```
//!
//! A model's file is burnpack, safetensors or of `torch.save`, which its content shows.
//!
//! It needs no training stack: `-p burn-ema-examples --no-default-features --features flex`
//! builds it.

mod shared; // the standard output of a reader that may leave
#[path = "shared/weights.rs"]
mod weights; // files of weights, and how they are read

use std::{
    io::{Read, Write},
    path::PathBuf,
};

use anyhow::{Context, Result, bail, ensure};
use burn::tensor::{Device, Tensor, TensorData};
use burn_ema::model::Mlp;
use burn_ema_lab::{
    data::{Answer, Preparation, Rows, Targets, Task, digits, read_rows},
    device,
    run::RunDirectory,
};
use clap::{ArgGroup, Parser};

use self::weights::ReadOptions;

/// Tensors come and go with every answer.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// From paper to ink.
const SHADES: &str = ".:-=+*#%@";
const INK: f64 = 16.0;
const SIDE: usize = 8;

/// The run that ships.
const DIGITS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../artifacts/digits");

#[derive(Parser)]
#[command(
    about = "Answer with a saved average: digits drawn as text, or the rows of a CSV",
    group = ArgGroup::new("file").multiple(true)
)]
struct Args {
    /// The directory of the run whose model answers, and whose columns, labels and live weights
    /// are taken where another model answers
    #[arg(long, default_value = DIGITS)]
    run: PathBuf,
    /// A file with the weights that answer in place of the run's: burnpack, safetensors (PyTorch's
    /// too) or of torch.save; as many layers as it has, with the activations of the run's
    #[arg(long, group = "file")]
    model: Option<PathBuf>,
    /// A file with live's weights, of any of these forms; else those of the run's newest commit,
    /// if there is one
    #[arg(long, group = "file")]
    live: Option<PathBuf>,
    /// The --prefix of the file of --live
    #[arg(long, value_name = "NAME", requires = "live")]
    live_prefix: Option<String>,
    #[command(flatten)]
    read: ReadOptions,
    /// A text file (- for standard input) with pictures of 8 lines of 8 characters, from `.` or a
    /// space for paper over `:-=+*#%` to `@` for ink, with an empty line between two pictures;
    /// without it, digits that ship with the crate
    #[arg(long, conflicts_with = "csv")]
    draw: Option<PathBuf>,
    /// A CSV file, gzip too, with the columns that the model was trained on, read as the table of
    /// the training was; the answers go to standard output as CSV, a row for each, which is empty
    /// where the row lacks a value and the training had --missing drop
    #[arg(long)]
    csv: Option<PathBuf>,
    /// The character between the cells of the CSV, or tab or space [default: that of the training]
    #[arg(long, requires = "csv", value_parser = shared::delimiter)]
    delimiter: Option<char>,
    /// How many of the shipped digits to show
    #[arg(long, default_value_t = 3)]
    count: usize,
    /// The device, such as flex, ndarray or wgpu, or ws://HOST:PORT for a server of Burn's remote
    /// backend (Cargo feature `remote`); else BURN_DEVICE, else the Cargo features decide
    #[arg(long)]
    device: Option<String>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let device = device::select(args.device.as_deref())?;
    eprintln!("device: {device}");
    let run = RunDirectory::open(&args.run)?;
    let preparation = run.config()?.preparation;
    let config = run.config()?.model;
    let model = match &args.model {
        None => run.model(&device.device)?,
        Some(file) => args.read.read(file, &args.read.of_model(), &config, &device.device)?.0,
    };
    let live = match &args.live {
        Some(file) => {
            let options = args.read.under(args.live_prefix.as_deref());
            Some(args.read.read(file, &options, &config, &device.device)?.0)
        }
        None => run.live(&device.device).unwrap_or_else(|error| {
            eprintln!("note: no live weights: {:#}", anyhow::Error::new(error));
            None
        }),
    };
    let answer = |rows: &[Vec<f64>]| answers(&model, &preparation, rows, &device.device);

    if let Some(file) = &args.csv {
        let reading = match args.delimiter {
            None => preparation.clone(),
            Some(delimiter) => preparation.clone().with_delimiter(delimiter),
        };
        let Rows { features: rows, notes } = read_rows(file, &reading)?;
        notes.iter().for_each(|note| eprintln!("note: {note}"));
        let whole: Vec<_> = rows.iter().flatten().cloned().collect();
        let mut answers = answer(&whole)?.into_iter();
        let answers = rows.iter().map(|row| row.as_ref().and_then(|_| answers.next())).collect();
        return write_csv(preparation.target(), preparation.task(), answers);
    }
    let reads_pictures = preparation.inputs() == SIDE * SIDE;
    let Task::Classification { labels: classes } = preparation.task() else {
        bail!("this model answers with numbers; give it a --csv");
    };
    ensure!(reads_pictures, "this model does not read pictures of 8x8 pixels; give it a --csv");
    let (pictures, written): (Vec<_>, _) = match &args.draw {
        Some(file) => (pictures(&read(file)?)?, None),
        None => {
            // Some from the whole set, evenly spread.
            let table = digits()?;
            let (rows, count) = (table.features().len(), args.count);
            let Targets::Classes { labels, of_row } = table.targets() else { unreachable!() };
            let chosen = (0..count.min(rows)).map(|index| index * rows / count.min(rows));
            let labels: Vec<_> = chosen.clone().map(|row| labels[of_row[row]].clone()).collect();
            (chosen.map(|row| table.features()[row].clone()).collect(), Some(labels))
        }
    };
    let answers_of = |model: &Mlp| answers(model, &preparation, &pictures, &device.device);
    let of_live = live.as_ref().map(answers_of).transpose()?;
    let mut out = shared::Out;
    let mut differing = 0;
    for (index, (picture, answer)) in pictures.iter().zip(answers_of(&model)?).enumerate() {
        show(&mut out, picture)?;
        if let Some(written) = &written {
            writeln!(out, "written: {}", written[index])?;
        }
        if let Answer::Class { label, probabilities } = answer {
            writeln!(out, "answer:  {label}")?;
            if let Some(Answer::Class { label: other, probabilities }) =
                of_live.as_ref().map(|answers| &answers[index]).filter(|live| !says(live, &label))
            {
                let share = probabilities.iter().copied().fold(0.0, f32::max);
                writeln!(out, "live:    {other}, with {:.2} %", 100.0 * share)?;
                differing += 1;
            }
            for (label, probability) in classes.iter().zip(probabilities) {
                let bar = "#".repeat((40.0 * probability).round() as usize);
                writeln!(out, "  {label}  {:6.2} %  {bar}", 100.0 * probability)?;
            }
        }
        writeln!(out)?;
    }
    if of_live.is_some() {
        writeln!(out, "live says otherwise for {differing} of {}", pictures.len())?;
    }
    Ok(())
}

/// Says if an answer is this class.
fn says(answer: &Answer, class: &str) -> bool {
    matches!(answer, Answer::Class { label, .. } if label == class)
}

fn answers(
    model: &Mlp,
    preparation: &Preparation,
    rows: &[Vec<f64>],
    device: &Device,
) -> Result<Vec<Answer>> {
    if rows.is_empty() {
        return Ok(vec![]);
    }
    let inputs = TensorData::new(preparation.encode(rows)?, [rows.len(), preparation.inputs()]);
    let outputs = model.forward(Tensor::from_data(inputs, device));
    Ok(preparation.decode(&outputs.into_data().try_into_vec::<f32>()?)?)
}

fn read(file: &PathBuf) -> Result<String> {
    let mut text = String::new();
    let read = match file.to_str() {
        Some("-") => std::io::stdin().read_to_string(&mut text),
        _ => std::fs::File::open(file).and_then(|mut file| file.read_to_string(&mut text)),
    };
    read.with_context(|| format!("cannot read {}", file.display()))?;
    Ok(text)
}

/// The pictures of a text, as pixels from 0 (paper) to 16 (ink).
fn pictures(text: &str) -> Result<Vec<Vec<f64>>> {
    let mut pictures = vec![vec![]];
    for (number, line) in text.lines().enumerate() {
        let place = format!("line {}", number + 1);
        let picture: &mut Vec<f64> = pictures.last_mut().expect("there is always one");
        if line.is_empty() && picture.is_empty() {
            continue;
        }
        let found = line.chars().count();
        ensure!(found == SIDE, "{place}: expected {SIDE} characters, found {found}: {line:?}");
        for c in line.chars() {
            let shade = SHADES.find(if c == ' ' { '.' } else { c });
            let shade = shade.with_context(|| {
                format!("{place}: expected a space or one of {SHADES}, found {c:?}")
            })?;
            picture.push(shade as f64 * INK / (SHADES.len() - 1) as f64);
        }
        if picture.len() == SIDE * SIDE {
            pictures.push(vec![]);
        }
    }
    match pictures.pop().map_or(0, |rest| rest.len() / SIDE) {
        0 if pictures.is_empty() => bail!("expected a picture, found nothing"),
        0 => Ok(pictures),
        lines => bail!("the last picture has {lines} lines, expected {SIDE}"),
    }
}

fn show(out: &mut impl Write, picture: &[f64]) -> Result<()> {
    for line in picture.chunks(SIDE) {
        let shade = |&ink: &f64| (ink / INK * (SHADES.len() - 1) as f64).round() as usize;
        let line = line.iter().map(|ink| &SHADES[shade(ink)..=shade(ink)]);
        writeln!(out, "{}", line.collect::<String>())?;
    }
    Ok(())
}

/// Writes a row for each answer, an empty one where there is none.
fn write_csv(target: &str, task: &Task, answers: Vec<Option<Answer>>) -> Result<()> {
    let mut out = csv::Writer::from_writer(shared::Out);
    let mut header = vec![target.to_owned()];
    if let Task::Classification { labels } = task {
        header.extend(labels.iter().map(|label| format!("p({label})")));
    }
    out.write_record(&header)?;
    for answer in answers {
        out.write_record(match answer {
            None => vec![String::new(); header.len()],
            Some(Answer::Number(number)) => vec![number.to_string()],
            Some(Answer::Class { label, probabilities }) => {
                let probabilities = probabilities.iter().map(f32::to_string);
                std::iter::once(label).chain(probabilities).collect()
            }
        })?;
    }
    out.flush()?;
    Ok(())
}
