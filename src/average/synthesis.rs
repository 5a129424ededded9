//! Averages of any profile, made of stored ones.

mod sums; // reads the files and adds them up

use std::{collections::BTreeSet, path::Path};

use burn::{module::Module, tensor::FloatDType};

use self::sums::Sums;
use super::{
    post_hoc::{Mix, Solve, Target, mix},
    snapshots::{Snapshot, Snapshots},
};
use crate::{Error, Result};

/// A module made of stored averages.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Synthesis<M> {
    /// The plain module, in validation mode.
    pub module: M,
    /// The mix of stored averages that gave the module, with its error.
    pub mix: Mix,
}

/// The results of several targets.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Grid<M> {
    /// Each target, in the order given.
    pub tried: Vec<Tried>,
    /// The index of the target with the least loss.
    pub best: usize,
    /// The module of that target.
    pub module: M,
}

/// The result of one target.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Tried {
    /// The profile that was requested.
    pub target: Target,
    /// The loss and the mix, or an error if the snapshots cannot give the target.
    pub outcome: Result<(f64, Mix)>,
}

impl Snapshots {
    /// Makes the average of the profile `target` at a stored step of the training, or at the newest
    /// one if `step` is `None`, in the structure, the dtypes and on the devices of `module`.
    ///
    /// The weights are mixed in f64 on the host. Parameters that the averages only copied, such as
    /// batch-norm statistics, are those of the newest snapshot of that step.
    /// Weights that the averages left out are those of `module`.
    ///
    /// # Errors
    ///
    /// Snapshots that cannot give the profile, see [`mix`], or only with too much of their
    /// rounding, see [`ROUNDING_LIMIT`](super::post_hoc::ROUNDING_LIMIT); snapshots of averages
    /// with several starts, with different policies, or with one profile under two names; no
    /// snapshot of that step; files that cannot be read or hold another module, with path, expected
    /// and found.
    pub fn synthesize<M: Module>(
        &self,
        module: &M,
        target: &Target,
        step: Option<u64>,
        solve: Solve,
    ) -> Result<Synthesis<M>> {
        let snapshots = self.list()?;
        let at = newest(self.directory(), &snapshots, step)?;
        let mix = self.mix_of(&snapshots, target, at, solve)?;
        let module = Sums::new(module, &snapshots, at, &[&mix])?.next(module)?;
        Ok(Synthesis { module, mix })
    }

    /// Makes the module of each target, computes its loss, ideally on data that was not trained on,
    /// and returns the module with the least loss. `loss` may have an error type of its own.
    ///
    /// Targets that the snapshots cannot give have an error in [`Grid::tried`].
    /// Each file is read once, for all targets. The host holds one copy of the weights in f64 for
    /// each target, so for many targets of a large module several calls are better.
    ///
    /// # Errors
    ///
    /// No target whose loss is a number below infinity; the first error that `loss` returns; the
    /// errors of [`synthesize`](Self::synthesize) that do not depend on the target.
    pub fn evaluate<M: Module, E: From<Error>>(
        &self,
        module: &M,
        targets: &[Target],
        step: Option<u64>,
        solve: Solve,
        mut loss: impl FnMut(&M) -> Result<f64, E>,
    ) -> Result<Grid<M>, E> {
        let snapshots = self.list()?;
        let at = newest(self.directory(), &snapshots, step)?;
        let mixes = targets.iter().map(|target| self.mix_of(&snapshots, target, at, solve));
        let mixes: Vec<_> = mixes.collect();
        let made: Vec<_> = mixes.iter().filter_map(|mix| mix.as_ref().ok()).collect();
        let mut sums = Sums::new(module, &snapshots, at, &made)?;
        let mut tried = Vec::with_capacity(targets.len());
        let mut best: Option<(usize, f64, M)> = None;
        for (index, (target, mix)) in targets.iter().zip(mixes).enumerate() {
            let outcome = match mix {
                Err(error) => Err(error),
                Ok(mix) => {
                    let made = sums.next(module)?;
                    let loss = loss(&made)?;
                    let least = best.as_ref().map_or(f64::INFINITY, |(_, least, _)| *least);
                    if loss < least {
                        best = Some((index, loss, made));
                    }
                    Ok((loss, mix))
                }
            };
            tried.push(Tried { target: target.clone(), outcome });
        }
        let Some((best, _, module)) = best else {
            let first = tried.first().and_then(|tried| tried.outcome.as_ref().err());
            let found = first.map_or("none".to_owned(), |error| format!("none; {error}"));
            return Err(Error::value("the targets", "one whose loss is a number", found).into());
        };
        Ok(Grid { tried, best, module })
    }

    /// The coefficients of all snapshots for a target at the step of the snapshot of index `at`.
    fn mix_of(
        &self,
        snapshots: &[Snapshot],
        target: &Target,
        at: usize,
        solve: Solve,
    ) -> Result<Mix> {
        if let Some(other) = snapshots.iter().find(|other| other.start != snapshots[at].start) {
            let what = format!("the start of the averages in {}", self.directory().display());
            let mut starts = [snapshots[at].start, other.start];
            starts.sort_by(f64::total_cmp);
            let found = format!("step {} and step {}", starts[0], starts[1]);
            return Err(Error::value(what, "one of all, from which their profiles count", found));
        }
        for pair in snapshots.windows(2) {
            if pair[0].stored == pair[1].stored && pair[0].name != pair[1].name {
                let what = format!("the average of one profile in {}", self.directory().display());
                let named = |s: &Snapshot| format!("{} ({}) at step {}", s.name, s.rule, s.step);
                let found = format!("{} and {}", named(&pair[0]), named(&pair[1]));
                return Err(Error::value(what, "one, under one name", found));
            }
        }
        // An average that was stored again before its next update is listed twice, and counts once.
        let mut places: Vec<usize> = (0..snapshots.len()).collect();
        places.dedup_by_key(|place| snapshots[*place].stored);
        let stored: Vec<_> = places.iter().map(|&place| snapshots[place].stored).collect();
        let mix = mix(&stored, target, snapshots[at].stored.step, solve)?;
        let mix = mix.among(&places, snapshots.len());
        mix.require_rounding(snapshots.iter().map(Snapshot::rounding))
    }
}

impl Snapshot {
    /// The largest relative change of a number when it is stored: half the distance to the next
    /// number of the dtype.
    fn rounding(&self) -> f64 {
        match self.dtype {
            FloatDType::F16 => 0.5f64.powi(11),
            _ => 0.5f64.powi(24),
        }
    }
}

/// The index of the newest snapshot of `step`, or of all steps if it is `None`.
fn newest(directory: &Path, snapshots: &[Snapshot], step: Option<u64>) -> Result<usize> {
    let wanted = |snapshot: &Snapshot| step.is_none_or(|step| snapshot.step == step);
    snapshots.iter().rposition(wanted).ok_or_else(|| {
        let steps: BTreeSet<_> = snapshots.iter().map(|snapshot| snapshot.step).collect();
        let what = format!("the step of a snapshot in {}", directory.display());
        let expected = format!("one of {steps:?}");
        match step {
            None => Error::value("the snapshots", "1 or more", format!("none in {directory:?}")),
            Some(step) => Error::value(what, expected, step),
        }
    })
}
