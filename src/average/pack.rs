//! A file of tensors that says what it is, and whether it is as it was written.
//!
//! Burn's format, which plain Burn loads, has no checksum; one stands in its metadata.

use std::{collections::BTreeMap, fs, path::Path};

use burn::{
    module::ParamId,
    tensor::{Bytes, TensorData},
};
use burn_pack::{Reader, Tensor, Writer};
use sha2::{Digest, Sha256};

use super::{header, walk::Entry};
use crate::{Error, Result};

/// The keys of metadata that every file of an average has.
pub(crate) const NAME: &str = "burn-ema.name";
pub(crate) const RULE: &str = "burn-ema.rule";
pub(crate) const STEP: &str = "burn-ema.step";

/// The key of the digest of everything else in the file.
const DIGEST: &str = "burn-ema.sha256";

/// The tensors of a file, by path, and its metadata.
#[derive(Debug, Default)]
pub(crate) struct Pack {
    pub entries: BTreeMap<String, Entry>,
    pub metadata: BTreeMap<String, String>,
}

impl Pack {
    /// The tensors of Burn's bytes, without metadata.
    pub fn of_bytes(bytes: Bytes) -> Result<Self> {
        header::check(&bytes)?;
        let entries = Reader::from_bytes(bytes).and_then(entries);
        let entries = entries.map_err(|error| Error::Record(error.into()))?;
        Ok(Self { entries, ..Self::default() })
    }

    pub fn with_metadata(mut self, key: &str, value: impl ToString) -> Self {
        self.metadata.insert(key.to_owned(), value.to_string());
        self
    }

    /// Writes the file, whole or not at all.
    pub fn write(self, path: &Path) -> Result<()> {
        let digest = self.digest();
        let tensors = self.entries.into_iter().map(|(name, Entry { id, data })| {
            let (bytes, shape, dtype) = data.into_parts();
            Tensor::new(name, dtype, shape, Some(id.val()), bytes)
        });
        let writer = Writer::new(tensors.collect()).with_metadata(DIGEST, &digest);
        let metadata = self.metadata.iter();
        let writer = metadata.fold(writer, |writer, (key, value)| writer.with_metadata(key, value));
        writer.write_to_file(path).map_err(|error| Error::file("write", path, error))
    }

    /// Reads the file into memory, so that what happens to it later reaches nothing.
    ///
    /// # Errors
    ///
    /// A file that cannot be read, that this crate did not write, or that was changed since.
    pub fn read(path: &Path) -> Result<Self> {
        let broken = |error: burn_pack::Error| Error::file("read", path, error);
        let within = |error| Error::file("read", path, error);
        let bytes = fs::read(path).map_err(|error| Error::file("read", path, error))?;
        header::check(&bytes).map_err(within)?;
        let reader = Reader::from_bytes(Bytes::from_bytes_vec(bytes)).map_err(broken)?;
        let mut metadata = reader.metadata().clone();
        let Some(written) = metadata.remove(DIGEST) else {
            let found = "a file without it, which no average wrote";
            return Err(within(Error::parameter(DIGEST, "an entry of this name", found)));
        };
        let pack = Self { entries: entries(reader).map_err(broken)?, metadata };
        let found = pack.digest();
        if found != written {
            return Err(within(Error::parameter(
                DIGEST,
                written,
                format!("{found}: it was altered"),
            )));
        }
        Ok(pack)
    }

    /// The metadata of a file, by itself; the tensors are neither read nor checked.
    pub fn describe(path: &Path) -> Result<BTreeMap<String, String>> {
        header::check_file(path)?;
        let reader = Reader::from_file_exact(path);
        let reader = reader.map_err(|error| Error::file("read", path, error))?;
        Ok(reader.metadata().clone())
    }

    /// The SHA-256 of all entries and metadata, each with its length before it.
    fn digest(&self) -> String {
        let mut hash = Sha256::new();
        let mut add = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        for (path, Entry { id, data }) in &self.entries {
            add(path.as_bytes());
            add(data.dtype().name().as_bytes());
            data.shape().as_slice().iter().for_each(|size| add(&(*size as u64).to_le_bytes()));
            add(&id.val().to_le_bytes());
            add(data.as_bytes());
        }
        for (key, value) in &self.metadata {
            add(key.as_bytes());
            add(value.as_bytes());
        }
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

fn entries(reader: Reader) -> Result<BTreeMap<String, Entry>, burn_pack::Error> {
    let entries = reader.into_tensors()?.into_iter().map(|tensor| {
        let (path, dtype, shape, id, bytes) = tensor.into_parts()?;
        let id = id.map_or_else(ParamId::new, ParamId::from);
        Ok((path, Entry { id, data: TensorData::from_bytes(bytes, shape, dtype) }))
    });
    entries.collect()
}
