//! Two modules side by side: the only place, beside the kernels, that touches parameters.
//!
//! Parameters are paired by their path in the module, such as `layers.0.weight`.
//! Nothing is paired by position and nothing is skipped: a difference is an error with the path.

mod running; // which floats are running states
mod structure; // a module without the tensors of its parameters

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap, HashSet},
};

use burn::{
    backend::{DispatchTensor, TensorMetadata},
    module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId},
    tensor::{Bool, DType, Int, Shape, Tensor, TensorData, kind::Basic},
};

use crate::{Error, Result, kernel};

#[cfg(feature = "export")]
pub(crate) use self::running::running_states;
pub(super) use self::structure::Structure;

/// A parameter of a module, taken off autodiff; the tensor shares the module's storage.
#[derive(Clone, Debug)]
pub(super) struct Parameter {
    /// The path of the parameter in the module, such as `layers.0.weight`.
    pub path: String,
    pub id: ParamId,
    /// The dtype in the module; an average may keep the tensor in another dtype.
    pub dtype: DType,
    pub tensor: DispatchTensor,
    pub kind: ParameterKind,
}

/// The kind of a parameter, as far as averages distinguish it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ParameterKind {
    /// A float that an optimizer may move.
    Weight,
    /// A running state (`RunningState` of Burn), such as the statistics of a batch norm: a forward
    /// pass changes it, and no optimizer moves it.
    Statistic,
    /// An integer, a boolean or a quantized number: there is nothing to mix.
    Constant,
}

impl Parameter {
    /// The dtype and shape in the module, for messages: `f32 [3, 4]`.
    pub fn describe(&self) -> String {
        describe(self.dtype, &self.tensor.shape())
    }
}

/// A dtype and a shape, for messages.
pub(crate) fn describe(dtype: DType, shape: &Shape) -> String {
    format!("{} {:?}", dtype.name(), shape.as_slice())
}

/// Every parameter of the module, in the module's order.
///
/// # Errors
///
/// Two parameters of one path cannot be distinguished.
pub(super) fn parameters<M: Module>(module: &M) -> Result<Vec<Parameter>> {
    let mut found = tensors(module)?;
    let states = running::running_states(module);
    for parameter in found.iter_mut().filter(|parameter| states.contains(&parameter.path)) {
        parameter.kind = ParameterKind::Statistic;
    }
    Ok(found)
}

/// Like [`parameters`], for callers that need paths and tensors alone: running states have the kind
/// of weights here, since finding them takes longer.
///
/// # Errors
///
/// Two parameters of one path cannot be distinguished.
pub(super) fn tensors<M: Module>(module: &M) -> Result<Vec<Parameter>> {
    let mut collect = Collect::default();
    module.visit(&mut collect);
    let mut seen = BTreeMap::new();
    for parameter in &collect.found {
        if let Some(first) = seen.insert(&parameter.path, parameter) {
            let found = format!("{} and {}", first.describe(), parameter.describe());
            return Err(Error::parameter(&parameter.path, "one parameter of this path", found));
        }
    }
    Ok(collect.found)
}

/// Replaces float parameters of a module, which may be in training: `moved` gets the path and the
/// tensor of each float, and returns the new tensor, or `None` to leave the parameter as it is.
///
/// Each parameter keeps its id, so that an optimizer finds its moments, and its autodiff setting.
pub(super) fn map_floats<M: Module>(
    module: M,
    moved: impl FnMut(&str, &DispatchTensor) -> Option<DispatchTensor>,
) -> M {
    module.map(&mut MapFloats { path: Vec::new(), moved })
}

/// The path of the first parameter of an id; `None` if the module has none.
#[cfg(feature = "train")]
pub(crate) fn path_of<M: Module>(module: &M, id: ParamId) -> Option<String> {
    let mut collect = Collect::default();
    module.visit(&mut collect);
    collect.found.into_iter().find(|parameter| parameter.id == id).map(|parameter| parameter.path)
}

/// The tensors at these paths as they are after the module's last forward pass.
#[cfg(feature = "train")]
pub(crate) fn statistics<M: Module>(
    module: &M,
    paths: &std::collections::BTreeSet<String>,
) -> BTreeMap<String, DispatchTensor> {
    let mut collect = Collect::default();
    // A walk over the module itself shows running states one forward pass late.
    module.valid().visit(&mut collect);
    let statistics = collect.found.into_iter().filter(|found| paths.contains(&found.path));
    statistics.map(|parameter| (parameter.path, parameter.tensor)).collect()
}

/// Sets the running states at these paths, in the module and in all its clones, which share them.
#[cfg(feature = "train")]
pub(crate) fn put_statistics<M: Module>(
    module: M,
    statistics: &BTreeMap<String, DispatchTensor>,
) -> M {
    // `valid` applies what the last forward pass left pending; applied later, it would change
    // these.
    drop(module.valid());
    map_floats(module, |path, now| Some(kernel::on_device_of(statistics.get(path)?.clone(), now)))
}

/// A tensor of a record.
#[derive(Debug)]
pub(crate) struct Entry {
    pub id: ParamId,
    pub data: TensorData,
}

/// Loads into each parameter the entry that `entry_of` returns for its path; with `None` the
/// parameter stays as it is.
///
/// Burn's own load compares a record with the shape in memory, and so refuses a weight in the
/// column layout, whose saved form is transposed; see [`recorded_layout`] for the right one.
pub(crate) fn load<M: Module>(module: M, entry_of: impl FnMut(&str) -> Option<Entry>) -> M {
    module.map(&mut Load { path: Vec::new(), entry_of })
}

/// A parameter as a record stores it.
#[derive(Clone, Debug)]
pub(crate) struct Recorded {
    pub place: Place,
    #[cfg_attr(not(feature = "export"), expect(dead_code, reason = "files of others name it"))]
    pub id: ParamId,
    pub dtype: DType,
    pub shape: Shape,
}

/// Every parameter as a record stores it, in the module's order.
pub(crate) fn recorded<M: Module>(module: &M) -> Vec<Recorded> {
    let mut layout = Layout::default();
    module.visit(&mut layout);
    layout.found
}

/// The dtype and shape of every parameter as a record stores it, by path.
pub(super) fn recorded_layout<M: Module>(module: &M) -> BTreeMap<String, (DType, Shape)> {
    let recorded = recorded(module).into_iter();
    recorded.map(|found| (found.place.path(), (found.dtype, found.shape))).collect()
}

/// Every flag of the module, such as `norm.training`: its path and whether it is on.
#[cfg(feature = "train")]
pub(super) fn flags<M: Module>(module: &M) -> BTreeMap<String, bool> {
    #[derive(Default)]
    struct FlagPaths(Place, BTreeMap<String, bool>);
    impl ModuleVisitor for FlagPaths {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.0.enter(name, container);
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.0.exit();
        }
        fn visit_flag(&mut self, flag: &Param<burn::module::Flag>) {
            self.1.insert(self.0.path(), flag.is_enabled());
        }
    }
    let mut flags = FlagPaths::default();
    module.visit(&mut flags);
    flags.1
}

/// The paths of the running means of Burn's batch norms.
#[cfg(feature = "train")]
pub(super) fn batch_norm_means<M: Module>(module: &M) -> Vec<String> {
    recorded(module)
        .into_iter()
        .filter(|Recorded { place, .. }| {
            let container = place.containers.last().map(String::as_str);
            let name = place.names.last().map(String::as_str);
            container == Some("Struct:BatchNorm") && name == Some("running_mean")
        })
        .map(|recorded| recorded.place.path())
        .collect()
}

/// Live as an update sees it: its tensors and ids in its own order, without names.
pub(super) struct Live<'a, M> {
    module: &'a M,
    ids: Vec<ParamId>,
    tensors: Vec<DispatchTensor>,
}

impl<'a, M: Module> Live<'a, M> {
    /// Walks live once, for any number of averages.
    pub fn walk(module: &'a M) -> Self {
        let mut lean = TensorVisitor::default();
        module.visit(&mut lean);
        Self { module, ids: lean.ids, tensors: lean.tensors }
    }

    /// Live's tensors, in live's order.
    pub fn tensors(&self) -> &[DispatchTensor] {
        &self.tensors
    }

    /// The places in live's order of the parameters of these ids, without ids that live does not
    /// have. It is faster if the ids are in that order, as they most likely are.
    pub fn places(&self, ids: &[ParamId]) -> Vec<usize> {
        let mut next = ids.iter().peekable();
        let in_order = self.ids.iter().enumerate();
        let places = in_order.filter_map(|(place, id)| next.next_if_eq(&id).map(|_| place));
        let places: Vec<_> = places.collect();
        if places.len() == ids.len() {
            return places;
        }
        let ids: HashSet<_> = ids.iter().collect();
        let any = self.ids.iter().enumerate().filter(|(_, id)| ids.contains(id));
        any.map(|(place, _)| place).collect()
    }

    /// The path of the parameter at a place, for a message.
    pub fn path(&self, place: usize) -> String {
        let mut collect = Collect::default();
        self.module.visit(&mut collect);
        collect.found.swap_remove(place).path
    }

    /// Live's tensors in the order of an average's parameters, paired by path.
    ///
    /// `paired` holds live's ids from the last call in which live's order was the average's. The
    /// same ids in the same order are the same parameters, so that most updates compare no paths.
    ///
    /// # Errors
    ///
    /// A parameter that only one side has, or of another shape or dtype.
    pub fn pair<'p>(
        &self,
        parameters: impl Iterator<Item = &'p Parameter> + Clone,
        paired: &mut Vec<ParamId>,
    ) -> Result<Cow<'_, [DispatchTensor]>> {
        if self.ids != *paired {
            let live = self::tensors(self.module)?;
            if !live.iter().map(|p| &p.path).eq(parameters.clone().map(|p| &p.path)) {
                return check(parameters.clone(), Cow::Owned(pair(parameters, live)?));
            }
            paired.clone_from(&self.ids);
        }
        check(parameters, Cow::Borrowed(&self.tensors))
    }
}

/// The tensors, if they agree with the parameters in shape and dtype.
fn check<'a, 'p>(
    parameters: impl Iterator<Item = &'p Parameter>,
    tensors: Cow<'a, [DispatchTensor]>,
) -> Result<Cow<'a, [DispatchTensor]>> {
    for (average, live) in parameters.zip(tensors.iter()) {
        if !kernel::have_same_shape(&average.tensor, live) || average.dtype != live.dtype() {
            let found = describe(live.dtype(), &live.shape());
            return Err(Error::parameter(&average.path, average.describe(), found));
        }
    }
    Ok(tensors)
}

/// Live's tensors in the order of the average's parameters.
fn pair<'p>(
    parameters: impl Iterator<Item = &'p Parameter>,
    live: Vec<Parameter>,
) -> Result<Vec<DispatchTensor>> {
    let mut by_path: HashMap<_, _> = live.into_iter().map(|p| (p.path, p.tensor)).collect();
    let paired = parameters
        .map(|average| {
            by_path.remove(&average.path).ok_or_else(|| {
                Error::parameter(&average.path, average.describe(), "no parameter of this path")
            })
        })
        .collect::<Result<Vec<_>>>()?;
    match by_path.into_iter().min_by(|a, b| a.0.cmp(&b.0)) {
        None => Ok(paired),
        Some((path, tensor)) => {
            let found = describe(tensor.dtype(), &tensor.shape());
            Err(Error::parameter(path, "no parameter of this path", found))
        }
    }
}

/// The place in a module that a traversal has reached.
#[derive(Clone, Debug, Default)]
pub(crate) struct Place {
    /// The names of the path, outermost first.
    pub names: Vec<String>,
    /// The container of each name, such as `Struct:Linear`, `Enum:Layer` or `Vec`.
    pub containers: Vec<String>,
}

impl Place {
    fn enter(&mut self, name: &str, container: &str) {
        self.names.push(name.to_owned());
        self.containers.push(container.to_owned());
    }

    fn exit(&mut self) {
        self.names.pop();
        self.containers.pop();
    }

    pub fn path(&self) -> String {
        self.names.join(".")
    }
}

#[derive(Default)]
struct Collect {
    place: Place,
    found: Vec<Parameter>,
}

impl Collect {
    fn push<const D: usize, K: Basic>(&mut self, id: ParamId, tensor: Tensor<D, K>, float: bool) {
        let tensor = tensor.into_dispatch();
        let dtype = tensor.dtype();
        let kind = match float && dtype.is_float() {
            false => ParameterKind::Constant, // a quantized base is frozen
            true => ParameterKind::Weight,
        };
        self.found.push(Parameter { path: self.place.path(), id, dtype, tensor, kind });
    }
}

impl ModuleVisitor for Collect {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.place.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.place.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.push(param.id, param.base().without_autodiff(), true);
    }

    fn visit_int<const D: usize>(&mut self, param: &Param<Tensor<D, Int>>) {
        self.push(param.id, param.base().without_autodiff(), false);
    }

    fn visit_bool<const D: usize>(&mut self, param: &Param<Tensor<D, Bool>>) {
        self.push(param.id, param.base().without_autodiff(), false);
    }
}

/// The visitor of every step: it collects ids and tensors without names, to be fast.
#[derive(Default)]
struct TensorVisitor {
    ids: Vec<ParamId>,
    tensors: Vec<DispatchTensor>,
}

impl TensorVisitor {
    fn push<const D: usize, K: Basic>(&mut self, id: ParamId, tensor: Tensor<D, K>) {
        self.ids.push(id);
        self.tensors.push(tensor.into_dispatch());
    }
}

impl ModuleVisitor for TensorVisitor {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.push(param.id, param.base().without_autodiff());
    }

    fn visit_int<const D: usize>(&mut self, param: &Param<Tensor<D, Int>>) {
        self.push(param.id, param.base().without_autodiff());
    }

    fn visit_bool<const D: usize>(&mut self, param: &Param<Tensor<D, Bool>>) {
        self.push(param.id, param.base().without_autodiff());
    }
}

struct MapFloats<F> {
    path: Vec<String>,
    moved: F,
}

impl<F: FnMut(&str, &DispatchTensor) -> Option<DispatchTensor>> ModuleMapper for MapFloats<F> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let now = param.base();
        let (autodiff, require_grad) = (now.is_autodiff(), now.is_require_grad());
        let now = now.without_autodiff().into_dispatch();
        let Some(moved) = (self.moved)(&self.path.join("."), &now) else { return param };
        let moved = Tensor::<D>::from_dispatch(moved);
        let moved = if autodiff { Tensor::from_inner(moved) } else { moved };
        let (id, _, mapper) = param.consume();
        Param::from_mapped_value(id, moved.set_require_grad(require_grad), mapper)
    }
}

struct Load<F> {
    path: Vec<String>,
    entry_of: F,
}

impl<F: FnMut(&str) -> Option<Entry>> Load<F> {
    fn load<const D: usize, K: Basic>(&mut self, param: Param<Tensor<D, K>>) -> Param<Tensor<D, K>>
    where
        Tensor<D, K>: burn::module::Parameter,
    {
        let Some(Entry { id, data }) = (self.entry_of)(&self.path.join(".")) else { return param };
        let (device, dtype) = (param.lazy_device(), data.dtype());
        param.transform_for_load(Tensor::from_data(data, (&device, dtype)), id)
    }
}

impl<F: FnMut(&str) -> Option<Entry>> ModuleMapper for Load<F> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        self.load(param)
    }

    fn map_int<const D: usize>(&mut self, param: Param<Tensor<D, Int>>) -> Param<Tensor<D, Int>> {
        self.load(param)
    }

    fn map_bool<const D: usize>(
        &mut self,
        param: Param<Tensor<D, Bool>>,
    ) -> Param<Tensor<D, Bool>> {
        self.load(param)
    }
}

#[derive(Default)]
struct Layout {
    place: Place,
    found: Vec<Recorded>,
}

impl Layout {
    fn push<const D: usize, K: Basic>(&mut self, id: ParamId, saved: Tensor<D, K>) {
        let (dtype, shape) = (saved.dtype(), saved.shape());
        self.found.push(Recorded { place: self.place.clone(), id, dtype, shape });
    }
}

impl ModuleVisitor for Layout {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.place.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.place.exit();
    }

    // The saved form, which a layout mapping may have transposed, is what a record holds.
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.push(param.id, param.transform_for_save().base());
    }

    fn visit_int<const D: usize>(&mut self, param: &Param<Tensor<D, Int>>) {
        self.push(param.id, param.transform_for_save().base());
    }

    fn visit_bool<const D: usize>(&mut self, param: &Param<Tensor<D, Bool>>) {
        self.push(param.id, param.transform_for_save().base());
    }
}
