//! Weights without a network, for updates of averages.

use burn::{
    module::{Module, Param},
    tensor::{Device, Distribution, Tensor},
};

/// How many tensors of how many numbers each, once or several times.
pub type Tensors = &'static [[usize; 2]];

/// Shaped like a residual network and like a language model: matrices, and as many vectors.
pub const M_25: Tensors = &[[161, 160_000], [161, 400]];
#[allow(dead_code)] // too large for the benches, which share this file with the comparison
pub const M_108: Tensors = &[[98, 1_100_000], [98, 768]];
/// Many tiny ones.
pub const TINY: Tensors = &[[1000, 400]];

/// Tensors of random numbers.
#[derive(Module, Debug)]
pub struct Weights {
    pub tensors: Vec<Param<Tensor<1>>>,
}

impl Weights {
    pub fn new(tensors: Tensors, device: &Device) -> Self {
        let tensor = |size| {
            let normal = Distribution::Normal(0.0, 1.0);
            Param::from_tensor(Tensor::random([size], normal, device))
        };
        let sizes = tensors.iter().flat_map(|&[count, size]| std::iter::repeat_n(size, count));
        Self { tensors: sizes.map(tensor).collect() }
    }
}
