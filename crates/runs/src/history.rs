//! The metrics of a run, in one file to which a resumed run appends.
//!
//! Burn's own logger writes a file for each metric and epoch. A resume within an epoch would
//! truncate these files, and a new run would read files of later epochs that an older run has left.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
};

use burn::train::metric::{
    NumericEntry,
    store::{MetricsUpdate, Split},
};
use burn_ema_base::{
    digest, disk,
    regular::{self, Length},
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    Error, Result,
    mean::{Number, Running, Seen, weight},
};

/// The name of the file of a run's metrics, in the directory of the run: a CSV table with the
/// columns `split,epoch,metric,value,count`.
///
/// The column `count` contains:
///
/// - a number, for the value of a batch: the weight of the batch;
/// - `epoch`, for the value of a whole epoch;
/// - `part`, for the value of the rest of a resumed epoch, if that of the whole epoch is not known;
/// - `text`, for a value that is text.
///
/// The weight of a batch is the number of values whose mean the metric is, as the metric reports
/// it. For a metric with one value per batch, such as a loss that was reduced to a scalar, the
/// weight is the number of items in the batch, so that the value of an epoch is the mean over
/// items, even if the last batch is shorter. Burn itself weights such a batch as 1, and so does a
/// training with a [kept strategy](crate::Fit::keep_strategy), which does not show the loader.
pub const METRICS: &str = "metrics.csv";

/// The name of the metric in [`METRICS`] whose value, a text, is the
/// [part](crate::RunModel::parts) of the model that computes the outputs in validation from that
/// epoch on. The file of a plain model has no such line.
pub const VALIDATED: &str = "Validated";

/// The state of the history at a commit: the length and digest of the file, and the values that
/// decisions need.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Mark {
    /// The length of the file in bytes.
    pub bytes: u64,
    /// The SHA-256 of these bytes.
    pub sha256: String,
    /// The final value of each metric, by epoch.
    pub epochs: BTreeMap<usize, BTreeMap<Key, Number>>,
    /// The sums of each metric in the current epoch so far.
    pub running: BTreeMap<Key, Running>,
}

/// A split and the name of a metric, such as `valid/Loss`.
pub(crate) type Key = String;

/// The first line of the file.
const HEADER: &str = "split,epoch,metric,value,count\n";

/// True if a new history may replace what is at this path: the file begins with the header, or a
/// part of the header, or cannot be read.
fn begins_a_history(path: &Path) -> bool {
    let Ok((file, _)) = regular::open(path) else { return true };
    let mut line = Vec::new();
    let read = file.take(HEADER.len() as u64).read_to_end(&mut line);
    // If the file cannot be read, the attempt to write to it gives the reason.
    read.is_err() || HEADER.as_bytes().starts_with(&line)
}

/// The metrics of a run, to which each batch adds.
pub(crate) struct History {
    path: PathBuf,
    file: File,
    /// Lines that are not in the file yet.
    lines: Vec<u8>,
    bytes: u64,
    digest: Sha256,
    epochs: BTreeMap<usize, BTreeMap<Key, Number>>,
    running: BTreeMap<Key, Running>,
    /// The sums of the current epoch over the batches of this process, the only ones that Burn has.
    seen: BTreeMap<Key, Seen>,
    /// The metrics for which only a part of an epoch is known, since the run was resumed within the
    /// epoch.
    parts: BTreeSet<Key>,
    /// The metrics whose values are text.
    texts: BTreeSet<Key>,
    /// The last epoch whose validation has ended in this process.
    validated: Option<usize>,
    /// The current epoch and split.
    current: Option<(usize, String)>,
    /// The last epoch that is shown; `None` if no epoch is hidden.
    shown: Option<usize>,
}

impl History {
    /// Creates an empty history, in place of that of a run without commits. An old file with values
    /// of whole epochs is renamed; any other old history is overwritten.
    ///
    /// # Errors
    ///
    /// A file of this name that is no history; a file that cannot be written or renamed.
    pub fn create(run: &Path) -> Result<Self> {
        let path = run.join(METRICS);
        let broken = |error| Error::file("create", &path, error);
        regular::check(&path).map_err(broken)?;
        if !begins_a_history(&path) {
            let error = Error::parameter("line 1", HEADER.trim_end(), "another file");
            return Err(Error::file("write the metrics to", path, error));
        }
        // A whole epoch was committed. The commits are gone, so that this file may be all that is
        // left of the run.
        let text = regular::read(&path, Length::Any, "read");
        if text.is_ok_and(|text| text.windows(7).any(|end| end == b",epoch\n")) {
            disk::set_aside(&path)?;
        }
        let file = File::create(&path).map_err(broken)?;
        disk::sync_directory(run)?;
        let mut history = Self::in_file(path, file);
        history.lines.extend_from_slice(HEADER.as_bytes());
        history.write()?;
        Ok(history)
    }

    fn in_file(path: PathBuf, file: File) -> Self {
        Self {
            path,
            file,
            lines: Vec::new(),
            bytes: 0,
            digest: Sha256::new(),
            epochs: BTreeMap::new(),
            running: BTreeMap::new(),
            seen: BTreeMap::new(),
            parts: BTreeSet::new(),
            texts: BTreeSet::new(),
            validated: None,
            current: None,
            shown: None,
        }
    }

    /// Opens the history at a mark, and removes the lines after the mark from the file.
    ///
    /// A file that differs from that at the mark is renamed, and an empty file begun. Decisions do
    /// not depend on the file, since the mark holds the values that they need.
    pub fn resume(run: &Path, mark: &Mark) -> Result<Self> {
        let path = run.join(METRICS);
        let mut history = match Self::reopen(&path, mark) {
            Ok(mut history) => {
                let file = &mut history.file;
                let cut = file.set_len(mark.bytes);
                cut.and_then(|()| file.seek(SeekFrom::Start(mark.bytes)))
                    .map_err(|error| Error::file("write", &path, error))?;
                history
            }
            Err(_) => {
                // A dangling symbolic link is renamed too.
                if path.symlink_metadata().is_ok() {
                    disk::set_aside(&path)?;
                }
                Self::create(run)?
            }
        };
        history.epochs = mark.epochs.clone();
        history.running = mark.running.clone();
        Ok(history)
    }

    /// Copies the file, with the ending `.aside-1` or the next number that is free, if it has lines
    /// after the mark. [`resume`](Self::resume) removes these lines, which belong to commits that
    /// are set aside.
    ///
    /// A file that differs from that at the mark is not copied, since `resume` renames it.
    ///
    /// # Errors
    ///
    /// A copy that cannot be written.
    pub fn keep(run: &Path, mark: &Mark) -> Result<()> {
        let path = run.join(METRICS);
        let Ok(history) = Self::reopen(&path, mark) else { return Ok(()) };
        let length = history.file.metadata().map_err(|error| Error::file("read", &path, error));
        if length?.len() > mark.bytes { disk::copy_aside(&path) } else { Ok(()) }
    }

    /// Checks that the file up to the mark is unaltered. Changes nothing.
    pub fn check(run: &Path, mark: &Mark) -> Result<()> {
        Self::reopen(&run.join(METRICS), mark).map(drop)
    }

    fn reopen(path: &Path, mark: &Mark) -> Result<Self> {
        let broken = |error: io::Error| Error::file("read", path, error);
        let mut options = File::options();
        let opened = regular::open_with(path, options.read(true).write(true));
        let (mut file, _) = opened.map_err(broken)?;
        let mut digest = Sha256::new();
        let (mut left, mut chunk) = (mark.bytes, vec![0; 1 << 16]);
        while left > 0 {
            let most = chunk.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let count = file.read(&mut chunk[..most]).map_err(broken)?;
            if count == 0 {
                let found = format!("{} bytes", mark.bytes - left);
                let expected = format!("at least {} bytes", mark.bytes);
                let error = Error::parameter("its length", expected, found);
                return Err(Error::file("go on with", path, error));
            }
            digest.update(&chunk[..count]);
            left -= count as u64;
        }
        let found = digest::hexadecimal(digest.clone().finalize());
        if found != mark.sha256 {
            let found = format!("{found}: it was altered");
            let error = Error::parameter("sha256", &mark.sha256, found);
            return Err(Error::file("go on with", path, error));
        }
        Ok(Self { bytes: mark.bytes, digest, ..Self::in_file(path.to_owned(), file) })
    }

    /// Writes the lines that are not in the file yet, without a sync.
    pub fn write(&mut self) -> Result<()> {
        let lines = std::mem::take(&mut self.lines);
        let written = self.file.write_all(&lines);
        written.map_err(|error| Error::file("write", &self.path, error))?;
        self.digest.update(&lines);
        self.bytes += lines.len() as u64;
        Ok(())
    }

    /// The mark of the history now. Writes all lines so far to the file first.
    pub fn mark(&mut self) -> Result<Mark> {
        self.write()?;
        Ok(Mark {
            bytes: self.bytes,
            sha256: digest::hexadecimal(self.digest.clone().finalize()),
            epochs: self.epochs.clone(),
            running: self.running.clone(),
        })
    }

    /// Adds the line of [`VALIDATED`]: the part of the model that computes the outputs in
    /// validation from an epoch on.
    pub fn validates(&mut self, epoch: usize, part: &str) -> Result<()> {
        self.line(&Split::Valid.to_string(), epoch, VALIDATED, part, "text")
    }

    /// True if the file has no line but the header, and none is to be written.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.bytes == HEADER.len() as u64
    }

    /// The path and a second handle of the file, with which another thread syncs it.
    pub fn file(&self) -> Result<(PathBuf, File)> {
        let file = self.file.try_clone();
        let file = file.map_err(|error| Error::file("sync", &self.path, error))?;
        Ok((self.path.clone(), file))
    }

    /// Adds the metrics of a batch, or of the end of a split. `items` is the number of items of the
    /// batch; `None` if it is not known, or at the end of a split.
    pub fn log(
        &mut self,
        update: &MetricsUpdate,
        items: Option<usize>,
        epoch: usize,
        split: &Split,
        names: impl Fn(&burn::train::metric::MetricId) -> String,
    ) -> Result<()> {
        let split = split.to_string();
        let current = (epoch, split.clone());
        if self.current.as_ref() != Some(&current) {
            self.seen.retain(|key, _| !key.starts_with(&split));
            self.current = Some(current);
            self.write()?;
        }
        for entry in &update.entries {
            let text = &entry.serialized_entry;
            if !text.is_not_available() {
                let name = names(&entry.metric_id);
                self.texts.insert(format!("{split}/{name}"));
                self.line(&split, epoch, &name, &text.serialized, "text")?;
            }
        }
        for metric in &update.entries_numeric {
            let name = names(&metric.entry.metric_id);
            if metric.entry.serialized_entry.is_not_available() {
                continue;
            }
            let entry = NumericEntry::deserialize(&metric.entry.serialized_entry.serialized);
            let Ok(entry) = entry else { continue };
            self.number(&split, epoch, &name, entry, items)?;
        }
        Ok(())
    }

    fn number(
        &mut self,
        split: &str,
        epoch: usize,
        name: &str,
        entry: NumericEntry,
        items: Option<usize>,
    ) -> Result<()> {
        let key = format!("{split}/{name}");
        let (value, count, items) = match entry {
            NumericEntry::Value(value) => (value, Some(1), None),
            NumericEntry::Aggregated { aggregated_value, count } => {
                (aggregated_value, Some(count), items)
            }
            NumericEntry::Final(value) => (value, None, None),
        };
        let Some(count) = count else {
            let (running, seen) = (self.running.remove(&key), self.seen.remove(&key));
            // Burn's mean covers the batches of this process, and not those before a resume.
            let value = match (running, seen) {
                (Some(all), Some(seen)) if seen.ends_with(value) => all.mean(),
                // Burn's value is no mean, so that it cannot be computed for the whole epoch.
                (Some(all), seen) if seen.as_ref().map(|seen| &seen.weighted) != Some(&all) => {
                    self.parts.insert(key);
                    return self.line(split, epoch, name, &value.to_string(), "part");
                }
                _ => value,
            };
            self.epochs.entry(epoch).or_default().insert(key, Number(value));
            self.line(split, epoch, name, &value.to_string(), "epoch")?;
            // The end of a split is written at once, for programs that read the file.
            return self.write();
        };
        self.seen.entry(key.clone()).or_default().add(value, count, items);
        let count = weight(count, items);
        self.running.entry(key).or_default().add(value, count);
        self.line(split, epoch, name, &value.to_string(), &count.to_string())
    }

    fn line(
        &mut self,
        split: &str,
        epoch: usize,
        name: &str,
        value: &str,
        count: &str,
    ) -> Result<()> {
        let epoch = epoch.to_string();
        let cells = [split, &epoch, name, value, count].map(quoted);
        self.lines.extend_from_slice(cells.join(",").as_bytes());
        self.lines.push(b'\n');
        match self.lines.len() {
            ..65_536 => Ok(()),
            _ => self.write(),
        }
    }

    /// Ends a split. A metric to which Burn has given no final value gets the weighted mean of its
    /// batches. Writes the lines to the file.
    pub fn end(&mut self, epoch: usize, split: &Split) -> Result<()> {
        if *split == Split::Valid {
            self.validated = Some(epoch);
        }
        let split = split.to_string();
        let of_split = |key: &&String| key.split_once('/').is_some_and(|(of, _)| of == split);
        let keys: Vec<_> = self.running.keys().filter(of_split).cloned().collect();
        for key in keys {
            let Some(running) = self.running.remove(&key) else { continue };
            self.seen.remove(&key);
            let name = key.split_once('/').map_or("", |(_, name)| name).to_owned();
            self.line(&split, epoch, &name, &running.mean().to_string(), "epoch")?;
            self.epochs.entry(epoch).or_default().insert(key, Number(running.mean()));
        }
        self.write()
    }

    /// Hides the values of the epochs after `epoch` from [`value`](Self::value); `None` shows all.
    pub fn show_until(&mut self, epoch: Option<usize>) {
        self.shown = epoch;
    }

    /// True if the epoch is not later than the last one whose validation has ended in this process.
    pub fn has_ended(&self, epoch: usize) -> bool {
        self.validated.is_some_and(|last| (1..=last).contains(&epoch))
    }

    /// For an error: what an epoch that has ended has instead of a number of this metric, such as a
    /// NaN or a text; `None` if it has a number, or if only a part of an epoch is known.
    ///
    /// Values of other epochs do not count, since a resumed run may lack a metric that earlier
    /// epochs had.
    pub fn lacks(&self, key: &str, epoch: usize) -> Option<String> {
        let values = self.epochs.get(&epoch);
        let found = match values.and_then(|values| values.get(key)) {
            Some(value) if value.0.is_nan() => format!("a NaN in epoch {epoch}"),
            Some(_) => return None,
            None if self.parts.contains(key) => return None,
            None if self.texts.contains(key) => "one that gives text".to_owned(),
            None => "none of this name".to_owned(),
        };
        let numbers = values.into_iter().flatten().filter(|(_, value)| !value.0.is_nan());
        let numbers: Vec<_> = numbers.map(|(key, _)| key.as_str()).collect();
        let numbers = if numbers.is_empty() { "none".to_owned() } else { numbers.join(", ") };
        Some(format!("{found}; those that give numbers: {numbers}"))
    }

    /// True if a metric has a final value that is not a NaN in any epoch of the run, the epochs
    /// before a resume included.
    pub fn has_number(&self, key: &str) -> bool {
        let mut values = self.epochs.values().filter_map(|values| values.get(key));
        values.any(|value| !value.0.is_nan())
    }

    /// The value of a metric in an epoch: the final one, or the weighted mean so far in the current
    /// epoch and split. `None` if there is no value, or the epoch is hidden.
    pub fn value(&self, name: &str, epoch: usize, split: &Split) -> Option<NumericEntry> {
        if self.shown.is_some_and(|last| epoch > last) {
            return None;
        }
        let key = format!("{split}/{name}");
        match self.epochs.get(&epoch).and_then(|metrics| metrics.get(&key)) {
            Some(value) => Some(NumericEntry::Final(value.0)),
            None if self.current == Some((epoch, split.to_string())) => {
                let running = self.running.get(&key)?;
                let aggregated_value = running.mean();
                Some(NumericEntry::Aggregated { aggregated_value, count: running.count })
            }
            None => None,
        }
    }
}

/// A cell of a CSV table, in quotation marks if it has a comma, a quotation mark or a line break.
fn quoted(cell: &str) -> Cow<'_, str> {
    match cell.contains([',', '"', '\r', '\n']) {
        true => format!("\"{}\"", cell.replace('"', "\"\"")).into(),
        false => cell.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_quoted_where_it_needs_to_be() {
        let cases = [
            ("Loss", "Loss"),
            ("", ""),
            ("ema(0.9, debias)", "\"ema(0.9, debias)\""),
            ("a \"b\"", "\"a \"\"b\"\"\""),
            ("two\nlines", "\"two\nlines\""),
        ];
        for (cell, expected) in cases {
            assert_eq!(quoted(cell), expected);
        }
    }
}
