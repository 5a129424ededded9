//! The [`RunModel`] of a module with averages, for trainings that commit.

use burn::{
    module::Module,
    tensor::Bytes,
    train::{InferenceStep, Interrupter, LearnerModel},
};
use burn_ema_runs::{Commit, Counts, RunModel};

use super::{Averaged, record::clock_in};
use crate::{
    Clock, Error, Result,
    average::{Description, ReadRecord},
};

/// A module with averages commits all of them, counts its own steps, and is validated by its first
/// average.
impl<M: LearnerModel> RunModel for Averaged<M>
where
    <M as InferenceStep>::Input: Clone,
{
    /// The averages: name and rule.
    fn parts(&self) -> Vec<(String, String)> {
        let averages = self.averages();
        averages.iter().map(|a| (a.name().to_owned(), a.rule().to_string())).collect()
    }

    fn counts(record: Bytes) -> Result<Option<Counts>> {
        let Clock { step, samples } = clock_in(record)?;
        Ok(Some(Counts { steps: step, samples }))
    }

    /// Nothing to check: `load_strictly` loads live without Burn's load, with any saved shape.
    fn check_loadable(&self) -> Result<()> {
        Ok(())
    }

    fn load_strictly(self, record: Bytes) -> Result<Self> {
        // Not as a record of Burn's, which would be copied.
        self.loaded(ReadRecord::of_bytes(record)?)
    }

    /// Updates live alone: the statistics of averages are always current.
    fn update_statistics(&self) {
        drop(self.live().valid());
    }

    fn error(&self) -> Option<Error> {
        Averaged::error(self)
    }

    fn attempted_steps(&self) -> Option<u64> {
        Some(self.clock.attempted)
    }

    fn with_interrupter(self, interrupter: Interrupter) -> Self {
        Averaged::with_interrupter(self, interrupter)
    }

    /// From now on, warnings are about what the averages have seen.
    fn on_end(&self) -> Box<dyn FnOnce()> {
        Box::new(self.averages.on_end())
    }
}

/// Reads a commit of an [`Averaged`] without its program: live and the first average, which
/// computes the outputs in validation, as plain modules.
pub trait AveragedCommit {
    /// `module` with the weights of the first average, as plain weights in memory.
    ///
    /// # Errors
    ///
    /// A file that is not as it was written; a parameter that differs from the module's in path,
    /// shape or dtype; a NaN or an infinity; a commit without averages; an average that is more
    /// than its weights (a window, BEMA), which only a resumed training can make.
    fn average<M: Module>(&self, module: M) -> Result<M>;

    /// The description of the first average; `source` is its origin, such as the name of the run.
    ///
    /// # Errors
    ///
    /// A file that is not as it was written; a commit without averages.
    fn describe_average(&self, source: &str) -> Result<Description>;

    /// `module` with the weights of live, as plain weights in memory.
    ///
    /// # Errors
    ///
    /// A file that is not as it was written; a parameter that differs from the module's in path,
    /// shape or dtype; a NaN or an infinity.
    fn live<M: Module>(&self, module: M) -> Result<M>;
}

impl AveragedCommit for Commit {
    fn average<M: Module>(&self, module: M) -> Result<M> {
        let (name, _) = first(self);
        self.model_by(|record| plain(ReadRecord::of_bytes(record)?.average(name)?, module))
    }

    fn describe_average(&self, source: &str) -> Result<Description> {
        let (name, rule) = first(self);
        self.model_by(|record| ReadRecord::of_bytes(record)?.describe(name, rule, source))
    }

    fn live<M: Module>(&self, module: M) -> Result<M> {
        self.model_by(|record| plain(ReadRecord::of_bytes(record)?.live(), module))
    }
}

/// The name and the rule of the first average; both are empty if the commit has none.
fn first(commit: &Commit) -> (&str, &str) {
    commit.manifest().parts.first().map_or(("", ""), |(name, rule)| (name, rule))
}

fn plain<M: Module>(opened: ReadRecord, module: M) -> Result<M> {
    opened.finite(|_| true)?.apply(module, &[], |_| false)
}
