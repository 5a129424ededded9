//! Profiles: how much weight each past update has in an average.

use std::{collections::VecDeque, fmt};

use super::rule::Rule;
use crate::{Error, Result};

/// The composition of an average: how much weight its start and each past update have in it.
///
/// An age is the number of steps from an update, or from the start, to the step of the profile.
/// All weights, that of the start included, sum to 1.
/// The weights of [`Rule::Bema`] can be negative, and so can its mean age.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    mass_on_start: f64,
    weights: Vec<(f64, f64)>,
    mean_age: f64,
    standard_deviation: f64,
    sigma_rel: f64,
    half_life: f64,
    effective_steps: f64,
}

/// The most updates that a profile lists. Making so many takes 2 GiB.
const MAX_UPDATES: usize = 1 << 26;

impl Profile {
    /// The profile of a rule in steps, from the times of its updates.
    ///
    /// Times are in steps since the start of the average, ascending; `now` is not before the last
    /// of them. `start_step` is the step of the start.
    pub(crate) fn of(
        rule: &Rule,
        start_step: f64,
        times: impl IntoIterator<Item = f64>,
        now: f64,
    ) -> Result<Self> {
        Self::corrected(rule, start_step, times, now, |last| rule.correction(last))
    }

    /// Like [`of`](Self::of), for a parameter to which no correction is made.
    pub(crate) fn uncorrected(
        rule: &Rule,
        start_step: f64,
        times: impl IntoIterator<Item = f64>,
        now: f64,
    ) -> Result<Self> {
        Self::corrected(rule, start_step, times, now, |_| None)
    }

    fn corrected(
        rule: &Rule,
        start_step: f64,
        times: impl IntoIterator<Item = f64>,
        now: f64,
        correction: impl Fn(f64) -> Option<f64>,
    ) -> Result<Self> {
        let times: Vec<f64> = times.into_iter().take(MAX_UPDATES + 1).collect();
        if times.len() > MAX_UPDATES {
            let expected = format!("at most {MAX_UPDATES}");
            return Err(Error::value("the number of updates of a profile", expected, "more"));
        }
        let last = times.last().copied().unwrap_or(0.0);
        if !(now >= last && now.is_finite()) {
            let expected = format!("a finite time from {last}, that of the last update");
            return Err(Error::value("the time of a profile", expected, now));
        }
        let (mut start, mut weights) = match rule.window() {
            Some((snapshots, _)) => of_snapshots(rule, snapshots, &times)?,
            None => of_updates(rule, &times)?,
        };
        // Each update rounds, so that the sum differs a little from 1.
        let total = start + weights.iter().sum::<f64>();
        start /= total;
        weights.iter_mut().for_each(|weight| *weight /= total);
        if let (Some(newest), Some(correction)) = (weights.last_mut(), correction(last)) {
            *newest += correction;
            start -= correction;
        }
        Ok(Self::new(start_step, start, &times, &weights, now))
    }

    /// The moments of some weights.
    fn new(start_step: f64, start: f64, times: &[f64], weights: &[f64], now: f64) -> Self {
        let aged = || {
            let updates = times.iter().zip(weights).map(|(time, &weight)| (now - time, weight));
            updates.chain([(now, start)])
        };
        let mean_age: f64 = aged().map(|(age, weight)| weight * age).sum();
        let variance: f64 = aged().map(|(age, weight)| weight * (age - mean_age).powi(2)).sum();
        // Rounding can make it negative; a NaN stays one.
        let standard_deviation = if variance < 0.0 { 0.0 } else { variance.sqrt() };
        Self {
            mass_on_start: start,
            weights: times
                .iter()
                .zip(weights)
                .map(|(time, &weight)| (start_step + time, weight))
                .collect(),
            mean_age,
            standard_deviation,
            sigma_rel: if now == 0.0 { 0.0 } else { standard_deviation / now },
            half_life: half_life(times, weights, now),
            effective_steps: 1.0 / aged().map(|(_, weight)| weight * weight).sum::<f64>(),
        }
    }

    /// The profile of which nothing is known: all its numbers are NaN.
    pub(crate) fn unknown() -> Self {
        Self::new(f64::NAN, f64::NAN, &[], &[], f64::NAN)
    }

    /// The weight that the start has in the average, in `[0, 1]`; with [`Rule::Bema`] it can be
    /// negative.
    pub fn mass_on_start(&self) -> f64 {
        self.mass_on_start
    }

    /// The step and the weight of every update, oldest first.
    ///
    /// If time is counted in samples, a step is `samples_per_step` samples.
    /// An update that covered several steps is listed once, at its last step.
    /// An update that no longer counts, such as one that has left a window, has the weight 0.
    pub fn weights(&self) -> &[(f64, f64)] {
        &self.weights
    }

    /// The mean age in steps.
    pub fn mean_age(&self) -> f64 {
        self.mean_age
    }

    /// The standard deviation of the age in steps.
    ///
    /// The deviation is 0 if negative weights make the variance negative.
    pub fn standard_deviation(&self) -> f64 {
        self.standard_deviation
    }

    /// The standard deviation of the age as a share of the steps since the start.
    pub fn sigma_rel(&self) -> f64 {
        self.sigma_rel
    }

    /// The half-life in steps: the smallest age such that the updates of at most this age together
    /// have half of all weight.
    ///
    /// The weight of an update is spread evenly over the steps that it covers.
    /// If the start has more than half of all weight, the result is the age of the start.
    pub fn half_life(&self) -> f64 {
        self.half_life
    }

    /// The number of steps whose plain mean has as little independent noise: 1 divided by the sum
    /// of the squared weights, that of the start included (Kish 1965, "Survey Sampling": the
    /// effective sample size).
    ///
    /// ```math
    /// n_{\text{eff}} = \frac{1}{\sum_i p_i^2}
    /// ```
    pub fn effective_steps(&self) -> f64 {
        self.effective_steps
    }
}

/// The weight of the start and of every update, for `a <- a + alpha (w - a)`.
fn of_updates(rule: &Rule, times: &[f64]) -> Result<(f64, Vec<f64>)> {
    let (mut mass, mut from) = (rule.initial_mass(), 0.0);
    let mut weights = Vec::with_capacity(times.len());
    for &to in times {
        let update = rule.update(mass, from, to)?;
        weights.push(update.alpha);
        (mass, from) = (update.mass, to);
    }
    // Each update keeps the share `1 - alpha` of everything before it.
    let mut kept = 1.0;
    for weight in weights.iter_mut().rev() {
        let alpha = *weight;
        *weight = kept * alpha;
        kept *= 1.0 - alpha;
    }
    Ok((kept, weights))
}

/// The weight of the start and of every update, for the mean of the last snapshots.
fn of_snapshots(rule: &Rule, snapshots: u64, times: &[f64]) -> Result<(f64, Vec<f64>)> {
    // The updates that hold snapshots, oldest first, each with their number.
    let mut held = VecDeque::new();
    let (mut count, mut from) = (0, 0.0);
    for (index, &to) in times.iter().enumerate() {
        // The update is not needed here, but its check refuses times out of order.
        rule.update(1.0, from, to)?;
        let due = rule.snapshots_due(from, to).min(snapshots);
        from = to;
        if due == 0 {
            continue;
        }
        let mut surplus = due.saturating_sub(snapshots - count);
        count = (count + due).min(snapshots);
        while surplus > 0
            && let Some((_, oldest)) = held.front_mut()
        {
            let dropped = surplus.min(*oldest);
            surplus -= dropped;
            *oldest -= dropped;
            if *oldest == 0 {
                held.pop_front();
            }
        }
        held.push_back((index, due));
    }
    let mut weights = vec![0.0; times.len()];
    for &(index, number) in &held {
        weights[index] = number as f64 / count as f64;
    }
    Ok((if held.is_empty() { 1.0 } else { 0.0 }, weights))
}

/// The age of the newest weights that together have half of all weight.
fn half_life(times: &[f64], weights: &[f64], now: f64) -> f64 {
    let mut newer = 0.0;
    for (index, (&time, &weight)) in times.iter().zip(weights).enumerate().rev() {
        if newer + weight >= 0.5 {
            let before = index.checked_sub(1).map_or(0.0, |index| times[index]);
            return now - time + (0.5 - newer) / weight * (time - before);
        }
        newer += weight;
    }
    now
}

/// One readable line.
impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} % on the start, mean age {} steps (standard deviation {}), half-life {} steps, \
             sigma_rel {}, as much noise as the mean of {} steps",
            short(100.0 * self.mass_on_start),
            short(self.mean_age),
            short(self.standard_deviation),
            short(self.half_life),
            short(self.sigma_rel),
            short(self.effective_steps),
        )
    }
}

/// About three digits, without trailing zeros.
fn short(value: f64) -> String {
    let size = value.abs();
    if size != 0.0 && size < 1e-3 {
        return format!("{value:.1e}");
    }
    let places = match size {
        size if size < 0.1 => 4,
        size if size < 1.0 => 3,
        size if size < 10.0 => 2,
        size if size < 100.0 => 1,
        _ => 0,
    };
    let text = format!("{value:.places$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_string(),
        false => text,
    }
}

#[cfg(test)]
mod tests;
