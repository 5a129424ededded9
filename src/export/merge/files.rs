//! The files of a merge: opened, checked against the module, read tensor by tensor.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use burn::{
    module::Module,
    tensor::{DType, TensorData},
};
use burn_ema_base::{first_non_finite, regular::Parts};

use super::super::{
    LoadOptions,
    fit::{Fitted, converted, fitted},
    found,
    source::Source,
};
use crate::{Error, Result, average::Description};

/// A file that has all tensors of a module, and no others, in their shapes and dtypes.
pub(super) struct OpenFile {
    pub path: PathBuf,
    pub parts: Parts,
    /// The SHA-256 of the file.
    pub sha256: String,
    pub description: Option<Description>,
    /// The tensors, unread, by their paths in the module.
    tensors: BTreeMap<String, Fitted>,
}

/// The action that errors about a file of a merge name.
const ACTION: &str = "merge";

impl OpenFile {
    /// Opens a file and checks it.
    ///
    /// # Errors
    ///
    /// All that is wrong with the file: each cause once, with the names of the tensors.
    pub fn open<M: Module>(
        path: &Path,
        module: &M,
        options: &LoadOptions,
    ) -> Result<Self, Vec<Error>> {
        let path = found(path);
        let opened = Parts::of(&path).and_then(|parts| {
            let (source, sha256) = Source::open_in_parts(&parts)?;
            Ok((parts, source, sha256))
        });
        let (parts, source, sha256) = opened.map_err(|error| vec![error])?;
        let description = Description::of(&source.metadata).ok();
        let tensors = fitted(module, source, options).map_err(|errors| {
            errors.into_iter().map(|error| Error::file(ACTION, &path, error)).collect::<Vec<_>>()
        })?;
        Ok(Self { path, parts, sha256, description, tensors })
    }

    /// The numbers of the tensor for a path in the module, in the dtype of the file.
    ///
    /// # Errors
    ///
    /// A file that has changed or cannot be read; a NaN or an infinity.
    pub fn read(&self, path: &str) -> Result<TensorData> {
        self.parts.check()?;
        let fitted = self.tensors.get(path).cloned();
        let fitted = fitted.ok_or_else(|| self.refuse(path, "a tensor", "nothing"))?;
        let data = fitted.read().map_err(|error| Error::file(ACTION, &self.path, error))?;
        match first_non_finite(data.as_bytes(), data.dtype()) {
            None => Ok(data),
            Some((index, what)) => {
                Err(self.refuse(path, "finite numbers", format!("{what} at index {index}")))
            }
        }
    }

    /// Like [`read`](Self::read), in another dtype.
    ///
    /// # Errors
    ///
    /// The errors of [`read`](Self::read); a number that the dtype does not hold.
    pub fn read_as(&self, path: &str, dtype: DType) -> Result<TensorData> {
        let converted = converted(self.read(path)?, dtype);
        converted.map_err(|(expected, found)| self.refuse(path, expected, found))
    }

    /// The error for a tensor of this file.
    pub fn refuse(&self, path: &str, expected: impl ToString, found: impl ToString) -> Error {
        let label = self.tensors.get(path).map_or(path, |fitted| &fitted.label);
        Error::file(ACTION, &self.path, Error::parameter(label, expected, found))
    }
}

/// All errors as one, which has a line for each.
pub(super) fn all_of(mut errors: Vec<Error>) -> Error {
    if errors.len() == 1 {
        return errors.remove(0);
    }
    let mut text = "the files cannot be merged:".to_owned();
    for error in errors {
        text = text + "\n  " + &error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(error) = cause {
            text = text + ": " + &error.to_string();
            cause = error.source();
        }
    }
    Error::other(text)
}
