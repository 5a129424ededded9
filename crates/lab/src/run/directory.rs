//! The directory of a run: made once, read at any time.

#[cfg_attr(not(feature = "train"), path = "directory/no_commits.rs")]
mod commits; // configuration and models of its commits
#[cfg(feature = "train")]
mod write; // making, locking and writing it

#[cfg(feature = "train")]
use std::sync::Arc;
use std::{
    fs,
    path::{Path, PathBuf},
};

use burn::{module::Module, tensor::Device};
#[cfg(feature = "train")]
use burn_ema::runs::RunLock;
use burn_ema::{Error, Result, average, model::Mlp};
use burn_ema_base::{
    digest,
    regular::{self, Length},
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
            Err(_) if run.has_commit()? => Ok(run),
            Err(error) => Err(Error::file("read the configuration of a run", config, error)),
        }
    }

    /// The path of the directory.
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
        let committed = self.committed_average(mlp)?;
        committed.ok_or_else(|| Error::file("load the model from", path, NO_MODEL))
    }

    fn config_file(&self) -> PathBuf {
        self.path.join("config.json")
    }

    /// Remarks on what the run skipped or warned of, a line each: see `note`.
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

    /// The file of the model that the run leaves: one of [`Average::save_file`](burn_ema::Average) or
    /// [`save_file`](burn_ema::average::save_file).
    pub fn model_file(&self) -> PathBuf {
        self.path.join("model.bpk")
    }
}

/// The file of remarks on what a run skipped or warned of.
const NOTES: &str = "remarks.txt";

/// The largest length of a configuration in bytes; a longer file is none, and is not read.
const MOST_BYTES: u64 = 1 << 20;

/// The field of a configuration that holds the digest of the rest of its text.
const DIGEST: &str = "sha256";

/// The text before the digest; its indentation keeps a nested field of this name from matching.
const MARK: &[u8] = b"\n  \"sha256\": \"";

/// The reason for an error where there is no model.
const NO_MODEL: &str = match cfg!(feature = "train") {
    true => "the run has left no model yet, and has no commit",
    false => "the run has left no model yet (its commits are read with the feature `train`)",
};
