//! The greedy soup: files are added as long as a score does not get worse.

use std::{cmp::Ordering, path::PathBuf};

use burn::module::Module;

use super::{Merge, Merged, OpenFile, Weights};
use crate::Error;

/// A greedy merge.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Greedy<M> {
    /// The merge of the files that were taken, with equal weights.
    pub merged: Merged<M>,
    /// The score of the merge.
    pub score: f64,
    /// The files in the order in which they were tried: by their own scores, the best first.
    pub candidates: Vec<Candidate>,
}

/// A file that a greedy merge has tried.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Candidate {
    /// The path of the file.
    pub path: PathBuf,
    /// The score of the file by itself.
    pub alone: f64,
    /// The score of the merge with the file; for the first file, that of the file.
    pub merged: f64,
    /// True if the file was taken.
    pub taken: bool,
}

impl Merge {
    /// Merges the files that make a score better (the greedy soup of Wortsman et al. 2022, "Model
    /// soups: averaging weights of multiple fine-tuned models improves accuracy without increasing
    /// inference time", recipe 1).
    ///
    /// `score` gets a plain module in validation mode and returns a number of which more is better,
    /// such as an accuracy, or a loss with its sign turned, on data that was not trained on.
    /// The score is computed for each file, and for the merge with each but the best file. The
    /// files are tried from the best on; one is taken if the score of the merge does not become
    /// less.
    /// A NaN counts as less than any number, `-inf` too.
    ///
    /// A merge has its files in the order in which they were given. Of [`with_statistics`] and
    /// [`with_integers`], the first and the last file are those of the files that it takes.
    /// Two merged modules are in memory at a time: the best so far and the one that is tried.
    ///
    /// [`with_statistics`]: Self::with_statistics
    /// [`with_integers`]: Self::with_integers
    ///
    /// The score that was chosen by is too good for a report: use other data there.
    ///
    /// # Errors
    ///
    /// The errors of [`load`](Self::load); weights other than equal; the first error of `score`; a
    /// NaN as the score of every file.
    pub fn greedy<M: Module, E: From<Error>>(
        &self,
        module: &M,
        mut score: impl FnMut(&M) -> Result<f64, E>,
    ) -> Result<Greedy<M>, E> {
        if self.weights != Weights::Equal {
            let error = Error::value("the weights of a greedy merge", "equal", &self.weights);
            return Err(error.into());
        }
        let files = self.open(module)?;
        let merge = |taken: &[usize]| {
            let taken: Vec<_> = taken.iter().map(|&index| &files[index]).collect();
            let rule = format!("greedy merge of {} of {} files", taken.len(), files.len());
            self.merged(&taken, &vec![1.0 / taken.len() as f64; taken.len()], module, rule)
        };
        let mut scores = Vec::with_capacity(files.len());
        for index in 0..files.len() {
            scores.push((score(&merge(&[index])?.module)?, index));
        }
        // Files of one score keep their order.
        scores.sort_by(|(one, _), (other, _)| best_first(*one, *other));
        let (mut best, first) = scores[0];
        if best.is_nan() {
            return Err(
                Error::value("the scores of a merge", "a number", "NaN for each file").into()
            );
        }
        let (mut taken, mut merged) = (vec![first], merge(&[first])?);
        let mut candidates = Vec::with_capacity(files.len());
        candidates.push(candidate(&files[first], best, best, true));
        for (alone, index) in scores.drain(1..) {
            let mut more: Vec<_> = taken.iter().copied().chain([index]).collect();
            more.sort_unstable();
            let tried = merge(&more)?;
            let now = score(&tried.module)?;
            candidates.push(candidate(&files[index], alone, now, now >= best));
            if now >= best {
                (best, taken, merged) = (now, more, tried);
            }
        }
        Ok(Greedy { merged, score: best, candidates })
    }
}

/// The order of two scores: the greater first, a NaN last.
fn best_first(one: f64, other: f64) -> Ordering {
    let by_number = other.partial_cmp(&one).unwrap_or(Ordering::Equal);
    one.is_nan().cmp(&other.is_nan()).then(by_number)
}

fn candidate(file: &OpenFile, alone: f64, merged: f64, taken: bool) -> Candidate {
    Candidate { path: file.path.clone(), alone, merged, taken }
}
