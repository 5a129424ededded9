//! Weight averaging for Burn: train one model, validate and ship its average.
//!
//! An average of the weights of a training's last steps is smoother than the last weights, and
//! often does better on data that was not trained on, at the memory of one copy.
//! This crate keeps such averages beside a model in Burn's own Learner, validates them, and hands
//! them out as plain modules:
//!
//! - [`Averaged`](train::Averaged), the hook: a live module with its averages, for Burn's Learner;
//! - [`Average`], for a loop of your own;
//! - [`model`], a reference network;
//! - [`guide`], which average to use.
//!
//! ```
//! use burn::nn::LinearConfig;
//! use burn_ema::{AverageConfig, Rule};
//!
//! let model = LinearConfig::new(2, 3).init(&Default::default());
//! let mut average = AverageConfig::new(Rule::ema(0.99)).init(&model)?;
//! for step in 1..=10 {
//!     // ... one optimizer step on `model` ...
//!     average.update(&model, step)?;
//! }
//! let smoothed = average.module(); // a plain `Linear`
//! # let _ = smoothed;
//! # Ok::<_, burn_ema::Error>(())
//! ```
//!
//! # Words
//!
//! | word | meaning |
//! |---|---|
//! | live | the module that the optimizer moves |
//! | average | the smoothed copy that is validated and shipped |
//! | rule | which average: constant decay, equal weights (SWA), power function, ... |
//! | decay | the share of the old average that one step keeps, in `[0, 1)` |
//! | step | one optimizer step |
//! | update | one averaging; it may cover several steps |
//! | profile | what an average is made of: how much weight each past step has |
//! | snapshot | what a window keeps of live, and what is stored of an average, at a step |
//! | run | a training with its directory |
//! | commit | one complete checkpoint in it: everything that the run needs to go on |
//!
//! # Layout
//!
//! Imports run one way: `kernel <- average <- {export, train}`; `model` imports none of these.
//!
//! - [`average`]: rules, averages of any module, their profiles, the kernels that update them,
//!   averages made afterwards of stored ones;
//! - [`model`]: the perceptron, its loss, its gradients in closed form;
//! - [`export`]: a model as a file of Burn, safetensors or PyTorch, and from one;
//! - [`train`]: Burn's Learner around models and averages: the hook;
//! - [`guide`]: which average to use, without code;
//! - `runs`: trainings that commit and go on, a crate of its own, `burn-ema-runs`;
//! - `fast`: kernels for training on the CPU, a crate of its own, `burn-ema-fast`.
//!
//! Each but the first two and the guide is behind a feature of its name.
//!
//! # Invariants
//!
//! - The optimizer sees live alone; an average has no gradient and no autodiff, and ids of its
//!   own.
//! - One update an optimizer step, never one a micro-batch.
//! - Parameters pair by path; a difference is an error, and nothing is skipped in silence.
//! - How often an average is updated does not change its width.
//! - An average takes no NaN and no infinity in, unless told to.
//! - A failed operation leaves what it was given as it was.
//! - Decay 0 is live, bit for bit.
//! - A commit is whole or not there; no older one is removed before it was read back.
//! - A resumed run is, bit for bit, the one that was never disturbed.
//! - The library prints nothing, ends no process and does not panic on data.

#![cfg_attr(not(feature = "runs"), allow(rustdoc::broken_intra_doc_links))]
#![deny(unsafe_code)] // but in the kernels, each block with its proof
#![warn(missing_docs)]
// Wide types of wgpu and cubecl take the compiler deep.
#![recursion_limit = "256"]

pub mod average;
#[cfg(feature = "export")]
pub mod export;
pub mod guide;
mod kernel;
pub mod model;
#[cfg(feature = "train")]
pub mod train;

#[cfg(feature = "train")]
pub use average::reestimate_statistics;
pub use average::{Average, AverageConfig, Clock, NonFinite, Policy, Profile, Rule};
pub use burn_ema_base::{Error, Result};
#[cfg(feature = "fast")]
pub use burn_ema_fast as fast;
#[cfg(feature = "runs")]
pub use burn_ema_runs as runs;

/// The code of the README, compiled and run as a test.
#[cfg(all(doctest, feature = "runs"))]
#[doc = include_str!("../README.md")]
struct Readme;
