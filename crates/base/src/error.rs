//! The one error of the workspace: what went wrong, where, what was expected and what was found.

use std::path::PathBuf;

/// The result of everything here that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why something was refused.
///
/// Each variant names the place (a setting, a parameter's path, a file with row and column) and
/// says what was expected there and what was found instead.
/// Whatever failed has left what it was given as it was.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting outside its range.
    #[error("{what} is {found}, expected {expected}")]
    Value {
        /// The setting.
        what: String,
        /// Its range.
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

    /// A step that lies before the last one that the average has seen.
    #[error(
        "step {step} lies before step {last}, which the average has already seen: \
         an average cannot go back (is one model given to two trainings?)"
    )]
    StepBack {
        /// The step that was given.
        step: u64,
        /// The last step that the average has seen.
        last: u64,
    },

    /// Weights of live that an average must not take, too often in a row.
    #[error(
        "{path} holds a NaN or an infinity at step {step}, and the average takes none: it is as it \
         was before (updates refused in a row: {in_a_row})"
    )]
    NonFinite {
        /// The path of the first such parameter.
        path: String,
        /// The optimizer step after which it was found.
        step: u64,
        /// The updates in a row that found one.
        in_a_row: u64,
    },

    /// Weights that are not finite after an optimizer step whose gradients were.
    #[error(
        "step {step}: {path} holds a NaN or an infinity after a step with finite gradients; the \
         averages are as they were after step {}",
        step.saturating_sub(1)
    )]
    Weights {
        /// The path of the first such parameter.
        path: String,
        /// The optimizer step.
        step: u64,
    },

    /// Optimizer steps that were refused, too often in a row.
    #[error(
        "step {step}: {what} holds a NaN or an infinity (steps refused in a row: {in_a_row}); the \
         model is as it was after step {}",
        step.saturating_sub(*in_a_row)
    )]
    RefusedStep {
        /// The numbers that were not finite, such as `the gradient of layers.0.weight`.
        what: String,
        /// The last of them; here those that were refused count as steps, as in the schedule of
        /// the learning rate.
        step: u64,
        /// How many were refused in a row.
        in_a_row: u64,
    },

    /// Live was changed several times in a row without an update of its averages, for example by an
    /// optimizer that steps an `Averaged` as if it were a plain module.
    #[error(
        "live was changed outside of `optimize`, and no average with it (changes: {changes}): call \
         `averaged.optimize(&mut optimizer, lr, grads)`, and in a struct of your own pass \
         `optimize` and `optimize_multi` on to its `Averaged`"
    )]
    Bypassed {
        /// The changes since the last update of the averages.
        changes: u64,
    },

    /// An error of the caller's, from a function that was handed in.
    #[error(transparent)]
    Other(std::sync::Arc<dyn std::error::Error + Send + Sync>),

    /// An earlier update of the averages did not end, since something in it panicked.
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

    /// A run that another process writes to.
    #[error("cannot use {}: it is locked by {holder}", path.display())]
    Locked {
        /// The directory of the run.
        path: PathBuf,
        /// Who has the lock, such as `pid 123 on box`.
        holder: String,
    },

    /// A record that Burn could not read or apply.
    #[error("cannot use the record")]
    Record(#[from] burn::store::RecordError),

    /// A batch that the data loader could not make.
    #[cfg(feature = "train")]
    #[error("cannot load batch {number}")]
    Batch {
        /// Which one, from 1.
        number: u64,
        /// Why it failed.
        source: std::sync::Arc<burn::data::dataset::DatasetError>,
    },

    /// A panic in a training: in the model, the data or a metric.
    #[error("the training ended in a panic: {0}")]
    Panic(String),

    /// Burn's training stopped on an error.
    #[cfg(feature = "train")]
    #[error("the training stopped")]
    Training(#[source] std::sync::Arc<burn::train::TrainingError>),
}

impl Error {
    /// An error of your own, for a function that returns this crate's, such as a loss:
    /// `.map_err(Error::other)?`.
    pub fn other(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Other(error.into().into())
    }

    /// A setting outside its range.
    pub fn value(
        what: impl Into<String>,
        expected: impl Into<String>,
        found: impl ToString,
    ) -> Self {
        Self::Value { what: what.into(), expected: expected.into(), found: found.to_string() }
    }

    /// A parameter or record entry that does not fit.
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

    /// A file that could not be read or written.
    pub fn file(
        action: &'static str,
        path: impl Into<PathBuf>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::File { action, path: path.into(), source: source.into().into() }
    }
}
