//! Trainings of Burn that survive whatever ends them, for any Burn model.
//!
//! While a training runs, it writes commits: the model, the optimizer, the schedule, the place in
//! the data and the metrics. A commit is whole and durable, or absent. After a kill, a stop or a
//! full disk, the training resumes from its newest whole commit. On one CPU device, it then
//! computes the same bits as a training that was never interrupted, under the conditions that
//! [`Fit`] lists.
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
//! A model that holds more than it trains, such as `burn_ema::train::Averaged` with its averages,
//! implements methods of [`RunModel`].
//!
//! # The directory of a run
//!
//! ```text
//! LOCK               the process that trains the run, while one does
//! commits/           the last two commits and the best in validation, by default
//!   epoch-0040/      after 40 epochs: model.bpk, optimizer.bpk, scheduler.bpk, MANIFEST.json
//! metrics.csv        the metrics of each batch and epoch
//! ```
//!
//! A manifest is JSON with the SHA-256 of each other file of the commit, followed by a line with
//! the SHA-256 of the JSON. Programs may keep other files in the directory of the run.
//!
//! # When it commits
//!
//! - at the end of every epoch, after its validation;
//! - within an epoch, after a number of [steps](CommitConfig::with_every_steps) or a
//!   [time](CommitConfig::with_every), if one is set;
//! - when it is [stopped](burn::train::Interrupter::stop), for example by a [signal](Signals).
//!
//! A commit is written under a temporary name, synced, renamed and read back. Only then are older
//! commits removed. [`Fit`] lists what depends on the training strategy.
//!
//! # Invariants
//!
//! - A commit is whole or absent. Older commits are removed only after the new one was read back.
//! - A resume refuses a commit whose parameters, optimizer state or schedule differ in name, shape
//!   or type from what this program would save. The error names the place.
//! - No commit holds a NaN or an infinity, unless
//!   [`allow_non_finite`](CommitConfig::allow_non_finite) is set.
//! - One process at a time writes to a run.
//! - The library prints nothing but [`ProgressLines`], ends no process and panics on no data.

#![deny(unsafe_code)]
#![warn(missing_docs)]

mod changes; // what of a configuration may differ when a run goes on
mod commits; // commits on disk: found, checked, read, written, removed
mod committer; // Burn's three checkpointers as one commit
mod config; // the settings of commits: where, when, and which are kept
mod epochs; // Burn's training as a loop that can stop and go on at any batch
mod fit; // a training whose errors are an `Err`
mod floats; // NaNs and infinities in a configuration
mod history; // the metrics of a run
mod lock; // one process at a time
mod manifest; // the description that a commit holds of itself
mod mean; // the mean of a metric over an epoch
mod model; // the trait of a model whose trainings can commit
mod next; // what the next version of Burn changes
mod progress; // one line per epoch
mod signals; // Ctrl-C and `kill`
mod strict; // records, loaded whole or not at all
mod warnings; // remarks on a training that are no errors

pub use burn_ema_base::{Error, Result};
pub use changes::Change;
pub use commits::{Commit, Commits, LastCommits, Newest};
pub use config::CommitConfig;
pub use fit::{Fit, Resumed, fit};
pub use history::{METRICS, VALIDATED};
pub use lock::RunLock;
pub use manifest::{File, LoaderSize, Manifest, Progress};
pub use model::{Counts, RunModel};
pub use progress::ProgressLines;
pub use signals::{Signal, Signals};
pub use warnings::Warnings;
