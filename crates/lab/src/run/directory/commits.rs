//! Commits of a run: its configuration, its first average and live as the newest one holds them.

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

    /// The configuration of the newest whole commit, if there is one.
    ///
    /// # Errors
    ///
    /// Like [`Commits::newest`]; a commit that is not of the perceptron.
    pub fn committed_config(&self) -> Result<Option<RunConfig>> {
        let Some(commit) = self.commits().newest()?.commit else { return Ok(None) };
        let config = serde_json::from_value(commit.manifest().config.clone());
        let refuse = |error| Error::file("use the configuration in", commit.path(), error);
        config.map(Some).map_err(refuse)
    }

    /// Live at the newest whole commit, on a device, in validation mode; none where there is no
    /// commit.
    ///
    /// # Errors
    ///
    /// A file that cannot be read, that was altered, or that does not hold the weights of the
    /// configured network.
    pub fn live(&self, device: &Device) -> Result<Option<Mlp>> {
        let mlp = self.config()?.model.init(device)?;
        self.of_newest(|commit| commit.live(mlp.clone()))
    }

    /// The model of the newest whole commit; none where there is no commit.
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

    pub(super) fn has_commit(&self) -> Result<bool> {
        Ok(!self.commits().list()?.is_empty())
    }

    /// The first average of the newest whole commit; none where there is no commit.
    pub(super) fn committed_average(&self, mlp: Mlp) -> Result<Option<Mlp>> {
        self.of_newest(|commit| commit.average(mlp.clone()))
    }
}
