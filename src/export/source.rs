//! A file of weights in any form: what it is, and its tensors, unread.

use burn_ema_base::{
    digest, foreign,
    regular::{self, Length, Parts},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    io::{self, Read as _},
    ops::Range,
    path::Path,
    sync::Arc,
};

use burn::tensor::{BoolStore, Bytes, DType, Shape, TensorData};
use burn_pack::Tensor;
use burn_store::{bridge, pytorch_reader::PytorchReader};
use safetensors::{Dtype, tensor::TensorInfo};

use super::{LoadOptions, header::Header};
use crate::{
    Error, Result,
    average::{DIGEST, KEPT, OURS, OpenPack, Pack, check_digest},
};

/// The key of the layout in the metadata of safetensors, and its values.
pub(super) const LAYOUT: &str = "burn-ema.layout";
pub(super) const OF_BURN: &str = "burn";
pub(super) const OF_TORCH: &str = "torch";

/// The digest's key in the header of safetensors, in a form that no other text there can have.
pub(super) const MARK: &[u8] = b"\"burn-ema.sha256\":\"";

/// The kind of a file.
///
/// The metadata of safetensors of other programs do not determine whether the layout is Burn's or
/// PyTorch's. The kind is then the one that programs with such metadata mostly write;
/// [`load`](super::load) decides by the names and shapes of the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Burn's own form.
    Burnpack,
    /// Safetensors under Burn's paths and in its layout.
    Safetensors,
    /// Safetensors under PyTorch's names and in its layout.
    Torch,
    /// A file of `torch.save`.
    Pt,
}

impl Kind {
    pub(super) fn is_of_torch(self) -> bool {
        matches!(self, Self::Torch | Self::Pt)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Burnpack => "burnpack",
            Self::Safetensors => "safetensors",
            Self::Torch => "safetensors of PyTorch's layout",
            Self::Pt => "a file of torch.save",
        })
    }
}

/// How certain the layout is that the kind of a file names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Evidence {
    /// The form of the file has only this layout, or this crate wrote the file.
    Certain,
    /// A file of plain Burn, or metadata that PyTorch's programs write.
    Likely,
    /// No evidence: programs write such files in either layout.
    Nothing,
}

/// A file that was opened: its tensors, unread, by their names in it, and its metadata.
pub(super) struct Source {
    pub kind: Kind,
    pub evidence: Evidence,
    pub tensors: BTreeMap<String, Tensor>,
    /// The dtypes that Burn does not have, by the names of the tensors.
    pub unreadable: BTreeMap<String, String>,
    pub metadata: BTreeMap<String, String>,
}

/// The kind of a file, as far as its first bytes show it.
enum Container {
    Burnpack,
    Safetensors,
    Torch,
}

/// The number of first bytes that decide the kind of a file.
const HEAD: u64 = 512;

impl Source {
    /// Opens a file, and checks its digest if it has one.
    ///
    /// All but files of `torch.save` are read into memory.
    pub fn open(path: &Path) -> Result<Self> {
        let open = || match container_of(path)? {
            Container::Torch => Self::torch(path),
            Container::Burnpack => {
                let (is_ours, Pack { entries, metadata }) = Pack::read_any(path)?;
                let tensors = entries.into_iter().map(|(path, entry)| {
                    let tensor = bridge::from_data(entry.data, path.clone(), Some(entry.id.val()));
                    (path, tensor)
                });
                Ok(Self::burnpack(is_ours, tensors, metadata))
            }
            Container::Safetensors => {
                let bytes = Arc::new(regular::read(path, Length::Any, "read")?);
                let header = Header::read(&bytes, bytes.len())?;
                let sealed = digest::sealed(&bytes, 8..header.start, MARK);
                check_digest(is_ours(&header.metadata), &sealed)?;
                let read = move |place: Range<usize>| Ok(bytes[place].to_vec());
                Ok(Self::safetensors(header, read))
            }
        };
        open().map_err(|error| error_of(path, error))
    }

    /// Like [`open`](Self::open), but reads the bytes of a tensor only when they are asked for.
    /// Returns the SHA-256 of the file too.
    pub fn open_in_parts(file: &Parts) -> Result<(Self, String)> {
        let path = file.path();
        let open = || match container_of(path)? {
            Container::Torch => {
                let (sha256, _) = digest::sealed_file(path, &[], 0..0, MARK)?;
                Ok((Self::torch(path)?, sha256))
            }
            Container::Burnpack => {
                let OpenPack { is_ours, tensors, metadata, sha256 } = Pack::open_any(file)?;
                let tensors = tensors.into_iter().map(|tensor| {
                    let (name, shape) = (tensor.name.clone(), tensor.shape.clone());
                    let (dtype, id) = (tensor.dtype, tensor.param_id);
                    // Burn's bytes of a file panic if the file is gone, which `deferred` catches.
                    let read = move || bridge::to_data(&tensor);
                    (name.clone(), bridge::deferred(name, dtype, shape, id, read))
                });
                Ok((Self::burnpack(is_ours, tensors, metadata), sha256))
            }
            Container::Safetensors => {
                let length = usize::try_from(file.length()).map_err(Error::other)?;
                let end = Header::end(&file.read(0..file.length().min(8))?, length)?;
                let head = file.read(0..end as u64)?;
                let header = Header::read(&head, length)?;
                let (sha256, sealed) = digest::sealed_file(path, &head, 8..header.start, MARK)?;
                check_digest(is_ours(&header.metadata), &sealed)?;
                let file = file.clone();
                let read = move |place: Range<usize>| {
                    let bytes = file.read(place.start as u64..place.end as u64);
                    bytes.map_err(|error| burn_pack::Error::IoError(error.to_string()))
                };
                Ok((Self::safetensors(header, read), sha256))
            }
        };
        open().map_err(|error| error_of(path, error))
    }

    /// The tensor of a name, or the one that replaces it: PyTorch's `save_model` writes a shared
    /// tensor under one of its names, and in the metadata this name for each other one.
    pub fn tensor(&self, name: &str) -> Option<&Tensor> {
        let shared = || self.tensors.get(self.metadata.get(name)?);
        self.tensors.get(name).or_else(shared)
    }

    /// Drops the tensors that the options pass over, and returns their names.
    ///
    /// # Errors
    ///
    /// A pattern that is no glob; a tensor that the options read, of a dtype that Burn does not
    /// have.
    pub fn leave_out(&mut self, options: &LoadOptions) -> Result<BTreeSet<String>> {
        let is_left_out = options.left_out()?;
        let left_out = self.tensors.extract_if(.., |name, _| is_left_out(name));
        let left_out = left_out.map(|(name, _)| name).collect();
        let mut unreadable = self.unreadable.iter();
        let is_read = |name: &str| name.starts_with(&options.prefix) && !is_left_out(name);
        match unreadable.find(|(name, _)| is_read(name)) {
            None => Ok(left_out),
            Some((name, dtype)) => Err(Error::parameter(name, "a dtype of Burn's", dtype)),
        }
    }

    fn burnpack(
        is_ours: bool,
        tensors: impl Iterator<Item = (String, Tensor)>,
        metadata: BTreeMap<String, String>,
    ) -> Self {
        Self {
            kind: Kind::Burnpack,
            // burn-store may have written it through its adapter for PyTorch.
            evidence: if is_ours { Evidence::Certain } else { Evidence::Likely },
            // What an average keeps beside its weights is needed only to go on with it.
            tensors: tensors.filter(|(path, _)| !path.starts_with(KEPT)).collect(),
            unreadable: BTreeMap::new(),
            metadata,
        }
    }

    /// The tensors of a header, whose bytes `read` returns.
    fn safetensors<R>(header: Header, read: R) -> Self
    where
        R: Fn(Range<usize>) -> Result<Vec<u8>, burn_pack::Error> + Clone + Send + Sync + 'static,
    {
        let Header { mut metadata, tensors: infos, start } = header;
        metadata.remove(DIGEST);
        let (mut tensors, mut unreadable) = (BTreeMap::new(), BTreeMap::new());
        for (name, TensorInfo { dtype, shape, data_offsets: (from, to) }) in infos {
            match dtype_of_file(dtype) {
                None => _ = unreadable.insert(name, format!("{dtype:?}")),
                Some(dtype) => {
                    let place = start + from..start + to;
                    let tensor = unread(name.clone(), dtype, &shape, place, read.clone());
                    tensors.insert(name, tensor);
                }
            }
        }
        let said = |key: &str, value: &str| metadata.get(key).is_some_and(|said| said == value);
        let (kind, evidence) = match metadata.contains_key(LAYOUT) {
            true if said(LAYOUT, OF_BURN) => (Kind::Safetensors, Evidence::Certain),
            true => (Kind::Torch, Evidence::Certain),
            // burn-store notes that it wrote the file, but not whether through its adapter for
            // PyTorch.
            false if said("producer", "burn") => (Kind::Safetensors, Evidence::Nothing),
            false if said("format", "pt") => (Kind::Torch, Evidence::Likely),
            false => (Kind::Torch, Evidence::Nothing),
        };
        Self { kind, evidence, tensors, unreadable, metadata }
    }

    fn torch(path: &Path) -> Result<Self> {
        let reader = PytorchReader::new(path)
            .map_err(|error| Error::parameter("the file", "one of torch.save", error))?;
        let tensors = reader.into_tensors().into_iter();
        let tensors = tensors.map(|(name, tensor)| (name, bridge::from_pytorch(tensor)));
        Ok(Self {
            kind: Kind::Pt,
            evidence: Evidence::Certain,
            tensors: tensors.collect(),
            unreadable: BTreeMap::new(),
            metadata: BTreeMap::new(),
        })
    }
}

/// True if the metadata have a key of this crate.
fn is_ours(metadata: &BTreeMap<String, String>) -> bool {
    metadata.keys().any(|key| key.starts_with(OURS))
}

/// The error, which names the file.
fn error_of(path: &Path, error: Error) -> Error {
    match error {
        error @ Error::File { .. } => error,
        error => Error::file("read", path, error),
    }
}

/// The kind of a file of weights, by its first bytes.
fn container_of(path: &Path) -> Result<Container> {
    let broken = |error: io::Error| Error::file("read", path, error);
    let mut head = Vec::new();
    let (file, _) = regular::open(path).map_err(broken)?;
    file.take(HEAD).read_to_end(&mut head).map_err(broken)?;
    match container(&head) {
        Some(known @ (Container::Burnpack | Container::Torch)) => Ok(known),
        other => match (foreign::describe_file(path)?, other) {
            (Some(found), _) => Err(Error::parameter("the file", "weights", found)),
            (None, Some(known)) => Ok(known),
            (None, None) => {
                let found = format!("{:02x?}", &head[..head.len().min(8)]);
                let expected = "those of burnpack, safetensors or torch.save";
                Err(Error::parameter("the first bytes", expected, found))
            }
        },
    }
}

fn container(head: &[u8]) -> Option<Container> {
    match head {
        _ if head.starts_with(&burn_pack::MAGIC_NUMBER.to_le_bytes()) => Some(Container::Burnpack),
        // Checked early: the length of the header, the first bytes, can look like another form.
        _ if head.get(8) == Some(&b'{') => Some(Container::Safetensors),
        // An archive, a bare pickle, and the archive of the first versions.
        [b'P', b'K', 3, 4, ..] | [0x80, ..] => Some(Container::Torch),
        _ if head.get(257..262) == Some(b"ustar") => Some(Container::Torch),
        _ => None,
    }
}

/// A tensor of safetensors, whose bytes `read` returns when they are asked for.
fn unread(
    name: String,
    dtype: DType,
    shape: &[usize],
    place: Range<usize>,
    read: impl Fn(Range<usize>) -> Result<Vec<u8>, burn_pack::Error> + Send + Sync + 'static,
) -> Tensor {
    let shape = Shape::from(shape.to_vec());
    bridge::deferred(name, dtype, shape.clone(), None, move || {
        let bytes = Bytes::from_bytes_vec(read(place.clone())?);
        TensorData::try_from_bytes(bytes, shape.clone(), dtype)
            .map_err(|error| burn_pack::Error::ValidationError(error.to_string()))
    })
}

/// The dtypes that both Burn and safetensors have.
const DTYPES: [(DType, Dtype); 13] = [
    (DType::F64, Dtype::F64),
    (DType::F32, Dtype::F32),
    (DType::F16, Dtype::F16),
    (DType::BF16, Dtype::BF16),
    (DType::I64, Dtype::I64),
    (DType::I32, Dtype::I32),
    (DType::I16, Dtype::I16),
    (DType::I8, Dtype::I8),
    (DType::U64, Dtype::U64),
    (DType::U32, Dtype::U32),
    (DType::U16, Dtype::U16),
    (DType::U8, Dtype::U8),
    (DType::Bool(BoolStore::Native), Dtype::BOOL),
];

/// The dtype in which numbers of a dtype are written to a file; `None` for quantized ones.
pub(super) fn dtype_in_file(dtype: DType) -> Option<(DType, Dtype)> {
    // How a device stores booleans and Flex32 is its own; a file has one form of each.
    let dtype = match dtype {
        DType::Bool(_) => DType::Bool(BoolStore::Native),
        DType::Flex32 => DType::F32,
        dtype => dtype,
    };
    DTYPES.into_iter().find(|(of_burn, _)| *of_burn == dtype)
}

fn dtype_of_file(dtype: Dtype) -> Option<DType> {
    let found = DTYPES.into_iter().find(|(_, of_file)| *of_file == dtype);
    found.map(|(of_burn, _)| of_burn)
}
