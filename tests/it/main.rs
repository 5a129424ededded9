//! Integration tests, linked into one binary.

mod common; // models, loaders and trainings that the others share

#[cfg(feature = "train")]
mod artifacts; // the committed run is what its command makes
mod average; // `Average` against oracle vectors, its pairing, its storage
mod backprop; // gradients in closed form against PyTorch, autodiff, central differences
#[cfg(feature = "train")]
mod examples; // the example programs, as a user runs them
#[cfg(feature = "train")]
mod hook; // `Averaged` under every strategy of Burn's Learner, against a loop by hand
#[cfg(feature = "train")]
mod memory; // one copy of the weights per average
#[cfg(feature = "train")]
mod metrics; // live and average beside each other in Burn's metrics
mod mlp; // the perceptron's configuration and errors
#[cfg(feature = "train")]
mod resume; // records of the hooked module: resume, refusals, added and dropped averages
