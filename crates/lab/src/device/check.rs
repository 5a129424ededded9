//! A small matrix product and its gradients, compared with plain loops on the host: some drivers
//! compute wrong results without an error.

use burn::tensor::{Device, Tensor, TensorData};

// Odd sizes, so that tiles and vectors do not fit evenly.
const ROWS: usize = 33;
const INNER: usize = 65;
const COLUMNS: usize = 34;

/// Compares a product and, with the feature `train`, its gradients with the host's. The error is
/// the first wrong number, with the expected one.
pub(super) fn check(device: &Device) -> Result<(), String> {
    let left = HostMatrix::new(ROWS, INNER, 1);
    let right = HostMatrix::new(INNER, COLUMNS, 2);

    let product = left.on(device).matmul(right.on(device));
    compare("a matrix product", product, &left.times(&right))?;

    #[cfg(feature = "train")]
    {
        let device = device.clone().autodiff();
        let weights = HostMatrix::new(ROWS, COLUMNS, 3);
        let (x, y) = (left.on(&device).require_grad(), right.on(&device).require_grad());
        let sum = (x.clone().matmul(y.clone()) * weights.on(&device)).sum();
        let gradients = sum.backward();
        for (tensor, expected) in
            [(x, weights.times(&right.transposed())), (y, left.transposed().times(&weights))]
        {
            let gradient = tensor.grad(&gradients).ok_or("a gradient is missing")?;
            compare("a gradient", gradient, &expected)?;
        }
    }
    Ok(())
}

/// A matrix on the host, row by row.
struct HostMatrix {
    rows: usize,
    columns: usize,
    values: Vec<f64>,
}

impl HostMatrix {
    /// Scattered multiples of 1/16 between -1 and 1.
    ///
    /// Tensor cores may round their inputs to TF32 or BF16. Both represent these values exactly, so
    /// that a deviation is an error and not rounding.
    fn new(rows: usize, columns: usize, seed: u32) -> Self {
        let value = |i: usize| {
            let scattered = (i as u32 * 8 + seed).wrapping_mul(2_654_435_761) >> 16;
            f64::from(scattered % 33) / 16.0 - 1.0
        };
        Self { rows, columns, values: (0..rows * columns).map(value).collect() }
    }

    fn from_fn(rows: usize, columns: usize, value: impl Fn(usize, usize) -> f64) -> Self {
        let values = (0..rows * columns).map(|i| value(i / columns, i % columns)).collect();
        Self { rows, columns, values }
    }

    fn at(&self, row: usize, column: usize) -> f64 {
        self.values[row * self.columns + column]
    }

    #[cfg(feature = "train")]
    fn transposed(&self) -> Self {
        Self::from_fn(self.columns, self.rows, |row, column| self.at(column, row))
    }

    fn times(&self, other: &Self) -> Self {
        Self::from_fn(self.rows, other.columns, |row, column| {
            (0..self.columns).map(|i| self.at(row, i) * other.at(i, column)).sum()
        })
    }

    /// The matrix on a device, in `f32`.
    fn on(&self, device: &Device) -> Tensor<2> {
        let data = TensorData::new(self.values.clone(), [self.rows, self.columns]);
        Tensor::from_data(data.convert::<f32>(), device)
    }
}

/// Fails for another shape, and for a number that deviates by more than 1e-4 of the largest
/// expected value.
fn compare(what: &str, found: Tensor<2>, expected: &HostMatrix) -> Result<(), String> {
    let shape = found.dims();
    if shape != [expected.rows, expected.columns] {
        return Err(format!("{what} has the shape {shape:?}"));
    }
    let found = found
        .try_into_vec_as::<f64>()
        .map_err(|error| format!("{what} cannot be read ({error})"))?;
    let largest = expected.values.iter().fold(0.0_f64, |largest, value| largest.max(value.abs()));
    // False for NaN as well.
    let close = |(expected, found): (&f64, &f64)| (expected - found).abs() <= 1e-4 * largest;
    match expected.values.iter().zip(&found).find(|&pair| !close(pair)) {
        Some((expected, found)) => Err(format!("{what} gives {found} instead of {expected}")),
        None => Ok(()),
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;

    #[test]
    fn flex_is_right() {
        check(&Device::flex()).unwrap();
    }

    #[test]
    fn one_wrong_value_is_found() {
        let mut matrix = HostMatrix::new(3, 5, 1);
        let tensor = matrix.on(&Device::flex());
        compare("a copy", tensor.clone(), &matrix).unwrap();

        matrix.values[7] += 0.5;
        let problem = compare("a copy", tensor, &matrix).unwrap_err();
        assert!(problem.starts_with("a copy gives "), "{problem}");
    }

    #[test]
    fn nan_is_wrong() {
        let matrix = HostMatrix::from_fn(1, 2, |_, _| 1.0);
        let tensor = Tensor::from_data([[1.0, f32::NAN]], &Device::flex());
        assert!(compare("a copy", tensor, &matrix).unwrap_err().contains("NaN"));
    }

    #[test]
    fn wrong_shape_is_found() {
        let tensor = HostMatrix::new(5, 3, 1).on(&Device::flex());
        assert!(compare("a copy", tensor, &HostMatrix::new(3, 5, 1)).is_err());
    }
}
