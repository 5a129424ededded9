//! The run that a file of weights is of, in the source of its description: its directory, and the
//! seed of its split.

#![allow(dead_code)] // each example uses some

use std::path::Path;

use burn_ema::export::Contents;
use burn_ema_lab::run::RunDirectory;

/// The source of a file that is written of a run.
pub fn origin(run: &Path, seed: u64) -> String {
    with_seed(format!("the run in {}", run.display()), seed)
}

/// A source with the seed of its run, unless it has one.
pub fn with_seed(source: String, seed: u64) -> String {
    match of_source(&source) {
        Some(_) => source,
        None => format!("{source} (seed {seed})"),
    }
}

fn of_source(source: &str) -> Option<u64> {
    source.rsplit_once("(seed ")?.1.strip_suffix(')')?.parse().ok()
}

/// The seed by which the rows of a file's training were split: that of its source, or of the run in
/// whose directory it is; `None` where neither shows it.
pub fn seed(file: &Path) -> Option<u64> {
    let described = Contents::read(file).ok().and_then(|contents| contents.description);
    described.and_then(|it| of_source(&it.source)).or_else(|| {
        let directory = file.parent().filter(|_| file.ends_with("model.bpk"))?;
        let run = match directory.parent() {
            Some(commits) if commits.ends_with("commits") => commits.parent()?,
            _ => directory,
        };
        Some(RunDirectory::open(run).ok()?.config().ok()?.seed)
    })
}
