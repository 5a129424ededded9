//! Draws runs on a page, with their pictures as files beside it.
//!
//! ```text
//! cargo run --example report -- artifacts/runs/default
//! cargo run --example report -- artifacts/runs/a artifacts/runs/b --out both.html
//! ```
//!
//! A run of the example `train` draws its own at its end; this draws one that still trains, one whose
//! page is lost, or several side by side.

#[macro_use]
mod shared; // `println!` to a reader that may leave

use std::path::PathBuf;

use anyhow::Result;
use burn_ema_lab::{report::Page, run::RunDirectory};
use clap::Parser;

#[derive(Parser)]
#[command(about = "Draw runs on a page, with their pictures as files beside it")]
struct Args {
    /// The directories of the runs, which stand side by side
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// The page [default: report.html in the directory of the run; of several runs, here]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let runs = args.runs.iter().map(RunDirectory::open).collect::<Result<Vec<_>, _>>()?;
    let out = args.out.unwrap_or_else(|| match &args.runs[..] {
        [run] => run.join("report.html"),
        _ => PathBuf::from("report.html"),
    });
    let page = Page::of(&runs)?;
    let pictures = page.write(&out)?;
    println!("{}: {:.0} kB", out.display(), page.html().len() as f64 / 1e3);
    println!("{}: {} pictures", pictures.display(), page.pictures().count());
    Ok(())
}
