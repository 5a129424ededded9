//! Weight averaging for Burn: train one model, validate and ship its average.
//!
//! An average of the weights of the last training steps is smoother than the last weights.
//! It often does better on data that the training has not seen, and takes the memory of one more
//! copy of the weights.
//! This crate keeps such averages beside a model in Burn's own Learner, validates them, and returns
//! them as plain modules:
//!
//! - [`Averaged`](train::Averaged), the hook: a live module with its averages, for Burn's Learner;
//! - [`Average`], for a loop of your own;
//! - [`model`], a reference network;
//! - [`guide`], how to choose an average.
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
//! | rule | the formula of an average: constant decay, equal weights (SWA), power function, ... |
//! | decay | the share of the old average that one step keeps, in `[0, 1]` |
//! | step | one optimizer step |
//! | update | one change of an average, from live's weights; it may cover several steps |
//! | profile | what an average is made of: how much weight each past step has |
//! | snapshot | a copy of live that a window keeps, or an average that is stored, at one step |
//! | run | a training with its directory |
//! | commit | one complete checkpoint of a run: everything that the run needs to go on |
//!
//! # Layout
//!
//! Imports go one way: [`export`] and [`train`] import [`average`], which imports `kernel`;
//! [`model`] imports none of these.
//!
//! - [`average`]: rules, averages of any module, their profiles, and averages that are made
//!   afterwards from stored ones;
//! - `kernel`, private: the kernels that update averages;
//! - [`model`]: the perceptron, its loss, its gradients in closed form;
//! - [`export`]: saves a model as a file of Burn, safetensors or PyTorch, loads one, and merges
//!   several;
//! - [`train`]: the hook, for models and their averages in Burn's Learner;
//! - [`guide`]: how to choose an average, without code;
//! - `runs`: trainings that commit and go on, in a crate of its own, `burn-ema-runs`;
//! - `fast`: kernels for training on the CPU, in a crate of its own, `burn-ema-fast`.
//!
//! `export`, `train`, `runs` and `fast` are behind features of these names.
//!
//! # Invariants
//!
//! - The optimizer sees live alone. An average has parameter ids of its own, no gradients and no
//!   autodiff.
//! - An average is updated once per optimizer step, never once per micro-batch.
//! - Parameters of live and of an average are matched by path. A difference between the two is an
//!   error; nothing is skipped silently.
//! - How often an average is updated does not change its width.
//! - An average takes no NaN and no infinity from live, unless this is allowed.
//! - An operation that fails leaves what it was given as it was.
//! - An average with decay 0 equals live, bit for bit.
//! - A commit is whole or not there. Older commits are removed only after the new one was read
//!   back.
//! - On one CPU device, a resumed run has the same bits as one that was never interrupted.
//! - The library prints nothing, ends no process and does not panic on data.

#![cfg_attr(not(feature = "runs"), allow(rustdoc::broken_intra_doc_links))]
#![deny(unsafe_code)] // except in the kernels, where each block says why it is sound
#![warn(missing_docs)]
// The types of wgpu and cubecl nest deeper than the compiler's default limit.
#![recursion_limit = "256"]

pub mod average;
#[cfg(feature = "export")]
pub mod export;
pub mod guide;
mod kernel;
pub mod model;
#[cfg(any(feature = "export", feature = "tui"))]
mod next;
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
