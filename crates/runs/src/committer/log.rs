//! The metric logger of a training that commits: it writes Burn's metrics to the history.

use std::{
    collections::HashMap,
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
}

impl Log {
    /// Begins with a history, new or of a run that goes on.
    pub fn begin(&self, history: History) {
        self.lock().history = Some(history);
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
        self.change(|history, names| {
            history.log(&update, epoch, split, |id| names.get(id).cloned().unwrap_or_default())
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
        let value = state.history.as_ref().and_then(|history| history.value(name, epoch, split));
        Ok(value.into_iter().collect())
    }

    fn log_metric_definition(&mut self, definition: MetricDefinition) {
        Logger::log(self).names.insert(definition.metric_id, definition.name.to_string());
    }

    fn log_epoch_summary(&mut self, summary: EpochSummary) {
        self.change(|history, _| history.end(summary.epoch_number, &summary.split));
    }
}
