//! Curves from the history of a run: metrics by epoch, a few weights by step.

use std::{collections::BTreeMap, path::Path};

use burn_ema::{
    Error, Result,
    runs::{METRICS, VALIDATED},
    train::{Trace, TraceMetric},
};
use burn_ema_base::regular;

/// The history of a run, without the metrics of single batches.
#[derive(Clone, Debug, Default)]
pub(super) struct Curves {
    /// The value of each metric, by its split and name, such as `valid/Loss`, and then by epoch.
    epochs: BTreeMap<String, BTreeMap<usize, f64>>,
    /// The name of the average that Burn's validation runs, by the first epoch in which it does.
    validated: BTreeMap<usize, String>,
    /// The values of a few weights, in the order of steps.
    pub weights: Vec<Trace>,
    /// The reason why the first unreadable line was passed over; `None` if all were read.
    pub passed_over: Option<String>,
    /// True if there is a history.
    pub exist: bool,
}

impl Curves {
    /// The history of the run in a directory; an empty one if there is no file of metrics.
    ///
    /// # Errors
    ///
    /// A file that cannot be opened. Lines of a damaged file that cannot be read are left out.
    pub fn read(run: &Path) -> Result<Self> {
        let path = run.join(METRICS);
        let Some(file) = regular::open_if_there(&path)? else { return Ok(Self::default()) };
        let mut curves = Self { exist: true, ..Self::default() };
        let mut lines = csv::ReaderBuilder::new().flexible(true).from_reader(file);
        let mut line = csv::StringRecord::new();
        loop {
            match lines.read_record(&mut line) {
                Ok(false) => break,
                Ok(true) => {
                    if curves.take(&line).is_none() {
                        curves.pass_over(lines.position().line(), "it is no line of a history");
                    }
                }
                // An I/O error ends the reading; any other error is of one line.
                Err(error) if error.is_io_error() => {
                    return Err(Error::file("read", path, error));
                }
                Err(error) => curves.pass_over(lines.position().line(), &error.to_string()),
            }
        }
        Ok(curves)
    }

    fn pass_over(&mut self, line: u64, why: &str) {
        self.passed_over.get_or_insert(format!("{METRICS}, before line {line}: {why}"));
    }

    /// Adds a line; `None` if it is not a line of a history.
    fn take(&mut self, line: &csv::StringRecord) -> Option<()> {
        let [split, epoch, name, value, count] = [0, 1, 2, 3, 4].map(|cell| line.get(cell));
        let (split, name, value) = (split?, name?, value?);
        match count? {
            "epoch" => {
                let metric = self.epochs.entry(format!("{split}/{name}")).or_default();
                metric.insert(epoch?.parse().ok()?, value.parse().ok()?);
            }
            "text" if name == VALIDATED => {
                self.validated.insert(epoch?.parse().ok()?, value.to_owned());
            }
            "text" if name == TraceMetric::NAME => {
                self.weights.push(serde_json::from_str(value).ok()?)
            }
            // The metric of a single batch.
            _ => {}
        }
        Some(())
    }

    /// The values of a validation metric as `(epoch, value)`; empty if the history lacks it.
    pub fn valid(&self, metric: &str) -> Vec<(f64, f64)> {
        let epochs = self.epochs.get(&format!("valid/{metric}")).into_iter().flatten();
        epochs.map(|(&epoch, &value)| (epoch as f64, value)).collect()
    }

    /// The values of a validation metric for an average, as `(epoch, value)`.
    ///
    /// In the epochs in which Burn's validation runs this average, the metric has its plain name.
    /// Where the history does not name the average that is run, it is the first of the run;
    /// `is_first` is true if `average` is that one.
    pub fn of_average(&self, metric: &str, average: &str, is_first: bool) -> Vec<(f64, f64)> {
        let validates = |epoch: f64| match self.validated.range(..=epoch as usize).next_back() {
            Some((_, name)) => name == average,
            None => is_first,
        };
        let plain = self.valid(metric).into_iter().filter(|(epoch, _)| validates(*epoch));
        let beside = self.valid(&format!("{metric} ({average})")).into_iter();
        let mut points: Vec<_> = plain.chain(beside).collect();
        points.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        points
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_metric_is_of_the_average_that_validates_then() {
        let run = tempfile::tempdir().unwrap();
        let history = |lines: &[&str]| {
            let lines: Vec<_> = lines.iter().map(|line| format!("valid,{line}\n")).collect();
            let text = "split,epoch,metric,value,count\n".to_owned() + &lines.concat();
            std::fs::write(run.path().join(METRICS), text).unwrap();
            Curves::read(run.path()).unwrap()
        };
        let lines =
            ["1,Loss,5,epoch", "1,Loss (b),4,epoch", "2,Loss,3,epoch", "2,Loss (a),2,epoch"];
        let validated = ["1,Validated,a,text", "2,Validated,b,text"];
        let of = |curves: &Curves, name: &str| curves.of_average("Loss", name, name == "a");

        let curves = history(&[&validated[..], &lines].concat());
        assert_eq!(curves.passed_over, None);
        assert_eq!(of(&curves, "a"), [(1.0, 5.0), (2.0, 2.0)]);
        assert_eq!(of(&curves, "b"), [(1.0, 4.0), (2.0, 3.0)]);
        assert_eq!(of(&curves, "c"), []);

        // One that does not say so.
        let curves = history(&lines[..3]);
        assert_eq!(of(&curves, "a"), [(1.0, 5.0), (2.0, 3.0)]);
        assert_eq!(of(&curves, "b"), [(1.0, 4.0)]);
    }
}
