//! The names and the layout of a module's tensors in a file.

use std::collections::BTreeMap;

use burn::{
    module::{Module, ParamId},
    tensor::{DType, Shape},
};
use burn_pack::Tensor;
use burn_store::{
    BurnToPyTorchAdapter, ModuleAdapter as _, ModuleContext, PyTorchToBurnAdapter, bridge,
};

use super::source::dtype_in_file;
use crate::{
    Error, Result,
    average::{Place, describe, recorded},
    model::{Dense, Mlp},
};

/// Names of yours, where a module in PyTorch is not called as in Burn.
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
    /// PyTorch's names as they are.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a renaming: a name that begins with `burn` begins with `torch` in PyTorch instead.
    ///
    /// A beginning is made of whole parts between dots; the empty one is before every name. If
    /// several match a name, the longest one counts.
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
    /// Its path in the module.
    pub path: String,
    pub id: ParamId,
    pub dtype: DType,
    /// Its shape in Burn's records.
    shape: Shape,
    /// The containers of the tensor, as burn-store names them; none if the file has Burn's layout.
    containers: Option<Vec<String>>,
}

impl Slot {
    /// Converts a tensor from the layout of Burn's records to that of the file, and the last part
    /// of its name to the file's.
    ///
    /// burn-store decides by this last part, so the tensor must come with Burn's name.
    pub fn outward(&self, tensor: Tensor) -> Tensor {
        match &self.containers {
            None => tensor,
            Some(parts) => BurnToPyTorchAdapter.adapt(tensor, ModuleContext::new(parts)),
        }
    }

    /// Converts a tensor of the file to the layout of Burn's records.
    pub fn inward(&self, mut tensor: Tensor) -> Tensor {
        match &self.containers {
            None => tensor,
            Some(parts) => {
                tensor.name.clone_from(&self.path);
                PyTorchToBurnAdapter.adapt(tensor, ModuleContext::new(parts))
            }
        }
    }

    /// A tensor of this slot without its numbers, as the file has it.
    fn claim(&self, name: String) -> Tensor {
        let dtype = self.dtype;
        let unread = || Err(burn_pack::Error::ValidationError("it has no numbers".to_owned()));
        self.outward(bridge::deferred(name, dtype, self.shape.clone(), None, unread))
    }

    /// The dtype and shape that the file must have there, for messages: `f32 [32, 64]`.
    pub fn in_file(&self) -> String {
        in_file(&self.claim(self.path.clone()))
    }

    /// The tensor for messages, by its name in the file, and by its path where that is another.
    pub fn label(&self, name: &str) -> String {
        match self.path == name {
            true => name.to_owned(),
            false => format!("{name} ({} here)", self.path),
        }
    }
}

/// A tensor for messages, in the dtype that a file has for it.
pub(super) fn in_file(tensor: &Tensor) -> String {
    let dtype = dtype_in_file(tensor.dtype).map_or(tensor.dtype, |(of_burn, _)| of_burn);
    describe(dtype, &tensor.shape)
}

/// Every tensor of the module by its name in the file: Burn's, or PyTorch's with names of yours.
///
/// # Errors
///
/// Two of one name.
pub(super) fn slots<M: Module>(
    module: &M,
    names: Option<&Names>,
) -> Result<BTreeMap<String, Slot>> {
    let mut slots = BTreeMap::<String, Slot>::new();
    for found in recorded(module) {
        let slot = Slot {
            path: found.place.path(),
            id: found.id,
            dtype: found.dtype,
            shape: found.shape,
            containers: names.map(|_| containers(&found.place)),
        };
        let name = match names {
            None => slot.path.clone(),
            Some(names) => names.of(slot.claim(torch_path(&found.place)).name),
        };
        if let Some(first) = slots.get(&name) {
            let found = format!("those of {} and {}", first.path, slot.path);
            return Err(Error::parameter(name, "one tensor of this name", found));
        }
        slots.insert(name, slot);
    }
    Ok(slots)
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

/// The containers of a parameter for burn-store, to which a [`Dense`] must look like a linear layer,
/// since its weight lies as there.
fn containers(place: &Place) -> Vec<String> {
    let mut containers = place.containers.clone();
    if let Some(last) = containers.last_mut()
        && *last == Dense::CONTAINER
    {
        *last = "Struct:Linear".to_owned();
    }
    containers
}
