//! The metric logger of a training that commits. It writes Burn's metrics to the history.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use burn::train::{
    logger::MetricLogger,
    metric::{
        MetricDefinition, MetricId, NumericEntry,
        store::{Aggregate, EpochSummary, EventStoreClient, MetricsUpdate, Split},
    },
};

use super::Committer;
use crate::{
    Error, Result,
    history::{History, Mark},
};

/// The history of a training, with the names of its metrics.
#[derive(Default)]
pub(super) struct Log(Mutex<LogState>);

#[derive(Default)]
struct LogState {
    /// `None` until the training begins.
    history: Option<History>,
    names: HashMap<MetricId, String>,
    /// The number of calls of the logger's `read_numeric` by Burn.
    questions: u64,
    /// The number of items of each batch whose metrics are not logged yet; `None` for the end of a
    /// split. Empty with a kept strategy, which does not show its batches.
    items: VecDeque<Option<usize>>,
    /// The number of updates in the current split; its end counts as an update.
    updates: usize,
}

impl Log {
    /// Sets the history, either a new one or that of a resumed run.
    pub fn begin(&self, history: History) {
        self.lock().history = Some(history);
    }

    /// Announces the next metrics: those of a batch with this number of items, or with `None` those
    /// of the end of a split.
    pub fn expect(&self, items: Option<usize>) {
        self.lock().items.push_back(items);
    }

    /// A description of what an epoch has instead of a number of this metric; `None` if it has a
    /// number. See [`History::lacks`].
    pub fn lacks(&self, key: &str, epoch: usize) -> Option<String> {
        self.lock().history.as_ref().and_then(|history| history.lacks(key, epoch))
    }

    /// Hides the metrics of the epochs after `epoch`, so that early stopping decides again as it
    /// did at the end of `epoch`; `None` shows all.
    pub fn show_until(&self, epoch: Option<usize>) {
        if let Some(history) = &mut self.lock().history {
            history.show_until(epoch);
        }
    }

    /// The mark of the history now, after all events that were sent before; `None` before the
    /// training begins. Waits for these events.
    ///
    /// # Errors
    ///
    /// A training with a metric logger of its own, since Burn reads only the first logger; a
    /// history that cannot be written.
    pub fn mark(&self, store: &EventStoreClient) -> Result<Option<Mark>> {
        let before = self.lock().questions;
        // The thread of the events answers this query after them. No metric has an epoch 0.
        store.find_metric("", 0, Aggregate::Mean, &Split::Train);
        let mut state = self.lock();
        if state.questions == before {
            let expected = "none: with commits, the metrics are kept in metrics.csv";
            return Err(Error::value("the metric logger of the training", expected, "another one"));
        }
        state.history.as_mut().map(History::mark).transpose()
    }

    /// Syncs the history's file.
    pub fn sync(&self) -> Result<()> {
        let file = self.lock().history.as_ref().map(History::file).transpose()?;
        match file {
            // The lock of the state is not held here, since a sync may take long.
            Some((path, file)) => file.sync_all().map_err(|error| Error::file("sync", path, error)),
            None => Ok(()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, LogState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Burn's metric logger of a training that commits.
pub(super) struct Logger(pub Committer);

impl Logger {
    fn log(&self) -> MutexGuard<'_, LogState> {
        self.0.0.log.lock()
    }

    /// Calls `change` with the history and the names of the metrics. An error stops the training.
    fn change(&self, change: impl FnOnce(&mut History, &HashMap<MetricId, String>) -> Result<()>) {
        let mut state = self.log();
        let LogState { history: Some(history), names, .. } = &mut *state else { return };
        let changed = change(history, names);
        drop(state);
        if let Err(error) = changed {
            self.0.0.outcome.fail(error);
        }
    }
}

impl MetricLogger for Logger {
    fn log(&mut self, update: MetricsUpdate, epoch: usize, split: &Split) {
        let items = {
            let mut state = Logger::log(self);
            state.updates += 1;
            state.items.pop_front().flatten()
        };
        self.change(|history, names| {
            let name = |id: &MetricId| names.get(id).cloned().unwrap_or_default();
            history.log(&update, items, epoch, split, name)
        });
    }

    fn read_numeric(
        &mut self,
        name: &str,
        epoch: usize,
        split: &Split,
    ) -> std::result::Result<Vec<NumericEntry>, String> {
        let mut state = Logger::log(self);
        state.questions += 1;
        let history = state.history.as_ref();
        let value = history.and_then(|history| history.value(name, epoch, split));
        // Only early stopping reads the metrics of an epoch that has ended.
        let key = format!("{split}/{name}");
        let ended = history.filter(|history| history.has_ended(epoch));
        // A NaN after numbers is an epoch without improvement.
        let asked = ended.filter(|history| value.is_none() || !history.has_number(&key));
        let lacks = asked.and_then(|history| history.lacks(&key, epoch));
        drop(state);
        if let Some(found) = lacks {
            let expected = "a metric that gives numbers, by which early stopping decides (register \
                            it as a numeric one)";
            self.0.0.outcome.fail(Error::parameter(key, expected, found));
        }
        Ok(value.into_iter().collect())
    }

    fn log_metric_definition(&mut self, definition: MetricDefinition) {
        Logger::log(self).names.insert(definition.metric_id, definition.name.to_string());
    }

    fn log_epoch_summary(&mut self, summary: EpochSummary) {
        let EpochSummary { epoch_number: epoch, split } = summary;
        self.change(|history, _| history.end(epoch, &split));
        // The end of the split is an update. A training that is stopped may have no batch of the
        // epoch.
        let updates = std::mem::take(&mut Logger::log(self).updates);
        if updates <= 1 && !self.0.0.outcome.is_ending() {
            self.0.0.outcome.fail(no_batch(&split, epoch));
        }
    }
}

/// The error of an epoch in which a loader had no batch.
pub(super) fn no_batch(split: &Split, epoch: usize) -> Error {
    let loader = match split {
        Split::Train => "the training loader",
        _ => "the validation loader",
    };
    Error::parameter(loader, format!("a batch in epoch {epoch}"), format!("none: {EMPTY}"))
}

/// The error of a training without commits that made no step. Its epochs are not known.
pub(crate) fn no_step() -> Error {
    let found = format!("none: {EMPTY}, or the training has no epoch to go through");
    Error::parameter("the training loader", "a batch to make a step with", found)
}

const EMPTY: &str = "its data set is empty, or has less than a batch that must be whole";
