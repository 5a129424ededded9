//! Burn's distributed strategy on servers, which needs no CUDA from Burn 0.23 on: each worker has
//! an optimizer and averages of its own, and only gradients are exchanged.

use burn::{
    lr_scheduler::constant::ConstantLr,
    module::Module as _,
    remote::RemoteHost,
    tensor::{
        Device,
        distributed::{DistributedConfig, ReduceOperation},
    },
    train::{ExecutionStrategy, Learner, TrainingStrategy},
};
use burn_ema::{AverageConfig, Rule, train::Averaged};

use crate::{
    common::{Net, Plan, adam, assert_same, flat},
    server::{Server, on_servers},
};

/// Live and the averages of a training with batch norm on these devices, with their statistics.
fn trained(devices: &[Device], seed: u64, distributed: bool) -> [Vec<f64>; 3] {
    let directory = tempfile::tempdir().unwrap();
    let configs = [0.9, 0.99].map(|decay| AverageConfig::new(Rule::ema(decay)));
    let model = Averaged::new(Net::new(seed, &devices[0]), configs).unwrap();
    let plan = Plan { devices: devices.to_vec(), ..Plan::new(directory.path()) };
    let mut training = plan.training();
    if distributed {
        let config = DistributedConfig { all_reduce_op: ReduceOperation::Sum };
        let strategy = ExecutionStrategy::ddp(devices.to_vec(), config);
        training = training.with_training_strategy(TrainingStrategy::Default(strategy));
    }
    let result = training.launch(Learner::new(model.train(), adam(), ConstantLr::new(0.02)));
    assert!(result.error.is_none(), "{:?}", result.error);
    let model = result.model;
    let averages = [0, 1].map(|index| model.average(index).unwrap());
    [model.live(), &averages[0], &averages[1]].map(|net| flat(net, true))
}

/// The strategy for several devices adds the gradients up, and so does this one as it is set here.
#[test]
fn averages_are_those_of_the_strategy_for_several_devices() {
    for seed in 0..3 {
        let several = trained(&[Device::flex(), Device::flex()], seed, false);
        let two = on_servers([&[] as &[&str]; 2], |servers| {
            trained(&servers.each_ref().map(Server::device), seed, true)
        });
        let one = on_servers([&["--devices", "2"]], |[server]| {
            let host = RemoteHost::websocket(&server.address);
            trained(&host.devices().unwrap().into_iter().collect::<Vec<_>>(), seed, true)
        });
        for (index, several) in several.iter().enumerate() {
            assert_same(&two[index], several);
            assert_same(&one[index], several);
        }
    }
}
