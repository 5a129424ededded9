//! The record of a live module with its averages: how it is made, and how it is loaded.

use burn::{store::ModuleRecord, tensor::Device, train::LearnerModel};

use super::{Averaged, teacher::TEACHER};
use crate::{
    Average, Clock, Error, Result,
    average::{AVERAGES, LIVE, ReadRecord, RecordModule, Refused, STATE, WEIGHTS, Words},
};

/// The name of a record's entry.
const STEP: &str = "step";

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

/// How many steps and samples a record of a module with averages has seen.
#[cfg(feature = "runs")]
pub(super) fn clock_in(record: burn::tensor::Bytes) -> Result<Clock> {
    let mut words = ReadRecord::of_bytes(record)?.words(STEP)?;
    Ok(Clock { step: words.u64()?, samples: words.u64()? })
}

impl<M: LearnerModel> Averaged<M> {
    /// Live, the averages with their numbers, the number of steps and samples, the refused steps,
    /// and the settings of the teacher.
    pub(super) fn record_all(self) -> ModuleRecord {
        // A batch norm shows the statistics of a forward pass only after the next one; `valid`
        // makes them current.
        drop(self.live.valid());
        let device = self.device();
        let words = Words::new().with_u64(self.clock.steps).with_u64(self.samples());
        let words = words.with_u64(u64::from(self.clock.counts_samples()));
        let words = self.refused_steps().add_to(words);
        let mut saved = RecordModule::new().with_words(STEP, words, &device);
        if let Some(teacher) = &self.teacher {
            saved = saved.with_words(TEACHER, teacher.words(), &device);
        }
        for average in self.averages() {
            let name = entry(average.name());
            saved = average
                .add_parts(saved, &(name.clone() + WEIGHTS), average.numbers())
                .with_words(name + STATE, average.words(), &device);
        }
        saved.with_module(LIVE, self.live).record()
    }

    /// This module with everything that a record holds, and with a new handle.
    pub(super) fn loaded(self, opened: ReadRecord) -> Result<Self> {
        if !opened.names().any(|name| name == STEP) {
            let found = "a record of a plain module; load it into the module before the averages";
            return Err(Error::parameter(STEP, "a record of a module with averages", found));
        }
        let mut words = opened.words(STEP)?;
        let now = Clock { step: words.u64()?, samples: words.u64()? };
        let counted = words.u64()? != 0;
        let refused = Refused::of(&mut words)?;
        words.end()?;

        let averages = self.averages();
        // Else the next step would cover the samples of all steps, or the count would go back.
        if counted != self.clock.counts_samples() && averages.iter().any(Average::counts_samples) {
            let say = |counted| if counted { "samples counted by a function" } else { "no count" };
            return Err(Error::parameter(STEP, say(self.clock.counts_samples()), say(counted)));
        }
        let saved: Vec<String> = opened.names().filter_map(average_name).collect();
        for name in &saved {
            if !self.options.allow_dropped && !averages.iter().any(|average| average.name() == name)
            {
                let found = "an average in the record (it can be dropped: `allow_dropped`)";
                return Err(Error::parameter(entry(name), "no average of this name", found));
            }
        }
        self.check_teacher(&opened)?;
        let mut bundle = RecordModule::new().with_module(LIVE, self.live.clone());
        let mut numbers = Vec::with_capacity(averages.len());
        for average in &averages {
            let name = average.name();
            numbers.push(if saved.iter().any(|saved| saved == name) {
                let saved = average.saved_numbers(opened.words(&(entry(name) + STATE))?)?;
                bundle = average.add_parts(bundle, &(entry(name) + WEIGHTS), &saved);
                Some(saved)
            } else if self.options.allow_added {
                None
            } else {
                let found = "no average of this name in the record (it can start there: \
                             `allow_added`)";
                return Err(Error::parameter(entry(name), average.rule(), found));
            });
        }
        let known = |path: &str| match average_name(path) {
            None => path == STEP || path == TEACHER,
            Some(name) => {
                let dropped = !averages.iter().any(|average| average.name() == name);
                dropped || path == entry(&name) + STATE
            }
        };
        let left_out = bundle.left_out().to_vec();
        // `valid` applies what the last forward pass left pending; later it would change what is
        // loaded.
        drop(self.live.valid());
        let mut bundle = opened.apply(bundle, &left_out, known)?;
        let live = bundle.take(LIVE);
        let live = live.ok_or_else(|| Error::parameter(LIVE, "a module", "nothing"))?;
        let averages = averages.iter().zip(numbers).map(|(average, numbers)| match numbers {
            Some(numbers) => {
                let name = entry(average.name()) + WEIGHTS;
                average.restored(&mut bundle, &name, numbers)
            }
            None => {
                let samples = self.clock.counts_samples().then_some(now.samples);
                average.started_anew(&live, average.clock_at(now.step, samples))
            }
        });
        let averages = averages.collect::<Result<Vec<Average<M>>>>()?;
        let attempted = now.step.saturating_add(refused.count);
        Ok(Self {
            live,
            clock: self.clock.at(now.step, attempted, now.samples),
            guard: self.guard.with_refused(refused),
            averages: self.averages.restored(averages),
            validation: self.validation.without_modules(),
            teacher: self.teacher,
            options: self.options,
        })
    }

    /// The device of the words of a record: live's first.
    fn device(&self) -> Device {
        self.live.devices().into_iter().next().unwrap_or_default()
    }
}
