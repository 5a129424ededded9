//! Errors of tables and devices; all others are burn-ema's.

use std::path::PathBuf;

/// The result of a function that reads a table or opens a device.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a table or a device cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// A cell, row or column of a table that cannot be used.
    #[error("{}: {place}: expected {expected}, found {found}", path.display())]
    Table {
        /// The file of the table.
        path: PathBuf,
        /// The place in the table, such as `row 3, column "age"`; the header is row 1.
        place: String,
        /// The value that was expected there.
        expected: String,
        /// The value that was found there.
        found: String,
    },

    /// Columns of a table that cannot be used.
    #[error(
        "{}: {} problems with columns ({remedies}):\n  {}",
        path.display(),
        problems.len(),
        problems.join("\n  ")
    )]
    Columns {
        /// The file of the table.
        path: PathBuf,
        /// For each problem its place, what was expected there and what was found.
        problems: Vec<String>,
        /// The remedies of the problems, such as options that leave columns or rows out or fill
        /// cells.
        remedies: String,
    },

    /// A device that this build or this machine does not have, or that computes wrongly.
    #[error("device {device}: {problem}")]
    Device {
        /// The name of the device, such as `wgpu`.
        device: String,
        /// The problem, and what to do about it.
        problem: String,
    },

    /// An error of burn-ema, such as a file that cannot be read.
    #[error(transparent)]
    Base(#[from] burn_ema::Error),
}

impl Error {
    /// A cell, row or column of a table that cannot be used.
    pub(crate) fn table(
        path: impl Into<PathBuf>,
        place: impl Into<String>,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Self {
        Self::Table {
            path: path.into(),
            place: place.into(),
            expected: expected.into(),
            found: found.into(),
        }
    }

    /// A file that could not be read.
    pub(crate) fn file(
        action: &'static str,
        path: impl Into<PathBuf>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        burn_ema::Error::file(action, path, source).into()
    }
}
