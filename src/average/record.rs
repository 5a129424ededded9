//! The saved form of averages in Burn's records, and its checks.
//!
//! A record of Burn holds tensors by path and nothing else.
//! Numbers (the last step, the mass, the settings) are recorded beside the weights as a tensor of
//! i32 words, which every backend keeps exactly.
//! The words begin with a version and may be of any length.

use std::collections::BTreeMap;

use super::{
    pack::Pack,
    walk::{self, Entry},
};
use crate::{Error, Result};
use burn::{
    module::{Devices, Module, ModuleMapper, ModuleVisitor, Param, ParamGroup, ParamId},
    store::ModuleRecord,
    tensor::{Bytes, DType, Device, Int, Tensor, TensorData},
};
use burn_ema_base::first_non_finite;

/// The names of a record of a live module with its averages: `live.`, `averages.NAME.weights.` and
/// `averages.NAME.state`.
#[cfg(feature = "train")]
pub(crate) const LIVE: &str = "live";
#[cfg(feature = "train")]
pub(crate) const AVERAGES: &str = "averages.";
#[cfg(feature = "train")]
pub(crate) const WEIGHTS: &str = ".weights";
#[cfg(feature = "train")]
pub(crate) const STATE: &str = ".state";

/// The version that the words of this crate begin with.
const VERSION: i32 = 2;

/// A module that holds several modules and [`Words`], each recorded under a name of its own.
///
/// A value exists for one save or load only, so that Burn's own traversal makes the record.
#[derive(Clone, Debug)]
pub(crate) struct RecordModule<M: Module> {
    modules: Vec<(String, M)>,
    words: Vec<(String, Param<Tensor<1, Int>>)>,
    /// The paths that are not recorded.
    left_out: Vec<String>,
}

impl<M: Module> RecordModule<M> {
    pub fn new() -> Self {
        Self { modules: Vec::new(), words: Vec::new(), left_out: Vec::new() }
    }

    /// Leaves paths of the module of this name out of the record.
    pub fn without(mut self, name: &str, paths: impl IntoIterator<Item = String>) -> Self {
        self.left_out.extend(paths.into_iter().map(|path| join(name, &path)));
        self
    }

    /// The paths that are not recorded.
    pub fn left_out(&self) -> &[String] {
        &self.left_out
    }

    /// The record of everything but what is left out.
    pub fn record(self) -> ModuleRecord {
        if self.left_out.is_empty() {
            return self.into_record();
        }
        let out = ParamGroup::from_paths(self.left_out.clone());
        self.into_record_group(ParamGroup::all().exclude(out))
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

    /// Removes and returns the module of this name; `None` if there is none.
    pub fn take(&mut self, name: &str) -> Option<M> {
        let index = self.modules.iter().position(|(known, _)| known == name)?;
        Some(self.modules.swap_remove(index).1)
    }

    fn map_modules(self, mut map: impl FnMut(M) -> M) -> Self {
        let modules = self.modules.into_iter().map(|(name, module)| (name, map(module)));
        Self { modules: modules.collect(), ..self }
    }
}

impl<M: Module> Module for RecordModule<M> {
    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        for (name, module) in &self.modules {
            // A module without a name stands at the root.
            if name.is_empty() {
                module.visit(visitor);
                continue;
            }
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
            if name.is_empty() {
                return (name, module.map(mapper));
            }
            mapper.enter_module(&name, "Saved");
            let module = module.map(mapper);
            mapper.exit_module(&name, "Saved");
            (name, module)
        });
        // The words are read when a record is opened; they are not applied.
        Self { modules: modules.collect(), words: self.words, left_out: self.left_out }
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

fn join(name: &str, path: &str) -> String {
    if name.is_empty() { path.to_owned() } else { format!("{name}.{path}") }
}

/// A record that was read into memory, so that its entries are checked before any is applied.
pub(crate) struct ReadRecord {
    pub(super) entries: BTreeMap<String, Entry>,
}

impl ReadRecord {
    /// Reads the record into memory.
    ///
    /// Burn reads a record from a file at first use, by its path. Here it is read at once, so that
    /// later changes of the file cannot reach the module.
    pub fn read(record: ModuleRecord) -> Result<Self> {
        Self::of_bytes(record.into_bytes()?)
    }

    /// The record in Burn's bytes, which are not copied.
    pub fn of_bytes(bytes: Bytes) -> Result<Self> {
        let Pack { entries, .. } = Pack::of_bytes(bytes)?;
        Ok(Self { entries })
    }

    /// The record, if the floats of all entries for whose path `asked` returns true are finite.
    ///
    /// # Errors
    ///
    /// The first NaN or infinity, by path and flat index.
    pub fn finite(self, asked: impl Fn(&str) -> bool) -> Result<Self> {
        for (path, Entry { data, .. }) in self.entries.iter().filter(|(path, _)| asked(path)) {
            if let Some((index, what)) = first_non_finite(data.as_bytes(), data.dtype()) {
                let found = format!("{what} at index {index}");
                return Err(Error::parameter(path, "finite numbers", found));
            }
        }
        Ok(self)
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
        WordReader::new(name, words)
    }

    /// Applies the record to a module. It must hold every parameter of the module, in shape and
    /// dtype, except those that are `left_out`.
    ///
    /// `known` returns true for the path of another entry that may be there.
    ///
    /// # Errors
    ///
    /// The first entry, by path, that is missing, unknown, or of another shape or dtype.
    pub fn apply<M: Module>(
        mut self,
        module: M,
        left_out: &[String],
        known: impl Fn(&str) -> bool,
    ) -> Result<M> {
        let mut layout = walk::recorded_layout(&module);
        left_out.iter().for_each(|path| _ = layout.remove(path));
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

impl From<BTreeMap<String, Entry>> for ReadRecord {
    fn from(entries: BTreeMap<String, Entry>) -> Self {
        Self { entries }
    }
}

/// Numbers as a list of i32 words, which every backend stores exactly.
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

    pub fn with_text(self, text: &str) -> Self {
        let mut words = self.with_u64(text.len() as u64);
        words.0.extend(text.as_bytes().chunks(4).map(|bytes| {
            let mut word = [0; 4];
            word[..bytes.len()].copy_from_slice(bytes);
            i32::from_le_bytes(word)
        }));
        words
    }

    pub fn with_list<T>(self, list: &[T], with: impl FnMut(Self, &T) -> Self) -> Self {
        let words = self.with_u64(list.len() as u64);
        list.iter().fold(words, with)
    }

    /// The words as text, for a place that holds no tensors.
    pub fn to_line(&self) -> String {
        self.0.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    }
}

/// A reader of the numbers in [`Words`], in the order in which they were added.
pub(crate) struct WordReader {
    name: String,
    words: Vec<i32>,
    next: usize,
}

impl WordReader {
    fn new(name: &str, words: Vec<i32>) -> Result<Self> {
        match words.first() {
            Some(&VERSION) => Ok(Self { name: name.to_owned(), words, next: 1 }),
            found => {
                let expected = format!("version {VERSION} of the saved form");
                let found = found.map_or("nothing".to_owned(), |word| format!("version {word}"));
                Err(Error::parameter(name, expected, found))
            }
        }
    }

    /// The words that [`Words::to_line`] wrote.
    pub fn from_line(name: &str, line: &str) -> Result<Self> {
        let words = line.split(' ').map(str::parse).collect::<Result<_, _>>();
        Self::new(name, words.map_err(|_| Error::parameter(name, "i32 words", line))?)
    }

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

    pub fn text(&mut self) -> Result<String> {
        let bytes = self.u64()?;
        let words = usize::try_from(bytes.div_ceil(4)).ok();
        let end = words.and_then(|words| self.next.checked_add(words));
        let Some(words) = end.and_then(|end| self.words.get(self.next..end)) else {
            return Err(self.refuse("a text", format!("the beginning of one of {bytes} bytes")));
        };
        self.next += words.len();
        let mut text: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        text.truncate(bytes as usize);
        String::from_utf8(text).map_err(|error| self.refuse("a text", error))
    }

    pub fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        // Each item reads words, so a wrong length fails at their end and reserves no memory.
        let (mut list, count) = (Vec::new(), self.u64()?);
        for _ in 0..count {
            list.push(item(self)?);
        }
        Ok(list)
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

    fn opened(words: Words) -> ReadRecord {
        let device = Device::flex();
        let saved = RecordModule::<Linear>::new().with_words("state", words, &device);
        ReadRecord::read(saved.into_record()).unwrap()
    }

    proptest! {
        #[test]
        fn words_come_back_as_they_were(
            integer: u64, bits: u64, text in ".{0,20}", list in prop::collection::vec(0u64.., 0..9),
        ) {
            let written = Words::new().with_u64(integer).with_f64(f64::from_bits(bits));
            let written = written.with_text(&text).with_list(&list, |words, &x| words.with_u64(x));
            let line = WordReader::from_line("state", &written.to_line()).unwrap();
            for mut words in [opened(written).words("state").unwrap(), line] {
                prop_assert_eq!(words.u64().unwrap(), integer);
                prop_assert_eq!(words.f64().unwrap().to_bits(), bits);
                prop_assert_eq!(words.text().unwrap(), text.clone());
                prop_assert_eq!(words.list(WordReader::u64).unwrap(), list.clone());
                words.end().unwrap();
            }
        }
    }

    #[test]
    fn words_of_another_form_are_refused() {
        let message = |error: Error| error.to_string();
        let newer = Words(vec![VERSION + 1, 7]);
        assert_eq!(
            opened(newer).words("state").map(|_| ()).map_err(message).unwrap_err(),
            "state: expected version 2 of the saved form, found version 3"
        );
        let mut short = opened(Words(vec![VERSION, 7])).words("state").unwrap();
        assert_eq!(message(short.u64().unwrap_err()), "state: expected at least 3 words, found 2");
        let long = opened(Words::new().with_u64(7)).words("state").unwrap();
        assert_eq!(message(long.end().unwrap_err()), "state: expected 1 words, found 3");
        let mut endless = opened(Words::new().with_u64(u64::MAX)).words("state").unwrap();
        assert_eq!(
            message(endless.text().unwrap_err()),
            format!("state: expected a text, found the beginning of one of {} bytes", u64::MAX)
        );
        let mut endless = opened(Words::new().with_u64(u64::MAX)).words("state").unwrap();
        let error = endless.list(WordReader::u64).unwrap_err();
        assert_eq!(message(error), "state: expected at least 5 words, found 3");
        let line = WordReader::from_line("state", "2 seven").map(|_| ()).map_err(message);
        assert_eq!(line.unwrap_err(), "state: expected i32 words, found 2 seven");
    }

    #[test]
    fn floats_are_no_words() {
        let linear = LinearConfig::new(1, 1).init(&Device::flex());
        let saved = RecordModule::new().with_module("state", linear);
        let opened = ReadRecord::read(saved.into_record()).unwrap();
        let error = opened.words("state.bias").map(|_| ()).unwrap_err().to_string();
        assert_eq!(error, "state.bias: expected a list of i32 words, found f32 [1]");
    }
}
