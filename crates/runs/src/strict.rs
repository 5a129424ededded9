//! Records of models, optimizers and schedulers, loaded whole or not at all.
//!
//! Burn takes what it can use of a record of an optimizer or a scheduler and drops the rest in
//! silence: a record that is foreign, swapped, renamed or cut resets momentum, step counts or
//! learning rate, and an odd rank panics.
//! Here a record is first compared, name by name, with what the optimizer or scheduler would save
//! itself, and nothing reaches Burn that differs; then Burn loads it and saves it again, which
//! must give the same bits.
//! The record of a model is compared with its parameters, also in their dtype.
//!
//! Only what is in the bytes is compared. That the numbers are those that were written, no format
//! of Burn can notice: a digest over the file does.

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
/// Bytes that are no record; the first parameter, by path, that is missing, unknown, or of another
/// shape or dtype.
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
    // Statistics that a forward pass left to be taken over would come after those of the record.
    drop(module.valid());
    Ok(module.try_load_record(ModuleRecord::from_bytes(bytes)?)?)
}

/// Checks that Burn can load what it saves of a module.
///
/// Burn compares the shape in a record with the shape in memory, and so refuses a parameter that
/// its layout mapping saves in another one.
///
/// # Errors
///
/// The first such parameter, in the module's order.
pub(crate) fn check_loadable<M: Module>(module: &M) -> Result<()> {
    let mut shapes = SavedShapes::default();
    module.visit(&mut shapes);
    shapes.refused.map_or(Ok(()), Err)
}

/// Reads the record of a scheduler's state, which must hold exactly what the scheduler would save.
///
/// # Errors
///
/// Bytes that are no record; the first entry, by name, that is missing, unknown or of another
/// type; a state that Burn cannot restore bit for bit.
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

/// Checks that no float tensor or scalar of Burn's bytes holds a NaN or an infinity.
///
/// Quantized tensors are not looked into.
///
/// # Errors
///
/// Bytes that are no record; the first such number, by entry and index in it; tensors come first.
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

/// The dtype and shape of each tensor that a record of a module holds, by path.
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

    // The saved form, which a layout mapping may have transposed, is what a record holds.
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

/// The first parameter whose shape in a record is not that in memory.
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

/// A description of each entry of a record, by name, its numbers aside: `f32 [3, 4]`, `a float`.
type Fields = BTreeMap<String, String>;

/// The kind of the scalars that count.
const COUNT: &str = "an unsigned integer";

/// The field of the rank of a parameter.
const RANK: &str = "__rank";

/// The entries of a record, by name.
struct Entries {
    tensors: BTreeMap<String, burn_pack::Tensor>,
    scalars: BTreeMap<String, Scalar>,
    metadata: BTreeMap<String, String>,
}

impl Entries {
    /// The entries of bytes whose metadata should have about this size.
    ///
    /// Names, shapes and scalars take some twenty times the room in memory that they take in a
    /// file, so that hostile metadata is refused by its size.
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

    /// The entries of one parameter's state, which share their tensors with these.
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

    /// Burn's bytes with these entries.
    fn to_bytes(&self) -> Result<Bytes> {
        let writer = Writer::new(self.tensors.values().cloned().collect());
        let scalars = self.scalars.iter();
        let writer = scalars.fold(writer, |writer, (key, value)| writer.with_scalar(key, *value));
        let paths = self.metadata.iter();
        let writer = paths.fold(writer, |writer, (key, path)| writer.with_metadata(key, path));
        writer.into_bytes().map_err(broken)
    }

    /// A description of each entry; a path of the metadata stands under its id.
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

    /// The fields of each parameter, by its id.
    fn states(&self) -> BTreeMap<String, Fields> {
        let mut states = BTreeMap::<_, Fields>::new();
        for (name, what) in self.fields() {
            let (id, field) = split(&name);
            states.entry(id.to_owned()).or_default().insert(field.to_owned(), what);
        }
        states
    }

    /// Removes the elements of lists from both sides, since a list grows as a training goes on.
    ///
    /// Burn makes room for as many elements as a list says that it has, and panics on an element
    /// of another rank. So the elements are counted here, and each must be like the first one that
    /// the optimizer itself would save. Where that one is not known, it must be a float tensor of
    /// the parameter's rank.
    /// The first element that is not stays on both sides, where the difference is an error later.
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

    /// Checks that what Burn restored is what was saved, bit for bit.
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

    /// The value of each entry: in words, and for a tensor its bytes.
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

/// The parameters of a module that an optimizer sees, without the rest of the module, such as
/// averages that it holds.
#[derive(Default)]
pub(crate) struct Parameters {
    path: Vec<String>,
    /// The path of each float parameter, by id.
    paths: BTreeMap<String, String>,
    /// The record after a step of zero gradients, for each parameter that trains.
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
        // A parameter that stands in several places has one state, under its first path.
        if self.paths.contains_key(&id) {
            return;
        }
        self.paths.insert(id, path.clone());
        // As it will be in the training, which it need not have entered yet.
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
/// A clone of the optimizer makes a step on each parameter by itself, with a gradient of zeros and
/// a learning rate of 0. So the module does not change, and the state of only one parameter at a
/// time is in memory.
pub(crate) struct Probe {
    /// The optimizer, without state.
    optimizer: ModuleOptimizer,
    /// The path of each float parameter, by id.
    paths: BTreeMap<String, String>,
    /// The state of each parameter that trains, by id.
    states: BTreeMap<String, Fields>,
    metadata_size: usize,
}

impl Probe {
    /// Probes an optimizer with the parameters of a module whose ids are those of the training that
    /// saved the record (load the module first).
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

    /// The record of an optimizer's state in these bytes: all and only what it would have saved
    /// after so many steps of this module.
    ///
    /// A parameter that never had a gradient has no state; after no step, no parameter needs any.
    /// A state's entries are those after its first step, but a list, which Burn saves with its
    /// length, may be of any length.
    ///
    /// Burn restores every state to the default float dtype of `Device::default()`, f32 unless it
    /// was configured: a state in another dtype cannot be restored exactly, and is refused.
    ///
    /// # Errors
    ///
    /// Bytes that are no record; state of a parameter that the module lacks or has under another
    /// path, or that is frozen; the first entry, by name, that is missing, unknown, or of another
    /// type, shape or dtype; no state at all after a step; a state that Burn cannot restore bit for
    /// bit.
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

    /// Checks that Burn restores the state of one parameter bit for bit. One at a time is checked,
    /// since the restored state and its saved form each take as much room again.
    fn check_restored(&self, saved: &Entries, path: &str) -> Result<()> {
        let record = OptimizerRecord::from_bytes(saved.to_bytes()?)?;
        let restored = self.optimizer.clone().load_record(record);
        let restored = Entries::of(restored.into_bytes()?)?;
        saved.check_restored(&restored, |name| format!("{} of {path}", split(name).1))
    }
}

/// Checks that both sides have the same fields, and the same under each.
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

/// The id and the field of a name such as `42.momentum.velocity`.
fn split(name: &str) -> (&str, &str) {
    name.split_once('.').unwrap_or((name, ""))
}

/// The size of the metadata that the header of Burn's bytes claims, 0 without a header.
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
