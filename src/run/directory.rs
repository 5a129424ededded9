//! The directory of a run: made once, read at any time.

use std::{
    fs,
    path::{Path, PathBuf},
};
#[cfg(feature = "train")]
use std::{io, sync::Arc};

use burn::{module::Module, tensor::Device};
use serde_json::Value;

use super::{Commits, Newest, RunConfig, digest};
#[cfg(feature = "train")]
use super::{RunLock, disk, history::METRICS};
use crate::{Error, Result, average, model::Mlp};

/// The directory of a run.
#[derive(Clone, Debug)]
pub struct RunDirectory {
    path: PathBuf,
    /// Held by the one that writes.
    #[cfg(feature = "train")]
    lock: Option<Arc<RunLock>>,
}

impl RunDirectory {
    /// A run that exists, to be read: also while another process trains it.
    ///
    /// # Errors
    ///
    /// No `config.json` there, and no commit.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self> {
        let run = Self {
            path: path.into(),
            #[cfg(feature = "train")]
            lock: None,
        };
        let config = run.config_file();
        match fs::metadata(&config) {
            Ok(_) => Ok(run),
            Err(_) if !run.commits().list()?.is_empty() => Ok(run),
            Err(error) => Err(Error::file("read the configuration of a run", config, error)),
        }
    }

    /// Where the run is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The run's configuration: that of its newest whole commit, where `config.json` is gone.
    ///
    /// # Errors
    ///
    /// A file that cannot be read, that is not the JSON of a configuration, or in which a field
    /// was altered.
    pub fn config(&self) -> Result<RunConfig> {
        let path = self.config_file();
        if !path.exists()
            && let Some(config) = self.committed_config()?
        {
            return Ok(config);
        }
        let text = fs::read(&path).map_err(|error| Error::file("read", &path, error))?;
        let refuse = |error| Error::file("use the configuration in", &path, error);
        let mut config: Value =
            serde_json::from_slice(&text).map_err(|error| Error::file("read", &path, error))?;
        let written = config.as_object_mut().and_then(|fields| fields.remove(DIGEST));
        let digest = Value::String(digest_of(&config));
        if written.as_ref() != Some(&digest) {
            let found = written.map_or("nothing".to_owned(), |written| written.to_string());
            let expected = format!("{digest}, that of the other fields (was one altered?)");
            return Err(refuse(Error::parameter(DIGEST, expected, found)));
        }
        serde_json::from_value(config).map_err(|error| Error::file("read", &path, error))
    }

    /// The commits of the run.
    pub fn commits(&self) -> Commits {
        Commits::of(&self.path)
    }

    /// The configuration of the newest whole commit, if there is one.
    ///
    /// # Errors
    ///
    /// Those of [`Commits::newest`]; a commit that is not of the perceptron.
    pub fn committed_config(&self) -> Result<Option<RunConfig>> {
        let Some(commit) = self.commits().newest()?.commit else { return Ok(None) };
        let config = serde_json::from_value(commit.manifest().config.clone());
        let refuse = |error| Error::file("use the configuration in", commit.path(), error);
        config.map(Some).map_err(refuse)
    }

    /// The averaged model that the run left, on a device, in validation mode; until it has left one,
    /// the first average of the newest whole commit.
    ///
    /// The weights live in memory: what happens to the file later does not reach them.
    ///
    /// # Errors
    ///
    /// A file that cannot be read, that was altered, or that does not hold the weights of the
    /// configured network; a run that has left no model and no commit yet.
    pub fn model(&self, device: &Device) -> Result<Mlp> {
        let mlp = self.config()?.model.init(device)?;
        let path = self.model_file();
        if path.exists() {
            return average::load_file(mlp, path).map(|mlp| mlp.valid());
        }
        // A commit that was the newest may have been removed before it was read.
        let mut tries = 0;
        loop {
            let Newest { commit, passed_over } = self.commits().newest()?;
            let Some(commit) = commit else {
                let none = || Error::file("load the model from", path, NO_MODEL);
                return Err(passed_over.into_iter().next().unwrap_or_else(none));
            };
            tries += 1;
            match commit.average(mlp.clone()) {
                Err(_) if tries < 10 && !commit.path().exists() => {}
                loaded => return loaded.map(|mlp| mlp.valid()),
            }
        }
    }

    fn config_file(&self) -> PathBuf {
        self.path.join("config.json")
    }

    /// What the run skipped or warned of, a line each: see [`note`](Self::note).
    ///
    /// # Errors
    ///
    /// A file that is there and cannot be read as text.
    pub fn notes(&self) -> Result<Vec<String>> {
        let path = self.path.join(NOTES);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(text.lines().map(str::to_owned).collect()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(Error::file("read", path, error)),
        }
    }

    /// Where the model is that the run leaves: a file of [`Average::save_file`](crate::Average) or
    /// [`save_file`](crate::average::save_file).
    pub fn model_file(&self) -> PathBuf {
        self.path.join("model.bpk")
    }
}

/// The file of what a run skipped or warned of.
const NOTES: &str = "notes.txt";

/// The field of a configuration's digest.
const DIGEST: &str = "sha256";

/// The SHA-256 of a configuration, however it is spaced.
fn digest_of(config: &Value) -> String {
    digest::sha256(config.to_string().as_bytes())
}

/// Why there is no model.
const NO_MODEL: &str = "the run has left no model yet, and has no commit";

#[cfg(feature = "train")]
impl RunDirectory {
    /// A new run at a path where there is none yet, locked until this and its clones are gone.
    ///
    /// # Errors
    ///
    /// Those of [`RunConfig::check`]; a directory that is not empty, that cannot be made, or that
    /// another process has locked.
    pub fn create(path: impl Into<PathBuf>, config: &RunConfig) -> Result<Self> {
        config.check()?;
        let path = path.into();
        disk::create_directory(&path)?;
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
    /// No `config.json` there; a run that another process has locked.
    pub fn resume(path: impl Into<PathBuf>) -> Result<Self> {
        let run = Self::open(path)?;
        Self::locked(run.path)
    }

    fn locked(path: PathBuf) -> Result<Self> {
        let lock = Arc::new(RunLock::take(&path)?);
        Ok(Self { path, lock: Some(lock) })
    }

    /// The lock of the run.
    pub(crate) fn lock(&self) -> Result<Arc<RunLock>> {
        let lock = self.lock.clone();
        lock.ok_or_else(|| Error::value("the run", "one that is locked", "one that is read"))
    }

    /// Removes what the run at a path wrote, with all that is in its `commits/`, `snapshots/` and
    /// `report/`, and begins a new one in its place.
    ///
    /// # Errors
    ///
    /// Those of [`RunConfig::check`] and a run that another process has locked, with the run
    /// untouched; something that cannot be removed.
    pub fn replace(path: impl Into<PathBuf>, config: &RunConfig) -> Result<Self> {
        config.check()?;
        let run = Self::resume(path)?;
        // First what no old commit fits, so that whatever ends this here, no old run goes on.
        run.write_config(config)?;
        for name in ["commits", "snapshots", "report"] {
            run.gone(fs::remove_dir_all(run.path.join(name)), name)?;
        }
        let files = ["model.bpk", "report.json", "summary.json", "report.html", NOTES];
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

    /// Whether the run has left its model already.
    pub fn is_finished(&self) -> bool {
        self.model_file().exists()
    }

    /// Writes the configuration.
    ///
    /// # Errors
    ///
    /// A file that cannot be written.
    pub fn write_config(&self, config: &RunConfig) -> Result<()> {
        let path = self.config_file();
        let refuse = |error| Error::file("write", &path, error);
        let mut config = serde_json::to_value(config).map_err(refuse)?;
        let digest = Value::String(digest_of(&config));
        if let Some(fields) = config.as_object_mut() {
            fields.insert(DIGEST.to_owned(), digest);
        }
        self.write_json("config.json", &config)
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
        disk::replace(&self.path.join(NOTES), (notes.join("\n") + "\n").as_bytes())
    }

    /// Writes a value as JSON, whole or not at all, under a name in the directory.
    ///
    /// # Errors
    ///
    /// A file that cannot be written.
    pub fn write_json(&self, name: &str, value: &impl serde::Serialize) -> Result<()> {
        let path = self.path.join(name);
        let mut text =
            serde_json::to_vec_pretty(value).map_err(|error| Error::file("write", &path, error))?;
        text.push(b'\n');
        disk::replace(&path, &text)
    }
}

/// What a process that was killed may have left before there was a run.
#[cfg(feature = "train")]
const LEFT_BY_US: [&str; 2] = ["LOCK", "config.json.tmp"];

#[cfg(feature = "train")]
fn names(path: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(path).map_err(|error| Error::file("use", path, error))?;
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let names: io::Result<_> = names.collect();
    names.map_err(|error| Error::file("use", path, error))
}
