//! Saves a model as a file that other programs can open, loads a model from such a file, and
//! [merges](merge) several into one.
//!
//! [`save`] writes an average or live, of any module, as burnpack, as safetensors, or as
//! safetensors that PyTorch loads, with a description and a digest in the metadata.
//! [`load`] reads each of these, and files of `torch.save`; it finds the form by the content.
//!
//! ```no_run
//! use burn_ema::{AverageConfig, Rule, export::{self, Form}, model::MlpConfig};
//!
//! let config = MlpConfig::new(vec![64, 32, 10]);
//! let live = config.init(&Default::default())?;
//! let average = AverageConfig::new(Rule::ema(0.99)).init(&live)?;
//! // ... a training ...
//! let description = average.describe("my run");
//! export::save(&average.module(), "model.safetensors", &Form::torch(), &description)?;
//!
//! let model = export::load(config.init(&Default::default())?, "model.safetensors")?;
//! # let _ = model;
//! # Ok::<_, burn_ema::Error>(())
//! ```
//!
//! ```python
//! layers = [torch.nn.Linear(64, 32), torch.nn.Sigmoid(), torch.nn.Linear(32, 10), torch.nn.Sigmoid()]
//! torch.nn.Sequential(*layers).load_state_dict(safetensors.torch.load_file("model.safetensors"))
//! ```
//!
//! # PyTorch's names and layout
//!
//! - A [`Linear`](burn::nn::Linear) and a [`Dense`](crate::model::Dense) layer have their weight as
//!   `[outputs, inputs]`.
//! - Normalizations have `weight` and `bias` for `gamma` and `beta`.
//! - Variants of enums are no part of a name.
//! - An [`Mlp`](crate::model::Mlp) is a `Sequential` with an activation behind each layer:
//!   `0.weight`, `2.bias`.
//! - All other tensors have their path in the module. [`Names`] of yours are applied last.
//!
//! The first three rules are those of burn-store, which knows Burn's types by their names: a struct
//! `Linear` of yours is written like Burn's.
//! A `Dense` or an `Mlp` of yours is not this crate's, and is written unchanged.
//! Tensors that PyTorch keeps in another shape (the gates of its recurrent layers, the joint weight
//! of its attention) are not converted.
//! A batch norm's `num_batches_tracked` and the `n_averaged` of PyTorch's `AveragedModel` are neither
//! written nor read; PyTorch does without the first.
//!
//! # What is checked
//!
//! Every tensor of the module must be there, in its shape and dtype, and no other; floats must be
//! finite.
//! [`LoadOptions`] admit more, each by name: a part of the file, tensors to leave out, other dtypes.
//! If a file holds live and its average, `load` does not guess which of them to read: the error
//! lists the prefixes under which the module's tensors are.
//!
//! Two paths may share one tensor of a file if they are of one parameter (one id), if [`Names`]
//! give them one name, or if PyTorch's `save_model` wrote only one of their names.
//!
//! A file that [`save`] wrote has a digest, and one that was altered is refused.
//! `torch.save` keeps a checksum of each tensor; safetensors of others have none, and neither have
//! the files of plain Burn.

mod fit;
mod header;
pub mod merge;
mod names;
mod options;
mod source;

use burn_ema_base::digest::{self, UNSEALED};
use std::{
    cmp::Reverse,
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use burn::{
    module::Module,
    tensor::{DType, Shape, TensorData},
};
use burn_store::bridge;
use safetensors::{Dtype, tensor::TensorInfo};
use serde_json::{Map, Value};

use self::{
    fit::opened,
    names::{Slot, slots},
    source::{LAYOUT, MARK, OF_BURN, OF_TORCH, Source, dtype_in_file},
};
pub use self::{names::Names, options::LoadOptions, source::Kind};
use crate::{
    Error, Result,
    average::{DIGEST, Description, Entry, Pack, describe, write_whole},
};

/// How a model is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Form {
    /// Burn's own form, which `module.load_file(path)` of plain Burn loads.
    Burnpack,
    /// Safetensors, under the paths and in the layout of Burn.
    Safetensors,
    /// Safetensors under PyTorch's names and in its layout.
    Torch(Names),
}

impl Form {
    /// Safetensors under PyTorch's names, without names of yours.
    pub fn torch() -> Self {
        Self::Torch(Names::new())
    }

    /// The names of yours for PyTorch's layout; `None` for Burn's layout.
    fn names(&self) -> Option<&Names> {
        match self {
            Self::Burnpack | Self::Safetensors => None,
            Self::Torch(names) => Some(names),
        }
    }
}

/// Writes a module with its description, from [`Average::describe`](crate::Average::describe) or
/// [`Description::new`].
///
/// The file appears whole or not at all.
/// A path without an extension gets `.bpk` or `.safetensors`.
///
/// To go on with an average later, use [`Average::save_file`](crate::Average::save_file), which
/// keeps its state too.
///
/// # Errors
///
/// A file that cannot be written; tensors that cannot be read back; for safetensors, a tensor of a
/// dtype that they do not have (quantized), or two of one name that are not the same parameter.
pub fn save<M: Module>(
    module: &M,
    path: impl AsRef<Path>,
    form: &Form,
    description: &Description,
) -> Result<()> {
    let path = path.as_ref();
    let refuse = |error| Error::file("write", path, error);
    let pack = module.clone().into_record().into_bytes().map_err(Error::from);
    let pack = pack.and_then(Pack::of_bytes).map_err(refuse)?;
    let pack = pack.with_all(description.metadata());
    match form {
        Form::Burnpack => pack.write(path),
        _ => {
            let bytes = serialized(module, pack, form.names()).map_err(refuse)?;
            write_whole(path, EXTENSION, &bytes)
        }
    }
}

/// The module with the weights of a file, whose form is found by its content.
///
/// Safetensors of [`save`] have their layout in the metadata, and files of `torch.save` have
/// PyTorch's. Safetensors of other programs, such as burn-store, have either layout: the one in
/// which the names and shapes of the module fit is used.
/// If both fit and give different weights, which happens only with square matrices and no hint in
/// the metadata, the file is refused; see [`load_as`].
///
/// Files of plain Burn are read too, but unchecked, since they have no digest.
/// The weights are read into memory, so that later changes of the file have no effect.
/// If a path without an extension does not exist, `.bpk` is added or, if that does not exist
/// either, `.safetensors`.
///
/// Reading needs at most a few times the length of the file in memory, beside the module's own.
///
/// # Errors
///
/// A file that cannot be read, that is of no known form, that is cut or damaged, or that was altered
/// since [`save`] wrote it; a layout that neither the file nor the module determines; a tensor that
/// is missing, that is not the module's, or that differs from it in shape or dtype; a NaN or an
/// infinity.
/// Where [`LoadOptions`] would help, the error names them.
pub fn load<M: Module>(module: M, path: impl AsRef<Path>) -> Result<M> {
    load_with(module, path, &LoadOptions::new())
}

/// Like [`load`], with the names and the layout of `form`, whatever the file's metadata are: for
/// [`Names`] of your own, and if names and shapes do not determine the layout.
///
/// # Errors
///
/// The errors of [`load`].
pub fn load_as<M: Module>(module: M, path: impl AsRef<Path>, form: &Form) -> Result<M> {
    load_with(module, path, &LoadOptions::new().with_form(form.clone()))
}

/// Like [`load`], with options: to read a part of a file, to convert its dtypes, or to give its
/// form.
///
/// # Errors
///
/// The errors of [`load`], for what the options read; a pattern that is no glob; a number that the
/// module's dtype does not hold.
pub fn load_with<M: Module>(module: M, path: impl AsRef<Path>, options: &LoadOptions) -> Result<M> {
    let path = &found(path.as_ref());
    let source = Source::open(path)?;
    let loaded = opened(&module, source, options);
    let loaded = loaded.and_then(|opened| opened.apply(module, &[], |_| false));
    loaded.map_err(|error| Error::file("load the weights in", path, error))
}

/// The content of a file of any form.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Contents {
    /// The kind of the file.
    pub kind: Kind,
    /// The length of the file in bytes.
    pub bytes: u64,
    /// The description in the file's metadata; `None` for files by other programs.
    pub description: Option<Description>,
    /// The dtype and shape of each tensor, by its name in the file.
    pub tensors: BTreeMap<String, (DType, Shape)>,
}

impl Contents {
    /// Reads the kind of a file, its description, and the dtype and shape of its tensors.
    ///
    /// # Errors
    ///
    /// A file that cannot be read, that is of no known form, that is cut, or that was altered since
    /// [`save`] wrote it; a tensor of a dtype that Burn does not have.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        Self::read_with(path, &LoadOptions::new())
    }

    /// Like [`read`](Self::read), of the tensors that the options read, by their names without the
    /// prefix.
    ///
    /// # Errors
    ///
    /// The errors of [`read`](Self::read); a pattern that is no glob.
    pub fn read_with(path: impl AsRef<Path>, options: &LoadOptions) -> Result<Self> {
        let path = found(path.as_ref());
        let mut source = Source::open(&path)?;
        source.leave_out(options).map_err(|error| Error::file("read", &path, error))?;
        let Source { kind, tensors, metadata, .. } = source;
        let bytes = fs::metadata(&path).map_err(|error| Error::file("read", &path, error))?.len();
        let tensors = tensors.into_iter().filter_map(|(name, tensor)| {
            let name = name.strip_prefix(&options.prefix)?.to_owned();
            Some((name, (tensor.dtype, tensor.shape)))
        });
        let description = Description::of(&metadata).ok();
        Ok(Self { kind, bytes, description, tensors: tensors.collect() })
    }
}

/// The extension of safetensors.
const EXTENSION: &str = "safetensors";

/// The path; if it has no extension and does not exist, with the extension of [`save`] that does.
fn found(path: &Path) -> PathBuf {
    if path.extension().is_some() || path.exists() {
        return path.to_owned();
    }
    let extended = [burn_pack::EXTENSION, EXTENSION].map(|it| path.with_extension(it));
    extended.into_iter().find(|path| path.exists()).unwrap_or_else(|| path.to_owned())
}

/// The name that no tensor of safetensors has.
const METADATA: &str = "__metadata__";

/// The module as the bytes of safetensors.
fn serialized<M: Module>(module: &M, pack: Pack, names: Option<&Names>) -> Result<Vec<u8>> {
    let Pack { mut entries, mut metadata } = pack;
    let mut tensors = BTreeMap::<String, (Slot, Dtype, TensorData)>::new();
    let mut slots = slots(module, names);
    check_names(&slots)?;
    slots.sort_by(|a, b| a.name.cmp(&b.name));
    for slot in slots {
        let Some(Entry { data, .. }) = entries.remove(&slot.path) else {
            let found = "nothing: save one of its modules alone";
            return Err(Error::parameter(slot.path, "an entry in the module's record", found));
        };
        let dtype = dtype_in_file(data.dtype());
        let Some((of_burn, of_file)) = dtype else {
            let expected = "a dtype that safetensors have";
            return Err(Error::parameter(slot.path, expected, data.dtype().name()));
        };
        let unread = |error| Error::parameter(&slot.path, "a tensor that can be read", error);
        let data = cast(data, of_burn).map_err(unread)?;
        let tensor = slot.outward(bridge::from_data(data, slot.path.clone(), None));
        let data = bridge::into_data(tensor).map_err(|error| unread(error.to_string()))?;
        match tensors.get(&slot.name) {
            None => _ = tensors.insert(slot.name.clone(), (slot, of_file, data)),
            Some((_, _, first)) if *first == data => {}
            Some((first, ..)) => return Err(two_of_one_name(first, &slot)),
        }
    }
    if let Some((path, Entry { data, .. })) = entries.pop_first() {
        let found = describe(data.dtype(), data.shape()) + " in its record alone";
        return Err(Error::parameter(path, "a parameter of the module", found));
    }
    match names {
        None => _ = metadata.insert(LAYOUT.to_owned(), OF_BURN.to_owned()),
        Some(_) => {
            metadata.insert(LAYOUT.to_owned(), OF_TORCH.to_owned());
            // Programs around PyTorch require this entry.
            metadata.insert("format".to_owned(), "pt".to_owned());
        }
    }
    metadata.insert(DIGEST.to_owned(), UNSEALED.to_owned());
    let tensors = tensors.into_iter().map(|(name, (_, dtype, data))| (name, (dtype, data)));
    sealed(&tensors.collect(), &metadata)
}

/// Refuses two parameters of one name; two paths of one parameter may share a name.
fn check_names(slots: &[Slot]) -> Result<()> {
    let mut seen = BTreeMap::new();
    for slot in slots {
        match seen.insert(&slot.name, slot) {
            Some(first) if first.id != slot.id => return Err(two_of_one_name(first, slot)),
            _ => {}
        }
    }
    Ok(())
}

fn two_of_one_name(first: &Slot, second: &Slot) -> Error {
    let found = format!("those of {} and {}", first.path, second.path);
    Error::parameter(&first.name, "one tensor of this name", found)
}

/// Tensors and metadata as safetensors, with a digest; the same content gives the same bytes.
fn sealed(
    tensors: &BTreeMap<String, (Dtype, TensorData)>,
    metadata: &BTreeMap<String, String>,
) -> Result<Vec<u8>> {
    // The widest numbers come first, so that all lie at multiples of their width.
    let mut tensors: Vec<_> = tensors.iter().collect();
    tensors.sort_by_key(|(_, (dtype, _))| Reverse(dtype.bitsize()));
    let mut header = Map::new();
    header.insert(METADATA.to_owned(), serde_json::to_value(metadata).map_err(Error::other)?);
    let mut end = 0;
    for (name, (dtype, data)) in &tensors {
        let start = end;
        end += data.as_bytes().len();
        let shape = data.shape().as_slice().to_vec();
        let info = TensorInfo { dtype: *dtype, shape, data_offsets: (start, end) };
        let info = serde_json::to_value(info).map_err(Error::other)?;
        if header.insert((*name).clone(), info).is_some() {
            let expected = "a name that stands for no metadata";
            return Err(Error::parameter(*name, expected, "this one"));
        }
    }
    let mut header = Value::Object(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    let within = bytes.len()..bytes.len() + header.len();
    bytes.reserve_exact(header.len() + end);
    bytes.append(&mut header);
    tensors.iter().for_each(|(_, (_, data))| bytes.extend_from_slice(data.as_bytes()));
    digest::seal(&mut bytes, within, MARK)
        .ok_or_else(|| Error::parameter(DIGEST, "one entry of this name", "names like it"))?;
    Ok(bytes)
}

fn cast(data: TensorData, dtype: DType) -> Result<TensorData, String> {
    match data.dtype() == dtype {
        true => Ok(data),
        false => data.try_cast(dtype).map_err(|error| error.to_string()),
    }
}
