//! The reference network: a multilayer perceptron, its loss, its gradients in closed form.
//!
//! It knows no optimizer and no Learner.

mod backprop;
mod dense;
mod loss;
mod mlp;

pub use backprop::{Backprop, LayerGradients, backprop};
pub use dense::{Activation, Dense};
pub use loss::{half_squared_error, half_squared_errors};
pub use mlp::{Mlp, MlpConfig};
