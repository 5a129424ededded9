//! Modules and loops that users bring beside the usual ones: each gives the right value or a word.

mod an_early_end; // trainings that end early
mod beside_parameters; // what a module has beside its parameters
mod nothing_to_average; // modules without anything to average
mod past_the_hook; // live that is moved past the hook, and the hook within a module
mod running_states; // running states of layers of one's own
mod stale_clones; // clones of the hook from before a training or a resume
mod the_same_step; // the same step again
mod tied; // tied parameters

use burn::{
    lr_scheduler::constant::ConstantLr,
    module::{Module, ModuleMapper, Param, ParamId, RunningState},
    nn::{Linear, LinearConfig, PositionalEncoding, PositionalEncodingConfig},
    optim::{GradientsParams, ModuleOptimizer, SgdConfig},
    store::ModuleRecord,
    tensor::{Device, Int, Tensor},
    train::{InferenceStep, Interrupter, Learner, RegressionOutput, TrainOutput, TrainStep},
};
use burn_ema::{
    Average, AverageConfig, Error, Policy, Rule,
    average::Warning,
    runs::{CommitConfig, Progress, RunModel, fit},
    train::Averaged,
};

use crate::{
    common::{Net, Plan, Points, Weights, adam, device, flat, floats, points, randomized},
    hand::with_floats,
};

const DTYPE: burn::tensor::DType = burn::tensor::DType::F32;

fn copy_of_live() -> AverageConfig {
    AverageConfig::new(Rule::ema(0.0))
}

fn averaged(seed: u64) -> Averaged<Net> {
    let config = AverageConfig::new(Rule::debiased(0.9));
    Averaged::new(Net::new(seed, &device()), [config]).unwrap().train()
}

fn sgd() -> ModuleOptimizer {
    SgdConfig::new().init()
}

/// The gradients of a batch.
fn gradients(model: &Averaged<Net>) -> GradientsParams {
    let loader = points(8, 1).to_device(&device().autodiff());
    TrainStep::step(model, loader.iter().next().unwrap().unwrap()).grads
}
