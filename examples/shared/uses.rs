//! What the examples share that compare models over several seeds.

#![allow(dead_code)] // each example uses some

pub mod jobs; // several trainings at a time
pub mod random; // noise of a seed
pub mod scores; // means over seeds, and what is more than chance
pub mod statistics; // deviations, intervals, tests
pub mod table; // columns, or Markdown

/// The options of every such example.
#[derive(clap::Args)]
pub struct Options {
    /// The trainings of each setting, of seeds from 1
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub seeds: u64,
    /// Print the table alone, in Markdown
    #[arg(long)]
    pub markdown: bool,
    /// The device, such as flex, ndarray or wgpu; else BURN_DEVICE, else the Cargo features decide
    #[arg(long)]
    pub device: Option<String>,
}
