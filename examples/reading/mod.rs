//! The options of `train` that say how a CSV is read.

use std::collections::BTreeSet;

use anyhow::Result;
use burn_ema_lab::data::{Missing, Reading};
use clap::ValueEnum;

use crate::{same, shared};

/// The options for reading the CSV, which are saved with the run.
#[derive(clap::Args)]
pub struct ReadingArgs {
    /// The character between the cells of the CSV, or tab or space [default: ,]
    #[arg(long, value_parser = shared::delimiter)]
    delimiter: Option<char>,
    /// The CSV has no row with names; its columns are called 1, 2 and so on
    #[arg(long)]
    no_header: bool,
    /// A column of the CSV to leave out; several are left out by several of these
    #[arg(long, value_name = "COLUMN")]
    drop: Vec<String>,
    /// Cells without a value (empty, NA, nan, null or ?) are an error, or their rows are left out,
    /// or they get the mean of the training rows, where rows without a target are left out
    /// [default: error]
    #[arg(long)]
    missing: Option<Lacking>,
}

impl ReadingArgs {
    /// The way of reading that was asked for, where nothing is that of the run that goes on.
    pub fn reading(&self, saved: Option<&Reading>) -> Result<Reading> {
        let missing = self.missing.map(|missing| match missing {
            Lacking::Error => Missing::Error,
            Lacking::Drop => Missing::Drop,
            Lacking::Mean => Missing::Mean,
        });
        let Some(saved) = saved else {
            let default = Reading::default();
            return Ok(Reading {
                delimiter: self.delimiter.unwrap_or(default.delimiter),
                header: !self.no_header,
                drop: self.drop.clone(),
                missing: missing.unwrap_or(default.missing),
                ..default
            });
        };
        same("--delimiter", self.delimiter, saved.delimiter)?;
        same("--no-header", self.no_header.then_some(true), !saved.header)?;
        // In whatever order they are given, and however often.
        let names = |drop: &[String]| {
            let names: Vec<_> = drop.iter().collect::<BTreeSet<_>>().into_iter().collect();
            format!("{names:?}")
        };
        let drop = (!self.drop.is_empty()).then(|| names(&self.drop));
        same("--drop", drop, names(&saved.drop))?;
        same("--missing", missing.map(Missing::name), saved.missing.name())?;
        Ok(saved.clone())
    }

    /// Says if any of the options was given.
    pub fn is_given(&self) -> bool {
        let Self { delimiter, no_header, drop, missing } = self;
        delimiter.is_some() || *no_header || !drop.is_empty() || missing.is_some()
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum Lacking {
    Error,
    Drop,
    Mean,
}
