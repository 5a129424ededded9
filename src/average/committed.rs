//! Reads an average, or live, from the record of a live module with its averages, without the
//! program that wrote it.

use std::collections::BTreeMap;

use super::{
    file::Description,
    record::{AVERAGES, LIVE, ReadRecord, STATE, WEIGHTS, WordReader},
};
use crate::{Error, Result};

impl ReadRecord {
    /// The description of the average `name`, for a file of its weights alone. `self` is the record
    /// of the hook, `rule` the printed form of the average's rule and `source` its origin.
    ///
    /// # Errors
    ///
    /// No average of this name.
    pub fn describe(&self, name: &str, rule: &str, source: &str) -> Result<Description> {
        let mut words = self.words(&format!("{AVERAGES}{name}{STATE}"))?;
        // The order is that of `Average::words`.
        words.list(|words| Ok((words.text()?, words.text()?)))?;
        let (step, samples) = (words.u64()?, words.u64()?);
        let _course = [words.u64()?, words.u64()?, words.u64()?];
        words.list(|words| Ok((words.u64()?, words.u64()?)))?;
        let groups = words.list(|words| {
            let shares = (words.f64()?, words.f64()?);
            words.list(WordReader::u64)?;
            Ok(shares)
        })?;
        let Some(&(mass, mass_on_start)) = groups.first() else {
            return Err(words.refuse("the numbers of a rule", "nothing"));
        };
        let name = name.to_owned();
        let plain = Description::new(rule, step, source);
        Ok(Description { name, samples, mass, mass_on_start, ..plain })
    }

    /// The average of this name in the record of a live module with its averages, as plain weights.
    ///
    /// Parameters that the average leaves out have live's weights.
    ///
    /// # Errors
    ///
    /// No average of this name; one that is more than its weights (a window, BEMA).
    pub fn average(self, name: &str) -> Result<Self> {
        let place = format!("{AVERAGES}{name}{WEIGHTS}");
        let mut entries = BTreeMap::new();
        let mut averaged = false;
        for (path, entry) in self.entries {
            if path.starts_with(&format!("{place}@")) {
                let found = "several tensors, of which its program alone makes the average";
                return Err(Error::parameter(place, "the weights of the average", found));
            }
            let within = |place: &str| {
                let rest = path.strip_prefix(place)?;
                rest.strip_prefix('.').map(str::to_owned)
            };
            if let Some(path) = within(&place) {
                averaged = true;
                entries.insert(path, entry);
            } else if let Some(path) = within(LIVE) {
                entries.entry(path).or_insert(entry);
            }
        }
        match averaged {
            true => Ok(Self { entries }),
            false => Err(Error::parameter(place, "an average of this name", "nothing")),
        }
    }

    /// Live in the record of a live module with its averages, as plain weights.
    pub fn live(self) -> Self {
        let entries = self.entries.into_iter().filter_map(|(path, entry)| {
            let path = path.strip_prefix(LIVE)?.strip_prefix('.')?.to_owned();
            Some((path, entry))
        });
        Self { entries: entries.collect() }
    }
}
