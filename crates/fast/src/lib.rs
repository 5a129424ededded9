//! CPU kernels for training with Burn: optimizers whose step is one pass, and a dense layer that is
//! one operation.
//!
//! # Optimizers
//!
//! [`SgdConfig`], with momentum or without, [`AdamConfig`] and [`AdamWConfig`] are used like Burn's
//! configurations of the same names. Their optimizers give the results of Burn's, with the same
//! bits on Flex and ndarray. The records are Burn's too, so that a training can change from Burn's
//! optimizer to one of these and back.
//! A step of Burn's optimizers is several operations, each of which reads and writes tensors of the
//! size of the weights.
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
//! A tensor with one owner is changed in place: the moments, and the weights of a model that was
//! not cloned, as in the example above.
//! Burn's Learner clones its model at every step; there the new weights overwrite their gradient.
//! If the optimizer itself was cloned too, the new moments go to new memory.
//!
//! # Layer and loss
//!
//! [`dense`] is a dense layer as one step of autodiff: product, bias and [`Nonlinearity`]. Of what
//! the layer computes, only the output is kept for the gradients.
//! [`half_squared_errors`] is a loss as one step.
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
//! # Backends
//!
//! The optimizers' pass runs on Flex and, with the feature `ndarray`, on ndarray; the kernels of
//! the layer and the loss run on Flex. All are for f32 and f64.
//! They are vectorised. All but the loss use up to 16 threads for large tensors, the optimizers
//! for 32,768 numbers or more. The bits do not depend on the number of threads.
//! On other devices, for other dtypes and in a build with the feature `portable`, everything is
//! computed by Burn's operations.

#![deny(unsafe_code)] // except in the kernels, where each block says why it is sound
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

/// The optimizer of a module, which clips gradients by `config`; `None` for no clipping.
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

/// The gradient plus `penalty` times the weight; the gradient alone if `penalty` is `None`.
#[inline(always)]
fn decayed<T: Real>(gradient: T, weight: T, penalty: Option<T>) -> T {
    match penalty {
        Some(penalty) => weight * penalty + gradient,
        None => gradient,
    }
}
