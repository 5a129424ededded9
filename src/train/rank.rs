//! Compares live and its averages on data that was not trained on.

use std::fmt;

use burn::train::LearnerModel;
use serde::{Deserialize, Serialize};

use super::Averaged;
use crate::Result;

/// The losses of live and of each average; the least is the best.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Ranking {
    /// The loss of live.
    pub live: f64,
    /// The name and the loss of each average, in their order.
    pub averages: Vec<(String, f64)>,
    /// The index of the average with the least loss, the first of equal ones; live does not count.
    pub best: usize,
}

impl Ranking {
    /// The name of the average with the least loss.
    pub fn best_name(&self) -> &str {
        &self.averages[self.best].0
    }
}

impl fmt::Display for Ranking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "live {:.6}", self.live)?;
        for (index, (name, loss)) in self.averages.iter().enumerate() {
            let best = if index == self.best { " (best)" } else { "" };
            write!(f, ", {name} {loss:.6}{best}")?;
        }
        Ok(())
    }
}

impl<M: LearnerModel> Averaged<M> {
    /// Ranks live and the averages by a loss of yours, such as that on the validation split.
    ///
    /// Each module is in validation mode; a loss that is no number is the worst.
    /// To save the best: `model.average(ranking.best)?`.
    ///
    /// # Errors
    ///
    /// The first error that `loss` returns; an average that no longer fits live; the errors of
    /// [`average`](Self::average).
    pub fn rank(&self, mut loss: impl FnMut(&M) -> Result<f64>) -> Result<Ranking> {
        let live = loss(&self.live().valid())?;
        let names = self.names().into_iter().enumerate();
        let averages = names.map(|(index, name)| Ok((name, loss(&self.average(index)?)?)));
        let averages = averages.collect::<Result<Vec<_>>>()?;
        let best = (0..averages.len()).min_by(|&a, &b| {
            let (a, b) = (averages[a].1, averages[b].1);
            a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
        });
        Ok(Ranking { live, best: best.unwrap_or(0), averages })
    }
}
