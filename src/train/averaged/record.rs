//! What a record holds of a live module and its averages, and how it comes back.

use std::sync::{Arc, Mutex};

use burn::{module::Module, store::ModuleRecord, tensor::Device, train::LearnerModel};

use super::{Averaged, Shared};
use crate::{
    Error, Result,
    average::{Opened, Saved, Start, Words},
};

/// The names of a record's entries.
const LIVE: &str = "live";
const STEP: &str = "step";
const AVERAGES: &str = "averages.";
const WEIGHTS: &str = ".weights";
const STATE: &str = ".state";

/// The prefix of an average's entries.
fn entry(name: &str) -> String {
    format!("{AVERAGES}{name}")
}

/// The name of the average that an entry belongs to; no name contains `.weights`.
fn average_name(path: &str) -> Option<String> {
    let rest = path.strip_prefix(AVERAGES)?;
    let name = match rest.find(WEIGHTS) {
        Some(end) => &rest[..end],
        None => rest.strip_suffix(STATE)?,
    };
    Some(name.to_owned())
}

impl<M: LearnerModel> Averaged<M> {
    /// Live, the averages with their numbers, and the number of steps.
    pub(super) fn record_all(self) -> ModuleRecord {
        let device = self.device();
        let step = Words::new().with_u64(self.step);
        let mut saved = Saved::new().with_words(STEP, step, &device);
        for average in self.averages() {
            let name = entry(average.name());
            let weights = average.module_like(&self.live).unwrap_or_else(|_| average.module());
            saved = saved.with_module(name.clone() + WEIGHTS, weights).with_words(
                name + STATE,
                average.words(),
                &device,
            );
        }
        saved.with_module(LIVE, self.live).into_record()
    }

    /// The module that a record holds, with a new handle.
    pub(super) fn try_load(self, record: ModuleRecord) -> Result<Self> {
        let opened = Opened::read(record)?;
        if !opened.names().any(|name| name == STEP) {
            let found = "a record of a plain module; load it into the module before the averages";
            return Err(Error::parameter(STEP, "a record of a module with averages", found));
        }
        let mut words = opened.words(STEP)?;
        let step = words.u64()?;
        words.end()?;

        let averages = self.averages();
        let saved: Vec<String> = opened.names().filter_map(average_name).collect();
        for name in &saved {
            if !self.allow_dropped && !averages.iter().any(|average| average.name() == name) {
                let found = "an average in the record (it can be dropped: `allow_dropped`)";
                return Err(Error::parameter(entry(name), "no average of this name", found));
            }
        }
        let mut bundle = Saved::new().with_module(LIVE, self.live.clone());
        let mut starts = Vec::with_capacity(averages.len());
        for average in &averages {
            let name = average.name();
            let start = if saved.iter().any(|saved| saved == name) {
                bundle = bundle.with_module(entry(name) + WEIGHTS, average.module());
                Some(average.saved_start(&opened, &(entry(name) + STATE))?)
            } else if self.allow_added {
                None
            } else {
                let found = "no average of this name in the record (it can start there: \
                             `allow_added`)";
                return Err(Error::parameter(entry(name), average.rule(), found));
            };
            starts.push(start);
        }
        let known = |path: &str| match average_name(path) {
            None => path == STEP,
            Some(name) => {
                let dropped = !averages.iter().any(|average| average.name() == name);
                dropped || path == entry(&name) + STATE
            }
        };
        let mut modules = opened.apply(bundle, known)?.into_modules();
        let live = modules.next().expect("live was saved first");
        let averages = averages
            .iter()
            .zip(starts)
            .map(|(average, start)| match start {
                Some(start) => {
                    average.restored(&modules.next().expect("its weights were saved"), start)
                }
                None => average
                    .restored(&live, Start { last: step, mass: average.rule().initial_mass() }),
            })
            .collect::<Result<Vec<_>>>()?;
        let shared = Arc::new(Mutex::new(Shared { averages, error: None }));
        Ok(Self { live, step, shared, answering: None, ..self })
    }

    /// Where the words of a record are kept while it is made.
    fn device(&self) -> Device {
        self.live.devices().into_iter().next().unwrap_or_default()
    }
}
