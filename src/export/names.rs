//! The names and the layout of a module's tensors in a file.

use burn::{
    module::{Module, ParamId},
    tensor::{DType, Shape},
};
use burn_pack::Tensor;
use burn_store::{BurnToPyTorchAdapter, PyTorchToBurnAdapter, bridge};

use super::source::dtype_in_file;
use crate::{
    average::{Place, Recorded, describe, recorded},
    model::{Dense, Mlp},
    next::adapt,
};

/// Names of yours, for a module whose names in PyTorch differ from those in Burn.
///
/// ```
/// use burn_ema::export::Names;
///
/// // A Burn module with the fields `first` and `last`, and a `Sequential` in PyTorch.
/// let names = Names::new().with("first", "0").with("last", "2");
/// // All of it is a part of something larger there.
/// let names = Names::new().with("", "backbone");
/// # let _ = names;
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    beginnings: Vec<(String, String)>,
}

impl Names {
    /// No names of yours.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a renaming: a name that begins with `burn` begins with `torch` in PyTorch instead.
    ///
    /// A beginning is made of whole parts between dots; the empty one is before every name. If
    /// several match a name, the longest one counts.
    /// When a file is read, parameters that get the same name share its tensor.
    pub fn with(mut self, burn: impl Into<String>, torch: impl Into<String>) -> Self {
        self.beginnings.push((burn.into(), torch.into()));
        self
    }

    fn of(&self, name: String) -> String {
        let beginnings = self.beginnings.iter().filter_map(|(from, to)| {
            let rest = match name.strip_prefix(&from[..])? {
                rest if from.is_empty() || rest.is_empty() => rest,
                rest => rest.strip_prefix('.')?,
            };
            Some((from.len(), to, rest))
        });
        match beginnings.max_by_key(|(length, ..)| *length) {
            None => name,
            Some((_, to, "")) => to.clone(),
            Some((_, to, rest)) if to.is_empty() => rest.to_owned(),
            Some((_, to, rest)) => format!("{to}.{rest}"),
        }
    }
}

/// The place of a tensor of the module in a file.
pub(super) struct Slot {
    /// The tensor's name in the file: Burn's, or PyTorch's with names of yours.
    pub name: String,
    /// The tensor's path in the module.
    pub path: String,
    pub id: ParamId,
    pub dtype: DType,
    /// The tensor's shape in the file.
    pub shape: Shape,
    /// The containers of the tensor, as burn-store names them; `None` if the file has Burn's
    /// layout.
    containers: Option<Vec<String>>,
}

impl Slot {
    fn new(found: Recorded, names: Option<&Names>) -> Self {
        let Recorded { place, id, dtype, shape } = found;
        let path = place.path();
        let containers = names.map(|_| containers(&place));
        let mut slot = Self { name: path.clone(), path, id, dtype, shape, containers };
        if let Some(names) = names {
            let in_file = slot.outward(claim(torch_path(&place), dtype, slot.shape.clone()));
            (slot.name, slot.shape) = (names.of(in_file.name), in_file.shape);
        }
        slot
    }

    /// Converts a tensor from the layout of Burn's records to that of the file, and the last part
    /// of its name to the file's.
    ///
    /// burn-store decides by this last part, so the tensor must come with Burn's name.
    pub fn outward(&self, tensor: Tensor) -> Tensor {
        match &self.containers {
            None => tensor,
            Some(parts) => adapt(BurnToPyTorchAdapter, tensor, parts),
        }
    }

    /// Converts a tensor of the file to the layout of Burn's records.
    pub fn inward(&self, mut tensor: Tensor) -> Tensor {
        match &self.containers {
            None => tensor,
            Some(parts) => {
                tensor.name.clone_from(&self.path);
                adapt(PyTorchToBurnAdapter, tensor, parts)
            }
        }
    }

    /// True if the name and the layout are PyTorch's.
    pub fn is_of_torch(&self) -> bool {
        self.containers.is_some()
    }

    /// True if the file has the tensor transposed.
    pub fn is_turned(&self) -> bool {
        let turned = || self.outward(claim(self.path.clone(), self.dtype, Shape::from([1, 2])));
        self.shape.as_slice().len() == 2 && turned().shape.as_slice() == [2, 1]
    }

    /// True if a file gives this place another tensor, or another layout of it, than `other`.
    pub fn differs_from(&self, other: &Self) -> bool {
        let is_one_number = self.shape.num_elements() == 1;
        self.name != other.name || (self.is_turned() != other.is_turned() && !is_one_number)
    }

    /// The dtype and shape that the file must have there, for messages: `f32 [32, 64]`.
    pub fn in_file(&self) -> String {
        in_file(self.dtype, &self.shape)
    }
}

/// A tensor without its numbers.
fn claim(name: String, dtype: DType, shape: Shape) -> Tensor {
    let unread = || Err(burn_pack::Error::ValidationError("it has no numbers".to_owned()));
    bridge::deferred(name, dtype, shape, None, unread)
}

/// The dtype and shape of a tensor in a file, for messages.
pub(super) fn in_file(dtype: DType, shape: &Shape) -> String {
    describe(dtype_in_file(dtype).map_or(dtype, |(of_burn, _)| of_burn), shape)
}

/// The place of every tensor of the module in a file, in the module's order: with PyTorch's names,
/// or with Burn's if `names` is `None`.
pub(super) fn slots<M: Module>(module: &M, names: Option<&Names>) -> Vec<Slot> {
    recorded(module).into_iter().map(|found| Slot::new(found, names)).collect()
}

/// The path of a parameter in PyTorch, with its own name as Burn has it.
fn torch_path(place: &Place) -> String {
    let count = place.names.len();
    let levels = place.names.iter().zip(&place.containers).enumerate();
    let names = levels.filter_map(|(level, (name, container))| {
        match (count - level, is_of_mlp(place)) {
            // The list of its layers is the `Sequential` itself, with an activation behind each.
            (3, true) => None,
            (2, true) => Some(name.parse().map_or(name.clone(), |i: usize| (2 * i).to_string())),
            _ => (!container.starts_with("Enum:")).then(|| name.clone()),
        }
    });
    names.collect::<Vec<_>>().join(".")
}

/// True if this is `layers.N.weight` or `layers.N.bias` of an [`Mlp`] of this crate.
fn is_of_mlp(place: &Place) -> bool {
    let containers = &place.containers[..];
    matches!(containers, [.., mlp, _, dense] if mlp == Mlp::CONTAINER && dense == Dense::CONTAINER)
}

/// The containers of a parameter for burn-store, to which a [`Dense`] must look like a linear
/// layer, since its weight has the same layout.
fn containers(place: &Place) -> Vec<String> {
    let mut containers = place.containers.clone();
    if let Some(last) = containers.last_mut()
        && *last == Dense::CONTAINER
    {
        *last = "Struct:Linear".to_owned();
    }
    containers
}
