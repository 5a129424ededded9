//! CPU kernels for training with Burn: optimizers whose step is one pass, and a dense layer that is
//! one operation.
//!
//! # Optimizers
//!
//! [`SgdConfig`], with momentum or without, [`AdamConfig`] and [`AdamWConfig`] are used as Burn's of
//! the same names are, and compute the same, to the last bit on Flex and ndarray; their records are
//! the same too, so that a training can change from one to the other.
//! Burn makes a step of several operations, of which each reads and writes tensors of the size of
//! the weights.
//! Here one pass reads weights, gradient and moments once, and writes weights and moments once.
//!
//! ```
//! use burn::{nn::LinearConfig, optim::GradientsParams, tensor::{Device, Tensor}};
//! use burn_ema_fast::AdamConfig;
//!
//! let device = Device::default().autodiff();
//! let mut model = LinearConfig::new(2, 3).init(&device);
//! let mut optimizer = AdamConfig::new().init();
//! let loss = model.forward(Tensor::<2>::ones([1, 2], &device)).mean();
//! let gradients = GradientsParams::from_grads(loss.backward(), &model);
//! model = optimizer.step(1e-3, model, gradients);
//! # let _ = model;
//! ```
//!
//! A tensor with one owner is changed where it is: the moments, and the weights of a model that was
//! not cloned, as in the loop above.
//! Burn's Learner clones its model at every step, and there the new weights go over their gradient.
//! Where the optimizer itself was cloned as well, the new moments go to new memory.
//!
//! # Layer and loss
//!
//! [`dense`] is product, bias and [`Nonlinearity`] as one step of autodiff, which keeps the output
//! alone; [`half_squared_errors`] is a loss as one step.
//!
//! ```
//! use burn::tensor::{Device, Tensor};
//! use burn_ema_fast::{Nonlinearity, dense};
//!
//! let device = Device::default();
//! let [input, weight] = [[1, 2], [2, 3]].map(|shape| Tensor::<2>::ones(shape, &device));
//! let output = dense(input, weight, None, Nonlinearity::Sigmoid);
//! assert_eq!(output.dims(), [1, 3]);
//! ```
//!
//! # Where
//!
//! The optimizers' pass runs on Flex and ndarray, the layer's kernel on Flex, for f32 and f64:
//! vectorised, and on all threads for tensors from some thirty thousand numbers on; the bits do not
//! depend on the number of threads.
//! On other devices and for other dtypes, and in a build with the feature `portable`, all is made
//! of Burn's operations.

#![deny(unsafe_code)] // but in the kernels, each block with its proof
#![warn(missing_docs)]

mod adam;
mod adamw;
mod dense;
mod moments;
mod pass;
mod sgd;

use burn::{
    grad_clipping::GradientClippingConfig,
    optim::{ModuleOptimizer, Optimizer},
};

pub use adam::{Adam, AdamConfig};
pub use adamw::{AdamW, AdamWConfig};
use burn_ema_host::Real;
pub use dense::{Nonlinearity, dense, half_squared_errors};
pub use sgd::{Sgd, SgdConfig, SgdState};

/// The optimizer of a module, with gradient clipping if it is configured.
fn clipping<O: Optimizer>(
    optimizer: O,
    config: Option<&GradientClippingConfig>,
) -> ModuleOptimizer {
    let optimizer = ModuleOptimizer::from(optimizer);
    match config {
        Some(config) => optimizer.with_grad_clipping(config.init()),
        None => optimizer,
    }
}

/// The gradient with a share of the weight.
#[inline(always)]
fn decayed<T: Real>(gradient: T, weight: T, penalty: Option<T>) -> T {
    match penalty {
        Some(penalty) => weight * penalty + gradient,
        None => gradient,
    }
}
