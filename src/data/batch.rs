//! Samples in batches of tensors, as Burn's training takes them.

use std::sync::Arc;

use burn::data::dataloader::batcher::Batcher;
use burn::data::dataloader::{DataLoader, DataLoaderBuilder};
use burn::data::dataset::InMemDataset;
use burn::tensor::{Device, Tensor, TensorData};

use super::prepared::Sample;
use crate::{Error, Result};

/// Samples as tensors, one a row.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The inputs, `[batch, inputs]`.
    pub inputs: Tensor<2>,
    /// What the outputs should be, `[batch, outputs]`.
    pub targets: Tensor<2>,
}

/// Loads samples in batches of `batch_size`, the last of which may be smaller.
///
/// With a seed in `shuffle` each pass has another order, which the seed decides; without one each
/// pass has the order of the samples.
/// The batches are on `device`; Burn's training moves its loaders to the devices that it trains on.
///
/// # Errors
///
/// [`Error::Value`] for no samples, a batch size of 0, and samples without inputs or targets or
/// with other numbers of them than the first (counted from 0).
pub fn loader(
    samples: Vec<Sample>,
    batch_size: usize,
    shuffle: Option<u64>,
    device: &Device,
) -> Result<Arc<dyn DataLoader<Batch>>> {
    check(&samples, batch_size)?;
    // No set_device would mean the default device, which panics where the environment names one
    // that was not built in.
    let builder = DataLoaderBuilder::new(SampleBatcher)
        // Burn reserves memory for the batch size at once.
        .batch_size(batch_size.min(samples.len()))
        // Rows are in memory already, so other threads would only add waiting.
        .num_workers(0)
        .set_device(device.clone());
    let builder = match shuffle {
        Some(seed) => builder.shuffle(seed),
        None => builder,
    };
    Ok(builder.build(InMemDataset::new(samples)))
}

/// Refuses what would panic or never end in a loader.
fn check(samples: &[Sample], batch_size: usize) -> Result<()> {
    if batch_size == 0 {
        return Err(Error::value("the batch size", "1 or more", 0));
    }
    let Some(first) = samples.first() else {
        return Err(Error::value("the number of samples", "1 or more", 0));
    };
    let shape = |sample: &Sample| (sample.inputs.len(), sample.targets.len());
    let show = |(inputs, targets)| format!("{inputs} inputs and {targets} targets");
    if first.inputs.is_empty() || first.targets.is_empty() {
        return Err(Error::value("sample 0", "1 or more inputs and targets", show(shape(first))));
    }
    match samples.iter().position(|sample| shape(sample) != shape(first)) {
        None => Ok(()),
        Some(index) => {
            let what = format!("sample {index}");
            Err(Error::value(what, show(shape(first)), show(shape(&samples[index]))))
        }
    }
}

/// Stacks samples that are alike in their lengths.
struct SampleBatcher;

impl Batcher<Sample, Batch> for SampleBatcher {
    fn batch(&self, samples: Vec<Sample>, device: &Device) -> Batch {
        let stack = |row: fn(&Sample) -> &Vec<f32>| {
            let rows = samples.len();
            let values: Vec<f32> = samples.iter().flat_map(row).copied().collect();
            let columns = values.len() / rows.max(1);
            Tensor::from_data(TensorData::new(values, [rows, columns]), device)
        };
        Batch { inputs: stack(|sample| &sample.inputs), targets: stack(|sample| &sample.targets) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Samples with the inputs `[i, i + 0.5]` and the target `[-i]`.
    fn samples(count: usize) -> Vec<Sample> {
        let sample =
            |i| Sample { inputs: vec![i as f32, i as f32 + 0.5], targets: vec![-(i as f32)] };
        (0..count).map(sample).collect()
    }

    fn load(samples: Vec<Sample>, batch_size: usize, shuffle: Option<u64>) -> Result<Loader> {
        loader(samples, batch_size, shuffle, &Device::default())
    }

    type Loader = Arc<dyn DataLoader<Batch>>;

    fn values(tensor: Tensor<2>) -> Vec<f32> {
        tensor.into_data().try_to_vec().unwrap()
    }

    /// The numbers of the samples of one pass, after a check that inputs and targets belong.
    fn pass(loader: &Loader) -> Vec<f32> {
        let targets = |batch: Batch| {
            let (inputs, targets) = (values(batch.inputs), values(batch.targets));
            for (input, target) in inputs.chunks_exact(2).zip(&targets) {
                assert_eq!(input, [-target, -target + 0.5]);
            }
            targets.into_iter().map(|target| -target)
        };
        loader.iter().flat_map(|batch| targets(batch.unwrap())).collect()
    }

    #[test]
    fn batches_hold_the_samples_in_their_order() {
        let loader = load(samples(7), 3, None).unwrap();
        let batches: Vec<_> = loader.iter().map(Result::unwrap).collect();
        let shapes: Vec<_> =
            batches.iter().map(|batch| (batch.inputs.dims(), batch.targets.dims())).collect();
        assert_eq!(shapes, [([3, 2], [3, 1]), ([3, 2], [3, 1]), ([1, 2], [1, 1])]);
        assert_eq!(pass(&loader), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        assert_eq!(loader.num_items(), 7);
    }

    #[test]
    fn a_seed_decides_the_order_of_each_pass() {
        for seed in 0..5 {
            let passes = || {
                let loader = load(samples(50), 8, Some(seed)).unwrap();
                [pass(&loader), pass(&loader)]
            };
            let [first, second] = passes();
            assert_eq!([first.clone(), second.clone()], passes());
            assert_ne!(first, second);
            let mut sorted = first.clone();
            sorted.sort_by(f32::total_cmp);
            assert_ne!(first, sorted);
            assert_eq!(sorted, pass(&load(samples(50), 8, None).unwrap()));
        }
    }

    #[test]
    fn a_batch_larger_than_the_samples_is_all_of_them() {
        let loader = load(samples(4), usize::MAX, None).unwrap();
        assert_eq!(loader.iter().count(), 1);
        assert_eq!(pass(&loader).len(), 4);
    }

    #[test]
    fn what_cannot_be_loaded_is_refused() {
        let refusal = |samples, size| load(samples, size, None).err().unwrap().to_string();
        assert_eq!(refusal(samples(3), 0), "the batch size is 0, expected 1 or more");
        assert_eq!(refusal(vec![], 1), "the number of samples is 0, expected 1 or more");
        let mut uneven = samples(3);
        uneven[2].inputs.pop();
        assert_eq!(
            refusal(uneven, 2),
            "sample 2 is 1 inputs and 1 targets, expected 2 inputs and 1 targets"
        );
        let empty = vec![Sample { inputs: vec![], targets: vec![1.0] }];
        assert!(refusal(empty, 1).starts_with("sample 0 is 0 inputs"));
    }
}
