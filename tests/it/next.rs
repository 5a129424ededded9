//! The differences between Burn 0.22 and its next version. No other file of these tests has
//! `cfg(burn_next)`.

use burn::data::dataloader::Progress;

/// True with the next version.
pub const NEXT: bool = cfg!(burn_next);

/// The progress of a split, as Burn's progress loggers get it: in 0.22 a number of items.
#[cfg(not(burn_next))]
pub type SplitProgress = usize;
#[cfg(burn_next)]
pub type SplitProgress<'a> = &'a Progress;

/// Defines the method of a progress logger that does nothing at the end of a split.
macro_rules! no_end {
    ($method:ident) => {
        fn $method(&mut self, #[cfg(burn_next)] _: $crate::next::SplitProgress) {}
    };
}
pub(crate) use no_end;

/// The number of items of a loader's pass; `None` if it is not known before the end, which 0.22
/// does not have.
pub fn total(progress: &Progress) -> Option<usize> {
    #[cfg(not(burn_next))]
    let total = Some(progress.items_total);
    #[cfg(burn_next)]
    let total = progress.total;
    total
}
