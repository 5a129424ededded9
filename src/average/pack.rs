//! A file of tensors with metadata and a digest, by which changes of the file are found.
//!
//! Burn's format, which plain Burn loads, has no checksum, so the digest is in its metadata.

use burn_ema_base::digest::{self, UNSEALED};
use burn_ema_base::header;
use burn_ema_base::regular::{self, Length};
use std::{collections::BTreeMap, io::Write as _, path::Path};

use burn::{
    module::ParamId,
    tensor::{Bytes, TensorData},
};
use burn_pack::{AtomicFile, Reader, Tensor, Writer};

use super::walk::Entry;
use crate::{Error, Result};

/// The keys of metadata that every file of an average has.
pub(crate) const NAME: &str = "burn-ema.name";
pub(crate) const RULE: &str = "burn-ema.rule";
pub(crate) const STEP: &str = "burn-ema.step";

/// The prefix of all metadata keys of this crate.
pub(crate) const OURS: &str = "burn-ema.";

/// The key of the digest of every other byte of the file.
pub(crate) const DIGEST: &str = "burn-ema.sha256";

/// The bytes of the file before the digest: its key, and the CBOR head of a text of 64 bytes.
const MARK: &[u8] = b"burn-ema.sha256\x78\x40";

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

    pub fn with_all(mut self, metadata: BTreeMap<String, String>) -> Self {
        self.metadata.extend(metadata);
        self
    }

    /// The bytes of a file, with their digest.
    ///
    /// # Errors
    ///
    /// Contents that a file cannot have.
    pub fn into_bytes(self) -> Result<Vec<u8>> {
        let tensors = self.entries.into_iter().map(|(name, Entry { id, data })| {
            let (bytes, shape, dtype) = data.into_parts();
            Tensor::new(name, dtype, shape, Some(id.val()), bytes)
        });
        let writer = Writer::new(tensors.collect()).with_metadata(DIGEST, UNSEALED);
        let metadata = self.metadata.iter();
        let writer = metadata.fold(writer, |writer, (key, value)| writer.with_metadata(key, value));
        let mut bytes = vec![0; writer.size().map_err(Error::other)?];
        writer.write_into(&mut bytes).map_err(Error::other)?;
        // A file that could not be read is not written.
        header::check(&bytes)?;
        let within = header::metadata(&bytes);
        let sealed = digest::seal(&mut bytes, within, MARK);
        sealed
            .ok_or_else(|| Error::parameter(DIGEST, "one entry of this name", "names like it"))?;
        Ok(bytes)
    }

    /// Writes the file, whole or not at all.
    pub fn write(self, path: &Path) -> Result<()> {
        let bytes = self.into_bytes().map_err(|error| Error::file("write", path, error))?;
        write_whole(path, burn_pack::EXTENSION, &bytes)
    }

    /// Reads the whole file into memory, so that later changes of the file have no effect.
    ///
    /// # Errors
    ///
    /// A file that cannot be read, that this crate did not write, or that was changed since.
    pub fn read(path: &Path) -> Result<Self> {
        let (sealed, pack) = Self::read_any(path)?;
        match sealed {
            true => Ok(pack),
            false => {
                let found = "a file without it, which no average wrote (plain Burn's `load_file` \
                             reads its weights)";
                let error = Error::parameter(DIGEST, "an entry of this name", found);
                Err(Error::file("read", path, error))
            }
        }
    }

    /// Reads a file that may be plain Burn's; true if this crate wrote it.
    ///
    /// # Errors
    ///
    /// A file that cannot be read, or that this crate wrote and that was changed since.
    pub fn read_any(path: &Path) -> Result<(bool, Self)> {
        let bytes = regular::read(path, Length::Any, "read")?;
        Self::of_any(bytes).map_err(|error| Error::file("read", path, error))
    }

    /// The contents of the bytes of a file, as [`read_any`](Self::read_any) returns them.
    ///
    /// # Errors
    ///
    /// Bytes that are no such file, or that this crate wrote and that were changed since.
    pub fn of_any(bytes: Vec<u8>) -> Result<(bool, Self)> {
        header::check(&bytes)?;
        let metadata = header::metadata(&bytes);
        // Searched in the bytes, since damage to a file may hide its metadata from the parser.
        let is_ours =
            bytes[metadata.clone()].windows(OURS.len()).any(|text| text == OURS.as_bytes());
        let sealed = digest::sealed(&bytes, metadata, MARK);
        let reader = Reader::from_bytes(Bytes::from_bytes_vec(bytes)).map_err(Error::other)?;
        match &sealed {
            Some([written, found]) if written != found => {
                let found = format!("{found}: it was altered");
                return Err(Error::parameter(DIGEST, written, found));
            }
            None if is_ours => {
                let found = "none: it was altered";
                return Err(Error::parameter(DIGEST, "an entry of this name", found));
            }
            _ => {}
        }
        let mut metadata = reader.metadata().clone();
        metadata.remove(DIGEST);
        Ok((sealed.is_some(), Self { entries: entries(reader).map_err(Error::other)?, metadata }))
    }

    /// The metadata of a file, by itself; the tensors are neither read nor checked.
    pub fn describe(path: &Path) -> Result<BTreeMap<String, String>> {
        header::check_file(path)?;
        let reader = Reader::from_file_exact(path);
        let reader = reader.map_err(|error| Error::file("read", path, error))?;
        Ok(reader.metadata().clone())
    }
}

/// Writes a file, whole or not at all; as Burn's own writer does, it adds the extension to a path
/// without one.
pub(crate) fn write_whole(path: &Path, extension: &str, bytes: &[u8]) -> Result<()> {
    let refuse = |error: burn_pack::Error| Error::file("write", path, error);
    let path = match path.extension() {
        None => &path.with_extension(extension),
        Some(_) => path,
    };
    let (unfinished, mut file) = AtomicFile::create(path).map_err(refuse)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    written.map_err(|error| Error::file("write", unfinished.path(), error))?;
    unfinished.commit().map_err(refuse)
}

fn entries(reader: Reader) -> Result<BTreeMap<String, Entry>, burn_pack::Error> {
    let entries = reader.into_tensors()?.into_iter().map(|tensor| {
        let (path, dtype, shape, id, bytes) = tensor.into_parts()?;
        let id = id.map_or_else(ParamId::new, ParamId::from);
        Ok((path, Entry { id, data: TensorData::from_bytes(bytes, shape, dtype) }))
    });
    entries.collect()
}
