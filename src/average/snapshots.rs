//! Averages stored during a training, and others made of them afterwards.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use burn::{
    module::Module,
    tensor::{DType, FloatDType},
};

use burn_ema_base::regular;

use super::{
    kept::Treatment,
    pack::{NAME, Pack, RULE, STEP},
    rule::Rule,
    state::Average,
    walk::Entry,
};
use crate::{Error, Result};

/// Further keys of a file's metadata.
const TIME: &str = "burn-ema.steps-since-start";
const START: &str = "burn-ema.start";
const GAMMA: &str = "burn-ema.gamma";
const DTYPE: &str = "burn-ema.dtype";
pub(super) const NOT_MIXED: &str = "burn-ema.not-mixed";
pub(super) const LEFT_OUT: &str = "burn-ema.left-out";

/// The dtypes in which averages can be stored.
const DTYPES: [FloatDType; 2] = [FloatDType::F16, FloatDType::F32];

/// A directory of averages that a training stores from time to time, so that the average of any
/// width can be made of them afterwards (Karras et al. 2024, "Analyzing and Improving the Training
/// Dynamics of Diffusion Models", section 3).
///
/// Two averages by [`Rule::PowerFunction`], of widths 0.05 and 0.1, stored some tens of times in a
/// training, give the averages of other widths, and of other kinds, with a small error, which each
/// result states.
///
#[cfg_attr(feature = "post-hoc", doc = "```")]
#[cfg_attr(not(feature = "post-hoc"), doc = "```ignore")]
/// use burn::{nn::LinearConfig, tensor::FloatDType};
/// use burn_ema::{
///     AverageConfig, Rule,
///     average::{Snapshots, post_hoc::{Solve, Target}},
/// };
///
/// let directory = std::env::temp_dir().join(format!("snapshots-{}", std::process::id()));
/// let snapshots = Snapshots::create(&directory, FloatDType::F16)?;
/// let model = LinearConfig::new(2, 3).init(&Default::default());
/// let widths = [0.05, 0.1].map(|width| AverageConfig::new(Rule::power_function(width)));
/// let mut averages = [widths[0].init(&model)?, widths[1].init(&model)?];
/// for step in 1..=160 {
///     // ... one optimizer step on `model` ...
///     for average in &mut averages {
///         average.update(&model, step)?;
///         if step % 10 == 0 {
///             snapshots.store(average)?;
///         }
///     }
/// }
/// let target = Target::PowerFunction { sigma_rel: 0.15 };
/// let made = snapshots.synthesize(&model, &target, None, Solve::Published)?;
/// assert!(made.mix.relative_error() < 0.05);
/// let smoothed = made.module; // a plain `Linear`
/// # let _ = smoothed;
/// # std::fs::remove_dir_all(directory).unwrap();
/// # Ok::<_, burn_ema::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Snapshots {
    directory: PathBuf,
    dtype: FloatDType,
}

/// A stored power-function average.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stored {
    /// The step at which it was stored, counted from the start of the average; above 0.
    pub step: f64,
    /// The exponent of its profile, at least 0; 0 weighs all steps alike.
    pub gamma: f64,
}

/// A stored average.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// The path of its file.
    pub path: PathBuf,
    /// The name of the average.
    pub name: String,
    /// The rule of the average, in its printed form.
    pub rule: String,
    /// The step of the training at which it was stored.
    pub step: u64,
    /// The step at which the average started.
    pub start: f64,
    /// The profile of the average: its exponent, and the steps since the start of the average.
    pub stored: Stored,
    /// The dtype in which its averaged parameters are stored.
    pub dtype: FloatDType,
}

impl Snapshots {
    /// A directory for the snapshots of a new training, which is made if it does not exist;
    /// averages are stored in `dtype`.
    ///
    /// A directory has one training at a time: files that a killed training left half written there
    /// are removed.
    ///
    /// With f16 the files have half the size. [`Mix::noise_gain`](super::post_hoc::Mix::noise_gain)
    /// is the factor by which a mix multiplies the rounding, and
    /// [`ROUNDING_LIMIT`](super::post_hoc::ROUNDING_LIMIT) the most rounding that a mix may have.
    ///
    /// # Errors
    ///
    /// A directory that holds snapshots already, since those of two trainings must not be mixed,
    /// or that cannot be made; a dtype that is neither f16 nor f32.
    pub fn create(directory: impl Into<PathBuf>, dtype: FloatDType) -> Result<Self> {
        let snapshots = Self::at(directory, dtype)?;
        if let Some(file) = snapshots.list()?.first().and_then(|found| found.path.file_name()) {
            let found =
                format!("{}, which holds {}", snapshots.directory.display(), file.display());
            let expected = "one without snapshots (`Snapshots::resume` goes on with those)";
            return Err(Error::value("the directory of new snapshots", expected, found));
        }
        Ok(snapshots)
    }

    /// Like [`create`](Self::create), for a training that goes on from a checkpoint of step `step`.
    ///
    /// Snapshots of later steps are removed: the training makes these steps again, and snapshots of
    /// both courses must not be mixed.
    ///
    /// # Errors
    ///
    /// A directory that cannot be made or read, or that holds a `.bpk` file that is no snapshot; a
    /// file that cannot be removed; a dtype that is neither f16 nor f32.
    pub fn resume(directory: impl Into<PathBuf>, dtype: FloatDType, step: u64) -> Result<Self> {
        let snapshots = Self::at(directory, dtype)?;
        snapshots.list()?;
        snapshots.remove_after(step, None)?;
        Ok(snapshots)
    }

    fn at(directory: impl Into<PathBuf>, dtype: FloatDType) -> Result<Self> {
        let directory = directory.into();
        if !DTYPES.contains(&dtype) {
            return Err(Error::value("the dtype of snapshots", "f16 or f32", format!("{dtype:?}")));
        }
        fs::create_dir_all(&directory).map_err(|error| Error::file("make", &directory, error))?;
        let snapshots = Self { directory, dtype };
        snapshots.clear()?;
        Ok(snapshots)
    }

    /// Removes the half-written snapshots of a process that was killed.
    fn clear(&self) -> Result<()> {
        for path in self.paths()? {
            let name = path.file_name().and_then(|name| name.to_str());
            let file = name.and_then(regular::begun).map(Path::new);
            if file.and_then(Path::extension).is_some_and(|e| e == burn_pack::EXTENSION) {
                // A file that cannot be removed does no harm, and the next training tries again.
                let _ = fs::remove_file(path);
            }
        }
        Ok(())
    }

    /// Opens an existing directory, to make averages of its snapshots; what is stored through the
    /// result is stored in f32.
    ///
    /// # Errors
    ///
    /// A directory that does not exist or cannot be read.
    pub fn open(directory: impl Into<PathBuf>) -> Result<Self> {
        let directory = directory.into();
        fs::read_dir(&directory).map_err(|error| Error::file("read", &directory, error))?;
        Ok(Self { directory, dtype: FloatDType::F32 })
    }

    /// The directory of the files.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Stores an average as it is now, as `STEP-NAME.bpk`, and returns the path.
    ///
    /// Only averaged parameters take the dtype of the snapshots.
    /// The file appears whole or not at all, and replaces one of the same step and name.
    /// The call waits until the file is on the disk, which takes about as long as some hundreds of
    /// small training steps. So store tens of times in a training, not at each step.
    /// Files of the same name and of later steps are removed: steps of an average only grow, so
    /// these are from before the training returned to an earlier checkpoint.
    ///
    /// # Errors
    ///
    /// An average whose rule is no power function ([`Rule::Equal`] is one), that has other rules
    /// for single paths, or that has no update yet; a weight outside the range of the dtype, with
    /// its path, the step and its value; a file that cannot be written or removed.
    pub fn store<M: Module>(&self, average: &Average<M>) -> Result<PathBuf> {
        let gamma = gamma(average)?;
        let course = &average.numbers.course;
        let (time, start) = (course.last(&average.schedule), course.first(&average.schedule));
        if !average.has_updates() {
            return Err(Error::value("the updates of a stored average", "1 or more", 0));
        }
        let step = average.last_step();
        let path = self.directory.join(format!("{step:010}-{}.bpk", average.name()));
        let named = |wanted: fn(Treatment) -> bool| {
            let kept = average.kept.iter().filter(move |kept| wanted(kept.how));
            kept.map(|kept| kept.parameter.path.as_str()).collect::<BTreeSet<_>>()
        };
        let not_mixed = named(|how| !matches!(how, Treatment::Averaged(_)));
        let left_out = named(|how| how == Treatment::LeftOut);
        let record = average.module_as_kept().into_record().into_bytes()?;
        let mut pack = Pack::of_bytes(record)?;
        pack.entries.retain(|path, _| !left_out.contains(&path[..]));
        let mixed = pack.entries.iter_mut().filter(|(path, _)| !not_mixed.contains(&path[..]));
        for (path, Entry { data, .. }) in mixed {
            let rounded = data.clone().convert_dtype(self.dtype.into());
            let pairs = || data.iter::<f64>().zip(rounded.iter::<f64>());
            let found = pairs().find(|(_, rounded)| !rounded.is_finite());
            if let Some((number, rounded)) = found {
                return Err(self.too_large(path, step, number, rounded));
            }
            *data = rounded;
        }
        let lines = |names: BTreeSet<&str>| names.into_iter().collect::<Vec<_>>().join("\n");
        let pack = pack
            .with_metadata(NAME, average.name())
            .with_metadata(RULE, average.rule())
            .with_metadata(STEP, step)
            .with_metadata(TIME, time)
            .with_metadata(START, start)
            .with_metadata(GAMMA, gamma)
            .with_metadata(DTYPE, DType::from(self.dtype).name())
            .with_metadata(NOT_MIXED, lines(not_mixed))
            .with_metadata(LEFT_OUT, lines(left_out));
        self.remove_after(step, Some(average.name()))?;
        pack.write(&path)?;
        Ok(path)
    }

    /// The error for a number that the dtype of the snapshots does not hold.
    fn too_large(&self, path: &str, step: u64, number: f64, rounded: f64) -> Error {
        let expected = format!("numbers that fit {}", DType::from(self.dtype).name());
        let shown = match number.abs() < 1e16 {
            true => number.to_string(),
            false => format!("{number:e}"),
        };
        let remedy = match (number as f32).is_finite() {
            true => "f32 holds it (`FloatDType::F32` in `Snapshots::create` or `resume`)",
            false => "f32 does not hold it either",
        };
        let found = format!("{rounded} in the place of {shown} at step {step}; {remedy}");
        Error::parameter(path, expected, found)
    }

    /// Removes the snapshots of steps after `step`, of the average `name`, or of all if it is
    /// `None`.
    ///
    /// The names of the files show which these are, so this is cheap enough for every store.
    pub(crate) fn remove_after(&self, step: u64, name: Option<&str>) -> Result<()> {
        for path in self.files()? {
            let stem = path.file_stem().and_then(|stem| stem.to_str());
            let Some((later, other)) = stem.and_then(|stem| stem.split_once('-')) else { continue };
            let is_later = later.parse::<u64>().is_ok_and(|later| later > step);
            if is_later && name.is_none_or(|name| name == other) {
                // A file that is no snapshot is an error, and stays.
                Snapshot::read(path.clone())?;
                fs::remove_file(&path).map_err(|error| Error::file("remove", &path, error))?;
            }
        }
        Ok(())
    }

    /// True if averages by this rule can be stored.
    #[cfg(feature = "train")]
    pub(crate) fn takes(rule: &Rule) -> bool {
        matches!(rule, Rule::PowerFunction { .. } | Rule::PowerFunctionGamma { .. } | Rule::Equal)
    }

    /// Checks that averages can be stored beside each other.
    #[cfg(feature = "train")]
    pub(crate) fn check<M: Module>(averages: &[&Average<M>]) -> Result<()> {
        for (index, average) in averages.iter().enumerate() {
            let (first, name) = (averages[0], average.name());
            let refused = |what: &str, expected: String, found: String| {
                let what = format!("{what} of the stored average {name}");
                Err(Error::value(what, format!("{expected}: they could not be mixed"), found))
            };
            let own = gamma(average)?;
            for other in &averages[..index] {
                if gamma(other)? == own {
                    let expected = format!("another than that of {}", other.name());
                    return refused("the profile", expected, average.rule().to_string());
                }
            }
            let (start, expected) = (average.schedule.start, first.schedule.start);
            if start != expected {
                let expected = format!("step {expected}, that of {}", first.name());
                return refused("the start", expected, format!("step {start}"));
            }
            let mut pairs = average.kept.iter().zip(&first.kept);
            if let Some((own, expected)) = pairs.find(|(own, expected)| own.how != expected.how) {
                let expected = format!("{}, as in {}", word(expected.how), first.name());
                let what = format!("the policy for {}", own.parameter.path);
                return refused(&what, expected, word(own.how).to_owned());
            }
        }
        Ok(())
    }

    /// The stored averages, by the steps since their start, then by their exponent.
    ///
    /// # Errors
    ///
    /// A `.bpk` file that cannot be read or is no snapshot.
    pub fn list(&self) -> Result<Vec<Snapshot>> {
        let read = self.files()?.into_iter().map(Snapshot::read);
        let mut found = read.collect::<Result<Vec<_>>>()?;
        found.sort_by(|a, b| {
            let by_profile = a.stored.step.total_cmp(&b.stored.step);
            let by_profile = by_profile.then(a.stored.gamma.total_cmp(&b.stored.gamma));
            by_profile.then(a.step.cmp(&b.step))
        });
        Ok(found)
    }

    /// The paths of the files.
    fn files(&self) -> Result<Vec<PathBuf>> {
        let is_ours = |path: &PathBuf| path.extension().is_some_and(|e| e == burn_pack::EXTENSION);
        Ok(self.paths()?.into_iter().filter(is_ours).collect())
    }

    /// The paths of all that is there.
    fn paths(&self) -> Result<Vec<PathBuf>> {
        let broken = |error: std::io::Error| Error::file("read", &self.directory, error);
        let entries = fs::read_dir(&self.directory).map_err(broken)?;
        entries.map(|entry| Ok(entry.map_err(broken)?.path())).collect()
    }
}

impl Snapshot {
    /// Reads the metadata of a file; its weights are not read.
    fn read(path: PathBuf) -> Result<Self> {
        let metadata = Pack::describe(&path)?;
        let text = |key: &str| metadata.get(key).cloned().ok_or_else(|| foreign(&path, key));
        let number = |key: &str| text(key)?.parse::<f64>().map_err(|_| foreign(&path, key));
        let stored = Stored { step: number(TIME)?, gamma: number(GAMMA)? };
        let dtype = text(DTYPE)?;
        let dtype = DTYPES.into_iter().find(|known| DType::from(*known).name() == dtype);
        Ok(Self {
            name: text(NAME)?,
            rule: text(RULE)?,
            step: text(STEP)?.parse().map_err(|_| foreign(&path, STEP))?,
            start: number(START)?,
            stored,
            dtype: dtype.ok_or_else(|| foreign(&path, DTYPE))?,
            path,
        })
    }
}

/// The exponent of an average that can be stored.
fn gamma<M: Module>(average: &Average<M>) -> Result<f64> {
    let refused = |found: String| {
        Error::value("the rule of a stored average", "one power function for all paths", found)
    };
    if let Some(other) = average.numbers.groups.get(1) {
        return Err(refused(format!("{} beside {}", other.rule, average.rule())));
    }
    match *average.rule() {
        Rule::PowerFunction { sigma_rel } => Ok(Rule::gamma_of(sigma_rel)?),
        Rule::PowerFunctionGamma { gamma } => Ok(gamma),
        Rule::Equal => Ok(0.0),
        ref rule => Err(refused(rule.to_string())),
    }
}

/// The verb for an average's treatment of a parameter, for messages.
#[cfg(feature = "train")]
fn word(how: Treatment) -> &'static str {
    match how {
        Treatment::Averaged(_) => "average",
        Treatment::Copied => "copy",
        Treatment::Frozen => "freeze",
        Treatment::LeftOut => "leave out",
    }
}

pub(super) fn foreign(path: &Path, key: &str) -> Error {
    Error::file(
        "find a stored average in",
        path,
        Error::parameter(key, "an entry", "none that can be used"),
    )
}
