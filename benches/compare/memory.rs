//! The most memory that a training takes, in a process of its own.

use std::{fs, process::Command};

use anyhow::{Context, Result, ensure};
use burn_ema_lab::run::OptimizerKind;
use clap::ValueEnum;

use crate::{
    contest::{Claim, Contest, Contestant},
    figures::{Bar, Unit},
    workload::{Learned, Network, OwnLoop, device},
};

/// 25 M weights, and rows so few that they do not count.
const NETWORK: Network =
    Network { name: "25M", sizes: &[1024, 2048, 2048, 2048, 2048, 2048, 2048, 1024], batch: 16 };

/// How it trains.
#[derive(Clone, Copy, ValueEnum)]
pub enum Through {
    Own,
    Learner,
}

/// With Adam and one average, against the live weights, their gradients, two moments and the
/// average.
pub fn peak(name: &str) -> Result<Contest> {
    let needed = (NETWORK.weights() * size_of::<f32>() * 5) as f64;
    let child = |name, through: Through| Contestant::once(name, move || measure(through));
    let claim = |what, place: usize| {
        Claim::new(what, Bar::AtMost(1.15), move |peaks| peaks[place] / needed)
    };
    Ok(Contest {
        name: name.to_owned(),
        unit: Unit::Bytes,
        contestants: vec![
            child("loop of one's own", Through::Own),
            child("Burn's Learner", Through::Learner),
        ],
        claims: vec![
            claim("peak in a loop of one's own, of 5 copies of the weights", 0),
            claim("peak in Burn's Learner, of 5 copies of the weights", 1),
        ],
    })
}

/// Starts this program as one that only trains.
fn measure(through: Through) -> Result<f64> {
    let value = through.to_possible_value();
    let name = value.as_ref().map_or("", |value| value.get_name());
    let child = Command::new(std::env::current_exe()?)
        .args(["--peak", name])
        // Huge pages round each tensor up to whole ones: memory that is not needed.
        .env("MIMALLOC_ALLOW_THP", "0")
        .output()?;
    ensure!(child.status.success(), "{}", String::from_utf8_lossy(&child.stderr));
    String::from_utf8(child.stdout)?.trim().parse().context("a peak that is no number")
}

/// Trains for some steps, and prints the peak of this process in bytes.
pub fn train(through: Through) -> Result<()> {
    const STEPS: usize = 5;
    let device = device();
    match through {
        Through::Own => {
            let mut training = OwnLoop::new(&NETWORK, OptimizerKind::Adam, true, &device)?;
            (0..STEPS).try_for_each(|_| training.step(NETWORK.rows(&device)))?;
        }
        Through::Learner => {
            let mut training = Learned::new(&NETWORK, OptimizerKind::Adam, &device)?;
            (0..STEPS).for_each(|_| training.step(NETWORK.rows(&device)));
        }
    }
    let status = fs::read_to_string("/proc/self/status").context("only Linux reports the peak")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.and_then(|peak| peak.split_whitespace().next()).context("no VmHWM")?;
    println!("{}", peak.parse::<u64>()? * 1024);
    Ok(())
}
