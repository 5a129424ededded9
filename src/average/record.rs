//! The saved form of averages: what Burn's records hold of them, and how it is checked.
//!
//! A record of Burn holds tensors by path and nothing else.
//! Numbers (the last step, the mass, the rule) stand beside the weights as a tensor of i32 words,
//! which every backend keeps exactly.
//! The words begin with a version and may be of any length.

use std::collections::BTreeMap;

use burn::{
    module::{Devices, Module, ModuleMapper, ModuleVisitor, Param, ParamId},
    store::ModuleRecord,
    tensor::{Bytes, DType, Device, Int, Shape, Tensor, TensorData},
};
use burn_pack::Reader;

use super::{rule::Rule, walk};
use crate::{Error, Result};

/// The version that the words of this crate begin with.
const VERSION: i32 = 1;

/// Modules and words under names of their own: what a record of several modules shows.
///
/// It lives for the length of one save or load, so that Burn's own traversal makes the record.
#[derive(Clone, Debug)]
pub(crate) struct Saved<M: Module> {
    modules: Vec<(String, M)>,
    words: Vec<(String, Param<Tensor<1, Int>>)>,
}

impl<M: Module> Saved<M> {
    pub fn new() -> Self {
        Self { modules: Vec::new(), words: Vec::new() }
    }

    /// Adds a module; its parameters are recorded as `name.path`.
    pub fn with_module(mut self, name: impl Into<String>, module: M) -> Self {
        self.modules.push((name.into(), module));
        self
    }

    /// Adds words, on the device given.
    pub fn with_words(mut self, name: impl Into<String>, words: Words, device: &Device) -> Self {
        let data = TensorData::new(words.0.clone(), [words.0.len()]);
        let tensor = Tensor::from_data(data, (&device.clone().inner(), DType::I32));
        self.words.push((name.into(), Param::initialized(ParamId::new(), tensor)));
        self
    }

    fn map_modules(self, mut map: impl FnMut(M) -> M) -> Self {
        let modules = self.modules.into_iter().map(|(name, module)| (name, map(module)));
        Self { modules: modules.collect(), words: self.words }
    }
}

impl<M: Module> Module for Saved<M> {
    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        for (name, module) in &self.modules {
            visitor.enter_module(name, "Saved");
            module.visit(visitor);
            visitor.exit_module(name, "Saved");
        }
        for (name, words) in &self.words {
            visitor.enter_module(name, "Saved");
            words.visit(visitor);
            visitor.exit_module(name, "Saved");
        }
    }

    fn map<P: ModuleMapper>(self, mapper: &mut P) -> Self {
        let modules = self.modules.into_iter().map(|(name, module)| {
            mapper.enter_module(&name, "Saved");
            let module = module.map(mapper);
            mapper.exit_module(&name, "Saved");
            (name, module)
        });
        Self { modules: modules.collect(), words: self.words }
    }

    fn collect_devices(&self, devices: Devices) -> Devices {
        self.modules.iter().fold(devices, |devices, (_, module)| module.collect_devices(devices))
    }

    fn fork(self, device: &Device) -> Self {
        self.map_modules(|module| module.fork(device))
    }

    fn to_device(self, device: &Device) -> Self {
        self.map_modules(|module| module.to_device(device))
    }

    fn train(self) -> Self {
        self.map_modules(Module::train)
    }

    fn valid(&self) -> Self {
        self.clone().map_modules(|module| module.valid())
    }

    fn materialize(self) -> Self {
        self.map_modules(Module::materialize)
    }
}

/// A record opened: all of it in memory, its entries known before any is applied.
pub(crate) struct Opened {
    bytes: Bytes,
    entries: BTreeMap<String, (DType, Shape)>,
    words: BTreeMap<String, Vec<i32>>,
}

impl Opened {
    /// Reads the record into memory.
    ///
    /// A record from a file is read by Burn at first use and by its path; here it is read now, so
    /// that nothing that happens to the file later can reach the module.
    pub fn read(record: ModuleRecord) -> Result<Self> {
        let bytes = record.into_bytes()?.shared();
        let broken = |error: burn_pack::Error| Error::Record(error.into());
        let mut entries = BTreeMap::new();
        let mut words = BTreeMap::new();
        for tensor in Reader::from_bytes(bytes.clone()).map_err(broken)?.into_tensors().map_err(broken)? {
            if tensor.dtype == DType::I32 && tensor.shape.num_dims() == 1 {
                let bytes = tensor.to_bytes().map_err(broken)?;
                let values = bytes.chunks_exact(4).map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]]));
                words.insert(tensor.name.clone(), values.collect());
            }
            entries.insert(tensor.name, (tensor.dtype, tensor.shape));
        }
        Ok(Self { bytes, entries, words })
    }

    /// The names of the entries.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// The words of this name.
    pub fn words(&self, name: &str) -> Result<WordReader<'_>> {
        let missing = || Error::parameter(name, "a list of i32 words", "nothing of this name");
        let (&version, rest) =
            self.words.get(name).ok_or_else(missing)?.split_first().ok_or_else(missing)?;
        if version != VERSION {
            let expected = format!("version {VERSION} of the saved form");
            return Err(Error::parameter(name, expected, format!("version {version}")));
        }
        Ok(WordReader { name: name.to_owned(), rest })
    }

    /// Applies the record to modules whose every parameter it must hold, in shape and dtype.
    ///
    /// `known` says which other entries may be there.
    ///
    /// # Errors
    ///
    /// The first entry, by path, that is missing, unknown, or of another shape or dtype.
    pub fn apply<M: Module>(self, saved: Saved<M>, known: impl Fn(&str) -> bool) -> Result<Vec<M>> {
        let expected = walk::recorded_layout(&saved);
        for (path, (dtype, shape)) in &expected {
            let expected = walk::describe(*dtype, shape);
            match self.entries.get(path) {
                None => return Err(Error::parameter(path, expected, "nothing in the record")),
                Some((dtype, shape)) => {
                    let found = walk::describe(*dtype, shape);
                    if found != expected {
                        return Err(Error::parameter(path, expected, found));
                    }
                }
            }
        }
        if let Some((path, (dtype, shape))) =
            self.entries.iter().find(|(path, _)| !expected.contains_key(*path) && !known(path))
        {
            let found = format!("{} in the record", walk::describe(*dtype, shape));
            return Err(Error::parameter(path, "no entry of this path", found));
        }
        // The words are read already; what else is unused was allowed above.
        let record = ModuleRecord::from_bytes(self.bytes)?.allow_unused(true);
        let saved = saved.try_load_record(record)?;
        Ok(saved.modules.into_iter().map(|(_, module)| module).collect())
    }
}

/// Numbers as i32 words.
#[derive(Clone, Debug)]
pub(crate) struct Words(Vec<i32>);

impl Words {
    pub fn new() -> Self {
        Self(vec![VERSION])
    }

    pub fn with_u64(mut self, value: u64) -> Self {
        self.0.extend([value as u32 as i32, (value >> 32) as u32 as i32]);
        self
    }

    pub fn with_f64(self, value: f64) -> Self {
        self.with_u64(value.to_bits())
    }

    pub fn with_rule(self, rule: &Rule) -> Self {
        match *rule {
            Rule::Constant { decay, debias } => {
                self.with_u64(CONSTANT).with_u64(u64::from(debias)).with_f64(decay)
            }
        }
    }
}

/// The words' code of [`Rule::Constant`].
const CONSTANT: u64 = 1;

/// Words on their way back to numbers.
pub(crate) struct WordReader<'a> {
    name: String,
    rest: &'a [i32],
}

impl WordReader<'_> {
    pub fn u64(&mut self) -> Result<u64> {
        let (&[low, high], rest) = self.rest.split_first_chunk().ok_or_else(|| {
            Error::parameter(&self.name, "two more words", format!("{} left", self.rest.len()))
        })?;
        self.rest = rest;
        Ok(u64::from(low as u32) | u64::from(high as u32) << 32)
    }

    pub fn f64(&mut self) -> Result<f64> {
        self.u64().map(f64::from_bits)
    }

    pub fn rule(&mut self) -> Result<Rule> {
        let rule = match self.u64()? {
            CONSTANT => {
                let debias = self.u64()? != 0;
                Rule::Constant { decay: self.f64()?, debias }
            }
            kind => return Err(self.refuse("the code of a rule", kind)),
        };
        rule.check()?;
        Ok(rule)
    }

    /// Checks that no word is left.
    pub fn end(self) -> Result<()> {
        if self.rest.is_empty() {
            return Ok(());
        }
        Err(Error::parameter(self.name, "no more words", format!("{} left", self.rest.len())))
    }

    pub fn refuse(&self, expected: &str, found: impl ToString) -> Error {
        Error::parameter(&self.name, expected, found)
    }
}
