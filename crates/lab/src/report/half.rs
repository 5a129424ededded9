//! Mean and worst of the validation metrics over the second half of the epochs.

use std::fmt;

use burn_ema::Result;

use super::{picture::Of, run::RunContent, score::ScoreKind};
use crate::run::RunDirectory;

/// The validation of live and of each average over the second half of the epochs, from the history
/// of a run.
///
/// The scores of the last epoch depend on when the training happened to end. The mean over many
/// epochs, and the worst of them, show what an end at any of them would have given.
#[derive(Clone, Debug, PartialEq)]
pub struct SecondHalf {
    /// The first and the last epoch: of `n` epochs, the last `n / 2`, rounded up.
    pub epochs: [usize; 2],
    /// The kind of the score; `None` if the history has none.
    pub score: Option<ScoreKind>,
    /// Live, then each average in the order of the run.
    pub rows: Vec<HalfRow>,
}

/// The validation of live or of an average over the second half of the epochs.
#[derive(Clone, Debug, PartialEq)]
pub struct HalfRow {
    /// `live`, or the name of the average.
    pub name: String,
    pub(super) of: Of,
    /// The loss, of which the greatest is the worst; `None` if the history lacks it.
    pub loss: Option<Spread>,
    /// The score, of which the least is the worst; `None` if the history lacks it.
    pub score: Option<Spread>,
}

/// The values of a metric over some epochs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The number of epochs with a value.
    pub count: usize,
    /// The mean over these epochs.
    pub mean: f64,
    /// The worst value; NaN if there is a NaN.
    pub worst: f64,
}

impl SecondHalf {
    /// Reads the history of a run; `None` if it has no loss of any epoch.
    ///
    /// For a run that has not ended, the epochs are those so far.
    ///
    /// # Errors
    ///
    /// A run without a configuration and without a commit; a file of the run that cannot be read or
    /// was altered.
    pub fn read(run: &RunDirectory) -> Result<Option<Self>> {
        Ok(Self::of(&RunContent::read(run)?))
    }

    pub(super) fn of(run: &RunContent) -> Option<Self> {
        let averages = run.averages.iter().enumerate();
        let averages = averages.map(|(index, (name, _))| (name.as_str(), Of::Average(index)));
        let names: Vec<_> = [("live", Of::Live)].into_iter().chain(averages).collect();
        let points = |metric: &str| -> Vec<Vec<(f64, f64)>> {
            let of = |(name, of): &(&str, Of)| match of {
                Of::Live => run.curves.valid(&format!("{metric} (live)")),
                Of::Average(index) => run.curves.of_average(metric, name, *index == 0),
            };
            names.iter().map(of).collect()
        };
        let losses = points("Loss");
        let last = losses.iter().flatten().map(|(epoch, _)| *epoch).reduce(f64::max)? as usize;
        let epochs = [last / 2 + 1, last];

        let scores = ScoreKind::ALL.map(|kind| (kind, points(kind.metric())));
        let scores =
            scores.into_iter().find(|(_, all)| all.iter().any(|points| !points.is_empty()));
        let rows = names.iter().zip(losses).enumerate().map(|(index, ((name, of), losses))| {
            let score = scores.as_ref().and_then(|(kind, all)| {
                let scores = all[index].iter().map(|(at, value)| (*at, kind.of_metric(*value)));
                Spread::of(scores, epochs, f64::min)
            });
            let loss = Spread::of(losses.into_iter(), epochs, f64::max);
            HalfRow { name: (*name).to_owned(), of: *of, loss, score }
        });
        let rows = rows.collect();
        Some(Self { epochs, score: scores.map(|(kind, _)| kind), rows })
    }

    /// The number of epochs.
    pub fn count(&self) -> usize {
        let [first, last] = self.epochs;
        last + 1 - first
    }

    /// The epochs as text.
    pub(super) fn span(&self) -> String {
        match self.epochs {
            [first, last] if first == last => format!("epoch {last}"),
            [first, last] => format!("epochs {first} to {last}"),
        }
    }

    /// A remark on what the history lacks of a row; empty if it has all.
    pub(super) fn lacks(&self, row: &HalfRow) -> String {
        let all = self.count();
        let metrics = [Some(("loss", row.loss)), self.score.map(|kind| (kind.name(), row.score))];
        let lacking = metrics.into_iter().flatten().filter_map(|(name, spread)| match spread {
            None => Some(format!("no {name} in the history")),
            Some(Spread { count, .. }) if count < all => {
                Some(format!("{name} of {count} of {all} epochs"))
            }
            Some(_) => None,
        });
        lacking.collect::<Vec<_>>().join(", ")
    }

    /// The changes of a row's mean and worst loss from those of live, in percent; `None` if one of
    /// both lacks an epoch.
    pub(super) fn changes(&self, row: &HalfRow) -> Option<[f64; 2]> {
        let live = self.rows.iter().find(|row| row.of == Of::Live)?.loss?;
        let loss = row.loss.filter(|_| row.of != Of::Live)?;
        let whole = [live, loss].iter().all(|spread| spread.count == self.count());
        let change = |loss: f64, live: f64| 100.0 * (loss / live - 1.0);
        whole.then(|| [change(loss.mean, live.mean), change(loss.worst, live.worst)])
    }
}

impl Spread {
    /// The values within the epochs; `worse` returns the worse of two numbers.
    fn of(
        points: impl Iterator<Item = (f64, f64)>,
        [first, last]: [usize; 2],
        worse: fn(f64, f64) -> f64,
    ) -> Option<Self> {
        let within = |epoch: f64| (first as f64..=last as f64).contains(&epoch);
        let values = points.filter(|(epoch, _)| within(*epoch)).map(|(_, value)| value);
        let values: Vec<f64> = values.collect();
        let count = values.len();
        let mean = values.iter().sum::<f64>() / count as f64;
        // `f64::max` and `f64::min` pass over a NaN.
        let worse = |a: f64, b: f64| if a.is_nan() || b.is_nan() { f64::NAN } else { worse(a, b) };
        let worst = values.into_iter().reduce(worse)?;
        Some(Self { count, mean, worst })
    }
}

/// A table of means and worst values, with the change of each average from live.
impl fmt::Display for SecondHalf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let span = self.span();
        let names = self.rows.iter().map(|row| row.name.chars().count());
        let width = names.chain([span.len(), "in validation,".len()]).max().unwrap_or(0);
        write!(f, "{:width$}  {:>20}", "in validation,", "loss")?;
        if let Some(kind) = self.score {
            write!(f, "  {:>18}", kind.name())?;
        }
        write!(f, "\n{span:width$}  {:>9}  {:>9}", "mean", "worst")?;
        if self.score.is_some() {
            write!(f, "  {:>8}  {:>8}", "mean", "worst")?;
        }
        for row in &self.rows {
            let HalfRow { name, loss, score, .. } = row;
            write!(f, "\n{name:width$}")?;
            let cells = |spread: &Option<Spread>, text: &dyn Fn(f64) -> String| match spread {
                Some(Spread { mean, worst, .. }) => [text(*mean), text(*worst)],
                None => ["-".to_owned(), "-".to_owned()],
            };
            let [mean, worst] = cells(loss, &|loss| format!("{loss:.6}"));
            write!(f, "  {mean:>9}  {worst:>9}")?;
            if let Some(kind) = self.score {
                let [mean, worst] = cells(score, &|score| kind.text(score));
                write!(f, "  {mean:>8}  {worst:>8}")?;
            }
            if let Some([mean, worst]) = self.changes(row) {
                write!(f, "  loss {mean:+.1} %, worst {worst:+.1} %")?;
            }
            let lacks = self.lacks(row);
            if !lacks.is_empty() {
                write!(f, "  {lacks}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
