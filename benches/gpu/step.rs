//! A training step on a GPU with and without the hook, and PyTorch's.

use std::time::Instant;

use anyhow::Result;
use burn::tensor::Device;
use burn_ema::model::Batch;
use burn_ema_lab::run::OptimizerKind;
use serde_json::json;

use crate::{
    contest::{Claim, Contest, Contestant},
    figures::{Bar, Unit},
    peer::Peer,
    workload::{Hooked, Learned, Network, OwnLoop},
};

/// A step of a training on the rows of a batch.
pub type Step = Box<dyn FnMut(Batch) -> Result<()>>;

/// The ways to train on a GPU that are measured, by name.
pub fn trainings(
    network: &Network,
    by: OptimizerKind,
    device: &Device,
) -> Result<[(&'static str, Step); 4]> {
    let mut hooked = Hooked::new(network, by, device)?;
    let mut learned = Learned::new(network, by, device)?;
    let mut unchecked = Hooked::unchecked(network, by, device)?;
    let mut without = OwnLoop::new(network, by, false, device)?;
    let infallible = |mut step: Box<dyn FnMut(Batch)>| -> Step {
        Box::new(move |rows| {
            step(rows);
            Ok(())
        })
    };
    Ok([
        ("the hook in a loop of one's own", infallible(Box::new(move |rows| hooked.step(rows)))),
        ("the hook in Burn's Learner", infallible(Box::new(move |rows| learned.step(rows)))),
        (
            "the hook without its checks, in a loop of one's own",
            infallible(Box::new(move |rows| unchecked.step(rows))),
        ),
        ("a loop of one's own, without average", Box::new(move |rows| Ok(without.step(rows)?))),
    ])
}

/// Steps on the same rows again and again, until the device is done, and PyTorch's.
pub fn beside(
    name: &str,
    network: &Network,
    by: OptimizerKind,
    device: &Device,
    peer: &Peer,
) -> Result<Contest> {
    let theirs = |name, average, compiled| {
        let Network { sizes, batch, .. } = network;
        peer.contestant(
            name,
            json!({
                "kind": "step", "sizes": sizes, "batch": batch, "optimizer": by.name(),
                "average": average, "compiled": compiled,
            }),
        )
    };
    let mut contestants = Vec::new();
    for (name, mut step) in trainings(network, by, device)? {
        let (device, rows) = (device.clone(), network.rows(device));
        contestants.push(Contestant::new(name, move |repeat| {
            let start = Instant::now();
            (0..repeat).try_for_each(|_| step(rows.clone()))?;
            device.sync()?;
            Ok(start.elapsed().as_secs_f64() * 1e9)
        }));
    }
    contestants.extend([
        theirs("PyTorch eager, with AveragedModel", true, false),
        theirs("PyTorch eager, without", false, false),
        theirs("PyTorch compiled, with AveragedModel", true, true),
    ]);
    // Than the faster of PyTorch's two.
    let faster = |what, place| Claim::ratio(what, Bar::None, [4, place]).against_fastest([4, 6]);
    Ok(Contest {
        name: name.to_owned(),
        unit: Unit::Nanoseconds,
        contestants,
        claims: vec![
            faster("times as fast as PyTorch with AveragedModel, the hook in an own loop", 0),
            faster("times as fast as PyTorch with AveragedModel, the hook in Burn's Learner", 1),
            faster("times as fast as PyTorch with AveragedModel, the hook without its checks", 2),
            Claim::ratio("times as fast as PyTorch eager, both without average", Bar::None, [5, 3]),
            Claim::ratio("time with the hook, of that without", Bar::None, [0, 3]),
            Claim::ratio(
                "time with the hook without its checks, of that without",
                Bar::None,
                [2, 3],
            ),
        ],
    })
}
