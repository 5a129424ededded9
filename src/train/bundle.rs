//! Several records as one: live, its target networks and the optimizer of an agent.

use std::{collections::BTreeMap, path::PathBuf};

use burn::{
    module::ParamId,
    store::RecordError,
    tensor::{Bytes, DType, TensorData},
    train::checkpoint::{Checkpoint, CheckpointerError},
};

use crate::{
    Error, Result,
    average::{Entry, Pack},
};

/// The key of the metadata that marks a file as a bundle, and its version.
const KIND: &str = "burn-ema.bundle";
const VERSION: &str = "1";

/// Several records under names, as one record and one file: for training loops that save a single
/// record, such as the `PolicyLearner` of Burn's reinforcement learning.
///
/// A part is the record of a module, of an average with its numbers
/// ([`Average::into_record`](crate::Average::into_record)), of an optimizer, or another bundle.
/// The file has a digest, by which a load finds changes.
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
    parts: BTreeMap<String, Bytes>,
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
    pub fn with(mut self, name: &str, record: impl Checkpoint) -> Result<Self> {
        if name.is_empty() || self.parts.contains_key(name) {
            let expected = "a name that no other part has";
            return Err(Error::value("the name of a part", expected, format!("{name:?}")));
        }
        let bytes = record.checkpoint_into_bytes();
        let bytes = bytes.map_err(|error| Error::parameter(name, "a record", error))?;
        self.parts.insert(name.to_owned(), bytes);
        Ok(self)
    }

    /// Removes and returns the record of this name.
    ///
    /// # Errors
    ///
    /// No part of this name; a part that is no record of the type `R`. The bundle is as it was
    /// then.
    pub fn take<R: Checkpoint>(&mut self, name: &str) -> Result<R> {
        let part = self.parts.get(name).ok_or_else(|| {
            let names: Vec<_> = self.parts.keys().map(String::as_str).collect();
            Error::parameter(name, "a part of this name", format!("[{}]", names.join(", ")))
        })?;
        let record = R::checkpoint_from_bytes(part.clone());
        let record = record.map_err(|error| {
            Error::parameter(name, format!("a record of {}", std::any::type_name::<R>()), error)
        })?;
        self.parts.remove(name);
        Ok(record)
    }

    /// The parts as tensors of bytes.
    fn pack(self) -> Pack {
        let entry = |bytes: Bytes| {
            let length = bytes.len();
            Entry { id: ParamId::new(), data: TensorData::from_bytes(bytes, [length], DType::U8) }
        };
        let entries = self.parts.into_iter().map(|(name, bytes)| (name, entry(bytes)));
        Pack { entries: entries.collect(), ..Pack::default() }.with_metadata(KIND, VERSION)
    }

    fn of(pack: Pack) -> Result<Self> {
        match pack.metadata.get(KIND).map(String::as_str) {
            Some(VERSION) => {}
            found => {
                let (expected, found) = (format!("version {VERSION} of a bundle"), found);
                return Err(Error::parameter(KIND, expected, found.unwrap_or("another file")));
            }
        }
        let parts = pack.entries.into_iter();
        let parts = parts.map(|(name, entry)| (name, entry.data.into_parts().0)).collect();
        Ok(Self { parts })
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
