//! A loader that does something at a batch.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use burn::{
    data::{
        dataloader::{DataLoader, DataLoaderIterator, Progress},
        dataset::DatasetError,
    },
    tensor::Device,
};

/// Done with the number of each batch, from 1, over all epochs.
pub type AtBatch = Arc<dyn Fn(usize) + Send + Sync>;

/// The loader, with something that is done before each of its batches is made.
pub fn trapped<I: 'static>(
    loader: Arc<dyn DataLoader<I>>,
    at_batch: AtBatch,
) -> Arc<dyn DataLoader<I>> {
    Arc::new(Trapped { loader, at_batch, batches: Arc::default() })
}

struct Trapped<I> {
    loader: Arc<dyn DataLoader<I>>,
    at_batch: AtBatch,
    batches: Arc<AtomicUsize>,
}

impl<I: 'static> Trapped<I> {
    fn around(&self, loader: Arc<dyn DataLoader<I>>) -> Arc<dyn DataLoader<I>> {
        Arc::new(Self { loader, at_batch: self.at_batch.clone(), batches: self.batches.clone() })
    }
}

impl<I: 'static> DataLoader<I> for Trapped<I> {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<I> + 'a> {
        Box::new(Iter { trapped: self, batches: self.loader.iter() })
    }

    fn num_items(&self) -> usize {
        self.loader.num_items()
    }

    fn to_device(&self, device: &Device) -> Arc<dyn DataLoader<I>> {
        self.around(self.loader.to_device(device))
    }

    fn slice(&self, start: usize, end: usize) -> Arc<dyn DataLoader<I>> {
        self.around(self.loader.slice(start, end))
    }
}

struct Iter<'a, I> {
    trapped: &'a Trapped<I>,
    batches: Box<dyn DataLoaderIterator<I> + 'a>,
}

impl<I> Iterator for Iter<'_, I> {
    type Item = Result<I, DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        let batch = self.batches.next()?;
        let number = self.trapped.batches.fetch_add(1, Ordering::Relaxed) + 1;
        (self.trapped.at_batch)(number);
        Some(batch)
    }
}

impl<I> DataLoaderIterator<I> for Iter<'_, I> {
    fn progress(&self) -> Progress {
        self.batches.progress()
    }
}
