//! A module without the tensors of its parameters.

use std::{mem, slice, sync::Arc};

use burn::{
    backend::DispatchTensor,
    module::{Module, ModuleMapper, Param, ParamId, ParameterValue},
    tensor::{Bool, Device, Int, Tensor, kind::Basic},
};

use super::running::running_states;

/// A module without the tensors of its parameters: its structure, and all that is no parameter,
/// such as plain tensors and skipped fields.
///
/// A placeholder of one element stands for each parameter. A structure thus holds no weights, and
/// an optimizer can update live's in place.
#[derive(Clone, Debug)]
pub(in crate::average) struct Structure<M> {
    module: M,
    placeholders: Placeholders,
    /// The paths of the module's parameters, in the order in which `map` reaches them.
    paths: Arc<[String]>,
    /// True if the module has running states, which its clones share.
    has_states: bool,
}

/// A tensor of one element for each rank, kind and device of the parameters.
///
/// Each is made once, since a structure is taken at every update.
#[derive(Clone, Debug, Default)]
struct Placeholders {
    /// The ids of the module's parameters, in the order in which `map` reaches them.
    ids: Vec<ParamId>,
    floats: Vec<Placeholder>,
    ints: Vec<Placeholder>,
    bools: Vec<Placeholder>,
}

#[derive(Clone, Debug)]
struct Placeholder {
    rank: usize,
    device: Device,
    tensor: DispatchTensor,
}

impl<M: Module> Structure<M> {
    /// The structure of a module in validation mode, which shares no state with another.
    pub fn of(module: M) -> Self {
        let mut placeholders = Placeholders::default();
        let module = module.map(&mut placeholders);
        let (paths, has_states) = paths_of(&module);
        Self { module, placeholders, paths, has_states }
    }

    /// Replaces each structure by that of the same module as it is now, in validation mode; `now`
    /// must share no state with another module.
    pub fn follow<'a>(each: impl IntoIterator<Item = &'a mut Self>, now: M)
    where
        M: 'a,
    {
        let mut each = each.into_iter();
        let Some(first) = each.next() else { return };
        let ids = mem::take(&mut first.placeholders.ids);
        first.module = now.map(&mut first.placeholders);
        // The same ids in the same order have the same paths.
        if first.placeholders.ids != ids {
            (first.paths, first.has_states) = paths_of(&first.module);
        }
        each.for_each(|other| other.clone_from(first));
    }

    /// The devices of the module.
    pub fn devices(&self) -> Vec<Device> {
        self.module.devices()
    }

    /// The module with the tensor and the id that `tensor_of` returns for the path of a parameter;
    /// with `None` the placeholder stays.
    pub fn filled(&self, tensor_of: impl FnMut(&str) -> Option<(ParamId, DispatchTensor)>) -> M {
        // A clone takes a tenth of the time of `valid`, but would share running states.
        let module = if self.has_states { self.module.valid() } else { self.module.clone() };
        module.map(&mut Fill { paths: self.paths.iter(), tensor_of })
    }
}

/// The paths of a module's parameters in the order in which `map` reaches them, and true if it has
/// running states.
fn paths_of<M: Module>(module: &M) -> (Arc<[String]>, bool) {
    let mut paths = Paths::default();
    drop(module.valid().map(&mut paths));
    (paths.found.into(), !running_states(module).is_empty())
}

#[derive(Default)]
struct Paths {
    path: Vec<String>,
    found: Vec<String>,
}

impl Paths {
    fn note<P>(&mut self, param: P) -> P {
        self.found.push(self.path.join("."));
        param
    }
}

impl ModuleMapper for Paths {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        self.note(param)
    }

    fn map_int<const D: usize>(&mut self, param: Param<Tensor<D, Int>>) -> Param<Tensor<D, Int>> {
        self.note(param)
    }

    fn map_bool<const D: usize>(
        &mut self,
        param: Param<Tensor<D, Bool>>,
    ) -> Param<Tensor<D, Bool>> {
        self.note(param)
    }
}

/// The placeholder of a rank on a device, made by `zeros` the first time.
fn placeholder<const D: usize, K: Basic>(
    known: &mut Vec<Placeholder>,
    device: &Device,
    zeros: impl FnOnce([usize; D], &Device) -> Tensor<D, K>,
) -> Tensor<D, K> {
    let found = known.iter().find(|known| known.rank == D && known.device == *device);
    let tensor = found.map(|found| found.tensor.clone()).unwrap_or_else(|| {
        let tensor = zeros([1; D], device).into_dispatch();
        known.push(Placeholder { rank: D, device: device.clone(), tensor: tensor.clone() });
        tensor
    });
    Tensor::from_dispatch(tensor)
}

impl ModuleMapper for Placeholders {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (id, tensor, mapper) = param.consume();
        self.ids.push(id);
        let zeros = |shape, device: &Device| Tensor::zeros(shape, device);
        let tensor = placeholder(&mut self.floats, &tensor.device(), zeros);
        Param::from_mapped_value(id, tensor, mapper)
    }

    fn map_int<const D: usize>(&mut self, param: Param<Tensor<D, Int>>) -> Param<Tensor<D, Int>> {
        let (id, tensor, mapper) = param.consume();
        self.ids.push(id);
        let zeros = |shape, device: &Device| Tensor::zeros(shape, device);
        let tensor = placeholder(&mut self.ints, &tensor.device(), zeros);
        Param::from_mapped_value(id, tensor, mapper)
    }

    fn map_bool<const D: usize>(
        &mut self,
        param: Param<Tensor<D, Bool>>,
    ) -> Param<Tensor<D, Bool>> {
        let (id, tensor, mapper) = param.consume();
        self.ids.push(id);
        let zeros = |shape, device: &Device| Tensor::<D, Int>::zeros(shape, device).bool();
        let tensor = placeholder(&mut self.bools, &tensor.device(), zeros);
        Param::from_mapped_value(id, tensor, mapper)
    }
}

struct Fill<'a, F> {
    /// The paths of the parameters that the traversal has not reached yet.
    paths: slice::Iter<'a, String>,
    tensor_of: F,
}

impl<F: FnMut(&str) -> Option<(ParamId, DispatchTensor)>> Fill<'_, F> {
    fn fill<const D: usize, K: Basic>(&mut self, param: Param<Tensor<D, K>>) -> Param<Tensor<D, K>>
    where
        Tensor<D, K>: ParameterValue,
    {
        let path = self.paths.next().map(String::as_str);
        let Some((id, tensor)) = path.and_then(&mut self.tensor_of) else { return param };
        let (_, _, mapper) = param.consume();
        Param::from_mapped_value(id, Tensor::from_dispatch(tensor), mapper)
    }
}

impl<F: FnMut(&str) -> Option<(ParamId, DispatchTensor)>> ModuleMapper for Fill<'_, F> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        self.fill(param)
    }

    fn map_int<const D: usize>(&mut self, param: Param<Tensor<D, Int>>) -> Param<Tensor<D, Int>> {
        self.fill(param)
    }

    fn map_bool<const D: usize>(
        &mut self,
        param: Param<Tensor<D, Bool>>,
    ) -> Param<Tensor<D, Bool>> {
        self.fill(param)
    }
}
