//! The options of a load, for a file that was not written for the module as it is.

use glob::{MatchOptions, Pattern};

use super::Form;
use crate::{Error, Result};

/// The options of a load, for files of other programs; without any, a file is read as
/// [`load`](super::load) reads it.
///
/// ```no_run
/// use burn_ema::{export::{self, LoadOptions}, model::MlpConfig};
///
/// // A checkpoint of timm, in 16 bits, with live, its average and the optimizer in it.
/// let options = LoadOptions::new().with_prefix("state_dict_ema").with_cast(true);
/// let fresh = MlpConfig::new(vec![64, 32, 10]).init(&Default::default())?;
/// let model = export::load_with(fresh, "checkpoint.pt", &options)?;
/// # let _ = model;
/// # Ok::<_, burn_ema::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadOptions {
    /// The names and the layout of the file; with `None`, the file and the module decide.
    pub(super) form: Option<Form>,
    /// The beginning of the names that are read, with its last dot, or nothing.
    pub(super) prefix: String,
    /// Globs of the names that are passed over.
    pub(super) leave_out: Vec<String>,
    pub(super) cast: bool,
}

impl LoadOptions {
    /// No option.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the names and the layout of the file, whatever its metadata are.
    pub fn with_form(mut self, form: Form) -> Self {
        self.form = Some(form);
        self
    }

    /// Reads only the tensors whose names begin with `prefix`, by the rest of their names, and
    /// leaves the others alone.
    ///
    /// A prefix is made of whole parts between dots, such as `module` or `state_dict_ema`; a dot at
    /// its end makes no difference.
    /// In a file of `torch.save`, the keys of dictionaries are such parts.
    pub fn with_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        if !self.prefix.is_empty() && !self.prefix.ends_with('.') {
            self.prefix.push('.');
        }
        self
    }

    /// Passes over the tensors whose names in the file match a glob, such as `*.inv_freq`.
    ///
    /// Here `*` stands for any text, dots included, `?` for one character, `[01]` for one of these.
    pub fn with_leave_out(mut self, globs: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.leave_out.extend(globs.into_iter().map(Into::into));
        self
    }

    /// Converts numbers to the dtypes of the module: floats to floats, integers to integers.
    ///
    /// From 16 bits to more, nothing is lost; from 64 bits to 32, from 32 to 16, and between f16
    /// and bf16, floats are rounded.
    /// A number that the module's dtype does not hold is an error.
    pub fn with_cast(mut self, cast: bool) -> Self {
        self.cast = cast;
        self
    }

    /// A function that returns true for each name that is passed over.
    ///
    /// # Errors
    ///
    /// A pattern that is no glob.
    pub(super) fn left_out(&self) -> Result<impl Fn(&str) -> bool + use<>> {
        // The crate `glob` matches paths of files, in which `**` must stand between slashes.
        let slashes = |name: &str| name.replace('.', "/");
        let globs = self.leave_out.iter().map(|glob| {
            Pattern::new(&slashes(glob)).map_err(|error| {
                let found = format!("`{glob}` ({error})");
                Error::value("a name to leave out", "a glob such as `*.inv_freq`", found)
            })
        });
        let globs = globs.collect::<Result<Vec<_>>>()?;
        Ok(move |name: &str| {
            let name = slashes(name);
            globs.iter().any(|glob| glob.matches_with(&name, MatchOptions::new()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_reach_over_dots() {
        let options =
            LoadOptions::new().with_leave_out(["*.inv_freq", "**.total_ops", "a.?.b", "n[01]"]);
        let left_out = options.left_out().unwrap();
        for name in ["a.b.c.inv_freq", "a.inv_freq", "a.b.total_ops", "a.x.b", "n0"] {
            assert!(left_out(name), "{name}");
        }
        for name in ["inv_freq", "a.inv_freq2", "a.xx.b", "n2", "n0.weight"] {
            assert!(!left_out(name), "{name}");
        }
        let error = LoadOptions::new().with_leave_out(["a[b"]).left_out().err().unwrap();
        let start = "a name to leave out is `a[b` (";
        assert!(error.to_string().starts_with(start), "{error}");
    }
}
