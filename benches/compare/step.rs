//! A training step with one average, and what the average adds to it.

use anyhow::Result;
use serde_json::json;

use crate::{
    contest::{Claim, Contest, Contestant},
    figures::{Bar, Unit},
    update::bare,
    worker::Torch,
    workload::{Hooked, Learned, Network, Optimizer, OwnLoop},
};

/// How many weights the bare loop goes over, that the limit's rate is taken from.
const LIMIT: usize = 10_000_000;

/// Steps of a network, against PyTorch's.
pub fn beside(name: &str, network: &Network, by: Optimizer, torch: &Torch) -> Result<Contest> {
    let theirs = |name, average, compiled| {
        let Network { sizes, batch, .. } = network;
        torch.contestant(
            name,
            json!({
                "kind": "step", "sizes": sizes, "batch": batch, "optimizer": by.name(),
                "average": average, "compiled": compiled,
            }),
        )
    };
    let contestants = vec![
        hooked("loop of one's own, with the hook", network, by)?,
        own("loop of one's own, without average", network, by, false)?,
        learned("Burn's Learner, with the hook", network, by)?,
        theirs("PyTorch eager, with AveragedModel", true, false),
        theirs("PyTorch compiled, with AveragedModel", true, true),
        theirs("PyTorch eager, without", false, false),
        bare("bare loop over 10 M weights", LIMIT),
        torch.contestant(
            "PyTorch's matrix products alone",
            json!({"kind": "products", "sizes": network.sizes, "batch": network.batch}),
        ),
        own("loop of one's own, with Average::update", network, by, true)?,
    ];

    let small = network.weights() < 10_000;
    let faster = Bar::AtLeast(if small && by == Optimizer::Sgd { 5.0 } else { 1.0 });
    let most = match (network.batch, small) {
        (_, true) => Bar::AtMost(3.0),
        (64, _) => Bar::AtMost(5.0),
        (512, _) => Bar::AtMost(1.5),
        _ => Bar::None,
    };
    // The faster of PyTorch's two; `min` passes over one that did not run.
    let theirs = |times: &[f64]| times[3].min(times[4]);
    let share = network.weights() as f64 / LIMIT as f64;
    let adds = |times: &[f64]| times[0] - times[1];
    Ok(Contest {
        name: name.to_owned(),
        unit: Unit::Nanoseconds,
        contestants,
        claims: vec![
            Claim::new("times as fast as PyTorch, in a loop of one's own", faster, move |times| {
                theirs(times) / times[0]
            }),
            Claim::new("times as fast as PyTorch, in Burn's Learner", faster, move |times| {
                theirs(times) / times[2]
            }),
            Claim::new(
                "what the average adds, of its bytes at the limit's rate",
                Bar::AtMost(1.25),
                move |times| adds(times) / (times[6] * share),
            ),
            Claim::new("what the average adds, % of PyTorch's step", most, move |times| {
                100.0 * adds(times) / theirs(times)
            }),
        ],
    })
}

fn own(name: &str, network: &Network, by: Optimizer, average: bool) -> Result<Contestant> {
    let mut training = OwnLoop::new(network, by, average)?;
    let rows = network.rows();
    Ok(Contestant::timed(name, move || Ok(training.step(rows.clone())?)))
}

fn hooked(name: &str, network: &Network, by: Optimizer) -> Result<Contestant> {
    let mut training = Hooked::new(network, by)?;
    let rows = network.rows();
    Ok(Contestant::timed(name, move || {
        training.step(rows.clone());
        Ok(())
    }))
}

fn learned(name: &str, network: &Network, by: Optimizer) -> Result<Contestant> {
    let mut training = Learned::new(network, by)?;
    let rows = network.rows();
    Ok(Contestant::timed(name, move || {
        training.step(rows.clone());
        Ok(())
    }))
}
