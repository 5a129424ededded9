//! The layer and the loss on Flex.
//!
//! The product is written straight into the output, which is not zeroed before; bias and
//! nonlinearity are applied in place, block by block, while a block is in the cache. The gradient
//! with respect to the weighted sums overwrites the incoming gradient. The matrices of a product
//! may be views; other tensors that are not laid out in order are copied.
//!
//! The shape alone decides the blocks, and every sum has one order, so that the results have the
//! same bits for any number of threads.

use std::borrow::Cow;

use burn::{
    backend::{Flex, flex::FlexTensor},
    tensor::{DType, TensorData},
};
use burn_ema_host::{Real, threads};

use super::{
    Bias, Nonlinearity, Operations,
    curve::Curve,
    product::{Matrix, product},
};

/// The most numbers in a block, unless a single row has more. The backward pass reads a block of
/// the output while it changes a block of the gradient; in f64 the two take 32 KiB, a common size
/// of the first-level cache.
const BLOCK: usize = 2048;

/// The least count of numbers whose blocks are divided among threads.
const SPREAD: usize = 1 << 15;

// All tensors of a call have one dtype, f32 or f64.
impl Operations for Flex {
    fn dense(
        input: FlexTensor,
        weight: FlexTensor,
        bias: Bias<Self>,
        nonlinearity: Nonlinearity,
    ) -> FlexTensor {
        let bias = bias.into_option();
        match input.dtype() {
            DType::F64 => forward::<f64>(&input, &weight, bias.as_ref(), nonlinearity),
            _ => forward::<f32>(&input, &weight, bias.as_ref(), nonlinearity),
        }
    }

    fn half_squared_errors(outputs: FlexTensor, targets: FlexTensor) -> FlexTensor {
        match outputs.dtype() {
            DType::F64 => errors::<f64>(&outputs, &targets),
            _ => errors::<f32>(&outputs, &targets),
        }
    }
}

/// The numbers of a layer's forward pass that its backward pass needs.
#[derive(Clone, Debug)]
pub(super) struct Residuals {
    /// The input; `None` if the gradient of the weights is not wanted.
    pub input: Option<FlexTensor>,
    /// The weights; `None` if the gradient of the input is not wanted.
    pub weight: Option<FlexTensor>,
    /// True if the bias's gradient is wanted.
    pub bias: bool,
    pub output: FlexTensor,
    pub nonlinearity: Nonlinearity,
}

/// The gradients with respect to input, weight and bias from that with respect to the output;
/// `None` for each that is not wanted.
pub(super) fn dense_backward(gradient: FlexTensor, kept: Residuals) -> [Option<FlexTensor>; 3] {
    match kept.output.dtype() {
        DType::F64 => backward::<f64>(gradient, kept),
        _ => backward::<f32>(gradient, kept),
    }
}

/// The gradient with respect to the outputs: `(o - y) g` in each row, where `g` is the gradient
/// with respect to the row's error. The gradient with respect to the targets is the negative.
pub(super) fn half_squared_errors_backward(
    gradient: FlexTensor,
    outputs: FlexTensor,
    targets: FlexTensor,
) -> FlexTensor {
    match outputs.dtype() {
        DType::F64 => errors_backward::<f64>(&gradient, &outputs, &targets),
        _ => errors_backward::<f32>(&gradient, &outputs, &targets),
    }
}

fn forward<T: Curve>(
    input: &FlexTensor,
    weight: &FlexTensor,
    bias: Option<&FlexTensor>,
    nonlinearity: Nonlinearity,
) -> FlexTensor {
    let (input, weight) = (Matrix::<T>::of(input), Matrix::of(weight));
    let [rows, width] = [input.rows(), weight.columns()];
    let mut output = product(input, weight);
    let bias = bias.map(numbers);
    in_blocks(&mut output, width, |block| {
        if let Some(bias) = &bias {
            let rows = block.chunks_exact_mut(width);
            rows.for_each(|row| row.iter_mut().zip(&**bias).for_each(|(z, &b)| *z += b));
        }
        activate(block, width, nonlinearity);
    });
    FlexTensor::from_data(TensorData::new(output, [rows, width]))
}

fn backward<T: Curve>(gradient: FlexTensor, kept: Residuals) -> [Option<FlexTensor>; 3] {
    let Residuals { input, weight, bias, output, nonlinearity } = kept;
    let width = output.layout().shape()[1];
    let mut delta = owned(gradient);
    differentiate(delta.storage_mut::<T>(), &numbers(&output), width, nonlinearity);
    let sums = bias.then(|| column_sums::<T>(delta.storage(), width));
    let delta = Matrix::<T>::of(&delta);
    let by_input = weight.map(|weight| by_input(delta, Matrix::of(&weight)));
    let by_weight = input.map(|input| matrix(Matrix::of(&input).transposed(), delta));
    let by_bias = sums.map(|sums| FlexTensor::from_data(TensorData::new(sums, [width])));
    [by_input, by_weight, by_bias]
}

/// `delta weight^T`, computed as the transpose of `weight delta^T`: so `gemm` reads the weight
/// along its rows, and does not copy all of it.
fn by_input<T: Real>(delta: Matrix<'_, T>, weight: Matrix<'_, T>) -> FlexTensor {
    let [rows, width] = [delta.rows(), weight.rows()];
    let numbers = transposed(&product(weight, delta.transposed()), [width, rows]);
    FlexTensor::from_data(TensorData::new(numbers, [rows, width]))
}

/// The transpose of a matrix of the shape `[rows, columns]`; both are in row-major order.
fn transposed<T: Real>(numbers: &[T], [rows, columns]: [usize; 2]) -> Vec<T> {
    /// The rows of the result that are written together, so that whole cache lines are read.
    const SIDE: usize = 16;
    let mut output = vec![T::ZERO; numbers.len()];
    let write = |(band, output): (usize, &mut [T])| {
        let first = band * SIDE;
        for (row, numbers) in numbers.chunks_exact(columns).enumerate() {
            let of_row = &numbers[first..(first + SIDE).min(columns)];
            of_row.iter().enumerate().for_each(|(column, &x)| output[column * rows + row] = x);
        }
    };
    let bands = (SIDE * rows).max(1);
    match numbers.len() < SPREAD {
        true => output.chunks_mut(bands).enumerate().for_each(write),
        false => threads::each(output.chunks_mut(bands).enumerate().collect(), write),
    }
    output
}

fn matrix<T: Real>(a: Matrix<'_, T>, b: Matrix<'_, T>) -> FlexTensor {
    let shape = [a.rows(), b.columns()];
    FlexTensor::from_data(TensorData::new(product(a, b), shape))
}

/// The numbers of a tensor, row after row; copied if they are not laid out in this order.
fn numbers<T: Real>(tensor: &FlexTensor) -> Cow<'_, [T]> {
    match tensor.as_slice() {
        Some(numbers) => Cow::Borrowed(numbers),
        None => Cow::Owned(tensor.to_contiguous().storage().to_vec()),
    }
}

/// A tensor of the same numbers whose storage holds these alone, in row-major order. A tensor with
/// another storage, such as a view of a larger tensor, is copied.
fn owned(tensor: FlexTensor) -> FlexTensor {
    let bytes = tensor.layout().num_elements() * tensor.dtype().size();
    match tensor.is_contiguous() && tensor.bytes().len() == bytes {
        true => tensor,
        false => FlexTensor::from_data(tensor.to_contiguous().into_data()),
    }
}

/// Calls `work` on blocks of whole rows of `width` numbers; on several threads for [`SPREAD`]
/// numbers or more.
fn in_blocks<T: Real>(numbers: &mut [T], width: usize, work: impl Fn(&mut [T]) + Send + Sync) {
    let block = block(width);
    match numbers.len() < SPREAD {
        true => numbers.chunks_mut(block).for_each(work),
        false => threads::each(numbers.chunks_mut(block).collect(), work),
    }
}

/// The numbers in a block of whole rows: at most [`BLOCK`], but at least one row.
fn block(width: usize) -> usize {
    (BLOCK / width.max(1)).max(1) * width.max(1)
}

fn activate<T: Curve>(z: &mut [T], width: usize, nonlinearity: Nonlinearity) {
    match nonlinearity {
        Nonlinearity::Sigmoid => T::sigmoid(z),
        Nonlinearity::Tanh => T::tanh(z),
        // A NaN is not below zero, and stays.
        Nonlinearity::Relu => {
            z.iter_mut().for_each(|z| *z = if *z <= T::ZERO { T::ZERO } else { *z })
        }
        Nonlinearity::Softmax => z.chunks_exact_mut(width).for_each(softmax),
        Nonlinearity::Identity => {}
    }
}

fn softmax<T: Curve>(row: &mut [T]) {
    let Some(&first) = row.first() else { return };
    let largest = row.iter().fold(first, |most, &z| if z > most { z } else { most });
    row.iter_mut().for_each(|z| *z = *z - largest);
    T::exp(row);
    let sum = sum(row, row, |e, _| e);
    row.iter_mut().for_each(|e| *e = *e / sum);
}

/// Replaces the gradient with respect to the output `o` by that with respect to the weighted sums.
fn differentiate<T: Real>(gradient: &mut [T], o: &[T], width: usize, nonlinearity: Nonlinearity) {
    let work = |(gradient, o): (&mut [T], &[T])| {
        let each = gradient.iter_mut().zip(o);
        match nonlinearity {
            Nonlinearity::Sigmoid => each.for_each(|(g, &o)| *g = *g * o * (T::ONE - o)),
            Nonlinearity::Tanh => each.for_each(|(g, &o)| *g = *g * (T::ONE - o * o)),
            Nonlinearity::Relu => {
                each.for_each(|(g, &o)| *g = if o <= T::ZERO { T::ZERO } else { *g })
            }
            Nonlinearity::Softmax => {
                let rows = gradient.chunks_exact_mut(width).zip(o.chunks_exact(width));
                rows.for_each(|(gradient, o)| {
                    let mixed = sum(gradient, o, |g, o| g * o);
                    gradient.iter_mut().zip(o).for_each(|(g, &o)| *g = o * (*g - mixed));
                });
            }
            Nonlinearity::Identity => {}
        }
    };
    let block = block(width);
    match gradient.len() < SPREAD {
        true => gradient.chunks_mut(block).zip(o.chunks(block)).for_each(work),
        false => threads::each(gradient.chunks_mut(block).zip(o.chunks(block)).collect(), work),
    }
}

/// The sum of each column. Groups of many rows are summed first, on several threads for [`SPREAD`]
/// numbers or more, and then the sums of the groups.
fn column_sums<T: Real>(numbers: &[T], width: usize) -> Vec<T> {
    let add = |mut sums: Vec<T>, row: &[T]| {
        sums.iter_mut().zip(row).for_each(|(sum, &x)| *sum += x);
        sums
    };
    let nothing = || vec![T::ZERO; width];
    let of_rows = |rows: &[T]| rows.chunks(width).fold(nothing(), add);
    let many = 16 * block(width);
    let mut sums: Vec<_> = numbers.chunks(many).map(|_| Vec::new()).collect();
    let each = numbers.chunks(many).zip(&mut sums);
    let work = |(rows, sums): (_, &mut _)| *sums = of_rows(rows);
    match numbers.len() < SPREAD {
        true => each.for_each(work),
        false => threads::each(each.collect(), work),
    }
    sums.into_iter().reduce(|sums, more| add(sums, &more)).unwrap_or_else(nothing)
}

fn errors<T: Real>(outputs: &FlexTensor, targets: &FlexTensor) -> FlexTensor {
    let [rows, width] = outputs.layout().shape().dims();
    let (outputs, targets) = (numbers::<T>(outputs), numbers::<T>(targets));
    let of_row = |row: usize| {
        let row = row * width..(row + 1) * width;
        sum(&outputs[row.clone()], &targets[row], |o, y| (o - y) * (o - y)) * T::HALF
    };
    FlexTensor::from_data(TensorData::new((0..rows).map(of_row).collect::<Vec<_>>(), [rows]))
}

fn errors_backward<T: Real>(
    gradient: &FlexTensor,
    outputs: &FlexTensor,
    targets: &FlexTensor,
) -> FlexTensor {
    let shape @ [_, width] = outputs.layout().shape().dims();
    let (outputs, targets) = (numbers::<T>(outputs), numbers::<T>(targets));
    let mut by_outputs = Vec::with_capacity(outputs.len());
    let rows = outputs.chunks(width.max(1)).zip(targets.chunks(width.max(1)));
    for ((o, y), &gradient) in rows.zip(&*numbers::<T>(gradient)) {
        by_outputs.extend(o.iter().zip(y).map(|(&o, &y)| (o - y) * gradient));
    }
    FlexTensor::from_data(TensorData::new(by_outputs, shape))
}

/// The sum of `term` over the pairs of two slices. Eight partial sums are kept, which the compiler
/// vectorises and which have less rounding error than one long sum.
fn sum<T: Real>(a: &[T], b: &[T], term: impl Fn(T, T) -> T) -> T {
    let mut sums = [T::ZERO; 8];
    for (a, b) in a.chunks(sums.len()).zip(b.chunks(sums.len())) {
        let terms = a.iter().zip(b).map(|(&a, &b)| term(a, b));
        sums.iter_mut().zip(terms).for_each(|(sum, term)| *sum += term);
    }
    sums.into_iter().fold(T::ZERO, |all, sum| all + sum)
}
