//! The options that say how a CSV is read, and what of it is learned.

use burn_ema_lab::data::{Missing, Reading, TaskKind};
use clap::ValueEnum;

use crate::shared;

/// The options for reading a CSV.
#[derive(clap::Args)]
pub struct ReadingArgs {
    /// The character between the cells of the CSV, or tab or space [default: ,]
    #[arg(long, value_parser = shared::delimiter)]
    pub delimiter: Option<char>,
    /// The CSV has no row with names; its columns are called 1, 2 and so on
    #[arg(long)]
    pub no_header: bool,
    /// A column of the CSV to leave out; several are left out by several of these
    #[arg(long, value_name = "COLUMN")]
    pub drop: Vec<String>,
    /// Cells without a value (empty, NA, nan, null or ?) are an error, or their rows are left out,
    /// or they get the mean of the training rows, where rows without a target are left out
    /// [default: error]
    #[arg(long)]
    missing: Option<Lacking>,
}

impl ReadingArgs {
    /// The way of reading that was asked for; the default in everything that was not given.
    pub fn reading(&self) -> Reading {
        let default = Reading::default();
        Reading {
            delimiter: self.delimiter.unwrap_or(default.delimiter),
            header: !self.no_header,
            drop: self.drop.clone(),
            missing: self.missing().unwrap_or(default.missing),
            ..default
        }
    }

    /// The treatment of cells without a value, where that was given.
    pub fn missing(&self) -> Option<Missing> {
        self.missing.map(|missing| match missing {
            Lacking::Error => Missing::Error,
            Lacking::Drop => Missing::Drop,
            Lacking::Mean => Missing::Mean,
        })
    }

    /// Refuses the options where no CSV is read.
    pub fn refuse(&self) -> anyhow::Result<()> {
        let Self { delimiter, no_header, drop, missing } = self;
        anyhow::ensure!(
            delimiter.is_none() && !no_header && drop.is_empty() && missing.is_none(),
            "--delimiter, --no-header, --drop and --missing say how the CSV of --data is read"
        );
        Ok(())
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum Lacking {
    Error,
    Drop,
    Mean,
}

/// The task of a table.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub enum Learned {
    Classification,
    Regression,
}

impl Learned {
    /// The task, as the reader of a table takes it.
    pub fn kind(self) -> TaskKind {
        match self {
            Self::Classification => TaskKind::Classification,
            Self::Regression => TaskKind::Regression,
        }
    }
}
