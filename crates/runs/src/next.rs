//! The differences between Burn 0.22 and its next version. No other file of this crate has
//! `cfg(burn_next)`.

use burn::{data::dataloader::Progress, train::LearnerEvent};

/// The progress of a split, as Burn's progress loggers get it: in 0.22 a number of items.
#[cfg(not(burn_next))]
pub(crate) type SplitProgress = usize;
#[cfg(burn_next)]
pub(crate) type SplitProgress<'a> = &'a Progress;

/// The number of items of a split that are done, from the argument of a progress logger.
pub(crate) fn items(progress: SplitProgress) -> usize {
    #[cfg(burn_next)]
    let progress = progress.items_processed;
    progress
}

/// Defines the method of a progress logger that does nothing at the end of a split.
macro_rules! no_end {
    ($method:ident) => {
        fn $method(&mut self, #[cfg(burn_next)] _: &burn::data::dataloader::Progress) {}
    };
}
pub(crate) use no_end;

/// The number of items of a loader's pass; `None` if it is not known before the end, which 0.22
/// does not have.
pub(crate) fn total(progress: &Progress) -> Option<usize> {
    #[cfg(not(burn_next))]
    let total = Some(progress.items_total);
    #[cfg(burn_next)]
    let total = progress.total;
    total
}

/// The event at the start of a split.
pub(crate) fn start_split<T>(epoch: usize, progress: Progress) -> LearnerEvent<T> {
    LearnerEvent::StartSplit {
        epoch_number: epoch,
        #[cfg(not(burn_next))]
        total_items: progress.items_total,
        #[cfg(burn_next)]
        progress,
    }
}

/// The event at the end of a split.
#[cfg_attr(not(burn_next), expect(unused_variables))]
pub(crate) fn end_split<T>(epoch: usize, progress: Progress) -> LearnerEvent<T> {
    #[cfg(not(burn_next))]
    let event = LearnerEvent::EndSplit(epoch);
    #[cfg(burn_next)]
    let event = LearnerEvent::EndSplit { epoch, progress };
    event
}
