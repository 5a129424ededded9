//! Gauges of a plateau: how far live is from the average, in weights and in a metric.
//!
//! While the learning rate is high, live fluctuates: it is far from its average and has a higher
//! loss. Both differences fall with the learning rate. If live is no worse than its average,
//! averaging gains nothing more; if the gap stays, a lower rate helps.

use std::sync::{Arc, Mutex, Weak};

use burn::{
    tensor::TensorReadError,
    train::{
        ItemLazy,
        metric::{
            Adaptor, Metric, MetricAttributes, MetricMetadata, MetricName, Numeric,
            NumericAttributes, NumericEntry, SerializedEntry,
        },
    },
};

use super::metric::{SourceMetric, lock};

/// The value of a metric for live minus its value for the first average, in validation.
///
/// Made by [`Averaged::gap_metric`](super::Averaged::gap_metric).
/// For a loss, a positive gap is the gain of the average.
#[derive(Debug)]
pub struct Gap<Me, O> {
    average: Me,
    live: SourceMetric<Me, O>,
    name: MetricName,
}

impl<Me: Clone, O> Clone for Gap<Me, O> {
    fn clone(&self) -> Self {
        let Self { average, live, name } = self;
        Self { average: average.clone(), live: live.clone(), name: name.clone() }
    }
}

impl<Me: Metric + Numeric, O: Adaptor<Me::Input> + ItemLazy> Gap<Me, O> {
    pub(super) fn new(average: Me, live: SourceMetric<Me, O>) -> Self {
        let name = MetricName::new(format!("{} gap (live - average)", average.name()));
        Self { average, live, name }
    }

    fn of(live: &NumericEntry, average: &NumericEntry) -> NumericEntry {
        let gap = live.current() - average.current();
        match *average {
            NumericEntry::Aggregated { count, .. } => {
                NumericEntry::Aggregated { aggregated_value: gap, count }
            }
            NumericEntry::Final(_) => NumericEntry::Final(gap),
            NumericEntry::Value(_) => NumericEntry::Value(gap),
        }
    }

    fn entry(&self) -> SerializedEntry {
        match self.value() {
            Some(entry) => serialized(&entry),
            None => SerializedEntry::not_available(None),
        }
    }
}

impl<Me: Metric + Numeric, O: Adaptor<Me::Input> + ItemLazy> Metric for Gap<Me, O> {
    type Input = Me::Input;

    fn name(&self) -> MetricName {
        self.name.clone()
    }

    fn attributes(&self) -> MetricAttributes {
        self.average.attributes()
    }

    fn update(
        &mut self,
        item: &Me::Input,
        metadata: &MetricMetadata,
    ) -> Result<SerializedEntry, TensorReadError> {
        self.live.update(&(), metadata)?;
        self.average.update(item, metadata)?;
        Ok(self.entry())
    }

    fn compute(&mut self) -> Result<SerializedEntry, TensorReadError> {
        self.live.compute()?;
        self.average.compute()?;
        Ok(match self.live.value() {
            Some(_) => serialized(&self.final_value()),
            None => SerializedEntry::not_available(None),
        })
    }

    fn clear(&mut self) {
        self.live.clear();
        self.average.clear();
    }
}

impl<Me: Metric + Numeric, O: Adaptor<Me::Input> + ItemLazy> Numeric for Gap<Me, O> {
    fn value(&self) -> Option<NumericEntry> {
        Some(Self::of(&self.live.value()?, &self.average.value()?))
    }

    fn running_value(&self) -> Option<NumericEntry> {
        Some(Self::of(&self.live.running_value()?, &self.average.running_value()?))
    }

    fn final_value(&self) -> NumericEntry {
        Self::of(&self.live.final_value(), &self.average.final_value())
    }
}

/// The distance of live's weights from those of an average, as a share of the average's norm: see
/// [`Average::distance`](crate::Average::distance).
///
/// Made by [`Averaged::distance_metric`](super::Averaged::distance_metric). The distance is
/// measured once an epoch, when validation begins.
#[derive(Clone, Debug)]
pub struct DistanceMetric {
    name: MetricName,
    cell: Arc<Cell>,
    /// True if a batch of validation was seen since the last `clear`: the cell keeps its number
    /// while the next epoch trains.
    updated: bool,
}

/// The last measured distance; `None` before it, or if it could not be measured.
type Cell = Mutex<Option<f64>>;

/// The request of a metric: the index of an average, and the cell for its distance.
type DistanceRequest = (usize, Weak<Cell>);

/// The requests of all distance metrics.
#[derive(Clone, Debug, Default)]
pub(super) struct Gauges(Arc<Mutex<Vec<DistanceRequest>>>);

impl Gauges {
    /// A metric of the distance to this average.
    pub fn subscribe(&self, index: usize, name: &str) -> DistanceMetric {
        let cell = Arc::<Cell>::default();
        lock(&self.0).push((index, Arc::downgrade(&cell)));
        let name = MetricName::new(format!("Distance ({name})"));
        DistanceMetric { name, cell, updated: false }
    }

    /// Fills the cells of all metrics. `distance` maps the index of an average to its distance, or
    /// `None`.
    pub fn measure(&self, distance: impl Fn(usize) -> Option<f64>) {
        let mut gauges = lock(&self.0);
        gauges.retain(|(_, cell)| cell.strong_count() > 0);
        for (index, cell) in gauges.iter() {
            if let Some(cell) = cell.upgrade() {
                *lock(&cell) = distance(*index);
            }
        }
    }
}

impl Metric for DistanceMetric {
    type Input = ();

    fn name(&self) -> MetricName {
        self.name.clone()
    }

    fn attributes(&self) -> MetricAttributes {
        NumericAttributes { unit: None, higher_is_better: false }.into()
    }

    fn update(
        &mut self,
        _: &(),
        metadata: &MetricMetadata,
    ) -> Result<SerializedEntry, TensorReadError> {
        // Only a step of training has a learning rate.
        self.updated |= metadata.lr.is_none();
        Ok(match self.value() {
            Some(entry) => serialized(&entry),
            None => SerializedEntry::not_available(None),
        })
    }

    fn compute(&mut self) -> Result<SerializedEntry, TensorReadError> {
        Ok(match self.value() {
            Some(_) => serialized(&self.final_value()),
            None => SerializedEntry::not_available(None),
        })
    }

    fn clear(&mut self) {
        self.updated = false;
    }
}

impl Numeric for DistanceMetric {
    fn value(&self) -> Option<NumericEntry> {
        let distance = if self.updated { *lock(&self.cell) } else { None };
        distance.map(NumericEntry::Value)
    }

    fn running_value(&self) -> Option<NumericEntry> {
        self.value()
    }

    fn final_value(&self) -> NumericEntry {
        NumericEntry::Final(self.value().map_or(f64::NAN, |entry| entry.current()))
    }
}

fn serialized(entry: &NumericEntry) -> SerializedEntry {
    SerializedEntry::new(format!("{:.3e}", entry.current()), entry.serialize())
}
