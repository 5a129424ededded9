//! The directory of a run: made once, read at any time.

#[cfg(feature = "train")]
use std::io;
use std::{
    fs,
    path::{Path, PathBuf},
};

#[cfg(feature = "train")]
use burn::{lr_scheduler::LrSchedulerRecord, optim::OptimizerRecord};
use burn::{
    module::Module,
    store::ModuleRecord,
    tensor::{Bytes, Device},
};

use super::RunConfig;
use crate::{Error, Result, average::Opened, model::Mlp};

/// The directory of a run.
#[derive(Clone, Debug)]
pub struct RunDirectory {
    path: PathBuf,
}

impl RunDirectory {
    /// A run that exists, to read or to resume.
    ///
    /// # Errors
    ///
    /// No `config.json` there.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self> {
        let run = Self { path: path.into() };
        let config = run.config_file();
        match fs::metadata(&config) {
            Ok(_) => Ok(run),
            Err(error) => Err(Error::file("read the configuration of a run", config, error)),
        }
    }

    /// Where the run is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The run's configuration.
    ///
    /// # Errors
    ///
    /// A file that cannot be read, or that is not the JSON of a configuration.
    pub fn config(&self) -> Result<RunConfig> {
        let path = self.config_file();
        let text = fs::read(&path).map_err(|error| Error::file("read", &path, error))?;
        serde_json::from_slice(&text).map_err(|error| Error::file("read", &path, error))
    }

    /// The averaged model that the run left, on a device, in validation mode.
    ///
    /// The weights live in memory: what happens to the file later does not reach them.
    ///
    /// # Errors
    ///
    /// A file that cannot be read, or that does not hold the weights of the configured network.
    pub fn model(&self, device: &Device) -> Result<Mlp> {
        let path = self.model_file();
        let refuse = |error: Box<dyn std::error::Error + Send + Sync>| {
            Error::file("load the model from", &path, error)
        };
        let mlp = self.config()?.model.init(device)?;
        let bytes = fs::read(&path).map_err(|error| refuse(error.into()))?;
        let record = ModuleRecord::from_bytes(Bytes::from_bytes_vec(bytes));
        let record = record.map_err(|error| refuse(error.into()))?;
        let loaded = Opened::read(record).and_then(|opened| opened.apply(mlp, &[], |_| false));
        loaded.map(|mlp| mlp.valid()).map_err(|error| refuse(error.into()))
    }

    fn config_file(&self) -> PathBuf {
        self.path.join("config.json")
    }

    fn model_file(&self) -> PathBuf {
        self.path.join("model.bpk")
    }
}

#[cfg(feature = "train")]
impl RunDirectory {
    /// A new run at a path where there is none yet.
    ///
    /// # Errors
    ///
    /// Those of [`RunConfig::check`]; a directory that is not empty, or that cannot be made.
    pub fn create(path: impl Into<PathBuf>, config: &RunConfig) -> Result<Self> {
        config.check()?;
        let run = Self { path: path.into() };
        let empty = match fs::read_dir(&run.path) {
            Ok(mut entries) => entries.next().is_none(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => true,
            Err(error) => return Err(Error::file("use", run.path, error)),
        };
        if !empty {
            let error = io::Error::other("the directory is not empty");
            return Err(Error::file("start a new run in", run.path, error));
        }
        fs::create_dir_all(&run.path).map_err(|error| Error::file("create", &run.path, error))?;
        run.write_config(config)?;
        Ok(run)
    }

    /// Removes what the run wrote, and nothing else, and begins a new one in its place.
    ///
    /// # Errors
    ///
    /// Those of [`RunConfig::check`], with the run untouched; something that cannot be removed.
    pub fn replace(self, config: &RunConfig) -> Result<Self> {
        config.check()?;
        for name in ["checkpoint", "train", "valid", "test"] {
            self.gone(fs::remove_dir_all(self.path.join(name)), name)?;
        }
        for name in ["model.bpk", "report.json", "experiment.log"] {
            self.gone(fs::remove_file(self.path.join(name)), name)?;
        }
        self.write_config(config)?;
        Ok(self)
    }

    fn gone(&self, removed: io::Result<()>, name: &str) -> Result<()> {
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::file("remove", self.path.join(name), error))
            }
            _ => Ok(()),
        }
    }

    /// The last epoch of which Burn's checkpointers left all three files.
    ///
    /// # Errors
    ///
    /// A directory that cannot be read.
    pub fn last_epoch(&self) -> Result<Option<usize>> {
        let path = self.path.join("checkpoint");
        let entries = match fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::file("read", path, error)),
        };
        let epochs = entries.filter_map(|entry| {
            let name = entry.ok()?.file_name().into_string().ok()?;
            let epoch: usize = name.strip_prefix("model-")?.strip_suffix(".bpk")?.parse().ok()?;
            let whole = ["optim", "scheduler"]
                .iter()
                .all(|kind| path.join(format!("{kind}-{epoch}.bpk")).exists());
            whole.then_some(epoch)
        });
        Ok(epochs.max())
    }

    /// Checks that a model can go on from an epoch's checkpoint.
    ///
    /// Burn panics on one that is missing, damaged or of another model, so this looks before.
    ///
    /// # Errors
    ///
    /// The file that cannot be used, and why.
    pub fn check_checkpoint(&self, epoch: usize, model: impl Module) -> Result<()> {
        let file = |kind: &str| self.path.join("checkpoint").join(format!("{kind}-{epoch}.bpk"));
        let refuse = |kind: &str, error| Err(Error::file("resume from", file(kind), error));
        if let Err(error) = model.try_load_file(file("model")) {
            return refuse("model", error);
        }
        if let Err(error) = OptimizerRecord::load(file("optim")) {
            return refuse("optim", error);
        }
        if let Err(error) = LrSchedulerRecord::load(file("scheduler")) {
            return refuse("scheduler", error);
        }
        Ok(())
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
        self.write_json("config.json", config)
    }

    /// Writes the model that the run leaves.
    ///
    /// # Errors
    ///
    /// A file that cannot be written.
    pub fn write_model(&self, model: Mlp) -> Result<()> {
        let path = self.model_file();
        let saved = model.into_record().save(&path);
        saved.map_err(|error| Error::file("write", path, error))
    }

    /// Writes a value as JSON, whole or not at all, under a name in the directory.
    ///
    /// # Errors
    ///
    /// A file that cannot be written.
    pub fn write_json(&self, name: &str, value: &impl serde::Serialize) -> Result<()> {
        let path = self.path.join(name);
        let unfinished = self.path.join(format!("{name}.tmp"));
        let mut text =
            serde_json::to_vec_pretty(value).map_err(|error| Error::file("write", &path, error))?;
        text.push(b'\n');
        fs::write(&unfinished, text)
            .and_then(|()| fs::rename(&unfinished, &path))
            .map_err(|error| Error::file("write", &path, error))
    }
}
