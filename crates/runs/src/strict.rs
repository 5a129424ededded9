//! Records of models, optimizers and schedulers, loaded whole or not at all.
//!
//! Burn loads those entries of an optimizer's or a scheduler's record that it knows, and silently
//! drops the others. A record that is foreign, swapped, renamed or truncated resets momentum, step
//! counts or the learning rate, and an unexpected rank causes a panic. Here a record is first
//! compared, name by name, with the record that the optimizer or scheduler would save itself, and
//! refused if it differs. Then Burn loads the record and saves it again, which must give the same
//! bits. The record of a model is compared with the paths, shapes and dtypes of the model's
//! parameters.
//!
//! Altered numbers in a record are not detected here: the digests of the commit's files detect
//! them.

mod named;

use std::collections::{BTreeMap, BTreeSet};

use burn::{
    lr_scheduler::{LrSchedulerRecord, module_lr_scheduler::ModuleLrScheduler},
    module::{Module, ModuleVisitor, Param},
    optim::{GradientsParams, ModuleOptimizer, OptimizerRecord},
    store::ModuleRecord,
    tensor::{Bool, Bytes, DType, Int, Shape, Tensor},
};
use burn_ema_base::first_non_finite;
use burn_pack::{Reader, Scalar, Writer};

use self::named::NamedParameter;
use crate::{Error, Result};

/// Loads the record of a plain module, which must hold exactly the parameters of the module.
///
/// # Errors
///
/// Bytes that are no record; the first parameter, by path, that is missing in the record, missing
/// in the module, or of another shape or dtype.
pub(crate) fn model_record<M: Module>(bytes: Bytes, module: M) -> Result<M> {
    let bytes = bytes.shared();
    let expected = ModuleFields::of(&module);
    let Entries { tensors: found, .. } = Entries::of(bytes.clone())?;
    let paths: BTreeSet<_> = expected.keys().chain(found.keys()).collect();
    for path in paths {
        let found = found.get(path).map(describe);
        if expected.get(path) != found.as_ref() {
            let expected = expected.get(path).map_or("no parameter of this path", String::as_str);
            let found = found.map_or("nothing in the record".to_owned(), |found| {
                if expected.starts_with("no ") { found + " in the record" } else { found }
            });
            return Err(Error::parameter(path, expected, found));
        }
    }
    // Without this, statistics of an earlier forward pass would be added after the load.
    drop(module.valid());
    Ok(module.try_load_record(ModuleRecord::from_bytes(bytes)?)?)
}

/// Checks that Burn can load the record that it saves of a module: that each parameter is saved in
/// the shape that it has in memory.
///
/// A parameter with a layout mapping, such as the weight of a `Linear` in the column layout, can
/// be saved in another shape. Burn saves it, but refuses to load it.
///
/// # Errors
///
/// The first parameter, in the module's order, whose two shapes differ.
pub(crate) fn check_loadable<M: Module>(module: &M) -> Result<()> {
    let mut shapes = SavedShapes::default();
    module.visit(&mut shapes);
    shapes.refused.map_or(Ok(()), Err)
}

/// Reads the record of a scheduler's state. It must hold exactly the entries that `scheduler` would
/// save.
///
/// # Errors
///
/// Bytes that are no record, or have much more metadata than expected; the first entry, by name,
/// that is missing, unknown or of another type; a state that Burn cannot restore bit for bit.
pub(crate) fn scheduler_record(
    bytes: Bytes,
    scheduler: &ModuleLrScheduler,
) -> Result<LrSchedulerRecord> {
    let own = scheduler.to_record().into_bytes()?;
    let bytes = bytes.shared();
    let saved = Entries::read(bytes.clone(), metadata_size(&own))?;
    compare(&Entries::of(own)?.fields(), &saved.fields(), "the scheduler")?;
    let restored = scheduler.clone().load_record(LrSchedulerRecord::from_bytes(bytes.clone())?);
    let restored = Entries::of(restored.to_record().into_bytes()?)?;
    saved.check_restored(&restored, |name| format!("{name} of the scheduler"))?;
    Ok(LrSchedulerRecord::from_bytes(bytes)?)
}

/// Checks that no float tensor or scalar of a record, in Burn's bytes, holds a NaN or an infinity.
///
/// Quantized tensors are not checked.
///
/// # Errors
///
/// Bytes that are no record; the first NaN or infinity, by the name of its entry and, in a tensor,
/// its index. Tensors are checked before scalars.
pub(crate) fn check_finite(bytes: Bytes) -> Result<()> {
    let Entries { tensors, scalars, .. } = Entries::of(bytes)?;
    for (name, tensor) in tensors {
        let dtype = tensor.dtype;
        let bytes = tensor.into_bytes().map_err(broken)?;
        if let Some((index, what)) = first_non_finite(&bytes, dtype) {
            let found = format!("{what} at index {index}");
            return Err(Error::parameter(name, "finite numbers", found));
        }
    }
    let non_finite = scalars.into_iter().find_map(|(name, scalar)| match scalar {
        Scalar::Float(value) if !value.is_finite() => Some((name, value)),
        _ => None,
    });
    match non_finite {
        Some((name, value)) => Err(Error::parameter(name, "a finite number", value)),
        None => Ok(()),
    }
}

/// A visitor that collects the dtype and shape of each tensor in a module's record, by path.
#[derive(Default)]
struct ModuleFields {
    path: Vec<String>,
    found: Fields,
}

impl ModuleFields {
    fn of<M: Module>(module: &M) -> Fields {
        let mut layout = Self::default();
        module.visit(&mut layout);
        layout.found
    }

    fn add(&mut self, dtype: DType, shape: &[usize]) {
        self.found.insert(self.path.join("."), described(dtype, shape));
    }
}

impl ModuleVisitor for ModuleFields {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    // A record holds the saved form, which a layout mapping may have transposed.
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let saved = param.transform_for_save().base();
        self.add(saved.dtype(), saved.shape().as_slice());
    }

    fn visit_int<const D: usize>(&mut self, param: &Param<Tensor<D, Int>>) {
        let saved = param.transform_for_save().base();
        self.add(saved.dtype(), saved.shape().as_slice());
    }

    fn visit_bool<const D: usize>(&mut self, param: &Param<Tensor<D, Bool>>) {
        let saved = param.transform_for_save().base();
        self.add(saved.dtype(), saved.shape().as_slice());
    }
}

/// A visitor that finds the first parameter whose shape in a record differs from that in memory.
#[derive(Default)]
struct SavedShapes {
    path: Vec<String>,
    refused: Option<Error>,
}

impl SavedShapes {
    fn compare(&mut self, saved: &Shape, in_memory: &Shape) {
        if saved != in_memory && self.refused.is_none() {
            let shape = in_memory.as_slice();
            let expected = format!("to be saved as {shape:?}, its shape in memory");
            let found = format!(
                "{:?}: Burn loads no parameter that it saves in another shape, such as the weight \
                 of a Linear in the column layout",
                saved.as_slice()
            );
            self.refused = Some(Error::parameter(self.path.join("."), expected, found));
        }
    }
}

impl ModuleVisitor for SavedShapes {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.compare(&param.transform_for_save().base().shape(), &param.base().shape());
    }

    fn visit_int<const D: usize>(&mut self, param: &Param<Tensor<D, Int>>) {
        self.compare(&param.transform_for_save().base().shape(), &param.base().shape());
    }

    fn visit_bool<const D: usize>(&mut self, param: &Param<Tensor<D, Bool>>) {
        self.compare(&param.transform_for_save().base().shape(), &param.base().shape());
    }
}

/// A description of each entry of a record, by name, without its numbers: `f32 [3, 4]`, `a float`.
type Fields = BTreeMap<String, String>;

/// The description of an unsigned scalar, such as a step count or the length of a list.
const COUNT: &str = "an unsigned integer";

/// The name of the field that holds the rank of a parameter.
const RANK: &str = "__rank";

/// The entries of a record, by name; `metadata` holds the path of each parameter, by its id.
struct Entries {
    tensors: BTreeMap<String, burn_pack::Tensor>,
    scalars: BTreeMap<String, Scalar>,
    metadata: BTreeMap<String, String>,
}

impl Entries {
    /// Reads the entries of a record, in Burn's bytes. Metadata of more than 64 times
    /// `expected_size` plus 64 KiB is an error.
    ///
    /// Names, shapes and scalars take about twenty times as much space in memory as in a file, so
    /// that large metadata is refused before it is read.
    fn read(bytes: Bytes, expected_size: usize) -> Result<Self> {
        let most = expected_size.saturating_mul(64).saturating_add(1 << 16);
        let found = metadata_size(&bytes);
        if found > most {
            let expected = format!("at most {most} bytes of metadata");
            return Err(Error::parameter("the header", expected, found));
        }
        Self::of(bytes)
    }

    fn of(bytes: Bytes) -> Result<Self> {
        let reader = Reader::from_bytes(bytes).map_err(broken)?;
        let (scalars, metadata) = (reader.scalars().clone(), reader.metadata().clone());
        let tensors = reader.into_tensors().map_err(broken)?.into_iter();
        let tensors = tensors.map(|tensor| (tensor.name.clone(), tensor)).collect();
        Ok(Self { tensors, scalars, metadata })
    }

    /// The entries of the state of one parameter, by its id. Tensors are shared, not copied.
    fn of_parameter(&self, id: &str) -> Self {
        fn under<T: Clone>(entries: &BTreeMap<String, T>, id: &str) -> BTreeMap<String, T> {
            let prefix = format!("{id}.");
            let entries = entries.range(prefix.clone()..);
            let entries = entries.take_while(|(name, _)| name.starts_with(&prefix));
            entries.map(|(name, entry)| (name.clone(), entry.clone())).collect()
        }
        Self {
            tensors: under(&self.tensors, id),
            scalars: under(&self.scalars, id),
            metadata: self
                .metadata
                .get_key_value(id)
                .map(|(id, path)| (id.clone(), path.clone()))
                .into_iter()
                .collect(),
        }
    }

    /// A record, in Burn's bytes, with these entries.
    fn to_bytes(&self) -> Result<Bytes> {
        let writer = Writer::new(self.tensors.values().cloned().collect());
        let scalars = self.scalars.iter();
        let writer = scalars.fold(writer, |writer, (key, value)| writer.with_scalar(key, *value));
        let paths = self.metadata.iter();
        let writer = paths.fold(writer, |writer, (key, path)| writer.with_metadata(key, path));
        writer.into_bytes().map_err(broken)
    }

    /// A description of each entry, by name. The path of parameter `ID` has the name `ID.path`.
    fn fields(&self) -> Fields {
        let mut fields = Fields::new();
        let mut add = |name: String, what: String| {
            fields
                .entry(name)
                .and_modify(|known| *known += &format!(" and {what}"))
                .or_insert(what);
        };
        for (name, tensor) in &self.tensors {
            let whose = match tensor.param_id {
                Some(id) if split(name).0 == id.to_string() => String::new(),
                Some(id) => format!(" of parameter {id}"),
                None => " of no parameter".to_owned(),
            };
            add(name.clone(), describe(tensor) + &whose);
        }
        for (name, scalar) in &self.scalars {
            let what = match scalar {
                Scalar::UInt(rank) if split(name).1 == RANK => rank.to_string(),
                Scalar::UInt(_) => COUNT.to_owned(),
                Scalar::Int(_) => "an integer".to_owned(),
                Scalar::Float(_) => "a float".to_owned(),
                Scalar::Bool(_) => "a boolean".to_owned(),
            };
            add(name.clone(), what);
        }
        for (id, path) in &self.metadata {
            add(format!("{id}.path"), path.clone());
        }
        fields
    }

    /// The description of each field of a parameter's state, by the parameter's id.
    fn states(&self) -> BTreeMap<String, Fields> {
        let mut states = BTreeMap::<_, Fields>::new();
        for (name, what) in self.fields() {
            let (id, field) = split(&name);
            states.entry(id.to_owned()).or_default().insert(field.to_owned(), what);
        }
        states
    }

    /// Removes the elements of lists from `expected` and `found`, since a list may be of any
    /// length.
    ///
    /// Burn allocates as many elements as the length of a list in the record, and panics on an
    /// element of another rank. So each element must exist and be like the first element that the
    /// optimizer itself would save. If the optimizer would save an empty list, each element must be
    /// a float tensor of the parameter's rank. The first element of a list that does not fit stays
    /// in `found`, and what was expected is added to `expected`, so that [`compare`] reports the
    /// difference.
    fn take_lists(&self, id: &str, expected: &mut Fields, found: &mut Fields) {
        let lists = expected.iter().filter(|(_, what)| *what == COUNT);
        let lists = lists.filter_map(|(field, _)| field.strip_suffix(".len"));
        let lists: Vec<_> = lists.map(ToOwned::to_owned).collect();
        for list in lists {
            let Some(&Scalar::UInt(length)) = self.scalars.get(&format!("{id}.{list}.len")) else {
                continue;
            };
            let like = expected.get(&format!("{list}.0")).cloned();
            expected.retain(|field, _| {
                let index = field.strip_prefix(&list).and_then(|rest| rest.strip_prefix('.'));
                index.is_none_or(|index| index.parse::<u64>().is_err())
            });
            for field in (0..length).map(|index| format!("{list}.{index}")) {
                let element = self.tensors.get(&format!("{id}.{field}"));
                let like = like.clone().unwrap_or_else(|| match (element, expected.get(RANK)) {
                    (Some(element), Some(rank))
                        if element.dtype.is_float()
                            && element.shape.num_dims().to_string() == *rank =>
                    {
                        describe(element)
                    }
                    (_, rank) => format!("floats of rank {}", rank.map_or("", String::as_str)),
                });
                if found.get(&field) == Some(&like) {
                    found.remove(&field);
                } else {
                    expected.insert(field, like);
                    break;
                }
            }
        }
    }

    /// Checks that the entries that Burn restored and saved again equal these bit for bit.
    fn check_restored(&self, restored: &Self, name_of: impl Fn(&str) -> String) -> Result<()> {
        let (saved, restored) = (self.values()?, restored.values()?);
        let names: BTreeSet<_> = saved.keys().chain(restored.keys()).collect();
        for name in names {
            let refuse = |restored: &str, saved: &str| {
                let expected = format!("{restored}, to which Burn restores it");
                Err(Error::parameter(name_of(name), expected, saved))
            };
            match (restored.get(name), saved.get(name)) {
                (Some((what, bytes)), Some((saved, same))) if what == saved && bytes == same => {}
                (Some((what, _)), Some((saved, _))) if what == saved => {
                    return refuse("other numbers", saved);
                }
                (restored, saved) => {
                    let what = |value: Option<&(String, Bytes)>| {
                        value.map_or("nothing".to_owned(), |(what, _)| what.clone())
                    };
                    return refuse(&what(restored), &what(saved));
                }
            }
        }
        Ok(())
    }

    /// The value of each entry, by name: its description, and for a tensor also its bytes.
    fn values(&self) -> Result<BTreeMap<String, (String, Bytes)>> {
        let none = || Bytes::from_bytes_vec(Vec::new());
        let mut values = BTreeMap::new();
        for (name, tensor) in &self.tensors {
            let bytes = tensor.to_bytes().map_err(broken)?;
            values.insert(name.clone(), (describe(tensor), bytes));
        }
        for (name, scalar) in &self.scalars {
            values.insert(name.clone(), (format!("{scalar:?}"), none()));
        }
        for (id, path) in &self.metadata {
            values.insert(format!("{id}.path"), (path.clone(), none()));
        }
        Ok(values)
    }
}

/// The float parameters of a module, which an optimizer sees, without the rest of the module, such
/// as averages.
#[derive(Default)]
pub(crate) struct Parameters {
    path: Vec<String>,
    /// The path of each float parameter, by id.
    paths: BTreeMap<String, String>,
    /// For each parameter that trains: a function that makes a step with zero gradients and returns
    /// the optimizer's record after the step.
    steps: Vec<Box<dyn FnOnce(ModuleOptimizer) -> Result<Bytes>>>,
}

impl Parameters {
    pub fn of<M: Module>(module: &M) -> Self {
        let mut parameters = Self::default();
        module.visit(&mut parameters);
        parameters
    }
}

impl ModuleVisitor for Parameters {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let (id, path) = (param.id.val().to_string(), self.path.join("."));
        // A parameter that occurs in several places has one state, under its first path.
        if self.paths.contains_key(&id) {
            return;
        }
        self.paths.insert(id, path.clone());
        // The module need not be in training mode yet, as it will be in the training.
        let param = param.clone().train();
        if param.is_require_grad() {
            self.steps.push(Box::new(|mut optimizer| {
                let mut gradients = GradientsParams::new();
                gradients.register(param.id, param.val().without_autodiff().zeros_like());
                optimizer.step(0.0, NamedParameter::new(path, param), gradients);
                Ok(optimizer.into_bytes()?)
            }));
        }
    }
}

/// The fields of the state that an optimizer would save for a module.
///
/// To find them, a clone of the optimizer makes a step on each parameter alone, with a gradient of
/// zeros and a learning rate of 0. So the module does not change, and the state of only one
/// parameter at a time is in memory.
pub(crate) struct Probe {
    /// The optimizer, without state.
    optimizer: ModuleOptimizer,
    /// The path of each float parameter, by id.
    paths: BTreeMap<String, String>,
    /// The fields of the state of each parameter that trains, by id.
    states: BTreeMap<String, Fields>,
    metadata_size: usize,
}

impl Probe {
    /// Probes an optimizer with the parameters of a module. The ids of the parameters must be those
    /// of the training that saved the record, so load the module's record first.
    ///
    /// # Errors
    ///
    /// An optimizer whose state cannot be saved.
    pub fn new(optimizer: &ModuleOptimizer, parameters: Parameters) -> Result<Self> {
        let Parameters { paths, steps, .. } = parameters;
        let optimizer = optimizer.clone().load_record(OptimizerRecord::default());
        let (mut states, mut metadata_length) = (BTreeMap::new(), 0);
        for step in steps {
            let bytes = step(optimizer.clone())?;
            metadata_length += metadata_size(&bytes);
            states.extend(Entries::of(bytes)?.states());
        }
        Ok(Self { optimizer, paths, states, metadata_size: metadata_length })
    }

    /// Reads the record of an optimizer's state, after `steps` optimizer steps. It must hold
    /// exactly the entries that the optimizer would save for this module.
    ///
    /// A parameter that never had a gradient may lack a state. If `steps` is 0, all may. The
    /// entries of a state must be those after its first step, except that a list, which Burn saves
    /// with its length, may be of any length.
    ///
    /// Burn restores every state in the default float dtype of `Device::default()`, which is f32
    /// unless it was configured. A state in another dtype cannot be restored exactly, and is
    /// refused.
    ///
    /// # Errors
    ///
    /// Bytes that are no record, or have much more metadata than expected; the state of a parameter
    /// that the module lacks or has under another path, or that is frozen; the first entry, by
    /// name, that is missing, unknown, or of another type, shape or dtype; no state at all although
    /// `steps` is not 0; a state that Burn cannot restore bit for bit.
    pub fn record(&self, bytes: Bytes, steps: u64) -> Result<OptimizerRecord> {
        let bytes = bytes.shared();
        self.check(&Entries::read(bytes.clone(), self.metadata_size)?, steps)?;
        Ok(OptimizerRecord::from_bytes(bytes)?)
    }

    fn check(&self, saved: &Entries, steps: u64) -> Result<()> {
        let found = saved.states();
        if found.is_empty() && !self.states.is_empty() && steps > 0 {
            let expected = format!("that of {} parameters", self.states.len());
            let found = "none: was it saved by another optimizer?";
            return Err(Error::parameter("the optimizer's state", expected, found));
        }
        for (id, mut found) in found {
            let Some(path) = self.paths.get(&id) else {
                let found = match saved.metadata.get(&id) {
                    Some(path) => format!("a stranger that was {path}"),
                    None => "a stranger without a path".to_owned(),
                };
                let expected = "a parameter of this model";
                return Err(Error::parameter(format!("state of {id}"), expected, found));
            };
            let Some(expected) = self.states.get(&id) else {
                let expected = "no state of a parameter that does not train";
                return Err(Error::parameter(path, expected, "some"));
            };
            let mut expected = expected.clone();
            saved.take_lists(&id, &mut expected, &mut found);
            compare(&expected, &found, path)?;
            self.check_restored(&saved.of_parameter(&id), path)?;
        }
        Ok(())
    }

    /// Checks that Burn restores the state of one parameter bit for bit. Parameters are checked one
    /// at a time, since the restored state and its saved form each take as much memory again.
    fn check_restored(&self, saved: &Entries, path: &str) -> Result<()> {
        let record = OptimizerRecord::from_bytes(saved.to_bytes()?)?;
        let restored = self.optimizer.clone().load_record(record);
        let restored = Entries::of(restored.into_bytes()?)?;
        saved.check_restored(&restored, |name| format!("{} of {path}", split(name).1))
    }
}

/// Checks that both sides have the same fields with the same descriptions. `of` is named in the
/// error.
fn compare(expected: &Fields, found: &Fields, of: &str) -> Result<()> {
    let names: BTreeSet<_> = expected.keys().chain(found.keys()).collect();
    for name in names {
        let what = |fields: &Fields| fields.get(name).map_or("nothing", String::as_str).to_owned();
        let (expected, found) = (what(expected), what(found));
        if expected != found {
            return Err(Error::parameter(format!("{name} of {of}"), expected, found));
        }
    }
    Ok(())
}

/// Splits a name such as `42.momentum.velocity` into the parameter's id and the field. The field is
/// empty for a name without a dot.
fn split(name: &str) -> (&str, &str) {
    name.split_once('.').unwrap_or((name, ""))
}

/// The length of the metadata in bytes, as the header of a record states it; 0 without a header.
fn metadata_size(bytes: &[u8]) -> usize {
    let size = bytes.get(6..).and_then(|bytes| bytes.first_chunk::<4>());
    size.map_or(0, |size| u32::from_le_bytes(*size) as usize)
}

/// The dtype and the shape of a tensor, for messages.
fn describe(tensor: &burn_pack::Tensor) -> String {
    described(tensor.dtype, tensor.shape.as_slice())
}

fn described(dtype: DType, shape: &[usize]) -> String {
    format!("{} {shape:?}", dtype.name())
}

fn broken(error: burn_pack::Error) -> Error {
    Error::Record(error.into())
}

#[cfg(test)]
mod fuzz;

#[cfg(test)]
mod tests;
