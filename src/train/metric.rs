//! Metrics of live and of further averages, beside those of the first average.
//!
//! Burn's loop gives a metric one output, that of the first average. An output cannot contain
//! others: `Adaptor<()>` is implemented for every type, so that a pair could not forward `Adaptor`.
//! So the hook also computes the outputs of the other sources for each batch of validation and puts
//! them in a queue, from which a metric without input reads them.
//! Both ends run in the order of the batches: the loop computes the outputs of a batch before it
//! sends the batch to the metrics, and one thread updates them in the order sent.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, Weak},
};

use burn::{
    tensor::{ExecutionError, TensorReadError},
    train::{
        ItemLazy,
        metric::{
            Adaptor, Metric, MetricAttributes, MetricMetadata, MetricName, Numeric, NumericEntry,
            SerializedEntry,
        },
    },
};

/// The source of outputs for a metric, other than the first average.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MetricSource {
    Live,
    Average(usize),
}

/// The outputs of one source for the batches so far, each shared by the metrics of that source.
type AnswerQueue<O> = Mutex<VecDeque<Arc<Mutex<Lazy<O>>>>>;

/// An output, synchronised by the first metric that reads it, as Burn does with its own items.
#[derive(Debug)]
struct Lazy<O> {
    answer: Option<O>,
    synced: bool,
}

impl<O: ItemLazy> Lazy<O> {
    /// The output as the input of a metric; `None` after an error.
    fn input<T>(&mut self) -> Result<Option<T>, ExecutionError>
    where
        O: Adaptor<T>,
    {
        if !self.synced {
            self.answer = self.answer.take().map(ItemLazy::sync).transpose()?;
            self.synced = true;
        }
        Ok(self.answer.as_ref().map(Adaptor::<T>::adapt))
    }
}

/// The queues of all metrics that still exist.
#[derive(Debug)]
pub(super) struct Feeds<O>(Arc<Mutex<Vec<Feed<O>>>>);

#[derive(Debug)]
struct Feed<O> {
    source: MetricSource,
    queue: Weak<AnswerQueue<O>>,
}

impl<O> Feeds<O> {
    /// A metric of this source's outputs.
    pub fn subscribe<Me: Metric>(
        &self,
        source: MetricSource,
        name: &str,
        metric: Me,
    ) -> SourceMetric<Me, O> {
        let queue = Arc::new(AnswerQueue::default());
        lock(&self.0).push(Feed { source, queue: Arc::downgrade(&queue) });
        let name = MetricName::new(format!("{} ({name})", metric.name()));
        SourceMetric { metric, name, queue, updated: false }
    }

    /// Empties all queues.
    pub fn clear(&self) {
        for queue in lock(&self.0).iter().filter_map(|feed| feed.queue.upgrade()) {
            lock(&queue).clear();
        }
    }

    /// The sources of all metrics that still exist, each once.
    pub fn sources(&self) -> Vec<MetricSource> {
        let mut feeds = lock(&self.0);
        feeds.retain(|feed| feed.queue.strong_count() > 0);
        let mut sources: Vec<MetricSource> = Vec::new();
        for feed in feeds.iter() {
            if !sources.contains(&feed.source) {
                sources.push(feed.source);
            }
        }
        sources
    }

    /// Queues the output of every source of a metric; `answer` returns `None` to queue nothing.
    pub fn feed(&self, mut answer: impl FnMut(MetricSource) -> Option<O>) {
        for source in self.sources() {
            let Some(answer) = answer(source) else { continue };
            let answer = Arc::new(Mutex::new(Lazy { answer: Some(answer), synced: false }));
            for feed in lock(&self.0).iter().filter(|feed| feed.source == source) {
                if let Some(queue) = feed.queue.upgrade() {
                    lock(&queue).push_back(answer.clone());
                }
            }
        }
    }
}

impl<O> Clone for Feeds<O> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<O> Default for Feeds<O> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

/// Locks a mutex, also after a panic: between any two lines here its content is consistent.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// A metric of the outputs of live, or of another average, in validation.
///
/// Made by [`Averaged::live_metric`](super::Averaged::live_metric) and
/// [`Averaged::average_metric`](super::Averaged::average_metric), and named after both: with
/// `LossMetric`, `Loss (live)`.
/// Register it for validation or for a test alone; in training it has no value.
#[derive(Debug)]
pub struct SourceMetric<Me, O> {
    metric: Me,
    name: MetricName,
    queue: Arc<AnswerQueue<O>>,
    /// True if there was an output since the last `clear`.
    updated: bool,
}

impl<Me: Clone, O> Clone for SourceMetric<Me, O> {
    fn clone(&self) -> Self {
        Self {
            metric: self.metric.clone(),
            name: self.name.clone(),
            queue: self.queue.clone(),
            updated: self.updated,
        }
    }
}

impl<Me: Metric, O: Adaptor<Me::Input> + ItemLazy> Metric for SourceMetric<Me, O> {
    type Input = ();

    fn name(&self) -> MetricName {
        self.name.clone()
    }

    fn description(&self) -> Option<String> {
        self.metric.description()
    }

    fn attributes(&self) -> MetricAttributes {
        self.metric.attributes()
    }

    fn update(
        &mut self,
        _: &(),
        metadata: &MetricMetadata,
    ) -> Result<SerializedEntry, TensorReadError> {
        // Only a step of training has a learning rate.
        if metadata.lr.is_some() {
            return Ok(SerializedEntry::not_available(None));
        }
        let Some(answer) = lock(&self.queue).pop_front() else {
            return Ok(SerializedEntry::not_available(None));
        };
        let input = lock(&answer).input::<Me::Input>();
        let Some(input) = input.map_err(TensorReadError::from)? else {
            return Ok(SerializedEntry::not_available(None));
        };
        self.updated = true;
        self.metric.update(&input, metadata)
    }

    fn compute(&mut self) -> Result<SerializedEntry, TensorReadError> {
        match self.updated {
            true => self.metric.compute(),
            false => Ok(SerializedEntry::not_available(None)),
        }
    }

    fn clear(&mut self) {
        self.updated = false;
        self.metric.clear();
    }
}

impl<Me: Metric + Numeric, O: Adaptor<Me::Input> + ItemLazy> Numeric for SourceMetric<Me, O> {
    fn value(&self) -> Option<NumericEntry> {
        self.updated.then(|| self.metric.value()).flatten()
    }

    fn running_value(&self) -> Option<NumericEntry> {
        self.updated.then(|| self.metric.running_value()).flatten()
    }

    fn final_value(&self) -> NumericEntry {
        self.metric.final_value()
    }
}
