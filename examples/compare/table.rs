//! The results of the runs: means, paired differences with their intervals and p values, as tables.

use std::fmt::Write as _;

use anyhow::{Context, Result};

use super::{
    overall,
    results::{EARLY, Judged, LIVE, Line},
    statistics::{self, Interval},
};

/// The model that a table compares with.
const BASES: [&str; 2] = [LIVE, EARLY];

/// The least p, adjusted, that counts as none.
const LEVEL: f64 = 0.05;

/// Paired differences of one model from another, of one measure.
struct Difference {
    interval: Interval,
    p: f64,
    /// Adjusted for the number of all differences.
    holm: f64,
}

/// A model in a setting, against another.
struct Row {
    setting: String,
    name: String,
    /// The loss in percent of the other's, of the means.
    percent: f64,
    /// Of the loss, and of the accuracy in percentage points.
    differences: [Option<Difference>; 2],
    /// Of R2, which is not tested: it is the loss in the units of each test split.
    r2: Option<Interval>,
}

/// All comparisons of all settings.
pub struct Comparison {
    /// The rows of a table for each of the [`BASES`].
    rows: [Vec<Row>; 2],
}

impl Comparison {
    /// Compares the runs of each setting, seed by seed.
    pub fn new(settings: &[Vec<Line>]) -> Result<Self> {
        let mut rows = [vec![], vec![]];
        for lines in settings {
            for (rows, base) in rows.iter_mut().zip(BASES) {
                let names = lines.iter().flat_map(|line| &line.judged);
                let names = distinct(names.map(|judged| judged.name.as_str()));
                for name in names.into_iter().filter(|name| ![base, LIVE].contains(name)) {
                    rows.push(Row::new(lines, name, base)?);
                }
            }
        }
        // One family, of all that is shown.
        let all = || rows.iter().flatten().flat_map(|row| row.differences.iter().flatten());
        let adjusted = statistics::holm(&all().map(|difference| difference.p).collect::<Vec<_>>());
        let all = rows.iter_mut().flatten().flat_map(|row| row.differences.iter_mut().flatten());
        all.zip(adjusted).for_each(|(difference, p)| difference.holm = p);
        Ok(Self { rows })
    }

    /// All tables, and what they come to.
    pub fn print(&self, settings: &[Vec<Line>], markdown: bool) -> String {
        let mut text = String::new();
        let head = ["setting", "model", "test loss", "accuracy", "R2"];
        text += &render(
            &head,
            &settings.iter().flat_map(|lines| means(lines)).collect::<Vec<_>>(),
            markdown,
        );
        for (rows, base) in self.rows.iter().zip(BASES) {
            let _ = writeln!(text, "\nDifferences from {base}, mean [95 % interval]:\n");
            let head = [
                "setting",
                "model",
                "loss",
                "in %",
                "p",
                "Holm",
                "",
                "accuracy, points",
                "p",
                "Holm",
                "",
                "R2",
            ];
            text += &render(&head, &rows.iter().map(Row::cells).collect::<Vec<_>>(), markdown);
        }
        for measure in [Measure::Loss, Measure::Accuracy, Measure::R2] {
            let (head, rows) = self.short(measure);
            let what = measure.name();
            if !rows.is_empty() {
                let _ = writeln!(text, "\nIn short, differences from {LIVE}, {what}:\n");
                text += &render(&head, &rows, markdown);
            }
        }
        for (about, head, rows) in [overall::averages(settings), overall::second_halves(settings)] {
            if !rows.is_empty() {
                let _ = writeln!(text, "\n{about}:\n");
                text += &render(&head, &rows, markdown);
            }
        }
        let all = self.rows.iter().flatten();
        let verdicts: Vec<_> = all.flat_map(|row| row.verdicts()).flatten().collect();
        let count = |verdict| verdicts.iter().filter(|found| **found == verdict).count();
        let _ = writeln!(
            text,
            "\nOf {} comparisons, {} show a gain, {} a harm, {} neither.",
            verdicts.len(),
            count("gain"),
            count("harm"),
            count("-"),
        );
        text += NOTES;
        text
    }

    /// A row for each setting, of the differences from live in one measure, if it has that one.
    fn short(&self, measure: Measure) -> (Vec<&str>, Vec<Vec<String>>) {
        let rows = || self.rows[0].iter().filter(|row| row.short(measure).is_some());
        let settings = distinct(rows().map(|row| row.setting.as_str()));
        let names = distinct(rows().map(|row| row.name.as_str()));
        let cell = |setting: &str, name: &str| {
            let row = rows().find(|row| row.setting == setting && row.name == name);
            row.and_then(|row| row.short(measure)).unwrap_or_default()
        };
        let rows = settings.iter().map(|setting| {
            let cells = names.iter().map(|name| cell(setting, name));
            [(*setting).to_owned()].into_iter().chain(cells).collect()
        });
        let rows = rows.collect();
        (["setting"].into_iter().chain(names).collect(), rows)
    }
}

/// The subject of a short table.
#[derive(Clone, Copy)]
enum Measure {
    Loss,
    Accuracy,
    R2,
}

impl Measure {
    fn name(self) -> &'static str {
        match self {
            Self::Loss => "loss, %",
            Self::Accuracy => "accuracy, points",
            Self::R2 => "R2",
        }
    }
}

/// Each text once, in the order of its first place.
pub fn distinct<'a>(texts: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut seen = vec![];
    texts.for_each(|text| {
        if !seen.contains(&text) {
            seen.push(text);
        }
    });
    seen
}

const NOTES: &str = "\
A loss is the mean half squared error; that of a regression is of the standardised target.
Wrong labels are in the training split alone. Best epochs and widths are those of the least loss on
the validation split, whose labels are true.
p: Wilcoxon's signed-rank test over the seeds, two-sided. Holm: p adjusted for all comparisons here.
R2 is the loss in units of the variance of the test targets, and is not tested again.
gain, harm: the adjusted p is below 0.05, and the 95 % interval (Student's t) is on that side of 0.
A seed decides the split, the first weights and the order: the pairs are of one data set, whose
splits overlap, and say nothing of other data.
";

impl Row {
    fn new(lines: &[Line], name: &str, base: &str) -> Result<Self> {
        let find = |line: &Line, name: &str| -> Result<Judged> {
            let found = line.judged.iter().find(|judged| judged.name == name).cloned();
            found.with_context(|| format!("{}, seed {}: no {name}", line.setting, line.seed))
        };
        let pair = |line| Ok((find(line, name)?, find(line, base)?));
        let pairs = lines.iter().map(pair).collect::<Result<Vec<_>>>()?;
        let loss = |own: &Judged, other: &Judged| Some(own.test_loss - other.test_loss);
        // Equal differences of counts must have equal bits, by which ranks are shared.
        let accuracy = |own: &Judged, other: &Judged| {
            let points = 100.0 * (own.test_accuracy? - other.test_accuracy?);
            Some((points * 1e9).round() / 1e9)
        };
        let difference = |measure: &dyn Fn(&Judged, &Judged) -> Option<f64>| {
            let differences = pairs.iter().map(|(own, other)| measure(own, other));
            let differences = differences.collect::<Option<Vec<_>>>()?;
            let interval = statistics::interval(&differences)?;
            Some(Difference { interval, p: statistics::signed_rank(&differences), holm: 1.0 })
        };
        let r2 = pairs.iter().map(|(own, other)| Some(own.test_r2? - other.test_r2?));
        let r2 = r2.collect::<Option<Vec<_>>>();
        let mean = |judged: &dyn Fn(&(Judged, Judged)) -> f64| {
            statistics::mean(&pairs.iter().map(judged).collect::<Vec<_>>())
        };
        let (own, other) = (mean(&|pair| pair.0.test_loss), mean(&|pair| pair.1.test_loss));
        Ok(Self {
            setting: lines[0].setting.clone(),
            name: name.to_owned(),
            percent: 100.0 * (own / other - 1.0),
            differences: [difference(&loss), difference(&accuracy)],
            r2: r2.and_then(|r2| statistics::interval(&r2)),
        })
    }

    /// Whether each difference is one.
    fn verdicts(&self) -> [Option<&'static str>; 2] {
        // A loss is better when it is lower.
        let [loss, accuracy] = &self.differences;
        [(loss, -1.0), (accuracy, 1.0)].map(|(difference, good)| {
            let Difference { interval, holm, .. } = difference.as_ref()?;
            let beyond = interval.low > 0.0 || interval.high < 0.0;
            Some(match (*holm < LEVEL && beyond, interval.mean * good > 0.0) {
                (false, _) => "-",
                (true, true) => "gain",
                (true, false) => "harm",
            })
        })
    }

    /// The difference in one measure, of a loss in percent, and what it shows.
    fn short(&self, measure: Measure) -> Option<String> {
        let [loss, accuracy] = self.verdicts();
        let (mean, verdict) = match measure {
            Measure::Loss => (format!("{:+.1}", self.percent), loss?),
            Measure::Accuracy => {
                let mean = self.differences[1].as_ref()?.interval.mean;
                (format!("{mean:+.2}"), accuracy?)
            }
            Measure::R2 => return Some(format!("{:+.3}", self.r2?.mean)),
        };
        Some(if verdict == "-" { mean } else { format!("{mean} {verdict}") })
    }

    fn cells(&self) -> Vec<String> {
        let mut cells = vec![self.setting.clone(), self.name.clone()];
        let places = [5, 2];
        let shown = self.differences.iter().zip(self.verdicts()).zip(places);
        for (index, ((difference, verdict), places)) in shown.enumerate() {
            let Some(Difference { interval: Interval { mean, low, high }, p, holm }) = difference
            else {
                cells.extend((0..4).map(|_| String::new()));
                continue;
            };
            cells.push(format!("{mean:+.places$} [{low:+.places$}, {high:+.places$}]"));
            if index == 0 {
                cells.push(format!("{:+.1}", self.percent));
            }
            cells.extend([probability(*p), probability(*holm), verdict.unwrap_or("").to_owned()]);
        }
        cells.push(self.r2.map_or(String::new(), |Interval { mean, low, high }| {
            format!("{mean:+.3} [{low:+.3}, {high:+.3}]")
        }));
        cells
    }
}

/// The means of all models of a setting, in rows.
fn means(lines: &[Line]) -> Vec<Vec<String>> {
    let Some(first) = lines.first() else { return vec![] };
    let row = |place: usize, judged: &Judged| {
        let all: Vec<_> = lines.iter().filter_map(|line| line.judged.get(place).cloned()).collect();
        let loss = average(&all, |judged| Some(judged.test_loss)).unwrap_or(f64::NAN);
        let accuracy = average(&all, |judged| judged.test_accuracy);
        let accuracy = accuracy.map_or(String::new(), |share| format!("{:.2} %", 100.0 * share));
        let r2 = average(&all, |judged| judged.test_r2);
        let r2 = r2.map_or(String::new(), |r2| format!("{r2:.3}"));
        vec![first.setting.clone(), judged.name.clone(), format!("{loss:.5}"), accuracy, r2]
    };
    first.judged.iter().enumerate().map(|(place, judged)| row(place, judged)).collect()
}

fn average(judged: &[Judged], measure: impl Fn(&Judged) -> Option<f64>) -> Option<f64> {
    let measures = judged.iter().map(measure).collect::<Option<Vec<_>>>()?;
    Some(statistics::mean(&measures))
}

fn probability(p: f64) -> String {
    if p < 5e-4 { format!("{p:.0e}") } else { format!("{p:.3}") }
}

/// A table in Markdown, or in columns.
fn render(head: &[&str], rows: &[Vec<String>], markdown: bool) -> String {
    let head: Vec<_> = head.iter().map(|&cell| cell.to_owned()).collect();
    let mut text = String::new();
    if markdown {
        let _ = writeln!(text, "| {} |", head.join(" | "));
        let _ = writeln!(text, "|{}", "---|".repeat(head.len()));
        for row in rows {
            let _ = writeln!(text, "| {} |", row.join(" | "));
        }
        return text;
    }
    let width = |column: usize| {
        let cells = [&head].into_iter().chain(rows).map(|row| row[column].chars().count());
        cells.max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..head.len()).map(width).collect();
    for row in [&head].into_iter().chain(rows) {
        let cells =
            row.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| match column < 2 {
                true => format!("{cell:width$}"),
                false => format!("{cell:>width$}"),
            });
        let _ = writeln!(text, "{}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
    text
}
