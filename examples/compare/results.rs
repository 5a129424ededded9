//! Finished runs in a file, one a line, which a kill at any time leaves usable.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Write as _},
    path::Path,
};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// The models to compare with: live after the last epoch, and live where it was best in validation.
pub const LIVE: &str = "live";
pub const EARLY: &str = "live, best epoch";

/// The average whose width is chosen afterwards, by validation.
pub const POST_HOC: &str = "post-hoc, best width";

/// A network on the splits that nothing was trained on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Judged {
    /// The model's name in tables.
    pub name: String,
    /// The rule, the epoch or the width that it came to.
    pub detail: String,
    /// The mean loss on the validation split.
    pub valid_loss: f64,
    /// The mean loss on the test split.
    pub test_loss: f64,
    /// The share of right classes on the test split, in `[0, 1]`; none for a regression.
    pub test_accuracy: Option<f64>,
    /// The coefficient of determination on the test split; none for classes.
    pub test_r2: Option<f64>,
    /// The mean and the greatest validation loss over the second half of the epochs, for a model
    /// that was validated after each.
    pub second_half: Option<[f64; 2]>,
}

/// A finished run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// The digest of everything that decides it.
    pub key: String,
    pub setting: String,
    pub seed: u64,
    pub train_rows: usize,
    pub steps: usize,
    pub judged: Vec<Judged>,
    pub seconds: f64,
}

/// The file of results, open to add to.
pub struct Results {
    file: File,
    done: BTreeMap<String, Line>,
}

impl Results {
    /// Opens or makes the file; a line that is none, as a kill leaves it, is passed over.
    pub fn open(path: &Path) -> Result<Self> {
        let context = || path.display().to_string();
        let text = match fs::read(path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error).with_context(context),
        };
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok());
        let done = lines.map(|line| (line.key.clone(), line)).collect();
        let mut file =
            OpenOptions::new().create(true).append(true).open(path).with_context(context)?;
        if !text.is_empty() && !text.ends_with('\n') {
            // What comes next is a line of its own.
            file.write_all(b"\n").with_context(context)?;
        }
        Ok(Self { file, done })
    }

    pub fn get(&self, key: &str) -> Option<&Line> {
        self.done.get(key)
    }

    pub fn add(&mut self, line: Line) -> Result<()> {
        let text = serde_json::to_string(&line)? + "\n";
        self.file.write_all(text.as_bytes()).context("the file of results")?;
        self.done.insert(line.key.clone(), line);
        Ok(())
    }
}
