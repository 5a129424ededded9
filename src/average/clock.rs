//! Where a training is: steps and samples.

/// Where a training is, counted from its beginning.
///
/// An average whose time is counted in samples uses `samples`, all others use `step`.
///
/// ```
/// use burn_ema::Clock;
///
/// let batches = [64, 64, 32];
/// let mut clock = Clock::default();
/// for batch in batches {
///     clock = clock.after(batch);
/// }
/// assert_eq!(clock, Clock { step: 3, samples: 160 });
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clock {
    /// The optimizer steps so far.
    pub step: u64,
    /// The samples that these steps have seen.
    pub samples: u64,
}

impl Clock {
    /// The clock after one more optimizer step, which has seen `samples` samples.
    pub fn after(self, samples: u64) -> Self {
        Self { step: self.step.saturating_add(1), samples: self.samples.saturating_add(samples) }
    }
}
