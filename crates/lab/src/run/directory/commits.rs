//! The configuration, the first average and live in the newest commit of a run.

use burn::{module::Module, tensor::Device};
use burn_ema::{
    Error, Result,
    model::Mlp,
    runs::{Commit, Commits, Newest},
    train::AveragedCommit as _,
};

use super::{RunConfig, RunDirectory};

impl RunDirectory {
    /// The commits of the run.
    pub fn commits(&self) -> Commits {
        Commits::of(&self.path)
    }

    /// The configuration in the newest whole commit; `None` if there is no whole commit.
    ///
    /// # Errors
    ///
    /// The errors of [`Commits::newest`]; a commit of another configuration than a [`RunConfig`].
    pub fn committed_config(&self) -> Result<Option<RunConfig>> {
        let Some(commit) = self.commits().newest()?.commit else { return Ok(None) };
        let config = serde_json::from_value(commit.manifest().config.clone());
        let refuse = |error| Error::file("use the configuration in", commit.path(), error);
        config.map(Some).map_err(refuse)
    }

    /// Live at the newest whole commit, on a device, in validation mode; `None` if there is no
    /// commit.
    ///
    /// # Errors
    ///
    /// A file that cannot be read, that was altered, or that does not hold the weights of the
    /// configured network; commits of which none is whole.
    pub fn live(&self, device: &Device) -> Result<Option<Mlp>> {
        let mlp = self.config()?.model.init(device)?;
        self.of_newest(|commit| commit.live(mlp.clone()))
    }

    /// The model that `load` reads from the newest whole commit, in validation mode; `None` without
    /// a commit. If there are commits but none is whole, the error is that of the first one which
    /// was passed over.
    fn of_newest(&self, load: impl Fn(&Commit) -> Result<Mlp>) -> Result<Option<Mlp>> {
        // The newest commit can be removed before it is read; then the next newest is tried.
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

    pub(super) fn has_commit(&self) -> Result<bool> {
        Ok(!self.commits().list()?.is_empty())
    }

    /// The first average in the newest whole commit; `None` if there is no commit.
    pub(super) fn committed_average(&self, mlp: Mlp) -> Result<Option<Mlp>> {
        self.of_newest(|commit| commit.average(mlp.clone()))
    }
}
