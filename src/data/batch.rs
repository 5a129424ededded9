//! Samples in batches of tensors, as Burn's training takes them.

use std::{
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};

use burn::data::dataloader::{DataLoader, DataLoaderIterator, Progress};
use burn::data::dataset::DatasetError;
use burn::tensor::{Device, Tensor, TensorData};
use rand::{SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha12Rng;

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
/// With a seed in `shuffle` each pass has another order, a function of the seed and the number of
/// the pass: that of Burn's own loaders with this seed and no workers.
/// Without one each pass has the order of the samples.
/// A call of `iter` is a pass, also where its batches are never asked for, and then costs nothing.
///
/// The batches are on `device`; Burn's training moves its loaders to the devices that it trains on.
/// The numbers are kept once, in one block, whatever is sliced or moved off the loader, and a batch
/// is copied from there into the memory of its tensors, when it is asked for.
/// There is no worker that prepares batches ahead: a batch is one copy of rows that are in memory.
///
/// A `slice` panics on a range that is not within the samples.
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
    let columns =
        |column: fn(&Sample) -> &Vec<f32>| Columns::new(samples.iter().map(column).collect());
    Ok(Arc::new(Loader {
        inputs: Arc::new(columns(|sample| &sample.inputs)),
        targets: Arc::new(columns(|sample| &sample.targets)),
        rows: 0..samples.len(),
        batch_size,
        random: shuffle.map(|seed| Mutex::new(ChaCha12Rng::seed_from_u64(seed))),
        device: device.clone(),
    }))
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

/// Rows of equally many numbers, one after the other.
struct Columns {
    numbers: Vec<f32>,
    width: usize,
}

impl Columns {
    fn new(rows: Vec<&Vec<f32>>) -> Self {
        let width = rows.first().map_or(0, |row| row.len());
        Self { numbers: rows.into_iter().flatten().copied().collect(), width }
    }

    /// Some of the rows, `[rows, width]`.
    fn gather(&self, rows: &[usize], device: &Device) -> Tensor<2> {
        // The vector becomes the tensor's memory where that is the host's.
        let mut numbers = Vec::with_capacity(rows.len() * self.width);
        for row in rows {
            numbers.extend_from_slice(&self.numbers[row * self.width..][..self.width]);
        }
        Tensor::from_data(TensorData::new(numbers, [rows.len(), self.width]), device)
    }
}

struct Loader {
    inputs: Arc<Columns>,
    targets: Arc<Columns>,
    /// Those of all rows that it loads.
    rows: Range<usize>,
    batch_size: usize,
    /// What the orders of its passes are drawn from, if it shuffles.
    random: Option<Mutex<ChaCha12Rng>>,
    device: Device,
}

impl Loader {
    /// Random numbers of their own for a pass, or for a loader made of this one.
    fn fork(&self) -> Option<ChaCha12Rng> {
        let random = self.random.as_ref()?;
        Some(random.lock().unwrap_or_else(PoisonError::into_inner).fork())
    }

    /// A loader of some of the rows, on a device.
    fn part(&self, rows: Range<usize>, device: &Device) -> Arc<dyn DataLoader<Batch>> {
        Arc::new(Self {
            inputs: self.inputs.clone(),
            targets: self.targets.clone(),
            rows,
            batch_size: self.batch_size,
            random: self.fork().map(Mutex::new),
            device: device.clone(),
        })
    }
}

impl DataLoader<Batch> for Loader {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<Batch> + 'a> {
        Box::new(Pass { loader: self, random: self.fork(), order: None, done: 0 })
    }

    fn num_items(&self) -> usize {
        self.rows.len()
    }

    fn to_device(&self, device: &Device) -> Arc<dyn DataLoader<Batch>> {
        self.part(self.rows.clone(), device)
    }

    fn slice(&self, start: usize, end: usize) -> Arc<dyn DataLoader<Batch>> {
        let count = self.num_items();
        assert!(start <= end && end <= count, "a slice {start}..{end} of a loader of {count} rows");
        self.part(self.rows.start + start..self.rows.start + end, &self.device)
    }
}

/// One pass over the rows of a loader.
struct Pass<'a> {
    loader: &'a Loader,
    /// What the order is drawn from, once the first batch is asked for.
    random: Option<ChaCha12Rng>,
    order: Option<Vec<usize>>,
    /// The rows that were loaded.
    done: usize,
}

impl Iterator for Pass<'_> {
    type Item = std::result::Result<Batch, DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        let Loader { inputs, targets, rows, batch_size, device, .. } = self.loader;
        let order = self.order.get_or_insert_with(|| {
            let mut order: Vec<_> = rows.clone().collect();
            if let Some(random) = &mut self.random {
                order.shuffle(random);
            }
            order
        });
        let rows = order[self.done..].chunks(*batch_size).next()?;
        self.done += rows.len();
        Some(Ok(Batch {
            inputs: inputs.gather(rows, device),
            targets: targets.gather(rows, device),
        }))
    }
}

impl DataLoaderIterator<Batch> for Pass<'_> {
    fn progress(&self) -> Progress {
        Progress::new(self.done, self.loader.num_items(), Some("items".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use burn::data::dataloader::{DataLoaderBuilder, batcher::Batcher};
    use burn::data::dataset::InMemDataset;

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

    /// As callers see it.
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

    /// Burn's loader of the same samples.
    fn burns(samples: Vec<Sample>, batch_size: usize, shuffle: Option<u64>) -> Loader {
        struct Stack;
        impl Batcher<Sample, Batch> for Stack {
            fn batch(&self, samples: Vec<Sample>, device: &Device) -> Batch {
                let stack = |row: fn(&Sample) -> &Vec<f32>| {
                    let values: Vec<f32> = samples.iter().flat_map(row).copied().collect();
                    let columns = values.len() / samples.len();
                    Tensor::from_data(TensorData::new(values, [samples.len(), columns]), device)
                };
                let targets = stack(|sample| &sample.targets);
                Batch { inputs: stack(|sample| &sample.inputs), targets }
            }
        }
        let builder = DataLoaderBuilder::new(Stack).batch_size(batch_size);
        match shuffle {
            Some(seed) => builder.shuffle(seed).build(InMemDataset::new(samples)),
            None => builder.build(InMemDataset::new(samples)),
        }
    }

    /// The numbers, batch sizes and progress of a pass.
    fn trace(loader: &Loader) -> Vec<(Vec<f32>, usize, Option<String>)> {
        let mut batches = loader.iter();
        let mut trace = Vec::new();
        while let Some(batch) = batches.next() {
            let Progress { items_processed, items_total, unit } = batches.progress();
            assert_eq!(items_total, loader.num_items());
            trace.push((values(batch.unwrap().targets), items_processed, unit));
        }
        assert!(batches.progress().is_completed());
        trace
    }

    #[test]
    fn orders_and_progress_are_those_of_burns_loader() {
        let device = Device::default();
        for seed in [None, Some(0), Some(1), Some(7), Some(u64::MAX)] {
            for (count, batch_size) in [(1, 1), (7, 3), (64, 8), (300, 7)] {
                let ours = load(samples(count), batch_size, seed).unwrap();
                let theirs = burns(samples(count), batch_size, seed);
                let passes = |loader: &Loader| {
                    let first = trace(loader);
                    let moved = loader.to_device(&device);
                    let parts = [loader.slice(0, count / 2), moved.slice(count / 2, count)];
                    // A pass that nobody takes is one.
                    drop(loader.iter());
                    let counts = parts.each_ref().map(|part| part.num_items());
                    let twice = parts[1].slice(0, counts[1] / 2);
                    let loaders = [loader, &parts[0], &parts[1], &twice, &moved, loader];
                    (first, counts, loaders.map(trace))
                };
                assert_eq!(passes(&ours), passes(&theirs), "{seed:?}, {count} by {batch_size}");
            }
        }
    }

    #[test]
    #[should_panic(expected = "a slice 2..8 of a loader of 7 rows")]
    fn a_slice_beyond_the_samples_panics() {
        load(samples(7), 3, None).unwrap().slice(2, 8);
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
