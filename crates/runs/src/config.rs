//! The settings of commits: where, when, and which are kept.

use std::{path::PathBuf, sync::Arc, time::Duration};

use burn::train::metric::{
    Metric,
    store::{Direction, Split},
};
use serde::Serialize;
use serde_json::Value;

use crate::{
    Change, Error, Progress, Result, RunLock, changes, floats, history::Mark,
    manifest::MOST_CONFIG_BYTES,
};

/// The settings of commits for [`Fit::with_commits`](crate::Fit::with_commits): where, when, and
/// which are kept.
///
/// ```no_run
/// # use burn_ema_runs::CommitConfig;
/// # #[derive(serde::Serialize)] struct MyConfig;
/// # fn main() -> burn_ema_runs::Result<()> {
/// # let config = MyConfig;
/// let commits = CommitConfig::new("runs/a")
///     .with_config(&config)? // a resumed run must have the same, but for what may change
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
    /// False for the default.
    pub chosen: bool,
}

impl CommitConfig {
    /// Commits in the directory of a run, which is made where there is none: at the end of every
    /// epoch; the last two are kept, and the one of the epoch with the lowest loss in validation.
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

    /// The configuration that decides the run: a resumed run that differs in a field is refused, by
    /// its name.
    ///
    /// Fields are compared as JSON: numbers by their values, so that 1 is 1.0; a field that is
    /// missing as one that is `None`; sequences with their order. A `HashSet` has another order in
    /// every process, so a configuration with one needs a `BTreeSet` or a sorted `Vec` instead; the
    /// keys of a map may come in any order.
    ///
    /// # Errors
    ///
    /// A configuration that is no JSON, or of which that has more than 1 MiB: name a large part by
    /// its digest. A NaN or an infinity, by the name of its field, since JSON would have `null`, as
    /// for `None`. A configuration that differs when it is written twice.
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
        if length > MOST_CONFIG_BYTES {
            let expected = format!("at most {MOST_CONFIG_BYTES} bytes of JSON");
            return Err(Error::value("the configuration", expected, format!("{length} bytes")));
        }
        Ok(self)
    }

    /// A field of the configuration that may differ when the run goes on, by its path, such as
    /// `optimizer.lr`.
    ///
    /// `epochs` and `num_epochs` may grow already, and `device` and `log_level` are free.
    pub fn with_change(mut self, path: impl Into<String>, change: Change) -> Self {
        self.may_change.insert(0, (path.into(), change));
        self
    }

    /// The seed from which the random numbers of each step, such as dropout's, are drawn, with its
    /// epoch and its place in it. A resumed run must have the same.
    ///
    /// Without one it is drawn from the device when the run begins, and so from `device.seed(..)`,
    /// and a resumed run takes that of its commit.
    /// The device is seeded before every batch; the seed of Burn's devices is one for the process.
    /// With the strategy of the training [kept](crate::Fit::keep_strategy), it is not.
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Commits also within an epoch, after so many steps since the last commit.
    pub fn with_every_steps(mut self, steps: Option<u64>) -> Self {
        self.every_steps = steps.filter(|steps| *steps > 0);
        self
    }

    /// Commits also within an epoch, at the first step so long after the last commit.
    pub fn with_every(mut self, time: Option<Duration>) -> Self {
        self.every = time;
        self
    }

    /// How many of the newest commits are kept, at least 1.
    pub fn with_keep_last(mut self, count: usize) -> Self {
        self.last = count.max(1);
        self
    }

    /// Keeps the commit of the epoch with the best value of a metric of validation beside the
    /// newest ones.
    ///
    /// The metric must be registered for validation and give numbers, as by
    /// `metric_valid_numeric`; otherwise, or where it gives a NaN, each launch ends with an error
    /// after its first epoch.
    /// By default it is the loss, whose absence is a [warning](crate::Warnings) alone.
    pub fn with_keep_best<Me: Metric>(mut self, metric: &Me, direction: Direction) -> Self {
        let lowest = matches!(direction, Direction::Lowest);
        let key = format!("{}/{}", Split::Valid, metric.name());
        self.best = Some(BestEpoch { key, lowest, chosen: true });
        self
    }

    /// Keeps the newest commits alone.
    pub fn without_best(mut self) -> Self {
        self.best = None;
        self
    }

    /// Allows NaNs and infinities in weights and moments, such as a mask of `-inf`.
    /// By default they are neither committed nor loaded.
    pub fn allow_non_finite(mut self, allow: bool) -> Self {
        self.non_finite = allow;
        self
    }

    /// The lock of the run's directory, where the program holds it already.
    ///
    /// Otherwise [`Fit::with_commits`](crate::Fit::with_commits) takes it.
    pub fn with_lock(mut self, lock: Arc<RunLock>) -> Self {
        self.lock = Some(lock);
        self
    }

    /// True where a commit is due within an epoch.
    pub(crate) fn is_due(&self, steps: u64, time: Duration) -> bool {
        self.every_steps.is_some_and(|every| steps >= every)
            || self.every.is_some_and(|every| time >= every)
    }

    pub(crate) fn allows_non_finite(&self) -> bool {
        self.non_finite
    }

    /// The commits that stay, of those that are there.
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
