//! The statistics of batch norms, computed anew for weights that no training pass has seen.
//!
//! Burn exposes a batch norm's running statistics and nothing else of the layer, so the statistics
//! of a batch are computed from those: a pass in training mode replaces `r` by `(1 - m) r + m b`,
//! with the layer's momentum `m` and the batch's statistic `b`.
//! A pass from `r = 0` leaves `m b`, which keeps all digits of `b`.
//! A pass from an `r` so large that `b` is lost beside it leaves `(1 - m) r`. This gives `m`,
//! whatever the batch and whatever dropout does, with one more pass over the first batch.

use std::{collections::BTreeMap, sync::Arc};

use burn::{
    data::dataset::DatasetError,
    module::{Module, ParamId},
    tensor::{DType, Shape, Tensor, TensorData},
};

use super::walk::{self, Entry, Parameter, ParameterKind};
use crate::{Error, Result};

/// The module with the statistics of its batch norms computed anew, over all the batches.
///
/// An average's weights never ran in training, so the statistics that it copied from live
/// describe the activations of other weights.
/// Where these differ much, as after few or wide updates, the average's outputs are bad until its
/// own statistics are computed: one pass over the training data, without gradients (Izmailov et
/// al., [Averaging Weights Leads to Wider Optima and Better Generalization][swa], 2018, section
/// 3.2).
///
/// As PyTorch's `update_bn`, this runs the weights in training mode, dropout included, and gives
/// each batch norm the cumulative mean of its batches' statistics:
///
/// ```text
/// running_mean = (mean(batch 1) + ... + mean(batch n)) / n
/// running_var  = (var(batch 1)  + ... + var(batch n))  / n
/// ```
///
/// Every batch counts as much as any other, also a smaller last one.
/// `var` is Burn's, which divides by the number of values, not by one less as PyTorch's.
/// A batch norm's mean is over the batches that reach it.
/// A batch norm that `forward` runs several times on a batch is treated as one whose momentum is
/// that of all these runs together, so that the last of them weighs the most.
/// Frozen batch norms keep their statistics, and so do running states of other layers, whose
/// formula only the layer knows.
///
/// `forward` runs the model on one batch, which must lie on an autodiff device; what it returns
/// is dropped.
/// `forward` runs once for every batch, and once more for the first one that reaches a batch norm.
/// No gradient is tracked: the memory is that of an inference on one batch.
///
/// The returned module is in validation mode, without autodiff, with the same ids, and with
/// everything but the statistics bit for bit as it was.
///
/// ```
/// use burn::{nn::BatchNormConfig, tensor::{Device, Tensor}};
/// use burn_ema::reestimate_statistics;
///
/// let device = Device::default();
/// let averaged = BatchNormConfig::new(1).init(&device); // in truth `average.module()`
///
/// // With a data loader: `loader.to_device(&device.clone().autodiff()).iter()`.
/// let autodiff = device.clone().autodiff();
/// let batches = [[[1.0], [3.0]], [[2.0], [6.0]]];
/// let batches = batches.map(|rows| Ok(Tensor::<2>::from_data(rows, &autodiff)));
/// let averaged = reestimate_statistics(&averaged, batches, |model, batch| model.forward(batch))?;
///
/// let [mean, var] = [&averaged.running_mean, &averaged.running_var]
///     .map(|statistic| statistic.value().into_scalar::<f32>());
/// assert!((mean - (2.0 + 4.0) / 2.0).abs() < 1e-6);
/// assert!((var - (1.0 + 4.0) / 2.0).abs() < 1e-6);
/// # Ok::<_, burn_ema::Error>(())
/// ```
///
/// # Precision
///
/// In f32 a mean is right to about 2e-7 of the batches' own, given the momentum.
/// The momentum `m` itself is known as `1 - m` in the dtype of the statistics: the shortest
/// decimal that agrees is used, most likely the one that was configured, such as 0.1.
/// A momentum of more digits than the dtype holds is off by at most half an epsilon
/// (6e-8 in f32), and the statistics by that share of it.
///
/// # Errors
///
/// A module without a batch norm that trains; no batch, or one that could not be loaded; a batch
/// norm that no batch reaches in training mode; a batch norm of momentum 0, or too close to 0 for
/// the dtype, since its statistics hold nothing of the batch; statistics that are not finite, or
/// that cannot be read back from their device.
/// The given module is never changed.
///
/// [swa]: https://arxiv.org/abs/1803.05407
pub fn reestimate_statistics<M: Module, B: Clone, T>(
    module: &M,
    batches: impl IntoIterator<Item = Result<B, DatasetError>>,
    mut forward: impl FnMut(&M, B) -> T,
) -> Result<M> {
    // `clone` would share the statistics with the given module; `valid` does not.
    let module = module.valid();
    let mut layers = layers(&module)?;
    let mut number = 0;
    for batch in batches {
        number += 1;
        let batch = batch.map_err(|source| Error::Batch { number, source: Arc::new(source) })?;
        let again = layers.iter().any(|layer| layer.momentum.is_none()).then(|| batch.clone());

        let mut passed = pass(&module, &layers, |_| NOTHING, |module| forward(module, batch))?;
        let mut unread = false;
        for layer in &mut layers {
            layer.add(&mut passed, number)?;
            unread |= layer.batches > 0 && layer.momentum.is_none();
        }
        if let Some(batch) = again.filter(|_| unread) {
            let passed =
                pass(&module, &layers, Statistic::beyond, |module| forward(module, batch))?;
            for layer in &mut layers {
                layer.read_momentum(&passed)?;
            }
        }
    }
    if number == 0 {
        return Err(Error::value("the number of batches", "at least 1", number));
    }
    let mut means = BTreeMap::new();
    for layer in layers {
        layer.means(number, &mut means)?;
    }
    Ok(walk::load(module, |path| means.remove(path)))
}

/// The start of a statistic that a pass turns into `m b`: -0, whose sign any pass removes, so that
/// a layer that no pass reached differs from one whose batch was all zeros.
const NOTHING: f64 = -0.0;

/// The statistics after a pass, by path.
type Passed = BTreeMap<String, Vec<f64>>;

/// A batch norm that trains.
struct Layer {
    /// The layer's path in the module.
    path: String,
    mean: Statistic,
    var: Statistic,
    /// How many batches have reached the layer.
    batches: u64,
    /// The share of a pass in the layer's statistics; `None` until it is known.
    momentum: Option<f64>,
}

/// One of the two statistics of a batch norm.
struct Statistic {
    path: String,
    id: ParamId,
    dtype: DType,
    shape: Shape,
    /// The sum over the batches of the momentum times the batch's statistic.
    sum: Vec<f64>,
    /// The last term of that sum.
    last: Vec<f64>,
}

/// The batch norms of the module that train.
fn layers<M: Module>(module: &M) -> Result<Vec<Layer>> {
    let flags = walk::flags(&module.valid().train());
    let mut statistics: BTreeMap<_, _> = walk::parameters(module)?
        .into_iter()
        .filter(|parameter| parameter.kind == ParameterKind::Statistic)
        .map(|parameter| (parameter.path.clone(), Statistic::new(parameter)))
        .collect();
    let mut layers = Vec::new();
    for path in walk::batch_norm_means(module) {
        let prefix = path.trim_end_matches("running_mean");
        if flags.get(&format!("{prefix}training")) == Some(&false) {
            continue;
        }
        let mut take = |name: &str| {
            let path = format!("{prefix}{name}");
            let found = statistics.remove(&path);
            found.ok_or_else(|| Error::parameter(path, "a statistic of a batch norm", "nothing"))
        };
        layers.push(Layer {
            path: if prefix.is_empty() { "the module" } else { prefix.trim_end_matches('.') }
                .into(),
            mean: take("running_mean")?,
            var: take("running_var")?,
            batches: 0,
            momentum: None,
        });
    }
    if layers.is_empty() {
        return Err(Error::value("the module", "one with a batch norm that trains", "without one"));
    }
    Ok(layers)
}

/// The statistics that a pass in training mode leaves, from the given start of each.
///
/// # Errors
///
/// Statistics that cannot be read back, such as from a device that is gone.
fn pass<M: Module, T>(
    module: &M,
    layers: &[Layer],
    start: impl Fn(&Statistic) -> f64,
    forward: impl FnOnce(&M) -> T,
) -> Result<Passed> {
    let mut starts: BTreeMap<_, _> = layers
        .iter()
        .flat_map(|layer| [(&layer.mean, start(&layer.mean)), (&layer.var, NOTHING)])
        .map(|(statistic, start)| {
            let values = vec![start; statistic.shape.num_elements()];
            (statistic.path.as_str(), statistic.entry(values))
        })
        .collect();
    let module = walk::load(module.valid(), |path| starts.remove(path)).train().no_grad();
    drop(forward(&module));
    let paths = layers.iter().flat_map(|layer| [&layer.mean.path, &layer.var.path]);
    walk::statistics(&module, &paths.cloned().collect())
        .into_iter()
        .map(|(path, tensor)| {
            let data = Tensor::<1>::from_dispatch(tensor).try_into_data().map_err(|error| {
                Error::parameter(&path, "statistics that can be read back", error)
            })?;
            Ok((path, data.iter::<f64>().collect()))
        })
        .collect()
}

impl Layer {
    /// Adds the statistics of a pass over a batch to the sums, if the pass reached the layer.
    fn add(&mut self, passed: &mut Passed, number: u64) -> Result<()> {
        if !self.reached(passed) {
            return Ok(());
        }
        for statistic in [&mut self.mean, &mut self.var] {
            statistic.last = passed.remove(&statistic.path).unwrap_or_default();
            if let Some(value) = statistic.last.iter().find(|value| !value.is_finite()) {
                let found = format!("{value} from batch {number}");
                return Err(Error::parameter(&statistic.path, "finite statistics", found));
            }
            for (sum, value) in statistic.sum.iter_mut().zip(&statistic.last) {
                *sum += value;
            }
        }
        self.batches += 1;
        Ok(())
    }

    /// True if the pass reached the layer in training mode.
    fn reached(&self, passed: &Passed) -> bool {
        let untouched = |value: &f64| value.to_bits() == NOTHING.to_bits();
        passed.get(&self.var.path).is_some_and(|values| !values.iter().all(untouched))
    }

    /// Reads the momentum off a pass whose mean started [beyond](Statistic::beyond) the batch's.
    fn read_momentum(&mut self, passed: &Passed) -> Result<()> {
        if self.momentum.is_some() || self.batches == 0 || !self.reached(passed) {
            return Ok(());
        }
        let beyond = self.mean.beyond();
        // In half precision no number is so large that the batch is lost beside it. So the channel
        // with the smallest batch mean is used, without the part that the batch has added.
        let channels = self.mean.last.iter().zip(passed.get(&self.mean.path).into_iter().flatten());
        let Some((added, found)) = channels.min_by(|a, b| a.0.abs().total_cmp(&b.0.abs())) else {
            return Ok(());
        };
        let momentum = shortest_decimal(1.0 - (found - added) / beyond, self.mean.epsilon() / 2.0);
        if momentum.is_nan() || momentum <= 0.0 {
            let expected = "a momentum above 0, or a frozen batch norm";
            return Err(Error::parameter(&self.path, expected, format!("momentum {momentum}")));
        }
        self.momentum = Some(momentum);
        Ok(())
    }

    /// The means over the batches, by path.
    fn means(self, number: u64, means: &mut BTreeMap<String, Entry>) -> Result<()> {
        let Some(momentum) = self.momentum else {
            let expected = "a batch norm that is reached on an autodiff device, or a frozen one";
            let found = format!("{} of {number} batches that reach it so", self.batches);
            return Err(Error::parameter(self.path, expected, found));
        };
        for statistic in [self.mean, self.var] {
            let scale = self.batches as f64 * momentum;
            let entry = statistic.entry(statistic.sum.iter().map(|sum| sum / scale).collect());
            if let Some(value) = entry.data.iter::<f64>().find(|value| !value.is_finite()) {
                return Err(Error::parameter(&statistic.path, "finite statistics", value));
            }
            means.insert(statistic.path, entry);
        }
        Ok(())
    }
}

impl Statistic {
    fn new(parameter: Parameter) -> Self {
        let Parameter { path, id, tensor, .. } = parameter;
        let tensor = Tensor::<1>::from_dispatch(tensor);
        let (dtype, shape) = (tensor.dtype(), tensor.shape());
        Self { path, id, dtype, sum: vec![0.0; shape.num_elements()], last: Vec::new(), shape }
    }

    fn entry(&self, values: Vec<f64>) -> Entry {
        let data = TensorData::new(values, self.shape.clone()).convert_dtype(self.dtype);
        Entry { id: self.id, data }
    }

    /// A power of two that is far above every mean, as far as the dtype has one.
    fn beyond(&self) -> f64 {
        match self.dtype {
            DType::F16 | DType::Flex32 => 2f64.powi(15),
            _ => 2f64.powi(100),
        }
    }

    /// The distance from 1 to the next number of the dtype.
    fn epsilon(&self) -> f64 {
        self.dtype.finfo().map_or(0.0, |info| info.epsilon)
    }
}

/// The number with the fewest decimals that is within `distance` of `value`; `value` if none is.
fn shortest_decimal(value: f64, distance: f64) -> f64 {
    (0..=17)
        .map(|decimals| {
            let scale = 10f64.powi(decimals);
            (value * scale).round() / scale
        })
        .find(|decimal| (decimal - value).abs() <= distance)
        .unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use burn::{
        module::ParamId,
        tensor::{DType, Shape},
    };

    use super::{Layer, Statistic, shortest_decimal};

    #[test]
    fn a_momentum_is_found_from_its_complement_in_single_precision() {
        let half = f64::from(f32::EPSILON) / 2.0;
        let found =
            |momentum: f64| shortest_decimal(1.0 - f64::from((1.0 - momentum) as f32), half);
        for written in [1.0, 0.999, 0.5, 0.1, 0.0625, 0.03, 0.01, 0.0125, 0.001, 1e-4, 1e-5, 0.0] {
            assert_eq!(found(written), written);
        }
        for odd in [1.0 / 3.0, 0.1_f64.sqrt(), 1.0 - 0.99_f64.powi(7)] {
            assert!((found(odd) - odd).abs() <= half, "{odd}");
        }
    }
    #[test]
    fn in_half_precision_the_quietest_channel_shows_the_momentum() {
        let statistic = |path: &str, last: &[f64]| Statistic {
            path: path.into(),
            id: ParamId::new(),
            dtype: DType::F16,
            shape: Shape::new([2]),
            sum: vec![0.0; 2],
            last: last.into(),
        };
        let mut layer = Layer {
            path: "norm".into(),
            mean: statistic("mean", &[900.0, 2.0]),
            var: statistic("var", &[1.0, 1.0]),
            batches: 1,
            momentum: None,
        };
        // Dropout took less from the first channel this time.
        let passed = [("mean", [29491.0 + 1300.0, 29491.0 + 3.0]), ("var", [1.0, 1.0])];
        let passed = passed.map(|(path, values)| (path.to_owned(), values.into())).into();
        layer.read_momentum(&passed).unwrap();
        assert_eq!(layer.momentum, Some(0.1));
    }
}
