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
    pub(crate) fn keep(&self, places: &[Progress], mark: &Mark) -> Vec<Progress> {
        let newest = &places[places.len().saturating_sub(self.last)..];
        let best = self.best.as_ref().and_then(|BestEpoch { key, lowest, .. }| {
            let ends = places.iter().filter(|place| place.batches == 0);
            let values = ends.filter_map(|place| {
                let value = mark.epochs.get(&place.epochs)?.get(key)?.0;
                (!value.is_nan()).then_some((*place, if *lowest { value } else { -value }))
            });
            values.min_by(|(_, one), (_, other)| one.total_cmp(other))
        });
        newest.iter().copied().chain(best.map(|(place, _)| place)).collect()
    }
}
