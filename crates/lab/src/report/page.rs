//! Runs on a page: one HTML file that loads nothing, and its pictures as files of their own.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
};

use burn_ema::{Error, Result};
use burn_ema_base::disk;

use super::{
    Answered, MadeOf, Scores, SecondHalf,
    half::Spread,
    picture::{AxisScale, Cells, Columns, HEIGHT, Line, Lines, Of, Picture, Points, SHADES},
    run::RunContent,
    score::ScoreKind,
    text::{html, number, word},
};
use crate::run::RunDirectory;

/// Runs on a page, one or several side by side.
///
/// The page is one file of HTML and loads nothing. Its pictures are available as SVG files too.
///
/// ```no_run
/// use burn_ema_lab::{report::Page, run::RunDirectory};
///
/// let run = RunDirectory::open("artifacts/runs/default")?;
/// Page::of(&[run])?.write("artifacts/runs/default/report.html")?;
/// # Ok::<_, burn_ema::Error>(())
/// ```
///
/// The page has this code, with which a program loads the model of a run:
///
/// ```
/// # use burn::tensor::{Tensor, TensorData};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let row = vec![0.0; 64];
/// # let path = "../../artifacts/digits";
/// let (run, device) = (burn_ema_lab::run::RunDirectory::open(path)?, Default::default());
/// let (model, rows) = (run.model(&device)?, run.config()?.preparation);
/// let inputs = TensorData::new(rows.encode(&[row])?, [1, rows.inputs()]); // in its own units
/// let outputs = model.forward(Tensor::from_data(inputs, &device)).into_data();
/// let answers = rows.decode(&outputs.try_into_vec::<f32>()?)?;
/// # assert_eq!(answers.len(), 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Page {
    html: String,
    pictures: Vec<(String, Picture)>,
}

/// Code that uses the model of a run, after the line that opens the run.
const USE: &str = "\
let (model, rows) = (run.model(&device)?, run.config()?.preparation);
let inputs = TensorData::new(rows.encode(&[row])?, [1, rows.inputs()]); // in its own units
let outputs = model.forward(Tensor::from_data(inputs, &device)).into_data();
let answers = rows.decode(&outputs.try_into_vec::<f32>()?)?;
";

/// Code that uses a commit of a user's own module, after the line that opens the run.
const USE_OF_OTHERS: &str = "\
let commit = run.commits().newest()?.commit.ok_or(\"no commit\")?;
use burn_ema::train::AveragedCommit as _;
let model = commit.average(MyModel::new(&device))?; // your module, as it was trained
";

const STYLE: &str = include_str!("page.css");

impl Page {
    /// Reads runs, and makes a page of them.
    ///
    /// For a run that has not ended, the page shows what the directory has so far.
    ///
    /// # Errors
    ///
    /// No run; a run without a configuration and without a commit; a file of a run that cannot be
    /// read or was altered; a picture that cannot be drawn.
    pub fn of(runs: &[RunDirectory]) -> Result<Self> {
        if runs.is_empty() {
            return Err(Error::value("the number of runs", "1 or more", 0));
        }
        let runs = runs.iter().map(RunContent::read).collect::<Result<Vec<_>>>()?;
        let mut writer = Writer { runs: &runs, body: String::new(), pictures: Vec::new() };
        writer.write()?;
        let Writer { body, pictures, .. } = writer;
        Ok(Self { html: whole(&title(&runs), &body), pictures })
    }

    /// The HTML of the page.
    pub fn html(&self) -> &str {
        &self.html
    }

    /// The name of each picture, such as `loss.svg`, and the text of its SVG file.
    pub fn pictures(&self) -> impl Iterator<Item = (&str, String)> {
        self.pictures.iter().map(|(name, picture)| (name.as_str(), picture.file()))
    }

    /// Writes the page to a file, and its pictures to a directory with the name of the file without
    /// extension. Each file is written whole or not at all. Returns the directory.
    ///
    /// # Errors
    ///
    /// A file name without an extension; a file or directory that cannot be written.
    pub fn write(&self, file: impl AsRef<Path>) -> Result<PathBuf> {
        let file = file.as_ref();
        let directory = file.with_extension("");
        if directory == file {
            let error = Error::parameter("its name", "an ending, such as .html", "none");
            return Err(Error::file("write a page to", file, error));
        }
        disk::create_directory(&directory)?;
        for (name, picture) in self.pictures() {
            disk::replace(&directory.join(name), picture.as_bytes())?;
        }
        disk::replace(file, self.html.as_bytes())?;
        Ok(directory)
    }
}

fn title(runs: &[RunContent]) -> String {
    match runs {
        [run] => run.name(),
        runs => format!("{} runs", runs.len()),
    }
}

/// The page around its body.
fn whole(title: &str, body: &str) -> String {
    let [mut light, mut dark, mut exchanged] = [const { String::new() }; 3];
    for shade in &SHADES {
        let (name, usual) = (shade.name, shade.light());
        let _ = write!(light, "--{name}:{usual};");
        let _ = write!(dark, "--{name}:{};", shade.dark);
        let _ = writeln!(
            exchanged,
            "[fill=\"{usual}\"]{{fill:var(--{name})}}[stroke=\"{usual}\"]{{stroke:var(--{name})}}\
             .of.{name}{{background:var(--{name})}}"
        );
    }
    // The policy keeps a browser from loading and running anything, whatever a label contains.
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; \
         style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <link rel=\"icon\" href=\"data:,\">\n\
         <title>{} - burn-ema</title>\n<style>\n:root{{color-scheme:light dark;{light}}}\n\
         @media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}\n{STYLE}{exchanged}\
         </style>\n</head>\n<body>\n<main>\n{body}</main>\n</body>\n</html>\n",
        html(title)
    )
}

/// The sections of a page: the id and the title of each.
const SECTIONS: [(&str, &str); 8] = [
    ("result", "What was gained"),
    ("epochs", "Epoch by epoch"),
    ("plateau", "How far live is from its averages"),
    ("averages", "What the averages are made of"),
    ("weights", "A few weights"),
    ("answers", "Answers on the test split"),
    ("settings", "Configuration"),
    ("use", "Notes, and the model"),
];

struct Writer<'a> {
    runs: &'a [RunContent],
    body: String,
    pictures: Vec<(String, Picture)>,
}

impl Writer<'_> {
    fn write(&mut self) -> Result<()> {
        let title = title(self.runs);
        self.add(format_args!("<header>\n<h1>{}</h1>\n", html(&title)));
        for run in self.runs {
            self.lead(run);
        }
        let links: String =
            SECTIONS.iter().map(|(id, name)| format!("<a href=\"#{id}\">{name}</a>\n")).collect();
        self.add(format_args!("<nav>\n{links}</nav>\n</header>\n"));

        self.section(0);
        self.scores();
        self.second_halves();
        self.section(1);
        self.epochs()?;
        self.section(2);
        self.plateau()?;
        self.section(3);
        self.averages()?;
        self.section(4);
        self.weights()?;
        self.section(5);
        self.answers()?;
        self.section(6);
        self.settings();
        self.section(7);
        self.notes();
        Ok(())
    }

    fn add(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = self.body.write_fmt(text);
    }

    fn section(&mut self, index: usize) {
        let (id, name) = SECTIONS[index];
        self.add(format_args!("<h2 id=\"{id}\">{name}</h2>\n"));
    }

    fn muted(&mut self, text: &str) {
        self.add(format_args!("<p class=\"muted\">{}</p>\n", html(text)));
    }

    /// Writes the name of a run as a heading, if there are several runs.
    fn heading(&mut self, run: &RunContent) {
        if self.runs.len() > 1 {
            self.add(format_args!("<h3>{}</h3>\n", html(&run.name())));
        }
    }

    /// Writes the result of a run in a sentence.
    fn lead(&mut self, run: &RunContent) {
        let mut text = String::new();
        if self.runs.len() > 1 {
            text += &format!("<b>{}</b>: ", html(&run.name()));
        }
        let saved = run.report.as_ref().and_then(|r| Some((r, r.averages.get(run.saved())?)));
        match saved {
            None => text += "The run has not ended; this is what there is so far.",
            Some((report, saved)) => {
                let best = match report.averages.len() {
                    1 => "its average".to_owned(),
                    count => format!("the best of {count} averages in validation"),
                };
                text += &format!("Saved is <b>{}</b>, {best}. ", html(&saved.rule));
                text += &compared(&saved.scores, &report.live);
                text += &half_compared(run);
            }
        }
        self.add(format_args!("<p class=\"lead\">{text}</p>\n"));
    }

    /// Writes the table of scores.
    fn scores(&mut self) {
        if self.runs.iter().all(|run| run.report.is_none()) {
            return self.muted("No run has ended yet.");
        }
        let reports = self.runs.iter().filter_map(|run| run.report.as_ref());
        let kinds = kinds(reports.filter_map(|report| Some(report.live.score()?.0)));
        let score = match kinds.is_empty() {
            true => String::new(),
            false => format!("<th class=\"n\">test {kinds}</th>"),
        };
        self.add(format_args!(
            "<div class=\"scroll\"><table>\n<thead><tr><th></th><th class=\"n\">validation \
             loss</th><th class=\"n\">test loss</th>{score}</tr></thead>\n<tbody>\n"
        ));
        for (index, run) in self.runs.iter().enumerate() {
            let Some(report) = &run.report else { continue };
            if self.runs.len() > 1 {
                let name = html(&run.name());
                self.add(format_args!("<tr class=\"group\"><th colspan=\"4\">{name}</th></tr>\n"));
            }
            let live = &report.live;
            let cell = |from: &str, value: f64| datum(index, from, value, &format!("{value:.6}"));
            let scored = |of: &str, scores: &Scores, change: &str| match scores.score() {
                Some((kind, score)) => {
                    let field = match kind {
                        ScoreKind::Accuracy => "test_accuracy",
                        ScoreKind::R2 => "test_r2",
                    };
                    let cell = datum(index, &format!("{of}/{field}"), score, &kind.text(score));
                    format!("<td class=\"n\">{cell}{change}</td>")
                }
                None if kinds.is_empty() => String::new(),
                None => "<td></td>".to_owned(),
            };
            self.add(format_args!(
                "<tr><th><i class=\"of live\"></i>live</th><td class=\"n\">{}</td><td \
                 class=\"n\">{}</td>{}</tr>\n",
                cell("/validation/live", report.validation.live),
                cell("/live/test_loss", live.loss),
                scored("/live", live, ""),
            ));
            for (number, average) in report.averages.iter().enumerate() {
                let of = format!("/averages/{number}");
                let scores = &average.scores;
                let loss = 100.0 * (scores.loss / live.loss - 1.0);
                let change = change(loss, format!("{loss:+.1} %"), loss < 0.0);
                let gain = scores
                    .change_from(live)
                    .map(|(kind, gain)| self::change(gain, kind.change(gain), gain > 0.0));
                let best = match report.averages.len() > 1 && number == run.saved() {
                    true => "<small>best in validation, saved</small>",
                    false => "",
                };
                let validation = report.validation.averages.get(number);
                let validation = validation.map_or(String::new(), |(_, loss)| {
                    cell(&format!("/validation/averages/{number}/1"), *loss)
                });
                self.add(format_args!(
                    "<tr><th><i class=\"of {}\"></i>{}{best}</th><td class=\"n\">{validation}</td>\
                     <td class=\"n\">{}{change}</td>{}</tr>\n",
                    Of::Average(number).shade(),
                    html(&average.rule),
                    cell(&format!("{of}/test_loss"), scores.loss),
                    scored(&of, scores, &gain.unwrap_or_default()),
                ));
            }
        }
        self.add(format_args!("</tbody></table></div>\n"));
        self.muted(
            "Differences are from live. The average was chosen by the validation split, nothing \
             by the test split.",
        );
    }

    /// Writes the table of means and worst values in validation over the second half of the epochs.
    fn second_halves(&mut self) {
        let halves: Vec<_> = self.runs.iter().map(SecondHalf::of).collect();
        let spans: Vec<_> = halves.iter().flatten().map(SecondHalf::span).collect();
        let Some(span) = spans.first() else { return };
        let same = spans.iter().all(|other| other == span);
        let span = if same { span.as_str() } else { "the second half of the epochs" };
        let kinds = kinds(halves.iter().flatten().filter_map(|half| half.score));
        self.add(format_args!(
            "<p>In validation, over {span}: a training that ends at any of them gets the mean on \
             average, and the worst at worst.</p>\n<div class=\"scroll\"><table>\n\
             <thead><tr><th></th><th class=\"n\">mean loss</th><th class=\"n\">worst loss</th>"
        ));
        if !kinds.is_empty() {
            self.add(format_args!(
                "<th class=\"n\">mean {kinds}</th><th class=\"n\">worst {kinds}</th>"
            ));
        }
        self.add(format_args!("</tr></thead>\n<tbody>\n"));
        let cells = |spread: Option<Spread>, text: &dyn Fn(f64) -> String, under: [String; 2]| {
            let Some(Spread { mean, worst, .. }) = spread else {
                return "<td></td><td></td>".to_owned();
            };
            let [below_mean, below_worst] = under;
            let [mean, worst] = [text(mean), text(worst)];
            format!(
                "<td class=\"n\">{mean}{below_mean}</td><td class=\"n\">{worst}{below_worst}</td>"
            )
        };
        for (run, half) in self.runs.iter().zip(&halves) {
            let Some(half) = half else { continue };
            if self.runs.len() > 1 {
                let span = if same { String::new() } else { format!(", {}", half.span()) };
                let name = html(&run.name());
                self.add(format_args!(
                    "<tr class=\"group\"><th colspan=\"5\">{name}{span}</th></tr>\n"
                ));
            }
            for row in &half.rows {
                let changes = half.changes(row).map(|changes| {
                    changes.map(|value| change(value, format!("{value:+.1} %"), value < 0.0))
                });
                let loss = |loss: f64| format!("{loss:.6}");
                let losses = cells(row.loss, &loss, changes.unwrap_or_default());
                let scores = match half.score {
                    Some(kind) => cells(row.score, &|score| kind.text(score), Default::default()),
                    None if kinds.is_empty() => String::new(),
                    None => "<td></td><td></td>".to_owned(),
                };
                let lacks = match half.lacks(row) {
                    lacks if lacks.is_empty() => lacks,
                    lacks => format!("<small>{}</small>", html(&lacks)),
                };
                let (shade, name) = (row.of.shade(), html(&row.name));
                self.add(format_args!(
                    "<tr><th><i class=\"of {shade}\"></i>{name}{lacks}</th>{losses}{scores}</tr>\n"
                ));
            }
        }
        self.add(format_args!("</tbody></table></div>\n"));
    }

    /// Writes losses and scores by epoch, as pictures and a table.
    fn epochs(&mut self) -> Result<()> {
        let of = |metric: &'static str, y: &str, scale, best: BestIs| {
            let lines = self.runs.iter().map(|run| Lines {
                x: "epoch",
                y: y.to_owned(),
                scale,
                lines: curves(run, metric, best),
                height: HEIGHT,
                zero: false,
                include: None,
            });
            lines.collect::<Vec<_>>()
        };
        let losses = of("Loss", "loss in validation", AxisScale::Log, BestIs::Least);
        // Burn's metric is in percent.
        let accuracies =
            of("Accuracy", "accuracy in validation, %", AxisScale::Percent, BestIs::Greatest);
        let r2 = of("R2", "R2 in validation", AxisScale::Linear, BestIs::Greatest);
        let table = self.table_of_epochs(&losses, &[&accuracies, &r2]);
        self.figures([
            ("loss", "Loss", losses),
            ("accuracy", "Accuracy", accuracies),
            ("r2", "R2", r2),
        ])?;
        self.body += &table;
        Ok(())
    }

    /// The best and the last epoch of each curve. `scores` has the curves of accuracy and of R2.
    fn table_of_epochs(&self, losses: &[Lines], scores: &[&[Lines]; 2]) -> String {
        if losses.iter().all(|lines| lines.lines.is_empty()) {
            return "<p class=\"muted\">No epoch was recorded.</p>\n".to_owned();
        }
        let has = |lines: &[Lines]| lines.iter().any(|lines| !lines.lines.is_empty());
        let kinds = ScoreKind::ALL.into_iter().zip(scores).filter(|(_, lines)| has(lines));
        let kinds: Vec<_> = kinds.collect();
        let mut text = "<p>A dot marks the best epoch of each curve.</p>\n<div \
                        class=\"scroll\"><table>\n<thead><tr><th></th><th class=\"n\">least \
                        loss</th><th class=\"n\">last loss</th>"
            .to_owned();
        for (kind, _) in &kinds {
            let name = kind.name();
            text += &format!("<th class=\"n\">highest {name}</th><th class=\"n\">last {name}</th>");
        }
        text += "</tr></thead>\n<tbody>\n";
        for (index, (run, losses)) in self.runs.iter().zip(losses).enumerate() {
            if self.runs.len() > 1 {
                let name = html(&run.name());
                text += &format!("<tr class=\"group\"><th colspan=\"7\">{name}</th></tr>\n");
            }
            for loss in &losses.lines {
                let cells = |line: Option<&Line>, shown: &dyn Fn(f64) -> String| {
                    let at = |point: Option<&(f64, f64)>| match point {
                        Some((epoch, value)) => format!(
                            "<td class=\"n\">{}<small>epoch {epoch}</small></td>",
                            shown(*value)
                        ),
                        None => "<td></td>".to_owned(),
                    };
                    let best = line.and_then(|line| line.best.as_ref());
                    at(best) + &at(line.and_then(|line| line.points.last()))
                };
                let (shade, name) = (loss.of.shade(), html(&loss.name));
                text += &format!("<tr><th><i class=\"of {shade}\"></i>{name}</th>");
                text += &cells(Some(loss), &|loss| format!("{loss:.6}"));
                for (kind, lines) in &kinds {
                    let line = lines[index].lines.iter().find(|line| line.of == loss.of);
                    text += &cells(line, &|value| kind.text(kind.of_metric(value)));
                }
                text += "</tr>\n";
            }
        }
        text + "</tbody></table></div>\n"
    }

    /// Writes the gaps in loss and the distances of the weights between live and each average.
    fn plateau(&mut self) -> Result<()> {
        let mut gaps: Vec<_> = self.runs.iter().map(gaps).collect();
        // One scale for all runs, so that their pictures compare.
        let scale = AxisScale::Signed(usual(&gaps));
        gaps.iter_mut().for_each(|lines| lines.scale = scale);
        let distances: Vec<_> = self.runs.iter().map(distances).collect();
        if gaps.iter().chain(&distances).all(|lines| lines.lines.is_empty()) {
            self.muted("Neither gap nor distance was recorded.");
            return Ok(());
        }
        self.add(format_args!(
            "<p>While live jumps about, it is far from its averages and its loss is above theirs. \
             Where both come to 0, there is nothing left to average away; where both stay, a \
             smaller learning rate has something left to gain.</p>\n"
        ));
        self.figures([
            ("gap", "Gap: by how much the loss of live is above that of the average", gaps),
            ("distance", "Distance of the weights", distances),
        ])
    }

    /// Writes the curves of all runs side by side; pictures of one kind have one range of heights.
    fn figures<const N: usize>(&mut self, kinds: [(&str, &str, Vec<Lines>); N]) -> Result<()> {
        self.open_grid();
        for (name, caption, mut all) in kinds {
            let extents = all.iter().filter_map(Lines::extent);
            let extent = extents.reduce(|(a, b), (from, to)| (a.min(from), b.max(to)));
            for (index, lines) in all.iter_mut().enumerate() {
                if !lines.lines.is_empty() {
                    lines.include = extent;
                    let of = self.of_run(index);
                    self.figure(index, name, caption, &of, lines.draw()?);
                }
            }
        }
        self.close_grid();
        Ok(())
    }

    fn open_grid(&mut self) {
        let columns = if self.runs.len() == 3 || self.runs.len() > 4 { 3 } else { 2 };
        self.add(format_args!("<div class=\"grid\" style=\"--columns:{columns}\">\n"));
    }

    fn close_grid(&mut self) {
        self.add(format_args!("</div>\n"));
    }

    /// The name of a run if there are several; else empty.
    fn of_run(&self, index: usize) -> String {
        match self.runs.len() {
            1 => String::new(),
            _ => self.runs[index].name(),
        }
    }

    /// Writes a picture under its caption, and keeps it for a file of this name.
    fn figure(&mut self, run: usize, name: &str, caption: &str, below: &str, picture: Picture) {
        let file = match self.runs.len() {
            1 => format!("{name}.svg"),
            _ => format!("{}-{name}.svg", run + 1),
        };
        let (caption, below) = (html(caption), html(below));
        let label = format!("<svg role=\"img\" aria-label=\"{caption}\"");
        let svg = picture.inline.replacen("<svg", &label, 1);
        let below = match below.is_empty() {
            true => below,
            false => format!("<small>{below}</small>"),
        };
        self.add(format_args!(
            "<figure><figcaption>{caption}{below}</figcaption>\n{svg}</figure>\n"
        ));
        self.pictures.push((file, picture));
    }

    /// Writes the profile of each average, as a table and pictures.
    fn averages(&mut self) -> Result<()> {
        self.add(format_args!(
            "<p>An average is made of the weights after each past step; drawn is the weight of \
             each, the newest on the right.</p>\n<div class=\"scroll\"><table>\n<thead><tr>\
             <th>rule</th><th class=\"n\">start</th><th class=\"n\">mean age</th>\
             <th class=\"n\">half-life</th><th class=\"n\">deviation</th>\
             <th class=\"n\">as the mean of</th></tr></thead>\n<tbody>\n"
        ));
        for run in self.runs {
            if self.runs.len() > 1 {
                let name = html(&run.name());
                self.add(format_args!("<tr class=\"group\"><th colspan=\"6\">{name}</th></tr>\n"));
            }
            let Some(summary) = &run.summary else {
                for (index, (name, rule)) in run.averages.iter().enumerate() {
                    let (shade, name) = (Of::Average(index).shade(), html(&named(name, rule)));
                    self.add(format_args!(
                        "<tr><th><i class=\"of {shade}\"></i>{name}</th><td colspan=\"5\">not \
                         recorded</td></tr>\n"
                    ));
                }
                continue;
            };
            for (index, average) in summary.averages.iter().enumerate() {
                let MadeOf { name, rule, mass_on_start, mean_age, half_life, .. } = average;
                let steps = |steps: f64| format!("<td class=\"n\">{}</td>", number(steps, 4));
                // The weights sum to 1, so that a weight below this is rounding.
                let start = match *mass_on_start {
                    mass if mass.abs() < f64::EPSILON => "0 %".to_owned(),
                    mass => format!("{} %", number(100.0 * mass, 3)),
                };
                self.add(format_args!(
                    "<tr><th><i class=\"of {}\"></i>{}</th><td class=\"n\">{start}</td>{}{}{}{}\
                     </tr>\n",
                    Of::Average(index).shade(),
                    html(&named(name, rule)),
                    steps(*mean_age),
                    steps(*half_life),
                    steps(average.standard_deviation),
                    steps(average.effective_steps),
                ));
            }
        }
        self.add(format_args!("</tbody></table></div>\n"));
        self.muted(
            "Start: the weight of the weights that it started from. Ages are in steps. Half-life: \
             the newest so many steps have half of all weight. As the mean of: as much independent \
             noise is left as in the mean of so many steps.",
        );
        self.open_grid();
        for (index, run) in self.runs.iter().enumerate() {
            for (number, average) in run.summary.iter().flat_map(|s| &s.averages).enumerate() {
                let MadeOf { width, columns, name, rule, .. } = average;
                let columns = Columns { of: Of::Average(number), width: *width, weights: columns };
                let left = match average.older.abs() >= 5e-4 {
                    true => format!("older updates: {:.1} %. ", 100.0 * average.older),
                    false => String::new(),
                };
                let below = left + &self.of_run(index);
                let picture = columns.draw()?;
                let file = format!("profile-{}", number + 1);
                self.figure(index, &file, &named(name, rule), &below, picture);
            }
        }
        self.close_grid();
        Ok(())
    }

    /// Writes the course of a few weights.
    fn weights(&mut self) -> Result<()> {
        if self.runs.iter().all(|run| run.curves.weights.is_empty()) {
            self.muted("No weights were recorded.");
            return Ok(());
        }
        self.add(format_args!(
            "<p>Live jumps about, and an average goes through the middle of it: the smoother, and \
             the later, the longer its memory.</p>\n"
        ));
        self.open_grid();
        for (index, run) in self.runs.iter().enumerate() {
            for (number, (name, lines)) in weights(run).into_iter().enumerate() {
                let (file, of) = (format!("weight-{}", number + 1), self.of_run(index));
                self.figure(index, &file, &name, &of, lines.draw()?);
            }
        }
        self.close_grid();
        Ok(())
    }

    /// Writes confusion matrices or, for a regression, predictions against targets.
    fn answers(&mut self) -> Result<()> {
        if self.runs.iter().all(|run| run.summary.is_none()) {
            self.muted("No answers were recorded.");
            return Ok(());
        }
        self.open_grid();
        for (index, run) in self.runs.iter().enumerate() {
            let Some(summary) = &run.summary else { continue };
            let (saved, run_name) = (run.saved(), self.of_run(index));
            let name =
                summary.averages.get(saved).map_or("average", |average| average.name.as_str());
            let of = Of::Average(saved);
            match &summary.answers {
                Answered::Classes { labels, live, average } => {
                    let both = [
                        ("confusion-live", "live", Of::Live, live),
                        ("confusion-average", name, of, average),
                    ];
                    for (file, name, of, counts) in both {
                        let wrong = counts.iter().filter(|(right, answer, _)| right != answer);
                        let wrong: u64 = wrong.map(|(.., count)| count).sum();
                        let all: u64 = counts.iter().map(|(.., count)| count).sum();
                        let space = if run_name.is_empty() { "" } else { ". " };
                        let below = format!("{wrong} of {all} wrong{space}{run_name}");
                        let picture = Cells { of, labels, counts }.draw()?;
                        self.figure(index, file, name, &below, picture);
                    }
                }
                Answered::Numbers { target, rows, right, live, average } => {
                    let predicted = vec![
                        (Of::Live, "live".to_owned(), &live[..]),
                        (of, name.to_owned(), &average[..]),
                    ];
                    let picture = Points { right, predicted }.draw()?;
                    let some = match right.len() == *rows {
                        true => format!("{rows} rows"),
                        false => format!("{} of {rows} rows", right.len()),
                    };
                    let space = if run_name.is_empty() { "" } else { ". " };
                    let below = format!("{some}{space}{run_name}");
                    self.figure(index, "predicted", target, &below, picture);
                }
            }
        }
        self.close_grid();
        Ok(())
    }

    /// Writes the settings of the runs, and marks those in which the runs differ.
    fn settings(&mut self) {
        let mut names: Vec<&str> = Vec::new();
        for (name, _) in self.runs.iter().flat_map(|run| &run.settings) {
            if !names.contains(&name.as_str()) {
                names.push(name);
            }
        }
        self.add(format_args!("<div class=\"scroll\"><table class=\"plain\">\n"));
        if self.runs.len() > 1 {
            let runs: String =
                self.runs.iter().map(|run| format!("<th>{}</th>", html(&run.name()))).collect();
            self.add(format_args!("<thead><tr><th></th>{runs}</tr></thead>\n"));
        }
        self.add(format_args!("<tbody>\n"));
        for name in names {
            let value = |run: &RunContent| {
                let found = run.settings.iter().find(|(other, _)| other == name);
                found.map(|(_, value)| value.clone())
            };
            let values: Vec<_> = self.runs.iter().map(value).collect();
            let same = values.iter().all(|value| *value == values[0]);
            let class = if same { "" } else { " class=\"differs\"" };
            let cells = values.iter().map(|value| {
                format!("<td>{}</td>", value.as_ref().map_or(String::new(), |value| html(value)))
            });
            let cells: String = cells.collect();
            self.add(format_args!("<tr{class}><th>{}</th>{cells}</tr>\n", html(name)));
        }
        self.add(format_args!("</tbody></table></div>\n"));
    }

    /// Writes the notes: the remarks of each run, and code that loads its model.
    fn notes(&mut self) {
        for run in self.runs {
            self.heading(run);
            let mut notes = run.notes.clone();
            if let Some(summary) = &run.summary {
                let updates: u64 = summary.averages.iter().map(|a| a.refused_updates).sum();
                let steps = summary.refused_steps;
                if steps + updates > 0 {
                    notes.push(format!(
                        "refused, since numbers were not finite: {steps} steps of the optimizer, \
                         {updates} updates of averages"
                    ));
                }
            }
            if notes.is_empty() {
                self.muted("Nothing was skipped or warned of.");
            } else {
                let notes = notes.iter().map(|note| format!("<li>{}</li>\n", html(note)));
                let notes: String = notes.collect();
                self.add(format_args!("<p>Skipped or warned of:</p>\n<ul>\n{notes}</ul>\n"));
            }
            self.add(format_args!("<p>To load the model in a program of yours:</p>\n"));
            let path = run.path.to_string_lossy();
            let (open, rest) = match run.config {
                Some(_) => (format!("burn_ema_lab::run::RunDirectory::open({path:?})?"), USE),
                None => (format!("burn_ema::runs::Commits::of({path:?})"), USE_OF_OTHERS),
            };
            let code = format!("let (run, device) = ({open}, Default::default());\n{rest}");
            self.add(format_args!("<pre><code>{}</code></pre>\n", code_html(&code)));
            if run.config.is_some() {
                let command = format!("cargo run --example infer -- --run {}", word(&path));
                self.add(format_args!("<p>Or from the shell, in this repository:</p>\n"));
                self.add(format_args!("<pre><code>{}</code></pre>\n", html(&command)));
            }
        }
    }
}

/// Lines of code as HTML.
fn code_html(code: &str) -> String {
    code.lines().map(|line| html(line) + "\n").collect()
}

/// A number of a run's `report.json` as HTML: `run` is the index of the run, `from` the JSON
/// pointer to the number, and `shown` the text.
fn datum(run: usize, from: &str, value: f64, shown: &str) -> String {
    format!("<data data-run=\"{run}\" data-from=\"{from}\" value=\"{value}\">{shown}</data>")
}

/// A difference from live as HTML, to stand under a number: the text `shown`, marked as good or
/// bad. There is no mark if `value`, the difference, is 0 or not finite.
fn change(value: f64, shown: String, good: bool) -> String {
    let class = match value == 0.0 || !value.is_finite() {
        true => "",
        false if good => " class=\"good\"",
        false => " class=\"bad\"",
    };
    format!("<small{class}>{shown}</small>")
}

/// The scores of an average, compared with those of live in a sentence.
fn compared(average: &Scores, live: &Scores) -> String {
    let change = 100.0 * (average.loss / live.loss - 1.0);
    let loss = match change {
        change if change < 0.0 => format!("{:.1} % less than live's", -change),
        change if change > 0.0 => format!("{change:.1} % more than live's"),
        _ => "that of live".to_owned(),
    };
    let mut text = format!("On the test split its loss is {}, {loss}", number(average.loss, 4));
    if let Some(((kind, score), (_, gain))) = average.score().zip(average.change_from(live)) {
        let change = match kind.change(gain.abs()) {
            size if gain > 0.0 => format!("{} more", &size[1..]),
            size if gain < 0.0 => format!("{} less", &size[1..]),
            _ => "the same".to_owned(),
        };
        text += &format!(", its {} {}, {change}", kind.name(), kind.text(score));
    }
    text + "."
}

/// The worst validation loss of the saved average over the second half of the epochs, compared with
/// that of live in a sentence; empty if the history lacks one of both.
fn half_compared(run: &RunContent) -> String {
    let worst = SecondHalf::of(run).and_then(|half| {
        let live = half.rows.first()?.loss?.worst;
        let saved = half.rows.get(1 + run.saved())?;
        half.changes(saved)?;
        Some((half.span(), saved.loss?.worst, live))
    });
    worst.map_or(String::new(), |(span, saved, live)| {
        let [saved, live] = [saved, live].map(|loss| number(loss, 4));
        format!(" Over {span} its worst validation loss is {saved}, live's {live}.")
    })
}

/// The names of the kinds of scores, each once; empty without any.
fn kinds(kinds: impl Iterator<Item = ScoreKind> + Clone) -> String {
    let is_there = |kind: &ScoreKind| kinds.clone().any(|other| other == *kind);
    let names = ScoreKind::ALL.iter().filter(|kind| is_there(kind)).map(|kind| kind.name());
    names.collect::<Vec<_>>().join(" or ")
}

/// The name and the rule of an average; the rule alone where both are equal.
fn named(name: &str, rule: &str) -> String {
    match name == rule {
        true => rule.to_owned(),
        false => format!("{name}: {rule}"),
    }
}

/// The kind of a curve's best point.
#[derive(Clone, Copy)]
enum BestIs {
    Least,
    Greatest,
}

/// The curves of a validation metric for live and every average, without those that have no point.
fn curves(run: &RunContent, metric: &str, best: BestIs) -> Vec<Line> {
    let of = |of: Of, name: &str, points: Vec<(f64, f64)>| {
        let finite = points.iter().filter(|(_, value)| value.is_finite());
        let best = match best {
            BestIs::Least => finite.copied().reduce(|a, b| if b.1 < a.1 { b } else { a }),
            BestIs::Greatest => finite.copied().reduce(|a, b| if b.1 > a.1 { b } else { a }),
        };
        let line = Line { best, ..Line::new(name, of, points) };
        (!line.points.is_empty()).then_some(line)
    };
    let live = of(Of::Live, "live", run.curves.valid(&format!("{metric} (live)")));
    let averages = run.averages.iter().enumerate().filter_map(|(index, (name, _))| {
        of(Of::Average(index), name, run.curves.of_average(metric, name, index == 0))
    });
    live.into_iter().chain(averages).collect()
}

/// The loss of live minus the loss of each average, by epoch.
fn gaps(run: &RunContent) -> Lines {
    let losses = curves(run, "Loss", BestIs::Least);
    let live = losses.iter().find(|line| line.of == Of::Live);
    let live = live.map_or(&[][..], |live| &live.points);
    let lines = losses.iter().filter(|line| line.of != Of::Live).map(|line| {
        let gap = line.points.iter().filter_map(|(epoch, loss)| {
            let at = live.binary_search_by(|(other, _)| other.total_cmp(epoch)).ok()?;
            Some((*epoch, live[at].1 - loss))
        });
        Line { points: gap.collect(), best: None, ..line.clone() }
    });
    Lines {
        x: "epoch",
        y: "loss of live - loss of the average".to_owned(),
        scale: AxisScale::Linear,
        lines: lines.filter(|line| !line.points.is_empty()).collect(),
        height: HEIGHT,
        zero: true,
        include: None,
    }
}

/// A tenth of the median size of the gaps, rounded down to a power of 10: smaller gaps are drawn
/// close to 0. Without gaps, 0.1.
fn usual(gaps: &[Lines]) -> f64 {
    let points = gaps.iter().flat_map(|lines| &lines.lines).flat_map(|line| &line.points);
    let sizes = points.map(|(_, gap)| gap.abs()).filter(|gap| *gap > 0.0 && gap.is_finite());
    let mut sizes: Vec<f64> = sizes.collect();
    sizes.sort_by(f64::total_cmp);
    // Beyond these sizes, powers of 10 of the number could overflow.
    let usual = sizes.get(sizes.len() / 2).map_or(1.0, |usual| usual.clamp(1e-200, 1e200));
    10f64.powi(usual.log10().floor() as i32 - 1)
}

/// The distance of live's weights from those of each average, by epoch.
fn distances(run: &RunContent) -> Lines {
    let lines = run.averages.iter().enumerate().map(|(index, (name, _))| {
        let points = run.curves.valid(&format!("Distance ({name})"));
        Line::new(name, Of::Average(index), points)
    });
    Lines {
        x: "epoch",
        y: "distance, as a share of the average's norm".to_owned(),
        scale: AxisScale::Log,
        lines: lines.filter(|line| !line.points.is_empty()).collect(),
        height: HEIGHT,
        zero: false,
        include: None,
    }
}

/// The course of each recorded weight: the name of the weight, and the curves by step.
fn weights(run: &RunContent) -> Vec<(String, Lines)> {
    let samples = &run.curves.weights;
    let Some(last) = samples.last() else { return Vec::new() };
    let each = last.weights.iter().enumerate().map(|(place, name)| {
        let value = |values: &[Option<f32>]| {
            values.get(place).copied().flatten().map_or(f64::NAN, f64::from)
        };
        let live = samples.iter().map(|sample| (sample.step as f64, value(&sample.live)));
        let live = Line::new("live", Of::Live, live);
        let averages = run.averages.iter().enumerate().map(|(index, (name, _))| {
            let points = samples.iter().filter_map(|sample| {
                let (_, values) = sample.averages.iter().find(|(other, _)| other == name)?;
                Some((sample.step as f64, value(values)))
            });
            Line::new(name, Of::Average(index), points)
        });
        let lines = Lines {
            x: "step",
            y: "weight".to_owned(),
            scale: AxisScale::Linear,
            lines: [live].into_iter().chain(averages).collect(),
            height: HEIGHT,
            zero: false,
            include: None,
        };
        (name.clone(), lines)
    });
    each.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The code on the page is the code that the documentation runs.
    #[test]
    fn the_code_on_the_page_is_that_of_the_documentation() {
        let documented = include_str!("page.rs");
        for line in USE.lines() {
            assert!(documented.contains(&format!("/// {line}\n")), "{line}");
        }
    }
}
