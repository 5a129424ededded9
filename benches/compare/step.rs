//! A training step with one average, by three ways, and what the average adds to it.

use anyhow::Result;
use burn_ema::model::Batch;
use burn_ema_lab::run::OptimizerKind;
use serde_json::json;

use crate::{
    contest::{Claim, Contest, Contestant},
    figures::{Bar, Unit},
    update::bare,
    worker::Torch,
    workload::{Hooked, Learned, Network, OwnLoop, device},
};

/// How many weights the bare loop goes over, that the limit's rate is taken from.
const LIMIT: usize = 10_000_000;

/// Steps of a network, against PyTorch's.
pub fn beside(name: &str, network: &Network, by: OptimizerKind, torch: &Torch) -> Result<Contest> {
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
    let ways = [
        "Average::update after the step",
        "the hook in a loop of one's own",
        "the hook in Burn's Learner",
    ];
    let device = device();
    let mut updated = OwnLoop::new(network, by, true, &device)?;
    let mut hooked = Hooked::new(network, by, &device)?;
    let mut learned = Learned::new(network, by, &device)?;
    let mut bare_loop = OwnLoop::new(network, by, false, &device)?;
    let without = "a loop of one's own, without average";
    let contestants = vec![
        steps(ways[0], network, move |rows| Ok(updated.step(rows)?)),
        steps(ways[1], network, move |rows| Ok(hooked.step(rows))),
        steps(ways[2], network, move |rows| Ok(learned.step(rows))),
        steps(without, network, move |rows| Ok(bare_loop.step(rows)?)),
        theirs("PyTorch eager, with AveragedModel", true, false),
        theirs("PyTorch compiled, with AveragedModel", true, true),
        theirs("PyTorch eager, without", false, false),
        bare("bare loop over 10 M weights", LIMIT),
        torch.contestant(
            "PyTorch's matrix products alone",
            json!({"kind": "products", "sizes": network.sizes, "batch": network.batch}),
        ),
    ];

    let small = network.weights() < 10_000;
    let faster = Bar::AtLeast(if small && by == OptimizerKind::Sgd { 5.0 } else { 1.0 });
    let most = match (network.batch, small) {
        (_, true) => Bar::AtMost(3.0),
        (64, _) => Bar::AtMost(5.0),
        (512, _) => Bar::AtMost(1.5),
        _ => Bar::None,
    };
    // PyTorch's two.
    let theirs = [4, 5];
    let share = network.weights() as f64 / LIMIT as f64;
    let mut claims = Vec::new();
    for (index, way) in ways.into_iter().enumerate() {
        let name = format!("times as fast as PyTorch, by {way}");
        claims.push(Claim::ratio(&name, faster, [theirs[0], index]).against_fastest(theirs));
    }
    // With the guard of the optimizer's steps, which is the hook's.
    for (index, way) in ways.into_iter().enumerate().take(2) {
        let adds = move |times: &[f64]| times[index] - times[3];
        let name = format!("what {way} adds, of the average's bytes at the limit's rate");
        let of_bytes = move |times: &[f64]| adds(times) / (times[7] * share);
        claims.push(Claim::new(&name, Bar::AtMost(1.25), of_bytes));
        let name = format!("what {way} adds, % of PyTorch's step");
        let of_theirs = move |times: &[f64]| 100.0 * adds(times) / times[theirs[0]];
        claims.push(Claim::new(&name, most, of_theirs).against_fastest(theirs));
    }
    Ok(Contest { name: name.to_owned(), unit: Unit::Nanoseconds, contestants, claims })
}

/// Steps of one way to train, on the same rows again and again.
fn steps(
    name: &str,
    network: &Network,
    mut step: impl FnMut(Batch) -> Result<()> + 'static,
) -> Contestant {
    let rows = network.rows(&device());
    Contestant::timed(name, move || step(rows.clone()))
}
