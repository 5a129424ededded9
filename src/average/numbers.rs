//! The numbers of an average: its course, and the mass of each of its rules.

use super::{
    course::{Course, Due},
    rule::{Rule, Update},
};
use crate::Result;

/// All numbers of an average.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Numbers {
    pub course: Course,
    /// One group for each rule: first the average's own rule, then the rules of single paths.
    pub groups: Vec<Group>,
    pub refused: Refused,
}

/// The numbers that all parameters with one rule share.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Group {
    /// The rule, with its times in steps.
    pub rule: Rule,
    /// The sum of the raw weights of all steps, and of the start, so far.
    pub mass: f64,
    /// The share of the start in the average.
    pub start: f64,
    /// How often each snapshot of a window counts, oldest first; empty for other rules.
    pub counts: Vec<u64>,
}

impl Group {
    pub fn new(rule: Rule) -> Self {
        Self { mass: rule.initial_mass(), start: 1.0, counts: Vec::new(), rule }
    }

    /// The names of the further tensors that the average keeps for a parameter, in their order.
    pub fn beside(&self) -> Vec<String> {
        match self.rule {
            Rule::Window { .. } => {
                (0..self.counts.len()).map(|i| format!("snapshot.{i}")).collect()
            }
            Rule::Bema { .. } => vec!["start".into(), "live".into()],
            _ => Vec::new(),
        }
    }
}

/// The updates of an average, or the steps of an optimizer, that were not made because they would
/// have taken in a NaN or an infinity.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refused {
    /// The number of refusals so far.
    pub count: u64,
    /// The number of refusals since the last update or step that was made.
    pub in_a_row: u64,
    /// The last refusal: the place of its NaN or infinity, such as the path of a parameter, and its
    /// step. `None` before the first one.
    pub last: Option<(String, u64)>,
}

/// The effect of an update on one group of an average.
pub(crate) struct Move {
    pub how: Moved,
    /// The group afterwards.
    pub group: Group,
}

/// The change of a group's tensors in an update.
///
/// `beside` is true if the group keeps live at the start and at the last update, too (BEMA).
#[derive(Clone, Copy)]
pub(crate) enum Moved {
    /// The tensors become copies of live's, as at each step before the start of the average.
    Copied {
        beside: bool,
    },
    /// The tensors move the share `alpha` of the way to live's.
    Mixed {
        alpha: f64,
        beside: bool,
    },
    /// A snapshot of live joins the window, and the `left` oldest ones leave it.
    Snapshot {
        left: usize,
    },
    Kept,
}

impl Group {
    /// The share of the start in the output of the average, `steps` steps after the start. For BEMA
    /// the output includes the correction.
    pub fn start_at(&self, steps: f64) -> f64 {
        match self.rule.correction(steps) {
            Some(correction) if steps > 0.0 => self.start - correction,
            _ => self.start,
        }
    }

    /// The share of the start in a new average after `updates` updates of `every` steps each;
    /// `None` if the rule returns an error.
    pub fn start_after(&self, updates: u64, every: u64) -> Option<f64> {
        if let Rule::Target { tau } = self.rule {
            return Some((1.0 - tau).powf(updates as f64));
        }
        // For other rules one update that covers all these steps leaves as much of the start.
        let steps = updates * every;
        let fresh = Self::new(self.rule.clone());
        if steps == 0 {
            return Some(fresh.start);
        }
        let moved = fresh.moved(Due::Update { from: 0.0, to: steps as f64 }).ok()?;
        Some(moved.group.start_at(steps as f64))
    }

    /// The effect of an update on this group.
    pub fn moved(&self, due: Due) -> Result<Move> {
        let beside = matches!(self.rule, Rule::Bema { .. });
        let (from, to) = match due {
            Due::Nothing => return Ok(Move { how: Moved::Kept, group: self.clone() }),
            Due::Copy => {
                let group = Self::new(self.rule.clone());
                return Ok(Move { how: Moved::Copied { beside }, group });
            }
            Due::Update { from, to } => (from, to),
        };
        if let Some((most, _)) = self.rule.window() {
            let new = self.rule.snapshots_due(from, to).min(most);
            if new == 0 {
                return Ok(Move { how: Moved::Kept, group: self.clone() });
            }
            let mut counts = self.counts.clone();
            counts.push(new);
            let mut excess = counts.iter().fold(0u64, |sum, count| sum.saturating_add(*count));
            excess = excess.saturating_sub(most);
            let mut left = 0;
            while let Some(oldest) = counts.get_mut(left).filter(|_| excess > 0) {
                let taken = excess.min(*oldest);
                *oldest -= taken;
                excess -= taken;
                left += usize::from(*oldest == 0);
            }
            counts.drain(..left);
            let group = Self { counts, start: 0.0, ..self.clone() };
            return Ok(Move { how: Moved::Snapshot { left }, group });
        }
        let Update { alpha, mass } = self.rule.update(self.mass, from, to)?;
        if matches!(self.rule, Rule::Copy { .. }) && alpha == 0.0 {
            return Ok(Move { how: Moved::Kept, group: self.clone() });
        }
        let start = self.start * (1.0 - alpha);
        let group = Self { mass, start, ..self.clone() };
        Ok(Move { how: Moved::Mixed { alpha, beside }, group })
    }
}
