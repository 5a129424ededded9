//! The validation rows of the digits by which a greedy merge scores.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Result, ensure};
use burn::{data::dataloader::DataLoader, tensor::Device};
use burn_ema::model::{Batch, MlpConfig};
use burn_ema_lab::{
    data::{Prepared, digits, loader},
    run::RunDirectory,
};

use crate::{origin, shared};

/// The rows of a split, and what is known of the files that are scored by them.
pub struct Rows {
    /// The network of the run, or of the one that ships.
    pub network: MlpConfig,
    seed: u64,
    batch_size: usize,
    /// The files of runs with other seeds, each with its seed, and those of unknown runs.
    others: Vec<(PathBuf, Option<u64>)>,
}

impl Rows {
    /// The rows of the split of the seed that was asked for, or else of the run, or of the first file
    /// that shows one.
    pub fn find(run: Option<&Path>, files: &[PathBuf], asked: Option<u64>) -> Result<Self> {
        let shipped = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../artifacts/digits"));
        let config = RunDirectory::open(run.unwrap_or(shipped))?.config()?;
        ensure!(
            config.data.is_none(),
            "--greedy scores by the digits, and this run learned a table"
        );
        let seeds = files.iter().map(|file| match run {
            Some(_) => (file.clone(), Some(config.seed)),
            None => (file.clone(), origin::seed(file)),
        });
        let seeds: Vec<_> = seeds.collect();
        let known = seeds.iter().find_map(|(_, seed)| *seed);
        let Some(seed) = asked.or(known) else {
            anyhow::bail!(
                "--greedy scores by rows that no file may have learned, and no file shows by which \
                 seed those of its training were split: type --seed N, the one of `train --seed` \
                 (1 where none was given)"
            );
        };
        let others = seeds.into_iter().filter(|(_, of_file)| *of_file != Some(seed)).collect();
        Ok(Self { network: config.model, seed, batch_size: config.batch_size, others })
    }

    /// The batches of the rows.
    pub fn load(&self, device: &Device) -> Result<Arc<dyn DataLoader<Batch>>> {
        let valid = Prepared::new(&digits()?, self.seed)?.valid;
        Ok(loader(valid, self.batch_size, None, device)?)
    }

    /// Prints which rows they are, and which files may have learned some of them.
    pub fn print(&self) {
        let seed = self.seed;
        println!("the rows are those of the validation with the seed {seed}");
        for (file, of_file) in &self.others {
            let file = shared::word(file);
            match of_file {
                Some(other) => println!(
                    "warning: {file} is of a run with the seed {other}: it has learned some of these \
                     rows, and looks better than it is"
                ),
                None => println!(
                    "warning: {file} does not show the seed of its run: with another than {seed} it \
                     has learned some of these rows, and looks better than it is"
                ),
            }
        }
    }
}
