//! The directory of a run: made once, read at any time.

use std::{
    fs,
    path::{Path, PathBuf},
};
#[cfg(feature = "train")]
use std::{io, sync::Arc};

use burn::{module::Module, tensor::Device};
use burn_ema::{Error, Result, average, model::Mlp};
#[cfg(feature = "train")]
use burn_ema::{
    runs::{Commit, CommitConfig, Commits, METRICS, Newest, RunLock},
    train::AveragedCommit as _,
};
use burn_ema_base::{
    digest,
    regular::{self, Length},
};
#[cfg(feature = "train")]
use burn_ema_base::{
    digest::UNSEALED,
    disk::{create_directory, replace},
};

use super::RunConfig;

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
            #[cfg(feature = "train")]
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
    /// A file that cannot be read, that has more than 1 MiB, that is not the JSON of a
    /// configuration, or that was altered.
    pub fn config(&self) -> Result<RunConfig> {
        let path = self.config_file();
        #[cfg(feature = "train")]
        if !path.exists()
            && let Some(config) = self.committed_config()?
        {
            return Ok(config);
        }
        const USE: &str = "use the configuration in";
        let text = regular::read(&path, Length::AtMost(MOST_BYTES), USE)?;
        let refuse = |expected: &str, found: &str| {
            Err(Error::file(USE, &path, Error::parameter(DIGEST, expected, found)))
        };
        // Before it is parsed, which takes more room than the text.
        match digest::sealed(&text, 0..text.len(), MARK) {
            None => return refuse("the digest of the other fields", "none (was one altered?)"),
            Some([written, found]) if written != found => {
                let expected = format!("{found}, that of the other fields (was one altered?)");
                return refuse(&expected, &written);
            }
            Some(_) => {}
        }
        serde_json::from_slice(&text).map_err(|error| Error::file("read", &path, error))
    }

    /// The commits of the run.
    #[cfg(feature = "train")]
    pub fn commits(&self) -> Commits {
        Commits::of(&self.path)
    }

    /// The configuration of the newest whole commit, if there is one.
    ///
    /// # Errors
    ///
    /// Those of [`Commits::newest`]; a commit that is not of the perceptron.
    #[cfg(feature = "train")]
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
        #[cfg(feature = "train")]
        if let Some(model) = self.of_newest(|commit| commit.average(mlp.clone()))? {
            return Ok(model);
        }
        Err(Error::file("load the model from", path, NO_MODEL))
    }

    /// Live at the newest whole commit, on a device, in validation mode; none where there is no
    /// commit.
    ///
    /// # Errors
    ///
    /// A file that cannot be read, that was altered, or that does not hold the weights of the
    /// configured network.
    #[cfg(feature = "train")]
    pub fn live(&self, device: &Device) -> Result<Option<Mlp>> {
        let mlp = self.config()?.model.init(device)?;
        self.of_newest(|commit| commit.live(mlp.clone()))
    }

    /// The model of the newest whole commit; none where there is no commit.
    #[cfg(feature = "train")]
    fn of_newest(&self, load: impl Fn(&Commit) -> Result<Mlp>) -> Result<Option<Mlp>> {
        // A commit that was the newest may have been removed before it was read.
        let mut tries = 0;
        loop {
            let Newest { commit, passed_over } = self.commits().newest()?;
            let Some(commit) = commit else {
                return passed_over.into_iter().next().map_or(Ok(None), Err);
            };
            tries += 1;
            match load(&commit) {
                Err(_) if tries < 10 && !commit.path().exists() => {}
                loaded => return loaded.map(|mlp| Some(mlp.valid())),
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
        let Some(file) = regular::open_if_there(&path)? else { return Ok(Vec::new()) };
        let text = std::io::read_to_string(file);
        let text = text.map_err(|error| Error::file("read", path, error))?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// Where the model is that the run leaves: a file of [`Average::save_file`](burn_ema::Average) or
    /// [`save_file`](burn_ema::average::save_file).
    pub fn model_file(&self) -> PathBuf {
        self.path.join("model.bpk")
    }
}

/// The file of remarks on what a run skipped or warned of.
const NOTES: &str = "remarks.txt";

/// No configuration is longer; what is, is none, and is not read.
const MOST_BYTES: u64 = 1 << 20;

/// The field of a configuration's digest, which is that of the text around it.
const DIGEST: &str = "sha256";

/// The same as it stands in the text, where no field within another begins.
const MARK: &[u8] = b"\n  \"sha256\": \"";

/// Why there is no model.
const NO_MODEL: &str = match cfg!(feature = "train") {
    true => "the run has left no model yet, and has no commit",
    false => "the run has left no model yet (its commits are read with the feature `train`)",
};

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
    /// No `config.json` there; a run that another process has locked.
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

    /// Commits in this directory, under its lock, with this configuration and its seed.
    ///
    /// # Errors
    ///
    /// A run that was opened to be read alone; those of [`CommitConfig::with_config`].
    pub fn commit_config(&self, config: &RunConfig) -> Result<CommitConfig> {
        let lock = self.lock.clone();
        let lock =
            lock.ok_or_else(|| Error::value("the run", "one that is locked", "one that is read"))?;
        let commits = CommitConfig::new(&self.path).with_config(config)?;
        Ok(commits.with_seed(config.seed).with_lock(lock))
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
#[cfg(feature = "train")]
fn json(path: &Path, value: &impl serde::Serialize) -> Result<Vec<u8>> {
    let mut text =
        serde_json::to_vec_pretty(value).map_err(|error| Error::file("write", path, error))?;
    text.push(b'\n');
    Ok(text)
}

/// The files that a process that was killed may have left before there was a run.
#[cfg(feature = "train")]
const LEFT_BY_US: [&str; 2] = ["LOCK", "config.json.tmp"];

#[cfg(feature = "train")]
fn names(path: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(path).map_err(|error| Error::file("use", path, error))?;
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let names: io::Result<_> = names.collect();
    names.map_err(|error| Error::file("use", path, error))
}
