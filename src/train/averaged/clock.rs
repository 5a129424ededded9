//! The steps and samples that a clone of the hook has seen.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use burn::train::{LearnerModel, TrainStep};

/// The number of samples in a batch.
type CountSamples<M> = Arc<dyn Fn(&<M as TrainStep>::Input) -> u64 + Send + Sync>;

/// Counts optimizer steps in each clone, so that replicas that share the averages count a step
/// once, and samples in all clones together.
#[derive(Clone)]
pub(super) struct StepClock<M: LearnerModel> {
    /// The optimizer steps that were made.
    pub steps: u64,
    /// The optimizer steps including refused ones, as the schedule of the learning rate counts
    /// them.
    pub attempted: u64,
    /// The changes of live since the last step that were made outside of `optimize`; `None` in a
    /// validation snapshot that can compute outputs, whose changes concern no training.
    pub bypassed: Option<u64>,
    samples: Arc<AtomicU64>,
    count: Option<CountSamples<M>>,
}

impl<M: LearnerModel> StepClock<M> {
    pub fn count_by(
        &mut self,
        count: impl Fn(&<M as TrainStep>::Input) -> u64 + Send + Sync + 'static,
    ) {
        self.count = Some(Arc::new(count));
    }

    pub fn counts_samples(&self) -> bool {
        self.count.is_some()
    }

    pub fn samples(&self) -> u64 {
        self.samples.load(Ordering::Relaxed)
    }

    /// The samples; `None` if they are not counted.
    pub fn counted(&self) -> Option<u64> {
        self.counts_samples().then(|| self.samples())
    }

    /// Counts the samples of a batch.
    pub fn batch(&self, batch: &<M as TrainStep>::Input) {
        if let Some(count) = &self.count {
            self.samples.fetch_add(count(batch), Ordering::Relaxed);
        }
    }

    /// Takes back the samples of a refused step.
    pub fn reset_samples(&self, samples: u64) {
        self.samples.store(samples, Ordering::Relaxed);
    }

    /// A clock with these numbers, independent of this one.
    pub fn at(&self, steps: u64, attempted: u64, samples: u64) -> Self {
        let samples = Arc::new(AtomicU64::new(samples));
        Self { steps, attempted, bypassed: Some(0), samples, count: self.count.clone() }
    }

    /// An independent copy of this clock, for a validation snapshot. If `stands_still`, the
    /// averages were bypassed and compute no outputs, so the copy keeps the count of changes.
    pub fn snapshot(&self, stands_still: bool) -> Self {
        let now = self.at(self.steps, self.attempted, self.samples());
        Self { bypassed: self.bypassed.filter(|_| stands_still), ..now }
    }
}

impl<M: LearnerModel> Default for StepClock<M> {
    fn default() -> Self {
        Self { steps: 0, attempted: 0, bypassed: Some(0), samples: Arc::default(), count: None }
    }
}
