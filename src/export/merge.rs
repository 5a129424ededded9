//! Merges saved models: several files of one module become one module, whose weights are a weighted
//! sum of theirs.
//!
//! ```no_run
//! use burn_ema::{
//!     export::{self, Form, merge::{Merge, Weights}},
//!     model::MlpConfig,
//! };
//!
//! let module = MlpConfig::new(vec![64, 32, 10]).init(&Default::default())?;
//! let merge = Merge::new(["a.safetensors", "b.bpk", "c.pt"]);
//! let equal = merge.load(&module)?;
//! export::save(&equal.module, "equal.safetensors", &Form::torch(), &equal.description)?;
//!
//! let merge = merge.with_weights(Weights::Given(vec![0.2, 0.3, 0.5]));
//! let weighted = merge.load(&module)?.module; // a plain module
//! # let _ = weighted;
//! # Ok::<_, burn_ema::Error>(())
//! ```
//!
//! The guide's page on [merging](crate::guide::merging) says which weights are for which use.
//!
//! # What is merged how
//!
//! - Floats are added up in f64 and rounded once, to the dtype of the module. The sum does not
//!   depend on the order of the files beyond their weights: they are added in the order of their
//!   digests. Copies of one file give that file, bit for bit, for all weights.
//! - Running states, such as the statistics of a batch norm, are averaged like weights, or taken
//!   from one file: [`Merge::with_statistics`]. No sum of them is what the merged weights would
//!   have: after either, re-estimate them by `reestimate_statistics`.
//! - Integers and booleans must agree, or are taken from one file: [`Merge::with_integers`].
//!
//! # Memory
//!
//! Files are read tensor by tensor. Beside the module that is returned, a merge holds the sum of
//! one tensor in f64 and that tensor of one file, however many files there are and in whatever
//! layout. [`Merge::greedy`] has a second merged module in memory: the best so far beside the one
//! that is tried.

mod alike; // how alike the weights of the files are
mod files; // opened, checked against the module, read tensor by tensor
mod greedy; // files that are added where a score gets better
mod weights; // the weight of each file

use std::{
    cmp::Ordering,
    collections::{HashMap, HashSet},
    path::PathBuf,
};

use burn::{
    module::Module,
    tensor::{DType, TensorData},
};
use burn_ema_base::first_non_finite;

pub use self::{
    alike::Alike,
    greedy::{Candidate, Greedy},
    weights::{Decay, Weights},
};
use self::{
    alike::Correlations,
    files::{Numbers, OpenFile},
};
use super::LoadOptions;
pub use crate::average::MergedFile;
use crate::{
    Error, Result,
    average::{Description, Entry, load, recorded, running_states},
};

/// Files of one module, and how they are merged.
#[derive(Clone, Debug)]
pub struct Merge {
    files: Vec<PathBuf>,
    weights: Weights,
    statistics: Buffers,
    integers: Buffers,
    options: LoadOptions,
}

/// The treatment of tensors that no optimizer moves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Buffers {
    /// Running states are averaged with the weights of the files. Integers and booleans must be
    /// equal in all files.
    #[default]
    Merge,
    /// The tensors of the first file.
    First,
    /// The tensors of the last file.
    Last,
}

/// A merged module.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Merged<M> {
    /// The plain module, in validation mode.
    pub module: M,
    /// The rule of the merge, and its files with their digests and weights, for
    /// [`save`](super::save).
    pub description: Description,
    /// Remarks on what deserves attention, one line each.
    pub notes: Vec<String>,
    /// The two files whose weights are the least alike, of those with a weight; `None` where no two
    /// have a tensor that is compared.
    pub least_alike: Option<Alike>,
}

impl Merge {
    /// A merge of these files, with equal weights.
    ///
    /// A file may be of any form that [`load`](super::load) reads, each of another, and so may be
    /// the commits of a run (`model.bpk`) and snapshots. Their order counts for weights that depend
    /// on it, and for [`Buffers::First`] and [`Buffers::Last`].
    pub fn new(files: impl IntoIterator<Item = impl Into<PathBuf>>) -> Self {
        Self {
            files: files.into_iter().map(Into::into).collect(),
            weights: Weights::Equal,
            statistics: Buffers::Merge,
            integers: Buffers::Merge,
            options: LoadOptions::new(),
        }
    }

    /// Sets the weights of the files.
    pub fn with_weights(mut self, weights: Weights) -> Self {
        self.weights = weights;
        self
    }

    /// Sets the treatment of running states, such as the statistics of a batch norm.
    pub fn with_statistics(mut self, statistics: Buffers) -> Self {
        self.statistics = statistics;
        self
    }

    /// Sets the treatment of integers and booleans.
    pub fn with_integers(mut self, integers: Buffers) -> Self {
        self.integers = integers;
        self
    }

    /// Sets how each file is read: the prefix of its tensors, names to leave out, and so on. The
    /// options hold for all files; one that needs others is read by
    /// [`load_with`](super::load_with) and written anew by [`save`](super::save) before.
    pub fn with_options(mut self, options: LoadOptions) -> Self {
        self.options = options;
        self
    }

    /// Merges the files into a copy of `module`, which gives the structure, the dtypes and the
    /// devices.
    ///
    /// # Errors
    ///
    /// - Fewer than two files, or weights that do not fit them, see [`Weights::of`].
    /// - What [`load_with`](super::load_with) refuses of a file. All files are checked by names,
    ///   shapes and dtypes before a number is read; the error has each cause once, at most eight
    ///   for a file, with tensors that it holds for.
    /// - A NaN or an infinity in the result, or in a file whose weight is not 0; integers that
    ///   differ; a running variance below 0, which negative weights can give.
    /// - A parameter that only one of `visit` and `map` of the module shows.
    /// - A file that changes while it is read.
    pub fn load<M: Module>(&self, module: &M) -> Result<Merged<M>> {
        let weights = self.weights.of(self.files.len())?;
        let files = self.open(module)?;
        let rule = format!("merge of {} files, {}", files.len(), self.weights);
        self.merged(&files.iter().collect::<Vec<_>>(), &weights, module, rule)
    }

    /// Opens the files, and checks all of them against the module.
    fn open<M: Module>(&self, module: &M) -> Result<Vec<OpenFile>> {
        if self.files.len() < 2 {
            return Err(Error::value(
                "the number of files of a merge",
                "2 or more",
                self.files.len(),
            ));
        }
        let (mut files, mut faults) = (Vec::new(), Vec::new());
        for path in &self.files {
            match OpenFile::open(path, module, &self.options) {
                Ok(file) => files.push(file),
                Err(found) => faults.extend(found),
            }
        }
        if faults.is_empty() { Ok(files) } else { Err(files::all_of(faults)) }
    }

    fn merged<M: Module>(
        &self,
        files: &[&OpenFile],
        weights: &[f64],
        module: &M,
        rule: String,
    ) -> Result<Merged<M>> {
        let (module, least_alike) = self.module(files, weights, module)?;
        let steps = files.iter().filter_map(|file| Some((file, file.description.as_ref()?)));
        let step = steps.clone().map(|(_, said)| said.step).max().unwrap_or(0);
        let samples = steps.map(|(_, said)| said.samples).max().unwrap_or(0);
        let on_start = files
            .iter()
            .zip(weights)
            .filter_map(|(file, weight)| Some(weight * file.description.as_ref()?.mass_on_start));
        let merged = files.iter().zip(weights).map(|(file, &weight)| MergedFile {
            path: file.path.display().to_string(),
            sha256: file.sha256.clone(),
            weight,
        });
        let description = Description {
            samples,
            mass_on_start: on_start.sum(),
            files: merged.collect(),
            ..Description::new(rule, step, names(files))
        };
        let mut notes = self.notes(files, weights, &module);
        notes.extend(least_alike.as_ref().and_then(Alike::note));
        Ok(Merged { module, description, notes, least_alike })
    }

    /// The module whose tensors are merged one by one, while it is made, and the two files that are
    /// the least alike.
    fn module<M: Module>(
        &self,
        files: &[&OpenFile],
        weights: &[f64],
        module: &M,
    ) -> Result<(M, Option<Alike>)> {
        let statistics = running_states(module);
        let places: HashMap<_, _> =
            recorded(module).into_iter().map(|it| (it.place.path(), (it.id, it.dtype))).collect();
        let order = order(files, weights);
        let (mut failed, mut reached) = (None, HashSet::new());
        let mut correlations = Correlations::new(files.len());
        let merged = load(module.valid(), |path| {
            reached.insert(path.to_owned());
            let &(id, dtype) = places.get(path).filter(|_| failed.is_none())?;
            let is_statistic = statistics.contains(path);
            let data = match (dtype.is_float(), is_statistic, self.statistics, self.integers) {
                (true, true, policy @ (Buffers::First | Buffers::Last), _)
                | (false, _, _, policy) => taken(files, path, dtype, policy),
                (true, true, ..) => mixed(files, weights, &order, path, dtype, |_, _| {}),
                (true, false, ..) => {
                    let add = |file, numbers: &_| correlations.add(file, numbers);
                    mixed(files, weights, &order, path, dtype, add)
                }
            };
            correlations.end_tensor();
            let data = data.and_then(|data| match is_statistic && path.ends_with("running_var") {
                true => not_negative(path, data),
                false => Ok(data),
            });
            data.map_err(|error| failed = Some(error)).ok().map(|data| Entry { id, data })
        });
        files.iter().try_for_each(|file| file.parts.check())?;
        failed.map_or(Ok(()), Err)?;
        // A parameter with the number of the module that was given would be no merged one.
        let only = |path: &String| match reached.contains(path) {
            true => "one that only `map` shows",
            false => "one that only `visit` shows",
        };
        let mut shown: Vec<_> = places.keys().collect();
        shown.extend(&reached);
        shown.sort_unstable();
        match shown.into_iter().find(|path| places.contains_key(*path) != reached.contains(*path)) {
            None => Ok((merged, correlations.least(files))),
            Some(path) => {
                let expected = "a parameter that `visit` and `map` of the module show";
                Err(Error::parameter(path, expected, only(path)))
            }
        }
    }

    fn notes<M: Module>(&self, files: &[&OpenFile], weights: &[f64], module: &M) -> Vec<String> {
        let mut notes = Vec::new();
        for (index, file) in files.iter().enumerate() {
            if let Some(first) = files[..index].iter().find(|it| it.sha256 == file.sha256) {
                let (file, first) = (file.path.display(), first.path.display());
                notes.push(format!("{file} has the content of {first}, which so counts twice"));
            }
            if weights[index] == 0.0 {
                notes.push(format!(
                    "{} has the weight 0: no part in the weights",
                    file.path.display()
                ));
            }
        }
        if let Some(path) = running_states(module).first() {
            notes.push(format!(
                "running states, such as {path}, are {}: re-estimate them by \
                 `reestimate_statistics`, since the merged weights have others",
                match self.statistics {
                    Buffers::Merge => "averaged",
                    Buffers::First => "those of the first file",
                    Buffers::Last => "those of the last file",
                }
            ));
        }
        notes
    }
}

/// The names of the files, for the source of a description.
fn names(files: &[&OpenFile]) -> String {
    let names = files.iter().map(|file| file.path.display().to_string());
    match files.len() {
        0..=4 => names.collect::<Vec<_>>().join(", "),
        count => names.take(3).collect::<Vec<_>>().join(", ") + &format!(" and {} more", count - 3),
    }
}

/// The indices of the files with a weight, in the order in which they are added: positive weights
/// first, so that no sum of weights on the way is 0, then by digest, so that the order of the files
/// makes no difference.
fn order(files: &[&OpenFile], weights: &[f64]) -> Vec<usize> {
    let mut order: Vec<_> = (0..files.len()).filter(|&index| weights[index] != 0.0).collect();
    order.sort_by(|&one, &other| {
        let by_sign = (weights[one] < 0.0).cmp(&(weights[other] < 0.0));
        let by_digest = || files[one].sha256.cmp(&files[other].sha256);
        by_sign.then_with(by_digest).then_with(|| weights[one].total_cmp(&weights[other]))
    });
    order
}

/// The weighted sum of a float tensor: `a <- a + alpha (w - a)` over the files, where `alpha` is the
/// share of a file's weight in the sum of the weights so far. `seen` gets the tensor of each file.
fn mixed(
    files: &[&OpenFile],
    weights: &[f64],
    order: &[usize],
    path: &str,
    dtype: DType,
    mut seen: impl FnMut(usize, &Numbers),
) -> Result<TensorData> {
    let (first, others) = order.split_first().unwrap_or((&0, &[]));
    let numbers = files[*first].numbers(path)?;
    seen(*first, &numbers);
    let shape = numbers.shape();
    let mut sum = vec![0.0; shape.num_elements()];
    numbers.each(|place, w| sum[place] = w);
    drop(numbers);
    let mut mass = weights[*first];
    for &index in others {
        mass += weights[index];
        let alpha = weights[index] / mass;
        let numbers = files[index].numbers(path)?;
        seen(index, &numbers);
        numbers.each(|place, w| {
            let a = &mut sum[place];
            // An addition of 0 would turn -0 into 0.
            if w != *a {
                *a += alpha * (w - *a);
            }
        });
    }
    let merged = match dtype.size() {
        2 => TensorData::new(sum.into_iter().map(rounded_to_odd).collect(), shape),
        _ => TensorData::new(sum, shape),
    };
    let merged = merged.convert_dtype(dtype);
    match first_non_finite(merged.as_bytes(), dtype) {
        None => Ok(merged),
        Some((index, what)) => {
            let expected = format!("a sum that {} holds", dtype.name());
            Err(Error::parameter(path, expected, format!("{what} at index {index}")))
        }
    }
}

/// The number in f32, with its last bit set if it is not exact, so that rounding it to 16 bits is
/// rounding the number itself to 16 bits (Boldo and Melquiond 2008, "Emulation of FMA and Correctly
/// Rounded Sums: Proved Algorithms Using Rounding to Odd").
fn rounded_to_odd(number: f64) -> f32 {
    let near = number as f32;
    match f64::from(near).abs().total_cmp(&number.abs()) {
        Ordering::Equal => near,
        _ if near.is_infinite() => near,
        Ordering::Greater => f32::from_bits((near.to_bits() - 1) | 1),
        Ordering::Less => f32::from_bits(near.to_bits() | 1),
    }
}

/// A tensor of one file, or with [`Buffers::Merge`] the tensor that is equal in all of them.
fn taken(files: &[&OpenFile], path: &str, dtype: DType, policy: Buffers) -> Result<TensorData> {
    let (first, others) = match policy {
        Buffers::First | Buffers::Merge => (files[0], &files[1..]),
        Buffers::Last => (files[files.len() - 1], &files[..0]),
    };
    let taken = first.read_as(path, dtype)?;
    for other in others.iter().filter(|_| policy == Buffers::Merge) {
        let found = other.read_as(path, dtype)?;
        let mut bytes = taken.as_bytes().iter().zip(found.as_bytes());
        if let Some(byte) = bytes.position(|(one, other)| one != other) {
            let index = byte / dtype.size().max(1);
            let number = |data: &TensorData| match dtype {
                DType::QFloat(_) => format!("the number at byte {byte}"),
                _ => format!("{} at index {index}", data.iter::<i64>().nth(index).unwrap_or(0)),
            };
            let expected = format!("{}, as in {}", number(&taken), first.path.display());
            let found = format!("{}; `with_integers` takes those of one file", number(&found));
            return Err(other.refuse(path, expected, found));
        }
    }
    Ok(taken)
}

/// The running variance, if no number of it is below 0.
fn not_negative(path: &str, data: TensorData) -> Result<TensorData> {
    let below = data.iter::<f64>().enumerate().find(|(_, number)| *number < 0.0);
    match below {
        None => Ok(data),
        Some((index, number)) => {
            let found = format!(
                "{number} at index {index}: negative weights can give it, and `with_statistics` \
                 takes those of one file"
            );
            Err(Error::parameter(path, "variances of at least 0", found))
        }
    }
}
