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
    tensor::{DType, Device, Int, Tensor, TensorData},
};
use burn_pack::Reader;

use super::{
    rule::Rule,
    walk::{self, Entry},
};
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

    /// The modules, in the order in which they were added.
    pub fn into_modules(self) -> impl Iterator<Item = M> {
        self.modules.into_iter().map(|(_, module)| module)
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
        // The words are read when a record is opened; they are not applied.
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
    entries: BTreeMap<String, Entry>,
}

impl Opened {
    /// Reads the record into memory.
    ///
    /// A record from a file is read by Burn at first use and by its path; here it is read now, so
    /// that nothing that happens to the file later can reach the module.
    pub fn read(record: ModuleRecord) -> Result<Self> {
        let broken = |error: burn_pack::Error| Error::Record(error.into());
        let tensors = Reader::from_bytes(record.into_bytes()?).and_then(Reader::into_tensors);
        let entries = tensors.map_err(broken)?.into_iter().map(|tensor| {
            let (path, dtype, shape, id, bytes) = tensor.into_parts().map_err(broken)?;
            let id = id.map_or_else(ParamId::new, ParamId::from);
            Ok((path, Entry { id, data: TensorData::from_bytes(bytes, shape, dtype) }))
        });
        Ok(Self { entries: entries.collect::<Result<_>>()? })
    }

    /// The names of the entries.
    #[cfg(feature = "train")]
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// The words of this name.
    pub fn words(&self, name: &str) -> Result<WordReader> {
        const EXPECTED: &str = "a list of i32 words";
        let Some(Entry { data, .. }) = self.entries.get(name) else {
            return Err(Error::parameter(name, EXPECTED, "nothing of this name"));
        };
        let words = match (data.dtype(), data.as_slice::<i32>()) {
            (DType::I32, Ok(words)) if !words.is_empty() => words.to_vec(),
            (dtype, _) => {
                return Err(Error::parameter(name, EXPECTED, walk::describe(dtype, data.shape())));
            }
        };
        if words[0] != VERSION {
            let expected = format!("version {VERSION} of the saved form");
            return Err(Error::parameter(name, expected, format!("version {}", words[0])));
        }
        Ok(WordReader { name: name.to_owned(), words, next: 1 })
    }

    /// Applies the record to a module whose every parameter it must hold, in shape and dtype.
    ///
    /// `known` says which other entries may be there.
    ///
    /// # Errors
    ///
    /// The first entry, by path, that is missing, unknown, or of another shape or dtype.
    pub fn apply<M: Module>(mut self, module: M, known: impl Fn(&str) -> bool) -> Result<M> {
        let layout = walk::recorded_layout(&module);
        for (path, (dtype, shape)) in &layout {
            let expected = walk::describe(*dtype, shape);
            let found = match self.entries.get(path) {
                None => "nothing in the record".to_owned(),
                Some(Entry { data, .. }) => walk::describe(data.dtype(), data.shape()),
            };
            if found != expected {
                return Err(Error::parameter(path, expected, found));
            }
        }
        let mut others = self.entries.iter().filter(|(path, _)| !layout.contains_key(*path));
        if let Some((path, Entry { data, .. })) = others.find(|(path, _)| !known(path)) {
            let found = walk::describe(data.dtype(), data.shape()) + " in the record";
            return Err(Error::parameter(path, "no entry of this path", found));
        }
        Ok(walk::load(module, |path| self.entries.remove(path)))
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
pub(crate) struct WordReader {
    name: String,
    words: Vec<i32>,
    next: usize,
}

impl WordReader {
    pub fn u64(&mut self) -> Result<u64> {
        let &[low, high] = self.words[self.next..].first_chunk().ok_or_else(|| {
            let expected = format!("at least {} words", self.next + 2);
            Error::parameter(&self.name, expected, self.words.len())
        })?;
        self.next += 2;
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
        if self.next == self.words.len() {
            return Ok(());
        }
        Err(Error::parameter(self.name, format!("{} words", self.next), self.words.len()))
    }

    /// The error that these words are not what was expected.
    pub fn refuse(&self, expected: &str, found: impl ToString) -> Error {
        Error::parameter(&self.name, expected, found)
    }
}

#[cfg(test)]
mod tests {
    use burn::nn::{Linear, LinearConfig};
    use proptest::prelude::*;

    use super::*;

    fn opened(words: Words) -> Opened {
        let device = Device::flex();
        let saved = Saved::<Linear>::new().with_words("state", words, &device);
        Opened::read(saved.into_record()).unwrap()
    }

    proptest! {
        #[test]
        fn numbers_come_back_bit_for_bit(integer: u64, bits: u64, decay in 0.0..1.0f64, debias: bool) {
            let (number, rule) = (f64::from_bits(bits), Rule::Constant { decay, debias });
            let words = Words::new().with_u64(integer).with_f64(number).with_rule(&rule);
            let mut words = opened(words).words("state").unwrap();
            prop_assert_eq!(words.u64().unwrap(), integer);
            prop_assert_eq!(words.f64().unwrap().to_bits(), bits);
            prop_assert_eq!(words.rule().unwrap(), rule);
            words.end().unwrap();
        }
    }

    #[test]
    fn words_of_another_form_are_refused() {
        let message = |error: Error| error.to_string();
        let newer = Words(vec![VERSION + 1, 7]);
        assert_eq!(
            opened(newer).words("state").map(|_| ()).map_err(message).unwrap_err(),
            "state: expected version 1 of the saved form, found version 2"
        );
        let mut short = opened(Words(vec![VERSION, 7])).words("state").unwrap();
        assert_eq!(message(short.u64().unwrap_err()), "state: expected at least 3 words, found 2");
        let long = opened(Words::new().with_u64(7)).words("state").unwrap();
        assert_eq!(message(long.end().unwrap_err()), "state: expected 1 words, found 3");
        let mut unknown = opened(Words::new().with_u64(99)).words("state").unwrap();
        assert_eq!(
            message(unknown.rule().unwrap_err()),
            "state: expected the code of a rule, found 99"
        );
        let mut wild = opened(Words::new().with_u64(CONSTANT).with_u64(0).with_f64(2.0))
            .words("state")
            .unwrap();
        assert_eq!(message(wild.rule().unwrap_err()), "decay is 2, expected a number in [0, 1)");
    }

    #[test]
    fn floats_are_no_words() {
        let linear = LinearConfig::new(1, 1).init(&Device::flex());
        let saved = Saved::new().with_module("state", linear);
        let opened = Opened::read(saved.into_record()).unwrap();
        let error = opened.words("state.bias").map(|_| ()).unwrap_err().to_string();
        assert_eq!(error, "state.bias: expected a list of i32 words, found f32 [1]");
    }
}
