//! The directory of a run.

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
    /// The lock of the run, for writing; `None` for a run that was opened for reading.
    #[cfg(feature = "train")]
    lock: Option<Arc<RunLock>>,
}

impl RunDirectory {
    /// Opens a run for reading, which is possible while another process trains it.
    ///
    /// # Errors
    ///
    /// Neither a `config.json` nor a commit in the directory; commits that cannot be listed.
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

    /// The configuration of the run: that in `config.json` or, where this file is gone, that of the
    /// newest whole commit. Commits need the feature `train`.
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
        let text = regular::read(&path, Length::AtMost(MAX_BYTES), USE)?;
        let refuse = |expected: &str, found: &str| {
            Err(Error::file(USE, &path, Error::parameter(DIGEST, expected, found)))
        };
        // The digest is checked before the text is parsed, which takes more memory than the text.
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

    /// The averaged model of the run, on a device, in validation mode. Before the run has ended, it
    /// is the first average of the newest whole commit, which needs the feature `train`.
    ///
    /// The weights are copied to memory, so that later changes of the file do not affect them.
    ///
    /// # Errors
    ///
    /// A file that cannot be read, that was altered, or that does not hold the weights of the
    /// configured network; a run that has neither a model nor a commit yet.
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

    /// Remarks on what the run skipped or warned of, one line each; empty if there is no file of
    /// remarks. `note` adds a line.
    ///
    /// # Errors
    ///
    /// A file of remarks that cannot be read as text.
    pub fn notes(&self) -> Result<Vec<String>> {
        let path = self.path.join(NOTES);
        let Some(file) = regular::open_if_there(&path)? else { return Ok(Vec::new()) };
        let text = std::io::read_to_string(file);
        let text = text.map_err(|error| Error::file("read", path, error))?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// The path of the averaged model of a finished run, a file of
    /// [`Average::save_file`](burn_ema::Average) or [`save_file`](burn_ema::average::save_file).
    pub fn model_file(&self) -> PathBuf {
        self.path.join("model.bpk")
    }
}

/// The name of the file of remarks on what a run skipped or warned of.
const NOTES: &str = "remarks.txt";

/// The largest length of a configuration in bytes; a longer file is refused, and not read.
const MAX_BYTES: u64 = 1 << 20;

/// The field of a configuration that holds the digest of the rest of its text.
const DIGEST: &str = "sha256";

/// The text before the digest. Its indentation does not match a nested field of the same name.
const MARK: &[u8] = b"\n  \"sha256\": \"";

/// The reason in the error for a run without a model.
const NO_MODEL: &str = match cfg!(feature = "train") {
    true => "the run has left no model yet, and has no commit",
    false => "the run has left no model yet (its commits are read with the feature `train`)",
};
