//! The modules that compute outputs in validation, and the metrics of live and of other averages.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use burn::train::{
    InferenceStep, LearnerModel,
    metric::{Adaptor, Metric},
};

use crate::{
    Average, Result,
    train::{
        gauge::{DistanceMetric, Gauges},
        metric::{Feeds, MetricSource, SourceMetric},
        trace::{TraceMetric, Traces},
    },
};

/// The output of a model in validation.
pub(super) type Output<M> = <M as InferenceStep>::Output;

/// Computes the outputs of validation batches: by the first average, and by live and other averages
/// if a metric asks for them.
#[derive(Clone)]
pub(super) struct Validation<M: LearnerModel> {
    feeds: Feeds<Output<M>>,
    gauges: Gauges,
    traces: Traces,
    /// The modules that compute the outputs, without the lock; `None` outside of validation mode.
    modules: Option<Box<Modules<M>>>,
}

#[derive(Clone)]
struct Modules<M> {
    first: M,
    /// The other averages that a metric asks for.
    others: Vec<(MetricSource, M)>,
    /// True once the outputs of a batch were computed.
    begun: Arc<AtomicBool>,
}

impl<M: LearnerModel> Validation<M> {
    /// A metric of the outputs of live.
    pub fn live_metric<Me: Metric>(&self, metric: Me) -> SourceMetric<Me, Output<M>>
    where
        Output<M>: Adaptor<Me::Input>,
    {
        self.feeds.subscribe(MetricSource::Live, "live", metric)
    }

    /// A metric of the outputs of an average.
    pub fn average_metric<Me: Metric>(
        &self,
        index: usize,
        name: &str,
        metric: Me,
    ) -> SourceMetric<Me, Output<M>>
    where
        Output<M>: Adaptor<Me::Input>,
    {
        self.feeds.subscribe(MetricSource::Average(index), name, metric)
    }

    /// A metric of the distance of live from an average.
    pub fn distance_metric(&self, index: usize, name: &str) -> DistanceMetric {
        self.gauges.subscribe(index, name)
    }

    /// A metric of a few weights.
    pub fn trace_metric(&self) -> TraceMetric {
        self.traces.subscribe()
    }

    /// Records a few weights before a batch of training, if a metric asks for them.
    pub fn trace(&self, step: u64, live: &M, averages: impl FnOnce() -> Vec<Average<M>>) {
        self.traces.batch(step, live, averages);
    }

    /// This validation with modules that are made from these averages; `live` is in validation
    /// mode.
    ///
    /// # Errors
    ///
    /// Averages that do not fit live.
    pub fn snapshot(&self, averages: &[Average<M>], live: &M) -> Result<Self> {
        let others = self.feeds.sources().into_iter().filter_map(|source| match source {
            MetricSource::Live => None,
            MetricSource::Average(index) => {
                let module = averages.get(index)?.module_like(live);
                Some(module.map(|module| (source, module)))
            }
        });
        let modules = Modules {
            others: others.collect::<Result<_>>()?,
            first: averages[0].module_like(live)?,
            begun: Arc::default(),
        };
        Ok(Self { modules: Some(Box::new(modules)), ..self.clone() })
    }

    /// Measures how far live is from the averages, if a metric asks for it.
    pub fn measure(&self, averages: &[Average<M>], live: &M) {
        self.gauges.measure(|index| {
            let distance = averages.get(index)?.distance(live).ok()?;
            Some(distance.relative)
        });
    }

    /// This validation without its modules, for use after live was mapped or restored from a
    /// record: the modules were made for live as it was before.
    pub fn without_modules(self) -> Self {
        Self { modules: None, ..self }
    }

    /// This validation with each module mapped, such as to another device.
    pub fn map(self, mut map: impl FnMut(M) -> M) -> Self {
        let modules = self.modules.map(|modules| {
            let Modules { first, others, begun } = *modules;
            let others = others.into_iter().map(|(source, module)| (source, map(module)));
            Box::new(Modules { others: others.collect(), first: map(first), begun })
        });
        Self { modules, ..self }
    }

    /// True if this is a snapshot with modules; [`answer`](Self::answer) can then compute the
    /// outputs of a batch. Call this before each batch of a validation.
    ///
    /// The first call on a snapshot removes the outputs that wait for their metrics: an earlier
    /// validation that did not end may have left some.
    pub fn begins_answer(&self) -> bool {
        let Some(modules) = &self.modules else { return false };
        if !modules.begun.swap(true, Ordering::Relaxed) {
            self.feeds.clear();
        }
        true
    }

    /// Returns the output of the first average for a batch, and queues the outputs of live and of
    /// other averages for their metrics.
    ///
    /// # Panics
    ///
    /// A validation without modules.
    pub fn answer(&self, live: &M, item: <M as InferenceStep>::Input) -> Output<M>
    where
        <M as InferenceStep>::Input: Clone,
    {
        let Some(modules) = &self.modules else { unreachable!("a snapshot has modules") };
        self.feeds.feed(|source| {
            let module = match source {
                MetricSource::Live => Some(live),
                average => {
                    let others = &modules.others;
                    others.iter().find(|(other, _)| *other == average).map(|(_, module)| module)
                }
            };
            module.map(|module| InferenceStep::step(module, item.clone()))
        });
        InferenceStep::step(&modules.first, item)
    }
}

impl<M: LearnerModel> Default for Validation<M> {
    fn default() -> Self {
        let (feeds, gauges, traces) = Default::default();
        Self { feeds, gauges, traces, modules: None }
    }
}
