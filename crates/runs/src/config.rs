//! The settings of commits: where and when they are written, and which are kept.

use std::{path::PathBuf, sync::Arc, time::Duration};

use burn::train::metric::{
    Metric,
    store::{Direction, Split},
};
use serde::Serialize;
use serde_json::Value;

use crate::{
    Change, Error, Progress, Result, RunLock, changes, floats, history::Mark,
    manifest::MAX_CONFIG_BYTES,
};

/// The settings of commits for [`Fit::with_commits`](crate::Fit::with_commits): where and when they
/// are written, and which are kept.
///
/// ```no_run
/// # use burn_ema_runs::CommitConfig;
/// # #[derive(serde::Serialize)] struct MyConfig;
/// # fn main() -> burn_ema_runs::Result<()> {
/// # let config = MyConfig;
/// let commits = CommitConfig::new("runs/a")
///     .with_config(&config)? // a resumed run must have the same, except what may change
///     .with_seed(7)
///     .with_every_steps(Some(500));
/// # let _ = commits;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct CommitConfig {
    pub(crate) run: PathBuf,
    pub(crate) config: Value,
    pub(crate) may_change: Vec<(String, Change)>,
    pub(crate) seed: Option<u64>,
    every_steps: Option<u64>,
    every: Option<Duration>,
    last: usize,
    keep_every: Option<u64>,
    pub(crate) best: Option<BestEpoch>,
    non_finite: bool,
    pub(crate) lock: Option<Arc<RunLock>>,
}

/// The metric by which the best epoch is kept.
#[derive(Clone, Debug)]
pub(crate) struct BestEpoch {
    /// The key of the metric, such as `valid/Loss`.
    pub key: String,
    lowest: bool,
    /// True if the caller chose the metric, false for the default.
    pub chosen: bool,
}

impl CommitConfig {
    /// The default settings for a run in this directory, which the training creates if it is
    /// missing.
    ///
    /// A commit is written at the end of every epoch. The last two commits are kept, and that of
    /// the epoch with the lowest loss in validation (`Loss`).
    pub fn new(run: impl Into<PathBuf>) -> Self {
        let may_change = [
            ("epochs", Change::Upward),
            ("num_epochs", Change::Upward),
            ("device", Change::Free),
            ("log_level", Change::Free),
        ];
        Self {
            run: run.into(),
            config: Value::Null,
            may_change: may_change.map(|(path, change)| (path.to_owned(), change)).into(),
            seed: None,
            every_steps: None,
            every: None,
            last: 2,
            keep_every: None,
            best: Some(BestEpoch { key: "valid/Loss".to_owned(), lowest: true, chosen: false }),
            non_finite: false,
            lock: None,
        }
    }

    /// Sets the configuration of the run, which every commit saves. A resume is refused if a field
    /// differs from the commit, unless the field [may change](Self::with_change); the error names
    /// the field.
    ///
    /// Fields are compared as JSON. Numbers are compared by their values, so that 1 equals 1.0; a
    /// missing field equals one that is `None`; the order of a sequence counts, that of the keys of
    /// a map does not. A `HashSet` has another order in every process: use a `BTreeSet` or a sorted
    /// `Vec` in its place.
    ///
    /// # Errors
    ///
    /// - A configuration that cannot be serialized as JSON, or whose JSON is longer than 1 MiB.
    ///   Save the digest of a large part in its place.
    /// - A NaN or an infinity, which JSON would save as `null`, like `None`. The error names the
    ///   field.
    /// - A configuration that gives different JSON when it is serialized twice.
    pub fn with_config(mut self, config: &impl Serialize) -> Result<Self> {
        floats::check("config", config)?;
        let written = || serde_json::to_value(config).map_err(Error::other);
        self.config = written()?;
        changes::check(&self.config, &written()?, &[]).map_err(|error| match error {
            Error::Parameter { path, found, .. } => {
                Error::parameter(path, "the same value each time that it is written", found)
            }
            error => error,
        })?;
        let length = self.config.to_string().len();
        if length > MAX_CONFIG_BYTES {
            let expected = format!("at most {MAX_CONFIG_BYTES} bytes of JSON");
            return Err(Error::value("the configuration", expected, format!("{length} bytes")));
        }
        Ok(self)
    }

    /// Allows a field of the configuration to differ when the run is resumed. `path` is the path of
    /// the field, such as `optimizer.lr`; a later call for a path replaces an earlier one.
    ///
    /// By default `epochs` and `num_epochs` may grow, and `device` and `log_level` are free.
    pub fn with_change(mut self, path: impl Into<String>, change: Change) -> Self {
        self.may_change.insert(0, (path.into(), change));
        self
    }

    /// Sets the seed of the run. Before every training batch, and once before each validation, the
    /// device is seeded with a hash of this seed, the epoch, the split and the number of the batch.
    /// So the random numbers of a step, such as those of dropout, depend on these alone. A resume
    /// with another seed than the commit's is refused.
    ///
    /// Without a call, a new run draws its seed from the random state of the device, which
    /// `device.seed(..)` sets, and a resumed run uses the seed of the commit.
    /// Burn's devices share one random state per process. With a
    /// [kept strategy](crate::Fit::keep_strategy), the device is not seeded.
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Commits also within an epoch, after this number of optimizer steps since the last commit or
    /// the start of the epoch. `None` (the default) or 0 turns this off. Has no effect with a
    /// [kept strategy](crate::Fit::keep_strategy).
    pub fn with_every_steps(mut self, steps: Option<u64>) -> Self {
        self.every_steps = steps.filter(|steps| *steps > 0);
        self
    }

    /// Commits also within an epoch, at the first optimizer step after this time since the last
    /// commit or the start of the epoch. `None` (the default) turns this off. Has no effect with a
    /// [kept strategy](crate::Fit::keep_strategy).
    pub fn with_every(mut self, time: Option<Duration>) -> Self {
        self.every = time;
        self
    }

    /// Sets how many of the newest commits are kept: 2 by default; 0 counts as 1.
    pub fn with_keep_last(mut self, count: usize) -> Self {
        self.last = count.max(1);
        self
    }

    /// Keeps, beside the newest commits and the best, the first commit at or after each multiple of
    /// this number of optimizer steps, for a merge of checkpoints. `None` (the default) or 0 turns
    /// this off.
    ///
    /// With commits [every](Self::with_every_steps) 100 steps and 500 here, every fifth is kept.
    /// Which commits are kept depends on those in the directory alone. So a run that was killed keeps
    /// the same ones as an undisturbed run, if both write commits at the same steps only: at the ends
    /// of epochs and every so many steps. Commits [by time](Self::with_every) depend on the clock,
    /// and a [signal](crate::Signals) that ends a training adds a commit; either may be the first
    /// after a multiple, and so the one that is kept.
    ///
    /// A commit does not hold this setting: give it at every resume. The first commit of a resumed
    /// run without it, or with another number, removes the older ones that the new setting does not
    /// keep. To have them for good, copy them out of the run's directory before.
    ///
    /// A commit whose manifest cannot be read at the moment is kept.
    ///
    /// Steps are those in [`Manifest::steps`](crate::Manifest::steps): where they are not counted,
    /// as for a plain model with a [kept strategy](crate::Fit::keep_strategy), no commit is kept by
    /// this.
    pub fn with_keep_every_steps(mut self, steps: Option<u64>) -> Self {
        self.keep_every = steps.filter(|steps| *steps > 0);
        self
    }

    /// Keeps, beside the newest commits, the commit of the epoch with the best value of this metric
    /// in validation.
    ///
    /// The metric must be registered for validation as a numeric one, by `metric_valid_numeric`. If
    /// it has no value or a NaN after the first epoch of a launch, the training ends with an error.
    /// The default metric is the lowest `Loss`, whose absence is only a [warning](crate::Warnings).
    pub fn with_keep_best<Me: Metric>(mut self, metric: &Me, direction: Direction) -> Self {
        let lowest = matches!(direction, Direction::Lowest);
        let key = format!("{}/{}", Split::Valid, metric.name());
        self.best = Some(BestEpoch { key, lowest, chosen: true });
        self
    }

    /// Keeps only the newest commits, whatever their metrics.
    pub fn without_best(mut self) -> Self {
        self.best = None;
        self
    }

    /// Sets whether weights and optimizer states may hold NaNs and infinities, such as a mask of
    /// `-inf`. By default a commit with such a number is an error, and so is a resume from one.
    pub fn allow_non_finite(mut self, allow: bool) -> Self {
        self.non_finite = allow;
        self
    }

    /// Hands over the lock of the run's directory, for a program that has taken the lock already.
    /// The training holds it until the training has ended.
    ///
    /// Without a call, [`Fit::with_commits`](crate::Fit::with_commits) takes the lock.
    pub fn with_lock(mut self, lock: Arc<RunLock>) -> Self {
        self.lock = Some(lock);
        self
    }

    /// True if a commit within an epoch is due, `steps` and `time` after the last one.
    pub(crate) fn is_due(&self, steps: u64, time: Duration) -> bool {
        self.every_steps.is_some_and(|every| steps >= every)
            || self.every.is_some_and(|every| time >= every)
    }

    pub(crate) fn allows_non_finite(&self) -> bool {
        self.non_finite
    }

    /// The commits that are kept, of those at `places`, which are sorted. A commit may occur twice.
    ///
    /// `steps` returns the optimizer steps at a commit, or `None` if its manifest cannot be read.
    pub(crate) fn keep(
        &self,
        places: &[Progress],
        mark: &Mark,
        steps: impl FnMut(Progress) -> Option<u64>,
    ) -> Vec<Progress> {
        let newest = &places[places.len().saturating_sub(self.last)..];
        let best = self.best.as_ref().and_then(|BestEpoch { key, lowest, .. }| {
            let ends = places.iter().filter(|place| place.batches == 0);
            let values = ends.filter_map(|place| {
                let value = mark.epochs.get(&place.epochs)?.get(key)?.0;
                (!value.is_nan()).then_some((*place, if *lowest { value } else { -value }))
            });
            values.min_by(|(_, one), (_, other)| one.total_cmp(other))
        });
        let best = best.map(|(place, _)| place);
        newest.iter().copied().chain(best).chain(self.regular(places, steps)).collect()
    }

    /// The first commit of each interval of so many steps as are set, without the interval from 0.
    /// A commit whose steps are unknown may be the first, so it is one of them.
    fn regular(
        &self,
        places: &[Progress],
        mut steps: impl FnMut(Progress) -> Option<u64>,
    ) -> Vec<Progress> {
        let Some(every) = self.keep_every else { return Vec::new() };
        let mut last = 0;
        let is_first = |place: &Progress| {
            let Some(interval) = steps(*place).map(|steps| steps / every) else { return true };
            let is_first = interval > last;
            last = interval.max(last);
            is_first
        };
        places.iter().copied().filter(is_first).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Steps at a commit: 100 an epoch.
    fn steps(place: Progress) -> Option<u64> {
        Some(100 * place.epochs as u64 + place.batches as u64)
    }

    fn at(steps: usize) -> Progress {
        Progress { epochs: steps / 100, batches: steps % 100 }
    }

    /// Whatever the order of writing, and however often a process was killed between: commits are
    /// removed after each one that is written.
    #[test]
    fn commits_are_kept_at_even_distances() {
        let config = |every| CommitConfig::new("run").without_best().with_keep_every_steps(every);
        let run = |config: &CommitConfig, all: &[usize]| {
            let mut there = Vec::new();
            for &written in all {
                there.push(at(written));
                there.sort();
                let kept = config.keep(&there, &Mark::default(), steps);
                there.retain(|place| kept.contains(place));
            }
            there.into_iter().map(|place| steps(place).unwrap()).collect::<Vec<_>>()
        };
        let all: Vec<_> = (1..=50).map(|count| 20 * count).collect();
        assert_eq!(run(&config(Some(200)), &all), [200, 400, 600, 800, 980, 1000]);
        assert_eq!(run(&config(Some(100)).with_keep_last(1), &all).len(), 10);
        for off in [None, Some(0)] {
            assert_eq!(run(&config(off), &all), [980, 1000]);
        }
        // Distances that do not fit: the first at or after each multiple of 150.
        let all: Vec<_> = (1..=10).map(|epoch| 100 * epoch).collect();
        assert_eq!(run(&config(Some(150)), &all), [200, 300, 500, 600, 800, 900, 1000]);
    }

    #[test]
    fn the_best_and_the_newest_stay_beside_them() {
        let config = CommitConfig::new("run").with_keep_last(1).with_keep_every_steps(Some(300));
        let value =
            |loss: f64| serde_json::from_value(serde_json::json!(loss.to_string())).unwrap();
        let losses = [0.5, 0.1, 0.4, 0.3, 0.2, 0.6];
        let epochs = losses.iter().enumerate().map(|(index, loss)| {
            (index + 1, BTreeMap::from([("valid/Loss".to_owned(), value(*loss))]))
        });
        let mark = Mark { epochs: epochs.collect(), ..Mark::default() };
        let places: Vec<_> = (1..=6).map(Progress::after).collect();
        let mut kept = config.keep(&places, &mark, steps);
        kept.sort();
        kept.dedup();
        assert_eq!(kept, [2, 3, 6].map(Progress::after));
        // A commit whose manifest cannot be read stays, and the next one too, which may be the
        // first of the interval. Once the manifest is read, one of them is enough.
        let unread = |place| steps(place).filter(|_| place != Progress::after(3));
        let mut kept = config.keep(&places, &mark, unread);
        kept.sort();
        kept.dedup();
        assert_eq!(kept, [2, 3, 4, 6].map(Progress::after));
        let kept = config.keep(&kept, &mark, steps);
        assert!(!kept.contains(&Progress::after(4)), "{kept:?}");
    }
}
