//! What a network takes to answer, where nothing is learned.

use anyhow::Result;
use burn::module::Module;
use serde_json::json;

use crate::{
    contest::{Claim, Contest, Contestant},
    figures::{Bar, Unit},
    worker::Torch,
    workload::{Network, device},
};

/// Answers to all rows of a network's batch, in at most so many microseconds.
pub fn beside(name: &str, network: &Network, most: Bar, torch: &Torch) -> Result<Contest> {
    let mlp = network.init(&device())?.valid();
    let inputs = network.rows(&device()).inputs.inner();
    let ours = Contestant::timed("Mlp::forward", move || {
        mlp.forward(inputs.clone());
        Ok(())
    });
    let Network { sizes, batch, .. } = network;
    let work = json!({"kind": "answer", "sizes": sizes, "batch": batch});
    Ok(Contest {
        name: name.to_owned(),
        unit: Unit::Nanoseconds,
        contestants: vec![ours, torch.contestant("PyTorch, inference mode", work)],
        claims: vec![
            Claim::new("microseconds", most, |times| times[0] / 1e3),
            Claim::ratio("times as fast as PyTorch", Bar::None, [1, 0]),
        ],
    })
}
