//! Trainings of Burn that survive whatever ends them, for any Burn model.
//!
//! A training commits as it goes: the model, the optimizer, the schedule, the place in the data and
//! the metrics, whole and durable, or not there. Killed, stopped, or failed on a full disk, it goes
//! on from its newest whole commit, and on one device it is then, bit for bit, the training that
//! was never disturbed.
//!
//! ```no_run
//! # use burn::{module::Module, nn::Linear, tensor::{Device, Tensor}};
//! # use burn::train::{InferenceStep, RegressionOutput, SupervisedTraining, TrainOutput, TrainStep};
//! # #[derive(Module, Debug)] struct MyModel { layer: Linear }
//! # type Output = RegressionOutput;
//! # impl TrainStep for MyModel {
//! #     type Input = Tensor<2>; type Output = Output;
//! #     fn step(&self, batch: Tensor<2>) -> TrainOutput<Output> { todo!() }
//! # }
//! # impl InferenceStep for MyModel {
//! #     type Input = Tensor<2>; type Output = Output;
//! #     fn step(&self, batch: Tensor<2>) -> Output { todo!() }
//! # }
//! use burn::{lr_scheduler::constant::ConstantLr, optim::AdamConfig};
//! use burn_ema_runs::{CommitConfig, RunModel, Signals, fit};
//!
//! impl RunModel for MyModel {} // all that a plain model needs
//!
//! # fn run(training: SupervisedTraining<MyModel>, model: MyModel) -> burn_ema_runs::Result<()> {
//! let signals = Signals::install(training.interrupter())?; // Ctrl-C ends it after a commit
//! let result = fit(training, model, AdamConfig::new().init(), ConstantLr::new(1e-3))
//!     .with_commits(CommitConfig::new("runs/a").with_every_steps(Some(500)))?
//!     .resume()? // from the newest whole commit; from the beginning where there is none
//!     .launch()?; // every error is an `Err`
//! let model = result.model;
//! # let _ = (signals, model);
//! # Ok(())
//! # }
//! ```
//!
//! A model that is more than its weights, such as `burn_ema::train::Averaged` with its averages,
//! says so by the methods of [`RunModel`].
//!
//! # The directory of a run
//!
//! ```text
//! LOCK               who trains it, while someone does
//! commits/           from which the run goes on: the newest, and the best in validation
//!   epoch-0040/      after 40 epochs: model.bpk, optimizer.bpk, scheduler.bpk, MANIFEST.json
//! metrics.csv        the metrics of each batch and epoch
//! ```
//!
//! A manifest is JSON, with the digest of each other file, and a last line with its own.
//! Programs keep files of their own beside these.
//!
//! # When it commits
//!
//! - at the end of every epoch, after its validation;
//! - within an epoch after so many [steps](CommitConfig::with_every_steps) or so much
//!   [time](CommitConfig::with_every);
//! - where it is [stopped](burn::train::Interrupter::stop), as by a [signal](Signals).
//!
//! A commit is written beside the others, synced, renamed to its place, read back and only then
//! followed by the removal of older ones. See [`Fit`] for what holds with which strategy.
//!
//! # Invariants
//!
//! - A commit is whole or not there; no older one is removed before it was read back.
//! - A resume takes nothing that differs from what this program would save, and says where.
//! - No commit takes a NaN or an infinity, unless told to.
//! - One process at a time writes to a run.
//! - The library prints nothing but [`ProgressLines`], ends no process and does not panic on data.

#![deny(unsafe_code)]
#![warn(missing_docs)]

mod changes; // what of a configuration may differ when a run goes on
mod commits; // commits on disk: found, checked, read, written, removed
mod committer; // Burn's three checkpointers as one commit
mod config; // the settings of commits
mod epochs; // Burn's training as a loop that can stop and go on at any batch
mod fit; // a training whose errors are an `Err`
mod history; // the metrics of a run
mod lock; // one process at a time
mod manifest; // what a commit says of itself
mod model; // what is asked of a model
mod progress; // one line an epoch
mod signals; // Ctrl-C and `kill`
mod strict; // records, loaded whole or not at all

pub use burn_ema_base::{Error, Result};
pub use changes::Change;
pub use commits::{Commit, Commits, Newest};
pub use config::CommitConfig;
pub use fit::{Fit, Resumed, fit};
pub use history::{METRICS, VALIDATED};
pub use lock::RunLock;
pub use manifest::{File, Manifest, Progress};
pub use model::{Counts, RunModel};
pub use progress::ProgressLines;
pub use signals::{Signal, Signals};
