//! The course of a few weights: live's and each average's, beside each other, in the run's history.
//!
//! The curves show what averaging does: live fluctuates, and an average follows its mean, with a
//! delay that grows with its memory.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use burn::{
    module::{Module, ModuleVisitor, Param},
    tensor::{Tensor, TensorReadError},
    train::{
        LearnerModel,
        metric::{Metric, MetricMetadata, MetricName, SerializedEntry},
    },
};
use serde::{Deserialize, Serialize};

use super::metric::lock;
use crate::{Average, Error, Result};

/// The most weights in one trace.
const WEIGHTS: usize = 4;

/// All of this many first steps are recorded, and as many between two powers of 2 later.
const DENSE: u64 = 64;

/// A few weights after a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trace {
    /// The optimizer step.
    pub step: u64,
    /// Which weights: path and place in the flat tensor, such as `layers.0.weight[1365]`.
    pub weights: Vec<String>,
    /// These weights in live; `None` for a weight that is not finite.
    pub live: Vec<Option<f32>>,
    /// The name of each average and these weights in it; `None` for a weight that is not finite.
    pub averages: Vec<(String, Vec<Option<f32>>)>,
}

/// A text metric: a few weights of live and of each average, which the history of a run keeps.
///
/// Made by [`Averaged::trace_metric`](super::Averaged::trace_metric).
/// The metric has a value after each of the first 64 steps, and after 64 steps between each two
/// powers of 2 from there on, so that a long training takes little more than a short one.
#[derive(Clone, Debug)]
pub struct TraceMetric {
    name: MetricName,
    queue: Arc<TraceQueue>,
}

/// One entry for each batch that the metric has not seen yet; `None` for a batch without a trace.
type TraceQueue = Mutex<VecDeque<Option<Trace>>>;

/// The queues of all metrics that still exist.
#[derive(Clone, Debug)]
pub(super) struct Traces {
    queues: Arc<Mutex<Vec<Weak<TraceQueue>>>>,
    /// The step of the last trace, which batches whose gradients are summed share; at first none,
    /// `u64::MAX`.
    last: Arc<AtomicU64>,
}

impl Default for Traces {
    fn default() -> Self {
        Self { queues: Arc::default(), last: Arc::new(AtomicU64::new(u64::MAX)) }
    }
}

impl Traces {
    pub fn subscribe(&self) -> TraceMetric {
        let queue = Arc::<TraceQueue>::default();
        lock(&self.queues).push(Arc::downgrade(&queue));
        TraceMetric { name: MetricName::new(TraceMetric::NAME.to_owned()), queue }
    }

    /// Queues an entry for a batch in every metric: a trace of a few weights if that is due at this
    /// step, else `None`.
    pub fn batch<M: LearnerModel>(
        &self,
        step: u64,
        live: &M,
        averages: impl FnOnce() -> Vec<Average<M>>,
    ) {
        let mut queues = lock(&self.queues);
        queues.retain(|queue| queue.strong_count() > 0);
        if queues.is_empty() {
            return;
        }
        let due = is_due(step) && self.last.swap(step, Ordering::Relaxed) != step;
        // If a weight cannot be read back, the step itself will return the error.
        let sample = if due { sample(step, live, &averages()).ok() } else { None };
        for queue in queues.iter().filter_map(Weak::upgrade) {
            lock(&queue).push_back(sample.clone());
        }
    }
}

/// True if weights are recorded at a step. This depends on the step alone, so that a resumed run
/// records the same steps.
fn is_due(step: u64) -> bool {
    let spacing = 1 << (step / DENSE).checked_ilog2().unwrap_or(0);
    step.is_multiple_of(spacing)
}

fn sample<M: LearnerModel>(step: u64, live: &M, averages: &[Average<M>]) -> Result<Trace> {
    let live = Flat::of(live);
    let places = live.places(WEIGHTS);
    let of = |average: &Average<M>| {
        let values = Flat::of(&average.module_as_kept()).values(&places)?;
        Ok((average.name().to_owned(), values))
    };
    Ok(Trace {
        step,
        weights: places.iter().map(|(path, index)| format!("{path}[{index}]")).collect(),
        live: live.values(&places)?,
        averages: averages.iter().map(of).collect::<Result<_>>()?,
    })
}

/// The float parameters of a module, each with one dimension, in the module's order.
#[derive(Default)]
struct Flat {
    path: Vec<String>,
    found: Vec<FlatParameter>,
}

struct FlatParameter {
    path: String,
    is_matrix: bool,
    weights: Tensor<1>,
}

impl Flat {
    fn of<M: Module>(module: &M) -> Self {
        let mut flat = Self::default();
        module.visit(&mut flat);
        flat
    }

    /// At most `most` weights, by path and place: of the first and of the last matrix, or of other
    /// parameters if there is no matrix. They are away from the edges, where the pixels of a
    /// picture are often blank.
    fn places(&self, most: usize) -> Vec<(String, usize)> {
        let filled = self.found.iter().filter(|parameter| parameter.weights.dims() != [0]);
        let mut shown: Vec<_> = filled.collect();
        if shown.iter().any(|parameter| parameter.is_matrix) {
            shown.retain(|parameter| parameter.is_matrix);
        }
        let ends = match &shown[..] {
            [] => Vec::new(),
            [only] => vec![only],
            [first, .., last] => vec![first, last],
        };
        let each = most / ends.len().max(1);
        let spread = |parameter: &&&FlatParameter| {
            let [count] = parameter.weights.dims();
            let mut places: Vec<_> = (1..=each).map(|part| part * count / (each + 1)).collect();
            places.dedup();
            let path = parameter.path.clone();
            places.into_iter().map(|place| (path.clone(), place)).collect::<Vec<_>>()
        };
        ends.iter().flat_map(spread).collect()
    }

    /// The weights at these places; `None` for a weight that is not finite, which JSON cannot hold.
    fn values(&self, places: &[(String, usize)]) -> Result<Vec<Option<f32>>> {
        let value = |(path, place): &(String, usize)| {
            let missing = || Error::parameter(path, format!("a weight {place}"), "none");
            let parameter = self.found.iter().find(|parameter| parameter.path == *path);
            let weights = parameter.ok_or_else(missing)?.weights.clone();
            if *place >= weights.dims()[0] {
                return Err(missing());
            }
            let read = weights.narrow(0, *place, 1).try_into_scalar::<f32>();
            let value = read.map_err(Error::other)?;
            Ok(Some(value).filter(|value| value.is_finite()))
        };
        places.iter().map(value).collect()
    }
}

impl ModuleVisitor for Flat {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let weights = param.base().without_autodiff();
        // A quantized base has no single weights to read.
        if weights.dtype().is_float() {
            let weights = weights.reshape([-1]);
            self.found.push(FlatParameter { path: self.path.join("."), is_matrix: D > 1, weights });
        }
    }
}

impl TraceMetric {
    /// The name of the metric, by which its lines in the history are known.
    pub const NAME: &str = "Weights";
}

impl Metric for TraceMetric {
    type Input = ();

    fn name(&self) -> MetricName {
        self.name.clone()
    }

    fn update(
        &mut self,
        _: &(),
        metadata: &MetricMetadata,
    ) -> Result<SerializedEntry, TensorReadError> {
        // Only a step of training has a learning rate.
        if metadata.lr.is_none() {
            return Ok(SerializedEntry::not_available(None));
        }
        let sample = lock(&self.queue).pop_front().flatten();
        let text = sample.and_then(|sample| {
            let serialized = serde_json::to_string(&sample).ok()?;
            Some(SerializedEntry::new(format!("step {}", sample.step), serialized))
        });
        Ok(text.unwrap_or_else(|| SerializedEntry::not_available(None)))
    }

    fn compute(&mut self) -> Result<SerializedEntry, TensorReadError> {
        Ok(SerializedEntry::not_available(None))
    }

    fn clear(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_training_takes_little_more_than_a_short_one() {
        let until = |steps| (0..steps).filter(|&step| is_due(step)).count();
        assert_eq!([until(1), until(65), until(128)], [1, 65, 128]);
        assert_eq!([until(256), until(512), until(1024)], [192, 256, 320]);
        assert_eq!(until(1 << 20), 960);
    }
}
