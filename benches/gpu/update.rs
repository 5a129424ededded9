//! One update of an average on a GPU, against what the card copies and PyTorch's.

use std::time::Instant;

use anyhow::Result;
use burn::tensor::Device;
use burn_ema::{AverageConfig, NonFinite};
use burn_ema_lab::device::Selected;
use serde_json::json;

use crate::{
    contest::{Claim, Contest, Contestant},
    copy,
    figures::{Bar, Unit},
    peer::Peer,
    weights::{M_25, Tensors, Weights},
    workload::average,
};

/// Weights that are averaged.
pub struct Set {
    pub name: &'static str,
    pub tensors: Tensors,
    /// True if memory is what limits an update, and not the launch of kernels.
    is_large: bool,
}

/// All that are measured on a GPU.
pub const SETS: &[Set] = &[
    Set { name: "322-tensors-25.8M", tensors: M_25, is_large: true },
    TINY,
    Set { name: "100-tensors-208k", tensors: &[[100, 2080]], is_large: false },
];

/// Those for a driver in software.
pub const SMALL: &[Set] =
    &[Set { name: "322-tensors-81k", tensors: &[[161, 500], [161, 4]], is_large: true }, TINY];

const TINY: Set = Set { name: "100-tensors-2080", tensors: &[[60, 30], [40, 7]], is_large: false };

impl Set {
    /// How many weights it has.
    pub fn weights(&self) -> usize {
        self.tensors.iter().map(|[count, size]| count * size).sum()
    }
}

pub fn beside(name: &str, set: &Set, selected: &Selected, peer: &Peer) -> Result<Contest> {
    let theirs = |name, kind| peer.contestant(name, json!({"kind": kind, "tensors": set.tensors}));
    let [rate, faster] = match set.is_large {
        true => [Bar::AtLeast(0.85), Bar::None],
        false => [Bar::None, Bar::AtLeast(1.0)],
    };
    let unchecked = average().with_non_finite(NonFinite::Take);
    // Of the faster copy's.
    let rate_of = |what, place| Claim::ratio(what, rate, [3, place]).against_fastest([3, 4]);
    Ok(Contest {
        name: name.to_owned(),
        unit: Unit::Nanoseconds,
        contestants: vec![
            updates("Average::update", average(), set, &selected.device)?,
            updates("Average::update without its check", unchecked, set, &selected.device)?,
            theirs("PyTorch _foreach_lerp_", "lerp"),
            theirs("a copy of 12 bytes a weight, by PyTorch", "copy"),
            copy::contestant("a copy of 12 bytes a weight, by wgpu", set.weights(), selected),
        ],
        claims: vec![
            rate_of("rate, of the faster copy's", 0),
            rate_of("rate without the check, of the faster copy's", 1),
            Claim::ratio("times as fast as _foreach_lerp_", faster, [2, 0]),
            Claim::ratio("times as fast as _foreach_lerp_, without the check", faster, [2, 1]),
        ],
    })
}

/// Updates until the device is done.
fn updates(name: &str, config: AverageConfig, set: &Set, device: &Device) -> Result<Contestant> {
    let live = Weights::new(set.tensors, device);
    let (mut average, device) = (config.init(&live)?, device.clone());
    let mut step = 0;
    Ok(Contestant::new(name, move |repeat| {
        let start = Instant::now();
        for _ in 0..repeat {
            step += 1;
            average.update(&live, step)?;
        }
        device.sync()?;
        Ok(start.elapsed().as_secs_f64() * 1e9)
    }))
}
