//! Where, when and of what a training commits.

mod committer; // Burn's three checkpointers as one commit

use std::{path::PathBuf, sync::Arc, time::Duration};

use burn::train::metric::{
    Metric,
    store::{Direction, Split},
};
use serde::Serialize;
use serde_json::Value;

pub(super) use self::committer::{Committer, OPTIMIZER, SCHEDULER, message};
use crate::{
    Error, Result,
    run::{Change, MOST_CONFIG_BYTES, Mark, Progress, RunLock},
};

/// Where, when and of what a training commits; for [`Fit::with_commits`](super::Fit::with_commits).
///
/// ```no_run
/// # use burn_ema::train::CommitConfig;
/// # #[derive(serde::Serialize)] struct MyConfig;
/// # fn main() -> burn_ema::Result<()> {
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
    run: PathBuf,
    config: Value,
    may_change: Vec<(String, Change)>,
    seed: Option<u64>,
    every_steps: Option<u64>,
    every: Option<Duration>,
    last: usize,
    best: Option<Best>,
    non_finite: bool,
    lock: Option<Arc<RunLock>>,
}

/// The metric by which the best epoch is kept.
#[derive(Clone, Debug)]
struct Best {
    key: String,
    lowest: bool,
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
            best: Some(Best { key: "valid/Loss".to_owned(), lowest: true }),
            non_finite: false,
            lock: None,
        }
    }

    /// What decides the run: a resumed run that differs in a field is refused, by its name.
    ///
    /// # Errors
    ///
    /// A configuration that is no JSON, or of which that has more than 1 MiB: name a large part by
    /// its digest.
    pub fn with_config(mut self, config: &impl Serialize) -> Result<Self> {
        self.config = serde_json::to_value(config).map_err(Error::other)?;
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

    /// What the random numbers of each step, such as dropout's, are drawn from, with its epoch and
    /// its place in it. A resumed run must have the same.
    ///
    /// Without one it is drawn from the device when the run begins, and so from `device.seed(..)`,
    /// and a resumed run takes that of its commit.
    /// The device is seeded before every batch; the seed of Burn's devices is one for the process.
    /// With the strategy of the training [kept](super::Fit::keep_strategy), it is not.
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
    pub fn with_keep_best<Me: Metric>(mut self, metric: &Me, direction: Direction) -> Self {
        let lowest = matches!(direction, Direction::Lowest);
        self.best = Some(Best { key: format!("{}/{}", Split::Valid, metric.name()), lowest });
        self
    }

    /// Keeps the newest commits alone.
    pub fn without_best(mut self) -> Self {
        self.best = None;
        self
    }

    /// Whether weights and moments may hold NaNs and infinities, such as a mask of `-inf`.
    /// Otherwise, and by default, they are neither committed nor loaded.
    pub fn allow_non_finite(mut self, allow: bool) -> Self {
        self.non_finite = allow;
        self
    }

    /// Takes the lock of the run, which the caller has taken already, in place of taking it when
    /// the training begins.
    pub fn with_lock(mut self, lock: Arc<RunLock>) -> Self {
        self.lock = Some(lock);
        self
    }

    /// Whether a commit is due within an epoch.
    pub(super) fn is_due(&self, steps: u64, time: Duration) -> bool {
        self.every_steps.is_some_and(|every| steps >= every)
            || self.every.is_some_and(|every| time >= every)
    }

    pub(super) fn allows_non_finite(&self) -> bool {
        self.non_finite
    }

    /// Of the commits that are there, those that stay.
    fn keep(&self, places: &[Progress], mark: &Mark) -> Vec<Progress> {
        let newest = &places[places.len().saturating_sub(self.last)..];
        let best = self.best.as_ref().and_then(|Best { key, lowest }| {
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
