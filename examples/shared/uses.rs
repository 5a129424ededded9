//! Parts of the examples that compare models over several seeds.

#![allow(dead_code, unused_imports)] // each example uses some

mod jobs; // several trainings at a time
mod random; // noise of a seed
mod scores; // means over seeds, and what is more than chance
mod statistics; // deviations, intervals, tests
mod table; // columns, or Markdown

pub use random::{normal, random};
pub use scores::{Better, Judged, compare, compare_each};
pub use statistics::{Interval, deviation, interval, mean};
pub use table::table;

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use burn::{module::Module as _, tensor::Device};
use burn_ema::model::{Mlp, MlpConfig};
use burn_ema_lab::report::picture::Picture;

use self::jobs::on_all_cores;

/// The options of every such example.
#[derive(clap::Args)]
pub struct Options {
    /// The trainings of each setting, of seeds from 1
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub seeds: u64,
    /// Print the table alone, in Markdown
    #[arg(long)]
    pub markdown: bool,
    /// The device, such as flex, ndarray or wgpu, or ws://HOST:PORT for a server of Burn's remote
    /// backend (Cargo feature `remote`); else BURN_DEVICE, else the Cargo features decide
    #[arg(long)]
    pub device: Option<String>,
}

/// A training of every seed from 1 in each setting, as many at a time as there are cores: what
/// `run` makes of the setting, the seed, and a network whose weights are the seed's.
///
/// `run` must not draw from Burn's random numbers, which are one sequence in a process.
pub fn over_seeds<S: Copy + Send, R: Send, const N: usize>(
    settings: [(&'static str, S); N],
    seeds: u64,
    (config, device): (&MlpConfig, &Device),
    run: impl Fn((S, u64, Mlp)) -> Result<R> + Sync,
) -> Result<Vec<(&'static str, Vec<R>)>> {
    let start = |seed| -> Result<Mlp> {
        device.seed(seed);
        // Burn draws a weight when it is first read, as `valid` does; a clone is not drawn.
        Ok(config.init(&device.clone().autodiff())?.valid().train())
    };
    let all = settings.iter().flat_map(|(_, of)| (1..=seeds).map(move |seed| (*of, seed)));
    let all = all.map(|(of, seed)| Ok((of, seed, start(seed)?))).collect::<Result<Vec<_>>>()?;
    let mut runs = on_all_cores(all, run)?.into_iter();
    Ok(settings.map(|(name, _)| (name, runs.by_ref().take(seeds as usize).collect())).into())
}

/// Writes pictures as `NAME.svg` to a directory, which is made if it does not exist.
pub fn write<const N: usize>(directory: &Path, pictures: [(&str, Picture); N]) -> Result<()> {
    fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
    for (name, picture) in pictures {
        let path = directory.join(name).with_extension("svg");
        fs::write(&path, picture.file()).with_context(|| path.display().to_string())?;
    }
    Ok(())
}
