//! Training on one device, as a loop that can stop and resume at any batch.
//!
//! Burn's own loops can save only after the validation of an epoch, and can start an epoch only at
//! its beginning.

use std::time::Instant;

use burn::{
    data::{dataloader, dataset::DatasetError},
    optim::{GradientsAccumulator, GradientsParams},
    tensor::Device,
    train::{
        EventProcessorTraining, InferenceStep, Interrupter, Learner, LearnerEvent,
        SupervisedLearningStrategy, SupervisedTrainingEventProcessor, TrainLoader,
        TrainingComponents, TrainingItem, ValidLoader, metric::store::Split,
    },
};
use sha2::{Digest, Sha256};

use crate::{
    Error, LoaderSize, Progress, RunModel,
    committer::{CommitPoint, Committer},
    next::{end_split, start_split, total},
};

/// The training strategy of this crate: a loop over epochs that begins at a place in the run.
pub(crate) struct EpochLoop {
    pub device: Device,
    pub committer: Committer,
    /// The number of batches of the first epoch that were done before the resume, or 0.
    pub batches: usize,
    /// The number of optimizer steps that were done before the resume, or 0.
    pub steps: u64,
    /// The size of the training loader when these batches were done; `None` without such batches.
    pub loader: Option<LoaderSize>,
}

/// How a pass over a split ended.
#[derive(PartialEq)]
enum PassEnd {
    Whole,
    /// The training was asked to stop, or failed.
    Stopped,
}

impl<M: RunModel> SupervisedLearningStrategy<M> for EpochLoop {
    fn fit(
        &self,
        components: TrainingComponents<M>,
        mut learner: Learner<M>,
        train: TrainLoader<M>,
        valid: ValidLoader<M>,
        starting_epoch: usize,
    ) -> (M, SupervisedTrainingEventProcessor<M>) {
        let train = train.to_device(&self.device);
        let valid = valid.to_device(&self.device.clone().inner());
        learner.fork(&self.device);
        let TrainingComponents {
            num_epochs,
            mut checkpointer,
            grad_accumulation,
            interrupter,
            mut early_stopping,
            event_processor: mut events,
            event_store: store,
            ..
        } = components;

        // A loader draws a new order for each iterator. So the orders of the epochs that are done
        // are drawn first, and dropped.
        for _ in 1..starting_epoch {
            drop(train.iter());
            drop(valid.iter());
        }
        // The state of early stopping is not saved either: it decides again on the epochs that are
        // done.
        let mut stops =
            |epoch| early_stopping.as_mut().is_some_and(|s| s.should_stop(epoch, &store));
        let mut stopped = (1..starting_epoch).any(|epoch| {
            self.committer.show_until(Some(epoch));
            stops(epoch)
        });
        self.committer.show_until(None);
        // A training that cannot commit does not begin.
        self.committer.mark(&store);
        // Nor does a training that would fail at its first validation.
        let is_left = starting_epoch <= num_epochs && !stopped;
        if is_left && valid.num_items() == 0 && valid.iter().next().is_none() {
            self.committer.fail_without_batch(&Split::Valid, starting_epoch);
        }

        let (mut epoch, mut steps) = (starting_epoch, self.steps);
        while epoch <= num_epochs && !stopped && !interrupter.should_stop() {
            let mut save = |learner: &Learner<M>, point: CommitPoint| {
                if let Some(checkpointer) = &mut checkpointer
                    && !self.is_failed(learner)
                {
                    learner.model().update_statistics();
                    self.committer.next_is(point);
                    checkpointer.checkpoint(learner, epoch, &store);
                }
            };
            let done = match epoch == starting_epoch {
                true => self.batches,
                false => 0,
            };
            let mut pass = SplitPass {
                epoch,
                batches: done,
                steps,
                size: LoaderSize {
                    items: train.num_items(),
                    batch: 0,
                    accumulation: grad_accumulation.unwrap_or(1).max(1),
                },
                interrupter: &interrupter,
                events: &mut events,
            };
            let end = pass.train(self, &mut learner, &train, &mut save);
            let batches = pass.batches;
            steps = pass.steps;
            let loader = Some(pass.size);
            let within = |mark| {
                let progress = Progress { epochs: epoch - 1, batches };
                CommitPoint { progress, steps, loader, mark }
            };
            interrupter.fail_on_error(events.flush());
            if end == PassEnd::Stopped {
                if batches > done {
                    save(&learner, within(None));
                }
                break;
            }

            // A model with an error is not validated.
            if self.is_failed(&learner) {
                break;
            }

            // Marked before the validation, since a stop during it would leave only a part of its
            // metrics.
            let mark = self.committer.mark(&store);
            let mut pass = SplitPass {
                epoch,
                batches,
                steps,
                size: LoaderSize::default(),
                interrupter: &interrupter,
                events: &mut events,
            };
            let end = pass.validate(self, &learner, &valid);
            interrupter.fail_on_error(events.flush());
            if end == PassEnd::Stopped || interrupter.should_stop() {
                if batches > done {
                    save(&learner, within(mark));
                }
                break;
            }
            let progress = Progress::after(epoch);
            save(&learner, CommitPoint { progress, steps, loader: None, mark: None });
            // After the commit, so that the epoch is saved even if early stopping fails for lack of
            // a metric.
            stopped = stops(epoch);
            epoch += 1;
        }
        // Waits until the last commit is written, or has failed.
        drop(checkpointer);
        self.committer.ended();
        (learner.model(), events)
    }
}

/// True if a loader without further batches has not reached the number of items that it knows.
fn ends_early(seen: &dataloader::Progress) -> bool {
    total(seen).is_some_and(|total| total != seen.items_processed)
}

/// The number of items of such a loader, for messages.
fn found(seen: &dataloader::Progress) -> String {
    format!("{} of {} items", seen.items_processed, total(seen).unwrap_or_default())
}

/// One pass over a split.
struct SplitPass<'a, M: RunModel> {
    epoch: usize,
    /// The number of batches of the epoch that are done.
    batches: usize,
    /// The number of optimizer steps that are done, in all epochs.
    steps: u64,
    /// The size of the loader; its largest batch is the largest so far.
    size: LoaderSize,
    interrupter: &'a Interrupter,
    events: &'a mut SupervisedTrainingEventProcessor<M>,
}

impl<M: RunModel> SplitPass<'_, M> {
    fn train(
        &mut self,
        at: &EpochLoop,
        learner: &mut Learner<M>,
        loader: &TrainLoader<M>,
        save: &mut impl FnMut(&Learner<M>, CommitPoint),
    ) -> PassEnd {
        let Self { epoch, interrupter, .. } = *self;
        let before = at.loader.filter(|_| self.batches > 0);
        if let Some(before) = before.filter(|before| before.items != self.size.items) {
            return self.resized(at, before, format!("{} items", self.size.items));
        }
        if let Some(before) = before.filter(|before| before.accumulation != self.size.accumulation)
        {
            let expected =
                format!("{}, as in the commit within epoch {epoch}", before.accumulation);
            let found = self.size.accumulation;
            at.committer.fail(Error::parameter("grads_accumulation", expected, found));
            return PassEnd::Stopped;
        }
        at.seed(epoch, 0, "train");
        let mut batches = loader.iter();
        let mut processed = 0;
        // Loads and drops the batches that were done before the commit.
        for number in 0..self.batches {
            at.seed(epoch, number, "train");
            match batches.next() {
                Some(Ok(_)) => self.count(&mut processed, batches.progress().items_processed),
                Some(Err(error)) => return self.fail(error),
                None => {
                    let found = format!("{number} batches of {} seen before", self.batches);
                    return self.short("training", found);
                }
            };
            if let Some(before) = before.filter(|before| before.batch < self.size.batch) {
                return self.resized(at, before, self.size);
            }
        }
        if let Some(before) = before.filter(|before| *before != self.size) {
            return self.resized(at, before, self.size);
        }
        at.seed(epoch, self.batches, "train");
        let start = batches.progress();
        let mut next = batches.next();
        // All batches were done before: the metrics of the epoch are in the history.
        if next.is_none() && self.batches > 0 && !ends_early(&batches.progress()) {
            return PassEnd::Whole;
        }
        interrupter.fail_on_error(self.events.process_train(start_split(epoch, start)));
        let mut sums = GradientsAccumulator::new();
        let (mut summed, mut since, mut last) = (0, 0, Instant::now());
        while let Some(batch) = next {
            let batch = match batch {
                Ok(batch) => batch,
                Err(error) => return self.fail(error),
            };
            let progress = batches.progress();
            let items = self.count(&mut processed, progress.items_processed);
            let whole = total(&progress) == Some(progress.items_processed);
            let output = learner.train_step(batch);
            self.batches += 1;
            let grads = match self.size.accumulation {
                1 => Some(output.grads),
                several => {
                    sums.accumulate(&learner.model(), output.grads);
                    summed += 1;
                    (summed >= several || whole).then(|| {
                        summed = 0;
                        sums.grads()
                    })
                }
            };
            let stepped = grads.is_some();
            if let Some(grads) = grads {
                self.step(learner, grads);
                since += 1;
            }
            let iteration = Some(self.batches);
            let lr = Some(learner.lr_current());
            let item = TrainingItem::new(output.item, progress, iteration, lr);
            at.committer.expect(Some(items));
            interrupter.fail_on_error(self.events.process_train(LearnerEvent::ProcessedItem(item)));
            // A stop takes effect after an optimizer step, where a resume can go on, and an error
            // at once. After the last batch, a stop first ends the pass over the training data.
            if interrupter.should_stop()
                && (stepped || interrupter.error().is_some())
                && !(whole && interrupter.error().is_none())
            {
                return PassEnd::Stopped;
            }
            if stepped && !whole && at.committer.config().is_due(since, last.elapsed()) {
                interrupter.fail_on_error(self.events.flush());
                let progress = Progress { epochs: epoch - 1, batches: self.batches };
                let (steps, loader) = (self.steps, Some(self.size));
                save(learner, CommitPoint { progress, steps, loader, mark: None });
                (since, last) = (0, Instant::now());
            }
            at.seed(epoch, self.batches, "train");
            next = batches.next();
        }
        // If a worker of the loader panics, the batches end early without an error.
        let seen = batches.progress();
        if ends_early(&seen) {
            return self.short("training", found(&seen));
        }
        // Steps the window that is left where no batch was known to be the last.
        if summed > 0 {
            self.step(learner, sums.grads());
        }
        at.committer.expect(None);
        interrupter.fail_on_error(self.events.process_train(end_split(epoch, seen)));
        PassEnd::Whole
    }

    fn validate(
        &mut self,
        at: &EpochLoop,
        learner: &Learner<M>,
        loader: &ValidLoader<M>,
    ) -> PassEnd {
        let Self { epoch, interrupter, .. } = *self;
        if interrupter.should_stop() {
            return PassEnd::Stopped;
        }
        let model = learner.model().valid();
        at.seed(epoch, 0, "valid");
        let mut batches = loader.iter();
        let start = start_split(epoch, batches.progress());
        interrupter.fail_on_error(self.events.process_valid(start));
        let (mut iteration, mut processed) = (0, 0);
        while let Some(batch) = batches.next() {
            let batch = match batch {
                Ok(batch) => batch,
                Err(error) => return self.fail(error),
            };
            let progress = batches.progress();
            iteration += 1;
            let items = self.count(&mut processed, progress.items_processed);
            let output = InferenceStep::step(&model, batch);
            let item = TrainingItem::new(output, progress, Some(iteration), None);
            at.committer.expect(Some(items));
            interrupter.fail_on_error(self.events.process_valid(LearnerEvent::ProcessedItem(item)));
            if interrupter.should_stop() {
                return PassEnd::Stopped;
            }
        }
        let seen = batches.progress();
        if ends_early(&seen) {
            return self.short("validation", found(&seen));
        }
        at.committer.expect(None);
        interrupter.fail_on_error(self.events.process_valid(end_split(epoch, seen)));
        interrupter.fail_on_error(self.events.process_train(LearnerEvent::EndEpoch(epoch)));
        PassEnd::Whole
    }

    fn step(&mut self, learner: &mut Learner<M>, grads: GradientsParams) {
        learner.lr_step();
        learner.optimizer_step(grads);
        self.steps += 1;
    }

    /// Returns the number of items of a batch: `now`, the items processed so far, less `processed`,
    /// which becomes `now`. Updates the size of the largest batch.
    fn count(&mut self, processed: &mut usize, now: usize) -> usize {
        let items = now.saturating_sub(*processed);
        *processed = now;
        self.size.batch = self.size.batch.max(items);
        items
    }

    /// Fails the training, since the loader has another number of items or another batch size than
    /// at the commit, so that the number of batches does not determine which items are done.
    fn resized(&self, at: &EpochLoop, before: LoaderSize, found: impl ToString) -> PassEnd {
        let expected = format!("{before}, as in the commit within epoch {}", self.epoch);
        at.committer.fail(Error::parameter("the training loader", expected, found));
        PassEnd::Stopped
    }

    fn fail(&self, error: DatasetError) -> PassEnd {
        self.interrupter.fail(error);
        PassEnd::Stopped
    }

    /// Fails the training, since a loader ended before its last batch.
    fn short(&self, split: &str, found: String) -> PassEnd {
        let what = format!("{split} of epoch {}", self.epoch);
        let error = Error::parameter(what, "all batches of the loader", found);
        self.fail(DatasetError::new(error))
    }
}

impl EpochLoop {
    /// True if the model keeps an error. The error then ends the training.
    fn is_failed<M: RunModel>(&self, learner: &Learner<M>) -> bool {
        let error = learner.model().error();
        error.map(|error| self.committer.fail(error)).is_some()
    }

    /// Seeds the device with the first 8 bytes of a SHA-256 of the run's seed, the epoch, the batch
    /// and the split, so that the random numbers of a batch and its step depend on these alone.
    /// The loop calls this before every training batch, and once before each validation.
    fn seed(&self, epoch: usize, batch: usize, split: &str) {
        let mut hash = Sha256::new();
        for number in [self.committer.seed(), epoch as u64, batch as u64] {
            hash.update(number.to_le_bytes());
        }
        hash.update(split);
        let digest = hash.finalize();
        let first = digest.first_chunk().copied().unwrap_or_default();
        self.device.seed(u64::from_le_bytes(first));
    }
}
