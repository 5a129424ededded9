//! One server: bit for bit the training on Flex.

use burn::{lr_scheduler::constant::ConstantLr, tensor::Device, train::Learner};
use burn_ema::{AverageConfig, Rule, runs::Commits, train::Averaged};

use crate::{
    common::{Net, Plan, adam, assert_same, flat},
    digits::{Traps, trained},
    server::Server,
};

fn averaged(seed: u64, device: &Device) -> Averaged<Net> {
    let averages = [Rule::ema(0.9), Rule::debiased(0.99)].map(AverageConfig::new);
    Averaged::new(Net::new(seed, device), averages).unwrap()
}

/// Live, its averages, and the statistics of their batch norms.
fn numbers(model: &Averaged<Net>) -> Vec<f64> {
    let averages = (0..2).map(|index| flat(&model.average(index).unwrap(), true));
    [flat(model.live(), true)].into_iter().chain(averages).flatten().collect()
}

/// By Burn's loop, with its checkpoints, and from these on another server.
#[test]
fn burns_loop_trains_a_batch_norm_as_on_flex() {
    for seed in 0..3 {
        let [here, there, stopped] = [(); 3].map(|()| tempfile::tempdir().unwrap());
        let plan = |directory: &tempfile::TempDir, device| Plan {
            devices: vec![device],
            checkpoints: true,
            epochs: 4,
            ..Plan::new(directory.path())
        };
        let local = Device::flex();
        let local = numbers(&plan(&here, local.clone()).launch(averaged(seed, &local)).model);

        let server = Server::start();
        let device = server.device();
        let remote = plan(&there, device.clone()).launch(averaged(seed, &device)).model;
        assert_same(&numbers(&remote), &local);

        Plan { epochs: 2, ..plan(&stopped, device.clone()) }.launch(averaged(seed, &device));
        drop((remote, server));
        let server = Server::start();
        let device = server.device();
        let plan = Plan { resume: Some(2), ..plan(&stopped, device.clone()) };
        assert_same(&numbers(&plan.launch(averaged(seed + 9, &device)).model), &local);
    }
}

/// By the loop that commits, which makes the same commits.
#[test]
fn a_training_with_commits_is_that_on_flex() {
    for seed in 0..3 {
        let [here, there] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let local = trained(here.path(), seed, &Device::flex(), &Traps::none()).unwrap();
        let server = Server::start();
        let remote = trained(there.path(), seed, &server.device(), &Traps::none()).unwrap();
        assert_same(&remote, &local);
        let [ours, theirs] = [&here, &there].map(|run| Commits::of(run.path()).list().unwrap());
        assert!(ours.len() > 4 && ours == theirs, "{ours:?} {theirs:?}");
    }
}

/// `grad_sharded` is called by the distributed strategy before it trains; Burn 0.22 cannot go on
/// from there without CUDA.
#[test]
fn the_distributed_strategys_sharding_is_survived() {
    let server = Server::start();
    let device = server.device().autodiff();
    let start = averaged(0, &device);
    let before = numbers(&start);
    let mut learner = Learner::new(start, adam(), ConstantLr::new(0.1));
    learner.fork(&device);
    learner.grad_sharded();
    assert_same(&numbers(&learner.model()), &before);
}

/// A run of one machine goes on at another, in either direction.
#[test]
fn a_run_moves_between_flex_and_a_server() {
    let whole = tempfile::tempdir().unwrap();
    let whole = trained(whole.path(), 4, &Device::flex(), &Traps::none()).unwrap();
    for to_server in [true, false] {
        let run = tempfile::tempdir().unwrap();
        let server = Server::start();
        let [first, second] = match to_server {
            true => [Device::flex(), server.device()],
            false => [server.device(), Device::flex()],
        };
        let stop = Traps {
            train: std::sync::Arc::new(|batch| assert!(batch < 6, "the end of the first part")),
            ..Traps::none()
        };
        let error = trained(run.path(), 4, &first, &stop).unwrap_err().to_string();
        assert!(error.contains("the end of the first part"), "{error}");
        assert_same(&trained(run.path(), 4, &second, &Traps::none()).unwrap(), &whole);
    }
}
