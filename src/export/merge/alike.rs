//! How alike the weights of the files of a merge are.

use std::path::PathBuf;

use super::{Numbers, OpenFile};

/// Two files of a merge, and how alike their weights are.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Alike {
    /// The paths of the two files, in the order of the merge.
    pub files: [PathBuf; 2],
    /// The correlation of their weights, in `[-1, 1]`: Pearson's, for each float tensor of two
    /// dimensions or more and 16 numbers or more, and of these the mean.
    ///
    /// Of each tensor, some 1,024 numbers are compared, which lie all over it, or all if it has
    /// fewer. A tensor of equal numbers has no correlation.
    pub correlation: f64,
}

/// The fewest numbers of a tensor that is compared, since some are alike by chance.
const FEWEST: usize = 16;

/// The numbers of a tensor that are compared, if it has so many.
const MOST: usize = 1024;

const GOLDEN: f64 = 0.618_033_988_749_894_9;

/// The correlation below which two files are noted: far above that of other first weights, and
/// below that of what a training makes of one file.
const UNRELATED: f64 = 0.3;

impl Alike {
    /// The remark on two files whose weights look unrelated; `None` for others.
    pub(super) fn note(&self) -> Option<String> {
        let [one, other] = self.files.each_ref().map(|path| path.display());
        (self.correlation < UNRELATED).then(|| {
            format!(
                "{one} and {other} have a correlation of weights of {:.2}, as files of different \
                 first weights have, which do not merge (fine-tunings of one file and commits of one \
                 run are near 1): compare the merge with its files on some rows",
                self.correlation
            )
        })
    }
}

/// The sums of correlations over the tensors that were merged so far, for each pair of files.
pub(super) struct Correlations {
    /// Numbers of the tensor that is merged, of each file that was read, less their mean.
    samples: Vec<(usize, Vec<f64>)>,
    /// By the indices of two files, the lower first: the sum, and the number of tensors.
    pairs: Vec<Vec<(f64, u32)>>,
}

impl Correlations {
    pub fn new(files: usize) -> Self {
        Self { samples: Vec::new(), pairs: vec![vec![(0.0, 0); files]; files] }
    }

    /// Adds the tensor of a file.
    pub fn add(&mut self, file: usize, numbers: &Numbers) {
        let shape = numbers.shape();
        if shape.num_dims() < 2 || shape.num_elements() < FEWEST || self.pairs.len() < 2 {
            return;
        }
        let share = MOST as f64 / shape.num_elements() as f64;
        let mut places = Vec::new();
        numbers.each(|place, number| {
            // Multiples of the golden ratio, which lie evenly and follow no rows or columns.
            if (place as f64 * GOLDEN).fract() < share {
                places.push((place, number));
            }
        });
        if places.iter().all(|(_, number)| *number == places[0].1) {
            return;
        }
        places.sort_unstable_by_key(|(place, _)| *place);
        let mean = places.iter().map(|(_, number)| number).sum::<f64>() / places.len() as f64;
        let sample = places.into_iter().map(|(_, number)| number - mean).collect();
        self.samples.push((file, sample));
    }

    /// Ends a tensor, of which all files have been added.
    pub fn end_tensor(&mut self) {
        let samples = std::mem::take(&mut self.samples);
        let product =
            |one: &[f64], other: &[f64]| -> f64 { one.iter().zip(other).map(|(a, b)| a * b).sum() };
        let squares: Vec<_> = samples.iter().map(|(_, it)| product(it, it)).collect();
        for (index, (file, one)) in samples.iter().enumerate() {
            for (before, (other, numbers)) in samples[..index].iter().enumerate() {
                let correlation = product(one, numbers) / (squares[index] * squares[before]).sqrt();
                // Not so where the squares underflow.
                if correlation.is_finite() {
                    let (sum, count) = &mut self.pairs[*file.min(other)][*file.max(other)];
                    (*sum, *count) = (*sum + correlation, *count + 1);
                }
            }
        }
    }

    /// The two files that are the least alike; `None` if no two files have a tensor to compare.
    pub fn least(&self, files: &[&OpenFile]) -> Option<Alike> {
        let pairs = self.pairs.iter().enumerate().flat_map(|(one, row)| {
            let others = row.iter().enumerate().filter(|(_, (_, count))| *count > 0);
            others.map(move |(other, (sum, count))| (one, other, sum / f64::from(*count)))
        });
        let (one, other, correlation) = pairs.min_by(|one, other| one.2.total_cmp(&other.2))?;
        let files = [one, other].map(|index| files[index].path.clone());
        Some(Alike { files, correlation: correlation.clamp(-1.0, 1.0) })
    }
}
