//! The saved form of an average: conversion to the modules and [`Words`] of a record, and back.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use burn::{
    backend::{DispatchTensor, TensorMetadata},
    module::Module,
    store::ModuleRecord,
};

use super::{
    clock::Clock,
    course::{Course, Run},
    kept::{Kept, Treatment},
    numbers::{Group, Numbers, Refused},
    record::{ReadRecord, RecordModule, WordReader, Words},
    state::Average,
    walk,
};
use crate::{Error, Result, kernel};

/// The names of the entries of a record.
const WEIGHTS: &str = "weights";
const STATE: &str = "state";

impl<M: Module> Average<M> {
    /// The record for a later run: the weights as they are kept, all numbers and the settings.
    pub fn into_record(self) -> ModuleRecord {
        let saved = self.add_parts(RecordModule::new(), WEIGHTS, &self.numbers);
        saved.with_words(STATE, self.words(), &self.device()).record()
    }

    /// This average with the weights and numbers of a record.
    ///
    /// # Errors
    ///
    /// A record of another rule or other settings, or whose entries differ from this average's
    /// in path, shape or dtype.
    pub fn try_load_record(self, record: ModuleRecord) -> Result<Self> {
        let opened = ReadRecord::read(record)?;
        let numbers = self.saved_numbers(opened.words(STATE)?)?;
        let saved = self.add_parts(RecordModule::new(), WEIGHTS, &numbers);
        let left_out = saved.left_out().to_vec();
        let mut saved = opened.apply(saved, &left_out, |path| path == STATE)?;
        self.restored(&mut saved, WEIGHTS, numbers)
    }

    /// Adds all tensors of the average to `saved`, with as many further ones as `numbers` has.
    ///
    /// The averaged tensors get the name `name`, the further ones this name with a suffix.
    pub(crate) fn add_parts(
        &self,
        saved: RecordModule<M>,
        name: &str,
        numbers: &Numbers,
    ) -> RecordModule<M> {
        let kept =
            |kept: &Kept| (kept.how != Treatment::LeftOut).then(|| kept.parameter.tensor.clone());
        let saved = self.add_part(saved, name.to_owned(), kept);
        numbers.beside().iter().fold(saved, |saved, part| {
            self.add_part(saved, part_name(name, part), |kept| {
                let index = numbers.beside_of(kept).iter().position(|own| own == part)?;
                // If this average has no such tensor yet, its own has the shape and dtype to load.
                Some(kept.beside.get(index).unwrap_or(&kept.parameter.tensor).clone())
            })
        })
    }

    fn add_part(
        &self,
        saved: RecordModule<M>,
        name: String,
        tensor_of: impl Fn(&Kept) -> Option<DispatchTensor>,
    ) -> RecordModule<M> {
        let mut tensors = HashMap::new();
        let mut left_out = Vec::new();
        for kept in &self.kept {
            match tensor_of(kept) {
                Some(tensor) => _ = tensors.insert(&kept.parameter.path[..], tensor),
                None => left_out.push(kept.parameter.path.clone()),
            }
        }
        // The module has the tensors that are left out, too, since none may be missing in it.
        let module = self.fill(|kept| {
            let tensor = tensors.remove(&kept.parameter.path[..]);
            tensor.unwrap_or_else(|| kept.parameter.tensor.clone())
        });
        saved.without(&name, left_out).with_module(name, module)
    }

    /// The average with the tensors that [`add_parts`](Self::add_parts) named `name`, from a record
    /// that was applied to `saved`, and with these numbers.
    pub(crate) fn restored(
        &self,
        saved: &mut RecordModule<M>,
        name: &str,
        numbers: Numbers,
    ) -> Result<Self> {
        let mut tensors = |name: &str| {
            let module = saved.take(name).ok_or_else(|| {
                Error::parameter(name, "a module of this name", "nothing in the record")
            })?;
            let parameters = walk::tensors(&module)?.into_iter();
            Ok::<_, Error>(parameters.map(|p| (p.path, p.tensor)).collect::<BTreeMap<_, _>>())
        };
        let mut weights = tensors(name)?;
        let mut others = BTreeMap::new();
        for part in numbers.beside() {
            let loaded = tensors(&part_name(name, &part))?;
            others.insert(part, loaded);
        }
        let mut restored = self.clone();
        for kept in restored.kept.iter_mut().filter(|kept| kept.how != Treatment::LeftOut) {
            let names = numbers.beside_of(kept);
            let path = &kept.parameter.path;
            if let Some(tensor) = weights.remove(path) {
                kept.parameter.tensor = tensor;
            }
            let beside = names.iter().filter_map(|name| others.get_mut(name)?.remove(path));
            kept.beside = beside.collect();
            let Treatment::Averaged(group) = kept.how else { continue };
            match (numbers.groups[group].rule.window(), kept.beside.back()) {
                // A window's newest snapshot is in both places.
                (Some(_), Some(newest)) => kept.parameter.tensor = newest.clone(),
                _ => kernel::make_unique(&mut kept.parameter.tensor),
            }
        }
        restored.numbers = numbers;
        (restored.sample, restored.repeated) = (None, 0);
        Ok(restored)
    }

    /// This average, of a module whose reparameterizations are folded into its weights.
    #[cfg(feature = "train")]
    pub(crate) fn materialized(&self) -> Result<Self> {
        let saved = self.add_parts(RecordModule::new(), WEIGHTS, &self.numbers);
        let module = self.module().materialize();
        let made = self.started_anew(&module, Clock::default())?;
        made.restored(&mut saved.materialize(), WEIGHTS, self.numbers.clone())
    }

    /// The settings, by name, that must be equal in this average and in a saved one that it loads.
    /// The shapes of the tensors are checked apart from them.
    fn settings(&self) -> Vec<(&'static str, String)> {
        let mut settings = self.config.settings();
        // If the kept dtype is not live's, no tensor of the record shows live's.
        let others = self.parameters().filter(|other| other.tensor.dtype() != other.dtype);
        let others: BTreeSet<_> = others
            .map(|other| (other.tensor.dtype().name(), other.dtype.name()))
            .map(|(kept, live)| format!("{kept} for live's {live}"))
            .collect();
        let dtypes = match others.is_empty() {
            true => "live's own".to_owned(),
            false => others.into_iter().collect::<Vec<_>>().join(", "),
        };
        settings.push(("dtypes", dtypes));
        settings
    }

    /// The numbers and the settings as words.
    pub(crate) fn words(&self) -> Words {
        let Numbers { course, groups, refused } = &self.numbers;
        let settings = self.settings();
        let words = Words::new()
            .with_list(&settings, |words, (name, value)| words.with_text(name).with_text(value));
        let begun = course.begun.map_or((0, 0), |begun| (1, begun));
        let words = words
            .with_u64(course.seen.step)
            .with_u64(course.seen.samples)
            .with_u64(course.updated)
            .with_u64(begun.0)
            .with_u64(begun.1)
            .with_list(&course.runs, |words, run| words.with_u64(run.updates).with_u64(run.ticks));
        let words = words.with_list(groups, |words, group| {
            let words = words.with_f64(group.mass).with_f64(group.start);
            words.with_list(&group.counts, |words, &count| words.with_u64(count))
        });
        refused.add_to(words)
    }

    /// Reads the numbers from words, in which the settings must be equal to this average's.
    pub(crate) fn saved_numbers(&self, mut words: WordReader) -> Result<Numbers> {
        let saved = words.list(|words| Ok((words.text()?, words.text()?)))?;
        let settings = self.settings();
        for (index, (name, value)) in settings.iter().enumerate() {
            match saved.get(index) {
                Some((known, found)) if known == name && found == value => {}
                Some((known, found)) if known == name => {
                    return Err(words.refuse(&format!("{name} {value}"), found));
                }
                found => {
                    let found = found.map_or("nothing", |(name, _)| name).to_owned();
                    return Err(words.refuse(&format!("the setting {name}"), found));
                }
            }
        }
        if let Some((name, _)) = saved.get(settings.len()) {
            return Err(words.refuse("no further setting", name));
        }

        let seen = Clock { step: words.u64()?, samples: words.u64()? };
        let updated = words.u64()?;
        let (has_begun, at) = (words.u64()? != 0, words.u64()?);
        let begun = has_begun.then_some(at);
        let runs = words.list(|words| Ok(Run { updates: words.u64()?, ticks: words.u64()? }))?;
        let course = Course::of(&self.schedule, seen, updated, begun, runs)?;
        let mut rules = self.numbers.groups.iter().map(|group| group.rule.clone());
        let groups = words.list(|words| {
            let (mass, start) = (words.f64()?, words.f64()?);
            for share in [mass, start] {
                if !(0.0..=1.0).contains(&share) {
                    return Err(words.refuse("a mass in [0, 1]", share));
                }
            }
            let counts = words.list(WordReader::u64)?;
            let rule = rules.next();
            let rule = rule.ok_or_else(|| words.refuse("no further rule", "one more"))?;
            let most = rule.window().map_or(0, |(most, _)| most);
            let total = counts.iter().try_fold(0u64, |total, &count| total.checked_add(count));
            if counts.contains(&0) || total.is_none_or(|total| total > most) {
                let expected = format!("at most {most} snapshots of {rule}");
                return Err(words.refuse(&expected, format!("{counts:?}")));
            }
            Ok(Group { rule, mass, start, counts })
        })?;
        if let Some(rule) = rules.next() {
            return Err(words.refuse(&format!("the numbers of {rule}"), "nothing"));
        }
        let refused = Refused::of(&mut words)?;
        words.end()?;
        Ok(Numbers { course, groups, refused })
    }
}

impl Refused {
    pub(crate) fn add_to(&self, words: Words) -> Words {
        let last = self.last.iter().cloned().collect::<Vec<_>>();
        words
            .with_u64(self.count)
            .with_u64(self.in_a_row)
            .with_list(&last, |words, (path, step)| words.with_text(path).with_u64(*step))
    }

    pub(crate) fn of(words: &mut WordReader) -> Result<Self> {
        let (count, in_a_row) = (words.u64()?, words.u64()?);
        let last = words.list(|words| Ok((words.text()?, words.u64()?)))?.pop();
        Ok(Self { count, in_a_row, last })
    }
}

impl Numbers {
    /// The names of the further tensors of all parameters, each name once.
    fn beside(&self) -> BTreeSet<String> {
        self.groups.iter().flat_map(Group::beside).collect()
    }

    /// The names of the further tensors of one parameter, in their order.
    fn beside_of(&self, kept: &Kept) -> Vec<String> {
        match kept.how {
            Treatment::Averaged(group) => self.groups[group].beside(),
            _ => Vec::new(),
        }
    }
}

/// The name of a part beside an average. No module can have a field of such a name.
fn part_name(name: &str, part: &str) -> String {
    format!("{name}@{part}")
}
