//! The Fréchet distance of two sets of rows, each taken for normally distributed, and that of
//! pictures by what a classifier sees in them.

use burn::{
    module::Module,
    optim::AdamConfig,
    tensor::{Device, Tensor},
    train::TrainStep,
};
use burn_ema::{
    Error, Result,
    model::{Activation, Mlp, MlpConfig},
};
use nalgebra::{DMatrix, DVector};

use super::numbers;
use crate::data::{Prepared, Sample, inputs, loader};

/// A classifier whose hidden features pictures are compared by.
#[derive(Clone, Debug)]
pub struct Features {
    classifier: Mlp,
}

/// The hidden layers of the classifier; the last of them are the features.
const HIDDEN: [usize; 2] = [64, 32];

impl Features {
    /// Trains a perceptron with two hidden layers of ReLU on the training split of a classification:
    /// 20 passes of Adam, in batches of 32. The device is seeded.
    ///
    /// # Errors
    ///
    /// A split without rows, as of the loader.
    pub fn learn(data: &Prepared, seed: u64, device: &Device) -> Result<Self> {
        device.seed(seed);
        let device = device.clone().autodiff();
        let [inputs, outputs] = [data.preparation.inputs(), data.preparation.outputs()];
        let config = MlpConfig::new(vec![inputs, HIDDEN[0], HIDDEN[1], outputs]);
        let mut classifier = config.with_hidden(Activation::Relu).init(&device)?;
        let mut optimizer = AdamConfig::new().init();
        let batches = loader(data.train.clone(), 32, Some(seed), &device)?;
        for _ in 0..20 {
            for batch in batches.iter() {
                let batch =
                    batch.map_err(|error| Error::value("a batch", "rows of data", error))?;
                let gradients = TrainStep::step(&classifier, batch).grads;
                classifier = optimizer.step(3e-3, classifier, gradients);
            }
        }
        Ok(Self { classifier: classifier.valid() })
    }

    /// The squared Fréchet distance of the features of inputs, `[rows, inputs]` in the units of the
    /// samples that were learned, from those of some samples; see [`frechet`].
    ///
    /// # Errors
    ///
    /// The errors of [`frechet`] and of [`inputs`]; features that cannot be read from the device.
    ///
    /// # Panics
    ///
    /// Inputs of another width than the samples'.
    pub fn distance(&self, made: Tensor<2>, samples: &[Sample]) -> Result<f64> {
        let samples = inputs(samples, &made.device())?;
        let of = |inputs| numbers(self.classifier.layer_outputs(inputs).swap_remove(1));
        frechet(&of(made)?, &of(samples)?, HIDDEN[1])
    }
}

/// The squared Fréchet distance of the normal distributions that have the means and covariances of
/// two sets of rows, `|m - n|^2 + tr(C + D - 2 (C^1/2 D C^1/2)^1/2)` (Dowson and Landau 1982, "The
/// Fréchet distance between multivariate normal distributions").
///
/// Of a classifier's features, it is the usual score of generated pictures (Heusel et al. 2017,
/// "GANs trained by a two time-scale update rule converge to a local Nash equilibrium").
/// A set is row by row, `width` numbers a row, in any unit; the distance has the square of it.
///
/// # Errors
///
/// [`Error::Value`] for a set of fewer than two rows, or that is no whole number of rows; for a
/// number that is not finite.
pub fn frechet(rows: &[f64], others: &[f64], width: usize) -> Result<f64> {
    let [(m, c), (n, d)] = [normal(rows, width)?, normal(others, width)?];
    let eigen = c.clone().symmetric_eigen();
    // Rounding leaves eigenvalues a little below 0.
    let roots = eigen.eigenvalues.map(|value| value.max(0.0).sqrt());
    let root =
        &eigen.eigenvectors * DMatrix::from_diagonal(&roots) * eigen.eigenvectors.transpose();
    let common = (&root * &d * &root).symmetric_eigenvalues();
    let common: f64 = common.iter().map(|value| value.max(0.0).sqrt()).sum();
    Ok((m - n).norm_squared() + c.trace() + d.trace() - 2.0 * common)
}

/// The mean and the covariance of rows.
fn normal(rows: &[f64], width: usize) -> Result<(DVector<f64>, DMatrix<f64>)> {
    let count = rows.len().checked_div(width).unwrap_or(0);
    if count < 2 || count * width != rows.len() {
        let expected = format!("2 or more rows of {width} each");
        return Err(Error::value("the numbers of a set", expected, rows.len()));
    }
    if let Some(place) = rows.iter().position(|number| !number.is_finite()) {
        let what = format!("number {} of row {}", place % width, place / width);
        return Err(Error::value(what, "a finite number", rows[place]));
    }
    let rows = DMatrix::from_row_slice(count, width, rows);
    let mean = rows.row_mean();
    let off = DMatrix::from_fn(count, width, |row, place| rows[(row, place)] - mean[place]);
    Ok((mean.transpose(), off.transpose() * &off / (count as f64 - 1.0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(feature = "flex")]
    use crate::data::digits;

    /// Rows whose covariance is exactly diagonal, with these means and deviations: a row further
    /// along an axis and one back, for each axis.
    fn along_axes(means: [f64; 3], deviations: [f64; 3]) -> Vec<f64> {
        // Each axis has two of six rows off the mean: the variance is 2 off^2 / 5.
        let off = |axis: usize| deviations[axis] * 2.5f64.sqrt();
        let rows = (0..3).flat_map(|axis| [off(axis), -off(axis)].map(|off| (axis, off)));
        rows.flat_map(|(axis, off)| {
            (0..3).map(move |place| means[place] + if place == axis { off } else { 0.0 })
        })
        .collect()
    }

    /// By hand: of independent axes it is the sum of the squared differences of means and of
    /// deviations.
    #[test]
    fn the_distance_of_independent_axes_is_the_closed_form() {
        let ours = along_axes([0.0, 1.0, -2.0], [1.0, 0.5, 3.0]);
        let others = along_axes([0.5, 1.0, 1.0], [2.0, 0.25, 1.0]);
        let expected = (0.25 + 0.0 + 9.0) + (1.0 + 0.0625 + 4.0);
        for (a, b) in [(&ours, &others), (&others, &ours)] {
            let found = frechet(a, b, 3).unwrap();
            assert!((found - expected).abs() < 1e-12 * expected, "{found} for {expected}");
        }
        assert!(frechet(&ours, &ours, 3).unwrap().abs() < 1e-12);
    }

    /// A rotation of both sets changes nothing, although the covariances are no longer diagonal.
    #[test]
    fn the_distance_does_not_depend_on_the_axes() {
        let turn = |rows: Vec<f64>| -> Vec<f64> {
            let (sin, cos) = 0.7f64.sin_cos();
            let turned = rows.chunks(3).flat_map(|row| {
                let [x, y, z] = [cos * row[0] - sin * row[1], sin * row[0] + cos * row[1], row[2]];
                [x, cos * y - sin * z, sin * y + cos * z]
            });
            turned.collect()
        };
        let ours = along_axes([0.0, 1.0, -2.0], [1.0, 0.5, 3.0]);
        let others = along_axes([0.5, 1.0, 1.0], [2.0, 0.25, 1.0]);
        let expected = frechet(&ours, &others, 3).unwrap();
        let found = frechet(&turn(ours), &turn(others), 3).unwrap();
        assert!((found - expected).abs() < 1e-12 * expected, "{found} for {expected}");
    }

    #[test]
    #[cfg(feature = "flex")]
    fn digits_are_nearer_to_digits_than_noise_is() {
        use burn::tensor::Distribution;

        let (device, data) = (Device::flex(), Prepared::new(&digits().unwrap(), 1).unwrap());
        let features = Features::learn(&data, 1, &device).unwrap();
        let noise = Tensor::random([360, 64], Distribution::Uniform(0.0, 1.0), &device);
        let from_test = |made| features.distance(made, &data.test).unwrap();
        let [same, digits] =
            [&data.test, &data.train].map(|rows| from_test(inputs(rows, &device).unwrap()));
        let noise = from_test(noise);
        assert!(same.abs() < 1e-6 && digits > 1e-3 && noise > 20.0 * digits, "{digits} {noise}");
    }

    #[test]
    fn sets_that_have_no_covariance_are_refused() {
        let rows = [1.0, 2.0, 3.0, 5.0];
        for (numbers, width) in [(&rows[..2], 2), (&rows[..3], 2), (&[], 2), (&rows[..], 0)] {
            let message = frechet(numbers, &rows, width).unwrap_err().to_string();
            assert!(message.contains("2 or more rows"), "{message}");
        }
        let message = frechet(&[1.0, 2.0, 3.0, f64::NAN], &rows, 2).unwrap_err().to_string();
        assert!(message.contains("number 1 of row 1"), "{message}");
    }
}
