//! An average as one file: weights that plain Burn loads, and what made them.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};

use burn::{backend::TensorMetadata, module::Module};
use serde::{Deserialize, Serialize};

use super::{
    kept::Treatment,
    numbers::Group,
    pack::{NAME, Pack, RULE, STEP},
    record::{ReadRecord, RecordModule, WordReader},
    rule::Rule,
    state::Average,
};
use crate::{Error, Result};

/// Further keys of the file's metadata; the last one has the state that a load restores.
const SAMPLES: &str = "burn-ema.samples";
const MASS: &str = "burn-ema.mass";
const START: &str = "burn-ema.mass-on-start";
const SOURCE: &str = "burn-ema.source";
const VERSION: &str = "burn-ema.version";
const FILES: &str = "burn-ema.files";
const STATE: &str = "burn-ema.state";

/// The path prefix of tensors as they are kept, if they differ from those that plain Burn loads.
pub(crate) const KEPT: &str = "@weights";

/// The description of an average in the metadata of its file.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Description {
    /// The name of the average.
    pub name: String,
    /// The rule of the average, in its printed form.
    pub rule: String,
    /// The last step that the average has seen.
    pub step: u64,
    /// The samples that the average has seen; 0 if they are not counted.
    pub samples: u64,
    /// The sum of the raw weights of all steps, and of the start.
    pub mass: f64,
    /// The share of the starting weights in the average.
    pub mass_on_start: f64,
    /// The origin of the average, such as the name of a run, as the caller of the save gave it.
    pub source: String,
    /// The version of this crate that wrote the file.
    pub version: String,
    /// The files of a merge, in its order; empty for all else.
    pub files: Vec<MergedFile>,
}

/// A file of which a merge was made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MergedFile {
    /// The path as it was given.
    pub path: String,
    /// The SHA-256 of the file, as `sha256sum` prints it.
    pub sha256: String,
    /// The weight of the file in the merge; all weights sum to 1.
    pub weight: f64,
}

impl<M: Module> Average<M> {
    /// Saves the average as one file with its description.
    ///
    /// The weights have the paths of the plain module, so that Burn's own `module.load_file(path)`
    /// loads them.
    /// If the average is kept in another dtype than live, or keeps further tensors (a window,
    /// BEMA), the file holds what is kept too, and plain Burn needs `allow_unused(true)`.
    /// Rule, steps, mass and `source`, such as the name of the run, are metadata of the file, see
    /// [`Description`], and so is a digest of the whole file.
    ///
    /// As with Burn's own files, `.bpk` is added to a path without extension, and the file
    /// appears whole or not at all.
    ///
    /// # Errors
    ///
    /// A file that cannot be written; tensors that cannot be read back.
    pub fn save_file(&self, path: impl AsRef<Path>, source: &str) -> Result<()> {
        let mut saved = RecordModule::new();
        if !self.is_plain() {
            saved = self.add_parts(saved, KEPT, &self.numbers);
        }
        let mut pack = Pack::of_bytes(self.module().into_record().into_bytes()?)?;
        let left_out = self.kept.iter().filter(|kept| kept.how == Treatment::LeftOut);
        left_out.for_each(|kept| _ = pack.entries.remove(&kept.parameter.path));
        let kept = Pack::of_bytes(saved.record().into_bytes()?)?;
        pack.entries.extend(kept.entries);
        pack.with_all(self.describe(source).metadata())
            .with_metadata(STATE, self.words().to_line())
            .write(path.as_ref())
    }

    /// The description for a file of this average, made by `source`, such as the name of a run.
    pub fn describe(&self, source: &str) -> Description {
        let clock = self.clock();
        Description {
            name: self.name().to_owned(),
            rule: self.rule().to_string(),
            step: clock.step,
            samples: clock.samples,
            mass: self.mass(),
            mass_on_start: self.mass_on_start(),
            ..Description::new("", 0, source)
        }
    }

    /// This average with the weights and numbers of a file, to go on with or to take its module.
    ///
    /// # Errors
    ///
    /// A file that cannot be read, that no average wrote or that was altered; another rule or
    /// other settings; a parameter that differs from this average's in path, shape or dtype.
    pub fn try_load_file(self, path: impl AsRef<Path>) -> Result<Self> {
        let path = &resolved(path.as_ref());
        let Pack { entries, metadata } = Pack::read(path)?;
        self.try_load_parts(ReadRecord::from(entries), &metadata)
            .map_err(|error| Error::file("load the average in", path, error))
    }

    fn try_load_parts(
        self,
        opened: ReadRecord,
        metadata: &BTreeMap<String, String>,
    ) -> Result<Self> {
        let numbers = self.saved_numbers(WordReader::from_line(STATE, entry(metadata, STATE)?)?)?;
        let plain = self.is_plain();
        let name = if plain { "" } else { KEPT };
        let saved = self.add_parts(RecordModule::new(), name, &numbers);
        let left_out = saved.left_out().to_vec();
        let paths: Vec<_> = self.parameters().map(|parameter| &parameter.path).collect();
        // The file also holds the weights for plain Burn; the average is made of the kept ones.
        let known = |path: &str| !plain && paths.iter().any(|known| *known == path);
        let mut saved = opened.apply(saved, &left_out, known)?;
        self.restored(&mut saved, name, numbers)
    }

    /// True if the plain module holds all that the average keeps, in the same dtypes.
    fn is_plain(&self) -> bool {
        let keeps_more =
            |group: &Group| matches!(group.rule, Rule::Window { .. } | Rule::Bema { .. });
        !self.numbers.groups.iter().any(keeps_more)
            && self.parameters().all(|parameter| parameter.tensor.dtype() == parameter.dtype)
    }
}

/// Saves a module that was made of averages, such as one by
/// [`Snapshots::synthesize`](super::Snapshots::synthesize), with what made it and a digest of all.
///
/// Plain Burn loads the file, and so does [`load_file`], which checks it.
/// [`Average::save_file`] also writes the [`Description`] of an average.
///
/// # Errors
///
/// A file that cannot be written; tensors that cannot be read back.
pub fn save_file<M: Module>(module: &M, path: impl AsRef<Path>, source: &str) -> Result<()> {
    Pack::of_bytes(module.clone().into_record().into_bytes()?)?
        .with_metadata(SOURCE, source)
        .with_metadata(VERSION, env!("CARGO_PKG_VERSION"))
        .write(path.as_ref())
}

/// The module with the weights of the average in a file, as [`Average::save_file`] wrote it.
///
/// Burn's own `module.load_file(path)` loads the same weights, unchecked.
/// Here the weights are read into memory, so that later changes of the file have no effect.
///
/// # Errors
///
/// A file that cannot be read, that this crate did not write or that was altered since; a parameter
/// that differs from the module's in path, shape or dtype, or that the average left out; a NaN or
/// an infinity.
pub fn load_file<M: Module>(module: M, path: impl AsRef<Path>) -> Result<M> {
    let path = &resolved(path.as_ref());
    let Pack { entries, .. } = Pack::read(path)?;
    let beside = |path: &str| path.starts_with(KEPT);
    let loaded = ReadRecord::from(entries).finite(|path| !beside(path));
    let loaded = loaded.and_then(|opened| opened.apply(module, &[], beside));
    loaded.map_err(|error| Error::file("load the average in", path, error))
}

impl Description {
    /// The description of weights that are no average's, such as live's: `rule` says what they are,
    /// `step` is the number of steps that they have seen, `source` is their origin.
    ///
    /// As for live, the average that keeps nothing of the past, the mass is 1 and none of it is on
    /// the start.
    pub fn new(rule: impl Into<String>, step: u64, source: impl Into<String>) -> Self {
        let rule = rule.into();
        Self {
            name: rule.clone(),
            rule,
            step,
            samples: 0,
            mass: 1.0,
            mass_on_start: 0.0,
            source: source.into(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            files: Vec::new(),
        }
    }

    /// The metadata that [`of`](Self::of) reads.
    pub(crate) fn metadata(&self) -> BTreeMap<String, String> {
        let entries = [
            (NAME, self.name.clone()),
            (RULE, self.rule.clone()),
            (STEP, self.step.to_string()),
            (SAMPLES, self.samples.to_string()),
            (MASS, self.mass.to_string()),
            (START, self.mass_on_start.to_string()),
            (SOURCE, self.source.clone()),
            (VERSION, self.version.clone()),
        ];
        let files = (!self.files.is_empty()).then(|| serde_json::json!(self.files).to_string());
        let entries = entries.into_iter().chain(files.map(|files| (FILES, files)));
        entries.map(|(key, value)| (key.to_owned(), value)).collect()
    }

    /// Reads the description of the average in a file; the weights are neither read nor checked.
    ///
    /// # Errors
    ///
    /// A file that cannot be read or that no average wrote.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = &resolved(path.as_ref());
        let described = Self::of(&Pack::describe(path)?);
        described.map_err(|error| Error::file("find an average in", path, error))
    }

    pub(crate) fn of(metadata: &BTreeMap<String, String>) -> Result<Self> {
        fn number<T: std::str::FromStr>(
            metadata: &BTreeMap<String, String>,
            key: &str,
        ) -> Result<T> {
            let text = entry(metadata, key)?;
            text.parse().map_err(|_| Error::parameter(key, "a number", format!("{text:?}")))
        }
        let text = |key: &str| entry(metadata, key).map(str::to_owned);
        Ok(Self {
            name: text(NAME)?,
            rule: text(RULE)?,
            step: number(metadata, STEP)?,
            samples: number(metadata, SAMPLES)?,
            mass: number(metadata, MASS)?,
            mass_on_start: number(metadata, START)?,
            source: text(SOURCE)?,
            version: text(VERSION)?,
            files: match metadata.get(FILES) {
                None => Vec::new(),
                Some(files) => serde_json::from_str(files)
                    .map_err(|error| Error::parameter(FILES, "the files of a merge", error))?,
            },
        })
    }
}

impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at step {}", self.rule, self.step)?;
        if self.samples > 0 {
            write!(f, " ({} samples)", self.samples)?;
        }
        write!(f, ", {:.1} % of it the start", 100.0 * self.mass_on_start)?;
        if !self.source.is_empty() {
            write!(f, ", from {}", self.source)?;
        }
        Ok(())
    }
}

fn entry<'a>(metadata: &'a BTreeMap<String, String>, key: &str) -> Result<&'a str> {
    let found = metadata.get(key).map(String::as_str);
    found.ok_or_else(|| Error::parameter(key, "an entry of this name", "a file without it"))
}

/// The path, with Burn's extension if it has no extension and does not exist.
fn resolved(path: &Path) -> PathBuf {
    match path.extension().is_none() && !path.exists() {
        true => path.with_extension(burn_pack::EXTENSION),
        false => path.to_owned(),
    }
}
