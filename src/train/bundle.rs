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
        self.parts.insert(name.to_owned(), record.checkpoint_into_bytes()?);
        Ok(self)
    }

    /// Removes and returns the record of this name.
    ///
    /// # Errors
    ///
    /// No part of this name; a part that is no record of the type `R`.
    pub fn take<R: Checkpoint>(&mut self, name: &str) -> Result<R> {
        let part = self.parts.remove(name).ok_or_else(|| {
            let names: Vec<_> = self.parts.keys().map(String::as_str).collect();
            Error::parameter(name, "a part of this name", format!("[{}]", names.join(", ")))
        })?;
        Ok(R::checkpoint_from_bytes(part)?)
    }

    /// The parts as tensors of bytes.
    fn pack(self) -> Pack {
        let entry = |bytes: Bytes| {
            let length = bytes.len();
            Entry { id: ParamId::new(), data: TensorData::from_bytes(bytes, [length], DType::U8) }
        };
        let entries = self.parts.into_iter().map(|(name, bytes)| (name, entry(bytes)));
        Pack { entries: entries.collect(), ..Pack::default() }
    }

    fn of(pack: Pack) -> Self {
        let parts = pack.entries.into_iter();
        Self { parts: parts.map(|(name, entry)| (name, entry.data.into_parts().0)).collect() }
    }
}

/// A bundle can be saved and loaded by Burn's checkpointers.
impl Checkpoint for Bundle {
    fn save(self, path: PathBuf) -> Result<(), CheckpointerError> {
        self.pack().write(&path).map_err(|error| CheckpointerError::Unknown(error.to_string()))
    }

    fn load(path: PathBuf) -> Result<Self, CheckpointerError> {
        // As Burn's own records are found.
        let path = match path.extension() {
            None => path.with_extension("bpk"),
            Some(_) => path,
        };
        let pack = Pack::read(&path);
        pack.map(Self::of).map_err(|error| CheckpointerError::Unknown(error.to_string()))
    }

    fn checkpoint_from_bytes(bytes: Bytes) -> Result<Self, RecordError> {
        match Pack::of_any(bytes.to_vec()) {
            Ok((true, pack)) => Ok(Self::of(pack)),
            Ok((false, _)) => Err(RecordError::Validation("no bundle of records".to_owned())),
            Err(error) => Err(RecordError::Validation(error.to_string())),
        }
    }

    fn checkpoint_into_bytes(self) -> Result<Bytes, RecordError> {
        let bytes = self.pack().into_bytes();
        let bytes = bytes.map_err(|error| RecordError::Validation(error.to_string()))?;
        Ok(Bytes::from_bytes_vec(bytes))
    }
}
