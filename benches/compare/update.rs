//! One update of an average, or of several, against the machine's limit and PyTorch.

use anyhow::Result;
use burn::tensor::Device;
use burn_ema::{Average, AverageConfig, NonFinite, average::update_all};
use rayon::prelude::*;
use serde_json::json;

use crate::{
    contest::{Claim, Contest, Contestant},
    figures::{Bar, Unit},
    weights::{M_25, Tensors, Weights},
    worker::Torch,
    workload::average,
};

/// What a loop over two flat arrays does on all cores: the machine's limit, at 12 bytes a weight.
pub fn bare(name: &str, weights: usize) -> Contestant {
    /// Small enough that cores which are slower for a while get less to do.
    const BLOCK: usize = 1 << 16;
    let live: Vec<f32> = (0..weights).map(|i| (i % 1000) as f32 * 1e-3).collect();
    let mut average = vec![0.5; weights];
    Contestant::timed(name, move || {
        average.par_chunks_mut(BLOCK).zip(live.par_chunks(BLOCK)).for_each(|(a, w)| mix(a, w));
        Ok(())
    })
}

#[multiversion::multiversion(targets = "simd")]
fn mix(average: &mut [f32], live: &[f32]) {
    average.iter_mut().zip(live).for_each(|(a, w)| *a += 0.001 * (w - *a));
}

/// So many averages of the same weights in the host's memory, updated by a function.
fn averages(
    name: &str,
    config: &AverageConfig,
    tensors: Tensors,
    count: usize,
    mut update: impl FnMut(&mut [Average<Weights>], &Weights, u64) -> burn_ema::Result<()> + 'static,
) -> Result<Contestant> {
    let live = Weights::new(tensors, &Device::flex());
    let mut averages = (0..count).map(|_| config.init(&live)).collect::<Result<Vec<_>, _>>()?;
    let mut step = 0;
    Ok(Contestant::timed(name, move || {
        step += 1;
        Ok(update(&mut averages, &live, step)?)
    }))
}

/// So many averages, one after the other.
fn single(
    name: &str,
    config: &AverageConfig,
    tensors: Tensors,
    count: usize,
) -> Result<Contestant> {
    averages(name, config, tensors, count, |averages, live, step| {
        averages.iter_mut().try_for_each(|average| average.update(live, step).map(drop))
    })
}

/// One average, with its check for numbers that are not finite and without. The check is a pass of
/// its own, and reads 4 bytes a weight; the update moves 12.
fn with_and_without_check(tensors: Tensors) -> Result<[Contestant; 2]> {
    let unchecked = average().with_non_finite(NonFinite::Take);
    Ok([
        single("Average::update", &average(), tensors, 1)?,
        single("Average::update without its check", &unchecked, tensors, 1)?,
    ])
}

/// Against the limit.
pub fn limit(name: &str, tensors: Tensors) -> Result<Contest> {
    let weights = tensors.iter().map(|[count, size]| count * size).sum();
    let [checked, unchecked] = with_and_without_check(tensors)?;
    Ok(Contest {
        name: name.to_owned(),
        unit: Unit::Nanoseconds,
        contestants: vec![checked, unchecked, bare("bare loop", weights)],
        claims: vec![
            Claim::ratio("rate, of the bare loop's", Bar::AtLeast(0.9), [2, 0]),
            Claim::ratio("rate without the check, of the bare loop's", Bar::AtLeast(0.9), [2, 1]),
        ],
    })
}

/// Against PyTorch.
pub fn beside(name: &str, tensors: Tensors, bar: f64, torch: &Torch) -> Result<Contest> {
    let theirs = |name, kind| torch.contestant(name, json!({"kind": kind, "tensors": tensors}));
    let [checked, unchecked] = with_and_without_check(tensors)?;
    Ok(Contest {
        name: name.to_owned(),
        unit: Unit::Nanoseconds,
        contestants: vec![
            checked,
            unchecked,
            theirs("PyTorch _foreach_lerp_", "lerp"),
            theirs("PyTorch AveragedModel", "averaged_model"),
        ],
        claims: vec![
            Claim::ratio("times as fast as _foreach_lerp_", Bar::AtLeast(bar), [2, 0]),
            Claim::ratio("times as fast as AveragedModel", Bar::None, [3, 0]),
            Claim::ratio(
                "times as fast as _foreach_lerp_, without the check",
                Bar::AtLeast(bar),
                [2, 1],
            ),
        ],
    })
}

/// Several at once.
pub fn together(name: &str) -> Result<Contest> {
    let at_once =
        |averages: &mut [_], live: &_, step| update_all(averages, live, step, None).map(drop);
    Ok(Contest {
        name: name.to_owned(),
        unit: Unit::Nanoseconds,
        contestants: vec![
            averages("update_all of 4 averages", &average(), M_25, 4, at_once)?,
            single("4 times Average::update", &average(), M_25, 4)?,
        ],
        claims: vec![Claim::ratio("time, of 4 single updates", Bar::AtMost(0.85), [0, 1])],
    })
}
