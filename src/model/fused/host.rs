//! The layer in the processor's memory, on Flex.
//!
//! The product is written straight into the output, which is not zeroed before; bias and
//! activation follow in place, block by block, while a block is in the cache. The gradient by the
//! weighted sums takes the place of the incoming one. Views are read by their strides.
//!
//! Blocks are cut by the shape alone and every sum has one order, so that the results have the
//! same bits for any number of threads.

use std::{
    borrow::Cow,
    ops::{Add, AddAssign, Div, Mul, Sub},
};

use burn::{
    backend::{Flex, flex::FlexTensor},
    tensor::{DType, Element, TensorData},
};

use super::{
    Kept, Kernels,
    composed::{self, Tensors},
    curve::Curve,
    product::{Matrix, product},
};
use crate::{model::Activation, threads};

/// Numbers in a block; two blocks of f64 just fit the first cache.
const BLOCK: usize = 2048;

/// Numbers from which on blocks are spread over threads.
const SPREAD: usize = 1 << 15;

impl Kernels for Flex {
    fn dense(
        input: FlexTensor,
        weight: FlexTensor,
        bias: Option<FlexTensor>,
        activation: Activation,
    ) -> FlexTensor {
        let (dtype, width) = (input.dtype(), weight.layout().shape()[1]);
        // What Burn would broadcast or refuse is left to Burn.
        let alike = weight.dtype() == dtype
            && bias.iter().all(|b| b.dtype() == dtype && b.layout().shape()[0] == width);
        match dtype {
            DType::F32 if alike => dense::<f32>(&input, &weight, bias.as_ref(), activation),
            DType::F64 if alike => dense::<f64>(&input, &weight, bias.as_ref(), activation),
            _ => {
                let [input, weight] = [input, weight].map(Self::tensor);
                Self::primitive(composed::dense(input, weight, bias.map(Self::tensor), activation))
            }
        }
    }

    fn dense_backward(gradient: FlexTensor, kept: Kept<Self>) -> [Option<FlexTensor>; 3] {
        match kept.output.dtype() {
            DType::F32 => dense_backward::<f32>(gradient, kept),
            DType::F64 => dense_backward::<f64>(gradient, kept),
            _ => composed::dense_backward::<Self>(gradient, kept),
        }
    }

    fn half_squared_errors(outputs: FlexTensor, targets: FlexTensor) -> FlexTensor {
        match (outputs.dtype(), targets.dtype()) {
            (DType::F32, DType::F32) => half_squared_errors::<f32>(&outputs, &targets),
            (DType::F64, DType::F64) => half_squared_errors::<f64>(&outputs, &targets),
            _ => {
                let [outputs, targets] = [outputs, targets].map(Self::tensor);
                Self::primitive(composed::half_squared_errors(outputs, targets))
            }
        }
    }

    fn half_squared_errors_backward(
        gradient: FlexTensor,
        outputs: FlexTensor,
        targets: FlexTensor,
    ) -> FlexTensor {
        match outputs.dtype() {
            DType::F32 => half_squared_errors_backward::<f32>(&gradient, &outputs, &targets),
            DType::F64 => half_squared_errors_backward::<f64>(&gradient, &outputs, &targets),
            _ => composed::half_squared_errors_backward::<Self>(gradient, outputs, targets),
        }
    }
}

/// The numbers that these kernels take.
pub(super) trait Real:
    Curve
    + Element
    + PartialOrd
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + AddAssign
{
    const ZERO: Self;
    const ONE: Self;
    const HALF: Self;
    /// All numbers of the tensor's storage.
    fn storage(tensor: &FlexTensor) -> &[Self];
    /// The same, to write; a storage that others share is copied.
    fn storage_mut(tensor: &mut FlexTensor) -> &mut [Self];
    /// The numbers in order, where they lie so.
    fn as_slice(tensor: &FlexTensor) -> Option<&[Self]>;
}

macro_rules! real {
    ($float:ident) => {
        impl Real for $float {
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;
            const HALF: Self = 0.5;
            fn storage(tensor: &FlexTensor) -> &[Self] {
                tensor.storage()
            }
            fn storage_mut(tensor: &mut FlexTensor) -> &mut [Self] {
                tensor.storage_mut()
            }
            fn as_slice(tensor: &FlexTensor) -> Option<&[Self]> {
                tensor.as_slice()
            }
        }
    };
}

real!(f32);
real!(f64);

fn dense<T: Real>(
    input: &FlexTensor,
    weight: &FlexTensor,
    bias: Option<&FlexTensor>,
    activation: Activation,
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
        activate(block, width, activation);
    });
    FlexTensor::from_data(TensorData::new(output, [rows, width]))
}

fn dense_backward<T: Real>(gradient: FlexTensor, kept: Kept<Flex>) -> [Option<FlexTensor>; 3] {
    let Kept { input, weight, bias, output, activation } = kept;
    let width = output.layout().shape()[1];
    let mut delta = owned(gradient);
    differentiate(T::storage_mut(&mut delta), &numbers(&output), width, activation);
    let sums = bias.then(|| column_sums::<T>(T::storage(&delta), width));
    let delta = Matrix::<T>::of(&delta);
    let by_input = weight.map(|weight| by_input(delta, Matrix::of(&weight)));
    let by_weight = input.map(|input| matrix(Matrix::of(&input).transposed(), delta));
    let by_bias = sums.map(|sums| FlexTensor::from_data(TensorData::new(sums, [width])));
    [by_input, by_weight, by_bias]
}

/// `delta weight^T`, by way of its transpose: the product then goes along the rows of the weight,
/// and need not lay all of it out anew.
fn by_input<T: Real>(delta: Matrix<'_, T>, weight: Matrix<'_, T>) -> FlexTensor {
    let [rows, width] = [delta.rows(), weight.rows()];
    let numbers = transposed(&product(weight, delta.transposed()), [width, rows]);
    FlexTensor::from_data(TensorData::new(numbers, [rows, width]))
}

/// The numbers of a matrix, row after row, column after column.
fn transposed<T: Real>(numbers: &[T], [rows, columns]: [usize; 2]) -> Vec<T> {
    /// Rows of the result that are written side by side, so that whole lines of the cache are used.
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

/// The numbers of a tensor in order; a view's are copied.
fn numbers<T: Real>(tensor: &FlexTensor) -> Cow<'_, [T]> {
    match T::as_slice(tensor) {
        Some(numbers) => Cow::Borrowed(numbers),
        None => Cow::Owned(T::storage(&tensor.to_contiguous()).to_vec()),
    }
}

/// The tensor in a storage of just its numbers, in order.
fn owned(tensor: FlexTensor) -> FlexTensor {
    let bytes = tensor.layout().num_elements() * tensor.dtype().size();
    match tensor.is_contiguous() && tensor.bytes().len() == bytes {
        true => tensor,
        false => FlexTensor::from_data(tensor.to_contiguous().into_data()),
    }
}

/// Runs over rows of a width, as many whole rows at a time as make a block.
fn in_blocks<T: Real>(numbers: &mut [T], width: usize, work: impl Fn(&mut [T]) + Send + Sync) {
    let block = block(width);
    match numbers.len() < SPREAD {
        true => numbers.chunks_mut(block).for_each(work),
        false => threads::each(numbers.chunks_mut(block).collect(), work),
    }
}

fn block(width: usize) -> usize {
    (BLOCK / width.max(1)).max(1) * width.max(1)
}

fn activate<T: Real>(z: &mut [T], width: usize, activation: Activation) {
    match activation {
        Activation::Sigmoid => T::sigmoid(z),
        Activation::Tanh => T::tanh(z),
        // A NaN is not below zero, and stays.
        Activation::Relu => {
            z.iter_mut().for_each(|z| *z = if *z <= T::ZERO { T::ZERO } else { *z })
        }
        Activation::Softmax => z.chunks_exact_mut(width).for_each(softmax),
        Activation::Identity => {}
    }
}

fn softmax<T: Real>(row: &mut [T]) {
    let Some(&first) = row.first() else { return };
    let largest = row.iter().fold(first, |most, &z| if z > most { z } else { most });
    row.iter_mut().for_each(|z| *z = *z - largest);
    T::exp(row);
    let sum = sum(row, row, |e, _| e);
    row.iter_mut().for_each(|e| *e = *e / sum);
}

/// Turns the gradient by the output `o` into that by the weighted sums, in place.
fn differentiate<T: Real>(gradient: &mut [T], o: &[T], width: usize, activation: Activation) {
    let work = |(gradient, o): (&mut [T], &[T])| {
        let each = gradient.iter_mut().zip(o);
        match activation {
            Activation::Sigmoid => each.for_each(|(g, &o)| *g = *g * o * (T::ONE - o)),
            Activation::Tanh => each.for_each(|(g, &o)| *g = *g * (T::ONE - o * o)),
            Activation::Relu => {
                each.for_each(|(g, &o)| *g = if o <= T::ZERO { T::ZERO } else { *g })
            }
            Activation::Softmax => {
                let rows = gradient.chunks_exact_mut(width).zip(o.chunks_exact(width));
                rows.for_each(|(gradient, o)| {
                    let mixed = sum(gradient, o, |g, o| g * o);
                    gradient.iter_mut().zip(o).for_each(|(g, &o)| *g = o * (*g - mixed));
                });
            }
            Activation::Identity => {}
        }
    };
    let block = block(width);
    match gradient.len() < SPREAD {
        true => gradient.chunks_mut(block).zip(o.chunks(block)).for_each(work),
        false => threads::each(gradient.chunks_mut(block).zip(o.chunks(block)).collect(), work),
    }
}

/// The sum of each column: of many rows at a time, and then of those sums.
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

fn half_squared_errors<T: Real>(outputs: &FlexTensor, targets: &FlexTensor) -> FlexTensor {
    let [rows, width] = outputs.layout().shape().dims();
    let (outputs, targets) = (numbers::<T>(outputs), numbers::<T>(targets));
    let of_row = |row: usize| {
        let row = row * width..(row + 1) * width;
        sum(&outputs[row.clone()], &targets[row], |o, y| (o - y) * (o - y)) * T::HALF
    };
    FlexTensor::from_data(TensorData::new((0..rows).map(of_row).collect::<Vec<_>>(), [rows]))
}

fn half_squared_errors_backward<T: Real>(
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

/// The sum of the terms of pairs: eight sums side by side, which the compiler computes at once and
/// which round less than one long sum.
fn sum<T: Real>(a: &[T], b: &[T], term: impl Fn(T, T) -> T) -> T {
    let mut sums = [T::ZERO; 8];
    for (a, b) in a.chunks(sums.len()).zip(b.chunks(sums.len())) {
        let terms = a.iter().zip(b).map(|(&a, &b)| term(a, b));
        sums.iter_mut().zip(terms).for_each(|(sum, term)| *sum += term);
    }
    sums.into_iter().fold(T::ZERO, |all, sum| all + sum)
}
