//! Without the training stack no commits are read: a run is its `config.json` and its `model.bpk`.

use burn::tensor::Device;
use burn_ema::{Result, model::Mlp};

use super::{RunConfig, RunDirectory};

impl RunDirectory {
    /// None: this build reads no commits.
    ///
    /// # Errors
    ///
    /// None.
    pub fn live(&self, _: &Device) -> Result<Option<Mlp>> {
        Ok(None)
    }

    pub(super) fn committed_config(&self) -> Result<Option<RunConfig>> {
        Ok(None)
    }

    pub(super) fn has_commit(&self) -> Result<bool> {
        Ok(false)
    }

    pub(super) fn committed_average(&self, _: Mlp) -> Result<Option<Mlp>> {
        Ok(None)
    }
}
