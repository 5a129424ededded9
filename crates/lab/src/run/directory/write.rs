//! Directories of runs that are made, locked, replaced and written to.

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

use super::{DIGEST, MARK, MOST_BYTES, NOTES, RunConfig, RunDirectory};

impl RunDirectory {
    /// A new run at a path where there is none yet, locked until this and its clones are gone.
    ///
    /// # Errors
    ///
    /// Like [`RunConfig::check`]; a directory that is not empty, that cannot be made, or that
    /// another process has locked.
    pub fn create(path: impl Into<PathBuf>, config: &RunConfig) -> Result<Self> {
        config.check()?;
        let path = path.into();
        create_directory(&path)?;
        // Before anything is made, so that a directory of another's is as it was.
        let names = names(&path)?;
        if let Some(name) = names.iter().find(|name| !LEFT_BY_US.contains(&&***name)) {
            let error = io::Error::other(format!("the directory is not empty: {name}"));
            return Err(Error::file("start a new run in", path, error));
        }
        let run = Self::locked(path)?;
        // Another process may have made its run meanwhile.
        if run.config_file().exists() {
            let error = io::Error::other("it holds a run");
            return Err(Error::file("start a new run in", run.path, error));
        }
        run.write_config(config)?;
        Ok(run)
    }

    /// A run that exists, to go on with, locked until this and its clones are gone.
    ///
    /// # Errors
    ///
    /// Neither a `config.json` nor a commit there; a run that another process has locked.
    pub fn resume(path: impl Into<PathBuf>) -> Result<Self> {
        let run = Self::open(path)?;
        Self::locked(run.path)
    }

    fn locked(path: PathBuf) -> Result<Self> {
        let lock = Arc::new(RunLock::take(&path)?);
        let run = Self { path, lock: Some(lock) };
        run.clear();
        Ok(run)
    }

    /// Removes what a process that was killed had begun to write of a model; no other process
    /// writes here now.
    fn clear(&self) {
        let names = names(&self.path).unwrap_or_default();
        // What cannot be removed today is in the way of nothing, and is tried again.
        let begun = names.iter().filter(|name| regular::begun(name) == Some("model.bpk"));
        begun.for_each(|name| _ = fs::remove_file(self.path.join(name)));
    }

    /// The settings of commits in this directory: under its lock, with this configuration and its
    /// seed.
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
    /// `report/`, and begins a new run there, locked until this and its clones are gone.
    ///
    /// # Errors
    ///
    /// Like [`RunConfig::check`]; neither a `config.json` nor a commit there; a run that another
    /// process has locked. After these the run is untouched. Further, a configuration that cannot
    /// be written, and something that cannot be removed.
    pub fn replace(path: impl Into<PathBuf>, config: &RunConfig) -> Result<Self> {
        config.check()?;
        let run = Self::resume(path)?;
        // First what no old commit fits, so that whatever ends this here, no old run goes on.
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

    fn gone(&self, removed: io::Result<()>, name: &str) -> Result<()> {
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::file("remove", self.path.join(name), error))
            }
            _ => Ok(()),
        }
    }

    /// True where the run has left its model already.
    pub fn is_finished(&self) -> bool {
        self.model_file().exists()
    }

    /// Writes the configuration.
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
        if text.len() as u64 > MOST_BYTES {
            let found = Length::Exactly(text.len() as u64);
            return Err(refuse(Error::parameter("its length", Length::AtMost(MOST_BYTES), found)));
        }
        replace(&path, &text)
    }

    /// Keeps a line about something that was skipped or warned of, once, for
    /// [`notes`](Self::notes): a run that goes on says much of it again.
    ///
    /// # Errors
    ///
    /// A file that cannot be read or written.
    pub fn note(&self, line: impl AsRef<str>) -> Result<()> {
        // A name from a table may hold the end of a line.
        let line: Vec<_> = line.as_ref().lines().collect();
        let line = line.join(" ");
        let mut notes = self.notes()?;
        if notes.contains(&line) {
            return Ok(());
        }
        notes.push(line);
        replace(&self.path.join(NOTES), (notes.join("\n") + "\n").as_bytes())
    }

    /// Writes a value as JSON, whole or not at all, under a name in the directory.
    ///
    /// # Errors
    ///
    /// A file that cannot be written.
    pub fn write_json(&self, name: &str, value: &impl serde::Serialize) -> Result<()> {
        let path = self.path.join(name);
        replace(&path, &json(&path, value)?)
    }
}

/// A value as JSON for people; the path is for the error.
fn json(path: &Path, value: &impl serde::Serialize) -> Result<Vec<u8>> {
    let mut text =
        serde_json::to_vec_pretty(value).map_err(|error| Error::file("write", path, error))?;
    text.push(b'\n');
    Ok(text)
}

/// The files that a process that was killed may have left before there was a run.
const LEFT_BY_US: [&str; 2] = ["LOCK", "config.json.tmp"];

fn names(path: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(path).map_err(|error| Error::file("use", path, error))?;
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let names: io::Result<_> = names.collect();
    names.map_err(|error| Error::file("use", path, error))
}
