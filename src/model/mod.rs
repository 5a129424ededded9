//! The reference network: a multilayer perceptron, its loss, its gradients in closed form.
//!
//! [`Mlp`] learns [`Batch`]es under Burn's Learner with the feature `train`; it knows no optimizer.

mod backprop;
mod container;
mod dense;
#[cfg(feature = "train")]
mod learn;
mod loss;
mod mlp;

pub use backprop::{Backprop, LayerGradients, backprop};
pub use dense::{Activation, Dense};
#[cfg(feature = "train")]
pub use learn::{Answers, Batch};
pub use loss::{half_squared_error, half_squared_errors};
pub use mlp::{Mlp, MlpConfig};
