//! What the history of a run says: metrics epoch by epoch, a few weights step by step.

use std::{collections::BTreeMap, path::Path};

use crate::{
    Error, Result,
    average::regular,
    run::METRICS,
    train::{Sample, TRACE},
};

/// The history of a run, without what its single batches came to.
#[derive(Clone, Debug, Default)]
pub(super) struct Curves {
    /// What each metric came to, by its split and name, such as `valid/Loss`, and by epoch.
    epochs: BTreeMap<String, BTreeMap<usize, f64>>,
    /// A few weights, by step.
    pub weights: Vec<Sample>,
    /// Why a line was passed over, if one was; the first such.
    pub passed_over: Option<String>,
    /// Whether there is a history.
    pub exist: bool,
}

impl Curves {
    /// The history of the run in a directory; an empty one where there is none.
    ///
    /// # Errors
    ///
    /// A file that cannot be opened. Of one that is damaged, what can be read is told.
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
                // What is no text may stand in one line alone; what is no file, in all.
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

    /// Takes a line; none if it is not as it should be.
    fn take(&mut self, line: &csv::StringRecord) -> Option<()> {
        let [split, epoch, name, value, count] = [0, 1, 2, 3, 4].map(|cell| line.get(cell));
        let (split, name, value) = (split?, name?, value?);
        match count? {
            "epoch" => {
                let metric = self.epochs.entry(format!("{split}/{name}")).or_default();
                metric.insert(epoch?.parse().ok()?, value.parse().ok()?);
            }
            "text" if name == TRACE => self.weights.push(serde_json::from_str(value).ok()?),
            // What single batches came to.
            _ => {}
        }
        Some(())
    }

    /// What a metric of validation came to, epoch by epoch; nothing where it is not there.
    pub fn valid(&self, metric: &str) -> Vec<(f64, f64)> {
        let epochs = self.epochs.get(&format!("valid/{metric}")).into_iter().flatten();
        epochs.map(|(&epoch, &value)| (epoch as f64, value)).collect()
    }
}
