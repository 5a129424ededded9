//! The metric logger of a training that commits: it writes Burn's metrics to the history.

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
    /// None until the training begins.
    history: Option<History>,
    names: HashMap<MetricId, String>,
    /// The questions that Burn has put to our logger.
    questions: u64,
    /// The items of each batch whose metrics are yet to come, and none for the end of a split.
    /// Empty under a kept strategy, which does not show its batches.
    items: VecDeque<Option<usize>>,
    /// The updates of the split so far, of which its end is one.
    updates: usize,
}

impl Log {
    /// Begins with a history, new or of a run that goes on.
    pub fn begin(&self, history: History) {
        self.lock().history = Some(history);
    }

    /// Says that the metrics of a batch with so many items come next, or those of the end of a split.
    pub fn expect(&self, items: Option<usize>) {
        self.lock().items.push_back(items);
    }

    /// A description of what there is in the place of a metric that gave no number in an epoch that
    /// has ended; none for one that did.
    pub fn lacks(&self, key: &str, epoch: usize) -> Option<String> {
        self.lock().history.as_ref().and_then(|history| history.lacks(key, epoch))
    }

    /// Hides the epochs after `epoch`, so that early stopping decides again as it did at its end;
    /// none shows all.
    pub fn show_until(&self, epoch: Option<usize>) {
        if let Some(history) = &mut self.lock().history {
            history.show_until(epoch);
        }
    }

    /// Where the history is now; every event that was sent before is in it.
    ///
    /// # Errors
    ///
    /// A metric logger of the training's own, of which Burn asks the first alone; a history that
    /// cannot be written.
    pub fn mark(&self, store: &EventStoreClient) -> Result<Option<Mark>> {
        let before = self.lock().questions;
        // The thread that takes the events answers after them. No metric has an epoch 0.
        store.find_metric("", 0, Aggregate::Mean, &Split::Train);
        let mut state = self.lock();
        if state.questions == before {
            let expected = "none: with commits, the metrics are kept in metrics.csv";
            return Err(Error::value("the metric logger of the training", expected, "another one"));
        }
        state.history.as_mut().map(History::mark).transpose()
    }

    /// Makes the history durable.
    pub fn sync(&self) -> Result<()> {
        let file = self.lock().history.as_ref().map(History::file).transpose()?;
        match file {
            // Without the lock, since a sync may take long.
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

    /// Changes the history; an error stops the training.
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
        // Only early stopping asks for an epoch that has ended.
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
        // The end itself is an update. A training that is stopped may have no batch of the epoch.
        let updates = std::mem::take(&mut Logger::log(self).updates);
        if updates <= 1 && !self.0.0.outcome.is_ending() {
            self.0.0.outcome.fail(no_batch(&split, epoch));
        }
    }
}

/// The error of an epoch without a batch, in which there is nothing to train or to validate.
pub(super) fn no_batch(split: &Split, epoch: usize) -> Error {
    let loader = match split {
        Split::Train => "the training loader",
        _ => "the validation loader",
    };
    Error::parameter(loader, format!("a batch in epoch {epoch}"), format!("none: {EMPTY}"))
}

/// The error of a training that made no step, whose epochs are not seen.
pub(crate) fn no_step() -> Error {
    let found = format!("none: {EMPTY}, or the training has no epoch to go through");
    Error::parameter("the training loader", "a batch to make a step with", found)
}

const EMPTY: &str = "its data set is empty, or has less than a batch that must be whole";
