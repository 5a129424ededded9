//! How alike the weights of the files of a merge are.

use std::path::PathBuf;

use burn::tensor::TensorData;

use super::OpenFile;

/// Two files of a merge, and how alike their weights are.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Alike {
    /// The paths of the two files, in the order of the merge.
    pub files: [PathBuf; 2],
    /// The correlation of their weights, in `[-1, 1]`: Pearson's, for each float tensor of two
    /// dimensions or more, and of these the mean.
    ///
    /// Of each tensor, at most 1,024 numbers are compared, which lie all over it.
    pub correlation: f64,
}

/// The most numbers of a tensor that are compared.
const MOST: usize = 1024;

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
    pub fn add(&mut self, file: usize, data: &TensorData) {
        if data.shape().num_dims() < 2 || self.pairs.len() < 2 {
            return;
        }
        let numbers = places(data.num_elements());
        let mut sample: Vec<_> = match data.as_slice::<f32>() {
            Ok(all) => numbers.map(|index| f64::from(all[index])).collect(),
            Err(_) => {
                let all: Vec<f64> = data.iter().collect();
                numbers.map(|index| all[index]).collect()
            }
        };
        let mean = sample.iter().sum::<f64>() / sample.len() as f64;
        sample.iter_mut().for_each(|number| *number -= mean);
        self.samples.push((file, sample));
    }

    /// Ends a tensor, of which all files have been added.
    pub fn end_tensor(&mut self) {
        let samples: Vec<_> = self.samples.drain(..).collect();
        let product =
            |one: &[f64], other: &[f64]| -> f64 { one.iter().zip(other).map(|(a, b)| a * b).sum() };
        let squares: Vec<_> = samples.iter().map(|(_, it)| product(it, it)).collect();
        for (index, (file, one)) in samples.iter().enumerate() {
            for (before, (other, numbers)) in samples[..index].iter().enumerate() {
                let correlation = product(one, numbers) / (squares[index] * squares[before]).sqrt();
                // A tensor of equal numbers has none.
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

/// Places all over a tensor of so many numbers: multiples of the golden ratio, which follow no rows
/// or columns.
fn places(length: usize) -> impl Iterator<Item = usize> {
    const GOLDEN: f64 = 0.618_033_988_749_894_9;
    let place = move |index: usize| match length <= MOST {
        true => index,
        false => ((index as f64 * GOLDEN).fract() * length as f64) as usize,
    };
    (0..length.min(MOST)).map(place)
}
