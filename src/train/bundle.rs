//! Several records as one: live, its target networks and the optimizer of an agent.

use std::{collections::BTreeMap, path::PathBuf};

use burn::{
    lr_scheduler::LrSchedulerRecord,
    module::ParamId,
    optim::OptimizerRecord,
    store::{ModuleRecord, RecordError},
    tensor::{Bytes, DType, TensorData},
    train::checkpoint::{Checkpoint, CheckpointerError},
};

use crate::{
    Error, Result,
    average::{Entry, Pack},
};

/// The key of the metadata that marks a file as a bundle, and its version.
const BUNDLE: &str = "burn-ema.bundle";
const VERSION: &str = "2";

/// The key of the metadata that holds the kind of the part `name`.
fn kind_key(name: &str) -> String {
    format!("burn-ema.kind.{name}")
}

/// A record that a [`Bundle`] can hold, and the name of its kind, which the bundle saves beside it.
///
/// The bytes of a record do not contain its kind: Burn reads the record of an optimizer from those
/// of a module, without an error.
/// Records of Burn and bundles are parts already; a record of your own becomes one in three lines:
///
/// ```
/// # use std::path::PathBuf;
/// # use burn::{store::RecordError, tensor::Bytes, train::checkpoint::{Checkpoint, CheckpointerError}};
/// # struct ReplayBuffer;
/// # impl Checkpoint for ReplayBuffer {
/// #     fn save(self, _: PathBuf) -> Result<(), CheckpointerError> { Ok(()) }
/// #     fn load(_: PathBuf) -> Result<Self, CheckpointerError> { Ok(Self) }
/// #     fn checkpoint_from_bytes(_: Bytes) -> Result<Self, RecordError> { Ok(Self) }
/// #     fn checkpoint_into_bytes(self) -> Result<Bytes, RecordError> { Ok(Bytes::from_bytes_vec(vec![0])) }
/// # }
/// use burn_ema::train::{Bundle, BundlePart};
///
/// impl BundlePart for ReplayBuffer {
///     const KIND: &'static str = "replay buffer";
/// }
///
/// let mut saved = Bundle::new().with("replay", ReplayBuffer)?;
/// let replay: ReplayBuffer = saved.take("replay")?;
/// # let _ = replay;
/// # Ok::<_, burn_ema::Error>(())
/// ```
pub trait BundlePart: Checkpoint {
    /// The name of this kind of record in files and errors. It must stay the same, and no other
    /// kind may have it.
    const KIND: &'static str;
}

impl BundlePart for ModuleRecord {
    const KIND: &'static str = "module";
}

impl BundlePart for OptimizerRecord {
    const KIND: &'static str = "optimizer";
}

impl BundlePart for LrSchedulerRecord {
    const KIND: &'static str = "learning-rate scheduler";
}

/// The record of what has no state.
impl BundlePart for () {
    const KIND: &'static str = "stateless";
}

impl BundlePart for Bundle {
    const KIND: &'static str = "bundle";
}

/// Several records under names, as one record and one file: for training loops that save a single
/// record, such as the `PolicyLearner` of Burn's reinforcement learning.
///
/// A part is the record of a module, of an average with its numbers
/// ([`Average::into_record`](crate::Average::into_record)), of an optimizer, of a schedule of the
/// learning rate, another bundle, or a record of your own that is a [`BundlePart`].
/// The kind of each part is saved with it. The file has a digest, by which a load finds changes.
///
/// ```
/// # use burn::{module::Module, nn::LinearConfig, optim::{ModuleOptimizer, SgdConfig}};
/// # use burn_ema::{AverageConfig, Rule, train::Bundle};
/// # let critic = LinearConfig::new(4, 2).init(&Default::default());
/// # let mut target = AverageConfig::new(Rule::target(0.005)).init(&critic)?;
/// # let optimizer: ModuleOptimizer = SgdConfig::new().init();
/// let mut saved = Bundle::new()
///     .with("critic", critic.clone().into_record())?
///     .with("target", target.clone().into_record())?
///     .with("optimizer", optimizer.to_record())?;
///
/// let critic = critic.load_record(saved.take("critic")?);
/// let target = target.try_load_record(saved.take("target")?)?;
/// let optimizer = optimizer.load_record(saved.take("optimizer")?);
/// # let _ = (critic, target, optimizer);
/// # Ok::<_, burn_ema::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Bundle {
    parts: BTreeMap<String, Part>,
}

#[derive(Clone, Debug)]
struct Part {
    kind: String,
    bytes: Bytes,
}

impl Bundle {
    /// A bundle without parts.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a record under a name.
    ///
    /// # Errors
    ///
    /// A name that is empty or that another part has; tensors that cannot be read back.
    pub fn with<R: BundlePart>(mut self, name: &str, record: R) -> Result<Self> {
        if name.is_empty() || self.parts.contains_key(name) {
            let expected = "a name that no other part has";
            return Err(Error::value("the name of a part", expected, format!("{name:?}")));
        }
        let bytes = record.checkpoint_into_bytes();
        let bytes = bytes.map_err(|error| Error::parameter(name, "a record", error))?;
        self.parts.insert(name.to_owned(), Part { kind: R::KIND.to_owned(), bytes });
        Ok(self)
    }

    /// Removes and returns the record of this name.
    ///
    /// # Errors
    ///
    /// No part of this name; a part of another [kind](BundlePart::KIND), or that is damaged. The
    /// bundle is as it was then.
    pub fn take<R: BundlePart>(&mut self, name: &str) -> Result<R> {
        let part = self.parts.get(name).ok_or_else(|| {
            let names: Vec<_> = self.parts.keys().map(String::as_str).collect();
            Error::parameter(name, "a part of this name", format!("[{}]", names.join(", ")))
        })?;
        let expected = format!("a record of the kind {}", R::KIND);
        if part.kind != R::KIND {
            return Err(Error::parameter(name, expected, format!("one of the kind {}", part.kind)));
        }
        let record = R::checkpoint_from_bytes(part.bytes.clone());
        let record = record.map_err(|error| Error::parameter(name, expected, error))?;
        self.parts.remove(name);
        Ok(record)
    }

    /// The parts as tensors of bytes, and their kinds as metadata.
    fn pack(self) -> Pack {
        let mut pack = Pack::default().with_metadata(BUNDLE, VERSION);
        for (name, Part { kind, bytes }) in self.parts {
            let length = bytes.len();
            let data = TensorData::from_bytes(bytes, [length], DType::U8);
            pack = pack.with_metadata(&kind_key(&name), kind);
            pack.entries.insert(name, Entry { id: ParamId::new(), data });
        }
        pack
    }

    fn of(pack: Pack) -> Result<Self> {
        let Pack { entries, mut metadata } = pack;
        match metadata.get(BUNDLE).map(String::as_str) {
            Some(VERSION) => {}
            found => {
                let expected = format!("version {VERSION} of a bundle");
                let found = found.map(|version| format!("version {version}"));
                let found = found.unwrap_or("another file".to_owned());
                return Err(Error::parameter(BUNDLE, expected, found));
            }
        }
        let parts = entries.into_iter().map(|(name, entry)| {
            let kind = metadata.remove(&kind_key(&name)).ok_or_else(|| {
                Error::parameter(kind_key(&name), "the kind of a part", "nothing of this name")
            })?;
            Ok((name, Part { kind, bytes: entry.data.into_parts().0 }))
        });
        Ok(Self { parts: parts.collect::<Result<_>>()? })
    }
}

/// An error with its causes, for Burn's errors, which carry a text.
fn described(error: &Error) -> String {
    let causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// A bundle can be saved and loaded by Burn's checkpointers.
impl Checkpoint for Bundle {
    fn save(self, path: PathBuf) -> Result<(), CheckpointerError> {
        self.pack().write(&path).map_err(|error| CheckpointerError::Unknown(described(&error)))
    }

    fn load(path: PathBuf) -> Result<Self, CheckpointerError> {
        // As Burn's own records are found.
        let path = match path.extension() {
            None => path.with_extension("bpk"),
            Some(_) => path,
        };
        let within = |error| Error::file("read", &path, error);
        let bundle = Pack::read(&path).and_then(|pack| Self::of(pack).map_err(within));
        bundle.map_err(|error| CheckpointerError::Unknown(described(&error)))
    }

    fn checkpoint_from_bytes(bytes: Bytes) -> Result<Self, RecordError> {
        let bundle = Pack::of_any(bytes.to_vec()).and_then(|(_, pack)| Self::of(pack));
        bundle.map_err(|error| RecordError::Validation(described(&error)))
    }

    fn checkpoint_into_bytes(self) -> Result<Bytes, RecordError> {
        let bytes = self.pack().into_bytes();
        let bytes = bytes.map_err(|error| RecordError::Validation(described(&error)))?;
        Ok(Bytes::from_bytes_vec(bytes))
    }
}
