//! The error type of the workspace: what failed, where, what was expected and what was found.

use std::path::PathBuf;

/// The result of a function that fails with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The reason why an operation failed or a value was refused.
///
/// The message names the place (a setting, a parameter's path, a file with row and column) and,
/// for a refused value, what was expected there and what was found.
/// A failed operation has left its inputs unchanged, except where a variant describes a change.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting outside its range.
    #[error("{what} is {found}, expected {expected}")]
    Value {
        /// The name of the setting.
        what: String,
        /// The range of the setting, in words.
        expected: String,
        /// The value that was given.
        found: String,
    },

    /// A parameter of a module, or an entry of a record, that does not fit its counterpart.
    #[error("{path}: expected {expected}, found {found}")]
    Parameter {
        /// The path of the parameter in its module, such as `layers.0.weight`.
        path: String,
        /// A description of what was expected there.
        expected: String,
        /// A description of what was found there.
        found: String,
    },

    /// A step number lower than the last one that the average has seen.
    #[error(
        "step {step} lies before step {last}, which the average has already seen: \
         an average cannot go back (is one model given to two trainings?)"
    )]
    StepBack {
        /// The step number that was given.
        step: u64,
        /// The last step number that the average has seen.
        last: u64,
    },

    /// Live has held a NaN or an infinity at too many updates in a row. The average is unchanged.
    #[error(
        "{path} holds a NaN or an infinity at step {step}, and the average takes none: it is as it \
         was before (updates refused in a row: {in_a_row})"
    )]
    NonFinite {
        /// The path of the first parameter that held a NaN or an infinity.
        path: String,
        /// The optimizer step after which the number was found.
        step: u64,
        /// The number of successive updates that were refused.
        in_a_row: u64,
    },

    /// An optimizer step with finite gradients has produced a NaN or an infinity in live. The
    /// averages are unchanged.
    #[error(
        "step {step}: {path} holds a NaN or an infinity after a step with finite gradients; the \
         averages are as they were after step {}",
        step.saturating_sub(1)
    )]
    Weights {
        /// The path of the first parameter that held a NaN or an infinity.
        path: String,
        /// The optimizer step.
        step: u64,
    },

    /// Too many optimizer steps in a row were refused, because of a NaN or an infinity in each.
    #[error(
        "step {step}: {what} holds a NaN or an infinity (steps refused in a row: {in_a_row}); the \
         model is as it was after step {}",
        step.saturating_sub(*in_a_row)
    )]
    RefusedStep {
        /// The values that held the NaN or infinity, such as `the gradient of layers.0.weight`.
        what: String,
        /// The number of the last refused step. Refused steps are counted, as in the schedule of
        /// the learning rate.
        step: u64,
        /// The number of successive steps that were refused.
        in_a_row: u64,
    },

    /// Live was changed without an update of its averages, for example by an optimizer that steps
    /// an `Averaged` as if it were a plain module.
    #[error(
        "live was changed outside of `optimize`, and no average with it (changes: {changes}): call \
         `averaged.optimize(&mut optimizer, lr, grads)` after `use burn::train::TrainStep;`, and in \
         a struct of your own pass `optimize` and `optimize_multi` on to its `Averaged`"
    )]
    Bypassed {
        /// The number of changes of live since the last update of the averages.
        changes: u64,
    },

    /// An error of the caller's code, such as a closure, or one that no other variant covers.
    #[error(transparent)]
    Other(std::sync::Arc<dyn std::error::Error + Send + Sync>),

    /// An earlier update of the averages panicked, so that only a part of it may be done.
    #[error("an earlier update of the averages ended in a panic, so they may be half new")]
    Poisoned,

    /// A file or directory that could not be read or written.
    #[error("cannot {action} {}", path.display())]
    File {
        /// The action that failed, such as `read`.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why it failed.
        source: std::sync::Arc<dyn std::error::Error + Send + Sync>,
    },

    /// A run whose lock another process, or another part of this process, holds.
    #[error("cannot use {}: it is locked by {holder}", path.display())]
    Locked {
        /// The directory of the run.
        path: PathBuf,
        /// The holder of the lock, such as `pid 123 on box`; `another process` if it is unknown.
        holder: String,
    },

    /// A record that Burn could not read or apply.
    #[error("cannot use the record")]
    Record(#[from] burn::store::RecordError),

    /// A batch that the data loader failed to produce.
    #[cfg(feature = "train")]
    #[error("cannot load batch {number}")]
    Batch {
        /// The number of the batch, from 1.
        number: u64,
        /// Why it failed.
        source: std::sync::Arc<burn::data::dataset::DatasetError>,
    },

    /// A panic in a training, for example in the model, the data or a metric. Holds its message.
    #[error("the training ended in a panic: {0}")]
    Panic(String),

    /// Burn's training ended with this error.
    #[cfg(feature = "train")]
    #[error("the training stopped")]
    Training(#[source] std::sync::Arc<burn::train::TrainingError>),
}

impl Error {
    /// Wraps an error of your own in [`Error::Other`], for a function that must return [`Error`],
    /// such as a loss: `.map_err(Error::other)?`.
    pub fn other(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Other(error.into().into())
    }

    /// Makes an [`Error::Value`], for a setting outside its range.
    pub fn value(
        what: impl Into<String>,
        expected: impl Into<String>,
        found: impl ToString,
    ) -> Self {
        Self::Value { what: what.into(), expected: expected.into(), found: found.to_string() }
    }

    /// Makes an [`Error::Parameter`], for a parameter or record entry that does not fit.
    pub fn parameter(
        path: impl Into<String>,
        expected: impl ToString,
        found: impl ToString,
    ) -> Self {
        Self::Parameter {
            path: path.into(),
            expected: expected.to_string(),
            found: found.to_string(),
        }
    }

    /// Makes an [`Error::File`], for a file that could not be read or written.
    pub fn file(
        action: &'static str,
        path: impl Into<PathBuf>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::File { action, path: path.into(), source: source.into().into() }
    }
}
