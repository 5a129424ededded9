//! A build without the feature `train` reads no commits, only `config.json` and `model.bpk`.

use burn::tensor::Device;
use burn_ema::{Result, model::Mlp};

use super::{RunConfig, RunDirectory};

impl RunDirectory {
    /// Always `None`, since a build without the feature `train` reads no commits.
    ///
    /// # Errors
    ///
    /// Never an error.
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
