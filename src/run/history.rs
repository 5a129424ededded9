//! The metrics of a run, in one file that a resumed run goes on with.
//!
//! Burn's own logs are a file for each metric and epoch, which a resumed half epoch truncates, and
//! whose stale epochs a shorter run would take for its own.

use burn_ema_base::digest;
use burn_ema_base::regular::{self, Length};
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The name of the file, in the run's directory.
#[cfg(feature = "train")]
pub const METRICS: &str = "metrics.csv";

/// The name under which the history says which average the metrics of validation are of.
#[cfg(feature = "train")]
pub const VALIDATED: &str = "Validated average";

/// Where the history was when something was committed, and what decisions need of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Mark {
    /// The length of the file.
    pub bytes: u64,
    /// The SHA-256 of that much of it.
    pub sha256: String,
    /// What each epoch came to.
    pub epochs: BTreeMap<usize, BTreeMap<Key, Number>>,
    /// What the epoch at hand has come to so far.
    pub running: BTreeMap<Key, Running>,
}

/// A split and the name of a metric, such as `valid/Loss`.
pub(crate) type Key = String;

/// A float of any kind, which JSON has not.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Number(pub f64);

impl PartialEq for Number {
    fn eq(&self, other: &Self) -> bool {
        self.0.to_bits() == other.0.to_bits()
    }
}

impl From<Number> for String {
    fn from(Number(number): Number) -> Self {
        number.to_string()
    }
}

impl TryFrom<String> for Number {
    type Error = std::num::ParseFloatError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse().map(Self)
    }
}

/// The sum of a metric over the batches of an epoch, as Burn forms it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Running {
    pub sum: Number,
    pub count: usize,
}

impl Running {
    #[cfg(feature = "train")]
    fn add(&mut self, value: f64, count: usize) {
        if count > 0 {
            self.sum.0 += value * count as f64;
            self.count += count;
        }
    }

    #[cfg(feature = "train")]
    fn mean(&self) -> f64 {
        self.sum.0 / self.count as f64
    }
}

#[cfg(feature = "train")]
pub(crate) use write::History;

#[cfg(feature = "train")]
mod write {
    use std::{
        fs::File,
        io::{self, Read as _, Seek as _, SeekFrom, Write as _},
        path::{Path, PathBuf},
    };

    use burn::train::metric::{
        NumericEntry,
        store::{MetricsUpdate, Split},
    };
    use sha2::{Digest, Sha256};

    use super::*;
    use crate::{Error, Result, run::disk};

    /// The first line.
    const HEADER: &str = "split,epoch,metric,value,count\n";

    /// Whether a history may be begun there: where nothing is, or one that was begun.
    fn begins_a_history(path: &Path) -> bool {
        let Ok((file, _)) = regular::open(path) else { return true };
        let mut line = Vec::new();
        let read = file.take(HEADER.len() as u64).read_to_end(&mut line);
        // What cannot be read can be no other file; why, the attempt to write it tells.
        read.is_err() || HEADER.as_bytes().starts_with(&line)
    }

    /// The metrics of a run, as they come.
    pub(crate) struct History {
        path: PathBuf,
        file: File,
        /// Lines that are not in the file yet.
        lines: Vec<u8>,
        bytes: u64,
        digest: Sha256,
        epochs: BTreeMap<usize, BTreeMap<Key, Number>>,
        running: BTreeMap<Key, Running>,
        /// What this process has seen of the epoch at hand, which is all that Burn has.
        seen: BTreeMap<Key, Running>,
        /// The epoch and split at hand.
        current: Option<(usize, String)>,
        /// The last epoch that is shown, where later ones are hidden.
        shown: Option<usize>,
    }

    impl History {
        /// An empty history, in place of one of a run that never committed.
        ///
        /// # Errors
        ///
        /// A file of this name that is no history; one that cannot be written.
        pub fn create(run: &Path) -> Result<Self> {
            let path = run.join(METRICS);
            let broken = |error| Error::file("create", &path, error);
            regular::check(&path).map_err(broken)?;
            if !begins_a_history(&path) {
                let error = Error::parameter("line 1", HEADER.trim_end(), "another file");
                return Err(Error::file("write the metrics to", path, error));
            }
            // Epochs that ended were committed: their commits are gone, and this may be all there is.
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
                current: None,
                shown: None,
            }
        }

        /// The history up to a mark; what came after it is removed.
        ///
        /// A file that is not as it was at the mark is set aside: nothing is decided by the file,
        /// since the mark holds what decisions need.
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
                    // A link that leads nowhere is in the way, too.
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

        /// Keeps a copy of the file beside it, if it has more than until a mark, which
        /// [`resume`](Self::resume) removes: it is of commits that are set aside.
        ///
        /// One that is not as it was at the mark is set aside whole by that.
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

        /// Checks that the file is as it was at a mark, and changes nothing.
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

        /// Writes what is not in the file yet.
        pub fn write(&mut self) -> Result<()> {
            let lines = std::mem::take(&mut self.lines);
            let written = self.file.write_all(&lines);
            written.map_err(|error| Error::file("write", &self.path, error))?;
            self.digest.update(&lines);
            self.bytes += lines.len() as u64;
            Ok(())
        }

        /// Where the history is now; everything so far is in the file then.
        pub fn mark(&mut self) -> Result<Mark> {
            self.write()?;
            Ok(Mark {
                bytes: self.bytes,
                sha256: digest::hexadecimal(self.digest.clone().finalize()),
                epochs: self.epochs.clone(),
                running: self.running.clone(),
            })
        }

        /// Says of which average the metrics of validation are from an epoch on.
        pub fn validates(&mut self, epoch: usize, average: &str) -> Result<()> {
            self.line(&Split::Valid.to_string(), epoch, VALIDATED, average, "text")
        }

        /// Whether nothing has been logged yet.
        pub fn is_empty(&self) -> bool {
            self.lines.is_empty() && self.bytes == HEADER.len() as u64
        }

        /// A handle with which another thread makes the file durable.
        pub fn file(&self) -> Result<(PathBuf, File)> {
            let file = self.file.try_clone();
            let file = file.map_err(|error| Error::file("sync", &self.path, error))?;
            Ok((self.path.clone(), file))
        }

        /// Takes the metrics of a batch, or of the end of a split.
        pub fn log(
            &mut self,
            update: &MetricsUpdate,
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
                self.number(&split, epoch, &name, entry)?;
            }
            Ok(())
        }

        fn number(
            &mut self,
            split: &str,
            epoch: usize,
            name: &str,
            entry: NumericEntry,
        ) -> Result<()> {
            let key = format!("{split}/{name}");
            let (value, count) = match entry {
                NumericEntry::Value(value) => (value, Some(1)),
                NumericEntry::Aggregated { aggregated_value, count } => {
                    (aggregated_value, Some(count))
                }
                NumericEntry::Final(value) => (value, None),
            };
            let Some(count) = count else {
                let (running, seen) = (self.running.remove(&key), self.seen.remove(&key));
                // Burn's mean is of what this process has seen; after a resume the epoch has more.
                let value = match (running, seen) {
                    (Some(all), Some(seen)) if seen.mean().to_bits() == value.to_bits() => {
                        all.mean()
                    }
                    // No mean: what it would be of the whole epoch, no one knows.
                    (Some(all), seen) if seen.as_ref() != Some(&all) => {
                        return self.line(split, epoch, name, &value.to_string(), "part");
                    }
                    _ => value,
                };
                self.epochs.entry(epoch).or_default().insert(key, Number(value));
                self.line(split, epoch, name, &value.to_string(), "epoch")?;
                // The end of a split: readers see it at once.
                return self.write();
            };
            for sums in [&mut self.running, &mut self.seen] {
                sums.entry(key.clone()).or_default().add(value, count);
            }
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
            let mut line = csv::Writer::from_writer(Vec::new());
            let epoch = epoch.to_string();
            line.write_record([split, &epoch, name, value, count]).map_err(Error::other)?;
            let line = line.into_inner().map_err(|error| Error::other(error.to_string()))?;
            self.lines.extend(line);
            match self.lines.len() {
                ..65_536 => Ok(()),
                _ => self.write(),
            }
        }

        /// The end of a split: metrics that Burn does not end come to the mean of their values, as
        /// Burn itself takes them.
        pub fn end(&mut self, epoch: usize, split: &Split) -> Result<()> {
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

        /// Hides the epochs after one, as if they were to come; none is hidden otherwise.
        pub fn show_until(&mut self, epoch: Option<usize>) {
            self.shown = epoch;
        }

        /// What a metric came to in an epoch, or has come to so far.
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
}
