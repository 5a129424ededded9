//! The numbers of an average beside its mass: what it has seen, and when it was updated.
//!
//! Time runs in ticks, which are steps or samples.
//! Rules count time in steps from the start of the average: ticks divided by the ticks of a step.

use super::clock::Clock;
use crate::{Error, Result};

/// When an average starts and is updated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Schedule {
    /// True if a tick is a sample; false if it is a step.
    pub samples: bool,
    /// Ticks in a step: 1, or the samples of a step.
    pub per_step: u64,
    /// The step up to which the average is a copy of live.
    pub start: u64,
    /// The steps from one update to the next.
    pub every: u64,
    /// The steps from one copy of live to the next, if all rules are the same
    /// [`Copy`](super::Rule::Copy): no update is due between.
    pub copies: Option<u64>,
}

impl Schedule {
    fn ticks(&self, clock: Clock) -> u64 {
        if self.samples { clock.samples } else { clock.step }
    }

    fn steps(&self, ticks: u64) -> f64 {
        ticks as f64 / self.per_step as f64
    }

    /// The steps from one update to the next of an average that is called at each step.
    pub fn interval(&self) -> u64 {
        self.every.max(self.copies.unwrap_or(1))
    }

    /// True if a copy falls into the time from `from`, not included, to `to`; true for other rules.
    fn has_copy(&self, from: f64, to: f64) -> bool {
        self.copies.is_none_or(|every| (to / every as f64).floor() > (from / every as f64).floor())
    }
}

/// The action that is due at a clock.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Due {
    /// Nothing: the average has seen this step before, or no update is due yet.
    Nothing,
    /// A copy of live's weights, since the average has not started.
    Copy,
    /// An update that covers the time from `from` to `to`, in steps since the start.
    Update { from: f64, to: f64 },
}

/// The progress of an average: its last clock, its start, and the times of its updates.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Course {
    /// The last clock.
    pub seen: Clock,
    /// The step of the last update or copy.
    pub updated: u64,
    /// The tick at which the average started; `None` before.
    pub begun: Option<u64>,
    /// The times from update to update since the start, in ticks, as runs of equal times.
    pub runs: Vec<Run>,
    /// The ticks from the start to the last update: the sum of the runs.
    covered: u64,
}

/// The most updates that a saved average can have had. More would take years, so a larger number is
/// damage; its profile would need more memory than there is.
const MAX_UPDATES: u64 = 1 << 32;

/// Several updates in a row, each of which covers `ticks` ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub updates: u64,
    pub ticks: u64,
}

impl Course {
    /// The course of an average that is made at a clock.
    pub fn new(schedule: &Schedule, now: Clock) -> Self {
        let begun = (now.step >= schedule.start).then(|| schedule.ticks(now));
        Self { seen: now, updated: now.step, begun, ..Self::default() }
    }

    /// The course with these numbers, such as from a saved average.
    ///
    /// # Errors
    ///
    /// Numbers that no course has: a start before that of the schedule, updates that cover no time,
    /// or more updates, or more time, than the clock has seen, or more updates than
    /// [`MAX_UPDATES`].
    pub fn of(
        schedule: &Schedule,
        seen: Clock,
        updated: u64,
        begun: Option<u64>,
        runs: Vec<Run>,
    ) -> Result<Self> {
        let (mut updates, mut covered) = (0u64, 0u64);
        let time = schedule.ticks(seen).checked_sub(begun.unwrap_or(0));
        for run in &runs {
            let ticks = run.updates.checked_mul(run.ticks).filter(|&ticks| ticks > 0);
            let total = ticks.and_then(|ticks| covered.checked_add(ticks));
            updates = updates.saturating_add(run.updates);
            covered = total.filter(|_| begun.is_some()).unwrap_or(u64::MAX);
        }
        let early = !schedule.samples && begun.is_some_and(|begun| begun < schedule.start);
        if early
            || time.is_none_or(|time| covered > time)
            || updates > seen.step.min(MAX_UPDATES)
            || updated > seen.step
        {
            let expected = format!("what step {} can have seen", seen.step);
            let from = begun.map_or("nowhere".to_owned(), |begun| begun.to_string());
            let found = format!("{updates} updates from {from} to {updated} that cover {covered}");
            return Err(Error::value("the course of an average", expected, found));
        }
        Ok(Self { seen, updated, begun, runs, covered })
    }

    /// The action that is due at a clock.
    ///
    /// # Errors
    ///
    /// A clock at step 0, or one that went back.
    pub fn due(&self, schedule: &Schedule, now: Clock) -> Result<Due> {
        if now.step == 0 {
            return Err(Error::value("the step", "a number from 1", now.step));
        }
        if now.step < self.seen.step {
            return Err(Error::StepBack { step: now.step, last: self.seen.step });
        }
        if now.step == self.seen.step {
            return Ok(Due::Nothing);
        }
        if schedule.samples && now.samples < self.seen.samples {
            let expected = format!("at least {}, as many as at the last step", self.seen.samples);
            return Err(Error::value("the number of samples so far", expected, now.samples));
        }
        let Some(begun) = self.begun else { return Ok(Due::Copy) };
        let (from, to) = (self.covered, schedule.ticks(now).saturating_sub(begun));
        if now.step - self.updated < schedule.every || to <= from {
            return Ok(Due::Nothing);
        }
        let (from, to) = (schedule.steps(from), schedule.steps(to));
        Ok(if schedule.has_copy(from, to) { Due::Update { from, to } } else { Due::Nothing })
    }

    /// Notes what was done at a clock.
    pub fn advance(&mut self, schedule: &Schedule, now: Clock, done: Due) {
        match done {
            Due::Nothing => {}
            Due::Copy => {
                self.updated = now.step;
                self.begun = (now.step >= schedule.start).then(|| schedule.ticks(now));
            }
            Due::Update { .. } => {
                self.updated = now.step;
                let begun = self.begun.unwrap_or_default();
                let ticks = schedule.ticks(now) - begun - self.covered;
                self.covered += ticks;
                match self.runs.last_mut() {
                    Some(run) if run.ticks == ticks => run.updates += 1,
                    _ => self.runs.push(Run { updates: 1, ticks }),
                }
            }
        }
        self.seen = now;
    }

    /// The times of all updates since the start, in steps.
    pub fn times(&self, schedule: &Schedule) -> impl Iterator<Item = f64> {
        let each = self.runs.iter().flat_map(|run| (0..run.updates).map(|_| run.ticks));
        each.scan(0, |total, ticks| {
            *total += ticks;
            Some(*total)
        })
        .map(|ticks| schedule.steps(ticks))
    }

    /// The steps from the start to the last clock.
    pub fn elapsed(&self, schedule: &Schedule) -> f64 {
        let begun = self.begun.unwrap_or_else(|| schedule.ticks(self.seen));
        schedule.steps(schedule.ticks(self.seen).saturating_sub(begun))
    }

    /// The steps from the start to the last update.
    pub fn last(&self, schedule: &Schedule) -> f64 {
        schedule.steps(self.covered)
    }

    /// The step at which the average started; before that, the last step.
    pub fn first(&self, schedule: &Schedule) -> f64 {
        schedule.steps(self.begun.unwrap_or_else(|| schedule.ticks(self.seen)))
    }
}

#[cfg(test)]
mod tests;
