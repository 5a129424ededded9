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
use burn_ema::{Error, Result, model::Batch};

/// Loads samples in batches of `batch_size`, the last of which may be smaller.
///
/// With a seed in `shuffle` each pass has another order, a function of the seed and the number of
/// the pass: the order of Burn's own loaders with this seed and no workers.
/// With `None` each pass has the order of the samples.
/// Each call of `iter` counts as a pass, even if no batch is read from it; then it costs nothing.
/// Calls of `slice` and `to_device` count as well, and their loaders have orders of their own.
///
/// The batches are on `device`; Burn's training moves its loaders to the devices that it trains on.
/// The loader and all loaders that `slice` and `to_device` make of it share the numbers.
/// A batch is made when it is read, as one copy of rows in memory; no worker prepares it ahead.
///
/// A `slice` panics on a range that is not within the samples.
///
/// # Errors
///
/// [`Error::Value`] for no samples, a batch size of 0, samples without inputs or targets, and
/// samples with another number of inputs or targets than the first. The error counts samples from
/// 0.
pub fn loader(
    samples: Vec<Sample>,
    batch_size: usize,
    shuffle: Option<u64>,
    device: &Device,
) -> Result<Arc<dyn DataLoader<Batch>>> {
    check(&samples, batch_size)?;
    let columns =
        |column: fn(&Sample) -> &Vec<f32>| FlatRows::new(samples.iter().map(column).collect());
    Ok(Arc::new(Loader {
        inputs: Arc::new(columns(|sample| &sample.inputs)),
        targets: Arc::new(columns(|sample| &sample.targets)),
        rows: 0..samples.len(),
        batch_size,
        random: shuffle.map(|seed| Mutex::new(ChaCha12Rng::seed_from_u64(seed))),
        device: device.clone(),
    }))
}

/// The inputs of all samples, `[rows, inputs]`, on a device.
///
/// # Errors
///
/// [`Error::Value`] for no samples, samples without inputs or targets, and samples with another
/// number of inputs or targets than the first.
pub fn inputs(samples: &[Sample], device: &Device) -> Result<Tensor<2>> {
    check(samples, 1)?;
    let rows = FlatRows::new(samples.iter().map(|sample| &sample.inputs).collect());
    Ok(rows.gather(&(0..samples.len()).collect::<Vec<_>>(), device))
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

/// Rows of `width` numbers each, one after the other.
struct FlatRows {
    numbers: Vec<f32>,
    width: usize,
}

impl FlatRows {
    fn new(rows: Vec<&Vec<f32>>) -> Self {
        let width = rows.first().map_or(0, |row| row.len());
        Self { numbers: rows.into_iter().flatten().copied().collect(), width }
    }

    /// The rows of these indices, as a tensor `[rows, width]`.
    fn gather(&self, rows: &[usize], device: &Device) -> Tensor<2> {
        // On a CPU the tensor takes over the memory of the vector.
        let mut numbers = Vec::with_capacity(rows.len() * self.width);
        for row in rows {
            numbers.extend_from_slice(&self.numbers[row * self.width..][..self.width]);
        }
        Tensor::from_data(TensorData::new(numbers, [rows.len(), self.width]), device)
    }
}

struct Loader {
    inputs: Arc<FlatRows>,
    targets: Arc<FlatRows>,
    /// The rows that the loader loads.
    rows: Range<usize>,
    batch_size: usize,
    /// The random numbers for the orders of passes; `None` if the loader does not shuffle.
    random: Option<Mutex<ChaCha12Rng>>,
    device: Device,
}

impl Loader {
    /// Separate random numbers for a pass, or for a loader made of this one; `None` without
    /// shuffling.
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
        Box::new(LoaderPass { loader: self, random: self.fork(), order: None, done: 0 })
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
struct LoaderPass<'a> {
    loader: &'a Loader,
    /// The random numbers for the order; `None` without shuffling.
    random: Option<ChaCha12Rng>,
    /// The rows in the order of this pass; `None` until the first batch is read.
    order: Option<Vec<usize>>,
    /// The number of rows that were loaded.
    done: usize,
}

impl Iterator for LoaderPass<'_> {
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

impl DataLoaderIterator<Batch> for LoaderPass<'_> {
    fn progress(&self) -> Progress {
        Progress::new(self.done, self.loader.num_items(), Some("items".to_owned()))
    }
}

#[cfg(test)]
mod tests;
