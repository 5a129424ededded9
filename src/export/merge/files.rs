//! The files of a merge: opened, checked against the module, read tensor by tensor.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use burn::{
    module::Module,
    tensor::{DType, Shape, TensorData},
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

    /// The numbers of the tensor for a path in the module.
    ///
    /// # Errors
    ///
    /// A file that has changed or cannot be read; a NaN or an infinity.
    pub fn numbers(&self, path: &str) -> Result<Numbers> {
        let fitted = self.fitted(path)?;
        let is_turned = fitted.is_turned;
        Ok(Numbers { data: self.finite(path, fitted.read_stored())?, is_turned })
    }

    /// The tensor for a path in the module, in another dtype.
    ///
    /// # Errors
    ///
    /// The errors of [`numbers`](Self::numbers); a number that the dtype does not hold.
    pub fn read_as(&self, path: &str, dtype: DType) -> Result<TensorData> {
        let converted = converted(self.finite(path, self.fitted(path)?.read())?, dtype);
        converted.map_err(|(expected, found)| self.refuse(path, expected, found))
    }

    /// The tensor for a path, unread, of a file that has not changed.
    fn fitted(&self, path: &str) -> Result<Fitted> {
        self.parts.check()?;
        let fitted = self.tensors.get(path).cloned();
        fitted.ok_or_else(|| self.refuse(path, "a tensor", "nothing"))
    }

    /// The numbers that were read, if all of them are finite.
    fn finite(&self, path: &str, data: Result<TensorData>) -> Result<TensorData> {
        let data = data.map_err(|error| Error::file(ACTION, &self.path, error))?;
        match first_non_finite(data.as_bytes(), data.dtype()) {
            None => Ok(data),
            Some((index, what)) => {
                Err(self.refuse(path, "finite numbers", format!("{what} at index {index}")))
            }
        }
    }

    /// The error for a tensor of this file.
    pub fn refuse(&self, path: &str, expected: impl ToString, found: impl ToString) -> Error {
        let label = self.tensors.get(path).map_or(path, |fitted| &fitted.label);
        Error::file(ACTION, &self.path, Error::parameter(label, expected, found))
    }
}

/// The numbers of a tensor, in the dtype and the layout of its file.
pub(super) struct Numbers {
    data: TensorData,
    /// True if the file has the tensor transposed.
    is_turned: bool,
}

impl Numbers {
    /// The shape in the module.
    pub fn shape(&self) -> Shape {
        match (self.is_turned, self.data.shape().as_slice()) {
            (true, &[columns, rows]) => Shape::from([rows, columns]),
            _ => self.data.shape().clone(),
        }
    }

    /// Calls `f` for each number, with its index in the module's tensor.
    pub fn each(&self, mut f: impl FnMut(usize, f64)) {
        // Turned number by number: a copy that is turned would be one more tensor in memory.
        let shape = self.shape();
        let turned = |index: usize| match (self.is_turned, shape.as_slice()) {
            (true, &[rows, columns]) => index % rows * columns + index / rows,
            _ => index,
        };
        let each = |(index, number)| f(turned(index), number);
        match self.data.as_slice::<f32>() {
            Ok(numbers) => numbers.iter().map(|&number| number.into()).enumerate().for_each(each),
            Err(_) => self.data.iter().enumerate().for_each(each),
        }
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
