//! Creating, locking, replacing and writing directories of runs.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use burn_ema::{
    Error, Result,
    runs::{CommitConfig, METRICS, RunLock},
};
use burn_ema_base::{
    digest::{self, UNSEALED},
    disk::{create_directory, replace},
    regular::{self, Length},
};

use super::{DIGEST, MARK, MAX_BYTES, NOTES, RunConfig, RunDirectory};

impl RunDirectory {
    /// Creates a run with its `config.json` in a new or empty directory, and locks it until the
    /// returned value and all its clones are dropped.
    ///
    /// # Errors
    ///
    /// The errors of [`RunConfig::check`]; a directory that is not empty, that cannot be created,
    /// or that another process has locked; a configuration that cannot be written.
    pub fn create(path: impl Into<PathBuf>, config: &RunConfig) -> Result<Self> {
        config.check()?;
        let path = path.into();
        create_directory(&path)?;
        // Checked before a file is created, so that a directory of something else stays unchanged.
        let names = names(&path)?;
        if let Some(name) = names.iter().find(|name| !LEFT_BY_US.contains(&&***name)) {
            let error = io::Error::other(format!("the directory is not empty: {name}"));
            return Err(Error::file("start a new run in", path, error));
        }
        let run = Self::locked(path)?;
        // Another process may have created a run before the lock was taken.
        if run.config_file().exists() {
            let error = io::Error::other("it holds a run");
            return Err(Error::file("start a new run in", run.path, error));
        }
        run.write_config(config)?;
        Ok(run)
    }

    /// Opens a run to go on with it, and locks it until the returned value and all its clones are
    /// dropped.
    ///
    /// # Errors
    ///
    /// Neither a `config.json` nor a commit in the directory; a lock of another process.
    pub fn resume(path: impl Into<PathBuf>) -> Result<Self> {
        let run = Self::open(path)?;
        Self::locked(run.path)
    }

    /// Locks a directory, and removes temporary files that a killed process left.
    fn locked(path: PathBuf) -> Result<Self> {
        let lock = Arc::new(RunLock::take(&path)?);
        let run = Self { path, lock: Some(lock) };
        run.clear();
        Ok(run)
    }

    /// Removes the temporary files of `model.bpk` that a killed process left. No other process
    /// writes here, since the directory is locked.
    fn clear(&self) {
        let names = names(&self.path).unwrap_or_default();
        // A file that cannot be removed does no harm; the next process tries again.
        let begun = names.iter().filter(|name| regular::begun(name) == Some("model.bpk"));
        begun.for_each(|name| _ = fs::remove_file(self.path.join(name)));
    }

    /// The settings for commits in this directory: its lock, `config`, and the seed in `config`.
    ///
    /// # Errors
    ///
    /// A run that was opened for reading only; the errors of [`CommitConfig::with_config`].
    pub fn commit_config(&self, config: &RunConfig) -> Result<CommitConfig> {
        let lock = self.lock.clone();
        let lock =
            lock.ok_or_else(|| Error::value("the run", "one that is locked", "one that is read"))?;
        let commits = CommitConfig::new(&self.path).with_config(config)?;
        Ok(commits.with_seed(config.seed).with_lock(lock))
    }

    /// Removes what the run at a path wrote, with all that is in its `commits/`, `snapshots/` and
    /// `report/`, and begins a new run there. The run is locked until the returned value and all
    /// its clones are dropped.
    ///
    /// # Errors
    ///
    /// The errors of [`RunConfig::check`]; neither a `config.json` nor a commit in the directory; a
    /// run that another process has locked. These errors leave the run unchanged. Further, a
    /// configuration that cannot be written, and a file or directory that cannot be removed.
    pub fn replace(path: impl Into<PathBuf>, config: &RunConfig) -> Result<Self> {
        config.check()?;
        let run = Self::resume(path)?;
        // The new configuration is written first. No old commit fits it, so that the old run cannot
        // be resumed, even if this function is interrupted.
        run.write_config(config)?;
        for name in ["commits", "snapshots", "report"] {
            run.gone(fs::remove_dir_all(run.path.join(name)), name)?;
        }
        let files =
            ["model.bpk", "report.json", "summary.json", "split.json", "report.html", NOTES];
        for name in files.into_iter().chain([METRICS, "experiment.log"]) {
            run.gone(fs::remove_file(run.path.join(name)), name)?;
        }
        Ok(run)
    }

    /// The result of a removal, where a file that was not there counts as removed.
    fn gone(&self, removed: io::Result<()>, name: &str) -> Result<()> {
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::file("remove", self.path.join(name), error))
            }
            _ => Ok(()),
        }
    }

    /// True if the run has saved its model.
    pub fn is_finished(&self) -> bool {
        self.model_file().exists()
    }

    /// Writes the configuration to `config.json`, whole or not at all, with its digest.
    ///
    /// # Errors
    ///
    /// A configuration of more than 1 MiB; a file that cannot be written.
    pub fn write_config(&self, config: &RunConfig) -> Result<()> {
        let path = self.config_file();
        let refuse = |error| Error::file("write", &path, error);
        let mut config =
            serde_json::to_value(config).map_err(|error| Error::file("write", &path, error))?;
        if let Some(fields) = config.as_object_mut() {
            fields.insert(DIGEST.to_owned(), UNSEALED.into());
        }
        let mut text = json(&path, &config)?;
        let within = 0..text.len();
        let sealed = digest::seal(&mut text, within, MARK);
        sealed.ok_or_else(|| refuse(Error::parameter(DIGEST, "one field of this name", "none")))?;
        if text.len() as u64 > MAX_BYTES {
            let found = Length::Exactly(text.len() as u64);
            return Err(refuse(Error::parameter("its length", Length::AtMost(MAX_BYTES), found)));
        }
        replace(&path, &text)
    }

    /// Adds a line about something that was skipped or warned of to [`notes`](Self::notes), unless
    /// the line is there already: a resumed run repeats many remarks. Line ends become spaces.
    ///
    /// # Errors
    ///
    /// A file that cannot be read or written.
    pub fn note(&self, line: impl AsRef<str>) -> Result<()> {
        // A name from a table can contain a line end.
        let line: Vec<_> = line.as_ref().lines().collect();
        let line = line.join(" ");
        let mut notes = self.notes()?;
        if notes.contains(&line) {
            return Ok(());
        }
        notes.push(line);
        replace(&self.path.join(NOTES), (notes.join("\n") + "\n").as_bytes())
    }

    /// Writes a value as indented JSON to the file `name` in the directory, whole or not at all.
    ///
    /// # Errors
    ///
    /// A file that cannot be written.
    pub fn write_json(&self, name: &str, value: &impl serde::Serialize) -> Result<()> {
        let path = self.path.join(name);
        replace(&path, &json(&path, value)?)
    }
}

/// A value as indented JSON; the path is only for errors.
fn json(path: &Path, value: &impl serde::Serialize) -> Result<Vec<u8>> {
    let mut text =
        serde_json::to_vec_pretty(value).map_err(|error| Error::file("write", path, error))?;
    text.push(b'\n');
    Ok(text)
}

/// The files that a killed process may have left before it wrote the configuration of its run.
const LEFT_BY_US: [&str; 2] = ["LOCK", "config.json.tmp"];

/// The names of the entries of a directory; bytes that are not UTF-8 are replaced.
fn names(path: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(path).map_err(|error| Error::file("use", path, error))?;
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let names: io::Result<_> = names.collect();
    names.map_err(|error| Error::file("use", path, error))
}
